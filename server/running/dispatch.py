"""What the coordinator's service does about studies: one after another, and again where a process died.

Studies run one at a time: the checkpoints of the partners' ledgers have one writer, and a partner answers one question
at a time anyway.
"""

import contextlib
import logging
from collections.abc import Callable

from coterie.privacy.clock import now
from coterie.processes.held import running
from coterie.processes.logs import event
from coterie.server.bookrows import FAILED, QUEUED, RUNNING, STOPPED, Study
from coterie.server.books import Books
from coterie.server.office import Office
from coterie.server.running.members import reconcile
from coterie.server.running.operator import LinkFault, Operator

__all__ = ["Dispatcher"]

_log = logging.getLogger("coterie.service")

_STARTING = 180.0  # seconds that a run has until its process holds the study
_PAUSE = 20.0  # seconds between two starts of one study
_MOST = 5  # runs in a row that end without a round


class Dispatcher:
    """Looks after nodes and studies; `tick` is called again and again.

    Args:
        office: The coordinator's folder.
        books: Its books, open.
        monotonic: Clock in seconds.
    """

    def __init__(self, office: Office, books: Books, monotonic: Callable[[], float]) -> None:
        self._office, self._books, self._monotonic = office, books, monotonic
        self._began: dict[str, float] = {}
        self._due: dict[str, float] = {}
        # Whose process was seen; of those that an earlier service left, none is left to be waited for.
        self._held = {study.digest for study in books.studies() if study.status == RUNNING}
        self._fruitless: dict[str, tuple[int, int]] = {}
        self._refused: set[str] = set()

    def tick(self, flower: Operator) -> None:
        """Take one look.

        Args:
            flower: The hand at the SuperLink.

        Raises:
            LinkFault: The SuperLink does not answer.
        """
        self._register(flower)
        studies = self._books.studies()
        at_work = [study for study in studies if study.status == RUNNING]
        for study in at_work:
            self._look_after(study, flower)
        for study in studies:
            if study.status == QUEUED and study.stop:
                self._books.move(study.digest, STOPPED, "it was asked to stop before its turn came")
        queued = [study for study in studies if study.status == QUEUED and not study.stop]
        if queued and not at_work:
            self._start(queued[0], flower)

    def _register(self, flower: Operator) -> None:
        """Have the SuperLink know the nodes that may connect."""
        added, gone, refused = reconcile(flower, self._books.members(), now())
        for name in added:
            event(_log, "node-registered", partner=name)
        for name in gone:
            event(_log, "node-unregistered", partner=name)
        for name in set(refused) - self._refused:  # told once; it lasts until the partner asks for a new key
            event(_log, "node-refused", level=logging.WARNING, partner=name)
        self._refused = set(refused)

    def _look_after(self, study: Study, flower: Operator) -> None:
        """Queue a study anew when no process works on it any more."""
        if running(self._office.study(study.digest)) is not None:
            self._held.add(study.digest)
            return
        study = self._books.study(study.digest)
        if study.status != RUNNING:
            return  # it ended just now
        if study.digest not in self._held and not self._late(study, flower):
            return
        self._held.discard(study.digest)
        self._began.pop(study.digest, None)
        event(_log, "study-lost", level=logging.WARNING, study=study.name, plan=study.digest, run=study.run)
        self._give_up(study, flower)
        if study.stop:  # queued again it would go on, and the wish be forgotten
            self._books.move(study.digest, STOPPED, "it was asked to stop, and its process ended")
        elif self._fruitless_again(study):
            why = f"its process ended {_MOST} times without a new round. Fix: see logs/study.log"
            self._books.move(study.digest, FAILED, why)
            del self._fruitless[study.digest]  # who resumes it has put something right
        else:
            self._books.move(study.digest, QUEUED)

    def _late(self, study: Study, flower: Operator) -> bool:
        """Return whether the process of a run that was started is not to be expected any more."""
        since = self._began.setdefault(study.digest, self._monotonic())
        if self._monotonic() - since >= _STARTING:
            return True
        try:
            return not study.run or flower.standing(int(study.run)).over
        except LinkFault:
            return False

    def _give_up(self, study: Study, flower: Operator) -> None:
        """Have Flower forget a run whose process is gone; it would notice by itself, later."""
        if study.run:
            with contextlib.suppress(LinkFault):
                flower.stop(int(study.run))

    def _fruitless_again(self, study: Study) -> bool:
        """Count a run that ended, from nought where there is a new round."""
        published = len(self._books.rounds(study.digest))
        before, count = self._fruitless.get(study.digest, (published, 0))
        count = count + 1 if before == published else 1
        self._fruitless[study.digest] = (published, count)
        return count >= _MOST

    def _start(self, study: Study, flower: Operator) -> None:
        self._held.discard(study.digest)  # what was seen was the process of an earlier run
        self._books.move(study.digest, RUNNING)
        try:
            number = flower.start(study.digest)
        except LinkFault:
            self._books.move(study.digest, QUEUED)
            raise
        self._books.set_run(study.digest, str(number))
        self._began[study.digest] = self._monotonic()
        event(_log, "study-dispatched", study=study.name, plan=study.digest, run=str(number))
