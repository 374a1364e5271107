"""Bad input to private bins: what is wrong with a table leaves as one word, and what the contract lets pass is counted.

Nothing that is counted at home, clipped to bounds or put where what is missing is put, costs anything.
"""

import dataclasses
import math
import shutil

import numpy as np
import pyarrow as pa
import pytest

from coterie.clients.refusals import TaskRefused
from coterie.clients.task import binning_of
from coterie.models.binning import cells_of, layout_of
from coterie.privacy.calibration import calibrate
from coterie.privacy.sums import numbers_of
from coterie.tests.clients.binnedkit import CONTRACT, Binned, binned, log_edge, own_cells, table_of, without_noise
from coterie.tests.clients.federation import with_cells, with_column
from coterie.tests.clients.summing import FOUR, quick_folder


def contract(*, among=("age", "spend", "region"), **changes):
    """The contract with some of its columns changed."""
    columns = tuple(dataclasses.replace(c, **changes) if c.name in among else c for c in CONTRACT.columns)
    return dataclasses.replace(CONTRACT, columns=columns)


PLANS = {
    "plain": binned(),
    "strict": binned(contract=contract(outside="error", missing="error")),
    "wrong bounds": binned(contract=contract(among=("age",), low=1000, high=2000, outside="clip")),
    "far": binned(contract=contract(among=("spend",), high=1e12)),
}
CLEAN = with_column(
    with_column(with_column(table_of(), "age", list(range(18, 90)) + [50] * 8), "spend", [float(n) for n in range(80)]),
    "region",
    ["north", "south"] * 40,
)


@pytest.fixture(scope="module")
def made():
    with quick_folder() as folder:
        tables = dict.fromkeys(FOUR, CLEAN)
        yield {label: Binned(folder / label.replace(" ", "-"), plan, tables).consent() for label, plan in PLANS.items()}


@pytest.fixture
def begin(made, monkeypatch):
    copies = []
    without_noise(monkeypatch)

    def copy(label, table):
        template = made[label]
        copies.append(template.copied(template.root.with_name(f"copy-{len(copies)}")))
        copies[-1].put(table)
        return copies[-1]

    yield copy
    for one in copies:
        shutil.rmtree(one.root)


