"""What leaves a partner in a match; with `privacy/release.py`, everything that may leave.

Lists of points go from partner to partner, sealed: the coordinator sees who sends how much to whom, and no point.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.events import DiscreteGaussian, Event, Nothing
from coterie.privacy.matching.channel import Parcel
from coterie.privacy.matching.commitment import Commitment

__all__ = [
    "ManifestAccepted",
    "MatchCommitted",
    "MatchEnded",
    "MatchParcel",
    "OverlapCounts",
    "ParcelTaken",
    "leaving_of",
]


@dataclass(frozen=True)
class MatchCommitted:
    """A partner's list for a match, fixed: how long it is, and the digests of its blinded points.

    Leaks: with everything that follows from it, for counts: how many of the partner's customers each set of partners
    shares, with noise that its event pays for. For rows and tokens it is a Disclosure: the length of the list, up to
    the plan's size class, and afterwards what the outcome says.

    Args:
        commitment: What is fixed, signed by the partner.
        event: What pays for it; nothing pays for a Disclosure, which the ledger names.
    """

    kind: ClassVar[str] = "match-committed"
    commitment: Commitment
    event: DiscreteGaussian | Nothing

    @property
    def plan(self) -> str:
        """Digest of the plan."""
        return self.commitment.plan

    @property
    def partner(self) -> str:
        """The partner's name in the roster."""
        return self.commitment.partner

    @property
    def header(self) -> dict[str, Any]:
        """Its fields besides arrays, as plain JSON values."""
        return self.commitment.header

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Its arrays."""
        return ()


@dataclass(frozen=True)
class _Word:
    """A message without arrays that depends on no customer beyond what was committed to.

    Args:
        plan: Digest of the plan.
        partner: The partner's name in the roster.
    """

    plan: str
    partner: str

    @property
    def event(self) -> Event:
        """What pays for it: nothing more than for the list."""
        return Nothing()

    @property
    def header(self) -> dict[str, Any]:
        """Its fields besides arrays, as plain JSON values."""
        return dict(vars(self))

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Its arrays."""
        return ()


@dataclass(frozen=True)
class ManifestAccepted(_Word):
    """A partner's word that it works with these lists of all partners, and with no others.

    Leaks: nothing about a customer.

    Args:
        plan: Digest of the plan.
        partner: The partner's name in the roster.
        manifest: Digest of the lists' commitments.
    """

    kind: ClassVar[str] = "manifest-accepted"
    manifest: str


@dataclass(frozen=True)
class ParcelTaken(_Word):
    """A partner's word that it took a parcel.

    Leaks: nothing about a customer.

    Args:
        plan: Digest of the plan.
        partner: The partner's name in the roster.
        list: Whose list the parcel is of.
        hop: Which stretch of the list's way.
        index: Which parcel of the list.
        towards: For re-keyed tokens, who gets them; "" for the list itself.
    """

    kind: ClassVar[str] = "parcel-taken"
    list: str
    hop: int
    index: int
    towards: str


@dataclass(frozen=True)
class MatchParcel:
    """A piece of a list on its way to another partner, sealed for it.

    Leaks: nothing to the coordinator but sizes. To the receiver, points that are uniformly random to whoever lacks one
    partner's secret (DDH); what the finished lists tell was paid for, or disclosed, with the commitment.

    Args:
        parcel: The sealed piece.
    """

    kind: ClassVar[str] = "match-parcel"
    parcel: Parcel

    @property
    def plan(self) -> str:
        """Digest of the plan."""
        return self.parcel.plan

    @property
    def partner(self) -> str:
        """The partner's name in the roster."""
        return self.parcel.sender

    @property
    def event(self) -> Event:
        """What pays for it: nothing more than for the list."""
        return Nothing()

    @property
    def header(self) -> dict[str, Any]:
        """Its fields besides arrays, as plain JSON values."""
        return self.parcel.header

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """The sealed bytes."""
        return (np.frombuffer(self.parcel.sealed, dtype=np.uint8),)


@dataclass(frozen=True)
class OverlapCounts(_Word):
    """How many customers each set of partners shares, noisy, as the partner who counted found it.

    Leaks: nothing beyond the lists, whose noise every partner has paid for: it is computed from them alone.

    Args:
        plan: Digest of the plan.
        partner: The partner who counted.
        overlap: What `Overlap.to_dict` wrote.
    """

    kind: ClassVar[str] = "overlap-counts"
    overlap: Mapping[str, Any]


@dataclass(frozen=True)
class MatchEnded(_Word):
    """A partner's word that it has what the match is for, and destroyed its secrets.

    Leaks: nothing about a customer. `canaries` is the same for all partners where each evaluated every list alike.

    Args:
        plan: Digest of the plan.
        partner: The partner's name in the roster.
        canaries: Digest of the tokens of the items that every list holds; "" where none are to be compared.
    """

    kind: ClassVar[str] = "match-ended"
    canaries: str


_WORDS = {kind.kind: kind for kind in (ManifestAccepted, ParcelTaken, OverlapCounts, MatchEnded)}
_TYPES = {"hop": int, "index": int, "overlap": dict}


def leaving_of(
    kind: str, header: dict[str, Any], arrays: tuple[NDArray[Any], ...], *, event: DiscreteGaussian | Nothing
) -> "MatchCommitted | ManifestAccepted | ParcelTaken | MatchParcel | OverlapCounts | MatchEnded":
    """Make what left from its parts.

    Args:
        kind: Its kind.
        header: Its header.
        arrays: Its arrays.
        event: The plan's event of a list, which is not on the wire.

    Raises:
        KeyError, TypeError, ValueError: The parts are not those of a message of this kind.
    """
    if kind == MatchParcel.kind:
        (sealed,) = arrays
        if sealed.dtype != np.uint8 or sealed.ndim != 1:
            raise TypeError(kind)
        return MatchParcel(Parcel.from_parts(header, sealed.tobytes()))
    if arrays:
        raise ValueError(kind)
    if kind == MatchCommitted.kind:
        return MatchCommitted(Commitment.from_header(header), event)
    if any(type(value) is not _TYPES.get(name, str) for name, value in header.items()):
        raise TypeError(kind)
    return _WORDS[kind](**header)
