"""Rényi curves and the filter across studies, against Opacus, sums over the pmf and exact Gaussians."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent
from scipy.special import logsumexp
from scipy.stats import norm

from coterie.privacy.accountant import epsilon
from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, Nothing, PoissonGaussian
from coterie.privacy.renyi import ORDERS, Filter, curve, total

pytestmark = pytest.mark.filterwarnings("ignore:Optimal order is the")

BUDGETS = [(0.5, 1e-6), (1.0, 1e-5), (3.0, 1e-5), (10.0, 1e-7), (40.0, 1e-5), (100.0, 1e-3)]

budgets = st.builds(Filter, st.floats(0.2, 60), st.sampled_from([1e-9, 1e-6, 1e-5, 1e-3]))


def gaussian(noise):
    return curve([PoissonGaussian(noise, 1.0, 1)])


def gaussian_delta(mu, eps):
    return norm.cdf(mu / 2 - eps / mu) - math.exp(eps + norm.logcdf(-mu / 2 - eps / mu))


# --- curves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "noise", "steps"), [(0.01, 1.0, 1000), (0.1, 4.0, 500), (1.0, 20.0, 200), (0.25, 6.8, 60), (0.05, 0.8, 7)]
)
def test_the_curve_of_noisy_gradient_sums_equals_that_of_opacus(rate, noise, steps):
    oracle = compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=[int(order) for order in ORDERS])
    np.testing.assert_allclose(curve([PoissonGaussian(noise, rate, steps)]), oracle, rtol=1e-6)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 5.28, 40.0])
def test_the_curve_of_noisy_counts_equals_the_renyi_divergence_of_the_pmf(sigma):
    # The divergence's summand peaks at alpha, so the sum must reach beyond it.
    x = np.arange(-400.0, 700.0)
    log_p, log_q = -((x - 1) ** 2) / (2 * sigma**2), -(x**2) / (2 * sigma**2)
    log_p, log_q = log_p - logsumexp(log_p), log_q - logsumexp(log_q)
    oracle = [3 * logsumexp(order * log_p + (1 - order) * log_q) / (order - 1) for order in ORDERS]
    np.testing.assert_allclose(curve([DiscreteGaussian(sigma, 3)]), oracle, rtol=1e-9)


@pytest.mark.parametrize("rate", [0.2, 1.0])
def test_the_curve_of_secure_sums_equals_that_of_gaussian_noise_of_their_scale(rate):
    event = DistributedGaussian(share=5000, shares=4, sensitivity=2048, sample_rate=rate, steps=9)
    noise = math.sqrt(4 * 5000**2 - 36) / 2048
    oracle = compute_rdp(q=rate, noise_multiplier=noise, steps=9, orders=[int(order) for order in ORDERS])
    np.testing.assert_allclose(curve([event]), oracle, rtol=1e-6)


@pytest.mark.parametrize(("share", "shares", "sensitivity"), [(64, 1, 40), (64, 3, 90)])
def test_the_curve_of_a_secure_sum_bounds_the_renyi_divergence_of_its_own_pmf(share, shares, sensitivity):
    # The sum of the shares, convolved with itself, moved by the sensitivity; the noise is as coarse as it may be.
    x = np.arange(-16 * share, 16 * share + 1)
    one = np.exp(-(x**2) / (2 * share**2))
    summed = np.array([1.0])
    for _ in range(shares):
        summed = np.convolve(summed, one / one.sum())
    event = DistributedGaussian(share, shares, sensitivity, 1.0, 1)
    p, q = summed[:-sensitivity], summed[sensitivity:]
    sound = (p > 1e-250) & (q > 1e-250)
    for order, bound in list(zip(ORDERS, curve([event]), strict=True))[:3]:
        logs = order * np.log(p[sound]) + (1 - order) * np.log(q[sound])
        exact = logsumexp(logs) / (order - 1)
        assert exact <= bound * (1 + 1e-6)
        assert exact > 0.99 * bound


def test_curves_of_several_events_add_up():
    events = [PoissonGaussian(2.0, 0.1, 5), DiscreteGaussian(4.0, 2), Nothing()]
    np.testing.assert_allclose(curve(events), np.sum([curve([event]) for event in events], axis=0), rtol=1e-12)
    np.testing.assert_allclose(curve([PoissonGaussian(2.0, 0.1, 6)]), 6 * np.array(curve([PoissonGaussian(2, 0.1, 1)])))
    assert total([]) == curve([]) == curve([Nothing()]) == (0.0,) * len(ORDERS)


# --- one budget -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("eps", "delta"), BUDGETS)
def test_the_capacity_converts_back_to_the_budget(eps, delta):
    budget = Filter(eps, delta)
    order = ORDERS[budget.index]
    back, _ = get_privacy_spent(orders=[order], rdp=[budget.capacity], delta=delta)
    assert back == pytest.approx(eps, abs=1e-9)


@pytest.mark.parametrize(("eps", "delta"), BUDGETS)
def test_a_gaussian_that_fills_the_capacity_keeps_the_budget_exactly_computed(eps, delta):
    budget = Filter(eps, delta)
    # A Gaussian's divergence of order alpha is alpha mu^2 / 2.
    mu = math.sqrt(2 * budget.capacity / ORDERS[budget.index])
    assert budget.admits((0.0,) * len(ORDERS), gaussian((1 + 1e-9) / mu))
    assert gaussian_delta(mu, eps) <= delta
    # The order is well chosen: the conversion is loose, but by no more than the literature says of it.
    assert gaussian_delta(1.5 * mu, eps) > delta


@pytest.mark.parametrize(("eps", "delta"), BUDGETS)
def test_the_chosen_order_carries_the_most_noise_free_gaussian_steps(eps, delta):
    def steps(order):
        capacity = eps - math.log(1 - 1 / order) + math.log(delta * order) / (order - 1)
        return capacity / (order / 2)

    assert steps(ORDERS[Filter(eps, delta).index]) == max(map(steps, ORDERS))


def test_a_budget_too_small_for_any_order_admits_nothing_but_nothing():
    budget, spent = Filter(0.01, 1e-9), (0.0,) * len(ORDERS)
    assert budget.capacity == 0.0
    assert not budget.admits(spent, gaussian(1e6))
    assert budget.admits(spent, curve([Nothing()]))
    assert budget.runs_left(spent, gaussian(1e6)) == 0


# --- adaptive sequences ---------------------------------------------------------------------------------


@given(budgets, st.lists(st.floats(0.05, 3.0), max_size=30), st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_adaptive_sequence_that_is_admitted_exceeds_the_budget(budget, greed, counts):
    """The adversary sees what is left and asks for a share of it, above or below one."""
    spent, precision = (0.0,) * len(ORDERS), 0.0
    order = ORDERS[budget.index]
    for share in greed:
        left = budget.capacity - spent[budget.index]
        wanted = share * max(left, budget.capacity / 50)
        if wanted <= 0:
            break
        noise = math.sqrt(order / (2 * wanted))
        asked = curve([DiscreteGaussian(noise, 1)]) if counts else gaussian(noise)
        if budget.admits(spent, asked):
            spent, precision = total([spent, asked]), precision + 1 / noise**2
            assert budget.spent_epsilon(spent) <= budget.epsilon * (1 + 1e-12)
        else:
            assert spent[budget.index] + asked[budget.index] > budget.capacity
    if precision > 0:
        assert gaussian_delta(math.sqrt(precision), budget.epsilon) <= budget.delta


@pytest.mark.parametrize(("eps", "delta"), [(1.0, 1e-5), (3.0, 1e-6)])
def test_admitted_studies_of_many_kinds_stay_within_the_budget_of_an_exact_accountant(eps, delta):
    budget, spent, paid = Filter(eps, delta), (0.0,) * len(ORDERS), []
    menu = [PoissonGaussian(2.0, 0.1, 30), DiscreteGaussian(6.0, 2), PoissonGaussian(12.0, 1.0, 3)]
    refused = 0
    while refused < len(menu):
        event = menu[(len(paid) + refused) % len(menu)]
        if budget.admits(spent, curve([event])):
            spent, paid, refused = total([spent, curve([event])]), [*paid, event], 0
        else:
            refused += 1
    assert paid
    assert epsilon(paid, delta) <= eps


@given(budgets, st.floats(0.5, 200), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_runs_left_is_how_many_more_runs_are_admitted(budget, noise, used):
    one = gaussian(noise)
    spent = tuple(used * budget.capacity for _ in ORDERS)
    promised = budget.runs_left(spent, one)
    exact = (budget.capacity - spent[budget.index]) / one[budget.index]
    if abs(exact - round(exact)) < 1e-6:  # rounding may decide either way
        return
    assert budget.admits(spent, tuple((promised * (1 - 1e-12)) * cost for cost in one))
    assert not budget.admits(spent, tuple((promised + 1) * cost for cost in one))


def test_runs_left_counts_down_to_the_refusal():
    budget, one = Filter(2.0, 1e-5), curve([PoissonGaussian(5.0, 0.1, 20)])
    spent, granted = (0.0,) * len(ORDERS), 0
    first = budget.runs_left(spent, one)
    while budget.admits(spent, one):
        assert budget.runs_left(spent, one) == first - granted
        spent, granted = total([spent, one]), granted + 1
    assert granted == first > 3
    assert budget.runs_left(spent, one) == 0


@given(budgets, st.lists(st.floats(0, 0.3), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_the_printed_spend_grows_with_every_charge_and_starts_at_nothing(budget, shares):
    zero = (0.0,) * len(ORDERS)
    assert budget.spent_epsilon(zero) == 0.0
    printed, spent = [0.0], zero
    for share in shares:
        spent = tuple(value + share * budget.capacity for value in spent)
        printed.append(budget.spent_epsilon(spent))
    assert printed == sorted(printed)
