"""What a trained recommender makes small: one number per customer, with gradients in closed form.

Each is a mean over a customer's positives, so that a long history weighs no more than a short one. A customer is seen
through several views; a positive counts in the views that were made without it.

Gradients are made of single operations and trees (`elementwise.py`). Values are for people to look at, and their
logarithms are the library's: no gradient is made from them.
"""

from typing import Any

import torch

from coterie.models.recommenders.elementwise import exponential, tree_sum

__all__ = ["pairwise", "sampled_softmax"]

_CHUNK = 8
"""Positives times negatives are many: so many positives at a time stay in a processor's cache."""


class _SampledSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context
        positives: torch.Tensor,
        negatives: torch.Tensor,
        targets: torch.Tensor,
        live: torch.Tensor,
        share: float,
    ) -> torch.Tensor:
        own, others, most = _powers(positives, negatives)
        others = others * (live[:, None] / share)
        rest = tree_sum(others, dim=2)[..., None]  # (B, views, 1)
        weights = targets / (own + rest)
        ctx.save_for_backward(own * weights - targets, others * tree_sum(weights, dim=2)[..., None])
        return _summed(targets * ((own + rest).log() + most - positives))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401 - likewise
        (positives, negatives), each = ctx.saved_tensors, gradients[0][:, None, None]
        return positives * each, negatives * each, None, None, None


class _Pairwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context
        positives: torch.Tensor,
        negatives: torch.Tensor,
        targets: torch.Tensor,
        live: torch.Tensor,
    ) -> torch.Tensor:
        own, others, _ = _powers(positives, negatives)
        share = live / tree_sum(live, dim=1).clamp(min=1.0)[:, None]
        up, down, value = [], torch.zeros_like(negatives), torch.zeros_like(live[:, 0])
        for start in range(0, positives.shape[2], _CHUNK):
            # A positive counts in one view at most: its own power, and the negatives' powers in that view.
            few = targets[:, :, start : start + _CHUNK]
            first = few[:, 0] > 0
            power = torch.where(first, own[:, 0, start : start + _CHUNK], own[:, 1, start : start + _CHUNK])[..., None]
            lost = torch.where(first[..., None], others[:, 0, None], others[:, 1, None])  # (B, few, N)
            both = lost + power
            lost = lost.div_(both)
            up.append(-few * tree_sum(lost * share[:, None], dim=2)[:, None])
            down += torch.stack([tree_sum(lost * few[:, view, :, None], dim=1) for view in range(2)], dim=1)
            value += ((both.log_() - power.log()).mul_(share[:, None]).sum(dim=2) * few.sum(dim=1)).sum(dim=1)
        ctx.save_for_backward(torch.cat(up, dim=2), down * share[:, None])
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401 - likewise
        (positives, negatives), each = ctx.saved_tensors, gradients[0][:, None, None]
        return positives * each, negatives * each, None, None


def _powers(positives: torch.Tensor, negatives: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return e to the power of all scores, over that of a view's greatest, and that greatest, (B, views, 1)."""
    scores = torch.cat([positives, negatives], dim=2)
    most = scores.amax(dim=2, keepdim=True)  # exact in whichever order
    powers = exponential(scores - most)
    split = positives.shape[2]
    return powers[:, :, :split].contiguous(), powers[:, :, split:].contiguous(), most


def _summed(values: torch.Tensor) -> torch.Tensor:
    return values.sum(dim=(1, 2))


def sampled_softmax(
    positives: torch.Tensor, negatives: torch.Tensor, *, targets: torch.Tensor, live: torch.Tensor, items: int
) -> torch.Tensor:
    """Return how unlikely each customer's positives are among sampled items.

    The sampled items stand for the whole catalogue: their sum is scaled up to it (Bengio and Senecal 2008, importance
    sampling, with a uniform proposal).

    Args:
        positives: Scores, (customers, views, positives).
        negatives: Scores, (customers, views, negatives).
        targets: Weight of each positive, 0 for what is none, (customers, views, positives); not differentiated.
        live: 1 where a negative is none of the customer's own items, else 0, (customers, negatives); likewise.
        items: Items of the catalogue.

    Returns:
        (customers,).
    """
    share = live.shape[1] / items
    loss: torch.Tensor = _SampledSoftmax.apply(positives, negatives, targets, live, share)  # type: ignore[no-untyped-call]
    return loss


def pairwise(
    positives: torch.Tensor, negatives: torch.Tensor, *, targets: torch.Tensor, live: torch.Tensor
) -> torch.Tensor:
    """Return how unlikely each customer's positives are to stand before sampled items, pair by pair.

    Bayesian personalised ranking (Rendle et al. 2009, section 4.1): the mean of -log sigmoid(positive - negative), over
    all pairs of a positive with a live negative.

    Args:
        positives: As in `sampled_softmax`.
        negatives: Likewise.
        targets: Likewise.
        live: Likewise.

    Returns:
        (customers,).
    """
    loss: torch.Tensor = _Pairwise.apply(positives, negatives, targets, live)  # type: ignore[no-untyped-call]
    return loss
