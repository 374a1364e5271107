"""Whole numbers of a secure sum: what is chosen, and that sums modulo 2^bits are plain sums."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coterie.privacy.errors import PlanFault
from coterie.privacy.events import DistributedGaussian
from coterie.privacy.secagg import numbers as numbers_module
from coterie.privacy.secagg.numbers import Numbers, clamped, from_ring, numbers_for, to_ring

INT64 = st.integers(-(2**63), 2**63 - 1)


def plans():
    """Multipliers, partners, shares and caps as studies have them, and far beyond."""
    return st.builds(
        lambda multiplier, partners, missing, cap: {
            "multiplier": multiplier,
            "partners": partners,
            "shares": max(1, partners - missing),
            "batch_cap": cap,
        },
        st.floats(0.2, 1000, allow_nan=False) | st.sampled_from([0.5, 1.0, 2.0, 64.0]),
        st.integers(3, 60),
        st.integers(1, 30),
        st.integers(1, 2**22),
    )


def exact_needs(numbers, partners):
    """partners * R + 11 sqrt(partners) * share, to 60 digits."""
    with localcontext(prec=60):
        return partners * Decimal(numbers.bound) + 11 * Decimal(partners).sqrt() * Decimal(numbers.share)


def least_share(multiplier, sensitivity, shares):
    """The least whole scale that earns the multiplier, by search around the root."""
    need = (Fraction(multiplier) * sensitivity) ** 2 + 36
    share = int(math.sqrt(need / shares)) - 2
    while shares * Fraction(share) ** 2 < need:
        share += 1
    return max(64, share)


# --- what is chosen -----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(plans())
def test_the_finest_unit_that_fits_is_chosen_and_32_bits_where_they_do(plan):
    chosen = numbers_for(**plan)
    partners = plan["partners"]
    candidates = [
        Numbers(32, 2**e, 2**e * plan["batch_cap"], least_share(plan["multiplier"], 2**e, plan["shares"]))
        for e in range(20, 13, -1)
    ]
    fitting = [numbers for numbers in candidates if exact_needs(numbers, partners) <= 2**31 - 1]
    if fitting:
        assert chosen == fitting[0]
    else:
        finest = candidates[0]
        assert chosen == Numbers(64, finest.sensitivity, finest.bound, finest.share)
        assert exact_needs(chosen, partners) <= 2**63 - 1


@settings(deadline=None)
@given(plans())
def test_the_noise_of_the_counted_shares_earns_the_multiplier_and_no_more_than_it_must(plan):
    numbers = numbers_for(**plan)
    need = (Fraction(plan["multiplier"]) * numbers.sensitivity) ** 2
    assert plan["shares"] * numbers.share**2 - 36 >= need
    assert numbers.share == 64 or plan["shares"] * (numbers.share - 1) ** 2 - 36 < need
    event = DistributedGaussian(numbers.share, plan["shares"], numbers.sensitivity, 0.5, 1)
    assert event.noise_multiplier >= plan["multiplier"] * (1 - 1e-15)


@pytest.mark.parametrize("exponent", range(14, 21))
@pytest.mark.parametrize("partners", [3, 7])
def test_the_edge_of_32_bits_is_exact(exponent, partners):
    # The largest batch that fits by the formula, worked out here; one customer more needs a coarser unit, or 64 bits.
    sensitivity, shares = 2**exponent, partners - 1
    share = least_share(1.5, sensitivity, shares)
    noise = 11 * Decimal(partners).sqrt() * share
    cap = int((2**31 - 1 - noise) / (partners * sensitivity))
    at = numbers_for(multiplier=1.5, partners=partners, shares=shares, batch_cap=cap)
    beyond = numbers_for(multiplier=1.5, partners=partners, shares=shares, batch_cap=cap + 1)
    assert (at.bits, at.sensitivity) == (32, sensitivity)
    assert (beyond.bits, beyond.sensitivity) == ((32, sensitivity // 2) if exponent > 14 else (64, 2**20))


def test_the_formula_is_met_with_equality_and_missed_by_one():
    # 2^31 - 1 is a prime: of all numbers with a whole root, only one partner meets the formula to the unit.
    fits = Numbers(32, 1, 2**31 - 1 - 11 * 65, 65)
    assert numbers_module._fit(fits, 1)
    assert not numbers_module._fit(Numbers(32, 1, fits.bound + 1, 65), 1)
    assert not numbers_module._fit(Numbers(32, 1, fits.bound, 66), 1)
    assert not numbers_module._fit(fits, 2)
    assert not numbers_module._fit(Numbers(32, 1, 2**31, 1), 4)  # a room below nought has a square as well


def test_a_share_is_at_least_64_units():
    assert numbers_for(multiplier=1e-6, partners=5, shares=3, batch_cap=100).share == 64


def test_what_64_bits_cannot_hold_is_refused():
    with pytest.raises(PlanFault, match="beyond 64 bits"):
        numbers_for(multiplier=1.0, partners=3, shares=1, batch_cap=2**42)
    with pytest.raises(PlanFault, match="beyond 64 bits"):
        numbers_for(multiplier=2.0**21, partners=3, shares=1, batch_cap=1)  # noise beyond the sampler


def test_the_tail_that_may_wrap_is_below_two_to_the_minus_forty_in_a_study():
    with localcontext(prec=60):
        tail = 2 * (Decimal(-(11**2)) / 2).exp()
        assert 2**41 * (tail + 1000 * Decimal(2) ** -110) < Decimal(2) ** -40


@pytest.mark.parametrize("scale", [1, 3, 64])
@pytest.mark.parametrize("u", [0.001, 0.1, 1.0])
def test_a_discrete_gaussian_is_sub_gaussian(scale, u):
    # Step 2 of the proof, summed term by term.
    x = np.arange(-200 * scale, 200 * scale + 1, dtype=np.float64)
    weights = np.exp(-(x**2) / (2 * scale**2))
    moment = np.exp(u / scale * x - x**2 / (2 * scale**2)).sum() / weights.sum()
    assert moment <= math.exp(u**2 / 2) * (1 + 1e-12)


# --- sums modulo 2^bits -------------------------------------------------------------------------------------


@st.composite
def vectors_in_range(draw):
    """A study's numbers, and vectors whose plain sum is as far out as it may be."""
    bits = draw(st.sampled_from([32, 64]))
    most, count = 2 ** (bits - 1) - 1, draw(st.integers(1, 8))
    length = draw(st.integers(1, 5))
    targets = draw(
        st.lists(st.sampled_from([-most, most, 0]) | st.integers(-most, most), min_size=length, max_size=length)
    )
    parts = draw(st.lists(st.lists(INT64, min_size=length, max_size=length), min_size=count - 1, max_size=count - 1))
    # The others are anything at all: intermediate sums may wrap as they like.
    last = [(target - sum(part[i] for part in parts) + 2**63) % 2**64 - 2**63 for i, target in enumerate(targets)]
    return bits, [*parts, last], targets


