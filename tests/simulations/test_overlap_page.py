"""The page and the picture of shared customers: every printed count, nothing exact, and no stranger's markup."""

import itertools
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from coterie.privacy.matching.overlap import Estimate, Overlap
from coterie.simulations.report.drawing import named
from coterie.simulations.report.overlaps import overlap_page, overlap_svg
from coterie.simulations.report.upset import MOST

HOSTILE = "<script>alert(1)</script>\"' onload=x \u202e $x$ & co"
SVG = "{http://www.w3.org/2000/svg}"


def overlap_of(names, customers=lambda at: 1000 + 7 * at, least=50, deviation=12.5):
    """Counts by hand: each cell has a count of its own, so that none can stand in for another."""
    every = [part for size in range(1, len(names) + 1) for part in itertools.combinations(names, size)]
    known = {part: customers(at) for at, part in enumerate(every)}

    def some(partners, chosen):
        total = sum(known[part] or 0 for part in chosen)
        return Estimate(partners, total if total >= least else None, deviation)

    return Overlap(
        tuple(names),
        least,
        9.123,
        196,
        tuple(Estimate(part, known[part], deviation) for part in every),
        tuple(some((name,), [part for part in every if name in part]) for name in names),
        tuple(some(pair, [p for p in every if set(pair) <= set(p)]) for pair in itertools.combinations(names, 2)),
        tuple(some((str(k),), [part for part in every if len(part) == k]) for k in range(1, len(names) + 1)),
    )


def names_of(count):
    return tuple(f"market {number}" for number in range(1, count + 1))


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self._style = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_endtag(self, tag):
        self._style = False

    def handle_data(self, data):
        self.words += [] if self._style else [data]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def texts(svg):
    """Every text of a picture, with where it stands and how it is anchored."""
    root = ElementTree.fromstring(svg)  # noqa: S314 - our own
    return root, list(root.iter(f"{SVG}text"))


@pytest.mark.parametrize("count", [2, 3])
def test_circles_have_every_cell_s_count_with_its_deviation_and_every_partner_s_total(count):
    overlap = overlap_of(names_of(count))
    _, nodes = texts(overlap_svg(overlap))
    words = [node.text for node in nodes]
    for one in overlap.cells:
        assert words.count(f"{one.customers:,}") == 1
    assert words.count("± 12") == len(overlap.cells)
    for one in overlap.totals:
        assert f"{one.customers:,} customers" in words
    assert set(overlap.names) <= set(words)


@pytest.mark.parametrize("count", [2, 3])
def test_a_count_stands_in_exactly_the_circles_of_its_partners(count):
    overlap = overlap_of(names_of(count))
    root, nodes = texts(overlap_svg(overlap))
    circles = [(float(c.get("cx")), float(c.get("cy")), float(c.get("r"))) for c in root.iter(f"{SVG}circle")]
    assert len(circles) == count
    for one in overlap.cells:
        node = next(node for node in nodes if node.text == f"{one.customers:,}")
        x, y = float(node.get("x")), float(node.get("y")) + 6  # the middle of the count and its deviation
        inside = {name for name, (cx, cy, r) in zip(overlap.names, circles, strict=True) if _within(x, y, cx, cy, r)}
        assert inside == set(one.partners)


def _within(x, y, across, up, radius):
    return (x - across) ** 2 + (y - up) ** 2 < radius**2


@pytest.mark.parametrize("count", [4, 6, 8])
def test_columns_have_the_largest_sets_in_order_and_dots_that_name_their_partners(count):
    overlap = overlap_of(names_of(count))
    root, nodes = texts(overlap_svg(overlap))
    largest = sorted(overlap.cells, key=lambda one: -one.customers)[:MOST]
    shown = [node.text for node in nodes if "rotate(-90)" in (node.get("transform") or "")]
    assert shown == [f"{one.customers:,}" for one in largest]
    dots = [c for c in root.iter(f"{SVG}circle") if c.get("r") == "6"]
    rows = sorted({float(c.get("cy")) for c in root.iter(f"{SVG}circle")})
    columns = sorted({float(c.get("cx")) for c in dots})
    assert len(rows) == count
    for one, across in zip(largest, columns, strict=True):
        marked = {overlap.names[rows.index(float(c.get("cy")))] for c in dots if float(c.get("cx")) == across}
        assert marked == set(one.partners)


