"""Running processes and studies by the command: what each says, and with which exit code."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from coterie.cli.main import main
from coterie.clients.workspace import Workspace
from coterie.privacy.clock import now
from coterie.privacy.identity import Identity
from coterie.privacy.study import read_study
from coterie.processes.health import serve
from coterie.processes.held import hold
from coterie.processes.metrics import ChildMetrics
from coterie.server.books import Absence, Books
from coterie.server.office import Office
from coterie.simulations import studies
from coterie.tests.server.bookwriters import member

ROOT = Path(__file__).parents[2]
HOLDS = """
import signal, sys, threading
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from coterie.privacy.clock import now
from coterie.processes.held import hold
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
with hold(Path(sys.argv[2]), clock=now):
    print("held", flush=True)
    stop.wait()
"""


@pytest.fixture
def run_coterie(monkeypatch, capsys):
    """Run the command in this process; return its exit code and what it printed."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["coterie", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return call


@pytest.fixture
def office(tmp_path):
    return Office.create(tmp_path / "office", name="ministry", address="localhost:4711", clock=now)


@pytest.fixture
def books(office):
    with Books(office.books_url, now) as books:
        yield books


@pytest.fixture
def study(tmp_path, books):
    """A study file all of whose partners are admitted."""
    path = tmp_path / "study.toml"
    path.write_text(studies.path("synthetic").read_text(encoding="utf-8"), encoding="utf-8")
    for partner in read_study(path).plan.partners:
        books.admit(member(partner.name, key=Identity.create().public))
    return path


@contextmanager
def service(folder, *, ok=True):
    """Play a service in this process: its lock, its health, its status."""
    told = {
        "ok": ok,
        "name": "ministry",
        "processes": {"gateway": {"running": True, "restarts": 0}, "superlink": {"running": ok, "restarts": 3}},
    }
    with (
        hold(folder, clock=now) as held,
        serve("127.0.0.1", 0, metrics=ChildMetrics(dict), status=lambda: told) as health,
    ):
        held.tell({"health": health.port})
        yield held


# --- status -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["coordinator", "partner"])
def test_where_nothing_runs_status_says_so_and_fails(run_coterie, office, tmp_path, door):
    Workspace.create(tmp_path / "bank", "bank")
    folder = office.root if door == "coordinator" else tmp_path / "bank"
    assert run_coterie(door, "status", folder)[:2] == (1, "not running\n")
    code, out, _ = run_coterie(door, "status", folder, "--json")
    assert (code, json.loads(out)) == (1, {"running": False})


@pytest.mark.parametrize("door", ["coordinator", "partner"])
def test_status_tells_each_process_and_how_often_it_was_started_again(run_coterie, office, tmp_path, door):
    Workspace.create(tmp_path / "bank", "bank")
    folder = office.root if door == "coordinator" else tmp_path / "bank"
    with service(folder / "run", ok=False):
        code, out, _ = run_coterie(door, "status", folder)
        assert code == 0
        cells = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in out.splitlines()]
        assert [row for row in cells if row and row[0] in {"gateway", "superlink"}] == [
            ["gateway", "yes", "0"],
            ["superlink", "no", "3"],
        ]
        code, out, _ = run_coterie(door, "status", folder, "--json")
    told = json.loads(out)
    assert (code, told["running"], told["pid"], told["ok"]) == (0, True, os.getpid(), False)


