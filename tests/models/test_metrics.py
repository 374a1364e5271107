"""Metrics against their definitions, written out here pair by pair and row by row."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.models.metrics import (
    Counts,
    bin_edges,
    binned_counts,
    calibration,
    exact_counts,
    lift_curve,
    log_loss,
    summary,
)

NAMES = ("auc", "average_precision", "top_decile_lift", "calibration_error")

scored = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


def arrays(rows):
    return np.array([float(score) for score, _ in rows]), np.array([float(label) for _, label in rows])


def sample(count, seed=0, base=-1.0):
    """Return distinct logits and labels drawn from them, so that the model is calibrated."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(base, 1.5, count)
    return logits, (rng.random(count) < 1 / (1 + np.exp(-logits))).astype(float)


def histogram(logits, labels, bins):
    place = np.searchsorted(bin_edges(bins), logits, side="right")
    return np.stack([np.bincount(place[labels == label], minlength=bins) for label in (0, 1)]).astype(float)


# --- definitions ----------------------------------------------------------------------------------------


def auc_by_pairs(logits, labels):
    pairs = [(p, n) for p in logits[labels == 1] for n in logits[labels == 0]]
    return sum((p > n) + (p == n) / 2 for p, n in pairs) / len(pairs)


def average_precision_by_thresholds(logits, labels):
    total, before = 0.0, 0.0
    for threshold in sorted(set(logits), reverse=True):
        taken = logits >= threshold
        recall = labels[taken].sum() / labels.sum()
        total += labels[taken].mean() * (recall - before)
        before = recall
    return total


@given(scored)
@settings(max_examples=150, deadline=None)
def test_auc_is_the_chance_that_a_positive_outscores_a_negative(rows):
    logits, labels = arrays(rows)
    assert summary(exact_counts(logits, labels))["auc"] == pytest.approx(auc_by_pairs(logits, labels), abs=1e-12)


@given(scored)
@settings(max_examples=150, deadline=None)
def test_average_precision_is_precision_summed_over_recall(rows):
    logits, labels = arrays(rows)
    exact = average_precision_by_thresholds(logits, labels)
    assert summary(exact_counts(logits, labels))["average_precision"] == pytest.approx(exact, abs=1e-12)


def test_lift_is_the_rate_among_the_best_over_the_rate_of_all():
    logits, labels = sample(200)
    best_first = labels[np.argsort(-logits)]
    curve = lift_curve(exact_counts(logits, labels))
    assert [depth for depth, _ in curve] == pytest.approx([0.1 * k for k in range(1, 11)])
    for depth, lift in curve:
        assert lift == pytest.approx(best_first[: round(depth * 200)].mean() / labels.mean())
    assert summary(exact_counts(logits, labels))["top_decile_lift"] == curve[0][1]
    assert curve[-1][1] == pytest.approx(1.0)


def test_lift_shares_out_customers_of_equal_score():
    logits = np.array([2.0, 1.0, 1.0, 1.0, 0.0])
    labels = np.array([0.0, 1.0, 0.0, 1.0, 0.0])
    orders = [order for order in itertools.permutations(range(5)) if (np.diff(logits[list(order)]) <= 0).all()]
    for depth, lift in lift_curve(exact_counts(logits, labels)):
        if (5 * depth) % 1 < 1e-9:
            top = [labels[list(order)][: round(5 * depth)].mean() for order in orders]
            assert lift == pytest.approx(np.mean(top) / labels.mean())


def test_calibration_compares_prediction_and_rate_in_tenths_of_the_customers():
    logits, labels = sample(300, seed=3)
    logits = 2 * logits + 0.5  # a model that is too sure
    order = np.argsort(logits)
    tenths = np.split(order, 10)
    points = calibration(exact_counts(logits, labels))
    predicted = 1 / (1 + np.exp(-logits))
    for (guess, rate, share), rows in zip(points, tenths, strict=True):
        assert guess == pytest.approx(predicted[rows].mean())
        assert rate == pytest.approx(labels[rows].mean())
        assert share == pytest.approx(0.1)
    error = np.mean([abs(predicted[rows].mean() - labels[rows].mean()) for rows in tenths])
    assert summary(exact_counts(logits, labels))["calibration_error"] == pytest.approx(error)


