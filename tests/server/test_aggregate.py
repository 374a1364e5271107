"""Aggregation: what is not the plan's is not added, and the sums are those of the papers."""

import dataclasses
import fractions
import itertools
import math

import numpy as np
import pytest

from coterie.privacy.events import DiscreteGaussian, PoissonGaussian
from coterie.privacy.release import ModelUpdate, ScoreHistogram
from coterie.server.aggregate import (
    AdamState,
    Expected,
    ReplyRefused,
    check_reply,
    fedadam,
    fedavg,
    weighted_mean,
)

EXPECTED = Expected("amber", "sha256:aa", "train/3", 2, "sha256:bb", ((2, 3), (1,)), "float32")
UPDATE = ModelUpdate(
    "sha256:aa",
    "amber",
    "train/3",
    2,
    "sha256:bb",
    PoissonGaussian(1.0, 0.1, 1),
    (np.ones((2, 3), np.float32), np.zeros(1, np.float32)),
)
DRAW = np.random.default_rng(8)


def arrays(*shapes, dtype=np.float32):
    return tuple(DRAW.normal(size=shape).astype(dtype) for shape in shapes)


def holding(value):
    update = arrays((2, 3), (1,))
    update[0][1, 2] = value
    return update


REFUSED = {
    "another plan": {"plan": "sha256:ab"},
    "another partner": {"partner": "birch"},
    "another step": {"step": "train/4"},
    "another kind of step": {"step": "evaluate/3"},
    "an earlier attempt": {"attempt": 1},
    "a later attempt": {"attempt": 3},
    "another model": {"model": "sha256:bc"},
    "NaN": {"arrays": holding(np.nan)},
    "infinity": {"arrays": holding(np.inf)},
    "minus infinity": {"arrays": holding(-np.inf)},
    "another shape": {"arrays": arrays((3, 2), (1,))},
    "a dimension more": {"arrays": arrays((2, 3), (1, 1))},
    "an array more": {"arrays": arrays((2, 3), (1,), (1,))},
    "an array less": {"arrays": arrays((2, 3))},
    "none": {"arrays": ()},
    "doubles": {"arrays": arrays((2, 3), (1,), dtype=np.float64)},
    "whole numbers": {"arrays": arrays((2, 3), (1,), dtype=np.int64)},
}


def test_the_reply_that_was_asked_for_is_taken():
    check_reply(UPDATE, EXPECTED, set())
    check_reply(UPDATE, EXPECTED, {"birch", "cedar"})


@pytest.mark.parametrize("name", REFUSED)
def test_a_reply_to_something_else_is_refused_by_the_partners_name(name):
    with pytest.raises(ReplyRefused) as caught:
        check_reply(dataclasses.replace(UPDATE, **REFUSED[name]), EXPECTED, set())
    (fault,) = caught.value.faults
    assert fault.place == "partner amber"


def test_a_second_reply_is_refused():
    with pytest.raises(ReplyRefused, match="partner amber: answered twice"):
        check_reply(UPDATE, EXPECTED, {"amber"})


def test_a_histogram_is_held_against_its_own_shape_and_type():
    expected = dataclasses.replace(EXPECTED, shapes=((2, 8),), dtype="int64")
    counts = ScoreHistogram(
        "sha256:aa", "amber", "train/3", 2, "sha256:bb", DiscreteGaussian(1.0, 1), (np.full((2, 8), -3),)
    )
    check_reply(counts, expected, set())
    for wrong in (np.zeros((2, 7), np.int64), np.zeros((8, 2), np.int64), np.zeros((2, 8)), np.zeros(16, np.int64)):
        with pytest.raises(ReplyRefused):
            check_reply(dataclasses.replace(counts, arrays=(wrong,)), expected, set())


# --- the mean -----------------------------------------------------------------------------------------------


