"""Purchases: read in pieces, held to their terms, and handed on as histories."""

import datetime
import traceback

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from coterie.clients.purchases import Wanted, read_purchases
from coterie.clients.tables import csvfile, parquetfile
from coterie.clients.tables.files import table_at
from coterie.clients.taint import is_tainted
from coterie.privacy.errors import ContractFault

CODES = ("beer", "bread", "milk", "tea")
TODAY = datetime.date(2026, 3, 31)
CANARY = "canary-4711"


def match(codes):
    return np.array([CODES.index(code) if code in CODES else -1 for code in codes.to_pylist()], dtype=np.int64)


def wanted(**changes):
    return Wanted(**{"customer": "who", "item": "what", "time": "when", "today": TODAY} | changes)


def day(text):
    return datetime.date.fromisoformat(text)


ROWS = [
    ("ann", "milk", "2026-02-01"),
    ("bob", "tea", "2026-01-05"),
    ("ann", "bread", "2026-01-01"),
    ("ann", "milk", "2026-03-01"),
    ("bob", "beer", "2026-01-05"),
    ("cid", "snow", "2026-01-06"),
    ("ann", "tea", "2026-03-02"),
]


def table_of(rows, **extra):
    who, what, when = zip(*rows, strict=True)
    return pa.table({"who": who, "what": what, "when": [day(text) if text else None for text in when], **extra})


@pytest.fixture
def written(tmp_path):
    def write(table, suffix="parquet"):
        path = tmp_path / f"table.{suffix}"
        (pyarrow.csv.write_csv if suffix == "csv" else pyarrow.parquet.write_table)(table, path)
        return path

    return write


def told(found, *, longest=10):
    """Every customer's items and days, by name."""
    histories, _ = found.histories(np.arange(len(found)), longest=longest)
    return {
        name.as_py(): [
            (
                CODES[histories.items[place]],
                str(datetime.date(1970, 1, 1) + datetime.timedelta(int(histories.days[place]))),
            )
            for place in range(histories.starts[position], histories.starts[position + 1])
        ]
        for position, name in enumerate(found.customers)
    }


EXPECTED = {
    "ann": [("bread", "2026-01-01"), ("milk", "2026-02-01"), ("tea", "2026-03-02")],
    "bob": [("tea", "2026-01-05"), ("beer", "2026-01-05")],
    "cid": [],
}


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("rows", [2, 1 << 19])
def test_histories_are_by_customer_and_oldest_first_and_an_item_counts_from_its_first_day(
    written, monkeypatch, suffix, rows
):
    for module in (csvfile, parquetfile):
        monkeypatch.setattr(module, "PIECE", rows)  # customers are spread over pieces
    found = read_purchases(table_at(written(table_of(ROWS), suffix)), wanted(), match)
    assert told(found) == EXPECTED
    assert found.notes == {"rows of items that the catalogue does not know": 1}


def test_pieces_of_a_csv_file_may_end_anywhere(written, monkeypatch):
    monkeypatch.setattr(csvfile, "_BLOCK", 64)
    assert told(read_purchases(table_at(written(table_of(ROWS), "csv")), wanted(), match)) == EXPECTED


def test_customers_come_back_in_any_order(written):
    found = read_purchases(table_at(written(table_of(ROWS))), wanted(), match)
    histories, _ = found.histories(np.array([2, 1, 0, 1]), longest=10)
    assert histories.lengths.tolist() == [0, 2, 3, 2]
    assert histories.items.tolist() == [3, 0, 1, 2, 3, 3, 0]


def test_a_customer_with_a_hundred_thousand_interactions_keeps_the_most_recent_items(written):
    count = 100_000
    draw = np.random.default_rng(0)
    items = draw.integers(0, 5000, count)
    table = pa.table(
        {
            "who": ["ann"] * count,
            "what": items,
            "when": pa.array(np.sort(draw.integers(0, 9000, count)), pa.int32()).cast(pa.date32()),
        }
    )
    found = read_purchases(table_at(written(table)), wanted(), lambda codes: np.asarray(codes, dtype=np.int64))
    histories, crowded = found.histories(np.array([0]), longest=64)
    in_order = list(dict.fromkeys(items.tolist()))
    assert histories.items.tolist() == in_order[-64:]
    assert crowded == 1


def test_a_customer_with_rows_but_no_item_is_there_without_a_history(written):
    table = table_of([("dot", None, None), *ROWS])
    found = read_purchases(table_at(written(table)), wanted(), match)
    assert told(found) == {"dot": []} | EXPECTED
    assert found.notes["rows without an item"] == 1


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_what_the_terms_leave_out_is_counted(written, suffix):
    table = table_of(ROWS, stars=[5.0, 5.0, 2.0, 5.0, None, 5.0, 4.0])
    terms = wanted(value="stars", least_value=4.0, earliest=day("2026-01-06"))
    found = read_purchases(table_at(written(table, suffix)), terms, match)
    assert told(found) == {"ann": EXPECTED["ann"][1:], "bob": [], "cid": []}
    assert found.notes == {
        "rows before the first day": 3,
        "rows of items that the catalogue does not know": 1,
    }
    found = read_purchases(table_at(written(table, suffix)), wanted(value="stars", least_value=4.0), match)
    assert found.notes["rows without a value, or below the least"] == 2


def test_rows_from_the_future_are_an_error_that_names_their_number(written):
    path = written(table_of([*ROWS, ("ann", "tea", "2026-04-01"), ("bob", "milk", "2031-01-01")]))
    with pytest.raises(ContractFault, match=r"column when: lies after 2026-03-31 in 2 rows"):
        read_purchases(table_at(path), wanted(), match)
    found = read_purchases(table_at(path), wanted(future="drop"), match)
    assert told(found) == EXPECTED
    assert found.notes["rows after the last day"] == 2


