"""`tlscale lint`: known defects of anyone's batch scripts."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from tlscale.errors import ExitCode, UsageError
from tlscale.launching.lint import lint as defects


def lint(arguments: argparse.Namespace) -> int:
    """Prints what is wrong in each script; exit code 1 when anything is."""
    found = {name: defects(_text(name)) for name in arguments.scripts}
    if arguments.json:
        print(json.dumps({name: [asdict(one) for one in those] for name, those in found.items()}))
    else:
        for name, those in found.items():
            for one in those:
                place = f"{name}:{one.line}" if one.line else name
                print(f"{place}  {one.rule}: {one.what}\n    {one.fix}")
            if not those:
                print(f"{name}  nothing found")
    return int(ExitCode.RUN_FAILED if any(found.values()) else ExitCode.OK)


def _text(name: str) -> str:
    file = Path(name)
    if not file.is_file():
        raise UsageError(f"{name}: {'a folder' if file.is_dir() else 'no such file'}; name a batch script")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: not UTF-8 text (byte {error.start}); name a batch script") from error
