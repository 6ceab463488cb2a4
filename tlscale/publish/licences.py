"""The chain of licences from base and data to the adapter: what it obliges to, and what it forbids.

Names are the Hub's. A table of terms can't replace reading them: it knows the well-known licences, says so
where one is unknown, and never guesses. The terms are those of the licences' own texts; that a licence of
data reaches the model is contested, and the careful reading is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tlscale.errors import UsageError, unknown

UNKNOWN = "unknown"
NON_COMMERCIAL, SHARE_ALIKE, NO_DERIVATIVES, OWN_TERMS, CREDIT = (
    "non-commercial", "share-alike", "no-derivatives", "own-terms", "credit",
)  # fmt: skip

# What each licence asks of whoever publishes something made from the work.
TERMS: dict[str, frozenset[str]] = {
    **dict.fromkeys(("cc0-1.0", "unlicense", "pddl", "wtfpl", "0bsd"), frozenset[str]()),
    **dict.fromkeys(
        ("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "isc", "zlib", "ncsa",
         "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "odc-by", "afl-3.0", "psf-2.0", "ms-pl",
         "cdla-permissive-1.0", "cdla-permissive-2.0", "ecl-2.0", "artistic-2.0"),
        frozenset((CREDIT,)),
    ),
    **dict.fromkeys(
        ("cc-by-sa-3.0", "cc-by-sa-4.0", "odbl", "gpl", "gpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl",
         "lgpl-2.1", "lgpl-3.0", "gfdl", "mpl-2.0", "epl-1.0", "epl-2.0", "eupl-1.1", "eupl-1.2", "osl-3.0",
         "cdla-sharing-1.0"),
        frozenset((CREDIT, SHARE_ALIKE)),
    ),
    **dict.fromkeys(
        ("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0"), frozenset((CREDIT, NON_COMMERCIAL))
    ),
    **dict.fromkeys(
        ("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
        frozenset((CREDIT, NON_COMMERCIAL, SHARE_ALIKE)),
    ),
    **dict.fromkeys(("cc-by-nd-4.0",), frozenset((CREDIT, NO_DERIVATIVES))),
    **dict.fromkeys(
        ("cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"), frozenset((CREDIT, NON_COMMERCIAL, NO_DERIVATIVES))
    ),
    **dict.fromkeys(
        ("openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bigscience-bloom-rail-1.0",
         "bigcode-openrail-m", "openrail++", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3",
         "llama4", "gemma", "deepfloyd-if-license", "intel-research", "apple-ascl", "apple-amlr",
         "open-mdw"),
        frozenset((CREDIT, OWN_TERMS)),
    ),
}  # fmt: skip
DUTIES = {
    CREDIT: "keep its notices and name the source",
    SHARE_ALIKE: "publish what is made from it under the same licence",
    NON_COMMERCIAL: "no commercial use",
    NO_DERIVATIVES: "nothing that is made from it may be published",
    OWN_TERMS: "pass on its own terms of use with what is made from it",
}
MORE_DUTIES = {
    "llama": "show `Built with Llama`, and begin the model's name with `Llama`",
    "gemma": "pass on the prohibited-use policy of Gemma",
}


@dataclass(frozen=True)
class Link:
    """One source of the chain: what it is, which one, and its licence as found; `None` where none is."""

    what: str
    name: str
    licence: str | None


@dataclass(frozen=True)
class Chain:
    """The licence of the result with the reasons, and what its sources oblige to, as sentences."""

    licence: str
    links: tuple[Link, ...]
    duties: tuple[str, ...]
    reason: str


def settle(links: Iterable[Link], asked: str | None) -> Chain:
    """The licence under which a result of these sources may be published.

    Args:
        links: The base and all data.
        asked: What the user wants; by default the licence of the source that asks for most.

    Raises:
        UsageError: the licence asked for drops a condition of a source, or a source forbids publication.
    """
    chain = tuple(links)
    for link in chain:
        if NO_DERIVATIVES in _terms(link):
            raise UsageError(
                f"licence: the {link.what} {link.name} is under {link.licence}: {DUTIES[NO_DERIVATIVES]}. "
                "Ask its owner for permission, or train without it"
            )
    if asked is None:
        licence, reason = _strictest(chain)
    else:
        licence, reason = asked.lower(), "as asked for"
        if licence not in TERMS and licence not in (UNKNOWN, "other"):
            raise UsageError(f"licence {asked}: {unknown(licence, [*TERMS, UNKNOWN, 'other'], 'licence')}")
    _no_looser(chain, licence)
    return Chain(licence, chain, tuple(_duties(chain)), reason)


def _terms(link: Link) -> frozenset[str]:
    return TERMS.get((link.licence or "").lower(), frozenset())


def _strictest(chain: tuple[Link, ...]) -> tuple[str, str]:
    """The licence that keeps what every known source asks for; unknown where one isn't known."""
    base = chain[0]
    if _known(base) is None:
        return UNKNOWN, f"the licence of the {base.what} {base.name} is not known"
    binding = [link for link in chain if _terms(link) - {CREDIT}]
    if not binding:
        return str(_known(base)), f"that of the {base.what}"
    names = {_known(link) for link in binding}
    if len(names) == 1:
        return str(names.pop()), f"that of the {binding[0].what} {binding[0].name}, which binds"
    if all(SHARE_ALIKE not in _terms(link) and OWN_TERMS not in _terms(link) for link in binding):
        return str(_known(binding[0])), f"that of the {binding[0].what} {binding[0].name}, which binds"
    return UNKNOWN, "the sources are under licences that can't be joined under one known one"


def _known(link: Link) -> str | None:
    name = (link.licence or "").lower()
    return name if name in TERMS else None


def _no_looser(chain: tuple[Link, ...], licence: str) -> None:
    given = TERMS.get(licence)
    if given is None:
        return
    for link in chain:
        terms, name = _terms(link), (link.licence or "").lower()
        same_needed = terms & {SHARE_ALIKE, OWN_TERMS}
        if same_needed and licence != name:
            duty = DUTIES[sorted(same_needed)[0]]
            raise UsageError(
                f"licence {licence} is looser than allowed: the {link.what} {link.name} is under "
                f"{link.licence} ({duty}); give {name}"
            )
        lost = (terms - {CREDIT}) - given
        if lost:
            raise UsageError(
                f"licence {licence} is looser than allowed: the {link.what} {link.name} is under "
                f"{link.licence} ({', '.join(DUTIES[term] for term in sorted(lost))}); give {name}"
            )


def _duties(chain: tuple[Link, ...]) -> Iterable[str]:
    for link in chain:
        if link.licence is None:
            yield f"The licence of the {link.what} {link.name} is not known; find it before you rely on it."
            continue
        name = link.licence.lower()
        if name not in TERMS:
            yield f"The {link.what} {link.name} is under {link.licence}; read its terms."
            continue
        asked = [DUTIES[term] for term in sorted(TERMS[name])]
        asked += [duty for start, duty in MORE_DUTIES.items() if name.startswith(start)]
        yield f"The {link.what} {link.name} is under {name}: {'; '.join(asked) or 'no obligations'}."
