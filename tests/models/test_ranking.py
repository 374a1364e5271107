"""Ranks and metrics against whole enumerations, scipy's hypergeometric law, and scorers that know nothing."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import hypergeom

from coterie.models.histories import Histories
from coterie.models.ranking import (
    Ranks,
    averaged,
    gains,
    hits,
    joined,
    ranks,
    reciprocals,
    sampled_gains,
    sampled_hits,
    split_at_day,
    summary,
)
from coterie.models.recommenders.draws import negatives
from coterie.models.recommenders.settings import Recommender


def histories(*lists):
    starts = np.cumsum([0, *map(len, lists)])
    items = np.array([item for one in lists for item in one], dtype=np.int64)
    return Histories(starts, items, np.arange(len(items)))


def place(above, tied, others):
    return Ranks(*(np.array([value], dtype=np.int64) for value in (above, tied, others)))


# --- places ---------------------------------------------------------------------------------------------


def slow_rank(scores, seen, held):
    """One customer's above, tied and others, item by item."""
    candidates = [item for item in range(len(scores)) if item not in set(seen) and item != held]
    above = sum(scores[item] > scores[held] for item in candidates)
    return above, sum(scores[item] == scores[held] for item in candidates), len(candidates)


def test_places_are_counted_among_all_items_that_were_not_seen():
    draw = np.random.default_rng(1)
    lists = [draw.permutation(30)[: draw.integers(0, 29)] for _ in range(200)]
    scores = draw.integers(0, 6, (200, 30)).astype(np.float32)  # many ties
    scores[draw.random((200, 30)) < 0.1] = -np.inf
    held = draw.integers(-1, 30, 200)
    held[:20] = [one[0] if len(one) else 3 for one in lists[:20]]  # held out though it was seen before
    found = ranks(scores, histories(*lists), held)
    wanted = [slow_rank(scores[c], lists[c], held[c]) for c in range(200) if held[c] >= 0]
    assert np.stack([found.above, found.tied, found.others], axis=1).tolist() == [list(one) for one in wanted]


def test_pieces_of_customers_give_the_places_of_all():
    draw = np.random.default_rng(2)
    lists = [draw.permutation(20)[:5] for _ in range(23)]
    scores, held = draw.random((23, 20)).astype(np.float32), draw.integers(0, 20, 23)
    seen = histories(*lists)
    pieces = [np.arange(start, min(start + 7, 23)) for start in range(0, 23, 7)]
    whole = ranks(scores, seen, held)
    parts = joined(ranks(scores[some], seen.of(some), held[some]) for some in pieces)
    assert (parts.above == whole.above).all()
    assert (parts.others == whole.others).all()
    assert len(joined([])) == 0


def test_customers_without_a_held_out_item_are_left_out():
    before, held = histories([3], [], [1, 2]).without_last()
    assert held.tolist() == [3, -1, 2]
    assert len(ranks(np.zeros((3, 5), np.float32), before, held)) == 2


def test_what_does_not_belong_together_is_refused():
    seen = histories([0], [1])
    with pytest.raises(ValueError, match="belong together"):
        ranks(np.zeros((2, 3), np.float32), seen, np.array([1, 3]))
    with pytest.raises(ValueError, match="belong together"):
        ranks(np.zeros((1, 3), np.float32), seen, np.array([1]))


def test_scores_that_are_no_numbers_stand_last_and_gain_nothing():
    seen = histories([0], [0], [0])
    scores = np.array([[0, np.nan, 1, -np.inf], [0, 2, np.nan, 1], [np.nan] * 4], np.float32)
    found = ranks(scores, seen, np.array([1, 1, 1]))
    assert found.above.tolist() == [1, 0, 0]
    assert found.tied.tolist() == [1, 0, 2]


def test_places_show_nothing_of_themselves():
    assert repr(place(3, 1, 9)) == "Ranks(...)"


# --- metrics against enumeration ------------------------------------------------------------------------


def enumerated(above, tied, others, k, negatives):
    """HR and NDCG by every order of the ties and every sample of negatives."""
    hit = gain = count = 0
    for at in range(tied + 1):
        before = above + at
        for sample in itertools.combinations(range(others), min(negatives, others)):
            j = sum(one < before for one in sample)
            hit += j < k
            gain += 1 / math.log2(j + 2) if j < k else 0
            count += 1
    return hit / count, gain / count


@pytest.mark.parametrize("others", [0, 1, 2, 5, 9])
@pytest.mark.parametrize("negatives", [1, 3, 8, 12])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_sampled_metrics_are_the_mean_over_every_sample_and_every_order_of_the_ties(others, negatives, k):
    for above in range(others + 1):
        for tied in range(others + 1 - above):
            hit, gain = enumerated(above, tied, others, k, negatives)
            one = place(above, tied, others)
            assert sampled_hits(one, k, negatives)[0] == pytest.approx(hit, abs=1e-12)
            assert sampled_gains(one, k, negatives)[0] == pytest.approx(gain, abs=1e-12)


def test_customers_with_few_and_many_candidates_do_not_meet():
    cases = [
        (above, tied, others) for others in (0, 2, 7, 9) for above in range(others + 1) for tied in (0, others - above)
    ]
    together = Ranks(*(np.array(one) for one in zip(*cases, strict=True)))
    wanted = [enumerated(*one, 3, 5)[0] for one in cases]
    np.testing.assert_allclose(sampled_hits(together, 3, 5), wanted, atol=1e-12)


