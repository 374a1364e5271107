"""The second Rényi computation, against the first, numerical integration and exact fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, Nothing, PoissonGaussian
from coterie.privacy.renyi import ORDERS, curve
from coterie.privacy.review.divergence import direct_curve, rho

EVENTS = [
    PoissonGaussian(1.0, 0.01, 1000),
    PoissonGaussian(4.0, 0.1, 500),
    PoissonGaussian(0.3, 0.5, 7),
    PoissonGaussian(8.0, 1e-4, 10),
    PoissonGaussian(20.0, 1.0, 200),
    DiscreteGaussian(5.28, 3),
    DistributedGaussian(825_240, 2, 1_048_576, 0.3, 40),
    DistributedGaussian(283_422, 3, 262_144, 1.0, 5),
    Nothing(),
]


@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_it_equals_the_first_computation(event):
    np.testing.assert_allclose(direct_curve([event]), curve([event]), rtol=1e-7)


@pytest.mark.parametrize(("rate", "noise"), [(0.25, 1.0), (0.01, 2.0), (0.9, 0.8)])
@pytest.mark.parametrize("order", [2, 3, 8])
def test_it_equals_the_integral_that_defines_it(rate, noise, order):
    def summand(x):
        q = norm.pdf(x, 0, noise)
        return q * ((1 - rate) + rate * math.exp((2 * x - 1) / (2 * noise**2))) ** order if q > 0 else 0.0

    integral, _ = quad(summand, -12 * noise, order + 12 * noise, points=[0, order], limit=400, epsrel=1e-11)
    ours = direct_curve([PoissonGaussian(noise, rate, 1)])[ORDERS.index(order)]
    assert ours == pytest.approx(math.log(integral) / (order - 1), rel=1e-7)


def test_small_divergences_keep_all_their_digits():
    # At order 2 the formula is log(1 + q^2 (e^(1/s^2) - 1)); the series below adds what a double cannot.
    rate, noise = 1e-7, 30.0
    gain = sum(Fraction(1, math.factorial(k)) * Fraction(1, 900) ** k for k in range(1, 12)) * Fraction(1, 10**14)
    assert direct_curve([PoissonGaussian(noise, rate, 1)])[0] == pytest.approx(float(gain - gain**2 / 2), rel=1e-9)


def test_curves_add_up_and_count_steps():
    np.testing.assert_allclose(direct_curve(EVENTS), np.sum([direct_curve([e]) for e in EVENTS], axis=0), rtol=1e-12)
    one = np.array(direct_curve([PoissonGaussian(2.0, 0.1, 1)]))
    np.testing.assert_allclose(direct_curve([PoissonGaussian(2.0, 0.1, 6)]), 6 * one)
    assert direct_curve([]) == (0.0,) * len(ORDERS)


def test_rho_is_the_slope_of_a_curve_that_is_a_line():
    events = [PoissonGaussian(4.0, 1.0, 3), DiscreteGaussian(5.0, 2), Nothing()]
    slope = rho(events)
    assert slope == pytest.approx(3 / 32 + 2 / 50)
    np.testing.assert_allclose(direct_curve(events), [slope * order for order in ORDERS])
    assert rho([]) == rho([Nothing()]) == 0.0


def test_sampling_leaves_no_rho():
    assert rho([PoissonGaussian(4.0, 0.99, 1)]) is None
    assert rho([DiscreteGaussian(4.0, 1), PoissonGaussian(4.0, 0.5, 1)]) is None


def test_something_that_is_no_event_is_refused():
    class Other:
        kind = "other"

    with pytest.raises(TypeError, match="Other"):
        direct_curve([Other()])
    with pytest.raises(TypeError, match="Other"):
        rho([Other()])


def test_rho_of_secure_sums_is_that_of_their_scale_and_none_where_they_are_sampled():
    whole = DistributedGaussian(1000, 3, 500, 1.0, 4)
    assert rho([whole]) == pytest.approx(4 * 500**2 / (2 * (3 * 1000**2 - 36)), rel=1e-12)
    assert rho([whole, DistributedGaussian(1000, 3, 500, 0.5, 1)]) is None
