"""Catalogues as files: one catalogue from every format, clear faults, and item codes found in it."""

import time

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from coterie.clients.catalogues import (
    CatalogueFault,
    hold_to_digest,
    match_items,
    read_catalogue,
    write_catalogue,
)
from coterie.models.catalogue import Catalogue

GTINS = ("00036000291452", "04006381333931", "06291041500213")
CANARY = "Zwetschgenmus"


def saved(folder, columns, name="items.parquet"):
    path = folder / name
    table = pa.table(columns)
    if name.endswith(".csv"):
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path)
    return path


def faults_of(path, kind="taxonomy", **options):
    with pytest.raises(CatalogueFault) as caught:
        read_catalogue(path, kind, **options)
    assert CANARY not in str(caught.value)
    return str(caught.value)


# --- one catalogue from every file ----------------------------------------------------------------------


def test_csv_and_parquet_rows_in_any_order_and_column_types_give_one_catalogue(tmp_path):
    brand, year, price = ["Acme", None, "Über|Sub"], [1999, None, 2003], [0.1, 2.5, None]
    tables = {
        "a.csv": {"item": ["b", "a", "c"], "brand": brand, "year": year, "price": price},
        "b.parquet": {
            "item": pa.array(["b", "a", "c"], pa.large_string()),
            "brand": pa.array(brand).dictionary_encode(),
            "year": pa.array(year, pa.int16()),
            "price": pa.array(price, pa.float32()),
        },
        "c.parquet": {
            "price": pa.array([None, "0.10", " 2.5"]),
            "item": ["c", " b", "a "],
            "year": pa.array([2003.0, 1999.0, np.nan]),
            "brand": ["U\u0308ber|Sub", "Acme", ""],
        },
    }
    read = [read_catalogue(saved(tmp_path, columns, name), "taxonomy") for name, columns in tables.items()]
    assert len({catalogue.digest() for catalogue in read}) == 1
    assert read[0].codes == ("a", "b", "c")
    assert read[0].attributes["brand"] == ("", "Acme", "Über|Sub")
    assert np.array_equal(read[0].attributes["year"], [np.nan, 1999, 2003], equal_nan=True)
    assert np.array_equal(read[0].attributes["price"], [2.5, 0.1, np.nan], equal_nan=True)


def test_gtins_lose_no_zeros_in_any_format(tmp_path):
    short = ["6291041500213", "036000291452", "4006381333931"]
    tables = {
        "a.csv": {"item": short},
        "b.parquet": {"item": list(GTINS)},
        "c.parquet": {"item": pa.array([int(code) for code in short], pa.int64())},
    }
    for name, columns in tables.items():
        assert read_catalogue(saved(tmp_path, columns, name), "gtin").codes == GTINS


@pytest.mark.parametrize("name", ["items.csv", "items.parquet"])
def test_what_is_written_is_read_back(tmp_path, name):
    attributes = {
        "price": np.array([1.0, np.nan, 0.1]),
        "quoted": ('say "hi", twice', "", "a|b"),
        "digits": ("007", "", "12"),
    }
    catalogue = Catalogue(GTINS, attributes, "gtin")
    write_catalogue(catalogue, tmp_path / name)
    assert read_catalogue(tmp_path / name, "gtin", words=["digits"]).digest() == catalogue.digest()
    as_numbers = read_catalogue(tmp_path / name, "gtin").attributes["digits"]
    assert np.array_equal(as_numbers, [7, np.nan, 12], equal_nan=True)
    assert b"nan" not in (tmp_path / name).read_bytes().lower()
    write_catalogue(catalogue, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_catalogue_that_cannot_be_written_is_a_fault(tmp_path):
    with pytest.raises(CatalogueFault, match="cannot be written"):
        write_catalogue(Catalogue(("a", "b")), tmp_path / "nowhere" / "items.csv")


# --- faults ---------------------------------------------------------------------------------------------


def test_every_fault_of_a_file_is_named_at_once_by_count(tmp_path):
    path = saved(
        tmp_path,
        {
            "item": [CANARY, CANARY, CANARY, None, "x" * 101, "tab\there"],
            "brand": [f"{CANARY}\n", f"{CANARY}\x00x", "a", "b", "c", "x" * 1001],
            "price": [1.0, np.inf, -np.inf, 2.0, 3.0, 4.0],
            "nothing": pa.array([None] * 6, pa.string()),
        },
    )
    text = faults_of(path)
    for expected in (
        "column item: names an item again in 2 rows",
        "column item: holds 1 codes that are empty",
        "column item: holds 1 codes that are longer than 100 characters",
        "column item: holds 1 codes that hold control characters",
        "column brand: holds control characters in 1 rows",
        "column brand: is longer than 1000 characters in 1 rows",
        "column price: is infinite in 2 rows",
        "column nothing: has no value",
    ):
        assert expected in text
    assert len(text.splitlines()) == 8
    assert all(line.startswith(str(path)) for line in text.splitlines())


def test_wrong_check_digits_are_counted(tmp_path):
    path = saved(tmp_path, {"item": ["4006381333931", "4006381333932", "6291041500214", "12", "036000291452"]})
    text = faults_of(path, "gtin")
    assert "holds 2 codes that have a wrong check digit" in text
    assert "holds 1 codes that are not 8, 12, 13 or 14 digits" in text
    assert "leading zeros" in text


def test_one_item_twice_in_two_spellings_is_noticed(tmp_path):
    path = saved(tmp_path, {"item": ["036000291452", "00036000291452", "4006381333931"]})
    assert "names an item again in 1 rows" in faults_of(path, "gtin")


@pytest.mark.parametrize("name", ["items.csv", "items.parquet"])
@pytest.mark.parametrize("rows", [0, 1])
def test_a_catalogue_of_one_item_or_none_is_refused(tmp_path, name, rows):
    path = saved(tmp_path, {"item": pa.array([CANARY] * rows, pa.string())}, name)
    assert "must list at least 2 items and at most 1000000" in faults_of(path)


def test_more_than_a_million_items_are_refused_unread(tmp_path):
    path = saved(tmp_path, {"item": pa.array(np.arange(1_000_001))})
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(1000) + content[1004:])  # what is read now is no table
    assert "at most 1000000" in faults_of(path)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"code": ["a", "b"]}, "column item: is missing"),
        ({"item": [1.5, 2.5]}, "column item: must hold texts or whole numbers"),
        ({"item": ["a", "b"], "new": [True, False]}, "column new: must hold texts or numbers"),
        ({"item": ["a", "b"], "tags": [["x"], ["y"]]}, "column tags: must hold texts or numbers"),
        ({"item": ["a", "b"], "x\ny": ["p", "q"]}, "header: must name every column in plain text"),
        ({"item": ["a", "b"], **{f"x{n}": ["p", "q"] for n in range(33)}}, "must have at most 32 attributes"),
    ],
)
def test_a_table_of_another_shape_is_refused(tmp_path, columns, expected):
    assert expected in faults_of(saved(tmp_path, columns))


