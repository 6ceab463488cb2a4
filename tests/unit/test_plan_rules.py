"""Rules decide on every parameter, in order, and say so where they don't."""

from __future__ import annotations

import pytest

from tlscale.errors import PlanError
from tlscale.planning.rules import decide
from tlscale.planning.types import ParamRule, Tensor

TENSORS = tuple(
    Tensor(name=name, shape=shape, dtype="F32")
    for name, shape in (
        ("embed_tokens.weight", (8, 4)),
        ("layers.0.self_attn.q_proj.weight", (4, 4)),
        ("layers.1.self_attn.q_proj.weight", (4, 4)),
        ("norm.weight", (4,)),
        ("head.score.weight", (3, 4)),
    )
)
REST = ParamRule(pattern=".*", lr_scale=None)


def rule(pattern: str, scale: float | None = 1.0) -> ParamRule:
    return ParamRule(pattern=pattern, lr_scale=scale)


def test_the_first_full_match_decides() -> None:
    made = decide(TENSORS, (rule(r"layers\.1\..*", 0.5), rule(r"layers\..*", 0.1), REST))
    assert [d.lr_scale for d in made] == [None, 0.1, 0.5, None, None]
    assert [d.rule for d in made] == [2, 1, 0, 2, 2]
    assert [d.size for d in made] == [32, 16, 16, 4, 12]
    assert [d.name for d in made] == [t.name for t in TENSORS]


def test_what_no_rule_covers_is_listed() -> None:
    with pytest.raises(
        PlanError, match=r"2 parameters are covered by no rule: norm\.weight, head\.score\.weight;"
    ):
        decide(TENSORS, (rule(r"layers\..*"), rule(r"embed_tokens\..*")))


def test_at_most_ten_are_listed() -> None:
    many = tuple(Tensor(name=f"a.{i}", shape=(1,), dtype="F32") for i in range(13))
    with pytest.raises(PlanError, match=r"13 parameters.*a\.9, and 3 more;"):
        decide((*many, *TENSORS), (rule(r"[^a].*"),))


def test_a_pattern_that_matches_nothing_names_the_nearest() -> None:
    with pytest.raises(
        PlanError, match=r"rule 1: .*matches no parameter; the nearest is layers\.0\.self_attn"
    ):
        decide(TENSORS, (rule(r"layer\.0\.self_attn\.q_proj\.weight"), REST))


def test_a_pattern_that_matches_a_part_says_that_the_whole_counts() -> None:
    with pytest.raises(
        PlanError, match=r"rule 1: 'layers' matches no parameter; it must match the whole name"
    ):
        decide(TENSORS, (rule("layers"), REST))


def test_a_bad_pattern_is_named() -> None:
    with pytest.raises(PlanError, match=r"rule 2: 'layers\(' is not a regular expression"):
        decide(TENSORS, (REST, rule("layers(")))


def test_rules_for_what_a_method_adds_may_be_idle() -> None:
    backbone = TENSORS[:-1]
    assert len(decide(backbone, (rule(r"head\..*"), rule(r"adapter\..*"), REST))) == len(backbone)


def test_a_shadowed_rule_is_no_error() -> None:
    made = decide(TENSORS, (rule(r"layers\..*"), rule(r"layers\.0\..*", None), REST))
    assert made[1].rule == 0
