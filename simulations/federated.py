"""One study among real processes on this machine, from an empty folder to its report.

coordinator/ partners/    as each would have them on a machine of its own
report.html               what was released
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from coterie.privacy.clock import now
from coterie.privacy.errors import CoterieError, Fault
from coterie.privacy.plan import Plan
from coterie.privacy.signed import sign
from coterie.server.bookrows import ENDED, FINISHED, Round, Study
from coterie.server.books import Books
from coterie.simulations import sources
from coterie.simulations.deployedreport import deployed_report, write_report
from coterie.simulations.deployment import found, narrowed, started
from coterie.simulations.matchtrial import check_matching

__all__ = ["Federated", "Stage", "run_federated", "watched"]

Stage = Callable[[str, int], None]
"""Called with what goes on, and the rounds that are published."""


@dataclass(frozen=True)
class Federated:
    """What a run ended with.

    Args:
        report: As `deployed_report` returned it.
        seconds: By what took them: "setting up", "starting", "study", "stopping".
        rounds: As the books have them.
    """

    report: dict[str, Any]
    seconds: Mapping[str, float]
    rounds: tuple[Round, ...]


def run_federated(
    folder: Path, plan: Plan, dataset: str, *, partners: int, show: Stage, stop: Callable[[], bool] = lambda: False
) -> Federated:
    """Set up a coordinator and partners, start them, run a study, and stop them.

    Args:
        folder: A folder that is missing or empty.
        plan: The study, without keys.
        dataset: The source of the partners' tables.
        partners: How many of the plan's take part, from 2.
        show: Called with what goes on.
        stop: Asked now and then whether to stop.

    Raises:
        CoterieError: The folder is not empty, a process did not start, or the study ended without a model.
    """
    names = [partner.name for partner in plan.partners][:partners]
    fewer = narrowed(plan, names)
    check_matching(fewer)
    catalogue = sources.catalogue(dataset) if plan.recommends else None
    tables = {} if plan.matches else _of(names, sources.load(dataset))
    identifiers = None if plan.matching is None else _of(names, sources.identifiers(dataset))
    clock, took = time.monotonic, {}
    began = clock()
    show("setting up", 0)
    site = found(folder, fewer, tables, seed=0, catalogue=catalogue, identifiers=identifiers)
    took["setting up"], began = clock() - began, clock()
    show("starting", 0)
    with started(site):
        took["starting"], began = clock() - began, clock()
        with Books(site.office.books_url, now) as books:
            filed = books.submit(sign(site.plan, site.office.identity))
            ended = watched(books, filed.digest, show=show, stop=stop)
            rounds = books.rounds(filed.digest)
        took["study"], began = clock() - began, clock()
        show("stopping", len(rounds))
    took["stopping"] = clock() - began
    if ended.status != FINISHED:
        fix = f"read {site.office.logs}"
        raise CoterieError(Fault(ended.name, f"ended as {ended.status}: {ended.reason}", fix))
    report = deployed_report(site.office, filed.digest, clock=now)
    write_report(report, folder / "report.html")
    return Federated(report, took, rounds)


def _of(names: Sequence[str], tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    return {name: tables[name] for name in names}


def watched(books: Books, digest: str, *, show: Stage, stop: Callable[[], bool]) -> Study:
    """Wait until a study has ended, or ask it to stop.

    Args:
        books: Open.
        digest: Of the plan.
        show: Called with its status and its published rounds.
        stop: Asked now and then whether to stop.
    """
    while (study := books.study(digest)).status not in ENDED:
        if stop() and not study.stop:
            books.ask_stop(digest)
        show(study.status, len(books.rounds(digest)))
        time.sleep(0.3)
    return study
