"""What a match says of people at several partners: shares from noisy counts, and words where no epsilon holds."""

import dataclasses
import json

import pytest

from coterie.privacy.accountant import epsilon
from coterie.privacy.calibration import HOLDOUT, TRAINING, calibrate
from coterie.privacy.canonical import canonical
from coterie.privacy.contract import Contract
from coterie.privacy.errors import FileFault
from coterie.privacy.events import DiscreteGaussian
from coterie.privacy.matching.leaving import OverlapCounts
from coterie.privacy.matching.overlap import Estimate, Overlap
from coterie.privacy.overlaps import FORMAT, Counted, overlap_file, read_overlap, shares
from coterie.privacy.plan import Matching
from coterie.privacy.release import release_digest
from coterie.privacy.statement import share_of, statement, study_bound
from coterie.privacy.terms import NO_METRICS, NO_TRAINING, NOTHING

NAMES = ("books", "fashion", "grocer")
PLAN = "sha256:" + "7" * 64
OF_TRAINING = ("update", "histogram", "gradient", "metrics", "model")


def counts(names=NAMES, multiplicity=(700, 250, 50), least=10):
    """Counts of three partners by hand: what is told by number of partners, and something in every cell."""

    def some(*partners, customers=40):
        return Estimate(partners, customers, 2.5)

    pairs = [(one, two) for at, one in enumerate(names) for two in names[at + 1 :]]
    cells = [(name,) for name in names] + pairs + [tuple(names)]
    by = [some(str(k), customers=many) for k, many in enumerate(multiplicity, start=1)]
    return Overlap(
        tuple(names),
        least,
        3.0,
        66,
        tuple(some(*cell) for cell in cells),
        tuple(some(name) for name in names),
        tuple(some(*pair) for pair in pairs),
        tuple(by),
    )


def counted(overlap=None, **changes):
    """The same, as a statement takes them."""
    return dataclasses.replace(
        Counted(overlap or counts(), PLAN, "books", "sha256:" + "1" * 64, "spring match"), **changes
    )


@pytest.fixture
def match(plan):
    """The plan of the study file, which counts customers instead."""
    return dataclasses.replace(
        plan,
        task="matching",
        contract=Contract(customer="customer"),
        model=NOTHING,
        training=NO_TRAINING,
        metrics=NO_METRICS,
        privacy=dataclasses.replace(plan.privacy, threshold=3),
        matching=Matching(identifier="phone", outcome="counts"),
    )


def of_outcome(match, outcome):
    return dataclasses.replace(match, matching=dataclasses.replace(match.matching, outcome=outcome))


def test_shares_are_of_the_persons_in_counts_that_are_printed():
    assert shares(counts()) == (0.7, 0.25, 0.05)
    assert shares(counts(multiplicity=(750, 250, None))) == (0.75, 0.25, None)
    assert shares(counts(multiplicity=(None, None, None))) == (None, None, None)
    assert shares(counts(multiplicity=(0, 0, 0), least=0)) == (None, None, None)


def test_a_statement_tells_the_share_of_people_at_each_number_of_partners_and_what_holds_for_them(plan):
    said = statement(plan, calibrate(plan), overlap=counted())
    without = statement(plan, calibrate(plan))
    assert [row["share"] for row in said["multiplicity"]] == [0.7, 0.25, 0.05]
    assert [row["customers"] for row in said["multiplicity"]] == [700, 250, 50]
    assert [row["epsilon"] for row in said["multiplicity"]] == [row["epsilon"] for row in without["multiplicity"]]
    words = " ".join(said["overlap"]["words"])
    for k, share in ((1, "70.0 %"), (2, "25.0 %"), (3, "5.0 %")):
        assert f"exactly {k} partner" in words
        assert f"an estimated {share}" in words
        assert f"epsilon {said['multiplicity'][k - 1]['epsilon']:.2f} holds" in words
    assert '"spring match"' in words
    assert "noisy" in words
    assert "unverified" in words
    assert "overlap" not in without
    assert "share" not in without["multiplicity"][0]


def test_what_is_below_the_least_is_said_to_be_that_and_has_no_share(plan):
    said = statement(plan, calibrate(plan), overlap=counted(counts(multiplicity=(750, 250, None))))
    assert said["multiplicity"][2]["share"] is None
    assert "Customers of exactly 3 partners: below 10" in " ".join(said["overlap"]["words"])


def test_counts_of_other_partners_are_refused(plan):
    with pytest.raises(FileFault, match="other partners"):
        statement(plan, calibrate(plan), overlap=counted(counts(("books", "fashion", "travel"))))


