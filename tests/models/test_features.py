"""Encodings by hand: each kind of block, its edges, and what a missing value becomes."""

import numpy as np
import pytest

from coterie.models.features import Binned, Categorical, Encoding, Numeric, encode, reference

AGE = Numeric("age", 20.0, 60.0)
SPEND = Binned("spend", (10.0, 50.0))
AREA = Categorical("area", ("city", "town", "village", "farm"))
WHOLE = Encoding((AGE, SPEND, AREA))


def one(block, *values):
    return encode(Encoding((block,)), {block.name: np.array(values, dtype=float)})


def test_a_number_is_scaled_from_its_bounds_to_one():
    np.testing.assert_allclose(one(AGE, 20, 30, 40, 60)[:, 0], [-1.0, -0.5, 0.0, 1.0])
    np.testing.assert_allclose(one(Numeric("x", -3, -1), -3, -2, -1.5)[:, 0], [-1.0, 0.0, 0.5])


def test_a_missing_number_is_the_middle_of_its_bounds():
    assert one(AGE, np.nan)[0, 0] == 0.0


@pytest.mark.parametrize(
    ("value", "place"),
    [(-1e9, 0), (9.999, 0), (10.0, 1), (10.001, 1), (49.999, 1), (50.0, 2), (1e9, 2)],
)
def test_a_bin_holds_its_lower_edge_and_not_its_upper_one(value, place):
    expected = np.zeros(3)
    expected[place] = 1
    np.testing.assert_array_equal(one(SPEND, value)[0], expected)


def test_a_word_has_an_indicator_of_its_own():
    np.testing.assert_array_equal(one(AREA, 0, 1, 2, 3), np.eye(4))


@pytest.mark.parametrize(("block", "missing", "width"), [(SPEND, np.nan, 3), (AREA, -1, 4)])
def test_a_missing_bin_or_word_is_every_one_of_them_equally(block, missing, width):
    np.testing.assert_allclose(one(block, missing)[0], np.full(width, 1 / width))


def test_missing_values_are_encoded_as_the_reference_and_the_others_are_not_touched():
    columns = {
        "area": np.array([-1.0, 2.0]),
        "age": np.array([np.nan, 30.0]),
        "spend": np.array([np.nan, 10.0]),
    }
    matrix = encode(WHOLE, columns)
    np.testing.assert_array_equal(matrix[0], reference(WHOLE))
    np.testing.assert_allclose(matrix[1], [-0.5, 0, 1, 0, 0, 0, 1, 0])
    assert matrix.dtype == np.float32
    assert matrix.shape == (2, WHOLE.width) == (2, 8)


def test_blocks_lie_in_the_order_of_the_encoding_whatever_the_order_of_the_columns():
    columns = {"age": np.array([60.0]), "area": np.array([1.0]), "spend": np.array([60.0])}
    turned = Encoding((AREA, AGE, SPEND))
    np.testing.assert_allclose(encode(turned, columns)[0], [0, 1, 0, 0, 1, 0, 0, 1])
    assert turned.spans() == [slice(0, 4), slice(4, 5), slice(5, 8)]


def test_every_row_of_indicators_sums_to_one():
    rng = np.random.default_rng(0)
    columns = {
        "age": rng.uniform(20, 60, 200),
        "spend": np.where(rng.random(200) < 0.2, np.nan, rng.normal(30, 30, 200)),
        "area": rng.integers(-1, 4, 200).astype(float),
    }
    matrix = encode(WHOLE, columns)
    for span in WHOLE.spans()[1:]:
        np.testing.assert_allclose(matrix[:, span].sum(axis=1), 1.0, rtol=1e-6)
    assert np.abs(matrix).max() <= 1.0


def test_a_row_s_encoding_does_not_depend_on_the_other_rows():
    columns = {"age": np.array([30.0, 59.0]), "spend": np.array([5.0, np.nan]), "area": np.array([3.0, -1.0])}
    both = encode(WHOLE, columns)
    for row in range(2):
        alone = encode(WHOLE, {name: values[row : row + 1] for name, values in columns.items()})
        np.testing.assert_array_equal(alone[0], both[row])


def test_no_rows_make_an_empty_matrix():
    none = np.zeros(0)
    assert encode(WHOLE, {"age": none, "spend": none, "area": none}).shape == (0, 8)
