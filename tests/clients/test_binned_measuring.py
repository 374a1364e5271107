"""Measuring by groups: held-out customers counted once each, by a column that no model ever sees."""

import dataclasses

import numpy as np
import pyarrow.parquet
import pytest

from coterie.clients.binnedsums import binned_customers
from coterie.clients.findings import wanted_columns
from coterie.clients.measuring import score_histogram
from coterie.clients.opening import open_table
from coterie.clients.predicting import layout_for
from coterie.clients.tables.files import table_at
from coterie.clients.task import binning_of, encoding_of, initial_weights, weight_shapes
from coterie.clients.training import training_customers
from coterie.models.binning import slots_of
from coterie.models.metrics import binned_counts
from coterie.privacy.contract import Contract
from coterie.privacy.plan import Metrics
from coterie.privacy.randomness import OsSource
from coterie.tests.clients.binnedkit import (
    AUDITED,
    CONTRACT,
    FAMILIES,
    REGIONS,
    SEXES,
    Binned,
    binned,
    own_cells,
    table_of,
    without_noise,
)
from coterie.tests.clients.federation import SEEDED, study, with_column
from coterie.tests.clients.summing import quick_folder

KEY = bytes(range(32))
BY_SEX = Metrics(rounds=(1,), bins=8, groups="sex")
PLAN = binned(contract=AUDITED, metrics=BY_SEX)
MANY = dataclasses.replace(AUDITED, rows_per_customer=4)


@pytest.fixture
def opening(tmp_path):
    def opened(table, contract=AUDITED, **more):
        path = tmp_path / "table.parquet"
        pyarrow.parquet.write_table(table, path)
        return open_table(table_at(path), contract, group_key=KEY, stream=OsSource().stream("rows"), **more)

    return opened


def drawn(plan, seed=0):
    """A model with counts and weights of some size."""
    draw = np.random.default_rng(seed)
    return tuple((draw.normal(size=shape) * 0.8).astype(np.float32) for shape in weight_shapes(plan))


