"""Fairness by group against the customers themselves, and its intervals against simulation."""

import numpy as np
import pytest

from coterie.models.fairness import by_group, review, whole
from coterie.models.metrics import bin_edges
from coterie.tests.models.noisyscores import binned, drawn, population

NAMES = ("a", "b", "c")
HOW = ({"mean": -1.0}, {"mean": -2.0, "slope": 0.7}, {"mean": -1.5, "shift": 0.6})
FIGURES = ("auc", "calibration", "selected", "reached")


def customers(count=4000):
    """Scores at the middles of bins, so that nothing is lost in them, and labels, by group."""
    groups = []
    middles = np.linspace(-6.0, 6.0, 49)[1::2]
    for seed, how in enumerate(HOW):
        logits, labels = drawn(count, seed, **how)
        groups.append((middles[np.searchsorted(bin_edges(24), logits, side="right")], labels))
    return groups


def stacked(groups):
    return np.concatenate([binned(logits, labels) for logits, labels in groups])


def exact(logits, labels, threshold):
    """The figures, pair by pair and customer by customer."""
    positives, negatives = logits[labels == 1][:, None], logits[labels == 0][None, :]
    return {
        "auc": float(np.mean((positives > negatives) + 0.5 * (positives == negatives))),
        "calibration": float(np.mean(labels - 1 / (1 + np.exp(-logits)))),
        "selected": float(np.mean(logits >= threshold)),
        "reached": float(np.mean(logits[labels == 1] >= threshold)),
    }


def test_figures_without_noise_are_those_of_the_customers():
    groups = customers()
    found = review(stacked(groups), NAMES, threshold=-0.5, noise=0.0)
    assert [one.name for one in found.groups] == list(NAMES)
    for one, (logits, labels) in zip(found.groups, groups, strict=True):
        assert one.customers == 4000
        for name, value in exact(logits, labels, -0.5).items():
            assert getattr(one, name).value == pytest.approx(value, abs=1e-12)


def test_gaps_are_between_the_greatest_and_the_least():
    groups = customers()
    found = review(stacked(groups), NAMES, threshold=-0.5, noise=0.0)
    assert [gap.figure for gap in found.gaps] == list(FIGURES)
    for gap in found.gaps:
        values = {name: exact(*group, -0.5)[gap.figure] for name, group in zip(NAMES, groups, strict=True)}
        assert gap.most == max(values, key=values.get)
        assert gap.least == min(values, key=values.get)
        assert gap.gap.value == pytest.approx(max(values.values()) - min(values.values()))


@pytest.mark.parametrize("noise", [0.0, 5.0, 15.0])
def test_intervals_hold_the_truth_as_often_as_they_say(noise):
    shares, rng = population(), np.random.default_rng(3)
    (truth,) = review(shares * 1e9, ["all"], threshold=-0.5, noise=0.0).groups
    found = [
        review(rng.poisson(shares * 6000) + rng.normal(0, noise, shares.shape), ["all"], threshold=-0.5, noise=noise)
        for _ in range(400)
    ]
    for name in FIGURES:
        told, true = [getattr(one.groups[0], name) for one in found], getattr(truth, name).value
        # Of 400 intervals of 95 %, 352 or fewer, or all of them, have odds below one in a million.
        assert 0.88 < np.mean([one.low <= true <= one.high for one in told]) < 1
        errors = np.array([one.error for one in told])
        assert np.std([one.value for one in told]) == pytest.approx(errors.mean(), rel=0.2)


def test_where_groups_are_alike_no_gap_is_claimed_too_often():
    shares, rng = population(), np.random.default_rng(4)
    names, claimed = [f"group {at}" for at in range(5)], dict.fromkeys(FIGURES, 0)
    for _ in range(200):
        counts = np.concatenate([rng.poisson(shares * 3000) + rng.normal(0, 6, shares.shape) for _ in names])
        for gap in review(counts, names, threshold=-0.5, noise=6.0).gaps:
            claimed[gap.figure] += gap.gap.low > 0
    # At 5 % each, more than 29 of 200 have odds below one in a million.
    assert max(claimed.values()) <= 29


@pytest.mark.parametrize(("size", "noise"), [(9, 0.0), (60, 6.0), (0, 0.0), (0, 6.0)])
def test_a_group_of_too_few_has_no_figures(size, noise):
    big, few = binned(*drawn(5000, 5)), binned(*drawn(size, 6)) if size else np.zeros((2, 24))
    found = review(np.concatenate([big, few]), ["big", "few"], threshold=0.0, noise=noise)
    first, second = found.groups
    assert first.auc is not None
    assert [getattr(second, name) for name in FIGURES] == [None] * 4
    assert found.gaps == ()


def test_a_group_of_few_conversions_is_told_of_without_them():
    counts = np.zeros((2, 24))
    counts[0, 4:12] = 200
    counts[1, 10] = 12
    (one,) = review(counts, ["a"], threshold=0.0, noise=2.0).groups
    assert one.auc is None
    assert one.reached is None
    assert one.selected is not None
    assert one.calibration is not None


def test_noise_below_zero_shows_no_customers_below_zero():
    (one,) = review(np.full((2, 24), -2.0), ["a"], threshold=0.0, noise=5.0).groups
    assert one.customers == 0
    assert one.auc is None


def test_a_histogram_by_group_is_cut_and_joined():
    histogram = np.arange(24).reshape(6, 4)
    groups = by_group(histogram, 3)
    assert groups.shape == (3, 2, 4)
    assert groups[1].tolist() == [[8, 9, 10, 11], [12, 13, 14, 15]]  # group 1: label 0, then label 1
    assert whole(histogram).tolist() == [[24, 27, 30, 33], [36, 39, 42, 45]]
    assert whole(histogram[:2]).tolist() == histogram[:2].tolist()
    assert whole(histogram).dtype == histogram.dtype


@pytest.mark.parametrize(("shape", "groups"), [((6, 4), 2), ((5, 4), 2), ((2, 4), 0), ((2, 2, 4), 2), ((4,), 1)])
def test_a_histogram_of_another_shape_is_refused(shape, groups):
    with pytest.raises(ValueError, match=r"shape \(2 \* groups, bins\)"):
        by_group(np.zeros(shape), groups)


@pytest.mark.parametrize("shape", [(0, 4), (3, 4)])
def test_a_whole_of_half_a_group_is_refused(shape):
    with pytest.raises(ValueError, match=r"shape \(2 \* groups, bins\)"):
        whole(np.zeros(shape))


@pytest.mark.parametrize(("threshold", "noise"), [(np.inf, 0.0), (np.nan, 0.0), (0.0, -1.0), (0.0, np.nan)])
def test_a_threshold_or_noise_that_cannot_be_is_refused(threshold, noise):
    with pytest.raises(ValueError, match=r"must be finite|must be in \[0, infinity\)"):
        review(np.zeros((2, 24)), ["a"], threshold=threshold, noise=noise)