def test_rows_before_the_first_day_are_an_error_where_the_terms_say_so(written):
    terms = wanted(earliest=day("2026-01-05"), early="error")
    with pytest.raises(ContractFault, match="lies before 2026-01-05 in 1 rows"):
        read_purchases(table_at(written(table_of(ROWS))), terms, match)


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64(), pa.timestamp("ms"), pa.timestamp("ns", "UTC"), pa.string()])
def test_a_day_may_be_a_date_a_time_or_a_text(written, kind):
    table = table_of(ROWS)
    when = (
        table["when"].cast(pa.timestamp("ms")).cast(kind) if pa.types.is_timestamp(kind) else table["when"].cast(kind)
    )
    assert told(read_purchases(table_at(written(table.set_column(2, "when", when))), wanted(), match)) == EXPECTED


def test_a_time_of_day_before_1970_is_of_its_own_day(written):
    when = pa.array(["1969-12-30 23:59:00"]).cast(pa.timestamp("us"))
    table = pa.table({"who": ["ann"], "what": ["tea"], "when": when})
    assert told(read_purchases(table_at(written(table)), wanted(), match)) == {"ann": [("tea", "1969-12-30")]}


def test_identifiers_and_codes_stay_as_they_are_written_in_csv(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("when,what,who\n2026-01-01,tea,007\n2026-01-01T09:30Z,milk,7\n")
    assert set(told(read_purchases(table_at(path), wanted(), match))) == {"007", "7"}


def test_a_column_that_is_not_asked_for_may_hold_anything(tmp_path, monkeypatch):
    monkeypatch.setattr(csvfile, "_BLOCK", 64)
    path = tmp_path / "table.csv"
    path.write_text("other,when,what,who\n" + "1,2026-01-01,tea,ann\n" * 9 + "x,2026-01-01,milk,ann\n")
    assert told(read_purchases(table_at(path), wanted(), match)) == {
        "ann": [("tea", "2026-01-01"), ("milk", "2026-01-01")]
    }


BAD = {
    "a customer missing": ({"who": ["ann", None]}, "column who: is missing in 1 rows"),
    "a day missing": ({"when": [day("2026-01-01"), None]}, "column when: is missing or no date in 1 rows"),
    "a day that is none": ({"when": ["2026-01-01", CANARY]}, "column when: is missing or no date in 1 rows"),
    "a day that is written otherwise": (
        {"when": ["31/12/2025", "20251231"]},
        r"no date in 2 rows with an item; 1 are written as 31/12/2025, 1 are written as 20251231\. Fix: write 2025-",
    ),
    "a day that does not exist": ({"when": ["2026-01-01", "2026-02-30"]}, "no date in 1 rows with an item\\. "),
    "a value with a comma": (
        {"stars": ["4,5", CANARY]},
        "column stars: must hold numbers; 2 rows hold something else, 1 of them a comma",
    ),
    "a number for a day": ({"when": [1, 2]}, "column when: must hold dates or times"),
    "a fraction for a customer": ({"who": [1.5, 2.5]}, "column who: must hold texts or whole numbers"),
    "a word for a value": ({"stars": [CANARY, CANARY]}, "column stars: must hold numbers"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_table_that_breaks_the_terms_is_refused_without_its_values(written, name):
    columns, said = BAD[name]
    good = {"who": ["ann", CANARY], "what": ["tea", CANARY], "when": [day("2026-01-01")] * 2, "stars": [1.0, 2.0]}
    with pytest.raises(ContractFault, match=said) as caught:
        read_purchases(table_at(written(pa.table(good | columns))), wanted(value="stars", least_value=1.0), match)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_every_fault_is_named_at_once(written):
    table = pa.table({"who": ["ann", None], "what": ["tea", "tea"], "when": [None, day("2031-01-01")]})
    with pytest.raises(ContractFault) as caught:
        read_purchases(table_at(written(table)), wanted(), match)
    assert len(caught.value.faults) == 3


def test_missing_and_doubled_columns_are_named(written, tmp_path):
    with pytest.raises(ContractFault, match="column when: is missing"):
        read_purchases(table_at(written(table_of(ROWS).drop_columns(["when"]))), wanted(), match)
    path = tmp_path / "table.csv"
    path.write_text("who,who,what,when\nann,ann,tea,2026-01-01\n")
    with pytest.raises(ContractFault, match="column who: is there twice"):
        read_purchases(table_at(path), wanted(), match)


@pytest.mark.parametrize("harm", ["gone", "empty", "garbage.parquet", "garbage.csv"])
def test_what_is_no_table_is_refused(written, tmp_path, harm):
    path = tmp_path / "nothing.parquet"
    if harm == "empty":
        path = written(table_of(ROWS).slice(0, 0))
    elif harm.startswith("garbage"):
        path = tmp_path / harm
        path.write_bytes(b"\0" + CANARY.encode())
    with pytest.raises(ContractFault) as caught:
        read_purchases(table_at(path), wanted(), match)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_value_that_is_no_number_in_csv_is_refused_without_saying_it(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("who,what,when,stars\n" + "ann,tea,2026-01-01,5\n" * 9 + f"ann,tea,2026-01-01,{CANARY}\n")
    with pytest.raises(ContractFault) as caught:
        read_purchases(table_at(path), wanted(value="stars", least_value=1.0), match)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_what_is_read_is_marked_as_made_of_rows_and_shows_nothing(written):
    found = read_purchases(table_at(written(table_of(ROWS))), wanted(), match)
    assert all(is_tainted(array) for array in (found.items, found.days, found.starts))
    assert repr(found) == "Purchases(...)"
