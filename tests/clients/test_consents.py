"""Consents: who may be read for a purpose at a moment, held against a plain reading of the rules, row by row."""

import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coterie.clients.consents import REASONS, check_consents, consented
from coterie.clients.consenttimes import NEVER, times_of
from coterie.clients.taint import is_tainted
from coterie.privacy.errors import ContractFault

UTC = datetime.UTC
AT = datetime.datetime(2031, 5, 4, 12, tzinfo=UTC)
CANARY = "canary-4711"
COLUMNS = ("customer", "purpose", "given", "expires", "withdrawn")


class Held:
    """A table in memory, in pieces of some size, that remembers what was asked of it."""

    place = "the table"

    def __init__(self, rows, piece=3):
        self.table = rows if isinstance(rows, pa.Table) else table_of(rows)
        self.piece, self.asked = piece, []

    @property
    def schema(self):
        return self.table.schema

    def pieces(self, names):
        self.asked.append(tuple(names))
        yield from self.table.select(list(names)).to_batches(max_chunksize=self.piece)


def table_of(rows):
    columns = list(zip(*rows, strict=True)) if rows else [()] * 5
    return pa.table({name: pa.array(list(c), pa.string()) for name, c in zip(COLUMNS, columns, strict=True)})


def row(customer="ann", purpose="coupons", given="2030-01-01", expires="", withdrawn=None):
    return (customer, purpose, given, expires, withdrawn)


def verdict(*rows, customer="ann", purpose="coupons", at=AT):
    """Return "kept", or why a customer is left out."""
    keep, left_out = consented(Held(list(rows)), purpose, at).keep(pa.array([customer]))
    assert bool(keep[0]) == (not left_out)
    return "kept" if keep[0] else next(iter(left_out))


# --- the rules, one by one ----------------------------------------------------------------------------------

RULES = {
    "it stands": ([row()], "kept"),
    "no row": ([row("bob")], "no consent for the purpose"),
    "another purpose": ([row(purpose="churn")], "no consent for the purpose"),
    "a purpose in another case": ([row(purpose="Coupons")], "no consent for the purpose"),
    "a star stands for nothing": ([row(purpose="*")], "no consent for the purpose"),
    "from the day on": ([row(given="2031-05-04")], "kept"),
    "from tomorrow on": ([row(given="2031-05-05")], "not yet given"),
    "from this moment on": ([row(given="2031-05-04T12:00:00Z")], "kept"),
    "from the next moment on": ([row(given="2031-05-04T12:00:00.000001Z")], "not yet given"),
    "a zone counts": ([row(given="2031-05-04T13:30:00+02:00")], "kept"),
    "a zone counts the other way": ([row(given="2031-05-04T13:30:00+01:00")], "not yet given"),
    "until today": ([row(expires="2031-05-04")], "kept"),
    "until yesterday": ([row(expires="2031-05-03")], "expired"),
    "until this moment": ([row(expires="2031-05-04 12:00Z")], "kept"),
    "until the moment before": ([row(expires="2031-05-04T11:59:59.999999Z")], "expired"),
    "until never": ([row(expires="9999-12-31")], "kept"),
    "withdrawn today": ([row(withdrawn="2031-05-04")], "withdrawn"),
    "withdrawn this moment": ([row(withdrawn="2031-05-04T12:00Z")], "withdrawn"),
    "withdrawn in a moment": ([row(withdrawn="2031-05-04T12:00:00.000001Z")], "kept"),
    "withdrawn on the day it was given": ([row(given="2031-01-01", withdrawn="2031-01-01")], "withdrawn"),
    "withdrawn and expired": ([row(expires="2031-01-01", withdrawn="2030-12-01")], "withdrawn"),
    "given again": ([row(withdrawn="2030-06-01"), row(given="2030-06-02")], "kept"),
    "given again on the same day": ([row(withdrawn="2030-06-01"), row(given="2030-06-01T23:00Z")], "withdrawn"),
    "given again, surely later on the day": (
        [row(withdrawn="2030-06-01T10:00Z"), row(given="2030-06-01T23:00Z")],
        "kept",
    ),
    "given again and withdrawn late in an older row": (
        [row(withdrawn="2031-02-01"), row(given="2030-06-01")],
        "withdrawn",
    ),
    "given again in the future": ([row(expires="2031-12-31"), row(given="2032-01-01")], "kept"),
    "withdrawn, and given again in the future": ([row(withdrawn="2030-06-01"), row(given="2032-01-01")], "withdrawn"),
    "the newest decides the end": ([row(), row(given="2030-02-01", expires="2030-03-01")], "expired"),
    "the newest gives more time": ([row(expires="2030-02-01"), row(given="2030-02-02")], "kept"),
    "one moment, two ends": ([row(), row(expires="2030-03-01")], "expired"),
    "another's withdrawal": ([row(), row("bob", withdrawn="2030-06-01")], "kept"),
    "another purpose's withdrawal": ([row(), row(purpose="churn", withdrawn="2030-06-01")], "kept"),
}


