"""What a checkpoint holds, part by part: each is changed by a resume that would forget it."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.test_engine_loop import Heard, llama, trained, training
from tlscale.data.examples import Example
from tlscale.engine import checkpoint, mishap
from tlscale.engine.loop import Training, train
from tlscale.engine.optim import make_optimizer, make_schedule
from tlscale.errors import TlscaleError
from tlscale.models.heads import PooledClassifier, PooledHead
from tlscale.planning.types import Safety, Term

ROOT = Path(__file__).parents[2]


class Killed(Heard):
    """Ends training after a number of steps, as a kill would: nothing more is saved."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def step(self, step: int, steps: int, values: Mapping[str, float]) -> None:
        super().step(step, steps, values)
        if step == self.after:
            raise KeyboardInterrupt


def rows(count: int, domain: float) -> list[Example]:
    generator = torch.Generator().manual_seed(int(domain))
    return [
        Example(where=f"{domain}:{i}", label=i % 3, features=torch.randn(4, generator=generator) + domain)
        for i in range(count)
    ]


def collated(examples: Sequence[Example]) -> dict[str, torch.Tensor]:
    features = torch.stack([e.features for e in examples if e.features is not None])
    return {"features": features, "labels": torch.tensor([e.label for e in examples])}


def adversarial(folder: Path, name: str) -> tuple[nn.Module, Training]:
    torch.manual_seed(0)
    module = PooledClassifier(nn.Identity(), "mean", PooledHead(4, 3, 5), normalize=False)
    made = training(folder, save_steps=2, epochs=3.0)
    term = Term(name=name, options={"hidden": 6, "lr_scale": 20.0})
    stage = made.planned.stage.model_copy(update={"objective": (Term(), term)})
    return module, replace(
        made, planned=made.planned.model_copy(update={"stage": stage}), examples=rows(24, 0.0),
        streams={"unlabelled": rows(10, 2.0)}, collate=collated,
        scales={name: 1.0 for name, _ in module.named_parameters()},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["dann", "cdan"])
def test_what_terms_learn_goes_on_where_it_was(name: str, tmp_path: Path) -> None:
    straight, _, whole = _trained(*adversarial(tmp_path / "a", name))
    module, made = adversarial(tmp_path / "b", name)
    with pytest.raises(KeyboardInterrupt):
        _trained(module, replace(made, watcher=Killed(5)))
    resumed, _, rest = _trained(*adversarial(tmp_path / "b", name))
    assert rest.losses == whole.losses[4:]
    for mine, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(mine, other)


def _trained(module: nn.Module, made: Training) -> tuple[nn.Module, Any, Heard]:
    torch.manual_seed(7)
    done = train(module, made)
    assert isinstance(made.watcher, Heard)
    return module, done, made.watcher


def test_patience_goes_on_where_it_was(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "rows": 8, "validation": 24, "epochs": 60.0, "learning_rate": 5e-2, "eval_steps": 1,
        "save_steps": 1, "early_stopping_patience": 3,
    }  # fmt: skip
    straight, whole, _ = trained(training(tmp_path / "a", **given))
    assert whole.stopped_early
    # in the middle of the evaluations without gain, and when patience was at its end already
    for kill in (whole.steps - 1, whole.steps):
        folder = tmp_path / f"b-{kill}"
        with pytest.raises(KeyboardInterrupt):
            trained(replace(training(folder, **given), watcher=Killed(kill)))
        resumed, again, _ = trained(training(folder, **given))
        assert (again.steps, again.stopped_early) == (whole.steps, True)
        for mine, other in zip(straight.parameters(), resumed.parameters(), strict=True):
            assert torch.equal(mine, other), "the best weights, not the last"


