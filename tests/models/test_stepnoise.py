"""The noise of steps, carried through them: against the very steps that the server takes."""

import dataclasses

import numpy as np
import pytest

from coterie.models.additive import curvature
from coterie.models.binning import BinnedColumn, Binning, layout_of
from coterie.models.stepnoise import Learning, information, noise_variance
from coterie.server.optimizers import OptimizerSettings, OptimizerState, advance, published

LAYOUT = layout_of(
    Binning((BinnedColumn("region", words=("north", "south", "east")),), most=4),
    np.array([0.6, 0.3, 0.1, -0.01], np.float32),
)
CURVED = np.array([0.2, 0.15, 0.1, 0.05])
LEARNING = Learning(
    kind="newton",
    steps=12,
    learning_rate=0.3,
    momentum=0.8,
    averaging=0.9,
    noise=0.002,
    customers=5000,
    ridge=0.0004,
    damping=0.004,
)


def by_impulses(learning):
    """Square what one unit of noise in each step leaves at the end, step by step, by the server's own arithmetic."""
    settings = OptimizerSettings(
        kind=learning.kind,
        learning_rate=learning.learning_rate,
        momentum=learning.momentum,
        averaging=learning.averaging,
    )
    scale = np.ones(4)
    if learning.kind == "newton":
        scale = curvature(LAYOUT, ridge=learning.ridge, damping=learning.damping)[0][0]
    height = np.maximum(LAYOUT.share, 0) * CURVED + learning.ridge
    whole = np.zeros(4)
    for struck in range(learning.steps):
        state = OptimizerState.start((np.zeros(4, np.float32),))
        for step in range(learning.steps):
            gradient = height * state.weights[0].astype(float) + (learning.noise if step == struck else 0.0)
            state = advance(settings, state, [gradient / scale])
        whole += published(settings, state)[0].astype(float) ** 2
    return whole


@pytest.mark.parametrize("kind", ["newton", "sgd"])
@pytest.mark.parametrize(("momentum", "averaging"), [(0.8, 0.9), (0.0, 0.9), (0.8, 0.0), (0.0, 0.0)])
def test_the_variance_is_that_of_all_steps_noises_together(kind, momentum, averaging):
    learning = dataclasses.replace(LEARNING, kind=kind, momentum=momentum, averaging=averaging)
    np.testing.assert_allclose(noise_variance(LAYOUT, CURVED, learning), by_impulses(learning), rtol=1e-4)


def test_one_plain_step_leaves_its_own_noise_times_the_step():
    learning = dataclasses.replace(LEARNING, kind="sgd", steps=1, momentum=0.0, averaging=0.0)
    np.testing.assert_allclose(noise_variance(LAYOUT, CURVED, learning), (0.3 * 0.002) ** 2, rtol=1e-12)


def test_nothing_is_said_of_steps_that_are_not_linear():
    assert noise_variance(LAYOUT, CURVED, dataclasses.replace(LEARNING, kind="adam")) is None


def test_a_slot_with_more_customers_has_less_noise():
    variance = noise_variance(LAYOUT, np.full(4, 0.2), LEARNING)
    assert (np.diff(variance) > 0).all()


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_information_is_the_slope_of_the_mean_clipped_residual(weight):
    learning = dataclasses.replace(LEARNING, residual=0.7, positive_weight=weight)
    middle, spread = np.array([-1.2, 0.4]), np.array([0.9, 0.5])
    draws = np.random.default_rng(5).standard_normal(400_000)

    def mean_residual(shift):
        """Rows whose chance is fixed, judged by a model that is moved by a little; weighted positives shift it."""
        odds = middle[:, None] + spread[:, None] * draws
        true = 1 / (1 + np.exp(-(odds - np.log(weight))))
        told = 1 / (1 + np.exp(-(odds + shift)))
        up, down = np.clip(weight * (told - 1), -0.7, 0.7), np.clip(told, -0.7, 0.7)
        return (true * up + (1 - true) * down).mean(axis=1)

    slope = (mean_residual(0.05) - mean_residual(-0.05)) / 0.1
    np.testing.assert_allclose(information(middle, spread, learning)[0], slope, rtol=0.04)


def test_without_a_clip_and_a_spread_information_is_that_of_the_chance_alone():
    middle = np.array([-2.0, 0.0, 1.0])
    chance = 1 / (1 + np.exp(-middle))
    for found in information(middle, np.zeros(3), LEARNING):
        np.testing.assert_allclose(found, chance * (1 - chance), rtol=1e-12)
