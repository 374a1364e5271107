"""Exact figures of served customers, against what a few lines of plain Python find; and the studies that come along."""

import dataclasses

import numpy as np
import pytest

from coterie.clients.task import recommender_of
from coterie.models.catalogue import Catalogue, encoded
from coterie.models.histories import Histories
from coterie.models.recommenders import family
from coterie.privacy.randomness import OsSource
from coterie.privacy.study import read_study
from coterie.simulations import oneparty, rankbaselines, rankexact, sources, studies
from coterie.simulations.rankexact import TOP, curve, figures, joined, serve
from coterie.simulations.rankreview import item_groups, review
from coterie.tests.simulations import blocks

ITEMS = 25


@pytest.fixture
def customers():
    """Return thirty histories, a held item for most, and scores with ties."""
    draw = np.random.default_rng(3)
    rows = [draw.permutation(ITEMS)[: draw.integers(2, 12)] for _ in range(30)]
    held = np.array([row[-1] if at % 4 else -1 for at, row in enumerate(rows)])
    seen = [row[:-1] if at % 4 else row for at, row in enumerate(rows)]
    starts = np.concatenate([[0], np.cumsum([len(row) for row in seen])]).astype(np.int64)
    items = np.concatenate(seen)
    scores = draw.integers(0, 9, (30, ITEMS)).astype(np.float32)
    return Histories(starts, items, np.arange(len(items))), held, scores


def by_history(scores, histories):
    """Return a scorer that looks a customer's row up by its first day, which no two have alike."""
    place = {int(histories.days[start]): at for at, start in enumerate(histories.starts[:-1])}
    return lambda some: scores[[place[int(some.days[start])] for start in some.starts[:-1]]]


def test_places_and_lists_are_those_that_sorting_finds(customers, monkeypatch):
    histories, held, scores = customers
    monkeypatch.setattr(rankexact, "_CELLS", 4 * ITEMS)  # four customers at a time
    served = serve(by_history(scores, histories), histories, held, items=ITEMS)
    asked = [at for at in range(30) if held[at] >= 0]
    assert len(served.places) == len(served.lists) == len(asked)
    for row, at in enumerate(asked):
        mine = histories.items[histories.starts[at] : histories.starts[at + 1]]
        others = [item for item in range(ITEMS) if item not in mine and item != held[at]]
        assert served.places.above[row] == sum(scores[at, item] > scores[at, held[at]] for item in others)
        assert served.places.tied[row] == sum(scores[at, item] == scores[at, held[at]] for item in others)
        ordered = sorted((item for item in range(ITEMS) if item not in mine), key=lambda i: (-scores[at, i], i))
        best = [scores[at, item] for item in ordered[:TOP]]
        assert [scores[at, item] for item in served.lists[row]] == best
        assert not set(served.lists[row]) & set(mine)


def test_lists_of_a_customer_who_has_nearly_everything_end_early():
    histories = Histories(np.array([0, ITEMS - 2]), np.arange(ITEMS - 2), np.arange(ITEMS - 2))
    served = serve(lambda _: np.zeros((1, ITEMS), np.float32), histories, np.array([ITEMS - 1]), items=ITEMS)
    assert served.lists.tolist() == [[ITEMS - 2, ITEMS - 1, *[-1] * (TOP - 2)]]


def test_figures_of_a_scorer_that_knows_are_one_and_of_one_that_knows_nothing_are_chance():
    held = np.arange(40) % 100
    histories = Histories(np.arange(41), (held + 1) % 100, np.arange(40))
    knows = np.zeros((40, 100), np.float32)
    knows[np.arange(40), held] = 1.0
    right = serve(lambda _: knows, histories, held, items=100)
    blind = serve(lambda _: np.zeros((40, 100), np.float32), histories, held, items=100)
    shares = np.full(100, 0.01)
    assert figures(right, shares, 100)["hr@10 of 99"] == pytest.approx(1.0)
    assert figures(blind, shares, 100)["hr@10 of 99"] == pytest.approx(0.10, abs=0.002)
    assert figures(right, shares, 100)["novelty"] == pytest.approx(np.log2(100))
    assert curve(right)[0] == [1, 1.0]
    assert curve(blind)[-1][1] == pytest.approx(50 / 99)


def test_nothing_asked_has_no_figures():
    nobody = serve(
        lambda _: np.zeros((0, ITEMS)),
        Histories(np.array([0, 1]), np.array([3]), np.array([0])),
        np.array([-1]),
        items=ITEMS,
    )
    found = figures(nobody, np.full(ITEMS, 0.5), 2)
    assert found["mrr"] is None
    assert found["novelty"] is None
    assert curve(nobody) == []