@settings(deadline=None)
@given(vectors_in_range())
def test_a_sum_modulo_the_ring_is_the_plain_sum_bit_for_bit(case):
    bits, vectors, targets = case
    total = to_ring(np.zeros(len(targets), dtype=np.int64), bits)
    for vector in vectors:
        total = total + to_ring(np.array(vector, dtype=np.int64), bits)
    opened = from_ring(total)
    assert opened.dtype == np.int64
    assert opened.tolist() == targets


@settings(deadline=None)
@given(plans(), st.data())
def test_clamped_sums_with_noise_within_eleven_deviations_open_as_their_plain_sum(plan, data):
    numbers = numbers_for(**plan)
    partners, most = plan["partners"], 11 * math.isqrt(plan["partners"]) * numbers.share
    noise = data.draw(st.sampled_from([-most, most]) | st.integers(-most, most))
    sums = data.draw(st.lists(st.sampled_from([-(2**62), 2**62]) | INT64, min_size=partners, max_size=partners))
    kept = [clamped(np.array([value]), numbers.bound) for value in sums]
    total = to_ring(np.array([noise]), numbers.bits)
    for vector in kept:
        total = total + to_ring(vector, numbers.bits)
    assert from_ring(total).tolist() == [sum(int(vector[0]) for vector in kept) + noise]


@pytest.mark.parametrize("bits", [32, 64])
def test_the_boundaries_of_the_ring_are_exact(bits):
    most = 2 ** (bits - 1) - 1
    edge = np.array([most, -most, -most - 1, 0, -1, 1], dtype=np.int64)
    ring = to_ring(edge, bits)
    assert ring.dtype == np.dtype(f"uint{bits}")
    assert ring.tolist() == [most, most + 2, most + 1, 0, 2 * most + 1, 1]
    assert from_ring(ring).tolist() == edge.tolist()
    # One beyond is another number: what the choice of numbers keeps improbable.
    one = to_ring(np.array([1], dtype=np.int64), bits)
    assert from_ring(ring[:1] + one).tolist() == [-most - 1]


@settings(deadline=None)
@given(st.lists(INT64, min_size=1, max_size=6))
def test_the_ring_is_the_integers_modulo_two_to_the_bits(values):
    for bits in (32, 64):
        assert to_ring(np.array(values, dtype=np.int64), bits).tolist() == [value % 2**bits for value in values]


def test_the_ring_shares_no_memory_with_what_was_put_in():
    for bits in (32, 64):
        vector = np.arange(3, dtype=np.int64)
        ring = to_ring(vector, bits)
        back = from_ring(ring)
        ring[0] = 7
        assert vector[0] == 0
        assert back[0] == 0


def test_other_rings_are_refused():
    with pytest.raises(ValueError, match="modulo"):
        to_ring(np.zeros(1, dtype=np.int64), 16)
    for dtype in (np.int32, np.int64, np.uint16, np.float64):
        with pytest.raises(ValueError, match="uint32"):
            from_ring(np.zeros(1, dtype=dtype))


# --- the clamp ----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.data(), st.integers(1, 2**62))
def test_a_clamp_is_the_nearest_point_of_the_box_and_expands_no_distance(data, bound):
    length = data.draw(st.integers(1, 5))
    # Half of what int64 holds, so that differences are exact below.
    numbers = st.integers(-(2**62), 2**62) | st.sampled_from([bound, -bound, bound - 1, 1 - bound])
    x, y = (data.draw(st.lists(numbers, min_size=length, max_size=length)) for _ in range(2))
    kept_x, kept_y = (clamped(np.array(v, dtype=np.int64), bound) for v in (x, y))
    assert kept_x.dtype == np.int64
    assert kept_x.tolist() == [sorted((-bound, value, bound))[1] for value in x]
    squares = sum((int(a) - int(b)) ** 2 for a, b in zip(kept_x, kept_y, strict=True))
    assert squares <= sum((a - b) ** 2 for a, b in zip(x, y, strict=True))


@settings(deadline=None)
@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=5), st.integers(1000, 2**40))
def test_a_sum_within_bounds_is_left_as_it_is(values, bound):
    assume(max(map(abs, values)) <= bound)
    vector = np.array(values, dtype=np.int64)
    assert clamped(vector, bound).tolist() == values


def test_a_clamp_leaves_its_argument_alone():
    vector = np.array([5, -5, 2], dtype=np.int64)
    assert clamped(vector, 3).tolist() == [3, -3, 2]
    assert vector.tolist() == [5, -5, 2]
