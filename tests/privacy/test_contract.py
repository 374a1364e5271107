"""The contract's rules beyond types: bounds, bins, vocabularies and names."""

import dataclasses

import pytest

from coterie.privacy.canonical import digest
from coterie.privacy.contract import Column, Contract
from coterie.privacy.errors import FileFault
from coterie.privacy.schema import parse


def contract(*columns, **fields):
    return Contract(customer="id", label="bought", columns=columns, **fields)


def rules(*columns, **fields):
    return [fault.rule for fault in contract(*columns, **fields).faults("plan: contract")]


AGE = Column(name="age", kind="numeric", low=18, high=95, edges=(30, 50))
AREA = Column(name="area", kind="categorical", values=("city", "town"))


def test_a_sound_contract_has_no_faults():
    assert rules(AGE, AREA, Column(name="spend", kind="numeric", low=-1, high=1)) == []


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({}, "low < high"),
        ({"low": 1.0}, "low < high"),
        ({"high": 1.0}, "low < high"),
        ({"low": 1.0, "high": 1.0}, "low < high"),
        ({"low": 2.0, "high": 1.0}, "low < high"),
        ({"low": 0.0, "high": 1.0, "edges": (0.0, 0.5)}, "edges"),
        ({"low": 0.0, "high": 1.0, "edges": (0.5, 1.0)}, "edges"),
        ({"low": 0.0, "high": 1.0, "edges": (0.5, 0.4)}, "edges"),
        ({"low": 0.0, "high": 1.0, "edges": (0.5, 0.5)}, "edges"),
        ({"low": 0.0, "high": 1.0, "edges": (float("nan"),)}, "edges"),
        ({"low": 0.0, "high": 1.0, "edges": (float("inf"),)}, "edges"),
        ({"low": 0.0, "high": 1.0, "values": ("a", "b")}, "categorical"),
    ],
)
def test_a_numeric_column_needs_bounds_with_its_edges_strictly_between(fields, rule):
    (found,) = rules(Column(name="x", kind="numeric", **fields))
    assert rule in found


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({}, "2 to 1000"),
        ({"values": ("one",)}, "2 to 1000"),
        ({"values": ("a", "b", "a")}, "2 to 1000"),
        ({"values": tuple(map(str, range(1001)))}, "2 to 1000"),
        ({"values": ("a", "b"), "low": 0.0}, "numeric"),
        ({"values": ("a", "b"), "high": 0.0}, "numeric"),
        ({"values": ("a", "b"), "edges": (1.0,)}, "numeric"),
    ],
)
def test_a_categorical_column_needs_a_vocabulary_and_nothing_else(fields, rule):
    (found,) = rules(Column(name="x", kind="categorical", **fields))
    assert rule in found


def test_the_largest_vocabulary_is_allowed():
    assert rules(Column(name="x", kind="categorical", values=tuple(map(str, range(1000))))) == []


@pytest.mark.parametrize("name", ["age", "id", "bought"])
def test_a_name_serves_one_column_alone(name):
    (found,) = rules(AGE, Column(name=name, kind="categorical", values=("a", "b")))
    assert "twice" in found


def test_a_contract_without_features_is_refused():
    (found,) = rules()
    assert "empty" in found


def test_all_faults_of_a_contract_are_reported_with_their_columns():
    bad = [Column(name="x", kind="numeric"), Column(name="y", kind="categorical"), AGE, AGE]
    found = contract(*bad).faults("plan: contract")
    assert [fault.place for fault in found] == [
        "plan: contract.columns.x",
        "plan: contract.columns.y",
        "plan: contract.columns",
    ]
    assert all(fault.fix for fault in found)


@pytest.mark.parametrize(
    ("table", "place"),
    [
        ({"name": "x", "kind": "date"}, "kind"),
        ({"name": "x", "kind": "numeric", "sensitivity": "secret"}, "sensitivity"),
        ({"name": "x", "kind": "numeric", "low": float("nan"), "high": 1}, "low"),
        ({"name": "x", "kind": "numeric", "low": 0, "high": float("inf")}, "high"),
        ({"name": "x", "kind": "numeric", "low": 0, "high": 1e16}, "high"),
        ({"name": "x", "kind": "numeric", "outside": "ignore"}, "outside"),
        ({"name": "x", "kind": "numeric", "missing": "mean"}, "missing"),
        ({"name": "", "kind": "numeric"}, "name"),
        ({"name": "x", "kind": "categorical", "values": "city"}, "values"),
    ],
)
def test_a_column_s_own_fields_are_checked_as_they_are_read(table, place):
    whole = {"customer": "id", "label": "bought", "columns": [table]}
    with pytest.raises(FileFault) as caught:
        parse(Contract, whole, place="plan.contract")
    assert [fault.place for fault in caught.value.faults] == [f"plan.contract.columns[0].{place}"]


