"""DP-AdaFEST: what is chosen, what is left alone, and that both releases cost what one Gaussian costs."""

import math

import numpy as np
import pytest
import torch
from dp_accounting import GaussianDpEvent
from dp_accounting.pld import PLDAccountant
from scipy.stats import binom, chi2, norm
from torch import nn

from coterie.privacy import accountant
from coterie.privacy.events import PoissonGaussian
from coterie.privacy.randomness import SeededSource
from coterie.privacy.training.adafest import AdaFestSGD, Selection
from coterie.privacy.training.bookkeeping import BookkeepingModule, BookkeepingSGD

ROWS, WIDTH = 40_000, 4


class Table(nn.Module):
    """Rows that customers read; `weight` scales their gradients."""

    def __init__(self, weight=1.0, rows=ROWS, padding=None):
        super().__init__()
        self.table = nn.Embedding(rows, WIDTH, _weight=torch.ones(rows, WIDTH), padding_idx=padding)
        self.weight = weight

    def forward(self, items):
        return (self.table(items) * self.weight).flatten(start_dim=1).sum(dim=1)


def setting(selection, noise_multiplier=1.0, clip=1.0, label="map", **table):
    model = BookkeepingModule(Table(**table), loss_reduction="sum")
    optimizer = AdaFestSGD(
        torch.optim.SGD(model.parameters(), lr=1.0),
        selection=selection,
        noise_multiplier=noise_multiplier,
        max_grad_norm=clip,
        expected_batch_size=None,
        loss_reduction="sum",
        stream=SeededSource(b"adafest").stream(label),
    )
    return model, optimizer


def change(model, optimizer, items):
    """Return what one step changes in the table."""
    before = model.table.weight.detach().clone()
    optimizer.zero_grad()
    model(items).sum().backward()
    optimizer.step()
    return (model.table.weight.detach() - before).double().numpy()


def unlikely(successes, trials, probability, level=1e-5):
    return min(binom.cdf(successes, trials, probability), binom.sf(successes - 1, trials, probability)) < level


# --- which rows -----------------------------------------------------------------------------------------


def selection_faults(optimizer_of, threshold, ratio=0.5, multiplier=1.0):
    """Return whether rows with one customer, and with none, are chosen as often as the map's noise says."""
    selection = Selection(clip=1.0, ratio=ratio, threshold=threshold)
    model, optimizer = optimizer_of(selection, multiplier, weight=0.0)
    used = torch.arange(0, ROWS, 4)
    moved = change(model, optimizer, used.unsqueeze(1)).any(axis=1)
    deviation = multiplier * math.sqrt(1 + ratio**2)  # of the map's noise: ratio * sqrt(1 + ratio^-2)
    one, none = norm.sf((threshold - 1.0) / deviation), norm.sf(threshold / deviation)
    counts = moved[used].sum(), np.delete(moved, used).sum()
    return [
        name
        for name, count, trials, chance in (("used", counts[0], len(used), one), ("unused", counts[1], 30_000, none))
        if unlikely(count, trials, chance)
    ]


@pytest.mark.parametrize("threshold", [-1.0, 0.5, 1.0, 2.5, 3.5, 4.5])
def test_rows_are_chosen_as_often_as_their_noisy_counts_reach_the_threshold(threshold):
    assert selection_faults(setting, threshold) == []


@pytest.mark.parametrize("threshold", [0.5, 2.5, 3.5])
def test_the_check_rejects_a_map_with_half_its_noise(threshold):
    class Quiet(AdaFestSGD):
        @property
        def map_multiplier(self):
            return 0.5 * super().map_multiplier

    def quiet(selection, multiplier, weight):
        model, optimizer = setting(selection, multiplier, weight=weight)
        optimizer.__class__ = Quiet
        return model, optimizer

    assert selection_faults(quiet, threshold)


def test_rows_that_are_not_chosen_stay_bit_for_bit_what_they_were():
    model, optimizer = setting(Selection(clip=1.0, ratio=1.0, threshold=6.0))
    items = torch.cat([torch.full((200,), 7), torch.arange(300, 320)]).unsqueeze(1)
    before = model.table.weight.detach().clone()
    moved = change(model, optimizer, items).any(axis=1)
    assert moved[7]
    assert 1 <= moved.sum() < 50
    assert not moved[300:320].any()
    untouched = torch.from_numpy(~moved)
    assert torch.equal(model.table.weight.detach()[untouched].view(torch.int32), before[untouched].view(torch.int32))


def test_a_padding_row_is_never_chosen():
    model, optimizer = setting(Selection(clip=1.0, ratio=1.0, threshold=-50.0), padding=3)
    moved = change(model, optimizer, torch.arange(9).unsqueeze(1)).any(axis=1)
    assert np.flatnonzero(~moved).tolist() == [3]


# --- what the chosen rows get ---------------------------------------------------------------------------


