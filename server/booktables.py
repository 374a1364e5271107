"""The tables of the coordinator's books, and the database under them: SQLite, or PostgreSQL by its URL.

Several processes write the books: the service, the process of a study, the command line. On either database there is
one writer at a time, which holds the lock from before it reads, so that what it checks still holds when it writes.
SQLite has WAL and synchronous=FULL, as the ledger has (`privacy/storage.py`): with NORMAL, acknowledged commits are
lost on power failure.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy import exc

from coterie.privacy.durable import sync_folder
from coterie.privacy.errors import CoterieError, Fault
from coterie.server.bookrows import FOLLOWS

__all__ = [
    "VERSION",
    "BooksFault",
    "absences",
    "members",
    "models",
    "opened",
    "place_of",
    "reading",
    "retired",
    "rounds",
    "studies",
    "writing",
]

VERSION = 1
_LOCK = 0x636F746572  # of the one writer, on PostgreSQL
_FIXES = {
    "SQLITE_FULL": "free some space",
    "SQLITE_IOERR_WRITE": "free some space",
    "SQLITE_BUSY": "wait for the other process that writes them",
    "SQLITE_CANTOPEN": "check the path and its rights",
    "SQLITE_READONLY": "check the path and its rights",
    "53100": "free some space on the database's machine",
    "55P03": "wait for the other process that writes them",
    "3F000": "let the URL's user create and write tables in this database",
    "42501": "let the URL's user create and write tables in this database",
}


class BooksFault(CoterieError):
    """The coordinator's books cannot be opened or written, or do not hold what is asked for."""


_metadata = sql.MetaData()
_books = sql.Table("books", _metadata, sql.Column("version", sql.Integer, primary_key=True, autoincrement=False))
members = sql.Table(
    "members",
    _metadata,
    sql.Column("name", sql.Text, primary_key=True),
    sql.Column("key", sql.Text, nullable=False),
    sql.Column("node", sql.Text, nullable=False, unique=True),
    sql.Column("admitted", sql.Text, nullable=False),
    sql.Column("expires", sql.Text, nullable=False),
    sql.Column("revoked", sql.Text),
)
# Node keys that were replaced or revoked: the service takes them off the SuperLink, and they never come back.
retired = sql.Table(
    "retired",
    _metadata,
    sql.Column("node", sql.Text, primary_key=True),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("at", sql.Text, nullable=False),
)
_STATUS = "status IN ({})".format(", ".join(f"'{status}'" for status in sorted(FOLLOWS)))
studies = sql.Table(
    "studies",
    _metadata,
    sql.Column("digest", sql.Text, primary_key=True),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("status", sql.Text, sql.CheckConstraint(_STATUS), nullable=False),
    sql.Column("submitted", sql.Text, nullable=False),
    sql.Column("ended", sql.Text),
    sql.Column("reason", sql.Text, nullable=False),
    sql.Column("run", sql.Text, nullable=False),
    sql.Column("stop", sql.Boolean, nullable=False),
    sql.Column("signed", sql.LargeBinary, nullable=False),
)
_STUDY = "studies.digest"
rounds = sql.Table(
    "rounds",
    _metadata,
    sql.Column("study", sql.Text, sql.ForeignKey(_STUDY), primary_key=True),
    sql.Column("round", sql.Integer, sql.CheckConstraint('"round" > 0'), primary_key=True),
    sql.Column("model", sql.Text, nullable=False),
    sql.Column("cohort", sql.Text, nullable=False),  # JSON list
    sql.Column("seconds", sql.Double, nullable=False),
    sql.Column("sent", sql.BigInteger, nullable=False),
    sql.Column("received", sql.BigInteger, nullable=False),
    sql.Column("at", sql.Text, nullable=False),
)
absences = sql.Table(
    "absences",
    _metadata,
    sql.Column("study", sql.Text, sql.ForeignKey(_STUDY), primary_key=True),
    sql.Column("partner", sql.Text, primary_key=True),
    sql.Column("step", sql.Text, primary_key=True),
    sql.Column("round", sql.Integer, primary_key=True),
    sql.Column("code", sql.Text, primary_key=True),
    sql.Column("why", sql.Text, nullable=False),
    sql.Column("at", sql.Text, nullable=False),
)
models = sql.Table(
    "models",
    _metadata,
    sql.Column("name", sql.Text, primary_key=True),
    sql.Column("version", sql.Integer, sql.CheckConstraint("version > 0"), primary_key=True),
    sql.Column("study", sql.Text, sql.ForeignKey(_STUDY), nullable=False, unique=True),
    sql.Column("model", sql.Text, nullable=False),
    sql.Column("record", sql.Text, nullable=False),
    sql.Column("at", sql.Text, nullable=False),
)


def opened(url: str) -> sql.Engine:
    """Open the books, and make them where there are none.

    Args:
        url: "sqlite:////absolute/path" or "postgresql://user:password@host/database".

    Raises:
        BooksFault: The URL is no such URL, the database cannot be had, or it holds something else, or books of another
            version.
    """
    parsed = _parsed(url)
    with _faults(place_of(parsed)):
        if parsed.get_backend_name() == "sqlite":
            path = Path(parsed.database or "")
            if not path.exists():
                _make(path)
            return _checked(_sqlite(path))
        engine = _postgres(parsed)
        with writing(engine) as db:
            if not sql.inspect(db).has_table("books"):
                _lay(db)
        return _checked(engine)


