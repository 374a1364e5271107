"""From events to a Guarantee, by privacy loss distributions.

The arithmetic is Google's `dp-accounting` (PLD, pessimistic, "connect the dots": Doroshenko et al., PoPETs
2022, arXiv 2207.04380). PLD composition is valid because a study's events are fixed before it starts; across
studies, where a later plan may depend on earlier results, `renyi.py` is the gate instead.

Opacus' Gaussian-DP accountant is not used: it understates sub-sampled runs.
"""

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from coterie.privacy.events import (
    DiscreteGaussian,
    DistributedGaussian,
    Event,
    Nothing,
    PoissonGaussian,
    copies_of,
)

__all__ = [
    "ACCOUNTANT",
    "ADD_REMOVE",
    "CERTIFICATE",
    "REPLACE_ONE",
    "UNIT",
    "WORKING",
    "Guarantee",
    "epsilon",
    "guarantee",
]

ACCOUNTANT = "PLD (dp-accounting)"
ADD_REMOVE = "add or remove one customer"
REPLACE_ONE = "replace one customer"
UNIT = "customer of one partner"

WORKING = 1e-3  # grid of privacy losses while searching: coarser is looser, never less safe
CERTIFICATE = 1e-4  # grid for what is printed


@dataclass(frozen=True)
class Guarantee:
    """An epsilon with everything that it means nothing without.

    Args:
        epsilon: Upper bound on the privacy loss, in nats; infinite where there is no guarantee.
        delta: Probability with which the bound may fail.
        unit: Whose presence is hidden.
        relation: What neighbouring data sets differ in.
        trust: Against whom it holds: "local" is against everybody outside the partner, "secure-aggregation" against the
            coordinator and the plan's colluders together, while at least the plan's threshold of partners take part.
        accountant: How epsilon was computed.
    """

    epsilon: float
    delta: float
    unit: str
    relation: str
    trust: str
    accountant: str

    def __str__(self) -> str:
        """Print the guarantee whole."""
        bound = f"epsilon {self.epsilon:.3g}" if math.isfinite(self.epsilon) else "no guarantee"
        return (
            f"{bound} at delta {self.delta:g} per {self.unit} ({self.relation}), trust {self.trust}, "
            f"by {self.accountant}"
        )


def guarantee(
    events: Iterable[Event],
    delta: float,
    *,
    trust: str,
    relation: str = ADD_REMOVE,
    copies: int = 1,
    random_source: str = "os",
) -> Guarantee:
    """Compose events into a Guarantee.

    Args:
        events: Everything released that touches one customer.
        delta: In (0, 1).
        trust: The plan's trust.
        relation: `ADD_REMOVE`, or `REPLACE_ONE` (recomputed with its own bound, PRIVACY rule 12).
        copies: k, for a person who is a customer of k partners, each of which charges these events.
        random_source: Name of the source that drew the noise; anything but "os" voids the guarantee.
    """
    if random_source != "os":
        return Guarantee(math.inf, delta, UNIT, relation, trust, f"none: noise was {random_source}")
    loss = epsilon(events, delta, relation=relation, copies=copies, grid=CERTIFICATE)
    return Guarantee(loss, delta, UNIT, relation, trust, ACCOUNTANT)


def epsilon(
    events: Iterable[Event],
    delta: float,
    *,
    relation: str = ADD_REMOVE,
    copies: int = 1,
    grid: float = WORKING,
) -> float:
    """Return an upper bound on epsilon for the composition of `events`.

    Args:
        events: Their order does not matter.
        delta: In (0, 1).
        relation: As in `guarantee`.
        copies: As in `guarantee`.
        grid: Spacing of the privacy losses; a coarser grid gives a larger bound.
    """
    total: Any = None
    for event, times in _counted(copies_of(event, copies) for event in events):
        loss = _loss(event, relation, grid).self_compose(times * copies)
        total = loss if total is None else total.compose(loss)
    return 0.0 if total is None else float(total.get_epsilon_for_delta(delta))


def _counted(events: Iterable[Event]) -> list[tuple[Event, int]]:
    """Gather events into single steps with their counts, so that equal steps compose at once."""
    counts: dict[Event, int] = {}
    for event in events:
        if isinstance(event, Nothing):
            continue
        if isinstance(event, DistributedGaussian):
            event = event.gaussian  # noqa: PLW2901 - what it costs at most is the whole matter here
        if isinstance(event, PoissonGaussian):
            single: Event = PoissonGaussian(event.noise_multiplier, event.sample_rate, 1)
            times = event.steps
        else:
            single, times = DiscreteGaussian(event.sigma, 1), event.count
        counts[single] = counts.get(single, 0) + times
    return sorted(counts.items(), key=lambda pair: str(pair[0]))


@functools.lru_cache(maxsize=256)
def _loss(event: Event, relation: str, grid: float) -> Any:  # noqa: ANN401 - a library's own class
    from dp_accounting import NeighboringRelation  # noqa: PLC0415 - a second of import, only when accounting
    from dp_accounting.pld import privacy_loss_distribution as pld  # noqa: PLC0415 - likewise

    if isinstance(event, PoissonGaussian):
        neighbours = {
            ADD_REMOVE: NeighboringRelation.ADD_OR_REMOVE_ONE,
            REPLACE_ONE: NeighboringRelation.REPLACE_ONE,
        }[relation]
        return pld.from_gaussian_mechanism(
            event.noise_multiplier,
            value_discretization_interval=grid,
            sampling_prob=event.sample_rate,
            neighboring_relation=neighbours,
        )
    if not isinstance(event, DiscreteGaussian):
        raise TypeError(f"{type(event).__name__} has no privacy loss")
    one_count = pld.from_discrete_gaussian_mechanism(event.sigma, sensitivity=1, value_discretization_interval=grid)
    # A replaced customer leaves one count and enters another: two independent one-count losses.
    return one_count.self_compose(2) if relation == REPLACE_ONE else one_count