@pytest.mark.parametrize("case", RULES)
def test_each_rule_alone_and_in_any_order_of_rows(case):
    rows, expected = RULES[case]
    assert verdict(*rows) == expected
    assert verdict(*reversed(rows)) == expected


# --- the same, against a plain reading ----------------------------------------------------------------------


def span(cell):
    """Return the first and last moment of a cell, or None for an empty one."""
    if not cell:
        return None
    if len(cell) == 10:
        day = datetime.datetime.combine(datetime.date.fromisoformat(cell), datetime.time(), UTC)
        return day, day + datetime.timedelta(days=1) - datetime.timedelta(microseconds=1)
    moment = datetime.datetime.fromisoformat(cell)
    return moment, moment


def plainly(rows, customer, purpose, at):
    """Decide about one customer by reading one row after the other."""
    mine = [r for r in rows if r[0] == customer and r[1] == purpose]
    if not mine:
        return "no consent for the purpose"
    come = [r for r in mine if span(r[2])[0] <= at]
    if not come:
        return "not yet given"
    newest = max(span(r[2])[0] for r in come)
    for r in mine:
        if r[4] and span(r[4])[0] <= at and span(r[4])[1] >= newest:
            return "withdrawn"
    ends = [span(r[3])[1] for r in come if span(r[2])[0] == newest and r[3]]
    return "expired" if ends and min(ends) < at else "kept"


MOMENTS = st.builds(
    lambda hours, day, zone: (
        (AT + datetime.timedelta(hours=hours)).date().isoformat()
        if day
        else (AT + datetime.timedelta(hours=hours))
        .astimezone(datetime.timezone(datetime.timedelta(hours=zone)))
        .isoformat()
    ),
    st.integers(-60, 60),
    st.booleans(),
    st.integers(-11, 12),
)


def not_before(since):
    return st.one_of(st.just(""), MOMENTS.filter(lambda cell: span(cell)[1] >= since))


@st.composite
def tables(draw):
    rows = []
    for _ in range(draw(st.integers(0, 14))):
        since = draw(MOMENTS)
        later = not_before(span(since)[0])
        who, what = draw(st.sampled_from("abcd")), draw(st.sampled_from(["coupons", "churn"]))
        rows.append((who, what, since, draw(later), draw(later)))
    return rows


@settings(max_examples=200, deadline=None)
@given(rows=tables(), hours=st.integers(-70, 70), piece=st.integers(1, 5))
@example(rows=[("a", "coupons", "2031-05-04", "", "2031-05-04")], hours=0, piece=1)
def test_every_table_is_read_as_the_rules_say(rows, hours, piece):
    at = AT + datetime.timedelta(hours=hours)
    names = ["a", "b", "c", "d", "stranger"]
    expected = [plainly(rows, name, "coupons", at) for name in names]
    keep, left_out = consented(Held(rows, piece), "coupons", at).keep(pa.array(names))
    assert [bool(kept) for kept in keep] == [word == "kept" for word in expected]
    assert left_out == {word: expected.count(word) for word in REASONS if word in expected}


@settings(max_examples=80, deadline=None)
@given(rows=tables(), gone=st.sampled_from("abcd"), order=st.randoms(use_true_random=False))
def test_a_customer_who_comes_or_goes_changes_what_is_read_of_that_customer_alone(rows, gone, order):
    names = ["a", "b", "c", "d"]
    fewer = [r for r in rows if r[0] != gone]
    order.shuffle(fewer)
    with_them, _ = consented(Held(rows), "coupons", AT).keep(pa.array(names))
    without, _ = consented(Held(fewer), "coupons", AT).keep(pa.array(names))
    assert [bool(k) for k, n in zip(with_them, names, strict=True) if n != gone] == [
        bool(k) for k, n in zip(without, names, strict=True) if n != gone
    ]
    assert not without[names.index(gone)]


# --- days and times -----------------------------------------------------------------------------------------

