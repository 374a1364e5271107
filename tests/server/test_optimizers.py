"""Server optimisers against torch's in float64, and averages against sums written out by hand."""

import dataclasses

import numpy as np
import pytest
import torch

from coterie.models.propensity import initial
from coterie.server.optimizers import OptimizerSettings, OptimizerState, advance, published

SHAPES = ((3, 4), (3,), (1, 3), (1,))
STEPS = 12


def settings(**changes):
    plain = {"kind": "sgd", "learning_rate": 0.3, "momentum": 0.0, "averaging": 0.0}
    return OptimizerSettings(**{**plain, **changes})


def start(seed=1):
    rng = np.random.default_rng(seed)
    return OptimizerState.start(tuple(rng.normal(size=shape).astype(np.float32) for shape in SHAPES))


def gradients(steps=STEPS, seed=2, scale=1.0):
    rng = np.random.default_rng(seed)
    return [tuple(scale * rng.normal(size=shape) for shape in SHAPES) for _ in range(steps)]


def run(chosen, state, found):
    """Return the states after each step, the start first."""
    states = [state]
    for gradient in found:
        states.append(advance(chosen, states[-1], gradient))
    return states


def by_torch(optimizer, state, found):
    """Return torch's weights after each step, rounded to float32 each time as ours are."""
    parameters = [torch.nn.Parameter(torch.from_numpy(w.copy()).double()) for w in state.weights]
    made, seen = optimizer(parameters), []
    for gradient in found:
        for parameter, g in zip(parameters, gradient, strict=True):
            parameter.grad = torch.from_numpy(g.copy())
        made.step()
        with torch.no_grad():
            for parameter in parameters:
                parameter.copy_(parameter.float())
        seen.append([parameter.detach().float().numpy().copy() for parameter in parameters])
    return seen


def close(weights, expected):
    # One bit of float32 at most: the two orders of float64 arithmetic may round apart.
    return all(np.allclose(w, e, rtol=2e-7, atol=2e-8) for w, e in zip(weights, expected, strict=True))


# --- steps ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("rate", [0.01, 1.5])
def test_momentum_is_torch_s(rate, momentum):
    chosen = settings(learning_rate=rate, momentum=momentum)
    states = run(chosen, start(), gradients())
    expected = by_torch(lambda p: torch.optim.SGD(p, lr=rate, momentum=momentum), start(), gradients())
    assert all(close(state.weights, e) for state, e in zip(states[1:], expected, strict=True))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_adam_is_torch_s(momentum, scale):
    chosen, found = settings(kind="adam", learning_rate=0.05, momentum=momentum), gradients(scale=scale)
    states = run(chosen, start(), found)
    expected = by_torch(lambda p: torch.optim.Adam(p, lr=0.05, betas=(momentum, 0.999), eps=1e-8), start(), found)
    assert all(close(state.weights, e) for state, e in zip(states[1:], expected, strict=True))


def test_the_comparison_sees_another_momentum_and_a_missing_correction():
    expected = by_torch(lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9), start(), gradients())
    assert not close(run(settings(momentum=0.89), start(), gradients())[-1].weights, expected[-1])
    adam = by_torch(lambda p: torch.optim.Adam(p, lr=0.05), start(), gradients())
    chosen = settings(kind="adam", learning_rate=0.05, momentum=0.9)
    late = dataclasses.replace(start(), step=10**6)  # as if the moments had been running for long
    assert not close(run(chosen, late, gradients())[-1].weights, adam[-1])


def test_plain_descent_by_hand():
    weights = (np.array([[1.0, -2.0]], np.float32), np.array([0.5], np.float32))
    gradient = (np.array([[0.5, 4.0]]), np.array([-1.0]))
    (one, two) = advance(settings(learning_rate=0.25), OptimizerState.start(weights), gradient).weights
    assert one.tolist() == [[0.875, -3.0]]
    assert two.tolist() == [0.75]


def test_the_first_step_of_adam_has_the_size_of_the_learning_rate():
    chosen = settings(kind="adam", learning_rate=0.125, momentum=0.9)
    state = OptimizerState.start((np.zeros(3, np.float32),))
    (moved,) = advance(chosen, state, (np.array([1e5, -1e-3, 0.0]),)).weights
    np.testing.assert_allclose(moved, [-0.125, 0.125, 0.0], rtol=2e-5)


def test_both_go_downhill():
    target = [np.full(shape, 0.7) for shape in SHAPES]
    for chosen in (settings(momentum=0.5), settings(kind="adam", momentum=0.9, learning_rate=0.1)):
        state = start()
        for _ in range(300):
            state = advance(chosen, state, [w - t for w, t in zip(state.weights, target, strict=True)])
        assert max(np.abs(w - 0.7).max() for w in state.weights) < 0.02


