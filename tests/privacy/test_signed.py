"""Signed plans: what comes back, and that nothing else is believed."""

import base64
import dataclasses
import json

import pytest

from coterie.privacy.canonical import canonical
from coterie.privacy.errors import PlanFault
from coterie.privacy.identity import Identity
from coterie.privacy.signed import SignedPlan, sign

COORDINATOR = Identity.create()


def test_a_signed_plan_comes_back_with_the_same_digest(plan):
    signed = sign(plan, COORDINATOR)
    back = SignedPlan.from_bytes(signed.to_bytes(), coordinator=COORDINATOR.public)
    assert back == signed
    assert back.plan == plan
    assert back.plan.digest() == plan.digest()
    assert back.to_bytes() == signed.to_bytes()


def test_a_plan_of_another_coordinator_is_refused(plan):
    data = sign(plan, Identity.create()).to_bytes()
    with pytest.raises(PlanFault, match="pinned key"):
        SignedPlan.from_bytes(data, coordinator=COORDINATOR.public)


def test_a_signature_on_the_digest_without_its_label_is_refused(plan):
    bare = SignedPlan(plan, COORDINATOR.sign(plan.digest().encode()))
    with pytest.raises(PlanFault):
        SignedPlan.from_bytes(bare.to_bytes(), coordinator=COORDINATOR.public)


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80])
def test_no_changed_byte_of_a_signed_plan_is_accepted(plan, mask):
    data = sign(plan, COORDINATOR).to_bytes()
    accepted = []
    for position in range(len(data)):
        tampered = bytearray(data)
        tampered[position] ^= mask
        try:
            SignedPlan.from_bytes(bytes(tampered), coordinator=COORDINATOR.public)
        except PlanFault:
            continue
        accepted.append(position)
    assert len(data) > 1000
    assert accepted == []


def test_no_shortened_or_lengthened_plan_is_accepted(plan):
    data = sign(plan, COORDINATOR).to_bytes()
    for wrong in [data[:cut] for cut in range(0, len(data), 37)] + [data + b" ", b" " + data, data + data]:
        with pytest.raises(PlanFault):
            SignedPlan.from_bytes(wrong, coordinator=COORDINATOR.public)


def test_another_spelling_of_the_same_plan_is_refused(plan):
    data = sign(plan, COORDINATOR).to_bytes()
    table = json.loads(data)
    spellings = [
        json.dumps(table).encode(),
        json.dumps(table, indent=1).encode(),
        data.replace(b'{"format"', b'{"format":"x","format"'),
        data.replace(table["signature"].encode(), table["signature"].upper().encode()),
        data.replace(b'"2031-12-31"', b'"20311231"'),
    ]
    for spelling in spellings:
        assert spelling != data
        with pytest.raises(PlanFault):
            SignedPlan.from_bytes(spelling, coordinator=COORDINATOR.public)


def hostile(plan):
    """Return plans that are well spelt and signed, and wrong."""
    good = plan.to_dict()

    def signed(table):
        return {"format": "coterie/plan/v1", "plan": table, "signature": "00" * 64}

    return [
        None,
        [],
        "plan",
        {},
        signed(None),
        signed([]),
        signed([["expires", "2031-12-31"]]),
        signed({}),
        signed({**good, "expires": 4711}),
        signed({**good, "expires": "never-4711"}),
        signed({**good, "extra": 1}),
        signed({**good, "name": 4711}),
        signed({**good, "partners": 4711}),
        signed({**good, "partners": [4711]}),
        signed({**good, "privacy": {**good["privacy"], "epsilon": 4711}}),
        signed({**good, "metrics": {"rounds": [], "bins": 24}}),
        {**signed(good), "signature": 4711},
        {**signed(good), "signature": "zz"},
        {**signed(good), "format": "coterie/plan/v2"},
        {**signed(good), "more": 1},
    ]


def test_what_is_not_a_signed_plan_is_a_plan_fault_and_no_other_error(plan):
    for value in hostile(plan):
        with pytest.raises(PlanFault) as caught:
            SignedPlan.from_bytes(canonical(value), coordinator=COORDINATOR.public)
        assert "4711" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        (b'"spring"', b'"\\ud800"'),
        (b'"clip":1', b'"clip":1' + b"0" * 400),
        (b'"clip":1', b'"clip":1' + b"0" * 5000),
        (b'"clip":1', b'"clip":NaN'),
        (b'"clip":1', b'"clip":' + b"[" * 100_000),
        (b'"spring"', b'"\xff"'),
    ],
    ids=["lone surrogate", "beyond floats", "beyond whole numbers", "NaN", "endless nesting", "not UTF-8"],
)
def test_bytes_that_upset_a_reader_are_a_plan_fault_and_no_other_error(plan, change):
    data = sign(plan, COORDINATOR).to_bytes()
    assert change[0] in data
    with pytest.raises(PlanFault):
        SignedPlan.from_bytes(data.replace(*change), coordinator=COORDINATOR.public)


def test_a_correctly_signed_plan_that_breaks_a_rule_is_still_refused(plan):
    broken = dataclasses.replace(plan, privacy=dataclasses.replace(plan.privacy, threshold=9))
    with pytest.raises(PlanFault, match="threshold"):
        SignedPlan.from_bytes(sign(broken, COORDINATOR).to_bytes(), coordinator=COORDINATOR.public)


def test_a_malformed_pinned_key_is_a_plan_fault(plan):
    data = sign(plan, COORDINATOR).to_bytes()
    for key in ("", "ed25519:", "ed25519:" + base64.b64encode(bytes(31)).decode()):
        with pytest.raises(PlanFault):
            SignedPlan.from_bytes(data, coordinator=key)
