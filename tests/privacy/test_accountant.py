"""The accountant against independent oracles: Opacus, closed forms, numerical integration and convolution."""

import math

import numpy as np
import pytest
from opacus.accountants import PRVAccountant, RDPAccountant
from scipy.stats import norm

from coterie.privacy.accountant import ADD_REMOVE, CERTIFICATE, REPLACE_ONE, UNIT, WORKING, epsilon, guarantee
from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, Nothing, PoissonGaussian

pytestmark = [
    pytest.mark.filterwarnings("ignore:Optimal order is the"),
    pytest.mark.filterwarnings("ignore:divide by zero"),
]

SUBSAMPLED = [  # (rate, noise multiplier, steps, delta)
    (0.01, 1.0, 1000, 1e-5),
    (0.01, 1.0, 1, 1e-5),
    (0.1, 4.0, 500, 1e-5),
    (0.02, 8.0, 1000, 1e-5),
    (0.25, 6.803, 60, 1e-5),
    (0.05, 0.8, 100, 1e-6),
    (1.0, 20.0, 200, 1e-5),
]


# --- oracles --------------------------------------------------------------------------------------------


def solved(delta_of, delta):
    """Return the least epsilon with delta_of(epsilon) <= delta, by bisection."""
    low, high = 0.0, 200.0
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (low, middle) if delta_of(middle) <= delta else (middle, high)
    return high


def gaussian_epsilon(mu, delta):
    """Balle and Wang 2018, theorem 8: delta = Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu)."""
    return solved(
        lambda e: norm.cdf(mu / 2 - e / mu) - math.exp(e + norm.logcdf(-mu / 2 - e / mu)),
        delta,
    )


def hockey_stick(p, q, width):
    """Return delta(epsilon) between two densities on an even grid of this width."""
    return lambda e: float(np.maximum(p - math.exp(e) * q, 0).sum() * width)


def discrete_pmf(sigma, reach):
    x = np.arange(-reach, reach + 1)
    weights = np.exp(-(x**2) / (2 * sigma**2))
    return x, weights / weights.sum()


def convolved_epsilon(sigma, count, delta):
    """Epsilon of `count` discrete Gaussian draws shifted by one, by convolving the pmf with itself.

    The loss log P(x)/P(x-1) is (1 - 2x) / (2 sigma^2), so that of several draws depends on their sum alone.
    """
    reach = math.ceil(14 * sigma) + 4
    _, one = discrete_pmf(sigma, reach)
    summed = np.array([1.0])
    for _ in range(count):
        summed = np.convolve(summed, one)
    totals = np.arange(len(summed)) - reach * count
    loss = (count - 2 * totals) / (2 * sigma**2)
    return solved(lambda e: float((summed * -np.expm1(np.minimum(0, e - loss))).sum()), delta)


# --- sub-sampled Gaussians ------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "noise", "steps", "delta"), SUBSAMPLED)
def test_epsilon_agrees_with_opacus_prv_within_its_own_error(rate, noise, steps, delta):
    prv = PRVAccountant()
    prv.history = [(noise, rate, steps)]
    upper = prv.get_epsilon(delta, eps_error=0.01, delta_error=delta / 1000)
    ours = epsilon([PoissonGaussian(noise, rate, steps)], delta, grid=CERTIFICATE)
    # PRV returns its estimate plus eps_error, so the truth lies within two of them below.
    assert upper - 0.02 <= ours <= upper + 0.002


@pytest.mark.parametrize(("rate", "noise", "steps", "delta"), SUBSAMPLED)
@pytest.mark.parametrize("grid", [WORKING, CERTIFICATE])
def test_epsilon_never_exceeds_what_renyi_accounting_proves(rate, noise, steps, delta, grid):
    rdp = RDPAccountant()
    rdp.history = [(noise, rate, steps)]
    assert 0 < epsilon([PoissonGaussian(noise, rate, steps)], delta, grid=grid) <= rdp.get_epsilon(delta)


@pytest.mark.parametrize("relation", [ADD_REMOVE, REPLACE_ONE])
@pytest.mark.parametrize(("rate", "noise"), [(0.25, 1.0), (0.5, 3.0)])
def test_one_subsampled_step_agrees_with_numerical_integration(rate, noise, relation):
    x = np.linspace(-15 * noise, 15 * noise, 40_001)
    at = {shift: norm.pdf(x, shift, noise) for shift in (-1, 0, 1)}
    mixed = {shift: (1 - rate) * at[0] + rate * at[shift] for shift in (-1, 1)}
    pairs = [(mixed[1], at[0]), (at[0], mixed[1])] if relation == ADD_REMOVE else [(mixed[1], mixed[-1])]
    exact = max(solved(hockey_stick(p, q, x[1] - x[0]), 1e-5) for p, q in pairs)
    ours = epsilon([PoissonGaussian(noise, rate, 1)], 1e-5, relation=relation, grid=CERTIFICATE)
    assert exact - 1e-5 <= ours <= exact + 2e-3