@given(scored)
@settings(max_examples=50, deadline=None)
def test_log_loss_is_the_mean_surprise(rows):
    logits, labels = arrays(rows)
    p = 1 / (1 + np.exp(-logits))
    surprise = -np.log(np.where(labels == 1, p, 1 - p))
    assert log_loss(logits, labels) == pytest.approx(surprise.mean(), rel=1e-9)
    assert np.isfinite(log_loss(logits * 1e6, labels))


@given(scored, st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_a_weight_counts_as_that_many_equal_rows(rows, seed):
    logits, labels = arrays(rows)
    times = np.random.default_rng(seed).integers(1, 5, len(rows))
    weighted = exact_counts(logits, labels, times.astype(float))
    repeated = exact_counts(np.repeat(logits, times), np.repeat(labels, times))
    for one, other in zip(
        (weighted.negatives, weighted.positives, weighted.predicted),
        (repeated.negatives, repeated.positives, repeated.predicted),
        strict=True,
    ):
        np.testing.assert_allclose(one, other)
    assert log_loss(logits, labels, times.astype(float)) == pytest.approx(
        log_loss(np.repeat(logits, times), np.repeat(labels, times))
    )


@given(scored)
@settings(max_examples=50, deadline=None)
def test_ranking_metrics_do_not_depend_on_the_scale_of_the_score(rows):
    logits, labels = arrays(rows)
    plain, stretched = (summary(exact_counts(scores, labels)) for scores in (logits, np.exp(logits)))
    for name in ("auc", "average_precision", "top_decile_lift"):
        assert plain[name] == pytest.approx(stretched[name])


def test_perfect_useless_and_inverted_scores_have_their_known_metrics():
    labels = np.repeat([0.0, 1.0], 50)
    perfect = summary(exact_counts(np.arange(100.0), labels))
    assert (perfect["auc"], perfect["average_precision"], perfect["top_decile_lift"]) == pytest.approx((1, 1, 2))
    assert summary(exact_counts(-np.arange(100.0), labels))["auc"] == 0.0
    useless = summary(exact_counts(np.zeros(100), labels))
    assert (useless["auc"], useless["average_precision"], useless["top_decile_lift"]) == pytest.approx((0.5, 0.5, 1))
    assert useless["calibration_error"] == pytest.approx(0.0)


# --- histograms -----------------------------------------------------------------------------------------


def test_edges_are_even_in_log_odds_and_open_outside():
    edges = bin_edges(24)
    assert len(edges) == 23
    np.testing.assert_allclose(np.diff(edges), 0.5)
    np.testing.assert_allclose(edges, -edges[::-1], atol=1e-12)
    assert edges[0] == pytest.approx(-5.5)


def test_a_bin_stands_for_the_log_odds_at_its_middle():
    counts = binned_counts(np.ones((2, 4)))
    np.testing.assert_allclose(counts.predicted, 1 / (1 + np.exp([4.5, 1.5, -1.5, -4.5])))
    # A score at the middle of a bin is put into that bin.
    for bins in (4, 24, 200):
        middles = np.log(binned_counts(np.ones((2, bins))).predicted)
        middles -= np.log1p(-np.exp(middles))
        assert np.searchsorted(bin_edges(bins), middles, side="right").tolist() == list(range(bins))


def test_binned_metrics_approach_the_exact_ones_as_bins_grow_narrow():
    logits, labels = sample(20_000, seed=5)
    exact = summary(exact_counts(logits, labels))
    gaps = {}
    for bins in (6, 24, 200):
        binned = summary(binned_counts(histogram(logits, labels, bins)))
        gaps[bins] = {name: abs(binned[name] - exact[name]) for name in NAMES}
    for name in NAMES:
        assert gaps[200][name] < 0.01 * max(1.0, exact[name])
        assert gaps[200][name] <= gaps[6][name]
    assert gaps[24]["auc"] < 0.01
    assert gaps[200]["auc"] < gaps[24]["auc"] < gaps[6]["auc"]


def test_scores_that_share_a_bin_are_ties():
    logits, labels = sample(500, seed=6)
    place = np.searchsorted(bin_edges(12), logits, side="right").astype(float)
    assert summary(binned_counts(histogram(logits, labels, 12)))["auc"] == pytest.approx(auc_by_pairs(place, labels))


# --- noise ----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-30, 60), min_size=4, max_size=20).filter(lambda row: sum(row) > 0))
@settings(max_examples=150, deadline=None)
def test_noisy_counts_become_the_nearest_counts_that_keep_their_total(row):
    noisy = np.array(row, dtype=float)
    clean = binned_counts(np.stack([noisy, noisy[::-1]])).negatives
    assert (clean >= 0).all()
    assert clean.sum() == pytest.approx(noisy.sum())
    # The conditions of Karush, Kuhn and Tucker: one shift for what is left, and no less for what is 0.
    shift = (noisy - clean)[clean > 1e-9]
    assert np.ptp(shift) < 1e-9
    assert (noisy[clean <= 1e-9] <= shift.mean() + 1e-9).all()


def test_counts_without_noise_are_left_as_they_are():
    exact = histogram(*sample(1000), 24)
    counts = binned_counts(exact)
    np.testing.assert_allclose(counts.negatives, exact[0], atol=1e-9)
    np.testing.assert_allclose(counts.positives, exact[1], atol=1e-9)


def test_labels_are_put_right_each_by_itself():
    noisy = np.array([[-3.0, 10, 5, 0], [4.0, -1, 2, 7]])
    counts, swapped = binned_counts(noisy), binned_counts(noisy[::-1])
    np.testing.assert_allclose(counts.negatives, swapped.positives)
    assert counts.negatives.sum() == pytest.approx(12)
    assert counts.positives.sum() == pytest.approx(12)


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=4, max_size=30))
@settings(max_examples=150, deadline=None)
def test_whatever_the_noise_metrics_stay_in_their_ranges_or_are_none(columns):
    noisy = np.array(columns).T
    found = summary(binned_counts(noisy))
    assert tuple(found) == NAMES
    if (noisy.sum(axis=1) <= 0).any():
        assert set(found.values()) == {None}
        return
    eps = 1e-9
    assert -eps <= found["auc"] <= 1 + eps
    assert 0 < found["average_precision"] <= 1 + eps
    assert -eps <= found["top_decile_lift"] <= 10 + eps
    assert -eps <= found["calibration_error"] <= 1 + eps