def exact_mean(updates, weights):
    """In fractions, one number at a time."""
    whole = sum(fractions.Fraction(weights[name]) for name in updates)
    names = list(updates)
    result = []
    for place, array in enumerate(updates[names[0]]):
        mean = np.empty(array.shape)
        for index in np.ndindex(array.shape):
            summed = sum(
                fractions.Fraction(weights[n]) * fractions.Fraction(float(updates[n][place][index])) for n in names
            )
            mean[index] = float(summed / whole)
        result.append(mean)
    return result


def test_the_mean_is_weighted_by_the_sizes_that_were_declared():
    updates = {name: arrays((2, 3), (1,)) for name in ("amber", "birch", "cedar")}
    weights = {"amber": 120.0, "birch": 1000.0, "cedar": 7.0, "not there": 1e9}
    for got, expected in zip(weighted_mean(updates, weights), exact_mean(updates, weights), strict=True):
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, expected, rtol=1e-14)


def test_equal_sizes_give_the_plain_mean():
    updates = {name: arrays((4,)) for name in ("a", "b")}
    (got,) = weighted_mean(updates, {"a": 5.0, "b": 5.0})
    np.testing.assert_allclose(got, np.mean([updates["a"][0], updates["b"][0]], axis=0, dtype=np.float64), rtol=1e-15)


def test_one_partner_alone_is_its_own_mean():
    update = arrays((2, 3), (1,))
    for got, expected in zip(weighted_mean({"a": update}, {"a": 3.0}), update, strict=True):
        assert np.array_equal(got, expected.astype(np.float64))


def test_the_order_of_arrival_does_not_change_a_bit():
    updates = {name: arrays((50,)) for name in "abcde"}
    weights = {name: float(size) for size, name in enumerate("abcde", start=3)}
    means = {
        weighted_mean({name: updates[name] for name in order}, weights)[0].tobytes()
        for order in itertools.permutations("abcde")
    }
    assert len(means) == 1


# --- the step -----------------------------------------------------------------------------------------------


def test_fedavg_adds_the_mean_update():
    weights = arrays((2, 3), (1,))
    mean = tuple(array.astype(np.float64) for array in arrays((2, 3), (1,)))
    for rate in (1.0, 0.3):
        for got, w, m in zip(fedavg(weights, mean, rate), weights, mean, strict=True):
            expected = np.array([float(a) + rate * float(b) for a, b in zip(w.flat, m.flat, strict=True)])
            assert got.dtype == np.float32
            np.testing.assert_array_equal(got, expected.reshape(w.shape).astype(np.float32))


def reference_fedadam(weight, deltas, rate):
    """Algorithm 2 of arXiv 2003.00295, one number, as printed there (m and v start at 0 here)."""
    x, m, v = float(weight), 0.0, 0.0
    for delta in deltas:
        m = 0.9 * m + 0.1 * delta
        v = 0.99 * v + 0.01 * delta * delta
        x = float(np.float32(x + rate * m / (math.sqrt(v) + 1e-3)))
    return x


def test_fedadam_takes_the_steps_of_the_paper():
    weights = arrays((2, 3), (1,))
    rounds = [tuple(a.astype(np.float64) for a in arrays((2, 3), (1,))) for _ in range(7)]
    moved, state = weights, AdamState.start(weights)
    for mean in rounds:
        moved, state = fedadam(moved, mean, state, 0.05)
    for place, array in enumerate(weights):
        for index in np.ndindex(array.shape):
            expected = reference_fedadam(array[index], [float(mean[place][index]) for mean in rounds], 0.05)
            assert moved[place][index] == pytest.approx(expected, rel=1e-5)


def test_fedadam_starts_from_moments_of_zero_and_changes_no_argument():
    weights = arrays((3,))
    state = AdamState.start(weights)
    before = weights[0].tobytes()
    mean = (np.ones(3),)
    fedadam(weights, mean, state, 1.0)
    assert weights[0].tobytes() == before
    assert not state.first[0].any()
    assert not state.second[0].any()
