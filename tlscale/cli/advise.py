"""`tlscale advise`: which strategy suits a recipe's data, with reasons; and the choice for `kind: auto`."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from tlscale.cli.sweep import say, written
from tlscale.errors import ExitCode
from tlscale.outer import advisor
from tlscale.planning.advice import Advice
from tlscale.recipe.load import load_recipe
from tlscale.recipe.types import Recipe


def advise(arguments: argparse.Namespace) -> int:
    """Looks, proposes, races where asked, and writes the advised recipe."""
    made = advisor.prepared(written(arguments))
    advice = advisor.look(made, quiet=arguments.json)
    if arguments.race is not None:
        told = (lambda arm, trial: None) if arguments.json else say
        advice = advisor.race(made, advice, arguments.race, told)
    if arguments.json:
        print(advice.model_dump_json())
        return int(ExitCode.OK)
    print(described(advice))
    print(f"\nNext: tlscale run {shlex.quote(str(made.layout.advised))}")
    return int(ExitCode.OK)


def described(advice: Advice) -> str:
    """The advice as a few lines of text."""
    lines = [f"advice    {advice.word}", *(f"          {reason}" for reason in advice.reasons)]
    for number, proposal in enumerate(advice.proposals, start=1):
        value = advice.race.get(proposal.name)
        raced = "" if value is None else f"   {advice.metric} {value:.4f} on validation rows"
        lines.append(f"  {number}. {proposal.name:<10} {proposal.why}{raced}")
    return "\n".join(lines)


def settled(arguments: argparse.Namespace) -> tuple[Recipe, Path]:
    """A recipe whose strategy is auto with the advised one in its place, which is said; and its file."""
    made = advisor.prepared(written(arguments))
    advice = advisor.look(made, quiet=arguments.json)
    if not arguments.json:
        print(described(advice), flush=True)
    return load_recipe(made.layout.advised, environment=os.environ), made.layout.advised
