"""Of people who are customers of several partners: what a match says of them, in words and in estimated shares.

A match that counts is a charged release; what it gives is noisy, and what is said from it here is an estimate. One
whose outcome is rows or tokens is a Disclosure: no epsilon covers it, and it is told as that wherever it is told.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coterie.privacy.canonical import canonical
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.matching.errors import MatchError
from coterie.privacy.matching.leaving import OverlapCounts
from coterie.privacy.matching.overlap import Estimate, Overlap
from coterie.privacy.plan import COUNTS, Matching, Plan
from coterie.privacy.release import release_digest

__all__ = [
    "FORMAT",
    "UNVERIFIED",
    "Counted",
    "disclosed_words",
    "match_words",
    "overlap_file",
    "read_overlap",
    "shares",
    "told_row",
    "told_shares",
    "uncovered",
]

FORMAT = "coterie/overlap/v1"

UNVERIFIED = "unverified: no ledger and no record that was looked at names these counts"

_KINDS = {"email": "e-mail address", "phone": "phone number", "loyalty": "loyalty number"}
_OUTCOMES = {
    "rows": "each pair of partners learns which of its own customers the other has",
    "tokens": "each partner gets a token for each of its own customers, and equal customers have equal tokens",
}
_COUNTED: tuple[str, ...] = (
    "Partners that forge their own list: such a one can learn exactly which of the identifiers that it put there are "
    "on another partner's. One set of lists a plan, and each partner's quota of a year, bound how many it can try; "
    "epsilon does not.",
    "Whoever can solve the decisional Diffie-Hellman problem in the group ristretto255, and so sees through the lists.",
)
_LISTED = "What an identifier stands for: somebody with two is two customers, and two who share one are one."


@dataclass(frozen=True)
class Counted:
    """Noisy counts of customers that partners share, and where they come from.

    Args:
        overlap: The counts.
        plan: Digest of the plan of the match.
        partner: Who counted.
        release: Digest of the release.
        study: Name of the match, "" where no plan tells it.
        checked: What is known of where it comes from, in words.
    """

    overlap: Overlap
    plan: str
    partner: str
    release: str
    study: str = ""
    checked: str = UNVERIFIED


def overlap_file(counts: OverlapCounts) -> bytes:
    """Return noisy counts as a file, by which a reviewer finds their release in a ledger or a record.

    Args:
        counts: What the partner who counted released.
    """
    return canonical({"format": FORMAT, **counts.header})


def read_overlap(data: bytes, *, place: str) -> Counted:
    """Read what `overlap_file` wrote; where it comes from is not checked here.

    Args:
        data: The file.
        place: How the file is called in a fault.

    Raises:
        FileFault: It is not that.
    """
    try:
        table = json.loads(data)
        if table.pop("format") != FORMAT or set(table) != {"plan", "partner", "overlap"}:
            raise ValueError
        counts = OverlapCounts(**table)
        if not isinstance(counts.plan, str) or not isinstance(counts.partner, str):
            raise TypeError
        overlap = Overlap.from_dict(counts.overlap)
        if not _sound(overlap):
            raise ValueError
        return Counted(overlap, counts.plan, counts.partner, release_digest(counts))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, MatchError):
        fix = "give the file of counts that the partner who counted, or the coordinator, wrote"
        raise FileFault(Fault(place, f"is no {FORMAT}", fix)) from None


def shares(overlap: Overlap) -> tuple[float | None, ...]:
    """Return the estimated share of persons who are customers of exactly 1, 2, ... partners; None below the least."""
    whole = sum(one.customers or 0 for one in overlap.multiplicity)
    return tuple(None if one.customers is None or not whole else one.customers / whole for one in overlap.multiplicity)


def match_words(matching: Matching, *, epsilon: float, delta: float) -> list[str]:
    """Say what a match that counts guarantees.

    Args:
        matching: The plan's.
        epsilon: What it guarantees.
        delta: At which delta.
    """
    return [
        "The unit of protection is one customer of one partner: its identifier in that partner's list.",
        "Whoever sees everything that left a partner, the coordinator and all other partners included, can hardly tell "
        f"whether a given customer's {_KINDS[matching.identifier]} was in that partner's list, if every partner "
        "made its own list as the protocol has it.",
        f"In figures: it shifts the odds of any such guess by at most a factor of {math.exp(epsilon):.2f} (e to the "
        f"power epsilon = {epsilon:.2f}), except with probability {delta:g}.",
        "A list holds the customers of both groups, so each customer pays for it in the group that it is in for life. "
        "Nothing is trained, and no column but the identifier is read.",
        "What comes out is how many customers each set of partners shares. The noise in it is the number of planted "
        "items on each partner's list, which that partner alone knows: others may be curious and work together, but "
        "they must not forge their lists.",
        f"A count that is below {matching.least} with its noise is not printed. Nobody ever sees an exact one.",
    ]


def disclosed_words(plan: Plan) -> list[str]:
    """Say which of a plan's results no epsilon covers; nothing where there is none."""
    match = plan.matching
    if match is None or match.outcome == COUNTS:
        return []
    roster = ", ".join(partner.name for partner in plan.partners)
    return [
        f"Not covered by epsilon: the match by {_KINDS[match.identifier]} among {roster} is a Disclosure. Its outcome "
        f"is {match.outcome}: {_OUTCOMES[match.outcome]}. It is exact, so no finite epsilon holds for it; each "
        "partner's policy must permit it. The length of each list is told up to a multiple of "
        f"{match.size_class}. The coordinator sees sealed lists, and no identifier.",
    ]


