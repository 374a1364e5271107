"""Hybrids: a taste against plain Newton steps, cold starts, and what content finds without anybody's statistics."""

import numpy as np
import pytest

from coterie.models.histories import Histories
from coterie.models.recommenders.hybrid import Content, combined
from coterie.models.recommenders.popularity import popularity_scores
from coterie.models.recommenders.settings import Recommender

ITEMS, KINDS = 40, 4
ATTRIBUTES = np.eye(KINDS, dtype=np.float32)[np.arange(ITEMS) % KINDS]
POPULARITY = (1 / (1 + np.arange(ITEMS) // KINDS)).astype(np.float32)
HOW = Recommender(family="popularity", items=ITEMS, content=0.5, attributes=KINDS)
CONTENT = Content.of(ATTRIBUTES, POPULARITY)


def packed(histories):
    starts = np.cumsum([0, *(len(own) for own in histories)])
    flat = np.concatenate([np.asarray(own, dtype=np.int64) for own in histories])
    return Histories(starts, flat, np.zeros(len(flat), dtype=np.int64))


def scored(histories, how=HOW, content=CONTENT, **changes):
    return combined(how, popularity_scores(how, (POPULARITY,), histories), histories, content, **changes)


def test_a_taste_is_the_newton_step_of_choices_by_popularity_and_attributes():
    draw = np.random.default_rng(1)
    attributes = (draw.random(size=(ITEMS, 3)) < 0.4).astype(np.float32)
    share = POPULARITY / POPULARITY.sum()
    history = np.array([3, 8, 30, 31, 5])
    mean = share @ attributes
    curvature = (attributes - mean).T @ ((attributes - mean) * share[:, None])
    ridge = 0.5 * np.trace(curvature) / len(history)
    taste = np.linalg.solve(curvature + ridge * np.eye(3), attributes[history].mean(axis=0) - mean)
    content = Content.of(attributes, POPULARITY)
    found = content.tastes(packed([history]), half_life=0)[0] @ content.axes.T
    np.testing.assert_allclose(found, (attributes - mean) @ taste, atol=1e-4)
    # The gradient of the log likelihood at no taste at all, by differences.
    step = 1e-4

    def likelihood(theta):
        logits = np.log(share) + attributes @ theta
        return (logits[history] - np.log(np.exp(logits).sum())).mean()

    gradient = [(likelihood(step * axis) - likelihood(-step * axis)) / (2 * step) for axis in np.eye(3)]
    np.testing.assert_allclose(gradient, attributes[history].mean(axis=0) - mean, atol=1e-4)


def test_items_of_the_kinds_that_a_customer_has_rise_and_others_fall():
    base = popularity_scores(HOW, (POPULARITY,), packed([[2]]))[0]
    change = scored(packed([[2, 6, 10, 14, 18]]))[0] - base
    assert (change[np.arange(ITEMS) % KINDS == 2] > 0.5).all()
    assert (change[np.arange(ITEMS) % KINDS != 2] < -0.1).all()


def test_more_evidence_makes_a_stronger_taste():
    gains = scored(packed([[2], [2, 6], [2, 6, 10, 14, 18, 22]]))[:, 38]
    assert gains[0] < gains[1] < gains[2]


def test_a_customer_without_a_history_keeps_the_family_s_scores():
    histories = packed([[], [3], []])
    scores, base = scored(histories), popularity_scores(HOW, (POPULARITY,), histories)
    assert scores[[0, 2]].tolist() == base[[0, 2]].tolist()
    assert scores[1].tolist() != base[1].tolist()
    assert scored(packed([[]])).shape == (1, ITEMS)


def test_items_that_nobody_counted_are_ranked_by_their_attributes():
    popularity = POPULARITY.copy()
    popularity[20:] = -0.01
    histories = packed([[1, 5, 9]])
    base = popularity_scores(HOW, (popularity,), histories)
    assert len(set(base[0, 20:].tolist())) == 1
    scores = combined(HOW, base, histories, Content.of(ATTRIBUTES, popularity))[0]
    new = np.arange(20, ITEMS)
    assert scores[new[new % KINDS == 1]].min() > scores[new[new % KINDS != 1]].max() + 0.3


def test_the_content_s_weight_scales_what_it_adds():
    histories = packed([[1, 5, 9]])
    base = popularity_scores(HOW, (POPULARITY,), histories)
    twice = Recommender(family="popularity", items=ITEMS, content=1.0, attributes=KINDS)
    np.testing.assert_allclose(scored(histories, twice) - base, 2 * (scored(histories) - base), atol=1e-5)


def test_fading_lets_the_newest_items_make_the_taste():
    histories = packed([[0, 4, 8, 12, 1, 5]])
    plain, faded = scored(histories, half_life=0)[0], scored(histories, half_life=1.0)[0]
    assert plain[36] > plain[37]
    assert faded[36] < faded[37]


@pytest.mark.parametrize("shape", ["for all", "for each"])
def test_a_context_lifts_the_items_that_have_what_the_moment_asks_for(shape):
    histories = packed([[], [1, 5]])
    asked = np.array([0, 0, 0, 1.5], dtype=np.float32)
    context = asked if shape == "for all" else np.stack([asked, 0 * asked])
    change = scored(histories, context=context) - scored(histories)
    gain = change[:, 3] - change[:, 2]
    np.testing.assert_allclose(gain, [1.5, 1.5 if shape == "for all" else 0.0], atol=1e-5)


def test_a_customer_s_scores_follow_from_its_own_history_alone():
    draw = np.random.default_rng(4)
    histories = packed([draw.choice(ITEMS, draw.integers(0, 9), replace=False) for _ in range(20)])
    together = scored(histories, half_life=4.0)
    for one in range(20):
        alone = scored(histories.of(np.array([one])), half_life=4.0)
        np.testing.assert_allclose(alone[0], together[one], atol=1e-5)


def test_how_large_a_cell_of_the_encoding_is_plays_no_part():
    draw = np.random.default_rng(6)
    other = Content.of(ATTRIBUTES * draw.uniform(0.1, 5, size=ATTRIBUTES.shape).astype(np.float32), POPULARITY)
    histories = packed([[1, 5, 9], [2]])
    assert scored(histories, content=other).tolist() == scored(histories).tolist()


def test_attributes_that_are_all_alike_add_nothing():
    content = Content.of(np.ones((ITEMS, 2), dtype=np.float32), POPULARITY)
    histories = packed([[1, 5, 9]])
    np.testing.assert_allclose(
        scored(histories, content=content), popularity_scores(HOW, (POPULARITY,), histories), atol=1e-5
    )


def test_held_out_items_are_found_more_often_with_content_than_by_popularity():
    draw, histories = np.random.default_rng(5), []
    for _ in range(400):
        chance = POPULARITY * np.where(np.arange(ITEMS) % KINDS == draw.integers(KINDS), 30.0, 1.0)
        histories.append(draw.choice(ITEMS, 5, replace=False, p=chance / chance.sum()))
    before, targets = packed(histories).without_last()
    owned = np.zeros((400, ITEMS), dtype=np.bool_)
    owned[np.repeat(np.arange(400), before.lengths), before.items] = True

    def rate(scores):
        scores = np.where(owned, -np.inf, scores)
        return ((scores > scores[np.arange(400), targets][:, None]).sum(axis=1) < 5).mean()

    assert rate(scored(before)) > rate(popularity_scores(HOW, (POPULARITY,), before)) + 0.1
