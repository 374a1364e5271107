"""A partner's own sums of a recommender: what they are made of, what is charged first, and what never leaves twice."""

import dataclasses
import shutil

import numpy as np
import pytest
from scipy import stats

from coterie.clients import ownsums, parts, work
from coterie.clients.door import ERROR_CODE
from coterie.clients.refusals import TaskRefused
from coterie.clients.sumwire import encode_sum
from coterie.clients.wire import decode_release
from coterie.privacy.calibration import HOLDOUT, TRAINING, calibrate
from coterie.privacy.errors import PlanFault
from coterie.privacy.plan import SECURE, Recommendation
from coterie.privacy.release import ConsentGiven, PartnerSum, Refused, ScoreHistogram, release_digest
from coterie.privacy.signed import sign
from coterie.privacy.sums import numbers_of
from coterie.tests.clients.federation import changed
from coterie.tests.clients.recommending import (
    CODES,
    FIRST_DAY,
    ITEMS,
    Recommending,
    one_of_each,
    recommends,
    rows_of,
    table_of,
    without_noise,
)
from coterie.tests.clients.summing import FOUR, quick_folder

PLAN = recommends("item-gram")
PLANS = {
    "plain": PLAN,
    "spare": changed(PLAN, training__spare=1),
    "secure": recommends("item-gram", "secure-aggregation"),
}
STEPS = ("count/1", "train/1", "evaluate/1")
RARE = 1e-6  # how often a right law may be called wrong, on either side


@pytest.fixture(scope="module")
def made():
    with quick_folder() as folder:
        yield {label: Recommending(folder / label, plan).consent() for label, plan in PLANS.items()}


@pytest.fixture
def begin(made):
    copies = []

    def copy(label="plain"):
        template = made[label]
        copies.append(template.copied(template.root.with_name(f"copy-{len(copies)}")))
        return copies[-1]

    yield copy
    for one in copies:
        shutil.rmtree(one.root)


def refused(code, ask, *args, **kwargs):
    with pytest.raises(TaskRefused) as caught:
        ask(*args, **kwargs)
    assert caught.value.code == code
    return caught.value.faults


def chi2_limits(count):
    return stats.chi2(count).ppf([RARE, 1 - RARE])


def square_limits(sigma, count):
    """Between which the sum of ``count`` squared discrete Gaussians lies, from their law itself.

    A histogram's noise is below one here, where squares are far from those of a Gaussian on the line.
    """
    reach = int(20 * sigma) + 2
    one = np.zeros(reach**2 + 1)
    for value in range(-reach, reach + 1):
        one[value**2] += np.exp(-(value**2) / (2 * sigma**2))
    law = np.fft.irfft(np.fft.rfft(one / one.sum(), count * reach**2 + 1) ** count, count * reach**2 + 1)
    below = law.cumsum()
    return np.searchsorted(below, RARE) - 1, np.searchsorted(below, 1 - RARE) + 1


def charges(federation, name="amber"):
    return [(r.charge.step, r.charge.attempt, r.charge.group) for r in federation.reservations(name)]


# --- what leaves --------------------------------------------------------------------------------------------------


def test_without_its_noise_a_count_is_that_of_the_training_customers_and_of_nobody_held_out(begin, monkeypatch):
    federation = begin()
    training, held_out = federation.lists()
    without_noise(monkeypatch)
    (total,) = federation.answer("count/1").arrays
    units = numbers_of(federation.plan, "count/1").sensitivity
    assert np.abs(total / units - one_of_each(training)).max() < 1e-4
    assert np.abs(total / units - one_of_each(held_out)).max() > 1


def test_without_its_noise_a_histogram_counts_every_held_out_customer_once(begin, monkeypatch):
    federation = begin()
    _, held_out = federation.lists()
    without_noise(monkeypatch)
    release = federation.answer("evaluate/1")
    assert isinstance(release, ScoreHistogram)
    assert release.arrays[0].shape == (2, 8)
    assert release.arrays[0].sum() == len(held_out) > 3


