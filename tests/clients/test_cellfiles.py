"""Tables for exchange: sealed cell by cell, opened where they were sealed, refused where a cell is not as it was."""

import base64
import dataclasses
import datetime
import decimal
import json
import os
import stat

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import pytest

from coterie.clients import cellfiles, rekeying
from coterie.clients.cellfiles import Exchange, find_cells, open_cells, renew_keys, seal_cells
from coterie.clients.cellkeys import forget_older
from coterie.clients.cellring import lent, read_ring, wrapped_by
from coterie.clients.erasing import erase
from coterie.clients.rekeying import destroy_older, move_keys, rewrap
from coterie.clients.sealing import stage
from coterie.clients.tables.files import table_at
from coterie.clients.tables.table import whole
from coterie.clients.vault import CUSTOMERS, open_vault
from coterie.clients.workspace import Workspace
from coterie.privacy.contract import Column, Contract, Interactions
from coterie.privacy.errors import ContractFault, FileFault
from coterie.privacy.fields.codec import MOST_CELLS
from coterie.privacy.fields.errors import KeyFault, SealFault
from coterie.privacy.fields.sources.settings import KeySettings, new_key_source
from coterie.privacy.randomness import OsSource
from coterie.tests.clients.federation import today
from coterie.tests.privacy.fields import cellreader

COUNT = 1200
CONTRACT = Contract(
    customer="customer",
    customer_cells="searchable",
    label="bought",
    columns=(
        Column(name="age", kind="numeric", low=18, high=90),
        Column(name="region", kind="categorical", values=("north", "south"), sensitivity="ordinary"),
    ),
)
BY_ROW, BY_ID = Exchange(CONTRACT), Exchange(CONTRACT, "id")
POLICY = """
coordinator = "ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
customer = "customer"
labels = ["bought"]
purposes = ["coupons"]
columns = ["age"]
families = ["logistic"]
trust = ["local"]
minimum_partners = 2
minimum_customers = 10

[budget]
study_epsilon = 4.0
lifetime_epsilon = 8.0
delta = 1e-5
"""
CANARIES = ("canary", "zanzibar")


