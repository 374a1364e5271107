"""The profile of a table: every count against a plain count, and the verdict against the contract's own check."""

import collections
import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.clients.opening import open_table
from coterie.clients.profile import profiling
from coterie.clients.profile.columns import ColumnTally, Role
from coterie.clients.profile.drift import drifts, stability_index
from coterie.clients.profile.facts import as_table
from coterie.clients.profile.hashing import hashes_of
from coterie.clients.profile.numeric import outward
from coterie.clients.profile.people import Census
from coterie.clients.profile.profiling import profile_table
from coterie.clients.profile.sketch import Different, Frequent
from coterie.privacy.contract import Column, Contract, Interactions
from coterie.privacy.errors import ContractFault
from coterie.privacy.randomness import SeededSource
from coterie.tests.clients.bad_tables import FAULTS, PARQUET_FAULTS, TABLE, all_wrong, doubled
from coterie.tests.clients.federation import CONTRACT, REGIONS, with_cells, with_column
from coterie.tests.clients.profile.profiles import KEY, WISH, Held, column, profile_of, said

LENIENT = dataclasses.replace(
    CONTRACT,
    columns=tuple(dataclasses.replace(c, outside="clip", missing="centre") for c in CONTRACT.columns),
    rows_per_customer=3,
    too_many_rows="sample",
)
NONE_LEFT = {"no rows", "a missing feature", "a missing label", "a missing customer"}


def refused(table):
    with pytest.raises(ContractFault) as caught:
        open_table(Held(table), CONTRACT, group_key=KEY, stream=SeededSource(b"profile").stream("rows"))
    return caught.value.faults


# --- what stops a study ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({**FAULTS, **PARQUET_FAULTS}.keys() - NONE_LEFT))
def test_what_stops_a_study_is_what_the_contracts_check_refuses(name):
    table, _, _ = {**FAULTS, **PARQUET_FAULTS}[name]
    want = [(fault.place.removeprefix("the held table "), fault.rule) for fault in refused(table)]
    assert [(fault.place, fault.rule) for fault in profile_of(table).stops] == want


def test_everything_that_is_wrong_stops_a_study():
    assert len(profile_of(all_wrong()).stops) == len(refused(all_wrong()))


@pytest.mark.parametrize("name", ["a missing feature", "a missing label", "a missing customer"])
def test_a_table_without_a_column_of_the_contract_has_a_profile_that_says_so(name):
    table, missing, _ = FAULTS[name]
    assert said(profile_of(table).stops)[0].startswith(f"column {missing}: is missing")


def test_a_column_that_is_there_twice_stops_a_study_and_is_left_out():
    found = profile_of(TABLE.append_column("age", TABLE["age"]))
    assert "column age: is there twice" in said(found.stops)[0]
    assert found.left_out == 2
    assert [one.name for one in found.columns] == ["customer", "spend", "region", "bought"]


def test_a_good_table_is_fine():
    found = profile_of(TABLE)
    assert (found.stops, found.verdict) == ((), "look" if found.looks else "fine")
    assert "The table keeps the contract." in found.fine


def test_a_table_without_rows_is_a_fault():
    with pytest.raises(ContractFault, match="held table: has no rows"):
        profile_of(TABLE.slice(0, 0))


def test_a_quasi_identifier_that_is_no_column_is_a_fault():
    with pytest.raises(ContractFault, match="--quasi shoes: is no column of the table"):
        profile_of(TABLE, quasi=("age", "shoes"))


# --- columns ----------------------------------------------------------------------------------------------------


def test_numbers_are_counted_by_bin_and_bound():
    ages = [18, 25.19, 25.2, 89.99, 90, 17, 91, None, math.nan, math.inf, *[40] * 140]
    held = column(profile_of(with_column(TABLE, "age", ages), LENIENT), "age")
    numbers = held.numbers
    assert (held.missing, numbers.below, numbers.above, numbers.infinite) == (2, 1, 2, 1)
    assert [one.rows for one in numbers.bins] == [3, 1, 0, 140, 0, 0, 0, 0, 0, 4]
    assert [round(one.low, 1) for one in numbers.bins] == [18, 25.2, 32.4, 39.6, 46.8, 54, 61.2, 68.4, 75.6, 82.8]
    assert (numbers.least, numbers.greatest) == (10, 100)


def test_a_bin_holds_its_lower_edge():
    held = column(profile_of(with_column(TABLE, "spend", [50, 149.99, 150] * 50)), "spend")
    assert [one.rows for one in held.numbers.bins] == [0, 100, 50]


