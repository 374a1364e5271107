"""CSV: every cell as it was written, compared with Python's own reader, and every broken file named without a cell."""

import csv
import datetime
import os
import traceback

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coterie.clients.tables import csvfile
from coterie.clients.tables.files import table_at
from coterie.clients.tables.table import PIECE, whole
from coterie.privacy.errors import ContractFault

CANARY = "canary-4711"
BOM = b"\xef\xbb\xbf"


@pytest.fixture
def at(tmp_path):
    """Return a function that writes a file and opens it as a table."""

    def write(data, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return table_at(path)

    return write


def read(table, names=None):
    return whole(table, table.schema.names if names is None else names).to_pydict()


def refused(act):
    """Return the one fault that an act raises; no canary is in it."""
    with pytest.raises(ContractFault) as caught:
        act()
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    (fault,) = caught.value.faults
    return fault


# --- what is written is what is read ------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8).map(lambda name: f"{name}_")
CELLS = st.text(st.characters(exclude_categories=("Cs",)), max_size=6) | st.sampled_from(
    ["007", "1e5", "NA", "null", "true", " 5 ", "2025-12-31", '"', "a,b", "x\ny", "\r\n", "'", "\ufeff", "#", "=1+1"]
)


@st.composite
def tables(draw):
    names = draw(st.lists(NAMES.filter(lambda name: ";" not in name), min_size=1, max_size=5, unique=True))
    return names, draw(st.lists(st.tuples(*[CELLS] * len(names)), max_size=12))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=tables(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    bom=st.booleans(),
)
def test_what_python_writes_is_read_as_python_reads_it(tmp_path, table, end, quoting, bom):
    names, rows = table
    path = tmp_path / "table.csv"
    with path.open("w", encoding="utf-8-sig" if bom else "utf-8", newline="") as file:
        csv.writer(file, lineterminator=end, quoting=quoting).writerows([names, *rows])
    with path.open(encoding="utf-8-sig", newline="") as file:
        header, *expected = csv.reader(file)
    found = table_at(path)
    assert found.schema.names == header
    if any(len(row) not in {0, len(header)} for row in expected):  # Python's writer leaves some line breaks bare
        assert "cells in row" in refused(lambda: read(found)).rule
        return
    got = whole(found, header).to_pylist()
    assert [tuple(row.values()) for row in got] == [tuple(cell or None for cell in row) for row in expected if row]


def test_rows_may_lie_across_the_blocks_that_are_read(at, monkeypatch):
    monkeypatch.setattr(csvfile, "_BLOCK", 96)
    rows = [(str(row), f'line {row}\nand "more"' if row % 3 else "", "x" * (row % 40)) for row in range(2000)]
    text = "a,b,c\n" + "".join(f'{a},"{b.replace(chr(34), chr(34) * 2)}",{c}\n' for a, b, c in rows)
    assert read(at(text)) == {name: [row[place] or None for row in rows] for place, name in enumerate(("a", "b", "c"))}


def test_nothing_is_guessed_and_an_empty_cell_is_missing(at):
    table = at('a,b\n007,""\nNA, 1.50 \n,nan\n2025-12-31T23:30:00-04:00,TRUE\n')
    assert {str(kind) for kind in table.schema.types} == {"string"}
    assert read(table) == {"a": ["007", "NA", None, "2025-12-31T23:30:00-04:00"], "b": [None, " 1.50 ", "nan", "TRUE"]}


@pytest.mark.parametrize("data", ["a,b", "a,b\n", "a,b\r\n", "\n\na,b\n\n\n", BOM + b"a,b\n"])
def test_a_header_alone_is_a_table_without_rows(at, data):
    assert read(at(data)) == {"a": [], "b": []}


def test_empty_lines_are_no_rows_wherever_they_are(at):
    assert read(at("\n\r\na,b\n\n1,2\n\n\n3,4\n\n")) == {"a": ["1", "3"], "b": ["2", "4"]}


def test_a_mark_and_a_last_line_without_an_end_are_accepted(at):
    assert read(at(BOM + b'"a",b\n1,2')) == {"a": ["1"], "b": ["2"]}


def test_pieces_are_bounded_and_in_order(at):
    table = at("a\n" + "".join(f"{row}\n" for row in range(3 * PIECE)))
    sizes = [piece.num_rows for piece in table.pieces(["a"])]
    assert max(sizes) <= PIECE
    assert sum(sizes) == 3 * PIECE
    assert read(table)["a"] == [str(row) for row in range(3 * PIECE)]


def test_a_table_may_be_read_again_and_reading_may_stop_anywhere(at):
    table = at("a,b\n" + "1,2\n" * 400_000)
    for _ in range(20):
        pieces = table.pieces(["b"])
        assert next(pieces).schema.names == ["b"]
        pieces.close()
    assert sum(piece.num_rows for piece in table.pieces(["a"])) == 400_000


def test_two_hundred_columns_are_read_and_picked_in_the_order_that_is_asked_for(at):
    names = [f"c{place}" for place in range(200)]
    table = at(
        ",".join(names) + "\n" + "".join(",".join(f"{row}/{place}" for place in range(200)) + "\n" for row in range(9))
    )
    assert read(table, ["c199", "c0", "c7"]) == {
        "c199": [f"{row}/199" for row in range(9)],
        "c0": [f"{row}/0" for row in range(9)],
        "c7": [f"{row}/7" for row in range(9)],
    }


def test_capitals_in_a_suffix_do_not_matter(at):
    assert read(at("a\n1\n", "TABLE.CSV")) == {"a": ["1"]}


# --- names --------------------------------------------------------------------------------------------------------


def test_a_column_that_is_there_twice_is_no_obstacle_to_another(at):
    table = at("who,who,what\nann,bob,tea\n")
    assert table.schema.names == ["who", "who", "what"]
    assert read(table, ["what"]) == {"what": ["tea"]}
    assert "column who: is there twice" in str(refused(lambda: read(table, ["who"])))


def test_a_column_that_is_not_there_is_named(at):
    assert "column when: is missing" in str(refused(lambda: read(at("who,what\n"), ["when"])))


def test_every_column_that_cannot_be_read_is_named_at_once(at):
    with pytest.raises(ContractFault) as caught:
        read(at("a,a,b\n1,2,3\n"), ["a", "b", "c", "d"])
    assert [fault.place.rsplit(" ", 1)[1] for fault in caught.value.faults] == ["a", "c", "d"]


STRANGE = ['"; DROP TABLE x;--', "=cmd()", "../x", "0", "f0", "", "a b", "%s", "{0}", "<b>", "x" * 100, "Größe"]


@pytest.mark.parametrize("name", STRANGE, ids=range(len(STRANGE)))
def test_a_strange_name_is_only_a_name(at, name):
    quoted = name.replace('"', '""')
    assert read(at(f'"{quoted}",other\n1,2\n')) == {name: ["1"], "other": ["2"]}


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("a\nb", "has control characters in its name"),
        ("a\x1b[2J", "has control characters in its name"),
        ("a\u202eb", "has control characters in its name"),
        ("x" * 101, "has a name of more than 100 characters"),
        ("x" * 10_000, "has a name of more than 100 characters"),
    ],
    ids=["line break", "escape", "reversed", "101", "10000"],
)
def test_a_name_that_acts_or_is_too_long_is_refused_when_it_is_asked_for(at, name, rule):
    table = at(f'"{name}",other\n1,2\n')
    assert read(table, ["other"]) == {"other": ["2"]}
    fault = refused(lambda: read(table, [name]))
    assert fault.rule == rule
    assert str(fault).isprintable()
    assert len(str(fault)) < 400


