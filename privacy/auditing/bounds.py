"""Lower bounds on privacy loss from one training run, and how well an attacker tells members from others.

An audit puts m canaries in or out by fair coins, trains once, scores every canary and guesses the coins of the
`made` most telling ones. More right guesses than a claim allows refute the claim:

- Steinke, Nasr and Jagielski 2023 (arXiv 2305.08846, theorem 5.2 and appendix D): any (epsilon, delta) claim;
- Mahloujifar, Melis and Chaudhuri 2024 (arXiv 2410.22235, procedure `audit_rh_with_cap`): a claim about the
  whole trade-off curve, which refutes more. The curve is the claimed event's own (`event_curve`), so nothing is
  assumed about the shape of its privacy loss; the Gaussian family is there for un-sub-sampled releases.

How many guesses are made is fixed before the scores are seen, so that no confidence is lost to choosing. Estimates
that fit a Gaussian to scores are no bounds and are not here.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.accountant import WORKING, epsilon
from coterie.privacy.events import PoissonGaussian

__all__ = [
    "Attack",
    "Curve",
    "Guesses",
    "attack",
    "curve_from_deltas",
    "event_curve",
    "fdp_bound",
    "fdp_bound_gaussian",
    "fdp_refutes",
    "gaussian_curve",
    "gaussian_mu",
    "guess",
    "most_true_positives",
    "snj_bound",
    "snj_p_value",
]

Floats = NDArray[np.float64]
Curve = Callable[[float], float]
"""Least chance of an outcome without the customer, given its chance with the customer (a trade-off, inverted)."""

_STEPS = 16  # noises that are tried for each doubling
_FAR = 64  # of them, to either side of the claimed noise: a factor of 16


@dataclass(frozen=True)
class Guesses:
    """What a one-run audit guessed.

    Args:
        canaries: m, whose coins were tossed.
        made: How many coins were guessed, a number fixed beforehand.
        right: How many of the guesses were right.
    """

    canaries: int
    made: int
    right: int


def guess(scores: Floats, included: NDArray[np.bool_], *, made: int) -> Guesses:
    """Guess "in" for the highest scores and "out" for the lowest, half of `made` each.

    Args:
        scores: Shape (canaries,); higher for canaries that seem to be in.
        included: Their coins, shape (canaries,).
        made: How many guesses, even, chosen without looking at the scores.
    """
    order = np.argsort(scores, kind="stable")
    half = made // 2
    right = int(included[order[len(order) - half :]].sum()) + int((~included[order[:half]]).sum())
    return Guesses(len(scores), 2 * half, right)


def snj_p_value(guesses: Guesses, claim: float, *, delta: float) -> float:
    """Return the greatest chance of so many right guesses under a claim (Steinke et al. 2023, theorem 5.2).

    Args:
        guesses: What was guessed.
        claim: Epsilon, in nats.
        delta: In [0, 1).
    """
    from scipy.stats import binom  # noqa: PLC0415 - half a second, only when auditing

    chance = 1 / (1 + math.exp(-claim))
    beyond = binom.sf(np.arange(guesses.right, -1, -1) - 1, guesses.made, chance)  # P(W >= right - i), i = 0...
    steps = np.arange(1, guesses.right + 1)
    alpha = float(np.max((beyond[1:] - beyond[0]) / steps, initial=0.0))
    return min(1.0, float(beyond[0]) + 2 * guesses.canaries * delta * alpha)


def snj_bound(guesses: Guesses, delta: float, *, significance: float) -> float:
    """Return the greatest epsilon that is refuted: the true one is above it, but for a chance of `significance`."""
    return _greatest(lambda claim: snj_p_value(guesses, claim, delta=delta) <= significance)


def fdp_refutes(guesses: Guesses, least: Curve, *, significance: float) -> bool:
    """Return whether a claimed trade-off curve is refuted (Mahloujifar et al. 2024, `audit_rh_with_cap`).

    Args:
        guesses: What was guessed.
        least: The claim.
        significance: Chance at which a true claim may be refuted.
    """
    right = significance * guesses.right / guesses.canaries
    wrong = significance * (guesses.made - guesses.right) / guesses.canaries
    for index in range(guesses.right - 1, -1, -1):
        higher = max(wrong, least(min(right, 1.0)))
        if higher == wrong:
            break  # and stays so
        right += index / (guesses.made - index) * (higher - wrong)
        wrong = higher
    return right + wrong > guesses.made / guesses.canaries


def fdp_bound(guesses: Guesses, claimed: PoissonGaussian, *, delta: float, significance: float) -> float:
    """Return the greatest epsilon that is refuted among events like the claimed one with other noise.

    What is refuted is an event's whole curve, as it would be charged; epsilon is read off that curve. Noises are
    tried in steps of 4 %, and the least one that is refuted counts.

    Args:
        guesses: What was guessed.
        claimed: The event; its rate and steps are kept.
        delta: Where epsilon is read off the refuted event.
        significance: As in `fdp_refutes`.
    """

    def event(step: int) -> PoissonGaussian:
        noise = claimed.noise_multiplier * 2.0 ** (step / _STEPS)
        return PoissonGaussian(noise, claimed.sample_rate, claimed.steps)

    # More noise claims more and is refuted sooner: find the least noise that is refuted.
    low, high = -_FAR - 1, _FAR
    if not fdp_refutes(guesses, event_curve(event(high)), significance=significance):
        return 0.0
    while high - low > 1:
        middle = (low + high) // 2
        if event(middle).noise_multiplier >= 0.3 and fdp_refutes(
            guesses, event_curve(event(middle)), significance=significance
        ):
            high = middle
        else:
            low = middle
    return epsilon([event(high)], delta)


def fdp_bound_gaussian(guesses: Guesses, delta: float, *, significance: float) -> float:
    """Return the greatest epsilon whose Gaussian trade-off curve is refuted: for releases without sub-sampling."""

    def refuted(claim: float) -> bool:
        return fdp_refutes(guesses, gaussian_curve(gaussian_mu(claim, delta)), significance=significance)

    return _greatest(refuted)


def gaussian_curve(mu: float) -> Curve:
    """Return the curve of mu-Gaussian privacy: Phi(Phi^-1(p) - mu) (Dong, Roth and Su 2022, equation 6)."""
    from scipy.special import ndtr, ndtri  # noqa: PLC0415 - as above

    return lambda chance: float(ndtr(ndtri(chance) - mu))


def gaussian_mu(claim: float, delta: float) -> float:
    """Return the mu at which Gaussian privacy has this epsilon at delta (Dong et al. 2022, corollary 2.13)."""
    from scipy.special import log_ndtr, ndtr  # noqa: PLC0415 - as above

    low, high = 0.0, 100.0
    for _ in range(80):
        mu = (low + high) / 2
        tail = math.exp(min(0.0, claim + float(log_ndtr(-claim / mu - mu / 2))))
        low, high = (mu, high) if float(ndtr(-claim / mu + mu / 2)) - tail <= delta else (low, mu)
    return low


def curve_from_deltas(epsilons: Floats, deltas: Floats) -> Curve:
    """Return the curve that a privacy profile implies (Dong et al. 2022, proposition 2.12, both directions).

    Args:
        epsilons: At least 0, shape (points,).
        deltas: Upper bounds on delta at each of them, shape (points,); few points make a weaker claim.
    """
    scale = np.exp(epsilons)

    def least(chance: float) -> float:
        with_fewer = (chance - deltas) / scale
        with_more = 1 - deltas - scale * (1 - chance)
        return float(max(0.0, with_fewer.max(), with_more.max()))

    return least


@functools.lru_cache(maxsize=512)
def event_curve(event: PoissonGaussian) -> Curve:
    """Return the event's own curve, from its privacy loss distribution, pessimistically rounded."""
    from dp_accounting.pld import privacy_loss_distribution as pld  # noqa: PLC0415 - only when auditing

    single = pld.from_gaussian_mechanism(
        event.noise_multiplier, value_discretization_interval=WORKING, sampling_prob=event.sample_rate
    )
    loss = single.self_compose(event.steps)
    epsilons = np.concatenate(([0.0], np.geomspace(1e-3, 60.0, 300)))
    return curve_from_deltas(epsilons, np.asarray(loss.get_delta_for_epsilon(epsilons), dtype=np.float64))


