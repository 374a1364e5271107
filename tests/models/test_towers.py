"""Trained recommenders: what they compute, what they draw in public, that they learn, and how they score at home."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from coterie.models.histories import Histories
from coterie.models.recommenders.draws import halves, negatives
from coterie.models.recommenders.elementwise import dot, exponential, meet, pool, tree_sum
from coterie.models.recommenders.objectives import pairwise, sampled_softmax
from coterie.models.recommenders.settings import TRAINED, Recommender
from coterie.models.recommenders.towers import build, initial, names, shapes
from coterie.models.recommenders.towerscores import log_popularity, scores

NEGATIVES, HALVES = [4, 12, 16, 17, 31, 39], [1, 1, 1, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0]

families = pytest.mark.parametrize("family", TRAINED)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recommender(family="two-tower", **changes):
    plain = {"family": family, "items": 30, "dimension": 4, "negatives": 12, "longest": 8}
    return Recommender(**{**plain, **changes})


def told(*items):
    lengths = [len(one) for one in items]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    together = np.concatenate([[], *items]).astype(np.int64)
    return Histories(starts, together, np.zeros(len(together), dtype=np.int64))


def batch(settings, histories, step=0, bias=None, attributes=None):
    """Customers as a module takes them, made the plain way."""
    drawn, half, count = negatives(settings, step), halves(settings, step), len(histories)
    history, mask = np.zeros((count, settings.longest), dtype=np.int64), np.zeros((count, settings.longest))
    live = np.ones((count, len(drawn)))
    for row in range(count):
        own = histories.items[histories.starts[row] : histories.starts[row + 1]]
        history[row, : len(own)], mask[row, : len(own)] = own, 1.0
        live[row, np.isin(drawn, own)] = 0.0
    slots = np.concatenate([history, np.tile(drawn, (count, 1))], axis=1)
    bias = np.zeros(settings.items) if bias is None else bias
    attributes = np.zeros((settings.items, 0)) if attributes is None else attributes
    arrays = {
        "history": history,
        "mask": mask,
        "halves": half[history].astype(np.float64),
        "slots": slots,
        "live": live,
        "attributes": np.ascontiguousarray(attributes[slots].transpose(0, 2, 1), dtype=np.float64),
        "bias": bias[slots].astype(np.float64),
    }
    return SimpleNamespace(**{name: torch.from_numpy(value) for name, value in arrays.items()})


def loaded(settings, parameters):
    module = build(settings).double()
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), parameters, strict=True):
            parameter.copy_(torch.from_numpy(value))
    return module


def numbers(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).requires_grad_()


def same(found, wanted, *inputs):
    """Hold values and gradients, along an arbitrary direction, against each other."""
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-12)
    along = torch.from_numpy(np.random.default_rng(9).normal(size=tuple(found.shape)))
    mine = torch.autograd.grad((found * along).sum(), inputs)
    theirs = torch.autograd.grad((wanted * along).sum(), inputs)
    for one, other in zip(mine, theirs, strict=True):
        assert other.abs().max() > 0
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


# --- operations and objectives, against plain torch ------------------------------------------------------------


def test_the_exponential_is_right_over_its_range():
    near, far = -np.linspace(0, 30, 10_001), -np.linspace(0, 700, 10_001)
    np.testing.assert_allclose(exponential(torch.from_numpy(near)).numpy(), np.exp(near), rtol=1e-11)
    np.testing.assert_allclose(exponential(torch.from_numpy(far)).numpy(), np.exp(far), rtol=1e-9)
    beyond = exponential(torch.tensor([-1e300, -math.inf, math.nan, 0.0], dtype=torch.float64)).numpy()
    assert 0 < beyond[0] == beyond[1] < 1e-300
    assert np.isnan(beyond[2])
    assert beyond[3] == 1.0


@pytest.mark.parametrize("length", [0, 1, 2, 5, 37])
def test_a_tree_adds_everything_once(length):
    values = np.random.default_rng(length).normal(size=(3, length, 2))
    wanted = [[math.fsum(values[i, :, j]) for j in range(2)] for i in range(3)]
    assert np.allclose(tree_sum(torch.from_numpy(values), dim=1).numpy(), wanted, rtol=1e-13, atol=1e-13)


def test_products_are_those_of_plain_torch():
    rows, weights = numbers(5, 4, 9), numbers(5, 2, 9, seed=1).detach()
    same(pool(rows, weights), torch.einsum("bdl,bvl->bvd", rows, weights), rows)
    views, items = numbers(5, 2, 4, seed=2), numbers(5, 4, 11, seed=3)
    same(dot(views, items), torch.einsum("bvd,bdc->bvc", views, items), views, items)
    same(meet(views, items), (views.permute(0, 2, 1)[..., None] + items[:, :, None]).relu(), views, items)


def targeted(views=2, positives=5, customers=4, seed=7):
    """Each positive in one view at most."""
    draw = np.random.default_rng(seed)
    where, weight = draw.integers(0, views + 1, (customers, positives)), draw.uniform(0.1, 1, (customers, positives))
    return torch.from_numpy(np.stack([(where == view) * weight for view in range(views)], axis=1))


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_sampled_softmax_is_the_plain_one(scale):
    positives, others, targets = numbers(4, 2, 5), numbers(4, 2, 7, seed=1), targeted()
    live = torch.from_numpy(np.random.default_rng(2).integers(0, 2, (4, 7)).astype(np.float64))
    found = sampled_softmax(scale * positives, scale * others, targets=targets, live=live, items=21)
    rest = (scale * others + math.log(21 / 7)).masked_fill(live[:, None] == 0, -math.inf)
    rest = rest[:, :, None].expand(-1, -1, 5, -1)
    chances = functional.log_softmax(torch.cat([scale * positives[..., None], rest], dim=3), dim=3)[..., 0]
    same(found, -(targets * chances).sum(dim=(1, 2)), positives, others)


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("positives", [5, 19])
def test_pairwise_ranking_is_the_plain_one(scale, positives):
    own, others, targets = numbers(4, 2, positives), numbers(4, 2, 7, seed=1), targeted(positives=positives)
    live = torch.from_numpy(np.random.default_rng(2).integers(0, 2, (4, 7)).astype(np.float64))
    found = pairwise(scale * own, scale * others, targets=targets, live=live)
    pairs = -functional.logsigmoid(scale * (own[..., None] - others[:, :, None]))
    each = (pairs * live[:, None, None]).sum(dim=3) / live.sum(dim=1)[:, None, None]
    same(found, (targets * each).sum(dim=(1, 2)), own, others)


def test_with_the_whole_catalogue_drawn_softmax_is_the_full_one():
    settings = recommender("mf-softmax", negatives=30)
    parameters, histories = initial(settings, 3), told([4, 11, 7])
    module = loaded(settings, tuple(5 * w for w in parameters))
    table, half = torch.from_numpy(5 * parameters[0]).double(), halves(settings, 0)
    wanted = 0.0
    for item in (4, 11, 7):
        seen = [other for other in (4, 11, 7) if half[other] != half[item]]
        logits = table @ (table[seen].sum(0) / math.sqrt(max(len(seen), 1)))
        others = [other for other in range(30) if other not in (4, 11, 7)]
        wanted -= float(functional.log_softmax(logits[[item, *others]], dim=0)[0]) / 3
    assert module(batch(settings, histories)).item() == pytest.approx(wanted, rel=1e-9)


# --- what a customer's loss is made of -------------------------------------------------------------------------


@families
def test_an_item_does_not_help_to_find_itself(family):
    settings = recommender(family)
    module = loaded(settings, tuple(3 * w for w in initial(settings, 1)))
    loss = module(batch(settings, told([5], [5, 6])))
    if family == "two-tower":  # the one family where being seen and being found are apart
        alone = torch.autograd.grad(loss[0], module.history.weight, retain_graph=True)[0]
        assert not alone.any()
    else:
        found = batch(settings, told([5]), bias=np.arange(30.0))
        with_itself = module(found).item()
        with torch.no_grad():
            module.item.weight[5] *= 2
            if family == "neumf":
                module.item.weight[5] /= 2
                module.item.weight[5, :4] *= 2
        assert module(found).item() == with_itself


@families
def test_a_loss_does_not_grow_with_the_length_of_a_history(family):
    settings = recommender(family, longest=20)
    module = loaded(settings, tuple(0 * w for w in initial(settings, 1)))
    short, long = module(batch(settings, told([1, 2], np.arange(20)))).tolist()
    # With all scores equal it is the same for each positive, but for negatives that the customer has itself.
    assert long <= short * 1.01
    assert short == pytest.approx(math.log(2 if family == "mf-bpr" else 30), rel=0.2)


@families
def test_what_no_place_holds_changes_no_loss(family):
    settings = recommender(family)
    module, one = loaded(settings, initial(settings, 1)), batch(settings, told([5, 9, 2]))
    other = SimpleNamespace(**vars(one))
    other.history, other.slots = one.history.clone(), one.slots.clone()
    other.history[:, 3:] = other.slots[:, 3:8] = 17
    assert module(one).item() == module(other).item()


@families
def test_a_customer_without_items_has_no_loss_and_no_gradient(family):
    settings = recommender(family)
    module = loaded(settings, initial(settings, 1))
    loss = module(batch(settings, told([], [3, 4])))
    assert loss[0].item() == 0.0
    for gradient in torch.autograd.grad(loss[0], list(module.parameters()), allow_unused=True):
        assert gradient is None or not gradient.any()


# --- settings --------------------------------------------------------------------------------------------------


@families
@pytest.mark.parametrize("attributes", [0, 3])
def test_shapes_names_and_a_start_are_those_of_the_module(family, attributes):
    settings = recommender(family, attributes=attributes)
    module = build(settings)
    assert shapes(settings) == tuple(tuple(p.shape) for p in module.parameters())
    assert names(settings) == tuple(name for name, _ in module.named_parameters())
    start = initial(settings, 1)
    assert [w.shape for w in start] == list(shapes(settings))
    assert {w.dtype for w in start} == {np.dtype(np.float32)}
    assert all((one == other).all() for one, other in zip(start, initial(settings, 1), strict=True))
    assert any((one != other).any() for one, other in zip(start, initial(settings, 2), strict=True))


@families
def test_a_catalogue_as_long_as_an_embedding_starts_as_any_other(family):
    settings = recommender(family, items=4)
    start = dict(zip(names(settings), initial(settings, 1), strict=True))
    assert np.abs(start["item.weight"]).max() < 1


def test_no_parameter_grows_with_customers_and_a_family_that_is_not_trained_is_refused():
    assert all(30 in shape or max(shape) <= 4 for family in TRAINED for shape in shapes(recommender(family)))
    with pytest.raises(ValueError, match="item-gram"):
        build(recommender("item-gram"))


# --- public draws ----------------------------------------------------------------------------------------------


def test_negatives_are_drawn_from_all_items_alike_and_each_once():
    settings = recommender(items=50, negatives=20)
    drawn = np.stack([negatives(settings, step) for step in range(3000)])
    assert all(len(set(row)) == 20 for row in drawn.tolist())
    counts = np.bincount(drawn.ravel(), minlength=50)
    expected, variance = 3000 * 0.4, 3000 * 0.4 * 0.6
    assert (((counts - expected) ** 2).sum() / variance) * 49 / 50 < 95  # chi-square, 49 degrees: 1 in 10,000
    assert len({tuple(row) for row in drawn.tolist()}) == 3000


def test_no_more_negatives_are_drawn_than_there_are_items():
    assert negatives(recommender(items=5), 0).tolist() == [0, 1, 2, 3, 4]


def test_draws_are_the_same_everywhere():
    settings = recommender(items=40, negatives=6)
    assert negatives(settings, 7).tolist() == NEGATIVES
    assert halves(settings, 7)[:16].tolist() == HALVES
    assert negatives(settings, 7).dtype == halves(settings, 7).dtype == np.int64


def test_halves_are_fair_coins_and_change_with_the_step():
    settings = recommender(items=400)
    coins = np.stack([halves(settings, step) for step in range(200)])
    assert set(coins.ravel().tolist()) == {0, 1}
    assert abs(coins.mean() - 0.5) < 0.01
    assert 0.4 < (coins[0] == coins[1]).mean() < 0.6


# --- scores ----------------------------------------------------------------------------------------------------


def plain_scores(settings, weights, own, attributes):
    """One customer's scores, written out."""
    p = dict(zip(names(settings), [w.astype(np.float64) for w in weights[1:]], strict=True))
    over, item = math.sqrt(max(len(own), 1)), p["item.weight"]
    if settings.family == "two-tower":
        customer = p["customer.weight"] @ (p["history.weight"][own].sum(0) / over) + p["customer.bias"]
        towers = item + (0.2 * attributes @ p["attributes.weight"][:, :, 0].T if settings.attributes else 0.0)
        return towers @ customer
    pooled, d = item[own].sum(0) / over, settings.dimension
    if settings.family == "neumf":
        hidden = np.maximum(p["customer.weight"] @ pooled[d:] + p["customer.bias"] + item[:, d:], 0)
        return item[:, :d] @ pooled[:d] + hidden @ p["out.weight"][0, :, 0]
    return item @ pooled


