"""The coordinator's books on SQLite: the suite of every database, and what is SQLite's own."""

import os
import sqlite3
import stat

import pytest

from coterie.server import booktables
from coterie.server.books import Books, BooksFault
from coterie.tests.server.booksuite import BooksContract
from coterie.tests.server.bookwriters import Clock, a_round, member, signed, struck, together


@pytest.fixture
def file(tmp_path):
    return tmp_path / "books.sqlite"


@pytest.fixture
def url(file):
    return f"sqlite:///{file}"


class TestSqlite(BooksContract):
    """The suite on SQLite."""


def make(url):
    with Books(url, Clock()) as books:
        books.admit(member())


def test_the_file_is_its_owners_alone_and_so_is_what_sqlite_keeps_beside_it(url, file):
    with Books(url, Clock()) as books:
        books.admit(member())
        files = sorted(file.parent.iterdir())
        assert [path.name for path in files] == ["books.sqlite", "books.sqlite-shm", "books.sqlite-wal"]
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_every_connection_is_durable_and_keeps_foreign_keys(url):
    engine = booktables.opened(url)
    for open_ in (booktables.reading, booktables.writing):
        with open_(engine) as db:
            asked = ("journal_mode", "synchronous", "foreign_keys")
            told = [db.exec_driver_sql(f"PRAGMA {pragma}").scalar() for pragma in asked]
            assert told == ["wal", 2, 1]  # 2 is FULL
    engine.dispose()


def test_a_writer_holds_the_lock_before_it_reads(url, file):
    engine = booktables.opened(url)
    with booktables.writing(engine):
        other = sqlite3.connect(file, timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        assert other.execute("SELECT version FROM books").fetchall() == [(1,)]  # readers are not kept waiting
        other.close()
    engine.dispose()


def test_books_of_another_version_are_left_as_they_are(url, file):
    make(url)
    with sqlite3.connect(file) as db:
        db.execute("UPDATE books SET version = 2")
    with pytest.raises(BooksFault, match="is of version 2, not 1"):
        Books(url, Clock())


@pytest.mark.parametrize("content", [b"", b"not a database" * 100], ids=["empty", "text"])
def test_a_file_of_something_else_is_a_named_fault(url, file, content):
    file.write_bytes(content)
    with pytest.raises(BooksFault) as error:
        Books(url, Clock())
    assert error.value.faults[0].place == str(file)


def test_a_folder_that_is_not_there_is_a_named_fault(tmp_path):
    with pytest.raises(BooksFault, match="cannot be opened"):
        Books(f"sqlite:///{tmp_path}/nowhere/books.sqlite", Clock())


@pytest.mark.parametrize(
    "url",
    [
        "",
        "books.sqlite",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:////tmp/a?mode=memory",
        "mysql://a:hush@b/c",
        "x://hush@[",
    ],
)
def test_a_url_of_no_kind_that_is_kept_is_refused_without_its_words(url):
    with pytest.raises(BooksFault, match="the books' URL") as error:
        Books(url, Clock())
    assert "hush" not in str(error.value)


def test_processes_that_make_the_books_at_once_make_one(url):
    assert set(together(lambda name: make(url), range(8)).values()) == {None}
    with Books(url, Clock()) as books:
        assert books.members() == (member(),)


def test_a_kill_while_the_books_are_made_leaves_none_or_whole_ones(tmp_path):
    def begin(place, say):
        os.write(say, b"1\n")
        make(f"sqlite:///{place}")

    for number in range(12):
        place = tmp_path / f"{number}.sqlite"
        struck(begin, place, enough=1)
        with Books(f"sqlite:///{place}", Clock()) as books:
            assert books.members() in {(), (member(),)}


def test_killed_books_are_whole_to_sqlite(url, file):
    plan = signed()
    struck(_write_on, url, plan, enough=30)
    db = sqlite3.connect(file)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    db.close()


def _write_on(url, plan, say):
    with Books(url, Clock()) as books:
        books.submit(plan)
        for number in range(1, 1_000_000):
            books.note_round(a_round(plan, number))
            os.write(say, b"1\n")


def test_a_row_of_no_study_cannot_be_written_past_the_books(url, file):
    make(url)
    engine = booktables.opened(url)
    row = {"study": "sha256:none", "partner": "a", "step": "train", "round": 1, "code": "silent", "why": "", "at": ""}
    with pytest.raises(BooksFault, match="SQLITE_CONSTRAINT"), booktables.writing(engine) as db:
        db.execute(booktables.absences.insert().values(**row))
    engine.dispose()
