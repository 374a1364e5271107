"""The verdict in plain words, against the ledger and against hostile texts."""

import dataclasses
import json
import re

import pytest

from coterie.privacy.release import CODES
from coterie.privacy.review.explain import explain, quoted
from coterie.privacy.review.verify import CANNOT_PROVE
from coterie.privacy.statement import NOT_COVERED
from coterie.tests.privacy.review.test_facts import HOSTILE, charged, failing, federation, hostile, reviewed, silent

TITLES = (
    "The verdict",
    "Whose data, and for what",
    "Who is protected against whom",
    "The data",
    "What was spent: “spring”",
    "What is used of the budgets, and what is left",
    "A customer of several partners",
    "Models that were received",
    "What was refused",
    "What is assumed",
    "What is not covered",
    "What no file can prove",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A whole study, and a plan that the policy refuses."""
    made = federation(tmp_path_factory.mktemp("explain"))
    made.run()
    made.propose("amber", made.sign(purpose="astrology", name="stars").to_bytes())
    return made


@pytest.fixture(scope="module")
def verdict(made):
    return reviewed(made, "amber")


def part(verdict, title):
    return "\n".join(next(s for s in explain(verdict) if s.title.startswith(title)).paragraphs)


def test_every_part_is_there_in_order_and_says_something(verdict):
    sections = explain(verdict)
    assert tuple(section.title for section in sections) == TITLES
    assert all(section.paragraphs and all(section.paragraphs) for section in sections)


def test_the_verdict_comes_first_and_a_failure_is_said_at_every_figure(verdict):
    assert part(verdict, "The verdict").startswith("VERIFIED: ")
    assert "nothing contradicts" in part(verdict, "The verdict")
    broken = failing(verdict, "budgets")
    assert "Do not rely on it" in part(broken, "The verdict")
    assert "Was no budget ever exceeded, after any entry? Answer: no." in part(broken, "The verdict")
    assert "failed a check" in part(broken, "What was spent")


def test_what_was_spent_is_counted_as_the_ledger_counts(made, verdict):
    text = part(verdict, "What was spent")
    assert text.startswith(f"{len(charged(made))} releases were paid for, of 4 that")
    assert "4 left the partner, 0 were lost in a crash, 0 were open" in text
    assert "at most 54.6 " in text or "by 54.6 at most" in text
    assert "1 in 100,000" in text
    assert "“spring”: 1 partner" not in text


def test_charges_that_a_crash_left_are_told_apart(verdict):
    (study,) = verdict.studies
    crashed = dataclasses.replace(verdict, studies=(dataclasses.replace(study, settled=1, lost=2, unsettled=1),))
    assert "1 left the partner, 2 were lost in a crash, 1 were open" in part(crashed, "What was spent")


def test_more_runs_and_shares_are_the_verdicts(verdict):
    text = part(verdict, "What is used")
    for budget in verdict.budgets:
        assert f"{100 * budget.share:.1f} % is used" in text
        assert f"{dict(budget.runs)['spring']} more runs like “spring” would fit" in text


def test_refusals_are_told_in_words(verdict):
    (refusal,) = verdict.refusals
    assert "purpose" in refusal.codes
    assert all(CODES[code] in part(verdict, "What was refused") for code in refusal.codes)
    assert "astrology" not in part(verdict, "What was refused")


def test_models_come_with_their_charged_figures(verdict):
    (model,) = verdict.models
    assert all(f"{name} {value:.3f}" in part(verdict, "Models that") for name, value in model.metrics)


def test_limits_are_told_whole(verdict):
    assert part(verdict, "What is not covered").splitlines() == list(NOT_COVERED)
    assert part(verdict, "What no file").splitlines() == list(CANNOT_PROVE)


def test_no_formula_is_needed(verdict):
    text = "\n".join(p for s in explain(verdict) for p in s.paragraphs)
    assert not re.search(r"e\^|exp\(|\blog\b|\bsigma\b|[Σ√∞≤≥]|PLD|RDP", text)


def test_hostile_texts_stay_plain_text(verdict):
    texts = [text for section in explain(hostile(verdict)) for text in (section.title, *section.paragraphs)]
    assert all(text.isprintable() for text in texts)
    assert any("“<script>alert(1)</script> ?[31m|" in text for text in texts)
    assert quoted(HOSTILE + "x" * 500).endswith("…”")


def test_charges_for_less_than_the_plan_does_are_told(verdict):
    assert "is not what the plan does" not in part(verdict, "What was spent")
    (study,) = verdict.studies
    plan = json.loads(json.dumps(verdict.plans[study.plan]))
    plan["training"]["sample_rate"] = 0.6
    other = dataclasses.replace(verdict, plans={study.plan: plan})
    assert "What is charged is not what the plan does: an update is charged at another rate" in part(other, "What was")


def test_an_absurd_epsilon_breaks_nothing(verdict):
    (study,) = verdict.studies
    groups = tuple(
        dataclasses.replace(g, recomputed=dataclasses.replace(g.recomputed, first=1e6)) for g in study.groups
    )
    absurd = dataclasses.replace(verdict, studies=(dataclasses.replace(study, groups=groups),))
    assert "1000000.00" in part(absurd, "What was spent")


def test_a_ledger_without_a_study_is_told_too(tmp_path):
    empty = reviewed(federation(tmp_path), "empty")
    assert "No study was consented to" in part(empty, "Who is protected")
    assert part(empty, "What was refused").startswith("Nothing was refused")
    assert len(explain(empty)) == len(TITLES) - 1


def test_nothing_of_the_table_is_told(verdict):
    assert silent("\n".join(p for s in explain(verdict) for p in s.paragraphs))
