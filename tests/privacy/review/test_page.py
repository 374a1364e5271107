"""The reviewer's page: what it says, that it loads nothing, and that no word of a stranger becomes a part of it."""

import base64
import dataclasses
import hashlib
import itertools
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from coterie.privacy.calibration import calibrate
from coterie.privacy.plan import plan_from_dict
from coterie.privacy.release import CODES
from coterie.privacy.renyi import Filter, curve
from coterie.privacy.review.cross import cross_check
from coterie.privacy.review.kept import file_digest
from coterie.privacy.review.page.content import BY_HAND, MOST, Reviewed
from coterie.privacy.review.page.figures import Line, burn_down
from coterie.privacy.review.page.outlook import epsilons_up_to, outlook
from coterie.privacy.review.page.render import content_policy, render
from coterie.privacy.review.page.wording import epsilon, moment, percent, tidy, visible
from coterie.privacy.review.proofs import proofs_of
from coterie.privacy.review.verdict import Refusal, Verdict
from coterie.privacy.review.verify import CANNOT_PROVE, verify_bundle
from coterie.tests.clients.federation import NAMES
from coterie.tests.privacy.review.bundles import made, opened, resigned

HOSTILE = "<script>alert(1)</script>\"' onload=x {{7*7}} \x1b[31m \u202e \u2028 \ud83d javascript:alert(1) &amp; https://b.example/"
VOID = {"meta", "br", "input", "link", "img"}
DRAWN = {"path", "rect", "circle", "line"}


class Page(HTMLParser):
    """What a page holds, by its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.texts, self._open, self.closed = [], [], [], True
        self.feed(text)
        self.closed = self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in VOID | DRAWN
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else "", data))

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    def text(self, *but):
        return " ".join(" ".join(text for tag, text in self.texts if tag not in {"script", "style", *but}).split())

    def inside(self, tag):
        return [text for name, text in self.texts if name == tag]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    for name, bundle in made().bundles.items():
        (folder / name).write_bytes(bundle)
    return {name: folder / name for name in NAMES}


@pytest.fixture(scope="module")
def reviewed(paths):
    """Amber's, with everything."""
    verdict = verify_bundle(paths["amber"])
    return Reviewed(verdict, proofs_of(paths["amber"]), outlook(verdict), file_digest(paths["amber"]))


@pytest.fixture(scope="module")
def text(reviewed):
    return render([reviewed])


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def changed(tmp_path, change):
    """Amber's bundle after a dishonest owner's change, reviewed."""
    bundle = opened(made().bundle)
    change(bundle)
    path = tmp_path / "changed"
    path.write_bytes(resigned(bundle, made().partner, made().coordinator))
    return Reviewed(verify_bundle(path, accounting=False), proofs_of(path))


# --- what it says -----------------------------------------------------------------------------------------


def test_the_page_is_whole(page):
    assert page.closed
    assert page.of("html") == [{"lang": "en-GB"}]
    assert len(page.of("h1")) == len(page.of("main")) == 1
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(set(ids)) == len(ids)
    for _, attrs in page.tags:
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert set(attrs.get(name, "").split()) <= set(ids)
        if attrs.get("href", "").startswith("#"):
            assert attrs["href"][1:] in ids
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))


def test_the_verdict_comes_first_with_a_sign_and_a_word(reviewed, page, text):
    words = page.text()
    assert words.index(reviewed.verdict.line) < words.index("What was checked")
    assert 'class="verdict holds"' in text
    for told in (reviewed.verdict.key, reviewed.verdict.root, reviewed.file, moment(reviewed.verdict.made)):
        assert told in words


def test_every_check_budget_and_limit_is_told(reviewed, page):
    words = page.text()
    for check in reviewed.verdict.checks:
        assert check.asks in words
    for budget in reviewed.verdict.budgets:
        assert percent(budget.share) in words
        assert all(f"{count} more like {name}" in words for name, count in budget.runs)
    for sentence in CANNOT_PROVE:
        assert sentence.replace("`", "") in words.replace(" coterie audit attack ", " coterie audit attack ")


def test_both_accountants_are_told_with_their_disagreement(reviewed, page):
    words = page.text()
    for group in reviewed.verdict.studies[0].groups:
        found = group.recomputed
        told = f"{epsilon(found.first)} {epsilon(found.low)} and {epsilon(found.high)} {percent(found.disagreement)}"
        assert told in words


def test_models_and_refusals_are_told(reviewed):
    refused = tuple(Refusal(n, "2031-05-04T12:00:00+00:00", "", (code,)) for n, code in enumerate(CODES, start=1))
    words = Page(
        render([dataclasses.replace(reviewed, verdict=dataclasses.replace(reviewed.verdict, refusals=refused))])
    ).text()
    assert all(f"{reason} ( {code} )" in words for code, reason in CODES.items())
    (model,) = reviewed.verdict.models
    assert model.model in words
    assert all(epsilon(value) in words for _, value in model.metrics)


