"""`tlscale plugins`, `env` and `schema`: what this installation has and takes."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import asdict
from importlib import metadata

from tlscale import __version__, plugins
from tlscale.errors import ExitCode

PACKAGES = (
    "torch", "transformers", "peft", "accelerate", "datasets", "bitsandbytes", "deepspeed", "safetensors",
    "huggingface_hub", "tokenizers", "pydantic", "numpy",
)  # fmt: skip


def show_plugins(arguments: argparse.Namespace) -> int:
    """Lists every plugin; one that can't be imported stands with its reason."""
    found = plugins.listing()
    if arguments.json:
        print(json.dumps([asdict(listing) for listing in found]))
        return int(ExitCode.OK)
    for listing in found:
        state = f"broken: {listing.error}" if listing.error else listing.target
        print(f"{listing.group.removeprefix('tlscale.'):<12} {listing.name:<16} {state}")
    return int(ExitCode.OK)


def env(arguments: argparse.Namespace) -> int:
    """Versions and hardware; no paths, no environment variables, no secrets."""
    from tlscale.planning.device import detect

    kind, memory = detect("auto")
    facts = {
        "tlscale": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "device": kind,
        "memory_gb": None if memory is None else round(memory / 1e9, 1),
        **{name: _version(name) for name in PACKAGES},
    }
    if arguments.json:
        print(json.dumps(facts))
    else:
        for name, value in facts.items():
            print(f"{name:<16} {'not installed' if value is None else value}")
    return int(ExitCode.OK)


def schema(arguments: argparse.Namespace) -> int:
    """Prints the JSON Schema of recipes, strategies' options included, or of verdict.json."""
    if arguments.of == "verdict":
        from tlscale.report.verdict import schema as made
    else:
        from tlscale.recipe.schema import recipe_schema as made
    json.dump(made(), sys.stdout, indent=1)
    print()
    return int(ExitCode.OK)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
