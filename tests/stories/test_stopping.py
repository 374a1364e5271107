"""Stopping by the commands: a study, which goes on later; a partner; the coordinator; and nothing else."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coterie.privacy.plan import Metrics
from coterie.processes.held import running
from coterie.server.bookrows import FINISHED, RUNNING, STOPPED
from coterie.tests.clients.federation import NAMES
from coterie.tests.stories.deployed import COMMAND, until

BYSTANDER = "import time; time.sleep(600)"


def coterie(*arguments):
    """Run a command of coterie and return what it printed."""
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def processes_of(folder):
    """Process ids of everything that names a folder in its command line, or works in its environment."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if os.fsencode(folder) in command + environment and state != "Z" and int(process.name) != os.getpid():
            found.add(int(process.name))
    return found


@pytest.fixture
def bystander():
    """A process of the same user that has nothing to do with it."""
    process = subprocess.Popen([sys.executable, "-c", BYSTANDER])
    yield process
    process.kill()
    process.wait()


def test_a_study_that_is_stopped_goes_on_from_its_last_published_round(live):
    # Long enough for the command to come in time.
    training, metrics = dataclasses.replace(live.local.training, rounds=12), Metrics(rounds=(6, 12))
    plan = live.named("stopped", training=training, metrics=metrics)
    office = live.site.office
    digest = live.submit(plan)
    with live.books() as books:
        until(lambda: books.study(digest).status == RUNNING and books.rounds(digest), 120, "the first round")
        assert "asked to stop" in coterie("coordinator", "stop", office.root, plan.name)
        ended = live.ended(digest)
        published = books.rounds(digest)
        assert ended.status == STOPPED
        assert live.progress(plan).round == len(published) < 12
        before = {name: live.charges(name, plan) for name in NAMES}
        coterie("coordinator", "resume", office.root, plan.name, "--detach")
        until(lambda: books.study(digest).status == FINISHED, 240, "the end of the study")
        assert books.rounds(digest)[: len(published)] == published
        assert len(books.rounds(digest)) == 12
        after = {name: live.charges(name, plan) for name in NAMES}
        assert all(before[name].items() <= after[name].items() for name in NAMES)
        assert {len(live.charges(name, plan)) for name in NAMES} == {12 + 2}  # nothing was paid for twice


def test_what_is_stopped_leaves_nothing_running_and_touches_nothing_else(live, bystander):
    told = json.loads(coterie("partner", "status", live.folders["amber"], "--json"))
    assert told["running"] is True
    assert set(told["processes"]) == {"supernode", "worker"}
    service = live.service("amber").pid
    assert processes_of(live.folders["amber"]) >= {service}
    assert len(processes_of(live.folders["amber"])) == 3
    assert coterie("partner", "stop", live.folders["amber"]).strip() == "stopped"
    live.service("amber").wait(timeout=30)
    assert processes_of(live.folders["amber"]) == set()
    assert running(live.folders["amber"] / "run") is None
    assert coterie("partner", "stop", live.folders["amber"]).strip() == "nothing runs"
    for name in NAMES[1:]:
        assert len(processes_of(live.folders[name])) == 3
    office = live.folders["coordinator"]
    assert len(processes_of(office)) >= 4
    assert coterie("coordinator", "stop", office).strip() == "stopped"
    live.service("coordinator").wait(timeout=30)
    assert processes_of(office) == set()
    assert not list((office / "run").glob("process.json"))
    for name in NAMES[1:]:
        assert live.service(name).poll() is None
        assert bystander.poll() is None
        coterie("partner", "stop", live.folders[name])
    assert processes_of(live.root / "site") == set()
    assert bystander.poll() is None
