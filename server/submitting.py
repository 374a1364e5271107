"""From a study file to a study of the books: the roster's keys, the signature, and asking for it again."""

import dataclasses
from pathlib import Path

from coterie.privacy.chosen import chosen_propensity
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.signed import sign
from coterie.privacy.study import read_study
from coterie.server.bookrows import FINISHED, QUEUED, RUNNING, Study
from coterie.server.books import Books
from coterie.server.office import Office

__all__ = ["resume", "submit"]


def submit(office: Office, books: Books, study: Path) -> Study:
    """Sign a study's plan and queue it; a plan that is in the books already is asked for again.

    Args:
        office: The coordinator's folder, whose identity signs.
        books: Open.
        study: The study file; partners without a key get that of their admission.

    Raises:
        PlanFault: The study file is wrong.
        FileFault: A partner has no key and was not admitted.
        BooksFault: The books cannot be used.
    """
    plan = chosen_propensity(read_study(study).plan)
    admitted = {member.name: member.key for member in books.members() if member.revoked is None}
    strangers = [partner.name for partner in plan.partners if not partner.key and partner.name not in admitted]
    if strangers:
        fix = "admit the partner with: coterie coordinator admit FOLDER request.json"
        raise FileFault(*(Fault(f"{study}: partners.{name}", "was not admitted", fix) for name in strangers))
    keyed = (dataclasses.replace(p, key=p.key or admitted[p.name]) for p in plan.partners)
    signed = sign(dataclasses.replace(plan, partners=tuple(keyed)), office.identity)
    filed = books.submit(signed)
    return filed if filed.status in {QUEUED, RUNNING, FINISHED} else resume(books, filed.digest)


def resume(books: Books, ref: str) -> Study:
    """Queue a study again that ended early; it goes on from its last published round.

    Args:
        books: Open.
        ref: The study's name, or the first digits of its plan's digest.

    Raises:
        BooksFault: There is no such study, or several.
        FileFault: It is finished, or at work.
    """
    study = books.study(ref)
    if study.status in {FINISHED, QUEUED, RUNNING}:
        raise FileFault(Fault(study.name, f"is {study.status}", "resume a study that was stopped or ended early"))
    return books.move(study.digest, QUEUED)