def table_of(count=COUNT):
    return pa.table(
        {
            "id": [f"r{number}" for number in range(count)],
            "customer": [f"canary{number}@example.com" for number in range(count)],
            "age": [None if number % 7 == 0 else 18 + number % 60 + 0.1 for number in range(count)],
            "region": ["north", "south"] * (count // 2),
            "note": pa.array(['zanzibar, "quoted"\nand more' if n % 3 else None for n in range(count)], pa.string()),
            "bought": [number % 2 for number in range(count)],
        }
    )


def written(table, path):
    (pyarrow.csv.write_csv if path.suffix == ".csv" else pyarrow.parquet.write_table)(table, path)
    return table_at(path)


def read(path):
    return whole(table_at(path), table_at(path).schema.names)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def as_texts(table):
    return pa.table({name: pc.cast(table[name], pa.string()) for name in table.schema.names})


@pytest.fixture
def bank(tmp_path):
    Workspace.create(tmp_path / "bank", "bank")
    return tmp_path / "bank"


@pytest.fixture
def vault(bank):
    with open_vault(bank, today) as vault:
        yield vault


@pytest.fixture
def sealed(vault, tmp_path):
    """The table, sealed with rows that are numbered."""
    source = written(table_of(), tmp_path / "table.parquet")
    seal_cells(vault, source, BY_ROW, tmp_path / "sealed.parquet", random=OsSource())
    return tmp_path / "sealed.parquet"


def opened(vault, path, tmp_path, exchange=BY_ROW):
    output = tmp_path / f"opened{len(list(tmp_path.iterdir()))}{path.suffix}"
    open_cells(vault, table_at(path), exchange, output)
    return read(output)


def refused(kind, vault, table, tmp_path, exchange=BY_ROW):
    """Return why a table is not opened; nothing of it is written or told."""
    path = tmp_path / "edited.parquet"
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(kind) as caught:
        open_cells(vault, table_at(path), exchange, tmp_path / "out.csv")
    assert not list(tmp_path.glob("out*"))
    text = str(caught.value)
    assert not [canary for canary in (*CANARIES, "v1.", "d1.") if canary in text]
    return text


def edited(path, column, change):
    table = read(path)
    place, cells = table.schema.names.index(column), table[column].to_pylist()
    change(cells)
    return table.set_column(place, column, pa.array(cells, table.schema.field(column).type))


# --- there and back


@pytest.mark.parametrize("exchange", [BY_ROW, BY_ID], ids=["numbered", "by id"])
@pytest.mark.parametrize("middle", ["csv", "parquet"])
def test_a_parquet_table_comes_back_as_it_was(vault, tmp_path, exchange, middle):
    source, between = written(table_of(), tmp_path / "table.parquet"), tmp_path / f"sealed.{middle}"
    assert seal_cells(vault, source, exchange, between, random=OsSource()) == COUNT
    assert open_cells(vault, table_at(between), exchange, tmp_path / "opened.parquet") == COUNT
    back = read(tmp_path / "opened.parquet")
    assert back.to_pylist() == table_of().to_pylist()
    if middle == "parquet":
        assert back.schema.types == table_of().schema.types


@pytest.mark.parametrize("exchange", [BY_ROW, BY_ID], ids=["numbered", "by id"])
def test_a_csv_table_comes_back_as_it_was(vault, tmp_path, exchange):
    source = written(as_texts(table_of()), tmp_path / "table.csv")
    seal_cells(vault, source, exchange, tmp_path / "sealed.csv", random=OsSource())
    open_cells(vault, table_at(tmp_path / "sealed.csv"), exchange, tmp_path / "opened.csv")
    assert (tmp_path / "opened.csv").read_bytes() == (tmp_path / "table.csv").read_bytes()


def test_every_type_comes_back_to_the_last_bit(vault, tmp_path):
    table = pa.table(
        {
            "customer": ["a", "b", "c"],
            "byte": pa.array([-128, 127, None], pa.int8()),
            "long": pa.array([2**64 - 1, 0, None], pa.uint64()),
            "float": pa.array([0.1, 3.4e38, None], pa.float32()),
            "double": [5e-324, -0.0, float("inf")],
            "truth": [True, False, None],
            "day": [datetime.date(1, 1, 1), datetime.date(9999, 12, 31), None],
            "time": pa.array([1, 10**18, None], pa.timestamp("ns")),
            "zoned": pa.array([1, 10**9, None], pa.timestamp("s", "Europe/Berlin")),
            "money": pa.array([decimal.Decimal("1.50"), decimal.Decimal("-3.05"), None], pa.decimal128(10, 2)),
            "text": pa.array(["", "x\0y", None], pa.string()),
            "region": ["north", None, ""],
        }
    )
    contract = Exchange(dataclasses.replace(CONTRACT, customer_cells="randomised"))
    seal_cells(vault, written(table, tmp_path / "t.parquet"), contract, tmp_path / "s.parquet", random=OsSource())
    back = opened(vault, tmp_path / "s.parquet", tmp_path, contract)
    assert back.equals(read(tmp_path / "t.parquet"))
    assert str(back["double"][1].as_py()) == "-0.0"


def test_a_dictionary_comes_back_as_its_values_and_other_types_are_refused_by_name(vault, tmp_path):
    table = pa.table({"customer": ["a"], "word": pa.array(["x"]).dictionary_encode()})
    contract = Exchange(dataclasses.replace(CONTRACT, customer_cells="randomised"))
    seal_cells(vault, written(table, tmp_path / "t.parquet"), contract, tmp_path / "s.parquet", random=OsSource())
    assert opened(vault, tmp_path / "s.parquet", tmp_path, contract)["word"].to_pylist() == ["x"]
    lists = written(pa.table({"customer": [["canary"]]}), tmp_path / "lists.parquet")
    with pytest.raises(ContractFault, match="column customer: is of a type that has no sealed cells"):
        seal_cells(vault, lists, contract, tmp_path / "never.parquet", random=OsSource())


def test_a_table_in_many_pieces_is_one_table(vault, tmp_path, monkeypatch):
    monkeypatch.setattr(cellfiles, "_AHEAD", 1000)
    source = written(table_of(), tmp_path / "table.parquet")
    pieces = type(source).pieces

    def small(self, names):
        for piece in pieces(self, names):
            yield from (piece.slice(start, 500) for start in range(0, piece.num_rows, 500))

    monkeypatch.setattr(type(source), "pieces", small)
    seal_cells(vault, source, BY_ROW, tmp_path / "sealed.parquet", random=OsSource())
    assert opened(vault, tmp_path / "sealed.parquet", tmp_path).equals(table_of())
    assert {key.sealed for key in read_ring(vault, CUSTOMERS).keys} == {COUNT}
    table = edited(tmp_path / "sealed.parquet", "note", lambda cells: cells.__setitem__(1100, "zanzibar"))
    told = refused(SealFault, vault, table, tmp_path)
    assert "1 of 200 cells from row 1001 on is of another form than a sealed cell of this kind and version" in told
    assert "(first: row 1101)" in told


def test_a_table_without_rows_has_its_columns(vault, tmp_path):
    contract = Exchange(dataclasses.replace(CONTRACT, customer_cells="randomised"))
    source = written(table_of().slice(0, 0), tmp_path / "table.parquet")
    assert seal_cells(vault, source, contract, tmp_path / "sealed.parquet", random=OsSource()) == 0
    back = opened(vault, tmp_path / "sealed.parquet", tmp_path, contract)
    assert (back.num_rows, back.schema) == (0, table_of().schema)


# --- what is sealed, and how


def test_everything_is_sealed_but_ordinary_columns_and_the_row_key(vault, sealed):
    table = read(sealed)
    assert table.schema.names == [*table_of().schema.names, "row"]
    assert {name: table[name][0].as_py()[:3] for name in ("id", "customer", "age", "note", "bought")} == {
        "id": "v1.",
        "customer": "d1.",
        "age": "v1.",
        "note": "v1.",
        "bought": "v1.",
    }
    assert table["region"].to_pylist() == table_of()["region"].to_pylist()
    assert table["row"].to_pylist() == list(range(1, COUNT + 1))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_no_value_is_in_the_file_or_beside_it_or_in_the_file_of_keys(vault, tmp_path, bank, suffix):
    source = written(as_texts(table_of()), tmp_path / "table.csv")
    seal_cells(vault, source, BY_ID, tmp_path / f"sealed.{suffix}", random=OsSource())
    table = read(tmp_path / f"sealed.{suffix}")
    assert not [c for c in CANARIES for name in table.schema.names for cell in table[name].to_pylist() if c in cell]
    others = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "table.csv"]
    assert not [path for path in others if any(canary.encode() in path.read_bytes() for canary in CANARIES)]
    kept = (bank / "vault" / "cells" / "customers.json").read_bytes()
    assert not [word for word in (b"note", b"bought", str(COUNT).encode()) if word in kept]


