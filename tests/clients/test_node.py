"""The node: the order in which things happen, and what it will not do twice."""

import dataclasses
import datetime
import gc
import json
import sqlite3

import numpy as np
import pytest

from coterie.clients import taint as marks
from coterie.clients.refusals import TaskRefused
from coterie.clients.taint import taint
from coterie.clients.task import Task
from coterie.clients.training import train as real_training
from coterie.privacy.calibration import calibrate
from coterie.privacy.errors import LedgerFault, ReleaseRefused
from coterie.privacy.events import DiscreteGaussian, PoissonGaussian
from coterie.privacy.ledger import Ledger
from coterie.privacy.randomness import OsSource, SeededSource, Stream
from coterie.privacy.release import ModelUpdate, ScoreHistogram, release_digest, weights_digest
from coterie.tests.clients.federation import BOOKKEEPING, TODAY, Federation, study, table_of, watched

SPARE = {"training__spare": 1}
KINDS = ["train", "measure"]


@pytest.fixture
def spared(tmp_path):
    """A federation whose plan declares one spare attempt."""
    federation = Federation(tmp_path / "federation", study(**SPARE))
    federation.propose()
    return federation


def refused(code, work, *args, **kwargs):
    with pytest.raises(TaskRefused) as caught:
        work(*args, **kwargs)
    assert caught.value.code == code
    return caught.value.faults


class Witness:
    """A random source that looks into the ledger, through a connection of its own, before each draw."""

    name = "witness"

    def __init__(self, ledger):
        self.ledger = ledger
        self.seen = []  # (label, kinds in the ledger, key of the last reservation)

    def stream(self, label):
        witness = self

        class Watched(Stream):
            def bits(self, count):
                witness.look(label)
                return super().bits(count)

        return Watched(bytes(32))

    def look(self, label):
        db = sqlite3.connect(f"file:{self.ledger}?mode=ro", uri=True)
        rows = db.execute("SELECT kind, body FROM entries ORDER BY seq").fetchall()
        db.close()
        bodies = [json.loads(body) for kind, body in rows if kind == "reserve"]
        keys = [f"{b['plan']}/{b['step']}/{b['attempt']}" for b in bodies]
        self.seen.append((label, [kind for kind, _ in rows if kind not in BOOKKEEPING], keys[-1:]))


# --- what is released, and what it costs ----------------------------------------------------------------------


def test_a_trained_round_is_reserved_then_settled_and_answers_the_question(agreed):
    update = agreed.train()
    assert isinstance(update, ModelUpdate)
    assert (update.plan, update.partner, update.step, update.attempt) == (agreed.digest, "amber", "train/1", 1)
    assert update.model == weights_digest(agreed.weights())
    assert [array.shape for array in update.arrays] == [array.shape for array in agreed.weights()]
    assert agreed.kinds() == ["consent", "reserve", "settle"]
    (held,) = agreed.reservations()
    assert held.settled == release_digest(update)
    assert held.charge.event == update.event == calibrate(agreed.plan).update
    assert (held.charge.group, held.charge.purpose, held.charge.random) == ("training", "coupons", "seeded")


def test_a_measured_round_is_charged_to_the_held_out_group(agreed):
    histogram = agreed.measure()
    assert isinstance(histogram, ScoreHistogram)
    assert histogram.arrays[0].shape == (2, 8)
    assert histogram.arrays[0].dtype == np.int64
    (held,) = agreed.reservations()
    assert (held.charge.group, held.charge.event) == ("holdout", calibrate(agreed.plan).histogram)
    assert isinstance(held.charge.event, DiscreteGaussian)
    with Ledger(agreed.workspace().ledger, agreed.clock) as ledger:
        assert max(ledger.spent("training")) == 0 < max(ledger.spent("holdout"))


def test_the_source_of_randomness_is_written_beside_every_event(agreed):
    agreed.random = OsSource()
    agreed.train()
    agreed.random = SeededSource(b"x")
    agreed.measure()
    assert [held.charge.random for held in agreed.reservations()] == ["os", "seeded"]


def test_partners_and_rounds_draw_from_streams_of_their_own(agreed):
    drawn = [agreed.train("amber", 1), agreed.train("amber", 2), agreed.train("birch", 1)]
    assert len({release.arrays[0].tobytes() for release in drawn}) == 3


