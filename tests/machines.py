"""Machines of their own on this one: each a network namespace with an address, a hostname and a /dev/shm.

Programs started on a machine have its network, hostname, /etc/hosts, process numbers and shared memory; the
disk is this machine's. A machine can be cut off from the others and joined again; a program that is
switched off takes everything that it started with it, as a power cut does.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NETWORKS = range(77, 97)
TOOLS = ("ip", "unshare", "nsenter", "mount")
NAMED = 'hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"'
INSIDE = f"mount -t tmpfs tmpfs /dev/shm && {NAMED}"


def missing() -> str | None:
    """Why machines can't be made here, or `None`."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "needs root on Linux, for network namespaces"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"needs {', '.join(absent)} (Debian: iproute2, util-linux)"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False
    )
    return f"namespaces are refused here: {tried.stderr.strip()}" if tried.returncode else None


@dataclass(frozen=True)
class Machines:
    """Machines on one network; this machine itself is on it too, by the name `host`."""

    folder: Path
    number: int
    names: tuple[str, ...]
    host: str

    @property
    def bridge(self) -> str:
        return f"tlbr{self.number}"

    def address(self, name: str) -> str:
        """The address of a machine, or of this one under the name `host`."""
        return f"10.77.{self.number}.{1 if name == self.host else 11 + self.names.index(name)}"

    def namespace(self, name: str) -> str:
        return f"tl{self.number}-{name}"

    def _cable(self, name: str) -> str:
        return f"tlv{self.number}-{self.names.index(name)}"

    @property
    def hosts(self) -> Path:
        return self.folder / "hosts"

    def start(
        self, name: str, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts a program on a machine; its output is added to `log`."""
        entered = (
            "nsenter", f"--net=/run/netns/{self.namespace(name)}",
            "unshare", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
            "bash", "-c", INSIDE, "bash", name, str(self.hosts), *argv,
        )  # fmt: skip
        return self._start(entered, log, env)

    def start_here(
        self, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts a program on this machine, under the name `host` and with the names of the others."""
        entered = ("unshare", "--uts", "--mount", "bash", "-c", NAMED, "bash", self.host, str(self.hosts))
        return self._start((*entered, *argv), log, env)

    @staticmethod
    def _start(argv: Sequence[str], log: Path, env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                argv,
                env=None if env is None else dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def cut(self, name: str) -> None:
        """Pulls a machine's network cable."""
        _ip("link", "set", self._cable(name), "down")

    def join(self, name: str) -> None:
        """Puts the cable back."""
        _ip("link", "set", self._cable(name), "up")


def switch_off(process: subprocess.Popen[bytes]) -> None:
    """Ends a started program and all that it started, at once, as a power cut does."""
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.wait()


@contextmanager
def machines(folder: Path, names: Sequence[str], *, host: str = "ctl") -> Iterator[Machines]:
    """Makes the machines; afterwards nothing of them is left, whatever happened inside."""
    made = _bridge(folder, tuple(names), host)
    try:
        for name in made.names:
            _machine(made, name)
        hosts = [f"{made.address(name)} {name}" for name in (host, *names)]
        made.hosts.write_text("\n".join(["127.0.0.1 localhost", *hosts, ""]))
        yield made
    finally:
        for name in made.names:
            _end_programs(made.namespace(name))
            for gone in (("link", "del", made._cable(name)), ("netns", "del", made.namespace(name))):
                subprocess.run(["ip", *gone], capture_output=True, check=False)
        _ip("link", "del", made.bridge)


def _bridge(folder: Path, names: tuple[str, ...], host: str) -> Machines:
    """The first network that nobody on this machine uses."""
    for number in NETWORKS:
        made = Machines(folder, number, names, host)
        tried = subprocess.run(
            ["ip", "link", "add", made.bridge, "type", "bridge"], capture_output=True, check=False
        )
        if tried.returncode == 0:
            _ip("addr", "add", f"{made.address(host)}/24", "dev", made.bridge)
            _ip("link", "set", made.bridge, "up")
            return made
    raise RuntimeError("every network of this kit is in use; `ip link` lists them as tlbr*")


def _machine(made: Machines, name: str) -> None:
    space, cable = made.namespace(name), made._cable(name)
    _ip("netns", "add", space)
    _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
    _ip("link", "set", cable, "master", made.bridge, "up")
    _ip("-n", space, "addr", "add", f"{made.address(name)}/24", "dev", "eth0")
    _ip("-n", space, "link", "set", "eth0", "up")
    _ip("-n", space, "link", "set", "lo", "up")


def _end_programs(space: str) -> None:
    """Ends what still runs in a namespace, and waits until it is gone."""
    for _ in range(50):
        found = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=False)
        if not found.stdout.split():
            return
        for pid in map(int, found.stdout.split()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
