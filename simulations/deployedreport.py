"""The report of a study that ran among real partners: what the coordinator received, all of it charged.

Nothing exact is in it, and no budget: the coordinator has neither rows nor ledgers (PRIVACY rule 19).
"""

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coterie.models.card import model_card
from coterie.privacy.calibration import calibrate
from coterie.privacy.durable import write_durably
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.randomness import OsSource
from coterie.privacy.signed import SignedPlan
from coterie.privacy.statement import statement
from coterie.server.bookrows import Model, Study
from coterie.server.books import Books
from coterie.server.office import Office
from coterie.server.published import check_published, model_path
from coterie.server.registry import Registry
from coterie.simulations import results
from coterie.simulations.matchtrial import counted, counts_file
from coterie.simulations.releases import released
from coterie.simulations.report import render

__all__ = ["deployed_report", "write_report"]

_PACKAGES = ("coterie", "flwr", "torch", "dp-accounting", "numpy", "cryptography")


def deployed_report(office: Office, ref: str, *, clock: Callable[[], datetime.datetime]) -> dict[str, Any]:
    """Return the report of a finished study.

    Args:
        office: The coordinator's folder.
        ref: The study's name, or the first digits of its plan's digest.
        clock: Returns the time in UTC.

    Raises:
        BooksFault: There is no such study.
        FileFault: It is not finished, or a file of it is damaged.
    """
    with Books(office.books_url, clock) as books:
        study = books.study(ref)
        rounds, models = books.rounds(study.digest), [m for m in books.models() if m.study == study.digest]
    progress = Registry(office.study(study.digest)).resume(study.digest)
    plan = SignedPlan.from_bytes(study.signed, coordinator=office.identity.public).plan
    result = "counts" if plan.matches else "model"
    if progress is None or not (progress.matched if plan.matches else models):
        raise FileFault(Fault(study.name, f"is {study.status}, and has no {result}", "wait for it, or resume it"))
    told = counted(plan, progress, checked="this match itself, by the coordinator's record") if plan.matches else None
    return {
        "format": "coterie/report/v1",
        "study": results.study_facts(plan, "the partners' own tables"),
        "made": {
            "at": clock().astimezone(datetime.UTC).isoformat(timespec="seconds"),
            "engine": "Flower SuperLink and SuperNodes",
            "seconds": sum(one.seconds for one in rounds) if rounds else _took(study),
            "seeds": [0],
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores (the coordinator's)",
            "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "release": released(plan, progress),
        "guarantee": statement(plan, calibrate(plan), random_source=OsSource().name, overlap=told),
        "budget": [],
        "simulation": None,
        "model": None if plan.matches else _model(office, models[0]),
    }


def write_report(report: dict[str, Any], page: Path) -> None:
    """Write a report as a page, as data, and its model card beside it, or the counts of a match.

    Args:
        report: What `deployed_report` returned.
        page: The HTML file; its data, and model-card.md or overlap.json, are written beside it.
    """
    page.parent.mkdir(parents=True, exist_ok=True)
    write_durably(page, render(report).encode())
    write_durably(page.with_suffix(".json"), json.dumps(report, indent=1, allow_nan=False).encode())
    if report["model"] is None:
        write_durably(page.parent / "overlap.json", counts_file(report))
    else:
        write_durably(page.parent / "model-card.md", model_card(report).encode())


def _took(study: Study) -> float:
    """Return how long a study took that has no rounds, in seconds, its wait for its turn counted."""
    ended = study.ended or study.submitted
    return (datetime.datetime.fromisoformat(ended) - datetime.datetime.fromisoformat(study.submitted)).total_seconds()


def _model(office: Office, published: Model) -> dict[str, Any]:
    """Return which file a study's model is, once its signature was checked."""
    file = model_path(office.models, published)
    check_published(file, coordinator=office.identity.public)
    return {"file": file.name, "sha256": _sha256(file), "card": "model-card.md"}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
