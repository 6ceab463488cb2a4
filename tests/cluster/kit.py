"""A real Slurm cluster on this machine: slurmctld, and one slurmd per node in a namespace of its own.

Nodes can be switched off, cut off from the network and brought back; the controller can be started anew.
Everything is ended by its process number.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.machines import Machines, machines, missing, switch_off

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "munged")
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE"}
T = TypeVar("T")

CONF = """\
ClusterName=tl
SlurmctldHost=ctl({ctl})
SlurmctldPort={port}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/log/jobcomp.txt
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
KillWait=10
SlurmdTimeout=20
SlurmctldTimeout=10
MessageTimeout=10
GresTypes=gpu
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=15
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def problem() -> str | None:
    """Why no cluster can be brought up here, or `None`."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"needs {', '.join(absent)} (Debian: slurm-wlm, munge)"
    return missing()


@dataclass
class Cluster:
    """The running cluster; `env` is what its client commands need."""

    folder: Path
    machines: Machines
    env: dict[str, str]
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start_controller(self) -> None:
        argv = ["slurmctld", "-D"]
        log = self.folder / "log" / "ctl.out"
        self.daemons["ctl"] = self.machines.start_here(argv, log=log, env=self.env)

    def stop_controller(self) -> None:
        switch_off(self.daemons.pop("ctl"))

    def start_node(self, name: str) -> None:
        log = self.folder / "log" / f"node-{name}.out"
        argv = ["slurmd", "-D", "-N", name]
        self.daemons[name] = self.machines.start(name, argv, log=log, env=self.env)

    def stop_node(self, name: str) -> None:
        """Switches a node off."""
        switch_off(self.daemons.pop(name))

    def run(self, *argv: str, check: bool = True, cwd: Path | None = None) -> str:
        """The output of a client command."""
        done = subprocess.run(argv, env=self.env, cwd=cwd, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def job(self, number: str) -> Mapping[str, str]:
        """What the controller says about a job; empty when it doesn't know it any more."""
        said = self.run("scontrol", "show", "job", "-o", number, check=False).splitlines()
        return dict(part.split("=", 1) for part in said[0].split() if "=" in part) if said else {}

    def state(self, number: str) -> str:
        """The state of a job."""
        return self.job(number).get("JobState", "")

    def ready(self) -> bool:
        """Whether every node is free."""
        said = self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%T", check=False).split()
        return len(said) == len(self.machines.names) and set(said) == {"idle"}

    def processes(self) -> list[str]:
        """Command lines of what runs on the nodes besides Slurm's daemons: none when all is well."""
        found = []
        for name in self.machines.names:
            space = self.machines.namespace(name)
            for pid in self.run("ip", "netns", "pids", space).split():
                with suppress(OSError):
                    line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if line and not line.startswith(("slurmd", "slurmstepd", "unshare ")):
                        found.append(f"{name}: {line}")
        return found


def wait_for(what: Callable[[], T], seconds: float, said: str = "") -> T:
    """Asks until the answer is true; fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        answer = what()
        if answer:
            return answer
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain for {said or what}"
        time.sleep(0.3)


@contextmanager
def cluster(names: tuple[str, ...] = ("n1", "n2"), *, cpus: int = 2, gpus: int = 2) -> Iterator[Cluster]:
    """Brings a cluster up, and takes it down whatever happens inside."""
    folder = Path(tempfile.mkdtemp(prefix="tl-cluster-"))
    folder.chmod(0o755)
    try:
        with machines(folder, names) as made:
            yield from _cluster(folder, made, cpus, gpus)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _cluster(folder: Path, made: Machines, cpus: int, gpus: int) -> Iterator[Cluster]:
    for name in ("state", "spool", "log", "run", "munge", "dev", "work"):
        (folder / name).mkdir()
    _configure(folder, made, cpus, gpus)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
    up = Cluster(folder, made, env)
    try:
        _munge(up)
        up.start_controller()
        for name in made.names:
            up.start_node(name)
        wait_for(up.ready, 60, f"the nodes; see {folder}/log")
        yield up
    finally:
        for daemon in up.daemons.values():
            switch_off(daemon)


def _munge(up: Cluster) -> None:
    own = up.folder / "munge"
    key = own / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    files = [f"--{name}-file={own / name}" for name in ("key", "pid", "log", "seed")]
    argv = ["munged", "--foreground", "--force", f"--socket={own / 'socket'}", *files]
    with (up.folder / "log" / "munged.out").open("ab") as log:
        up.daemons["munge"] = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
    wait_for((own / "socket").exists, 20, "munged")


def _configure(folder: Path, made: Machines, cpus: int, gpus: int) -> None:
    nodes = [
        f"NodeName={name} NodeAddr={made.address(name)} Port=17001 CPUs={cpus} Gres=gpu:{gpus}"
        for name in made.names
    ]
    conf = CONF.format(ctl=made.address(made.host), port=6817, folder=folder, nodes="\n".join(nodes))
    (folder / "slurm.conf").write_text(conf)
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    for index in range(gpus):
        subprocess.run(["mknod", str(folder / "dev" / f"nvidia{index}"), "c", "1", "3"], check=True)
    (folder / "gres.conf").write_text(
        f"Name=gpu File={folder}/dev/nvidia[0-{gpus - 1}] Flags=nvidia_gpu_env\n"
    )
