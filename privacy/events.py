"""Events: what a release costs, as data.

Each event is a complete mathematical statement about one mechanism and is stored in the ledger as whitelisted
JSON. Meanings never change; new kinds are added. An epsilon is never stored: it is recomputed from events.
All events are stated for the unit "customer of one partner" and the add/remove relation.
"""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from coterie.privacy.errors import Fault, LedgerFault

__all__ = [
    "LEAST_NOISE",
    "MOST",
    "MOST_NOISE",
    "DiscreteGaussian",
    "Event",
    "Nothing",
    "PoissonGaussian",
    "event_from_dict",
    "event_to_dict",
]

# What a calibration can give; beyond it no study makes sense, and an accountant's arrays grow without end.
LEAST_NOISE, MOST_NOISE = 0.1, 10_000.0
MOST = 100_000  # steps, or vectors, of one event


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
class Nothing:
    """A message that depends on plan and policy alone, never on a row."""

    kind: ClassVar[str] = "nothing"

    def valid(self) -> bool:
        """Return True: there is nothing to be out of range."""
        return True

    def __str__(self) -> str:
        """Describe the event in words."""
        return "nothing that depends on a customer"


Event = PoissonGaussian | DiscreteGaussian | Nothing

_KINDS: Mapping[str, type[PoissonGaussian] | type[DiscreteGaussian] | type[Nothing]] = {
    kind.kind: kind for kind in (PoissonGaussian, DiscreteGaussian, Nothing)
}


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
