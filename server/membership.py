"""Who is a member: how the books admit, renew and revoke a partner, inside a transaction of theirs.

A node key that was replaced or revoked is kept as retired. Flower never takes such a key again either, and a partner
that was revoked because its machine was lost must not come back on the key of that machine.
"""

import sqlalchemy as sql

from coterie.privacy.errors import Fault
from coterie.server.bookrows import Member
from coterie.server.booktables import BooksFault, members, retired

__all__ = ["admit", "member", "revoke"]

_RENEW = "ask for a new request: coterie partner request FOLDER --output request.json --renew"


def admit(db: sql.Connection, new: Member, now: str) -> None:
    """File a partner, or its renewal under the same identity key.

    Args:
        db: A writer's transaction.
        new: The partner; filed as not revoked.
        now: The time, ISO 8601 in UTC.

    Raises:
        BooksFault: Another key holds the name, another partner one of the keys, or the node key is out of use.
    """
    there = {row.name: row for row in db.execute(sql.select(members))}
    earlier = there.pop(new.name, None)
    if earlier is not None and earlier.revoked is None and earlier.key != new.key:
        raise BooksFault(Fault(new.name, "is admitted with another key", "revoke it first"))
    if any(row.node == new.node or (row.key == new.key and row.revoked is None) for row in there.values()):
        raise BooksFault(Fault(new.name, "has a key of another partner", _RENEW))
    if db.execute(sql.select(retired).where(retired.c.node == new.node)).first() is not None:
        raise BooksFault(Fault(new.name, "has a node key that was replaced or revoked", _RENEW))
    if earlier is not None and earlier.revoked is None and earlier.node != new.node:
        db.execute(retired.insert().values(node=earlier.node, name=new.name, at=now))
    db.execute(members.delete().where(members.c.name == new.name))
    db.execute(members.insert().values(**vars(new) | {"revoked": None}))


def revoke(db: sql.Connection, name: str, now: str) -> Member:
    """Revoke a partner and return it; again is no change.

    Args:
        db: A writer's transaction.
        name: The partner's.
        now: The time, ISO 8601 in UTC.

    Raises:
        BooksFault: There is no such partner.
    """
    there = member(db, name)
    if there.revoked is not None:
        return there
    db.execute(members.update().where(members.c.name == name).values(revoked=now))
    db.execute(retired.insert().values(node=there.node, name=name, at=now))
    return member(db, name)


def member(db: sql.Connection, name: str) -> Member:
    """Return a partner, revoked or not.

    Raises:
        BooksFault: There is no such partner.
    """
    row = db.execute(sql.select(members).where(members.c.name == name)).mappings().first()
    if row is None:
        raise BooksFault(Fault("the partner", "is not in the books", "see who is: coterie coordinator partners FOLDER"))
    return Member(**row)
