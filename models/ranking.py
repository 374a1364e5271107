"""Where a recommender puts an item that it has not seen, and what that says about it: exactly, with ties at half.

A customer's held-out item is ranked among all items that are not in the history from which it is recommended. Items
with the same score stand in an order that is drawn with equal chances: with a items above and t others tied, the
held-out item's place is a, a + 1, ... a + t, each with probability 1 / (t + 1). Every metric here is the exact mean
over that draw, so no way of sorting favours anybody and a scorer that gives all items one score gets what chance gives.

Metrics are per customer, as values of which the mean is the metric, so that customers can be grouped and models can be
compared customer by customer (`intervals.py`, `rankbias.py`). What leaves a partner is counts in bins, paid for
(`rankcounts.py`): everything here is for simulations and for a partner's own eyes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.models.histories import Histories

__all__ = [
    "NEGATIVES",
    "Ranks",
    "averaged",
    "gains",
    "hits",
    "joined",
    "ranks",
    "reciprocals",
    "sampled_gains",
    "sampled_hits",
    "split_at_day",
    "summary",
]

NEGATIVES = 99
"""Items that the held-out one is ranked among in the sampled metrics, by custom."""

_ROWS = 4096


@dataclass(frozen=True)
class Ranks:
    """Where held-out items stand; its `repr` shows nothing of them.

    Args:
        above: Candidates with a higher score, shape (held out,), int64.
        tied: Other candidates with the same score, shape (held out,), int64.
        others: Candidates beside the held-out item, shape (held out,), int64.
    """

    above: NDArray[np.int64]
    tied: NDArray[np.int64]
    others: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of held-out items."""
        return len(self.above)

    def __repr__(self) -> str:
        """Return a text without any size or value."""
        return "Ranks(...)"


def split_at_day(histories: Histories, day: int) -> tuple[Histories, Histories]:
    """Split every history at one day, the same for all: what came before it, and what came on it or later.

    Nobody's past then holds what for another is still the future, as it does when each customer's last item is held
    out (`Histories.without_last`).

    Args:
        histories: Of some customers.
        day: In days since 1970-01-01.

    Returns:
        Two histories of the same customers.
    """
    customer = np.repeat(np.arange(len(histories)), histories.lengths)
    halves = []
    for chosen in (histories.days < day, histories.days >= day):
        lengths = np.bincount(customer[chosen], minlength=len(histories))
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        halves.append(Histories(starts, histories.items[chosen], histories.days[chosen]))
    return halves[0], halves[1]


def ranks(scores: NDArray[np.float32], seen: Histories, held: NDArray[np.int64]) -> Ranks:
    """Rank held-out items among all items that are not in the customer's history.

    The held-out item is always a candidate. For several held-out items of one customer, repeat the customer's row in
    all three (`seen.of(rows)`), and see `averaged`.

    Args:
        scores: Higher is better, (customers, items). Minus infinity is a score like any other, and what is not a
            number stands there with it: nobody gains by it, and no refusal tells whose scores they are.
        seen: The histories from which the scores were made.
        held: Held-out items, shape (customers,); customers with -1 are left out.

    Returns:
        One place per held-out item, in the customers' order.

    Raises:
        ValueError: The sizes differ, or an item is not in the catalogue.
    """
    customers, items = scores.shape
    if not len(seen) == len(held) == customers or max(held.max(initial=-1), seen.items.max(initial=-1)) >= items:
        raise ValueError("scores, histories and held-out items do not belong together")
    if np.isnan(scores).any():
        scores = np.where(np.isnan(scores), np.float32(-np.inf), scores)
    row = np.arange(customers)
    own = scores[row, held]
    above = np.count_nonzero(scores > own[:, None], axis=1)
    tied = np.count_nonzero(scores == own[:, None], axis=1) - 1
    # Seen items are no candidates; the held-out item is one though it was seen before.
    of = np.repeat(row, seen.lengths)
    other = seen.items != held[of]
    of, theirs = of[other], scores[of[other], seen.items[other]]
    above -= np.bincount(of[theirs > own[of]], minlength=customers)
    tied -= np.bincount(of[theirs == own[of]], minlength=customers)
    others = items - 1 - np.bincount(of, minlength=customers)
    there = held >= 0
    return Ranks(above[there], tied[there], others[there])


def joined(pieces: Iterable[Ranks]) -> Ranks:
    """Return the places of several pieces of customers as one, in the pieces' order."""
    empty = np.zeros(0, dtype=np.int64)
    parts = [Ranks(empty, empty, empty), *pieces]
    return Ranks(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("above", "tied", "others")))