def test_joined_keeps_the_order_of_partners(customers):
    histories, held, scores = customers
    whole = serve(by_history(scores, histories), histories, held, items=ITEMS)
    halves = [np.arange(15), np.arange(15, 30)]
    parts = [serve(by_history(scores, histories), histories.of(half), held[half], items=ITEMS) for half in halves]
    np.testing.assert_array_equal(joined(parts).values, whole.values)
    np.testing.assert_array_equal(joined(parts).lists, whole.lists)
    assert repr(whole) == "Served(...)"


def test_items_are_grouped_by_the_attribute_with_the_fewest_words():
    codes = tuple(f"{number:02d}" for number in range(40))
    brands = tuple(f"brand {number}" for number in range(40))
    genres = tuple("Drama|War" if number % 2 else "" for number in range(40))
    year = np.arange(40.0)
    attribute, groups = item_groups(Catalogue(codes, {"brand": brands, "genre": genres, "name": brands, "year": year}))
    assert attribute == "genre"
    assert groups[:2] == ("not stated", "Drama")
    attribute, groups = item_groups(Catalogue(codes, {"brand": brands}))
    assert len(set(groups)) == 12
    assert groups.count("all others") == 40 - 11
    assert item_groups(Catalogue(codes, {"year": year})) is None
    assert item_groups(Catalogue(codes, {"kind": ("one",) * 40})) is None


def test_a_review_without_groups_of_items_is_of_customers_alone(customers):
    histories, held, scores = customers
    served = serve(by_history(scores, histories), histories, held, items=ITEMS)
    asked = held >= 0
    found = review(
        {"a": served},
        {"a": histories.lengths[asked]},
        held[asked],
        popularity=np.ones(ITEMS),
        catalogue=Catalogue(tuple(f"{number:02d}" for number in range(ITEMS))),
    )
    assert found["attribute"] is None
    assert found["items"] == []
    sizes = {group["group"]: group["customers"] for group in found["customers"]["items before"]}
    assert sizes == {
        "under 10": int((histories.lengths[asked] < 10).sum()),
        "10 to 29": int((histories.lengths[asked] >= 10).sum()),
    }


# One sweep from a random start makes little of ials.
@pytest.mark.parametrize(("name", "least"), [("popularity", 0.95), ("item-gram", 0.95), ("ials", 0.5)])
def test_a_party_without_noise_and_one_with_hardly_any_find_the_same(name, least):
    plan = dataclasses.replace(
        blocks.PLAN,
        model=dataclasses.replace(blocks.PLAN.model, family=name),
        privacy=dataclasses.replace(blocks.PLAN.privacy, epsilon=20.0),
    )
    draw = np.random.default_rng(1)
    rows = [draw.permutation(np.arange(draw.integers(6), blocks.ITEMS, 6))[:5] for _ in range(3000)]
    histories = Histories(np.arange(0, 15001, 5), np.concatenate(rows), np.tile(np.arange(5), 3000))
    party = oneparty.alone(plan, 3000)
    stream = OsSource().stream("test")
    exact = rankbaselines.without_noise(party, histories, attributes=None, stream=stream)
    noisy = rankbaselines.private(party, histories, attributes=None, stream=stream)
    assert [one.shape for one in exact] == [one.shape for one in noisy]
    mean = sum(np.bincount(row, minlength=blocks.ITEMS) / np.sqrt(5) for row in rows) / 3000
    np.testing.assert_allclose(exact[0], mean, atol=1e-4)
    np.testing.assert_allclose(noisy[0], mean, atol=0.01)
    assert np.abs(noisy[0] - mean).max() > 1e-6
    few = histories.of(np.arange(200))
    settings = recommender_of(plan)
    one, other = (family.scorer(settings, weights)(few) for weights in (exact, noisy))
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > least


def test_counted_is_how_many_have_each_item():
    histories = Histories(np.array([0, 2, 3]), np.array([1, 2, 2]), np.array([0, 1, 0]))
    (counts,) = rankbaselines.counted(histories, 4)
    assert counts.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("name", ["basket", "journey", "movies"])
def test_a_built_in_study_speaks_of_the_catalogue_and_partners_of_its_source(name):
    study = read_study(studies.path(name))
    catalogue, plan = sources.catalogue(study.source.dataset), study.plan
    assert plan.catalogue.digest == catalogue.digest()
    assert plan.catalogue.items == len(catalogue)
    assert plan.catalogue.attributes == encoded(catalogue).shape[1]
    tables = sources.load(study.source.dataset)
    assert {partner.name for partner in plan.partners} == set(tables)
    for partner in plan.partners:
        customers = len(tables[partner.name]["customer"].unique())
        # The order of size of four customers in five, at one or two digits.
        assert 0.6 < partner.customers / (0.8 * customers) < 1.4
        assert partner.customers % 100 == 0
