"""What a sum of discrete Gaussians costs, by brute force over the integers, against its event's Gaussian on the line.

The oracle shares nothing with the product: probabilities of a share are computed from exp(-x^2 / (2 share^2)), the
sum's by convolving them, and hockey-stick divergences by summing over the integers. Gaussians on the line are done by
closed forms (Balle and Wang 2018, theorem 8, and its like for a Poisson-sampled one) and by quadrature.
"""

import functools
import math

import mpmath
import numpy as np
import pytest
from scipy.stats import norm

from coterie.privacy.accountant import epsilon
from coterie.privacy.events import SMOOTHING, DistributedGaussian, PoissonGaussian

TOLERANCE = 1e-12
EPSILONS = np.array([0.0, 0.05, 0.2, 0.5, 1.0, 1.5, 2.5, 4.0])
RATES = [1.0, 0.3, 0.02]
# (share, shares, sensitivity): noise multipliers from 5 down to a half, and one share alone.
EVENTS = [(64, 2, 25), (64, 2, 90), (64, 3, 90), (100, 2, 141), (200, 1, 100), (64, 1, 128), (70, 4, 50)]
UP, DOWN = "a customer more", "a customer less"


def event_of(share, shares, sensitivity, rate=1.0, steps=1):
    event = DistributedGaussian(share, shares, sensitivity, rate, steps)
    assert event.valid()
    return event