def test_chosen_rows_get_noise_of_the_gradients_scale():
    model, optimizer = setting(Selection(clip=1.0, ratio=2.0, threshold=0.0), clip=0.7, weight=0.0)
    moved = change(model, optimizer, torch.arange(10).unsqueeze(1))
    noise = moved[moved.any(axis=1)].ravel() / (0.7 * math.sqrt(1 + 0.25))
    assert len(noise) > ROWS
    score = (noise**2).sum()
    assert min(chi2.cdf(score, len(noise)), chi2.sf(score, len(noise))) > 1e-5


def test_without_noise_chosen_rows_take_the_exact_clipped_step():
    items = torch.randint(0, 50, (30, 3))
    model, optimizer = setting(Selection(clip=1.0, ratio=1.0, threshold=1e-9), noise_multiplier=0.0, clip=2.0)
    exact = BookkeepingModule(Table(), loss_reduction="sum")
    sgd = BookkeepingSGD(
        torch.optim.SGD(exact.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=2.0,
        expected_batch_size=None,
        loss_reduction="sum",
    )
    exact(items).sum().backward()
    sgd.step()
    change(model, optimizer, items)
    torch.testing.assert_close(model.table.weight, exact.table.weight)


def counts_of(optimizer):
    found = torch.zeros(ROWS, 1, dtype=torch.float64)
    for counts in optimizer._counts.values():
        counts.add_to(found, 1.0)
    return found


@pytest.mark.parametrize("clip", [0.5, 1.0, 3.0])
def test_a_customer_changes_the_map_by_no_more_than_its_clip(clip):
    torch.manual_seed(2)
    items = torch.randint(0, 200, (12, 40))  # with repeats
    items[3] = 5  # one row, forty times

    def map_of(some):
        model, optimizer = setting(Selection(clip=clip, ratio=1.0, threshold=0.0))
        model(some).sum().backward()
        optimizer.clip_and_accumulate()
        return counts_of(optimizer)

    whole = map_of(items)
    changes = [float((whole - map_of(torch.cat([items[:i], items[i + 1 :]]))).norm()) for i in range(12)]
    assert max(changes) == pytest.approx(clip, rel=1e-9)
    assert changes[3] == pytest.approx(min(1.0, clip), rel=1e-9)


def test_counts_of_a_step_that_was_refused_are_forgotten():
    model, optimizer = setting(Selection(clip=1.0, ratio=1.0, threshold=0.0))

    def refuse(_):
        raise PermissionError

    optimizer.attach_step_hook(refuse)
    with pytest.raises(PermissionError):
        change(model, optimizer, torch.arange(5).unsqueeze(1))
    optimizer.zero_grad()
    model(torch.arange(5).unsqueeze(1)).sum().backward()
    optimizer.clip_and_accumulate()
    assert float(counts_of(optimizer).max()) == 1.0


# --- what it costs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("multiplier", [0.6, 1.0, 4.0])
def test_map_and_gradient_compose_to_the_event(ratio, multiplier):
    _, optimizer = setting(Selection(clip=1.0, ratio=ratio, threshold=0.0), noise_multiplier=multiplier)
    pair = PLDAccountant()
    for part in (optimizer.map_multiplier, optimizer.gradient_multiplier):
        pair.compose(GaussianDpEvent(part))
    assert optimizer.map_multiplier == pytest.approx(ratio * optimizer.gradient_multiplier)
    event = optimizer.event(1.0, 1)
    assert event == PoissonGaussian(multiplier, 1.0, 1)
    for delta in (1e-3, 1e-5):
        assert accountant.epsilon([event], delta) == pytest.approx(pair.get_epsilon(delta), rel=2e-3)


@pytest.mark.parametrize("sign", [1, -1])
def test_under_poisson_sampling_the_pair_is_the_sampled_event(sign):
    # Both parts are of one sample: the hockey-stick divergence of the pair, on a grid, against the event on the line.
    first, second, rate = 1.4, 0.9, 0.1
    line = np.arange(-9, 10, 0.01)
    x, y = line[:, None], line[None, :]
    quiet = norm.pdf(x) * norm.pdf(y)
    mixed = (1 - rate) * quiet + rate * norm.pdf(x - 1 / first) * norm.pdf(y - 1 / second)
    multiplier = (first**-2 + second**-2) ** -0.5
    event = PoissonGaussian(multiplier, rate, 1)
    delta = 1e-4
    epsilon = accountant.epsilon([event], delta)
    upper, lower = (mixed, quiet) if sign > 0 else (quiet, mixed)
    found = np.maximum(upper - math.exp(epsilon) * lower, 0.0).sum() * 0.01**2
    assert found <= delta * 1.01
    if sign > 0:  # removing is the costlier direction here, and the event's epsilon is tight for it
        assert found > delta * 0.9
