"""Studies one after another, and again where a process died: real books and real locks, a stub of Flower's hand."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from coterie.privacy.clock import now
from coterie.privacy.errors import CoterieError, Fault
from coterie.processes.held import running
from coterie.processes.metrics import Metrics
from coterie.server.books import Books
from coterie.server.office import Office
from coterie.server.running import service
from coterie.server.running.dispatch import Dispatcher
from coterie.server.running.operator import LinkFault, RunStanding
from coterie.tests.server.bookwriters import a_round, signed

ROOT = Path(__file__).parents[2]
HOLDS = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from coterie.privacy.clock import now
from coterie.processes.held import hold
with hold(Path(sys.argv[2]), clock=now):
    print("held", flush=True)
    sys.stdin.read()
"""


class Flower:
    """Stands in for the hand at the SuperLink, and keeps what it was asked to do."""

    def __init__(self):
        self.started, self.stopped, self.status, self.away = [], [], "running", False

    def nodes(self):
        if self.away:
            raise LinkFault(Fault("the SuperLink", "could not be asked", "start it"))
        return ()

    def start(self, plan):
        if self.away == "at the start":
            raise LinkFault(Fault("the SuperLink", "would not start a run", "see its log"))
        self.started.append(plan)
        return 100 + len(self.started)

    def standing(self, number):
        return RunStanding(self.status, "failed" if self.status == "finished" else "")

    def stop(self, number):
        self.stopped.append(number)
        raise LinkFault(Fault("the SuperLink", "would not stop a run", "see its log"))  # it may be gone already


class Desk:
    """A coordinator's folder with studies, and a clock that a test moves."""

    def __init__(self, root, count=2):
        self.office = Office.create(root, name="coordinator", address="localhost:4711", clock=now)
        self.books = Books(self.office.books_url, now)
        self.plans = [signed(day=day) for day in range(1, count + 1)]
        for plan in self.plans:
            self.books.submit(plan)
        self.first, self.second = (plan.plan.digest() for plan in self.plans)
        self.at, self.flower = 0.0, Flower()
        self.children = []
        self.restart()

    def restart(self):
        self.dispatcher = Dispatcher(self.office, self.books, lambda: self.at)

    def tick(self, seconds=1.0):
        self.at += seconds
        self.dispatcher.tick(self.flower)
        return tuple(self.status(plan.plan.digest()) for plan in self.plans)

    def status(self, digest):
        return self.books.study(digest).status

    def hold(self, digest=None):
        """Have a process of its own work on a study."""
        folder = self.office.study(digest or self.first)
        command = [sys.executable, "-c", HOLDS, str(ROOT / ".dev"), str(folder)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.children.append(child)
        assert child.stdout.readline() == "held\n"
        assert running(folder).pid == child.pid
        return child

    def publish(self, number):
        self.books.note_round(a_round(self.plans[0], number))


def kill(child):
    child.kill()
    child.wait()


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "office")
    yield desk
    for child in desk.children:
        kill(child)
        child.stdin.close()
        child.stdout.close()
    desk.books.__exit__()


# --- one at a time --------------------------------------------------------------------------------------------


def test_the_oldest_study_is_started_and_the_next_waits_for_it(desk):
    assert desk.tick() == ("running", "queued")
    desk.hold()
    assert desk.tick(1000.0) == ("running", "queued")
    desk.books.move(desk.first, "finished")
    assert desk.tick() == ("finished", "running")
    assert desk.flower.started == [desk.first, desk.second]
    assert [desk.books.study(digest).run for digest in (desk.first, desk.second)] == ["101", "102"]


def test_a_study_that_superlink_would_not_start_stays_queued(desk):
    desk.flower.away = "at the start"
    desk.flower.nodes = tuple
    with pytest.raises(LinkFault):
        desk.tick()
    assert [desk.status(d) for d in (desk.first, desk.second)] == ["queued", "queued"]
    desk.flower.away = False
    assert desk.tick() == ("running", "queued")


def test_while_the_superlink_is_away_nothing_is_moved(desk):
    desk.flower.away = True
    with pytest.raises(LinkFault):
        desk.tick()
    assert desk.status(desk.first) == "queued"


# --- again ----------------------------------------------------------------------------------------------------


def test_a_study_whose_process_was_killed_is_queued_at_once_and_started_anew(desk):
    desk.tick()
    child = desk.hold()
    desk.tick()
    kill(child)
    assert desk.tick() == ("queued", "queued")
    assert desk.flower.stopped == [101]
    assert desk.tick() == ("running", "queued")
    assert desk.flower.started == [desk.first, desk.first]
    assert desk.books.study(desk.first).run == "102"


def test_a_study_that_is_asked_for_again_is_not_taken_for_lost_before_its_new_process_is_there(desk):
    desk.tick()
    child = desk.hold()
    desk.tick()  # its process is seen
    desk.books.move(desk.first, "aborted", "too few partners")
    kill(child)
    desk.books.move(desk.first, "queued")
    desk.books.move(desk.second, "stopped")
    assert desk.tick(30.0)[0] == "running"
    assert desk.tick()[0] == "running"
    assert desk.flower.stopped == []