def test_of_a_name_that_swallowed_rows_only_the_beginning_is_shown(at):
    table = at(f'"a\n1,{CANARY}\n",b\n1,2\n')
    assert "column a...: has control characters" in str(refused(lambda: read(table)))


# --- what is no such table ----------------------------------------------------------------------------------------

BAD = {
    "too few cells": (f"a,b\n1,2\n{CANARY}\n", "has 1 cells in row 3 where the header has 2"),
    "too many cells": (f"a,b\n1,2\n3,4\n5,6,{CANARY}\n", "has 3 cells in row 4 where the header has 2"),
    "several such rows": (
        f"a,b\n1\n1,2\n1,2,{CANARY}\n\n1\n",
        "has 1 cells in row 2 where the header has 2; so it is in 2 more rows",
    ),
    "a line break in a cell before": (f'a,b\n"1\n\n",2\n{CANARY}\n', "has 1 cells in row 3 where the header has 2"),
    "a quote that stays open in the last cell": (f'a,b\n1,"{CANARY}', "ends within quotes"),
    "a quote that swallows rows": (f'a,b\n1,"2\n3,{CANARY}\n5,6\n', "ends within quotes"),
    "a quote that stays open in the only cell": (f'a\n1\n"{CANARY}\n', "ends within quotes"),
    "a row without an end": ("a,b\n1,2\n" + f'3,"{CANARY}' + "x" * 3_000_000, "has a row of more than 1024 KiB"),
    "Latin-1 in a cell": (
        f"a,b\n1,{CANARY}ö\n".encode("latin-1"),
        "is not UTF-8: it looks like Windows-1252 or Latin-1",
    ),
    "Latin-1 far below": (
        b"a,b\n" + b"1,2\n" * 900_000 + f"1,{CANARY}ö\n".encode("latin-1"),
        "is not UTF-8: it looks like Windows-1252 or Latin-1",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_file_is_refused_by_row_and_count_without_a_cell(at, name):
    data, rule = BAD[name]
    table = at(data)
    fault = refused(lambda: read(table))
    assert fault.place == table.place
    assert fault.rule == rule


def test_uneven_rows_are_counted_over_the_whole_file_and_nothing_after_them_is_handed_on(at, monkeypatch):
    monkeypatch.setattr(csvfile, "_BLOCK", 64)
    table, rows = at("a,b\n" + "1,2\n" * 100 + "1\n" + "3,4\n" * 100 + "1,2,3\n" * 7), []

    def act():
        for piece in table.pieces(["a"]):
            rows.extend(piece["a"].to_pylist())

    assert refused(act).rule == "has 1 cells in row 102 where the header has 2; so it is in 7 more rows"
    assert set(rows) == {"1"}


UNOPENED = {
    "empty": (b"", "is empty"),
    "empty lines": (b"\n\r\n\n", "is empty"),
    "a mark alone": (BOM, "is empty"),
    "UTF-16": (f"a,b\n1,{CANARY}\n".encode("utf-16"), "is not UTF-8: it looks like UTF-16"),
    "UTF-16 without a mark": (f"a,b\n1,{CANARY}\n".encode("utf-16-le"), "is not UTF-8: it looks like UTF-16"),
    "Latin-1 in the header": ("Größe,b\n".encode("latin-1"), "is not UTF-8: it looks like Windows-1252 or Latin-1"),
    "a quote that stays open in the header": (f'a,"b\n1,{CANARY}\n', "has quotes in its header that do not fit"),
    "a quote in the header that a later one closes": (
        f'a,"b\n1,{CANARY}\n2,"x"\n',
        "has quotes in its header that do not fit",
    ),
    "semicolons": (f"a;b\n1;{CANARY}\n", "is parted by semicolons"),
    "semicolons and quotes": (f'"a";"b"\n1;{CANARY}\n', "is parted by semicolons"),
    "tabs": (f"a\tb\n1\t{CANARY}\n", "is parted by tabs"),
    "a header without an end": (b"x," * 150_000, "has a header of more than 256 KiB"),
}


@pytest.mark.parametrize("name", UNOPENED)
def test_a_file_without_a_header_in_commas_and_utf8_is_not_opened(at, name):
    data, rule = UNOPENED[name]
    fault = refused(lambda: at(data))
    assert fault.rule == rule
    assert fault.fix


def test_what_the_library_says_of_a_file_is_not_passed_on(at, monkeypatch):
    def say(*_args, **_options):
        raise pa.ArrowInvalid(CANARY)

    table = at("a,b\n1,2\n")
    monkeypatch.setattr(csvfile.pyarrow.csv, "open_csv", say)
    assert refused(lambda: read(table)).rule == "cannot be read as a table"


def test_a_semicolon_in_a_name_is_no_separator(at):
    assert read(at('"a;b"\n1\n')) == {"a;b": ["1"]}


def test_bytes_that_are_no_text_in_a_column_that_is_not_asked_for_are_not_looked_at(at):
    assert read(at(b"a,b\n1,\xff\n"), ["a"]) == {"a": ["1"]}


def test_what_is_not_there_a_folder_or_another_kind_of_file_is_said_so(tmp_path):
    assert refused(lambda: table_at(tmp_path / "gone.csv")).rule == "is missing"
    (tmp_path / "folder.csv").mkdir()
    assert refused(lambda: table_at(tmp_path / "folder.csv")).rule == "is a folder"
    (tmp_path / "table.xlsx").touch()
    assert refused(lambda: table_at(tmp_path / "table.xlsx")).rule == "is neither a .csv nor a .parquet file"


def test_a_file_that_is_another_one_by_now_is_refused(at):
    table = at("a,b\n1,2\n")
    table.path.write_text("b,a\n1,2\n")
    assert refused(lambda: read(table)).rule == "has another header than a moment ago"
    table.path.unlink()
    assert refused(lambda: read(table)).rule == "is missing"


def test_a_file_that_is_cut_while_it_is_read_ends_or_is_refused_and_nothing_is_made_up(at):
    day = datetime.date(2025, 12, 31).isoformat()
    table = at("a,b\n" + f"{day},x\n" * 500_000)
    pieces, got = table.pieces(["a"]), []
    got += next(pieces)["a"].to_pylist()
    os.truncate(table.path, 4_000_000)
    try:
        for piece in pieces:
            got += piece["a"].to_pylist()
    except ContractFault:
        pass
    assert set(got) == {day}
