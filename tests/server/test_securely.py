"""A study of secure sums from proposal to last step: what is published, tried anew, resumed, and charged."""

import dataclasses
import shutil

import numpy as np
import pytest

from coterie.clients.measuring import score_histogram
from coterie.clients.opening import open_table
from coterie.privacy.calibration import calibrate
from coterie.privacy.plan import Secure
from coterie.privacy.randomness import Stream
from coterie.privacy.sums import most_epochs
from coterie.server.coordinator import Interrupted
from coterie.server.registry import Registry
from coterie.server.rounds import StudyAborted
from coterie.tests.clients.federation import changed, secure_study, table_of
from coterie.tests.clients.summing import FOUR, PLAN, Ears, SilentGrid, Summing, quick_folder

KEYS = ("keys", "round-keys")
LONG = secure_study()  # two rounds of two steps
PLANS = {"short": PLAN, "spare": changed(PLAN, training__spare=1), "long": LONG}


@pytest.fixture(scope="module")
def made():
    with quick_folder() as folder:
        tables = {name: table_of(name, 60) for name in FOUR}
        yield {label: Summing(folder / label, plan, tables).consent() for label, plan in PLANS.items()}


@pytest.fixture
def begin(made):
    copies = []

    def copy(label="short"):
        template = made[label]
        copies.append(template.copied(template.root.with_name(f"copy-{len(copies)}")))
        return copies[-1]

    yield copy
    for one in copies:
        shutil.rmtree(one.root)


def stored(federation):
    return Registry(federation.root / "coordinator").resume(federation.digest)


def charges(federation, name="amber"):
    return sorted((r.charge.step, r.charge.attempt) for r in federation.reservations(name))


def once(plan):
    steps = [(f"train/{n}", 1) for n in range(1, plan.training.rounds * plan.training.local_steps + 1)]
    return sorted(steps + [(f"evaluate/{r}", 1) for r in plan.metrics.rounds])


def check_receipts(federation, progress):
    """Every receipt is of a release that its partner charged, and every partner holds the record of them all."""
    for name in federation.names:
        settled = {(r.charge.step, r.charge.attempt, r.settled) for r in federation.reservations(name)}
        assert {(r.step, r.attempt, r.release) for r in progress.receipts if r.partner == name} <= settled
    assert len(progress.receipts) == len({(r.partner, r.step) for r in progress.receipts})
    records = {
        name: [entry.body["record"] for entry in federation.everything(name) if entry.kind == "model"]
        for name in federation.names
    }
    assert len({tuple(record) for record in records.values()}) == 1
    assert all(len(record) == 1 for record in records.values())


class Crash(Exception):
    """The coordinator's process is gone."""


def publishing(patch, act):
    """Have `act(progress, publish)` called in the place of each publishing."""
    real = Registry.publish
    patch.setattr(Registry, "publish", lambda self, progress: act(progress, lambda: real(self, progress)))


# --- a study that goes well --------------------------------------------------------------------------------------


def test_every_step_is_published_before_the_next_is_asked_for_and_charged_once(begin):
    federation, seen = begin("long"), []
    grid = SilentGrid(federation)

    def act(progress, publish):
        publish()
        seen.append((progress.round, progress.step, progress.epoch, grid.asked.count(("amber", "train"))))

    with pytest.MonkeyPatch.context() as patch, Ears().listening() as ears:
        publishing(patch, act)
        progress = federation.run(grid)
    ears.check()
    assert (progress.round, progress.step, progress.epoch, progress.refusals) == (2, 4, 4, ())
    steps = [next(place for place in seen if place[1] == step) for step in range(1, 5)]
    assert [asked for *_, asked in steps] == [1, 2, 3, 4]
    assert [place[0] for place in steps] == [0, 0, 1, 1]
    assert len(ears.sums) == 6
    for name in FOUR:
        assert charges(federation, name) == once(LONG)
    assert len(progress.receipts) == 4 * 6
    check_receipts(federation, progress)


