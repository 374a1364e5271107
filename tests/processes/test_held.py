"""Who runs in a folder."""

import datetime
import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from coterie.privacy.clock import now
from coterie.privacy.errors import CoterieError
from coterie.processes.held import ask_to_stop, hold, running

ROOT = Path(__file__).parents[2]
HOLDS = """
import signal, sys, threading
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from coterie.privacy.clock import now
from coterie.processes.held import hold
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: sys.argv[3] == "listens" and stop.set())
with hold(Path(sys.argv[2]), clock=now) as held:
    held.tell({"health": 4711})
    print("held", flush=True)
    while not stop.wait(0.05): pass
"""


@pytest.fixture
def holder(tmp_path):
    """Return a function that has another process hold a folder."""
    processes = []

    def start(way="listens"):
        command = [sys.executable, "-c", HOLDS, ROOT / ".dev", tmp_path / "run", way]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_whoever_holds_a_folder_is_named_with_its_ports(holder, tmp_path):
    process = holder()
    found = running(tmp_path / "run")
    assert (found.pid, dict(found.ports)) == (process.pid, {"health": 4711})
    assert datetime.timedelta(0) <= now() - found.started < datetime.timedelta(minutes=1)


def test_nobody_else_can_hold_it_meanwhile(holder, tmp_path):
    holder()
    with pytest.raises(CoterieError, match="stop that one first"), hold(tmp_path / "run", clock=now):
        pytest.fail("two hold one folder")


def test_a_folder_that_nobody_ever_held_is_nobodys_and_is_not_made(tmp_path):
    assert running(tmp_path / "run") is None
    assert ask_to_stop(tmp_path / "run", 1.0) is None
    assert not (tmp_path / "run").exists()


def test_a_killed_process_leaves_a_record_that_nobody_believes(holder, tmp_path):
    process = holder()
    process.kill()
    process.wait()
    assert json.loads((tmp_path / "run" / "process.json").read_bytes())["pid"] == process.pid
    assert running(tmp_path / "run") is None
    with hold(tmp_path / "run", clock=now):
        assert running(tmp_path / "run").pid == os.getpid()
    assert not (tmp_path / "run" / "process.json").exists()


def test_a_number_that_is_another_processes_by_now_is_not_believed(tmp_path):
    """The lock is held and the record names a living process: one that was not born when the record says."""
    with hold(tmp_path / "run", clock=now):
        record = json.loads((tmp_path / "run" / "process.json").read_bytes())
        # Not this process's own moment: one that starts the tests may be born in the same hundredth of a second.
        other = {**record, "pid": os.getppid(), "born": 1}
        (tmp_path / "run" / "process.json").write_text(json.dumps(other))
        with pytest.raises(CoterieError, match="not named"):
            ask_to_stop(tmp_path / "run", 1.0)


def test_asking_ends_it_and_waits_for_that(holder, tmp_path):
    process = holder()
    assert ask_to_stop(tmp_path / "run", 20.0).pid == process.pid
    assert process.wait(5) == 0
    assert running(tmp_path / "run") is None
    assert ask_to_stop(tmp_path / "run", 1.0) is None


def test_one_that_does_not_listen_is_named_and_left_alone(holder, tmp_path):
    process = holder("deaf")
    with pytest.raises(CoterieError, match=rf"process {process.pid}.*has not ended within 0.2 seconds"):
        ask_to_stop(tmp_path / "run", 0.2)
    assert process.poll() is None


def test_an_error_inside_lets_go_of_the_folder(tmp_path):
    with pytest.raises(KeyError), hold(tmp_path / "run", clock=now):
        raise KeyError
    assert not (tmp_path / "run" / "process.json").exists()
    with hold(tmp_path / "run", clock=now):
        pass


def test_looking_does_not_keep_anybody_out(tmp_path):
    """Whoever looks has the lock for a moment, shared; taking the folder waits for that."""
    with hold(tmp_path / "run", clock=now):
        pass
    looking = os.open(tmp_path / "run" / "lock", os.O_RDWR)
    fcntl.flock(looking, fcntl.LOCK_SH)
    after = threading.Timer(0.2, os.close, (looking,))
    after.start()
    with hold(tmp_path / "run", clock=now):
        assert running(tmp_path / "run").pid == os.getpid()
    after.join()


def test_files_are_their_owners_alone(tmp_path):
    with hold(tmp_path / "run", clock=now):
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir()}
    assert modes == {"lock": 0o600, "process.json": 0o600}
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
