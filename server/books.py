"""The coordinator's books: who was admitted, which studies were submitted, and what came of every one of them.

Rules this module enforces:
- what is filed again is no error, so that an interrupted study may file all of it once more; what contradicts the books
  is one, and changes nothing;
- a published round has one model, and a published study one version;
- a node key that was replaced or revoked never comes back;
- a study's status changes along `bookrows.FOLLOWS` alone.
"""

import datetime
import json
from collections.abc import Callable, Iterable
from typing import Any, Self

import sqlalchemy as sql

from coterie.privacy.errors import Fault
from coterie.privacy.signed import SignedPlan
from coterie.server import membership, submissions
from coterie.server.bookrows import Absence, Member, Model, Round, Study
from coterie.server.booktables import (
    BooksFault,
    absences,
    members,
    models,
    opened,
    reading,
    retired,
    rounds,
    studies,
    writing,
)

__all__ = ["Absence", "Books", "BooksFault", "Member", "Model", "Round", "Study"]


class Books:
    """The books, open; a context manager.

    Args:
        url: "sqlite:////absolute/path" (made when missing) or "postgresql://user:password@host/database".
        clock: Returns the time in UTC.

    Raises:
        BooksFault: As `booktables.opened`; every method, too, when the database refuses.
    """

    def __init__(self, url: str, clock: Callable[[], datetime.datetime]) -> None:
        self._engine = opened(url)
        self._clock = clock

    def __enter__(self) -> Self:
        """Return the books."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close them."""
        self._engine.dispose()

    # --- partners -----------------------------------------------------------------------------------------------

    def admit(self, member: Member) -> None:
        """File a partner that the operator admitted, or its renewal under the same identity key.

        Raises:
            BooksFault: Another key holds the name, another partner one of the keys, or the node key is out of use.
        """
        with writing(self._engine) as db:
            membership.admit(db, member, self._now())

    def revoke(self, name: str) -> Member:
        """Revoke a partner; again is no error.

        Raises:
            BooksFault: There is no such partner.
        """
        with writing(self._engine) as db:
            return membership.revoke(db, name, self._now())

    def member(self, name: str) -> Member:
        """Return a partner, revoked or not.

        Raises:
            BooksFault: There is no such partner.
        """
        with reading(self._engine) as db:
            return membership.member(db, name)

    def members(self) -> tuple[Member, ...]:
        """Return every partner by name, the revoked ones too."""
        with reading(self._engine) as db:
            ordered = sql.select(members).order_by(members.c.name)
            return tuple(Member(**row) for row in db.execute(ordered).mappings())

    def retired(self) -> tuple[str, ...]:
        """Return the node keys that were replaced or revoked; none of them may be registered."""
        with reading(self._engine) as db:
            return tuple(db.execute(sql.select(retired.c.node).order_by(retired.c.at, retired.c.node)).scalars())

    # --- studies ------------------------------------------------------------------------------------------------

    def submit(self, signed: SignedPlan) -> Study:
        """File a signed plan as a queued study; one that is there already is returned as it stands.

        Raises:
            BooksFault: The plan is there under another signature.
        """
        with writing(self._engine) as db:
            return submissions.submit(db, signed, self._now())

    def study(self, ref: str) -> Study:
        """Return the study with this name, or whose digest begins so.

        Args:
            ref: The study's name, its digest, or at least six hexadecimal digits that the digest begins with.

        Raises:
            BooksFault: There is none, or there are several.
        """
        with reading(self._engine) as db:
            return submissions.find(db, ref)

    def studies(self) -> tuple[Study, ...]:
        """Return all studies, the newest last."""
        with reading(self._engine) as db:
            ordered = sql.select(studies).order_by(studies.c.submitted, studies.c.digest)
            return tuple(Study(**row) for row in db.execute(ordered).mappings())

    def move(self, digest: str, status: str, reason: str = "") -> Study:
        """Give a study another status; the one that it has is no change.

        Args:
            digest: The plan's.
            status: Follows the study's in `bookrows.FOLLOWS`.
            reason: Why it ended without a model.

        Raises:
            BooksFault: There is no such study.
            ValueError: The status does not follow: a fault of the caller.
        """
        with writing(self._engine) as db:
            return submissions.move(db, digest, status, reason=reason, now=self._now())

    def set_run(self, digest: str, run: str) -> Study:
        """File Flower's number of a study's newest run.

        Raises:
            BooksFault: There is no such study.
        """
        with writing(self._engine) as db:
            return submissions.changed(db, digest, run=run)

    def ask_stop(self, digest: str) -> Study:
        """Ask a study to stop after its round.

        Raises:
            BooksFault: There is no such study, or it has ended.
        """
        with writing(self._engine) as db:
            return submissions.ask_stop(db, digest)

    def stop_asked(self, digest: str) -> bool:
        """Return whether a study was asked to stop.

        Raises:
            BooksFault: There is no such study.
        """
        with reading(self._engine) as db:
            return submissions.known(db, digest).stop

    # --- what came of them --------------------------------------------------------------------------------------

    def note_round(self, round_: Round) -> None:
        """File a published round; again with the same model is no error, and the first time stands.

        Raises:
            BooksFault: There is no such study, or the round was published with another model.
        """
        row = vars(round_) | {"cohort": json.dumps(round_.cohort), "at": self._now()}
        with writing(self._engine) as db:
            study = submissions.known(db, round_.study)
            key = (rounds.c.study == round_.study) & (rounds.c.round == round_.round)
            there = db.execute(sql.select(rounds.c.model).where(key)).scalar()
            if there is None:
                db.execute(rounds.insert().values(**row))
            elif there != round_.model:
                rule = f"was published in round {round_.round} with another model"
                raise BooksFault(Fault(study.name, rule, "restore the study's folder; a published round stays"))

    def rounds(self, digest: str) -> tuple[Round, ...]:
        """Return a study's published rounds, in their order."""
        asked = sql.select(rounds).where(rounds.c.study == digest).order_by(rounds.c.round)
        with reading(self._engine) as db:
            rows = [dict(row) for row in db.execute(asked).mappings()]
        return tuple(Round(**row | {"cohort": tuple(json.loads(row["cohort"]))}) for row in rows)

    def note_refusals(self, digest: str, refused: Iterable[Absence]) -> None:
        """File who did not answer what; what is there already stays.

        Raises:
            BooksFault: There is no such study.
        """
        with writing(self._engine) as db:
            submissions.known(db, digest)
            there = {_key(row) for row in db.execute(sql.select(absences).where(absences.c.study == digest))}
            new = {_key(absence): absence for absence in reversed(list(refused))}
            rows = [vars(new[key]) | {"study": digest, "at": self._now()} for key in sorted(new.keys() - there)]
            if rows:
                db.execute(absences.insert(), rows)

    def refusals(self, digest: str) -> tuple[Absence, ...]:
        """Return who did not answer what in a study, by round, partner and step."""
        asked = sql.select(*(column for column in absences.c if column.name != "study"))
        asked = asked.where(absences.c.study == digest)
        with reading(self._engine) as db:
            found = [Absence(**row) for row in db.execute(asked).mappings()]
        return tuple(sorted(found, key=lambda absence: (absence.round, *_key(absence))))

    def publish_model(self, digest: str, *, model: str, record: str) -> Model:
        """Give a study's final model its version; again with the same model and record is no change.

        Raises:
            BooksFault: There is no such study, or it was published with another model or record.
        """
        with writing(self._engine) as db:
            study = submissions.known(db, digest)
            there = db.execute(sql.select(models).where(models.c.study == digest)).mappings().first()
            if there is None:
                last = db.execute(
                    sql.select(sql.func.max(models.c.version)).where(models.c.name == study.name)
                ).scalar()
                made = Model(digest, study.name, (last or 0) + 1, model, record, self._now())
                db.execute(models.insert().values(**vars(made)))
                return made
            found = Model(**there)
            if (found.model, found.record) != (model, record):
                rule = f"was published as version {found.version} with another model or record"
                raise BooksFault(Fault(study.name, rule, "restore the study's folder; what is published stays"))
            return found

    def models(self, ref: str = "") -> tuple[Model, ...]:
        """Return published models by name and version.

        Args:
            ref: As for `study`, but a name may have several; "" for all.
        """
        with reading(self._engine) as db:
            ordered = db.execute(sql.select(models).order_by(models.c.name, models.c.version))
            found = [Model(**row) for row in ordered.mappings()]
        return tuple(model for model in found if not ref or submissions.meant(ref, model.study, model.name))

    def _now(self) -> str:
        return self._clock().astimezone(datetime.UTC).isoformat(timespec="milliseconds")


def _key(absence: Any) -> tuple[str, str, int, str]:  # noqa: ANN401 - a row or an Absence
    return absence.partner, absence.step, absence.round, absence.code
