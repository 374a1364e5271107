"""Sums of clipped gradients on slots, under Opacus' engine: held against autograd, row by row."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from coterie.models.additive import margins
from coterie.privacy.randomness import OsSource
from coterie.privacy.training.binnedsums import Judged, ResidualSettings, residual_total
from coterie.privacy.training.slotsums import SlotSummer, slot_scores
from coterie.privacy.training.sums import SumSettings

UNITS, WIDTH, ACTIVE = 2**20, 20, 4
KINDS = pytest.mark.parametrize("hidden", [0, 3], ids=["logistic", "mlp"])


def table(seed, rows, customers):
    rng = np.random.default_rng(seed)
    slots = np.stack([rng.integers(0, 5, rows) + 5 * column for column in range(ACTIVE)], axis=1)
    return slots, (rng.random(rows) < 0.3).astype(np.float32), rng.integers(0, customers, rows)


def weights(hidden, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    shapes = [(hidden, WIDTH), (hidden,), (1, hidden), (1,)] if hidden else [(1, WIDTH), (1,)]
    return [(scale * rng.normal(size=shape)).astype(np.float32) for shape in shapes]


def settings(clip=0.5, **other):
    kept = {"sensitivity": UNITS, "bound": 2**60, "sample_rate": 1.0, "positive_weight": 1.0}
    return SumSettings(clip=clip, **{**kept, **other})


def total(hidden, rows, how, at=None):
    stream = OsSource().stream("test")
    return SlotSummer(WIDTH, hidden).total(at or weights(hidden), rows, settings=how, stream=stream)


def by_autograd(hidden, rows, *, clip, positive_weight=1.0):
    """Each row's gradient of a dense model, clipped by itself and shared among its customer's rows."""
    slots, labels, customer = rows
    found = 0.0
    for row, label, who in zip(slots, labels, customer, strict=True):
        parameters = [torch.tensor(w.astype(np.float64), requires_grad=True) for w in weights(hidden)]
        x = torch.zeros(WIDTH, dtype=torch.float64)
        x[row] = 1.0
        z = parameters[0] @ x + parameters[1]
        if hidden:
            z = parameters[2] @ torch.tanh(z) + parameters[3]
        loss = functional.binary_cross_entropy_with_logits(z[0], torch.tensor(float(label), dtype=torch.float64))
        loss = loss * (positive_weight if label else 1.0)
        gradient = torch.cat([one.flatten() for one in torch.autograd.grad(loss, parameters)])
        share = (customer == who).sum()
        found = found + (gradient * min(1.0, clip / float(gradient.norm())) / share).numpy()
    return found


@KINDS
@pytest.mark.parametrize(("clip", "positive_weight"), [(0.5, 1.0), (0.5, 4.0), (40.0, 1.0)])
def test_a_sum_is_that_of_autograd_row_by_row(hidden, clip, positive_weight):
    rows = table(1, 200, 120)
    ours = total(hidden, rows, settings(clip, positive_weight=positive_weight)) / UNITS * clip
    theirs = by_autograd(hidden, rows, clip=clip, positive_weight=positive_weight)
    assert np.abs(ours - theirs).max() <= len(rows[0]) * clip / UNITS


def test_the_logistic_family_sums_what_the_additive_one_does():
    rows, at = table(2, 3000, 2000), weights(0, seed=5)
    for clip in (0.5, 40.0):
        ours = total(0, rows, settings(clip), at)
        how = ResidualSettings(clip=clip, sensitivity=UNITS, bound=2**60, sample_rate=1.0, positive_weight=1.0)
        judged = Judged(margins(tuple(at), rows[0]), rows[1], rows[2])
        other = residual_total(rows[0], judged, width=WIDTH, settings=how, stream=OsSource().stream("test"))
        assert np.abs(ours - other).max() <= len(rows[0])  # a unit a row, where the last bit of a factor differs


@KINDS
@pytest.mark.parametrize("scale", [0.1, 30.0, 1e5])
@pytest.mark.parametrize("clip", [1e-6, 0.5, 1e3])
def test_a_customer_changes_a_sum_by_at_most_the_sensitivity_and_no_other_bit(hidden, scale, clip):
    slots, labels, customer = table(3, 400, 60)
    customer[:256] = 7  # as many rows as a contract permits, all of one kind
    slots[:200], labels[:200] = slots[0], 1.0
    at, how = weights(hidden, seed=4, scale=scale), settings(clip, positive_weight=1000.0)
    everybody = total(hidden, (slots, labels, customer), how, at)
    for who in (7, int(customer[-1])):
        kept = customer != who
        others = total(hidden, (slots[kept], labels[kept], customer[kept]), how, at)
        own = total(hidden, (slots[~kept], labels[~kept], customer[~kept]), how, at)
        assert np.array_equal(everybody - others, own)
        length = sum(int(unit) ** 2 for unit in own)
        assert length <= UNITS**2
        if scale == 0.1 and clip == 1e-6 and who == 7:  # 200 rows of 256 are alike, and all beyond the clip
            assert length > 0.3 * UNITS**2


@KINDS
def test_a_sum_has_only_the_customers_of_its_sample(hidden):
    rows = table(5, 20_000, 20_000)
    slots = np.tile(np.arange(ACTIVE) * 5, (20_000, 1))
    alike = (slots, np.ones(20_000, dtype=np.float32), np.arange(20_000))
    one = total(hidden, tuple(part[:1] for part in alike), settings())
    place = int(np.argmax(np.abs(one)))
    found = total(hidden, alike, settings(sample_rate=0.3))[place] / one[place]
    assert abs(found - 6000) <= 5 * np.sqrt(20_000 * 0.3 * 0.7)  # five deviations: odds below 1e-6
    assert not total(hidden, rows, settings(sample_rate=1e-12)).any()


@KINDS
def test_a_sum_is_held_within_its_bound(hidden):
    free, held = (total(hidden, table(6, 300, 300), settings(bound=bound)) for bound in (2**60, 1000))
    assert np.array_equal(held, np.clip(free, -1000, 1000))
    assert (np.abs(free) > 1000).any()


@KINDS
def test_scores_are_those_of_a_dense_model_and_of_each_row_alone(hidden):
    slots, _, _ = table(7, 333, 333)
    at = weights(hidden)
    together = slot_scores(at, slots, hidden=hidden)
    dense = np.zeros((len(slots), WIDTH))
    np.put_along_axis(dense, slots, 1.0, axis=1)
    z = dense @ at[0].T.astype(np.float64) + at[1]
    z = np.tanh(z) @ at[2].T.astype(np.float64) + at[3] if hidden else z
    assert np.allclose(together, z[:, 0], atol=1e-9)
    order = np.random.default_rng(0).permutation(len(slots))
    assert np.array_equal(slot_scores(at, slots[order], hidden=hidden), together[order])
    assert all(slot_scores(at, slots[i : i + 1], hidden=hidden)[0] == together[i] for i in range(0, 333, 37))


def test_nobody_steps_along_a_sum_without_noise():
    with pytest.raises(RuntimeError, match="never stepped along"):
        SlotSummer(WIDTH, 0)._optimizer.add_noise()
