"""Counting the cells of a Venn diagram over the final lists, and the noisy counts that are given out.

The raw number of a cell is never given out: planted dummies are in it, with the noise that protects each partner's
customers. Their public expectation is taken off, and what remains below the plan's least is not told.
"""

import bisect
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.errors import Fault
from coterie.privacy.matching.commitment import is_ascending, words
from coterie.privacy.matching.decoys import CANARIES
from coterie.privacy.matching.errors import PeerFault, blame, misused
from coterie.privacy.matching.group import Points
from coterie.privacy.matching.terms import MatchTerms

__all__ = ["Cell", "cells", "check_canaries"]

Cell = frozenset[str]
"""The names of the partners that have a customer, and no other has it."""

_AT_ONCE = 1 << 19  # points that are compared at a time


def cells(lists: Mapping[str, Points], names: Sequence[str]) -> dict[Cell, int]:
    """Count, for every set of partners, the points that are on exactly their lists.

    Args:
        lists: By partner, the final list in ascending order; memory maps are read a range at a time.
        names: The partners, in the roster's order.

    Returns:
        By cell, for all 2^n - 1 of them. Raw: not to be given out.

    Raises:
        MatchFault: A list is missing or is one too many.
        PeerFault: Naming the owner: its list is not in ascending order, or has two equal points.
    """
    if set(lists) != set(names):
        raise misused("the final lists of all partners are counted, and no others")
    counts = np.zeros(2 ** len(names), dtype=np.int64)
    for parts in _ranges([lists[name] for name in names]):
        for name, part in zip(names, parts, strict=True):
            _check_ascending(name, part)
        bits = np.concatenate([np.full(len(part), 1 << place) for place, part in enumerate(parts)])
        counts += np.bincount(_masks(np.concatenate(parts), bits), minlength=len(counts))
    return {
        frozenset(name for place, name in enumerate(names) if mask >> place & 1): int(counts[mask])
        for mask in range(1, len(counts))
    }


def check_canaries(terms: MatchTerms, raw: Mapping[Cell, int]) -> None:
    """Check that the lists went through the same hands: the canaries are on all of them.

    Raises:
        PeerFault: Naming the owner of the one list that shares too few points with all others; or ("") saying that the
            lists do not agree, where it cannot be said whose it is.

    Guarantees:
        Whether it raises does not depend on a customer when every partner keeps to the protocol: then it never does.
    """
    everyone = frozenset(terms.names)
    if raw[everyone] >= CANARIES:
        return
    if len(everyone) > 2:
        for name in terms.names:
            if raw[everyone - {name}] >= CANARIES and not any(
                count for cell, count in raw.items() if name in cell and len(cell) > 1
            ):
                raise _apart(name)
    raise blame("", "lists do not agree in their canaries: some went through other hands, or under another key")


def _apart(name: str) -> PeerFault:
    rule = "does not hold the canaries of all others: it went through other hands, or under another key"
    return PeerFault("", Fault(f"the list of {name}", rule, "ask every partner; the match gives no result"))


def _ranges(lists: Sequence[Points]) -> Iterator[list[Points]]:
    """Cut sorted lists at the same leading bytes, so that equal points are in the same range."""
    total = sum(len(one) for one in lists)
    count = min(65_536, 2 ** math.ceil(math.log2(max(1, total / _AT_ONCE))))
    edges = [(65_536 * place // count).to_bytes(2, "big") for place in range(1, count)]
    cuts = [[0, *(_place(one, edge) for edge in edges), len(one)] for one in lists]
    for start, stop in itertools.pairwise(range(count + 1)):
        yield [np.asarray(one[cut[start] : cut[stop]]) for one, cut in zip(lists, cuts, strict=True)]


def _place(points: Points, edge: bytes) -> int:
    """Return how many points of a sorted list begin below two bytes; reads a few of them."""
    return bisect.bisect_left(range(len(points)), edge, key=lambda row: points[row, :2].tobytes())


def _check_ascending(name: str, part: Points) -> None:
    """Refuse what would be counted wrongly."""
    if not is_ascending(part):
        rule = "is not in ascending order, or has two equal points"
        raise PeerFault(name, Fault(f"the list of {name}", rule, "ask who sent it; the match gives no result"))


def _masks(points: Points, bits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for every different point, the sum of the bits of the lists that it is on."""
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    whole = words(points)
    order = np.argsort(whole[:, 0], kind="stable")
    ordered = whole[order]
    same = ordered[1:, 0] == ordered[:-1, 0]
    if np.any(same & np.any(ordered[1:] != ordered[:-1], axis=1)):  # unequal points with 8 equal bytes
        order = np.lexsort(whole.T[::-1])
        ordered = whole[order]
    starts = np.concatenate(([True], np.any(ordered[1:] != ordered[:-1], axis=1)))
    sums: NDArray[np.int64] = np.bitwise_or.reduceat(bits[order], np.flatnonzero(starts))
    return sums
