"""Held-out scores of made-up customers for tests of what is read from noisy histograms."""

import numpy as np

from coterie.models.influence import as_released
from coterie.models.metrics import bin_edges

__all__ = ["binned", "drawn", "population", "sampled"]


def drawn(count, seed, *, mean=-1.5, width=1.4, slope=1.0, shift=0.0):
    """Return distinct logits, and labels whose log-odds are slope * logit + shift."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(mean, width, count)
    return logits, (rng.random(count) < 1 / (1 + np.exp(-(slope * logits + shift)))).astype(float)


def binned(logits, labels, bins=24):
    """Return the histogram by label and bin."""
    place = np.searchsorted(bin_edges(bins), logits, side="right")
    return np.stack([np.bincount(place[labels == label], minlength=bins) for label in (0, 1)]).astype(float)


def population(bins=24, **how):
    """Return the shares of a large population by label and bin."""
    logits, labels = drawn(1_000_000, 99, **how)
    return binned(logits, labels, bins) / len(logits)


def sampled(shares, customers, noise, rng):
    """Return counts of a sample of customers with noise."""
    return as_released(rng.poisson(shares * customers) + rng.normal(0, noise, shares.shape))
