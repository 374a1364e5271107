"""The sections "What to do with it" and "Fairness" of a study's page, drawn from the example report."""

import json
import re
from html import unescape
from pathlib import Path

import pytest

from coterie.simulations.report import render, render_comparison, render_sweep
from coterie.tests.simulations.test_report import BAND, DASH, HOSTILE, Reader, deployed, nulled

EXAMPLE = Path(__file__).with_name("example_report.json")
KEYS = ("calibration_fit", "decisions", "fairness")


def example():
    return json.loads(EXAMPLE.read_text(encoding="utf-8"))


@pytest.fixture
def report():
    """Of a deployed study, which is drawn sooner."""
    return {**deployed(example()), "budget": []}


@pytest.fixture(scope="module")
def page():
    return render({**deployed(example()), "budget": []})


def section(page, name):
    return re.search(rf'<section aria-labelledby="{name}">.*?</section>', page, re.DOTALL).group(0)


def percent(value):
    return f"{100 * value:.1f}".removesuffix(".0") + " %"


def test_every_budget_is_printed_with_its_intervals(report, page):
    words = Reader(section(page, "decisions")).words
    for one in report["release"]["decisions"]["budgets"]:
        lift, reached, rate, least = one["lift"], one["conversions"], one["rate"], one["threshold"]
        assert (
            f"{percent(one['share'])} {percent(least['value'])} {percent(least['low'])} to {percent(least['high'])} "
            f"{percent(one['calibrated'])} "
            f"{percent(reached['value'])} {percent(reached['low'])} to {percent(reached['high'])} "
            f"{lift['value']:.2f} {lift['low']:.2f} to {lift['high']:.2f} "
            f"{percent(rate['value'])} {percent(rate['low'])} to {percent(rate['high'])}"
        ) in words


def test_every_ratio_has_its_row_and_its_figure(report, page):
    words = Reader(section(page, "decisions")).words
    for at, one in enumerate(report["release"]["decisions"]["profits"], start=1):
        assert f"A conversion is worth {one['ratio']} contacts:" in words
        assert f"{one['ratio']} contacts {percent(one['share']['value'])}" in words
        assert f"best at {percent(one['share']['value'])}" in words
        assert f'id="profit-{at}-' in page
        places = 3 if one["profit"]["value"] < 1 else 2
        assert f"+{one['profit']['value']:.{places}f}" in words


def test_the_correction_of_scores_is_said(report, page):
    words = Reader(section(page, "decisions")).words
    fitted = report["release"]["calibration_fit"]
    assert f"take its log-odds times {fitted['slope']:.2f} (± {fitted['slope_error']:.2f}) and add" in words
    assert f"± {report['release']['decisions']['noise']:.1f} customers" in words.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("kind", "said"),
    [("intercept", "only their level is corrected"), ("constant", "worth the same"), ("none", "take them as ranks")],
)
def test_a_correction_of_less_says_so(report, kind, said):
    report["release"]["calibration_fit"]["kind"] = kind
    words = Reader(section(render(report), "decisions")).words
    assert said in words
    assert "log-odds times" not in words


def test_every_group_and_gap_is_printed(report, page):
    held = report["release"]["fairness"]
    words = Reader(section(page, "fairness")).words
    for one in held["groups"]:
        row = f"{one['group']} {one['customers']:,.0f}".replace(",", "\u202f")
        if one["auc"] is None:
            assert " ".join(f"{row} too few to say".split()) in words
            continue
        assert " ".join(f"{row} {one['auc']['value']:.3f}".split()) in words
        for name in ("selected", "reached"):
            assert f"{percent(one[name]['value'])} {percent(one[name]['low'])} to" in words
    for gap in held["gaps"]:
        assert f"{gap['most']} {gap['least']}" in words
    assert held["column"] in words


def test_they_stand_between_the_releases_and_the_guarantee_and_outside_the_band(page):
    whole = render(example())
    places = [whole.index(f'id="{name}"') for name in ("releases", "decisions", "fairness", "guarantee", "simulation")]
    assert places == sorted(places)
    assert 'id="decisions"' not in BAND.search(whole).group(0)
    assert section(whole, "decisions") == section(page, "decisions")
    assert section(whole, "fairness") == section(page, "fairness")


def test_older_reports_are_drawn_without_them(report, page):
    for key in KEYS:
        del report["release"][key]
    older = render(report)
    assert not Reader(older).faults
    # What is left is what stood there before.
    whole = page
    for name in ("decisions", "fairness"):
        whole = whole.replace(section(whole, name), "")
    assert older.split() == whole.split()


def test_an_older_report_is_compared_with_a_newer_one():
    older = example()
    for key in KEYS:
        del older["release"][key]
    for drawn in (render_comparison(older, example()), render_sweep([older, example()])):
        assert not Reader(drawn).faults


def test_without_groups_there_is_no_fairness_section(report):
    del report["release"]["fairness"]
    page = render(report)
    assert 'id="fairness"' not in page
    assert 'id="decisions"' in page


def test_what_is_lost_in_the_noise_becomes_sentences(report):
    report["release"]["decisions"].update(budgets=[], reach=[], profits=[])
    report["release"]["fairness"]["gaps"] = []
    for one in report["release"]["fairness"]["groups"]:
        one.update(auc=None, calibration=None, selected=None, reached=None)
    reader = Reader(render(report))
    assert not reader.faults
    assert "Conversions are lost in the noise." in reader.words
    assert "Fewer than two groups have enough customers to compare." in reader.words
    assert "None" not in reader.words


def test_unknown_figures_are_dashes(report):
    report["release"] = {**nulled(report["release"]), "refusals": []}
    for one in report["release"]["fairness"]["groups"]:
        assert one["customers"] is None
    for name in ("decisions", "fairness"):
        reader = Reader(section(render(report), name))
        assert not reader.faults
        assert DASH in reader.words
        assert "None" not in reader.words
        assert not re.search(r"\bnan\b", reader.words)


def test_hostile_names_are_escaped(report):
    held = report["release"]["fairness"]
    held["column"] = HOSTILE
    for one in held["groups"]:
        one["group"] = HOSTILE
    for gap in held["gaps"]:
        gap.update(most=HOSTILE, least=HOSTILE, figure=HOSTILE)
    page = render(report)
    assert "<script" not in page
    reader = Reader(page)
    assert not reader.faults
    assert HOSTILE in unescape(reader.words)


def test_nobody_and_everybody_are_drawn(report):
    best = report["release"]["decisions"]["profits"][0]
    nothing = {"value": 0.0, "low": 0.0, "high": 0.0}
    best.update(threshold={"value": 1.0, "low": 0.9, "high": 1.0}, share=nothing, profit=nothing)
    reader = Reader(section(render(report), "decisions"))
    assert not reader.faults
    assert "best at 0 %" in reader.words
