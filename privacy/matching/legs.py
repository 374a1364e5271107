"""Where a list stands at a partner: what may come next. Nothing here talks, computes or stores.

    TAKING ──take──▶ TAKEN ──make──▶ MADE ──hand──▶ HANDED

A list comes in parcels in their order (`take`, once for each), is worked on as a whole (`make`), and goes on in parcels
in their order (`hand`). Its owner begins at MADE; who gets it in the end stays there. What was done is answered again
if it is the same: TAKEN, MADE and HANDED take any of their parcels once more if its rows are the same bytes.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from coterie.privacy.canonical import canonical
from coterie.privacy.matching.channel import fault_at
from coterie.privacy.matching.errors import MatchFault, misused
from coterie.privacy.matching.terms import MatchTerms
from coterie.privacy.matching.ways import Address

__all__ = ["TABLE", "Leg", "Move", "Stage", "legs_of"]

_FORMAT = "coterie/match/leg/v1"


class Stage(Enum):
    """Where a list stands at a partner."""

    TAKING = "taking"
    TAKEN = "taken"
    MADE = "made"
    HANDED = "handed"


class Move(Enum):
    """What is done with a list."""

    TAKE = "take"
    MAKE = "make"
    HAND = "hand"


TABLE: dict[tuple[Stage, Move], Stage] = {
    (Stage.TAKING, Move.TAKE): Stage.TAKEN,  # with the last parcel; TAKING until then
    (Stage.TAKEN, Move.MAKE): Stage.MADE,
    (Stage.MADE, Move.HAND): Stage.HANDED,  # with the last parcel; MADE until then
}


@dataclass(frozen=True)
class Leg:
    """One partner's part in the way of one list.

    Args:
        list: Whose list.
        position: Where on its path the partner stands, from 0; the owner of a list that comes back, and a teller that
            multiplies too, stand there twice. For re-keyed tokens, the number of partners, or one more to get them.
        count: Parcels of the list.
        ends: Whether the list stays here.
        towards: As in `Address`.
        stage: Where it stands.
        taken: SHA-256 of the rows of every parcel that was taken, in order.
        made: SHA-256 of the rows of every parcel of what was made of them.
        handed: Parcels that went on.
    """

    list: str
    position: int
    count: int
    ends: bool
    towards: str = ""
    stage: Stage = Stage.TAKING
    taken: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    handed: int = 0

    @property
    def done(self) -> bool:
        """Whether nothing is left to be done with the list here."""
        return self.stage is Stage.HANDED or (self.ends and self.stage is Stage.MADE)

    def address(self, index: int) -> Address:
        """Return the address of a parcel that comes in here."""
        return Address(self.list, self.position - 1, index, self.towards)

    def onward(self, index: int) -> Address:
        """Return the address of a parcel that goes on from here."""
        return Address(self.list, self.position, index, self.towards)

    def take(self, sender: str, index: int, *, digest: str) -> tuple["Leg", bool]:
        """Take a parcel.

        Args:
            sender: Whose parcel it is.
            index: Which, from 0.
            digest: SHA-256 of its rows.

        Returns:
            The leg after it, and whether the parcel was taken before.

        Raises:
            PeerFault: It comes out of order, or was taken before with other rows.
        """
        if 0 <= index < len(self.taken):
            if self.taken[index] != digest:
                raise fault_at(sender, self.address(index), "was taken before, and has other rows now")
            return self, True
        if index != len(self.taken) or self.stage is not Stage.TAKING:
            rule = f"comes out of order: chunk {len(self.taken)} of {self.count} is next"
            raise fault_at(sender, self.address(index), rule)
        taken = (*self.taken, digest)
        stage = TABLE[Stage.TAKING, Move.TAKE] if len(taken) == self.count else Stage.TAKING
        return dataclasses.replace(self, taken=taken, stage=stage), False

    def make(self, digests: Sequence[str]) -> "Leg":
        """Write down what was made of the whole list.

        Args:
            digests: SHA-256 of the rows of every parcel that it will go on in.

        Raises:
            MatchFault: The list is not complete, or something else was made of it before.
        """
        if self.stage in {Stage.MADE, Stage.HANDED} and self.made == tuple(digests):
            return self
        if self.stage is not Stage.TAKEN or len(digests) != self.count:
            raise misused("a list is worked on once, and as a whole")
        return dataclasses.replace(self, made=tuple(digests), stage=TABLE[self.stage, Move.MAKE])

    def hand(self, index: int, *, digest: str) -> "Leg":
        """Hand a parcel on.

        Args:
            index: Which, from 0; the next, or one that went on before.
            digest: SHA-256 of its rows.

        Raises:
            MatchFault: It is not its turn, or it is not what was made.
        """
        if self.ends or self.stage not in {Stage.MADE, Stage.HANDED} or not 0 <= index <= self.handed:
            raise misused("a list goes on once it is whole, in the order of its parcels")
        if index >= self.count or self.made[index] != digest:
            raise misused("what goes on is what was made of the list, and nothing else")
        handed = max(self.handed, index + 1)
        stage = TABLE[Stage.MADE, Move.HAND] if handed == self.count else Stage.MADE
        return dataclasses.replace(self, handed=handed, stage=stage)

    def to_bytes(self) -> bytes:
        """Return the leg as canonical JSON."""
        fields = {**dataclasses.asdict(self), "stage": self.stage.value}
        return canonical({"format": _FORMAT, "leg": {**fields, "taken": list(self.taken), "made": list(self.made)}})

    @staticmethod
    def from_bytes(data: bytes) -> "Leg":
        """Read what `to_bytes` wrote.

        Raises:
            MatchFault: It is not what `to_bytes` wrote.
        """
        try:
            fields = json.loads(data)["leg"]
            lists = {"taken": tuple(fields["taken"]), "made": tuple(fields["made"])}
            leg = Leg(**{**fields, **lists, "stage": Stage(fields["stage"])})
            if leg.to_bytes() != data:  # one state, one byte string
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise _unreadable() from None
        return leg


def legs_of(terms: MatchTerms, name: str, *, sizes: dict[str, int]) -> tuple[Leg, ...]:
    """Return a partner's parts in the ways of all lists, as they are before anything came.

    Args:
        terms: The match.
        name: The partner.
        sizes: Points on every partner's list, as committed to.
    """
    found = []
    for owner in terms.names:
        path = terms.path(owner)
        for position, holder in enumerate(path):
            if holder == name:
                ends = position == len(path) - 1
                stage = Stage.MADE if position == 0 else Stage.TAKING
                found.append(Leg(owner, position, terms.chunks(sizes[owner]), ends, stage=stage))
    return tuple(found)


def _unreadable() -> MatchFault:
    return misused("a stored part of a list's way cannot be read")
