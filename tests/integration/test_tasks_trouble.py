"""What goes wrong is named and stays alone: bad rows, code that raises, endpoints that stall, a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.integration import tiny
from tests.integration.test_tasks_runs import COLOURS, ROOT, tlscale
from tlscale.runs.record import read_lines

TASK = """\
task: {name}
kind: choice
test: {{path: {name}.jsonl}}
prompt: "{prompt}"
choices: colours
answer: colour
"""
# What is wrong with the third of eight rows, and what is said about it.
BAD = {
    "column": (
        {"colours": None, "colour": "red"},
        "task column: column.jsonl:3: no column 'thing'; columns there: colour",
    ),
    "empty": (
        {"thing": "car", "colours": ["red", ""], "colour": "red"},
        "empty.jsonl:3: choice 1 is empty",
    ),
    "range": (
        {"thing": "car", "colours": COLOURS, "colour": 3},
        "range.jsonl:3: the right answer is 3, out of range: there are 3 choices, numbered 0 to 2",
    ),
}
RAISES = """
from tlscale.evaluation.tasks import Document, Rows, Task


def document(row):
    return Document(query=row["thing"], choices=tuple(row["colours"]), answer=0, id=row["colour"])


def broken(row):
    raise ZeroDivisionError("of all things")


def judged(document, chosen, scores):
    raise KeyError("chosen")


PLACE = (Rows(path="good.jsonl"),)
TWICE = Task("twice", "", "choice", PLACE, ("acc",), document)
RAISES = Task("raises", "", "choice", PLACE, ("acc",), broken)
JUDGES = Task(
    "judges", "", "choice", PLACE, ("acc",),
    lambda row: Document(query=row["thing"], choices=tuple(row["colours"]), answer=0), extra=judged,
)
"""


def write(folder: Path, name: str, rows: list[dict[str, object]], prompt: str = "the {thing} is") -> None:
    (folder / f"{name}.yaml").write_text(TASK.format(name=name, prompt=prompt))
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trouble")
    tiny.llama(root / "llama")
    rows: list[dict[str, object]] = [
        {"thing": thing, "colours": COLOURS, "colour": COLOURS[at % 3]}
        for at, thing in enumerate(tiny.THINGS)
    ]
    write(root, "good", rows)
    with (root / "good.yaml").open("a") as file:
        file.write("train: {path: stalls.jsonl}\n")
    write(root, "stalls", rows, "what colour is the {thing} ? :")
    write(root, "long", rows, "the car is red " * 20 + "the {thing} is")
    write(
        root, "many", [{**row, "thing": f"{row['thing']} {'a ' * at}"} for at in range(25) for row in rows]
    )
    for name, (row, _) in BAD.items():
        write(root, name, [*rows[:2], {k: v for k, v in row.items() if v is not None}, *rows[3:]])
    (root / "trouble_tasks.py").write_text(RAISES)
    about = root / "trouble-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: trouble\nVersion: 1.0\n")
    named = [f"{name} = trouble_tasks:{name.upper()}" for name in ("twice", "raises", "judges", "missing")]
    (about / "entry_points.txt").write_text("\n".join(["[tlscale.tasks]", *named]) + "\n")
    return root


def test_every_bad_input_is_named_and_the_other_tasks_finish(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLSCALE_DATA", str(folder))
    asked = [*(f"{name}.yaml" for name in BAD), "twice", "raises", "judges", "missing", "long.yaml"]
    done = tlscale(
        folder, "eval", "llama", "--tasks", ",".join([*asked, "nosuch", "good.yaml"]), "--output", "bad"
    )
    assert done.returncode == 1
    assert "9 tasks failed; the others were scored:" in done.stderr
    for said in (
        *(said for _, said in BAD.values()),
        "task twice: ids are there twice, so items can't be paired: 'red' at good.jsonl:1 and good.jsonl:4",
        "task raises: good.jsonl:1: the task's own code failed: ZeroDivisionError: of all things",
        "task judges: good.jsonl:1: the answer can't be judged: KeyError: 'chosen'",
        "plugin trouble_tasks:MISSING can't be loaded: AttributeError",
        "long: 8 of 8 prompts (100.0%) are longer than the model's context and lose their beginning, up to",
        "nosuch: unknown task",
    ):
        assert said in done.stderr, done.stderr
    suites = {row["suite"] for row in read_lines(folder / "bad" / "measurements.jsonl")}
    assert suites == {"good"}


CHAT = "{% for m in messages %}{{ m.role }} : {{ m.content }} </s> {% endfor %}a :"


def test_examples_are_turns_of_the_models_own_chat_template(folder: Path) -> None:
    asked = ("--tasks", "good.yaml", "--shots", "0,2", "--chat", "--output", "chat")
    refused = tlscale(folder, "eval", "llama", *asked)
    assert refused.returncode == 2
    assert "evaluate.chat: the model has no chat template" in refused.stderr
    file = folder / "chat.jinja"
    file.write_text(CHAT)
    done = tlscale(folder, "eval", "llama", f"model.chat_template={file}", *asked[:-1], "chatted")
    assert done.returncode == 0, done.stderr
    assert {row["suite"] for row in read_lines(folder / "chatted" / "measurements.jsonl")} == {
        "good", "good-2shot"
    }  # fmt: skip


@pytest.fixture
def stalling() -> Iterator[str]:
    """A server of completions that never answers prompts which ask for a colour."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if "what colour" in body["prompt"]:
                over.wait(60)
                return
            starts = [at for at, c in enumerate(body["prompt"]) if at == 0 or body["prompt"][at - 1] == " "]
            said = {"text_offset": starts, "token_logprobs": [None, *(-float(s) for s in starts[1:])],
                    "top_logprobs": [None] * len(starts)}  # fmt: skip
            data = json.dumps({"choices": [{"text": "", "logprobs": said}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    over.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_endpoint_that_stalls_on_one_task_answers_the_other(folder: Path, stalling: str) -> None:
    options = [f"evaluate.predictor_options.{name}" for name in ("timeout=10", "retries=0")]
    tasks = ("--tasks", "stalls.yaml,good.yaml", "--output", "endpoint")
    done = tlscale(folder, "eval", stalling, *options, *tasks)
    assert done.returncode == 1
    assert "1 task failed; the others were scored:" in done.stderr
    assert f"{stalling}: no answer after 1 tries of 10 s" in done.stderr
    assert {row["suite"] for row in read_lines(folder / "endpoint" / "measurements.jsonl")} == {"good"}


def test_a_killed_evaluation_goes_on_where_it_stopped(folder: Path) -> None:
    def asked(output: str) -> list[str]:
        small = "evaluate.predictor_options.budget=16"
        return ["eval", "llama", small, "--tasks", "many.yaml", "--output", output]

    logs = folder / "killed" / "answers"

    def rows() -> list[dict[str, object]]:
        return [row for log in logs.glob("*.jsonl") for row in read_lines(log)]

    process = subprocess.Popen(
        [sys.executable, "-m", "tlscale", *asked("killed")],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while len(rows()) < 20:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = rows()
    assert not (folder / "killed" / "measurements.jsonl").exists()
    assert tlscale(folder, *asked("killed")).returncode == 0
    after = rows()
    assert after[: len(before)] == before
    assert len({row["pass"] for row in after}) == len(after) > len(before)
    assert tlscale(folder, *asked("whole")).returncode == 0
    one, other = (
        list(read_lines(folder / name / "outcomes" / "base-many.jsonl")) for name in ("killed", "whole")
    )
    assert one == other
    assert len(one) == 200
