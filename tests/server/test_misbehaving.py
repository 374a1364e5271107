"""One misbehaving partner: its reply is not added, it is named, and the others' result is theirs to the bit."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, RecordDict

from coterie.clients.wire import decode_release, encode_release
from coterie.privacy.calibration import calibrate
from coterie.privacy.release import Refused, ScoreHistogram
from coterie.server.aggregate import AdamState
from coterie.server.cohort import Cohort
from coterie.server.strategy import PlanStrategy
from coterie.tests.clients.federation import Clients, Federation, altered, mechanisms, study

SHORT = study(metrics__rounds=(2,))


def changed(**changes):
    """Change the fields of an update."""

    def change(reply):
        update = decode_release(reply.content, update=mechanisms().update, histogram=None)
        fields = {key: value(update) if callable(value) else value for key, value in changes.items()}
        return encode_release(dataclasses.replace(update, **fields))

    return change


def holding(value):
    def arrays(update):
        weights = update.arrays[0].copy()
        weights[0, 2] = value
        return (weights, update.arrays[1])

    return changed(arrays=arrays)


def content(text):
    """Replace the header's text."""

    def change(reply):
        reply.content["release"]["header"] = text
        return reply

    return change


def said_by(node):
    """Say that another node sent it."""

    def change(reply):
        reply.metadata.__dict__["_src_node_id"] = node
        return reply

    return change


def another_kind(reply):
    histogram = ScoreHistogram("p", "amber", "train/1", 1, "m", mechanisms().histogram, (np.zeros((2, 8), np.int64),))
    return encode_release(histogram)


def in_birchs_name(reply):
    reply.content = changed(partner="birch")(reply)
    return said_by(1001)(reply)


def garbage(reply):
    reply.content["arrays"]["0"] = Array(dtype="float32", shape=(1, 7), stype="numpy.ndarray", data=b"\0" * 64)
    return reply


def listed(refusal):
    refusal["release"]["header"] = '{"codes":[[]],"plan":""}'
    return refusal


class Replayed:
    """Answers every round with the first round's bytes."""

    def __init__(self):
        self.first = None

    def __call__(self, reply):
        self.first = self.first or reply.content
        return self.first


