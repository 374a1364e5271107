"""Who may connect now, by the books; looked up again every few seconds, so that a revocation takes hold at once."""

import datetime
import time
from collections.abc import Callable, Mapping

from coterie.privacy.clock import now
from coterie.server.bookrows import Member
from coterie.server.books import Books
from coterie.server.office import Office
from coterie.server.running.operator import LinkRefused, Operator, node_bytes

__all__ = ["admitted_keys", "current", "reconcile"]

_FRESH = 1.0  # seconds for which an answer is good


def current(members: tuple[Member, ...], at: datetime.datetime) -> tuple[Member, ...]:
    """Return the members that are neither revoked nor past their time.

    Args:
        members: As the books have them.
        at: The time in UTC.
    """
    return tuple(
        member for member in members if member.revoked is None and datetime.datetime.fromisoformat(member.expires) > at
    )


def admitted_keys(office: Office, monotonic: Callable[[], float] = time.monotonic) -> Callable[[], Mapping[bytes, str]]:
    """Return a function that finds the keys of the nodes that may connect, and whose they are.

    Args:
        office: The coordinator's folder.
        monotonic: Clock that decides when to look again.
    """
    books = Books(office.books_url, now)
    seen: dict[bytes, str] = {}
    looked = float("-inf")

    def keys() -> Mapping[bytes, str]:
        nonlocal seen, looked
        if monotonic() - looked > _FRESH:
            members = current(books.members(), now())
            seen = {node_bytes(member.node): member.name for member in members}
            looked = monotonic()
        return seen

    return keys


def reconcile(
    flower: Operator, members: tuple[Member, ...], at: datetime.datetime
) -> tuple[list[str], list[str], list[str]]:
    """Make the SuperLink's registered nodes those of the members that may connect.

    A registration is taken back from those that were revoked or have another key, not from those whose time is past:
    Flower never takes a key again, and they may yet be admitted anew. The gateway keeps them out meanwhile.

    Args:
        flower: The hand at the SuperLink.
        members: As the books have them.
        at: The time in UTC.

    Returns:
        Names of the members that were registered, of those whose registration was taken back, and of those whose key
        the SuperLink refuses: they need a new one.

    Raises:
        LinkFault: The SuperLink does not answer.
    """
    wanted = {node_bytes(member.node): member.name for member in current(members, at)}
    kept = {node_bytes(member.node) for member in members if member.revoked is None}
    known = {node.key: node for node in flower.nodes()}
    added, refused = [], []
    for key in wanted.keys() - known.keys():
        try:
            flower.register(key, wanted[key])
            added.append(wanted[key])
        except LinkRefused:
            refused.append(wanted[key])
    gone = [node for key, node in known.items() if key not in kept]
    for node in gone:
        flower.unregister(node.number)
    return sorted(added), sorted(node.name for node in gone), sorted(refused)
