"""Numbers and days out of cells, against Python's own reading of each cell."""

import decimal
import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.clients.tables.numbers import numbers_of

# Each text and the number that it says; "" where one is missing, "x" where it is no number, "," where of these it has
# a comma like a number's.
NUMBERS = {
    "0": 0.0,
    "007": 7.0,
    "-1.50": -1.5,
    "+5": 5.0,
    ".5": 0.5,
    "5.": 5.0,
    "1e5": 1e5,
    "1E-3": 1e-3,
    "-.5e+2": -50.0,
    " 12 ": 12.0,
    "\t3": 3.0,
    "9007199254740993": 9007199254740992.0,
    "1e-999": 0.0,
    "0.1": 0.1,
    "inf": math.inf,
    "-Infinity": -math.inf,
    "INF": math.inf,
    "1e999": math.inf,
}
MISSING = ["", " ", "NA", "N/A", "n/a", "#N/A", "null", "NULL", "NaN", "nan", "-nan"]
BROKEN = [
    *("0x10", "1_000", "5d", "1f", "--5", "+-5", "1 000", "e5", "1e", ".", "-", "+", "5%", "$5", "yes", "None", "NAN"),
    *("tRUE", "5;6", "1.2.3", "5\x00", "1e5.5", "a,b", ",", ",5", "1e5,0", "\u0661", "\u00bd"),
]
COMMAS = ["1,5", "-0,25", "1,234", "1,234,567.89", "1.234,50", "1 234,5", "1'234,5", "5,"]
TEXTS = {
    **NUMBERS,
    **dict.fromkeys(["true", "TRUE", "True"], 1.0),
    **dict.fromkeys(["false", "FALSE", "False"], 0.0),
    **dict.fromkeys(MISSING, ""),
    **dict.fromkeys(BROKEN, "x"),
    **dict.fromkeys(COMMAS, ","),
}


def check(numbers, expected):
    values = [said if isinstance(said, float) else math.nan for said in expected]
    np.testing.assert_array_equal(numbers.values, values)
    assert numbers.values.dtype == np.float64
    assert numbers.broken == sum(said in {"x", ","} for said in expected)
    assert numbers.commas == sum(said == "," for said in expected)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_text_says_a_number_or_nothing_or_is_broken(text):
    check(numbers_of(pa.array([text])), [TEXTS[text]])


KINDS = {
    "texts": pa.array,
    "large texts": lambda texts: pa.array(texts, pa.large_string()),
    "views": lambda texts: pa.array(texts, pa.string_view()),
    "a dictionary": lambda texts: pa.array(texts).dictionary_encode(),
    "dictionaries in chunks": lambda texts: pa.chunked_array(
        [pa.array(texts[:7]).dictionary_encode(), pa.array(texts[7:]).dictionary_encode()]
    ),
    "chunks": lambda texts: pa.chunked_array([pa.array(texts[:5]), pa.array([], pa.string()), pa.array(texts[5:])]),
    "a slice": lambda texts: pa.array(["1,5", *texts, "x"]).slice(1, len(texts)),
    "a slice of a dictionary": lambda texts: pa.array(["1,5", *texts, "x"]).dictionary_encode().slice(1, len(texts)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_read_alike_however_they_are_held(kind):
    texts = [None, *TEXTS, *TEXTS, None]
    found = numbers_of(KINDS[kind](texts))
    check(found, ["", *TEXTS.values(), *TEXTS.values(), ""])
    assert found.kind_ok


@given(st.lists(st.floats() | st.none()))
def test_every_number_that_python_writes_is_read_back(numbers):
    found = numbers_of(pa.array([None if number is None else repr(number) for number in numbers], pa.string()))
    np.testing.assert_array_equal(found.values, [math.nan if number is None else number for number in numbers])
    assert found.broken == 0


def test_a_file_is_understood_as_the_csv_reader_understood_it_by_guessing(tmp_path):
    """The guess was about a whole column; what it took for a number or for missing is so now."""
    spellings = pyarrow.csv.ConvertOptions()
    texts = ["1", "-2.5", "1e3", ".5", " 7", "nan", *spellings.null_values]
    path = tmp_path / "one.csv"
    path.write_text("x,y\n" + "".join(f"{text},1\n" for text in texts))
    guessed = pyarrow.csv.read_csv(path)["x"]
    assert pa.types.is_floating(guessed.type)
    found = numbers_of(pa.array(texts))
    np.testing.assert_array_equal(found.values, guessed.to_numpy())
    assert found.broken == 0
    for word in (*spellings.true_values, *spellings.false_values):
        assert numbers_of(pa.array([word])).values == [word in spellings.true_values]


TYPES = [
    *((kind, [0, 1, None, 100], [0.0, 1.0, "", 100.0]) for kind in (pa.int8(), pa.uint64(), pa.int64(), pa.float32())),
    (pa.int64(), [2**53 + 1], [float(2**53)]),
    (pa.float64(), [math.nan, math.inf, None, 0.1], ["", math.inf, "", 0.1]),
    (pa.float16(), [1.5, None], [1.5, ""]),
    (pa.bool_(), [True, False, None], [1.0, 0.0, ""]),
    (pa.decimal128(10, 2), [decimal.Decimal("1.25"), None], [1.25, ""]),
    (pa.null(), [None, None], ["", ""]),
]


@pytest.mark.parametrize(("kind", "cells", "expected"), TYPES, ids=[f"{n}-{row[0]}" for n, row in enumerate(TYPES)])
@pytest.mark.parametrize("encoded", [False, True])
def test_columns_of_numbers_are_numbers(kind, cells, expected, encoded):
    if encoded and pa.types.is_null(kind):
        column = pa.DictionaryArray.from_arrays(pa.array([None, None], pa.int8()), pa.array([], pa.float64()))
    else:
        column = pa.array(cells, kind)
        column = pc.dictionary_encode(column) if encoded and not pa.types.is_float16(kind) else column
    found = numbers_of(column)
    check(found, expected)
    assert found.kind_ok


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("s"), pa.duration("s"), pa.binary(), pa.list_(pa.int64())])
def test_columns_of_another_type_are_not_numbers(kind):
    cells = (
        [b"1", None, b"2"] if pa.types.is_binary(kind) else [[1], None, [2]] if pa.types.is_list(kind) else [1, None, 2]
    )
    found = numbers_of(pa.array(cells, kind))
    assert not found.kind_ok
    assert found.broken == 2
    assert np.isnan(found.values).all()
    assert len(found.values) == 3


def test_no_rows_are_no_numbers():
    for column in (pa.array([], pa.string()), pa.chunked_array([], pa.string()), pa.chunked_array([], pa.int64())):
        found = numbers_of(column)
        assert (len(found.values), found.broken, found.commas, found.kind_ok) == (0, 0, 0, True)


def test_what_a_dictionary_holds_and_no_row_has_does_not_count():
    column = pa.DictionaryArray.from_arrays(pa.array([0, 2, None, 0], pa.int8()), pa.array(["5", "x,1", "1,5"]))
    check(numbers_of(column), [5.0, ",", "", 5.0])


def test_numbers_show_nothing_of_themselves_and_may_be_changed():
    found = numbers_of(pa.array(["4711"]))
    assert repr(found) == "Numbers(...)"
    found.values[0] = 1.0