def test_texts_that_are_no_numbers_are_counted_and_those_with_commas_told_apart():
    cells = ["1,5", "1.234,50", "x", " 7 ", "NA"] * 30
    held = column(profile_of(with_column(TABLE, "spend", cells)), "spend")
    assert (held.numbers.broken, held.numbers.commas, held.missing) == (90, 60, 30)


def test_words_are_counted_with_those_that_nearly_are_one():
    cells = ["north", "North ", "NORTH", "nord", None, "east"] * 25
    held = column(profile_of(with_column(TABLE, "region", cells), LENIENT), "region")
    assert {one.word: one.rows for one in held.words.words} == {"north": 25, "south": 0, "east": 25}
    assert (held.words.unknown, held.words.nearly, held.missing, held.different) == (75, 50, 25, 5)


def test_a_dictionary_column_counts_as_its_words_do():
    encoded = TABLE.set_column(3, "region", TABLE["region"].dictionary_encode())
    assert TABLE.column_names[3] == "region"
    assert column(profile_of(encoded), "region") == column(profile_of(TABLE), "region")


@given(st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=1, max_size=200))
@settings(max_examples=60, deadline=None)
def test_cells_are_counted_as_a_plain_count_does(cells):
    table = pa.table({"x": pa.array(cells, pa.string())})
    held = column(profile_table(Held(table, 7), CONTRACT, WISH), "x")
    there = [cell for cell in cells if cell is not None]
    counts = collections.Counter(there)
    assert (held.missing, held.different, held.exact) == (len(cells) - len(there), len(counts), True)
    assert held.commonest == max(counts.values(), default=0)
    lengths = [len(cell) for cell in there]
    assert held.lengths == ((min(lengths), round(sum(lengths) / len(lengths), 1), max(lengths)) if lengths else None)


def test_different_values_are_exact_up_to_the_sample_and_within_a_few_percent_beyond():
    different = Different(1000)
    for start in range(0, 50_000, 500):
        values = pa.array([f"v{i}" for i in range(start, start + 1000)])  # each piece half of the one before
        different.add(hashes_of(values, KEY), values)
        seen = start + 1000
        assert (different.count == seen) if different.exact else (abs(different.count / seen - 1) < 5 / 998**0.5)
    assert not different.exact
    assert len(set(different.sample())) == 1000


def test_the_sample_is_as_likely_to_hold_the_first_values_as_the_last():
    different = Different(1000)
    for start in range(0, 20_000, 1000):
        values = pa.array([str(i) for i in range(start, start + 1000)])
        different.add(hashes_of(values, KEY), values)
    early = sum(int(value) < 10_000 for value in different.sample())
    assert abs(early - 500) < 5 * 250**0.5


@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=40), min_size=1, max_size=20), st.integers(2, 8))
@settings(max_examples=100, deadline=None)
def test_the_commonest_value_is_never_too_high_nor_lower_than_said(pieces, counters):
    frequent = Frequent(counters)
    for piece in pieces:
        hashes, counts = np.unique(np.array(piece, dtype=np.uint64), return_counts=True)
        frequent.add(hashes, counts)
    every = collections.Counter(value for piece in pieces for value in piece)
    most, rows = max(every.values()), sum(every.values())
    assert most - rows / (counters + 1) <= frequent.most <= most


@given(st.floats(-1e15, 1e15).filter(lambda x: x == 0 or abs(x) > 1e-9))
def test_rounding_outward_goes_outward_to_one_digit(number):
    low, high = outward(number, up=-1), outward(number, up=1)
    assert low <= number <= high
    assert all(len(f"{bound:e}".split("e")[0].rstrip("0").rstrip(".").lstrip("-")) == 1 for bound in (low, high))


def test_types_without_texts_are_counted_as_they_can_be():
    table = TABLE.append_column("blob", pa.array([b"x", None, b"y"] * 50)).append_column(
        "list", pa.array([[1], None, [2]] * 50)
    )
    for name in ("blob", "list"):
        held = column(profile_of(table), name)
        assert (held.found, held.missing, held.different, held.lengths) == ("another type", 50, 0, None)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (pa.array([1, 2]), "whole numbers"),
        (pa.array([1.5, None]), "numbers"),
        (pa.array(["1", "2.5"]), "numbers, written as texts"),
        (pa.array(["1", "x"]), "texts"),
        (pa.array([True, False]), "true or false"),
        (pa.array([0, 1], pa.date32()), "days"),
        (pa.array([0, 1], pa.timestamp("s")), "times"),
        (pa.array([None, None]), "nothing"),
    ],
    ids=["int", "float", "numeric text", "text", "bool", "date", "time", "null"],
)
def test_a_column_says_what_it_holds(values, found):
    tally = ColumnTally(Role(name="x", place=1, kind="other"), values.type, KEY)
    tally.add(values)
    assert tally.facts().found == found


