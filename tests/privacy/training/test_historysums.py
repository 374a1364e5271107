"""Counts and Gram sums against one customer at a time, and how much one customer can change them, in whole numbers."""

import math

import numpy as np
import pytest

from coterie.privacy.training import historysums
from coterie.privacy.training.historysums import Units, count_total, gram_total

ITEMS, KEPT, UNITS, UNBOUND, LONGEST = 40, 12, 2**16, 2**62, 30
POSITION = np.full(ITEMS, -1)
POSITION[[3, 30, 7, 8, 9, 21, 22, 1, 0, 39, 17, 12]] = np.arange(KEPT)  # not in the catalogue's order
SCALE = np.linspace(0.3, 1.0, KEPT)

SHAPES = {
    "usual": SCALE,
    "far apart": np.geomspace(1e-150, 1e150, KEPT),
    "vanishing": np.full(KEPT, 1e-300),
    "overflowing": np.full(KEPT, 1e300),
    "not numbers": np.where(np.arange(KEPT) % 2 == 0, np.nan, np.inf),
    "of both signs": np.linspace(-1.0, 1.0, KEPT),
}


def some(customers, seed, longest=20):
    draw = np.random.default_rng(seed)
    return [draw.choice(ITEMS, draw.integers(0, longest + 1), replace=False) for _ in range(customers)]


def packed(histories):
    starts = np.cumsum([0, *(len(own) for own in histories)])
    return starts, np.concatenate([np.asarray(own, dtype=np.int64) for own in histories])


def units(**changes):
    return Units(**{"sensitivity": UNITS, "bound": UNBOUND, **changes})


def counts(histories, **changes):
    return count_total(*packed(histories), size=ITEMS, units=units(**changes))


def gram(histories, scale=SCALE, longest=LONGEST, **changes):
    asked = {"position": POSITION, "scale": scale, "longest": longest, "units": units(**changes)}
    return gram_total(*packed(histories), **asked)


def own_matrix(history):
    """Return a customer's unit-length z z' by dense arithmetic."""
    row = np.zeros(KEPT)
    places = POSITION[history]
    row[places[places >= 0]] = SCALE[places[places >= 0]]
    return np.outer(row, row) / max(row @ row, 1e-300)


def matrix(triangle):
    """Rebuild a symmetric matrix from its isometric triangle."""
    square = np.zeros((KEPT, KEPT))
    square[np.triu_indices(KEPT)] = triangle
    off = np.triu(square, 1) / math.sqrt(2)
    return off + off.T + np.diag(np.diag(square))


def squares(vector):
    return sum(int(value) ** 2 for value in vector)


# --- what the sums are ----------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [2**14, 2**20])
def test_the_counts_are_the_customers_items_at_unit_length(most):
    histories = some(50, 1)
    wanted = np.zeros(ITEMS)
    for own in histories:
        wanted[own] += 1 / math.sqrt(max(len(own), 1))
    total = counts(histories, sensitivity=most)
    assert total.dtype == np.int64
    # A half for rounding, and sqrt(20) / 2 units in a customer's length that are left for it.
    np.testing.assert_allclose(total, wanted * most, atol=50 * (0.5 + math.sqrt(20) / 2))


@pytest.mark.parametrize("most", [2**14, 2**20])
def test_the_gram_rebuilt_is_the_sum_of_each_customer_s_own_matrix(most):
    histories = some(50, 2)
    wanted = sum(own_matrix(own) for own in histories)
    total = gram(histories, sensitivity=most)
    assert total.dtype == np.int64
    # Left for rounding: half of sqrt(12 * 13 / 2) units in a customer's length, and a half in each coordinate.
    np.testing.assert_allclose(matrix(total / most), wanted, atol=50 * (0.5 + math.sqrt(78) / 2) / most)


def test_the_triangle_is_as_long_as_the_matrix_so_that_one_customer_is_one_unit_long():
    for own in some(30, 3):
        if (POSITION[own] >= 0).any():
            triangle = gram([own], sensitivity=2**20)
            assert math.isqrt(squares(triangle)) / 2**20 == pytest.approx(1.0, abs=2e-5)
            assert np.linalg.norm(own_matrix(own)) == pytest.approx(1.0)


def test_a_triangle_without_the_root_of_two_rebuilds_to_another_matrix(monkeypatch):
    histories = some(50, 2)
    wanted = sum(own_matrix(own) for own in histories)
    real = historysums._products

    def one_sided(scaled, rows, columns):
        return real(scaled, rows, columns) / np.where(rows == columns, 1.0, math.sqrt(2))

    monkeypatch.setattr(historysums, "_products", one_sided)
    assert np.abs(matrix(gram(histories) / UNITS) - wanted).max() > 0.1