def weights_of(settings, seed=4):
    draw = np.random.default_rng(seed)
    return tuple(draw.normal(size=shape).astype(np.float32) for shape in ((settings.items,), *shapes(settings)))


@families
@pytest.mark.parametrize("attributes", [0, 3])
def test_scores_are_the_module_s_over_the_whole_history(family, attributes):
    settings = recommender(family, attributes=attributes)
    weights, own = weights_of(settings), [[3, 1, 20], [], [29], [], [5, 6, 7, 8, 9, 10, 11, 12]]
    known = np.random.default_rng(1).normal(size=(30, attributes)).astype(np.float32)
    found = scores(settings, weights, histories=told(*own), attributes=known)
    assert found.dtype == np.float32
    bias = log_popularity(weights[0])
    for row, items in zip(found, own, strict=True):
        np.testing.assert_allclose(row, plain_scores(settings, weights, items, known) + bias, rtol=1e-5, atol=1e-5)


@families
def test_scores_are_what_the_loss_is_made_of(family):
    # Four items in one half and one in the other: what is lost on each follows from scores by the other half alone.
    settings = recommender(family, negatives=30)
    weights, half = weights_of(settings), halves(recommender(family), 0)
    seen, (other, *_) = np.flatnonzero(half == 0)[:4], np.flatnonzero(half == 1)
    bias = log_popularity(weights[0]).astype(np.float64)
    one = batch(settings, told([*seen, other]), bias=bias)
    nothing = np.zeros((30, 0), dtype=np.float32)

    def lost(item, own):
        row = torch.from_numpy(scores(settings, weights, histories=told(own), attributes=nothing)[0]).double()
        rest = row[[i for i in range(30) if i != other and i not in seen]]
        if family == "mf-bpr":
            return -functional.logsigmoid(row[item] - rest).mean()
        return -functional.log_softmax(torch.cat([row[item][None], rest]), dim=0)[0]

    wanted = lost(other, seen) + sum(lost(item, [other]) for item in seen)
    assert loaded(settings, weights[1:])(one).item() == pytest.approx(float(wanted) / 5, rel=1e-4)


