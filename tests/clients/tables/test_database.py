"""Tables of a database, on SQLite: what its types say is what is read, and nothing that is secret or a cell is said."""

import datetime
import math
import sqlite3
import traceback
from contextlib import closing

import pyarrow as pa
import pytest

from coterie.clients.tables import database
from coterie.clients.tables.database import table_in
from coterie.clients.tables.table import PIECE, whole
from coterie.privacy.errors import ContractFault

CANARY, PASSWORD = "canary-4711", "hunter2-0815"
INJECTED = '"; DROP TABLE customers;--'


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


@pytest.fixture
def made(tmp_path):
    """Return a function that runs statements in a database, and returns its URL."""

    def run(*statements):
        with closing(sqlite3.connect(tmp_path / "data.db")) as db, db:
            for statement in statements:
                db.execute(*(statement if isinstance(statement, tuple) else (statement,)))
        return f"sqlite:///{tmp_path / 'data.db'}"

    return run


def refused(act):
    """Return the faults that an act raises; no cell, password or statement is in them."""
    with pytest.raises(ContractFault) as caught:
        act()
    said = "".join(traceback.format_exception(caught.value))
    assert not any(secret in said for secret in (CANARY, PASSWORD, "SELECT"))
    return caught.value.faults


ALL = (
    "CREATE TABLE customers (who TEXT, age INTEGER, big BIGINT, spend REAL, price NUMERIC, active BOOLEAN,"
    " born DATE, seen TIMESTAMP, name VARCHAR(9))"
)
ROW = (CANARY, 7, 2**62, 0.1, 1e-13, 1, "1969-12-31", "2025-12-31 23:59:59.5", "Zoë")


def test_columns_are_read_by_their_types(made):
    table = table_in(made(ALL, ("INSERT INTO customers VALUES (?,?,?,?,?,?,?,?,?)", ROW)), "customers")
    kinds = ["string", "int64", "int64", "double", "double", "int64", "date32[day]", "timestamp[us]", "string"]
    assert list(map(str, table.schema.types)) == kinds
    got = whole(table, table.schema.names)
    assert got.schema.equals(table.schema)
    born, seen = datetime.date(1969, 12, 31), datetime.datetime(2025, 12, 31, 23, 59, 59, 500_000)  # noqa: DTZ001
    assert [tuple(row.values()) for row in got.to_pylist()] == [(*ROW[:6], born, seen, "Zoë")]


def test_what_is_missing_is_missing_in_every_type(made):
    table = table_in(made(ALL, "INSERT INTO customers (who) VALUES (NULL)"), "customers")
    assert set(whole(table, table.schema.names).to_pylist()[0].values()) == {None}


def test_a_table_without_rows_has_its_columns(made):
    table = table_in(made(ALL), "customers")
    assert whole(table, ["spend", "who"]).schema.types == [pa.float64(), pa.string()]
    assert whole(table, ["spend", "who"]).num_rows == 0


def test_rows_come_in_pieces_in_order_and_reading_may_stop_and_begin_again(made):
    count = 3 * PIECE + 5
    numbers = "WITH RECURSIVE n(x) AS (SELECT 0 UNION ALL SELECT x + 1 FROM n WHERE x + 1 < ?) SELECT x FROM n"
    table = table_in(made("CREATE TABLE t (x INTEGER)", ("INSERT INTO t " + numbers, (count,))), "t")
    pieces = table.pieces(["x"])
    assert next(pieces)["x"][0].as_py() == 0
    pieces.close()
    assert max(piece.num_rows for piece in table.pieces(["x"])) <= PIECE
    assert whole(table, ["x"])["x"].to_pylist() == list(range(count))


def test_a_view_and_a_table_of_a_named_schema_are_found(made):
    url = made("CREATE TABLE t (x INTEGER)", "INSERT INTO t VALUES (5)", "CREATE VIEW v AS SELECT x, x + 1 AS y FROM t")
    assert whole(table_in(url, "v"), ["x"]).to_pydict() == {"x": [5]}
    assert whole(table_in(url, "main.t"), ["x"]).to_pydict() == {"x": [5]}


NAMES = [INJECTED, "=cmd()", "../x", "a.b", "main.t", "%s", ":x", "a b", "select", "{0}", "x" * 100, "Größe", "'"]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_strange_name_is_only_a_name(made, name):
    own = quoted(name)
    url = made(
        *("CREATE TABLE customers (who TEXT)", "INSERT INTO customers VALUES ('ann')"),
        *(f"CREATE TABLE {own} ({own} INTEGER, other TEXT)", f"INSERT INTO {own} VALUES (7, 'x')"),  # noqa: S608 - own
    )
    assert whole(table_in(url, name), [name]).to_pydict() == {name: [7]}
    assert whole(table_in(url, "customers"), ["who"]).to_pydict() == {"who": ["ann"]}


@pytest.mark.parametrize("name", ["a\nb", "x" * 101], ids=["line break", "101"])
def test_a_name_that_acts_or_is_too_long_is_refused_when_it_is_asked_for(made, name):
    table = table_in(made(f"CREATE TABLE t ({quoted(name)} INTEGER, other TEXT)"), "t")
    assert whole(table, ["other"]).num_rows == 0
    (fault,) = refused(lambda: whole(table, [name]))
    assert "name" in fault.rule


