"""Gives every hostile artifact to the command that meets it, under an audit hook, and prints the table.

`python -m tests.hub.attacks`. The hook sits in every process from its first instruction on and writes down
what it starts, whom it connects to and what it opens for writing; here that is compared with what is
planned: workers of tlscale, the loopback Hub, and files in the run directory, the Hub's cache and temporary
folders.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.hub import hostile, kit
from tests.hub.hostile import Files
from tests.hub.server import Hub, serving

HOOK = """
import os, sys
_log, _deep = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), [0]
def _hook(event, args):
    if _deep[0]:
        return
    _deep[0] = 1
    try:
        said = None
        if event == "open":
            path, mode, flags = args
            wrote = (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(flags, int) else 0
            if wrote and isinstance(path, (str, bytes)):
                said = "write\\t" + os.path.abspath(os.fsdecode(path))
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.symlink", "os.link", "shutil.rmtree"):
            place = args[1] if event in ("os.rename", "os.symlink", "os.link") else args[0]
            if isinstance(place, (str, bytes)):
                said = "write\\t" + os.path.abspath(os.fsdecode(place))
        elif event == "socket.connect":
            said = "connect\\t" + repr(args[1])
        elif event == "socket.getaddrinfo":
            said = "lookup\\t" + repr(args[0])
        elif event == "subprocess.Popen":
            said = "start\\t" + " ".join(map(str, args[1]))
        elif event in ("os.system", "os.exec", "os.posix_spawn", "pty.spawn"):
            said = "start\\t" + event + " " + repr(args[0])
        elif event == "pickle.find_class":
            said = "unpickle\\t" + ".".join(map(str, args))
        elif event == "import" and args[0] == "trap":
            said = "import\\ttrap"
        if said is not None:
            os.write(_log, (said.replace("\\n", " ") + "\\n").encode())
    finally:
        _deep[0] = 0
sys.addaudithook(_hook)
"""


@dataclass(frozen=True)
class Attack:
    """One command line and how it ended."""

    name: str
    code: int
    reason: str
    unplanned: tuple[str, ...]

    @property
    def good(self) -> bool:
        return self.code in (2, 5) and bool(self.reason) and not self.unplanned


@dataclass(frozen=True)
class Place:
    """Where the attacks happen: the Hub, a working folder, and the environment with the hook in it."""

    hub: Hub
    root: Path
    env: dict[str, str]
    trap: Path

    def planned(self, line: str) -> bool:
        """Whether an event is one that the commands are meant to have."""
        kind, _, what = line.partition("\t")
        if kind == "write":
            inside = what.startswith((f"{self.root}/", "/dev/null", "/proc/self/"))
            return inside and not what.startswith(str(self.trap))
        if kind == "connect":
            return f"'127.0.0.1', {self.hub.address.rpartition(':')[2]})" in what
        if kind == "lookup":
            return "127.0.0.1" in what
        if kind == "start":
            ours = any(f"{sys.executable} -m {module} " in what for module in OURS)
            return ours or any(tool in what for tool in TOOLS)
        return kind == "unpickle" and not what.startswith(("builtins.exec", "posix", "os."))


# What a run starts of tlscale itself: its worker, and the process that watches over that.
OURS = ("tlscale.worker", "tlscale.runs.watchdog")
# What torch and platform ask for by themselves when they are imported.
TOOLS = ("lscpu", "uname", "ldconfig", "gcc", "nvidia-smi", "/sbin/")


def run(place: Place, name: str, command: tuple[str, ...]) -> Attack:
    """Runs one command and compares what it did with what was planned."""
    log = place.root / "audit.log"
    log.write_text("")
    env = {**place.env, "AUDIT_LOG": str(log)}
    done = subprocess.run(
        [sys.executable, "-m", "tlscale", *command],
        env=env, cwd=place.root, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    events = dict.fromkeys(log.read_text().splitlines())
    unplanned = [line for line in events if not place.planned(line)]
    if place.trap.exists():
        unplanned.append("the trap was sprung")
        place.trap.unlink()
    if "Traceback" in done.stderr:
        unplanned.append("a traceback: " + done.stderr.strip().splitlines()[-1])
    said = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    said = [line for line in said if not line.startswith(("[transformers]", "fetched"))]
    return Attack(name, done.returncode, said[0] if said else "", tuple(unplanned))


def upload(hub: Hub, name: str, files: Files) -> None:
    """Puts files on the Hub as its store has them, whatever they are."""
    hub.store.create(name, private=False)
    hub.store.commit(name, "main", "hostile", files, {}, [], None)


def campaign(hub: Hub, root: Path, env: dict[str, str], good: Files, *, every: int = 1) -> list[Attack]:
    """All attacks, or one in `every`, one after the other; all temporary files lie below `root` too."""
    hooks, temporary = root / "hooks", root / "tmp"
    hooks.mkdir()
    temporary.mkdir()
    (hooks / "sitecustomize.py").write_text(HOOK)
    (root / "trap").mkdir()
    trap = root / "trap" / "sprung"
    env = {**env, "PYTHONPATH": f"{hooks}:{env['PYTHONPATH']}", "PYTHONDONTWRITEBYTECODE": "1"}
    # torch makes a cache for itself when it is imported, wherever temporary files go
    env |= {"TMPDIR": str(temporary), "TORCHINDUCTOR_CACHE_DIR": str(temporary / "inductor")}
    place = Place(hub, root, env, trap)
    artifacts = hostile.adapters(good, trap, hub.address)
    artifacts += hostile.manifests(good, trap) + hostile.recipes(good, trap, hub.address)
    commands: list[tuple[str, tuple[str, ...]]] = []
    for index, one in enumerate(artifacts):
        name = f"mallory/artifact-{index}"
        upload(hub, name, one.files)
        commands.append((one.name, tuple(part.replace("{}", name) for part in one.command)))
    files = root / "files"
    files.mkdir()
    commands += [*hostile.folders(files, trap), *hostile.addresses()]
    return [run(place, name, command) for name, command in commands[::every]]


def table(done: list[Attack]) -> str:
    """One row for each artifact, and the sums that matter."""
    lines = [f"{'artifact':<40} {'exit':>4}  reason"]
    for one in done:
        lines.append(f"{one.name:<40} {one.code:>4}  {one.reason[:140]}")
    kinds = Counter(line.partition("\t")[0] for one in done for line in one.unplanned)
    refused = sum(one.code in (2, 5) for one in done)
    lines.append(f"\n{len(done)} artifacts, {refused} refused with a reason")
    lines.append(
        f"unplanned: {kinds['start']} programs started, {kinds['connect'] + kinds['lookup']} connections, "
        f"{kinds['write']} writes outside, {kinds['import'] + kinds['unpickle']} imports or unpicklings"
    )
    lines += [
        f"NOT GOOD {one.name} (exit {one.code}): {'; '.join(one.unplanned)}" for one in done if not one.good
    ]
    return "\n".join(lines)


def main() -> int:
    """Publishes something good, spoils it in every way, and prints the table."""
    with tempfile.TemporaryDirectory(prefix="attacks-") as made, serving(Path(made) / "hub") as hub:
        root = Path(made)
        kit.with_base(hub, root / "base")
        env = kit.environment(hub, root / "home")
        kit.tlscale("run", str(kit.recipe(root)), env=env, cwd=root)
        kit.tlscale("push", "runs/colours", "--to", "ada/colours", env=env, cwd=root)
        folder = root / "runs" / "colours" / "publication"
        good = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        done = campaign(hub, root, env, good)
    print(table(done))
    return int(not all(one.good for one in done))


if __name__ == "__main__":
    sys.exit(main())
