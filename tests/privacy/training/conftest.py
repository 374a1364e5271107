"""Small tables of customers, quiet streams, and gradients by plain autograd to hold the engine against."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from coterie.models.propensity import build, initial
from coterie.privacy.randomness import SeededSource, Stream
from coterie.privacy.training import TrainerSettings


class Quiet(Stream):
    """A stream whose sampling is as ever and whose noise is none."""

    def normals(self, count):
        return np.zeros(count)


def settings(**changes):
    plain = {
        "clip": 1.0,
        "noise_multiplier": 1.0,
        "sample_rate": 1.0,
        "normaliser": 1.0,
        "learning_rate": 1.0,
        "positive_weight": 1.0,
    }
    return TrainerSettings(**{**plain, **changes})


def table(customers, width, rows=1, seed=0, scale=1.0):
    """Return features, labels and customer numbers, shuffled; customers have 1 to `rows` rows."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, rows + 1, customers)
    counts[0] = rows
    ids = rng.permutation(np.repeat(np.arange(customers), counts))
    features = (scale * rng.normal(size=(len(ids), width))).astype(np.float32)
    return features, rng.integers(0, 2, len(ids)).astype(np.float32), ids.astype(np.int64)


def gradient(family, weights, features, labels, positive_weight):
    """One customer's gradient by plain autograd: of the mean over its rows of the weighted log-loss."""
    module = build(family, features.shape[1], len(weights[0]) if family == "mlp" else 1)
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(value))
    loss = torch.zeros(())
    for row, label in zip(torch.from_numpy(features), labels, strict=True):
        term = (
            functional.softplus(-module(row)[0]) * positive_weight if label > 0 else functional.softplus(module(row)[0])
        )
        loss = loss + term / len(labels)
    loss.backward()
    return np.concatenate([p.grad.reshape(-1).double().numpy() for p in module.parameters()])


def clipped(vector, clip):
    return vector * min(1.0, clip / max(np.linalg.norm(vector), 1e-300))


def flat(arrays):
    return np.concatenate([np.asarray(array, dtype=np.float64).ravel() for array in arrays])


def start(family, width, hidden=3, seed=5):
    """Return weights away from zero."""
    rng = np.random.default_rng(seed)
    return tuple(
        (w + 0.3 * rng.normal(size=w.shape)).astype(np.float32) for w in initial(family, width, hidden, seed=1)
    )


@pytest.fixture(autouse=True)
def one_thread():
    """The models are tiny: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def lab():
    """The helpers above, by name."""
    return SimpleNamespace(
        Quiet=Quiet,
        settings=settings,
        table=table,
        gradient=gradient,
        clipped=clipped,
        flat=flat,
        start=start,
        quiet=lambda label="sampling": Quiet(SeededSource(b"quiet").stream(label).bits(32)),
        stream=lambda label="noise": SeededSource(b"trainer").stream(label),
    )
