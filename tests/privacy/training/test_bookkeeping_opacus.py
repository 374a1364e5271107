"""Book-keeping in an Opacus user's hands: accountants, schedulers, virtual steps, empty batches, refusals."""

import copy

import pytest
import torch
from opacus.accountants import RDPAccountant
from opacus.utils.batch_memory_manager import BatchMemoryManager
from opacus.validators.errors import UnsupportedModuleError
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from coterie.privacy.randomness import SeededSource
from coterie.privacy.training.adafest import AdaFestSGD, Selection
from coterie.privacy.training.bookkeeping import BookkeepingModule, BookkeepingOptimizer, BookkeepingSGD
from coterie.privacy.training.lazynoise import LazySGD

B, V, D = 16, 11, 4
SELECTION = Selection(clip=1.0, ratio=1.0, threshold=0.5)
KINDS = [BookkeepingOptimizer, BookkeepingSGD, LazySGD, AdaFestSGD]


class Taste(nn.Module):
    """What a customer thinks of an item."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.history = nn.Embedding(V, D, padding_idx=0)
        self.item = nn.Embedding(V, D)
        self.tower = nn.Linear(D, D)

    def forward(self, history, item):
        return (self.tower(self.history(history).mean(dim=1)) * self.item(item)).sum(dim=1)


def batch(size=B, seed=9):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randint(0, V, shape, generator=generator)  # noqa: E731
    return draw(size, 5), draw(size)


def wrapped(reduction="mean"):
    return BookkeepingModule(Taste(), loss_reduction=reduction)


def optimizer_for(model, kind=BookkeepingOptimizer, inner=torch.optim.SGD, **settings):
    lr = settings.pop("lr", 0.5)
    settings = {
        "noise_multiplier": 0.0,
        "max_grad_norm": 0.1,
        "expected_batch_size": B,
        "loss_reduction": "mean",
        "stream": SeededSource(b"opacus").stream("test"),
        **({"selection": SELECTION} if kind is AdaFestSGD else {}),
        **settings,
    }
    return kind(inner(model.parameters(), lr=lr), **settings)


def take(model, optimizer, inputs):
    optimizer.zero_grad()
    losses = model(*inputs).sigmoid()
    (losses.mean() if model.loss_reduction == "mean" else losses.sum()).backward()
    optimizer.step()


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def shift(before, after):
    return float((after - before).norm())


# --- steps ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", [BookkeepingSGD, LazySGD])
def test_a_step_in_place_is_the_step_of_a_gradient(kind, reduction):
    first, second = wrapped(reduction), wrapped(reduction)
    inputs = batch()
    for model, one in ((first, BookkeepingOptimizer), (second, kind)):
        optimizer = optimizer_for(model, one, loss_reduction=reduction)
        for _ in range(4):
            take(model, optimizer, inputs)
    torch.testing.assert_close(weights(first), weights(second), rtol=1e-6, atol=1e-7)
    assert shift(weights(wrapped()), weights(first)) > 1e-2


def test_a_step_of_adam_is_adams_step_of_the_clipped_sum():
    model, plain = wrapped("sum"), Taste()
    optimizer = optimizer_for(model, inner=torch.optim.Adam, loss_reduction="sum", max_grad_norm=1e6, lr=0.1)
    adam = torch.optim.Adam(plain.parameters(), lr=0.1)
    inputs = batch()
    for _ in range(3):
        take(model, optimizer, inputs)
        adam.zero_grad()
        plain(*inputs).sigmoid().sum().backward()
        with torch.no_grad():  # PyTorch gives the padding row no gradient either
            adam.step()
    torch.testing.assert_close(weights(model), weights(plain), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_virtual_steps_add_up_to_one_step_of_the_whole_batch(kind):
    history, item = batch()
    whole, parts = wrapped("sum"), wrapped("sum")
    take(whole, optimizer_for(whole, kind, loss_reduction="sum"), (history, item))
    optimizer = optimizer_for(parts, kind, loss_reduction="sum")
    for start in range(0, B, 4):
        optimizer.signal_skip_step(do_skip=start + 4 < B)
        take(parts, optimizer, (history[start : start + 4], item[start : start + 4]))
    torch.testing.assert_close(weights(whole), weights(parts), rtol=1e-6, atol=1e-7)


def test_opacus_memory_manager_splits_batches_without_changing_a_step():
    history, item = batch()
    expected, split = wrapped(), wrapped()
    take(expected, optimizer_for(expected), (history, item))
    loader = DataLoader(TensorDataset(history, item), batch_size=B)
    optimizer = optimizer_for(split)
    manager = BatchMemoryManager(data_loader=loader, max_physical_batch_size=3, optimizer=optimizer)
    with manager as small:
        for inputs in small:
            take(split, optimizer, inputs)
    torch.testing.assert_close(weights(expected), weights(split), rtol=1e-5, atol=1e-7)


def test_two_backward_passes_before_a_step_are_two_batches():
    model, other = wrapped("sum"), wrapped("sum")
    history, item = batch()
    optimizer = optimizer_for(model, loss_reduction="sum")
    for half in (slice(0, 8), slice(8, B)):
        model(history[half], item[half]).sigmoid().sum().backward()
    assert optimizer.accumulated_iterations == 2
    optimizer.step()
    take(other, optimizer_for(other, loss_reduction="sum"), (history, item))
    torch.testing.assert_close(weights(model), weights(other), rtol=1e-6, atol=1e-7)


def test_two_forward_passes_and_one_backward_pass_are_one_batch():
    model = wrapped("sum")
    optimizer = optimizer_for(model, loss_reduction="sum", max_grad_norm=1e6)
    (history, item), (_, other) = batch(), batch(seed=10)
    (model(history, item) - model(history, other)).sigmoid().sum().backward()
    assert optimizer.accumulated_iterations == 1
    optimizer.clip_and_accumulate()
    plain = Taste()
    (plain(history, item) - plain(history, other)).sigmoid().sum().backward()
    torch.testing.assert_close(model.tower.weight.summed_grad, plain.tower.weight.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_poisson_batch_takes_a_step_of_noise_and_is_charged(kind):
    model = wrapped()
    optimizer = optimizer_for(model, kind, noise_multiplier=1.0)
    accountant = RDPAccountant()
    optimizer.attach_step_hook(accountant.get_optimizer_hook_fn(sample_rate=0.01))
    before = model.tower.weight.detach().clone()
    take(model, optimizer, batch(0))
    assert accountant.history == [(1.0, 0.01, 1)]
    noise = (model.tower.weight.detach() - before).flatten()
    assert 0.2 < float(noise.std()) / (0.1 / B * 0.5) < 5.0


@pytest.mark.parametrize("kind", KINDS)
def test_opacus_accountant_is_told_of_every_step_and_of_no_virtual_one(kind):
    model = wrapped()
    optimizer = optimizer_for(model, kind, noise_multiplier=1.5)
    accountant = RDPAccountant()
    optimizer.attach_step_hook(accountant.get_optimizer_hook_fn(sample_rate=0.25))
    for skip in (False, True, True, False):
        optimizer.signal_skip_step(do_skip=skip)
        take(model, optimizer, batch())
    assert accountant.history == [(1.5, 0.25, 2)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_accountant_that_refuses_stops_a_step_before_weights_change(kind):
    model = wrapped()
    optimizer = optimizer_for(model, kind, noise_multiplier=1.0)

    def refuse(_):
        raise PermissionError

    optimizer.attach_step_hook(refuse)
    before = weights(model)
    with pytest.raises(PermissionError):
        take(model, optimizer, batch())
    assert torch.equal(weights(model), before)


@pytest.mark.parametrize("kind", [BookkeepingOptimizer, BookkeepingSGD])
def test_a_scheduler_changes_the_size_of_steps(kind):
    model = wrapped()
    optimizer = optimizer_for(model, kind, lr=0.5)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step else 1.0)
    take(model, optimizer, batch())
    scheduler.step()
    before = weights(model)
    take(model, optimizer, batch())
    assert torch.equal(weights(model), before)


@pytest.mark.parametrize("kind", KINDS)
def test_customers_gradients_die_with_the_step(kind):
    model = wrapped()
    optimizer = optimizer_for(model, kind, noise_multiplier=1.0)
    take(model, optimizer, batch())
    assert all(parameter.summed_grad is None for parameter in optimizer.params)
    assert not any(recording.contributions for recording in optimizer.recordings)


@pytest.mark.parametrize("kind", KINDS)
def test_the_padding_row_is_never_changed(kind):
    model = wrapped()
    optimizer = optimizer_for(model, kind, noise_multiplier=2.0)
    model.history.weight.requires_grad_()
    before = model.history.weight[0].detach().clone()
    for _ in range(3):
        take(model, optimizer, batch())
    if kind is LazySGD:
        optimizer.flush()
    assert torch.equal(model.history.weight[0], before)


def test_a_module_is_itself_again_afterwards():
    model = wrapped()
    optimizer = optimizer_for(model)
    take(model, optimizer, batch())
    found = copy.deepcopy(model.to_standard_module())
    found(*batch()).sum().backward()
    assert found.tower.weight.grad is not None
    assert not any(hasattr(parameter, "table") or hasattr(parameter, "grad_sample") for parameter in found.parameters())


# --- refusals -------------------------------------------------------------------------------------------


class Past(nn.Module):
    """Uses a weight past its layer."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(V, D)

    def forward(self, item):
        return self.table(item) @ self.table.weight.T


