"""What customers add to a recommender's sums: by itself, and bounded, whatever weights the coordinator chose."""

import warnings

import numpy as np
import pytest

from coterie.clients.agreed import check_sum
from coterie.clients.recommendersums import Asked, rank_histogram, recommender_total
from coterie.clients.task import SumTask, initial_weights, recommender_of
from coterie.models.rankcounts import rank_bins
from coterie.models.recommenders import family
from coterie.privacy.plan import RECOMMENDERS, SECURE, TRAINED
from coterie.privacy.randomness import Stream
from coterie.privacy.secagg.numbers import Numbers
from coterie.privacy.terms import PERSON
from coterie.tests.clients.recommending import ATTRIBUTES, ITEMS, histories, one_of_each, recommends, rows_of, told

UNITS = 2**14
NUMBERS = Numbers(bits=64, sensitivity=UNITS, bound=2**40, share=0)
LISTS = list(told(rows_of("amber", 24)).values())
EVERYTHING = list(range(ITEMS))
HARSH = ("start", "greatest", "below zero", "tiny", "mixed", "turned")


def harsh(kind, plan):
    """Weights that a coordinator may send: the right shapes, float32, and nothing beyond a million."""
    draw = np.random.default_rng(len(kind))
    start = initial_weights(plan)
    if kind == "start":
        return start
    if kind == "mixed":
        sizes = [1e6, 1e3, 1.0, 1e-20, 1e-38, 1e-44, 0.0]
        made = [draw.choice([-1, 1], a.shape) * draw.choice(sizes, a.shape) for a in start]
    elif kind == "turned":
        made = [
            draw.standard_normal(a.shape) * np.where(np.arange(a.shape[0]) % 2, 1e6, -1e-30)[:, None]
            for a in (one.reshape(one.shape[0], -1) for one in start)
        ]
    else:
        made = [np.full(a.shape, {"greatest": 1e6, "below zero": -1e6, "tiny": 1e-44}[kind]) for a in start]
    return tuple(value.reshape(array.shape).astype(np.float32) for value, array in zip(made, start, strict=True))


def total(plan, lists, kind="start", step="train/1", seed=b"sample"):
    asked = Asked(plan, harsh(kind, plan), ATTRIBUTES)
    return recommender_total(asked, step, histories(lists), numbers=NUMBERS, stream=Stream(seed.ljust(32)))


def plan_of(name, **changes):
    return recommends(name, training__sample_rate=1.0, **changes)


# --- sums ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HARSH)
@pytest.mark.parametrize("name", RECOMMENDERS)
def test_a_customer_moves_a_sum_by_its_own_vector_alone_and_no_farther_than_the_sensitivity(name, kind):
    plan = plan_of(name)
    everybody = [*LISTS[:9], EVERYTHING[:8]]
    whole = total(plan, everybody, kind)
    for place in (0, len(everybody) - 1):
        without, alone = everybody[:place] + everybody[place + 1 :], total(plan, [everybody[place]], kind)
        assert np.array_equal(whole - total(plan, without, kind), alone)
        assert sum(int(units) ** 2 for units in alone) <= UNITS**2


@pytest.mark.parametrize("name", [name for name in RECOMMENDERS if name not in TRAINED])
def test_a_customer_s_vector_is_as_long_as_it_may_be_so_that_no_noise_is_wasted(name):
    plan = plan_of(name)
    for items in LISTS[:5]:
        if len(set(items) & set(range(12))) > 1:  # with the public start, the first twelve items are modelled
            assert np.linalg.norm(total(plan, [items])) > 0.98 * UNITS


@pytest.mark.parametrize("name", [name for name in RECOMMENDERS if name != "popularity"])
def test_a_count_is_one_of_items_whatever_the_model_is(name):
    plan = plan_of(name)
    found = [total(plan, LISTS, kind, step="count/1") for kind in HARSH]
    assert all(np.array_equal(one, found[0]) for one in found)
    # Every customer rounds each of its items once, after at most a hundredth was taken off for it.
    assert np.abs(found[0] / UNITS - one_of_each(LISTS)).max() < 0.002
    assert np.array_equal(found[0], total(plan_of("popularity"), LISTS))