def test_cells_are_what_the_page_says_of_them(vault, sealed):
    """Opened by the second implementation, with the key alone."""
    ring, table = read_ring(vault, CUSTOMERS), read(sealed)
    for key in ring.keys:
        with lent(vault, ring, [key]) as (secret,):
            for row in (0, 1, 700):
                bound = [CUSTOMERS, key.column, key.version]
                if key.cells == "randomised":
                    bound.insert(2, str(row + 1))
                value = cellreader.open_(bytes(secret), bound, table[key.column][row].as_py())
                assert value == pc.cast(table_of()[key.column], pa.string())[row].as_py()


def test_every_column_has_a_key_of_its_own_and_keeps_it(vault, sealed, tmp_path):
    first = read_ring(vault, CUSTOMERS).keys
    assert len({key.id for key in first}) == len(first) == 5
    source = table_at(tmp_path / "table.parquet")
    seal_cells(vault, source, BY_ROW, tmp_path / "again.parquet", random=OsSource())
    second = read_ring(vault, CUSTOMERS).keys
    assert [key.id for key in second] == [key.id for key in first]
    assert {key.sealed for key in second} == {2 * COUNT}
    assert read(sealed)["customer"].equals(read(tmp_path / "again.parquet")["customer"])
    assert not set(read(sealed)["note"].to_pylist()) & set(read(tmp_path / "again.parquet")["note"].to_pylist())


