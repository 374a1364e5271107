"""What a step of a trained family draws in public: which items stand for the rest, and which half an item is in.

Every item of the catalogue is as likely to be a negative as any other. To leave out what a customer does not have yet
would tell, in the end, what it is asked to find: many published figures leak the held-out item so.

Draws are raw words of Philox (Salmon et al. 2011), which numpy promises never to change: partners with different
releases of it draw the same.
"""

import numpy as np
from numpy.typing import NDArray

from coterie.models.recommenders.settings import Recommender

__all__ = ["halves", "negatives"]


def negatives(settings: Recommender, step: int) -> NDArray[np.int64]:
    """Return the items that stand for the rest in a step, each once, shape (min(negatives, items),).

    Args:
        settings: How many, of how many.
        step: Number of the step, from 0 to 2**32 - 1.
    """
    count = min(settings.negatives, settings.items)
    order = np.argsort(_words(settings, step, 0), kind="stable")
    return np.sort(order[:count]).astype(np.int64)


def halves(settings: Recommender, step: int) -> NDArray[np.int64]:
    """Return in which half each item is in a step, 0 or 1, shape (items,).

    Args:
        settings: How many items there are.
        step: As in `negatives`.
    """
    return (_words(settings, step, 1) >> np.uint64(63)).astype(np.int64)


def _words(settings: Recommender, step: int, purpose: int) -> NDArray[np.uint64]:
    # Public randomness, so a seeded generator is right.
    return np.random.Philox(key=2 * step + purpose).random_raw(settings.items)