@pytest.mark.parametrize("kind", ["start", "mixed"])
@pytest.mark.parametrize("name", RECOMMENDERS)
def test_a_person_at_three_partners_moves_their_sums_together_by_no_more_than_the_sensitivity(name, kind):
    plan = plan_of(name, trust=SECURE, privacy__unit=PERSON, privacy__partners_per_person=3, privacy__threshold=3)
    for step in ("count/1", "train/1") if name != "popularity" else ("train/1",):
        parts = [total(plan, [items], kind, step) for items in (LISTS[2], LISTS[2], EVERYTHING[:8])]
        assert sum(int(units) ** 2 for units in sum(parts)) <= UNITS**2
        assert all(sum(int(units) ** 2 for units in part) <= (UNITS // 3) ** 2 for part in parts)


@pytest.mark.parametrize("name", TRAINED)
def test_only_the_customers_of_a_poisson_sample_are_in_a_step(name):
    plan = recommends(name, training__sample_rate=0.3)
    chosen = np.flatnonzero(Stream(b"sample".ljust(32)).uniforms(len(LISTS)) < 0.3)
    assert 0 < len(chosen) < len(LISTS) / 2
    assert np.array_equal(total(plan, LISTS), total(plan_of(name), [LISTS[place] for place in chosen]))


def test_steps_draw_other_negatives_and_one_step_the_same_again():
    plan = plan_of("mf-softmax")
    weights = family.initial(recommender_of(plan))
    assert weights[0].shape == (ITEMS,)
    first, again, second = (total(plan, LISTS, "mixed", step) for step in ("train/1", "train/1", "train/2"))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)


# --- held-out ranks -----------------------------------------------------------------------------------------------


def ranked(plan, lists, weights, coins):
    """The histogram with given coins: 1 for the model."""

    class Coins:
        def uniforms(self, count):
            assert count == len(lists)
            return np.where(coins, 0.25, 0.75)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return rank_histogram(Asked(plan, weights, ATTRIBUTES), histories(lists), stream=Coins())


def place_of(scores, items, held):
    """The worse middle of a held-out item's ties among all items that were not seen before."""
    others = [score for item, score in enumerate(scores) if item not in items and item != held]
    above, tied = sum(s > scores[held] for s in others), sum(s == scores[held] for s in others)
    return 1 + above + (tied + 1) // 2


def test_ranks_by_popularity_are_those_that_plain_python_finds():
    plan, popularity = recommends("popularity"), np.round(np.sin(np.arange(ITEMS)) + 1.2, 1).astype(np.float32)
    counts = ranked(plan, LISTS, (popularity,), np.zeros(len(LISTS), dtype=bool))
    edges = rank_bins(ITEMS, plan.metrics.bins)
    expected = np.zeros(plan.metrics.bins, dtype=int)
    for *seen, held in LISTS:
        place = place_of(popularity.tolist(), seen, held)
        expected[next(b for b in range(len(edges) - 1) if place < edges[b + 1])] += 1
    assert counts[0].tolist() == expected.tolist()
    assert not counts[1].any()
    assert counts.sum() == len(LISTS)


def test_the_coins_are_the_stream_s_and_each_customer_is_counted_under_one_ranking():
    plan = recommends("item-gram")
    counts = rank_histogram(Asked(plan, initial_weights(plan), ATTRIBUTES), histories(LISTS), stream=Stream(bytes(32)))
    coins = Stream(bytes(32)).uniforms(len(LISTS)) < 0.5
    assert counts.sum(axis=1).tolist() == [int((~coins).sum()), int(coins.sum())]


def test_customers_with_one_item_or_none_are_not_ranked():
    plan = recommends("item-gram")
    assert not ranked(plan, [[], [3], [5]], initial_weights(plan), np.ones(3, dtype=bool)).any()


@pytest.mark.parametrize(("kind", "content"), [*((kind, 0.0) for kind in HARSH), ("mixed", 3.0)])
@pytest.mark.parametrize("name", RECOMMENDERS)
def test_a_held_out_customer_more_changes_one_count_by_one_whatever_the_weights_are(name, kind, content):
    plan = recommends(name, recommendation__content=content)
    weights, coins = harsh(kind, plan), np.arange(len(LISTS)) % 3 > 0
    whole = ranked(plan, LISTS, weights, coins)
    assert whole.sum() == len(LISTS)
    for place in (0, 5, len(LISTS) - 1):
        others = np.arange(len(LISTS)) != place
        without = ranked(plan, [one for one, kept in zip(LISTS, others, strict=True) if kept], weights, coins[others])
        difference = (whole - without).ravel()
        assert np.abs(difference).sum() == 1
        assert difference.sum() == 1


def without_numbers():
    """Weights of item-gram that a partner works with, under which some customers' scores are no numbers."""
    plan = recommends("item-gram")
    settings, draw, seen = recommender_of(plan), np.random.default_rng(0), histories(one[:-1] for one in LISTS)
    while True:
        sizes = [1e6, 1e3, 1.0, 1e-20, 1e-38, 1e-44, 0.0]
        weights = tuple(
            (draw.choice([-1, 1], shape) * draw.choice(sizes, shape)).astype(np.float32)
            for shape in family.shapes(settings)
        )
        one_by_one = (seen.of(np.array([customer])) for customer in range(len(seen)))
        score = family.scorer(settings, weights, ATTRIBUTES)
        bad = np.array([np.isnan(score(customer)).any() for customer in one_by_one])
        if bad.any() and not bad.all():
            return plan, weights


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_scores_that_are_no_numbers_are_last_places_and_no_failure_that_would_tell_of_a_customer():
    plan, weights = without_numbers()
    check_sum(SumTask(plan.digest(), "evaluate/1", 1, weights, 1, ("amber",), ()), plan)  # nobody refuses them
    counts = ranked(plan, LISTS, weights, np.ones(len(LISTS), dtype=bool))
    assert counts.sum() == len(LISTS)
