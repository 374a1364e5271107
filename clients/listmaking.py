"""The making of lists, for any number of customers in the memory that a few pieces of them need.

Pieces of fixed size are scored side by side and leave in order. Where an item goes to at most so many customers, the
pieces take their turn one after the other, so that the lists are the same on any number of cores.
"""

import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coterie.clients.because import Because
from coterie.clients.listfile import ListFile
from coterie.clients.purchases import Purchases
from coterie.models.histories import Histories
from coterie.models.recommenders.popularity import popularity_scores
from coterie.models.recommenders.settings import Recommender
from coterie.models.reranking import Lists, Reranker

__all__ = ["Engine", "write_lists"]

T = TypeVar("T")
U = TypeVar("U")

_CELLS = 4_000_000  # scores of a piece: 16 MB
_MOST = 256  # customers of a piece
_MOST_WORKERS = 8


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What makes lists from histories; the same for all customers.

    Args:
        settings: The recommender.
        weights: The published model.
        score: From histories to the score of every item, as `family.scorer` gives it.
        reranker: The rules.
        because: What reasons are made from.
        in_turn: Whether customers take items from each other, so that their order counts.
        seed: What their order is drawn from, with their names.
    """

    settings: Recommender
    weights: tuple[NDArray[np.float32], ...]
    score: Callable[[Histories], NDArray[np.float32]]
    reranker: Reranker
    because: Because
    in_turn: bool
    seed: bytes

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """Return a score for every item, (customers, items); who has no history gets the most popular items."""
        found = np.require(self.score(histories), np.float32, ["W"])
        strangers = np.flatnonzero(histories.lengths == 0)
        found[strangers] = popularity_scores(self.settings, self.weights, histories.of(strangers))
        return found


@dataclass(frozen=True, repr=False)
class _Piece:
    """Some customers on their way to their lists.

    Args:
        chosen: Their positions, shape (customers,).
        histories: Theirs.
        crowded: How many of them have more items than are used.
        found: Scores of every item, until it is their turn; lists from then on.
    """

    chosen: NDArray[np.int64]
    histories: Histories
    crowded: int
    found: NDArray[np.float32] | Lists


def write_lists(
    engine: Engine, purchases: Purchases, file: ListFile, *, see: Callable[[int, int], None] | None = None
) -> Mapping[str, int]:
    """Write the list of every customer.

    Args:
        engine: What makes lists.
        purchases: Of all customers.
        file: Where lists go, in the order of the table, or in the drawn order where customers come in turn.
        see: Told how many customers have their lists, of how many.

    Returns:
        Local counts.
    """
    notes: Counter[str] = Counter()
    size, done = max(1, min(_MOST, _CELLS // engine.settings.items)), 0
    order = _drawn(purchases.customers, engine.seed) if engine.in_turn else np.arange(len(purchases))
    pieces = (order[start : start + size] for start in range(0, len(order), size))

    def begin(chosen: NDArray[np.int64]) -> _Piece:
        histories, crowded = purchases.histories(chosen, longest=engine.settings.longest)
        scores = engine.scores(histories)
        found = scores if engine.in_turn else engine.reranker.lists(scores, histories)
        return _Piece(chosen, histories, crowded, found)

    def take_turn(piece: _Piece) -> tuple[_Piece, Lists]:
        found = piece.found
        lists = found if isinstance(found, Lists) else engine.reranker.lists(found, piece.histories)
        return replace(piece, found=lists), lists

    def explain(taken: tuple[_Piece, Lists]) -> tuple[_Piece, Lists, pa.Array]:
        piece, lists = taken
        return piece, lists, engine.because.texts(lists.items, piece.histories)

    with ThreadPoolExecutor(_cores()) as pool:
        taken = map(take_turn, _in_order(pool, begin, pieces))
        for piece, lists, reasons in _in_order(pool, explain, taken):
            file.add(piece.chosen, lists, reasons)
            notes["customers with more items than are used"] += piece.crowded
            strangers = int((piece.histories.lengths == 0).sum())
            notes["customers without a history, who got the most popular items"] += strangers
            notes["customers with a shorter list"] += int((lists.items[:, -1] < 0).sum())
            done += len(piece.chosen)
            if see is not None:
                see(done, len(order))
    return {what: count for what, count in notes.items() if count}


def _cores() -> int:
    """Return how many pieces are worked on at a time; memory grows with them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)


def _in_order(pool: ThreadPoolExecutor, work: Callable[[T], U], inputs: Iterable[T]) -> Iterator[U]:
    """Do pieces of work side by side, a few at a time, and return what comes of them in their order."""
    waiting: deque[Future[U]] = deque()
    ahead = _cores()
    for one in inputs:
        waiting.append(pool.submit(work, one))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _drawn(customers: pa.Array, seed: bytes) -> NDArray[np.int64]:
    """Return the customers in an order that their names alone do not decide."""
    keys = [hashlib.blake2b(name.encode(), digest_size=8, key=seed).digest() for name in customers.to_pylist()]
    return np.argsort(np.array(keys, dtype="S8"), kind="stable")
