"""The ways that lists go: which part of which list is where, from whom, and to whom."""

from dataclasses import dataclass

from coterie.privacy.matching.errors import misused
from coterie.privacy.matching.terms import ROWS, MatchTerms

__all__ = ["Address", "Stretch", "ends_of", "known", "stretches"]


@dataclass(frozen=True)
class Address:
    """Which part of which list, and on which stretch of its way.

    Args:
        list: Whose list.
        hop: Stretch of the way, from 0: the list goes from its path's partner `hop` to partner `hop + 1`. For re-keyed
            tokens, which go from the owner to one other, the number of partners.
        index: Which parcel of the list, from 0.
        towards: For re-keyed tokens, who gets them; "" for the list itself.
    """

    list: str
    hop: int
    index: int
    towards: str = ""


@dataclass(frozen=True)
class Stretch:
    """A list's way from one partner to another, as who relays it sees it.

    Args:
        list: Whose list.
        hop: As in `Address`.
        towards: As in `Address`.
        sender: Who sends it.
        receiver: Who gets it.
    """

    list: str
    hop: int
    towards: str
    sender: str
    receiver: str

    def address(self, index: int) -> Address:
        """Return the address of a parcel on this stretch."""
        return Address(self.list, self.hop, index, self.towards)


def stretches(terms: MatchTerms, owner: str) -> tuple[Stretch, ...]:
    """Return the stretches of a list's way, each of which begins when the one before is done.

    For rows, the tokens that its owner sends to each of the others follow.
    """
    path = terms.path(owner)
    found = [Stretch(owner, hop, "", path[hop], path[hop + 1]) for hop in range(len(path) - 1)]
    if terms.outcome == ROWS:
        others = (one for one in terms.names if one != owner)
        found += [Stretch(owner, len(terms.names), other, owner, other) for other in others]
    return tuple(found)


def known(terms: MatchTerms, address: Address) -> bool:
    """Return whether there is such a stretch of way at all."""
    names = terms.names
    if address.list not in names:
        return False
    if address.towards:
        other = address.towards in names and address.towards != address.list
        return terms.outcome == ROWS and other and address.hop == len(names)
    return 0 <= address.hop < len(terms.path(address.list)) - 1


def ends_of(terms: MatchTerms, address: Address) -> tuple[str, str]:
    """Return who sends a parcel, and who gets it.

    Raises:
        MatchFault: There is no such stretch of way.
    """
    if not known(terms, address):
        raise misused("there is no such stretch of a list's way")
    if address.towards:
        return address.list, address.towards
    path = terms.path(address.list)
    return path[address.hop], path[address.hop + 1]
