"""Parquet: read in pieces with the types that it has, and every file that is none refused without a cell."""

import datetime
import traceback

import pyarrow as pa
import pyarrow.parquet
import pytest

from coterie.clients.tables.files import table_at
from coterie.clients.tables.table import PIECE, whole
from coterie.privacy.errors import ContractFault

CANARY = "canary-4711"
TABLE = pa.table(
    {
        "who": ["ann", None, CANARY],
        "age": pa.array([1, None, 3], pa.int16()),
        "spend": [0.5, float("inf"), None],
        "when": [datetime.date(2025, 12, 31), None, datetime.date(1969, 1, 1)],
        "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
    }
)


@pytest.fixture
def at(tmp_path):
    """Return a function that writes a table to a file and opens that."""

    def write(table, name="table.parquet", **options):
        pyarrow.parquet.write_table(table, tmp_path / name, **options)
        return table_at(tmp_path / name)

    return write


def refused(act):
    with pytest.raises(ContractFault) as caught:
        act()
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    return caught.value.faults


def test_columns_come_with_their_types_in_the_order_that_is_asked_for(at):
    table = at(TABLE)
    names = ["spend", "who", "when", "age", "kind"]
    got = whole(table, names)
    assert got.schema.equals(TABLE.select(names).schema)
    assert got.to_pylist() == TABLE.select(names).to_pylist()


@pytest.mark.parametrize("group", [1000, PIECE + 1, 3 * PIECE])
def test_pieces_are_bounded_and_in_order_whatever_the_row_groups(at, group):
    rows = 3 * PIECE + 7
    table = at(pa.table({"x": range(rows), "y": [str(row % 10) for row in range(rows)]}), row_group_size=group)
    assert max(piece.num_rows for piece in table.pieces(["y", "x"])) <= PIECE
    assert whole(table, ["x"])["x"].to_pylist() == list(range(rows))


def test_a_table_without_rows_has_its_columns(at):
    assert whole(at(TABLE.slice(0, 0)), ["age"]).schema.field("age").type == pa.int16()


def test_a_column_that_is_there_twice_is_no_obstacle_to_another(at):
    table = at(TABLE.append_column("who", TABLE["who"]))
    assert whole(table, ["age"])["age"].to_pylist() == [1, None, 3]
    assert "column who: is there twice" in str(refused(lambda: whole(table, ["who"]))[0])


def test_a_column_inside_another_is_not_taken_for_one_with_a_point_in_its_name(at):
    table = at(pa.table({"a": [{"b": 1, "c": 2}], "a.b": ["outer"], "a.c": ["more"]}))
    assert whole(table, ["a.b"]).to_pylist() == [{"a.b": "outer"}]
    assert "is missing" in str(refused(lambda: whole(at(pa.table({"a": [{"b": 1}]})), ["a.b"]))[0])


STRANGE = ['"; DROP TABLE x;--', "=cmd()", "../x", "", "list.element", "x" * 100, "Größe"]


@pytest.mark.parametrize("name", STRANGE, ids=range(len(STRANGE)))
def test_a_strange_name_is_only_a_name(at, name):
    assert whole(at(pa.table({"other": [2], name: [1]})), [name]).to_pydict() == {name: [1]}


@pytest.mark.parametrize("name", ["a\nb", "a\0", "x" * 10_000], ids=["line break", "nul", "10000"])
def test_a_name_that_acts_or_is_too_long_is_refused_when_it_is_asked_for(at, name):
    table = at(pa.table({"other": [2], name: [1]}))
    assert whole(table, ["other"]).to_pydict() == {"other": [2]}
    (fault,) = refused(lambda: whole(table, [name]))
    assert str(fault).isprintable()
    assert len(str(fault)) < 400


def test_two_hundred_columns_are_read(at):
    wide = pa.table({f"c{place}": [place] * 5 for place in range(200)})
    assert whole(at(wide), wide.schema.names).equals(wide)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_short_is_refused(at, keep):
    path = at(pa.table({"who": [f"{CANARY}-{row}" for row in range(5000)]})).path
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    (fault,) = refused(lambda: whole(table_at(path), ["who"]))
    assert fault.place == str(path)
    assert fault.rule == "cannot be read as a table"


def test_a_page_that_was_changed_is_refused_where_the_file_has_checksums(at):
    table = at(pa.table({"x": range(5000)}), write_page_checksum=True, use_dictionary=False, compression="none")
    data = bytearray(table.path.read_bytes())
    data[1000] ^= 1
    table.path.write_bytes(data)
    assert refused(lambda: whole(table, ["x"]))[0].rule == "cannot be read as a table"


def test_a_text_file_and_a_folder_in_its_place_are_refused(tmp_path):
    (tmp_path / "text.parquet").write_text(f"a,b\n1,{CANARY}\n")
    assert refused(lambda: table_at(tmp_path / "text.parquet"))[0].rule == "cannot be read as a table"
    (tmp_path / "folder.parquet").mkdir()
    pyarrow.parquet.write_table(TABLE, tmp_path / "folder.parquet" / "part.parquet")
    assert refused(lambda: table_at(tmp_path / "folder.parquet"))[0].rule == "is a folder"
    assert refused(lambda: table_at(tmp_path / "gone.parquet"))[0].rule == "is missing"


def test_a_name_that_is_no_text_is_refused_without_it(at):
    path = at(pa.table({"abcdefgh": [1]}), store_schema=False).path
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"abc\xff\xfefgh"))
    assert refused(lambda: table_at(path))[0].rule == "has a column whose name is not UTF-8"


def test_texts_that_are_no_utf8_are_handed_on_and_not_said(at):
    """Whoever makes texts of them is told so there; here they are bytes of a column."""
    table = at(pa.table({"who": pa.array([b"\xff" + CANARY.encode()], pa.binary())}))
    assert whole(table, ["who"]).schema.field("who").type == pa.binary()


def test_a_file_that_is_another_one_by_now_is_refused(at):
    table = at(TABLE)
    at(TABLE.drop_columns(["age"]))
    assert refused(lambda: whole(table, ["who"]))[0].rule == "has other columns than a moment ago"
    table.path.unlink()
    assert refused(lambda: whole(table, ["who"]))[0].rule == "is missing"
