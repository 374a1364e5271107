"""Row by row: no bit of a row's result depends on the other rows, under weights that are chosen to make bits matter."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from coterie.privacy.randomness import SeededSource
from coterie.privacy.training import Customers, Summer, SumSettings, Trainer, TrainerSettings, scores
from coterie.privacy.training.rowwise import PIECE, RowLinear, rowwise, tree_sum

INPUTS, HIDDEN = 37, 48


def mlp():
    return nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))


def logistic():
    return nn.Linear(INPUTS, 1)


def cancelling(module, seed):
    """Weights whose products cancel, over nine orders of magnitude: what is left is rounding alone."""
    draw = np.random.default_rng(seed)
    arrays = []
    for parameter in module.parameters():
        size = parameter.numel()
        half = 10.0 ** draw.uniform(-3, 6, (size + 1) // 2)
        arrays.append(
            np.concatenate([half, -draw.permutation(half)])[:size].reshape(parameter.shape).astype(np.float32)
        )
    return tuple(arrays)


def rows(count, seed=1):
    draw = np.random.default_rng(seed)
    return draw.uniform(-1, 1, (count, INPUTS)).astype(np.float32)


def settings(**changes):
    return SumSettings(
        **{"clip": 1.0, "sensitivity": 2**14, "bound": 2**40, "sample_rate": 1.0, "positive_weight": 1.0} | changes
    )


def gradients(summer, customers, chosen, weights):
    """Every chosen customer's gradient, by the engine itself."""
    summer._load(weights)
    found = []
    with summer._at_work():
        for few in summer._pieces(chosen, customers):
            summer._differentiate(few, customers, 1.0)
            parts, norms = summer._optimizer.gradients()
            found.append(torch.cat([part.flatten(start_dim=1) for part in parts] + [norms[:, None]], dim=1).clone())
    return torch.cat(found).numpy()


@pytest.mark.parametrize("make", [logistic, mlp])
@pytest.mark.parametrize("seed", range(4))
def test_a_score_is_the_same_beside_whichever_rows(make, seed):
    module, features = make(), rows(203)
    weights = cancelling(module, seed)
    whole = scores(module, weights, features)
    for some in (np.arange(1), np.arange(202), np.arange(7, 160), np.random.default_rng(seed).permutation(203)):
        assert scores(module, weights, features[some]).tobytes() == whole[some].tobytes()


def test_a_product_of_matrices_is_not_the_same_beside_whichever_rows():
    # What is avoided here is real: otherwise the tests of this file would show nothing.
    module, features = mlp().double(), torch.from_numpy(rows(203)).double()
    changed = 0
    for seed in range(8):
        with torch.no_grad():
            for parameter, value in zip(module.parameters(), cancelling(module, seed), strict=True):
                parameter.copy_(torch.from_numpy(value))
            whole = module(features)
            changed += sum(int(not torch.equal(module(features[:n]), whole[:n])) for n in (1, 2, 3, 50, 201))
    assert changed > 0


@pytest.mark.parametrize("make", [logistic, mlp])
@pytest.mark.parametrize("longest", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_a_customer_s_gradient_is_the_same_whoever_else_is_there(make, longest, seed):
    module = make()
    weights, draw = cancelling(module, seed), np.random.default_rng(seed)
    customer = np.repeat(np.arange(150), draw.integers(1, longest + 1, 150))
    features, labels = rows(len(customer), seed), draw.integers(0, 2, len(customer)).astype(np.float32)
    whole = Customers(features, labels, customer, longest=longest)
    summer = Summer(module)
    everyone = gradients(summer, whole, np.arange(150), weights)
    chosen = draw.permutation(150)[:67]
    assert gradients(summer, whole, chosen, weights).tobytes() == everyone[chosen].tobytes()
    kept = customer < 40  # a table without the others, among them those with the most rows
    fewer = Customers(features[kept], labels[kept], customer[kept], longest=longest)
    assert gradients(summer, fewer, np.arange(40), weights).tobytes() == everyone[:40].tobytes()


@pytest.mark.parametrize("seed", range(4))
def test_one_customer_changes_a_sum_by_at_most_the_sensitivity_under_such_weights(seed):
    module = mlp()
    weights, draw = cancelling(module, seed), np.random.default_rng(seed)
    customer = np.concatenate([np.arange(400), [400, 400]])
    features, labels = rows(402, seed), draw.integers(0, 2, 402).astype(np.float32)
    summer = Summer(module)

    def total(count):
        kept = customer < count
        table = Customers(features[kept], labels[kept], customer[kept], longest=2)
        return summer.total(weights, table, settings=settings(), stream=SeededSource(b"s").stream("s"))

    change = (total(401) - total(400)).astype(object)
    assert 0 < int((change**2).sum()) <= 2**28


def test_a_round_without_noise_is_the_same_for_a_customer_whoever_else_is_there():
    # With two customers clipped to 1, taking one away changes the step by at most 1, also where rounding decides.
    module = mlp()
    trainer = Trainer(module)
    public = TrainerSettings(
        clip=1.0, noise_multiplier=0.0, sample_rate=1.0, normaliser=1.0, learning_rate=1e-3, positive_weight=1.0
    )
    for seed in range(4):
        weights = tuple(w / 1e3 for w in cancelling(module, seed))
        features, labels = rows(300, seed), np.arange(300, dtype=np.float32) % 2

        def change(count, weights=weights, features=features, labels=labels):
            table = Customers(features[:count], labels[:count], np.arange(count), longest=1)
            stream = SeededSource(b"s").stream("s")
            moved, _ = trainer.train(weights, table, settings=public, steps=1, stream=stream)
            return np.concatenate([m.ravel() for m in moved]).astype(np.float64) / 1e-3

        # Weights of up to 1,000 hold a change of 1e-3 to about 6e-5 in float32, in every coordinate.
        assert np.linalg.norm(change(300) - change(299)) <= 1 + 0.1


def test_a_row_linear_layer_is_a_linear_layer():
    plain, features = mlp().double(), torch.from_numpy(rows(PIECE)).double()
    own = rowwise(plain)
    assert isinstance(own[0], RowLinear)
    assert torch.allclose(own(features), plain(features), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 101])
def test_a_tree_adds_everything_once(length):
    values = np.random.default_rng(length).normal(size=(5, length, 3))
    found = tree_sum(torch.from_numpy(values), dim=1).numpy()
    wanted = [[math.fsum(values[i, :, j]) for j in range(3)] for i in range(5)]
    assert np.allclose(found, wanted, rtol=1e-13, atol=1e-13)


def test_what_is_not_known_to_be_computed_row_by_row_is_refused():
    with pytest.raises(ValueError, match="BatchNorm1d"):
        rowwise(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))


def test_more_rows_than_there_is_room_for_are_refused():
    with pytest.raises(ValueError, match="more rows"):
        Customers(rows(3), np.zeros(3, dtype=np.float32), np.zeros(3, dtype=np.int64), longest=2)
