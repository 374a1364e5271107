"""Sums of a sweep against one dense vector per customer, and how much one customer can change them."""

import itertools
import math

import numpy as np
import pytest
import torch

from coterie.privacy.training import alssums
from coterie.privacy.training.alssums import AlsSettings, als_total, solved
from coterie.privacy.training.historysums import Units

ITEMS, KEPT, SIZE = 30, 18, 4
CELLS = SIZE * (SIZE + 1) // 2
POSITION = np.full(ITEMS, -1)
POSITION[np.random.default_rng(0).permutation(ITEMS)[:KEPT]] = np.arange(KEPT)


def asked(**changes):
    plain = {"longest": 12, "unobserved": 0.7, "ridge": 0.05, "curvature": 0.3, "whole": 0.5}
    return AlsSettings(**{**plain, **changes})


def units(**changes):
    return Units(**{"sensitivity": 2**16, "bound": 2**50, **changes})


def table(customers, seed=1, most=12):
    draw = np.random.default_rng(seed)
    lists = [draw.permutation(ITEMS)[: draw.integers(0, most + 1)] for _ in range(customers)]
    return np.cumsum([0, *map(len, lists)]), np.concatenate([*lists, np.zeros(0, np.int64)]).astype(np.int64)


def some_factors(seed=2, scale=0.6):
    return (scale * np.random.default_rng(seed).normal(size=(KEPT, SIZE))).astype(np.float32)


def total(starts, items, factors=None, **changes):
    of_units = {name: changes.pop(name) for name in ("sensitivity", "bound", "parts") if name in changes}
    factors = some_factors() if factors is None else factors
    return als_total(
        starts, items, position=POSITION, factors=factors, settings=asked(**changes), units=units(**of_units)
    )


# --- an oracle: one customer at a time, dense, by numpy's own solver ------------------------------------


def triangle(vector):
    rows, columns = np.triu_indices(len(vector))
    return vector[rows] * vector[columns] * np.where(rows == columns, 1, math.sqrt(2))


def own_vector(own, factors, unobserved=0.7, ridge=0.05):
    """A customer's own solution by the normal equations of the weighted least squares."""
    factors = factors.astype(float)
    weight, target = np.full(len(factors), unobserved), np.zeros(len(factors))
    weight[own] += 1
    target[own] = 1 / weight[own]
    left = factors.T @ (weight[:, None] * factors) + ridge * weight.sum() * np.eye(factors.shape[1])
    return np.linalg.solve(left, factors.T @ (weight * target))


def dense(items, factors, longest=12, curvature=0.3, whole=0.5):
    """What one customer adds before it is brought to length."""
    own = np.unique([POSITION[item] for item in items[-longest:] if POSITION[item] >= 0]).astype(int)
    vector = own_vector(own, factors) if len(own) else np.zeros(SIZE)
    products, vectors = np.zeros((KEPT, CELLS)), np.zeros((KEPT, SIZE))
    products[own], vectors[own] = curvature * triangle(vector), vector
    return np.concatenate([products.ravel(), vectors.ravel(), whole * triangle(vector)])


def each(starts, items, factors, **changes):
    return [dense(items[a:b], factors, **changes) for a, b in itertools.pairwise(starts)]


def squared(vector):
    return int((vector.astype(object) ** 2).sum())


# --- what is summed -------------------------------------------------------------------------------------


def test_a_total_is_the_sum_of_every_customer_s_vector_at_unit_length():
    starts, items = table(60)
    factors = some_factors()
    lengths = [np.linalg.norm(one) for one in each(starts, items, factors)]
    assert min(length for length in lengths if length) < 0.5 * max(lengths)
    wanted = sum(one / np.linalg.norm(one) for one in each(starts, items, factors) if one.any())
    found = total(starts, items, factors, sensitivity=2**20)
    # Less room for rounding, and 60 roundings of a half.
    assert np.abs(found / 2**20 - wanted).max() < 60 * 0.5 / 2**20 + np.abs(wanted).max() * 1e-4


