"""Known defects of batch scripts, found by reading anyone's: `tlscale lint SCRIPT`.

Each rule stands for a way in which a job was lost, hung, or quietly computed something else. The script is
only read, never run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tlscale.launching.shell import Expansion, Statement, expansions, statements
from tlscale.recipe.launch import SECRET

LISTS = {"SLURM_JOB_NODELIST", "SLURM_NODELIST", "SLURM_STEP_NODELIST"}
RANKS = {"SLURM_NODEID", "SLURM_PROCID", "SLURM_LOCALID"}
PORT = re.compile(
    r"(?:\b(?:MASTER|MAIN_PROCESS)_PORT=[\"']?|[-_]port[ =][\"']?|rdzv[-_]endpoint[ =]\S*?:|_PORT:-)"
    r"(\d{2,5})\b"
)
LAUNCHERS = re.compile(r"\b(accelerate\s+launch|torchrun|torch\.distributed\.(?:run|launch)|deepspeed)\b")
LOOPBACK = re.compile(r"\b(?:MASTER_ADDR|main_process_ip)[ =][\"']?(?:localhost|127\.0\.0\.1)\b")
GIVEN = re.compile(r"\b(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=[\"']?([^\s\"'$]+)")
SINGLE_STEP = re.compile(r"(?:--nodes[ =]1|-N ?1)\b.*(?:--ntasks[ =]1|-n ?1)\b")


@dataclass(frozen=True)
class Finding:
    """A defect: its rule's name, the line (0 for the whole file), what happens, and what to do."""

    rule: str
    line: int
    what: str
    fix: str


@dataclass(frozen=True)
class Script:
    """A batch script, read."""

    options: tuple[tuple[int, str], ...]
    late: tuple[int, ...]
    code: tuple[Statement, ...]
    expanded: tuple[Expansion, ...]

    def option(self, name: str, short: str = "") -> str | None:
        """The value of an option in a `#SBATCH` line, "" without one, `None` where it isn't given."""
        for _, text in self.options:
            for word in (f"--{name}", f"-{short}" if short else f"--{name}"):
                found = re.search(rf"(?:^|\s){re.escape(word)}(?:[= ]([^\s#]+)|(?=\s|$))", text)
                if found:
                    return found[1] or ""
        return None

    def lines(self, pattern: str) -> list[Statement]:
        """The statements in which `pattern` is found."""
        return [one for one in self.code if re.search(pattern, one.text)]


def read(text: str) -> Script:
    """A script, taken apart."""
    options, late, begun = [], [], False
    code = tuple(statements(text))
    first = code[0].line if code else 0
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("#SBATCH"):
            begun = bool(first) and number > first
            (late.append(number) if begun else options.append((number, line[7:].strip())))
    return Script(tuple(options), tuple(late), code, tuple(expansions(text)))


def lint(text: str) -> tuple[Finding, ...]:
    """Every known defect in a batch script, by line."""
    script = read(text)
    found = [finding for rule in RULES for finding in rule(script)]
    return tuple(sorted(found, key=lambda one: (one.line, one.rule)))


def comes_back(script: Script) -> Iterator[Finding]:
    if script.option("requeue") is None or script.option("no-requeue") is not None:
        yield Finding(
            "no-requeue", 0, "after a lost machine or preemption the job is gone", "#SBATCH --requeue"
        )
    elif (script.option("open-mode") or "") not in ("append", "a"):
        yield Finding("log-overwritten", 0, "each try overwrites the log", "#SBATCH --open-mode=append")
    if script.option("time", "t") is None and script.option("signal") is None:
        yield Finding(
            "no-time-limit", 0, "the partition's default time limit ends the job", "#SBATCH --time=..."
        )


def hears_signals(script: Script) -> Iterator[Finding]:
    signal = script.option("signal")
    if signal is None:
        yield Finding(
            "no-signal",
            0,
            "at the time limit the job is killed unsaved",
            "#SBATCH --signal=B:USR1@120, and a trap",
        )
        return
    name = signal.partition("@")[0].rpartition(":")[2].removeprefix("SIG")
    trapped = script.lines(rf"\btrap\b.*\b(?:SIG)?{re.escape(name)}\b")
    if not signal.startswith("B:"):
        yield Finding(
            "signal-to-launcher",
            0,
            "the signal goes to every process of the steps; launchers die of it and leave workers behind",
            f"#SBATCH --signal=B:{signal}, and a trap in the script",
        )
    elif not trapped:
        yield Finding("signal-unheard", 0, f"{name} has no trap and ends the script", f"trap '...' {name}")
    elif trapped:
        for one in script.lines(r"^\s*srun\b"):
            if not one.text.rstrip().endswith("&") and not SINGLE_STEP.search(one.text):
                yield Finding(
                    "trap-waits",
                    one.line,
                    "bash runs a trap only when the command in the foreground has ended",
                    "srun ... & then wait for it in a loop",
                )


