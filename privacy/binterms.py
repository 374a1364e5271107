"""The terms of a plan's private bins."""

from dataclasses import dataclass, field

from coterie.privacy.schema import integer, number, text

__all__ = ["Bins"]


@dataclass(frozen=True, kw_only=True)
class Bins:
    """Private bins: what a propensity model learns on, made of one noisy count that all else follows from.

    Args:
        most: Most bins of a numeric column; fine cells are joined until so many are left, by their noisy counts.
        cells: Fine cells into which the range of a numeric column is cut where the contract has no edges.
        counts: Share of the training budget, as squared Gaussian noise multipliers count it, for the count.
        ridge: Penalty on squared weights, in customers.
        damping: How many standard deviations of a step's noise are added to the curvature of "newton".
        pairs: Pairs of columns that the model has interactions of, each written "age * gender".
        rising: Numeric columns along which the score of the additive model never falls.
        falling: Numeric columns along which it never rises.
    """

    most: int = field(default=24, metadata=integer(2, 256))
    cells: int = field(default=256, metadata=integer(2, 1024))
    counts: float = field(default=0.15, metadata=number(0, 1, ends="()"))
    ridge: float = field(default=0.1, metadata=number(0, 1e6))
    damping: float = field(default=1.0, metadata=number(0, 1000))
    pairs: tuple[str, ...] = field(default=(), metadata=text(210))
    rising: tuple[str, ...] = field(default=(), metadata=text(100))
    falling: tuple[str, ...] = field(default=(), metadata=text(100))

    @property
    def crossed(self) -> tuple[tuple[str, str], ...]:
        """The pairs, as two names each; a text that is no pair has an empty second name."""
        halves = (pair.partition(" * ") for pair in self.pairs)
        return tuple((first, second) for first, _, second in halves)
