"""Tables of a real PostgreSQL server: its own types, one moment for a whole reading, and names that are only names."""

import datetime
import traceback
import uuid

import psycopg
import pytest
from psycopg import sql

from coterie.clients.tables.database import table_in
from coterie.clients.tables.table import PIECE, whole
from coterie.privacy.errors import ContractFault
from coterie.tests.server.postgres import PASSWORD, server

pytestmark = pytest.mark.slow

CANARY = "canary-4711"
INJECTED = '"; DROP TABLE customers;--'


@pytest.fixture(scope="module")
def postgres():
    with server() as running:
        yield running


@pytest.fixture
def url(postgres):
    return postgres.emptied()


def run(url, *statements):
    with psycopg.connect(url, autocommit=True) as db:
        for statement in statements:
            db.execute(*(statement if isinstance(statement, tuple) else (statement,)))


def refused(act):
    with pytest.raises(ContractFault) as caught:
        act()
    said = "".join(traceback.format_exception(caught.value))
    assert not any(secret in said for secret in (CANARY, PASSWORD, "SELECT", "127.0.0.1"))
    return caught.value.faults


MIDNIGHT = datetime.datetime(2025, 12, 31, 23, 30, tzinfo=datetime.UTC)
TYPES = {
    "smallint": (5, "int64", 5),
    "bigint": (2**62, "int64", 2**62),
    "real": (0.5, "double", 0.5),
    "double precision": (0.1, "double", 0.1),
    "numeric(30,20)": ("0.00000000000012345678", "double", 1.2345678e-13),
    "numeric": ("12345678901234567890.5", "double", 12345678901234567890.5),
    "boolean": (True, "bool", True),
    "text": ("Zoë", "string", "Zoë"),
    "varchar(9)": ("x", "string", "x"),
    "uuid": (uuid.UUID(int=7), "string", "00000000-0000-0000-0000-000000000007"),
    "kind": ("one", "string", "one"),
    "date": (datetime.date(1969, 12, 31), "date32[day]", datetime.date(1969, 12, 31)),
    "timestamp": (MIDNIGHT.replace(tzinfo=None), "timestamp[us]", MIDNIGHT.replace(tzinfo=None)),
    "timestamptz": (MIDNIGHT, "timestamp[us, tz=UTC]", MIDNIGHT),
}


def test_columns_are_read_by_their_types(url):
    columns = ", ".join(f"c{place} {kind}" for place, kind in enumerate(TYPES))
    # The server's zone is another one; a time with a zone stays the same moment.
    run(url, "CREATE TYPE kind AS ENUM ('one', 'two')", f"CREATE TABLE t ({columns})")
    run(url, (f"INSERT INTO t VALUES ({', '.join(['%s'] * len(TYPES))})", [cell for cell, _, _ in TYPES.values()]))  # noqa: S608 - own words
    run(url, "INSERT INTO t (c0) VALUES (NULL)", "ALTER DATABASE postgres SET TimeZone = 'America/New_York'")
    table = table_in(url, "t")
    assert [str(kind) for kind in table.schema.types] == [kind for _, kind, _ in TYPES.values()]
    first, second = (list(row.values()) for row in whole(table, table.schema.names).to_pylist())
    assert first == [said for _, _, said in TYPES.values()]
    assert set(second) == {None}


OTHER = ["bytea", "jsonb", "integer[]", "interval", "time", "inet", "money", "point", "tsvector"]


@pytest.mark.parametrize("kind", OTHER)
def test_a_column_of_a_type_that_is_not_read_is_named_when_it_is_asked_for(url, kind):
    run(url, f"CREATE TABLE t (x integer, odd {kind})", "INSERT INTO t VALUES (5, NULL)")
    table = table_in(url, "t")
    assert whole(table, ["x"]).to_pydict() == {"x": [5]}
    (fault,) = refused(lambda: whole(table, ["odd"]))
    assert "column odd" in fault.place


BEYOND = {
    "a date": ("date", "infinity", "cannot be read (DataError)"),
    "a time": ("timestamp", "infinity", "cannot be read (DataError)"),
    "a number": ("numeric", "1e400", None),
}