def test_a_failing_check_names_its_entry_which_is_one_click_away(tmp_path):
    def change(bundle):
        bundle.of("reserve")[0]["body"]["random"] = "seeded"

    found = changed(tmp_path, change)
    text = render([found])
    place = next(f.entry for c in found.verdict.checks if c.name == "randomness" for f in c.findings)
    assert f'<a href="#p1-e{place}">entry {place}</a>' in text
    assert f'id="p1-e{place}"' in text
    assert 'class="verdict fails"' in text
    assert "FAILED" in Page(text).text()


def test_what_is_not_signed_is_said_beside_the_proofs(tmp_path, paths):
    path = tmp_path / "altered"
    path.write_bytes(paths["amber"].read_bytes().replace(b'{"attempt":1,"event"', b'{"attempt":2,"event"', 1))
    words = Page(render([Reviewed(verify_bundle(path, accounting=False), proofs_of(path))])).text()
    assert "the partner did not sign it" in words
    assert "not asked" in words


def test_entries_can_be_checked_by_hand_with_what_the_page_says(tmp_path, reviewed, paths, page):
    program = tmp_path / "check.py"
    told = next(data for data in page.inside("pre") if data.startswith("import hashlib"))
    assert told == BY_HAND
    program.write_text(told, encoding="utf-8")
    words = page.text()
    for proof in (reviewed.proofs[0], reviewed.proofs[4], reviewed.proofs[-1]):
        steps = [f"{'L' if side == 'left' else 'R'}{step}" for side, step in proof.steps]
        assert " ".join(steps) in words
        command = [sys.executable, "-I", str(program), str(paths["amber"]), str(proof.entry), *steps]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert said == f"leaf {proof.leaf}\nroot {reviewed.verdict.root}\n"


def test_all_partners_of_a_study_follow_one_another_after_the_cross_checks(paths):
    verdicts = [verify_bundle(path, accounting=False) for path in paths.values()]
    text = render([Reviewed(verdict) for verdict in verdicts], crossed=[cross_check(verdicts)])
    page = Page(text)
    words = page.text()
    places = [words.index(verdict.key) for verdict in verdicts]
    assert words.index("Do the partners' bundles tell of the same studies?") < places[0]
    assert places == sorted(places)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(set(ids)) == len(ids)


def test_the_worst_of_several_bundles_and_cross_checks_leads(paths):
    verdicts = [verify_bundle(paths[name], accounting=False) for name in ("amber", "amber")]
    crossed = cross_check(verdicts)
    assert crossed.status == "fails"
    words = Page(render([Reviewed(verdict) for verdict in verdicts], crossed=[crossed])).text()
    assert words.index("FAILED: at least one bundle") < words.index("All bundles together")


def test_an_empty_ledger_and_no_bundle():
    empty = Verdict("amber", "key", "made", "software", 0, "00", ())
    words = Page(render([Reviewed(empty)])).text()
    assert "No policy is in force" in words
    assert "No study was consented to" in words
    assert "The ledger has no entry" in words
    with pytest.raises(ValueError, match="at least"):
        render([])


def test_the_page_is_the_same_for_the_same_bundle_and_small(reviewed, text):
    assert render([reviewed]) == text
    assert len(text) < 400_000


def test_a_large_ledger_makes_no_large_page(reviewed):
    verdict = reviewed.verdict
    study = verdict.studies[0]
    many = dataclasses.replace(
        verdict,
        points=tuple(dataclasses.replace(verdict.points[0], entry=n) for n in range(1, 4097)),
        studies=tuple(dataclasses.replace(study, name=f"study {n}", plan=f"sha256:{n:064d}") for n in range(1000)),
        refusals=tuple(Refusal(n, "2031-05-04T12:00:00+00:00", "", ("budget",)) for n in range(5000)),
        models=tuple(dataclasses.replace(verdict.models[0], plan=f"sha256:{n:064d}") for n in range(3000)),
    )
    text = render([Reviewed(many)])
    assert len(text) < 1_000_000
    assert f"the last {MOST} of 5000" in Page(text).text()


# --- that it is safe --------------------------------------------------------------------------------------


def test_the_page_loads_nothing(text, page):
    # An address without a scheme begins where a value does; keys in base64 may hold "//" anywhere.
    assert not re.search(
        r"""https?:|["'(=]//|url\(|@import|\bsrc=|srcset|<link|<img|<iframe|<object|<base|<form""", text
    )
    assert not {tag for tag, _ in page.tags} & {"link", "img", "iframe", "object", "embed", "base", "form", "a "}
    assert all(attrs["href"].startswith("#") for attrs in page.of("a"))


