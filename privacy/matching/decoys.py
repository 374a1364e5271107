"""What a list holds besides customers: canaries, and dummies whose numbers are the noise of the counts.

For a partner q and a cell S of the Venn diagram that q lies in, D(q, S) is a set of K dummies that all of S can make.
The others of S put all of them on their lists; q puts K / 2 + z of them there, z a discrete Gaussian that nobody else
knows. For the cell of q alone they are random points. All that the others can count of q's list is then the number of
its customers in each cell plus that z: the proof is in `docs/formats/matching.md`.
"""

import itertools
import math

import numpy as np

from coterie.privacy.canonical import canonical
from coterie.privacy.discrete import discrete_gaussians
from coterie.privacy.errors import Fault
from coterie.privacy.matching.errors import MatchFault
from coterie.privacy.matching.group import Points, hash_to_group, multiply, random_points
from coterie.privacy.matching.own import Secrets
from coterie.privacy.matching.terms import COUNTS, MatchTerms
from coterie.privacy.randomness import Stream

__all__ = ["CANARIES", "cells_of", "check_count", "numbers", "planted", "sizes", "spread"]

CANARIES = 8
"""Items that every list holds, the same for all."""

_TAIL = 10.6  # exp(-10.6^2 / 2) is below 2^-81, and there are two tails


def spread(sigma: float) -> int:
    """Return K: how many dummies each set has, an even number.

    Guarantees:
        A discrete Gaussian of scale sigma exceeds K / 2, where `numbers` cuts it off, with probability below 2^-80: it
        is sub-Gaussian of that scale (Canonne, Kamath and Steinke 2020, section 3).
    """
    return 2 * math.ceil(_TAIL * sigma + 1)


def cells_of(terms: MatchTerms, name: str) -> tuple[tuple[str, ...], ...]:
    """Return the cells of the Venn diagram that a partner lies in, each in the roster's order; its own comes first."""
    others = [one for one in terms.names if one != name]
    joined = (part for size in range(len(others) + 1) for part in itertools.combinations(others, size))
    return tuple(tuple(one for one in terms.names if one == name or one in part) for part in joined)


def sizes(terms: MatchTerms) -> tuple[int, int]:
    """Return the least and the greatest number of points that a list may have.

    Raises:
        MatchFault: There is no scale of noise.

    Guarantees:
        Every list that keeps the plan's limits is between them, whatever its noise.
    """
    if terms.outcome != COUNTS:
        return _padded(terms, terms.least), _padded(terms, terms.most)
    width, count = _width(terms), len(terms.names)
    # The sum of |S| - 1 over the cells S of one partner is (n - 1) 2^(n - 2).
    fewest = CANARIES + width * (count - 1) * 2 ** (count - 2)
    return terms.least + fewest, terms.most + fewest + width * 2 ** (count - 1)


def check_count(terms: MatchTerms, count: int) -> None:
    """Check how many identifiers a partner has, before anything leaves it.

    Args:
        terms: The match.
        count: Different identifiers of its own.

    Raises:
        MatchFault: Fewer or more than the plan takes. For local eyes: no number of rows leaves a partner.
    """
    if not terms.least <= count <= terms.most:
        rule = f"a match takes {terms.least} to {terms.most} different identifiers of one partner, and here are {count}"
        raise MatchFault(Fault("identifiers", rule, "take part in another match, or seal more customers"))


def numbers(terms: MatchTerms, name: str, stream: Stream) -> dict[tuple[str, ...], int]:
    """Draw how many dummies of each of its sets a partner puts on its own list.

    Args:
        terms: The match.
        name: The partner.
        stream: Secret randomness.

    Returns:
        By cell, from 0 to K.

    Raises:
        MatchFault: There is no scale of noise.
    """
    width, cells = _width(terms), cells_of(terms, name)
    drawn = discrete_gaussians(terms.sigma or 0.0, len(cells), stream)
    cut = np.clip(drawn, -width // 2, width // 2)
    return {cell: width // 2 + int(z) for cell, z in zip(cells, cut, strict=True)}


def planted(terms: MatchTerms, name: str, *, secrets: Secrets, stream: Stream, count: int) -> Points:
    """Return what a partner puts on its list besides its customers: first the canaries.

    Args:
        terms: The match.
        name: The partner.
        secrets: Its secrets of the match.
        stream: Secret randomness, used for nothing else.
        count: Different identifiers of its own.

    Returns:
        Points under the partner's key (counts) or its blind (rows, tokens).

    Raises:
        MatchFault: Fewer or more identifiers than the plan takes.
    """
    check_count(terms, count)
    canaries = [canonical({"kind": "canary", "number": number}) for number in range(CANARIES)]
    if terms.outcome != COUNTS:
        known = multiply(hash_to_group(canaries, _dst(terms)), secrets.first)
        return np.concatenate((known, random_points(_padded(terms, count) - count - CANARIES, stream)))
    chosen = numbers(terms, name, stream)
    junk = random_points(chosen.pop((name,)), stream)
    items = canaries + _dummies(terms, name, chosen, stream)
    return np.concatenate((multiply(hash_to_group(items, _dst(terms)), secrets.first), junk))


def _dummies(terms: MatchTerms, name: str, chosen: dict[tuple[str, ...], int], stream: Stream) -> list[bytes]:
    """Return all dummies of the others' sets, and of each of this partner's own as many as were drawn, at random."""
    width, items = _width(terms), []
    for cell, number in chosen.items():
        ranks = np.frombuffer(stream.bits(8 * width), dtype="<u8")
        mine = np.argsort(ranks, kind="stable")[:number]
        items += [_dummy(name, cell, int(one)) for one in mine]
        items += [_dummy(other, cell, one) for other in cell if other != name for one in range(width)]
    return items


def _dummy(owner: str, cell: tuple[str, ...], number: int) -> bytes:
    return canonical({"kind": "dummy", "partner": owner, "cell": list(cell), "number": number})


def _dst(terms: MatchTerms) -> bytes:
    # Another tag than identifiers have: no customer can be a dummy (RFC 9380, section 3.1).
    return terms.dst + b"-planted"


def _width(terms: MatchTerms) -> int:
    if terms.sigma is None:
        raise MatchFault(Fault("a match's sigma", "counts alone have dummies", "this is a fault of the program"))
    return spread(terms.sigma)


def _padded(terms: MatchTerms, count: int) -> int:
    """Return the size of a list of identifiers with its canaries, padded to the size class."""
    return -(-(count + CANARIES) // terms.size_class) * terms.size_class
