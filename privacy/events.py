"""Events: what a release costs, as data.

Each event is a complete mathematical statement about one mechanism and is stored in the ledger as whitelisted
JSON. Meanings never change; new kinds are added. An epsilon is never stored: it is recomputed from events.
All events are stated for the unit "customer of one partner" and the add/remove relation.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from coterie.privacy.errors import Fault, LedgerFault

__all__ = [
    "LEAST_NOISE",
    "MOST",
    "MOST_NOISE",
    "SMOOTHING",
    "DiscreteGaussian",
    "DistributedGaussian",
    "Event",
    "Nothing",
    "PoissonGaussian",
    "copies_of",
    "event_from_dict",
    "event_to_dict",
]

# What a calibration can give; beyond it no study makes sense, and an accountant's arrays grow without end.
LEAST_NOISE, MOST_NOISE = 0.1, 10_000.0
MOST = 100_000  # steps, or vectors, of one event

SMOOTHING = 6
"""Scale, in units, of the randomised rounding that turns a Gaussian on the line into one on the integers."""

_LEAST_SHARE, _MOST_UNITS = 64, 2**40


@dataclass(frozen=True)
class PoissonGaussian:
    """`steps` sums of clipped customer gradients, each over a Poisson sample, each with Gaussian noise.

    Every customer enters a step independently with probability `sample_rate`; its contribution has L2 norm at
    most C; the released sum carries noise N(0, (noise_multiplier * C)**2) in every coordinate.

    Args:
        noise_multiplier: Noise's standard deviation over the clip C, above 0.
        sample_rate: Poisson rate, a public constant in (0, 1].
        steps: How many such sums, at least 1.
    """

    kind: ClassVar[str] = "poisson-gaussian"
    noise_multiplier: float
    sample_rate: float
    steps: int

    def valid(self) -> bool:
        """Return whether the fields lie in their ranges."""
        return _scale(self.noise_multiplier) and 1e-6 <= self.sample_rate <= 1 and _whole(self.steps)

    def __str__(self) -> str:
        """Describe the event in words."""
        return (
            f"{self.steps} noisy gradient sums, Poisson rate {self.sample_rate:g}, "
            f"noise multiplier {self.noise_multiplier:g}"
        )


@dataclass(frozen=True)
class DiscreteGaussian:
    """`count` vectors of whole counts, in each of which a customer changes one count by 1.

    Args:
        sigma: Scale of the discrete Gaussian noise on every count, above 0.
        count: How many such vectors, at least 1.
    """

    kind: ClassVar[str] = "discrete-gaussian"
    sigma: float
    count: int

    def valid(self) -> bool:
        """Return whether the fields lie in their ranges."""
        return _scale(self.sigma) and _whole(self.count)

    def __str__(self) -> str:
        """Describe the event in words."""
        return f"{self.count} noisy histograms, discrete Gaussian noise of scale {self.sigma:g} on every count"


@dataclass(frozen=True)
class DistributedGaussian:
    """`steps` sums of whole-number contributions of all partners' customers, opened as a sum alone.

    Every customer enters a step independently with probability `sample_rate`; its contribution is a vector of whole
    numbers of L2 norm at most `sensitivity`. What is opened carries, in every coordinate, the sum of at least `shares`
    independent discrete Gaussians of scale `share` that nobody knows who sees it.

    Guarantees:
        The release costs no more than `gaussian`. With s^2 = shares * share^2: a Gaussian of variance s^2 - tau^2 on
        the line, rounded at random to x with probability proportional to exp(-(x - y)^2 / (2 tau^2)), is the discrete
        Gaussian of variance s^2, up to a factor 1 +- 3 exp(-2 pi^2 tau^2) in every probability (Poisson summation;
        Micciancio and Regev 2007, lemma 4.1; Peikert 2010, theorem 3.1), and so is the sum of the shares (Kairouz, Liu
        and Steinke 2021, arXiv 2102.06387, theorem 11). Rounding is post-processing, also of a sub-sampled step and
        in a composition. With tau = `SMOOTHING` the factors of 2^60 coordinates together are 1 +- 1e-280, below
        every number that an accountant works with. The proof is in `docs/formats/secagg.md`.

    Args:
        share: Scale of one partner's noise, in units, at least 64.
        shares: How many honest partners' noise a sum carries at least: the plan's threshold less its colluders.
        sensitivity: Greatest L2 norm of one customer's contribution, in units.
        sample_rate: Poisson rate, a public constant in (0, 1].
        steps: How many such sums, at least 1.
    """

    kind: ClassVar[str] = "distributed-gaussian"
    share: int
    shares: int
    sensitivity: int
    sample_rate: float
    steps: int

    def valid(self) -> bool:
        """Return whether the fields lie in their ranges."""
        return (
            all(isinstance(value, int) for value in (self.share, self.shares, self.sensitivity))
            and _LEAST_SHARE <= self.share <= _MOST_UNITS
            and 1 <= self.shares <= 1000
            and 1 <= self.sensitivity <= _MOST_UNITS
            and self.gaussian.valid()
        )

    @property
    def noise_multiplier(self) -> float:
        """Scale of the Gaussian on the line that costs as much, over the sensitivity."""
        return math.sqrt(self.shares * self.share**2 - SMOOTHING**2) / self.sensitivity

    @property
    def gaussian(self) -> PoissonGaussian:
        """The event on the line that costs at least as much."""
        return PoissonGaussian(self.noise_multiplier, self.sample_rate, self.steps)

    def __str__(self) -> str:
        """Describe the event in words."""
        return (
            f"{self.steps} noisy sums opened over all partners together, Poisson rate {self.sample_rate:g}, "
            f"noise multiplier {self.noise_multiplier:.4g} from {self.shares} honest partners"
        )


@dataclass(frozen=True)
class Nothing:
    """A message that depends on plan and policy alone, never on a row."""

    kind: ClassVar[str] = "nothing"

    def valid(self) -> bool:
        """Return True: there is nothing to be out of range."""
        return True

    def __str__(self) -> str:
        """Describe the event in words."""
        return "nothing that depends on a customer"


Event = PoissonGaussian | DiscreteGaussian | DistributedGaussian | Nothing

_KINDS: Mapping[str, type[PoissonGaussian] | type[DiscreteGaussian] | type[DistributedGaussian] | type[Nothing]] = {
    kind.kind: kind for kind in (PoissonGaussian, DiscreteGaussian, DistributedGaussian, Nothing)
}


def copies_of(event: Event, partners: int) -> Event:
    """Return the event of which a person at `partners` partners pays one copy at each.

    Releases with noise of their own compose as they are. Contributions to one secure sum share its noise: split into
    independent parts, one for each partner's contribution, each part has the `partners`-th part of the variance, and
    the sum is post-processing of the parts. At rate 1 this is one event of k times the sensitivity.
    """
    if isinstance(event, DistributedGaussian):
        return PoissonGaussian(event.noise_multiplier / math.sqrt(partners), event.sample_rate, event.steps)
    return event


def event_to_dict(event: Event) -> dict[str, Any]:
    """Return the event as plain JSON values."""
    return {"kind": event.kind, **dataclasses.asdict(event)}


def event_from_dict(table: Mapping[str, Any]) -> Event:
    """Read an event that `event_to_dict` wrote; only known kinds and exact fields are accepted.

    Raises:
        LedgerFault: An unknown kind, a missing or extra field, or a value out of range.
    """
    try:
        # With their types: true equals 1 for Python, and is no number here.
        return _read(tuple((name, type(value), value) for name, value in table.items()))
    except TypeError:  # a field that is a list or a table, or a name that is no text
        raise LedgerFault(Fault("event", "is of no known kind", "use the coterie version that wrote it")) from None


@functools.lru_cache(maxsize=4096)
def _read(items: tuple[tuple[str, type, Any], ...]) -> Event:
    fields = {name: value for name, _, value in items}
    kind = _KINDS.get(str(fields.pop("kind", "")))
    names = {field.name for field in dataclasses.fields(kind)} if kind else set()
    if kind is None or set(fields) != names or not all(_plain_number(value) for value in fields.values()):
        raise LedgerFault(Fault("event", "is of no known kind", "use the coterie version that wrote it"))
    event = kind(**fields)
    if not event.valid():
        raise LedgerFault(Fault(f"event {event.kind}", "has a field out of range", "restore the ledger"))
    return event


def _plain_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: object) -> bool:
    return isinstance(value, int) and 1 <= value <= MOST


def _scale(value: float) -> bool:
    return LEAST_NOISE <= value <= MOST_NOISE
