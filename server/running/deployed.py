"""The coordinator's app as Flower's SuperLink runs it: one study, by its plan's digest, out of the office.

The bundle names `app` here (`clients/bundle.py`). Flower starts a process for every run; the process finds the office
in the environment, the signed plan in the books, and takes the study from wherever it stands.
"""

import dataclasses
import datetime
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid import HttpGrid

from coterie.clients.folding import soon
from coterie.privacy.clock import now
from coterie.privacy.errors import CoterieError, Fault
from coterie.privacy.plan import Plan
from coterie.privacy.release import weights_digest
from coterie.privacy.schedule import EVALUATE, releases_of
from coterie.privacy.signed import SignedPlan
from coterie.processes.held import hold
from coterie.processes.logs import event, json_log
from coterie.server.bookrows import ABORTED, FAILED, FINISHED, QUEUED, RUNNING, STOPPED, Absence, Round, Study
from coterie.server.books import Books
from coterie.server.coordinator import Interrupted, Undecided, run_study
from coterie.server.exchange import Patience
from coterie.server.office import Office
from coterie.server.published import publish
from coterie.server.registry import Progress, Registry
from coterie.server.rounds import StudyAborted
from coterie.server.running.grid import FoldingGrid
from coterie.server.running.members import current
from coterie.server.running.operator import node_bytes
from coterie.server.witness import Witness

__all__ = ["OFFICE", "app", "conduct", "deployed"]

OFFICE = "COTERIE_COORDINATOR"
"""The environment variable that names the office's folder."""

_DECIDING = 20.0  # seconds for operators to decide, before another study has its turn


class _Filed(Registry):
    """A registry that files every published round in the books, too."""

    def __init__(self, folder: Path, books: Books, grid: FoldingGrid, plan: Plan) -> None:
        super().__init__(folder)
        self._books, self._grid, self._plan = books, grid, plan
        self._began = time.monotonic()
        self._before = (0, 0)
        self._filed = -1  # the newest round in the books, as far as this process has seen

    def publish(self, progress: Progress) -> None:
        """Write a state, and file its refusals and its round."""
        super().publish(progress)
        if self._filed < 0:
            self._filed = max((one.round for one in self._books.rounds(progress.plan)), default=0)
        self._books.note_refusals(progress.plan, [Absence(**dataclasses.asdict(one)) for one in progress.refusals])
        if progress.round > self._filed:
            filed = self._round(progress)
            self._books.note_round(filed)
            self._books.note_refusals(progress.plan, self._apart(progress, filed))
            self._filed = progress.round
            self._began = time.monotonic()
            self._before = (self._grid.sent, self._grid.received)

    def _round(self, progress: Progress) -> Round:
        steps = {step for step in releases_of(self._plan, progress.round) if not step.startswith(f"{EVALUATE}/")}
        told = {receipt.partner for receipt in progress.receipts if receipt.step in steps}
        return Round(
            study=progress.plan,
            round=progress.round,
            model=weights_digest(progress.weights),
            cohort=tuple(sorted(told)),
            seconds=time.monotonic() - self._began,
            sent=self._grid.sent - self._before[0],
            received=self._grid.received - self._before[1],
        )

    def _apart(self, progress: Progress, filed: Round) -> list[Absence]:
        """Name whoever has no part in a round and was not named: without a consent it is a number at most."""
        named = {one.partner for one in progress.refusals if one.round == filed.round} | set(filed.cohort)
        apart = [partner.name for partner in self._plan.partners if partner.name not in named]
        return [Absence(name, "consent", 0, "rejected", "no consent of its own came") for name in apart]


