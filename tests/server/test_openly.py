"""Recommenders from proposal to last sum, under both trusts: what is opened, tried anew, resumed and charged.

Sums are compared with plain numpy over all partners' training customers, with the noise left out. What is right with
noise is held against the event in the partners' own tests.
"""

import contextlib
import dataclasses
import shutil

import numpy as np
import pytest
import torch

from coterie.clients import parts
from coterie.clients.task import initial_weights, recommender_of
from coterie.models.recommenders import towers
from coterie.models.recommenders.draws import halves, negatives
from coterie.models.recommenders.towerscores import log_popularity
from coterie.privacy.calibration import calibrate
from coterie.privacy.plan import SECURE
from coterie.privacy.sums import numbers_of
from coterie.privacy.training.baskets import Baskets, Public
from coterie.server import summed
from coterie.server.registry import Registry
from coterie.server.rounds import StudyAborted
from coterie.tests.clients.federation import Clients, altered, changed
from coterie.tests.clients.recommending import (
    ATTRIBUTES,
    FAMILIES,
    ITEMS,
    TRUSTS,
    Recommending,
    histories,
    one_of_each,
    recommends,
    tables,
    without_noise,
)
from coterie.tests.clients.summing import FOUR, SilentGrid, quick_folder

# At rate 1 nobody is left out of a step, so that the oracle needs no partner's secret.
PLANS = {
    (name, trust): recommends(name, trust, training__sample_rate=1.0, privacy__epsilon=8.0)
    for name in FAMILIES
    for trust in TRUSTS
}
SPARE = {trust: changed(PLANS["item-gram", trust], training__spare=1) for trust in TRUSTS}
CUSTOMERS = 20


@pytest.fixture(scope="module")
def made():
    with quick_folder() as folder:
        rows, found = tables(CUSTOMERS), {}

        def begun(plan):
            if plan not in found:
                found[plan] = Recommending(folder / f"study-{len(found)}", plan, rows).consent()
            return found[plan]

        yield begun


@pytest.fixture
def begin(made):
    copies = []

    def copy(plan):
        template = made(plan)
        copies.append(template.copied(template.root.with_name(f"copy-{len(copies)}")))
        return copies[-1]

    yield copy
    for one in copies:
        shutil.rmtree(one.root)


@contextlib.contextmanager
def opened_sums():
    """Collect (step, weights before it, sum, survivors) of every sum that is opened."""
    found, real = [], summed.stepped

    def stepped(plan, state, step, opened, **more):
        found.append((step, state.weights, opened.total, opened.survivors))
        return real(plan, state, step, opened, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summed, "stepped", stepped)
        yield found


def training(federation, names=FOUR):
    return [items for name in names for items in federation.lists(name, CUSTOMERS)[0]]


def charges(federation, name="amber"):
    return sorted((r.charge.step, r.charge.attempt) for r in federation.reservations(name))


# --- oracles: one customer's part in a sum ------------------------------------------------------------------------


def triangle(matrix):
    rows, columns = np.triu_indices(len(matrix))
    return matrix[rows, columns] * np.where(rows == columns, 1, np.sqrt(2))


def gram_part(plan, weights, items):
    popularity = weights[0].astype(float)
    kept = sorted(range(ITEMS), key=lambda item: (-popularity[item], item))[:12]
    share = np.maximum(popularity / popularity.max(), 0.01)
    row = np.array([share[item] ** -plan.recommendation.exponent if item in items else 0.0 for item in kept])
    return triangle(np.outer(row, row)) / (row @ row) if row.any() else triangle(np.zeros((12, 12)))


def ials_part(plan, weights, items):
    popularity, factors = weights[0].astype(float), weights[1].astype(float)
    kept = sorted(range(ITEMS), key=lambda item: (-popularity[item], item))[:12]
    own = [place for place, item in enumerate(kept) if item in items]
    size = plan.recommendation.dimension
    left = factors[own].T @ factors[own] + factors.T @ factors + 0.02 * (len(own) + 12) * np.eye(size)
    u = np.linalg.solve(left, factors[own].sum(axis=0))
    squares, vectors = np.zeros((12, size * (size + 1) // 2)), np.zeros((12, size))
    squares[own], vectors[own] = 0.5 * triangle(np.outer(u, u)), u
    part = np.concatenate([squares.ravel(), vectors.ravel(), 0.3 * triangle(np.outer(u, u))])
    return part / np.linalg.norm(part) if own else np.zeros_like(part)


def gradient_part(plan, weights, items, step):
    """By autograd, for the customer alone."""
    settings = recommender_of(plan)
    module = towers.build(settings).double()
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), weights[1:], strict=True):
            parameter.copy_(torch.from_numpy(value))
    number = int(step.partition("/")[2])
    public = Public(
        negatives=negatives(settings, number),
        halves=halves(settings, number),
        attributes=ATTRIBUTES,
        bias=log_popularity(weights[0]),
    )
    one = histories([items])
    basket = Baskets(one.starts, one.items, public=public, longest=settings.longest)
    few = basket.few(np.array([0]), room=int(basket.room[0]), size=1)
    found = torch.autograd.grad(module(few).sum(), tuple(module.parameters()))
    flat = torch.cat([one_.flatten() for one_ in found]).numpy()
    return flat * min(1.0, plan.training.clip / max(np.linalg.norm(flat), 1e-300))


