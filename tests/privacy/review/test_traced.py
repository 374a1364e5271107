"""Counts that somebody shows: whether a ledger or a record names them, and what they make of a statement."""

import dataclasses
import json

import pytest
from typer.testing import CliRunner

from coterie.cli.audit import app
from coterie.privacy.calibration import calibrate
from coterie.privacy.matching.decoys import CANARIES, spread
from coterie.privacy.matching.leaving import OverlapCounts
from coterie.privacy.matching.overlap import overlap
from coterie.privacy.matchterms import match_terms
from coterie.privacy.overlaps import overlap_file, read_overlap
from coterie.privacy.record import Receipt
from coterie.privacy.release import release_digest
from coterie.privacy.review.traced import statements, traced
from coterie.privacy.statement import study_bound
from coterie.tests.privacy.review.bundles import verdict_of
from coterie.tests.privacy.review.matchstory import MatchStory

RUN = CliRunner()


def told(plan, partner="amber", **changes):
    """Counts as the plan leads to them: 300 customers in every cell."""
    terms = match_terms(plan, rules="1")
    names, width = terms.names, spread(terms.sigma)
    every = [frozenset(name for at, name in enumerate(names) if mask >> at & 1) for mask in range(1, 2 ** len(names))]
    raw = {cell: 300 + len(names) * width // 2 + CANARIES * (len(cell) == len(names)) for cell in every}
    found = dataclasses.replace(overlap(terms, raw), **changes)
    return OverlapCounts(plan.digest(), partner, found.to_dict())


def story_of(plan_changes=None):
    """A ledger that paid for a match and released these counts; returns story, plan and counts."""
    story = MatchStory()
    plan = story.match(**(plan_changes or {}))
    story.consent(plan)
    story.pay(plan)
    story.agree(plan)
    made = told(plan)
    story.say("match", {"plan": plan.digest(), "what": "overlap-counts", "release": release_digest(made)})
    return story, plan, made


def counted(made):
    return read_overlap(overlap_file(made), place="overlap.json")


def test_counts_whose_release_is_in_the_ledger_of_who_counted_are_verified():
    story, _, made = story_of()
    found, status = traced(counted(made), [verdict_of(story.bundle())])
    assert status == "holds"
    assert found.checked.startswith("verified")
    assert "ledger" in found.checked
    assert found.study == "spring"


def test_counts_that_the_coordinator_signed_for_are_verified_by_another_partner_s_bundle():
    story = MatchStory()
    plan = story.match()
    teller = dataclasses.replace(plan.matching, teller="birch")
    plan = dataclasses.replace(plan, matching=teller)
    story.consent(plan)
    story.pay(plan)
    story.agree(plan)
    made = told(plan, partner="birch")
    story.receive(plan, [], (Receipt("birch", "match/counts", 1, release_digest(made)),))
    verdict = verdict_of(story.bundle())
    found, status = traced(counted(made), [verdict])
    assert (status, "record" in found.checked) == ("holds", True)
    _, alone = traced(counted(made), [dataclasses.replace(verdict, received={})])
    assert alone == "open"


def test_counts_that_were_changed_are_unverified():
    story, plan, made = story_of()
    row = {**made.overlap["totals"][0], "customers": made.overlap["totals"][0]["customers"] + 1}
    other = {**made.overlap, "totals": [row, *made.overlap["totals"][1:]]}
    changed = OverlapCounts(plan.digest(), "amber", other)
    found, status = traced(counted(changed), [verdict_of(story.bundle())])
    assert status == "open"
    assert found.checked.startswith("unverified")


def test_counts_are_unverified_by_a_bundle_that_fails_or_knows_nothing_of_them():
    story, _, made = story_of()
    verdict = verdict_of(story.bundle())
    assert traced(counted(made), [])[1] == "open"
    failed = dataclasses.replace(verdict, checks=(dataclasses.replace(verdict.checks[0], status="fails"),))
    assert failed.status == "fails"
    assert traced(counted(made), [failed])[1] == "open"


def test_another_partner_s_ledger_says_nothing_of_who_counted():
    story, _, made = story_of()
    verdict = dataclasses.replace(verdict_of(story.bundle()), partner="birch")
    assert traced(counted(made), [verdict])[1] == "open"


def test_counts_that_tell_what_is_below_the_least_contradict_the_plan():
    story, plan, made = story_of()
    row = {**made.overlap["totals"][0], "customers": plan.matching.least - 1}
    small = OverlapCounts(plan.digest(), "amber", {**made.overlap, "totals": [row, *made.overlap["totals"][1:]]})
    assert traced(counted(small), [verdict_of(story.bundle())])[1] == "fails"


@pytest.mark.parametrize("changes", [{"sigma": 1.0}, {"least": 51}])
def test_counts_with_other_noise_or_another_least_than_the_plan_s_contradict_it(changes):
    story, plan, _ = story_of()
    found, status = traced(counted(told(plan, **changes)), [verdict_of(story.bundle())])
    assert status == "fails"
    assert found.checked.startswith("contradicted")


def test_counts_by_somebody_who_was_not_to_count_contradict_the_plan():
    story, plan, _ = story_of()
    assert traced(counted(told(plan, partner="birch")), [verdict_of(story.bundle())])[1] == "fails"


def test_statements_tell_every_study_once_with_the_shares_of_its_partners():
    story, plan, made = story_of()
    trained = story.plan()
    story.consent(trained)
    verdict = verdict_of(story.bundle())
    found, _ = traced(counted(made), [verdict])
    said = statements([verdict, verdict], [found])
    assert [one["plan"] for one in said] == [plan.digest(), trained.digest()]
    for one in said:
        assert [row["share"] for row in one["multiplicity"]] == pytest.approx([3 / 7, 3 / 7, 1 / 7])
        assert "verified" in " ".join(one["overlap"]["words"])
    alone = statements([verdict], [])
    assert all("overlap" not in one for one in alone)


def test_the_command_prints_shares_beside_epsilons_and_exits_by_what_was_found(tmp_path):
    story, plan, made = story_of()
    bundle, file = tmp_path / "amber.bundle", tmp_path / "overlap.json"
    bundle.write_bytes(story.bundle())
    file.write_bytes(overlap_file(made))
    shown = RUN.invoke(app, ["statement", str(bundle), "--overlap", str(file)])
    text = " ".join(shown.output.split())
    assert "42.9 %" in text
    assert "verified: the ledger of the partner who counted" in text
    assert f"epsilon = {study_bound(plan, calibrate(plan)).epsilon:.2f}" in text
    as_json = RUN.invoke(app, ["statement", str(bundle), "--overlap", str(file), "--json"])
    assert json.loads(as_json.stdout)["overlaps"] == ["holds"]
    file.write_bytes(overlap_file(told(plan, sigma=1.0)))
    wrong = RUN.invoke(app, ["verify", "--quick", str(bundle), "--overlap", str(file)])
    assert wrong.exit_code == 1
    assert "contradicted" in wrong.output


def test_a_file_that_is_none_or_not_there_is_a_clear_fault(tmp_path):
    story, _, _ = story_of()
    bundle = tmp_path / "amber.bundle"
    bundle.write_bytes(story.bundle())
    for name, data in (("missing.json", None), ("other.json", b"{}")):
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        found = RUN.invoke(app, ["verify", "--quick", str(bundle), "--overlap", str(path)])
        assert found.exit_code != 0
        assert name in str(found.exception)
