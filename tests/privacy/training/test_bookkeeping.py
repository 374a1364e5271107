"""Book-keeping against autograd, customer by customer, for every layer and every way of using it."""

import copy

import pytest
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from coterie.privacy.randomness import SeededSource
from coterie.privacy.training.bookkeeping import BookkeepingModule, BookkeepingOptimizer, BookkeepingSGD
from coterie.privacy.training.contributions import RowSum

B, V, D = 12, 9, 4


class Model(nn.Module):
    """Layers, and how they turn the inputs of customers into one number for each."""

    def __init__(self, layers, use):
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.use = use

    def forward(self, *inputs):
        return self.use(self.layers, *inputs).flatten(start_dim=1).sum(dim=1)


def numbers(*shape):
    return torch.randn(B, *shape)


def items(*shape, rows=V):
    return torch.randint(0, rows, (B, *shape))


def mean_of(table):
    return lambda i: table(i).mean(dim=1)


def tied(kind, *shape, **settings):
    first, second = kind(*shape, **settings), kind(*shape, **settings)
    second.weight = first.weight
    return first, second


def make(name):
    """Return a model, and inputs for B customers."""
    torch.manual_seed(5)
    linear, table = nn.Linear(5, 3), nn.Embedding(V, D)
    padded = nn.Embedding(V, D, padding_idx=2)
    tables, lines = tied(nn.Embedding, V, D), tied(nn.Linear, 5, 3)
    mixed = tied(nn.Embedding, V, D)
    mixed[0].padding_idx = 2
    frozen = nn.Linear(5, 3)
    frozen.bias.requires_grad_(False)  # noqa: FBT003
    wide = nn.Linear(40, 30)
    tower = {"bought": nn.Embedding(V, D, padding_idx=0), "one": nn.Linear(D, 6), "two": nn.Linear(6, D)}
    tower["offered"] = nn.Embedding(V, D)

    def two_tower(layers, history, item):
        customer = layers["two"](layers["one"](layers["bought"](history).mean(dim=1)).tanh())
        return customer * layers["offered"](item)

    cases = {
        "linear": ({"a": linear}, lambda m, x: m["a"](x).tanh(), [numbers(5)]),
        "linear of two": (
            {"a": linear, "b": nn.Linear(3, 2)},
            lambda m, x: m["b"](m["a"](x).tanh()).square(),
            [numbers(5)],
        ),
        "linear without bias": ({"a": nn.Linear(5, 3, bias=False)}, lambda m, x: m["a"](x).tanh(), [numbers(5)]),
        "linear with a frozen bias": ({"a": frozen}, lambda m, x: m["a"](x).tanh(), [numbers(5)]),
        "linear on sequences": ({"a": linear}, lambda m, x: m["a"](x).tanh(), [numbers(6, 5)]),
        "wide linear on short sequences": ({"a": wide}, lambda m, x: m["a"](x).tanh(), [numbers(3, 40)]),
        "linear on four dimensions": ({"a": linear}, lambda m, x: m["a"](x).tanh(), [numbers(2, 3, 5)]),
        "linear used twice": (
            {"a": linear},
            lambda m, x, y: m["a"](x).tanh() * m["a"](y),
            [numbers(5), numbers(5)],
        ),
        "linear used on a row and on a sequence": (
            {"a": linear},
            lambda m, x, y: m["a"](x).tanh() * m["a"](y).mean(dim=1),
            [numbers(5), numbers(4, 5)],
        ),
        "linears that share a weight": (
            {"a": lines[0], "b": lines[1]},
            lambda m, x, y: m["a"](x).tanh() * m["b"](y),
            [numbers(5), numbers(5)],
        ),
        "table": ({"a": table}, lambda m, i: m["a"](i).square(), [items()]),
        "table with repeats": ({"a": table}, lambda m, i: m["a"](i).sin(), [items(7)]),
        "table with repeats of a mean": ({"a": table}, lambda m, i: mean_of(m["a"])(i).square(), [items(7, rows=3)]),
        "table on three dimensions": ({"a": table}, lambda m, i: m["a"](i).sin(), [items(2, 3)]),
        "table with padding": ({"a": padded}, lambda m, i: m["a"](i).sin(), [items(7)]),
        "table used twice": (
            {"a": table},
            lambda m, i, j: (m["a"](i).unsqueeze(1) * m["a"](j)).sin(),
            [items(), items(5)],
        ),
        "tables that share a weight": (
            {"a": tables[0], "b": tables[1]},
            lambda m, i, j: m["a"](i) * m["b"](j).sin(),
            [items(), items()],
        ),
        "tables that share a weight, one with padding": (
            {"a": mixed[0], "b": mixed[1]},
            lambda m, i, j: (m["a"](i) * m["b"](j)).sin(),
            [items(5), items(5)],
        ),
        "bag that adds": (
            {"a": nn.EmbeddingBag(V, D, mode="sum")},
            lambda m, i: m["a"](i).sin(),
            [items(6)],
        ),
        "bag of means with padding": (
            {"a": nn.EmbeddingBag(V, D, mode="mean", padding_idx=1)},
            lambda m, i: m["a"](i).sin(),
            [items(6, rows=4)],
        ),
        "two towers": (tower, two_tower, [items(6), items()]),
    }
    layers, use, inputs = cases[name]
    return Model(layers, use), inputs