def conduct(grid: FoldingGrid, office: Office, digest: str, *, run: str, patience: Patience) -> None:
    """Take a study of the books to its end, and write down how it ended.

    Args:
        grid: Flower's, folding.
        office: The coordinator's folder.
        digest: Of the plan.
        run: Flower's number of this run.
        patience: How long to wait.

    Raises:
        CoterieError: The study is not in the books, or another process works on it.
    """
    with Books(office.books_url, now) as books, hold(office.study(digest), clock=now):
        study = books.study(digest)
        if study.status == FINISHED:
            return
        books.set_run(digest, run)
        books.move(digest, RUNNING)
        log = json_log(office.logs / "study.log", component="study", clock=now)
        event(log, "study-started", study=study.name, plan=digest, run=run)
        try:
            signed = SignedPlan.from_bytes(study.signed, coordinator=office.identity.public)
            _run(grid, office, books, signed, _patience(patience, office, study))
            status, why = FINISHED, ""
        except Undecided as error:
            status, why = QUEUED, _sentences(error)
        except StudyAborted as error:
            status, why = ABORTED, _sentences(error)
        except Interrupted as error:
            status, why = STOPPED, _sentences(error)
        except CoterieError as error:
            status, why = FAILED, _sentences(error)
        except Exception as error:
            event(log, "study-crashed", level=logging.ERROR, plan=digest, error=type(error).__name__)
            raise  # the service starts the study again
        books.move(digest, status, why)
        event(log, "study-ended", study=study.name, plan=digest, status=status)


def _run(grid: FoldingGrid, office: Office, books: Books, signed: SignedPlan, patience: Patience) -> None:
    digest = signed.plan.digest()
    log = json_log(office.logs / "study.log", component="study", clock=now)
    registry = _Filed(office.study(digest), books, grid, signed.plan)
    progress = run_study(
        grid,
        signed,
        (registry, Witness(office.root, office.identity, now)),
        patience=patience,
        show=lambda seen: event(
            log, "progress", what=seen.what, round=seen.round, partner=seen.partner, step=seen.step, plan=digest
        ),
        stop=lambda: books.stop_asked(digest),
        nodes=_nodes_of(grid, books, signed),
    )
    if not signed.plan.matches:  # a match makes no model: the counts are beside the state, and in the record
        publish(office.models, books, signed=signed, progress=progress, identity=office.identity)


def _nodes_of(grid: FoldingGrid, books: Books, signed: SignedPlan) -> Callable[[], list[int]]:
    """Return a function that finds the plan's partners among the nodes: those online, admitted, and in its roster."""
    roster = {partner.name: partner.key for partner in signed.plan.partners}

    def nodes() -> list[int]:
        members = current(books.members(), now())
        keys = {node_bytes(member.node) for member in members if roster.get(member.name) == member.key}
        return sorted(node.node_id for node in grid.get_nodes() if node.public_key in keys)

    return nodes


def _patience(patience: Patience, office: Office, study: Study) -> Patience:
    """Return the patience with a study that may come back later, until its days for approval are over."""
    days = datetime.timedelta(days=office.settings.approval_days)
    return dataclasses.replace(patience, again_later=now() < datetime.datetime.fromisoformat(study.submitted) + days)


def _sentences(error: CoterieError) -> str:
    return " ".join(str(fault) for fault in error.faults)


def deployed(environment: Callable[[str], str | None] = os.environ.get) -> ServerApp:
    """Return the app that Flower runs.

    Args:
        environment: Finds a variable of the environment.
    """
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        folder = environment(OFFICE)
        if not folder:
            raise CoterieError(Fault(OFFICE, "is not set", "start it with: coterie coordinator start FOLDER"))
        office = Office(Path(folder))
        settings = office.settings
        patience = Patience(
            seconds=settings.deadline,
            poll=0.2,
            again=min(20.0, settings.deadline / 3),
            approving=_DECIDING,
            proposing=3.0,
        )
        if not isinstance(grid, HttpGrid):
            raise CoterieError(
                Fault("the grid", "is not the SuperLink's", "start it with: coterie coordinator start FOLDER")
            )
        soon()
        conduct(FoldingGrid(grid), office, str(context.run_config["plan"]), run=str(context.run_id), patience=patience)

    return server


app = deployed()