def test_other_types_or_kinds_of_cells_are_sealed_under_other_keys(vault, sealed, tmp_path):
    before = {key.column: key for key in read_ring(vault, CUSTOMERS).keys}
    contract = Exchange(dataclasses.replace(CONTRACT, customer_cells="randomised"))
    source = written(as_texts(table_of()), tmp_path / "table.csv")
    seal_cells(vault, source, contract, tmp_path / "texts.csv", random=OsSource())
    ring = read_ring(vault, CUSTOMERS)
    newer = {column for column, key in before.items() if ring.newest(column).version == key.version + 1}
    assert newer == {"customer", "age", "bought"}
    assert opened(vault, tmp_path / "texts.csv", tmp_path, contract).equals(as_texts(table_of()))
    assert opened(vault, sealed, tmp_path).equals(table_of())


def test_interactions_are_sealed_whole_and_bound_to_their_own_data_set(vault, tmp_path):
    rows = Interactions(item="item", time="day", earliest="2025-01-01", latest="2025-12-31")
    exchange = Exchange(Contract(customer="customer", interactions=rows))
    table = pa.table({"customer": ["a"], "item": ["x"], "day": ["2025-02-01"]})
    source = written(table, tmp_path / "table.parquet")
    seal_cells(vault, source, exchange, tmp_path / "sealed.parquet", random=OsSource())
    assert all(read(tmp_path / "sealed.parquet")[name][0].as_py().startswith("v1.") for name in table.schema.names)
    assert opened(vault, tmp_path / "sealed.parquet", tmp_path, exchange).equals(table)
    assert list(wrapped_by(vault)) == ["interactions"]


@pytest.mark.parametrize("column", ["customer", "age", "bought"])
def test_what_the_contract_has_sealed_cannot_be_a_row_key(vault, tmp_path, column):
    source = written(table_of(), tmp_path / "table.parquet")
    with pytest.raises(ContractFault, match=f"column {column}: cannot hold row keys"):
        seal_cells(vault, source, Exchange(CONTRACT, column), tmp_path / "out.csv", random=OsSource())
    assert not (tmp_path / "out.csv").exists()


def with_ids(change):
    ids = table_of()["id"].to_pylist()
    change(ids)
    return table_of().set_column(0, "id", pa.array(ids))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda ids: ids.__setitem__(900, "r3"), "the key of row 901 is another row's too"),
        (lambda ids: ids.__setitem__(900, None), "has no row key in row 901"),
    ],
    ids=["twice", "missing"],
)
def test_rows_without_a_key_of_their_own_are_refused(vault, tmp_path, change, said):
    source = written(with_ids(change), tmp_path / "table.parquet")
    with pytest.raises(ContractFault, match=said):
        seal_cells(vault, source, BY_ID, tmp_path / "out.csv", random=OsSource())
    assert names_in(tmp_path) == ["bank", "table.parquet"]


def test_a_row_key_of_two_rows_is_refused_where_all_cells_are_searchable(vault, tmp_path):
    table = with_ids(lambda ids: ids.__setitem__(900, "r3")).select(["id", "customer"])
    with pytest.raises(ContractFault, match="the key of row 901 is another row's too"):
        seal_cells(vault, written(table, tmp_path / "t.parquet"), BY_ID, tmp_path / "out.csv", random=OsSource())
    assert not (tmp_path / "out.csv").exists()


def test_a_column_of_the_name_of_rows_must_be_named(vault, tmp_path):
    table = table_of().rename_columns(["row", *table_of().schema.names[1:]])
    source = written(table, tmp_path / "table.parquet")
    with pytest.raises(ContractFault, match="name it: --row-key row"):
        seal_cells(vault, source, BY_ROW, tmp_path / "out.parquet", random=OsSource())
    named = Exchange(CONTRACT, "row")
    seal_cells(vault, source, named, tmp_path / "out.parquet", random=OsSource())
    assert opened(vault, tmp_path / "out.parquet", tmp_path, named).equals(table)


