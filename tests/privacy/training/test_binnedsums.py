"""Counts of cells and clipped residuals against one row at a time, and how much one customer can change them."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chi2

from coterie.models.binning import one_hot
from coterie.privacy.randomness import SeededSource
from coterie.privacy.training import binnedsums
from coterie.privacy.training.binnedsums import Judged, ResidualSettings, cell_total, residual_total

UNBOUND = 2**62
EXACT_MARGINS = (0.0, 500.0, 1e6, -500.0, -1e6)  # of which residuals are whole halves, but for 1e-217
HOSTILE = (*EXACT_MARGINS, math.inf, -math.inf, 1e-300, -1e-300, 36.7, -36.7, 0.1)
SIZES = (1, 2, 3, 7, 64, 65, 255, 256)  # rows of a customer
RARE = 1e-6


def settings_of(**changes):
    plain = {"clip": 1.0, "sensitivity": 2**16, "bound": UNBOUND, "sample_rate": 1.0, "positive_weight": 1.0}
    return ResidualSettings(**{**plain, **changes})


def stream(label="sample"):
    return SeededSource(b"bins").stream(label)


def total(data, *, width, label="sample", **changes):
    slots, told, labels, customer = data
    judged = Judged(told, labels, customer)
    return residual_total(slots, judged, width=width, settings=settings_of(**changes), stream=stream(label))


def without(data, one):
    """The data of everybody but one customer."""
    kept = data[-1] != one
    return tuple(part[kept] for part in data)


def only(data, one):
    kept = data[-1] == one
    return tuple(part[kept] for part in data)


def squares(vector):
    return sum(int(value) ** 2 for value in vector)


def table(seed, *, customers=6, active=4, choices=3, margins=HOSTILE, longest=256):
    """Rows of some customers, of which the first has the most rows: slots, margins, labels, customer."""
    draw = np.random.default_rng(seed)
    rows = [longest, *(int(draw.choice(SIZES[:5])) for _ in range(customers - 1))]
    customer = draw.permutation(np.repeat(draw.choice(10**6, customers, replace=False), rows))
    slots = draw.integers(0, choices, (len(customer), active)) + choices * np.arange(active)
    told = draw.choice(margins, len(customer)).astype(np.float64)
    return slots, told, draw.integers(0, 2, len(customer)).astype(np.float32), customer


# --- oracles: one customer, one row, one column at a time -----------------------------------------------------


def toward_zero(value: Fraction) -> int:
    return math.floor(value) if value >= 0 else -math.floor(-value)


def own_cells(cells, customer, *, width, sensitivity):
    """Each customer's rows count the same in each of their cells, together at most the sensitivity long."""
    found = {int(one): [0] * width for one in set(customer.tolist())}
    for row, one in zip(cells.tolist(), customer.tolist(), strict=True):
        rows = customer.tolist().count(one)
        for cell in row:
            found[one][cell] += math.isqrt(sensitivity**2 // len(row)) // rows
    return found


def own_residuals(data, *, width, **changes):
    """Each customer's part: of every row the residual over the customer's rows, in units, clipped by itself."""
    asked = settings_of(**changes)
    slots, told, labels, customer = data
    found = {int(one): [0] * (width + 1) for one in set(customer.tolist())}
    sizes = {one: customer.tolist().count(one) for one in found}
    for row, margin, label, one in zip(slots.tolist(), told.tolist(), labels.tolist(), customer.tolist(), strict=True):
        chance = Fraction(1, 2) if margin == 0 else Fraction(int(margin > 0))
        residual = (chance - int(label)) * (Fraction(asked.positive_weight) if label else 1)
        whole = toward_zero(residual * asked.sensitivity / Fraction(asked.clip) / sizes[one])
        most = math.isqrt(asked.sensitivity**2 // (len(row) + 1)) // sizes[one]
        whole = max(-most, min(most, whole))
        for place in (*row, width):
            found[one][place] += whole
    return found


# --- what the sums are ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sensitivity", [2**14, 2**20, 12_345])
@pytest.mark.parametrize("columns", [1, 2, 7])
def test_cells_are_counted_as_one_row_after_the_other_counts_them(columns, sensitivity):
    slots, _, _, customer = table(1, active=columns)
    own = own_cells(slots, customer, width=3 * columns, sensitivity=sensitivity)
    found = cell_total(slots, customer, width=3 * columns, sensitivity=sensitivity, bound=UNBOUND)
    assert found.dtype == np.int64
    assert found.tolist() == [sum(column) for column in zip(*own.values(), strict=True)]
    unit = sensitivity / math.sqrt(columns)
    assert found.sum() / unit / columns == pytest.approx(6, rel=0.05)  # the customers


@pytest.mark.parametrize("positive_weight", [1.0, 0.25, 5.0])
@pytest.mark.parametrize("clip", [2.0**-19, 0.5, 2.0, 512.0])
@pytest.mark.parametrize("sensitivity", [2**14, 2**20])
def test_residuals_add_up_as_fractions_of_one_row_after_the_other_do(sensitivity, clip, positive_weight):
    data = table(2, margins=EXACT_MARGINS)
    asked = {"clip": clip, "sensitivity": sensitivity, "positive_weight": positive_weight}
    own = own_residuals(data, width=12, **asked)
    assert total(data, width=12, **asked).tolist() == [sum(column) for column in zip(*own.values(), strict=True)]


@pytest.mark.parametrize("positive_weight", [1.0, 3.0])
def test_where_nothing_is_clipped_the_sum_is_that_of_every_customer_s_gradient_by_autograd(lab, positive_weight):
    active, width = 4, 12
    slots, told, labels, customer = table(3, margins=(0.0,), longest=9)
    draw = np.random.default_rng(3)
    weights = draw.normal(size=(1, width)).astype(np.float32), np.array([-0.4], np.float32)
    features = one_hot(slots, width)
    told = features.astype(np.float64) @ weights[0][0].astype(np.float64) + float(weights[1][0])
    wanted = np.zeros(width + 1)
    for one in np.unique(customer):
        mine = customer == one
        wanted += lab.gradient("additive", weights, features[mine], labels[mine], positive_weight)
    clip, units = 16.0, 2**20
    found = total(
        (slots, told, labels, customer),
        width=width,
        clip=clip,
        sensitivity=units,
        positive_weight=positive_weight,
    )
    # Towards zero by less than a unit a row, and the autograd of a model in float32.
    np.testing.assert_allclose(found * clip / units, wanted, atol=len(told) * clip / units + 1e-5)
    assert np.abs(wanted).max() > 0.5
    assert positive_weight * math.sqrt(active + 1) < clip


def test_a_row_s_part_is_its_own_wherever_it_stands_and_whoever_is_there():
    draw = np.random.default_rng(4)
    told = draw.normal(size=1000) * 3
    slots, labels, customer = np.arange(1000)[:, None], draw.integers(0, 2, 1000).astype(np.float32), np.arange(1000)
    together = total((slots, told, labels, customer), width=1000, sensitivity=2**20)[:1000]
    data = slots, told, labels, customer
    for row in draw.choice(1000, 60, replace=False):
        alone = total(tuple(part[row : row + 1] for part in data), width=1000, sensitivity=2**20)
        others = total(tuple(part[row:] for part in data), width=1000, sensitivity=2**20)
        assert alone[row] == others[row] == together[row] != 0


def test_nobody_at_all_is_zeros():
    empty = np.empty((0, 3), np.int64), np.empty(0), np.empty(0, np.float32), np.empty(0, np.int64)
    assert total(empty, width=5).tolist() == [0] * 6
    assert cell_total(empty[0], empty[3], width=5, sensitivity=100, bound=10).tolist() == [0] * 5


# --- what one customer changes --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("clip", [1e-6, 0.7, 2.6, 1000.0])
@pytest.mark.parametrize("positive_weight", [1e-3, 1.0, 7.3, 1000.0])
def test_a_customer_s_part_is_within_the_sensitivity_and_moves_nobody_else_s(seed, clip, positive_weight):
    data, asked = table(10 + seed), {"clip": clip, "positive_weight": positive_weight, "sensitivity": 2**14 << seed}
    everybody = total(data, width=12, **asked)
    cells = cell_total(data[0], data[-1], width=12, sensitivity=asked["sensitivity"], bound=UNBOUND)
    for one in np.unique(data[-1]):
        change = everybody - total(without(data, one), width=12, **asked)
        assert squares(change) <= asked["sensitivity"] ** 2
        assert change.tolist() == total(only(data, one), width=12, **asked).tolist()
        rest = without(data, one)
        change = cells - cell_total(rest[0], rest[-1], width=12, sensitivity=asked["sensitivity"], bound=UNBOUND)
        assert squares(change) <= asked["sensitivity"] ** 2


def greatest(rows, active, *, sensitivity, clip, positive_weight):
    """The longest that a customer of so many rows was made, by rows that all say one thing loudly in one place."""
    found = 0
    for label, margin in ((1.0, -1e6), (0.0, 1e6), (1.0, 0.0), (0.0, 3.1)):
        slots = np.tile(np.arange(active), (rows, 1))
        data = slots, np.full(rows, margin), np.full(rows, label, np.float32), np.zeros(rows, np.int64)
        asked = {"sensitivity": sensitivity, "clip": clip, "positive_weight": positive_weight}
        found = max(found, squares(total(data, width=active, **asked)))
    return found


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 256),
    active=st.integers(1, 60),
    sensitivity=st.integers(2**14, 2**20),
    clip=st.sampled_from([1e-6, 0.01, 1.0, 1000.0]),
    positive_weight=st.sampled_from([0.5, 1.0, 1000.0]),
)
def test_the_most_hostile_customer_is_no_longer_than_the_sensitivity(rows, active, sensitivity, clip, positive_weight):
    asked = {"sensitivity": sensitivity, "clip": clip, "positive_weight": positive_weight}
    assert greatest(rows, active, **asked) <= sensitivity**2
    cells = np.tile(np.arange(active), (rows, 1))
    counted = cell_total(cells, np.zeros(rows, np.int64), width=active, sensitivity=sensitivity, bound=UNBOUND)
    assert squares(counted) <= sensitivity**2