def test_a_match_that_counts_spends_all_of_epsilon_on_both_groups(match):
    mechanisms = calibrate(match)
    said = statement(match, mechanisms)
    exact = epsilon([DiscreteGaussian(mechanisms.overlap.sigma, 1)], match.privacy.delta)
    for row in said["groups"]:
        assert row["share"] == 1.0
        assert row["epsilon"] == pytest.approx(exact, rel=1e-3)
        assert f"scale {mechanisms.overlap.sigma:g}" in row["events"][0]
    assert 0.9 * match.privacy.epsilon < said["study"]["epsilon"] <= match.privacy.epsilon
    for row in said["multiplicity"]:
        # k partners each charge the same event, whatever group the person is in where.
        events = [DiscreteGaussian(mechanisms.overlap.sigma, 1)] * row["partners"]
        assert row["epsilon"] == pytest.approx(epsilon(events, match.privacy.delta), rel=1e-6)
    assert share_of(match, TRAINING) == share_of(match, HOLDOUT) == 1.0
    assert said["disclosures"] == []


def test_a_statement_on_a_match_has_no_word_about_training(match):
    for outcome in ("counts", "rows", "tokens"):
        plan = of_outcome(match, outcome)
        said = statement(plan, calibrate(plan))
        told = [*said["words"], *said["not_covered"], *(event for row in said["groups"] for event in row["events"])]
        text = " ".join(told).lower()
        assert not any(word in text for word in OF_TRAINING), [w for w in OF_TRAINING if w in text]
        assert "phone number" in text


@pytest.mark.parametrize("outcome", ["rows", "tokens"])
def test_a_disclosure_states_no_epsilon_anywhere_and_says_why(match, outcome):
    plan = of_outcome(match, outcome)
    said = json.loads(json.dumps(statement(plan, calibrate(plan), overlap=counted()), allow_nan=False))
    assert said["study"]["epsilon"] is said["replace_one"] is None
    assert {row["epsilon"] for row in (*said["groups"], *said["multiplicity"])} == {None}
    (text,) = said["disclosures"]
    assert text.startswith("Not covered by epsilon")
    assert outcome in text
    assert text in said["words"]
    assert text in said["not_covered"]
    assert "no epsilon holds" in " ".join(said["overlap"]["words"])
    assert study_bound(plan, calibrate(plan)).epsilon == float("inf")


def test_a_study_that_trains_on_matched_customers_tells_its_disclosure_beside_its_epsilon(plan):
    joint = dataclasses.replace(plan, matching=Matching(identifier="email", outcome="rows"))
    said, alone = statement(joint, calibrate(joint)), statement(plan, calibrate(plan))
    assert said["study"] == alone["study"]  # the match adds nothing to epsilon, and epsilon says nothing of it
    (text,) = said["disclosures"]
    assert text in said["words"]
    assert text in said["not_covered"]
    assert set(alone["words"]) < set(said["words"])
    assert alone["disclosures"] == []


def test_a_seeded_match_states_no_epsilon(match):
    said = statement(match, calibrate(match), random_source="seeded")
    assert said["study"]["epsilon"] is None
    assert "no guarantee" in " ".join(said["words"])


def test_a_file_of_counts_is_read_as_it_was_written_and_names_its_release():
    told = OverlapCounts(PLAN, "books", counts().to_dict())
    read = read_overlap(overlap_file(told), place="overlap.json")
    assert read.overlap == counts()
    assert (read.plan, read.partner) == (PLAN, "books")
    assert read.release == release_digest(told)
    other = OverlapCounts(PLAN, "books", counts(multiplicity=(701, 250, 50)).to_dict())
    assert read_overlap(overlap_file(other), place="x").release != read.release


def broken():
    """Files that are none: each with one thing wrong."""
    good = {"format": FORMAT, "plan": PLAN, "partner": "books", "overlap": counts().to_dict()}
    overlap = good["overlap"]
    yield "no JSON", b"\xff"
    yield "no table", b"[]"
    yield "other format", canonical({**good, "format": "coterie/report/v1"})
    yield "field too many", canonical({**good, "more": 1})
    yield "plan is no text", canonical({**good, "plan": 7})
    yield "no counts", canonical({**good, "overlap": {}})
    yield "a cell is missing", canonical({**good, "overlap": {**overlap, "cells": overlap["cells"][1:]}})
    yield "negative", canonical({**good, "overlap": {**overlap, "totals": [_negative(overlap["totals"][0])] * 3}})
    yield "names twice", canonical({**good, "overlap": {**overlap, "names": ["books", "books", "grocer"]}})
    yield "a stranger", canonical({**good, "overlap": {**overlap, "names": ["books", "fashion", "travel"]}})
    numbered = [{**row, "partners": ["9"]} for row in overlap["multiplicity"]]
    yield "other numbers of partners", canonical({**good, "overlap": {**overlap, "multiplicity": numbered}})
    yield "least is no number", canonical({**good, "overlap": {**overlap, "least": "many"}})
    yield "deep", b"[" * 100_000


def _negative(row):
    return {**row, "customers": -1}


@pytest.mark.parametrize(("data"), [pytest.param(data, id=name) for name, data in broken()])
def test_what_is_no_file_of_counts_is_one_clear_fault(data):
    with pytest.raises(FileFault, match=r"overlap\.json: is no coterie/overlap/v1") as caught:
        read_overlap(data, place="overlap.json")
    assert len(caught.value.faults) == 1