@pytest.mark.parametrize("step", STEPS)
def test_the_noise_is_that_of_the_charged_event_and_of_its_law(begin, monkeypatch, step):
    federation = begin()
    made = calibrate(federation.plan)
    with monkeypatch.context() as patch:
        without_noise(patch)
        quiet = begin()
        plain = [quiet.answer(step, name=name).arrays[0] for name in FOUR]
    loud = [federation.answer(step, name=name).arrays[0] for name in FOUR]
    noise = np.concatenate([(one - two).ravel() for one, two in zip(loud, plain, strict=True)])
    event = {"count/1": made.counting, "train/1": made.update, "evaluate/1": made.histogram}[step]
    assert federation.reservations()[0].charge.event == event
    if step == "evaluate/1":
        scale = event.sigma
    else:
        numbers = numbers_of(federation.plan, step)
        scale = numbers.share
        # What a Gaussian on the line with the charged noise would have, and the randomised rounding beside it.
        assert scale**2 - 36 >= (event.noise_multiplier * numbers.sensitivity) ** 2
        assert event.noise_multiplier * numbers.sensitivity > 0.999 * scale
    squares = float((noise.astype(float) ** 2).sum())
    low, high = square_limits(scale, len(noise)) if step == "evaluate/1" else scale**2 * chi2_limits(len(noise))
    assert low < squares < high
    assert len(set(noise.tolist())) > (len(noise) * 0.95 if step != "evaluate/1" else 2)


def test_partners_steps_and_attempts_have_noise_of_their_own(begin, monkeypatch):
    federation = begin()
    monkeypatch.setattr(parts, "recommender_total", lambda *_args, **_more: np.zeros(ITEMS, dtype=np.int64))
    totals = [federation.answer(step, name=name).arrays[0] for name in ("amber", "birch") for step in STEPS[:2]]
    for place, one in enumerate(totals):
        for other in totals[place + 1 :]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.9  # equal noise has 1; by chance once in 10^8


def test_what_leaves_is_a_whole_number_for_every_item_and_the_event_is_not_told(begin):
    federation = begin()
    grid = federation.grid()
    reply = federation.ask(grid, "train", encode_sum(federation.asked()))
    made = calibrate(federation.plan)
    release = decode_release(reply.content, update=made.counting, histogram=made.histogram)
    assert isinstance(release, PartnerSum)
    assert (release.arrays[0].dtype, release.arrays[0].shape) == (np.int64, (ITEMS,))
    assert set(release.header) == {"plan", "partner", "step", "attempt", "model"}
    assert federation.reservations()[0].settled == release_digest(release)


# --- what is charged ----------------------------------------------------------------------------------------------


def test_each_sum_is_charged_to_the_group_that_it_is_about_with_its_own_event(begin):
    federation = begin()
    for step in STEPS:
        federation.answer(step)
    assert charges(federation) == [("count/1", 1, TRAINING), ("train/1", 1, TRAINING), ("evaluate/1", 1, HOLDOUT)]
    made = calibrate(federation.plan)
    events = [r.charge.event for r in federation.reservations()]
    assert events == [made.counting, made.update, made.histogram]
    assert federation.kinds() == ["consent", *["reserve", "settle"] * 3]


def test_an_answered_question_gets_the_same_bytes_and_no_second_charge(begin):
    federation = begin()
    first = federation.answer("count/1")
    assert release_digest(federation.answer("count/1")) == release_digest(first)
    assert len(charges(federation)) == 1


def test_a_count_is_not_answered_again_about_another_model(begin):
    federation = begin()
    federation.answer("count/1")
    refused("replay", federation.answer, "count/1", weights=federation.weights(0.5))
    assert len(charges(federation)) == 1


