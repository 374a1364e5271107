"""How the books file a study, find it, and give it another status, inside a transaction of theirs."""

from typing import Any

import sqlalchemy as sql

from coterie.privacy.errors import Fault
from coterie.privacy.signed import SignedPlan
from coterie.server.bookrows import ENDED, FOLLOWS, QUEUED, RUNNING, Study
from coterie.server.booktables import BooksFault, studies

__all__ = ["ask_stop", "changed", "find", "known", "meant", "move", "submit"]

_LEAST = 6  # hexadecimal digits of a digest that name a study


def submit(db: sql.Connection, signed: SignedPlan, now: str) -> Study:
    """File a signed plan as a queued study; one that is there already is returned as it stands.

    Args:
        db: A writer's transaction.
        signed: The plan.
        now: The time, ISO 8601 in UTC.

    Raises:
        BooksFault: The plan is there under another signature.
    """
    digest, data = signed.plan.digest(), signed.to_bytes()
    there = _found(db, digest)
    if there is None:
        new = Study(digest, signed.plan.name, QUEUED, now, None, "", "", stop=False, signed=data)
        db.execute(studies.insert().values(**vars(new)))
        return new
    if there.signed != data:
        raise BooksFault(Fault(there.name, "is filed under another signature", "keep one signing key"))
    return there


def find(db: sql.Connection, ref: str) -> Study:
    """Return the study that is meant by its name, its digest or the beginning of its digest.

    Raises:
        BooksFault: There is none, or there are several.
    """
    rows = db.execute(sql.select(studies.c.digest, studies.c.name))
    named = [row.digest for row in rows if meant(ref, row.digest, row.name)]
    if len(named) == 1:
        return known(db, named[0])
    rule = f"names {len(named)} studies" if named else "names no study in the books"
    raise BooksFault(Fault("the study", rule, "give more of its digest: coterie coordinator studies FOLDER"))


def meant(ref: str, digest: str, name: str) -> bool:
    """Return whether a study is meant by a name, or by at least six digits that its digest begins with."""
    digits = ref.removeprefix("sha256:")
    return ref == name or (len(digits) >= _LEAST and digest.removeprefix("sha256:").startswith(digits))


def move(db: sql.Connection, digest: str, status: str, *, reason: str, now: str) -> Study:
    """Give a study another status; the one that it has is no change.

    Args:
        db: A writer's transaction.
        digest: The plan's.
        status: Follows the study's in `FOLLOWS`.
        reason: Why it ended without a model.
        now: The time, ISO 8601 in UTC.

    Raises:
        BooksFault: There is no such study.
        ValueError: The status does not follow: a fault of the caller.
    """
    study = known(db, digest)
    if status == study.status:
        return study
    if status not in FOLLOWS[study.status]:
        raise ValueError(f"{status} does not follow {study.status}")
    values: dict[str, Any] = {"status": status, "reason": reason, "ended": now if status in ENDED else None}
    if status == QUEUED:
        values["stop"] = False  # asked for again: an earlier wish to stop is fulfilled
    return changed(db, digest, **values)


def ask_stop(db: sql.Connection, digest: str) -> Study:
    """File that a study is to stop after its round.

    Raises:
        BooksFault: There is no such study, or it has ended.
    """
    study = known(db, digest)
    if study.status not in {QUEUED, RUNNING}:
        raise BooksFault(Fault(study.name, f"is {study.status} already", "there is nothing to stop"))
    return changed(db, digest, stop=True)


def changed(db: sql.Connection, digest: str, **values: object) -> Study:
    """Change some columns of a study and return it.

    Raises:
        BooksFault: There is no such study.
    """
    db.execute(studies.update().where(studies.c.digest == digest).values(**values))
    return known(db, digest)


def known(db: sql.Connection, digest: str) -> Study:
    """Return the study with this digest.

    Raises:
        BooksFault: There is no such study.
    """
    study = _found(db, digest)
    if study is None:
        raise BooksFault(Fault("the study", "is not in the books", "submit it first"))
    return study


def _found(db: sql.Connection, digest: str) -> Study | None:
    row = db.execute(sql.select(studies).where(studies.c.digest == digest)).mappings().first()
    return None if row is None else Study(**row)
