"""Children live as long as their supervisor wants, and no longer than it."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from coterie.privacy.clock import now
from coterie.privacy.errors import CoterieError
from coterie.processes.logs import json_log
from coterie.processes.supervise import Child, Pauses, Supervisor

ROOT = Path(__file__).parents[2]
QUICK = Pauses(first=0.05, longest=0.2, calm=60.0)
# Leaves a line for each start, with the time at which it was asked to end; `stubborn` ones do not listen.
PROGRAM = """
import os, signal, sys, time
def tell(word): open({told!r}, "a").write(f"{{time.monotonic()}} {name} {{os.getpid()}} {{word}}\\n")
def end(*_): tell("asked"); {answer}
signal.signal(signal.SIGTERM, end)
tell("began")
{body}
while True: time.sleep(60)
"""


def alive(pid):
    """Return whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition, seconds=15.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        threading.Event().wait(0.02)


def child(folder, name, *, body="", answer="sys.exit(0)", grace=10.0):
    program = PROGRAM.format(told=str(folder / "told"), name=name, body=body, answer=answer)
    return Child(name, (sys.executable, "-c", program), dict(os.environ), folder / f"{name}.log", grace)


def told(folder, word="began"):
    """Return (name, pid) of each line with that word, in order."""
    if not (folder / "told").exists():
        return []
    lines = [line.split() for line in (folder / "told").read_text().splitlines()]
    return [(line[1], int(line[2])) for line in lines if len(line) == 4 and line[3] == word]


def events(folder):
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


class Running:
    """A supervisor in a thread of this process."""

    def __init__(self, folder, children, **settings):
        self.stop, self.folder = threading.Event(), folder
        log = json_log(folder / "log", component="supervisor", clock=now)
        settings = {"pauses": QUICK, **settings}
        self.supervisor = Supervisor(children, log=log, monotonic=time.monotonic, **settings)
        self.thread = threading.Thread(target=self.supervisor.run, args=(self.stop,))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


def test_a_killed_child_is_started_again_and_counted(tmp_path):
    with Running(tmp_path, [child(tmp_path, "a"), child(tmp_path, "b")]) as running:
        until(lambda: len(told(tmp_path)) == 2)
        first = dict(told(tmp_path))
        os.kill(first["a"], signal.SIGKILL)
        until(lambda: len(told(tmp_path)) == 3)
        state = running.supervisor.status()
        assert state["a"].running
        assert state["a"].pid == told(tmp_path)[2][1] != first["a"]
        assert (state["a"].restarts, state["b"].restarts) == (1, 0)
        assert state["b"].pid == first["b"]
    assert {"child": "a", "code": -9} in [
        {key: line[key] for key in ("child", "code")} for line in events(tmp_path) if line["event"] == "ended"
    ]


def test_pauses_double_up_to_a_limit_and_are_forgotten_after_a_calm_life(tmp_path):
    """The clock is the test's own; a child that ends at once is started at 0, then after each pause."""
    moment, starts = [0.0], []
    dies = child(tmp_path, "dies", body="sys.exit(3)")
    log = logging.Logger("silent")
    pauses = Pauses(first=1.0, longest=6.0, calm=60.0)
    supervisor = Supervisor([dies], log=log, monotonic=lambda: moment[0], pauses=pauses)
    (band,) = supervisor._bands

    def step():
        supervisor._look_after(band)

    def falls():
        until(lambda: not band.up or band.members[0].ended())

    for pause in (1.0, 2.0, 4.0, 6.0, 6.0):
        step()
        assert band.up
        starts.append(moment[0])
        falls()
        step()
        moment[0] += pause * 0.99
        step()
        assert not band.up, "it was started too early"
        moment[0] += pause * 0.01 + 1e-9
    step()
    falls()
    moment[0] += 61.0
    step()
    moment[0] += 1.0
    step()
    assert band.up, "a calm life did not count"
    supervisor.stop()
    assert starts == pytest.approx([0.0, 1.0, 3.0, 7.0, 13.0])
    assert [Pauses().after(falls) for falls in (1, 2, 6, 7, 10_000)] == [0.5, 1.0, 16.0, 30.0, 30.0]


def test_children_that_belong_together_are_started_anew_together(tmp_path):
    children = [child(tmp_path, name) for name in ("a", "b", "alone")]
    with Running(tmp_path, children, together=frozenset({"a", "b"})) as running:
        until(lambda: len(told(tmp_path)) == 3)
        before = dict(told(tmp_path))
        os.kill(before["b"], signal.SIGKILL)
        until(lambda: len(told(tmp_path)) == 5)
        assert told(tmp_path, "asked") == [("a", before["a"])]
        after = dict(told(tmp_path))
        assert after["a"] != before["a"]
        assert after["b"] != before["b"]
        assert after["alone"] == before["alone"]
        assert [state.restarts for state in running.supervisor.status().values()] == [1, 1, 0]
        assert not alive(before["a"])


