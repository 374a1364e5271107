"""A few faults of each side, injected into one small federation of real processes, in every run of the tests."""

import dataclasses
import random

import pytest

from coterie.tests.faults import invariants
from coterie.tests.faults.faults import KINDS
from coterie.tests.faults.harness import faulty_plan, world
from coterie.tests.faults.suite import Count, inject
from coterie.tests.faults.table import Outcome, check

PROCESSES = (("kill -9 of a partner's worker", "books"), ("kill -9 of the gateway", ""))
MESSAGES = ("message duplicated", "message delivered twice")
SPOKEN = ("electronics", "grocer", "books")  # whose message it may be: one may be out of the round that it is meant for
BY_NAME = {kind.name: kind for kind in KINDS}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    root = tmp_path_factory.mktemp("faults")
    outcome, draw = Outcome(Count(), 1), random.Random(1)  # noqa: S311
    with world(root / "site", [faulty_plan("a few faults", 60)], disks=False, number=None) as made:
        assert made.watch.further(0, 1, 240.0), "the federation published nothing"
        inject(made, [(BY_NAME[name], who) for name, who in PROCESSES], outcome.count, draw)
        for place, name in enumerate(MESSAGES):  # one that waits for a killed gateway might come too late for its fault
            for turn in range(len(SPOKEN)):
                if not outcome.count.rows[name].injected:
                    inject(made, [(BY_NAME[name], SPOKEN[(place + turn) % len(SPOKEN)])], outcome.count, draw)
        for service in (*made.partners.values(), made.coordinator):
            service.stop()
        check(made, outcome, root)
        outcome.site = made.site
    return outcome


def test_a_study_goes_on_after_a_killed_worker_a_killed_gateway_and_a_doubled_message(outcome):
    assert outcome.count.injected == len(PROCESSES) + len(MESSAGES)
    assert sum(row.stuck + row.unnamed for row in outcome.count.rows.values()) == 0, outcome.count.notes


def test_after_these_faults_every_release_is_paid_for_and_auditors_find_nothing(outcome):
    assert outcome.charges > 0
    assert outcome.unpaid == []
    assert outcome.audits == []


def test_after_these_faults_every_model_is_what_the_releases_make(outcome):
    assert outcome.checked >= 3
    assert outcome.wrong == []
    assert outcome.different == []


def test_an_altered_release_a_doubled_one_and_an_unpaid_one_are_found(outcome):
    site = outcome.site
    plan = faulty_plan("a few faults", 60)
    plan = dataclasses.replace(plan, partners=site.plan.partners)
    releases = {}
    for folder in site.workspaces.values():
        releases |= invariants.releases_of(folder)
    assert invariants.wrong_models(site.office, plan, releases) == []
    key = next(key for key in releases if key[0] == "books" and key[2] == "train/1")
    for wrong in (1.01, 2.0):
        altered = {**releases, key: tuple(wrong * array for array in releases[key])}
        assert invariants.wrong_models(site.office, plan, altered) == [1]
    (unpaid,) = invariants.unpaid(site.workspaces["books"], "books", {key: ["sha256:0"]}, ())
    assert "train/1" in unpaid


def test_two_answers_to_one_question_are_found():
    assert invariants.not_the_same_bytes({("a", "p", "train/1", 1): ["x", "x"], ("a", "p", "train/2", 1): ["x", "y"]})