def most_true_positives(false_positives: float, *, claim: float, delta: float) -> float:
    """Return the greatest true positive rate that (epsilon, delta) allows (Kairouz et al. 2015, theorem 2.1)."""
    direct = math.exp(claim) * false_positives + delta
    reverse = 1 - math.exp(-claim) * (1 - delta - false_positives)
    return min(1.0, direct, reverse)


@dataclass(frozen=True)
class Attack:
    """How well scores tell members from others.

    Args:
        auc: Area under the ROC curve.
        auc_low: Low end of its 95 % interval (Hanley and McNeil 1982, equation 1).
        auc_high: High end.
        true_positives: Share of members caught where at most `false_positives` of the others are.
        true_positives_low: Low end of its 95 % interval at that threshold (Clopper and Pearson 1934).
        true_positives_high: High end.
        false_positives: The rate that was asked for.
    """

    auc: float
    auc_low: float
    auc_high: float
    true_positives: float
    true_positives_low: float
    true_positives_high: float
    false_positives: float


def attack(members: Floats, others: Floats, *, false_positives: float = 0.01) -> Attack:
    """Describe an attack by its scores, which are higher for members; shapes (members,) and (others,)."""
    from scipy.stats import beta, rankdata  # noqa: PLC0415 - as above

    n, m = len(members), len(others)
    ranks = rankdata(np.concatenate((members, others)))
    auc = float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = math.sqrt((auc * (1 - auc) + (n - 1) * (q1 - auc**2) + (m - 1) * (q2 - auc**2)) / (n * m))
    threshold = np.sort(others)[m - 1 - int(false_positives * m)]
    caught = int((members > threshold).sum())
    return Attack(
        auc=auc,
        auc_low=max(0.0, auc - 1.96 * spread),
        auc_high=min(1.0, auc + 1.96 * spread),
        true_positives=caught / n,
        true_positives_low=float(beta.ppf(0.025, caught, n - caught + 1)) if caught else 0.0,
        true_positives_high=float(beta.ppf(0.975, caught + 1, n - caught)) if caught < n else 1.0,
        false_positives=false_positives,
    )


def _greatest(refuted: Callable[[float], bool]) -> float:
    """Return the greatest epsilon that is refuted, rounded down by at most 1e-4; 0 where none is."""
    low, high = 0.0, 1.0
    if not refuted(1e-9):
        return 0.0
    while refuted(high):
        low, high = high, 2 * high
        if high > 500:
            return low
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
