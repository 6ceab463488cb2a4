"""`tlscale push`: a finished run onto the Hub; and what `run` and `plan` ask before it."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tlscale.errors import ExitCode, UsageError
from tlscale.launching.local import lines, worker_command
from tlscale.planning.types import Plan
from tlscale.recipe.publish import Publish
from tlscale.runs.layout import RunLayout
from tlscale.runs.result import existing

Say = Callable[[str], None]


def push(arguments: argparse.Namespace) -> int:
    """Publishes a run; the same command again goes on where it was cut off, or does nothing."""
    from tlscale.planning.compile import read_plan

    layout = existing(Path(arguments.run_dir))
    asked = _asked(arguments, read_plan(layout.plan).recipe.publish)
    made = publish_run(layout, asked, gguf_ready=arguments.gguf_ready, quiet=arguments.json)
    print(json.dumps(made) if arguments.json else f"\nNext: tlscale verify hub:{asked.to}")
    return int(ExitCode.OK)


def _asked(arguments: argparse.Namespace, said: Publish | None) -> Publish:
    """The recipe's `publish:` with the command line's options over it."""
    given = {
        "to": arguments.to,
        "private": arguments.private,
        "license": arguments.license,
        "base": arguments.base,
        "merged": arguments.merged or None,
        "despite_verdict": arguments.despite_verdict,
    }
    return wanted(said, {name: value for name, value in given.items() if value is not None})


def wanted(said: Publish | None, given: Mapping[str, object]) -> Publish:
    """What a recipe says of publishing, with `given` over it.

    Raises:
        UsageError: neither says where to, or it is no id on the Hub.
    """
    merged: dict[str, object] = {} if said is None else said.model_dump(exclude_unset=True)
    merged |= given
    if "to" not in merged:
        raise UsageError("where to? give --to ORG/NAME, or publish.to in the recipe")
    try:
        return Publish.model_validate(merged)
    except ValueError as error:
        raise UsageError(f"--to {merged['to']}: not an id on the Hub; write ORG/NAME") from error


def publish_run(
    layout: RunLayout, asked: Publish, *, gguf_ready: bool = False, quiet: bool = False
) -> dict[str, object]:
    """Publishes the run in `layout` as asked, files where it went, and returns that.

    Raises:
        TlscaleError: it may not be published, or the Hub failed; the message says how to go on.
    """
    from huggingface_hub import get_token

    from tlscale.publish.assemble import Options, assemble
    from tlscale.publish.content import check_clean
    from tlscale.publish.gates import admitted
    from tlscale.publish.hub import Hub
    from tlscale.publish.preflight import preflight
    from tlscale.publish.push import Target, push
    from tlscale.runs.record import append_line, read_lines

    def say(text: str) -> None:
        if not quiet:
            print(f"{'push':<9} {text}", flush=True)

    found = admitted(layout, despite=asked.despite_verdict)
    hub = Hub()
    if gguf_ready:
        asked = asked.model_copy(update={"merged": True})
    preflight(asked, found.plan, hub)
    options = Options(asked.to, asked.private, asked.license, asked.base, asked.merged, gguf_ready)
    folder = assemble(found, options, hub, lambda probe, whole: _prepare(layout, probe, whole, say))
    check_clean(folder, (get_token() or "", str(Path.home()), str(Path.cwd()), str(layout.root.resolve())))
    title = f"{found.plan.recipe.name}: {found.manifest['kind']}, plan {found.plan.fingerprint}"
    made = push(folder, Target(asked.to, asked.private, title), hub, lambda copy: examine(copy, say), say)
    record = {
        "repository": made.repository,
        "commit": made.commit,
        "private": made.private,
        "despite": found.despite,
    }
    # a push that was killed after its last commit is on no record yet
    filed = [row["commit"] for row in read_lines(layout.published) if row["repository"] == made.repository]
    if filed[-1:] != [made.commit]:
        append_line(layout.published, record)
    if not quiet:
        shown = "private" if made.private else "public"
        print(f"published {made.page} at {made.commit[:8]}, {shown}")
    return {**record, "changed": made.changed, "page": made.page}


def _prepare(layout: RunLayout, probe: Path, whole: Path | None, say: Say) -> None:
    request = json.dumps({"probe": str(probe), "merged": None if whole is None else str(whole)})
    for line in lines(worker_command(layout.root, "publish", "--request", request)):
        say(line)


def examine(folder: Path, say: Say, *, as_json: bool = False) -> None:
    """Looks at files from elsewhere, and has a worker load them onto the base that they name.

    Raises:
        TlscaleError: they are refused, or don't do what they should.
    """
    from tlscale.publish.intake import check, known_files
    from tlscale.publish.scratch import plan_for, write_scratch

    with tempfile.TemporaryDirectory(prefix="tlscale-") as made:
        looked = known_files(folder, Path(made) / folder.name)
        check(looked)
        layout = write_scratch(Path(made) / "run", plan_for(looked))
        request = json.dumps({"folder": str(looked)})
        extra = ("--json",) if as_json else ()
        for line in lines(worker_command(layout.root, "examine", *extra, "--request", request)):
            say(line)


def before_training(plan: Plan, *, offline: bool, to: str | None = None) -> None:
    """Refuses, before anything is trained, what could not be published afterwards.

    Args:
        to: Where the command line wants it, over what the recipe says.

    Raises:
        UsageError: with what is missing.
    """
    asked = plan.recipe.publish if to is None else wanted(plan.recipe.publish, {"to": to})
    if asked is None:
        return
    if offline:
        print(f"publish   {asked.to}: not checked, as asked for with --offline", file=sys.stderr)
        return
    from tlscale.publish.hub import Hub
    from tlscale.publish.preflight import preflight

    account = preflight(asked, plan, Hub())
    shown = "private" if asked.private else "public"
    print(f"publish   {asked.to}, {shown}, as {account.name}: may be published", file=sys.stderr)


def verify_published(address: str, *, as_json: bool) -> int:
    """Checks anybody's adapter on the Hub: loads safely, fits the base that it names, does something.

    Raises:
        TlscaleError: it can't be had, or is not what it should be; with every reason.
    """
    from tlscale.publish.fetch import fetch
    from tlscale.publish.hub import Hub

    hub = Hub()
    with tempfile.TemporaryDirectory(prefix="tlscale-") as made:
        folder = Path(made) / "adapter"
        said = fetch(address, hub, folder)
        if not as_json:
            print(f"fetched   {said}: safetensors and records only", flush=True)
        examine(folder, print, as_json=as_json)
    if not as_json:
        print(f"verified  {said}")
    return int(ExitCode.OK)