# --- averages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("averaging", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_what_is_published_is_the_weighted_mean_of_all_iterates(kind, averaging):
    chosen = settings(kind=kind, momentum=0.5, averaging=averaging)
    states = run(chosen, start(), gradients())
    for last in (1, 2, STEPS):
        shares = np.array([averaging ** (last - step) for step in range(1, last + 1)])
        for index, found in enumerate(published(chosen, states[last])):
            iterates = np.stack([state.weights[index].astype(np.float64) for state in states[1 : last + 1]])
            expected = np.tensordot(shares / shares.sum(), iterates, axes=1)
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
            assert found.dtype == np.float32


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_averaging_changes_what_is_published_and_not_where_the_next_step_starts(averaging):
    last = run(settings(momentum=0.5), start(), gradients())[-1]
    chosen = settings(momentum=0.5, averaging=averaging)
    state = run(chosen, start(), gradients())[-1]
    same = [(a == b).all() for a, b in zip(state.weights, last.weights, strict=True)]
    assert all(same)
    as_last = all((a == b).all() for a, b in zip(published(chosen, state), last.weights, strict=True))
    assert as_last == (averaging == 0)


def test_after_one_step_the_average_is_that_step_and_before_it_the_start():
    chosen = settings(averaging=0.95)
    before, after = run(chosen, start(), gradients(1))
    for state in (before, after):
        for found, expected in zip(published(chosen, state), state.weights, strict=True):
            np.testing.assert_allclose(found, expected, rtol=2e-7)


def test_an_average_of_noisy_steps_is_nearer_than_the_last():
    rng = np.random.default_rng(4)
    chosen = settings(learning_rate=0.5, averaging=0.98)
    state = OptimizerState.start((np.zeros(500, np.float32),))
    for _ in range(400):
        state = advance(chosen, state, (state.weights[0] - 1.0 + rng.normal(size=500),))
    (average,) = published(chosen, state)
    assert np.square(average - 1).mean() < 0.1 * np.square(state.weights[0] - 1).mean()


# --- states ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_step_is_a_function_and_leaves_its_arguments_alone(kind):
    chosen, state, (gradient,) = settings(kind=kind, momentum=0.9, averaging=0.5), start(), gradients(1)
    state = advance(chosen, state, gradient)
    kept = [a.copy() for a in (*state.weights, *state.first, *state.second, *state.average, *gradient)]
    one, two = advance(chosen, state, gradient), advance(chosen, state, gradient)
    for name in ("weights", "first", "second", "average"):
        pairs = zip(getattr(one, name), getattr(two, name), strict=True)
        assert all(a.tobytes() == b.tobytes() for a, b in pairs)
    now = (*state.weights, *state.first, *state.second, *state.average, *gradient)
    assert all((a == b).all() for a, b in zip(now, kept, strict=True))
    assert (state.step, one.step) == (1, 2)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_weights_are_float32_and_moments_float64(kind):
    (gradient,) = gradients(1)
    state = advance(settings(kind=kind), start(), [g.astype(np.float32) for g in gradient])
    assert {w.dtype for w in state.weights} == {np.dtype(np.float32)}
    assert {a.dtype for a in (*state.first, *state.second, *state.average)} == {np.dtype(np.float64)}


def test_a_study_that_goes_on_from_a_state_goes_on_as_one_that_never_stopped():
    chosen, found = settings(kind="adam", momentum=0.9, averaging=0.8), gradients()
    whole = run(chosen, start(), found)[-1]
    half = run(chosen, start(), found[:5])[-1]
    again = run(chosen, OptimizerState(**vars(half)), found[5:])[-1]
    assert all(
        a.tobytes() == b.tobytes() for a, b in zip(published(chosen, whole), published(chosen, again), strict=True)
    )


def test_sgd_at_momentum_nought_starts_from_a_family_s_weights():
    weights = initial("mlp", 4, 3, seed=1)
    zeros = [np.zeros(w.shape) for w in weights]
    state = advance(settings(), OptimizerState.start(weights), zeros)
    assert all((a == b).all() for a, b in zip(state.weights, weights, strict=True))


# --- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "adamw"},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"momentum": float("nan")},
        {"averaging": 1.0},
        {"averaging": -0.1},
        {"averaging": float("nan")},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=r"not (one of|a number|both)"):
        settings(**wrong)


@pytest.mark.parametrize("shapes", [((1,), (3,), (1, 3), (1,)), SHAPES[:-1], (*SHAPES, (1,)), SHAPES[::-1]], ids=str)
def test_a_gradient_of_other_shapes_is_refused_and_not_spread(shapes):
    with pytest.raises(ValueError, match="other shapes"):
        advance(settings(), start(), [np.ones(shape) for shape in shapes])