def test_a_process_that_lives_is_left_alone_however_long_it_takes(desk):
    desk.tick()
    desk.hold()
    desk.flower.status = "finished"
    assert {desk.tick(10_000.0) for _ in range(5)} == {("running", "queued")}


def test_a_run_that_never_takes_the_study_is_waited_for_three_minutes(desk):
    desk.tick()
    assert desk.tick(179.0) == ("running", "queued")
    assert desk.tick(1.0) == ("queued", "queued")


def test_a_run_that_flower_ended_before_it_took_the_study_is_not_waited_for(desk):
    desk.tick()
    desk.flower.status = "finished"
    assert desk.tick() == ("queued", "queued")


def test_the_waiting_begins_anew_with_each_run(desk):
    desk.tick()
    desk.tick(180.0)
    assert desk.tick(170.0) == ("running", "queued")
    assert desk.tick(170.0) == ("running", "queued")
    assert desk.tick(10.0) == ("queued", "queued")


def test_what_an_earlier_service_left_without_a_process_is_queued_at_the_first_look(desk):
    desk.tick()
    desk.restart()
    assert desk.tick(0.0) == ("queued", "queued")


def test_what_an_earlier_service_left_with_its_process_goes_on(desk):
    desk.tick()
    child = desk.hold()
    desk.restart()
    assert desk.tick() == ("running", "queued")
    kill(child)
    assert desk.tick() == ("queued", "queued")


def test_a_study_that_ends_between_two_looks_stays_ended(desk):
    desk.tick()
    child = desk.hold()
    desk.tick()
    listed = desk.books.studies()
    desk.books.move(desk.first, "finished")
    kill(child)

    class Late(Books):
        """The books as one look found them, a moment before the end was filed."""

        def studies(self):
            return listed

    desk.dispatcher._books = Late(desk.office.books_url, now)
    desk.dispatcher.tick(desk.flower)
    assert desk.status(desk.first) == "finished"
    assert desk.flower.stopped == []


# --- without end, or to be ended ------------------------------------------------------------------------------


def lose(desk):
    """Start the study and lose its process; return its status then."""
    desk.tick()
    desk.flower.status = "finished"
    return desk.tick()[0]


def test_the_fifth_process_in_a_row_that_published_nothing_ends_the_study_with_a_reason(desk):
    assert [lose(desk) for _ in range(5)] == ["queued"] * 4 + ["failed"]
    reason = desk.books.study(desk.first).reason
    assert "5 times without a new round" in reason
    assert "logs/study.log" in reason
    assert desk.tick() == ("failed", "running")


def test_a_round_that_was_published_in_between_counts_anew(desk):
    assert [lose(desk) for _ in range(4)] == ["queued"] * 4
    desk.publish(1)
    assert [lose(desk) for _ in range(5)] == ["queued"] * 4 + ["failed"]


def test_a_failed_study_that_is_asked_for_again_has_all_its_tries_again(desk):
    for _ in range(5):
        lose(desk)
    desk.books.move(desk.second, "stopped")
    desk.books.move(desk.first, "queued")
    assert [lose(desk) for _ in range(5)] == ["queued"] * 4 + ["failed"]


def test_a_study_that_was_asked_to_stop_and_lost_its_process_does_not_go_on(desk):
    desk.tick()
    child = desk.hold()
    desk.tick()
    desk.books.ask_stop(desk.first)
    assert desk.tick() == ("running", "queued")
    kill(child)
    assert desk.tick() == ("stopped", "queued")
    assert "asked to stop" in desk.books.study(desk.first).reason
    assert desk.tick() == ("stopped", "running")


def test_a_queued_study_that_was_asked_to_stop_is_never_started(desk):
    desk.books.ask_stop(desk.first)
    assert desk.tick() == ("stopped", "running")
    assert desk.flower.started == [desk.second]


# --- in the service -------------------------------------------------------------------------------------------


def test_books_that_cannot_be_read_for_a_while_do_not_end_the_dispatching(desk, monkeypatch):
    looked, stop = [], threading.Event()

    class Faulty:
        def __init__(self, *_):
            pass

        def tick(self, _):
            looked.append(1)
            if len(looked) < 3:
                raise CoterieError(Fault("the books", "cannot be read", "see the database"))
            stop.set()

    monkeypatch.setattr(service, "Dispatcher", Faulty)
    monkeypatch.setattr(service, "_measure", lambda *_: None)
    monkeypatch.setattr(service, "_TICK", 0.01)
    service._dispatch(desk.office, desk.books, Metrics(), stop)
    assert len(looked) == 3


def test_a_dispatcher_that_fails_of_itself_takes_the_service_down_instead_of_leaving_studies_alone(desk, monkeypatch):
    stop = threading.Event()

    class Broken:
        def __init__(self, *_):
            pass

        def tick(self, _):
            raise ZeroDivisionError

    monkeypatch.setattr(service, "Dispatcher", Broken)
    monkeypatch.setattr(service, "_TICK", 0.01)
    with pytest.raises(ZeroDivisionError):
        service._dispatch(desk.office, desk.books, Metrics(), stop)
    assert stop.is_set()