# --- Gaussians without sub-sampling ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noise", "steps", "delta"), [(1.0, 1, 1e-5), (20.0, 200, 1e-5), (5.0, 10, 1e-8), (0.7, 2, 1e-4)]
)
@pytest.mark.parametrize("grid", [WORKING, CERTIFICATE])
def test_gaussians_agree_with_the_closed_form_and_never_fall_below_it(noise, steps, delta, grid):
    exact = gaussian_epsilon(math.sqrt(steps) / noise, delta)
    ours = epsilon([PoissonGaussian(noise, 1.0, steps)], delta, grid=grid)
    assert exact - 1e-9 <= ours <= exact * 1.005 + grid


def test_different_gaussians_compose_to_the_closed_form_of_their_summed_precision():
    noises = [(3.0, 4), (5.0, 9), (11.0, 30)]
    exact = gaussian_epsilon(math.sqrt(sum(steps / noise**2 for noise, steps in noises)), 1e-6)
    ours = epsilon([PoissonGaussian(noise, 1.0, steps) for noise, steps in noises], 1e-6, grid=CERTIFICATE)
    assert exact - 1e-9 <= ours <= exact * 1.005


def test_replacing_one_customer_doubles_the_sensitivity_of_a_gaussian():
    exact = gaussian_epsilon(2 * math.sqrt(50) / 20, 1e-5)
    replaced = epsilon([PoissonGaussian(20.0, 1.0, 50)], 1e-5, relation=REPLACE_ONE, grid=CERTIFICATE)
    assert exact - 1e-9 <= replaced <= exact * 1.005
    assert replaced == pytest.approx(epsilon([PoissonGaussian(10.0, 1.0, 50)], 1e-5, grid=CERTIFICATE), rel=1e-3)


@pytest.mark.parametrize("partners", [1, 2, 5])
def test_a_person_at_k_partners_pays_for_k_compositions(partners):
    event = PoissonGaussian(15.0, 1.0, 12)
    exact = gaussian_epsilon(math.sqrt(12 * partners) / 15, 1e-5)
    copied = epsilon([event], 1e-5, copies=partners, grid=CERTIFICATE)
    assert exact - 1e-9 <= copied <= exact * 1.005
    mixed = [PoissonGaussian(2.0, 0.1, 20), DiscreteGaussian(6.0, 2)]
    assert epsilon(mixed, 1e-5, copies=partners) == pytest.approx(epsilon(mixed * partners, 1e-5), rel=1e-6)


# --- discrete Gaussians ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sigma", "count", "delta"), [(5.28, 1, 1e-5), (5.28, 2, 1e-5), (1.0, 3, 1e-4), (12.0, 7, 1e-6), (0.6, 1, 1e-3)]
)
def test_discrete_gaussians_agree_with_the_convolution_of_their_pmf(sigma, count, delta):
    exact = convolved_epsilon(sigma, count, delta)
    for grid in (WORKING, CERTIFICATE):
        ours = epsilon([DiscreteGaussian(sigma, count)], delta, grid=grid)
        assert exact - 1e-9 <= ours <= exact * 1.01 + grid


def test_replacing_a_customer_moves_it_between_two_counts():
    sigma, reach = 4.0, 50
    _, middle = discrete_pmf(sigma, reach)
    before = np.outer(np.append(0, middle), np.append(middle, 0))  # the customer is in the first count
    after = before.T  # and now in the second
    exact = solved(hockey_stick(before, after, 1), 1e-5)
    ours = epsilon([DiscreteGaussian(sigma, 1)], 1e-5, relation=REPLACE_ONE, grid=CERTIFICATE)
    assert exact - 1e-9 <= ours <= exact * 1.005
    assert ours > 1.2 * epsilon([DiscreteGaussian(sigma, 1)], 1e-5, grid=CERTIFICATE)


# --- composition ----------------------------------------------------------------------------------------

MIXED = [
    PoissonGaussian(1.5, 0.05, 40),
    DiscreteGaussian(8.0, 3),
    PoissonGaussian(6.0, 1.0, 5),
    Nothing(),
    DiscreteGaussian(5.0, 1),
]


@pytest.mark.parametrize("relation", [ADD_REMOVE, REPLACE_ONE])
def test_the_order_of_events_does_not_matter(relation):
    forwards = epsilon(MIXED, 1e-5, relation=relation)
    assert epsilon(MIXED[::-1], 1e-5, relation=relation) == forwards
    assert epsilon(MIXED[2:] + MIXED[:2], 1e-5, relation=relation) == forwards


