"""A table of a database: read in one transaction that changes nothing, through its reflected columns, never by text.

Rules this module enforces:
- names of tables and columns are looked up in what the database says it has; no statement is put together from text;
- where the database can (PostgreSQL, MySQL), a reading is one REPEATABLE READ transaction, and thus of one moment;
  in SQLite one statement is, on a file that is opened for reading only;
- no address, password, statement or cell is in an error: the libraries' own texts may hold them.
"""

import contextlib
import datetime
import decimal
import sqlite3
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sql
from sqlalchemy import exc
from sqlalchemy.pool import NullPool

from coterie.clients.tables.table import PIECE, checked
from coterie.privacy.errors import ContractFault, Fault

__all__ = ["DatabaseTable", "table_in"]

_ROWS = min(PIECE, 1 << 13)  # fetched at a time: as Python's objects they are large
_WAIT = 10  # seconds for a server to answer
_OTHER = pa.binary()  # of columns that are not read
_KINDS: dict[type, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    decimal.Decimal: pa.float64(),
    str: pa.string(),
    uuid.UUID: pa.string(),
    datetime.date: pa.date32(),
    datetime.datetime: pa.timestamp("us"),
}
_CELLS: dict[pa.DataType, tuple[type, ...]] = {
    pa.bool_(): (bool,),
    pa.int64(): (int,),
    pa.float64(): (float, int, decimal.Decimal),
    pa.string(): (str, uuid.UUID),
    pa.date32(): (datetime.date,),
    pa.timestamp("us"): (datetime.datetime,),
    pa.timestamp("us", "UTC"): (datetime.datetime,),
}
_CONVERT: dict[pa.DataType, Callable[[Any], Any]] = {pa.float64(): float, pa.string(): str}


