"""Metrics from binned places: the exact value lies in the bracket, and noise moves it as much as is said."""

import numpy as np
import pytest

from coterie.models.rankcounts import metrics_from_rank_counts, rank_bins, rank_counts
from coterie.models.ranking import Ranks, summary

NAMES = ("hr@10", "hr@20", "ndcg@10", "mrr", "hr@10 of 99")


def places(customers, items, longest, seed):
    """Places that crowd at the top, among candidates that differ by customer."""
    draw = np.random.default_rng(seed)
    others = items - 1 - draw.integers(0, longest + 1, customers)
    above = np.minimum((others * draw.beta(0.4, 2.0, customers)).astype(np.int64), others)
    return Ranks(above, np.zeros_like(above), others)


def test_bins_end_where_lists_are_cut():
    edges = rank_bins(1_682, 32)
    assert len(edges) == 33
    assert (edges[0], edges[-1]) == (1, 1_683)
    assert {2, 6, 11, 21, 51, 101} <= set(edges.tolist())
    ratios = edges[1:] / edges[:-1]
    assert ratios[edges[:-1] > 20].max() < 1.6


@pytest.mark.parametrize(("items", "bins"), [(2, 2), (3, 32), (12, 2), (12, 4), (40, 10), (1_000_000, 64)])
def test_bins_part_all_places_without_a_gap(items, bins):
    edges = rank_bins(items, bins)
    assert (edges[0], edges[-1]) == (1, items + 1)
    assert (np.diff(edges) > 0).all()
    assert len(edges) - 1 == min(bins, items)


def test_few_bins_keep_the_cut_that_matters_most():
    assert rank_bins(500, 2).tolist() == [1, 11, 501]
    assert rank_bins(500, 3).tolist() == [1, 11, 21, 501]


def test_a_catalogue_or_a_number_of_bins_of_one_is_refused():
    for wrong in ((1, 5), (50, 1)):
        with pytest.raises(ValueError, match="at least 2"):
            rank_bins(*wrong)


def test_every_customer_is_counted_once_at_the_middle_of_its_ties():
    edges = rank_bins(30, 30)  # a bin for every place
    tied = Ranks(np.array([0, 4, 4, 29]), np.array([0, 1, 4, 0]), np.array([29, 29, 29, 29]))
    counts = rank_counts(tied, edges)
    assert np.flatnonzero(counts).tolist() == [0, 5, 6, 29]
    assert counts.sum() == 4


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bins", [8, 32])
def test_exact_metrics_lie_within_the_bracket_of_exact_counts(seed, bins):
    exact = places(2_000, 900, 60, seed)
    edges = rank_bins(900, bins)
    found = metrics_from_rank_counts(rank_counts(exact, edges), edges, longest=60)
    for name in NAMES:
        assert found[name].low - 1e-12 <= summary(exact)[name] <= found[name].high + 1e-12
        assert found[name].low <= found[name].value <= found[name].high
        assert found[name].error == 0
    for name in ("hr@10", "hr@20"):  # bins end there
        assert found[name].low == pytest.approx(found[name].high)
    if bins == 32:
        for name in ("ndcg@10", "mrr", "hr@10 of 99"):
            assert found[name].value == pytest.approx(summary(exact)[name], abs=0.02)


@pytest.mark.parametrize(("length", "end"), [(0, "high"), (60, "low")])
def test_the_bracket_of_sampled_hits_is_that_of_the_longest_and_of_no_history(length, end):
    above = np.random.default_rng(4).integers(0, 200, 500)
    exact = Ranks(above, np.zeros_like(above), np.full_like(above, 899 - length))
    edges = np.arange(1, 902)  # a bin for every place
    found = metrics_from_rank_counts(rank_counts(exact, edges), edges, longest=60)["hr@10 of 99"]
    assert getattr(found, end) == pytest.approx(summary(exact)["hr@10 of 99"])
    assert found.high - found.low > 0.005


def test_noise_moves_a_metric_as_much_as_its_error_says_and_to_no_side():
    exact, edges, noise = places(3_000, 900, 60, 1), rank_bins(900, 24), 40.0
    counts, draw = rank_counts(exact, edges), np.random.default_rng(7)
    assert (counts < 2 * noise).any()  # some noisy counts are below 0
    plain = metrics_from_rank_counts(counts, edges, longest=60)
    noisy = [
        metrics_from_rank_counts(
            counts + np.rint(noise * draw.normal(size=len(counts))).astype(np.int64), edges, longest=60, noise=noise
        )
        for _ in range(400)
    ]
    for name in NAMES:
        values = np.array([one[name].value for one in noisy])
        said = np.mean([one[name].error for one in noisy])
        assert values.std() == pytest.approx(said, rel=0.25)
        assert abs(values.mean() - plain[name].value) < 4 * values.std() / 400**0.5 + 0.1 * said


def test_counts_of_noise_alone_say_nothing():
    draw, edges = np.random.default_rng(8), rank_bins(900, 24)
    for _ in range(50):
        counts = np.rint(30 * draw.normal(size=24)).astype(np.int64)
        found = metrics_from_rank_counts(counts, edges, longest=60, noise=30.0)
        assert found is None or all(0 <= one.low <= one.value <= one.high <= 1 for one in found.values())
    assert metrics_from_rank_counts(-np.ones(24, np.int64), edges, longest=60) is None
    assert metrics_from_rank_counts(np.full(24, 10), edges, longest=60, noise=30.0) is None