# --- customers --------------------------------------------------------------------------------------------------


def test_customers_and_their_rows_are_counted():
    found = profile_of(doubled(doubled(TABLE, 3, 3), 5, 8), LENIENT).customers
    assert (found.customers, found.several, found.crowded, found.most, found.doubled) == (150, 2, 1, 8, 9)
    assert found.by_rows == {"1": 148, "2": 0, "3 to 5": 1, "6 to 10": 1, "11 to 100": 0, "more": 0}


def test_rows_of_one_customer_that_differ_in_one_cell_are_not_there_twice():
    crowd = doubled(TABLE, 3, 3)
    differing = with_cells(crowd, "spend", {150: 1.25, 151: 2.5})
    assert profile_of(differing, LENIENT).customers.doubled == 0
    assert profile_of(with_cells(crowd, "spend", {150: None, 151: None}), LENIENT).customers.doubled == 1


def test_a_table_with_one_row_a_customer_is_read_once_and_another_one_twice():
    once, twice = Held(TABLE), Held(doubled(TABLE, 3, 2))
    profile_table(once, CONTRACT, WISH)
    profile_table(twice, CONTRACT, WISH)
    assert (len(once.read), len(twice.read)) == (1, 2)


@given(st.lists(st.lists(st.integers(0, 50), max_size=30), max_size=10))
@settings(deadline=None)
def test_a_census_counts_as_a_plain_count_does(pieces):
    census = Census()
    for piece in pieces:
        census.add(np.array(piece, dtype=np.uint64))
        census.several()  # looking in between changes nothing
    every = collections.Counter(value for piece in pieces for value in piece)
    assert dict(zip(census.seen.tolist(), census.times.tolist(), strict=True)) == every


ROWS = st.lists(
    st.tuples(
        st.integers(0, 12),  # customer
        st.sampled_from([None, 18, 30, 41]),
        st.sampled_from(["1010", "1020", None]),
        st.sampled_from([0, 1]),
    ),
    min_size=1,
    max_size=60,
)


@given(ROWS)
@settings(max_examples=150, deadline=None)
def test_anonymity_is_what_a_plain_dictionary_counts_by_customer(rows):
    who, age, post, label = (list(values) for values in zip(*rows, strict=True))
    table = pa.table(
        {
            "customer": pa.array(who),
            "age": pa.array(age, pa.int64()),
            "plz": pa.array(post, pa.string()),
            "bought": label,
        }
    )
    groups, ones = collections.defaultdict(set), collections.defaultdict(set)
    for customer, years, place, happened in rows:
        groups[years, place].add(customer)
        if happened:
            ones[years, place].add(customer)
    inside = {c: [key for key, members in groups.items() if c in members] for c in set(who)}
    alike = {key for key, members in groups.items() if len(members) > 1 and ones[key] in (set(), members)}
    found = profile_table(Held(table, 7), CONTRACT, dataclasses.replace(WISH, quasi=("age", "plz"))).anonymity
    assert found.groups == len(groups)
    assert found.smallest == min(len(members) for members in groups.values())
    assert found.alone == sum(any(len(groups[key]) == 1 for key in keys) for keys in inside.values())
    assert found.few == sum(any(len(groups[key]) < 5 for key in keys) for keys in inside.values())
    assert found.one_label == sum(any(key in alike for key in keys) for keys in inside.values())


def test_quasi_identifiers_are_suggested_by_name_and_never_the_customer_or_label():
    found = profile_of(TABLE).anonymity
    assert (found.columns, found.chosen) == (("age", "region"), "suggested")


# --- interactions -----------------------------------------------------------------------------------------------


CHOICES = Contract(
    customer="who",
    interactions=Interactions(item="item", time="day", earliest="2030-01-01", latest="2030-12-31"),
)


def test_days_of_interactions_are_held_against_the_period():
    days = ["2030-01-01", "2029-12-31", "2031-01-01T10:00", "31/12/2030", None, "2030-12-31 23:59", "2030-12-31"]
    table = pa.table({"who": list("aabbccd"), "item": ["i", "j", "k", "l", "m", None, "n"], "day": days})
    found = profile_of(table, CHOICES)
    assert dataclasses.astuple(column(found, "day").days) == (2, 1, 1)
    assert [fault.rule for fault in found.stops] == [
        "is missing or no date in 2 rows with an item",
        "lies after 2030-12-31 in 1 rows",
        "lies before 2030-01-01 in 1 rows",
    ]
    assert found.customers.crowded == 0
    assert found.label is None