def counted(federation):
    """How many training customers are in every cell, and how many there are."""
    (total,) = federation.answer("count/1").arrays
    each = math.isqrt(numbers_of(federation.plan, "count/1").sensitivity ** 2 // 3)
    assert not (total % each).any()
    counts = total // each
    spans = binning_of(federation.plan).cell_spans()
    assert len({int(counts[span].sum()) for span in spans}) == 1
    return counts, int(counts[spans[0]].sum())


def charged(federation):
    return [(r.charge.step, r.charge.event) for r in federation.reservations()]


def once(federation):
    """What a count costs, whatever is in the table."""
    return [("count/1", calibrate(federation.plan).counting)]


# --- what passes --------------------------------------------------------------------------------------------------


def test_a_column_with_one_value_alone_is_one_cell_and_makes_bins_like_any_other(begin):
    table = with_column(CLEAN, "age", [30] * 80)
    federation = begin("plain", table)
    counts, customers = counted(federation)
    age = binning_of(federation.plan).cell_spans()[0]
    assert sorted(counts[age].tolist()) == [0] * 16 + [customers]
    layout = layout_of(binning_of(federation.plan), (counts / customers).astype(np.float32))
    (alone,) = np.flatnonzero(counts[age])
    assert len(set(layout.slot[: age.stop - 1].tolist())) == 5
    assert layout.share[layout.slot[alone]] == pytest.approx(1.0)
    assert charged(federation) == once(federation)


def test_a_word_outside_the_vocabulary_is_in_the_cell_of_what_is_missing_and_counted_at_home(begin):
    federation = begin("plain", with_column(CLEAN, "region", ["north", "atlantis", None, "mu"] * 20))
    counts, customers = counted(federation)
    region = binning_of(federation.plan).cell_spans()[2]
    assert counts[region.stop - 1] + counts[region.start] == customers
    assert counts[region.stop - 1] > customers / 2
    assert {"region: outside the vocabulary: 40", "region: missing: 20"} <= federation.noted()
    assert charged(federation) == once(federation)


def test_a_feature_that_is_missing_everywhere_is_in_one_cell_and_counted_at_home(begin):
    table = CLEAN.set_column(1, "age", pa.nulls(80, pa.int64()))
    table = table.set_column(3, "region", pa.nulls(80))
    federation = begin("plain", table)
    counts, customers = counted(federation)
    for span in binning_of(federation.plan).cell_spans()[::2]:
        assert counts[span.stop - 1] == customers
    assert {"age: missing: 80", "region: missing: 80"} <= federation.noted()
    assert federation.answer("train/1").arrays[0].any()
    assert charged(federation)[:1] == once(federation)


def test_values_beyond_the_bounds_are_clipped_counted_at_home_and_cost_nothing(begin):
    table = with_cells(CLEAN, "spend", {0: -1e300, 1: 1e300, 2: 5001.0, 3: 5000.0, 4: -0.5})
    federation = begin("plain", table)
    training, _ = federation.divided(table)
    counts, _ = counted(federation)
    wanted = np.bincount(np.ravel([own_cells(federation.plan, row) for row in training]), minlength=len(counts))
    assert counts.tolist() == wanted.tolist()
    assert "spend: clipped: 4" in federation.noted()
    assert charged(federation) == once(federation)


def test_wrong_bounds_in_the_contract_leave_a_column_of_one_cell_and_cost_nothing(begin):
    federation = begin("wrong bounds", CLEAN)
    counts, customers = counted(federation)
    assert counts[0] == customers  # everybody at the lower bound
    assert "age: clipped: 80" in federation.noted()
    assert federation.answer("train/1").arrays[0].any()
    assert charged(federation)[:1] == once(federation)


def test_heavy_tails_are_apart_in_cells_that_grow(begin):
    values = [0.0, 1.0, *(10.0**power for power in range(1, 13)), *[7.5] * 66]
    table = with_column(CLEAN, "spend", values)
    federation = begin("far", table)
    training, _ = federation.divided(table)
    counts, _ = counted(federation)
    wanted = np.bincount(np.ravel([own_cells(federation.plan, row) for row in training]), minlength=len(counts))
    assert counts.tolist() == wanted.tolist()
    spend = binning_of(federation.plan).columns[1]
    cells = cells_of(
        dataclasses.replace(binning_of(federation.plan), columns=(spend,)), {"spend": np.array(values[:14])}
    )
    assert len(set(cells[:, 0].tolist())) >= 13  # 1 and 10 are a tenth of a decade from being one
    assert cells.max() == spend.cells - 2


# --- what does not ------------------------------------------------------------------------------------------------

BROKEN = {
    "a word outside the vocabulary": (
        with_cells(CLEAN, "region", {3: "atlantis"}),
        "outside the contract's vocabulary",
    ),
    "a missing number": (with_cells(CLEAN, "age", {3: None}), "is missing in 1 rows"),
    "a missing word": (with_cells(CLEAN, "region", {3: None}), "is missing in 1 rows"),
    "all missing": (CLEAN.set_column(1, "age", pa.nulls(80, pa.int64())), "is missing in 80 rows"),
    "beyond the bounds": (with_cells(CLEAN, "age", {3: 17}), "lies outside 18 to 90"),
    "infinite": (with_cells(CLEAN, "spend", {3: math.inf}), "is infinite"),
    "one class": (with_column(CLEAN, "bought", [0] * 80), "has one class only"),
    "another label": (with_cells(CLEAN, "bought", {3: 2}), "must hold 0 or 1"),
    "too many rows": (pa.concat_tables([CLEAN, CLEAN]), "rows each"),
    "too few customers": (CLEAN[:8], "fewer training customers"),
    "words for numbers": (with_column(CLEAN, "age", ["old"] * 80), "must hold numbers"),
}


@pytest.mark.parametrize("step", ["count/1", "train/1", "evaluate/1"])
@pytest.mark.parametrize("name", BROKEN)
def test_whatever_is_wrong_with_a_table_leaves_as_one_word_and_is_not_charged(begin, name, step):
    table, says = BROKEN[name]
    federation = begin("strict", table)
    with pytest.raises(TaskRefused) as caught:
        federation.answer(step)
    assert caught.value.code == "unavailable"
    assert charged(federation) == []
    assert says in federation.report()
    assert federation.kinds() == ["consent", "refusal"]


def test_the_same_contract_lets_a_clean_table_pass(begin):
    federation = begin("strict", CLEAN)
    assert counted(federation)[1] > 40


def test_weights_that_are_none_of_the_model_are_refused_before_the_table_is_opened(begin):
    federation = begin("plain", CLEAN)
    counts, slots, start = federation.weights()
    for wrong in (
        (slots, start),
        (counts[:-1], slots, start),
        (np.full_like(counts, np.nan), slots, start),
        (np.full_like(counts, 1.1e6), slots, start),
        (counts, np.full_like(slots, np.inf), start),
        (counts.astype(np.float64), slots, start),
    ):
        with pytest.raises(TaskRefused) as caught:
            federation.answer("train/1", weights=wrong)
        assert caught.value.code == "task"
    assert federation.kinds() == ["consent"]


# --- cells --------------------------------------------------------------------------------------------------------


def test_fine_cells_are_cut_evenly_in_the_range_or_in_its_logarithm_or_by_the_contract_s_edges():
    age, spend, _ = binning_of(PLANS["far"]).columns
    np.testing.assert_allclose(age.edges, [18 + 72 * number / 16 for number in range(1, 16)], rtol=1e-12)
    np.testing.assert_allclose(spend.edges, [log_edge(0, 1e12, 16, number) for number in range(1, 16)], rtol=1e-9)
    widths = np.diff([0.0, *spend.edges, 1e12])
    assert (np.diff(widths) > 0).all()
    own = binning_of(binned(contract=contract(among=("age",), edges=(30.0, 65.0)))).columns[0]
    assert own.edges == (30.0, 65.0)
    assert (age.low, age.high, spend.atoms) == (18.0, 90.0, (0.0,))


@pytest.mark.parametrize("spacing", ["even", "log"])
@pytest.mark.parametrize(("low", "high"), [(-50.0, 50.0), (0.0, 1e-9), (1e15, 1e15 + 8), (-1e300, 1e300), (0.0, 1e308)])
def test_edges_ascend_within_the_bounds_whatever_they_are(low, high, spacing):
    plan = binned(contract=contract(among=("age",), low=low, high=high, spacing=spacing))
    plan.check("plan")
    edges = np.array(binning_of(plan).columns[0].edges)
    assert np.isfinite(edges).all()
    assert (np.diff(edges) >= 0).all()
    assert low <= edges[0] <= edges[-1] <= high
    cells = cells_of(dataclasses.replace(binning_of(plan), columns=binning_of(plan).columns[:1]), {"age": edges})
    assert (np.diff(cells[:, 0]) >= 0).all()