def test_popularity_below_zero_or_without_a_number_has_a_logarithm():
    found = log_popularity(np.array([0.5, 0.25, -0.1, 0.0, np.nan, 0.25], dtype=np.float32))
    assert np.isfinite(found).all()
    assert np.exp(found.astype(np.float64)).sum() == pytest.approx(1, rel=1e-5)
    assert found[0] > found[1] == found[5] > found[2] == found[3] == found[4]
    assert log_popularity(np.full(4, -1.0, dtype=np.float32)).tolist() == pytest.approx([math.log(0.25)] * 4)


def test_too_few_weights_are_refused():
    settings = recommender("two-tower")
    with pytest.raises(ValueError, match="zip"):
        scores(settings, weights_of(settings)[:-1], histories=told([1]), attributes=np.zeros((30, 0), np.float32))


# --- learning --------------------------------------------------------------------------------------------------


def world(customers=400, items=120, blocks=6, seed=0):
    """Customers who mostly buy from one block of the catalogue; popular items are in every block."""
    draw = np.random.default_rng(seed)
    block = draw.integers(0, blocks, items)
    popular = draw.permutation(1 / np.arange(1, items + 1) ** 0.7)
    chances = [popular * np.where(block == draw.integers(blocks), 8, 1.0) for _ in range(customers)]
    return told(*(draw.choice(items, draw.integers(4, 20), replace=False, p=p / p.sum()) for p in chances)), block