def test_bars_are_as_high_as_their_counts_say():
    overlap = overlap_of(names_of(5))
    root, _ = texts(overlap_svg(overlap))
    bars = [float(r.get("height")) for r in root.iter(f"{SVG}rect") if r.get("width") == "20.0"]
    counts = sorted((one.customers for one in overlap.cells), reverse=True)[:MOST]
    assert bars == pytest.approx([bars[0] * count / counts[0] for count in counts], abs=0.11)


@pytest.mark.parametrize("count", [2, 3, 6, 8])
@pytest.mark.parametrize("name", ["m", "a market with a very long trading name, limited, of the north"])
def test_nothing_stands_outside_the_picture(count, name):
    overlap = overlap_of(tuple(f"{number} {name}" for number in range(count)), customers=lambda at: 9_000_000 + at)
    page = overlap_page(overlap, "overlap")
    pictures = [overlap_svg(overlap), *re.findall(r"<svg xmlns.*?</svg>", page, flags=re.DOTALL)]
    assert len(pictures) == 4
    for picture in pictures:
        root, nodes = texts(picture)
        _, _, width, height = map(float, root.get("viewBox").split())
        for node in nodes:
            long = 0.58 * float(node.get("font-size")) * len(node.text)
            turned = re.match(r"translate\(([\d.]+) ([\d.]+)\) rotate\((-\d+)\)", node.get("transform") or "")
            if turned:
                x, y = float(turned[1]), float(turned[2])
                share = {"-90": (0.0, 1.0), "-32": (0.85, 0.53)}[turned[3]]
                assert y - share[1] * long >= -2, node.text
                assert x + share[0] * long <= width + 2, node.text
            else:
                x, y = float(node.get("x")), float(node.get("y"))
                start = {"start": x, "middle": x - long / 2, "end": x - long}[node.get("text-anchor")]
                assert start >= -2, node.text
                assert start + long <= width + 2, node.text
                assert 0 < y <= height, node.text


def test_counts_below_the_least_are_words_and_never_numbers():
    overlap = overlap_of(names_of(3), customers=lambda at: None if at == 3 else 1000 + at)
    svg, page = overlap_svg(overlap), Page(overlap_page(overlap, "overlap"))
    assert "below 50" in svg
    assert "1 set is below 50 customers with noise, and not given." in page.text
    assert "1,003" not in svg


def test_a_page_has_every_count_a_title_and_shares_by_number_of_partners():
    overlap = overlap_of(names_of(4))
    page = Page(overlap_page(overlap, "Spring shares", words=["Nobody can tell."]))
    for one in (*overlap.cells, *overlap.pairs, *overlap.totals, *overlap.multiplicity):
        assert f"{one.customers:,}" in page.text
    whole = sum(one.customers for one in overlap.multiplicity)
    for one in overlap.multiplicity:
        assert f"({100 * one.customers / whole:.1f} %)" in page.text
    several = sum(one.customers for one in overlap.multiplicity[1:]) / whole
    assert f"An estimated {100 * several:.1f} %" in page.text
    assert "Spring shares" in page.text
    assert "Nobody can tell." in page.text
    assert "imulation" not in page.text


def test_a_page_loads_nothing_and_runs_nothing():
    page = overlap_page(overlap_of(names_of(5)), "overlap")
    held = Page(page)
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in held.tags}
    assert not [v for _, attrs in held.tags for k, v in attrs.items() if k in {"src", "href"} and not v.startswith("#")]
    assert set(re.findall(r"https?://[^\s\"<]+", page)) <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_partner_s_name_is_text_and_nothing_else(count):
    names = (HOSTILE, *names_of(count)[1:])
    overlap = overlap_of(names)
    page = Page(overlap_page(overlap, HOSTILE))
    ElementTree.fromstring(overlap_svg(overlap))  # noqa: S314 - well-formed
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
    assert "\u202e" not in overlap_svg(overlap)
    assert named(HOSTILE) in page.text


def test_exact_counts_are_in_a_band_that_says_simulation_alone():
    overlap = overlap_of(names_of(2))
    exact = {frozenset(one.partners): 77_000 + at for at, one in enumerate(overlap.cells)}
    text = Page(overlap_page(overlap, "overlap", exact=exact)).text
    before, _, after = text.partition("Simulation only")
    assert "77,001" in after
    assert "77,001" not in before
    assert "−76,000" in after  # 1,000 counted where there are 77,000
    assert "77,001" not in overlap_page(overlap, "overlap")


def test_the_same_counts_make_the_same_page():
    overlap = overlap_of(names_of(6))
    assert overlap_page(overlap, "overlap") == overlap_page(Overlap.from_dict(overlap.to_dict()), "overlap")