def expected(plan, step, weights, lists):
    if step.startswith("count/") or plan.model.family == "popularity":
        return one_of_each(lists)
    if plan.model.family == "item-gram":
        return sum(gram_part(plan, weights, items) for items in lists)
    if plan.model.family == "ials":
        return sum(ials_part(plan, weights, items) for items in lists)
    return sum(gradient_part(plan, weights, items, step) for items in lists)


def smooth(plan, step, mean, partners=4):
    """What is published of a mean: made positive by the public size of its noise, in the order that it had."""
    numbers = numbers_of(plan, step)
    noise = np.sqrt(partners) * numbers.share / numbers.sensitivity / (60 * partners)
    return (mean + np.sqrt(mean**2 + 4 * noise**2)) / 2


# --- sums ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trust", TRUSTS)
@pytest.mark.parametrize("name", FAMILIES)
def test_with_noise_replaced_by_zeros_every_opened_sum_is_the_plain_one(begin, monkeypatch, name, trust):
    federation = begin(PLANS[name, trust])
    plan, lists = federation.plan, training(federation)
    without_noise(monkeypatch)
    with opened_sums() as sums:
        progress = federation.run()
    counted = [] if name == "popularity" else ["count/1"]
    assert [step for step, *_ in sums] == [*counted, *["train/1", "train/2"][: 1 if name in FAMILIES[:2] else 2]]
    for step, weights, total, survivors in sums:
        units = numbers_of(plan, step).sensitivity / (plan.training.clip if name == "mf-bpr" else 1)
        plain = expected(plan, step, weights, lists)
        assert tuple(survivors) == FOUR
        assert np.abs(plain).max() > 0.05
        np.testing.assert_allclose(total / units, plain, atol=1e-4 * len(lists))
    popularity = smooth(plan, sums[0][0], one_of_each(lists) / 240)
    np.testing.assert_allclose(progress.weights[0], popularity, rtol=1e-3)
    assert progress.refusals == ()
    for partner in FOUR:
        rounds = plan.training.rounds
        assert charges(federation, partner) == sorted(
            (step, 1) for step in [*(s for s, *_ in sums), f"evaluate/{rounds}"]
        )


@pytest.mark.parametrize("trust", TRUSTS)
def test_with_noise_replaced_by_zeros_the_histograms_count_every_held_out_customer_once(begin, monkeypatch, trust):
    federation = begin(PLANS["item-gram", trust])
    without_noise(monkeypatch)
    progress = federation.run()
    held_out = {name: len(federation.lists(name, CUSTOMERS)[1]) for name in FOUR}
    found = {whose: int(counts.sum()) for whose, counts in progress.histograms[1].items()}
    assert found == (held_out if trust == "local" else {"all partners": sum(held_out.values())})
    assert sum(held_out.values()) > 8


@pytest.mark.parametrize("trust", TRUSTS)
def test_the_popularity_of_a_trained_family_stays_what_was_counted(begin, trust):
    federation = begin(PLANS["mf-bpr", trust])
    with opened_sums() as sums:
        progress = federation.run()
    seen = {step: weights for step, weights, *_ in sums}
    assert not seen["count/1"][0].any()
    assert np.array_equal(seen["train/1"][0], seen["train/2"][0])
    assert np.array_equal(progress.weights[0], seen["train/1"][0])
    assert all(
        np.array_equal(a, b) for a, b in zip(seen["train/1"][1:], initial_weights(federation.plan)[1:], strict=True)
    )
    assert not np.array_equal(seen["train/1"][1], seen["train/2"][1])


# --- who is missing, and what goes wrong --------------------------------------------------------------------------


@pytest.mark.parametrize("trust", TRUSTS)
def test_who_is_missing_is_in_neither_the_sum_nor_the_size_that_it_is_divided_by(begin, monkeypatch, trust):
    federation = begin(PLANS["popularity", trust])
    without_noise(monkeypatch)
    with opened_sums() as sums:
        progress = federation.run(SilentGrid(federation, {("cedar", "train", 1)}))
    others = tuple(name for name in FOUR if name != "cedar")
    assert sums[0][-1] == others
    mean = one_of_each(training(federation, others)) / 180
    np.testing.assert_allclose(progress.weights[0], smooth(federation.plan, "train/1", mean, 3), rtol=1e-3)


@pytest.mark.parametrize("trust", TRUSTS)
def test_with_too_few_partners_the_count_is_not_opened_and_nothing_is_published_of_it(begin, trust):
    federation = begin(PLANS["item-gram", trust])
    with pytest.raises(StudyAborted, match="count/1"):
        federation.run(SilentGrid(federation, {(name, "train", 1) for name in FOUR[:2]}))
    kept = Registry(federation.root / "coordinator").resume(federation.digest)
    assert (kept.round, kept.step) == (0, 0)
    assert not kept.weights[0].any()
    assert {(r.partner, r.code) for r in kept.refusals} == {(name, "silent") for name in FOUR[:2]}


