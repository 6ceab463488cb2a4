"""The word for runs whose truth is known, from directories as runs leave them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from tlscale.errors import UsageError
from tlscale.evaluation.metrics import METRICS
from tlscale.evaluation.types import Outcome
from tlscale.report.verdict import compare, judge, schema, write_verdict
from tlscale.runs.layout import RunLayout
from tlscale.runs.record import append_line, read_lines

Answers = Sequence[bool]


def write_run(
    folder: Path,
    arms: Mapping[str, Answers],
    *,
    retention: Mapping[str, Sequence[float]] | None = None,
    task: str = "sequence-classification",
    fingerprint: str = "f00d",
    predictors: Mapping[str, str] | None = None,
    against_runs: Sequence[Path] = (),
) -> Path:
    """A run directory with right and wrong answers by arm, and nll per retention item of 10 tokens."""
    folder.mkdir(parents=True)
    stage = {"trainable": 10, "total": 100, "decisions": [{"name": "layers.0.w", "lr_scale": 1.0}]}
    recipe = {
        "model": {"task": task},
        "evaluate": {"against_runs": [str(run) for run in against_runs]},
        "report": {"margin": 0.02, "retention_margin": 0.05, "level": 0.95},
    }
    plan = {"fingerprint": fingerprint, "recipe": recipe, "stages": [stage]}
    (folder / "plan.json").write_text(json.dumps(plan))
    trained = {"event": "trained", "stage": "train", "seconds": 2.0, "tokens": 50, "peak_memory_bytes": 7}
    (folder / "events.jsonl").write_text(json.dumps(trained) + "\n")
    for arm, right in arms.items():
        made = [
            Outcome(item=i, where=f"test.csv:{i + 2}", prediction="y" if r else "n", reference="y")
            for i, r in enumerate(right)
        ]
        file(folder, arm, "target", "accuracy", made, (predictors or {}).get(arm, "classifier"))
    for arm, losses in (retention or {}).items():
        rows = [Outcome(item=i, where=f"old:{i}", nll=10 * v, tokens=10) for i, v in enumerate(losses)]
        file(folder, arm, "retention", "nll", rows, "likelihood")
    return folder


def file(folder: Path, arm: str, suite: str, metric: str, rows: list[Outcome], predictor: str) -> None:
    value, stderr = METRICS[metric](rows)
    path = folder / "outcomes" / f"{arm}-{suite}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row.model_dump(exclude_none=True)) + "\n" for row in rows))
    with (folder / "measurements.jsonl").open("a") as log:
        measured = {
            "suite": suite, "arm": arm, "metric": metric, "value": value, "stderr": stderr, "n": len(rows),
            "predictor": predictor, "stage": None, "outcomes": f"outcomes/{arm}-{suite}.jsonl",
        }  # fmt: skip
        log.write(json.dumps(measured) + "\n")


def answers(share: float, items: int = 400, seed: int = 0) -> list[bool]:
    return list(np.random.default_rng(seed).random(items) < share)


def five(
    root: Path, tuned: float, controls: Mapping[str, float], against_runs: Sequence[Path] = ()
) -> Path:
    for seed in range(5):
        arms = {"tuned": answers(tuned, seed=100 + seed)}
        arms |= {arm: answers(share, seed=7) for arm, share in controls.items()}
        write_run(root / f"seed-{seed}", arms, fingerprint=f"f{seed}", against_runs=against_runs)
    return root


def test_a_gain_over_every_control_is_positive(tmp_path: Path) -> None:
    verdict = judge(five(tmp_path / "r", 0.9, {"base": 0.5, "majority": 0.1, "zero_shot": 0.6}))
    claim = verdict.claim("target")
    assert claim is not None
    assert (verdict.word, verdict.smoke, claim.against) == ("POSITIVE", False, "zero_shot")
    assert claim.effect == pytest.approx(0.3, abs=0.05)
    assert claim.low is not None
    assert claim.low > 0
    assert (claim.n_items, claim.n_seeds, claim.margin) == (400, 5, 0.02)
    assert {contrast.against for contrast in claim.contrasts} == {"base", "majority", "zero_shot"}
    assert verdict.missing_arms == ("tfidf", "class_mean", "features", "scratch")
    assert verdict.fingerprints == {f"seed-{seed}": f"f{seed}" for seed in range(5)}
    assert verdict.cost == {
        "seconds": 10.0, "tokens": 250.0, "trainable": 10.0, "total": 100.0, "peak_memory_bytes": 7.0,
    }  # fmt: skip


def test_better_than_the_base_but_not_than_the_best_control_is_not_positive(tmp_path: Path) -> None:
    root = five(tmp_path / "r", 0.9, {"base": 0.5})
    for seed in range(5):
        write_run(root / f"seed-{seed}" / "arms" / "features", {"tuned": answers(0.97, seed=seed)})
    verdict = judge(root)
    claim = verdict.claim("target")
    assert claim is not None
    assert (verdict.word, claim.against) == ("NEGATIVE", "features")
    assert "significantly worse than features" in " ".join(verdict.reasons)
    assert "seed-3/arms/features" in verdict.fingerprints
    assert "features" not in verdict.missing_arms


def test_another_run_is_a_control_like_any(tmp_path: Path) -> None:
    seeds, alone = five(tmp_path / "old", 0.97, {"base": 0.5}), tmp_path / "alone"
    write_run(alone, {"base": answers(0.3), "tuned": answers(0.6)})
    verdict = judge(five(tmp_path / "r", 0.9, {"base": 0.5}, [seeds, alone]))
    claim = verdict.claim("target")
    assert claim is not None
    assert {contrast.against for contrast in claim.contrasts} == {"base", str(seeds), str(alone)}
    assert (verdict.word, claim.against, claim.n_seeds) == ("NEGATIVE", str(seeds), 5)
    assert f"The run {alone} has one seed" in " ".join(verdict.reasons)
    shutil.rmtree(seeds)
    later = judge(tmp_path / "r")
    assert later.word == "POSITIVE"
    assert f"The run {seeds} is not there any more" in " ".join(later.reasons)


def test_the_same_answers_are_equivalent(tmp_path: Path) -> None:
    same = answers(0.8, 1000)
    assert judge(write_run(tmp_path / "r", {"base": same, "tuned": same})).word == "EQUIVALENT"
    few = answers(0.8, 40)
    assert judge(write_run(tmp_path / "few", {"base": few, "tuned": few})).word == "INCONCLUSIVE"


def test_too_little_evidence_is_inconclusive_and_says_what_it_could_have_found(tmp_path: Path) -> None:
    verdict = judge(write_run(tmp_path / "r", {"base": answers(0.5, 60), "tuned": answers(0.6, 60, 1)}))
    assert verdict.word == "INCONCLUSIVE"
    assert verdict.smoke
    assert any("four times in five" in reason for reason in verdict.reasons)
    five_items = judge(write_run(tmp_path / "five", {"base": [False] * 5, "tuned": [True] * 5}))
    assert five_items.word == "INCONCLUSIVE"
    assert any("5 items are too few" in reason for reason in five_items.reasons)


@pytest.mark.parametrize(
    ("shift", "word"), [(0.5, "NEGATIVE"), (0.0, "EQUIVALENT"), (0.03, "EQUIVALENT"), (-0.5, "POSITIVE")]
)
def test_retention_is_a_claim_of_its_own(tmp_path: Path, shift: float, word: str) -> None:
    random = np.random.default_rng(0)
    before = 2 + random.random(80)
    after = before + shift + random.normal(0, 0.02, 80)
    arms = {"base": answers(0.5), "tuned": answers(0.9, seed=1)}
    losses = {"base": before.tolist(), "tuned": after.tolist()}
    verdict = judge(write_run(tmp_path / "r", arms, retention=losses))
    claim = verdict.claim("retention")
    assert claim is not None
    assert (claim.word, claim.against, claim.metric, verdict.word) == (word, "base", "nll", "POSITIVE")
    assert claim.effect == pytest.approx(-shift, abs=0.02)


def test_what_was_not_measured_says_why(tmp_path: Path) -> None:
    verdict = judge(write_run(tmp_path / "r", {"base": answers(0.5)}))
    assert [claim.word for claim in verdict.claims] == ["NOT MEASURED", "NOT MEASURED"]
    assert verdict.claims[0].method == "The run has no scores of a trained model yet."
    trained = judge(write_run(tmp_path / "t", {"base": answers(0.5), "tuned": answers(0.9)}))
    assert trained.claims[1].method == "The recipe has no data.retention."


def test_an_arm_that_the_base_already_is_is_not_missing(tmp_path: Path) -> None:
    arms = {"base": answers(0.5), "tuned": answers(0.9)}
    named = {"base": "zero-shot by label names"}
    assert judge(write_run(tmp_path / "a", arms, predictors=named)).missing_arms == (
        "majority", "tfidf", "class_mean", "features", "scratch",
    )  # fmt: skip
    assert judge(write_run(tmp_path / "b", arms, task="causal-lm")).missing_arms == ("scratch",)


def test_a_control_scored_on_other_labels_is_left_out_aloud(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", {"base": answers(0.5), "tuned": answers(0.9), "majority": answers(0.1)})
    path = run / "outcomes" / "majority-target.jsonl"
    path.write_text(path.read_text().replace('"reference": "y"', '"reference": "z"'))
    verdict = judge(run)
    assert verdict.word == "POSITIVE"
    assert any("not compared with majority: the right answer of test.csv:2" in r for r in verdict.reasons)


def test_chance_is_never_positive(tmp_path: Path) -> None:
    """Twenty candidates that guess like the controls do."""
    found = []
    for trial in range(20):
        arms = {
            arm: answers(0.25, 300, 1000 + 10 * trial + at)
            for at, arm in enumerate(("base", "zero_shot", "tuned"))
        }
        found.append(judge(write_run(tmp_path / str(trial), arms)).word)
    assert "POSITIVE" not in found


def test_the_verdict_fits_its_schema_and_is_written_whole(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", {"base": answers(0.5), "tuned": answers(0.9)})
    path = write_verdict(run, judge(run))
    assert path == run / "verdict.json"
    jsonschema.validate(json.loads(path.read_text()), schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(path.read_text()), "word": "GREAT"}, schema())


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("plan.json", "{}", "plan.json: not a plan: fingerprint"),
        ("measurements.jsonl", '{"suite": 1}\n', "measurements.jsonl:1: not a measurement: suite"),
        ("measurements.jsonl", "{\n{}\n", "measurements.jsonl:1: not a log of JSON objects"),
        ("outcomes/tuned-target.jsonl", '{"item": "x"}\n', "tuned-target.jsonl:1: not an outcome: item"),
        ("outcomes/tuned-target.jsonl", "", "tuned-target.jsonl: missing or empty"),
    ],
)
def test_a_damaged_run_directory_is_named(tmp_path: Path, name: str, content: str, said: str) -> None:
    run = write_run(tmp_path / "r", {"base": answers(0.5), "tuned": answers(0.9)})
    (run / name).write_text(content)
    with pytest.raises(UsageError, match=said):
        judge(run)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run directory"):
        judge(tmp_path)
    with pytest.raises(UsageError, match="there is no such folder"):
        judge(tmp_path / "nowhere")


def test_two_runs_are_compared_on_the_items_they_share(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", {"base": answers(0.5), "tuned": answers(0.6)})
    b = write_run(tmp_path / "b", {"base": answers(0.5, 300), "tuned": answers(0.95, 300, 1)})
    found = compare(a, b)
    assert (found.paired, found.unpaired) == ({"target": 300}, {"target": 100})
    assert (found.claims[0].word, found.claims[0].against, found.smoke) == ("POSITIVE", str(a), True)
    back = compare(b, a)
    assert back.claims[0].word == "NEGATIVE"
    assert back.claims[0].effect == pytest.approx(-(found.claims[0].effect or 0))
    assert compare(a, a).claims[0].effect == 0


def test_a_suite_of_other_items_is_left_out_where_another_is_shared(tmp_path: Path) -> None:
    kept = {"tuned": [1.0, 2.0] * 10}
    a = write_run(tmp_path / "a", {"tuned": answers(0.6)}, retention=kept)
    b = write_run(tmp_path / "b", {"tuned": answers(0.6)}, retention=kept)
    path = b / "outcomes" / "tuned-target.jsonl"
    path.write_text(path.read_text().replace("test.csv", "other.csv"))
    found = compare(a, b)
    assert [claim.name for claim in found.claims] == ["retention"]
    assert any("target: not compared: they share no item" in reason for reason in found.reasons)


def test_metrics_of_all_items_together_are_named_with_both_values(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path / name, {"tuned": answers(0.6)}) for name in "ab")
    for run, value in ((a, 0.71), (b, 0.82)):
        layout = RunLayout(run)
        (row, *_) = read_lines(layout.measurements)
        append_line(layout.measurements, {**row, "metric": "auroc", "value": value})
    found = compare(a, b)
    said = "target: auroc 0.7100 and 0.8200, of all items together, which can't be paired."
    assert said in found.reasons
    assert [claim.metric for claim in found.claims] == ["accuracy"]


def test_seeds_are_paired_by_name_and_a_single_run_with_each(tmp_path: Path) -> None:
    a, b = five(tmp_path / "a", 0.6, {"base": 0.5}), five(tmp_path / "b", 0.9, {"base": 0.5})
    both = compare(a, b)
    assert (both.claims[0].n_seeds, both.smoke, both.claims[0].word) == (5, False, "POSITIVE")
    single = write_run(tmp_path / "c", {"tuned": answers(0.6)})
    mixed = compare(single, b)
    assert mixed.claims[0].n_seeds == 5
    assert any("first run has one seed" in reason for reason in mixed.reasons)


def test_runs_without_anything_in_common_are_refused(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", {"tuned": answers(0.6)})
    b = write_run(tmp_path / "b", {"tuned": answers(0.6)})
    path = b / "outcomes" / "tuned-target.jsonl"
    path.write_text(path.read_text().replace("test.csv", "other.csv"))
    with pytest.raises(UsageError, match="share no item"):
        compare(a, b)
    c = write_run(tmp_path / "c", {}, retention={"tuned": [1.0] * 20})
    with pytest.raises(UsageError, match="not scored on the same suite"):
        compare(a, c)
    d = write_run(tmp_path / "d", {}, retention={"tuned": [1.0] * 20})
    path = d / "outcomes" / "tuned-retention.jsonl"
    path.write_text(path.read_text().replace('"tokens": 10', '"tokens": 12'))
    with pytest.raises(UsageError, match="different numbers of tokens"):
        compare(c, d)