class Bare(nn.Module):
    """Has a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(3))


def sharing():
    table, line = nn.Embedding(V, D), nn.Linear(D, V)
    line.weight = table.weight
    return nn.Sequential(table, line)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), "1 is a LayerNorm with parameters"),
        (nn.Conv1d(3, 3, 1), "the module is a Conv1d"),
        (Bare(), "Bare"),
        (nn.Embedding(V, D, max_norm=1.0), "max_norm"),
        (nn.Embedding(V, D, scale_grad_by_freq=True), "scale_grad_by_freq"),
        (nn.EmbeddingBag(V, D, mode="max"), "maxima"),
        (sharing(), "shares a parameter"),
    ],
)
def test_a_layer_whose_gradients_are_not_known_is_refused(module, said):
    with pytest.raises(ValueError, match=said):
        BookkeepingModule(module)


def test_a_layer_that_mixes_customers_is_refused():
    with pytest.raises(UnsupportedModuleError):
        BookkeepingModule(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, affine=True)))


def test_a_weight_used_past_its_layer_is_refused():
    model = BookkeepingModule(Past())
    with pytest.raises(RuntimeError, match="past its layer"):
        model(torch.zeros(2, dtype=torch.int64)).sum().backward()


def test_layers_that_see_different_numbers_of_customers_are_refused():
    model = BookkeepingModule(Taste())
    history, item = batch()
    with pytest.raises(ValueError, match="first dimension"):
        model(history, item[:1]).sum().backward()


def test_a_loss_without_customers_is_refused():
    model = BookkeepingModule(nn.Linear(3, 1))
    with pytest.raises(ValueError, match="first dimension for customers"):
        model(torch.zeros(3))


def test_a_step_without_a_backward_pass_and_a_second_step_are_refused():
    model = wrapped()
    optimizer = optimizer_for(model)
    with pytest.raises(ValueError, match="backward"):
        optimizer.step()
    take(model, optimizer, batch())
    with pytest.raises(ValueError, match="zero_grad"):
        optimizer.step()


def test_a_graph_whose_gradients_were_used_is_refused():
    model = wrapped()
    optimizer = optimizer_for(model)
    loss = model(*batch()).mean()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="used already"):
        loss.backward()


@pytest.mark.parametrize("kind", [BookkeepingSGD, LazySGD, AdaFestSGD])
@pytest.mark.parametrize("setting", [{"momentum": 0.9}, {"weight_decay": 0.1}, {"maximize": True}])
def test_only_plain_sgd_is_done_in_place(kind, setting):
    extra = {"selection": SELECTION} if kind is AdaFestSGD else {}
    inner = torch.optim.SGD(wrapped().parameters(), lr=0.1, **setting)
    with pytest.raises(ValueError, match="without momentum"):
        kind(inner, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=B, **extra)
    with pytest.raises(ValueError, match="without momentum"):
        optimizer_for(wrapped(), kind, inner=torch.optim.Adam)