def test_how_equal_steps_are_grouped_into_events_does_not_matter():
    whole = epsilon([PoissonGaussian(2.0, 0.1, 60), DiscreteGaussian(7.0, 4)], 1e-5)
    split = [PoissonGaussian(2.0, 0.1, 10)] * 6 + [DiscreteGaussian(7.0, 1)] * 4
    assert epsilon(split, 1e-5) == whole


def test_every_further_event_costs_something_but_nothing_costs_nothing():
    assert epsilon([], 1e-5) == 0.0
    assert epsilon([Nothing(), Nothing()], 1e-5) == 0.0
    paid = [event for event in MIXED if not isinstance(event, Nothing)]
    assert epsilon(MIXED, 1e-5) == epsilon(paid, 1e-5)
    costs = [epsilon(paid[:n], 1e-5) for n in range(len(paid) + 1)]
    assert costs == sorted(set(costs))


def test_composition_is_tighter_than_adding_up_epsilons():
    one = epsilon([PoissonGaussian(4.0, 0.1, 100)], 1e-5)
    assert epsilon([PoissonGaussian(4.0, 0.1, 500)], 1e-5) < 3 * one


# --- the guarantee --------------------------------------------------------------------------------------


def test_a_guarantee_says_everything_that_its_epsilon_depends_on():
    bound = guarantee([PoissonGaussian(6.0, 1.0, 5)], 1e-6, trust="local", relation=REPLACE_ONE)
    assert bound.epsilon == epsilon([PoissonGaussian(6.0, 1.0, 5)], 1e-6, relation=REPLACE_ONE, grid=CERTIFICATE)
    printed = str(bound)
    assert f"epsilon {bound.epsilon:.3g}" in printed
    for part in ("1e-06", UNIT, REPLACE_ONE, "local", "PLD"):
        assert part in printed


@pytest.mark.parametrize("source", ["seeded", "torch", ""])
def test_noise_of_any_source_but_the_operating_system_voids_the_guarantee(source):
    bound = guarantee([DiscreteGaussian(1000.0, 1)], 1e-5, trust="local", random_source=source)
    assert bound.epsilon == math.inf
    assert "no guarantee" in str(bound)
    assert "epsilon" not in str(bound)


def test_a_relation_that_is_not_known_is_refused():
    with pytest.raises(KeyError):
        epsilon([PoissonGaussian(1.0, 0.5, 1)], 1e-5, relation="zero out one customer")


# --- secure sums ----------------------------------------------------------------------------------------


def a_sum(rate=1.0, steps=5):
    return DistributedGaussian(share=300_000, shares=3, sensitivity=131_072, sample_rate=rate, steps=steps)


def scale_of(event):
    """Noise over the sensitivity, from the event's whole numbers and nothing else."""
    return math.sqrt(event.shares * event.share**2 - 36) / event.sensitivity


@pytest.mark.parametrize("partners", [1, 2, 3, 8])
def test_a_person_at_several_partners_moves_a_secure_sum_by_as_many_sensitivities(partners):
    event = a_sum()
    exact = gaussian_epsilon(partners * math.sqrt(event.steps) / scale_of(event), 1e-6)
    bound = epsilon([event], 1e-6, copies=partners, grid=CERTIFICATE)
    assert exact <= bound <= 1.01 * exact + 0.01
    # Noise of their own at every partner would cost less: sums share theirs.
    own = gaussian_epsilon(math.sqrt(partners * event.steps) / scale_of(event), 1e-6)
    assert partners == 1 or bound > 1.2 * own


@pytest.mark.parametrize("relation", [ADD_REMOVE, REPLACE_ONE])
def test_a_sampled_secure_sum_costs_as_sampled_gaussian_noise_of_that_scale(relation):
    event = a_sum(rate=0.1, steps=40)
    oracle = PRVAccountant()
    oracle.history = [(scale_of(event), 0.1, 40)]
    bound = epsilon([event], 1e-5, relation=relation, grid=CERTIFICATE)
    assert bound == epsilon([PoissonGaussian(scale_of(event), 0.1, 40)], 1e-5, relation=relation, grid=CERTIFICATE)
    if relation == ADD_REMOVE:
        assert bound == pytest.approx(oracle.get_epsilon(1e-5), rel=0.02)


def test_secure_sums_compose_with_one_another_and_with_what_else_is_charged():
    event = a_sum()
    assert epsilon([event] * 3, 1e-5) == epsilon([a_sum(steps=15)], 1e-5)
    both = epsilon([event, DiscreteGaussian(4.0, 2)], 1e-5, copies=2)
    # Two partners: the sum's noise is shared, that of the two histograms at each is not.
    mu = math.sqrt(4 * event.steps / scale_of(event) ** 2 + 2 * 2 / 16)
    assert both == pytest.approx(gaussian_epsilon(mu, 1e-5), rel=0.02)
    assert guarantee([event], 1e-5, trust="secure-aggregation").trust == "secure-aggregation"