def test_the_model_of_a_round_is_the_one_after_its_last_step(begin):
    federation, after = begin("long"), {}

    def act(progress, publish):
        publish()
        after[progress.step] = [array.copy() for array in progress.weights]

    with pytest.MonkeyPatch.context() as patch:
        publishing(patch, act)
        progress = federation.run()
    models = Registry(federation.root / "coordinator").published()
    assert list(models) == [1, 2]
    for round_, step in ((1, 2), (2, 4)):
        assert all(np.array_equal(a, b) for a, b in zip(models[round_], after[step], strict=True))
    assert not np.array_equal(models[1][0], models[2][0])
    assert all(np.array_equal(a, b) for a, b in zip(models[2], progress.weights, strict=True))


@pytest.mark.parametrize("missing", [(), ("cedar",)])
def test_a_step_is_the_sum_over_what_the_survivors_declared(made, missing):
    sizes = (100, 200, 400, 800)
    plan = changed(
        PLAN,
        secure=Secure(optimizer="sgd", momentum=0.0, averaging=0.0),
        training__local_steps=1,
        partners=tuple(dataclasses.replace(p, customers=n) for p, n in zip(PLAN.partners, sizes, strict=True)),
    )
    folder = made["short"].root.with_name("sizes")
    federation = Summing(folder, plan, {name: table_of(name, 60) for name in FOUR})
    with Ears().listening() as ears:
        progress = federation.run(SilentGrid(federation, {(name, "train", 1) for name in missing}))
    ears.check()
    opened = ears.sums[0][-1]
    declared = 1500 - (400 if missing else 0)
    units = calibrate(plan).update.sensitivity / plan.training.clip
    gradient = opened.total / units / (plan.training.sample_rate * declared)
    moved = -plan.training.learning_rate * gradient
    start = np.concatenate([array.ravel() for array in federation.weights()])
    found = np.concatenate([array.ravel() for array in progress.weights])
    np.testing.assert_allclose(found - start, moved, rtol=1e-5, atol=1e-7)
    assert np.abs(moved).max() > 0
    shutil.rmtree(folder)


def test_a_histogram_counts_the_held_out_customers_of_all(begin):
    federation = begin("short")
    progress = federation.run()
    plan, truth = federation.plan, np.zeros((2, 8), dtype=np.int64)
    for name in FOUR:
        group_key = federation.workspace(name).group_key
        with federation.sealed(name) as table:
            opened = open_table(table, plan.contract, group_key=group_key, stream=Stream(bytes(32)))
        truth += score_histogram(opened, plan, progress.weights, Stream(bytes(32)))
    event = calibrate(plan).histogram
    (counts,) = progress.histograms[1].values()
    scale = np.sqrt(4) * event.share / event.sensitivity
    assert np.abs(counts - truth).max() <= 6 * scale + 1
    assert truth.sum() > 20
    assert np.abs(counts - truth).sum() > 0


# --- tried anew ----------------------------------------------------------------------------------------------------


def test_a_sum_that_failed_is_tried_anew_in_a_new_epoch_and_charged_in_full(begin):
    federation = begin("spare")
    grid = SilentGrid(federation, {("birch", "query.sign", 1), ("damson", "query.sign", 1)})
    with Ears().listening() as ears:
        progress = federation.run(grid)
    ears.check()
    assert (progress.round, progress.step, progress.epoch) == (1, 2, 3)
    assert [r.attempt for r in progress.receipts if r.step == "train/1"] == [2] * 4
    for name in FOUR:
        assert charges(federation, name) == sorted([*once(PLAN), ("train/1", 2)])
    check_receipts(federation, progress)
    first, second = (
        [v for r in federation.reservations() for d, v in ears.vectors.items() if (r.settled, r.charge.key) == (d, key)]
        for key in (f"{federation.digest}/train/1/1", f"{federation.digest}/train/1/2")
    )
    assert len(set(first[0]) & set(second[0])) < 3  # of eight, of which hundreds of thousands of values are likely