@pytest.mark.parametrize("rows", [0, 257])
def test_rows_of_a_customer_are_bounded(rows):
    whole = {"customer": "id", "label": "bought", "columns": [], "rows_per_customer": rows}
    with pytest.raises(FileFault) as caught:
        parse(Contract, whole, place="plan.contract")
    assert [fault.place for fault in caught.value.faults] == ["plan.contract.rows_per_customer"]


def test_what_lies_outside_the_contract_is_an_error_unless_it_says_otherwise():
    assert (AGE.outside, AGE.missing, AGE.sensitivity) == ("error", "error", "personal")
    assert (contract(AGE).rows_per_customer, contract(AGE).too_many_rows) == (1, "error")


def test_what_a_row_takes_in_memory_is_bounded():
    wide = [Column(name=f"c{i}", kind="categorical", values=tuple(map(str, range(1000)))) for i in range(5)]
    assert rules(*wide) == []
    (found,) = rules(*wide, Column(name="x", kind="numeric", low=0, high=1))
    assert "at most 5000 features" in found
    narrow = [Column(name=f"c{i}", kind="numeric", low=0, high=1) for i in range(501)]
    assert rules(*narrow[:500]) == []
    assert len(rules(*narrow)) == 1
    binned = Column(name="b", kind="numeric", low=0, high=1, edges=tuple((i + 1) / 5001 for i in range(5000)))
    assert len(rules(binned)) == 1


def test_a_contract_is_approved_by_a_digest_of_everything_in_it():
    changed = [
        contract(AGE, AREA),
        contract(AREA, AGE),
        contract(AGE),
        contract(AGE, AREA, rows_per_customer=2),
        contract(AGE, AREA, too_many_rows="sample"),
        contract(AGE, Column(name="area", kind="categorical", values=("town", "city"))),
        contract(AGE, Column(name="area", kind="categorical", values=("city", "town"), outside="clip")),
        contract(AGE, Column(name="area", kind="categorical", values=("city", "town"), sensitivity="special")),
        contract(Column(name="age", kind="numeric", low=18, high=95.5, edges=(30, 50)), AREA),
    ]
    assert len({one.digest() for one in changed}) == len(changed)
    assert contract(AGE, AREA).digest() == changed[0].digest()


def test_kinds_of_cells_are_named_where_they_are_chosen_and_digests_of_before_stay():
    age = {"name": "age", "kind": "numeric", "sensitivity": "personal", "low": 18, "high": 95, "edges": [30, 50]}
    age |= {"values": [], "outside": "error", "missing": "error"}
    before = {"customer": "id", "label": "bought", "columns": [age], "rows_per_customer": 1, "too_many_rows": "error"}
    assert contract(AGE).digest() == contract(AGE, customer_cells="randomised").digest() == digest(before)
    searchable = contract(dataclasses.replace(AGE, cells="searchable"), customer_cells="searchable")
    chosen = before | {"columns": [age | {"cells": "searchable"}], "customer_cells": "searchable"}
    assert searchable.digest() == digest(chosen)
    assert parse(Contract, chosen, place="plan.contract") == searchable


@pytest.mark.parametrize("place", ["customer_cells", "columns[0].cells"])
def test_another_kind_of_cells_is_refused(place):
    column = {"name": "x", "kind": "numeric"} | ({"cells": "plain"} if "columns" in place else {})
    table = {"customer": "id", "label": "bought", "columns": [column]}
    with pytest.raises(FileFault) as caught:
        parse(Contract, table | ({"customer_cells": "plain"} if "columns" not in place else {}), place="plan.contract")
    assert [fault.place for fault in caught.value.faults] == [f"plan.contract.{place}"]
