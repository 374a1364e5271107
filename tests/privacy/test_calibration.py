"""Calibration: the budget is kept, the noise is the least that keeps it, and too small a budget is refused."""

import dataclasses
import datetime
import math

import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from scipy.optimize import brentq
from scipy.stats import norm

from coterie.privacy.accountant import CERTIFICATE, WORKING, epsilon, guarantee
from coterie.privacy.calibration import HOLDOUT, TRAINING, calibrate
from coterie.privacy.contract import Contract
from coterie.privacy.errors import PlanFault
from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, PoissonGaussian
from coterie.privacy.plan import Cohort, Matching, Partner, Plan, Privacy, Secure
from coterie.privacy.terms import NO_TRAINING

GRID = [
    *((0.1, rate) for rate in (0.01, 1.0)),
    (0.5, 0.1),
    *((1.0, rate) for rate in (0.02, 0.25, 1.0)),
    (8.0, 1.0),
    *(pytest.param(8.0, rate, marks=pytest.mark.slow) for rate in (0.01, 0.1)),
]


def varied(plan, *, training=None, **privacy):
    return dataclasses.replace(
        plan,
        training=dataclasses.replace(plan.training, **(training or {})),
        privacy=dataclasses.replace(plan.privacy, **privacy),
    )


@pytest.mark.parametrize(("eps", "rate"), GRID)
def test_the_certificate_keeps_the_budget_and_less_noise_would_not(plan, eps, rate):
    asked = varied(plan, epsilon=eps, training={"sample_rate": rate})
    mechanisms = calibrate(asked)
    for group in (TRAINING, HOLDOUT):
        spent = guarantee(mechanisms.events(group), asked.privacy.delta, trust="local").epsilon
        assert 0.98 * eps < spent <= eps
    steps = asked.training.local_steps * mechanisms.updates
    update = PoissonGaussian(mechanisms.update.noise_multiplier - 0.002, rate, steps)
    histogram = DiscreteGaussian(mechanisms.histogram.sigma - 0.002, mechanisms.histograms)
    for weaker in (update, histogram):
        assert epsilon([weaker], asked.privacy.delta, grid=WORKING) > eps


@pytest.mark.parametrize("eps", [0.1, 1.0, 8.0])
def test_noise_without_subsampling_is_the_closed_form_s_rounded_up(plan, eps):
    asked = varied(plan, epsilon=eps, training={"sample_rate": 1.0})
    mechanisms = calibrate(asked)

    def excess(mu):  # Balle and Wang 2018, theorem 8
        return norm.cdf(mu / 2 - eps / mu) - math.exp(eps + norm.logcdf(-mu / 2 - eps / mu)) - 1e-5

    steps = asked.training.local_steps * mechanisms.updates
    exact = math.sqrt(steps) / brentq(excess, 1e-3, 20)
    assert exact <= mechanisms.update.noise_multiplier <= 1.01 * exact + 0.001


def test_noise_is_a_whole_number_of_thousandths(plan):
    mechanisms = calibrate(plan)
    for noise in (mechanisms.update.noise_multiplier, mechanisms.histogram.sigma):
        assert noise == round(noise * 1000) / 1000


def test_rounds_spare_attempts_and_metric_rounds_are_all_paid_for(plan):
    mechanisms = calibrate(plan)
    assert mechanisms.updates == len(mechanisms.events(TRAINING)) == plan.training.rounds + plan.training.spare
    assert mechanisms.histograms == len(mechanisms.events(HOLDOUT)) == len(plan.metrics.rounds) + plan.training.spare
    assert set(mechanisms.events(TRAINING)) == {mechanisms.update}
    assert mechanisms.update.steps == plan.training.local_steps
    assert mechanisms.update.sample_rate == plan.training.sample_rate
    assert set(mechanisms.events(HOLDOUT)) == {mechanisms.histogram}
    assert mechanisms.histogram.count == 1


def test_more_spare_attempts_need_more_noise(plan):
    more = calibrate(varied(plan, training={"spare": 9}))
    assert more.update.noise_multiplier > calibrate(plan).update.noise_multiplier
    assert more.histogram.sigma > calibrate(plan).histogram.sigma