@pytest.mark.parametrize("what", BEYOND)
def test_what_is_beyond_all_bounds_is_refused_or_infinite(url, what):
    kind, cell, rule = BEYOND[what]
    run(url, f"CREATE TABLE t (x {kind})", (f"INSERT INTO t VALUES (%s::{kind})", (cell,)))  # noqa: S608 - own words
    table = table_in(url, "t")
    if rule is None:
        assert whole(table, ["x"]).to_pydict() == {"x": [float("inf")]}
    else:
        assert refused(lambda: whole(table, ["x"]))[0].rule == rule


NAMES = [INJECTED, "=cmd()", "../x", "a.b", "public.t", "%s", "%(x)s", ":x", "A b", "select", "{0}", "Größe", "'"]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_strange_name_is_only_a_name(url, name):
    called = sql.Identifier(name)
    run(url, "CREATE TABLE customers (who text)", "INSERT INTO customers VALUES ('ann')")
    run(url, sql.SQL("CREATE TABLE {0} ({0} integer, other text)").format(called))
    run(url, sql.SQL("INSERT INTO {0} VALUES (7, 'x')").format(called))
    run(url, sql.SQL("CREATE SCHEMA {0}").format(called), sql.SQL("CREATE TABLE {0}.t ({0} text)").format(called))
    assert whole(table_in(url, name), [name]).to_pydict() == {name: [7]}
    if "." not in name:
        assert whole(table_in(url, f"{name}.t"), [name]).num_rows == 0
    assert whole(table_in(url, "public.customers"), ["who"]).to_pydict() == {"who": ["ann"]}


def test_a_reading_is_of_one_moment_and_the_next_one_of_its_own(url):
    count = 2 * PIECE
    run(url, "CREATE TABLE t (x integer)", f"INSERT INTO t SELECT generate_series(1, {count})")
    table = table_in(url, "t")
    pieces = table.pieces(["x"])
    got = next(pieces)["x"].to_pylist()
    run(url, "UPDATE t SET x = -x", "INSERT INTO t VALUES (0)")
    for piece in pieces:
        assert piece.num_rows <= PIECE
        got += piece["x"].to_pylist()
    assert got == list(range(1, count + 1))
    assert sorted(whole(table, ["x"])["x"].to_pylist()) == list(range(-count, 1))


def test_a_reading_changes_nothing_and_is_one_transaction(url):
    run(
        url,
        "CREATE TABLE seen (x integer)",
        "CREATE FUNCTION note() RETURNS integer LANGUAGE sql VOLATILE AS 'INSERT INTO seen VALUES (1) RETURNING x'",
        "CREATE VIEW v AS SELECT note() AS x",
        "CREATE FUNCTION level() RETURNS text LANGUAGE sql AS 'SELECT current_setting(''transaction_isolation'')'",
        "CREATE VIEW how AS SELECT level() AS x",
    )
    assert refused(lambda: whole(table_in(url, "v"), ["x"]))[0].rule == "cannot be read (25006)"
    assert whole(table_in(url, "seen"), ["x"]).num_rows == 0
    assert whole(table_in(url, "how"), ["x"]).to_pydict() == {"x": ["repeatable read"]}


def test_reading_may_stop_anywhere_and_leaves_no_connection(url):
    run(url, "CREATE TABLE t (x integer)", "INSERT INTO t SELECT generate_series(1, 100000)")
    table = table_in(url, "t")
    for _ in range(5):
        pieces = table.pieces(["x"])
        next(pieces)
        pieces.close()
    with psycopg.connect(url) as db:
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'postgres' AND pid <> pg_backend_pid()"
        for _ in range(2000):  # polled until the server itself has seen them leave
            if not db.execute(others).fetchone()[0]:
                break
            db.rollback()
        assert db.execute(others).fetchone()[0] == 0


def test_a_wrong_password_and_a_table_of_others_are_refused(url, postgres):
    (fault,) = refused(lambda: table_in(postgres.url("postgres", password=CANARY), "t"))
    assert fault.rule.startswith("cannot be read")
    run(
        url, "CREATE TABLE t (x integer)", "DROP ROLE IF EXISTS guest", f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'"
    )
    table = table_in(url.replace("//coterie:", "//guest:"), "t")
    (fault,) = refused(lambda: whole(table, ["x"]))
    assert fault.rule == "cannot be read (42501)"
