"""The profile against the exact trade-off of a Gaussian, and its words against its figures."""

import math

import pytest
from scipy.stats import norm

from coterie.privacy.accountant import ADD_REMOVE, CERTIFICATE, REPLACE_ONE, epsilon
from coterie.privacy.events import DiscreteGaussian, Nothing, PoissonGaussian
from coterie.privacy.review.bracket import deltas
from coterie.privacy.review.profile import (
    DELTAS,
    EPSILONS,
    FALSE_POSITIVES,
    PRIORS,
    SURPRISE,
    Profile,
    profile,
    words,
)

MU = [0.1, 0.5, 1.0, 2.0]


def gaussians(mu):
    return [PoissonGaussian(4 / mu, 1.0, 16)]


@pytest.mark.parametrize("mu", MU)
def test_the_trade_off_of_gaussians_is_bounded_tightly(mu):
    shown = profile(gaussians(mu))
    for rate, found in shown.found:
        exact = norm.cdf(norm.ppf(rate) + mu)  # the trade-off function of Gaussians: Dong, Roth, Su 2022, section 2.2
        assert exact <= found <= 1.03 * exact
    assert norm.cdf(mu / 2) <= shown.accuracy <= norm.cdf(mu / 2) + 2e-3


@pytest.mark.parametrize("mu", MU)
def test_beliefs_bound_what_an_attacker_of_gaussians_comes_to_hold(mu):
    # The loss is N(mu^2 / 2, mu^2); its upper quantile is what the belief must reach.
    loss = mu**2 / 2 + mu * norm.isf(SURPRISE)
    for people, belief in profile(gaussians(mu)).beliefs:
        exact = 1 / (1 + (people - 1) * math.exp(-loss))
        assert exact <= belief
        assert math.log(belief / (1 - belief)) <= math.log(exact / (1 - exact)) + 0.15 + 0.25 * mu


@pytest.mark.parametrize(
    "events",
    [
        [PoissonGaussian(2.0, 0.1, 100)],
        [DiscreteGaussian(8.0, 3)],
        [PoissonGaussian(3.0, 0.2, 30), DiscreteGaussian(9.0, 2)],
    ],
    ids=str,
)
def test_the_figures_are_near_the_first_accountants_and_fall_as_they_should(events):
    shown = profile(events)
    assert tuple(delta for delta, _ in shown.epsilons) == DELTAS
    for delta, bound in shown.epsilons[:4]:
        assert bound == pytest.approx(epsilon(events, delta, grid=CERTIFICATE), rel=0.01)
    rising = [bound for _, bound in shown.epsilons]
    assert rising == sorted(rising)
    assert tuple(at for at, _ in shown.deltas) == EPSILONS
    falling = [bound for _, bound in shown.deltas]
    assert falling == sorted(falling, reverse=True)
    for (_, bound), true in zip(shown.deltas, deltas(events, EPSILONS), strict=True):
        assert true.low <= bound
    assert tuple(rate for rate, _ in shown.found) == FALSE_POSITIVES
    assert all(rate < found < 1 for rate, found in shown.found)
    assert 0.5 < shown.accuracy < 1
    assert tuple(people for people, _ in shown.beliefs) == PRIORS
    assert all(1 / people < belief < 1 for people, belief in shown.beliefs)


def test_a_replaced_customer_and_several_partners_reveal_more():
    events = [DiscreteGaussian(8.0, 2)]
    base = profile(events)
    for other in (profile(events, relation=REPLACE_ONE), profile(events, copies=3)):
        assert other.accuracy > base.accuracy
        assert all(more[1] > less[1] for more, less in zip(other.epsilons, base.epsilons, strict=True))
        assert all(more[1] > less[1] for more, less in zip(other.found, base.found, strict=True))
        assert all(more[1] > less[1] for more, less in zip(other.beliefs, base.beliefs, strict=True))
    assert profile(events, copies=3).epsilons == profile(events * 3).epsilons


def test_of_nothing_nothing_is_learnt():
    shown = profile([Nothing()])
    assert {bound for _, bound in shown.epsilons} == {bound for _, bound in shown.deltas} == {0.0}
    assert shown.accuracy == 0.5
    assert shown.found == tuple((rate, rate) for rate in FALSE_POSITIVES)
    assert shown.beliefs == tuple((people, pytest.approx(1 / people)) for people in PRIORS)


def test_next_to_no_noise_promises_nothing_but_stays_a_probability():
    shown = profile([PoissonGaussian(0.1, 1.0, 1)])
    assert all(0.99 < value <= 1 for value in (*dict(shown.found).values(), *dict(shown.beliefs).values()))
    assert 0.99 < shown.accuracy <= 1


def example(relation=ADD_REMOVE):
    return Profile(
        epsilons=((1e-5, 1.83),),
        deltas=((0.0, 0.16),),
        found=((0.01, 0.02911), (0.001, 0.004)),
        accuracy=0.5801,
        beliefs=((2, 0.9021), (100, 0.0859)),
        relation=relation,
        copies=1,
    )


def test_the_words_say_the_figures_rounded_upwards():
    said = words(example())
    assert len(said) == 6
    assert "right at most 58.1 times in 100" in said[0]
    assert said[1].startswith(
        "An attacker who flags 1 in 100 people wrongly can find at most 3 in 100 of those who were"
    )
    assert "guessing finds 1 in 100" in said[1]
    assert "1 in 1,000 people wrongly can find at most 0.4 in 100" in said[2]
    assert "at 1 in 2 can be led to 90.3 in 100 at most" in said[3]
    assert "at 1 in 100 can be led to 1 in 11 at most" in said[4]
    assert "The last 2 sentences" not in said[5]
    assert f"The 2 sentences before this one may fail with probability {SURPRISE:g}" in said[5]


def test_the_words_name_the_relation():
    assert any("rather than another" in sentence for sentence in words(example(REPLACE_ONE)))
    assert not any("rather than another" in sentence for sentence in words(example()))