def few(count=999):
    return table_of(COUNT).set_column(1, "customer", pa.array([f"c{n % count}" for n in range(COUNT)]))


def frequent():
    return few(COUNT).set_column(1, "customer", pa.array(["canary"] * 13 + [f"c{n}" for n in range(COUNT - 13)]))


@pytest.mark.parametrize(
    ("table", "said"),
    [(few(), "1000 distinct values or more, and there are 999"), (frequent(), "and one is in 13")],
    ids=["few", "frequent"],
)
def test_a_searchable_column_of_few_or_frequent_values_is_refused_with_the_fix(vault, tmp_path, table, said):
    source = written(table, tmp_path / "table.parquet")
    with pytest.raises(ContractFault, match=said) as caught:
        seal_cells(vault, source, BY_ROW, tmp_path / "out.csv", random=OsSource())
    assert "let it be sealed as randomised cells" in str(caught.value)
    assert "canary" not in str(caught.value)
    assert names_in(tmp_path) == ["bank", "table.parquet"]


def test_missing_identifiers_do_not_count_as_frequent(vault, tmp_path):
    names = [None if number % 7 == 0 else f"c{number}" for number in range(COUNT)]
    table = table_of().set_column(1, "customer", pa.array(names))
    source = written(table, tmp_path / "table.parquet")
    seal_cells(vault, source, BY_ROW, tmp_path / "sealed.parquet", random=OsSource())
    assert opened(vault, tmp_path / "sealed.parquet", tmp_path).equals(table)


# --- the file


def test_both_files_are_readable_by_their_owner_alone(vault, tmp_path):
    source = written(table_of(), tmp_path / "table.parquet")
    before = os.umask(0)
    try:
        seal_cells(vault, source, BY_ROW, tmp_path / "sealed.csv", random=OsSource())
        open_cells(vault, table_at(tmp_path / "sealed.csv"), BY_ROW, tmp_path / "opened.csv")
    finally:
        os.umask(before)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("sealed.csv", "opened.csv")} == {0o600}


@pytest.mark.parametrize("name", ["there.csv", "table.parquet", "out.txt"])
def test_nothing_is_written_over_and_no_other_kind_of_file(vault, tmp_path, name):
    source = written(table_of(), tmp_path / "table.parquet")
    (tmp_path / "there.csv").write_text("mine")
    before = (tmp_path / "table.parquet").read_bytes()
    for work in (seal_cells, open_cells):
        more = {"random": OsSource()} if work is seal_cells else {}
        with pytest.raises(FileFault, match=r"exists|neither"):
            work(vault, source, BY_ROW, tmp_path / name, **more)
    assert ((tmp_path / "there.csv").read_text(), (tmp_path / "table.parquet").read_bytes()) == ("mine", before)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_failure_on_the_way_leaves_no_file(vault, tmp_path, monkeypatch, suffix):
    source = written(table_of(), tmp_path / "table.parquet")
    pieces = type(source).pieces

    def broken(self, names):
        yield next(pieces(self, names))
        raise ContractFault

    monkeypatch.setattr(type(source), "pieces", broken)
    with pytest.raises(ContractFault):
        seal_cells(vault, source, BY_ROW, tmp_path / f"out.{suffix}", random=OsSource())
    assert names_in(tmp_path) == ["bank", "table.parquet"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_full_disk_is_told_and_leaves_no_file(vault, tmp_path, monkeypatch, suffix):
    """The device is full from the first byte that is written there."""
    source, opening = written(table_of(), tmp_path / "table.parquet"), os.open

    def full(path, flags, mode=0o777, **more):
        made = opening(path, flags, mode, **more)
        if str(path).endswith(f"out.{suffix}.new"):
            os.dup2(device, made)
        return made

    with open("/dev/full", "wb") as file:  # noqa: PTH123 - a device
        device = file.fileno()
        monkeypatch.setattr(os, "open", full)
        with pytest.raises(FileFault, match=r"cannot be written \(No space left on device\)"):
            seal_cells(vault, source, BY_ROW, tmp_path / f"out.{suffix}", random=OsSource())
    assert names_in(tmp_path) == ["bank", "table.parquet"]


# --- what is not as it was


def swap(one, two):
    def change(cells):
        cells[one], cells[two] = cells[two], cells[one]

    return change


def flip(cells):
    body = cells[9]
    cells[9] = body[:-8] + ("A" if body[-8] != "A" else "B") + body[-7:]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (swap(3, 8), "2 of 1200 cells are changed, or of another row, column, data set or key version (first: row 4)"),
        (flip, "1 of 1200 cells is changed, or of another row, column, data set or key version (first: row 10)"),
        (lambda cells: cells.__setitem__(4, "zanzibar"), "1 of 1200 cells is of another form than a sealed cell of"),
        (lambda cells: cells.__setitem__(4, None), "1 of 1200 cells is of another form than a sealed cell of"),
        (lambda cells: cells.__setitem__(0, "zanzibar"), "(first: row 1)"),
    ],
    ids=["moved", "edited", "plaintext", "emptied", "first"],
)
def test_a_cell_that_was_moved_or_edited_is_found_by_its_row(vault, sealed, tmp_path, change, said):
    text = refused(SealFault, vault, edited(sealed, "note", change), tmp_path)
    assert f"customers.note: {said}" in text or said in text