def test_status_asks_no_proxy(run_coterie, office, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{nobody.getsockname()[1]}")
        with service(office.run):
            assert run_coterie("coordinator", "status", office.root)[0] == 0


def test_a_service_that_has_only_just_begun_is_named_as_that(run_coterie, office):
    with hold(office.run, clock=now):
        code, _, err = run_coterie("coordinator", "status", office.root)
    assert code == 2
    assert "has only just begun. Fix: ask again in a moment" in err


def test_a_service_that_does_not_answer_is_named_with_the_fix(run_coterie, office):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with hold(office.run, clock=now) as held:
        held.tell({"health": port})
        code, _, err = run_coterie("coordinator", "status", office.root)
    assert code == 2
    assert f"error: process {os.getpid()}: does not say how it is. Fix: read its logs" in err
    assert "Traceback" not in err


# --- stop -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["coordinator", "partner"])
def test_stop_ends_whoever_runs_in_the_folder_and_waits_for_it(run_coterie, office, tmp_path, door):
    Workspace.create(tmp_path / "bank", "bank")
    folder = office.root if door == "coordinator" else tmp_path / "bank"
    command = [sys.executable, "-c", HOLDS, str(ROOT / ".dev"), str(folder / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert run_coterie(door, "stop", folder)[:2] == (0, "stopped\n")
        assert process.wait(10) == 0
    assert run_coterie(door, "stop", folder)[:2] == (0, "nothing runs\n")


def test_a_study_is_asked_to_stop_and_the_way_back_is_named(run_coterie, office, books, study):
    run_coterie("coordinator", "run", office.root, study, "--detach")
    (filed,) = books.studies()
    code, out, _ = run_coterie("coordinator", "stop", office.root, filed.name)
    assert code == 0
    assert f"coterie coordinator resume {office.root} {filed.digest[7:19]}" in out
    assert books.stop_asked(filed.digest)


def test_a_study_that_is_not_there_or_has_ended_cannot_be_stopped(run_coterie, office, books, study):
    assert run_coterie("coordinator", "stop", office.root, "never")[0] == 2
    run_coterie("coordinator", "run", office.root, study, "--detach")
    (filed,) = books.studies()
    books.move(filed.digest, "stopped")
    code, _, err = run_coterie("coordinator", "stop", office.root, filed.name)
    assert code == 2
    assert "is stopped already" in err


# --- run and resume ---------------------------------------------------------------------------------------------


def test_run_files_the_study_and_detached_returns_at_once(run_coterie, office, books, study):
    code, out, _ = run_coterie("coordinator", "run", office.root, study, "--detach")
    (filed,) = books.studies()
    assert (code, out) == (0, f"{filed.name}: {filed.digest}\n")
    assert filed.status == "queued"


def test_run_names_partners_that_were_not_admitted(run_coterie, office, books, study):
    name = books.members()[0].name
    books.revoke(name)
    code, _, err = run_coterie("coordinator", "run", office.root, study)
    assert code == 2
    assert f"partners.{name}: was not admitted. Fix: admit the partner" in err


@contextmanager
def meanwhile(office, do):
    """Do something to the books in another thread, once there is a study."""

    def work():
        with Books(office.books_url, now) as books:
            end = time.monotonic() + 20
            while not books.studies() and time.monotonic() < end:
                time.sleep(0.01)
            do(books, books.studies()[0])

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


def test_run_follows_a_study_to_its_end_and_names_who_was_missing(run_coterie, office, books, study):
    def ends(books, filed):
        books.move(filed.digest, "running")
        books.note_refusals(
            filed.digest, [Absence("travel", "train", 2, "budget"), Absence("travel", "train", 3, "budget")]
        )
        books.move(filed.digest, "finished")

    with meanwhile(office, ends):
        code, out, _ = run_coterie("coordinator", "run", office.root, study)
    assert code == 0
    assert out.splitlines()[1:] == [f"{books.studies()[0].name}: finished", "  travel: budget"]


@pytest.mark.parametrize("status", ["stopped", "aborted", "failed"])
def test_a_study_that_ends_without_a_model_fails_with_its_reason(run_coterie, office, books, study, status):
    def ends(books, filed):
        books.move(filed.digest, "running")
        books.move(filed.digest, status, "the reason")

    with meanwhile(office, ends):
        code, out, _ = run_coterie("coordinator", "run", office.root, study)
    assert code == 1
    assert f"{status}: the reason" in out


def test_an_interrupt_leaves_the_study_running_and_says_where_to_look(run_coterie, office, books, study):
    def interrupts(books, filed):
        books.move(filed.digest, "running")
        time.sleep(0.3)  # so that the command is waiting, which takes it half a second at a time
        os.kill(os.getpid(), signal.SIGINT)

    with meanwhile(office, interrupts):
        code, _, err = run_coterie("coordinator", "run", office.root, study)
    assert code == 130
    assert "goes on without you; see: coterie coordinator studies FOLDER" in err
    (filed,) = books.studies()
    assert (filed.status, filed.stop) == ("running", False)


def test_resume_queues_what_ended_early_and_refuses_what_did_not(run_coterie, office, books, study):
    run_coterie("coordinator", "run", office.root, study, "--detach")
    (filed,) = books.studies()
    code, _, err = run_coterie("coordinator", "resume", office.root, filed.name, "--detach")
    assert code == 2
    assert "is queued" in err
    books.move(filed.digest, "stopped")
    assert run_coterie("coordinator", "resume", office.root, filed.digest[7:15], "--detach")[:2] == (
        0,
        f"{filed.name}: {filed.digest}\n",
    )
    assert books.study(filed.digest).status == "queued"


# --- folders that are none --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("run", "study.toml"), ("resume", "spring"), ("stop", "spring"), ("start",)])
def test_a_folder_that_is_no_coordinators_is_named_with_the_fix(run_coterie, tmp_path, arguments):
    command, *rest = arguments
    code, _, err = run_coterie("coordinator", command, tmp_path, *rest)
    assert code == 2
    assert f"error: {tmp_path}: is not a coordinator's folder. Fix: make one with: coterie coordinator init" in err
    assert list(tmp_path.iterdir()) == []
