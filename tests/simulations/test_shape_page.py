"""The section "What the model says" of a study's page, and the key of the report that it is drawn from."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest

from coterie.clients.explaining import explained
from coterie.clients.task import initial_weights, weight_shapes
from coterie.models.card import model_card
from coterie.privacy.plan import Bins, Secure
from coterie.server.aggregate import AdamState
from coterie.server.registry import Progress
from coterie.simulations.releases import released
from coterie.simulations.report import render
from coterie.simulations.shaped import shaped
from coterie.tests.clients.binnedkit import binned
from coterie.tests.simulations.test_report import BAND, DASH, HOSTILE, Reader, deployed

EXAMPLE = Path(__file__).with_name("example_report.json")
PLAN = binned("additive", bins=Bins(most=5, cells=16, rising=("spend",), pairs=("age * region",)))


def weights_of(plan):
    draw = np.random.default_rng(6)
    counts, *others = weight_shapes(plan)
    return (draw.uniform(0, 0.2, counts).astype(np.float32), *(draw.normal(size=s).astype(np.float32) for s in others))


def shapes_of(plan=PLAN):
    return shaped(plan, weights_of(plan))["shapes"]


def report_of(shapes):
    report = {**deployed(json.loads(EXAMPLE.read_text(encoding="utf-8"))), "budget": []}
    return {**report, "release": {**report["release"], "shapes": shapes}}


@pytest.fixture
def shapes():
    return shapes_of()


@pytest.fixture(scope="module")
def page():
    return render(report_of(shapes_of()))


def section(page):
    return re.search(r'<section aria-labelledby="shapes">.*?</section>', page, re.DOTALL).group(0)


def figure(value, places=2):
    return f"{value:.{places}f}".replace("-", "\u2212")


def test_a_finished_study_on_bins_tells_its_published_model():
    weights = weights_of(PLAN)
    progress = Progress(PLAN.digest(), 1, weights, AdamState.start(weights))
    found = released(PLAN, progress)["shapes"]
    assert found == json.loads(json.dumps(found, allow_nan=False))
    told = explained(PLAN, weights)
    assert found["customers"] == 400
    assert found["intercept"] == told.intercept
    assert [one["name"] for one in found["columns"]] == [one.name for one in told.shapes]
    for one, shape in zip(found["columns"], told.shapes, strict=True):
        assert one["importance"] == shape.importance
        assert [point["contribution"] for point in one["points"]] == [point.contribution for point in shape.points]
        assert all(point["noise"] <= point["noise_most"] for point in one["points"])
    assert {one["name"]: one["trend"] for one in found["columns"]} == {"age": 0, "spend": 1, "region": 0}
    assert {one["name"]: one["spacing"] for one in found["columns"]} == {
        "age": "even",
        "spend": "log",
        "region": "even",
    }
    assert found["pairs"][0]["names"] == ["age", "region"]
    assert np.shape(found["pairs"][0]["contribution"]) == (7, 7)


@pytest.mark.parametrize("family", ["mlp", "logistic without bins"])
def test_models_that_cannot_be_told_have_no_such_key(family):
    plan = binned("mlp") if family == "mlp" else binned("logistic", bins=None, secure=None)
    assert shaped(plan, initial_weights(plan)) == {}


def test_every_slot_is_in_the_table_as_it_is_in_the_report(shapes, page):
    words = Reader(section(page)).words
    for column in shapes["columns"]:
        for point in column["points"]:
            sign = "+" if point["contribution"] > 0 else ""
            span = f"{figure(point['noise'])} to {figure(point['noise_most'])}"
            share = f"{100 * point['share']:.1f}".removesuffix(".0") + " %"
            row = f"{column['name']} {point['label']} {share} {sign}{figure(point['contribution'])} {span}"
            assert f"{row} {figure(point['sampling'])}" in words
    assert figure(shapes["intercept"]) in words


def test_pictures_come_by_importance_and_trends_are_marked(shapes, page):
    words = Reader(section(page)).words
    order = [words.index(f"{one['name']}: {figure(one['importance'])} on average.") for one in shapes["columns"]]
    assert order == sorted(order)
    spend = next(one for one in shapes["columns"] if one["name"] == "spend")
    assert f"spend: {figure(spend['importance'])} on average. It may only rise." in words
    assert "age × region:" in words
    assert "It may only fall" not in words
    assert not re.search(r"(age|region): [0-9.]+ on average\. It may", words)


def test_the_section_is_sound_stands_among_the_releases_and_outside_the_band(shapes, page):
    reader = Reader(page)
    assert not reader.faults
    assert len(set(reader.ids)) == len(reader.ids)
    whole = render({**json.loads(EXAMPLE.read_text(encoding="utf-8")), "release": report_of(shapes)["release"]})
    places = [whole.index(f'id="{name}"') for name in ("releases", "shapes", "decisions", "guarantee", "simulation")]
    assert places == sorted(places)
    assert 'id="shapes"' not in BAND.search(whole).group(0)
    assert section(whole) == section(page)


def test_a_report_without_shapes_is_drawn_as_before(page):
    older = report_of(None)
    del older["release"]["shapes"]
    assert render(older).split() == page.replace(section(page), "").split()


def test_names_and_words_are_escaped(shapes):
    hostile = copy.deepcopy(shapes)
    for column in hostile["columns"]:
        column["name"] = HOSTILE
        for point in column["points"]:
            point["label"] = HOSTILE
    hostile["pairs"][0].update(names=[HOSTILE, HOSTILE], groups=[[HOSTILE] * 7] * 2)
    drawn = render(report_of(hostile))
    assert not Reader(drawn).faults
    assert "<script" not in drawn


def test_noise_that_is_not_known_is_a_dash_and_everything_is_drawn():
    bins = Bins(most=5, cells=16, pairs=("age * region",))
    plan = binned("logistic", bins=bins, secure=Secure(optimizer="adam"))
    found = shapes_of(plan)
    assert {point["noise"] for column in found["columns"] for point in column["points"]} == {None}
    words = Reader(section(render(report_of(found)))).words
    assert f" {DASH} " in words
    report = report_of(found)
    assert "lost in the noise" not in model_card({**report, "study": {**report["study"], "task": "propensity"}})


def test_a_column_that_nobody_has_and_many_words_are_drawn(shapes):
    empty = copy.deepcopy(shapes)
    for column in empty["columns"]:
        for point in column["points"]:
            point.update(share=-0.001, contribution=0.0)
    assert not Reader(render(report_of(empty))).faults
    many = copy.deepcopy(shapes)
    region = next(column for column in many["columns"] if column["name"] == "region")
    region["points"] = [{**region["points"][0], "label": f"word {at}", "share": 0.01} for at in range(60)]
    words = Reader(section(render(report_of(many)))).words
    assert "The 18 most frequent of 60." in words
    assert words.count("word 59") == 1  # in the table alone


def test_of_hundreds_of_columns_the_most_important_are_drawn(shapes):
    region = next(column for column in shapes["columns"] if column["name"] == "region")
    wide = {**shapes, "columns": [{**region, "name": f"column {at:03d}"} for at in range(30)], "pairs": []}
    drawn = section(render(report_of(wide)))
    assert len(re.findall(r'id="shape-24-', drawn)) > 0
    assert 'id="shape-25-' not in drawn
    assert "6 more, which matter less, are not drawn." in drawn