def averaged(values: NDArray[np.float64], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean of each customer's values: of `hits` it is Recall@k with several held-out items.

    Args:
        values: One per held-out item, customer by customer, shape (held out,).
        lengths: Held-out items of each customer, shape (customers,).

    Returns:
        One per customer with a held-out item, in order.
    """
    customer = np.repeat(np.arange(len(lengths)), lengths)
    sums = np.bincount(customer, weights=values, minlength=len(lengths))
    return np.asarray(sums[lengths > 0] / lengths[lengths > 0], dtype=np.float64)


def hits(places: Ranks, k: int) -> NDArray[np.float64]:
    """Return the chance that the held-out item is among the first k of all: its mean is HR@k.

    With one held-out item per customer that is Recall@k, too.
    """
    return np.clip(k - places.above, 0, places.tied + 1) / (places.tied + 1)


def gains(places: Ranks, k: int) -> NDArray[np.float64]:
    """Return 1 / log2(2 + place) where the place is below k, else 0: the mean is NDCG@k (one held-out item)."""
    summed = np.concatenate([[0.0], np.cumsum(_discounts(k))])
    last = np.minimum(places.above + places.tied + 1, k)
    return np.asarray((summed[last] - summed[np.minimum(places.above, k)]) / (places.tied + 1), dtype=np.float64)


def reciprocals(places: Ranks) -> NDArray[np.float64]:
    """Return 1 / (1 + place): the mean is the mean reciprocal rank, MRR."""
    most = int((places.above + places.tied).max(initial=0)) + 1
    summed = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, most + 1))])
    width = summed[places.above + places.tied + 1] - summed[places.above]
    return np.asarray(width / (places.tied + 1), dtype=np.float64)


def sampled_hits(places: Ranks, k: int, negatives: int = NEGATIVES) -> NDArray[np.float64]:
    """Return the chance of a place among the first k beside sampled negatives, without sampling: HR@k of "1 + 99".

    The negatives are a sample without replacement of the candidates, or all where there are no more. Of r candidates
    before the held-out item, a hypergeometric number is in the sample; the chance is averaged over the ties' order.

    Args:
        places: Where the held-out items stand among all candidates.
        k: Length of the list, at least 1.
        negatives: Size of the sample.
    """
    return np.minimum(_sampled(places, np.ones(k), negatives), 1.0)  # chances that add up to one, but for rounding


def sampled_gains(places: Ranks, k: int, negatives: int = NEGATIVES) -> NDArray[np.float64]:
    """Return the expected gain beside sampled negatives: NDCG@k of "1 + 99", as `sampled_hits`."""
    return _sampled(places, _discounts(k), negatives)


def summary(places: Ranks) -> dict[str, float]:
    """Return the usual metrics by name; not a number where nothing was held out.

    Leaks:
        Exact: for simulations and for a partner's own eyes.
    """
    if not len(places):
        return dict.fromkeys(("hr@10", "hr@20", "ndcg@10", "ndcg@20", "mrr", "hr@10 of 99", "ndcg@10 of 99"), np.nan)
    return {
        "hr@10": float(hits(places, 10).mean()),
        "hr@20": float(hits(places, 20).mean()),
        "ndcg@10": float(gains(places, 10).mean()),
        "ndcg@20": float(gains(places, 20).mean()),
        "mrr": float(reciprocals(places).mean()),
        "hr@10 of 99": float(sampled_hits(places, 10).mean()),
        "ndcg@10 of 99": float(sampled_gains(places, 10).mean()),
    }


def _discounts(k: int) -> NDArray[np.float64]:
    """Return what a hit at places 0 .. k - 1 gains."""
    return np.asarray(1.0 / np.log2(np.arange(k) + 2.0), dtype=np.float64)


def _sampled(places: Ranks, worth: NDArray[np.float64], negatives: int) -> NDArray[np.float64]:
    """Return the expected worth of the place in the sample; place j is worth worth[j], later ones nothing."""
    found = np.empty(len(places))
    for start in range(0, len(places), _ROWS):
        piece = slice(start, start + _ROWS)
        above, tied, others = places.above[piece], places.tied[piece], places.others[piece]
        drawn = np.minimum(negatives, others)
        alone = tied == 0
        values = np.empty(len(above))
        chances = _hypergeometric(others[alone], above[alone], drawn[alone], len(worth))
        values[alone] = chances @ worth
        a, t, n, m = above[~alone], tied[~alone], others[~alone], drawn[~alone]
        # Summed over r = 0 .. R, the chance that j of r are in a sample of m out of n counts the samples of m + 1 out
        # of n + 1 whose item j is among the first R + 1: (n + 1) / (m + 1) P(at least j + 1 of R + 1 are drawn).
        upper, lower = (np.cumsum(_hypergeometric(n + 1, r, m + 1, len(worth)), axis=1) for r in (a + t + 1, a))
        values[~alone] = (lower - upper) @ worth * (n + 1) / ((m + 1) * (t + 1))
        found[piece] = values
    return found


def _hypergeometric(
    population: NDArray[np.int64], marked: NDArray[np.int64], drawn: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """Return the chances that 0 .. count - 1 marked ones are among those drawn, shape (rows, count).

    A row draws as many as the others, or its whole population. The chances are products over the draws, because
    factorials of a large catalogue lose digits.
    """
    most = int(drawn.max(initial=0))
    step = np.arange(most)
    with np.errstate(divide="ignore"):  # what cannot be has the logarithm minus infinity
        plain = np.log(np.maximum((population - marked)[:, None] - step, 0))
    # Where fewer than the most are drawn, all are, and what is left to draw from is at most 1.
    whole = np.log(np.maximum(population[:, None] - step, 1)).sum(axis=1)
    zero = np.zeros((len(population), 1))
    plain = np.concatenate([zero, np.cumsum(plain, axis=1)], axis=1)
    chances = np.zeros((len(population), count))
    row = np.arange(len(population))
    choose = np.zeros(len(population))
    with np.errstate(divide="ignore"):
        for j in range(count):
            chances[:, j] = np.exp(choose + plain[row, np.maximum(drawn - j, 0)] - whole)
            choose = choose + np.log(np.maximum(drawn - j, 0) / (j + 1)) + np.log(np.maximum(marked - j, 0))
    return chances