def hits(found, seen, wanted, k=10):
    """Return the share of customers whose last item is among the first k of all that they do not have."""
    found = found.copy()
    for row in range(len(seen)):
        found[row, seen.items[seen.starts[row] : seen.starts[row + 1]]] = -np.inf
    before = ~(found <= found[np.arange(len(seen)), wanted][:, None])  # what is no number stands before all
    return float((before.sum(axis=1) < k).mean())


def trained(settings, histories, popularity, *, attributes, rate, steps):
    module, bias = loaded(settings, initial(settings, 1)), log_popularity(popularity)
    optimizer = torch.optim.SGD(module.parameters(), lr=rate)
    for step in range(steps):
        optimizer.zero_grad()
        module(batch(settings, histories, step, bias, attributes)).mean().backward()
        optimizer.step()
    return (popularity, *(p.detach().numpy().astype(np.float32) for p in module.parameters()))


@pytest.mark.parametrize(
    ("family", "rate", "steps"),
    [("two-tower", 3.0, 100), ("mf-bpr", 16.0, 50), ("mf-softmax", 8.0, 50), ("neumf", 8.0, 50)],
)
def test_every_family_learns_what_popularity_does_not_say(family, rate, steps):
    everything, block = world()
    seen, wanted = everything.without_last()
    attributes = np.eye(6, dtype=np.float32)[block] if family == "two-tower" else np.zeros((120, 0), np.float32)
    settings = Recommender(
        family=family, items=120, dimension=8, negatives=40, longest=20, attributes=attributes.shape[1]
    )
    each = np.repeat(1 / np.sqrt(seen.lengths), seen.lengths)
    popularity = (np.bincount(seen.items, weights=each, minlength=120) / len(seen)).astype(np.float32)
    floor = hits(np.tile(log_popularity(popularity), (len(seen), 1)), seen, wanted)
    weights = trained(settings, seen, popularity, attributes=attributes, rate=rate, steps=steps)
    reached = hits(scores(settings, weights, histories=seen, attributes=attributes), seen, wanted)
    assert reached > floor + 0.04
    shuffled = dataclasses.replace(seen, items=np.random.default_rng(1).permutation(seen.items))
    without = hits(scores(settings, weights, histories=shuffled, attributes=attributes), seen, wanted)
    assert without < floor + 0.03  # what is gained is the customer's own history, not a better popularity