def test_a_searchable_cell_that_was_edited_is_found_and_one_that_was_moved_is_not(vault, sealed, tmp_path):
    assert "(first: row 10)" in refused(SealFault, vault, edited(sealed, "customer", flip), tmp_path)
    path = tmp_path / "moved.parquet"
    pyarrow.parquet.write_table(edited(sealed, "customer", swap(3, 8)), path)
    assert opened(vault, path, tmp_path)["customer"][3].as_py() == "canary8@example.com"


def test_cells_of_another_column_are_found(vault, sealed, tmp_path):
    table = read(sealed)
    other = table.set_column(table.schema.names.index("note"), "note", table["age"])
    assert "customers.note: has cells of a key that" in refused(KeyFault, vault, other, tmp_path)
    one = edited(sealed, "note", lambda cells: cells.__setitem__(5, table["age"][5].as_py()))
    assert "1 of 1200 cells is sealed under another key (first: row 6)" in refused(SealFault, vault, one, tmp_path)


def test_a_row_key_that_was_edited_or_copied_is_found(vault, sealed, tmp_path):
    moved = edited(sealed, "row", swap(0, 1))
    assert "(first: row 1)" in refused(SealFault, vault, moved, tmp_path)
    table = read(sealed)
    copied = pa.concat_tables([table, table.slice(2, 1)])
    assert "the key of row 1201 is another row's too" in refused(ContractFault, vault, copied, tmp_path)


def test_a_copied_row_is_found_where_all_cells_are_searchable(vault, tmp_path):
    table = pa.table({"customer": [f"c{number}" for number in range(COUNT)]})
    source = written(table, tmp_path / "table.parquet")
    seal_cells(vault, source, BY_ROW, tmp_path / "sealed.parquet", random=OsSource())
    twice = read(tmp_path / "sealed.parquet")
    twice = pa.concat_tables([twice, twice.slice(2, 1)])
    assert "the key of row 1201 is another row's too" in refused(ContractFault, vault, twice, tmp_path)


@pytest.mark.parametrize("kind", [pa.string(), pa.int64()], ids=str)
def test_plaintext_is_never_taken_for_a_column_of_cells(vault, sealed, tmp_path, kind):
    table = read(sealed)
    place, plain = table.schema.names.index("age"), pa.array([40] * COUNT).cast(kind)
    text = refused(SealFault, vault, table.set_column(place, "age", plain), tmp_path)
    assert "customers.age" in text
    assert "of another form than" in text
    added = table.append_column("more", pa.array(["zanzibar"] * COUNT))
    assert "customers.more: has no cells that this workspace sealed" in refused(KeyFault, vault, added, tmp_path)