def test_each_group_spends_its_share_of_epsilon_and_no_more(plan):
    split = dataclasses.replace(plan.privacy.split, training=0.8, metrics=0.3)
    mechanisms = calibrate(varied(plan, epsilon=2.0, split=split))
    shares = {TRAINING: 1.6, HOLDOUT: 0.6}
    for group, share in shares.items():
        spent = epsilon(mechanisms.events(group), plan.privacy.delta, grid=CERTIFICATE)
        assert 0.97 * share < spent <= share


@pytest.mark.parametrize("delta", [1e-9, 1e-4])
def test_the_budget_is_kept_at_the_plans_own_delta(plan, delta):
    mechanisms = calibrate(varied(plan, delta=delta))
    for group in (TRAINING, HOLDOUT):
        assert 0.98 < guarantee(mechanisms.events(group), delta, trust="local").epsilon <= 1.0


def test_an_epsilon_that_no_noise_keeps_is_a_fault_with_a_fix(plan):
    with pytest.raises(PlanFault) as caught:
        calibrate(varied(plan, epsilon=1e-3))
    (fault,) = caught.value.faults
    assert fault.place == "plan.privacy.epsilon"
    assert "too small" in fault.rule
    assert fault.fix


# --- secure sums ----------------------------------------------------------------------------------------


def summed(plan, count=4, *, colluders=1, threshold=3, training=None, secure=None, **privacy):
    """The plan again, with secure sums over so many partners."""
    partners = tuple(Partner(name=f"p{number}", customers=600 * number) for number in range(1, count + 1))
    asked = varied(
        plan,
        training=training,
        trust="secure-aggregation",
        threshold=threshold,
        colluders=colluders,
        **privacy,
    )
    asked = dataclasses.replace(asked, partners=partners, secure=secure)
    asked.check("plan")
    return asked


COHORTS = [(3, 3, 1), (4, 3, 1), (5, 4, 2), (10, 8, 3), (20, 14, 5)]  # partners, threshold, colluders


@pytest.mark.parametrize(("count", "threshold", "colluders"), COHORTS)
def test_secure_sums_keep_the_budget_with_the_noise_of_honest_partners_alone(plan, count, threshold, colluders):
    asked = summed(plan, count, threshold=threshold, colluders=colluders, epsilon=2.0)
    mechanisms = calibrate(asked)
    for group in (TRAINING, HOLDOUT):
        events = mechanisms.events(group)
        assert {event.shares for event in events} == {threshold - colluders}
        spent = guarantee(events, asked.privacy.delta, trust="secure-aggregation").epsilon
        assert 0.97 * 2.0 < spent <= 2.0
        # By hand: what T - c partners add, without what rounding takes, over the sensitivity.
        (event, *_) = events
        scale = math.sqrt((threshold - colluders) * event.share**2 - 36) / event.sensitivity
        same = PoissonGaussian(scale, event.sample_rate, len(events))
        assert epsilon([same], asked.privacy.delta, grid=CERTIFICATE) <= 2.0
        # With one honest partner fewer the budget would not be kept.
        weaker = dataclasses.replace(event, shares=event.shares - 1, steps=len(events))
        assert event.shares == 1 or epsilon([weaker], asked.privacy.delta) > 2.0


@pytest.mark.parametrize("eps", [0.5, 2.0])
def test_noise_of_secure_sums_is_never_less_than_the_plan_asks_for_and_little_more(plan, eps):
    asked = summed(plan, epsilon=eps, training={"sample_rate": 1.0})
    mechanisms = calibrate(asked)

    def excess(mu):  # Balle and Wang 2018, theorem 8
        return norm.cdf(mu / 2 - eps / mu) - math.exp(eps + norm.logcdf(-mu / 2 - eps / mu)) - 1e-5

    most = brentq(excess, 1e-3, 20)
    for event, count in ((mechanisms.update, mechanisms.updates), (mechanisms.histogram, mechanisms.histograms)):
        exact = math.sqrt(count) / most
        assert exact <= event.noise_multiplier <= 1.01 * exact + 0.002
        shared = event.noise_multiplier * event.sensitivity / math.sqrt(event.shares)
        assert 0 < event.share - shared < 1


