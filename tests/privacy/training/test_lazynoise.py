"""Noise that is drawn late is the noise that was due: variances of every row, for every pattern of reading.

Every customer's loss is half the square of a row, so that a step turns a row w that one customer read into
(1 - rate) w plus noise, and any other row into w plus noise. Variances then follow from which rows were read when,
and differ if a row is read before its noise has come.
"""

import copy

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest
from torch import nn

from coterie.privacy.randomness import SeededSource
from coterie.privacy.training import lazynoise
from coterie.privacy.training.bookkeeping import BookkeepingModule, BookkeepingSGD
from coterie.privacy.training.lazynoise import LazySGD

V, D = 6, 20_000
READS = [[0, 1], [0], [0, 2, 2], [0], [0, 1], [0], [0, 3]]  # row 0 always, 4 and 5 never, 2 by two customers at once
RATE, NOISE = 0.5, 0.3


class Squares(nn.Module):
    """Half the square of the rows that a customer reads."""

    def __init__(self, rows=V, width=D):
        super().__init__()
        self.table = nn.Embedding(rows, width, _weight=torch.zeros(rows, width))

    def forward(self, items):
        return 0.5 * self.table(items).square().flatten(start_dim=1).sum(dim=1)


def optimizer_for(model, kind, rate=RATE, label="lazy"):
    return kind(
        torch.optim.SGD(model.parameters(), lr=rate),
        noise_multiplier=NOISE / 1e6,
        max_grad_norm=1e6,
        expected_batch_size=None,
        loss_reduction="sum",
        stream=SeededSource(b"lazy").stream(label),
    )


def run(kind, reads=READS, rates=None, label="lazy"):
    """Return a model and its optimiser after a step for every set of rows."""
    model = BookkeepingModule(Squares(), loss_reduction="sum")
    optimizer = optimizer_for(model, kind, label=label)
    for step, rows in enumerate(reads):
        optimizer.param_groups[0]["lr"] = RATE if rates is None else rates[step]
        optimizer.zero_grad()
        model(torch.tensor(rows).unsqueeze(1)).sum().backward()
        optimizer.step()
    return model, optimizer


def table(model):
    return model.table.weight.detach().double().numpy()


def expected_variances(reads=READS, rates=None):
    found = np.zeros(V)
    for step, rows in enumerate(reads):
        rate = RATE if rates is None else rates[step]
        kept = np.array([1.0 - rate * rows.count(row) for row in range(V)])
        found = kept**2 * found + (rate * NOISE) ** 2
    return found


def variance_faults(found, expected, level=1e-5):
    """Return the rows whose variance over coordinates is not the expected one."""
    scores = (found**2).sum(axis=1) / expected
    return [row for row in range(V) if min(chi2.cdf(scores[row], D), chi2.sf(scores[row], D)) < level]


def correlated(found):
    matrix = np.abs(np.corrcoef(found) - np.eye(V))
    return np.argwhere(matrix > 5 / np.sqrt(D)).tolist()


@pytest.mark.parametrize("label", ["a", "b"])
@pytest.mark.parametrize("kind", [BookkeepingSGD, LazySGD])
def test_every_row_has_the_variance_of_eager_noise_after_a_flush(kind, label):
    model, optimizer = run(kind, label=label)
    if kind is LazySGD:
        optimizer.flush()
    found = table(model)
    assert variance_faults(found, expected_variances()) == []
    assert correlated(found) == []
    for row, variance in zip(found, expected_variances(), strict=True):
        assert kstest(row / np.sqrt(variance), "norm").pvalue > 1e-5


def test_rows_of_eager_and_lazy_runs_are_distributed_alike():
    eager, _ = run(BookkeepingSGD, label="eager")
    lazy, optimizer = run(LazySGD, label="lazy")
    optimizer.flush()
    for one, other in zip(table(eager), table(lazy), strict=True):
        assert kstest(one, other).pvalue > 1e-5


def test_steps_of_different_sizes_owe_noise_of_different_sizes():
    rates = [0.5, 0.1, 0.9, 0.2, 0.5, 0.05, 0.7]
    model, optimizer = run(LazySGD, rates=rates)
    optimizer.flush()
    assert variance_faults(table(model), expected_variances(rates=rates)) == []


def test_what_a_look_up_reads_has_all_noise_up_to_then():
    model, optimizer = run(LazySGD)
    for mode in (model.train, model.eval):
        mode()
        with torch.no_grad():
            model(torch.arange(V).unsqueeze(1))
        assert variance_faults(table(model), expected_variances()) == []
    assert not optimizer.pending