def test_noise_as_a_release_has_it_hardly_moves_the_auc_of_many_customers():
    logits, labels = sample(20_000, seed=8)
    clean = histogram(logits, labels, 24)
    rng = np.random.default_rng(9)
    found = [summary(binned_counts(clean + rng.normal(0, 5.28, clean.shape).round()))["auc"] for _ in range(50)]
    assert abs(np.mean(found) - summary(binned_counts(clean))["auc"]) < 0.005


# --- what is not defined --------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_alone_has_no_metrics(label):
    logits = np.arange(10.0)
    found = summary(exact_counts(logits, np.full(10, label)))
    assert found == dict.fromkeys(NAMES)
    one_sided = np.zeros((2, 6))
    one_sided[int(label)] = 5
    assert summary(binned_counts(one_sided)) == dict.fromkeys(NAMES)


def test_nobody_has_no_metrics():
    nobody = Counts(np.zeros(4), np.zeros(4), np.full(4, 0.5))
    assert summary(nobody) == dict.fromkeys(NAMES)
    assert lift_curve(nobody) == []
    assert calibration(nobody) == []
    assert summary(binned_counts(np.full((2, 6), -3.0))) == dict.fromkeys(NAMES)


def test_no_positives_have_no_lift_but_a_calibration():
    negatives = exact_counts(np.arange(10.0), np.zeros(10))
    assert lift_curve(negatives) == []
    assert [rate for _, rate, _ in calibration(negatives)] == [0.0] * 10
