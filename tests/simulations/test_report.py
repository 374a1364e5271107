"""The report pages, drawn from an example whose figures are made up: realistic in size, measured nowhere."""

import copy
import json
import re
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from coterie.privacy.errors import FileFault
from coterie.simulations.report import render, render_comparison, render_sweep, sweep_figure

EXAMPLE = Path(__file__).with_name("example_report.json")
BAND = re.compile(r'<section class="simulation".*?</section>\s*', re.DOTALL)
HOSTILE = "<script>alert('x')</script>\"&$\\frac{a$ --> </svg>"
DASH = "\u2013"
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Reader(HTMLParser):
    """Checks that tags balance, and gathers text, ids, headings and addresses."""

    def __init__(self, page):
        super().__init__()
        self.open, self.faults, self.text = [], [], []
        self.ids, self.references, self.headings, self.tags = [], [], [], []
        self.feed(page)
        self.close()
        self.faults += self.open

    def handle_starttag(self, tag, attrs):
        self._note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self._note(tag, attrs)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    def _note(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "src", "xlink:href", "aria-labelledby"):
                self.references.append(value if value.startswith("#") else f"#{value}")
            self.references += [f"#{found}" for found in re.findall(r"url\(#([^)]*)\)", value or "")]
            if name == "aria-label":
                self.text.append(value)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture
