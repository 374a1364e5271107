"""The coordinator's books on a real PostgreSQL server: the suite of every database, and what is a server's own."""

import threading

import psycopg
import pytest

from coterie.server import booktables
from coterie.server.books import Books, BooksFault
from coterie.tests.server.booksuite import BooksContract
from coterie.tests.server.bookwriters import Clock, a_round, member, signed, struck, together, until_killed
from coterie.tests.server.postgres import PASSWORD, server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def postgres():
    with server() as running:
        yield running


@pytest.fixture
def url(postgres):
    return postgres.emptied()


class TestPostgres(BooksContract):
    """The suite on PostgreSQL."""


def make(url):
    with Books(url, Clock()) as books:
        books.admit(member())


def test_processes_that_make_the_books_at_once_make_one(url):
    assert set(together(lambda name: make(url), range(8)).values()) == {None}
    with Books(url, Clock()) as books:
        assert books.members() == (member(),)


def test_a_commit_is_acknowledged_when_it_is_durable_whatever_the_database_says(url):
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(f"ALTER DATABASE {db.info.dbname} SET synchronous_commit = off")
    engine = booktables.opened(url)
    with booktables.writing(engine) as db:
        assert db.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
        assert db.exec_driver_sql("SHOW lock_timeout").scalar() == "30s"
    engine.dispose()


def test_a_second_writer_waits_for_the_first(url):
    engine, order = booktables.opened(url), []
    waiting = threading.Event()

    def second():
        waiting.set()
        with Books(url, Clock()) as books:
            books.admit(member())
            order.append("second")

    with booktables.writing(engine) as db:
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        blocked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        for _ in range(2000):  # polled until the server itself says that it waits
            if db.exec_driver_sql(blocked).scalar():
                break
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]
    engine.dispose()


def test_books_go_on_after_the_server_fell_and_lose_nothing(postgres, url):
    plan = signed()
    with Books(url, Clock()) as books:
        books.submit(plan)
        books.note_round(a_round(plan, 1))
        postgres.control("restart", "--mode=immediate")  # as by a power failure: no process says goodbye
        books.note_round(a_round(plan, 2))
        assert [round_.round for round_ in books.rounds(plan.plan.digest())] == [1, 2]


def test_what_a_killed_server_acknowledged_is_there(postgres, url):
    plan = signed()
    told = struck(until_killed, url, plan, 1, enough=100)
    postgres.control("restart", "--mode=immediate")
    with Books(url, Clock()) as books:
        kept = [round_.round for round_ in books.rounds(plan.plan.digest())]
    assert kept == list(range(1, len(kept) + 1))
    assert len(kept) >= told[-1]


def test_a_server_that_is_not_there_is_a_fault_without_the_password(postgres, url):
    postgres.control("stop", "--mode=fast")
    try:
        with pytest.raises(BooksFault, match="cannot be used") as error:
            Books(url, Clock())
    finally:
        postgres.control("start")
    assert PASSWORD not in str(error.value)
    assert "coterie:***@127.0.0.1" in str(error.value)


def test_a_wrong_password_and_a_missing_database_say_so_and_no_more(postgres, url):
    wrong = url.replace(PASSWORD, "hush-hush")
    for there in (wrong, postgres.url("nowhere")):
        with pytest.raises(BooksFault, match="cannot be used") as error:
            Books(there, Clock())
        assert "hush" not in str(error.value)
        assert PASSWORD not in str(error.value)


def test_a_password_in_the_query_is_not_told_either(postgres, url):
    hidden = url.replace(f":{PASSWORD}@", "@") + "?password=hush-hush"
    with pytest.raises(BooksFault) as error:
        Books(hidden, Clock())
    assert "hush" not in str(error.value)


def test_books_of_another_version_are_left_as_they_are(url):
    make(url)
    with psycopg.connect(url) as db:
        db.execute("UPDATE books SET version = 2")
    with pytest.raises(BooksFault, match="is of version 2, not 1"):
        Books(url, Clock())


def test_a_database_of_something_else_is_left_as_it_is(url):
    with psycopg.connect(url) as db:
        db.execute("CREATE TABLE rounds (of_drinks integer)")
    with pytest.raises(BooksFault, match="cannot be used"):
        Books(url, Clock())
    with psycopg.connect(url) as db:
        there = db.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert there == [("rounds",)]


def test_a_user_who_may_not_write_is_a_named_fault(postgres, url):
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(f"DROP ROLE IF EXISTS reader; CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
    with pytest.raises(BooksFault, match="let the URL's user create"):
        Books(url.replace("coterie:", "reader:"), Clock())
