"""The chain of licences: what binds, what is refused, what is said to be unknown."""

from __future__ import annotations

import pytest

from tlscale.errors import UsageError
from tlscale.publish.licences import Link, settle


def base(licence: str | None) -> Link:
    return Link("base", "org/base", licence)


def data(licence: str | None) -> Link:
    return Link("data set", "rows.csv", licence)


@pytest.mark.parametrize(
    ("of_base", "of_data", "settled"),
    [
        ("apache-2.0", "cc-by-4.0", "apache-2.0"),
        ("MIT", None, "mit"),
        ("apache-2.0", "cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("apache-2.0", "cc-by-sa-4.0", "cc-by-sa-4.0"),
        ("llama3.1", "mit", "llama3.1"),
        ("gemma", "cc-by-nc-sa-4.0", "unknown"),
        (None, "mit", "unknown"),
        ("some-new-licence", "mit", "unknown"),
    ],
)
def test_the_source_that_asks_for_most_decides(
    of_base: str | None, of_data: str | None, settled: str
) -> None:
    assert settle([base(of_base), data(of_data)], None).licence == settled


@pytest.mark.parametrize(
    ("of_base", "of_data", "asked", "said"),
    [
        ("cc-by-nc-4.0", "mit", "mit", "no commercial use"),
        ("apache-2.0", "cc-by-nc-4.0", "apache-2.0", "the data set rows.csv is under cc-by-nc-4.0"),
        ("llama3.1", "mit", "mit", "give llama3.1"),
        ("gpl-3.0", "mit", "apache-2.0", "under the same licence"),
        ("cc-by-nd-4.0", "mit", None, "nothing that is made from it may be published"),
        ("mit", "mit", "mti", "did you mean mit?"),
    ],
)
def test_a_looser_licence_is_refused(of_base: str, of_data: str, asked: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace(".", r"\.").replace("?", r"\?")):
        settle([base(of_base), data(of_data)], asked)


def test_unknown_is_said_and_never_guessed() -> None:
    found = settle([base("apache-2.0"), data(None)], None)
    assert any("rows.csv is not known" in duty for duty in found.duties)
    assert "Built with Llama" in settle([base("llama3")], None).duties[0]