def test_the_order_of_a_customer_s_items_and_of_the_customers_changes_nothing():
    histories = some(40, 4)
    other = [own[::-1] for own in reversed(histories)]
    assert gram(other).tolist() == gram(histories).tolist()
    assert counts(other).tolist() == counts(histories).tolist()


def test_nobody_and_customers_without_items_add_zeros():
    assert not counts([[]]).any()
    assert not gram([[], [], []]).any()
    assert not gram([[2, 4]]).any()  # none of the kept items
    assert not count_total(np.array([0]), np.array([], dtype=np.int64), size=3, units=units()).any()


def test_items_outside_the_catalogue_count_for_nothing():
    assert counts([[1, -1, ITEMS, 5]]).tolist() == counts([[1, 5]]).tolist()
    assert gram([[1, -1, ITEMS, 7, -ITEMS]]).tolist() == gram([[1, 7]]).tolist()


def test_only_the_last_items_of_a_long_history_count_in_the_gram():
    history = np.random.default_rng(5).permutation(ITEMS)
    assert gram([history], longest=9).tolist() == gram([history[-9:]], longest=9).tolist()
    assert gram([history], longest=9).tolist() != gram([history], longest=ITEMS).tolist()


# --- what one customer can change -----------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_customer_more_moves_the_sums_by_its_own_vector_alone_and_at_most_by_the_sensitivity(shape, parts):
    histories = [*some(30, 6), np.arange(ITEMS), np.array([3]), np.array([3, 30])]
    changes = {"scale": SHAPES[shape], "longest": ITEMS, "parts": parts}
    all_counts, all_gram = counts(histories, parts=parts), gram(histories, **changes)
    most = (UNITS // parts) ** 2
    for place, own in enumerate(histories):
        others = [*histories[:place], *histories[place + 1 :]]
        moved = all_gram - gram(others, **changes)
        assert moved.tolist() == gram([own], **changes).tolist()
        assert squares(moved) <= most
        moved = all_counts - counts(others, parts=parts)
        assert moved.tolist() == counts([own], parts=parts).tolist()
        assert squares(moved) <= most


def test_a_person_at_three_partners_moves_the_sum_of_all_by_at_most_the_sensitivity():
    same = [np.array([3, 30, 7])]
    assert squares(3 * gram(same, parts=3)) <= UNITS**2
    assert squares(3 * gram(same, parts=3)) > 0.99 * UNITS**2
    assert squares(3 * counts(same, parts=3)) <= UNITS**2
    assert squares(3 * gram(same)) > 8 * UNITS**2


def test_an_item_that_is_there_many_times_is_there_once():
    repeated = np.repeat([3, 30, 7], [1, 9, 5])
    assert squares(gram([repeated])) <= UNITS**2
    assert gram([repeated]).tolist() == gram([[3, 30, 7]]).tolist()
    assert counts([repeated]).tolist() == counts([[3, 30, 7]]).tolist()


@pytest.mark.parametrize("fault", ["unclipped", "a breach of rounding"])
def test_a_vector_that_is_too_long_is_found_in_whole_numbers_and_is_zeros(fault):
    heavy = np.full((1, 9), 0.34 if fault == "unclipped" else 1 / 3 * (1 + 2e-4))
    usual = np.full((1, 9), 1 / 3)
    together = historysums._whole(np.vstack([heavy, usual]), UNITS)
    assert not together[0].any()
    assert squares(together[1]) <= UNITS**2
    assert squares(together[1]) > 0.99 * UNITS**2


def test_pieces_of_any_size_give_the_same_sums(monkeypatch):
    histories = some(60, 7)
    wanted = gram(histories), counts(histories)
    monkeypatch.setattr(historysums, "_CELLS", 5)
    assert gram(histories).tolist() == wanted[0].tolist()
    assert counts(histories).tolist() == wanted[1].tolist()


def test_the_sums_are_held_within_the_bound():
    histories = [np.array([3, 30])] * 10
    assert gram(histories, bound=1000).max() == 1000
    assert counts(histories, bound=1000).max() == 1000
    assert gram([np.array([3, 39])] * 10, scale=SHAPES["of both signs"], bound=1000).min() == -1000


def test_too_few_units_for_the_longest_history_are_refused_whoever_is_there():
    with pytest.raises(ValueError, match="more units"):
        gram([[]], sensitivity=2**14, longest=20_000)
    with pytest.raises(ValueError, match="more units"):
        counts([[]], sensitivity=8)


@pytest.mark.parametrize(
    "changes", [{"sensitivity": 0}, {"sensitivity": 2**20 + 1}, {"bound": 0}, {"bound": 2**62 + 1}, {"parts": 0}]
)
def test_units_out_of_range_are_refused(changes):
    with pytest.raises(ValueError, match="parts <= sensitivity"):
        units(**changes)
