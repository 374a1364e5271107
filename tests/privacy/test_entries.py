"""Entries say exactly what entries of their kind say; whatever else is refused without a word of it."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.privacy.charges import Charge, Entry, Limit, charge_of
from coterie.privacy.entries import charge_body, check_entry, entry_bytes, leaf_of
from coterie.privacy.errors import LedgerFault
from coterie.privacy.events import DiscreteGaussian, PoissonGaussian
from coterie.privacy.ledger import Ledger
from coterie.privacy.merkle import leaf_hash
from coterie.privacy.renyi import Filter
from coterie.privacy.shapes import SHAPES

DIGEST = "sha256:" + "0a" * 32
UPDATE = {"kind": "poisson-gaussian", "noise_multiplier": 1.5, "sample_rate": 0.1, "steps": 10}
HISTOGRAM = {"kind": "discrete-gaussian", "sigma": 5.25, "count": 1}
CONTENT = {"coordinator": "ed25519:x", "minimum_partners": 2, "columns": ["age"], "budget": {"study_epsilon": 1.5}}
BODIES = {
    "opened": {"format": "coterie/ledger/v2", "partner": "amber", "key": "ed25519:x", "carried": 0, "groups": DIGEST},
    "policy": {"policy": DIGEST, "content": CONTENT},
    "consent": {
        "release": DIGEST,
        "plan": DIGEST,
        "name": "spring",
        "purpose": "coupons",
        "customer": "customer",
        "contract": DIGEST,
        "expires": "2031-12-31",
        "policy": DIGEST,
        "update": UPDATE,
        "updates": 5,
        "histogram": HISTOGRAM,
        "histograms": 2,
        "update_curve": [0.5, 1],
        "histogram_curve": [0.25],
        "counting": UPDATE,
        "countings": 1,
        "overlap": HISTOGRAM,
        "overlaps": 2,
        "segments": ["a", "b"],
        "division": DIGEST,
    },
    "approval": {"plan": DIGEST, "decision": "declined", "by": "operator", "reason": "not agreed"},
    "refusal": {"release": DIGEST, "plan": "", "codes": ["budget", "column"]},
    "reserve": {
        "plan": DIGEST,
        "purpose": "coupons",
        "step": "train/1",
        "attempt": 1,
        "group": "training",
        "event": UPDATE,
        "random": "os",
        "curve": [0.5],
        "segments": ["a"],
        "rows": DIGEST,
    },
    "settle": {"reserve": 3, "release": DIGEST},
    "lost": {"reserve": 3},
    "model": {"release": DIGEST, "plan": DIGEST, "model": DIGEST, "record": DIGEST},
    "keys": {"release": DIGEST, "plan": DIGEST, "epoch": 3, "steps": ["train/5", "evaluate/2"], "what": "round-keys"},
    "opening": {
        "release": DIGEST,
        "plan": DIGEST,
        "step": "train/5",
        "attempt": 1,
        "epoch": 3,
        "what": "revealed-shares",
        "transcript": DIGEST,
        "survivors": ["amber", "birch", "cedar"],
    },
    "disclosure": {
        "release": DIGEST,
        "plan": DIGEST,
        "purpose": "coupons",
        "outcome": "rows",
        "identifier": "phone",
        "partners": ["amber", "birch"],
        "rows": DIGEST,
    },
    "manifest": {"release": DIGEST, "plan": DIGEST, "manifest": DIGEST, "evaluations": 131072},
    "match": {
        "release": DIGEST,
        "plan": DIGEST,
        "what": "parcel-taken",
        "list": "birch",
        "hop": 1,
        "index": 3,
        "towards": "cedar",
        "points": 65536,
    },
    "vault": {
        "dataset": "customers",
        "version": 3,
        "manifest": DIGEST,
        "what": "rewrapped",
        "keys": "transit",
        "epoch": "v2",
    },
    "erasure": {
        "answer": DIGEST,
        "datasets": ["customers", "consents"],
        "keys": "mount",
        "epoch": "0002",
        "shredded": "destroyed",
    },
}
FIELDS = [(kind, name) for kind, body in BODIES.items() for name in body]
CANARY = "canary-4711"


def nested(depth):
    value = CANARY
    for _ in range(depth):
        value = [value]
    return value


# What no field is: each a wrong type, too much, or what JSON carries and nobody means.
NEVER = {
    "nothing": None,
    "true": True,
    "a list of lists": [[CANARY]],
    "a table of lists": {CANARY: [nested(9)]},
    "deep nesting": nested(900),
    "a long text": CANARY * 100,
    "a text with an end in it": CANARY + "\x00",
    "half a character": CANARY + "\ud800",
    "a negative number": -4711,
    "a number with a fraction and a text": [4711.5, CANARY],
    "a huge number": 10**400,
    "no number": math.nan,
    "an endless number": math.inf,
    "an endless list": [4711.5] * 20_000,
    "a number twice the greatest": [1e308 * 10],
}


def entry(kind, body):
    return Entry(7, "2030-01-02T03:04:05.000000+00:00", kind, body)


def refused(kind, body):
    with pytest.raises(LedgerFault) as caught:
        check_entry(entry(kind, body))
    (fault,) = caught.value.faults
    assert "entry 7" in fault.place
    for word in ("canary", "4711", "1e+"):
        assert word not in str(caught.value)
    return fault


def test_every_kind_is_tried_here_with_every_field():
    assert {kind: set(body) for kind, body in BODIES.items()} == {k: set(s.fields) for k, s in SHAPES.items()}
    assert all(shape.meaning for shape in SHAPES.values())
    assert all(shape.optional <= set(shape.fields) for shape in SHAPES.values())


@pytest.mark.parametrize("kind", BODIES)
def test_an_entry_of_each_kind_is_believed_with_and_without_its_optional_fields(kind):
    check_entry(entry(kind, BODIES[kind]))
    check_entry(entry(kind, {n: v for n, v in BODIES[kind].items() if n not in SHAPES[kind].optional}))


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_a_field_is_there_unless_it_is_optional(kind, name):
    without = {n: v for n, v in BODIES[kind].items() if n != name}
    if name in SHAPES[kind].optional:
        check_entry(entry(kind, without))
    else:
        assert refused(kind, without).rule == f"lacks fields: {name}"


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_a_field_holds_what_it_should_and_nothing_else(kind, name):
    for what, value in NEVER.items():
        assert refused(kind, {**BODIES[kind], name: value}).rule == f"has fields out of range: {name}", what


@pytest.mark.parametrize("kind", BODIES)
def test_a_field_more_is_refused_without_its_name(kind):
    assert refused(kind, {**BODIES[kind], CANARY: 1, "x" * 10_000: 2}).rule == "has unknown fields: 2"


@pytest.mark.parametrize("kind", ["", CANARY, "Consent", "settle ", "reserve\n"])
def test_a_kind_that_nobody_knows_is_refused_without_its_name(kind):
    assert refused(kind, BODIES["lost"]).rule == "is of an unknown kind"


WRONG = [
    ("refusal", "codes", ["canary-4711"]),
    ("refusal", "codes", [["budget"]]),
    ("refusal", "codes", [{"budget": 1}]),
    ("refusal", "codes", ["budget"] * 100),
    ("refusal", "plan", DIGEST.upper()),
    ("refusal", "release", DIGEST + "\n"),
    ("settle", "release", "sha256:" + "0a" * 31),
    ("settle", "release", ""),
    ("settle", "reserve", 3.0),
    ("settle", "reserve", 2**53),
    ("lost", "reserve", "3"),
    ("consent", "expires", "2031-02-30"),
    ("consent", "expires", "2031-1-1"),
    ("consent", "expires", "\u0662\u0660\u0663\u0661-12-31"),
    ("consent", "name", ""),
    ("consent", "segments", []),
    ("consent", "update", {**UPDATE, "canary": 4711}),
    ("consent", "update", {**UPDATE, "steps": 0}),
    ("consent", "update", {**UPDATE, "noise_multiplier": 10**400}),
    ("consent", "histogram", {**HISTOGRAM, "sigma": "4711"}),
    ("consent", "histogram", {**HISTOGRAM, "kind": ["canary"]}),
    ("consent", "histogram", {**HISTOGRAM, "kind": nested(900)}),
    ("consent", "update_curve", [True]),
    ("reserve", "event", {}),
    ("reserve", "segments", ["a", ""]),
    ("reserve", "segments", "a"),
    ("reserve", "rows", ""),
    ("reserve", "rows", 151),
    ("disclosure", "outcome", "counts"),
    ("disclosure", "identifier", "name"),
    ("disclosure", "partners", []),
    ("disclosure", "rows", ""),
    ("manifest", "evaluations", 1.0),
    ("manifest", "manifest", ""),
    ("match", "what", "match-committed"),
    ("match", "hop", "1"),
    ("match", "points", 2**53),
    ("match", "towards", ""),
    ("vault", "dataset", "identifier"),
    ("policy", "content", []),
    ("policy", "content", {"": 1}),
    ("policy", "content", {"a": None}),
    ("policy", "content", {"a": CANARY * 1000}),
    ("policy", "content", {"a": {"b": {"c": {"d": {"e": {"f": {"g": 1}}}}}}}),
    ("policy", "content", {"a": math.nan}),
    ("policy", "content", {"a": ["\udfff"]}),
    ("policy", "content", {str(number): 1 for number in range(2000)}),
]


@pytest.mark.parametrize(("kind", "name", "value"), WRONG)
def test_a_field_that_is_nearly_right_is_refused(kind, name, value):
    assert refused(kind, {**BODIES[kind], name: value}).rule == f"has fields out of range: {name}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(FIELDS), JSON)
def test_any_value_is_believed_and_has_a_leaf_or_is_one_fault(field, value):
    kind, name = field
    one = entry(kind, {**BODIES[kind], name: value})
    try:
        check_entry(one)
    except LedgerFault:
        return
    assert len(leaf_of(one)) == 32


@pytest.mark.parametrize("segments", [(), ("a", "b")])
@pytest.mark.parametrize("event", [PoissonGaussian(1.5, 0.1, 10), DiscreteGaussian(5.25, 1)])
def test_a_charge_is_written_by_its_shape_and_read_back(tmp_path, clock, event, segments):
    charge = Charge(DIGEST, "coupons", "train/1", 2, "training", event, "os", segments)
    check_entry(entry("reserve", charge_body(charge)))
    assert charge_of(entry("reserve", charge_body(charge))) == charge
    Ledger.create(tmp_path / "ledger.sqlite")
    with Ledger(tmp_path / "ledger.sqlite", clock) as ledger:
        held = ledger.reserve(charge, [Limit(Filter(90.0, 1e-5))], declared=9)
        ledger.settle(held, DIGEST)
        ledger.reserve(Charge(DIGEST, "x", "y", 1, "holdout", event, "os"), [], declared=9)
        ledger.recover()
        assert [e.kind for e in ledger.entries()] == ["reserve", "settle", "reserve", "lost"]
        for written in ledger.entries():
            check_entry(written)
        assert charge_of(next(ledger.entries("reserve"))) == charge


def test_the_bytes_of_an_entry_are_its_canonical_form():
    one = entry("lost", {"reserve": 3})
    expected = b'{"at":"2030-01-02T03:04:05.000000+00:00","body":{"reserve":3},"kind":"lost","salt":"","seq":7}'
    assert entry_bytes(one) == expected
    assert leaf_of(one) == leaf_hash(expected)
