"""The catalogue: one form of a code, one digest of a list, one encoding of what is public about its items."""

import itertools
import math
import time

import numpy as np
import pytest

from coterie.models.catalogue import Catalogue, encoded
from coterie.models.itemcodes import normal_codes

# Published numbers: worked examples of GS1's own pages, and two that are on a shelf.
REAL = {
    "6291041500213": "06291041500213",
    "4006381333931": "04006381333931",
    "036000291452": "00036000291452",
    "73513537": "00000073513537",
    "10614141000415": "10614141000415",
}


def sample(**changes):
    parts = {
        "codes": ("a", "b", "c", "d"),
        "attributes": {"genre": ("x|y", "x", "", "y"), "price": np.array([1.0, np.nan, 2.5, 9.0])},
        "kind": "taxonomy",
    }
    return Catalogue(**(parts | changes))


# --- codes ----------------------------------------------------------------------------------------------


def test_gtins_of_every_length_get_fourteen_digits():
    found = normal_codes(list(REAL), "gtin")
    assert found.codes == list(REAL.values())
    assert not found.refused


def test_one_wrong_digit_anywhere_is_noticed():
    for code in REAL:
        altered = [
            code[:place] + str((int(code[place]) + step) % 10) + code[place + 1 :]
            for place, step in itertools.product(range(len(code)), range(1, 10))
        ]
        found = normal_codes(altered, "gtin")
        assert set(found.codes) == {""}
        assert found.refused == {"have a wrong check digit": len(altered)}


def test_the_check_digit_is_the_one_that_the_formula_of_gs1_gives():
    draw = np.random.default_rng(1)
    for length in (8, 12, 13, 14):
        digits = draw.integers(0, 10, length - 1).tolist()
        # Counted from the right, as the specification words it: 3, 1, 3, ...
        total = sum(digit * (3, 1)[place % 2] for place, digit in enumerate(reversed(digits)))
        right = math.ceil(total / 10) * 10 - total
        written = ["".join(map(str, [*digits, last])) for last in range(10)]
        accepted = [last for last, code in enumerate(normal_codes(written, "gtin").codes) if code]
        assert accepted == [right]


def test_what_is_no_gtin_is_counted_by_what_is_wrong():
    texts = ["4006381333931", "400638133393", "", " ", "40063813339310", "abcdefgh", "4006381333931x", "٤٠٠٦٣٨١٣"]
    found = normal_codes(texts, "gtin")
    assert [bool(code) for code in found.codes] == [True] + [False] * 7
    assert found.refused == {
        "are empty": 2,
        "are not 8, 12, 13 or 14 digits": 3,
        "have a wrong check digit": 2,
    }


def test_taxonomy_codes_are_any_short_plain_text():
    texts = [" ICE - CRUSHED ", "Cafe\u0301", "x" * 100, "x" * 101, "a\nb", "a\x7fb", ""]
    found = normal_codes(texts, "taxonomy")
    assert found.codes == ["ICE - CRUSHED", "Caf\u00e9", "x" * 100, "", "", "", ""]
    assert found.refused == {"are longer than 100 characters": 1, "hold control characters": 2, "are empty": 1}
    assert "ICE" not in repr(found)
    with pytest.raises(ValueError, match="gtin, taxonomy"):
        normal_codes(texts, "sku")


# --- the catalogue and its digest -----------------------------------------------------------------------


def test_positions_follow_the_codes_and_not_the_rows():
    whole, order = sample(), [2, 0, 3, 1]
    mixed = Catalogue.arranged(
        tuple(whole.codes[place] for place in order),
        {
            "price": whole.attributes["price"][order],
            "genre": tuple(whole.attributes["genre"][place] for place in order),
        },
    )
    assert mixed.codes == whole.codes
    assert mixed.attributes["genre"] == whole.attributes["genre"]
    assert np.array_equal(mixed.attributes["price"], whole.attributes["price"], equal_nan=True)
    assert mixed.digest() == whole.digest()


def test_every_code_and_every_attribute_value_changes_the_digest():
    genre, price = sample().attributes["genre"], sample().attributes["price"]
    altered = [sample(codes=("a", "b", "c", "e")), sample(attributes={}), sample(attributes={"genre": genre})]
    altered.append(sample(attributes={"genre": genre, "cost": price}))
    for place in range(4):
        words = (*genre[:place], "z", *genre[place + 1 :])
        altered.append(sample(attributes={"genre": words, "price": price}))
        numbers = price.copy()
        numbers[place] = np.nextafter(numbers[place], 100) if numbers[place] > 0 else 0.0
        altered.append(sample(attributes={"genre": genre, "price": numbers}))
    # Cells that move to a neighbour, and names that swap their columns.
    altered.append(sample(attributes={"genre": ("x", "y|x", "", "y"), "price": price}))
    altered.append(sample(attributes={"price": genre, "genre": price}))
    digests = {catalogue.digest() for catalogue in [sample(), *altered]}
    assert len(digests) == 1 + len(altered)
    assert all(digest.startswith("sha256:") and len(digest) == 71 for digest in digests)


def test_the_kind_of_code_is_part_of_the_digest():
    codes = tuple(sorted(REAL.values()))
    assert Catalogue(codes).digest() != Catalogue(codes, kind="gtin").digest()


def test_digests_do_not_depend_on_the_order_of_attributes_or_on_the_bits_of_a_missing_number():
    genre, price = sample().attributes["genre"], sample().attributes["price"]
    other = price.copy()
    other[1] = -np.nan
    assert other.tobytes() != price.tobytes()
    assert sample(attributes={"price": other, "genre": genre}).digest() == sample().digest()
    zero, minus = np.array([0.0, 1, 2, 3]), np.array([-0.0, 1, 2, 3])
    assert sample(attributes={"price": zero}).digest() == sample(attributes={"price": minus}).digest()


