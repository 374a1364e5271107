"""Item-Gram against dense ridge regression, against planted signals in noise, and against popularity."""

import numpy as np
import pytest

from coterie.models.histories import Histories
from coterie.models.recommenders.gram import denoised, fit_gram, gram_scores, symmetric
from coterie.models.recommenders.popularity import kept_items, popularity_scores, smoothed
from coterie.models.recommenders.settings import Recommender

ITEMS, GROUPS, CUSTOMERS = 60, 4, 1500


def settings(**changes):
    plain = {"family": "item-gram", "items": ITEMS, "keep": 50, "rank": 16, "exponent": 0.25, "ridge": 0.01}
    return Recommender(**{**plain, **changes})


def packed(histories):
    starts = np.cumsum([0, *(len(own) for own in histories)])
    flat = np.concatenate([np.asarray(own, dtype=np.int64) for own in histories])
    return Histories(starts, flat, np.zeros(len(flat), dtype=np.int64))


def shoppers(seed, customers=CUSTOMERS):
    """Return histories of customers who buy from one group of items most of the time, and popular items more."""
    draw = np.random.default_rng(seed)
    appeal = 1 / (1 + np.arange(ITEMS) // GROUPS)
    found = []
    for _ in range(customers):
        chance = appeal * np.where(np.arange(ITEMS) % GROUPS == draw.integers(GROUPS), 25.0, 1.0)
        found.append(draw.choice(ITEMS, 7, replace=False, p=chance / chance.sum()))
    return packed(found)


def rows(histories, width=ITEMS):
    matrix = np.zeros((len(histories), width))
    matrix[np.repeat(np.arange(len(histories)), histories.lengths), histories.items] = 1
    return matrix


def triangle(matrix):
    upper = np.triu_indices(len(matrix))
    return matrix[upper] * np.where(upper[0] == upper[1], 1.0, np.sqrt(2))


def unit(matrix):
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix / np.where(lengths > 0, lengths, 1)


def fitted(how, histories, noise=0.0, seed=0):
    """Return the weights from histories, with Gaussian noise of this deviation on every coordinate of the means."""
    draw, matrix = np.random.default_rng(seed), rows(histories)
    mean = unit(matrix).mean(axis=0) + noise * draw.normal(size=ITEMS)
    popularity = smoothed(mean, noise=noise)
    index, scale = kept_items(popularity, how)
    z = unit(matrix[:, index] * scale)
    gram = triangle(z.T @ z / len(z))
    released = gram + noise * draw.normal(size=len(gram))
    return popularity, *fit_gram(how, released, noise=noise, customers=len(z))


def hit_rate(scores, histories, targets, top=5):
    scores = np.where(rows(histories) > 0, -np.inf, scores)
    ahead = (scores > scores[np.arange(len(targets)), targets][:, None]).sum(axis=1)
    return (ahead < top).mean()


# --- the server's part ----------------------------------------------------------------------------------


def test_a_triangle_rebuilds_to_the_matrix_that_it_is_of():
    square = np.random.default_rng(1).normal(size=(7, 7))
    square = square + square.T
    np.testing.assert_allclose(symmetric(triangle(square)), square, atol=1e-12)
    assert np.linalg.norm(triangle(square)) == pytest.approx(np.linalg.norm(square))


def planted(size, values, noise, seed):
    draw = np.random.default_rng(seed)
    vectors = np.linalg.qr(draw.normal(size=(size, len(values))))[0]
    return vectors, symmetric(
        triangle((vectors * values) @ vectors.T) + noise * draw.normal(size=size * (size + 1) // 2)
    )


def test_noise_alone_stays_below_the_edge():
    found = [len(denoised(planted(300, [], 0.01, seed)[1], noise=0.01, rank=64)[1]) for seed in range(10)]
    assert max(found) <= 1
    assert sum(found) <= 3  # the largest eigenvalue swings by a share of 300 ** (-2 / 3) about the edge


def test_noise_that_is_said_to_be_half_of_what_it_is_lets_noise_through():
    assert len(denoised(planted(300, [], 0.01, 0)[1], noise=0.005, rank=300)[1]) > 30


def test_signals_above_half_the_edge_are_found_and_come_back_at_the_value_that_is_best_for_them():
    size, noise = 400, 0.01
    half = noise * np.sqrt(2 * size) / 2
    truth = np.array([6.0, 3.0, 1.6, 0.6]) * half  # the last one is lost in noise
    vectors, matrix = planted(size, truth, noise, 3)
    directions, values, cosines = denoised(matrix, noise=noise, rank=64)
    assert len(values) == 3
    clean = (vectors * truth) @ vectors.T
    errors = [np.linalg.norm((directions * (values * factor)) @ directions.T - clean) for factor in (0.8, 1.0, 1.2)]
    assert errors[1] < min(errors[0], errors[2])
    # t - R^2 / 4t, with half of the edge R for the unit.
    np.testing.assert_allclose(values / half, truth[:3] / half - half / truth[:3], rtol=0.15)
    found = np.square(np.sum(directions * vectors[:, :3], axis=0))
    np.testing.assert_allclose(cosines, found, atol=0.12)
    np.testing.assert_allclose(cosines, 1 - np.square(half / truth[:3]), atol=0.12)


def test_without_noise_the_values_are_the_matrix_s_own():
    vectors, matrix = planted(30, [3.0, 2.0, 1.0], 0.0, 4)
    directions, values, cosines = denoised(matrix, noise=0.0, rank=64)
    np.testing.assert_allclose(values, [3.0, 2.0, 1.0])
    np.testing.assert_allclose(np.abs(np.sum(directions * vectors, axis=0)), 1.0)
    assert cosines.tolist() == [1.0] * 3
    assert len(denoised(matrix, noise=0.0, rank=2)[1]) == 2


def test_without_noise_and_at_full_rank_the_residual_is_that_of_ridge_regression():
    how = settings(rank=50, ridge=0.004)
    draw = np.random.default_rng(5)
    z = unit(np.abs(draw.normal(size=(400, 50))))
    gram = z.T @ z / 400
    factors, strengths = fit_gram(how, triangle(gram), noise=0.0, customers=400)
    ridge = how.ridge * np.linalg.inv(gram + how.ridge * np.eye(50))
    np.testing.assert_allclose(np.eye(50) - (factors * strengths) @ factors.T, ridge, atol=1e-4)


def test_strengths_are_those_of_ridge_regression_times_how_well_a_vector_is_known():
    how, noise = settings(ridge=0.05), 0.01
    _, matrix = planted(50, [0.5, 0.2], noise, 9)
    _, values, cosines = denoised(matrix, noise=noise, rank=16)
    assert cosines[1] < 0.97
    _, strengths = fit_gram(how, triangle(matrix), noise=noise, customers=10)
    np.testing.assert_allclose(strengths[:2], cosines * values / (values + 0.05), rtol=1e-5)
    assert not strengths[2:].any()


def test_factors_are_filled_up_to_the_rank_of_the_plan_with_zeros():
    factors, strengths = fit_gram(settings(), np.zeros(50 * 51 // 2), noise=1.0, customers=10)
    assert (factors.shape, strengths.shape) == ((50, 16), (16,))
    assert (factors.dtype, strengths.dtype) == (np.float32, np.float32)
    assert not factors.any()
    assert not strengths.any()


@pytest.mark.parametrize(("size", "customers"), [(50 * 51 // 2 - 1, 10.0), (50 * 51 // 2, 0.0)])
def test_a_mean_of_the_wrong_size_or_of_nobody_is_refused(size, customers):
    with pytest.raises(ValueError, match="not of the recommender"):
        fit_gram(settings(), np.zeros(size), noise=1.0, customers=customers)


# --- scores ---------------------------------------------------------------------------------------------


def test_scores_are_popularity_and_the_lift_of_dense_item_side_regression():
    how, histories = settings(rank=50), shoppers(6, 300)
    weights = fitted(how, histories)
    index, scale = kept_items(weights[0], how)
    share = weights[0][index] / weights[0].max()
    z = unit(rows(histories)[:, index] * scale)
    residual = np.eye(50) - (weights[1].astype(float) * weights[2]) @ weights[1].T.astype(float)
    predicted = (z - z @ residual) / np.diag(residual) / scale**2
    level = predicted @ share / (share @ share)
    wanted = np.log(share) + 0.75 * np.log(np.maximum(predicted / (level[:, None] * share), 0.2))
    scores = gram_scores(how, weights, histories, half_life=0)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores[:, index], wanted, atol=2e-3)
    others = np.setdiff1d(np.arange(ITEMS), index)
    np.testing.assert_allclose(scores[:, others], popularity_scores(how, weights, histories)[:, others])


@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_held_out_items_are_found_clearly_more_often_than_by_popularity(noise):
    before, targets = shoppers(7).without_last()
    weights = fitted(settings(), before, noise=noise)
    by_gram = hit_rate(gram_scores(settings(), weights, before), before, targets)
    by_popularity = hit_rate(popularity_scores(settings(), weights, before), before, targets)
    assert by_gram > by_popularity + 0.1


def test_a_customer_s_scores_follow_from_its_own_history_alone():
    how, histories = settings(), shoppers(9, 40)
    weights = fitted(how, histories)
    together = gram_scores(how, weights, histories, half_life=3.0)
    for one in range(0, 40, 7):
        alone = gram_scores(how, weights, histories.of(np.array([one])), half_life=3.0)
        np.testing.assert_allclose(alone[0], together[one], atol=1e-4)


def test_customers_without_a_history_or_without_modelled_items_get_popularity():
    how = settings()
    weights = fitted(how, shoppers(10))
    other = np.setdiff1d(np.arange(ITEMS), kept_items(weights[0], how)[0])
    histories = packed([[], other[:2], [int(np.argmax(weights[0]))]])
    scores, popular = gram_scores(how, weights, histories), popularity_scores(how, weights, histories)
    assert scores[:2].tolist() == popular[:2].tolist()
    assert scores[2].tolist() != popular[2].tolist()


@pytest.mark.parametrize("standing", [0, 1])
def test_a_model_of_which_nothing_or_one_vector_stood_out_of_the_noise_recommends_by_popularity(standing):
    how, histories = settings(), shoppers(11, 30)
    popularity, factors, strengths = fitted(how, histories)
    strengths[standing:] = 0
    weights = popularity, factors, strengths
    assert gram_scores(how, weights, histories).tolist() == popularity_scores(how, weights, histories).tolist()


def test_fading_lets_the_newest_items_decide():
    how = settings()
    weights = fitted(how, shoppers(12))
    order = np.argsort(-weights[0])
    first, second = (order[order % GROUPS == group][:6] for group in (0, 1))
    histories = packed([np.concatenate([first, second])])
    unseen = np.setdiff1d(order[:50], np.concatenate([first, second]))

    def lead(half_life):
        scores = gram_scores(how, weights, histories, half_life=half_life)[0] - np.log(weights[0] / weights[0].max())
        return scores[unseen[unseen % GROUPS == 1]].mean() - scores[unseen[unseen % GROUPS == 0]].mean()

    assert lead(2.0) > lead(0.0) + 0.2


def test_a_catalogue_of_one_item_has_scores():
    how = settings(items=1, keep=1, rank=4)
    weights = (np.ones(1, dtype=np.float32), *fit_gram(how, np.ones(1), noise=0.01, customers=5))
    assert np.isfinite(gram_scores(how, weights, packed([[0], []]))).all()
