"""Reasons are what a dense model says: the history's entries that add most to a score."""

import numpy as np
import pytest

from coterie.models.histories import Histories
from coterie.models.recommendreasons import cosine_sides, gram_sides, reasons

ITEMS, KEPT, RANK = 30, 20, 6
INDEX = np.random.default_rng(1).permutation(ITEMS)[:KEPT]


def histories(lists):
    starts = np.cumsum([0, *map(len, lists)])
    items = np.array([item for one in lists for item in one], dtype=np.int64)
    return Histories(starts, items, np.arange(len(items)))


def low_rank():
    draw = np.random.default_rng(2)
    factors = np.linalg.qr(draw.normal(size=(KEPT, RANK)))[0].astype(np.float32)
    return factors, draw.uniform(0.1, 0.9, RANK).astype(np.float32)


def dense(factors, strengths):
    """What each kept item adds to each other's score, by the whole matrix of EASE."""
    precision = np.eye(KEPT) - factors.astype(float) @ np.diag(strengths.astype(float)) @ factors.astype(float).T
    return -precision / np.diag(precision)[None]  # from the row's item to the column's


@pytest.mark.parametrize("scale", [None, np.linspace(0.5, 2, KEPT)], ids=["plain", "scaled"])
def test_reasons_are_the_greatest_contributions_of_the_dense_model(scale):
    factors, strengths = low_rank()
    adds = np.zeros((ITEMS, ITEMS))
    adds[np.ix_(INDEX, INDEX)] = dense(factors, strengths) * (1 if scale is None else scale[:, None])
    draw = np.random.default_rng(3)
    own = [draw.permutation(ITEMS)[: draw.integers(1, 9)] for _ in range(25)]
    lists = np.stack([draw.permutation(ITEMS)[:6] for _ in range(25)])
    sides = gram_sides(factors, strengths, INDEX, items=ITEMS, scale=scale)
    found = reasons(lists, histories(own), sides, count=2)
    for row in range(25):
        for place, item in enumerate(lists[row]):
            speaks = sorted((j for j in own[row] if adds[j, item] > 1e-7 and j != item), key=lambda j: -adds[j, item])
            assert found[row, place].tolist() == [*speaks, -1, -1][:2]


def test_a_reason_by_cosine_is_the_most_alike_item_of_the_history():
    vectors = np.array([[1, 0], [2, 0.1], [0, 3], [0, 0], [-1, 0]], np.float32)
    found = reasons(np.array([[0, 2, 3, -1]]), histories([[1, 2, 3, 4]]), cosine_sides(vectors))
    assert found[0, :, 0].tolist() == [1, 1, -1, -1]


def test_nothing_is_no_reason():
    sides = cosine_sides(np.eye(3, dtype=np.float32))
    assert reasons(np.array([[0, 1]]), histories([[]]), sides, count=3).tolist() == [[[-1] * 3] * 2]
    # An item is no reason for itself, where owned items are recommended again.
    assert reasons(np.array([[0]]), histories([[0]]), sides).tolist() == [[[-1]]]