def test_only_the_pages_own_style_and_script_may_run(text, page):
    policy = next(attrs["content"] for attrs in page.of("meta") if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy == content_policy()
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "http" not in policy.replace("http-equiv", "")
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        assert page.of(tag) == [{}]
        (inner,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        hashed = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert f"{directive} 'sha256-{hashed}'" in policy
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on") or name == "style"]


def spoilt(value, name=""):
    """A value with a hostile text in every place where a text is."""
    if dataclasses.is_dataclass(value):
        fields = {f.name: spoilt(getattr(value, f.name), f.name) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    if isinstance(value, str):
        return value if name in {"status"} else HOSTILE + value
    if isinstance(value, tuple | list):
        return type(value)(spoilt(item, name) for item in value)
    if isinstance(value, dict):
        return {HOSTILE + key if name == "metrics" else key: spoilt(item, name) for key, item in value.items()}
    return value


@pytest.mark.parametrize("part", [f.name for f in dataclasses.fields(Verdict)] + ["outlook", "proofs", "file"])
def test_hostile_words_stay_words_wherever_they_stand(reviewed, part):
    if part in {"outlook", "proofs", "file"}:
        bad = dataclasses.replace(reviewed, **{part: spoilt(getattr(reviewed, part))})
    else:
        verdict = dataclasses.replace(reviewed.verdict, **{part: spoilt(getattr(reviewed.verdict, part), part)})
        bad = dataclasses.replace(reviewed, verdict=verdict)
    text = render([bad])
    page = Page(text)
    assert page.closed
    assert page.of("script") == page.of("style") == [{}]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on") or name == "style"]
    assert all(attrs["href"].startswith("#") for attrs in page.of("a"))
    assert not [sign for sign in text if not sign.isprintable() and sign != "\n"]
    assert "{{7*7}}" in text or "<script>alert" not in page.text()
    assert " 49 " not in page.text()
    text.encode()
    for attrs in (attrs for _, attrs in page.tags if "data-outlook" in attrs):
        told = json.loads(attrs["data-outlook"])
        assert not [sign for row in told["rows"] for sign in row["name"] if not sign.isprintable()]


def test_a_group_that_the_ledger_invents_becomes_no_class():
    drawn = burn_down("f", [Line('x" onload="alert(1)', ((0.5, 0.5),))], title="<b>", ends=("\u202e", "b"))
    page = Page(str(drawn))
    assert not [name for _, attrs in page.tags for name in attrs if name == "onload"]
    assert "<b>" not in drawn
    assert "\u202e" not in drawn


@pytest.mark.parametrize("sign", ["\x1b", "\u202e", "\u2066", "\u200b", "\ufeff", "\x7f", "\x85", "\u2028", "\ud800"])
def test_what_cannot_be_seen_is_named(sign):
    assert visible(f"a{sign}b") == f"a⟨U+{ord(sign):04X}⟩b"
    assert tidy(3) == 3


def test_figures_are_never_rounded_to_nothing_or_all():
    assert (percent(0), percent(1), percent(1e-9), percent(0.99999), percent(0.5)) == (
        "0.0 %",
        "100.0 %",
        "< 0.1 %",
        "> 99.9 %",
        "50.0 %",
    )
    assert percent(float("inf")) == "more than all"
    assert (epsilon(1e-05), epsilon(None), moment("yesterday")) == ("1e-5", "–", "yesterday")


# --- further studies --------------------------------------------------------------------------------------


def test_the_outlook_is_what_calibration_and_filter_say(reviewed):
    found, verdict = reviewed.outlook, reviewed.verdict
    plan = plan_from_dict(verdict.plans[verdict.studies[-1].plan])
    assert found.own == plan.privacy.epsilon
    assert list(found.epsilons) == sorted(found.epsilons)
    assert max(found.epsilons) <= verdict.policy["budget"]["study_epsilon"]
    at = len(found.epsilons) // 2
    privacy = dataclasses.replace(plan.privacy, epsilon=found.epsilons[at])
    mechanisms = calibrate(dataclasses.replace(plan, privacy=privacy))
    for row in found.rows:
        budget = next(b for b in verdict.budgets if (b.name, b.group) == (row.name, row.group))
        limit = Filter(budget.epsilon, budget.delta)
        cost = curve(mechanisms.events(row.group))[limit.index] / limit.capacity
        assert row.costs[at] == pytest.approx(cost, rel=1e-9)
        assert list(row.costs) == sorted(row.costs)


def test_as_many_more_like_the_last_fit_as_the_budget_says(reviewed):
    found, verdict = reviewed.outlook, reviewed.verdict
    at = found.epsilons.index(found.own)
    for row in found.rows:
        budget = next(b for b in verdict.budgets if (b.name, b.group) == (row.name, row.group))
        assert int((1 - row.share) / row.costs[at]) == dict(budget.runs)[found.study]


def test_no_outlook_without_a_plan_or_a_policy(reviewed):
    verdict = reviewed.verdict
    for lacking in ({"plans": {}}, {"policy": None}, {"budgets": ()}, {"policy": {"odd": 1}}, {"studies": ()}):
        assert outlook(dataclasses.replace(verdict, **lacking)) is None
    text = render([dataclasses.replace(reviewed, outlook=None)])
    assert "Cannot be told" in text
    assert "load the page again" in render([dataclasses.replace(reviewed, outlook=None, working=True)])


def test_only_epsilons_that_the_policy_permits_are_offered():
    assert max(epsilons_up_to(4.0, 9.0)) == 4.0
    assert 0.123 in epsilons_up_to(4.0, 0.123)
    assert all(0 < value <= 2.0 for value in epsilons_up_to(2.0, 1.0))