def place(plan, weights, row):
    """The score bin of a row, by hand: equal in log-odds from -6 to 6, the outer ones open."""
    slots = slots_of(layout_for(plan, weights), np.array([own_cells(plan, row)]))[0]
    logit = float(weights[2][0]) + sum(float(weights[1][0, slot]) for slot in slots)
    return min(max(int((logit + 6) // 1.5), 0), 7)


def by_hand(plan, weights, table, held_out, word_of):
    """Held-out customers of one row each: by group, label and score."""
    counts = np.zeros((plan.grouped, 2, 8), np.int64)
    for row, out in zip(table.to_pylist(), held_out, strict=True):
        if out:
            counts[word_of(row), row["bought"], place(plan, weights, row)] += 1
    return counts.reshape(-1, 8)


def sex_of(row):
    return SEXES.index(row["sex"]) if row["sex"] in SEXES else 2


def test_held_out_customers_are_counted_by_group_label_and_score(opening):
    table, weights = table_of(customers=800), drawn(PLAN)
    opened = opening(table)
    found = score_histogram(opened, PLAN, weights, SEEDED.stream("x"))
    assert found.shape == PLAN.histogram_shape == (6, 8)
    assert found.tolist() == by_hand(PLAN, weights, table, opened.held_out, sex_of).tolist()
    assert found.sum() == opened.held_out.sum()
    assert (found.sum(axis=1) > 0).all()
    assert (found > 0).sum() > 15


def test_a_column_that_the_model_learns_from_can_be_counted_by_too(opening):
    plan = binned(metrics=Metrics(rounds=(1,), bins=8, groups="region"))
    table, weights = table_of(customers=400), drawn(plan)
    opened = opening(table, CONTRACT)
    found = score_histogram(opened, plan, weights, SEEDED.stream("x"))
    known = {region: number for number, region in enumerate(REGIONS)}
    wanted = by_hand(plan, weights, table, opened.held_out, lambda row: known.get(row["region"], 3))
    assert found.shape == (8, 8)
    assert found.tolist() == wanted.tolist()


def test_without_groups_there_are_two_rows_and_their_sum_over_groups_is_what_is_counted(opening):
    table, weights = table_of(customers=300), drawn(PLAN)
    opened, plain = opening(table), dataclasses.replace(PLAN, metrics=Metrics(rounds=(1,), bins=8), contract=CONTRACT)
    one = score_histogram(opened, plain, weights, SEEDED.stream("x"))
    other = score_histogram(opened, PLAN, weights, SEEDED.stream("x"))
    assert one.shape == (2, 8)
    assert one.tolist() == other.reshape(3, 2, 8).sum(axis=0).tolist()
    everybody, grouped = binned_counts(one.astype(float)), binned_counts(other.astype(float))
    assert np.array_equal(everybody.positives, grouped.positives)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_customer_changes_one_count_by_one_and_moves_nobody_else(opening, family):
    plan = binned(family, contract=AUDITED, metrics=BY_SEX)
    table, weights = table_of(customers=200), drawn(plan, 1)
    opened = opening(table)
    before = score_histogram(opened, plan, weights, SEEDED.stream("x"))
    for row in np.flatnonzero(opened.held_out)[:6].tolist():
        rest = opening(table.take([index for index in range(200) if index != row]))
        change = before - score_histogram(rest, plan, weights, SEEDED.stream("x"))
        assert sorted(change.ravel().tolist()) == [0] * 47 + [1]


def test_a_customer_whose_rows_differ_in_group_label_and_score_is_counted_once(opening):
    table = table_of(customers=200, rows=4)
    opened = opening(table, MANY)
    plan = dataclasses.replace(PLAN, contract=MANY)
    customers = len(np.unique(opened.customer[opened.held_out]))
    assert customers < opened.held_out.sum()
    found = [score_histogram(opened, plan, drawn(plan), SEEDED.stream(str(number))) for number in range(12)]
    assert {int(counts.sum()) for counts in found} == {customers}
    assert len({counts.tobytes() for counts in found}) > 6  # by a random row


def test_training_customers_are_not_counted_whatever_their_group(opening):
    opened = opening(table_of(customers=200))
    none = dataclasses.replace(opened, held_out=np.zeros(200, np.bool_))
    assert not score_histogram(none, PLAN, drawn(PLAN), SEEDED.stream("x")).any()


# --- a column for audits ------------------------------------------------------------------------------------------


def flipped(table):
    """The same table with everybody's sex another one."""
    other = {"female": "male", "male": "female", "unsaid": "female"}
    return with_column(table, "sex", [other[sex] for sex in table["sex"].to_pylist()])


def test_no_model_s_inputs_have_anything_of_an_audited_column(opening):
    table = table_of(customers=100)
    one, other = (binned_customers(opening(each), PLAN) for each in (table, flipped(table)))
    assert one.cells.tolist() == other.cells.tolist()
    assert one.cells.shape[1] == len(binning_of(PLAN).columns) == 3
    assert [column.name for column in binning_of(PLAN).columns] == ["age", "spend", "region"]
    assert weight_shapes(PLAN) == weight_shapes(binned())
    plain = study(contract=AUDITED, metrics__groups="sex")
    assert encoding_of(AUDITED) == encoding_of(CONTRACT)
    features = [training_customers(opening(each), plain) for each in (table, flipped(table))]
    assert all(np.array_equal(a, b) for a, b in zip(*(_arrays(each) for each in features), strict=True))


def _arrays(customers):
    return [value for value in vars(customers).values() if isinstance(value, np.ndarray)]


def test_a_sum_of_training_is_the_same_whatever_audited_columns_say(monkeypatch):
    totals, without = {}, {}
    with quick_folder() as folder:
        without_noise(monkeypatch)
        for label, change in (("as it is", lambda table: table), ("flipped", flipped)):
            federation = Binned(
                folder / label, PLAN, {name: change(table_of(name)) for name in ("amber", "birch", "cedar", "damson")}
            ).consent()
            totals[label] = [federation.answer(step).arrays[0].tolist() for step in ("count/1", "train/1")]
            without[label] = federation.answer("evaluate/1").arrays[0]
    assert totals["as it is"] == totals["flipped"]
    assert without["as it is"].tolist() != without["flipped"].tolist()
    assert np.array_equal(*(counts.reshape(3, 2, 8).sum(axis=0) for counts in without.values()))


def test_whoever_is_scored_needs_no_audited_column(opening):
    table = table_of(customers=50).drop_columns(["sex", "bought"])
    opened = opening(table, needs_label=False)
    assert set(opened.columns) == {"age", "spend", "region"}
    assert wanted_columns(AUDITED, needs_label=False) == ["customer", "age", "spend", "region"]
    assert wanted_columns(AUDITED) == ["customer", "age", "spend", "region", "sex", "bought"]
    assert isinstance(AUDITED, Contract)
    assert len(initial_weights(PLAN)) == 3
