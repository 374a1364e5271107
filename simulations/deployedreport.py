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
from coterie.server.books import Books
from coterie.server.office import Office
from coterie.server.published import check_published, model_path
from coterie.server.registry import Registry
from coterie.simulations import results
from coterie.simulations.rankresults import ranked_release
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
    if progress is None or not models:
        raise FileFault(Fault(study.name, f"is {study.status}, and has no model", "wait for it, or resume it"))
    plan = SignedPlan.from_bytes(study.signed, coordinator=office.identity.public).plan
    file = model_path(office.models, models[0])
    check_published(file, coordinator=office.identity.public)
    return {
        "format": "coterie/report/v1",
        "study": results.study_facts(plan, "the partners' own tables"),
        "made": {
            "at": clock().astimezone(datetime.UTC).isoformat(timespec="seconds"),
            "engine": "Flower SuperLink and SuperNodes",
            "seconds": sum(one.seconds for one in rounds),
            "seeds": [0],
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores (the coordinator's)",
            "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "release": ranked_release(plan, progress) if plan.recommends else results.released(progress),
        "guarantee": statement(plan, calibrate(plan), random_source=OsSource().name),
        "budget": [],
        "simulation": None,
        "model": {"file": file.name, "sha256": _sha256(file), "card": "model-card.md"},
    }


def write_report(report: dict[str, Any], page: Path) -> None:
    """Write a report as a page, as data, and its model card beside it.

    Args:
        report: What `deployed_report` returned.
        page: The HTML file; report.json and model-card.md are written beside it.
    """
    page.parent.mkdir(parents=True, exist_ok=True)
    write_durably(page, render(report).encode())
    write_durably(page.with_suffix(".json"), json.dumps(report, indent=1, allow_nan=False).encode())
    write_durably(page.parent / "model-card.md", model_card(report).encode())


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