def test_noise_between_two_readings_is_independent_of_what_was_read():
    model, optimizer = run(LazySGD)
    optimizer.flush()
    before = table(model)
    optimizer.zero_grad()
    model(torch.zeros(0, 1, dtype=torch.int64)).sum().backward()
    optimizer.step()
    optimizer.flush()
    change = table(model) - before
    assert variance_faults(change, np.full(V, (RATE * NOISE) ** 2)) == []
    assert np.abs(
        (change * before).sum(axis=1) / np.linalg.norm(change, axis=1) / np.linalg.norm(before, axis=1)
    ).max() < (5 / np.sqrt(D))


def test_without_noise_a_lazy_run_is_the_eager_run():
    torch.manual_seed(1)
    start = Squares(50, 4)
    nn.init.normal_(start.table.weight)
    ends = []
    for kind in (BookkeepingSGD, LazySGD):
        torch.manual_seed(2)
        model = BookkeepingModule(copy.deepcopy(start))
        optimizer = kind(
            torch.optim.SGD(model.parameters(), lr=0.1),
            noise_multiplier=0.0,
            max_grad_norm=0.5,
            expected_batch_size=16,
        )
        for _ in range(10):
            optimizer.zero_grad()
            model(torch.randint(0, 50, (16, 3))).mean().backward()
            optimizer.step()
        ends.append(model.state_dict()["_module.table.weight"])
    assert torch.equal(*ends)
    assert not torch.equal(ends[0], start.table.weight)


def test_untouched_rows_wait_for_their_noise():
    model, optimizer = run(LazySGD)
    assert optimizer.pending
    assert not table(model)[[4, 5]].any()
    optimizer.flush()
    assert table(model)[[4, 5]].all()
    assert not optimizer.pending
    settled = table(model)
    optimizer.flush()
    assert (table(model) == settled).all()


# --- nothing leaves that is owed noise -----------------------------------------------------------------


@pytest.mark.parametrize(
    "release",
    [
        lambda model: model.state_dict(),
        lambda model: model._module.state_dict(),
        lambda model: model._module.table.state_dict(),
        lambda model: model.to_standard_module(),
        lambda model: model._module.load_state_dict(Squares().state_dict()),
    ],
)
def test_weights_that_are_owed_noise_are_not_released(release):
    model, optimizer = run(LazySGD)
    with pytest.raises(RuntimeError, match="flush"):
        release(model)
    optimizer.flush()
    release(model)


def test_a_second_optimiser_does_not_forget_what_the_first_one_owes():
    model, first = run(LazySGD)
    with pytest.raises(RuntimeError, match="flush"):
        optimizer_for(model, LazySGD)
    first.flush()
    optimizer_for(model, LazySGD)


def test_a_run_that_is_not_flushed_fails_the_check():
    model, _ = run(LazySGD)
    assert variance_faults(table(model), expected_variances()) == [0, 1, 2, 3, 4, 5]


# --- planted faults -------------------------------------------------------------------------------------


def faults_of(kind):
    model, optimizer = run(kind)
    with torch.no_grad():
        model(torch.tensor([[2], [2]]))
    optimizer.flush()
    return variance_faults(table(model), expected_variances())


class OneStep(LazySGD):
    """Owes one step's noise, however many there were."""

    def move(self, parameter, scale):
        super().move(parameter, scale)
        debt = self._debts[parameter]
        debt._paid.clamp_(min=debt.total - (scale * NOISE) ** 2)


class Late(LazySGD):
    """Reads rows before their noise has come."""

    def _read(self, parameter, indices):
        return


class Linear(LazySGD):
    """Adds standard deviations where variances add up."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        real = self.normals.rows
        self.normals.rows = lambda deviations, like: real(deviations**2 / (RATE * NOISE), like)


class Twice(LazySGD):
    """Draws anew for every look-up of a row within a batch."""

    def _read(self, parameter, indices):
        for index in indices.flatten():
            debt = self._debts[parameter]
            rows = index.reshape(1)
            with torch.no_grad():
                parameter[rows] += self.normals.rows(debt.deviations(rows), parameter)
        debt.pay(torch.unique(indices))


@pytest.mark.parametrize(("faulty", "rows"), [(OneStep, {4, 5}), (Late, {0}), (Linear, {4, 5}), (Twice, {2})])
def test_the_check_rejects_faulty_ways_of_being_lazy(faulty, rows):
    assert rows <= set(faults_of(faulty))


def test_noise_that_is_flushed_in_several_pieces_reaches_every_row(monkeypatch):
    monkeypatch.setattr(lazynoise, "CHUNK", 2 * D)
    assert faults_of(LazySGD) == []