def test_options_that_do_not_fit_the_file_are_refused(tmp_path):
    path = saved(tmp_path, {"item": ["a", "b"]})
    assert "name one of gtin, taxonomy" in faults_of(path, "sku")
    assert "column brand: is missing" in faults_of(path, words=["brand"])


def test_files_that_are_no_tables_are_refused(tmp_path):
    assert "cannot be read as a table" in faults_of(tmp_path / "missing.parquet")
    for name, content in {
        "text.parquet": CANARY.encode(),
        "empty.csv": b"",
        "bytes.csv": b"item\n\xff\xfe" + CANARY.encode(),
        "ragged.csv": f"item,brand\na,b\n{CANARY}\n".encode(),
    }.items():
        (tmp_path / name).write_bytes(content)
        assert "cannot be read as a table" in faults_of(tmp_path / name)
    (tmp_path / "twice.csv").write_text("item,brand,brand\na,x,x\nb,y,y\n")
    assert "column brand: is there twice" in faults_of(tmp_path / "twice.csv")


def test_an_item_table_that_differs_between_partners_is_refused_with_both_digests():
    agreed, here = Catalogue(("a", "b")), Catalogue(("a", "c"))
    hold_to_digest(agreed, agreed.digest(), place="items.csv")
    with pytest.raises(CatalogueFault) as caught:
        hold_to_digest(here, agreed.digest(), place="items.csv")
    (fault,) = caught.value.faults
    assert agreed.digest() in fault.rule
    assert here.digest() in fault.rule
    assert "agreed file" in fault.fix
    assert fault.place == "items.csv"


# --- matching -------------------------------------------------------------------------------------------


def test_codes_are_found_and_unknown_ones_are_marked():
    catalogue = Catalogue(("Caf\u00e9", "a", "b"))
    column = ["b", "z", None, " a", "Cafe\u0301", "", "b", "x" * 101]
    expected = [2, -1, -1, 1, 0, -1, 2, -1]
    for codes in (
        pa.array(column),
        pa.array(column, pa.large_string()),
        pa.chunked_array([column[:3], [], column[3:]], pa.string()),
        pa.array(column).dictionary_encode(),
        pa.chunked_array([pa.array(column[:3]).dictionary_encode(), pa.array(column[3:]).dictionary_encode()]),
    ):
        found = match_items(codes, catalogue)
        assert found.dtype == np.int64
        assert found.tolist() == expected
    assert match_items(pa.chunked_array([], pa.string()), catalogue).tolist() == []
    assert match_items(pa.array([], pa.string()), catalogue).tolist() == []


def test_gtins_are_found_in_every_spelling_and_not_with_a_wrong_check_digit():
    catalogue = Catalogue(GTINS, kind="gtin")
    texts = ["036000291452", "00036000291452", "36000291452", "6291041500213", "6291041500214"]
    assert match_items(pa.array(texts), catalogue).tolist() == [0, 0, -1, 2, -1]
    numbers = pa.array([36000291452, 4006381333931, 6291041500214, -1, None])
    assert match_items(numbers, catalogue).tolist() == [0, 1, -1, -1, -1]


def test_whole_numbers_are_codes_of_a_taxonomy_and_other_numbers_are_not():
    catalogue = Catalogue(("100205", "7"))
    assert match_items(pa.array([7, 100205, 8]), catalogue).tolist() == [1, 0, -1]
    with pytest.raises(CatalogueFault, match="texts or whole numbers"):
        match_items(pa.array([7.0]), catalogue)


def test_a_hundred_thousand_items_and_a_million_rows_take_seconds(tmp_path):
    draw, count = np.random.default_rng(3), 100_000
    codes = np.array([f"item-{number:06d}" for number in draw.permutation(count)])
    columns = {"item": codes, "brand": [f"b{n % 999}" for n in range(count)], "price": draw.random(count)}
    path = saved(tmp_path, columns, "items.csv")
    start = time.process_time()
    catalogue = read_catalogue(path, "taxonomy")
    rows = draw.integers(0, count, 1_000_000)
    unknown = draw.random(len(rows)) < 0.1
    found = match_items(pa.array(np.where(unknown, "other", codes[rows])), catalogue)
    assert time.process_time() - start < 15
    assert (found[unknown] == -1).all()
    assert np.array_equal(np.array(catalogue.codes)[found[~unknown]], codes[rows][~unknown])
