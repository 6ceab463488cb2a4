"""Machines that are to train together find each other first, in bounded time.

torch and its launchers wait many minutes for a machine that doesn't come, and then say only how many came.
Here every process says that it is there, and what is installed beside it, in the store by which torch's
processes find each other; the first process waits for all and tells all what it found.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta

from torch.distributed import DistError
from torch.distributed.distributed_c10d import Store

from tlscale.errors import TlscaleError

PAUSE = 0.5
# what an attempt to connect may take, so that a reason is known before the time is over
CONNECTING = 5.0
# the others hear of the first process's findings a little later than it does
LATER = 20.0
HEARING = 3.0
VERDICT = "tlscale/verdict"


@dataclass(frozen=True)
class Arrival:
    """What a process says of itself; `versions` are those of its packages."""

    machine: str
    versions: Mapping[str, str]


def unreachable(address: str, port: int, seconds: float) -> str | None:
    """Why the first machine can't be reached from here, `None` as soon as it can."""
    place, here = f"{address}:{port}", socket.gethostname()
    deadline, reason = time.monotonic() + seconds, "there was no time"
    while time.monotonic() < deadline:
        try:
            socket.create_connection((address, port), timeout=CONNECTING).close()
        except socket.gaierror as error:
            reason = (
                f"the name {address} is not known here ({error.strerror}); give the first machine's IP "
                "address, or add its name to /etc/hosts or DNS"
            )
        except ConnectionRefusedError:
            reason = (
                "that port is closed: the first machine has not started, it was told another port, or its "
                "firewall turns others away"
            )
        except TimeoutError:
            reason = (
                "there is no answer: the address is wrong, the machine is off, or a firewall is between"
            )
        except OSError as error:
            reason = f"{error.strerror}; compare the address with `ip addr` on the first machine"
        else:
            return None
        time.sleep(PAUSE)
    return f"machine {here} can't reach the first machine at {place} within {seconds:.0f} s: {reason}"


def meet(
    store: Store, *, rank: int, world: int, machines: int, versions: Mapping[str, str], seconds: float
) -> None:
    """Returns when all processes have come and have the same packages.

    Args:
        store: Shared by all processes.
        rank: Of this process; those of a machine follow each other.
        world: How many processes are awaited.
        machines: On how many machines they are, as many on each.
        versions: What is installed here.
        seconds: How long the first process waits for the others.

    Raises:
        TlscaleError: processes are missing, or packages differ; their machines are named.
    """
    own = Arrival(socket.gethostname(), dict(versions))
    store.set(_key(rank), json.dumps(asdict(own)))
    if rank == 0:
        verdict = _verdict(store, world, machines, seconds)
        store.set(VERDICT, verdict)
        if verdict:
            _wait_to_be_heard(store, world)
    else:
        try:
            store.wait([VERDICT], timedelta(seconds=seconds + LATER))
            verdict = store.get(VERDICT).decode()
            store.set(_heard(rank), "")
        except DistError as error:
            raise TlscaleError(
                f"{own.machine}: the first process has said nothing within {seconds:.0f} s: it has not "
                "started, or has ended; its own output says why"
            ) from error
    if verdict:
        raise TlscaleError(verdict)


def _verdict(store: Store, world: int, machines: int, seconds: float) -> str:
    """What is wrong with those who came and didn't, empty if nothing is."""
    try:
        store.wait([_key(rank) for rank in range(world)], timedelta(seconds=seconds))
    except DistError:
        return missing(
            {rank: _arrival(store, rank) for rank in _came(store, world)}, world, machines, seconds
        )
    return differing([_arrival(store, rank) for rank in range(0, world, max(1, world // machines))])


def _wait_to_be_heard(store: Store, world: int) -> None:
    """The store may end with this process, and the others are to know why."""
    with suppress(DistError):
        others = [_heard(rank) for rank in _came(store, world) if rank]
        if others:
            store.wait(others, timedelta(seconds=HEARING))


def _came(store: Store, world: int) -> list[int]:
    return [rank for rank in range(world) if store.check([_key(rank)])]


def missing(came: Mapping[int, Arrival], world: int, machines: int, seconds: float) -> str:
    """Names the machines that lack processes, and those that are there."""
    each = max(1, world // machines)
    lacking = []
    for machine in range(machines):
        ranks = range(machine * each, (machine + 1) * each)
        absent = [rank for rank in ranks if rank not in came]
        name = next((came[rank].machine for rank in ranks if rank in came), "")
        if absent:
            who = f"{name}, " if name else ""
            listed = ", ".join(map(str, absent))
            lacking.append(f"machine {machine} ({who}machine_rank {machine}): rank {listed}")
    there = ", ".join(dict.fromkeys(one.machine for one in came.values()))
    return (
        f"{world - len(came)} of {world} processes have not come within {seconds:.0f} s: "
        f"{'; '.join(lacking)}. Here: {there}. The output of the machine that is missing says why, if it "
        "was started; raise hardware.rendezvous_timeout if it only needs longer"
    )


def differing(came: list[Arrival]) -> str:
    """Names each package that is not the same everywhere, and its version on each machine."""
    found = []
    for package in sorted({name for one in came for name in one.versions}):
        by_version: dict[str, list[str]] = {}
        for one in came:
            by_version.setdefault(one.versions.get(package, "none"), []).append(one.machine)
        if len(by_version) > 1:
            said = ", ".join(f"{version} on {' '.join(names)}" for version, names in by_version.items())
            found.append(f"{package} {said}")
    if not found:
        return ""
    return f"machines have different packages: {'; '.join(found)}; install the same on all, and start again"


def _key(rank: int) -> str:
    return f"tlscale/arrived/{rank}"


def _heard(rank: int) -> str:
    return f"tlscale/heard/{rank}"


def _arrival(store: Store, rank: int) -> Arrival:
    return Arrival(**json.loads(store.get(_key(rank))))