NAMES = [
    "linear",
    "linear of two",
    "linear without bias",
    "linear with a frozen bias",
    "linear on sequences",
    "wide linear on short sequences",
    "linear on four dimensions",
    "linear used twice",
    "linear used on a row and on a sequence",
    "linears that share a weight",
    "table",
    "table with repeats",
    "table with repeats of a mean",
    "table on three dimensions",
    "table with padding",
    "table used twice",
    "tables that share a weight",
    "tables that share a weight, one with padding",
    "bag that adds",
    "bag of means with padding",
    "two towers",
]
# What Opacus' hooks get right: its embedding sampler does not know padding, nor its bag sampler bags of this form.
OPACUS = [name for name in NAMES if "padding" not in name and "bag" not in name and name != "two towers"]


def trained(model):
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def oracle(model, inputs):
    """Return each customer's gradient, by autograd of that customer's loss alone: (customers, parameters)."""
    found = []
    for customer in range(len(inputs[0])):
        loss = model(*[part[customer : customer + 1] for part in inputs]).sum()
        gradients = torch.autograd.grad(loss, trained(model))
        found.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(found) if found else torch.zeros(0, sum(p.numel() for p in trained(model)))


def dense(parameter, summed):
    found = torch.zeros_like(parameter)
    if isinstance(summed, RowSum):
        with torch.no_grad():
            summed.add_to(found, 1.0)
        return found
    return found if summed is None else summed


def optimizer_for(model, kind=BookkeepingOptimizer, **settings):
    settings = {
        "noise_multiplier": 0.0,
        "max_grad_norm": 1.0,
        "expected_batch_size": B,
        "loss_reduction": "sum",
        "stream": SeededSource(b"book").stream("test"),
        **settings,
    }
    return kind(torch.optim.SGD(trained(model), lr=settings.pop("lr", 1.0)), **settings)


def clipped_sum(model, inputs, clip, kind=BookkeepingOptimizer, reduction="sum"):
    """Return the sum of clipped gradients that an optimiser makes, all parameters in one vector."""
    wrapped = BookkeepingModule(copy.deepcopy(model), loss_reduction=reduction)
    optimizer = optimizer_for(wrapped, kind, max_grad_norm=clip, loss_reduction=reduction)
    losses = wrapped(*inputs)
    (losses.sum() if reduction == "sum" else losses.mean()).backward()
    optimizer.clip_and_accumulate()
    return torch.cat([dense(p, p.summed_grad).flatten() for p in optimizer.params]).detach()