@pytest.mark.parametrize("active", [1, 3, 8, 40])
def test_the_sensitivity_is_not_much_more_than_what_a_customer_reaches(active):
    asked = {"sensitivity": 2**20, "clip": 0.01, "positive_weight": 1.0}
    for rows in (1, 2, 256):
        assert greatest(rows, active, **asked) > 0.99 * 2**40
    one = cell_total(np.arange(active)[None, :], np.zeros(1, np.int64), width=active, sensitivity=2**20, bound=UNBOUND)
    assert squares(one) > 0.9999 * 2**40


def test_climbing_towards_longer_changes_finds_none_beyond_the_sensitivity():
    """From random customers, changes of one row at a time are kept where the customer gets longer."""
    draw, asked = np.random.default_rng(8), {"sensitivity": 2**15, "clip": 1.3, "positive_weight": 2.5}
    best = 0
    for _ in range(6):
        rows = int(draw.choice([2, 5, 33]))
        slots = draw.integers(0, 3, (rows, 3)) + 3 * np.arange(3)
        told, labels = draw.normal(size=rows) * 4, draw.integers(0, 2, rows).astype(np.float32)
        customer, longest = np.zeros(rows, np.int64), 0
        for _ in range(150):
            row, tried = int(draw.integers(rows)), (slots.copy(), told.copy(), labels.copy())
            tried[0][row] = draw.integers(0, 3, 3) + 3 * np.arange(3)
            tried[1][row] = draw.choice([draw.normal() * 10, *HOSTILE])
            tried[2][row] = draw.integers(2)
            length = squares(total((*tried, customer), width=9, **asked))
            assert length <= 2**30
            if length >= longest:
                longest, (slots, told, labels) = length, tried
        best = max(best, longest)
    assert best > 0.8 * 2**30