@pytest.mark.parametrize("step", STEPS)
def test_a_partner_that_was_killed_between_charging_and_settling_has_lost_the_attempt(begin, monkeypatch, step):
    federation = begin("spare")

    def killed(*_args, **_more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(parts, "rank_histogram" if step == "evaluate/1" else "recommender_total", killed)
        with pytest.raises(KeyboardInterrupt):
            federation.answer(step)
    assert federation.kinds()[-1] == "reserve"
    refused("lost", federation.answer, step)
    assert federation.kinds()[-1] == "lost"
    release = federation.answer(step, attempt=2)
    assert release.attempt == 2
    assert [(s, attempt) for s, attempt, _ in charges(federation)] == [(step, 1), (step, 2)]
    refused("lost", federation.answer, step)
    refused("task", federation.answer, step, attempt=3)


def test_a_second_attempt_has_other_noise_than_the_first(begin, monkeypatch):
    plain, kept = begin("spare"), []
    first = plain.answer("count/1").arrays[0]
    federation = begin("spare")
    real = ownsums.discrete_gaussians

    def cut(*args):
        kept.append(real(*args))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ownsums, "discrete_gaussians", cut)
        with pytest.raises(KeyboardInterrupt):
            federation.answer("count/1")
    second = federation.answer("count/1", attempt=2).arrays[0]
    with monkeypatch.context() as patch:
        without_noise(patch)
        total = begin("spare").answer("count/1").arrays[0]
    assert np.array_equal(first - total, kept[0])  # the seeded source of tests: the first attempt's noise, once more
    assert not np.array_equal(second - total, kept[0])


def test_a_second_attempt_is_for_one_that_was_lost_alone(begin):
    federation = begin("spare")
    refused("task", federation.answer, "count/1", attempt=2)  # the first was not lost
    federation.answer("count/1")
    refused("task", federation.answer, "count/1", attempt=2)
    assert len(charges(federation)) == 1


@pytest.mark.parametrize(
    "step", ["count/2", "count/0", "count/01", "count/", "count", "train/2", "train/0", "evaluate/2", "propose/1"]
)
def test_sums_that_the_plan_does_not_have_are_refused_before_anything(begin, step):
    federation = begin()
    refused("task", federation.answer, step)
    assert federation.kinds() == ["consent"]


def test_updates_and_secure_sums_are_not_asked_of_a_plan_of_own_sums_nor_the_other_way_round(begin):
    federation, secure = begin(), begin("secure")
    refused("task", federation.train)
    refused("task", federation.measure)
    refused("task", federation.keys)
    with secure.node() as node:
        refused("task", node._own_sums.add, secure.asked())
    for one in (federation, secure):
        assert one.kinds() == ["consent"]


@pytest.mark.parametrize("harm", ["nan", "infinite", "beyond", "short", "type", "fewer"])
def test_weights_that_are_none_of_the_model_are_refused_before_anything(begin, harm):
    federation = begin()
    popularity, *rest = federation.weights()
    first = {
        "nan": np.full_like(popularity, np.nan),
        "infinite": np.full_like(popularity, np.inf),
        "beyond": np.full_like(popularity, 1.1e6),
        "short": popularity[:-1],
        "type": popularity.astype(np.float64),
        "fewer": popularity,
    }[harm]
    weights = (first, *rest) if harm != "fewer" else (first,)
    refused("task", federation.answer, "train/1", weights=weights)
    assert federation.kinds() == ["consent"]


def test_a_partner_whose_noise_of_today_is_less_than_was_charged_refuses(begin, monkeypatch):
    federation = begin()
    made = calibrate(federation.plan)
    less = dataclasses.replace(made.counting, noise_multiplier=made.counting.noise_multiplier / 2)
    monkeypatch.setattr(ownsums, "calibrate", lambda _: dataclasses.replace(made, counting=less))
    refused("fault", federation.answer, "count/1")
    assert federation.kinds() == ["consent"]


def test_the_budget_is_asked_before_the_table_is_opened(begin, monkeypatch):
    federation = begin()
    federation.policy(budget__lifetime_epsilon=0.01, budget__study_epsilon=8.0)
    monkeypatch.setattr(work, "open_histories", lambda *_args, **_more: pytest.fail("the table was opened"))
    refused("budget", federation.answer, "count/1")
    assert federation.kinds() == ["consent"]


@pytest.mark.parametrize("trust", ["local", SECURE])
def test_a_share_for_counts_that_no_event_can_say_is_refused_and_leaves_the_ledger_whole(begin, trust):
    federation = begin("plain" if trust == "local" else "secure")
    before = federation.kinds()
    poor = Recommendation(counts=1e-9, keep=12, rank=4)
    plan = changed(federation.plan, recommendation=poor, name="poor")
    with pytest.raises(PlanFault, match="too little"):
        calibrate(plan)
    answer = federation.propose(signed=sign(plan, federation.coordinator).to_bytes())
    assert isinstance(answer, Refused)
    assert federation.kinds() == [*before, "refusal"]
    assert isinstance(federation.propose(), ConsentGiven)


