"""Where runs stand, and what tries of a run came to, from files alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.kit import wait_for
from tlscale.launching.fitness import Examination, judged
from tlscale.launching.node import descendants, machine_command
from tlscale.launching.queue import Queued
from tlscale.launching.status import duration, found_runs, statuses, table
from tlscale.runs import attempts
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import append_line, write_json, write_text

ROOT = Path(__file__).parents[2]


def running(layout: RunLayout, *events: dict[str, Any]) -> None:
    write_text(layout.plan, "{}")
    for moment, event in enumerate(events):
        append_line(layout.events, {"time": 100.0 + moment, **event})


def step(number: int) -> dict[str, Any]:
    return {"event": "step", "step": number, "steps": 50, "loss": 1.5}


def queued(state: str, reason: str = "None", element: str | None = None) -> Queued:
    return Queued("7", "7", element, state, reason, "n1")


def submitted(layout: RunLayout, *tasks: list[str]) -> None:
    write_json(layout.job, {"jobs": {"train": "7"}, "runs": list(tasks), "flags": []})


def test_a_run_tells_its_pace_and_what_was_repeated(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "run")
    resumed = {"event": "resumed", "step": 2}
    running(layout, {"event": "start"}, step(1), step(2), step(3), resumed, step(3), step(4), step(5))
    submitted(layout, [str(layout.root)])
    (found,) = statuses(layout.root, [queued("RUNNING")])
    assert (found.state, found.step, found.steps, found.repeated) == ("running", 5, 50, 1)
    assert found.seconds_per_step == pytest.approx(1.0)
    assert found.left == pytest.approx(45.0)
    assert "5 / 50" in table([found])
    (waiting,) = statuses(layout.root, [queued("PENDING", "Resources")])
    assert (waiting.state, waiting.why, waiting.left) == ("waiting", "Resources", None)
    attempts.begin(layout, "7.0", ["n1"])
    unfit = {"time": 2, "event": "unfit", "try": "7.0", "machines": {"n1": ["no GPU"]}}
    append_line(layout.attempts, unfit)
    (waiting,) = statuses(layout.root, [queued("PENDING", "Resources")])
    assert (waiting.restarts, waiting.why) == (0, "Resources; n1: no GPU")
    attempts.begin(layout, "7.1", ["n2"])
    (again,) = statuses(layout.root, [queued("RUNNING")])
    assert (again.restarts, again.why) == (1, "n1: no GPU")


def test_a_search_tells_of_its_jobs_and_of_its_end(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "grid-sweep")
    write_json(layout.job, {"jobs": {"sweep": "7"}, "runs": [], "flags": []})
    found = statuses(
        layout.root, [queued("RUNNING", element="0"), queued("PENDING", "JobArrayTaskLimit", "1")]
    )
    assert [(one.state, one.why) for one in found] == [("running", ""), ("waiting", "JobArrayTaskLimit")]
    assert [one.state for one in statuses(layout.root, [])] == ["unfinished"]
    (layout.root / "best.yaml").write_text("")
    assert [one.state for one in statuses(layout.root, [])] == ["done"]


@pytest.mark.parametrize(
    ("marker", "text", "state", "why"),
    [("DONE", "x", "done", ""), ("FAILED", "PlanError: no\n", "failed", "PlanError: no")],
)
def test_markers_say_how_it_ended(tmp_path: Path, marker: str, text: str, state: str, why: str) -> None:
    layout = RunLayout(tmp_path / "run")
    running(layout, step(50))
    (tmp_path / "run" / marker).write_text(text)
    (found,) = statuses(layout.root, [])
    assert (found.state, found.why) == (state, why)


def test_each_seed_has_its_own_element(tmp_path: Path) -> None:
    root = RunLayout(tmp_path / "runs" / "seeds")
    seeds = [RunLayout(root.root / f"seed-{index}") for index in range(2)]
    for seed in seeds:
        running(seed, step(1))
    submitted(root, *[[str(seed.root)] for seed in seeds])
    found = statuses(root.root, [queued("RUNNING", element="0"), queued("PENDING", "Resources", "1")])
    assert [one.state for one in found] == ["running", "waiting"]
    assert found_runs(tmp_path / "runs") == (root.root,)


def test_a_try_is_given_up_for_want_of_progress_alone(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    for index in range(3):
        tries = attempts.begin(layout, f"7.{index}", ["n1"])
    assert attempts.stuck(tries, 2)
    assert not attempts.stuck(tries, 3)
    append_line(layout.measurements, {"arm": "base"})
    assert not attempts.stuck(attempts.begin(layout, "7.3", ["n1"]), 2)
    assert attempts.newest(layout) == "7.3"


def test_a_try_that_finds_another_machine_unfit_does_not_count(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    for index, machine in enumerate(("n1", "n2", "n3", "n3", "n3")):
        tries = attempts.begin(layout, f"7.{index}", [machine])
        assert not attempts.stuck(tries, 2)
        unfit = {"time": 1, "event": "unfit", "try": f"7.{index}", "machines": {machine: ["no GPU"]}}
        append_line(layout.attempts, unfit)
    assert attempts.stuck(attempts.begin(layout, "7.5", ["n3"]), 2)


def test_a_try_knows_why_the_one_before_ended(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    assert attempts.begin(layout, "7.0", ["n1"])[-1].after is None
    assert attempts.begin(layout, "7.1", ["n1"])[-1].after == "a machine was lost"
    write_text(layout.stopped, json.dumps({"reason": "SIGTERM", "stage": "s", "step": 3, "steps": 9}))
    assert attempts.begin(layout, "7.2", ["n1"])[-1].after == "SIGTERM"
    assert not layout.stopped.exists()
    append_line(layout.attempts, {"time": 1, "event": "end", "try": "7.2", "code": 137})
    assert attempts.begin(layout, "7.3", ["n1"])[-1].after == "a process ended with code 137"
    unfit = {"time": 2, "event": "unfit", "try": "7.3", "machines": {"n1": ["disk full", "no GPU"]}}
    append_line(layout.attempts, unfit)
    assert attempts.begin(layout, "7.3b", ["n2"])[-1].after == "n1: disk full, no GPU"
    write_text(layout.failed, "rank 1 gives no sign of life\n")
    assert attempts.begin(layout, "7.4", ["n1"])[-1].after == "rank 1 gives no sign of life"


def test_a_process_of_an_earlier_try_ends_before_it_writes(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    attempts.begin(layout, "7.1", ["n1"])
    code = (
        "import sys; from pathlib import Path; from tlscale.runs import attempts; "
        "from tlscale.runs.layout import RunLayout; "
        "attempts.leave_to(RunLayout(Path(sys.argv[1])), sys.argv[2]); print('wrote')"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    found = {
        name: subprocess.run([*argv, name], cwd=ROOT, capture_output=True, text=True, check=False)
        for name in ("7.0", "7.1")
    }
    assert (found["7.0"].returncode, found["7.0"].stdout) == (attempts.SUPERSEDED, "")
    assert (found["7.1"].returncode, found["7.1"].stdout) == (0, "wrote\n")


def exam(machine: str, *problems: str, meeting: tuple[str, ...] = (), torch: str = "2.13") -> Examination:
    return Examination(machine, problems, meeting, {"torch": torch})


def test_machines_are_judged_by_themselves_and_by_what_most_have() -> None:
    machines = ["n1", "n2", "n3"]
    well = [exam(name) for name in machines]
    assert judged(well, machines) == {}
    assert judged(well[:2], machines) == {"n3": ["gave no answer"]}
    assert judged([*well[:2], exam("n3", torch="2.6")], machines) == {"n3": ["torch 2.6, others have 2.13"]}
    # who could not meet a machine that is not fit is well
    met = [exam("n1"), exam("n2", "disk"), exam("n3", meeting=("no sum",))]
    assert judged(met, machines) == {"n2": ["disk"]}
    assert judged([exam("n1"), exam("n2"), met[2]], machines) == {"n3": ["no sum"]}
    # the others meet at the first machine: it is to blame when it can't listen, or when nobody reaches it
    deaf = exam("n1", meeting=("can't listen",))
    others = [exam(name, meeting=("can't reach n1",)) for name in machines[1:]]
    assert judged([deaf, *others], machines) == {"n1": ["can't listen"]}
    assert judged([exam("n1"), *others], machines) == {"n1": ["no other machine meets it: can't reach n1"]}
    assert judged([exam("n1"), others[0]], machines[:2]) == {"n2": ["can't reach n1"]}


def test_one_process_needs_no_launcher() -> None:
    facts: dict[str, Any] = {"rank": 1, "address": "n1", "port": "20007", "attempt": "7.0"}
    alone = machine_command(Path("/r"), machines=1, processes=1, **facts)
    assert alone[1:] == ("-m", "tlscale.worker", "/r", "--action", "train", "--attempt", "7.0")
    many = " ".join(machine_command(Path("/r"), machines=2, processes=4, **facts))
    assert "--num_machines 2 --num_processes 8 --machine_rank 1 --main_process_ip n1" in many


AGENT = """
import sys
from pathlib import Path
from tlscale.launching import node
from tlscale.runs.layout import RunLayout
import ctypes, os
ctypes.CDLL(None).prctl(node.SUBREAPER, 1)
sys.exit(node.supervise(("bash", "-c", sys.argv[2]), RunLayout(Path(sys.argv[1])), os.environ, first=4))
"""


def agent(folder: Path, script: str, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", AGENT, str(folder), script],
        cwd=ROOT,
        env={**os.environ, "TLSCALE_TRY": name},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_each_rank_has_its_log_and_nothing_is_left_behind(tmp_path: Path) -> None:
    script = "echo '[default0]:a'; echo '[default1]:b'; setsid sleep 1000 & echo $! >\"$0.pid\"; exit 3"
    with agent(tmp_path, script.replace("$0", str(tmp_path / "left")), "7.0") as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 3
    assert said == "4: a\n5: b\n"
    layout = RunLayout(tmp_path)
    assert [layout.log(rank).read_text() for rank in (4, 5)] == ["a\n", "b\n"]
    left = int((tmp_path / "left.pid").read_text())
    assert not Path(f"/proc/{left}").exists() or "Z" in Path(f"/proc/{left}/stat").read_text()


def test_a_new_try_elsewhere_ends_this_one(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    write_text(layout.attempt, "7.0\n")
    with agent(tmp_path, "trap '' TERM; sleep 1000; echo late", "7.0") as process:
        wait_for(lambda: len(descendants(process.pid)) > 0, 30)
        write_text(layout.attempt, "7.1\n")
        began = time.monotonic()
        said, _ = process.communicate(timeout=60)
        assert time.monotonic() - began < 30
    assert process.returncode == attempts.SUPERSEDED
    assert "late" not in said


def test_a_second_signal_does_not_hurry_a_patient_process() -> None:
    code = (
        "import os, signal, time\nfrom tlscale.engine import signals\n"
        "signals.SAME_REQUEST_SECONDS = 0.0\n"
        "stops = signals.Stops(patient=True)\n"
        "with stops.heard(), stops.deferred():\n"
        "    for _ in range(3):\n        os.kill(os.getpid(), signal.SIGTERM)\n        time.sleep(0.05)\n"
        "    print(stops.reason())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "SIGTERM\n", done.stderr
    hurried = subprocess.run(
        [sys.executable, "-c", code.replace("patient=True", "")], cwd=ROOT, capture_output=True, check=False
    )
    assert hurried.returncode == 128 + signal.SIGTERM


def test_durations_name_the_end() -> None:
    assert duration(5400).startswith("1 h 30 (to ")
    assert duration(120).startswith("2 min (to ")
