"""What a report says to do with a model: made of the last charged histogram, with the noise that was in it."""

import json
import math

import numpy as np
import pytest

from coterie.clients.measuring import noisy_histogram
from coterie.models.metrics import exact_counts, lift_curve
from coterie.privacy.calibration import calibrate
from coterie.privacy.randomness import SeededSource
from coterie.server.aggregate import AdamState
from coterie.server.registry import Progress
from coterie.simulations.decided import decided
from coterie.simulations.releases import released
from coterie.tests.clients.federation import NAMES, REGIONS, study
from coterie.tests.models.noisyscores import binned, drawn

BINS = 24


def progress_of(plan, histograms, receipts=()):
    return Progress(plan.digest(), 2, (), AdamState.start(()), histograms, receipts=tuple(receipts))


def noised(plan, exact, source):
    """Every partner's part of a histogram with the noise that the plan has it add."""
    sigma = calibrate(plan).histogram.sigma
    parts = [exact // len(NAMES)] * (len(NAMES) - 1)
    parts.append(exact - sum(parts))
    return {
        name: noisy_histogram(part.astype(np.int64), sigma, source.stream(name))
        for name, part in zip(NAMES, parts, strict=True)
    }


@pytest.fixture
def local():
    return study(metrics__bins=BINS, metrics__rounds=(2,))


def test_decisions_are_those_of_the_customers_within_their_intervals(local):
    logits, labels = drawn(30_000, 1, mean=-1.0)
    found = decided(local, progress_of(local, {2: noised(local, binned(logits, labels), SeededSource(b"1"))}))
    lifts = dict(lift_curve(exact_counts(logits, labels)))
    budgets = {one["share"]: one for one in found["decisions"]["budgets"]}
    for share in (0.1, 0.2, 0.3, 0.5):
        one = budgets[share]
        assert one["lift"]["low"] <= lifts[share] <= one["lift"]["high"]
        assert np.mean(1 / (1 + np.exp(-logits)) >= one["threshold"]["value"]) == pytest.approx(share, abs=0.01)
        assert one["calibrated"] == pytest.approx(one["threshold"]["value"], abs=0.05)  # the scores are right
    fitted = found["calibration_fit"]
    assert fitted["kind"] == "platt"
    assert abs(fitted["slope"] - 1) < 5 * fitted["slope_error"]
    assert [one["ratio"] for one in found["decisions"]["profits"]] == [5, 10, 20, 50]
    assert "fairness" not in found


def test_only_the_last_histogram_is_read(local):
    plan = study(metrics__bins=BINS, metrics__rounds=(1, 2))
    last = noised(plan, binned(*drawn(20_000, 2)), SeededSource(b"2"))
    other = noised(plan, binned(*drawn(20_000, 3, mean=1.0)), SeededSource(b"3"))
    assert decided(plan, progress_of(plan, {1: other, 2: last})) == decided(plan, progress_of(plan, {2: last}))
    # A round whose histograms nobody sent is none.
    assert decided(plan, progress_of(plan, {1: last, 2: {}})) == decided(plan, progress_of(plan, {1: last}))


def test_without_a_histogram_nothing_is_said(local):
    assert decided(local, progress_of(local, {})) == {}
    assert decided(local, progress_of(local, {2: {}})) == {}


def test_what_is_lost_in_the_noise_is_valid_json_without_figures(local):
    lost = noised(local, np.zeros((2, BINS)), SeededSource(b"4"))
    found = decided(local, progress_of(local, {2: lost}))
    json.dumps(found, allow_nan=False)
    assert found["calibration_fit"]["kind"] == "none"
    assert found["calibration_fit"]["slope"] is None
    assert (found["decisions"]["budgets"], found["decisions"]["profits"], found["decisions"]["reach"]) == ([], [], [])


def test_a_report_has_all_of_it(local):
    progress = progress_of(local, {2: noised(local, binned(*drawn(20_000, 5)), SeededSource(b"5"))})
    found = json.loads(json.dumps(released(local, progress), allow_nan=False))
    assert {"rounds", "calibration", "lift", "refusals", "calibration_fit", "decisions"} == set(found)


def test_groups_are_reviewed_where_the_plan_counts_them():
    plan = study(metrics__bins=BINS, metrics__rounds=(2,), metrics__groups="region")
    means = (-1.0, -1.6, -2.2)
    groups = [drawn(15_000, 6 + at, mean=mean) for at, mean in enumerate(means)]
    exact = np.concatenate([*(binned(*one) for one in groups), np.zeros((2, BINS))])
    found = decided(plan, progress_of(plan, {2: noised(plan, exact, SeededSource(b"6"))}))["fairness"]
    assert [one["group"] for one in found["groups"]] == [*REGIONS, "not stated"]
    threshold = math.log(found["threshold"] / (1 - found["threshold"]))
    for one, (logits, labels) in zip(found["groups"], groups, strict=False):
        assert one["selected"]["value"] == pytest.approx(np.mean(logits >= threshold), abs=0.02)
        assert one["reached"]["value"] == pytest.approx(np.mean(logits[labels == 1] >= threshold), abs=0.04)
        assert one["calibration"]["low"] <= 0.01
        assert one["calibration"]["high"] >= -0.01
    assert found["groups"][-1]["auc"] is None
    assert found["selected"] == 0.1
    widest = next(one for one in found["gaps"] if one["figure"] == "selected")
    assert (widest["most"], widest["least"]) == (REGIONS[0], REGIONS[2])
    assert widest["low"] > 0


def test_the_noise_of_everybody_is_that_of_all_groups():
    plan = study(metrics__bins=BINS, metrics__rounds=(2,), metrics__groups="region")
    exact = np.concatenate([binned(*drawn(9_000, 9))] * 4)
    found = decided(plan, progress_of(plan, {2: noised(plan, exact, SeededSource(b"7"))}))
    assert found["decisions"]["noise"] == pytest.approx(2 * found["fairness"]["noise"])  # of four groups