ALTERED = {
    "NaN": holding(np.nan),
    "infinity": holding(-np.inf),
    "another shape": changed(arrays=lambda update: (update.arrays[0].T, update.arrays[1])),
    "an array more": changed(arrays=lambda update: (*update.arrays, update.arrays[1])),
    "doubles as whole numbers": changed(arrays=lambda update: tuple(a.astype(np.int64) for a in update.arrays)),
    "another plan": changed(plan="sha256:" + "0" * 64),
    "another partner's name": changed(partner="birch"),
    "another partner's name and node": in_birchs_name,
    "another node": said_by(1001),
    "a node that is nobody": said_by(77),
    "another step": changed(step="train/9"),
    "another attempt": changed(attempt=2),
    "an attempt that is true": content(json.dumps({"attempt": True})),
    "another model": changed(model="sha256:" + "0" * 64),
    "another kind": another_kind,
    "a refusal": lambda reply: encode_release(Refused("", ("budget",))),
    "a refusal with a list for a word": lambda reply: listed(encode_release(Refused("", ()))),
    "no release": lambda reply: RecordDict({"x": ConfigRecord({"y": 1})}),
    "nothing": lambda reply: RecordDict(),
    "bytes that are no array": garbage,
    "deep nesting": content("[" * 50_000),
}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A federation that has not begun, and how its study ends when amber never answers a training task."""
    federation = Federation(tmp_path_factory.mktemp("misbehaving") / "start", SHORT)
    without = copied(federation, federation.root.with_name("without"))
    app = without.app()
    silent = altered(app, lambda reply: Error(code=100, reason="unavailable"))
    return federation, without.run(without.grid(Clients(app, amber=silent)))


def copied(federation, folder):
    return Federation(shutil.copytree(federation.root, folder), SHORT)


@pytest.mark.parametrize("name", ALTERED)
def test_a_reply_that_is_not_the_plans_is_not_added_and_its_partner_is_named(start, tmp_path, name):
    template, without = start
    federation = copied(template, tmp_path / "here")
    app = federation.app()
    progress = federation.run(federation.grid(Clients(app, amber=altered(app, ALTERED[name]))))
    assert {(r.partner, r.step, r.round, r.code) for r in progress.refusals} == {
        ("amber", "train", 1, "rejected"),
        ("amber", "train", 2, "rejected"),
    }
    assert all(refusal.why for refusal in progress.refusals)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(progress.weights, without.weights, strict=True))


def test_an_old_reply_to_a_new_round_is_not_added(start, tmp_path):
    template, _ = start
    federation = copied(template, tmp_path / "here")
    app = federation.app()
    progress = federation.run(federation.grid(Clients(app, amber=altered(app, Replayed()))))
    assert [(r.partner, r.round, r.code) for r in progress.refusals] == [("amber", 2, "rejected")]


def test_a_histogram_that_is_not_the_plans_is_not_kept(start, tmp_path):
    template, _ = start
    federation = copied(template, tmp_path / "here")
    app = federation.app()

    def widened(reply):
        got = decode_release(reply.content, update=None, histogram=mechanisms().histogram)
        wide = dataclasses.replace(got, arrays=(np.zeros((2, 9), np.int64),))
        return encode_release(wide)

    progress = federation.run(federation.grid(Clients(app, amber=altered(app, widened, ("evaluate",)))))
    assert set(progress.histograms[2]) == {"birch", "cedar"}
    assert [(r.partner, r.step, r.code) for r in progress.refusals] == [("amber", "evaluate", "rejected")]


# --- the strategy by itself -----------------------------------------------------------------------------------


@pytest.fixture
def asked(start, tmp_path):
    """A strategy that has asked for the first round, and the three honest replies."""
    federation = copied(start[0], tmp_path / "strategy")
    grid = federation.grid()
    for name in federation.folders:
        federation.ask_plan(grid, name)
    cohort = Cohort({name: federation.node_id(grid, name) for name in federation.folders})
    plan = federation.plan
    strategy = PlanStrategy(plan, calibrate(plan), cohort, AdamState.start(federation.weights()))
    messages = strategy.configure_train(1, ArrayRecord(list(federation.weights())), ConfigRecord({}), grid)
    return strategy, list(grid.send_and_receive(messages)), federation


def test_a_reply_that_comes_twice_is_added_once(asked):
    strategy, replies, federation = asked
    once, _ = strategy.aggregate_train(1, replies)
    strategy.configure_train(1, once, ConfigRecord({}), None)
    strategy.ask("train", 1, federation.weights(), dict.fromkeys(federation.folders, 1))
    strategy._start = federation.weights()
    twice, _ = strategy.aggregate_train(1, [replies[0], *replies, replies[1]])
    assert [a.data for a in once.values()] == [a.data for a in twice.values()]
    assert [(r.partner, r.why) for r in strategy.rejected] == [("amber", "answered twice"), ("birch", "answered twice")]


def test_the_order_of_replies_changes_nothing(asked):
    strategy, replies, _ = asked
    results = set()
    for order in (replies, replies[::-1], [replies[1], replies[2], replies[0]]):
        strategy.answered = set()
        record, _ = strategy.aggregate_train(1, order)
        results.add(b"".join(array.data for array in record.values()))
    assert len(results) == 1


def test_too_few_replies_make_no_round(asked):
    strategy, replies, _ = asked
    assert strategy.aggregate_train(1, replies[:1]) == (None, None)


def test_rounds_that_are_not_measured_are_not_asked_about(asked):
    strategy, _, federation = asked
    record = ArrayRecord(list(federation.weights()))
    assert list(strategy.configure_evaluate(1, record, ConfigRecord({}), None)) == []
    assert len(list(strategy.configure_evaluate(2, record, ConfigRecord({}), None))) == 3


def test_flowers_own_loop_is_refused(asked):
    strategy, _, _ = asked
    assert strategy.summary() is None
    with pytest.raises(NotImplementedError, match="run_study"):
        strategy.start()
