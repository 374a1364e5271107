"""Whole-number gradient sums of trained recommenders against plain autograd, one by one, and in every bit."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from coterie.models.recommenders import draws, towers
from coterie.models.recommenders.settings import TRAINED, Recommender
from coterie.privacy.training import gradientsums
from coterie.privacy.training.baskets import Baskets, Few, Public
from coterie.privacy.training.gradientsums import GradientSettings, GradientSummer
from coterie.privacy.training.rowlookups import RowEmbedding, RowPointwise, rowwise_module

ITEMS, NEGATIVES, WIDTH, ATTRIBUTES, UNITS, CLIP = 60, 24, 10, 4, 2**20, 0.05
CASES = [*((family, 0) for family in TRAINED), ("two-tower", ATTRIBUTES)]
cases = pytest.mark.parametrize(("family", "attributes"), CASES)


def recommender(family, attributes=0):
    return Recommender(family=family, items=ITEMS, dimension=WIDTH, negatives=NEGATIVES, attributes=attributes)


def asked(**changes):
    plain = {"clip": CLIP, "sensitivity": UNITS, "bound": 2**62, "sample_rate": 1.0, "longest": 20}
    return GradientSettings(**{**plain, **changes})


def shown(settings, step=3):
    draw = np.random.default_rng(step)
    return Public(
        negatives=draws.negatives(settings, step),
        halves=draws.halves(settings, step),
        attributes=draw.normal(size=(settings.items, settings.attributes)).astype(np.float32),
        bias=draw.normal(size=settings.items).astype(np.float32),
    )


def started(settings, seed=1):
    draw = np.random.default_rng(seed)
    return tuple((w + 0.3 * draw.normal(size=w.shape)).astype(np.float32) for w in towers.initial(settings, seed))


def cancelling(settings, seed):
    """Parameters under which scores are what rounding leaves of sums that cancel, and decide what a gradient is.

    Numbers stand in pairs: x and x in rows of even items, y and -y, far greater, in rows of odd ones, so that products
    of the two kinds cancel but for rounding. Pairs are apart, so that no tree adds a pair first.
    """
    draw, arrays = np.random.default_rng(seed), []
    order = draw.permutation(WIDTH)

    def paired(rows, sign, low, high):
        half = draw.choice([-1, 1], (rows, WIDTH // 2)) * 10.0 ** draw.uniform(low, high, (rows, WIDTH // 2))
        return np.concatenate([half, sign * half], axis=1)[:, order]

    for name, shape in zip(towers.names(settings), towers.shapes(settings), strict=True):
        w = 0.3 * draw.normal(size=shape)
        if name == "customer.weight":
            w = np.eye(WIDTH)
        elif name == "customer.bias":
            w = np.zeros(WIDTH)
        elif name == "history.weight":
            w = paired(ITEMS, 1, -2, 0)
        elif name == "attributes.weight":
            w = paired(settings.attributes, -1, 12, 16).T[..., None]
        elif name == "item.weight":
            w[:, :WIDTH] = paired(ITEMS, -1, 12, 16)
            if settings.family != "two-tower":
                w[::2, :WIDTH] = paired(ITEMS // 2, 1, -2, 0)
        arrays.append(w.astype(np.float32))
    return tuple(arrays)


def customers(lengths, seed=5, apart=1):
    draw = np.random.default_rng(seed)
    return [apart * draw.choice(ITEMS // apart, length, replace=False) for length in lengths]


def told(histories):
    lengths = [len(history) for history in histories]
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), np.concatenate([[], *histories]).astype(np.int64)


def summed(lab, settings, weights, histories, *, public=None, stream=None, **changes):
    summer = GradientSummer(towers.build(settings))
    public = public or shown(settings)
    return summer.total(
        weights, told(histories), settings=asked(**changes), public=public, stream=stream or lab.stream()
    )


# --- an oracle: one customer at a time, dense tables, plain autograd ------------------------------------------


def plain_scores(family, p, halfs, items, attributes):
    """Score some items for a customer of whom one half of the history is seen."""
    norm = math.sqrt(max(len(halfs), 1))
    if family == "two-tower":
        history, weight, bias, item, *rest = p
        customer = weight @ (history[halfs].sum(0) / norm) + bias
        tower = item[items] + (0.2 * attributes[items] @ rest[0][:, :, 0].T if rest else 0.0)
        return tower @ customer
    if family == "neumf":
        item, weight, bias, out = p
        pooled = item[halfs].sum(0) / norm
        hidden = functional.relu(weight @ pooled[WIDTH:] + bias + item[items][:, WIDTH:])
        return item[items][:, :WIDTH] @ pooled[:WIDTH] + hidden @ out[0, :, 0]
    return p[0][items] @ (p[0][halfs].sum(0) / norm)


def plain_loss(settings, p, history, public):
    attributes = torch.from_numpy(public.attributes).double()
    bias = torch.from_numpy(public.bias).double()
    own = [int(item) for item in history]
    others = [int(item) for item in public.negatives if item not in own]
    loss = torch.zeros((), dtype=torch.float64)
    for item in own:
        seen = [other for other in own if public.halves[other] != public.halves[item]]
        scores = plain_scores(settings.family, p, seen, [item, *others], attributes) + bias[[item, *others]]
        if settings.family == "mf-bpr":
            term = -functional.logsigmoid(scores[0] - scores[1:]).mean() if others else 0.0 * scores.sum()
        else:
            proposal = torch.full_like(scores, math.log(settings.items / len(public.negatives)))
            proposal[0] = 0.0
            term = -functional.log_softmax(scores + proposal, dim=0)[0]
        loss = loss + term / len(own)
    return loss


def plain_gradient(settings, weights, history, public):
    p = [torch.from_numpy(w).double().requires_grad_() for w in weights]
    gradients = torch.autograd.grad(plain_loss(settings, p, history, public), p, allow_unused=True)
    parts = [torch.zeros_like(q) if g is None else g for q, g in zip(p, gradients, strict=True)]
    return torch.cat([part.flatten() for part in parts]).numpy()


# --- what a customer adds -------------------------------------------------------------------------------------


@cases
@pytest.mark.parametrize("length", [1, 2, 7, 9, 20])
@pytest.mark.parametrize("clip", [0.01, 1.0, 3.0])
def test_a_customer_adds_its_clipped_gradient_of_all_tables(lab, family, attributes, length, clip):
    settings = recommender(family, attributes)
    weights, public, (history,) = started(settings), shown(settings), customers([length], seed=length)
    gradient = plain_gradient(settings, weights, history, public)
    wanted, held = lab.clipped(gradient, clip), np.linalg.norm(gradient) > clip
    found = summed(lab, settings, weights, [history], public=public, clip=clip)
    assert found.dtype == np.int64
    assert np.abs(wanted).max() > 1e-4 or length < 7  # there is something to compare
    # A clipped gradient is a little shorter than the clip, to leave room for rounding.
    np.testing.assert_allclose(found * (clip / UNITS), wanted, atol=clip / UNITS, rtol=3e-5 if held else 0)


@cases
def test_the_loss_is_the_plain_one(family, attributes):
    settings = recommender(family, attributes)
    weights, public, histories = started(settings), shown(settings), customers([3, 8, 5, 1])
    module = rowwise_module(towers.build(settings))
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(value))
    few = Baskets(*told(histories), public=public, longest=8).few(np.arange(4), room=8, size=4)
    p = [torch.from_numpy(w).double() for w in weights]
    wanted = [float(plain_loss(settings, p, history, public)) for history in histories]
    np.testing.assert_allclose(module(few).detach().numpy(), wanted, rtol=1e-9)


@cases
def test_a_total_is_the_sum_of_what_each_customer_adds(lab, family, attributes):
    settings = recommender(family, attributes)
    histories = customers([1, 5, 9, 20, 0, 17, 8, 2, 3, 12])
    whole = summed(lab, settings, started(settings), histories)
    each = [summed(lab, settings, started(settings), [history]) for history in histories]
    assert whole.tolist() == np.sum(each, axis=0).tolist()
    assert np.abs(whole).max() > 1000


def test_of_a_long_history_the_newest_items_are_used(lab):
    settings, (history,) = recommender("mf-softmax"), customers([30])
    long = summed(lab, settings, started(settings), [history], longest=12)
    assert long.tolist() == summed(lab, settings, started(settings), [history[-12:]], longest=12).tolist()
    assert long.tolist() != summed(lab, settings, started(settings), [history[:12]], longest=12).tolist()


# --- what one customer changes --------------------------------------------------------------------------------


@cases
@pytest.mark.parametrize("seed", range(4))
def test_a_customer_changes_a_sum_by_its_own_vector_alone_in_every_bit(lab, family, attributes, seed):
    settings = recommender(family, attributes)
    weights, draw = cancelling(settings, seed), np.random.default_rng(seed)
    histories = customers(draw.integers(0, 21, 131), seed, apart=2)
    whole = summed(lab, settings, weights, histories)
    for out in (0, 77, 130):
        others = histories[:out] + histories[out + 1 :]
        change = whole - summed(lab, settings, weights, others)
        assert change.tolist() == summed(lab, settings, weights, [histories[out]]).tolist()
        assert sum(int(value) ** 2 for value in change) <= UNITS**2
    mixed = [histories[i] for i in draw.permutation(131)]
    assert summed(lab, settings, weights, mixed).tolist() == whole.tolist()


@cases
@pytest.mark.parametrize("seed", range(2))
def test_a_customer_s_gradient_is_the_same_wherever_it_stands(family, attributes, seed, monkeypatch):
    settings, found = recommender(family, attributes), []

    def kept(optimizer, few):
        parts = [sample[: few.count].flatten(start_dim=1).clone() for sample in optimizer.grad_samples]
        found.append(torch.cat(parts, dim=1).numpy())

    monkeypatch.setattr(gradientsums._RowSumOptimizer, "add", kept)
    weights, histories = cancelling(settings, seed), customers([7] * 83, seed, apart=2)
    summer, order = GradientSummer(towers.build(settings)), np.random.default_rng(seed).permutation(83)[:31]
    few = dataclasses.replace(asked(), longest=7)
    for chosen in (range(83), order):
        history = told([histories[i] for i in chosen])
        stream = gradientsums.Stream(bytes(32))
        summer.total(weights, history, settings=few, public=shown(settings), stream=stream)
    everyone, some = found
    assert np.abs(everyone).max() > 0
    assert some.tobytes() == everyone[order].tobytes()


@cases
def test_an_order_of_adding_that_depends_on_others_would_be_seen(lab, family, attributes, monkeypatch):
    # What the tests above prove is no matter of course: a library that adds up every other customer from the other end,
    # as with the rest of a vector loop, changes what customers add beside others.
    settings, plain = recommender(family, attributes), towers.dot

    def by_place(views, items):
        odd = torch.arange(len(items))[:, None, None] % 2 > 0
        return torch.where(odd, plain(views.flip(2), items.flip(1)), plain(views, items))

    monkeypatch.setattr(towers, "dot", by_place)
    weights, histories = cancelling(settings, 0), customers([9] * 40, apart=2)
    change = summed(lab, settings, weights, histories) - summed(lab, settings, weights, histories[1:])
    assert change.tolist() != summed(lab, settings, weights, histories[:1]).tolist()
    assert sum(int(value) ** 2 for value in change) > UNITS**2


@cases
def test_a_heavy_customer_is_clipped_to_the_sensitivity(lab, family, attributes):
    settings = recommender(family, attributes)
    weights = tuple(40 * w for w in started(settings))
    change = summed(lab, settings, weights, customers([20]), clip=1e-3)
    squares = sum(int(value) ** 2 for value in change)
    assert 0.999 * UNITS**2 < squares <= UNITS**2


def test_without_the_clip_a_customer_adds_more(lab, monkeypatch):
    # The test above sees a fault: were whole numbers made without it, the sensitivity would not hold.
    monkeypatch.setattr(
        gradientsums,
        "whole_numbers",
        lambda gradients, norms, *, clip, sensitivity: (gradients * (sensitivity / clip)).round().long(),
    )
    change = summed(lab, recommender("two-tower"), started(recommender("two-tower")), customers([20]), clip=1e-3)
    assert sum(int(value) ** 2 for value in change) > UNITS**2


class Same(nn.Module):
    """Gives every place the same gradient, also where no item is and where one is met twice."""

    def __init__(self):
        super().__init__()
        self.item = nn.Embedding(ITEMS, WIDTH)

    def forward(self, few):
        return (self.item(few.slots) * 1000.0).flatten(start_dim=1).sum(dim=1)


def test_an_item_that_is_met_twice_counts_once(lab, monkeypatch):
    settings = recommender("mf-softmax")
    public, weights = shown(settings), (np.zeros((ITEMS, WIDTH), dtype=np.float32),)

    def squares():
        total = GradientSummer(Same()).total(
            weights, told([public.negatives[:16]]), settings=asked(longest=16), public=public, stream=lab.stream()
        )
        return sum(int(value) ** 2 for value in total)

    assert 0.99 * UNITS**2 < squares() <= UNITS**2
    monkeypatch.setattr(Few, "kept", lambda few, gradients: gradients)  # a fault that is seen
    assert squares() > UNITS**2


def test_parameters_that_are_no_numbers_add_nothing(lab):
    settings = recommender("two-tower")
    weights = tuple(np.full_like(w, np.nan) for w in started(settings))
    assert not summed(lab, settings, weights, customers([5, 9])).any()
    half = tuple(w.copy() for w in started(settings))
    half[0][7] = np.inf
    with_seven, without = np.array([7, 3, 9, 12, 20]), np.array([8, 3, 9, 12])
    both = summed(lab, settings, half, [with_seven, without])
    assert both.tolist() == summed(lab, settings, half, [without]).tolist()
    assert both.any()


# --- sampling, bounds, refusals -------------------------------------------------------------------------------


def test_a_sample_is_drawn_by_the_secret_stream(lab):
    settings, histories = recommender("mf-bpr"), customers([6] * 50)
    chosen = np.flatnonzero(lab.stream("coins").uniforms(50) < 0.3)
    assert 5 < len(chosen) < 25
    found = summed(lab, settings, started(settings), histories, sample_rate=0.3, stream=lab.stream("coins"))
    assert found.tolist() == summed(lab, settings, started(settings), [histories[i] for i in chosen]).tolist()


@cases
def test_nobody_adds_nothing(lab, family, attributes):
    settings = recommender(family, attributes)
    size = sum(math.prod(shape) for shape in towers.shapes(settings))
    for histories, rate in (([], 1.0), (customers([4, 9]), 0.0), (customers([0, 0]), 1.0)):
        found = summed(lab, settings, started(settings), histories, sample_rate=rate)
        assert found.shape == (size,)
        assert not found.any()


def test_a_customer_who_has_every_negative_changes_nothing_by_pairs(lab):
    settings = recommender("mf-bpr")
    public = shown(settings)
    assert not summed(lab, settings, started(settings), [public.negatives], public=public, longest=NEGATIVES).any()


def test_each_coordinate_is_held_within_the_bound(lab):
    settings, histories = recommender("neumf"), customers([9] * 30)
    free = summed(lab, settings, started(settings), histories)
    held = summed(lab, settings, started(settings), histories, bound=1000)
    assert held.tolist() == free.clip(-1000, 1000).tolist()
    assert np.abs(free).max() > 1000


@pytest.mark.parametrize(
    ("histories", "reason"),
    [
        ((np.array([0, 2]), np.array([4, 4])), "twice"),
        ((np.array([0, 1]), np.array([ITEMS])), "not in the catalogue"),
        ((np.array([0, 1]), np.array([-1])), "not in the catalogue"),
        ((np.array([0, 3]), np.array([1])), "do not go"),
        ((np.array([0, 2, 1, 3]), np.array([1, 2, 3])), "do not go"),
    ],
)
def test_histories_that_are_not_as_told_are_refused_and_the_next_are_not(lab, histories, reason):
    settings = recommender("mf-softmax")
    summer = GradientSummer(towers.build(settings))
    ask = {"settings": asked(), "public": shown(settings)}
    with pytest.raises(ValueError, match=reason):
        summer.total(started(settings), histories, stream=lab.stream(), **ask)
    good = customers([5])
    after = summer.total(started(settings), told(good), stream=lab.stream(), **ask)
    assert after.tolist() == summed(lab, settings, started(settings), good).tolist()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"negatives": np.array([3, 3])}, "twice"),
        ({"negatives": np.array([ITEMS])}, "not in the catalogue"),
        ({"halves": np.zeros(ITEMS + 1, dtype=np.int64)}, "same items"),
    ],
)
def test_a_public_part_that_does_not_fit_together_is_refused(changes, reason):
    with pytest.raises(ValueError, match=reason):
        dataclasses.replace(shown(recommender("mf-softmax")), **changes)


@pytest.mark.parametrize(
    "changes", [{"clip": 0.0}, {"clip": math.inf}, {"sensitivity": 2**21}, {"bound": 0}, {"longest": 0}]
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(ValueError, match=r"clip|sensitivity|item"):
        asked(**changes)


def test_too_few_units_for_so_many_numbers_are_refused_whoever_is_there(lab):
    with pytest.raises(ValueError, match="more units"):
        summed(lab, recommender("mf-softmax"), started(recommender("mf-softmax")), [], sensitivity=30)


@pytest.mark.parametrize("layer", [nn.Conv1d(3, 2, 2), nn.LayerNorm(4), nn.Embedding(4, 2, padding_idx=1)])
def test_a_layer_that_is_not_known_is_refused(layer):
    with pytest.raises(ValueError, match=type(layer).__name__):
        GradientSummer(nn.Sequential(layer))


def test_layers_are_computed_as_the_plain_ones_are():
    module = towers.build(recommender("two-tower", ATTRIBUTES))
    own = rowwise_module(module)
    assert isinstance(own.item, RowEmbedding)
    assert isinstance(own.attributes, RowPointwise)
    x = torch.randn(5, ATTRIBUTES, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x.requires_grad_()
    wanted = module.double().attributes(x)
    assert torch.allclose(own.attributes(x), wanted, rtol=1e-12, atol=1e-12)
    (mine,) = torch.autograd.grad(own.attributes(x).square().sum(), x)
    (theirs,) = torch.autograd.grad(wanted.square().sum(), x)
    assert torch.allclose(mine, theirs, rtol=1e-12, atol=1e-12)


# --- what is held ---------------------------------------------------------------------------------------------


def test_no_table_is_held_for_each_customer(lab, monkeypatch):
    settings = dataclasses.replace(recommender("two-tower"), items=100_000)
    seen, add = [], gradientsums._RowSumOptimizer.add

    def watched(optimizer, few):
        seen.extend(sample.numel() for sample in optimizer.grad_samples)
        add(optimizer, few)

    monkeypatch.setattr(gradientsums._RowSumOptimizer, "add", watched)
    total = summed(lab, settings, towers.initial(settings, 1), customers([9] * 400))
    assert total.any()
    assert max(seen) <= 2**19 < settings.items * WIDTH


def test_nothing_of_a_customer_stays_after_a_total_or_a_failure(lab, monkeypatch):
    settings = recommender("mf-softmax")
    summer = GradientSummer(towers.build(settings))
    ask = {"settings": asked(), "public": shown(settings), "stream": lab.stream()}

    def left():
        parameters = list(summer._model.parameters())
        return [p for p in parameters if p.grad is not None or getattr(p, "grad_sample", None) is not None]

    summer.total(started(settings), told(customers([6])), **ask)
    assert not left()
    assert not summer._optimizer._totals

    def broken(few, gradients):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(Few, "kept", broken)
        with pytest.raises(MemoryError):
            summer.total(started(settings), told(customers([6])), **ask)
    assert not left()


def test_a_table_that_is_looked_up_elsewhere_is_refused(lab):
    class Elsewhere(Same):
        def forward(self, few):
            return self.item(few.slots[:, :3]).flatten(start_dim=1).sum(dim=1)

    settings = recommender("mf-softmax")
    with pytest.raises(ValueError, match="neither at the history nor at the slots"):
        GradientSummer(Elsewhere()).total(
            (np.zeros((ITEMS, WIDTH), dtype=np.float32),),
            told(customers([9])),
            settings=asked(),
            public=shown(settings),
            stream=lab.stream(),
        )


def test_no_step_is_taken_along_a_sum_without_noise():
    summer = GradientSummer(towers.build(recommender("mf-softmax")))
    with pytest.raises(RuntimeError, match="never stepped along"):
        summer._optimizer.add_noise()


def test_texts_show_nothing_of_customers():
    public = shown(recommender("mf-softmax"))
    baskets = Baskets(*told(customers([5])), public=public, longest=8)
    assert repr(baskets) == "Baskets(...)"
    assert "tensor" not in repr(baskets.few(np.array([0]), room=8, size=1))
