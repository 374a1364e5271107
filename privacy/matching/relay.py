"""A partner's work on lists that go round: open a parcel, multiply its points, arrange the list, seal it onward.

For counts every partner puts the whole list into ascending order of what it made: who sees it afterwards cannot tell
which point was which. For rows and tokens order is kept, and the list comes back to its owner.
"""

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.errors import Fault
from coterie.privacy.matching.channel import Parcel, fault_at, opened, seal
from coterie.privacy.matching.commitment import ascending, chunk_digest
from coterie.privacy.matching.errors import InvalidPoint, MatchFault, PeerFault, misused
from coterie.privacy.matching.group import Points, check_points, multiply
from coterie.privacy.matching.legs import Leg, Stage, legs_of
from coterie.privacy.matching.manifest import Manifest
from coterie.privacy.matching.own import Own
from coterie.privacy.matching.terms import COUNTS
from coterie.privacy.randomness import Stream

__all__ = ["Parcel", "arranged", "begun", "evaluated", "forward", "made", "receive"]


def begun(own: Own, manifest: Manifest) -> tuple[Leg, ...]:
    """Return this partner's legs as they are before any parcel came; its own list is ready to go.

    Raises:
        MatchFault: The manifest is of another match.
    """
    if manifest.terms != own.terms:
        raise misused("the manifest is another match's")
    sizes = {one.partner: one.size for one in manifest.commitments}
    legs = legs_of(own.terms, own.name, sizes=sizes)
    ready = manifest.of(own.name).chunks
    return tuple(_ready(leg, ready) if leg.position == 0 else leg for leg in legs)


def receive(own: Own, manifest: Manifest, *, leg: Leg, parcel: Parcel) -> tuple[Leg, NDArray[np.uint8], bool]:
    """Open a parcel, and take it.

    Args:
        own: Who takes it.
        manifest: The manifest.
        leg: Where the list stands here.
        parcel: What came.

    Returns:
        The leg to store, the parcel's rows to store with it, and whether both were taken before.

    Raises:
        MatchFault: The parcel belongs to another leg.
        PeerFault: Naming the sender or the coordinator (""), the list and the chunk: the parcel is not what the
            manifest has there, is out of order, or has other rows than before.
    """
    rows = opened(own, manifest, parcel)
    address = parcel.address
    if address != leg.address(address.index):
        raise misused("the parcel belongs to another part of a list's way")
    digest = chunk_digest(rows)
    if not address.towards and address.hop == 0 and manifest.of(address.list).chunks[address.index] != digest:
        raise fault_at(parcel.sender, address, "is not what its owner committed to")
    after, again = leg.take(parcel.sender, address.index, digest=digest)
    return after, rows, again


def evaluated(own: Own, manifest: Manifest, *, leg: Leg, index: int, points: Points) -> Points:
    """Do this partner's part with a parcel's points; each parcel may be done by itself, in any order.

    A partner on the way multiplies by its key. An owner whose list is back multiplies by key and inverse blind. A
    teller that a list ends at checks the points.

    Args:
        own: Who works.
        manifest: The manifest.
        leg: Where the list stands here.
        index: Which parcel, from 0.
        points: Its points, shape (rows, 32).

    Raises:
        MatchFault: It is the owner's list at its start.
        PeerFault: Naming the sender, list and chunk: bytes that are no point, or the identity.
        GroupMissing: There is no libsodium.
    """
    terms = manifest.terms
    if leg.position == 0 or leg.towards:
        raise misused("a partner's own list is made, not evaluated; and tokens are no points")
    whole = np.ascontiguousarray(points)
    try:
        if leg.position < len(terms.names):
            return multiply(whole, own.secrets.scalar)
        if terms.outcome != COUNTS:
            return multiply(whole, own.secrets.last)
        check_points(whole)
    except InvalidPoint as error:
        rule = f"point {error.index} of it is not the encoding of a point, or is the identity"
        raise fault_at(_sender(manifest, leg), leg.address(index), rule) from None
    return whole


def arranged(manifest: Manifest, leg: Leg, points: Points) -> NDArray[np.int64]:
    """Return the order in which a list that was evaluated whole is to be stored, and goes on.

    Args:
        manifest: The manifest.
        leg: Where the list stands here.
        points: What `evaluated` gave of all parcels; may be a memory map.

    Returns:
        Positions in `points`: ascending for counts, as they are for rows and tokens.

    Raises:
        PeerFault: Naming the owner and the list: two of its points are equal.

    Guarantees:
        For counts, the order of what goes on is independent of the order in which it came.
    """
    try:
        order = ascending(points)
    except MatchFault:
        rule = "has two equal points: a pair would mark a customer"
        fault = Fault(f"the list of {leg.list}", rule, "ask its owner; the match gives no result")
        raise PeerFault(leg.list, fault) from None
    return order if manifest.terms.outcome == COUNTS else np.arange(len(points))


def made(manifest: Manifest, leg: Leg, points: NDArray[np.uint8]) -> Leg:
    """Write down what was made of a list, read a parcel at a time.

    Args:
        manifest: The manifest.
        leg: Where the list stands here.
        points: The list as arranged; may be a memory map.

    Raises:
        MatchFault: The list was not whole, or something else was made of it before.
    """
    width = manifest.terms.chunk
    return leg.make([chunk_digest(points[start : start + width]) for start in range(0, len(points), width)])


def forward(
    own: Own, manifest: Manifest, *, leg: Leg, index: int, rows: NDArray[np.uint8], stream: Stream
) -> tuple[Leg, Parcel]:
    """Seal a parcel for the next partner on a list's way.

    Args:
        own: Who sends.
        manifest: The manifest.
        leg: Where the list stands here.
        index: Which parcel, from 0; the next, or one that went on before.
        rows: Its rows, as arranged.
        stream: Secret randomness for the nonce.

    Returns:
        The leg to store before the parcel leaves, and the parcel.

    Raises:
        MatchFault: It is not the parcel's turn, or the rows are not what was made.
    """
    after = leg.hand(index, digest=chunk_digest(rows))
    return after, seal(own, manifest, address=leg.onward(index), rows=rows, stream=stream)


def _sender(manifest: Manifest, leg: Leg) -> str:
    return manifest.terms.path(leg.list)[leg.position - 1]


def _ready(leg: Leg, digests: tuple[str, ...]) -> Leg:
    return Leg(leg.list, 0, leg.count, leg.ends, stage=Stage.MADE, made=digests)
