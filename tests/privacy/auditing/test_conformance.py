"""Each check passes what is right and fails what is wrong, at a false-alarm rate that can be believed."""

import numpy as np
import pytest

from coterie.privacy.auditing import conformance
from coterie.privacy.auditing.conformance import FALSE_ALARM

SIZE = 160_000


@pytest.fixture
def rng():
    return np.random.default_rng(11)


# --- noise ----------------------------------------------------------------------------------------------


def test_noise_of_the_claimed_scale_passes(rng):
    found = conformance.noise_scale(0.3 * rng.normal(size=SIZE), 0.3)
    assert found.passed
    assert found.measured == pytest.approx(0.3, rel=0.01)
    assert found.expected == 0.3


@pytest.mark.parametrize("factor", [0.0, 0.5, 1 / np.sqrt(2), 0.98, 1.02, 2.0])
def test_noise_of_another_scale_fails(rng, factor):
    assert not conformance.noise_scale(factor * 0.3 * rng.normal(size=SIZE), 0.3).passed


def test_p_values_of_right_noise_are_uniform(rng):
    found = np.sort([conformance.noise_scale(rng.normal(size=500), 1.0).p_value for _ in range(400)])
    assert np.abs(found - np.linspace(0, 1, 400)).max() < 0.1


def test_normal_noise_has_the_right_shape_and_uniform_noise_has_not(rng):
    assert conformance.noise_shape(2 * rng.normal(size=SIZE), 2.0).passed
    assert not conformance.noise_shape(2 * np.sqrt(12) * (rng.random(SIZE) - 0.5), 2.0).passed


def test_independent_draws_pass(rng):
    assert conformance.independence(rng.normal(size=(5, 4000)), name="draws").passed


@pytest.mark.parametrize("sign", [1, -1])
def test_a_draw_that_comes_again_fails_whatever_its_sign(rng, sign):
    draws = rng.normal(size=(4, 4000))
    draws[3] = sign * 0.5 * draws[1] + 0.1 * draws[3]
    found = conformance.independence(draws, name="draws")
    assert not found.passed
    assert found.measured > 0.9


@pytest.mark.parametrize("sign", [1, -1])
def test_a_draw_that_comes_again_in_part_fails(rng, sign):
    draws = rng.normal(size=(3, 4000))
    draws[2] += sign * 0.2 * draws[0]
    assert not conformance.independence(draws, name="draws").passed


def test_draws_of_shared_size_alone_fail(rng):
    size = np.abs(rng.normal(size=4000))
    assert not conformance.independence(size * rng.choice([-1, 1], (2, 4000)), name="draws").passed


def test_constant_draws_fail():
    with np.errstate(all="ignore"):
        assert not conformance.independence(np.zeros((2, 100)), name="draws").passed


# --- one customer ---------------------------------------------------------------------------------------


def test_moves_up_to_the_clip_pass():
    assert conformance.sensitivity(np.array([0.1, 0.5, 0.5 + 1e-7]), 0.5).passed


@pytest.mark.parametrize("most", [1.0, 0.501, 0.4])
def test_moves_beyond_the_clip_fail_and_so_does_a_clip_that_nobody_meets(most):
    assert not conformance.sensitivity(np.array([0.1, most]), 0.5).passed


def test_clipped_gradients_match_and_others_do_not(rng):
    gradients = rng.normal(size=(9, 5)) * np.arange(9)[:, None]
    norms = np.linalg.norm(gradients, axis=1, keepdims=True)
    clipped = gradients * np.minimum(1, 2.0 / np.maximum(norms, 1e-9))
    assert conformance.gradients_match(clipped, gradients, clip=2.0).passed
    assert not conformance.gradients_match(gradients, gradients, clip=2.0).passed
    assert not conformance.gradients_match(clipped[::-1], gradients, clip=2.0).passed
    assert not conformance.gradients_match(1.001 * clipped, gradients, clip=2.0).passed


def test_units_must_be_as_many_as_customers():
    assert conformance.one_unit_each(7, 7).passed
    assert not conformance.one_unit_each(9, 7).passed


# --- sampling -------------------------------------------------------------------------------------------


def test_coins_pass(rng):
    found = conformance.inclusion(rng.random((80, 300)) < 0.25, 0.25)
    assert found.passed
    assert found.measured == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("rate", [0.23, 0.27, 0.0, 1.0])
def test_another_rate_fails(rng, rate):
    assert not conformance.inclusion(rng.random((80, 300)) < rate, 0.25).passed


def test_batches_of_one_size_fail(rng):
    fixed = np.stack([rng.permutation(300) < 75 for _ in range(80)])
    assert fixed.mean() == 0.25
    assert not conformance.inclusion(fixed, 0.25).passed


def test_shuffled_epochs_fail(rng):
    epochs = [rng.permutation(300) // 75 == step for _ in range(20) for step in range(4)]
    assert not conformance.inclusion(np.stack(epochs), 0.25).passed


def test_some_customers_sampled_more_than_others_fail(rng):
    rates = np.where(np.arange(300) % 2, 0.15, 0.35)
    assert not conformance.inclusion(rng.random((80, 300)) < rates, 0.25).passed


def test_the_same_customers_every_time_fail(rng):
    assert not conformance.inclusion(np.tile(rng.random(300) < 0.25, (80, 1)), 0.25).passed


# --- alarms ---------------------------------------------------------------------------------------------


def test_a_correct_build_is_seldom_accused():
    # Five checks of noise and one of sampling are statistical.
    assert 6 * FALSE_ALARM < 1e-4


def test_p_values_of_right_draws_and_right_samples_are_not_too_small(rng):
    draws = [conformance.independence(rng.normal(size=(3, 300)), name="draws").p_value for _ in range(300)]
    samples = [conformance.inclusion(rng.random((40, 60)) < 0.3, 0.3).p_value for _ in range(300)]
    for values in (draws, samples):
        assert (np.array(values) < 0.05).mean() < 0.09
        assert min(values) > 1e-4


def test_failures_are_named(rng):
    good = conformance.one_unit_each(7, 7)
    bad = conformance.noise_scale(rng.normal(size=100), 5.0)
    assert conformance.failed([good, bad]) == ("scale of the noise",)
    assert bad.means
