"""Puts public data sets into the rows that the recipes of configs/proofs/ read.

    TLSCALE_DATA=FOLDER python benchmarks/proof_data.py

writes runs/proof-data/NAME-train.jsonl and NAME-test.jsonl, each with the columns text and label:

clinc       CLINC150 in scope without the intents that have to do with banks and cards (Larson et al. 2019)
clinc-all   CLINC150 in scope
trec        six kinds of questions, with the published test set (Li and Roth 2002)
subj        subjective and objective sentences (Pang and Lee 2004), every tenth for the test
mr          sentences of film reviews (Pang and Lee 2005), every tenth for the test
cr          sentences of product reviews with marked opinions of one sign (Hu and Liu 2004), every
            fifth for the test
ag-news     news of four kinds (Zhang et al. 2015): only the published test set is there; every other row
            of it is for the test, few-shot examples come from the rest

shift       the same news, of two kinds that are easily taken for each other, mixed: as many of each to
            train and (shift-known) to validate on, three of Business to one of Sci/Tech to test
            and (shift-unlabelled, with labels that nobody may look at) to adapt to

spoken-digits
            clips of digits by six people (Jackson et al., Free Spoken Digit Dataset): of each digit and
            speaker 20 to train on, the published 5 for the test; columns audio and label, WAV files beside
digits/, digit-network/, cifar/, cifar-network/ are images and networks: see proof_images.py

stories     256 stories told by the model of stories itself, to be replayed: stories.jsonl, one column text

Rows come in a fixed order, so that the files are the same wherever they are written.
"""

from __future__ import annotations

import csv
import json
import os
import random
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
FOLDER = ROOT / "runs" / "proof-data"
BANKS = ("banking", "credit_cards")
STORIES = "256"
CLIPS, TEST_CLIPS = 25, 5
KINDS = {"1": "World", "2": "Sports", "3": "Business", "4": "Sci/Tech"}
# how many of Business and of Sci/Tech
SHIFTED = {"train": (400, 400), "known": (600, 600), "unlabelled": (675, 225), "test": (225, 75)}
SIGN = re.compile(r"\[([+-])[0-9]?\]")
Rows = list[tuple[str, str]]


def clinc(data: Path, without: Sequence[str]) -> tuple[Rows, Rows]:
    """Training and test rows of the intents in scope, `without` those of some domains."""
    content = json.loads((data / "clinc150" / "data_full.json").read_text(encoding="utf-8"))
    domains = json.loads((data / "clinc150" / "domains.json").read_text(encoding="utf-8"))
    left_out = {intent for domain in without for intent in domains[domain]}
    train, test = (
        [(text, intent) for text, intent in content[part] if intent not in left_out]
        for part in ("train", "test")
    )
    return train, test


def trec(data: Path) -> tuple[Rows, Rows]:
    """Questions by their coarse kind."""

    def part(name: str) -> Rows:
        text = (data / "restricted" / "sst_trec" / name).read_text(encoding="latin-1")
        lines = [line.partition(" ") for line in text.splitlines() if line.strip()]
        return [(question.strip(), kind.partition(":")[0]) for kind, _, question in lines]

    return part("TREC.train"), part("TREC.test")


def sentences(archive: Path, members: dict[str, str]) -> Rows:
    """The lines of each member of a zip, with its label, mixed."""
    rows: Rows = []
    with zipfile.ZipFile(archive) as opened:
        for member, label in members.items():
            lines = opened.read(member).decode("latin-1").splitlines()
            rows += [(line.strip(), label) for line in lines if line.strip()]
    random.Random("rows in a fixed order").shuffle(rows)
    return rows


def opinions(folder: Path) -> Rows:
    """Sentences of product reviews whose marked opinions are all good or all bad."""
    rows: Rows = []
    for archive in ("product_reviews_1.zip", "product_reviews_2.zip"):
        with zipfile.ZipFile(folder / archive) as opened:
            for member in sorted(name for name in opened.namelist() if name.endswith(".txt")):
                if "README" not in member.upper():
                    rows += _marked(opened.read(member).decode("latin-1").splitlines())
    random.Random("rows in a fixed order").shuffle(rows)
    return rows


