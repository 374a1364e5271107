"""Propensity families against arithmetic written out in numpy."""

import numpy as np
import pytest

from coterie.models.propensity import build, initial, logits, shapes

FAMILIES = ["logistic", "mlp"]


def weights(family, inputs, hidden, seed=3):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes(family, inputs, hidden))


def test_logistic_log_odds_are_a_weighted_sum():
    features = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    w, b = weights("logistic", 4, 1)
    expected = features.astype(float) @ w[0].astype(float) + b[0]
    np.testing.assert_allclose(logits("logistic", 1, (w, b), features), expected, atol=1e-5)


def test_mlp_log_odds_pass_through_one_layer_of_tanh():
    features = np.random.default_rng(1).normal(size=(7, 4)).astype(np.float32)
    w1, b1, w2, b2 = weights("mlp", 4, 5)
    expected = np.tanh(features.astype(float) @ w1.T + b1) @ w2[0] + b2[0]
    found = logits("mlp", 5, (w1, b1, w2, b2), features)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.shape == (7,)
    assert found.dtype == np.float64


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_are_those_of_the_module(family):
    assert shapes(family, 6, 3) == tuple(tuple(p.shape) for p in build(family, 6, 3).parameters())
    assert tuple(w.shape for w in initial(family, 6, 3, seed=0)) == shapes(family, 6, 3)


def test_a_logistic_model_starts_at_even_odds():
    features = np.random.default_rng(2).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(logits("logistic", 1, initial("logistic", 4, 1, seed=0), features), np.zeros(5))


def test_an_mlp_starts_within_glorot_s_bounds_and_breaks_symmetry():
    w1, b1, w2, b2 = initial("mlp", 30, 20, seed=0)
    assert 0.9 * np.sqrt(6 / 50) < np.abs(w1).max() <= np.sqrt(6 / 50)
    assert 0.7 * np.sqrt(6 / 21) < np.abs(w2).max() <= np.sqrt(6 / 21)
    assert len(np.unique(w1)) == w1.size
    assert not b1.any()
    assert not b2.any()
    assert abs(w1.mean()) < 0.05


@pytest.mark.parametrize("family", FAMILIES)
def test_starting_weights_are_the_same_everywhere(family):
    one, other = (initial(family, 8, 4, seed=11) for _ in range(2))
    assert [w.tobytes() for w in one] == [w.tobytes() for w in other]
    assert {w.dtype for w in one} == {np.dtype(np.float32)}


def test_starting_weights_of_an_mlp_depend_on_the_seed():
    one, other = initial("mlp", 8, 4, seed=1), initial("mlp", 8, 4, seed=2)
    assert (one[0] != other[0]).all()


def test_weights_are_not_changed_by_scoring():
    given = weights("mlp", 4, 5)
    kept = [w.copy() for w in given]
    features = np.ones((2, 4), np.float32)
    assert (logits("mlp", 5, given, features) == logits("mlp", 5, given, features)).all()
    for now, before in zip(given, kept, strict=True):
        np.testing.assert_array_equal(now, before)
    assert (features == 1).all()


def test_a_family_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="logistic, mlp"):
        build("forest", 3, 2)


def test_weights_of_another_family_are_refused():
    with pytest.raises(ValueError, match="zip"):
        logits("mlp", 5, weights("logistic", 4, 1), np.ones((1, 4), np.float32))
