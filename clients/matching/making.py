"""Making a partner's own list for a match: identifiers to blinded points, and what is planted among them."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from coterie.clients.identifierrows import IdentifierList
from coterie.clients.matching.store import Kept, MatchStore
from coterie.privacy.matching.commitment import ascending, commit, own_points
from coterie.privacy.matching.decoys import planted
from coterie.privacy.matching.group import POINT, Points
from coterie.privacy.matching.identifiers import item
from coterie.privacy.matching.own import Own
from coterie.privacy.randomness import Stream

__all__ = ["OWN", "gathered", "make_list"]

OWN = "own"
_MADE = "made"


def make_list(store: MatchStore, own: Own, identifiers: IdentifierList, *, attempt: int, stream: Stream) -> Kept:
    """Make the list, a piece at a time, and commit to it.

    Args:
        store: Where it is kept; begun.
        own: The partner, with fresh secrets.
        identifiers: Its customers', opened.
        attempt: 1, or more after a lost one.
        stream: Secret randomness for what is planted.

    Raises:
        MatchFault: There are more identifiers than the plan has, or fewer.
        GroupMissing: There is no libsodium.
        FileFault: The disk is full.
    """
    kind = own.terms.identifier

    def pieces() -> Iterator[Points]:
        yield from own_points(own, ([item(kind, value) for value in values] for values in identifiers.items()))
        yield planted(own.terms, own.name, secrets=own.secrets, stream=stream, count=identifiers.count)

    store.write_all(_MADE, pieces())
    points = store.read(_MADE, POINT)
    order = ascending(points)
    gathered(store, OWN, points, order, step=own.terms.chunk)
    store.keep_order(order)
    commitment = commit(own, store.read(OWN, POINT), attempt=attempt)
    store.remove(_MADE)
    kept = Kept(own.secrets, commitment, identifiers.count, identifiers.digest)
    store.save(kept)
    return kept


def gathered(
    store: MatchStore, name: str, rows: NDArray[np.uint8], order: NDArray[np.int64], *, step: int
) -> NDArray[np.uint8]:
    """Write rows in another order, a piece at a time, and return the new file.

    Args:
        store: Where it is kept.
        name: Of the new file.
        rows: uint8, shape (rows, width); may be a memory map.
        order: Where each new row comes from, shape (rows,).
        step: Rows at a time.
    """
    store.write_all(name, (rows[order[start : start + step]] for start in range(0, len(order), step)))
    return store.read(name, rows.shape[1])
