"""The record of a propensity study carries its private calibration: of the last histogram, for everybody."""

import numpy as np
import pytest
from scipy import optimize

from coterie.privacy.canonical import canonical
from coterie.privacy.identity import Identity
from coterie.privacy.record import StudyRecord, read_record, sign_record
from coterie.server.aggregate import AdamState
from coterie.server.noises import histogram_noise
from coterie.server.recording import record_of
from coterie.server.registry import Progress
from coterie.tests.clients.federation import NAMES, study
from coterie.tests.models.noisyscores import binned, drawn

BINS = 24
PLAN = study(metrics__bins=BINS, metrics__rounds=(1, 2))
GROUPED = study(metrics__bins=BINS, metrics__rounds=(1, 2), metrics__groups="region")


def record(plan, histograms):
    return record_of(plan, Progress(plan.digest(), 2, (), AdamState.start(()), histograms))


def parts(histogram, seed):
    """A histogram in three parts, each with rounded noise that leaves counts below 0."""
    draw = np.random.default_rng(seed)
    noisy = [histogram / 3 + draw.normal(0, 3, histogram.shape) for _ in NAMES]
    return {name: np.rint(part).astype(np.int64) for name, part in zip(NAMES, noisy, strict=True)}


def by_hand(histogram):
    """The slope and intercept of least log loss at Platt's targets (Lin, Lin and Weng 2007, equation 1)."""
    middles = np.array([-6 + 12 * (place + 0.5) / BINS for place in range(BINS)])
    negatives, positives = histogram.astype(float)
    high, low = (positives.sum() + 1) / (positives.sum() + 2), 1 / (negatives.sum() + 2)

    def loss(at):
        odds = at[0] * middles + at[1]
        right, wrong = np.logaddexp(0, -odds), np.logaddexp(0, odds)
        return positives @ (high * right + (1 - high) * wrong) + negatives @ (low * right + (1 - low) * wrong)

    found = optimize.minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-8})
    return {"slope": found.x[0], "intercept": found.x[1]}


def test_the_record_has_the_calibration_of_the_last_counts_as_they_were_released():
    first, last = parts(binned(*drawn(20_000, 1)), 1), parts(binned(*drawn(20_000, 2, slope=0.6, shift=-0.5)), 2)
    assert min(sum(last.values()).ravel()) < 0
    found = record(PLAN, {1: first, 2: last})
    assert found.calibration == pytest.approx(by_hand(sum(last.values())), abs=1e-5)
    assert found.calibration["slope"] == pytest.approx(0.6, abs=0.1)
    assert {"auc", "calibration_error", "calibration_slope", "calibration_intercept"} <= set(found.metrics)
    assert all(type(value) is float for value in found.metrics.values())
    # A round that nobody answered is none.
    assert record(PLAN, {1: first, 2: {}}).calibration == pytest.approx(by_hand(sum(first.values())), abs=1e-5)


def test_groups_are_calibrated_together():
    of_groups = [binned(*drawn(6_000, seed, mean=mean)) for seed, mean in ((3, -1.0), (4, -2.0), (5, -1.5), (6, -1.5))]
    released = parts(np.concatenate(of_groups), 7)
    whole = sum(released.values()).reshape(4, 2, BINS).sum(axis=0)
    assert record(GROUPED, {2: released}).calibration == pytest.approx(by_hand(whole), abs=1e-5)


def test_the_noise_of_every_group_counts_when_customers_are_few():
    """Four groups have twice the noise of one: as many customers are enough without groups and lost with them."""
    one = {name: np.zeros((2, BINS), np.int64) for name in NAMES}
    four = {name: np.zeros((8, BINS), np.int64) for name in NAMES}
    noise = histogram_noise(PLAN, Progress(PLAN.digest(), 2, (), AdamState.start(()), {2: one}), 2)
    # A label's total is believed from 4 standard deviations of its noise on, over all bins.
    total = 1.5 * 4 * np.sqrt(BINS) * noise
    counts = np.rint(binned(*drawn(50_000, 8, mean=0.0)) / 50_000 * 2 * total).astype(np.int64)
    one["amber"], four["amber"] = counts, np.concatenate([counts, np.zeros((6, BINS), np.int64)])
    assert record(PLAN, {2: one}).calibration
    assert record(GROUPED, {2: four}).calibration == {}


def test_what_is_lost_in_the_noise_is_left_out():
    lost = record(PLAN, {2: parts(np.zeros((2, BINS)), 9)})
    assert not {"calibration_slope", "calibration_intercept"} & set(lost.metrics)
    assert lost.calibration == {}
    assert record(PLAN, {}).metrics == {}


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ({"calibration_slope": 0.75, "calibration_intercept": -0.1}, {"slope": 0.75, "intercept": -0.1}),
        ({"calibration_slope": 0.0, "calibration_intercept": 0.0}, {"slope": 0.0, "intercept": 0.0}),
        ({"calibration_slope": 0.75}, {}),
        ({"calibration_intercept": 0.1}, {}),
        ({"auc": 0.8}, {}),
    ],
)
def test_a_record_that_was_sent_says_the_same(metrics, told):
    """Records of before have no such figures, and half a calibration is none."""
    coordinator = Identity.create()
    sent = sign_record(StudyRecord("sha256:0", "sha256:1", metrics, ()), coordinator)
    found = read_record(sent, coordinator=coordinator.public).calibration
    assert canonical(found) == canonical(told)
    assert all(type(value) is float for value in found.values())