def test_a_clip_cuts_long_vectors_and_leaves_short_ones():
    starts, items = table(60)
    factors, found = some_factors(), each(*table(60), some_factors())
    clip = float(np.median([np.linalg.norm(one) for one in found]))
    wanted = sum(one / max(np.linalg.norm(one), clip) for one in found)
    assert np.abs(total(starts, items, factors, sensitivity=2**20, clip=clip) / 2**20 - wanted).max() < 5e-4
    unclipped = sum(found) / 50
    assert np.abs(total(starts, items, factors, sensitivity=2**20, clip=50.0) / 2**20 - unclipped).max() < 5e-5


def test_customers_vectors_are_numpy_s_solutions_to_the_last_digits():
    starts, items = table(200)
    factors = some_factors()
    last = alssums._last(starts, items, POSITION, 12)
    owners = np.unique(last[0])
    found = {}
    for few, lengths in alssums._pieces(last, KEPT, CELLS + SIZE):
        for places, vector in zip(few, alssums._vectors(few, lengths, alssums._table(factors), asked()), strict=True):
            found[tuple(places[places < KEPT].tolist())] = vector.numpy()
    assert len(owners) > 150
    for owner in owners:
        own = last[1][last[0] == owner]
        wanted = own_vector(own, factors)
        assert np.abs(found[tuple(own.tolist())] - wanted).max() <= 1e-12 * np.abs(wanted).max()


@pytest.mark.parametrize("size", [1, 2, 5, 16, 33])
def test_systems_are_solved_as_numpy_solves_them(size):
    draw = np.random.default_rng(size)
    roots = draw.normal(size=(20, size, size))
    matrices, right = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(size), draw.normal(size=(20, size))
    found = solved(torch.from_numpy(matrices), torch.from_numpy(right)).numpy()
    assert np.abs(np.einsum("bij,bj->bi", matrices, found) - right).max() < 1e-9
    wanted = np.linalg.solve(matrices, right[:, :, None])[:, :, 0]
    np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-9)


def test_only_a_customer_s_last_items_count_and_each_once():
    items = np.flatnonzero(POSITION >= 0)
    last = total(np.array([0, 3]), items[6:9], longest=3).tolist()
    assert total(np.array([0, 9]), items[:9], longest=3).tolist() == last
    twice = np.array([items[4], items[2], items[4]])
    assert total(np.array([0, 3]), twice).tolist() == total(np.array([0, 2]), items[[2, 4]]).tolist()


def test_items_outside_the_kept_ones_and_outside_the_catalogue_count_for_nothing():
    kept, others = np.flatnonzero(POSITION >= 0), np.flatnonzero(POSITION < 0)
    odd = np.concatenate([kept[:3], others[:2], [-1, ITEMS, 10**12]])
    assert total(np.array([0, 8]), odd).tolist() == total(np.array([0, 3]), kept[:3]).tolist()


@pytest.mark.parametrize("lists", [[], [[]], [[], []]])
def test_nobody_and_nothing_are_zeros(lists):
    starts = np.zeros(len(lists) + 1, np.int64)
    found = total(starts, np.zeros(0, np.int64))
    assert found.tolist() == [0] * (KEPT * (CELLS + SIZE) + CELLS)
    assert found.dtype == np.int64


# --- sensitivity ----------------------------------------------------------------------------------------