@dataclass(frozen=True)
class DatabaseTable:
    """A table or view of a database; its `repr` shows its name alone.

    Args:
        place: Its name, for an error.
        schema: Its columns; those of types that are not read are binary here, and a fault when they are asked for.
        table: As the database describes it.
        engine: From which connections are made.
    """

    place: str
    schema: pa.Schema = field(repr=False)
    table: sql.Table = field(repr=False)
    engine: sql.Engine = field(repr=False)

    def pieces(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in the database's order, as `Table` says.

        Args:
            names: Columns of each piece.

        Raises:
            ContractFault: A column is not there once or of a type that is not read, cells are not what the column's
                type says, or the database fails.
        """
        chosen = checked(names, self.schema, self.place)
        schema = pa.schema([self.schema.field(place) for place in chosen])
        other = [name for name in names if self.schema.field(name).type == _OTHER]
        if other:
            rule, fix = "is of a type that is not read", "cast it in a view to a number, a text, a date or a time"
            raise ContractFault(*(Fault(f"{self.place} column {name}", rule, fix) for name in other))
        columns = list(self.table.columns)
        query = sql.select(*(_read_as(columns[place], self.schema.field(place).type) for place in chosen))
        with _faults(self.place), _reading(self.engine) as db:
            # The server keeps the result, and sends it piece by piece.
            for rows in db.execution_options(yield_per=_ROWS).execute(query).partitions():
                yield self._piece(rows, schema)

    def _piece(self, rows: Sequence[sql.Row[Any]], schema: pa.Schema) -> pa.RecordBatch:
        columns = []
        for cells, column in zip(zip(*rows, strict=True), schema, strict=True):
            kinds = _CELLS[column.type]
            # SQLite keeps whatever it is given, whatever the column's type.
            wrong = sum(not isinstance(cell, (*kinds, type(None))) for cell in cells)
            if wrong:
                rule = f"holds at least {wrong} cells that are not of its type"
                raise ContractFault(Fault(f"{self.place} column {column.name}", rule, "correct them"))
            convert = _CONVERT.get(column.type)
            same = cells if convert is None else [None if cell is None else convert(cell) for cell in cells]
            columns.append(pa.array(same, column.type))
        return pa.RecordBatch.from_arrays(columns, schema=schema)


def table_in(url: str, name: str) -> DatabaseTable:
    """Return a table of a database.

    Whole numbers are read as int64, other numbers as float64, truth values, texts, dates and times as they are; a time
    with a zone is in UTC.

    Args:
        url: "postgresql://user:password@host/database", "sqlite:////absolute/path", or another of SQLAlchemy's.
        name: Of a table or a view, or "schema.name".

    Raises:
        ContractFault: The URL is none, its driver is not installed, the database cannot be had, or it has no such
            table.
    """
    engine = _engine(url)
    try:
        with _faults("the database"), _reading(engine) as db:
            found = _find(sql.inspect(db), name)
            if found is not None:
                schema, own = found
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", exc.SAWarning)  # of a type that is not read
                    table = sql.Table(own, sql.MetaData(), schema=schema, autoload_with=db, resolve_fks=False)
    finally:
        engine.dispose()
    if found is None:
        rule = "is not in the database, or not for this user"
        raise ContractFault(Fault(f"table {name}", rule, 'give the name of a table, a view, or "schema.name"'))
    fields = [pa.field(column.name, _kind(column.type, engine.dialect.name)) for column in table.columns]
    return DatabaseTable(f"table {name} of the database", pa.schema(fields), table, engine)


def _find(there: sql.Inspector, name: str) -> tuple[str | None, str] | None:
    """Return the schema and the name of a table; a name may hold points itself."""
    if there.has_table(name):
        return None, name
    schema, point, own = name.partition(".")
    return (schema, own) if point and there.has_table(own, schema=schema) else None


def _kind(column: Any, dialect: str) -> pa.DataType:  # noqa: ANN401 - a type of the database
    if isinstance(column, sql.DateTime) and column.timezone:
        return pa.timestamp("us", "UTC")
    try:
        kind = _KINDS.get(column.python_type, _OTHER)
    except NotImplementedError:
        return _OTHER
    # SQLite has no truth values: what it calls so may be any number or text, and converted all of it would be true.
    return pa.int64() if dialect == "sqlite" and kind == pa.bool_() else kind


def _read_as(column: sql.Column[Any], kind: pa.DataType) -> sql.ColumnElement[Any]:
    """Return the column so that the library hands its numbers on as they are: as decimals it would round some."""
    if kind == pa.float64():
        return sql.type_coerce(column, sql.Float())
    return sql.type_coerce(column, sql.Integer()) if kind == pa.int64() else column


def _engine(url: str) -> sql.Engine:
    place = "the database"
    try:
        parsed = sql.make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(parsed.database)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        wait = {"connect_timeout": _WAIT} if parsed.drivername == "postgresql+psycopg" else {}
        return sql.create_engine(parsed, connect_args=wait, poolclass=NullPool, hide_parameters=True)
    except ImportError:
        fix = 'install the database\'s driver; for PostgreSQL: pip install "coterie[postgres]"'
        raise ContractFault(Fault(place, "needs a driver that is missing", fix)) from None
    except (exc.ArgumentError, exc.NoSuchModuleError, ValueError):
        fix = 'write it as "postgresql://user:password@host/database"'
        raise ContractFault(Fault(place, "has an address that is no database's URL", fix)) from None


def _sqlite(database: str | None) -> sql.Engine:
    path = Path(database or "")
    if not path.is_file():
        raise ContractFault(Fault("the database", "is a file that is missing", "correct its path"))
    # Opened by the path alone, SQLite would make a file where there is none.
    address = f"{path.absolute().as_uri()}?mode=ro"
    return sql.create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(address, uri=True), poolclass=NullPool, hide_parameters=True
    )


@contextlib.contextmanager
def _reading(engine: sql.Engine) -> Iterator[sql.Connection]:
    with engine.connect() as db:
        if engine.dialect.name == "postgresql":
            db.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        elif engine.dialect.name in {"mysql", "mariadb"}:
            db.execution_options(isolation_level="REPEATABLE READ")
        yield db


@contextlib.contextmanager
def _faults(place: str) -> Iterator[None]:
    """Turn what a database or a driver says into one clear error; their own words may hold cells and passwords."""
    try:
        yield
    except exc.SQLAlchemyError as error:
        cause = getattr(error, "orig", None)
        code = getattr(cause, "sqlite_errorname", None) or getattr(cause, "sqlstate", None) or type(error).__name__
        fix = "see that the database runs and is whole, and that its address, user and password are right"
        raise ContractFault(Fault(place, f"cannot be read ({code})", fix)) from None
    except (pa.ArrowException, ArithmeticError, ValueError, TypeError):
        rule = "holds cells that are not of their column's type, or larger than it can be here"
        raise ContractFault(Fault(place, rule, "correct them, or cast them in a view")) from None
    except OSError as error:
        raise ContractFault(Fault(place, f"cannot be reached ({type(error).__name__})", "check its address")) from None