def test_cells_of_another_kind_than_the_contract_says_are_refused(vault, sealed, tmp_path):
    contract = Exchange(dataclasses.replace(CONTRACT, customer_cells="randomised"))
    text = refused(ContractFault, vault, read(sealed), tmp_path, contract)
    assert "customers.customer: has searchable cells, and randomised ones are asked for" in text


def test_a_colleague_without_the_key_opens_and_finds_nothing(sealed, tmp_path):
    Workspace.create(tmp_path / "shop", "shop")
    with open_vault(tmp_path / "shop", today) as other:
        assert "has cells of a key that" in refused(KeyFault, other, read(sealed), tmp_path)
        with pytest.raises(KeyFault, match="has cells of a key that this workspace does not have"):
            find_cells(other, table_at(sealed), column="customer", value="canary5@example.com")


# --- the keys


def test_new_keys_are_a_next_version_and_older_ones_open_until_they_are_forgotten(vault, sealed, tmp_path):
    source = table_at(tmp_path / "table.parquet")
    renew_keys(vault, source, BY_ROW)
    seal_cells(vault, source, BY_ROW, tmp_path / "newer.parquet", random=OsSource())
    assert [key.version for key in read_ring(vault, CUSTOMERS).keys] == [1] * 5 + [2] * 5
    assert not set(read(sealed)["customer"].to_pylist()) & set(read(tmp_path / "newer.parquet")["customer"].to_pylist())
    for path in (sealed, tmp_path / "newer.parquet"):
        assert opened(vault, path, tmp_path).equals(table_of())
    assert forget_older(vault, CUSTOMERS) == 5
    assert opened(vault, tmp_path / "newer.parquet", tmp_path).equals(table_of())
    assert "has cells of a key that" in refused(KeyFault, vault, read(sealed), tmp_path)


def test_a_key_seals_no_more_cells_than_it_may(vault, sealed, tmp_path, monkeypatch):
    cellfiles.count_cells(vault, CUSTOMERS, read_ring(vault, CUSTOMERS).keys, MOST_CELLS - 2 * COUNT + 1)
    source = table_at(tmp_path / "table.parquet")
    with pytest.raises(KeyFault, match=f"seals at most {MOST_CELLS} cells, of which {COUNT - 1} are left"):
        seal_cells(vault, source, BY_ROW, tmp_path / "out.parquet", random=OsSource())
    renew_keys(vault, source, BY_ROW)
    assert seal_cells(vault, source, BY_ROW, tmp_path / "out.parquet", random=OsSource()) == COUNT