# --- the order --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_reservation_is_durable_before_the_first_random_draw(agreed, kind):
    agreed.random = Witness(agreed.workspace().ledger)
    getattr(agreed, kind)()
    step = {"train": "train/1", "measure": "evaluate/1"}[kind]
    key = f"{agreed.digest}/{step}/1"
    draws = [seen for seen in agreed.random.seen if seen[0] == f"amber/{key}"]
    assert draws
    for _, kinds, keys in draws:
        assert kinds == ["consent", "reserve"]
        assert keys == [key]


@pytest.mark.parametrize("kind", KINDS)
def test_the_budget_is_asked_before_the_table_is_opened(agreed, kind):
    agreed.policy(budget__lifetime_epsilon=0.3)
    with watched(agreed.streams()) as opened:
        faults = refused("budget", getattr(agreed, kind))
    assert opened == []
    assert (faults[0].place, faults[0].rule[:29]) == ("lifetime budget", "has epsilon 0.3 of 0.3 left f")
    assert "0 more releases like this" in faults[0].rule
    assert str(faults[0]) in agreed.report()
    assert agreed.kinds() == ["consent"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_answered_question_gets_the_same_bytes_and_costs_nothing_more(agreed, kind):
    agreed.random = OsSource()
    first = getattr(agreed, kind)()
    ledger = agreed.everything()
    agreed.lose()  # nothing is computed anew
    again = getattr(agreed, kind)()
    assert release_digest(again) == release_digest(first)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first.arrays, again.arrays, strict=True))
    assert agreed.everything() == ledger


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_given_again_when_the_budget_is_gone(agreed, kind):
    first = getattr(agreed, kind)()
    agreed.policy(budget__lifetime_epsilon=0.3)
    assert release_digest(getattr(agreed, kind)()) == release_digest(first)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_step_with_another_model_is_a_replay(agreed, kind):
    getattr(agreed, kind)()
    refused("replay", getattr(agreed, kind), weights=agreed.weights(0.25))
    assert agreed.kinds() == ["consent", "reserve", "settle"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_shares_memory_with_customers_rows_is_never_settled(agreed, kind, monkeypatch):
    def leaking(*args, **kwargs):
        arrays, event = real_training(*args, **kwargs)
        return tuple(taint(array)[:] for array in arrays), event

    monkeypatch.setattr("coterie.clients.training.train", leaking)
    monkeypatch.setattr("coterie.clients.measuring.noisy_histogram", lambda counts, *_: taint(counts)[:])
    with pytest.raises(ReleaseRefused, match="shares memory"):
        getattr(agreed, kind)()
    assert agreed.kinds() == ["consent", "reserve"]
    assert not list((agreed.folders["amber"] / "outbox").iterdir())
    refused("lost", getattr(agreed, kind))


# --- attempts ---------------------------------------------------------------------------------------------


def lose(federation, kind="train", **kwargs):
    """Fail between reservation and settlement."""
    with pytest.MonkeyPatch.context() as patch:

        def full(*args):
            raise OSError("no room")

        patch.setattr("coterie.clients.outbox.Outbox.keep", full)
        with pytest.raises(OSError, match="no room"):
            getattr(federation, kind)(**kwargs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_attempt_stays_lost_and_a_second_is_charged_in_full(spared, kind):
    lose(spared, kind)
    refused("lost", getattr(spared, kind))
    second = getattr(spared, kind)(attempt=2)
    held = spared.reservations()
    assert [(r.charge.attempt, r.lost, r.settled) for r in held] == [
        (1, True, None),
        (2, False, release_digest(second)),
    ]
    assert held[0].charge.event == held[1].charge.event
    refused("lost", getattr(spared, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_attempt_without_a_lost_first_is_no_task(spared, kind):
    refused("task", getattr(spared, kind), attempt=2)
    getattr(spared, kind)()
    refused("task", getattr(spared, kind), attempt=2)
    assert len(spared.reservations()) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_attempt_without_a_spare_is_no_task(agreed, kind):
    lose(agreed, kind)
    refused("task", getattr(agreed, kind), attempt=2)
    assert len(agreed.reservations()) == 1


def test_a_second_attempt_draws_other_noise(spared):
    first = spared.train("amber")
    copy = Federation(spared.root.parent / "copy", study(**SPARE))
    copy.propose()
    lose(copy)
    second = copy.train(attempt=2)
    assert not np.array_equal(first.arrays[0], second.arrays[0])


def test_spare_attempts_are_for_the_whole_study(spared):
    lose(spared)
    spared.train(attempt=2)
    lose(spared, round_=2)
    faults = refused("budget", spared.train, round_=2, attempt=2)
    assert "declared 3 releases on group training, 3 are spent" in faults[0].rule


# --- tasks that are not the plan's --------------------------------------------------------------------------

BAD_TASKS = {
    "round 0": {"round": 0},
    "a round too far": {"round": 3},
    "a negative round": {"round": -1},
    "attempt 0": {"attempt": 0},
    "an attempt too far": {"attempt": 2},
    "no weights": {"weights": ()},
    "weights of another shape": {"weights": (np.zeros((1, 8), np.float32), np.zeros(1, np.float32))},
    "one array more": {"weights": (*(np.zeros(s, np.float32) for s in ((1, 7), (1,))), np.zeros(1, np.float32))},
    "whole numbers": {"weights": (np.zeros((1, 7), np.int64), np.zeros(1, np.int64))},
    "doubles": {"weights": (np.zeros((1, 7)), np.zeros(1))},
    "NaN": {"weights": (np.full((1, 7), np.nan, np.float32), np.zeros(1, np.float32))},
    "infinity": {"weights": (np.zeros((1, 7), np.float32), np.full(1, np.inf, np.float32))},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BAD_TASKS)
def test_a_task_that_the_plan_does_not_describe_is_refused_before_anything(agreed, kind, name):
    task = dataclasses.replace(agreed.task(), **BAD_TASKS[name])
    with watched(agreed.streams()) as opened, agreed.node() as node:
        refused("task", getattr(node, kind), task)
    assert opened == []
    assert agreed.kinds() == ["consent"]


def test_a_round_that_the_plan_does_not_measure_is_not_measured(tmp_path):
    federation = Federation(tmp_path, study(metrics__rounds=(2,)))
    federation.propose()
    refused("task", federation.measure, round_=1)
    assert isinstance(federation.measure(round_=2), ScoreHistogram)


@pytest.mark.parametrize("kind", KINDS)
def test_without_consent_there_is_no_work(federation, kind):
    with watched(federation.streams()) as opened:
        refused("no-consent", getattr(federation, kind))
        refused("no-consent", getattr(federation, kind), plan="../../etc/passwd")
    assert opened == []
    assert federation.entries() == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("harm", ["gone", "altered", "another's", "no policy"])
def test_consent_to_a_plan_that_cannot_be_verified_any_more_is_none(agreed, kind, harm):
    (path,) = (agreed.folders["amber"] / "plans").iterdir()
    if harm == "gone":
        path.unlink()
    elif harm == "altered":
        path.write_bytes(path.read_bytes().replace(b"coupons", b"c0upons"))
    elif harm == "another's":
        agreed.policy(coordinator=agreed.plan.partner("birch").key)
    else:
        agreed.workspace().policy.unlink()
    refused("no-consent", getattr(agreed, kind))
    assert agreed.kinds() == ["consent"]


WITHDRAWN = {
    "the purpose": {"purposes": ["churn"]},
    "a column": {"columns": ["age", "spend"]},
    "the family": {"families": ["mlp"]},
    "the trust": {"trust": []},
    "the roster's size": {"minimum_partners": 4},
    "the label": {"labels": ["other"]},
    "the unit": {"customer": "household"},
    "the study's epsilon": {"budget__study_epsilon": 1.0},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WITHDRAWN)
def test_a_permission_that_is_withdrawn_after_consent_stops_the_work(agreed, kind, name):
    agreed.policy(**WITHDRAWN[name])
    with watched(agreed.streams()) as opened:
        refused("no-consent", getattr(agreed, kind))
    assert opened == []
    assert agreed.kinds() == ["consent"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_may_expire_between_consent_and_work(agreed, kind):
    agreed.clock = lambda: TODAY.replace(year=2032, month=1, day=1)
    refused("expired", getattr(agreed, kind))
    agreed.clock = lambda: datetime.datetime(2031, 12, 31, 23, 59, tzinfo=datetime.UTC)
    getattr(agreed, kind)()


# --- budgets across rounds and studies ------------------------------------------------------------------------


def test_a_budget_that_ends_in_the_middle_of_a_study_ends_the_work_there(agreed):
    agreed.train(round_=1)
    spent = agreed.reservations()
    agreed.policy(budget__lifetime_epsilon=3.5)
    faults = refused("budget", agreed.train, round_=2)
    assert "left for group training" in faults[0].rule
    agreed.measure(round_=1)  # the held-out group has a budget of its own
    assert agreed.reservations()[: len(spent)] == spent
    assert [r.charge.group for r in agreed.reservations()] == ["training", "holdout"]


def test_the_lifetime_budget_holds_over_two_studies(agreed):
    agreed.policy(budget__lifetime_epsilon=6.0)
    second = agreed.sign(name="autumn")
    agreed.propose(signed=second.to_bytes())  # while nothing is spent, each of the two would fit
    for round_ in (1, 2):
        agreed.train(round_=round_)
    answers = []
    for round_ in (1, 2):
        with agreed.node() as node:
            try:
                node.train(Task(second.plan.digest(), round_, 1, agreed.weights()))
                answers.append("update")
            except TaskRefused as error:
                answers.append(error.code)
    assert answers in (["update", "budget"], ["budget", "budget"])
    assert len(agreed.reservations()) == 2 + answers.count("update")


def test_a_study_keeps_to_the_composition_that_it_declared(agreed):
    for round_ in (1, 2):
        agreed.train(round_=round_)
        agreed.measure(round_=round_)
    held = agreed.reservations()
    assert sum(r.charge.group == "training" for r in held) == calibrate(agreed.plan).updates
    assert {r.charge.event for r in held if isinstance(r.charge.event, PoissonGaussian)} == {
        calibrate(agreed.plan).update
    }


# --- rows that do not carry the study -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_customers_than_the_cohort_are_unavailable_for_every_kind_of_work(agreed, kind):
    agreed.put(table_of(count=11))  # some of them are held out, and 10 must be left
    faults = refused("unavailable", getattr(agreed, kind))
    assert "fewer training customers than the policy's 10" in faults[0].rule
    assert str(faults[0]) in agreed.report()
    assert agreed.kinds() == ["consent", "refusal"]


def test_the_cohort_that_counts_is_the_policys_and_not_the_plans(agreed):
    """Were it the plan's, a row of plans would count the customers."""
    agreed.policy(minimum_customers=1000)
    refused("unavailable", agreed.train)


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_table_answers_once_and_takes_the_approval_back(agreed, kind):
    agreed.lose()
    refused("unavailable", getattr(agreed, kind))
    assert agreed.entries()[-1].body["codes"] == ["unavailable"]
    agreed.put(table_of())
    # The table is whole again, but nothing is asked of it until the operator has looked.
    refused("unavailable", getattr(agreed, kind))
    assert agreed.kinds() == ["consent", "refusal"]
    assert agreed.propose().codes == ("contract",)
    agreed.workspace().approve(agreed.plan.contract)
    getattr(agreed, kind)()
    assert agreed.kinds() == ["consent", "refusal", "refusal", "reserve", "settle"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_failure_of_a_table_has_a_word_of_its_own(agreed, kind, monkeypatch):
    def broken(*_args, **_kwargs):
        raise MemoryError("canary-55")

    monkeypatch.setattr("coterie.clients.work.open_table", broken)
    faults = refused("unavailable", getattr(agreed, kind))
    assert "canary" not in str(faults)


def test_the_unit_of_privacy_is_fixed_with_the_first_consent(agreed):
    other = dataclasses.replace(agreed.plan.contract, customer="household")
    agreed.policy(customer="household")
    assert agreed.propose(signed=agreed.sign(contract=other).to_bytes()).codes == ("customer",)


def test_huge_weights_are_refused_before_anything_is_read(agreed):
    with watched(agreed.streams()) as opened:
        refused("task", agreed.train, weights=agreed.weights(shift=3e38))
    assert opened == []


def test_a_ledger_that_vanished_or_was_rolled_back_releases_nothing(agreed):
    agreed.train()
    ledger = agreed.workspace().ledger
    for suffix in ("-wal", "-shm"):
        ledger.with_name(ledger.name + suffix).unlink(missing_ok=True)
    ledger.unlink()
    with pytest.raises(LedgerFault, match="is missing"):
        agreed.train()
    Ledger.create(ledger)
    agreed.propose()
    refused("fault", agreed.train)
    assert agreed.reservations() == ()


def test_what_a_contract_lets_pass_is_noted_for_the_partner_alone(tmp_path):
    plan = study()
    lenient = dataclasses.replace(plan.contract, rows_per_customer=2, too_many_rows="sample")
    federation = Federation(tmp_path, study(contract=lenient))
    table = table_of()
    federation.put(table.take([*range(150), 3, 3, 3]))
    federation.propose()
    federation.train()
    federation.train(round_=2)
    assert federation.noted() == {"customers with too many rows: 1", "rows: 151", "customers: 150"}
    assert len(federation.kept()) == 2
    assert not list((federation.folders["amber"] / "reports").iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_rows_die_with_the_call_that_opened_them(agreed, kind):
    gc.collect()
    before = len(marks._marked)
    with agreed.node() as node:
        getattr(node, kind)(agreed.task())
        gc.collect()
        assert len(marks._marked) == before
