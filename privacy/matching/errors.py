"""What can go wrong in a match: our own fault, a peer's fault, or a library that is not there.

MatchError
├── MatchFault       this side was asked to do what it cannot do
├── GroupMissing     the library of the group is not installed, or is not what it must be
├── InvalidPoint     bytes that are no point of the group; whoever asked knows whose they are
└── PeerFault        a partner's or the coordinator's message is not what the protocol has there

None of them holds an identifier, a point or a key: names, positions, counts and limits alone.
"""

from coterie.privacy.errors import CoterieError, Fault

__all__ = ["GroupMissing", "InvalidPoint", "MatchError", "MatchFault", "PeerFault", "blame", "misused"]


class MatchError(CoterieError):
    """A match that does not go on."""


class MatchFault(MatchError):
    """This side was asked to do what its state or its data does not allow."""


class GroupMissing(MatchError):
    """The library that computes in the group cannot be used."""


class InvalidPoint(MatchError):
    """Bytes that are not the one encoding of a point of the group other than its identity.

    Args:
        index: Position of the first such point, from 0, in the points that were given.
    """

    def __init__(self, index: int) -> None:
        rule = "32 bytes must be the canonical encoding of a ristretto255 point other than the identity (RFC 9496)"
        super().__init__(Fault(f"point {index}", rule, "refuse the list and ask its sender"))
        self.index = index

    def __reduce__(self) -> tuple[type[CoterieError], tuple[int]]:  # type: ignore[override]
        """Pickle by position, so that the error survives the way back from a worker process."""
        return type(self), (self.index,)


class PeerFault(MatchError):
    """A message that is not what the protocol has there.

    Args:
        partner: Whose message it is; "" for the coordinator's.
        fault: What is wrong with it.
    """

    def __init__(self, partner: str, fault: Fault) -> None:
        super().__init__(fault)
        self.partner = partner

    def __reduce__(self) -> tuple[type[CoterieError], tuple[str, Fault]]:  # type: ignore[override]
        """Pickle with the partner, so that blame survives the way back from a worker process."""
        return type(self), (self.partner, self.faults[0])


def blame(partner: str, rule: str) -> PeerFault:
    """Return the fault of a partner's message, or with "" of the coordinator's."""
    place = f"a match's message of {partner}" if partner else "a match's request"
    return PeerFault(partner, Fault(place, rule, "ask its sender; the match gives no result"))


def misused(rule: str) -> MatchFault:
    """Return the error of a wrong call."""
    return MatchFault(Fault("match", rule, "this is a fault of the program that asked: report it"))
