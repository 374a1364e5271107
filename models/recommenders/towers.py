"""Trained families: modules that say how badly each customer's own items are told from others.

A customer is never a parameter. What stands for a customer is made of the items that it has, in two views: every step
a public coin for each item puts it in one half or the other, and the items of each half are to be found from the other
half alone, so that no item helps to find itself.

    two-tower     customer: its items' rows in a history table, at unit length, through a linear layer;
                  item: a row of an item table, plus a linear layer of its public attributes
    mf-bpr        customer: its items' rows; item: its row in the same table; ranked pair by pair
    mf-softmax    the same, by sampled softmax
    neumf         the same product, plus a layer of hidden units over customer and item (He et al. 2017, equations 7 to
                  12, with the layer's share of items in the table itself)

Added to every score is the logarithm of the item's share in the noisy popularity: what is learned is what popularity
does not say.
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from coterie.models.recommenders.elementwise import dot, meet, pool, tree_sum
from coterie.models.recommenders.objectives import pairwise, sampled_softmax
from coterie.models.recommenders.settings import TRAINED, Recommender

__all__ = ["ATTRIBUTE_SCALE", "Batch", "build", "initial", "names", "shapes"]

ATTRIBUTE_SCALE = 0.2
"""What public attributes are multiplied by: many items share a weight, and its part of a customer's gradient would
otherwise leave little of the clip for the tables."""

_SPREAD = 0.1


class Batch(Protocol):
    """Some customers in one step; tensors over B customers, L places for their items and N negatives.

    Attributes:
        history: Their items, and any item in a place that is not taken, int64, (B, L).
        mask: 1 where a place is taken, else 0, float64, (B, L).
        halves: In which half an item is in this step, 0 or 1, float64, (B, L).
        slots: The history, then the step's negatives, int64, (B, L + N).
        live: 1 where a negative is none of the customer's own items, else 0, float64, (B, N).
        attributes: Public attributes of the slots' items, float64, (B, attributes, L + N).
        bias: What is added to the slots' scores, float64, (B, L + N).
    """

    history: torch.Tensor
    mask: torch.Tensor
    halves: torch.Tensor
    slots: torch.Tensor
    live: torch.Tensor
    attributes: torch.Tensor
    bias: torch.Tensor


class _Tower(nn.Module):
    """What the families share: views, targets and the objective; a family says how views and items score."""

    def __init__(self, settings: Recommender) -> None:
        super().__init__()
        self._catalogue = settings.items
        self._pairs = settings.family == "mf-bpr"

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return one loss per customer, (customers,)."""
        first, second = batch.mask * batch.halves, batch.mask * (1.0 - batch.halves)
        views = torch.stack([_unit(first), _unit(second)], dim=1)
        # What is in one half is to be found from the other.
        count = tree_sum(batch.mask, dim=1).clamp(min=1.0)
        targets = torch.stack([second, first], dim=1) / count[:, None, None]
        scores = self.scores(batch, views) + batch.bias[:, None]
        split = batch.history.shape[1]
        positives, negatives = scores[:, :, :split], scores[:, :, split:]
        if self._pairs:
            return pairwise(positives, negatives, targets=targets, live=batch.live)
        return sampled_softmax(positives, negatives, targets=targets, live=batch.live, items=self._catalogue)

    def scores(self, batch: Batch, views: torch.Tensor) -> torch.Tensor:
        """Return (customers, views, slots), from what each view weighs the history by, (customers, views, L)."""
        raise NotImplementedError


class _TwoTower(_Tower):
    def __init__(self, settings: Recommender) -> None:
        super().__init__(settings)
        self.history = nn.Embedding(settings.items, settings.dimension)
        self.customer = nn.Linear(settings.dimension, settings.dimension)
        self.item = nn.Embedding(settings.items, settings.dimension)
        # A linear layer over numbers that stand in the second place: (B, attributes, C) to (B, dimension, C).
        self.attributes = (
            nn.Conv1d(settings.attributes, settings.dimension, 1, bias=False) if settings.attributes else None
        )

    def scores(self, batch: Batch, views: torch.Tensor) -> torch.Tensor:
        customers = self.customer(pool(_columns(self.history(batch.history)), views))
        items = _columns(self.item(batch.slots))
        if self.attributes is not None:
            items = items + self.attributes(batch.attributes * ATTRIBUTE_SCALE)
        return dot(customers, items)