def test_the_digest_of_version_1_does_not_change():
    assert sample().digest() == "sha256:90cd7fd5ff86b1f99676118fa8386a57dbcc6b24f1494e524bf5a32f1b231a86"


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"codes": ("a",), "attributes": {}}, "2 to 1000000 items"),
        ({"codes": ("b", "a"), "attributes": {}}, "ascend"),
        ({"codes": ("a", "a"), "attributes": {}}, "ascend"),
        ({"codes": ("", "a"), "attributes": {}}, "normal form"),
        ({"codes": ("a ", "b"), "attributes": {}}, "normal form"),
        ({"codes": ("4006381333931", "6291041500213"), "attributes": {}, "kind": "gtin"}, "normal form"),
        ({"attributes": {"genre": ("x", "y", "z")}}, "one plain text or finite number"),
        ({"attributes": {"genre": ("x", "y", "z", "a\nb")}}, "one plain text or finite number"),
        ({"attributes": {"price": np.array([1, 2, 3, np.inf])}}, "one plain text or finite number"),
        ({"attributes": {"price": np.arange(4)}}, "one plain text or finite number"),
        ({"attributes": {"a\nb": ("x",) * 4}}, "name must be a plain text"),
        ({"attributes": {str(number): ("x",) * 4 for number in range(33)}}, "at most 32"),
    ],
)
def test_what_is_no_catalogue_is_refused(changes, rule):
    with pytest.raises(ValueError, match=rule):
        sample(**changes)


def test_attributes_of_another_length_are_refused_before_they_are_moved():
    with pytest.raises(ValueError, match="one cell for each item"):
        Catalogue.arranged(("b", "a"), {"genre": ("x", "y", "z")})


def test_items_are_called_by_their_names_where_they_have_one():
    assert sample().names == sample().codes
    assert sample(attributes={"name": ("Ice", "", "Bread", "")}).names == ("Ice", "b", "Bread", "d")
    assert repr(sample()) == "Catalogue(4 items, 2 attributes, kind='taxonomy')"


# --- the encoding ---------------------------------------------------------------------------------------


def by_hand(columns, items):
    """Whiten sets of items by the definition, one cell at a time."""
    rows = [[math.sqrt(items / len(column)) if item in column else 0.0 for column in columns] for item in range(items)]
    lengths = [math.sqrt(sum(value * value for value in row)) or 1.0 for row in rows]
    return np.array([[value / length for value in row] for row, length in zip(rows, lengths, strict=True)])


def test_words_and_bins_are_encoded_by_their_definition():
    words = ("x|y", "x", "x | y|x", "", "y", "z", "w", "")
    price = np.array([1.0, 1.0, 2.0, 3.0, 4.0, np.nan, 5.0, 6.0])
    whole = Catalogue(tuple("abcdefgh"), {"genre": words, "price": price, "name": tuple("ABCDABCD")})
    # Halves of the seven prices end at 3; z and w are rare and share a column.
    expected = by_hand([{0, 1, 2}, {0, 2, 4}, {5, 6}, {0, 1, 2, 3}, {4, 6, 7}], 8)
    # Alphabetical order: of attributes, then of words with the rare ones last.
    matrix = encoded(whole, bins=2)
    assert matrix.dtype == np.float32
    assert matrix.shape == (8, 5)
    assert np.allclose(matrix, expected, atol=1e-6)


def test_rare_words_beyond_the_widest_share_a_column():
    words = ("p|q", "p|q", "p|r", "p|r", "q|s", "s", "", "")
    matrix = encoded(Catalogue(tuple("abcdefgh"), {"genre": words}), widest=3)
    assert np.allclose(matrix, by_hand([{0, 1, 2, 3}, {0, 1, 4}, {2, 3, 4, 5}], 8), atol=1e-6)


def test_what_one_item_or_every_item_has_tells_nothing_and_is_left_out():
    catalogue = Catalogue(tuple("abc"), {"x": ("all|one", "all", "all"), "y": np.array([2.0, 2.0, 2.0])})
    assert encoded(catalogue).shape == (3, 0)
    assert encoded(Catalogue(("a", "b"))).shape == (2, 0)
    missing = Catalogue(("a", "b"), {"y": np.array([np.nan, np.nan])})
    assert encoded(missing).shape == (2, 0)


def test_rows_of_the_encoding_have_unit_length_or_are_zero():
    draw = np.random.default_rng(2)
    words = tuple("|".join(draw.choice(list("pqrstuv"), draw.integers(0, 4))) for _ in range(500))
    numbers = np.where(draw.random(500) < 0.2, np.nan, draw.gamma(2, 3, 500))
    matrix = encoded(Catalogue(tuple(f"{n:03d}" for n in range(500)), {"genre": words, "price": numbers}))
    lengths = np.linalg.norm(matrix, axis=1)
    bare = np.array([not word and np.isnan(number) for word, number in zip(words, numbers, strict=True)])
    assert bare.any()
    assert np.allclose(lengths, np.where(bare, 0.0, 1.0), atol=1e-6)


def test_a_hundred_thousand_items_are_digested_and_encoded_in_seconds():
    count = 100_000
    codes = tuple(f"{number:06d}" for number in range(count))
    attributes = {
        "brand": tuple(f"brand {number % 5003}" for number in range(count)),
        "category": tuple(f"c{number % 307}|d{number % 41}" for number in range(count)),
        "price": np.arange(count) % 97 + 0.5,
    }
    start = time.process_time()
    catalogue = Catalogue(codes, attributes)
    catalogue.digest()
    matrix = encoded(catalogue)
    assert time.process_time() - start < 10
    assert matrix.nbytes <= 2**29
