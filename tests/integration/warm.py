"""Workers without the wait: a process that has imported everything heavy once, and forks for each start.

`Warm` gives a program that takes `-m MODULE ARGUMENTS` as Python does. What it starts has its own process,
working directory, environment, limits and output, and ends as the module ends; signals are passed on. The
file named in WARM_NOTES gets a line for each start: the module and the process's number. In processes
that run the module WARM_HOOKED, the function `install` of the module WARM_HOOKS is called first.
"""

from __future__ import annotations

import array
import json
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

CLIENT = """\
#!{python} -ISs
import array, json, os, resource, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
limits = {{name: resource.getrlimit(getattr(resource, name)) for name in ("RLIMIT_FSIZE",)}}
asked = dict(argv=sys.argv[1:], cwd=os.getcwd(), environment=dict(os.environ), limits=limits)
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
server.sendmsg([json.dumps(asked).encode() + b"\\n"], rights)
answers = server.makefile()
pid = int(answers.readline())
for one in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(one, lambda number, frame: os.kill(pid, number))
code = int(answers.readline())
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


class Warm:
    """The forking process, from `with Warm(folder) as program` to its end.

    `environment` is what libraries see that read theirs while they are imported.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._environment = environment or {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self._address, self._program = folder / "warm.socket", folder / "python"

    def __enter__(self) -> Path:
        python = Path(sys.executable)
        self._program.write_text(CLIENT.format(python=python, address=str(self._address)))
        self._program.chmod(0o755)
        argv = [sys.executable, "-m", __name__, str(self._address), str(self._program)]
        self._process = subprocess.Popen(argv, env=self._environment, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "warm\n"
        return self._program

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def serve(address: str, program: str) -> None:
    """Forks for every request until it is terminated."""
    import peft
    import scipy.stats
    import transformers

    import tlscale.report.verdict
    import tlscale.worker.run

    assert all((peft, scipy, transformers, tlscale))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("warm", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _supervise(connection, program)
        connection.close()


def _supervise(connection: socket.socket, program: str) -> None:
    """Reads one request, forks the process that does it, and tells its number and its end."""
    text, rights, *_ = connection.recvmsg(1 << 20, socket.CMSG_SPACE(3 * 4))
    while not text.endswith(b"\n"):
        text += connection.recv(1 << 20)
    streams = array.array("i", rights[0][2])
    pid = os.fork()
    if pid == 0:
        _become(json.loads(text), streams, program)
    for stream in streams:
        os.close(stream)
    connection.sendall(f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(asked: dict[str, Any], streams: array.array[int], program: str) -> None:
    for index, stream in enumerate(streams):
        os.dup2(stream, index)
    for name, limit in asked["limits"].items():
        resource.setrlimit(getattr(resource, name), limit)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    # what the interpreter does at its start, long gone by here
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    flag, module, *rest = asked["argv"][1:] if asked["argv"][0] == "-u" else asked["argv"]
    if "WARM_NOTES" in os.environ:
        with Path(os.environ["WARM_NOTES"]).open("a") as notes:
            notes.write(f"{module} {os.getpid()}\n")
    assert flag == "-m"
    sys.executable, sys.argv = program, [module, *rest]
    if module == os.environ.get("WARM_HOOKED"):
        sys.path.insert(0, str(Path(__file__).parents[2]))
        runpy.run_module(os.environ["WARM_HOOKS"])["install"]()
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        # at once: tearing down all that is imported takes longer than most of what is tested
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)
    sys.exit()


if __name__ == "__main__":
    serve(*sys.argv[1:])
