"""Alternating least squares from sums against least squares by numpy, with all data in one place."""

import itertools

import numpy as np
import pytest

from coterie.models.histories import Histories
from coterie.models.ranking import ranks, sampled_hits
from coterie.models.recommenders import ials
from coterie.models.recommenders.ials import SWEEP, advance, ials_scores, initial, sum_size, vectors
from coterie.models.recommenders.popularity import kept_items, popularity_scores
from coterie.models.recommenders.settings import Recommender


def settings(**changes):
    return Recommender(**{"family": "ials", "items": 60, "keep": 40, "dimension": 5, "ridge": 0.003, **changes})


def histories(lists):
    starts = np.cumsum([0, *map(len, lists)])
    items = np.concatenate([*lists, np.zeros(0, np.int64)]).astype(np.int64)
    return Histories(starts, items, np.arange(len(items)))


def tastes(customers=400, items=60, groups=4, seed=1):
    """Customers who mostly take items of their own group, popular ones more."""
    draw = np.random.default_rng(seed)
    lists = []
    for customer in range(customers):
        own = np.where(np.arange(items) % groups == customer % groups, 20, 1)
        chances = own / (3 + np.arange(items) // groups)
        # A draw without replacement ends with the unlikely ones: the order in time is another.
        drawn = draw.choice(items, draw.integers(4, 12), replace=False, p=chances / chances.sum())
        lists.append(draw.permutation(drawn))
    return histories(lists)


def counted(whole, items=60):
    """Popularity without noise."""
    owners = np.repeat(np.arange(len(whole)), whole.lengths)
    counts = np.bincount(whole.items, weights=1 / np.sqrt(whole.lengths[owners]), minlength=items)
    return (counts / len(whole)).astype(np.float32)


def rows(whole, index, items=60):
    """Ones where a customer has a kept item."""
    ones = np.zeros((len(whole), items))
    ones[np.repeat(np.arange(len(whole)), whole.lengths), whole.items] = 1
    return ones[:, index]


def triangle(vector):
    upper = np.triu_indices(len(vector))
    return np.outer(vector, vector)[upper] * np.where(upper[0] == upper[1], 1, np.sqrt(2))


def central_customers(ones, factors):
    """Every customer's weighted least squares, one by one."""
    found = []
    for row in ones:
        weight = SWEEP.unobserved + row
        left = (factors.T * weight) @ factors + SWEEP.ridge * weight.sum() * np.eye(factors.shape[1])
        found.append(np.linalg.solve(left, factors.T @ row))
    return np.array(found)


def lengths_of(own, ones):
    """What each customer's part is divided by, to be of unit length."""
    square = np.square(own).sum(axis=1)
    count = ones.sum(axis=1)
    return np.sqrt(count * (SWEEP.curvature**2 * square**2 + square) + SWEEP.whole**2 * square**2)


def central_items(ones, own, weights, ridge):
    """Every item's weighted least squares, one by one."""
    found = []
    for column in ones.T:
        each = weights * (SWEEP.unobserved + column)
        left = (own.T * each) @ own / len(own) + ridge * np.eye(own.shape[1])
        found.append(np.linalg.solve(left, own.T @ (weights * column) / len(own)))
    return np.array(found)


def summed(ones, own, weights):
    """What partners' sums add up to, over all customers, without noise."""
    products = np.array([triangle(one) for one in own]) * weights[:, None]
    parts = (
        SWEEP.curvature * (ones.T @ products),
        ones.T @ (own * weights[:, None]),
        SWEEP.whole * products.sum(axis=0),
    )
    return np.concatenate([part.ravel() for part in parts]) / len(own)


# --- least squares --------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [False, True])
def test_sweeps_from_sums_are_sweeps_with_all_data_in_one_place(clip):
    one, whole = settings(), tastes()
    popularity = counted(whole)
    ones = rows(whole, kept_items(popularity, one)[0])
    federated = central = initial(one)
    for _ in range(4):
        own = central_customers(ones, central.astype(float))
        weights = 1 / lengths_of(own, ones) if clip else np.ones(len(own))
        central = central_items(ones, own, weights, one.ridge).astype(np.float32)
        mine = vectors(one, (popularity, federated), whole)
        scale = 1 / lengths_of(mine, ones) if clip else np.ones(len(mine))
        federated = advance(one, federated, summed(ones, mine, scale), noise=0.0, customers=len(whole))
    assert federated.shape == (40, 5)
    assert np.abs(federated - central).max() <= 1e-6 * np.abs(central).max()  # factors are kept in float32


def test_one_sweep_s_solution_is_right_to_the_last_digits(monkeypatch):
    one, whole = settings(), tastes()
    popularity, start = counted(whole), initial(settings())
    ones = rows(whole, kept_items(popularity, one)[0])
    own = central_customers(ones, start.astype(float))
    assert np.abs(vectors(one, (popularity, start), whole) - own).max() <= 1e-12 * np.abs(own).max()
    real = np.linalg.solve
    seen = []
    monkeypatch.setattr(np.linalg, "solve", lambda a, b: seen.append(real(a, b)) or seen[-1])
    advance(one, start, summed(ones, own, np.ones(len(own))), noise=0.0, customers=400)
    exact = seen[-1][:, :, 0]
    wanted = central_items(ones, own, np.ones(len(own)), one.ridge)
    assert np.abs(exact - wanted).max() <= 1e-12 * np.abs(wanted).max()


def test_sweeps_lower_the_loss_of_the_paper():
    one, whole = settings(ridge=0.05), tastes()
    popularity = counted(whole)
    ones = rows(whole, kept_items(popularity, one)[0])

    def loss(factors):
        own = central_customers(ones, factors.astype(float))
        predicted = own @ factors.astype(float).T
        fit = (ones * (1 - predicted) ** 2 + SWEEP.unobserved * predicted**2).sum()
        ridge = SWEEP.ridge * (SWEEP.unobserved * 40 + ones.sum(axis=1))
        return fit + (ridge * np.square(own).sum(axis=1)).sum() + one.ridge * len(own) * np.square(factors).sum()

    losses, factors = [], initial(one)
    for _ in range(5):
        losses.append(loss(factors))
        own = central_customers(ones, factors.astype(float))
        factors = advance(one, factors, summed(ones, own, np.ones(len(own))), noise=0.0, customers=len(own))
    assert all(later < earlier for earlier, later in itertools.pairwise(losses))


# --- noise ----------------------------------------------------------------------------------------------


def test_factors_from_noise_alone_are_finite_and_small():
    one, draw = settings(), np.random.default_rng(5)
    found = advance(one, initial(one), 0.05 * draw.normal(size=sum_size(one)), noise=0.05, customers=1e3)
    assert np.isfinite(found).all()
    # Without curvature there is the ridge, so nothing is greater than its right-hand side over it.
    assert np.linalg.norm(found, axis=1).max() <= 0.05 * 5 / one.ridge


@pytest.mark.parametrize("noise", [1e-4, 1e-2, 0.3])
def test_products_drawn_towards_their_share_are_nearer_to_the_truth_whatever_the_noise(noise):
    one, whole = settings(), tastes()
    ones = rows(whole, kept_items(counted(whole), one)[0])
    own = central_customers(ones, initial(one).astype(float))
    products = np.array([triangle(one) for one in own]) / lengths_of(own, ones)[:, None]
    true, all_ = ones.T @ products / 400, products.mean(axis=0)
    draw, apart = np.random.default_rng(6), []
    for _ in range(30):
        noisy = true + noise * draw.normal(size=true.shape)
        apart.append([np.square(of - true).sum() for of in (noisy, ials._drawn(noisy, all_, noise))])
    plain, drawn = np.mean(apart, axis=0)
    assert drawn < 1.001 * plain
    assert drawn < (0.5 if noise > 5e-3 else 1.001) * plain


def test_what_is_a_share_of_the_whole_is_found_though_the_noise_is_greater():
    draw = np.random.default_rng(8)
    whole = draw.normal(size=15)
    true = np.linspace(0.1, 0.9, 300)[:, None] * whole
    noise = 0.5 * np.linalg.norm(whole) / 15**0.5 * 2
    found = ials._drawn(true + noise * draw.normal(size=true.shape), whole, noise)
    assert np.square(found - true).sum() < 0.3 * 15 * 300 * noise**2
    assert np.square(found - true).sum() < 0.8 * np.square(true).sum()


def test_products_below_zero_are_taken_for_none():
    one, draw = settings(), np.random.default_rng(9)
    nothing = np.zeros(sum_size(one))
    nothing[40 * 15 : 40 * 20] = draw.normal(size=200)
    below = nothing.copy()
    below[: 40 * 15] = np.tile(-triangle(np.ones(5)) - 3 * triangle(np.eye(5)[2]), 40)
    below[40 * 20 :] = -triangle(np.arange(5.0))
    found, wanted = (advance(one, initial(one), mean, noise=0.0, customers=9) for mean in (below, nothing))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    np.testing.assert_allclose(wanted.ravel(), nothing[40 * 15 : 40 * 20] / one.ridge, rtol=1e-5)


def test_the_drawing_is_by_the_noise_that_is_said():
    one, whole = settings(), tastes()
    start, draw = initial(one), np.random.default_rng(7)
    ones = rows(whole, kept_items(counted(whole), one)[0])
    own = central_customers(ones, start.astype(float))
    mean = summed(ones, own, 1 / lengths_of(own, ones)) + 1e-3 * draw.normal(size=sum_size(one))
    none, little, much = (advance(one, start, mean, noise=said, customers=400) for said in (0.0, 1e-9, 1e3))
    np.testing.assert_allclose(little, none, rtol=1e-3, atol=1e-3)
    assert np.abs(much - none).max() > 0.1 * np.abs(none).max()


def test_a_mean_of_another_size_and_nobody_declared_are_refused():
    one = settings()
    for size, customers in ((sum_size(one) - 1, 10.0), (sum_size(one), 0.0)):
        with pytest.raises(ValueError, match="not of the recommender's size"):
            advance(one, initial(one), np.zeros(size), noise=0.1, customers=customers)


# --- scores ---------------------------------------------------------------------------------------------


def learned(one, whole, sweeps=4):
    popularity = counted(whole)
    ones = rows(whole, kept_items(popularity, one)[0])
    factors = initial(one)
    for _ in range(sweeps):
        own = vectors(one, (popularity, factors), whole)
        mean = summed(ones, own, 1 / np.maximum(lengths_of(own, ones), 1e-9))
        factors = advance(one, factors, mean, noise=0.0, customers=len(whole))
    return popularity, factors


def test_it_finds_what_popularity_does_not():
    one = settings()
    seen, held = tastes().without_last()
    weights = learned(one, seen)
    ours = sampled_hits(ranks(ials_scores(one, weights, seen), seen, held), 5, 20)
    theirs = sampled_hits(ranks(popularity_scores(one, weights, seen), seen, held), 5, 20)
    assert ours.mean() > theirs.mean() + 0.15


def test_scores_follow_the_products_of_vectors_and_the_rest_is_popularity():
    one, whole = settings(), tastes()
    weights = learned(one, whole)
    index, _ = kept_items(weights[0], one)
    found = ials_scores(one, weights, whole)
    others = np.setdiff1d(np.arange(60), index)
    popular = popularity_scores(one, weights, whole)
    assert found[:, others].tolist() == popular[:, others].tolist()
    predicted = vectors(one, weights, whole) @ weights[1].astype(float).T
    share = weights[0][index].astype(float) / weights[0].max()
    lifts = predicted / ((predicted @ share) / (share @ share))[:, None] / share
    wanted = popular[:, index] + ials._LIFT_POWER * np.log(np.clip(lifts, ials._LEAST_LIFT, ials._MOST_LIFT))
    np.testing.assert_allclose(found[:, index], wanted, atol=2e-4)


def test_a_customer_without_a_kept_item_gets_popularity():
    one, whole = settings(), tastes()
    weights = learned(one, whole)
    outside = np.setdiff1d(np.arange(60), kept_items(weights[0], one)[0])[:2]
    strangers = histories([[], outside, []])
    assert ials_scores(one, weights, strangers).tolist() == popularity_scores(one, weights, strangers).tolist()


def test_pieces_of_customers_have_the_scores_of_all():
    one, whole = settings(), tastes()
    weights = learned(one, whole)
    together = ials_scores(one, weights, whole)
    some = np.array([7, 3, 200, 399])
    np.testing.assert_allclose(ials_scores(one, weights, whole.of(some)), together[some], atol=1e-4)


def test_a_model_that_has_not_begun_is_no_error():
    one, whole = settings(), tastes(20)
    nothing = np.zeros(60, np.float32), np.zeros((40, 5), np.float32)
    assert np.isfinite(ials_scores(one, nothing, whole)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_factors_of_no_sense_are_no_error(value):
    one, whole = settings(), tastes(20)
    popularity = counted(whole)
    assert ials_scores(one, (popularity, np.full((40, 5), value, np.float32)), whole).shape == (20, 60)