@pytest.mark.parametrize(
    "name", ["nope", "nope.t", "main.nope", "", ".", ".t", INJECTED, "t;", "t WHERE 1", "x" * 9999]
)
def test_a_table_that_is_not_there_is_named(made, name):
    url = made("CREATE TABLE t (x INTEGER)")
    (fault,) = refused(lambda: table_in(url, name))
    assert fault.rule == "is not in the database, or not for this user"
    assert whole(table_in(url, "t"), ["x"]).num_rows == 0


OTHER = {"bytes": "BLOB", "a time of day": "TIME", "JSON": "JSON", "no type": ""}


@pytest.mark.parametrize("what", OTHER)
def test_a_column_of_a_type_that_is_not_read_is_named_when_it_is_asked_for(made, what):
    table = table_in(made(f"CREATE TABLE t (x INTEGER, odd {OTHER[what]})", "INSERT INTO t VALUES (5, NULL)"), "t")
    assert whole(table, ["x"]).to_pydict() == {"x": [5]}
    (fault,) = refused(lambda: whole(table, ["x", "odd"]))
    assert "column odd" in fault.place
    assert fault.rule == "is of a type that is not read"


WRONG = {
    "a text among whole numbers": ("INTEGER", CANARY),
    "a fraction among whole numbers": ("INTEGER", 0.5),
    "a text among numbers": ("REAL", CANARY),
    "a text for a truth value": ("BOOLEAN", CANARY),
    "bytes among texts": ("TEXT", CANARY.encode()),
    "a text for a date": ("DATE", CANARY),
    "a number for a date": ("DATE", 4711),
    "a text for a time": ("TIMESTAMP", CANARY),
    "bytes that are no text": ("TEXT", b"\xff"),
}


@pytest.mark.parametrize("what", WRONG)
def test_cells_that_are_not_of_their_columns_type_are_refused_without_them(made, what):
    kind, cell = WRONG[what]
    table = table_in(made(f"CREATE TABLE t (x {kind}, y TEXT)", ("INSERT INTO t VALUES (?, 'y')", (cell,))), "t")
    (fault,) = refused(lambda: whole(table, ["x"]))
    assert fault.place.startswith("table t of the database")
    assert "type" in fault.rule
    assert whole(table, ["y"]).to_pydict() == {"y": ["y"]}


def test_infinite_numbers_are_handed_on(made):
    table = table_in(made("CREATE TABLE t (x REAL)", ("INSERT INTO t VALUES (?)", (math.inf,))), "t")
    assert whole(table, ["x"]).to_pydict() == {"x": [math.inf]}


def test_a_database_that_is_not_there_is_not_made(tmp_path):
    assert refused(lambda: table_in(f"sqlite:///{tmp_path}/{PASSWORD}.db", "t"))[0].rule == "is a file that is missing"
    assert list(tmp_path.iterdir()) == []


def test_a_database_is_opened_for_reading_only(made):
    table = table_in(made(ALL), "customers")
    with table.engine.connect() as db, pytest.raises(database.exc.OperationalError, match="readonly"):
        db.exec_driver_sql("DROP TABLE customers")


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "text.db").write_text(f"{CANARY}\n" * 99)
    (fault,) = refused(lambda: table_in(f"sqlite:///{tmp_path / 'text.db'}", "t"))
    assert fault.rule == "cannot be read (SQLITE_NOTADB)"


def test_a_table_that_is_gone_by_now_is_refused(made):
    table = table_in(made("CREATE TABLE t (x INTEGER)"), "t")
    made("DROP TABLE t")
    (fault,) = refused(lambda: whole(table, ["x"]))
    assert fault.place == "table t of the database"
    assert fault.rule == "cannot be read (SQLITE_ERROR)"


def test_a_table_shows_its_name_alone(made):
    table = table_in(made(ALL), "customers")
    assert repr(table) == "DatabaseTable(place='table customers of the database')"


URLS = {
    "no URL": (PASSWORD, "has an address that is no database's URL"),
    "nothing": ("", "has an address that is no database's URL"),
    "a port that is none": (f"postgresql://me:{PASSWORD}@127.0.0.1:{PASSWORD}/x", "has an address that is no"),
    "an unknown kind": (f"nosuch://me:{PASSWORD}@127.0.0.1/x", "has an address that is no database's URL"),
    "an unknown driver": (f"postgresql+nosuch://me:{PASSWORD}@127.0.0.1/x", "has an address that is no"),
    "a server that is not there": (f"postgresql://me:{PASSWORD}@127.0.0.1:1/x", "cannot be read (OperationalError)"),
    "an unknown option": (f"postgresql://me@127.0.0.1:1/x?{PASSWORD}=1", "cannot be read (ProgrammingError)"),
}


@pytest.mark.parametrize("what", URLS)
def test_an_address_that_leads_nowhere_is_refused_without_it(what):
    url, rule = URLS[what]
    (fault,) = refused(lambda: table_in(url, "t"))
    assert fault.place == "the database"
    assert rule in fault.rule


def test_a_driver_that_is_missing_is_said_with_what_to_install(monkeypatch):
    def missing(*_args, **_options):
        raise ModuleNotFoundError(PASSWORD)

    monkeypatch.setattr(database.sql, "create_engine", missing)
    (fault,) = refused(lambda: table_in(f"postgresql://me:{PASSWORD}@127.0.0.1/x", "t"))
    assert 'pip install "coterie[postgres]"' in fault.fix
