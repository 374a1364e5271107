"""Lists against slow, plain ways of making them; rules that hold for every customer."""

import numpy as np
import pytest

from coterie.models.histories import Histories
from coterie.models.reranking import Lists, Reranker, Rules, best, open_items

ITEMS = 50


def histories(lists):
    starts = np.cumsum([0, *map(len, lists)])
    items = np.array([item for one in lists for item in one], dtype=np.int64)
    return Histories(starts, items, np.arange(len(items)))


def case(customers=40, seed=1, items=ITEMS):
    draw = np.random.default_rng(seed)
    owned = [draw.permutation(items)[: draw.integers(0, 12)] for _ in range(customers)]
    return draw.normal(size=(customers, items)).astype(np.float32), histories(owned)


def made(scores, has, may=None, shown=None, vectors=None, **rules):
    may = np.ones(scores.shape[1], bool) if may is None else may
    return Reranker(Rules(**rules), may, customers=len(scores), vectors=vectors).lists(scores, has, shown)


# --- the best of a row ----------------------------------------------------------------------------------


@pytest.mark.parametrize("items", [1, 3, 59, 60, 61, 700, 5_003])
@pytest.mark.parametrize("values", [2, 40, 10**6])
def test_the_best_are_those_of_a_stable_sort(items, values):
    draw = np.random.default_rng(items + values)
    scores = draw.integers(0, values, (30, items)).astype(np.float32)
    scores[draw.random(scores.shape) < 0.2] = -np.inf
    scores[7] = -np.inf
    wanted = np.full((30, 20), -1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    wanted[:, : order.shape[1]] = np.where(np.take_along_axis(scores, order, axis=1) > -np.inf, order, -1)
    assert best(scores, 20).tolist() == wanted.tolist()


def test_the_best_of_nobody_is_nothing():
    assert best(np.zeros((0, 9), np.float32), 3).shape == (0, 3)


# --- rules ----------------------------------------------------------------------------------------------


def test_lists_hold_the_best_of_what_is_open_and_not_owned():
    scores, owned = case()
    may = np.random.default_rng(2).random(ITEMS) < 0.7
    found = made(scores, owned, may, top=5)
    for row, has in enumerate(np.split(owned.items, owned.starts[1:-1])):
        free = [item for item in range(ITEMS) if may[item] and item not in set(has)]
        wanted = sorted(free, key=lambda item: -scores[row, item])[:5]
        assert found.items[row].tolist() == wanted
        assert found.scores[row].tolist() == scores[row, wanted].tolist()


def test_owned_items_are_recommended_where_the_rules_say_so():
    scores, owned = case()
    assert made(scores, owned, top=3, owned=True).items.tolist() == best(scores, 3).tolist()


def test_items_are_closed_by_stock_red_lines_and_price():
    labels = ["FOOD|FRESH", "ALCOHOL", "FOOD|ALCOHOL", "", "TOYS"]
    prices = np.array([1.0, 5.0, 2.0, 3.0, np.nan])
    assert open_items(5).all()
    assert open_items(5, stock=np.array([0, 4])).tolist() == [True, False, False, False, True]
    assert open_items(5, labels=labels, red_lines={"ALCOHOL"}).tolist() == [True, False, False, True, True]
    assert open_items(5, prices=prices, band=(2.0, 5.0)).tolist() == [False, True, True, True, False]
    both = open_items(5, stock=np.array([1, 3]), labels=labels, red_lines=["ALCOHOL"])
    assert both.tolist() == [False, False, False, True, False]


def test_scores_below_the_least_and_scores_that_are_no_numbers_are_never_recommended():
    scores = np.array([[0.5, np.nan, 0.2, 0.9, -np.inf]], np.float32)
    found = made(scores, histories([[]]), top=4, least=0.4)
    assert found.items.tolist() == [[3, 0, -1, -1]]
    assert np.isnan(found.scores[0, 2:]).all()
    assert made(scores, histories([[]]), top=5).items.tolist() == [[3, 0, 2, -1, -1]]


def test_a_customer_who_owns_everything_gets_an_empty_list():
    found = made(np.zeros((2, 3), np.float32), histories([[0, 1, 2], [1]]), top=2)
    assert found.items.tolist() == [[-1, -1], [0, 2]]


def test_what_a_customer_was_shown_often_enough_is_not_shown_again():
    scores = np.array([[3, 2, 1], [3, 2, 1]], np.float32)
    shown = np.array([[0, 0, 1, 0], [0, 0, 0, 1]])  # customer 0 saw item 0 twice, all else once
    found = made(scores, histories([[], []]), shown=shown, top=2, most_shown=2)
    assert found.items.tolist() == [[1, 2], [0, 1]]


# --- rations --------------------------------------------------------------------------------------------


def in_turns(scores, owned, top, most):
    """Round by round: every customer still short wishes its next best; the highest scores get what is left."""
    left, lists = np.full(scores.shape[1], most), [[] for _ in scores]
    wishes = [
        [item for item in np.argsort(-row, kind="stable") if item not in set(has)]
        for row, has in zip(scores, owned, strict=True)
    ]
    for turn in range(scores.shape[1]):
        asked = [
            (w[turn], -scores[c, w[turn]], c) for c, w in enumerate(wishes) if turn < len(w) and len(lists[c]) < top
        ]
        for item, _, customer in sorted(asked):
            if left[item]:
                left[item] -= 1
                lists[customer].append(int(item))
    return lists


@pytest.mark.parametrize("most", [1, 4, 8, 30])
def test_no_item_is_in_more_lists_than_it_may(most):
    scores, owned = case()
    scores += 3 * np.random.default_rng(3).normal(size=ITEMS).astype(np.float32)  # all like the same items
    found = made(scores, owned, top=5, most_per_item=most)
    counts = np.bincount(found.items[found.items >= 0], minlength=ITEMS)
    assert counts.max() <= most
    for row, has in enumerate(np.split(owned.items, owned.starts[1:-1])):
        own = [item for item in found.items[row].tolist() if item >= 0]
        assert len(set(own)) == len(own)
        assert not set(own) & set(has.tolist())
    if most >= 8:
        assert (found.items >= 0).all()


def test_rationed_items_are_dealt_by_turns_and_to_the_highest_scores():
    scores, owned = case(seed=5, items=15)  # so few items that the first wishes are all wishes
    has = np.split(owned.items, owned.starts[1:-1])
    found = made(scores, owned, top=5, most_per_item=12)
    wanted = in_turns(scores, has, 5, 12)
    assert [[item for item in row if item >= 0] for row in found.items.tolist()] == wanted


def test_those_who_come_late_have_as_much_of_a_ration():
    draw = np.random.default_rng(6)
    scores = draw.normal(size=(400, ITEMS)).astype(np.float32)
    scores[:, 0] += 9
    ranker = Reranker(Rules(top=2, most_per_item=40), np.ones(ITEMS, bool), customers=400)
    got = [
        np.count_nonzero(ranker.lists(scores[at : at + 50], histories([[]] * 50)).items == 0)
        for at in range(0, 400, 50)
    ]
    assert got == [5] * 8


def test_a_ration_that_nobody_meets_changes_nothing():
    scores, owned = case()
    assert made(scores, owned, top=5, most_per_item=40).items.tolist() == made(scores, owned, top=5).items.tolist()


# --- diversity ------------------------------------------------------------------------------------------


def slow_mmr(row, candidates, unit, diversity, top):
    """One customer's list, choice by choice."""
    score = row[candidates].astype(float)
    relevance = (score - score.min()) / (score.max() - score.min())
    taken = []
    while len(taken) < top:
        values = [
            -np.inf
            if at in taken
            else (1 - diversity) * relevance[at]
            - diversity * max([0.0, *(float(unit[candidates[at]] @ unit[candidates[b]]) for b in taken)])
            for at in range(len(candidates))
        ]
        taken.append(int(np.argmax(values)))
    return [int(candidates[at]) for at in taken]


@pytest.mark.parametrize("diversity", [0.2, 0.6])
def test_diverse_lists_are_maximal_marginal_relevance(diversity):
    scores, owned = case()
    vectors = np.random.default_rng(8).normal(size=(ITEMS, 3)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = made(scores, owned, vectors=vectors, top=5, diversity=diversity)
    for row, has in enumerate(np.split(owned.items, owned.starts[1:-1])):
        free = [item for item in np.argsort(-scores[row], kind="stable") if item not in set(has)][:15]
        assert found.items[row].tolist() == slow_mmr(scores[row], np.array(free), unit, diversity, 5)


def test_more_diversity_gives_items_that_are_less_alike():
    scores, owned = case(customers=200)
    vectors = np.eye(5, dtype=np.float32)[np.arange(ITEMS) % 5]
    kinds = [
        np.mean([len(set(row % 5)) for row in made(scores, owned, vectors=vectors, top=5, diversity=d).items])
        for d in (0.0, 0.3, 0.9)
    ]
    assert kinds[0] < kinds[1] < kinds[2]
    assert kinds[2] > 4.5


def test_diversity_and_a_ration_go_together_and_short_lists_stay_short():
    scores, owned = case(customers=12, items=8)
    vectors = np.zeros((8, 2), np.float32)  # nothing is known of the items
    found = made(scores, owned, vectors=vectors, top=4, diversity=0.5, most_per_item=3)
    assert np.bincount(found.items[found.items >= 0], minlength=8).max() <= 3
    plain = made(scores, owned, vectors=vectors, top=4, diversity=0.5)
    assert plain.items.tolist() == made(scores, owned, top=4).items.tolist()


# --- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"top": 0},
        {"diversity": 1.0},
        {"diversity": -0.1},
        {"least": float("nan")},
        {"most_per_item": 0},
        {"most_shown": -1},
    ],
    ids=str,
)
def test_rules_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="at least"):
        Rules(**wrong)


@pytest.mark.parametrize("rules", [Rules(diversity=0.5), Rules(most_per_item=3)], ids=["diversity", "ration"])
def test_rules_that_lack_what_they_need_are_refused(rules):
    with pytest.raises(ValueError, match="wants item vectors"):
        Reranker(rules, np.ones(3, bool))


def test_lists_show_nothing_of_themselves():
    assert repr(Lists(np.array([[1]]), np.zeros((1, 1), np.float32))) == "Lists(...)"