def test_without_spare_attempts_the_study_ends_and_says_who_was_missing(begin):
    federation = begin("short")
    lost = {(name, "train", 2) for name in ("birch", "damson")}
    with pytest.raises(StudyAborted, match="train/2"):
        federation.run(SilentGrid(federation, lost))
    kept = stored(federation)
    assert (kept.round, kept.step) == (0, 1)
    assert {(r.partner, r.step, r.code) for r in kept.refusals} == {(n, "train", "silent") for n in ("birch", "damson")}
    assert [r.step for r in kept.receipts] == ["train/1"] * 4


def test_a_silent_partner_is_out_of_the_epoch_and_back_in_the_next(begin):
    federation = begin("long")
    grid = SilentGrid(federation, {("damson", "train", 1)})
    with Ears().listening() as ears:
        progress = federation.run(grid)
    ears.check()
    rest = FOUR[:3]
    assert [opened.survivors for *_, opened in ears.sums] == [rest, rest, FOUR, FOUR, FOUR, FOUR]
    mine = [kind for name, kind in grid.asked if name == "damson"]
    # Not asked to sign or reveal, nor for the second step; then all of the measuring and of the second round.
    assert mine[:5] == ["query.propose", "query.keys", "query.deal", "train", "query.keys"]
    assert charges(federation, "damson") == [c for c in once(LONG) if c[0] not in {"train/1", "train/2"}]
    check_receipts(federation, progress)


def test_a_set_up_is_tried_three_times_and_charges_nothing(begin):
    federation = begin("spare")
    lost = {(name, "query.deal", turn) for name in ("birch", "damson") for turn in (1, 2)}
    progress = federation.run(SilentGrid(federation, lost))
    assert (progress.step, progress.epoch) == (2, 4)
    assert charges(federation) == once(PLAN)
    other = begin("spare")
    lost |= {(name, "query.deal", 3) for name in ("birch", "damson")}
    with pytest.raises(StudyAborted, match="set up"):
        other.run(SilentGrid(other, lost))
    assert stored(other).epoch == 3
    assert all(other.reservations(name) == () for name in FOUR)


def test_set_ups_of_a_plan_come_to_an_end_and_the_study_with_them(begin):
    federation = begin("spare")
    most = most_epochs(federation.plan)
    turns = range(1, most + 9)
    grid = SilentGrid(federation, {(name, "query.deal", turn) for name in ("birch", "damson") for turn in turns})
    ends = []
    while not ends or "every set-up" not in ends[-1]:
        with pytest.raises(StudyAborted) as caught:
            federation.run(grid)
        ends.append(str(caught.value))
        assert len(ends) <= most
    assert stored(federation).epoch == most == 16
    assert len(ends) == 6  # three at a time, then the one that is left
    for name in FOUR:
        begun = [e.body["epoch"] for e in federation.everything(name) if (e.kind, e.body.get("what")) == KEYS]
        assert begun == list(range(1, most + 1))
        assert federation.reservations(name) == ()
    ledgers = [federation.everything(name) for name in FOUR]
    with pytest.raises(StudyAborted, match="every set-up"):
        federation.run(grid)  # the last one is tried again, and no other
    assert [federation.everything(name) for name in FOUR] == ledgers


def test_a_study_goes_well_up_to_the_last_set_up_that_it_has(begin):
    federation = begin("short")
    most = most_epochs(federation.plan)

    def losing(turns):
        return SilentGrid(federation, {(name, "query.deal", turn) for name in ("birch", "damson") for turn in turns})

    for _ in range(3):
        with pytest.raises(StudyAborted, match="too few"):
            federation.run(losing(range(1, most)))
    assert stored(federation).epoch == 9
    progress = federation.run(losing((1, 2)))  # the ninth again, and the tenth
    assert (progress.round, progress.step, progress.epoch) == (1, 2, most)
    assert set(progress.histograms) == {1}


