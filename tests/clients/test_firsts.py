"""The first value of each name, held against a plain dictionary, whatever the pieces."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.clients.firsts import ANOTHER, FIRST, SAME, Firsts


def plainly(names, values):
    """Decide row by row."""
    known, found = {}, []
    for name, value in zip(names, values, strict=True):
        found.append(FIRST if name not in known else SAME if known[name] == value else ANOTHER)
        known.setdefault(name, value)
    return found


def taken(names, values, cuts):
    firsts, found = Firsts(), []
    for start, stop in zip([0, *cuts], [*cuts, len(names)], strict=True):
        part = slice(start, stop)
        found += firsts.take(np.array(names[part], np.int64), np.array(values[part], np.int64)).tolist()
    return found


ROWS = st.lists(st.tuples(st.sampled_from([-(2**63), -1, 0, 1, 2, 7, 2**63 - 1]), st.integers(0, 2)), max_size=60)


@settings(max_examples=300, deadline=None)
@given(ROWS, st.lists(st.integers(0, 60), max_size=8))
def test_each_row_is_judged_as_a_dictionary_would_whatever_the_pieces(rows, cuts):
    names, values = [row[0] for row in rows], [row[1] for row in rows]
    places = sorted(min(cut, len(rows)) for cut in cuts)
    assert taken(names, values, places) == plainly(names, values)


@pytest.mark.parametrize("size", [64, 1000])
def test_many_pieces_with_many_repeats_too(size):
    draw = np.random.default_rng(5)
    names, values = draw.integers(-4000, 4000, 20_000), draw.integers(0, 2, 20_000)
    found = taken(names.tolist(), values.tolist(), list(range(size, 20_000, size)))
    expected = plainly(names.tolist(), values.tolist())
    assert found == expected
    assert set(expected) == {FIRST, SAME, ANOTHER}


def test_a_name_takes_sixteen_bytes_in_few_runs():
    firsts = Firsts()
    for number in range(200):
        names = np.arange(number * 50, number * 50 + 100)  # half of each piece is known
        firsts.take(names, names)
    held = sum(part.nbytes for run in firsts._runs for part in run)
    assert held == 16 * (200 * 50 + 50)
    assert len(firsts._runs) <= 9
