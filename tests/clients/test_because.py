"""Reasons: what the model says first, then what attributes say, then popularity; in words."""

import numpy as np
import pytest

from coterie.clients.because import Because, model_sides
from coterie.models.catalogue import Catalogue
from coterie.models.histories import Histories
from coterie.models.recommenders import family
from coterie.models.recommenders.settings import FAMILIES, Recommender
from coterie.models.recommendreasons import Sides

CATALOGUE = Catalogue(("a", "b", "c", "d", "e"), {"name": ("Apple", "", "Cheese", "Dates", "Eggs")})


def histories(*items):
    starts = np.concatenate([[0], np.cumsum([len(own) for own in items])])
    flat = np.array([item for own in items for item in own], dtype=np.int64)
    return Histories(starts.astype(np.int64), flat, np.zeros(len(flat), np.int64))


def sides(pairs):
    """From (bought, recommended) to what it adds."""
    receiving = np.zeros((5, 5), np.float32)
    for (bought, recommended), adds in pairs.items():
        receiving[recommended, bought] = adds
    return Sides(np.eye(5, dtype=np.float32), receiving)


LIKE = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [0, 0]], np.float32)  # apple and cheese, b and dates


def test_the_model_comes_first_then_attributes_then_popularity():
    because = Because.of(CATALOGUE, sides({(0, 2): 1.0, (1, 2): 2.0}), LIKE, 2)
    found = because.texts(np.array([[2, 3, 4]]), histories([0, 1]))
    assert found.to_pylist() == [
        ["because you bought b", "because you bought Apple"],
        ["like b, which you have"],
        ["liked by many"],
    ]


def test_there_is_an_entry_for_every_item_and_none_after_the_end_of_a_list():
    because = Because.of(CATALOGUE, sides({(0, 2): 1.0}), LIKE, 1)
    lists = np.array([[4, 2, -1], [-1, -1, -1], [3, -1, -1]])
    found = because.texts(lists, histories([0], [1], []))
    assert found.to_pylist() == [["liked by many"], ["because you bought Apple"], ["liked by many"]]


def test_what_speaks_against_an_item_is_no_reason():
    because = Because.of(CATALOGUE, sides({(0, 4): -1.0}), LIKE, 1)
    assert because.texts(np.array([[4]]), histories([0])).to_pylist() == [["liked by many"]]


def test_without_attributes_and_without_a_model_of_pairs_popularity_is_the_reason():
    because = Because.of(CATALOGUE, None, None, 3)
    assert because.texts(np.array([[2]]), histories([0])).to_pylist() == [["liked by many"]]
    assert Because.of(CATALOGUE, None, None, 0).texts(np.array([[2]]), histories([0])).to_pylist() == [[]]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_says_which_items_it_takes_for_alike(name):
    settings = Recommender(family=name, items=5, keep=4, rank=2, dimension=3)
    draw = np.random.default_rng(0)
    weights = tuple(draw.normal(size=shape).astype(np.float32) for shape in family.shapes(settings))
    found = model_sides(settings, weights)
    if name == "popularity":
        assert found is None
        return
    adds = found.receiving @ found.giving.T
    least = int(np.argmin(weights[0]))
    modelled = np.array([item != least or name not in ("item-gram", "ials") for item in range(5)])
    assert (np.abs(adds).sum(axis=1) > 0).tolist() == modelled.tolist()
    if name != "item-gram":
        np.testing.assert_allclose(np.diagonal(adds)[modelled], 1, atol=1e-6)  # cosines


def test_item_gram_names_what_moves_the_score_most():
    settings = Recommender(family="item-gram", items=5, keep=5, rank=2, exponent=0.0)
    popularity = np.array([0.5, 0.4, 0.3, 0.2, 0.1], np.float32)
    vectors = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 2)))[0]
    strengths = np.array([0.8, 0.6])
    weights = (popularity, vectors.astype(np.float32), strengths.astype(np.float32))
    inverse = np.eye(5) - vectors @ np.diag(strengths) @ vectors.T
    ease = -inverse / np.diagonal(inverse)  # Steck 2019, equation 8: of j to i in row j
    found = model_sides(settings, weights)
    adds = found.giving @ found.receiving.T
    off = ~np.eye(5, dtype=bool)
    np.testing.assert_allclose(adds[off], ease[off], atol=1e-6)