# --- planted faults -------------------------------------------------------------------------------------------


def one_loud(rows):
    """A customer whose rows all say one thing loudly in one place, beside a quiet one."""
    slots = np.tile(np.arange(3), (rows + 1, 1))
    customer = np.array([*[0] * rows, 1])
    return slots, np.full(rows + 1, -1e6), np.ones(rows + 1, np.float32), customer


def moved(data, **changes):
    return squares(total(data, width=3, **changes) - total(without(data, 0), width=3, **changes))


def test_rows_that_are_taken_for_customers_are_rejected(monkeypatch):
    assert moved(one_loud(2), clip=0.1) <= 2**32
    monkeypatch.setattr(binnedsums, "_rows", lambda customer: np.ones(len(customer), np.int64))
    assert moved(one_loud(2), clip=0.1) > 2**32


def test_residuals_that_are_not_clipped_are_rejected(monkeypatch):
    assert moved(one_loud(1), clip=0.1) <= 2**32
    monkeypatch.setattr(binnedsums.np, "clip", lambda values, *_limits: values)
    with np.errstate(over="ignore"):
        assert moved(one_loud(1), clip=0.1) > 2**32


# --- sampling -------------------------------------------------------------------------------------------------

MEMBERS, TOTALS, RATE = 300, 200, 0.3