def breaking(patch, error):
    """Let the first sum that is worked on fail after it was charged."""
    broken, real = [error], parts.recommender_total

    def total(*args, **more):
        if broken:
            raise broken.pop()
        return real(*args, **more)

    patch.setattr(parts, "recommender_total", total)


def test_a_partner_whose_count_was_lost_is_asked_for_its_spare_attempt(begin, monkeypatch):
    federation = begin(SPARE["local"])
    breaking(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        federation.answer("count/1")
    progress = federation.run()
    assert [r.code for r in progress.refusals] == ["lost"]
    assert {r.partner: r.attempt for r in progress.receipts if r.step == "count/1"} == dict.fromkeys(FOUR, 1) | {
        "amber": 2
    }
    assert charges(federation) == [("count/1", 1), ("count/1", 2), ("evaluate/1", 1), ("train/1", 1)]


def test_a_partner_that_fails_in_its_count_is_left_out_of_it_and_adds_to_what_follows(begin, monkeypatch):
    federation = begin(PLANS["item-gram", "local"])
    breaking(monkeypatch, MemoryError())
    progress = federation.run()
    assert [r.code for r in progress.refusals] == ["fault"]
    assert [r.partner for r in progress.receipts if r.step == "count/1"] == list(FOUR[1:])
    assert [r.partner for r in progress.receipts if r.step == "train/1"] == list(FOUR)


class Crash(Exception):
    """The coordinator's process is gone."""


@pytest.mark.parametrize("when", ["before the count is published", "after the count is published"])
@pytest.mark.parametrize("trust", TRUSTS)
def test_a_study_that_stopped_between_count_and_training_goes_on_without_a_second_charge(begin, trust, when):
    federation, real = begin(PLANS["item-gram", trust]), Registry.publish

    def publish(self, progress):
        if progress.step != 1:
            return real(self, progress)
        if when.startswith("after"):
            real(self, progress)
        raise Crash

    with pytest.MonkeyPatch.context() as patch, opened_sums() as first:
        patch.setattr(Registry, "publish", publish)
        with pytest.raises(Crash):
            federation.run()
    with opened_sums() as rest:
        progress = federation.run()
    assert [step for step, *_ in first] == ["count/1"]
    assert [step for step, *_ in rest] == [*(["count/1"] if when.startswith("before") else []), "train/1"]
    if when.startswith("before"):
        assert np.array_equal(rest[0][2], first[0][2])  # the same answers to the same questions
    counted = first[0][2] / (numbers_of(federation.plan, "count/1").sensitivity * 240)
    np.testing.assert_allclose(progress.weights[0], smooth(federation.plan, "count/1", counted), rtol=1e-5)
    for name in FOUR:
        assert charges(federation, name) == [("count/1", 1), ("evaluate/1", 1), ("train/1", 1)]
    assert len(progress.receipts) == 4 * 3


def test_a_secure_sum_that_failed_is_counted_anew_in_a_new_epoch(begin):
    federation = begin(SPARE[SECURE])
    lost = {(name, "query.sign", 1) for name in ("birch", "damson")}
    progress = federation.run(SilentGrid(federation, lost))
    assert [r.attempt for r in progress.receipts if r.step == "count/1"] == [2] * 4
    assert charges(federation) == [("count/1", 1), ("count/1", 2), ("evaluate/1", 1), ("train/1", 1)]
    assert progress.epoch == 4


def wrong_size(message):
    return swapped(message, lambda array: array[:-1])


def swapped(message, change):
    """A message with its array in another's place."""
    from coterie.clients.wire import decode_release, encode_release

    made = calibrate(PLANS["item-gram", "local"])
    release = decode_release(message.content, update=made.update, histogram=made.histogram)
    return encode_release(dataclasses.replace(release, arrays=tuple(change(array) for array in release.arrays)))


BAD = {
    "another size": wrong_size,
    "numbers on the line": lambda message: swapped(message, lambda array: array.astype(np.float64)),
    "two rows": lambda message: swapped(message, lambda array: np.stack([array, array])),
}


@pytest.mark.parametrize("name", BAD)
def test_a_sum_that_is_none_of_the_plan_is_rejected_and_the_others_are_taken(begin, name):
    federation = begin(PLANS["item-gram", "local"])
    app = Clients(federation.app(), birch=altered(federation.app(), BAD[name]))
    with opened_sums() as sums:
        progress = federation.run(federation.grid(app))
    assert all(survivors == ("amber", "cedar", "damson") for *_, survivors in sums)
    assert {(r.partner, r.code) for r in progress.refusals} == {("birch", "rejected")}
    assert "birch" not in {r.partner for r in progress.receipts if not r.step.startswith("evaluate")}