@contextlib.contextmanager
def writing(engine: sql.Engine) -> Iterator[sql.Connection]:
    """Hold the writers' lock from before anything is read until all is durable, or nothing.

    Raises:
        BooksFault: The database refuses, or another writer holds it for more than 30 seconds.
    """
    with _faults(place_of(engine.url)), engine.connect() as db:
        db.execution_options(books_writer=True)
        with db.begin():
            if engine.dialect.name == "postgresql":
                db.execute(sql.select(sql.func.pg_advisory_xact_lock(_LOCK)))
            yield db


@contextlib.contextmanager
def reading(engine: sql.Engine) -> Iterator[sql.Connection]:
    """Read one state of the books.

    Raises:
        BooksFault: The database refuses.
    """
    with _faults(place_of(engine.url)), engine.connect() as db, db.begin():
        yield db


def place_of(url: sql.URL) -> str:
    """Return how a fault names the books: by their file, or by their URL without its password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    # Its query may hold a password, too.
    return url.set(query={}).render_as_string(hide_password=True)


def _parsed(url: str) -> sql.URL:
    fix = 'leave it out for SQLite, or write "postgresql://user:password@host/database"'
    fault = Fault("the books' URL", "is neither of SQLite's with a path nor of PostgreSQL's", fix)
    try:
        parsed = sql.make_url(url)
        kind = parsed.get_backend_name()
    except (exc.ArgumentError, exc.NoSuchModuleError, ValueError):
        raise BooksFault(fault) from None
    # With a query it would be another file, or one that nobody else can open.
    if kind == "sqlite" and parsed.database and parsed.database != ":memory:" and not parsed.query:
        return parsed
    if kind == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    raise BooksFault(fault)


def _sqlite(path: Path) -> sql.Engine:
    engine = sql.create_engine(sql.URL.create("sqlite", database=str(path)), connect_args={"timeout": 30.0})

    @sql.event.listens_for(engine, "connect")
    def settle(connection: Any, _: object) -> None:  # noqa: ANN401 - a driver's connection
        connection.isolation_level = None  # transactions begin where we say
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @sql.event.listens_for(engine, "begin")
    def begin(db: sql.Connection) -> None:
        writer = db.get_execution_options().get("books_writer", False)
        db.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")

    return engine


def _postgres(url: sql.URL) -> sql.Engine:
    # The bounds are those that SQLite has here; a server may have been told to acknowledge before it is durable.
    options = "-c synchronous_commit=on -c lock_timeout=30s -c idle_in_transaction_session_timeout=60s"
    arguments = {"options": options, "connect_timeout": 10}
    try:
        return sql.create_engine(url, connect_args=arguments, pool_pre_ping=True, hide_parameters=True)
    except ImportError:
        fault = Fault("the package psycopg", "is missing", "install it: pip install 'coterie[postgres]'")
        raise BooksFault(fault) from None


def _make(path: Path) -> None:
    """Make empty books, whole or not at all, for their owner alone; beside their place, as `storage.make` explains."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    beside.unlink(missing_ok=True)
    os.close(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    engine = _sqlite(beside)
    with writing(engine) as db:
        _lay(db)
    engine.dispose()
    with contextlib.suppress(FileExistsError):  # another process was faster
        os.link(beside, path)
    beside.unlink()
    sync_folder(path.parent)


def _lay(db: sql.Connection) -> None:
    _metadata.create_all(db, checkfirst=False)
    db.execute(_books.insert().values(version=VERSION))


def _checked(engine: sql.Engine) -> sql.Engine:
    place = place_of(engine.url)
    with reading(engine) as db:
        there = sql.inspect(db).has_table("books")
        found = list(db.execute(sql.select(_books.c.version)).scalars()) if there else []
    if found == [VERSION]:
        return engine
    engine.dispose()
    if len(found) != 1:
        raise BooksFault(Fault(place, "is not a coordinator's books", "give it a database of its own"))
    raise BooksFault(Fault(place, f"is of version {found[0]}, not {VERSION}", "use the coterie that wrote it"))


@contextlib.contextmanager
def _faults(place: str) -> Iterator[None]:
    """Turn what a database says into one clear error; its own words may hold values."""
    try:
        yield
    except exc.SQLAlchemyError as error:
        cause = getattr(error, "orig", None)
        code = getattr(cause, "sqlite_errorname", None) or getattr(cause, "sqlstate", None) or type(error).__name__
        fix = _FIXES.get(code, "see that the database is there, runs and is whole, and that its URL is right")
        raise BooksFault(Fault(place, f"cannot be used ({code})", fix)) from None
    except OSError as error:
        fault = Fault(place, f"cannot be opened ({error.strerror})", "check the path and its rights")
        raise BooksFault(fault) from None