def sampled(rate, label, members=MEMBERS):
    """Who is in a sum: every customer has two rows in a slot of its own."""
    slots = np.repeat(np.arange(members), 2)[:, None]
    rows = len(slots)
    data = slots, np.full(rows, -1e6), np.ones(rows, np.float32), np.repeat(np.arange(members)[::-1] * 7, 2)
    found = total(data, width=members, clip=1.0, sample_rate=rate, label=label)[:-1]
    each = np.unique(found[found != 0])
    assert len(each) <= 1  # both rows, or none
    return found != 0


def sampling_faults(seen, rate):
    """How sizes of samples and customers' shares in them differ from independent coins of the stated rate."""
    count, faults = int(seen.sum()), []
    if min(binom.cdf(count, seen.size, rate), binom.sf(count - 1, seen.size, rate)) < RARE / 6:
        faults.append("rate")
    scale = rate * (1 - rate)
    members = (np.square(seen.sum(axis=0) - len(seen) * rate) / (len(seen) * scale)).sum()
    sizes = (np.square(seen.sum(axis=1) - seen.shape[1] * rate) / (seen.shape[1] * scale)).sum()
    for name, found, count in (("members", members, seen.shape[1]), ("sizes", sizes, len(seen))):
        low, high = chi2(count).ppf([RARE / 6, 1 - RARE / 6])
        if not low < found < high:
            faults.append(name)
    return faults


def test_customers_enter_a_sum_by_independent_coins_of_the_stated_rate():
    seen = np.array([sampled(RATE, f"total {number}") for number in range(TOTALS)])
    assert sampling_faults(seen, RATE) == []
    assert "rate" in sampling_faults(seen, 0.95 * RATE)
    fixed = np.argsort(np.random.default_rng(0).uniform(size=seen.shape), axis=1) < RATE * MEMBERS
    assert sampling_faults(fixed, RATE) == ["sizes"]  # samples of one size are no coins


def test_a_sample_is_the_sum_over_those_whose_coin_fell_so():
    data = table(20, customers=12, longest=5)
    known = np.unique(data[-1])
    inside = known[stream().uniforms(len(known)) < 0.5]
    assert 0 < len(inside) < 12
    kept = np.isin(data[-1], inside)
    part = total(tuple(one[kept] for one in data), width=12)
    assert total(data, width=12, sample_rate=0.5).tolist() == part.tolist()


def test_at_rate_one_everybody_is_in_and_at_almost_none_nobody():
    assert sampled(1.0, "all").all()
    assert not sampled(1e-12, "none").any()


# --- bounds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [1, 1000, 2**16])
def test_each_coordinate_of_the_sum_is_held_within_the_bound(bound):
    data = table(30, longest=3)
    free, held = total(data, width=12, clip=0.01), total(data, width=12, clip=0.01, bound=bound)
    assert held.tolist() == [max(-bound, min(bound, int(value))) for value in free]
    cells = [cell_total(data[0], data[-1], width=12, sensitivity=2**16, bound=limit) for limit in (UNBOUND, bound)]
    assert cells[1].tolist() == [min(bound, int(value)) for value in cells[0]]
    assert max(np.abs(free).max(), cells[0].max()) > 2**16


def test_the_bound_holds_the_sum_and_no_part_of_it():
    rows = 4000
    labels = np.tile([0.0, 1.0], rows // 2).astype(np.float32)
    data = np.zeros((rows, 1), np.int64), np.zeros(rows), labels, np.arange(rows)
    assert total(data, width=1, bound=5).tolist() == [0, 0]  # half of them one way, half back


def test_rows_that_would_not_add_up_exactly_are_refused(monkeypatch):
    monkeypatch.setattr(binnedsums, "_EXACT", 2**18)
    few, many = np.zeros((3, 1), np.int64), np.zeros((4, 1), np.int64)
    asked = {"width": 1, "sensitivity": 2**16, "bound": UNBOUND}
    assert cell_total(few, np.arange(3), **asked).tolist() == [3 * 2**16]
    with pytest.raises(ValueError, match="do not add up exactly"):
        cell_total(many, np.arange(4), **asked)


def test_what_is_judged_says_nothing_of_itself():
    assert repr(Judged(np.ones(3), np.ones(3, np.float32), np.arange(3))) == "Judged(...)"