def test_stopping_asks_the_last_started_first_and_leaves_nothing(tmp_path):
    body = "import subprocess; p = subprocess.Popen(['sleep', '600']); tell(f'child-{p.pid}')"
    with Running(tmp_path, [child(tmp_path, name, body=body) for name in "abc"]) as running:
        until(lambda: (tmp_path / "told").exists() and (tmp_path / "told").read_text().count("child-") == 3)
        pids = [pid for _, pid in told(tmp_path)]
        text = (tmp_path / "told").read_text()
        pids += [int(line.rsplit("-", 1)[1]) for line in text.splitlines() if "child-" in line]
        assert all(alive(pid) for pid in pids)
    assert [name for name, _ in told(tmp_path, "asked")] == ["c", "b", "a"]
    until(lambda: not any(alive(pid) for pid in pids), 5)
    for pid in pids[:3]:
        with pytest.raises(ProcessLookupError):  # not even a zombie
            os.kill(pid, 0)
    assert not any(state.running for state in running.supervisor.status().values())
    assert events(tmp_path)[-1]["event"] == "supervised"


def test_a_child_that_does_not_listen_is_killed_after_its_grace(tmp_path):
    with Running(tmp_path, [child(tmp_path, "deaf", answer="None", grace=0.3)]):
        until(lambda: told(tmp_path))
        ((_, pid),) = told(tmp_path)
        begun = time.monotonic()
    assert 0.3 <= time.monotonic() - begun < 5
    assert told(tmp_path, "asked")
    assert not alive(pid)
    assert "killed" in [line["event"] for line in events(tmp_path)]


def test_what_a_fallen_child_leaves_in_its_group_goes_with_it(tmp_path):
    body = "import subprocess; p = subprocess.Popen(['sleep', '600']); tell(f'child-{p.pid}')"
    with Running(tmp_path, [child(tmp_path, "a", body=body)]):
        until(lambda: (tmp_path / "told").exists() and "child-" in (tmp_path / "told").read_text())
        orphan = int((tmp_path / "told").read_text().split("child-")[1].split()[0])
        os.kill(told(tmp_path)[0][1], signal.SIGKILL)
        until(lambda: not alive(orphan))


SUPERVISOR = """
import sys, threading, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from coterie.privacy.clock import now
from coterie.processes.logs import json_log
from coterie.processes.supervise import Child, Supervisor
folder = Path(sys.argv[2])
told = str(folder / "told")
program = f"import os, time; open({told!r}, 'a').write(f'0 x {{os.getpid()}} began\\\\n'); time.sleep(600)"
children = [Child(name, (sys.executable, "-c", program), {}, folder / name) for name in ("a", "b")]
log = json_log(folder / "log", component="supervisor", clock=now)
Supervisor(children, log=log, monotonic=time.monotonic).run(threading.Event())
"""


def test_children_of_a_killed_supervisor_are_gone_within_seconds(tmp_path):
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, ROOT / ".dev", tmp_path])
    try:
        until(lambda: len(told(tmp_path)) == 2)
        pids = [pid for _, pid in told(tmp_path)]
        assert all(alive(pid) for pid in pids)
    finally:
        supervisor.kill()
        supervisor.wait()
    until(lambda: not any(alive(pid) for pid in pids), 3)


def test_a_program_that_is_not_there_is_tried_again_and_named_in_its_log(tmp_path):
    missing = Child("missing", ("no-such-program",), {"PATH": "/usr/bin"}, tmp_path / "missing.log")
    with Running(tmp_path, [missing]) as running:
        until(lambda: running.supervisor.status()["missing"].restarts >= 2)
    assert "no-such-program cannot be started: No such file or directory" in (tmp_path / "missing.log").read_text()
    assert next(line["code"] for line in events(tmp_path) if line["event"] == "ended") == 127


def test_what_a_child_prints_is_kept_without_escapes_and_for_its_owner_alone(tmp_path):
    body = r"print('\x1b[32mINFO\x1b[0m : up \x1b]0;title\x07', flush=True); os.write(2, b'bad \xff byte\n')"
    body += "; tell('printed')"
    with Running(tmp_path, [child(tmp_path, "a", body=body)]):
        until(lambda: told(tmp_path, "printed"))
        until(lambda: "byte" in (tmp_path / "a.log").read_text())
    assert (tmp_path / "a.log").read_text().splitlines() == [
        "INFO : up ?]0;title?",
        "bad \N{REPLACEMENT CHARACTER} byte",
    ]
    assert (tmp_path / "a.log").stat().st_mode & 0o777 == 0o600


def test_a_child_may_print_for_ever_where_its_log_cannot_be_written(tmp_path):
    """A pipe holds 64 KiB: nobody reading it, the child would stand still."""
    (tmp_path / "a.log").mkdir()
    body = "[print('x' * 1000) for _ in range(1000)]; tell('printed')"
    with Running(tmp_path, [child(tmp_path, "a", body=body)]):
        until(lambda: told(tmp_path, "printed"))


@pytest.mark.parametrize(("names", "together"), [(("a", "a"), frozenset()), (("a", "b"), frozenset({"c"}))])
def test_names_that_do_not_fit_are_refused(tmp_path, names, together):
    children = [child(tmp_path, name) for name in names]
    with pytest.raises(CoterieError, match="names of their own"):
        Supervisor(children, log=logging.Logger("silent"), monotonic=time.monotonic, together=together)
