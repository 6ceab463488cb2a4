"""Every path inside the folder of a sweep, named once; its trials are run directories."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SweepLayout:
    """The paths of the sweep in `root`; its trials are run directories. Nothing here touches the disk."""

    root: Path

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.yaml"

    @property
    def fingerprint(self) -> Path:
        """Sixteen hex digits over the recipe's plan and what is searched."""
        return self.root / "fingerprint"

    @property
    def log(self) -> Path:
        """Every trial as it was begun and as it ended, one JSON object a line."""
        return self.root / "trials.jsonl"

    @property
    def lock(self) -> Path:
        """Held for a moment while a trial is taken, so that several processes can share a sweep."""
        return self.root / "lock"

    @property
    def result(self) -> Path:
        return self.root / "sweep.json"

    @property
    def best(self) -> Path:
        """The recipe with the best settings, to be run."""
        return self.root / "best.yaml"

    def folder(self, arm: str, number: int) -> Path:
        """The run directory of a trial."""
        return self.root / arm / f"{number:03d}"

    def asked(self, arm: str, number: int) -> Path:
        """The recipe of a trial."""
        return self.root / arm / f"{number:03d}.yaml"

    def said(self, arm: str, number: int) -> Path:
        """What a trial's worker said."""
        return self.root / arm / f"{number:03d}.log"

    def busy(self, arm: str, number: int) -> Path:
        """Held by the process that runs a trial, until its end or death."""
        return self.root / arm / f"{number:03d}.lock"
