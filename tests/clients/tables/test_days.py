"""Days out of cells, against Python's own dates; ways of writing them are counted and no text is shown."""

import datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.clients.tables.days import SHAPES, days_of, shapes_of

EPOCH = datetime.date(1970, 1, 1)


@given(st.lists(st.dates() | st.none(), min_size=1))
@pytest.mark.parametrize("kind", ["date", "text", "text with a time"])
def test_days_are_those_of_python(kind, dates):
    tail = "T23:59:59-04:00" if kind == "text with a time" else ""
    column = (
        pa.array(dates, pa.date32()) if kind == "date" else pa.array([d and f"{d}{tail}" for d in dates], pa.string())
    )
    days, there = days_of(column)
    assert there.tolist() == [date is not None for date in dates]
    assert [EPOCH + datetime.timedelta(int(day)) for day in days[there]] == [date for date in dates if date]


def test_a_time_is_of_its_own_day_before_1970_too():
    times = [datetime.datetime(1969, 12, 30, 23, 59), datetime.datetime(2025, 12, 31, 0, 0)]  # noqa: DTZ001
    days, _ = days_of(pa.array(times, pa.timestamp("us")))
    assert days.tolist() == [-2, (datetime.date(2025, 12, 31) - EPOCH).days]


NO_DAYS = ["31/12/2025", "", "2025", "2025-13-01", "2025-02-30", "20251231", "tomorrow", "31.12.2025"]


@pytest.mark.parametrize("text", NO_DAYS)
def test_what_is_no_iso_date_is_no_day(text):
    assert days_of(pa.array([text]))[1].tolist() == [False]


WAYS = {
    "31/12/2025": ["31/12/2025", "1/2/2025", "12/31/2025 10:00"],
    "31/12/25": ["12/31/25", "1/2/25"],
    "31.12.2025": ["31.12.2025", "1.2.2025 08:00"],
    "31.12.25": ["31.12.25"],
    "31-12-2025": ["31-12-2025"],
    "2025/12/31": ["2025/12/31", "2025/1/2 10:00"],
    "2025-1-31": ["2025-1-31", "2025-10-5", "2025-1-1 10:00"],
    "20251231": ["20251231", "19700101", "20251231T100000"],
    "1767139200": ["1767139200", "1767139200000", "1767139200.25"],
}


def test_every_way_is_known_by_its_own_example():
    assert WAYS.keys() == SHAPES.keys()
    for way in SHAPES:
        assert shapes_of(pa.array([way])) == {way: 1}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_way_is_counted_and_nothing_else_is(way):
    cells = [*WAYS[way], None, "soon", "canary-4711", "", f" {WAYS[way][0]} "]
    assert shapes_of(pa.array(cells)) == {way: len(WAYS[way]) + 1}
    assert shapes_of(pa.array(cells).dictionary_encode()) == {way: len(WAYS[way]) + 1}


def test_times_and_no_cells_have_no_ways():
    assert shapes_of(pa.array([], pa.string())) == {}
    assert shapes_of(pa.array([None], pa.date32())) == {}
