"""What a recommender is: its family, its size, and the constants of everything that is computed from its sums.

All of it is public and in the plan. The weights of every family begin with one array: the noisy mean, over customers,
of their items at unit length, shape (items,). What follows is the family's own:

    popularity      nothing
    item-gram       factors (kept, rank), strengths (rank,)
    ials            factors (kept, dimension)
    two-tower, mf-bpr, mf-softmax, neumf      the parameters of the module, in its order
"""

from dataclasses import dataclass

__all__ = ["FAMILIES", "TRAINED", "Recommender"]

TRAINED = ("two-tower", "mf-bpr", "mf-softmax", "neumf")
"""Families of modules that are trained by clipped gradients."""

FAMILIES = ("popularity", "item-gram", "ials", *TRAINED)


@dataclass(frozen=True, kw_only=True)
class Recommender:
    """A recommender's public settings.

    Args:
        family: One of `FAMILIES`.
        items: Items of the catalogue.
        longest: Greatest number of items of one customer.
        keep: Items that item-gram and ials model, those most counted; the others are ranked by popularity.
        rank: Greatest rank of item-gram's factors.
        dimension: Length of item embeddings.
        exponent: Items are scaled by their noisy popularity to the power of minus this before a Gram row is scaled to
            unit length.
        ridge: Ridge of the item-side solution, as a share of the customers.
        content: Weight of the local content term; 0 for none.
        negatives: Items that a step of a trained family draws, the same for all customers.
        attributes: Columns of the catalogue's encoded public attributes, (items, attributes).
    """

    family: str
    items: int
    longest: int = 256
    keep: int = 700
    rank: int = 64
    dimension: int = 16
    exponent: float = 0.25
    ridge: float = 0.01
    content: float = 0.0
    negatives: int = 128
    attributes: int = 0

    @property
    def kept(self) -> int:
        """How many items are modelled by item-gram and ials."""
        return min(self.keep, self.items)