def test_cells_are_counted_before_they_are_sealed(vault, sealed, tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("coterie.clients.cellcolumns.RandomisedCells.seal_cells", killed)
    with pytest.raises(KeyboardInterrupt):
        seal_cells(vault, table_at(tmp_path / "table.parquet"), BY_ROW, tmp_path / "out.parquet", random=OsSource())
    assert {key.sealed for key in read_ring(vault, CUSTOMERS).keys} == {COUNT + 2**20}


def test_after_a_rotation_and_the_end_of_older_keys_cells_open(vault, sealed, tmp_path):
    (before,) = wrapped_by(vault).values()
    done = rewrap(vault)
    assert wrapped_by(vault) == {CUSTOMERS: ("file", done.epoch)}
    assert before != ("file", done.epoch)
    assert destroy_older(vault) == (before[1],)
    assert opened(vault, sealed, tmp_path).equals(table_of())


def test_a_copy_of_the_keys_from_before_is_dead_after_a_rotation(vault, sealed, bank, tmp_path):
    kept = (bank / "vault" / "cells" / "customers.json").read_bytes()
    rewrap(vault)
    destroy_older(vault)
    (bank / "vault" / "cells" / "customers.json").write_bytes(kept)
    assert "a key-encryption key that is not there" in refused(KeyFault, vault, read(sealed), tmp_path)


def test_an_interrupted_rotation_is_finished_and_not_begun_again(vault, sealed, tmp_path, monkeypatch):
    table = table_of()
    stage(vault, CUSTOMERS, table.to_batches(), schema=table.schema, customer="customer").commit("sealed")
    with monkeypatch.context() as patch:
        patch.setattr(rekeying, "rewrap_cells", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            rewrap(vault)
    begun = vault.keys.epochs()
    assert wrapped_by(vault) == {CUSTOMERS: ("file", begun[0])}
    assert rewrap(vault).epoch == begun[-1]
    assert vault.keys.epochs() == begun
    assert wrapped_by(vault) == {CUSTOMERS: ("file", begun[-1])}


def test_older_keys_are_not_destroyed_before_those_of_cells_have_moved_on(vault, sealed, tmp_path):
    vault.keys.advance(after=vault.keys.epochs()[-1])
    assert len(destroy_older(vault)) == 1
    assert opened(vault, sealed, tmp_path).equals(table_of())


def test_keys_of_cells_move_to_another_source(vault, sealed, bank, tmp_path):
    (tmp_path / "stick").mkdir(mode=0o700)
    wanted = KeySettings(source="mount", path=str(tmp_path / "stick"))
    target = new_key_source(wanted, bank, environment={}, ask=None)
    move_keys(vault, target)
    move_keys(vault, target)
    assert opened(vault.under(target), sealed, tmp_path).equals(table_of())
    assert "is not the source of keys" in refused(KeyFault, vault, read(sealed), tmp_path)


def test_a_customer_is_erased_where_cells_were_made(vault, sealed, tmp_path):
    table = table_of()
    vault.workspace.policy.write_text(POLICY)
    stage(vault, CUSTOMERS, table.to_batches(), schema=table.schema, customer="customer").commit("sealed")
    done = erase(vault, "canary5@example.com")
    assert len(done.destroyed) == 1
    assert opened(vault, sealed, tmp_path).equals(table)


@pytest.mark.parametrize(
    "change",
    [
        lambda outer: outer | {"format": "coterie/cells/v2/keys"},
        lambda outer: outer | {"more": ""},
        lambda outer: {name: text for name, text in outer.items() if name != "key"},
        lambda outer: outer | {"sealed": "*"},
        lambda outer: outer | {"sealed": base64.b64encode(b"\1" * 200).decode()},
        lambda outer: [outer],
    ],
    ids=["later", "more", "less", "no base64", "other", "a list"],
)
def test_a_file_of_keys_that_was_changed_is_refused(vault, sealed, bank, tmp_path, change):
    path = bank / "vault" / "cells" / "customers.json"
    path.write_text(json.dumps(change(json.loads(path.read_bytes()))))
    assert "is not this workspace's file of cell keys" in refused(SealFault, vault, read(sealed), tmp_path)


def test_a_file_of_keys_serves_one_data_set_of_one_workspace(vault, sealed, bank, tmp_path):
    cells = bank / "vault" / "cells"
    (cells / "interactions.json").write_bytes((cells / "customers.json").read_bytes())
    with pytest.raises(KeyFault):
        read_ring(vault, "interactions")


# --- looking up


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_are_found_by_a_value(vault, tmp_path, suffix):
    names = ["canary5@example.com" if number in (5, 900) else f"c{number}" for number in range(COUNT)]
    source = written(table_of().set_column(1, "customer", pa.array(names)), tmp_path / "table.parquet")
    for exchange, rows in ((BY_ROW, ["6", "901"]), (BY_ID, ["r5", "r900"])):
        path = tmp_path / f"{exchange.key}.{suffix}"
        seal_cells(vault, source, exchange, path, random=OsSource())
        asked = {"column": "customer", "row_key": exchange.key}
        assert find_cells(vault, table_at(path), value="canary5@example.com", **asked) == rows
        assert find_cells(vault, table_at(path), value="canary6@example.com", **asked) == []


def test_randomised_cells_cannot_be_searched(vault, sealed):
    with pytest.raises(ContractFault, match="has randomised cells, and searchable ones are asked for"):
        find_cells(vault, table_at(sealed), column="note", value="zanzibar")
