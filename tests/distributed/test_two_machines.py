"""Two machines with networks of their own, started by the real `accelerate launch --num_machines 2`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed import kit
from tests.distributed.driver import losses, verified
from tests.integration import tiny
from tests.machines import machines, missing
from tlscale.planning.compile import read_plan
from tlscale.runs.layout import RunLayout

ROOT = Path(__file__).parents[2]
PORT = "29517"


def started(folder: Path, recipe: Path, *, path: str = "") -> list[int]:
    """The exit codes of a launch on two machines, the second with `path` before its Python's own."""
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "eth0",
    }  # fmt: skip
    (folder / "net").mkdir()
    with machines(folder / "net", ("n1", "n2")) as made:
        processes: list[subprocess.Popen[bytes]] = []
        for rank, name in enumerate(made.names):
            launcher = (
                sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "2",
                "--num_processes", "2", "--machine_rank", str(rank),
                "--main_process_ip", made.address("n1"), "--main_process_port", PORT,
                "--mixed_precision", "no", "--dynamo_backend", "no",
                "-m", "tlscale.worker", str(recipe),
            )  # fmt: skip
            found = os.pathsep.join([path, str(ROOT)] if rank else [str(ROOT)])
            env = {**environment, "PYTHONPATH": found}
            processes.append(made.start(name, launcher, log=folder / f"{name}.log", env=env))
        return [process.wait(kit.SECONDS) for process in processes]


@pytest.mark.skipif(missing() is not None, reason=missing() or "")
def test_two_machines_train_as_one_process_does(tmp_path: Path) -> None:
    model, rows = tiny.llama(tmp_path / "llama"), tiny.sentences(tmp_path / "rows.jsonl", 37)
    one = kit.run([kit.recipe("one", model, rows)], tmp_path / "alone", processes=1)["one"]
    written = kit.recipe("two", model, rows, output_dir=str(tmp_path / "run"))
    written["hardware"] = {"device": "cpu"}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(written))
    codes = started(tmp_path, recipe)
    logs = "\n".join((tmp_path / f"{name}.log").read_text()[-2000:] for name in ("n1", "n2"))
    assert codes == [0, 0], logs
    layout = RunLayout(tmp_path / "run")
    plan = read_plan(layout.plan)
    assert (plan.world.processes, plan.world.machines, plan.world.backend) == (2, 2, "ddp")
    assert losses(layout) == pytest.approx(list(one.losses), rel=1e-5)
    assert verified(layout)["max_difference"] <= 1e-5


@pytest.mark.long
@pytest.mark.skipif(missing() is not None, reason=missing() or "")
def test_machines_with_different_packages_are_stopped(tmp_path: Path) -> None:
    model, rows = tiny.llama(tmp_path / "llama"), tiny.sentences(tmp_path / "rows.jsonl", 37)
    written = kit.recipe("two", model, rows, output_dir=str(tmp_path / "run"))
    written["hardware"] = {"device": "cpu"}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(written))
    old = tmp_path / "old" / "peft-0.1.0.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: peft\nVersion: 0.1.0\n")
    assert 0 not in started(tmp_path, recipe, path=str(old.parent))
    for name in ("n1", "n2"):
        assert "0.1.0 on n2; install the same on all" in (tmp_path / f"{name}.log").read_text()
    assert not (tmp_path / "run" / "DONE").exists()