def expands(script: Script) -> Iterator[Finding]:
    for number, text in script.options:
        if "$" in text:
            yield Finding(
                "variable-in-sbatch",
                number,
                "#SBATCH lines are not expanded",
                "a literal, or a flag of sbatch",
            )
    for number in script.late:
        yield Finding(
            "sbatch-ignored",
            number,
            "Slurm reads #SBATCH only before the first command",
            "move it to the top",
        )
    for one in script.expanded:
        if one.name in LISTS and one.quoting == "none" and not one.assigned:
            yield Finding(
                "unquoted-node-list",
                one.line,
                f"${one.name} is a pattern such as n[1-4], and becomes the name of a file that fits it",
                f'"${one.name}"',
            )
        if one.name in RANKS and script.options:
            yield Finding(
                "rank-of-batch-shell",
                one.line,
                f"the batch shell expands ${one.name}, so every machine gets 0",
                f"srun bash -c '... ${one.name} ...', in single quotes",
            )


def meets(script: Script) -> Iterator[Finding]:
    for one in script.code:
        port = PORT.search(one.text)
        if port:
            yield Finding(
                "fixed-port",
                one.line,
                f"port {port[1]} may be held by another job, or by the last try of this one",
                "MASTER_PORT=$((20000 + (SLURM_JOB_ID * 7 + ${SLURM_RESTART_COUNT:-0}) % 10000))",
            )
        if LOOPBACK.search(one.text) and (script.option("nodes", "N") or "1") != "1":
            yield Finding(
                "loopback-address",
                one.line,
                "each machine meets only itself",
                "the first of scontrol show hostnames",
            )
    tasks = script.option("ntasks-per-node") or "1"
    launched = [one for one in script.code if LAUNCHERS.search(one.text)]
    if tasks.isdecimal() and int(tasks) > 1 and launched:
        yield Finding(
            "launcher-per-task",
            launched[0].line,
            f"{tasks} launchers start on each machine, and each starts all of its processes",
            "#SBATCH --ntasks-per-node=1",
        )


def ends(script: Script) -> Iterator[Finding]:
    everywhere = any(
        "kill-on-bad-exit" in one.text or "SLURM_KILL_BAD_EXIT" in one.text for one in script.code
    )
    for one in script.lines(r"(?:^|[;&|(]\s*|\bexec\s+)srun\b"):
        own = re.search(r"--kill-on-bad-exit|\s-K", one.text)
        borrowed = everywhere and "$" in one.text
        if not own and not borrowed and not SINGLE_STEP.search(one.text):
            yield Finding(
                "no-kill-on-bad-exit",
                one.line,
                "when one machine fails, the others wait for it",
                "srun --kill-on-bad-exit=1",
            )
        if re.search(r"\|\s*tee\b", one.text) and not script.lines(r"\bset\b.*pipefail"):
            yield Finding("exit-code-lost", one.line, "tee's exit code replaces srun's", "set -o pipefail")
    chained = [(number, text) for number, text in script.options] + [
        (one.line, one.text) for one in script.code
    ]
    for number, text in chained:
        cared_for = "kill-on-invalid-dep" in text or script.option("kill-on-invalid-dep") is not None
        if re.search(r"\bafterok:|\baftercorr:", text) and not cared_for:
            yield Finding(
                "waits-for-ever",
                number,
                "when the job before it fails, this one stays in the queue for ever",
                "--kill-on-invalid-dep=yes",
            )
    for one in script.code:
        for name, _ in GIVEN.findall(one.text):
            if SECRET.search(name) and not name.startswith("SLURM_"):
                yield Finding(
                    "secret-in-script", one.line, f"{name} lies in a file", "export it where you submit"
                )


RULES: tuple[Callable[[Script], Iterator[Finding]], ...] = (comes_back, hears_signals, expands, meets, ends)