def test_full_metrics_are_the_mean_over_every_order_of_the_ties():
    for above, tied in itertools.product(range(15), range(15)):
        one, orders = place(above, tied, 40), range(above, above + tied + 1)
        assert hits(one, 10)[0] == pytest.approx(np.mean([r < 10 for r in orders]))
        assert gains(one, 10)[0] == pytest.approx(np.mean([(r < 10) / math.log2(r + 2) for r in orders]))
        assert reciprocals(one)[0] == pytest.approx(np.mean([1 / (r + 1) for r in orders]))


@pytest.mark.parametrize("items", [120, 1_682, 50_000, 1_000_000])
def test_sampled_hits_are_scipy_s_hypergeometric_law_at_any_size(items):
    draw = np.random.default_rng(items)
    above = np.unique(np.concatenate([[0, 9, 10, items - 1], draw.integers(0, items, 60)]))
    alone = Ranks(above, np.zeros_like(above), np.full_like(above, items - 1))
    wanted = hypergeom.cdf(9, items - 1, above, 99)
    np.testing.assert_allclose(sampled_hits(alone, 10), wanted, atol=1e-9)
    some = above[:5]
    tied = np.minimum(items - 1 - some, 37)
    wanted = [hypergeom.cdf(9, items - 1, np.arange(a, a + t + 1), 99).mean() for a, t in zip(some, tied, strict=True)]
    np.testing.assert_allclose(sampled_hits(Ranks(some, tied, np.full_like(some, items - 1)), 10), wanted, atol=1e-8)


def test_scores_that_are_all_equal_get_what_chance_gets():
    found = summary(ranks(np.zeros((40, 200), np.float32), histories(*[[c] for c in range(40)]), np.full(40, 150)))
    assert found["hr@10"] == pytest.approx(10 / 199)
    assert found["hr@10 of 99"] == pytest.approx(0.1)
    assert found["mrr"] == pytest.approx(sum(1 / r for r in range(1, 200)) / 199)


def test_a_catalogue_of_one_item_and_nobody_at_all_are_no_error():
    assert summary(ranks(np.zeros((1, 1), np.float32), histories([]), np.array([0])))["hr@10 of 99"] == 1.0
    assert math.isnan(summary(joined([]))["hr@10"])


# --- splits ---------------------------------------------------------------------------------------------


def test_a_day_splits_every_history_at_the_same_time():
    whole = Histories(np.array([0, 3, 3, 5]), np.array([7, 8, 9, 4, 5]), np.array([1, 5, 9, 6, 7]))
    before, after = split_at_day(whole, 6)
    assert (before.starts.tolist(), before.items.tolist()) == ([0, 2, 2, 2], [7, 8])
    assert (after.starts.tolist(), after.items.tolist(), after.days.tolist()) == ([0, 1, 1, 3], [9, 4, 5], [9, 6, 7])


def test_recall_of_several_held_out_items_is_the_share_that_is_found():
    scores = -np.arange(40, dtype=np.float32)[None].repeat(2, axis=0)
    seen, held = histories([0], []), histories([1, 12, 3], [10])
    rows = np.repeat(np.arange(2), held.lengths)
    found = hits(ranks(scores[rows], seen.of(rows), held.items), 10)
    assert averaged(found, held.lengths) == pytest.approx([2 / 3, 0])


# --- the leak of the held-out item through training negatives -------------------------------------------

CUSTOMERS, ITEMS, STEPS, DRAWN = 300, 400, 100, 128


def purchases():
    """Histories by a popularity that falls off, without any structure beyond it."""
    draw = np.random.default_rng(5)
    chances = 1 / (10 + np.arange(ITEMS))
    chances /= chances.sum()
    return histories(*(draw.choice(ITEMS, 25, replace=False, p=chances) for _ in range(CUSTOMERS)))


def blind_scores(sampler):
    """Minus how often an item was drawn as a negative: a scorer without any information."""
    scores = np.zeros((CUSTOMERS, ITEMS), np.float32)
    for step in range(STEPS):
        for customer in range(CUSTOMERS):
            np.subtract.at(scores[customer], sampler(step, customer), 1)
    return scores


def test_a_scorer_without_information_gets_a_tenth_under_our_sampler_and_evaluator():
    seen, held = purchases().without_last()
    public = Recommender(family="mf-bpr", items=ITEMS, negatives=DRAWN)
    drawn = [negatives(public, step) for step in range(STEPS)]
    found = sampled_hits(ranks(blind_scores(lambda step, customer: drawn[step]), seen, held), 10)
    error = found.std() / CUSTOMERS**0.5
    assert abs(found.mean() - 0.10) < 4 * error < 0.08
    assert found.mean() <= 0.15


def test_negatives_that_leave_the_held_out_item_out_would_be_seen_by_our_evaluator():
    whole = purchases()
    seen, held = whole.without_last()
    draw = np.random.default_rng(3)
    never = [np.setdiff1d(np.arange(ITEMS), whole.of(np.array([c])).items) for c in range(CUSTOMERS)]
    leaky = blind_scores(lambda step, customer: draw.choice(never[customer], 100))
    found = summary(ranks(leaky, seen, held))
    assert found["hr@10 of 99"] > 0.95
    assert found["hr@10"] > 0.9