READABLE = (
    "2028-02-29",
    "2000-02-29",
    "2031-12-31T23:59:59.5-11:30",
    "2031-05-04 09:30+02",
    "2031-05-04T09:30:00+0200",
)
UNREADABLE = (
    *("2031-02-29", "2100-02-29", "2031-04-31", "2031-13-01", "2031-00-10", "2031-01-00", "31/12/2031", "20310504"),
    *("2031-05-04T12:00:00", "2031-05-04T24:00:00Z", "2031-05-04T12:60Z", "2031-05-04T12:00Z+02:00", "2031-W18-7"),
    *("0999-01-01", "12031-01-01", "2031-05-04T", "yesterday", "1", "2031-05-04T12:00:00.1234567Z", "２０３１-05-04"),
)


@pytest.mark.parametrize("cell", READABLE)
def test_a_time_is_read_as_pythons_own_reader_does(cell):
    times, unreadable = times_of(pa.array([cell, f"  {cell} ", None, ""]))
    epoch = datetime.datetime(1970, 1, 1, tzinfo=UTC)
    first, last = ((moment - epoch) // datetime.timedelta(microseconds=1) for moment in span(cell))
    assert (list(times.first), list(times.last)) == ([first, first, NEVER, NEVER], [last, last, NEVER, NEVER])
    assert unreadable == 0


@pytest.mark.parametrize("cell", UNREADABLE)
def test_what_is_no_day_or_time_with_a_zone_is_counted_and_not_guessed(cell):
    times, unreadable = times_of(pa.array(["2031-05-04", cell, None]))
    assert unreadable == 1
    assert times.first[1] == NEVER


@settings(max_examples=400, deadline=None)
@given(year=st.integers(1000, 9999), month=st.integers(0, 13), day=st.integers(0, 32))
@example(year=1900, month=2, day=29)
@example(year=2400, month=2, day=29)
def test_the_calendar_is_pythons(year, month, day):
    try:
        days = datetime.date(year, month, day).toordinal() - datetime.date(1970, 1, 1).toordinal()
    except ValueError:
        days = None
    times, unreadable = times_of(pa.array([f"{year:04d}-{month:02d}-{day:02d}"]))
    assert unreadable == (days is None)
    assert times.first[0] == (NEVER if days is None else days * 86_400_000_000)


def test_columns_of_dates_and_times_are_read_as_their_texts_are():
    day, moment = datetime.date(2031, 5, 4), datetime.datetime(2031, 5, 4, 9, 30, tzinfo=UTC)
    for kind in (pa.date32(), pa.date64()):
        times, _ = times_of(pa.array([day, None], kind))
        text, _ = times_of(pa.array(["2031-05-04", ""]))
        assert (list(times.first), list(times.last)) == (list(text.first), list(text.last))
    for kind in (pa.timestamp("s", "UTC"), pa.timestamp("ns", "Europe/Paris"), pa.timestamp("us", "UTC")):
        times, _ = times_of(pa.array([moment, None], kind))
        text, _ = times_of(pa.array(["2031-05-04T09:30Z", ""]))
        assert (list(times.first), list(times.last)) == (list(text.first), list(text.last))
    times, _ = times_of(pa.nulls(2))
    assert list(times.first) == [NEVER, NEVER]
    words = pa.array(["2031-05-04", None]).dictionary_encode()
    assert list(times_of(words)[0].first) == list(times_of(words.cast(pa.string()))[0].first)


# --- tables that are refused --------------------------------------------------------------------------------


def without(name):
    return table_of([row(CANARY)]).drop_columns([name])


def retyped(name, values):
    table = table_of([row(CANARY)] * len(values))
    return table.set_column(table.column_names.index(name), name, values)


TWICE = pa.Table.from_arrays([*table_of([row(CANARY)]).columns, pa.array([CANARY])], names=[*COLUMNS, "given"])
BROKEN = {
    **{f"no {name}": (without(name), [f"{name}: is missing"]) for name in COLUMNS},
    "given twice": (TWICE, ["given: is there twice"]),
    "a customer missing": (table_of([row(None), row()]), ["customer: is missing in 1 rows"]),
    "a purpose missing": (table_of([row(purpose=None), row(CANARY)]), ["purpose: is missing in 1 rows"]),
    "given missing": (table_of([row(CANARY, given=None), row(given="")]), ["given: is missing in 2 rows"]),
    "times unreadable": (
        table_of([row(given=CANARY), row(expires=CANARY, withdrawn="2031-02-30")]),
        [f"{n}: is no ISO 8601 day or time with a zone in 1 rows" for n in ("given", "expires", "withdrawn")],
    ),
    "expired before it was given": (table_of([row(CANARY, expires="2029-12-31")]), ["expires: lies before given in 1"]),
    "withdrawn before it was given": (
        table_of([row(CANARY, withdrawn="2029-12-31T23:59:59Z")]),
        ["withdrawn: lies before given in 1 rows"],
    ),
    "customers with a point": (retyped("customer", pa.array([1.5])), ["customer: must hold texts or whole numbers"]),
    "times without a zone": (
        retyped("given", pa.array([AT.replace(tzinfo=None)], pa.timestamp("us"))),
        ["given: holds times without a zone"],
    ),
    "times as numbers": (retyped("expires", pa.array([20310504])), ["expires: must hold days, or times with a zone"]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_table_is_refused_by_column_and_count_and_no_cell_is_told(case):
    table, says = BROKEN[case]
    for ask in (lambda: consented(Held(table, 1), "coupons", AT), lambda: check_consents(Held(table))):
        with pytest.raises(ContractFault) as refused:
            ask()
        assert all(str(f).startswith(f"the table column {s}") for f, s in zip(refused.value.faults, says, strict=True))
        assert CANARY not in str(refused.value)
        assert refused.value.__cause__ is None


def test_a_table_is_checked_whole_before_it_is_sealed_and_by_purpose_when_it_is_used():
    rows = [row("ann"), row("bob"), row("ann", "churn", given="broken"), row("ann", "churn")]
    assert verdict(*rows) == "kept"
    with pytest.raises(ContractFault, match="given: is no ISO 8601"):
        check_consents(Held(rows))
    assert check_consents(Held([*rows[:2], rows[3]])) == {"churn": 1, "coupons": 2}
    with pytest.raises(ContractFault, match="purpose: has a star in 2 rows"):
        check_consents(Held([row(purpose="*"), row(purpose="coupons.*")]))
    assert check_consents(Held([])) == {}


# --- whose rows are kept ------------------------------------------------------------------------------------


def test_customers_are_compared_as_they_are_spelled():
    found = consented(Held([row("7"), row("ann ")]), "coupons", AT)
    keep, left_out = found.keep(pa.array(["7", "007", "7.0", "ann", "ann ", None, "7"]))
    assert list(keep) == [True, False, False, False, True, False, True]
    assert left_out == {"no consent for the purpose": 4}
    for customers in (
        pa.array([7, 8]),
        pa.array(["7", "8"]).dictionary_encode(),
        pa.array(["7", "8"], pa.large_string()),
    ):
        assert list(found.keep(customers)[0]) == [True, False]
    numbered = retyped("customer", pa.array([7]))
    assert list(consented(Held(numbered), "coupons", AT).keep(pa.array(["7", "8"]))[0]) == [True, False]
    with pytest.raises(ContractFault, match="must hold texts or whole numbers"):
        found.keep(pa.array([7.0]))


def test_nobody_is_kept_by_an_empty_table_and_nobody_asked_is_nobody_left_out():
    nobody = consented(Held([]), "coupons", AT)
    keep, left_out = nobody.keep(pa.array(["ann", None]))
    assert (list(keep), left_out) == ([False, False], {"no consent for the purpose": 2})
    assert nobody.keep(pa.array([], pa.string()))[1] == {}


def test_only_rows_for_the_purpose_stay_in_memory_and_only_five_columns_are_read():
    rows = [row(f"c{n}", "churn") for n in range(50)] + [row("ann")]
    held = Held(table_of(rows).append_column("secret", pa.array([CANARY] * 51)))
    found = consented(held, "coupons", AT)
    assert found.names.to_pylist() == ["ann"]
    assert held.asked == [COLUMNS]


def test_who_consented_is_not_to_be_seen_and_is_marked_as_customers_rows():
    found = consented(Held([row(CANARY)]), "coupons", AT)
    assert repr(found) == "Consented(...)"
    keep, _ = found.keep(pa.array([CANARY]))
    assert is_tainted(keep)
    assert is_tainted(found.standing)


def test_a_moment_without_a_zone_is_no_moment():
    with pytest.raises(ContractFault, match="must have a zone"):
        consented(Held([row()]), "coupons", AT.replace(tzinfo=None))


def test_many_consents_in_many_pieces_are_each_judged():
    count = 300_000
    table = pa.table(
        {
            "customer": pa.array(np.arange(count)),
            "purpose": ["coupons"] * count,
            "given": ["2030-01-01T00:00:00Z"] * count,
            "expires": [None if n % 3 else "2031-01-01" for n in range(count)],
            "withdrawn": pa.nulls(count, pa.string()),
        }
    )
    keep, left_out = consented(Held(table, 1 << 16), "coupons", AT).keep(pa.array(np.arange(count)))
    assert left_out == {"expired": count // 3}
    assert (keep == (np.arange(count) % 3 != 0)).all()
