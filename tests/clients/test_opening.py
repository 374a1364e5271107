"""Bad input: each broken rule of the contract is named in one error, with its count, and never by value."""

import dataclasses
import math
import traceback

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

from coterie.clients.intake import contract_of, take_in
from coterie.clients.opening import open_table
from coterie.clients.tables.files import table_at
from coterie.clients.vault import open_vault
from coterie.privacy.errors import ContractFault, FileFault
from coterie.privacy.randomness import SeededSource
from coterie.tests.clients.bad_tables import CANARIES, CANARY, FAULTS, NUMBER, PARQUET_FAULTS, TABLE, all_wrong, doubled
from coterie.tests.clients.federation import CONTRACT, REGIONS, files_of, table_of, with_cells, with_column

KEY = bytes(range(32))
LENIENT = dataclasses.replace(
    CONTRACT,
    columns=tuple(dataclasses.replace(c, outside="clip", missing="centre") for c in CONTRACT.columns),
    rows_per_customer=3,
    too_many_rows="sample",
)


def stream(label="rows"):
    return SeededSource(b"vault").stream(label)


def opened(path, contract=CONTRACT, **kwargs):
    return open_table(table_at(path), contract, group_key=KEY, stream=stream(), **kwargs)


def written(table, folder, suffix):
    path = folder / f"table.{suffix}"
    if suffix == "csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path)
    return path


CASES = [
    *((suffix, name) for name in FAULTS for suffix in ("parquet", "csv")),
    *(("parquet", name) for name in PARQUET_FAULTS),
]


@pytest.mark.parametrize(("suffix", "name"), CASES)
def test_bad_input_is_one_fault_by_file_column_rule_and_fix_without_a_value(tmp_path, suffix, name):
    table, column, rule = {**FAULTS, **PARQUET_FAULTS}[name]
    path = written(table, tmp_path, suffix)
    with pytest.raises(ContractFault) as caught:
        opened(path)
    (fault,) = caught.value.faults
    assert str(path) in fault.place
    assert column in fault.place
    assert rule in fault.rule
    assert fault.fix
    said = "".join(traceback.format_exception(caught.value)) + repr(caught.value.faults)
    assert not any(canary in said for canary in CANARIES)


def test_everything_that_is_wrong_is_said_in_one_error(tmp_path):
    with pytest.raises(ContractFault) as caught:
        opened(written(all_wrong(), tmp_path, "parquet"))
    named = [fault.place.rsplit(" ", 1)[1] for fault in caught.value.faults]
    assert sorted(named) == ["age", "bought", "customer", "region", "spend"]


def test_every_missing_column_is_said_in_one_error(tmp_path):
    table = TABLE.select(["customer", "region"])
    with pytest.raises(ContractFault) as caught:
        opened(written(table, tmp_path, "csv"))
    assert [fault.place.rsplit(" ", 1)[1] for fault in caught.value.faults] == ["age", "spend", "bought"]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_column_that_is_there_twice_is_a_fault(tmp_path, suffix):
    twice = TABLE.append_column("age", TABLE["age"])
    with pytest.raises(ContractFault, match="column age"):
        opened(written(twice, tmp_path, suffix))


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("data", [None, b"", b"\0\xff\xfe garbage " + CANARY.encode() + b"\n\xff"])
def test_an_unreadable_file_is_a_fault_that_names_it_and_shows_nothing_of_it(tmp_path, suffix, data):
    path = tmp_path / f"table.{suffix}"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ContractFault) as caught:
        opened(path)
    assert str(path) in str(caught.value)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_folder_in_place_of_a_table_is_a_fault(tmp_path):
    (tmp_path / "table.parquet").mkdir()
    pyarrow.parquet.write_table(TABLE, tmp_path / "table.parquet" / "part.parquet")
    with pytest.raises(ContractFault, match=r"table\.parquet"):
        opened(tmp_path / "table.parquet")


# --- what a contract may let pass, and what is counted of it ------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_clipping_keeps_the_bounds_and_counts(tmp_path, suffix):
    table = with_cells(with_cells(TABLE, "spend", {1: NUMBER, 5: -NUMBER}), "age", {2: 2**53 + 1})
    got = opened(written(table, tmp_path, suffix), LENIENT)
    assert (got.columns["spend"][1], got.columns["spend"][5], got.columns["age"][2]) == (500, 0, 90)
    assert dict(got.notes) == {"age: clipped": 1, "spend: clipped": 2}


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_unknown_and_missing_values_are_encoded_as_none_and_counted(tmp_path, suffix):
    table = with_cells(with_cells(TABLE, "region", {3: CANARY, 4: None}), "age", {5: None, 6: None})
    got = opened(written(table, tmp_path, suffix), LENIENT)
    assert list(got.columns["region"][[3, 4]]) == [-1, -1]
    assert np.isnan(got.columns["age"]).nonzero()[0].tolist() == [5, 6]
    assert dict(got.notes) == {"region: missing": 1, "region: outside the vocabulary": 1, "age: missing": 2}
    assert np.array_equal(got.columns["region"][:3], [REGIONS.index(r) for r in table["region"].to_pylist()[:3]])


def test_a_number_that_is_none_counts_as_missing(tmp_path):
    got = opened(written(with_cells(TABLE, "spend", {1: math.nan}), tmp_path, "parquet"), LENIENT)
    assert dict(got.notes) == {"spend: missing": 1}


def test_an_infinite_number_is_an_error_even_where_a_contract_clips(tmp_path):
    with pytest.raises(ContractFault, match="is infinite in 1 rows"):
        opened(written(with_cells(TABLE, "spend", {1: math.inf}), tmp_path, "parquet"), LENIENT)