class _Factors(_Tower):
    def __init__(self, settings: Recommender) -> None:
        super().__init__(settings)
        self.item = nn.Embedding(settings.items, settings.dimension)

    def scores(self, batch: Batch, views: torch.Tensor) -> torch.Tensor:
        items = _columns(self.item(batch.slots))
        return dot(pool(items[:, :, : views.shape[2]], views), items)


class _NeuMF(_Tower):
    def __init__(self, settings: Recommender) -> None:
        super().__init__(settings)
        self._width = settings.dimension
        self.item = nn.Embedding(settings.items, 2 * settings.dimension)  # for the product, then for the layer
        self.customer = nn.Linear(settings.dimension, settings.dimension)
        self.out = nn.Conv1d(settings.dimension, 1, 1, bias=False)

    def scores(self, batch: Batch, views: torch.Tensor) -> torch.Tensor:
        items = _columns(self.item(batch.slots))
        customers = pool(items[:, :, : views.shape[2]], views)
        product = dot(customers[:, :, : self._width], items[:, : self._width])
        hidden = meet(self.customer(customers[:, :, self._width :]), items[:, self._width :])  # (B, d, views, C)
        layer: torch.Tensor = self.out(hidden.flatten(start_dim=2))
        return product + layer.view_as(product)


def _unit(places: torch.Tensor) -> torch.Tensor:
    """Return places, 0 or 1, over the length of all of a customer's, which is 1 where there are none."""
    return places / tree_sum(places, dim=1).clamp(min=1.0).sqrt()[:, None]


def _columns(rows: torch.Tensor) -> torch.Tensor:
    """Return embeddings (B, C, d) as (B, d, C), which sums and products go through faster."""
    return rows.transpose(1, 2).contiguous()


def build(settings: Recommender) -> nn.Module:
    """Return an untrained module that maps a `Batch` to one loss per customer, (customers,).

    Everything that joins customers' numbers is made of `elementwise.py` and of layers, each used once: whoever needs
    one customer's gradient in every bit has the layers to replace and nothing else.

    Raises:
        ValueError: The family is not one that is trained.
    """
    if settings.family not in TRAINED:
        raise ValueError(f"family {settings.family!r} is not one of {', '.join(TRAINED)}")
    families = {"two-tower": _TwoTower, "neumf": _NeuMF}
    return families.get(settings.family, _Factors)(settings)


def shapes(settings: Recommender) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of the module's parameters, in order; the popularity that weights begin with is not there.

    Raises:
        ValueError: As `build`.
    """
    with torch.device("meta"):
        return tuple(tuple(parameter.shape) for parameter in build(settings).parameters())


def initial(settings: Recommender, seed: int) -> tuple[NDArray[np.float32], ...]:
    """Return public starting parameters: small embeddings, layers that pass on what they are given, no bias.

    A history table starts as the item table: customers stand near their items from the first step on.

    Args:
        settings: As in `build`.
        seed: Public; the same everywhere.

    Raises:
        ValueError: As `build`.
    """
    draw = np.random.default_rng(seed)  # public randomness, so a seeded generator is right
    started: dict[str, NDArray[np.float32]] = {}
    for name, shape in zip(names(settings), shapes(settings), strict=True):
        spread = (_SPREAD * draw.standard_normal(shape)).astype(np.float32)
        layer = {
            "customer.weight": np.eye(settings.dimension, dtype=np.float32),
            "customer.bias": np.zeros(shape, np.float32),
        }
        started[name] = layer.get(name, spread)
    if "history.weight" in started:
        started["history.weight"] = started["item.weight"].copy()
    return tuple(started.values())


def names(settings: Recommender) -> tuple[str, ...]:
    """Return the names of the module's parameters, in order.

    Raises:
        ValueError: As `build`.
    """
    with torch.device("meta"):
        return tuple(name for name, _ in build(settings).named_parameters())