# --- what depends on rows -----------------------------------------------------------------------------------------

FEW = table_of(rows_of("amber", 8))
BROKEN = {
    "too few customers": FEW,
    "a day from the future": table_of([*rows_of("amber"), ("x", CODES[0], FIRST_DAY.replace(year=2032))]),
    "no known item": table_of([("x", "unheard-of", FIRST_DAY)]),
    "no customer": table_of([*rows_of("amber"), (None, CODES[0], FIRST_DAY)]),
    "no column": table_of(rows_of("amber")).drop_columns(["item"]),
    "nothing": table_of(rows_of("amber"))[:0],
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", BROKEN)
def test_whatever_is_wrong_with_a_table_leaves_as_one_word_and_is_not_charged(begin, name, step):
    federation = begin()
    federation.put(BROKEN[name])
    grid = federation.grid()
    federation.ask_plan(grid)
    for _ in range(2):  # the second time the approval is gone, and the word is the same
        reply = federation.ask(
            grid, "evaluate" if step == "evaluate/1" else "train", encode_sum(federation.asked(step))
        )
        assert (reply.error.code, reply.error.reason) == (ERROR_CODE["unavailable"], "unavailable")
    assert federation.kinds() == ["consent", "refusal"]
    assert federation.report()


def test_the_exact_reason_stays_with_the_operator(begin):
    federation = begin()
    federation.put(BROKEN["too few customers"])
    faults = refused("unavailable", federation.answer, "count/1")
    assert "fewer training customers" in str(faults)
    assert "fewer training customers" in federation.report()


def test_a_catalogue_that_is_gone_is_said_before_the_table_is_opened(begin, monkeypatch):
    federation = begin()
    federation.workspace().catalogue(federation.plan.catalogue.digest).unlink()
    monkeypatch.setattr(work, "open_histories", lambda *_args, **_more: pytest.fail("the table was opened"))
    refused("no-consent", federation.answer, "count/1")


def test_what_a_contract_lets_pass_is_written_down_for_the_operator_alone(begin):
    federation = begin()
    federation.answer("count/1")
    (record,) = federation.kept().values()
    assert record.counts["rows of items that the catalogue does not know"] > 0
    assert [entry.body["rows"] for entry in federation.entries() if entry.kind == "reserve"] == [record.commitment]


def test_rows_put_in_another_order_change_no_bit_of_a_sum(begin, monkeypatch):
    without_noise(monkeypatch)
    federation, other = begin(), begin()
    other.put(table_of(sorted(rows_of("amber"), key=str)))
    for step in STEPS[:2]:
        assert np.array_equal(federation.answer(step).arrays[0], other.answer(step).arrays[0])


def test_a_customer_more_at_one_partner_moves_its_sum_by_no_more_than_the_sensitivity(begin, monkeypatch):
    without_noise(monkeypatch)
    more = [(f"new-{n}", CODES[item], FIRST_DAY) for n in range(4) for item in range(n, n + 6)]
    weights = begin().weights(0.3)
    for step in STEPS[:2]:
        federation, other = begin(), begin()
        other.put(table_of([*rows_of("amber"), *more[:6]]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("coterie.clients.interactions.is_held_out", lambda _key, _name: False)
            one, two = (f.answer(step, weights=weights).arrays[0] for f in (federation, other))
        moved = sum(int(unit) ** 2 for unit in two - one)
        assert 0.9 < moved / numbers_of(PLAN, step).sensitivity ** 2 <= 1


def test_spare_attempts_are_declared_for_counts_and_for_steps_apart():
    for label, plan in PLANS.items():
        mechanisms = calibrate(plan)
        spare = 1 if label == "spare" else 0
        assert (mechanisms.countings, mechanisms.updates) == (1 + spare, 1 + spare)
        assert len(mechanisms.events(TRAINING)) == mechanisms.countings + mechanisms.updates
