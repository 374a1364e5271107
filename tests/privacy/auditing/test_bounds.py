"""Lower bounds against mechanisms whose privacy is known exactly, and against another implementation's numbers."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from coterie.privacy.accountant import epsilon
from coterie.privacy.auditing import bounds
from coterie.privacy.auditing.bounds import Guesses
from coterie.privacy.events import PoissonGaussian

# Printed by jax-privacy 2.0.0, `_epsilon_one_run` and `_epsilon_one_run_fdp` of `jax_privacy/auditing.py`:
# (canaries, made, right, significance, delta), bound by theorem 5.2, bound by Gaussian trade-off curves.
ELSEWHERE = [
    ((1000, 100, 95, 0.05, 1e-5), 2.165176, 3.3233),
    ((1000, 500, 450, 0.05, 1e-5), 1.946012, 3.387665),
    ((1000, 500, 500, 0.05, 1e-5), 5.087549, 9.919382),
    ((200, 50, 40, 0.05, 0.0), 0.774085, None),
    ((1000, 1000, 600, 0.05, 1e-5), 0.297227, 0.58354),
    ((1000, 500, 330, 0.025, 1e-5), 0.474436, 0.784291),
    ((2000, 500, 330, 0.0125, 1e-6), 0.448936, 0.732441),
    ((1000, 500, 260, 0.05, 1e-5), 0.0, 0.0),
]


@pytest.mark.parametrize(("run", "snj", "fdp"), ELSEWHERE)
def test_the_bounds_are_those_of_another_implementation(run, snj, fdp):
    canaries, made, right, significance, delta = run
    guesses = Guesses(canaries, made, right)
    found = bounds.snj_bound(guesses, delta, significance=significance)
    assert snj - 1.1e-4 <= found <= snj + 1e-6  # rounded down, never up
    if fdp is not None:
        found = bounds.fdp_bound_gaussian(guesses, delta, significance=significance)
        assert fdp - 1.1e-4 <= found <= fdp + 1e-6


# --- coverage: a bound above the truth is a false alarm -------------------------------------------------


def coins(rng, canaries):
    return rng.random(canaries) < 0.5


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_coverage_is_exact_where_the_bound_is_tight(share):
    # Randomised response: every guess is right with probability e^eps / (1 + e^eps), whatever the others are.
    rng, true, canaries, runs = np.random.default_rng(1), 1.0, 400, 600
    curve = bounds.curve_from_deltas(np.array([true]), np.zeros(1))
    alarms = {"snj": 0, "fdp": 0}
    for _ in range(runs):
        included = coins(rng, canaries)
        said = np.where(rng.random(canaries) < 1 / (1 + math.exp(-true)), included, ~included)
        scores = np.where(said, 1.0, -1.0) * (1 + rng.random(canaries))
        guesses = bounds.guess(scores, included, made=int(share * canaries))
        alarms["snj"] += bounds.snj_p_value(guesses, true, delta=0.0) <= 0.05
        alarms["fdp"] += bounds.fdp_refutes(guesses, curve, significance=0.05)
    # "Out" may be guessed of scores that say "in" where all are guessed: then the count is less exact.
    assert alarms["snj"] <= 0.05 * runs + 3 * math.sqrt(0.05 * 0.95 * runs)
    assert alarms["fdp"] <= 0.05 * runs + 3 * math.sqrt(0.05 * 0.95 * runs)
    if share < 1:
        assert alarms["snj"] >= 0.02 * runs


@pytest.mark.parametrize(("mu", "share"), [(0.25, 0.1), (1.0, 0.1), (1.0, 0.5), (3.0, 0.5)])
def test_the_bound_on_a_gaussian_mechanism_is_seldom_above_the_truth_and_not_idle(mu, share):
    rng, delta, runs, canaries = np.random.default_rng(2), 1e-5, 100, 1000
    true = epsilon([PoissonGaussian(1 / mu, 1.0, 1)], delta, grid=1e-4)
    found = []
    for _ in range(runs):
        included = coins(rng, canaries)
        guesses = bounds.guess(mu * included + rng.normal(size=canaries), included, made=int(share * canaries))
        found.append(
            (
                bounds.fdp_bound_gaussian(guesses, delta, significance=0.05),
                bounds.snj_bound(guesses, delta, significance=0.05),
            )
        )
    fdp, snj = np.array(found).T
    assert (fdp > true).mean() <= 0.05
    assert (snj > true).mean() <= 0.05
    if mu >= 1:
        assert np.median(fdp) > 0.4 * true
        assert np.median(fdp) > np.median(snj)


@pytest.mark.parametrize("claimed", [PoissonGaussian(4.327, 0.25, 40), PoissonGaussian(1.0, 0.1, 20)])
def test_the_bound_on_a_sampled_mechanism_is_seldom_above_the_truth(claimed):
    rng, delta, runs, canaries = np.random.default_rng(3), 1e-5, 30, 2000
    true, alarms = epsilon([claimed], delta), 0
    for _ in range(runs):
        included = coins(rng, canaries)
        times = rng.binomial(claimed.steps, claimed.sample_rate, canaries)
        noise = claimed.noise_multiplier * math.sqrt(claimed.steps) * rng.normal(size=canaries)
        guesses = bounds.guess(included * times + noise, included, made=200)
        alarms += bounds.fdp_bound(guesses, claimed, delta=delta, significance=0.05) > true
    assert alarms <= 0.05 * runs


def test_a_mechanism_with_half_the_noise_is_refuted():
    rng, claimed = np.random.default_rng(4), PoissonGaussian(4.327, 0.25, 40)
    included = coins(rng, 16_000)
    noise = 0.5 * claimed.noise_multiplier * math.sqrt(claimed.steps) * rng.normal(size=16_000)
    scores = included * rng.binomial(40, 0.25, 16_000) + noise
    guesses = bounds.guess(scores, included, made=1600)
    assert bounds.fdp_bound(guesses, claimed, delta=1e-5, significance=0.03) > 1.5


# --- guesses --------------------------------------------------------------------------------------------


def test_the_extreme_scores_are_guessed_half_in_and_half_out():
    scores = np.array([5.0, -3.0, 0.0, 4.0, -2.0, 1.0])
    included = np.array([True, False, True, False, True, False])
    assert bounds.guess(scores, included, made=2) == Guesses(6, 2, 2)  # 5 is in, -3 is out
    assert bounds.guess(scores, included, made=4) == Guesses(6, 4, 2)  # 4 is out, -2 is in
    assert bounds.guess(scores, included, made=5).made == 4


def test_scores_that_say_nothing_bound_nothing():
    included = coins(np.random.default_rng(5), 1000)
    guesses = bounds.guess(np.zeros(1000), included, made=200)
    assert bounds.snj_bound(guesses, 1e-5, significance=0.01) == 0.0
    assert bounds.fdp_bound(guesses, PoissonGaussian(2.0, 0.5, 10), delta=1e-5, significance=0.01) == 0.0


def test_more_right_guesses_and_less_confidence_refute_more():
    found = [bounds.snj_bound(Guesses(1000, 100, right), 1e-5, significance=0.05) for right in (60, 80, 95, 100)]
    assert found == sorted(found)
    assert found[0] < found[-1]
    strict = bounds.snj_bound(Guesses(1000, 100, 95), 1e-5, significance=0.001)
    assert strict < found[2]


def test_delta_weakens_the_refutation():
    guesses = Guesses(1000, 100, 95)
    values = [bounds.snj_p_value(guesses, 2.0, delta=delta) for delta in (0.0, 1e-5, 1e-3, 1e-2)]
    assert values == sorted(values)
    assert values[0] < values[-1]


# --- curves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("delta", [1e-6, 1e-3])
def test_mu_is_the_one_at_which_gaussian_privacy_has_that_epsilon(claim, delta):
    mu = bounds.gaussian_mu(claim, delta)
    found = norm.cdf(-claim / mu + mu / 2) - math.exp(claim) * norm.cdf(-claim / mu - mu / 2)
    assert found == pytest.approx(delta, rel=1e-6)


@pytest.mark.parametrize("chance", [0.001, 0.03, 0.5, 0.9, 0.999])
def test_an_event_without_sampling_has_the_gaussian_curve(chance):
    found = bounds.event_curve(PoissonGaussian(2.0, 1.0, 9))(chance)
    exact = bounds.gaussian_curve(1.5)(chance)
    assert found <= exact + 1e-9  # pessimistic: claims no more than is true
    assert found == pytest.approx(exact, abs=2e-3)


def test_the_curve_of_a_sampled_step_is_below_both_directions_and_touches_one():
    noise, rate = 1.3, 0.3
    curve = bounds.event_curve(PoissonGaussian(noise, rate, 1))

    def mixture(at):
        return (1 - rate) * norm.sf(at / noise) + rate * norm.sf((at - 1) / noise)

    gaps = []
    for at in np.linspace(-4, 6, 41):
        alone, mixed = norm.sf(at / noise), mixture(at)
        # "above at" and "below at", seen from either data set.
        exact = [(mixed, alone), (1 - alone, 1 - mixed)]
        for chance, other in exact:
            assert curve(chance) <= other + 1e-9
            gaps.append(other - curve(chance))
    assert min(gaps) < 1e-4


@pytest.mark.parametrize("right", [320, 350, 380, 410, 440])
def test_the_ladder_of_noises_finds_what_the_gaussian_family_finds(right):
    guesses, claimed = Guesses(2000, 500, right), PoissonGaussian(2.0, 1.0, 1)
    fine = bounds.fdp_bound_gaussian(guesses, 1e-5, significance=0.05)
    coarse = bounds.fdp_bound(guesses, claimed, delta=1e-5, significance=0.05)
    assert 0.94 * fine <= coarse <= 1.005 * fine


# --- attacks --------------------------------------------------------------------------------------------


def test_the_area_is_the_chance_that_a_member_scores_higher():
    rng = np.random.default_rng(6)
    members, others = rng.integers(0, 9, 70) + 1.0, rng.integers(0, 9, 50) * 1.0
    higher = (members[:, None] > others).mean() + 0.5 * (members[:, None] == others).mean()
    assert bounds.attack(members, others).auc == pytest.approx(higher)


def test_the_interval_of_the_area_covers_the_truth():
    rng, shift = np.random.default_rng(7), 0.8
    true, covered = norm.cdf(shift / math.sqrt(2)), 0
    for _ in range(300):
        found = bounds.attack(rng.normal(shift, 1, 120), rng.normal(size=90))
        covered += found.auc_low <= true <= found.auc_high
    assert 0.91 <= covered / 300 <= 0.99


def test_true_positives_are_counted_where_so_few_others_are_caught():
    others = np.arange(200.0)
    members = np.concatenate((np.full(30, 197.5), np.full(10, 196.9), np.zeros(60)))
    found = bounds.attack(members, others, false_positives=0.01)  # 2 of 200: scores above 197
    assert (found.true_positives, found.false_positives) == (0.3, 0.01)
    assert found.true_positives_low < 0.3 < found.true_positives_high
    assert bounds.attack(others, others + 1000).true_positives == 0.0
    assert bounds.attack(others + 1000, others).true_positives_high == 1.0


def test_what_a_claim_allows_is_met_by_randomised_response_and_by_no_gaussian():
    assert bounds.most_true_positives(0.1, claim=math.log(3), delta=0.0) == pytest.approx(0.3)
    assert bounds.most_true_positives(0.9, claim=math.log(3), delta=0.0) == pytest.approx(1 - 0.1 / 3)
    assert bounds.most_true_positives(0.99, claim=5.0, delta=0.5) == 1.0
    for false in (0.001, 0.01, 0.2, 0.7):
        exact = norm.cdf(norm.ppf(false) + bounds.gaussian_mu(1.0, 1e-5))
        assert exact <= bounds.most_true_positives(false, claim=1.0, delta=1e-5)