def clipped(gradients, clip):
    norms = gradients.norm(dim=1)
    return ((clip / (norms + 1e-6)).clamp(max=1.0)[:, None] * gradients).sum(dim=0)


def middle(gradients):
    """Return a clip that half the customers exceed."""
    return float(gradients.norm(dim=1).median())


def distance(found, expected):
    return float((found - expected).norm() / expected.norm())


# --- gradients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("name", NAMES)
def test_clipped_sums_are_those_of_autograd_customer_by_customer(name, reduction):
    model, inputs = make(name)
    gradients = oracle(model, inputs)
    for clip in (middle(gradients), 1e6):
        assert distance(clipped_sum(model, inputs, clip, reduction=reduction), clipped(gradients, clip)) < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_norms_are_those_of_autograd_for_every_customer_and_parameter(name):
    model, inputs = make(name)
    gradients = oracle(model, inputs)
    wrapped = BookkeepingModule(copy.deepcopy(model), loss_reduction="sum")
    wrapped(*inputs).sum().backward()
    parameters = trained(wrapped)
    (recording,) = parameters[0].grad_sample
    start = 0
    for parameter in parameters:
        expected = gradients[:, start : start + parameter.numel()].norm(dim=1)
        found = recording.contributions[parameter].squares().sqrt()
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(expected.max()))
        start += parameter.numel()


