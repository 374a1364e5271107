"""The draft of an assessment: what the ledger tells is in it, what it cannot know is marked, nothing in it acts."""

import dataclasses
import re

import pytest

from coterie.privacy.release import CODES
from coterie.privacy.review.impact import impact_draft, markdown
from coterie.tests.clients.federation import study
from coterie.tests.privacy.review.test_facts import HOSTILE, failing, federation, hostile, reviewed, silent

TODO = "TO BE COMPLETED BY THE CONTROLLER: "


@pytest.fixture(scope="module")
def verdict(tmp_path_factory):
    made = federation(tmp_path_factory.mktemp("impact"))
    made.run()
    made.propose("amber", made.sign(purpose="astrology", name="stars").to_bytes())
    return reviewed(made, "amber")


@pytest.fixture(scope="module")
def draft(verdict):
    return impact_draft(verdict)


def test_the_four_parts_of_the_law_are_there(draft):
    parts = [line for line in draft.splitlines() if line.startswith("## ")]
    assert [re.search(r"35\(7\)\((.)\)", part)[1] for part in parts[:4]] == ["a", "b", "c", "d"]
    assert draft.count("PIPL art. 56") >= 4
    assert "three years" in draft


@pytest.mark.parametrize(
    "what", ["legal basis", "data protection officer", "views of customers", "automated decisions"]
)
def test_what_a_ledger_cannot_know_is_left_to_people(draft, what):
    assert any(what in line for line in draft.splitlines() if line.startswith(TODO))


def test_what_the_ledger_knows_is_filled_in(verdict, draft):
    (study,) = verdict.studies
    assert f"| Entries of the ledger | {verdict.size} |" in draft
    assert verdict.root in draft
    assert f"- purpose: {study.purpose}" in draft
    assert f"until {study.expires}" in draft
    assert "- data read: age (personal), spend (personal), region (personal)" in draft
    assert "- special categories, as the plan declares them: none" in draft
    assert f"- {CODES['purpose']}: 1" in draft
    assert all(f"| {check.asks} | yes |" in draft for check in verdict.checks)
    assert all(f"{100 * budget.share:.1f} % used" in draft for budget in verdict.budgets)
    rows = re.findall(r"^\| spring \| (\d) \| ([\d.]+) \|$", draft, re.MULTILINE)
    assert [int(k) for k, _ in rows] == [1, 2, 3]
    assert float(rows[0][1]) == pytest.approx(4, abs=0.01)


def test_a_bundle_that_failed_says_so_at_the_top(verdict, draft):
    assert "did not pass" not in draft
    assert "**The bundle did not pass its review" in impact_draft(failing(verdict, "charges")).split("##")[0]


def test_a_missing_plan_is_said(verdict):
    (study,) = verdict.studies
    without = dataclasses.replace(verdict, plans={}, studies=(dataclasses.replace(study, delta=None),))
    assert "data: cannot be told" in impact_draft(without)


def test_hostile_texts_make_neither_markup_nor_tables(verdict):
    draft = impact_draft(hostile(verdict))
    assert "<script" not in draft
    assert "&lt;script&gt;alert\\(1\\)" in draft
    assert "\x1b" not in draft
    assert "\u202e" not in draft
    assert "`" not in draft.replace("\\`", "").replace("\\`coterie audit attack\\`", "")
    assert "http://" not in draft
    assert not re.search(r"(?i)(?<!\\)www\.", draft)
    assert not re.search(r"(?<!\\)\]\(", draft)
    for line in draft.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in {3, 4}


def test_hostile_words_of_a_real_plan_come_through_the_whole_chain_inert(tmp_path):
    made = federation(tmp_path, study(name="<script>|`*[31m", purpose="[a](http://b.example)"))
    assert made.propose().kind == "consent-given"
    verdict = reviewed(made, "amber")
    assert verdict.status == "holds"
    draft = impact_draft(verdict)
    assert "### Study: &lt;script&gt;\\|\\`\\*\\[31m\n" in draft
    assert "- purpose: \\[a\\]\\(http\\://b.example\\)\n" in draft


@pytest.mark.parametrize("text", ["# x", "- x", "+ x", "1. x", "    x", "= x", "> x", "* x", "~~~ x", "<!-- x"])
def test_no_text_starts_a_block(text):
    assert not re.match(r"[ #+=>*~<-]|\d+\.", markdown(text))


def test_every_markup_sign_is_escaped():
    for sign in "\\`*_{}[]()#|~@$^":
        assert markdown(f"a{sign}b") == f"a\\{sign}b"
    assert markdown("a&b<c>") == "a&amp;b&lt;c&gt;"
    assert markdown("mailto:a@b.example") == "mailto\\:a\\@b.example"
    assert markdown("a\nb\tc") == "a?b?c"
    assert markdown("sha256:" + "0" * 64) == "sha256:" + "0" * 64
    assert markdown(HOSTILE).isprintable()


def test_nothing_of_the_table_is_in_the_draft(draft):
    assert silent(draft)