# --- the integers -------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=32)
def noise_pmf(share, shares):
    """Probabilities of the sum of `shares` discrete Gaussians, from -reach to reach."""
    x = np.arange(-14 * share, 14 * share + 1, dtype=np.float64)
    one = np.exp(-(x**2) / (2.0 * share**2))
    one /= one.sum()
    total = one
    for _ in range(shares - 1):
        total = np.convolve(total, one)
    reach = min(len(total) // 2, math.ceil(11 * share * math.sqrt(shares)))
    return total[len(total) // 2 - reach : len(total) // 2 + reach + 1]


def shifted(pmf, shift):
    """Return the noise alone and the noise around `shift`, on the same integers."""
    return np.pad(pmf, (0, shift)), np.pad(pmf, (shift, 0))


def pair(pmf, shift, rate, direction):
    """Return P and Q of one step: with a customer, who enters with probability `rate`, and without; or the reverse."""
    without, there = shifted(pmf, shift)
    mixed = (1 - rate) * without + rate * there
    return (mixed, without) if direction == UP else (without, mixed)


def deltas(p, q, epsilons=EPSILONS):
    """Hockey-stick divergences of P from Q, by summing over all outcomes."""
    return np.array([np.maximum(p - math.exp(e) * q, 0).sum() for e in epsilons])


# --- the line -----------------------------------------------------------------------------------------------


def line_deltas(multiplier, rate, direction, epsilons=EPSILONS):
    """Hockey-stick divergences of a Poisson-sampled Gaussian on the line, of sensitivity 1."""
    e, s = np.asarray(epsilons, dtype=np.float64), multiplier
    with np.errstate(divide="ignore", invalid="ignore"):
        if direction == UP:
            # log(1 - rate + rate exp((x - 1/2) / s^2)) > e beyond a place; everywhere where e is low enough.
            place = 0.5 + s**2 * np.log((np.exp(e) - (1 - rate)) / rate)
            place = np.where(np.exp(e) <= 1 - rate, -np.inf, place)
            beyond = norm.sf(place / s)
            return (1 - rate) * beyond + rate * norm.sf((place - 1) / s) - np.exp(e) * beyond
        place = 0.5 + s**2 * np.log((np.exp(-e) - (1 - rate)) / rate)
        place = np.where(np.exp(-e) <= 1 - rate, -np.inf, place)
        below = norm.cdf(place / s)
        return below - np.exp(e) * ((1 - rate) * below + rate * norm.cdf((place - 1) / s))


def two_steps_on_the_line(multiplier, rate, direction, epsilons=EPSILONS):
    """Two steps: what one costs, averaged over the other's privacy loss by the trapezoid rule."""
    x = np.linspace(-13 * multiplier, 13 * multiplier + 1, 60_001)
    width = x[1] - x[0]
    without, there = norm.pdf(x, 0, multiplier), norm.pdf(x, 1, multiplier)
    mixed = (1 - rate) * without + rate * there
    loss = np.log1p(rate * np.expm1((x - 0.5) / multiplier**2))
    weight, loss = (mixed, loss) if direction == UP else (without, -loss)
    return np.array([(weight * line_deltas(multiplier, rate, direction, e - loss)).sum() * width for e in epsilons])


# --- one step -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", [UP, DOWN])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("numbers", EVENTS, ids=str)
def test_a_step_costs_no_more_than_its_gaussian_and_hardly_less(numbers, rate, direction):
    share, shares, sensitivity = numbers
    on_the_line = line_deltas(event_of(*numbers, rate).gaussian.noise_multiplier, rate, direction)
    by_force = deltas(*pair(noise_pmf(share, shares), sensitivity, rate, direction))
    assert np.all(by_force <= on_the_line + TOLERANCE)
    # The smoothing takes 36 of the variance: at most a hundredth here, of which delta sees a few times as much.
    assert np.all(on_the_line - by_force <= 0.02 * on_the_line[0])
    assert by_force[0] > 0.9 * on_the_line[0] > 1e-3


@pytest.mark.parametrize("direction", [UP, DOWN])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("numbers", EVENTS, ids=str)
def test_half_the_noise_or_a_missing_share_would_be_seen(numbers, rate, direction):
    share, shares, sensitivity = numbers
    on_the_line = line_deltas(event_of(*numbers, rate).gaussian.noise_multiplier, rate, direction)
    weaker = [noise_pmf(share // 2, shares)] + ([noise_pmf(share, shares - 1)] if shares > 1 else [])
    for pmf in weaker:
        by_force = deltas(*pair(pmf, sensitivity, rate, direction))
        assert np.any(by_force > on_the_line + 1e-4)
    one_unit_more = deltas(*pair(noise_pmf(share, shares), sensitivity + sensitivity // 20 + 1, rate, direction))
    assert np.any(one_unit_more > on_the_line + 1e-6)


@pytest.mark.parametrize("direction", [UP, DOWN])
@pytest.mark.parametrize("rate", RATES)
def test_a_smaller_contribution_costs_less(rate, direction):
    on_the_line = line_deltas(event_of(64, 2, 90, rate).gaussian.noise_multiplier, rate, direction)
    last = np.zeros(len(EPSILONS))
    for shift in (1, 7, 45, 89, 90):
        by_force = deltas(*pair(noise_pmf(64, 2), shift, rate, direction))
        assert np.all(by_force <= on_the_line + TOLERANCE)
        assert np.all(by_force >= last - TOLERANCE)
        last = by_force


@pytest.mark.parametrize("direction", [UP, DOWN])
@pytest.mark.parametrize("rate", RATES)
def test_noise_of_more_shares_than_counted_costs_less(rate, direction):
    on_the_line = line_deltas(event_of(64, 2, 90, rate).gaussian.noise_multiplier, rate, direction)
    by_force = deltas(*pair(noise_pmf(64, 5), 90, rate, direction))
    assert np.all(by_force <= on_the_line + TOLERANCE)


@pytest.mark.parametrize("direction", [UP, DOWN])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("vector", [(48, 64), (64, 48), (80, 0), (28, 75)])
def test_a_contribution_that_points_anywhere_costs_no_more(vector, rate, direction):
    # Two coordinates, each with noise of its own; (28, 75) is of norm 80.06, within a sensitivity of 81.
    sensitivity = math.ceil(math.hypot(*vector))
    on_the_line = line_deltas(event_of(64, 1, sensitivity, rate).gaussian.noise_multiplier, rate, direction)
    pmf = noise_pmf(64, 1)
    (first, first_there), (second, second_there) = (shifted(pmf, shift) for shift in vector)
    without, there = np.outer(first, second), np.outer(first_there, second_there)
    mixed = (1 - rate) * without + rate * there
    by_force = deltas(*((mixed, without) if direction == UP else (without, mixed)))
    assert np.all(by_force <= on_the_line + TOLERANCE)
    assert by_force[0] > 0.95 * on_the_line[0]


# --- several steps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", [UP, DOWN])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("numbers", [(64, 1, 90), (64, 2, 60)], ids=str)
def test_two_steps_cost_no_more_than_two_of_the_gaussian(numbers, rate, direction):
    share, shares, sensitivity = numbers
    gaussian = event_of(*numbers, rate, 2).gaussian
    p, q = pair(noise_pmf(share, shares), sensitivity, rate, direction)
    by_force = deltas(np.outer(p, p), np.outer(q, q))
    on_the_line = two_steps_on_the_line(gaussian.noise_multiplier, rate, direction)
    assert np.all(by_force <= on_the_line + TOLERANCE)
    assert np.all(on_the_line - by_force <= 0.02 * on_the_line[0])
    missing = pair(noise_pmf(share // 2, shares), sensitivity, rate, direction)
    assert np.any(deltas(*(np.outer(side, side) for side in missing)) > on_the_line + 1e-4)


@pytest.mark.parametrize("steps", [2, 5, 12])
@pytest.mark.parametrize("numbers", [(64, 1, 90), (64, 2, 60)], ids=str)
def test_many_whole_steps_cost_no_more_than_the_gaussian_of_their_root(numbers, steps):
    # The loss of a step is that of a Gaussian, an even grid in x, up to rounding; of many it is the sum over the grid.
    share, shares, sensitivity = numbers
    pmf, variance = noise_pmf(share, shares), shares * share**2
    x = np.arange(len(pmf)) - len(pmf) // 2
    with np.errstate(divide="ignore"):
        losses = np.log(pmf[: len(pmf) - sensitivity]) - np.log(pmf[sensitivity:])
    even = (2 * sensitivity * x[: len(losses)] + sensitivity**2) / (2 * variance)
    trusted = pmf[: len(losses)] * pmf[sensitivity:] > 1e-26  # beyond it, a pmf in 53 bits has no digits left
    assert np.abs(losses - even)[trusted].max() < 1e-2 / sensitivity
    summed = functools.reduce(np.convolve, [pmf] * steps)
    total = np.arange(len(summed)) - len(summed) // 2
    loss = (steps * sensitivity**2 + 2 * sensitivity * total) / (2 * variance)
    by_force = np.array([(summed * -np.expm1(np.minimum(0, e - loss))).sum() for e in EPSILONS])
    multiplier = event_of(*numbers).gaussian.noise_multiplier / math.sqrt(steps)
    on_the_line = line_deltas(multiplier, 1.0, UP)
    assert np.all(by_force <= on_the_line + TOLERANCE)
    assert np.all(on_the_line - by_force <= 0.02 * on_the_line[0])


@pytest.mark.parametrize("numbers", [(64, 2, 90), (64, 1, 50)], ids=str)
@pytest.mark.parametrize(("rate", "steps"), [(0.3, 6), (0.05, 10), (1.0, 4)])
@pytest.mark.parametrize("direction", [UP, DOWN])
def test_the_accountant_covers_a_composition_by_force(numbers, rate, steps, direction):
    # Losses rounded down to a grid: no more than what the steps truly cost, and close to it.
    share, shares, _ = numbers
    event = event_of(*numbers, rate, steps)
    charged = epsilon([event.gaussian], 1e-5)
    least = composed_epsilon(noise_pmf(share, shares), event, direction, 1e-5)
    assert least <= charged
    if direction == UP:  # the dearer one
        assert least > 0.97 * charged
        assert composed_epsilon(noise_pmf(share // 2, shares), event, direction, 1e-5) > charged


def composed_epsilon(pmf, event, direction, delta):
    """Epsilon of the event's steps with this noise, by convolving one step's privacy loss, rounded down to 5e-4."""
    p, q = pair(pmf, event.sensitivity, event.sample_rate, direction)
    kept = (p > 1e-25) & (q > 1e-25)  # what is left out costs less than 1e-20, and is left out of the cost
    grid = 5e-4
    places = np.floor(np.log(p[kept] / q[kept]) / grid).astype(np.int64)
    one = np.bincount(places - places.min(), weights=p[kept])
    length = event.steps * (len(one) - 1) + 1
    total = np.fft.irfft(np.fft.rfft(one, 1 << length.bit_length()) ** event.steps)[:length]
    losses = (np.arange(length) + event.steps * places.min()) * grid
    low, high = 0.0, 60.0
    for _ in range(50):
        middle = (low + high) / 2
        over = (total * -np.expm1(np.minimum(0, middle - losses))).sum()
        low, high = (low, middle) if over <= delta else (middle, high)
    return high


# --- the steps of the proof ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.5, 0.8, 1.0])
def test_a_gaussian_rounded_at_random_is_a_discrete_one_within_the_factor_that_is_stated(tau):
    # With tau as small as here the error is there to be seen; with tau = 6 it is below 1e-300.
    with mpmath.workdps(40):
        tau, wide, step = mpmath.mpf(tau), mpmath.mpf(6), mpmath.mpf(1) / 16
        stated, errors = 3 * mpmath.exp(-2 * mpmath.pi**2 * tau**2), []
        for x in (0, 1, 5):
            places = [x + step * i for i in range(-math.ceil(14 * tau / step), math.ceil(14 * tau / step) + 1)]
            # The trapezoid rule over a smooth function: far more digits than are looked at.
            mass = step * mpmath.fsum(
                mpmath.npdf(y, 0, mpmath.sqrt(wide**2 - tau**2))
                * mpmath.exp(-((x - y) ** 2) / (2 * tau**2))
                / _theta(y, tau)
                for y in places
            )
            exact = mpmath.exp(-(x**2) / (2 * wide**2)) / _theta(0, wide)
            errors.append(abs(mass / exact - 1))
    assert max(errors) <= stated
    # Averaged over the line it is of the order of the square, but not nought: the oracle sees it.
    assert stated**2 / 1000 < max(errors)


def _theta(y, tau):
    """Sum over the integers of exp(-(j - y)^2 / (2 tau^2))."""
    centre = int(mpmath.nint(y))
    return mpmath.fsum(
        mpmath.exp(-((centre + j - y) ** 2) / (2 * tau**2)) for j in range(-int(14 * tau) - 2, int(14 * tau) + 3)
    )


def test_the_smoothing_of_the_event_is_out_of_sight():
    assert 3 * mpmath.exp(-2 * mpmath.pi**2 * SMOOTHING**2) < mpmath.mpf(10) ** -300
    assert mpmath.mpf(2) ** 60 * 3 * mpmath.exp(-2 * mpmath.pi**2 * SMOOTHING**2) < mpmath.mpf(10) ** -280


@pytest.mark.parametrize("other", [1, 5])
def test_a_sum_of_shares_is_a_discrete_gaussian_within_one_part_in_1e300(other):
    # One share and the sum of `other` ones, taken for a discrete Gaussian itself: the step of an induction.
    share, wide = 64, 64**2 * other
    with mpmath.workdps(330):
        both = mpmath.mpf(share**2 + wide)
        values = []
        for x in (0, 63, 500):
            weight = mpmath.fsum(
                mpmath.exp(-mpmath.mpf((x - b) ** 2) / (2 * share**2) - mpmath.mpf(b * b) / (2 * wide))
                for b in range(-39 * share + x, 39 * share + x)
            )
            values.append(weight / mpmath.exp(-(mpmath.mpf(x) ** 2) / (2 * both)))
        assert max(abs(value / values[0] - 1) for value in values) < mpmath.mpf(10) ** -300


# --- the oracles against each other -------------------------------------------------------------------------


@pytest.mark.parametrize("direction", [UP, DOWN])
@pytest.mark.parametrize("rate", RATES)
def test_the_closed_forms_agree_with_quadrature_and_with_each_other(rate, direction):
    multiplier = 0.9
    x = np.linspace(-14 * multiplier, 14 * multiplier + 1, 400_001)
    without, there = norm.pdf(x, 0, multiplier), norm.pdf(x, 1, multiplier)
    mixed = (1 - rate) * without + rate * there
    p, q = (mixed, without) if direction == UP else (without, mixed)
    assert np.allclose(deltas(p, q) * (x[1] - x[0]), line_deltas(multiplier, rate, direction), rtol=0, atol=1e-9)
    if rate == 1.0:
        root = math.sqrt(2)
        assert np.allclose(
            two_steps_on_the_line(multiplier, rate, direction),
            line_deltas(multiplier / root, 1.0, UP),
            rtol=0,
            atol=1e-13,
        )


@pytest.mark.parametrize("numbers", EVENTS, ids=str)
def test_the_gaussian_of_an_event_is_that_of_the_shares_less_the_smoothing(numbers):
    share, shares, sensitivity = numbers
    gaussian = event_of(*numbers, 0.3, 4).gaussian
    assert gaussian == PoissonGaussian(math.sqrt(shares * share**2 - 36) / sensitivity, 0.3, 4)