def nasty(seed):
    """Factors that cancel over nine orders of magnitude: what is left of a sum is rounding alone."""
    draw = np.random.default_rng(seed)
    half = 10.0 ** draw.uniform(-3, 6, (KEPT // 2, SIZE)) * draw.choice([-1, 1], (KEPT // 2, SIZE))
    return np.concatenate([half, -draw.permutation(half)]).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("clip", [0.0, 3.0])
def test_one_customer_changes_a_total_by_its_own_vector_and_at_most_the_sensitivity(seed, clip):
    factors = nasty(seed) if seed else some_factors()
    starts, items = table(41, seed)
    whole = total(starts, items, factors, clip=clip, ridge=1e-9)
    moved = 0
    for out in range(41):
        a, b = starts[out], starts[out + 1]
        fewer = np.concatenate([starts[: out + 1], starts[out + 2 :] - (b - a)])
        rest = total(fewer, np.concatenate([items[:a], items[b:]]), factors, clip=clip, ridge=1e-9)
        alone = total(np.array([0, b - a]), items[a:b], factors, clip=clip, ridge=1e-9)
        assert (whole - rest).tolist() == alone.tolist()
        assert squared(alone) <= 2**32
        moved = max(moved, squared(alone))
    if not clip:
        assert moved > 0.97 * 2**32


def test_no_bit_of_a_customer_s_vector_depends_on_who_else_is_there(monkeypatch):
    seen = []
    real = alssums._vectors

    def watched(few, lengths, table_, settings):
        found = real(few, lengths, table_, settings)
        seen.append({tuple(p[p < KEPT].tolist()): v.numpy().tobytes() for p, v in zip(few, found, strict=True)})
        return found

    monkeypatch.setattr(alssums, "_vectors", watched)
    starts, items = table(150, 7)
    factors = nasty(7)
    total(starts, items, factors, ridge=1e-9)
    together = {key: value for one in seen for key, value in one.items()}
    for customer in range(150):
        seen.clear()
        own = items[starts[customer] : starts[customer + 1]]
        total(np.array([0, len(own)]), own, factors, ridge=1e-9)
        for one in seen:
            for key, value in one.items():
                assert together[key] == value


@pytest.mark.parametrize("parts", [2, 5])
def test_a_person_at_several_partners_gets_a_part_at_each(parts):
    starts, items = table(1, 3, most=9)
    alone = total(starts, items, parts=parts)
    assert 0.9 * (2**16 // parts) ** 2 < squared(alone) <= (2**16 // parts) ** 2


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38, 0.0])
def test_factors_that_cannot_be_give_zeros_or_keep_the_sensitivity(value):
    starts, items = table(20)
    factors = some_factors()
    factors[3, 1] = value
    for a, b in itertools.pairwise(starts):
        assert squared(total(np.array([0, b - a]), items[a:b], factors)) <= 2**32
    assert not total(starts, items, np.full((KEPT, SIZE), np.inf, np.float32)).any()
    assert not total(starts, items, np.zeros((KEPT, SIZE), np.float32)).any()


def test_a_total_is_held_within_its_bound():
    starts, items = table(80)
    free, held = total(starts, items), total(starts, items, bound=9_000)
    assert np.abs(free).max() > 9_000
    assert held.tolist() == np.clip(free, -9_000, 9_000).tolist()


def test_pieces_of_any_size_give_the_same_total(monkeypatch):
    starts, items = table(90)
    whole = total(starts, items)
    monkeypatch.setattr(alssums, "_CELLS", 1)
    assert total(starts, items).tolist() == whole.tolist()


# --- planted faults -------------------------------------------------------------------------------------


def test_customers_that_are_not_brought_to_length_are_zeros(monkeypatch):
    real = alssums._whole
    monkeypatch.setattr(alssums, "_whole", lambda *a, limit, most: real(*a, limit=1.3 * limit, most=most))
    assert not total(*table(20)).any()


def test_a_norm_that_takes_one_item_for_all_is_seen(monkeypatch):
    real, ones = alssums._whole, torch.ones_like
    starts, items = table(20)
    monkeypatch.setattr(alssums, "_whole", lambda parts, n, *a, **k: real(parts, ones(n), *a, **k))
    changes = [squared(total(np.array([0, b - a]), items[a:b])) for a, b in itertools.pairwise(starts)]
    assert max(changes) > 2**32


# --- refusals -------------------------------------------------------------------------------------------


def test_a_sensitivity_without_room_for_rounding_is_refused_whoever_is_there():
    with pytest.raises(ValueError, match="want more units"):
        total(np.array([0]), np.zeros(0, np.int64), sensitivity=20)


@pytest.mark.parametrize(
    "wrong",
    [
        {"longest": 0},
        {"unobserved": 0.0},
        {"ridge": math.nan},
        {"curvature": -1.0},
        {"whole": math.inf},
        {"clip": -0.1},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="above 0"):
        asked(**wrong)
