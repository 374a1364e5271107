"""Counting cells: equal to plain sets, a range at a time, from files as well; and what is given out of them."""

import itertools
import json
import math

import numpy as np
import pytest

from coterie.privacy.matching import venn
from coterie.privacy.matching.decoys import spread
from coterie.privacy.matching.errors import MatchFault, PeerFault
from coterie.privacy.matching.overlap import Overlap, overlap
from coterie.privacy.matching.venn import cells, check_canaries
from coterie.tests.privacy.matching.matchkit import NAMES, terms_of


def lists_of(count, size, seed, *, narrow=False):
    """Draw lists of 32-byte rows that share many, as arrays and as sets; narrow ones agree in their first bytes."""
    rng = np.random.default_rng(seed)
    pool = rng.integers(0, 256, (2 * size, 32), dtype=np.uint8)
    if narrow:
        pool[:, :9] = pool[:, :9] % 2
    pool = np.unique(pool, axis=0)
    chosen = [pool[np.sort(rng.choice(len(pool), rng.integers(0, size), replace=False))] for _ in range(count)]
    arrays = dict(zip(NAMES, chosen, strict=False))
    return arrays, {name: {row.tobytes() for row in array} for name, array in arrays.items()}


def plain(sets):
    every = set().union(*sets.values())
    found = {
        frozenset(part): 0 for size in range(1, len(sets) + 1) for part in itertools.combinations(sorted(sets), size)
    }
    for one in every:
        found[frozenset(name for name in sets if one in sets[name])] += 1
    return found


@pytest.mark.parametrize("narrow", [False, True], ids=["spread", "narrow"])
@pytest.mark.parametrize("count", [2, 3, 5, 8])
@pytest.mark.parametrize("at_once", [1 << 19, 64])
def test_cells_are_those_of_plain_sets(count, narrow, at_once, monkeypatch):
    monkeypatch.setattr(venn, "_AT_ONCE", at_once)
    for seed in range(4):
        arrays, sets = lists_of(count, 400, seed, narrow=narrow)
        assert cells(arrays, NAMES[:count]) == plain(sets)


def test_empty_lists_have_empty_cells():
    none = np.zeros((0, 32), dtype=np.uint8)
    assert set(cells({"art": none, "books": none}, ("art", "books")).values()) == {0}


def test_files_are_read_a_range_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(venn, "_AT_ONCE", 100)
    arrays, sets = lists_of(3, 900, 5)
    files = {}
    for name, array in arrays.items():
        array.tofile(tmp_path / name)
        files[name] = np.memmap(tmp_path / name, dtype=np.uint8, mode="r", shape=array.shape)
    greatest = 0
    masks = venn._masks

    def seen(points, bits):
        nonlocal greatest
        greatest = max(greatest, len(points))
        return masks(points, bits)

    monkeypatch.setattr(venn, "_masks", seen)
    assert cells(files, NAMES[:3]) == plain(sets)
    assert greatest < 300  # of more than a thousand


@pytest.mark.parametrize("change", ["swapped", "twice"])
def test_a_list_out_of_order_or_with_equal_points_is_refused(change):
    arrays, _ = lists_of(2, 100, 1)
    bad = arrays["books"].copy()
    bad[[3, 4]] = bad[[4, 3]] if change == "swapped" else bad[[3, 3]]
    with pytest.raises(PeerFault, match="list of books: is not in ascending order") as caught:
        cells({**arrays, "books": bad}, ("art", "books"))
    assert caught.value.partner == "books"


@pytest.mark.parametrize("names", [("art",), ("art", "books", "cars")])
def test_lists_of_all_partners_are_counted_and_no_others(names):
    arrays, _ = lists_of(2, 10, 1)
    with pytest.raises(MatchFault, match="of all partners"):
        cells(arrays, names)