def uncovered(plan: Plan) -> tuple[str, ...]:
    """Return what the guarantee of a plan's match does not cover, in sentences; none where nothing is matched."""
    match = plan.matching
    if match is None:
        return ()
    return (*disclosed_words(plan), _LISTED) if match.outcome != COUNTS else (*_COUNTED, _LISTED)


def told_shares(counted: Counted, epsilons: Sequence[float | None]) -> dict[str, Any]:
    """Return what counts say of persons at several partners, with the guarantee for each group of them.

    Args:
        counted: The counts.
        epsilons: What holds for a person at 1, 2, ... partners.
    """
    overlap, found = counted.overlap, shares(counted.overlap)
    named = f'the match "{counted.study}"' if counted.study else f"the match with the plan {counted.plan}"
    words = [
        f"How many partners people are customers of is an estimate from {named}, counted by {counted.partner}: noisy "
        "counts that every partner paid for there. The shares are of the persons in counts that are printed.",
        *(_said(*row, least=overlap.least) for row in zip(overlap.multiplicity, found, epsilons, strict=False)),
        f"Where these counts come from is {counted.checked}.",
    ]
    return {"plan": counted.plan, "release": counted.release, "checked": counted.checked, "words": words}


def told_row(one: Estimate, share: float | None) -> Mapping[str, Any]:
    """Return what counts add to one row of a table by number of partners."""
    return {"customers": one.customers, "deviation": one.deviation, "share": share}


def _said(one: Estimate, share: float | None, epsilon: float | None, *, least: int) -> str:
    partners = "1 partner" if one.partners == ("1",) else f"{one.partners[0]} partners"
    holds = "no epsilon holds for them" if epsilon is None else f"epsilon {epsilon:.2f} holds for them"
    if one.customers is None or share is None:
        return f"Customers of exactly {partners}: below {least}, by the noisy count; {holds}."
    about = f"{one.customers:,} persons, standard deviation {one.deviation:,.0f}"
    return f"Customers of exactly {partners}: an estimated {100 * share:.1f} % ({about}); {holds}."


def _sound(overlap: Overlap) -> bool:
    """Return whether counts have every number that a reader of them looks at."""
    count = len(overlap.names)
    lengths = (len(overlap.cells), len(overlap.totals), len(overlap.pairs), len(overlap.multiplicity))
    every = [one for name in ("cells", "totals", "pairs", "multiplicity") for one in getattr(overlap, name)]
    named = all(isinstance(name, str) for name in (*overlap.names, *(part for one in every for part in one.partners)))
    plain = all(type(one.deviation) in {int, float} and math.isfinite(one.deviation) for one in every)
    ks = [one.partners for one in overlap.multiplicity] == [(str(k),) for k in range(1, count + 1)]
    return (
        (2 <= count <= 8 and lengths == (2**count - 1, count, math.comb(count, 2), count))
        and (named and plain and ks and len(set(overlap.names)) == count)
        and all(set(one.partners) <= set(overlap.names) for one in (*overlap.cells, *overlap.totals, *overlap.pairs))
        and type(overlap.least) is int
        and all(one.customers is None or 0 <= one.customers < 2**53 for one in every)
    )