def _marked(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        marks, found, sentence = line.partition("##")
        signs = set(SIGN.findall(marks))
        if found and len(signs) == 1 and sentence.strip():
            yield sentence.strip(), "good" if signs == {"+"} else "bad"


def held_out(rows: Rows, every: int) -> tuple[Rows, Rows]:
    """All rows but each `every`-th, and those."""
    return [row for i, row in enumerate(rows) if i % every], rows[::every]


def news(data: Path) -> tuple[Rows, Rows]:
    """Title and first sentences of news, by kind."""
    path = data / "restricted" / "ag_news_test" / "test.csv"
    with path.open(encoding="utf-8", newline="") as opened:
        rows = [
            (f"{title} {text}".replace("\\", " "), KINDS[kind]) for kind, title, text in csv.reader(opened)
        ]
    return held_out(rows, 2)


def shifted(rows: Rows) -> dict[str, Rows]:
    """News of two kinds, 1 to 1 and 3 to 1, no row twice."""
    mixed = list(rows)
    random.Random("rows in a fixed order").shuffle(mixed)
    left = {kind: [row for row in mixed if row[1] == kind] for kind in ("Business", "Sci/Tech")}
    made = {}
    for part, counts in SHIFTED.items():
        made[part] = [
            left[kind].pop() for kind, count in zip(left, counts, strict=True) for _ in range(count)
        ]
        random.Random(part).shuffle(made[part])
    return made


def spoken(archive: Path) -> tuple[Rows, Rows]:
    """Clips, unpacked, and the digit that each says: those numbered 5 to 24, and the test's, 0 to 4."""
    rows: tuple[Rows, Rows] = ([], [])
    folder = FOLDER / "spoken-digits"
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as opened:
        for member in sorted(opened.getmembers(), key=lambda one: one.name):
            name = Path(member.name).name
            content = opened.extractfile(member)
            digit, _, number = Path(name).stem.split("_") if content is not None else ("", "", "99")
            if content is not None and int(number) < CLIPS:
                (folder / name).write_bytes(content.read())
                rows[int(number) < TEST_CLIPS].append((f"spoken-digits/{name}", digit))
    return rows


def write(name: str, column: str, rows: Rows) -> None:
    """One object a line, with `column` and label."""
    lines = [json.dumps({column: text, "label": label}) + "\n" for text, label in rows]
    (FOLDER / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    data = Path(os.environ["TLSCALE_DATA"])
    reviews = data / "nltk_reviews"
    films = {"sentence_polarity/rt-polarity.neg": "bad", "sentence_polarity/rt-polarity.pos": "good"}
    kinds = {"subjectivity/plot.tok.gt9.5000": "objective", "subjectivity/quote.tok.gt9.5000": "subjective"}
    made = {
        "clinc": clinc(data, BANKS),
        "clinc-all": clinc(data, ()),
        "trec": trec(data),
        "subj": held_out(sentences(reviews / "subjectivity.zip", kinds), 10),
        "mr": held_out(sentences(reviews / "sentence_polarity.zip", films), 10),
        "cr": held_out(opinions(reviews), 5),
        "ag-news": news(data),
        "spoken-digits": spoken(data / "free_spoken_digits" / "fsdd_recordings.tar.gz"),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    for part, rows in shifted([row for both in made["ag-news"] for row in both]).items():
        write(f"shift-{part}", "text", rows)
    for name, parts in made.items():
        for part, rows in zip(("train", "test"), parts, strict=True):
            write(f"{name}-{part}", "audio" if name == "spoken-digits" else "text", rows)
        print(f"{name}: {len(parts[0]):,} rows to train on, {len(parts[1]):,} to test")
    from benchmarks.proof_images import write_all

    write_all(data, FOLDER)
    told = FOLDER / "stories.jsonl"
    if not told.is_file():
        argv = [sys.executable, "tools/stories.py", str(data / "stories260k"), str(told), STORIES]
        subprocess.run(argv, cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