def test_interactions_outside_that_are_dropped_stop_nothing():
    rows = dataclasses.replace(CHOICES.interactions, outside="drop")
    table = pa.table({"who": ["a"], "item": ["i"], "day": pa.array([0], pa.date32())})
    found = profile_of(table, dataclasses.replace(CHOICES, interactions=rows))
    assert (found.stops, column(found, "day").days.before) == ((), 1)


# --- drift and looks --------------------------------------------------------------------------------------------


def test_the_stability_index_is_its_formula():
    before, now = [100, 300, 600], [200, 300, 500]
    want = (0.2 - 0.1) * math.log(0.2 / 0.1) + (0.5 - 0.6) * math.log(0.5 / 0.6)
    assert stability_index(before, now) == pytest.approx(want, rel=1e-12)
    assert stability_index(before, before) == 0
    assert 0 < stability_index([5, 0], [0, 5]) < math.inf


def test_two_samples_of_one_population_differ_by_chance_as_is_told():
    source, shares = np.random.default_rng(7), [0.1, 0.2, 0.3, 0.4]
    found = [stability_index(source.multinomial(2000, shares), source.multinomial(3000, shares)) for _ in range(400)]
    assert np.mean(found) == pytest.approx(3 * (1 / 2000 + 1 / 3000), rel=0.2)


def test_a_profile_drifts_from_an_earlier_one_where_a_column_moved():
    earlier = as_table(profile_of(TABLE))
    assert all(one.index == 0 for one in drifts(profile_of(TABLE).columns, TABLE.num_rows, earlier))
    moved = profile_of(with_column(TABLE, "region", [REGIONS[0]] * 150), earlier=earlier)
    index = {one.column: one.index for one in moved.drift}
    assert set(index) == {"age", "spend", "region"}
    assert moved.drift[0].chance == pytest.approx(10 * 2 / 150)  # ten bins and the missing, in 150 rows twice
    assert (index["age"], index["spend"]) == (0, 0)
    assert index["region"] > 1
    assert any("column region: moved much" in look for look in said(moved.looks))


def test_columns_whose_bins_are_others_are_not_compared():
    earlier = as_table(profile_of(TABLE))
    other = dataclasses.replace(CONTRACT, columns=(Column(name="age", kind="numeric", low=0, high=90),))
    assert profile_of(TABLE, other, earlier=earlier).drift == ()


@pytest.mark.parametrize(
    ("change", "said_of_it"),
    [
        (("region", ["North "] * 75 + ["east"] * 75), "column region: differs from the vocabulary in spaces"),
        (
            ("region", ["nord"] * 75 + ["east"] * 75),
            "column region: holds other words than the vocabulary's in 75 rows",
        ),
        (("age", [200] * 10 + [40] * 140), "column age: lies outside 18 to 90 in 10 rows"),
        (("age", [40, 41] * 75), "column age: has more than 90% of its values in one of 10 bins"),
        (("age", [None] * 100 + [40] * 50), "column age: is missing in 67% of the rows"),
        (("age", [40] * 150), "column age: has the same value in every row"),
        (("customer", [f"p{i}@example.org" for i in range(150)]), "column customer: looks like: e-mail address"),
        (("bought", [1] + [0] * 149), "the label: is 1 in less than 1 % of the rows"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_deserves_a_look_is_said(change, said_of_it):
    assert any(look.startswith(said_of_it) for look in said(profile_of(with_column(TABLE, *change), LENIENT).looks))


def test_a_column_that_the_contract_does_not_mark_is_told_and_one_that_it_marks_is_not():
    health = TABLE.append_column("diagnosis", pa.array(["x", "y", "z"] * 50))
    assert any("column diagnosis: looks like: health" in look for look in said(profile_of(health).looks))
    marked = Column(name="diagnosis", kind="categorical", values=("x", "y", "z"), sensitivity="special")
    contract = dataclasses.replace(CONTRACT, columns=(*CONTRACT.columns, marked))
    assert not any("diagnosis" in look for look in said(profile_of(health, contract).looks))


def test_a_table_of_two_hundred_columns_has_a_profile():
    wide = {f"f{i}": [i, None] * 75 for i in range(195)}
    table = pa.table({name: TABLE[name] for name in TABLE.column_names} | wide)
    assert len(profile_of(table).columns) == 200


@pytest.mark.parametrize("held", [1, 3, 1000])
def test_rows_that_are_there_twice_are_counted_in_parts_where_they_are_many(monkeypatch, held):
    monkeypatch.setattr(profiling, "_HELD", held)
    table = Held(with_cells(doubled(doubled(TABLE, 3, 4), 5, 6), "spend", {150: 0.5, 155: 0.25}))
    assert profile_table(table, LENIENT, WISH).customers.doubled == 6
    assert len(table.read) == 1 + math.ceil(10 / held)
