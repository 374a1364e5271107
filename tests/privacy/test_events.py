"""Events as stored JSON: exact fields, known kinds, sane ranges."""

import json
import math

import pytest

from coterie.privacy.canonical import canonical
from coterie.privacy.errors import LedgerFault
from coterie.privacy.events import (
    DiscreteGaussian,
    DistributedGaussian,
    Nothing,
    PoissonGaussian,
    copies_of,
    event_from_dict,
    event_to_dict,
)

SUM = DistributedGaussian(share=825_240, shares=2, sensitivity=1_048_576, sample_rate=0.3, steps=4)
EVENTS = [PoissonGaussian(6.803, 0.25, 10), PoissonGaussian(1.0, 1.0, 1), DiscreteGaussian(5.28, 1), SUM, Nothing()]


@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_an_event_comes_back_equal_from_its_canonical_json(event):
    back = event_from_dict(json.loads(canonical(event_to_dict(event))))
    assert back == event
    assert hash(back) == hash(event)
    assert event.valid()


def test_kinds_have_names_of_their_own_and_say_what_they_are():
    assert len({event.kind for event in EVENTS}) == 4
    assert "4 noisy sums opened over all partners" in str(SUM)
    assert "2 honest partners" in str(SUM)
    assert "10 noisy gradient sums" in str(EVENTS[0])
    assert "6.803" in str(EVENTS[0])
    assert "0.25" in str(EVENTS[0])
    assert "5.28" in str(EVENTS[2])


def test_a_secure_sum_costs_as_the_gaussian_whose_variance_lacks_what_rounding_adds():
    event = DistributedGaussian(share=100, shares=3, sensitivity=50, sample_rate=0.5, steps=7)
    # By hand: 3 * 100^2 - 6^2 = 29964, over 50^2.
    assert event.noise_multiplier**2 == pytest.approx(29_964 / 2500, rel=1e-14)
    assert event.noise_multiplier < math.sqrt(3) * 100 / 50
    assert event.gaussian == PoissonGaussian(event.noise_multiplier, 0.5, 7)


@pytest.mark.parametrize("partners", [1, 2, 5, 20])
def test_a_person_at_several_partners_splits_the_noise_of_a_secure_sum_and_of_nothing_else(partners):
    split = copies_of(SUM, partners)
    assert split == PoissonGaussian(split.noise_multiplier, SUM.sample_rate, SUM.steps)
    # Independent parts of the noise: their variances add up to that of the whole.
    assert partners * split.noise_multiplier**2 == pytest.approx(SUM.noise_multiplier**2, rel=1e-12)
    for event in EVENTS:
        assert event is SUM or copies_of(event, partners) is event


GRADIENTS = {"kind": "poisson-gaussian", "noise_multiplier": 1.0, "sample_rate": 0.5, "steps": 3}
SUMS = {
    "kind": "distributed-gaussian",
    "share": 4096,
    "shares": 2,
    "sensitivity": 4096,
    "sample_rate": 0.5,
    "steps": 3,
}
COUNTS = {"kind": "discrete-gaussian", "sigma": 2.0, "count": 3}


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"kind": "laplace", "scale": 1.0},
        {"kind": None},
        {"kind": "nothing", "steps": 0},
        {k: v for k, v in GRADIENTS.items() if k != "steps"},
        {k: v for k, v in GRADIENTS.items() if k != "kind"},
        {**GRADIENTS, "epsilon": 1.0},
        {**GRADIENTS, "noise_multiplier": 0},
        {**GRADIENTS, "noise_multiplier": -1.0},
        {**GRADIENTS, "noise_multiplier": float("inf")},
        {**GRADIENTS, "noise_multiplier": float("nan")},
        {**GRADIENTS, "noise_multiplier": "1"},
        {**GRADIENTS, "noise_multiplier": True},
        {**GRADIENTS, "noise_multiplier": None},
        {**GRADIENTS, "noise_multiplier": [1.0]},
        {**GRADIENTS, "sample_rate": 0},
        {**GRADIENTS, "sample_rate": 1.01},
        {**GRADIENTS, "sample_rate": float("nan")},
        {**GRADIENTS, "steps": 0},
        {**GRADIENTS, "steps": -3},
        {**GRADIENTS, "steps": 1.5},
        {**GRADIENTS, "steps": float("inf")},
        {**COUNTS, "sigma": 0.0},
        {**COUNTS, "sigma": float("inf")},
        {**COUNTS, "count": 0},
        {**COUNTS, "count": 0.5},
        {**COUNTS, "count": True},
        *({k: v for k, v in SUMS.items() if k != name} for name in SUMS),
        {**SUMS, "noise_multiplier": 1.0},
        {**SUMS, "share": 63},
        {**SUMS, "share": 4096.5},
        {**SUMS, "share": 2**41},
        {**SUMS, "share": True},
        {**SUMS, "shares": 0},
        {**SUMS, "shares": 1001},
        {**SUMS, "shares": 2.0},
        {**SUMS, "shares": -2},
        {**SUMS, "sensitivity": 0},
        {**SUMS, "sensitivity": 2**41},
        {**SUMS, "sensitivity": 4096.0},
        {**SUMS, "sensitivity": 64 * 4096},  # noise of less than a tenth of it
        {**SUMS, "sample_rate": 0},
        {**SUMS, "sample_rate": 1.5},
        {**SUMS, "steps": 0},
        {**SUMS, "steps": 100_001},
    ],
    ids=str,
)
def test_what_is_not_exactly_an_event_is_refused(table):
    with pytest.raises(LedgerFault):
        event_from_dict(table)


def test_an_epsilon_is_never_stored():
    for event in EVENTS:
        assert "epsilon" not in event_to_dict(event)
