"""What the examination of a machine found, and which machines of a job are not fit for it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Examination:
    """One machine's findings; `problems` are its own, `versions` are compared with the others'.

    `meeting` is what went wrong with others, by which a machine that is well may be hit too.
    """

    machine: str
    problems: tuple[str, ...]
    meeting: tuple[str, ...]
    versions: Mapping[str, str]


def read_all(folder: Path) -> tuple[Examination, ...]:
    """The examinations in a folder, one file each."""
    found = []
    for file in sorted(folder.glob("*.json")):
        raw = json.loads(file.read_text(encoding="utf-8"))
        found.append(
            Examination(raw["machine"], tuple(raw["problems"]), tuple(raw["meeting"]), raw["versions"])
        )
    return tuple(found)


def judged(found: Sequence[Examination], machines: Sequence[str]) -> dict[str, list[str]]:
    """The machines that are not fit, each with its reasons.

    A machine is not fit when it gave no answer, found a problem of its own, or has another version of a
    package than most have (than the first machine, where there is no majority). Only when there is none of
    these, those that failed to meet the others are not fit; where all the others failed, it is the first.
    """
    bad: dict[str, list[str]] = {}
    heard = {one.machine: one for one in found}
    for machine in machines:
        if machine not in heard:
            bad[machine] = ["gave no answer"]
        elif heard[machine].problems:
            bad[machine] = list(heard[machine].problems)
    packages = sorted({package for one in found for package in one.versions})
    present = [heard[machine] for machine in machines if machine in heard]
    for package in packages:
        counted = Counter(one.versions.get(package, "none") for one in present)
        usual = counted.most_common(1)[0][0]
        for one in present:
            own = one.versions.get(package, "none")
            if own != usual:
                bad.setdefault(one.machine, []).append(f"{package} {own}, others have {usual}")
    return bad or _apart(present)


def _apart(present: Sequence[Examination]) -> dict[str, list[str]]:
    """The machines that did not meet the others."""
    if present and present[0].meeting:
        # the others meet there
        return {present[0].machine: list(present[0].meeting)}
    met = [one for one in present if not one.meeting]
    if len(met) == 1 and len(present) > 2:
        said = next(one.meeting[0] for one in present if one.meeting)
        return {met[0].machine: [f"no other machine meets it: {said}"]}
    return {one.machine: list(one.meeting) for one in present if one.meeting}