def test_every_local_step_is_a_secure_sum_and_every_measured_round_one_more(plan):
    mechanisms = calibrate(summed(plan))
    training = plan.training
    assert mechanisms.updates == training.rounds * training.local_steps + training.spare
    assert mechanisms.histograms == len(plan.metrics.rounds) + training.spare
    assert mechanisms.update.steps == mechanisms.histogram.steps == 1
    assert mechanisms.update.sample_rate == training.sample_rate
    assert mechanisms.histogram.sample_rate == 1.0
    assert len(mechanisms.events(TRAINING)) == mechanisms.updates
    assert isinstance(mechanisms.update, DistributedGaussian)


def test_the_numbers_of_secure_sums_are_those_of_their_events_and_have_room(plan):
    for asked in (summed(plan), summed(plan, secure=Secure(batch_cap=50_000))):
        mechanisms = calibrate(asked)
        for event, numbers in (
            (mechanisms.update, mechanisms.summed.update),
            (mechanisms.histogram, mechanisms.summed.histogram),
        ):
            assert (event.share, event.sensitivity) == (numbers.share, numbers.sensitivity)
            # All partners at their bound, with eleven deviations of everybody's noise, fit the ring.
            most = 4 * numbers.bound + 11 * math.sqrt(4) * numbers.share
            assert most <= 2 ** (numbers.bits - 1) - 1
        largest = max(partner.customers for partner in asked.partners)
        cap = 50_000 if asked.secure else math.ceil(2 * asked.training.sample_rate * largest)
        assert mechanisms.summed.update.bound == cap * mechanisms.update.sensitivity
        # A partner that holds more customers out than it declared is counted all the same.
        assert mechanisms.summed.histogram.bound >= largest * mechanisms.histogram.sensitivity
    assert calibrate(plan).summed is None


def test_the_surplus_of_partners_who_are_all_honest_is_not_credited(plan):
    few, many = (calibrate(summed(plan, count, threshold=4)) for count in (4, 5))
    assert few.update.noise_multiplier == pytest.approx(many.update.noise_multiplier, rel=1e-4)
    assert calibrate(summed(plan, 4, threshold=3)).update.share > few.update.share


# --- matches ----------------------------------------------------------------------------------------------------


def matching_plan(eps=1.0, spare=0, outcome="counts"):
    names = ("amber", "birch", "cedar")
    return Plan(
        name="overlap",
        purpose="coupons",
        task="matching",
        expires=datetime.date(2031, 12, 31),
        contract=Contract(customer="customer"),
        training=dataclasses.replace(NO_TRAINING, spare=spare),
        privacy=Privacy(
            unit="customer of one partner", epsilon=eps, delta=1e-5, trust="local", threshold=3, colluders=1
        ),
        cohort=Cohort(minimum_customers=10),
        partners=tuple(Partner(name=name, customers=100) for name in names),
        matching=Matching(identifier="email", outcome=outcome),
    )


def by_google(sigma, lists, delta=1e-5):
    """Another accountant: the privacy loss distribution of Google's library, of a discrete Gaussian that moves by 1."""
    one = pld.from_discrete_gaussian_mechanism(sigma, sensitivity=1, value_discretization_interval=1e-4)
    return one.self_compose(lists).get_epsilon_for_delta(delta)


@pytest.mark.parametrize(("eps", "spare"), [(0.5, 0), (1.0, 0), (1.0, 1), (4.0, 2)])
def test_a_match_has_the_least_noise_that_keeps_its_whole_epsilon_in_both_groups(eps, spare):
    plan = matching_plan(eps, spare)
    mechanisms = calibrate(plan)
    assert (mechanisms.overlaps, mechanisms.overlap.count) == (1 + spare, 1)
    assert (mechanisms.updates, mechanisms.histograms, mechanisms.countings) == (0, 0, 0)
    for group in (TRAINING, HOLDOUT):
        spent = guarantee(mechanisms.events(group), plan.privacy.delta, trust="local").epsilon
        assert 0.98 * eps < spent <= eps
    sigma = mechanisms.overlap.sigma
    assert by_google(sigma, 1 + spare) <= eps * 1.001
    assert by_google(sigma - 0.004, 1 + spare) > eps * 0.999


@pytest.mark.parametrize("outcome", ["rows", "tokens"])
def test_a_disclosure_has_no_noise_and_charges_nothing(outcome):
    mechanisms = calibrate(matching_plan(outcome=outcome))
    assert (mechanisms.overlap, mechanisms.overlaps) == (None, 0)
    for group in (TRAINING, HOLDOUT):
        assert mechanisms.events(group) == ()