@pytest.mark.parametrize("name", OPACUS)
def test_clipped_sums_are_those_of_opacus_hooks_where_these_are_right(name):
    model, inputs = make(name)
    clip = middle(oracle(model, inputs))
    hooked = GradSampleModule(copy.deepcopy(model), loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(trained(hooked), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=clip,
        expected_batch_size=B,
        loss_reduction="sum",
    )
    hooked(*inputs).sum().backward()
    optimizer.clip_and_accumulate()
    expected = torch.cat([p.summed_grad.flatten() for p in optimizer.params])
    assert distance(clipped_sum(model, inputs, clip), expected) < 1e-6


def test_one_backward_pass_is_enough_and_leaves_no_gradient_of_a_parameter():
    model, inputs = make("two towers")
    wrapped = BookkeepingModule(model, loss_reduction="sum")
    wrapped(*inputs).sum().backward()
    assert all(parameter.grad is None for parameter in wrapped.parameters())


def test_what_a_recorded_module_computes_is_what_it_computed_before():
    for name in NAMES:
        model, inputs = make(name)
        expected = model(*inputs)
        wrapped = BookkeepingModule(copy.deepcopy(model))
        torch.testing.assert_close(wrapped(*inputs), expected)
        with torch.no_grad():
            torch.testing.assert_close(wrapped(*inputs), expected)
        assert wrapped.to_standard_module()(*inputs).grad_fn is not None


def test_gradients_that_cancel_do_not_hide_a_norm():
    # Two places of one customer whose gradients nearly cancel: inner products in float32 would lose the difference.
    layer = nn.Linear(40, 30, bias=False)
    model = Model({"a": layer}, lambda m, x, w: m["a"](x) * w)
    x = torch.randn(1, 1, 40).expand(2, 2, 40).clone()
    w = torch.randn(1, 1, 30) * torch.tensor([1e4, -1e4 + 1.0]).reshape(1, 2, 1).expand(2, 2, 1)
    gradients = oracle(model, [x, w])
    assert float(gradients.norm(dim=1).max()) < 100
    total = clipped_sum(model, [x, w], 1.0)
    assert float(total.norm()) < 2 * (1 + 1e-3)


class Largest(TorchDispatchMode):
    """Notes the most numbers that one operation returned in memory of its own."""

    def __init__(self):
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and all(
            found.untyped_storage().data_ptr() != argument.untyped_storage().data_ptr()
            for argument in args
            if isinstance(argument, torch.Tensor)
        ):
            self.most = max(self.most, found.numel())
        return found


def test_a_step_makes_nothing_of_the_size_of_a_table():
    torch.manual_seed(5)
    wrapped = BookkeepingModule(Model({"a": nn.Embedding(50_000, D)}, lambda m, i: m["a"](i).sin()))
    optimizer = optimizer_for(wrapped, BookkeepingSGD, noise_multiplier=1.0, loss_reduction="mean")
    with Largest() as seen:
        wrapped(items(10)).mean().backward()
        optimizer.step()
    assert B * 10 * D <= seen.most < 50_000 * D


# --- sensitivity ----------------------------------------------------------------------------------------


def change_of_one(kind, name="two towers", clip=0.3):
    """Return the greatest change of a sum by any one customer, over the clip; one customer is heavy."""
    model, inputs = make(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    whole = clipped_sum(model, inputs, clip, kind)
    others = [[torch.cat([part[:i], part[i + 1 :]]) for part in inputs] for i in range(B)]
    return max(float((whole - clipped_sum(model, rest, clip, kind)).norm()) for rest in others) / clip


@pytest.mark.parametrize("kind", [BookkeepingOptimizer, BookkeepingSGD])
@pytest.mark.parametrize("name", ["two towers", "table used twice", "linear on sequences", "table with repeats"])
def test_adding_or_removing_a_customer_changes_a_sum_by_no_more_than_the_clip(kind, name):
    assert 0.5 < change_of_one(kind, name) < 1 + 1e-5


class Unclipped(BookkeepingOptimizer):
    """A faulty optimiser: nothing is clipped."""

    def accumulate(self, recording):
        clip, self.max_grad_norm = self.max_grad_norm, 1e9
        found = super().accumulate(recording)
        self.max_grad_norm = clip
        return found


class ClippedApart(BookkeepingOptimizer):
    """A faulty optimiser: each parameter is clipped by itself."""

    def accumulate(self, recording):
        everything = dict(recording.contributions)
        for parameter, contribution in everything.items():
            recording.contributions = {parameter: contribution}
            found = super().accumulate(recording)
        recording.contributions = everything
        return found


class ClippedAsAMean(BookkeepingOptimizer):
    """A faulty optimiser: gradients of a mean are clipped as they are, and then multiplied."""

    def accumulate(self, recording):
        recording.customers, size = 1, recording.customers
        found = super().accumulate(recording)
        recording.customers = size
        for parameter in self.params:
            parameter.summed_grad = RowSum() if parameter.summed_grad is None else parameter.summed_grad
        return found


@pytest.mark.parametrize("faulty", [Unclipped, ClippedApart])
def test_the_check_of_sensitivity_rejects_optimisers_that_do_not_clip_a_customer(faulty):
    assert change_of_one(faulty) > 1.2


def test_the_comparison_with_autograd_rejects_a_mean_that_is_taken_for_a_sum():
    model, inputs = make("two towers")
    gradients = oracle(model, inputs)
    clip = middle(gradients)
    assert distance(clipped_sum(model, inputs, clip, ClippedAsAMean, "mean"), clipped(gradients, clip)) > 1e-2


@pytest.mark.parametrize("bad", [torch.inf, torch.nan, 1e30])
@pytest.mark.parametrize("name", ["linear of two", "linear on sequences"])
def test_a_customer_whose_gradient_is_not_finite_contributes_nothing(name, bad):
    model, (x,) = make(name)
    spoilt = x.clone()
    spoilt[3] = bad
    if bad == 1e30:  # finite in itself; the square of its gradient's norm is not
        model.use = lambda m, x: m["a"](x).square()
    rest = torch.cat([x[:3], x[4:]])
    found, expected = clipped_sum(model, [spoilt], 0.5), clipped_sum(model, [rest], 0.5)
    assert torch.isfinite(found).all()
    assert distance(found, expected) < 1e-6
