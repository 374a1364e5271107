"""The app that a partner's worker runs: its own workspace, the operating system's randomness, the real time."""

import datetime
import inspect
from pathlib import Path

import pytest

from coterie.clients.app import client_app, now
from coterie.clients.running.worker import deployed
from coterie.clients.wire import decode_release
from coterie.privacy.randomness import OsSource
from coterie.privacy.release import ConsentGiven, release_digest
from coterie.tests.clients.federation import NAMES, Recorder, mechanisms, table_of


def everyone():
    """Return what `deployed` makes, for nodes that name their workspaces."""
    return client_app(lambda context: Path(str(context.node_config["workspace"])), random=OsSource())


@pytest.fixture
def grid(federation):
    configs = [{"workspace": str(federation.folders[name])} for name in NAMES]
    return Recorder(everyone(), configs)


def test_a_deployed_app_works_in_the_workspace_that_its_operator_named(federation):
    grid = Recorder(deployed(federation.folders["amber"]), [{}])
    given = decode_release(federation.ask_plan(grid, "amber").content, update=None, histogram=None)
    assert isinstance(given, ConsentGiven)
    assert given.partner == "amber"


def test_each_partner_answers_in_its_own_name(federation, grid):
    for name in NAMES:
        given = decode_release(federation.ask_plan(grid, name).content, update=None, histogram=None)
        assert isinstance(given, ConsentGiven)
        assert given.partner == name


def test_a_deployed_app_draws_from_the_operating_system_and_says_so(federation, grid):
    federation.ask_plan(grid)
    reply = federation.ask_task(grid, "train")
    (held,) = federation.reservations()
    assert held.charge.random == "os"
    assert release_digest(decode_release(reply.content, update=mechanisms().update, histogram=None)) == held.settled


def test_a_deployed_app_without_a_workspace_says_one_word(federation):
    grid = Recorder(everyone(), [{}, {"workspace": str(federation.root / "nowhere")}, {"workspace": ""}])
    for name in NAMES:
        assert federation.ask_plan(grid, name).error.reason == "fault"


def test_two_deployed_partners_never_draw_the_same(federation, grid):
    updates = []
    for name in ("amber", "birch"):
        federation.put(table_of(), name)  # the same customers at both
        federation.ask_plan(grid, name)
        reply = federation.ask_task(grid, "train", name=name)
        updates.append(decode_release(reply.content, update=mechanisms().update, histogram=None).arrays[0].tobytes())
    assert updates[0] != updates[1]


def test_nobody_can_seed_a_deployed_app():
    assert list(inspect.signature(deployed).parameters) == ["folder"]
    assert inspect.signature(client_app).parameters["random"].default is inspect.Parameter.empty


def test_the_clock_is_in_utc():
    assert now().tzinfo is datetime.UTC