def report():
    return json.loads(EXAMPLE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pages():
    return every_page(json.loads(EXAMPLE.read_text(encoding="utf-8")))


def at_epsilon(report, epsilon):
    other = copy.deepcopy(report)
    other["guarantee"]["study"]["epsilon"] = epsilon
    return other


def deployed(report):
    return {key: value for key, value in report.items() if key != "simulation"}


def every_page(report):
    swept = [at_epsilon(report, epsilon) for epsilon in (0.5, 1.0, 2.0, 4.0, 8.0)]
    return [
        render(report),
        render(deployed(report)),
        render_comparison(report, at_epsilon(report, 1.6)),
        render_comparison(report, deployed(report)),
        render_sweep(swept),
        render_sweep(swept[:1]),
    ]


def nulled(value, keep=("round", "key", "partner", "depth", "step", "group")):
    """Replace every figure by null, as where nothing is known."""
    if isinstance(value, dict):
        return {key: entry if key in keep else nulled(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [nulled(entry) for entry in value]
    return None if isinstance(value, (int, float)) else value


def test_pages_are_self_contained_and_well_formed(pages):
    for page in pages:
        reader = Reader(page)
        assert not reader.faults
        assert "http://" not in page
        assert "https://" not in page
        assert "<script" not in page
        assert "@import" not in page
        assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in reader.tags}
        assert len(reader.ids) == len(set(reader.ids))
        assert {reference.removeprefix("#") for reference in reader.references} <= set(reader.ids)
        assert len(page) < 1_500_000


def test_pages_are_accessible(pages):
    for page in pages:
        reader = Reader(page)
        assert '<html lang="en-GB">' in page
        assert reader.headings[0] == 1
        assert reader.headings.count(1) == 1
        assert all(lower <= upper + 1 for upper, lower in pairwise(reader.headings))
        for tag, attributes in reader.tags:
            assert tag != "th" or attributes.get("scope") in ("col", "row")
            assert tag != "svg" or attributes.get("aria-label") or attributes.get("aria-hidden") == "true"
        assert page.count("<table>") == page.count("<caption>")


def test_order_of_the_page(report):
    page = render(report)
    marks = ["<h1>", 'id="releases"', 'id="guarantee"', 'id="budget"', 'id="simulation"', 'id="record"']
    places = [page.index(mark) for mark in marks]
    assert places == sorted(places)
    assert "Simulation only: computed from exact held-out labels; none of this would leave a partner" in page


def test_exact_figures_stay_inside_the_band(report):
    page = render(report)
    assert len(BAND.findall(page)) == 1
    # What lies outside the band is what a deployed study would print, word by word.
    assert BAND.sub("", page).split() == render(deployed(report)).split()


def test_deployed_report_has_no_band(report):
    page = render(deployed(report))
    assert "Simulation only" not in page
    assert '<section class="simulation"' not in page
    assert '<section class="simulation"' not in render_comparison(report, deployed(report))


def test_every_number_of_the_simulation_is_printed(report):
    band = Reader(BAND.search(render(report)).group(0)).words
    held = report["simulation"]
    for model in held["models"]:
        assert model["title"] in band
        for name, figure in model["metrics"].items():
            places = 2 if name == "top_decile_lift" else 3
            for part in ("mean", "low", "high"):
                assert f"{figure[part]:.{places}f}" in band
        for value in model["metrics"]["auc"]["seeds"]:
            assert f"{value:.3f}" in band
    for partner in held["partners"]:
        for figure in partner["models"].values():
            for part in ("mean", "low", "high"):
                assert f"{figure[part]:.3f}" in band
    for sentence in held["verdict"]:
        assert sentence in band


def test_released_figures_and_budgets_are_printed(report):
    words = Reader(render(report)).words
    for entry in report["release"]["rounds"]:
        assert f"{entry['auc']:.3f}" in words
    for entry in report["budget"]:
        assert entry["policy_digest"] in words
        assert (
            f"{100 * entry['lifetime_share']:.1f} % of the lifetime budget (ε {entry['lifetime_epsilon']:.2f}" in words
        )
    assert "δ = 10⁻⁶" in words
    assert report["study"]["digest"] in words
    assert report["model"]["sha256"] in words


def test_hostile_names_are_escaped(report):
    report["study"].update(name=HOSTILE, purpose=HOSTILE, dataset=HOSTILE)
    report["guarantee"]["words"] = [HOSTILE]
    for entry in (*report["budget"], *report["simulation"]["partners"], *report["release"]["refusals"]):
        entry["partner"] = HOSTILE
    for entry in report["study"]["partners"]:
        entry["name"] = HOSTILE
    for model in report["simulation"]["models"]:
        model["title"] = HOSTILE
    for entry in report["budget"]:
        entry["steps"][0]["step"] = HOSTILE
    for page in every_page(report):
        assert "<script" not in page
        reader = Reader(page)
        assert not reader.faults
        assert HOSTILE in unescape(reader.words)


def test_unknown_figures_are_dashes(report):
    bare = nulled(report)
    bare["study"]["partners"] = report["study"]["partners"]
    bare["guarantee"]["multiplicity"] = [{"partners": 1, "epsilon": None}]
    for page in (render(bare), render_comparison(bare, report), render_sweep([bare])):
        reader = Reader(page)
        assert not reader.faults
        assert DASH in reader.words
        assert "None" not in reader.words
        assert not re.search(r"\bnan\b", reader.words)


def test_one_seed_has_means_without_intervals(report):
    for model in report["simulation"]["models"]:
        for figure in model["metrics"].values():
            figure.update(low=None, high=None, seeds=figure["seeds"][:1])
    for entry in report["simulation"]["rounds"]:
        entry.update(low=None, high=None)
    for partner in report["simulation"]["partners"]:
        for figure in partner["models"].values():
            figure.update(low=None, high=None)
    page = render(report)
    assert f'0.732 <span class="interval">{DASH}</span>' in page
    assert " to 0." not in Reader(BAND.search(page).group(0)).words
    assert not Reader(render_comparison(report, report)).faults


def test_empty_lists_become_sentences(report):
    report["release"].update(rounds=[], calibration=[], lift=[], refusals=[])
    report["guarantee"].update(groups=[], multiplicity=[], not_covered=[])
    for entry in report["budget"]:
        entry["steps"] = []
    words = Reader(render(report)).words
    assert "No partner refused a step." in words
    assert "No metric was released." in words


def test_drawing_twice_gives_the_same_bytes(report, pages):
    assert every_page(report) == pages


def test_comparison_shows_what_differs(report):
    other = at_epsilon(report, 4.4)
    other["study"]["rounds"] = 20
    for part in ("mean", "low", "high"):
        other["simulation"]["models"][0]["metrics"]["auc"][part] += 0.1
    words = Reader(render_comparison(report, other)).words
    assert "Rounds 12 20" in words
    assert "Sample rate" not in words
    assert "ε of the study 3.19 4.40 +1.21" in words
    assert re.search(r"0\.732 \S+ to \S+ 0\.832 \S+ to \S+ \+0\.100 no", words)


def test_comparison_of_a_report_with_itself(report):
    page = render_comparison(report, report)
    assert "None differs." in Reader(page).words
    assert "<td>yes</td>" in page
    assert "<td>no</td>" not in page


@pytest.mark.parametrize("epsilons", [(2.0,), (8.0, 0.5, 4.0, 1.0, 2.0)])
def test_sweep_orders_and_lists_every_epsilon(report, epsilons):
    swept = [at_epsilon(report, epsilon) for epsilon in epsilons]
    figure = sweep_figure(swept)
    ticks = re.findall(r"<text[^>]*>([\d.]+)</text>", figure)
    for epsilon in epsilons:
        assert f"{epsilon:g}" in ticks
    for model in report["simulation"]["models"]:
        assert model["title"] in figure
    page = render_sweep(swept)
    assert figure in page
    rows = re.findall(r'<th scope="row">([\d.]+)</th>', BAND.search(page).group(0))
    assert [float(row) for row in rows] == sorted(epsilons)


def test_what_cannot_be_drawn_is_refused(report):
    with pytest.raises(FileFault, match="coterie/report/v1"):
        render({**report, "format": "coterie/report/v9"})
    with pytest.raises(FileFault, match="at least one report"):
        render_sweep([])
    with pytest.raises(FileFault, match="simulation"):
        render_sweep([report, deployed(report)])