# --- interruptions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, pytest.param(2, marks=pytest.mark.slow), 3])
def test_a_study_stopped_between_steps_goes_on_and_nobody_pays_twice(begin, steps):
    federation = begin("long")

    def stop():
        return (stored(federation).step if stored(federation) else 0) == steps

    with Ears().listening() as ears:
        with pytest.raises(Interrupted):
            federation.run(stop=stop)
        assert stored(federation).step == steps
        progress = federation.run()
    ears.check()
    assert (progress.round, progress.step, progress.refusals) == (2, 4, ())
    assert set(progress.histograms) == {1, 2}
    for name in FOUR:
        assert charges(federation, name) == once(LONG)
    check_receipts(federation, progress)


def dies_at(place, *, written):
    """Return what to do at each publishing: die at one of them, before or after it is written."""
    seen = []

    def act(progress, publish):
        seen.append(progress)
        if len(seen) != place:
            return publish()
        if written:
            publish()
        raise Crash

    return act


def crashing(federation, act, grid=None):
    """Run a study whose coordinator dies while it publishes."""
    with pytest.MonkeyPatch.context() as patch:
        publishing(patch, act)
        with pytest.raises(Crash):
            federation.run(grid)


# Of each place before or after the writing in turn; the other one with the slow tests.
@pytest.mark.parametrize(
    ("place", "written"),
    [
        pytest.param(place, written, marks=[pytest.mark.slow] if place % 2 == written else [])
        for place in range(1, 8)
        for written in (False, True)
    ],
)
def test_a_coordinator_that_dies_between_two_published_states_goes_on(begin, place, written):
    federation = begin("spare")
    with Ears().listening() as ears:
        crashing(federation, dies_at(place, written=written))
        ears.sums.clear()  # a sum may be opened again: it is the same, or charged anew
        progress = federation.run()
    ears.check()
    assert (progress.round, progress.step) == (1, 2)
    assert set(progress.histograms) == {1}
    for name in FOUR:
        assert {step for step, _ in charges(federation, name)} == {step for step, _ in once(PLAN)}
        assert len(charges(federation, name)) <= len(once(PLAN)) + 1
    check_receipts(federation, progress)


@pytest.mark.parametrize(
    "place", [pytest.param(place, marks=[pytest.mark.slow] if place % 2 == 0 else []) for place in range(3, 62, 5)]
)
def test_a_coordinator_that_dies_in_the_middle_of_a_step_goes_on(begin, place):
    federation, seen = begin("spare"), []

    def dies(what):
        seen.append(what)
        if len(seen) == place:
            raise Crash

    with Ears().listening() as ears:
        with pytest.raises(Crash):
            federation.run(show=dies)
        ears.sums.clear()
        progress = federation.run()
    ears.check()
    assert (progress.round, progress.step) == (1, 2)
    for name in FOUR:
        assert len(charges(federation, name)) <= len(once(PLAN)) + 1
    check_receipts(federation, progress)


@pytest.mark.parametrize("label", ["short", "spare"])
def test_a_study_that_lost_a_partner_and_then_its_coordinator_goes_on_with_the_others(begin, label):
    federation = begin(label)

    def act(progress, publish):
        publish()
        if progress.step == 1:
            raise Crash

    with Ears().listening() as ears:
        crashing(federation, act, SilentGrid(federation, {("damson", "train", 1)}))
        progress = federation.run()
    ears.check()
    assert (progress.round, progress.step) == (1, 2)
    assert set(progress.histograms) == {1}


def test_a_finished_study_costs_nothing_more_when_it_is_run_again(begin):
    federation = begin("short")
    first = federation.run()
    ledgers = {name: federation.reservations(name) for name in FOUR}
    again = federation.run()
    assert all(np.array_equal(a, b) for a, b in zip(first.weights, again.weights, strict=True))
    assert again.receipts == first.receipts
    assert {name: federation.reservations(name) for name in FOUR} == ledgers