def test_a_scaler_and_a_schedule_go_on_where_they_were(tmp_path: Path) -> None:
    made = training(tmp_path)
    loads: list[dict[str, Any]] = []

    class Scaled:
        """A session with a loss scaling, which needs a GPU to be real."""

        def __init__(self, scale: float) -> None:
            self.module = llama()
            self.scale = scale
            self.optimizer = make_optimizer(self.module, made.scales, made.planned.stage.update, {})

        def tensors(self) -> dict[str, torch.Tensor]:
            return {name: p.detach() for name, p in self.module.named_parameters()}

        def optimizer_state(self) -> dict[str, Any]:
            return {}

        def scaler_state(self) -> dict[str, Any]:
            return {"scale": self.scale, "_growth_tracker": 3}

        def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None: ...

        def load_optimizer_state(self, state: Mapping[str, Any]) -> None: ...

        def load_scaler_state(self, state: dict[str, Any]) -> None:
            loads.append(state)

    def subject(scale: float) -> checkpoint.Subject:
        session: Any = Scaled(scale)
        return checkpoint.Subject(session, make_schedule(session.optimizer, made.planned.stage.schedule, 9))

    before = subject(512.0)
    for _ in range(4):
        before.session.optimizer.step()
        before.schedule.step()
    shot = checkpoint.snapshot(before, checkpoint.Progress(step=4), made.runtime)
    assert shot is not None
    checkpoint.write(tmp_path, shot, "k", 2)
    after = subject(1.0)
    found, world = checkpoint.load(tmp_path / "step-000004", after, made.runtime)
    assert (found.step, world) == (4, 1)
    assert loads == [{"scale": 512.0, "_growth_tracker": 3}]
    assert after.schedule.get_last_lr() == before.schedule.get_last_lr()
    assert after.session.optimizer.param_groups[0]["lr"] == before.schedule.get_last_lr()[0]


def poisoned(folder: Path, **safety: Any) -> Training:
    made = training(folder, micro=4, rows=24, epochs=2.0, save_steps=2)
    stage = made.planned.stage.model_copy(update={"safety": Safety(**safety)})
    return replace(made, planned=made.planned.model_copy(update={"stage": stage}))


def failing(*passes: int) -> nn.Module:
    """A model whose outputs are no numbers in some forward passes, which here are steps."""
    module, count = llama(), itertools.count(1)

    def look(part: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output * float("nan") if next(count) in passes else output

    module.lm_head.register_forward_hook(look)
    return module


def test_steps_that_are_not_finite_are_left_out_counted_and_kept(tmp_path: Path) -> None:
    made = poisoned(tmp_path, on_nonfinite="skip", max_skipped_steps=4)
    module, done, heard = trained(made, failing(3, 5, 8, 9))
    assert done.steps == 12
    assert len(heard.losses) == 8
    assert all(bool(p.isfinite().all()) for p in module.parameters())
    bad = [facts for kind, facts in heard.events if kind == "not_finite"]
    assert [facts["step"] for facts in bad] == [3, 5, 8, 9]
    said = [facts["text"] for kind, facts in heard.events if kind == "warning"]
    assert "step 9 is left out: the loss became nan; 4 of at most 4" in said[-1]
    kept = sorted(path.name for path in (tmp_path / "replay").iterdir())
    assert kept == ["step-000003", "step-000005", "step-000008"], "three are enough to look at"
    weights, examples = mishap.read(tmp_path / "replay" / "step-000003", "f")
    assert ", ".join(e.where for e in examples) == bad[0]["rows"]
    assert set(weights) == {name for name, _ in module.named_parameters()}


def test_more_such_steps_than_allowed_end_training_after_a_resume_too(tmp_path: Path) -> None:
    safety = {"on_nonfinite": "skip", "max_skipped_steps": 2}
    with pytest.raises(KeyboardInterrupt):
        trained(replace(poisoned(tmp_path, **safety), watcher=Killed(5)), failing(2, 3))
    with pytest.raises(TlscaleError, match=r"in more than 2 steps \(train\.max_skipped_steps\)"):
        trained(poisoned(tmp_path, **safety), failing(2))


def test_without_that_policy_the_first_one_ends_training(tmp_path: Path) -> None:
    with pytest.raises(TlscaleError, match=r"step 2 of stage train: the loss became nan.*step-000002"):
        trained(poisoned(tmp_path), failing(2))


SIGNALLED = """
import os, signal, sys, time
from pathlib import Path
from tlscale.engine import signals, store
from tlscale.engine.signals import Stops
folder = Path(sys.argv[1])
stops = Stops(lambda name: (folder / "STOPPED").write_text(name))
def slow(path):
    path.write_text("half")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(signals.SAME_REQUEST_SECONDS + 0.1)
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))
    path.write_text("whole")
with stops.heard(), stops.deferred():
    store.commit(folder / "step-000002", {"part": lambda path: path.write_text("good")}, {"key": "k"})
    store.commit(folder / "step-000004", {"part": slow}, {"key": "k"})
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_second_signal_in_a_save_leaves_at_once_and_harms_nothing(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(tmp_path), name], cwd=ROOT, capture_output=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 128 + getattr(signal, name), done.stderr
    assert (tmp_path / "STOPPED").read_text() == name
    assert checkpoint.newest(tmp_path, "k").folder == tmp_path / "step-000002"
    assert checkpoint.newest(tmp_path, "k").passed_over == ()
