"""What a composition of events lets an attacker do: its whole privacy curve, and the curve read as odds.

The figures are the upper bounds of the second accountant (`bracket.py`): one method for all points of the curve,
each bound proved on its own, and no library to import. They lie within a hundredth or so of the first
accountant's, which remains the one that a Guarantee is printed with.

Hypothesis testing: whoever tells P from Q with a false positive rate a finds, for every (epsilon, delta) that
holds in both directions, at most
    TPR <= e^eps a + delta    and    TPR <= 1 - e^-eps (1 - a - delta)
of those who were in (Wasserman and Zhou 2010, theorem 2.4; Kairouz, Oh, Viswanath 2015, theorem 2.1; Dong, Roth,
Su 2022, proposition 2.5). At even odds no guess is right more often than (1 + delta(0)) / 2: delta at epsilon 0
is the total variation distance. As P(loss > l) (1 - e^(eps - l)) <= delta(eps), whoever starts from odds of
1 : N - 1 ends, but for probability d, with at most e^l : N - 1, l = eps - log(1 - delta(eps) / d).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coterie.privacy.accountant import ADD_REMOVE
from coterie.privacy.events import Event
from coterie.privacy.review.bracket import bracket, deltas

__all__ = ["DELTAS", "EPSILONS", "FALSE_POSITIVES", "PRIORS", "SURPRISE", "Profile", "profile", "words"]

DELTAS: tuple[float, ...] = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
EPSILONS: tuple[float, ...] = (0.0, 0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
FALSE_POSITIVES: tuple[float, ...] = (0.01, 0.001)
PRIORS: tuple[int, ...] = (2, 10, 100, 1000, 10_000)
SURPRISE = 1e-5  # probability with which a belief may end higher than is said

_POINTS = 48  # of the curve, between epsilon 0 and that of the least delta


@dataclass(frozen=True)
class Profile:
    """Upper bounds on what the events reveal about one customer.

    Args:
        epsilons: (delta, epsilon in nats) pairs, delta falling.
        deltas: (epsilon in nats, delta) pairs, epsilon rising.
        found: (false positive rate, greatest true positive rate) pairs, in [0, 1].
        accuracy: Greatest share of right guesses at even odds, in [0.5, 1].
        beliefs: (N, greatest belief) pairs: what 1 in N becomes, but for probability `SURPRISE`.
        relation: What neighbouring data sets differ in.
        copies: At how many partners the events are charged to the person.
    """

    epsilons: tuple[tuple[float, float], ...]
    deltas: tuple[tuple[float, float], ...]
    found: tuple[tuple[float, float], ...]
    accuracy: float
    beliefs: tuple[tuple[int, float], ...]
    relation: str
    copies: int


def profile(events: Iterable[Event], *, relation: str = ADD_REMOVE, copies: int = 1) -> Profile:
    """Return the profile of the composition of `events`.

    Args:
        events: Their order does not matter.
        relation: As in `bracket`.
        copies: As in `bracket`.

    Raises:
        KeyError: An unknown relation.
        TypeError: Something that is no event.

    Guarantees:
        Every figure is an upper bound for an attacker who knows everything else, by the module's theorems.
    """
    composed = tuple(events)
    epsilons = [bracket(composed, delta, relation=relation, copies=copies).high for delta in DELTAS]
    furthest = epsilons[-1] if math.isfinite(epsilons[-1]) and epsilons[-1] > 0 else 1.0
    between = [furthest * (i / (_POINTS - 1)) ** 1.5 for i in range(_POINTS)]
    asked = (*EPSILONS, *between)
    found = [bound.high for bound in deltas(composed, asked, relation=relation, copies=copies)]
    curve = [*zip(asked, found, strict=True), *((e, d) for e, d in zip(epsilons, DELTAS, strict=True))]
    # A bound at a smaller epsilon holds at every greater one.
    lowest = [min(d for e, d in curve if e <= epsilon) for epsilon in EPSILONS]
    greatest = [max(epsilons[: i + 1]) for i in range(len(epsilons))]
    return Profile(
        epsilons=tuple(zip(DELTAS, greatest, strict=True)),
        deltas=tuple(zip(EPSILONS, lowest, strict=True)),
        found=tuple((rate, _found(curve, rate)) for rate in FALSE_POSITIVES),
        accuracy=(1 + lowest[0]) / 2,
        beliefs=tuple((people, _belief(curve, people)) for people in PRIORS),
        relation=relation,
        copies=copies,
    )


def words(shown: Profile) -> tuple[str, ...]:
    """Say a profile in plain sentences.

    Args:
        shown: The profile.
    """
    change = "was in the data" if shown.relation == ADD_REMOVE else "rather than another was in the data"
    catches = [
        f"An attacker who flags {_in(rate)} people wrongly can find at most {_of_hundred(true)} in 100 of those "
        f"who were in; guessing finds {100 * rate:g} in 100."
        for rate, true in shown.found
    ]
    beliefs = [
        f"An attacker who put the chance that a person {change} at 1 in {people:,} can be led to "
        f"{_odds(belief)} at most by everything that was published."
        for people, belief in shown.beliefs
    ]
    return (
        f"An attacker who must say whether a person {change}, at even odds, is right at most "
        f"{_of_hundred(shown.accuracy)} times in 100; a coin is right 50 times.",
        *catches,
        *beliefs,
        f"The {len(beliefs)} sentences before this one may fail with probability {SURPRISE:g}; the others hold without "
        "exception, for an attacker who knows every other customer's data.",
    )


def _found(curve: Sequence[tuple[float, float]], rate: float) -> float:
    """Return the greatest true positive rate at a false positive rate."""
    bounds = [1.0]
    for epsilon, delta in curve:
        if math.isfinite(epsilon):
            bounds += [_exp(epsilon) * rate + delta, 1 - math.exp(-epsilon) * max(0.0, 1 - rate - delta)]
    return min(bounds)


def _belief(curve: Sequence[tuple[float, float]], people: int) -> float:
    losses = [e - math.log1p(-d / SURPRISE) for e, d in curve if d < SURPRISE and math.isfinite(e)]
    if not losses:
        return 1.0
    # e^l / (e^l + N - 1), for losses of every size
    return 1 / (1 + (people - 1) * math.exp(-min(losses)))


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


def _in(rate: float) -> str:
    return f"1 in {round(1 / rate):,}"


def _of_hundred(share: float) -> str:
    """Say a share of a hundred, rounded up to tenths: it is an upper bound."""
    return f"{math.ceil(share * 1000 - 1e-9) / 10:g}"


def _odds(belief: float) -> str:
    """Say a belief, rounded up, in the form that is easier to read at its size."""
    if belief >= 0.1:
        return f"{_of_hundred(belief)} in 100"
    return f"1 in {math.floor(1 / belief):,}"