def test_ten_thousand_rows_of_one_customer_become_just_as_many_as_the_contract_allows(tmp_path):
    path = written(doubled(TABLE, 3, 10_000), tmp_path, "parquet")
    got = opened(path, LENIENT)
    _, counts = np.unique(got.customer, return_counts=True)
    assert sorted(counts.tolist()) == [1] * 149 + [3]
    assert dict(got.notes) == {"customers with too many rows": 1}
    assert len({len(values) for values in (*got.columns.values(), got.labels, got.customer, got.held_out)}) == 1


def test_which_rows_are_sampled_is_random_and_no_row_is_favoured(tmp_path):
    crowd = with_column(doubled(TABLE, 3, 6), "age", [*TABLE["age"].to_pylist(), 20, 30, 40, 50, 60])
    crowd = with_cells(crowd, "age", {3: 70})
    path = written(crowd, tmp_path, "parquet")
    picked = []
    for number in range(400):
        got = open_table(table_at(path), LENIENT, group_key=KEY, stream=stream(f"rows/{number}"))
        picked += got.columns["age"][got.customer == 3].tolist()
    ages, counts = np.unique(picked, return_counts=True)
    assert ages.tolist() == [20, 30, 40, 50, 60, 70]
    # 400 draws of 3 in 6: each row 200 times, standard deviation 10.
    assert np.abs(counts - 200).max() < 45


def test_rows_stay_together_whatever_their_order(tmp_path):
    order = np.random.default_rng(5).permutation(150)
    got = opened(written(TABLE.take(order), tmp_path, "parquet"))
    assert np.array_equal(got.columns["age"], TABLE["age"].to_numpy()[order])
    assert np.array_equal(got.columns["spend"], TABLE["spend"].to_numpy()[order])
    assert np.array_equal(got.labels, TABLE["bought"].to_numpy()[order])


def test_csv_and_parquet_of_one_table_are_opened_alike(tmp_path):
    # Identifiers and words that a guess would take for numbers: "007" and "7" are two customers.
    codes = dataclasses.replace(CONTRACT.columns[2], values=("01", "02", "1"))
    contract = dataclasses.replace(CONTRACT, columns=(*CONTRACT.columns[:2], codes))
    table = with_column(TABLE, "region", [("01", "02", "1")[row % 3] for row in range(150)])
    table = with_column(table, "customer", [*(f"{row:03d}" for row in range(148)), "7", "1e5"])
    csv, parquet = (opened(written(table, tmp_path, suffix), contract) for suffix in ("csv", "parquet"))
    for name in ("age", "spend", "region"):
        assert np.array_equal(csv.columns[name], parquet.columns[name])
    assert np.array_equal(csv.customer, parquet.customer)
    assert np.array_equal(csv.held_out, parquet.held_out)
    assert len(np.unique(csv.customer)) == 150


def test_an_empty_identifier_in_a_text_file_is_no_customer(tmp_path):
    with pytest.raises(ContractFault, match="is missing in 2 rows"):
        opened(written(with_cells(TABLE, "customer", {3: "", 4: ""}), tmp_path, "csv"), LENIENT)


def test_a_table_for_scoring_needs_no_label_and_keeps_every_row(tmp_path):
    table = doubled(TABLE, 3, 9).drop_columns(["bought"])
    got = opened(written(table, tmp_path, "parquet"), needs_label=False)
    assert len(got.customer) == 158
    assert len(got.labels) == 0


def test_what_is_opened_shows_nothing_of_itself(tmp_path):
    assert repr(opened(written(TABLE, tmp_path, "parquet"))) == "Opened(...)"


# --- the intake: whole or not at all ------------------------------------------------------------------------


@pytest.fixture
def plan_file(federation):
    path = federation.root / "signed.json"
    path.write_bytes(federation.signed.to_bytes())
    return path


def sealed(federation, path):
    with open_vault(federation.folders["amber"], federation.clock) as vault:
        return take_in(vault, table_at(path), CONTRACT)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_good_table_is_taken_in_and_readable_by_its_owner_alone(federation, tmp_path, suffix):
    fresh = table_of("amber", 90)
    assert sealed(federation, written(fresh, tmp_path, suffix)) == {}
    assert federation.rows().to_pydict() == fresh.to_pydict()
    assert {path.stat().st_mode & 0o777 for path in federation.streams().iterdir()} == {0o600}


def test_an_identifier_is_taken_in_as_it_is_written(federation, tmp_path):
    fresh = with_column(TABLE, "customer", [f"{row:04d}" for row in range(150)])
    sealed(federation, written(fresh, tmp_path, "csv"))
    assert federation.rows()["customer"].to_pylist()[7] == "0007"


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_table_leaves_the_whole_workspace_as_it_was(federation, tmp_path, name):
    path = written(FAULTS[name][0], tmp_path, "csv")
    (federation.folders["amber"] / "lock").touch()
    before = files_of(federation.folders["amber"])
    with pytest.raises(ContractFault):
        sealed(federation, path)
    assert files_of(federation.folders["amber"]) == before


@pytest.mark.parametrize("plan", [b"", b"null", b'{"plan": 1}', b'{"plan": {}}'])
def test_a_table_cannot_be_taken_in_without_a_plan(tmp_path, plan):
    path = tmp_path / "plan.json"
    path.write_bytes(plan)
    with pytest.raises(FileFault, match="is not a plan"):
        contract_of(path)
