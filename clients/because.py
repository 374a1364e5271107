"""Why each item of a list is there, in words for the partner's own customers.

because you bought A     A's part in the item's score is among the greatest (linear families), or A's vector in the
                         model is most like the item's
like A, which you have   the item's public attributes are most like those of A; asked where the model says nothing
liked by many            neither: popularity alone speaks for it
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coterie.models.catalogue import Catalogue
from coterie.models.histories import Histories
from coterie.models.recommenders.popularity import kept_items
from coterie.models.recommenders.settings import TRAINED, Recommender
from coterie.models.recommenders.towers import names
from coterie.models.recommendreasons import Sides, cosine_sides, gram_sides, reasons

__all__ = ["Because", "model_sides"]

_LIKED = "liked by many"


@dataclass(frozen=True)
class Because:
    """What reasons are made from; the same for all customers.

    Args:
        words: One for every reason there can be: bought each item, like each item, liked by many.
        sides: What the model says of pairs of items, and then what public attributes say; where one has no reason, the
            next is asked.
        count: Most reasons of one item.
    """

    words: pa.Array
    sides: tuple[Sides, ...]
    count: int

    @classmethod
    def of(
        cls, catalogue: Catalogue, sides: Sides | None, attributes: NDArray[np.float32] | None, count: int
    ) -> "Because":
        """Put together what reasons are made from.

        Args:
            catalogue: What items are called.
            sides: Of the model, from `model_sides`.
            attributes: Encoded public attributes, rows of unit length or zero, (items, attributes).
            count: Most reasons of one item.
        """
        nothing = np.zeros((len(catalogue), 1), dtype=np.float32)
        words = [f"because you bought {name}" for name in catalogue.names]
        words += [f"like {name}, which you have" for name in catalogue.names]
        alike = nothing if attributes is None else attributes
        found = (sides or Sides(nothing, nothing), Sides(alike, alike))
        return cls(pa.array([*words, _LIKED], pa.string()), found, count)

    def texts(self, lists: NDArray[np.int64], histories: Histories) -> pa.Array:
        """Return the reasons of every item in the lists, row after row, as lists of texts.

        Args:
            lists: Recommended items, (customers, top); -1 for none, which has no entry in what is returned.
            histories: What these customers have, in the same order.
        """
        words = np.full((*lists.shape, self.count), -1, dtype=np.int64)
        items, open_ = (len(self.words) - 1) // 2, lists >= 0
        for place, sides in enumerate(self.sides if self.count else ()):
            asked = np.flatnonzero(open_.any(axis=1))
            found = reasons(lists[asked], histories.of(asked), sides, count=self.count)
            told = np.where(open_[asked][:, :, None] & (found >= 0), found + place * items, words[asked])
            words[asked] = told
            open_ &= words[:, :, 0] < 0
        words[:, :, :1][open_] = len(self.words) - 1
        flat = words[lists >= 0]
        ends = np.concatenate([[0], np.cumsum((flat >= 0).sum(axis=1))])
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pc.take(self.words, pa.array(flat[flat >= 0])))


def model_sides(settings: Recommender, weights: Sequence[NDArray[np.float32]]) -> Sides | None:
    """Return what a model says of pairs of items; None where it says nothing of them, as popularity does."""
    if settings.family == "popularity":
        return None
    if settings.family in TRAINED:
        return cosine_sides(weights[1 + names(settings).index("item.weight")])
    index, scale = kept_items(weights[0], settings)
    if settings.family == "item-gram":
        return gram_sides(weights[1], weights[2], index, items=settings.items, scale=scale)
    vectors = np.zeros((settings.items, weights[1].shape[1]), dtype=np.float32)
    vectors[index] = weights[1]
    return cosine_sides(vectors)
