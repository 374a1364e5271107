"""Events as stored JSON: exact fields, known kinds, sane ranges."""

import json

import pytest

from coterie.privacy.canonical import canonical
from coterie.privacy.errors import LedgerFault
from coterie.privacy.events import DiscreteGaussian, Nothing, PoissonGaussian, event_from_dict, event_to_dict

EVENTS = [PoissonGaussian(6.803, 0.25, 10), PoissonGaussian(1.0, 1.0, 1), DiscreteGaussian(5.28, 1), Nothing()]


@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_an_event_comes_back_equal_from_its_canonical_json(event):
    back = event_from_dict(json.loads(canonical(event_to_dict(event))))
    assert back == event
    assert hash(back) == hash(event)
    assert event.valid()


def test_kinds_have_names_of_their_own_and_say_what_they_are():
    assert len({event.kind for event in EVENTS}) == 3
    assert "10 noisy gradient sums" in str(EVENTS[0])
    assert "6.803" in str(EVENTS[0])
    assert "0.25" in str(EVENTS[0])
    assert "5.28" in str(EVENTS[2])


GRADIENTS = {"kind": "poisson-gaussian", "noise_multiplier": 1.0, "sample_rate": 0.5, "steps": 3}
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
    ],
    ids=str,
)
def test_what_is_not_exactly_an_event_is_refused(table):
    with pytest.raises(LedgerFault):
        event_from_dict(table)


def test_an_epsilon_is_never_stored():
    for event in EVENTS:
        assert "epsilon" not in event_to_dict(event)