def raw_of(terms, true):
    """Return raw cells whose noise is nought: the expectation of the dummies, canaries, and what is true."""
    width, names = spread(terms.sigma), terms.names
    every = (frozenset(part) for size in range(1, len(names) + 1) for part in itertools.combinations(names, size))
    found = {cell: len(names) * width // 2 + true.get(cell, 0) for cell in every}
    found[frozenset(names)] += 8
    return found


def cell(text):
    return frozenset(text.split())


def test_without_noise_every_sum_is_the_true_one():
    terms = terms_of(3, least=10)
    true = {
        cell("art"): 100,
        cell("books"): 9,
        cell("art books"): 40,
        cell("books cars"): 15,
        cell("art books cars"): 7,
    }
    found = overlap(terms, raw_of(terms, true))
    shown = {one.partners: one.customers for one in (*found.cells, *found.pairs)}
    assert shown[("art",)] == 100
    assert shown[("books",)] is None
    assert shown[("cars",)] is None
    assert shown[("art", "books", "cars")] is None
    assert {one.partners: one.customers for one in found.totals} == {("art",): 147, ("books",): 71, ("cars",): 22}
    pairs = {("art", "books"): 47, ("art", "cars"): None, ("books", "cars"): 22}
    assert {one.partners: one.customers for one in found.pairs} == pairs
    assert [(one.partners, one.customers) for one in found.multiplicity] == [
        (("1",), 109),
        (("2",), 55),
        (("3",), None),
    ]


@pytest.mark.parametrize(("customers", "shown"), [(9, None), (10, 10), (-400, None)])
def test_it_is_the_noisy_count_that_is_held_against_the_least(customers, shown):
    terms = terms_of(2, least=10, sigma=30.0)
    raw = raw_of(terms, {cell("art"): customers})
    assert overlap(terms, raw).cells[0].customers == shown


def test_deviations_are_those_of_the_sums_of_all_noise():
    """By brute force: unit noise is put in one set of dummies at a time, and what moves is squared and summed."""
    terms = terms_of(4, sigma=2.0)
    names = terms.names
    zero = overlap(terms, raw_of(terms, dict.fromkeys(raw_of(terms, {}), 10**6)))
    squares = {}
    for name in names:
        others = [one for one in names if one != name]
        for part in (set(p) for size in range(4) for p in itertools.combinations(others, size)):
            noise = {frozenset({name, *part}): 1}
            if part:
                noise[frozenset(part)] = -1
            raw = raw_of(terms, {one: 10**6 + noise.get(one, 0) for one in raw_of(terms, {})})
            moved = overlap(terms, raw)
            for kind in ("cells", "totals", "pairs", "multiplicity"):
                for one, before in zip(getattr(moved, kind), getattr(zero, kind), strict=True):
                    key = (kind, one.partners)
                    squares[key] = squares.get(key, 0) + (one.customers - before.customers) ** 2
    for kind in ("cells", "totals", "pairs", "multiplicity"):
        for one in getattr(zero, kind):
            assert one.deviation == pytest.approx(2.0 * math.sqrt(squares[kind, one.partners]))


def test_counts_are_written_as_plain_values_and_read_again():
    terms = terms_of(3, least=10)
    found = overlap(terms, raw_of(terms, {cell("art books"): 40}))
    assert Overlap.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("change", [{"cells": None}, {"names": 3}, {"more": 1}, {"cells": [{"partners": ["art"]}]}])
def test_counts_that_are_not_those_of_a_match_are_refused(change):
    table = overlap(terms_of(2), raw_of(terms_of(2), {})).to_dict()
    with pytest.raises(MatchFault, match="not those of a match"):
        Overlap.from_dict({**table, **change})


def test_rows_are_not_counted():
    with pytest.raises(MatchFault, match="counted alone"):
        overlap(terms_of(2, "rows"), {})


def test_canaries_name_the_list_that_went_apart():
    terms = terms_of(3)
    apart = dict.fromkeys(raw_of(terms, {}), 0)
    apart |= {cell("art cars"): 20, cell("books"): 30}
    with pytest.raises(PeerFault, match="the list of books: does not hold the canaries"):
        check_canaries(terms, apart)


@pytest.mark.parametrize("count", [2, 3])
def test_canaries_that_agree_nowhere_name_nobody(count):
    terms = terms_of(count)
    alone = {one: 30 if len(one) == 1 else 0 for one in raw_of(terms, {})}
    with pytest.raises(PeerFault, match="do not agree in their canaries"):
        check_canaries(terms, alone)
