"""Sealed cells: read by a second implementation, and refused wherever they are not where and what they were."""

import base64
import random
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.privacy.errors import ContractFault, CoterieError
from coterie.privacy.fields.codec import MOST_CELLS, RandomisedCells, SearchableCells, check_cardinality
from coterie.privacy.fields.columns import ColumnPlace
from coterie.privacy.fields.errors import KeyFault, SealFault
from coterie.privacy.randomness import OsSource, SeededSource
from coterie.tests.privacy.fields import cellreader

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
PLACE = ColumnPlace("customers", "email", 1)
SPEC = Path(__file__).parents[3] / "docs" / "formats" / "cells.md"
VALUES = ["anna@example.com", None, "", "Zoë", "x" * 200, "end\0\0", "\x80", "\1", "a.b.c", None]
ROWS = [f"c-{number}" for number in range(len(VALUES))]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def randomised(place=PLACE, key=KEY, **more):
    return RandomisedCells(place, key, source=OsSource(), **more)


def searchable(place=PLACE, key=KEY):
    return SearchableCells(place, key, source=OsSource())


def column(rows, distinct=None):
    """Values of which none is frequent."""
    return [f"user{number % (distinct or rows)}@example.com" for number in range(rows)]


class Fixed:
    """A source whose every stream begins with bytes that the test knows."""

    name = "fixed"

    def stream(self, label):
        return self

    def bits(self, count):
        return bytes(range(count)) if count <= 256 else bytes(count)


def refused(codec, cells, *rows):
    """Return the faults of cells that do not open, which tell nothing of them."""
    with pytest.raises(SealFault) as caught:
        codec.open_cells(cells, *rows)
    text = str(caught.value)
    for told in [*cells, *(key for keys in rows for key in keys), "anna", "example"]:
        assert told is None or len(told) < 4 or told not in text
    return text


# --- as the page says


def test_the_vectors_of_the_page_are_what_we_write_and_what_the_second_implementation_writes():
    table = re.search(r"value +cell\n(.*?)```", SPEC.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.split() for line in table[1].splitlines()]
    assert [line[1][:2] for line in lines] == ["v1", "v1", "d1", "d1"]
    for word, cell in lines:
        value = None if word == "(missing)" else word
        if cell.startswith("v1"):
            sealing = RandomisedCells(PLACE, KEY, source=Fixed())
            assert sealing.seal_cells([value], ["c-17"]) == [cell]
            assert sealing.open_cells([cell], ["c-17"]) == [value]
            bound = ["customers", "email", "c-17", 1]
            assert cellreader.seal(KEY, bound, value, nonce=bytes(range(12))) == cell
        else:
            assert searchable().open_cells([cell]) == [value]
            bound = ["customers", "email", 1]
            assert cellreader.seal_searchable(KEY, bound, value, filling=bytes(range(14))) == cell
        assert cellreader.open_(KEY, bound, cell) == value
    # One missing value first, so that the known filling is its own; the others only make the column admissible.
    cells = SearchableCells(PLACE, KEY, source=Fixed()).seal_cells([None, *column(1000)])
    assert cellreader.open_(KEY, ["customers", "email", 1], cells[0]) is None
    assert searchable().cell_of("anna@example.com") == lines[2][1]


@pytest.mark.parametrize("bucket", [16, 17, 64, 4096])
def test_the_second_implementation_reads_our_cells_and_we_read_its(bucket):
    place = ColumnPlace("customers", "email", 7, bucket)
    codec = randomised(place)
    for row, value, cell in zip(ROWS, VALUES, codec.seal_cells(VALUES, ROWS), strict=True):
        bound = ["customers", "email", row, 7]
        assert cellreader.open_(KEY, bound, cell) == value
        theirs = cellreader.seal(KEY, bound, value, nonce=bytes(12), bucket=bucket)
        assert codec.open_cells([theirs], [row]) == [value]
        assert len(theirs) == len(cell)
    codec = searchable(place)
    for value in VALUES:
        theirs = cellreader.seal_searchable(KEY, ["customers", "email", 7], value, bucket=bucket)
        assert codec.open_cells([theirs]) == [value]
        if value is not None:
            assert codec.cell_of(value) == theirs


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.none() | TEXT, TEXT), max_size=8, unique_by=lambda pair: pair[1]), st.integers(1, 99))
def test_any_texts_come_back(pairs, version):
    values, rows = [value for value, _ in pairs], [row for _, row in pairs]
    place = ColumnPlace("d", "c", version)
    cells = randomised(place).seal_cells(values, rows)
    assert randomised(place).open_cells(cells, rows) == values
    codec = searchable(place)
    assert codec.open_cells([codec.cell_of(value or "") for value in values]) == [value or "" for value in values]


def test_keys_may_be_wiped_once_the_codec_is_made():
    key = bytearray(KEY)
    codecs = randomised(key=key), searchable(key=key)
    key[:] = bytes(32)
    assert randomised().open_cells(codecs[0].seal_cells(["a"], ["r"]), ["r"]) == ["a"]
    assert searchable().open_cells([codecs[1].cell_of("a")]) == ["a"]


# --- what must not open


def cells_of():
    codec = randomised()
    return codec, codec.seal_cells(VALUES, ROWS)


@pytest.mark.parametrize(
    "place",
    [
        ColumnPlace("customers", "phone", 1),
        ColumnPlace("interactions", "email", 1),
        ColumnPlace("customers", "email", 2),
    ],
    ids=["column", "data set", "key version"],
)
def test_cells_of_another_column_data_set_or_key_version_are_refused(place):
    _, cells = cells_of()
    assert "10 of 10 cells are changed" in refused(randomised(place), cells, ROWS)
    cell = searchable().cell_of("anna@example.com")
    assert "1 of 1 cells is changed" in refused(searchable(place), [cell])


def test_names_that_only_together_read_alike_are_told_apart():
    # Were they joined without marks, these would be one.
    cells = randomised(ColumnPlace("a", "bc", 1)).seal_cells(["x"], ["d"])
    for place, row in ((ColumnPlace("ab", "c", 1), "d"), (ColumnPlace("a", "b", 1), "cd"), (PLACE, 'bc","d')):
        refused(randomised(place), cells, [row])


def test_a_cell_of_another_row_is_refused_and_its_row_is_counted_from_one():
    codec, cells = cells_of()
    swapped = [*cells[:3], cells[4], cells[3], *cells[5:]]
    assert "customers.email: 2 of 10 cells are changed" in refused(codec, swapped, ROWS)
    assert "(first: row 4)" in refused(codec, swapped, ROWS)
    repeated = [cells[0], cells[0]]
    assert "1 of 2 cells is changed" in refused(codec, repeated, ROWS[:2])


def test_a_searchable_cell_of_another_row_opens_as_its_page_says():
    codec = searchable()
    cells = codec.seal_cells(column(1000))
    assert codec.open_cells([cells[1], cells[0]]) == column(1000)[1::-1]


def test_another_key_is_named_before_anything_is_opened():
    _, cells = cells_of()
    assert "10 of 10 cells are sealed under another key" in refused(randomised(key=OTHER), cells, ROWS)
    assert "sealed under another key" in refused(searchable(key=OTHER), [searchable().cell_of("anna@example.com")])
    # The ids of one key for the two kinds differ, too.
    assert cells[0].split(".")[1] != searchable().cell_of("x").split(".")[1]


def test_a_cell_whose_body_would_open_but_whose_key_id_is_anothers_is_refused():
    # What a ciphertext made for two keys (Albertini et al. 2022) would need: our body under another's id.
    codec, cells = cells_of()
    _, _, body = cells[0].split(".")
    forged = f"v1.{cellreader.identity(OTHER, 'v1')}.{body}"
    assert "another key" in refused(codec, [forged], ROWS[:1])
    assert "changed" in refused(randomised(key=OTHER), [forged], ROWS[:1])


@pytest.mark.parametrize("kind", ["v1", "d1"])
def test_every_changed_character_is_refused(kind):
    codec, given = (randomised(), [["c-17"]]) if kind == "v1" else (searchable(), [])
    cell = codec.seal_cells(["anna"], ["c-17"])[0] if kind == "v1" else codec.cell_of("anna")
    alphabet = "ABYZabyz0189-_+/=.\n é"
    for place, was in enumerate(cell):
        for character in alphabet.replace(was, ""):
            refused(codec, [cell[:place] + character + cell[place + 1 :]], *given)
            refused(codec, [cell[:place] + character + cell[place:]], *given)
        refused(codec, [cell[:place]], *given)
        refused(codec, [cell[:place] + cell[place + 1 :]], *given)
    for more in alphabet:
        refused(codec, [cell + more], *given)
    assert codec.open_cells([cell], *given) == ["anna"]


def test_spare_bits_of_base64_are_no_second_spelling():
    cell = randomised().seal_cells(["a"], ["r"])[0]
    head, body = cell.rsplit(".", 1)
    raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    spellings = [
        body[:-1] + last
        for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        if base64.urlsafe_b64decode(body[:-1] + last + "=" * (-len(body) % 4)) == raw
    ]
    assert len(spellings) in (4, 16)  # else this body has no spare bits, and the test says nothing
    opened = []
    for spelling in spellings:
        try:
            opened += randomised().open_cells([f"{head}.{spelling}"], ["r"])
        except SealFault:
            continue
    assert opened == ["a"]


def test_of_ten_thousand_changed_cells_none_opens():
    codec, rng = randomised(), random.Random(7)  # noqa: S311 - the same changes each time
    values = [rng.choice([None, "anna@example.com", "x" * 40]) for _ in range(20)]
    cells = codec.seal_cells(values, [str(row) for row in range(20)])
    opened = 0
    for _ in range(10_000):
        row = rng.randrange(20)
        data, kind = list(cells[row]), rng.randrange(4)
        start, end = sorted(rng.choices(range(len(data) + 1), k=2))
        if kind == 0:
            data[rng.randrange(len(data))] = rng.choice("ABCDwxyz01-_.")
        elif kind == 1:
            del data[start:end]
        elif kind == 2:
            data[start:end] = data[start:end][::-1]
        else:
            data[start:end] = cells[rng.randrange(20)][start:end]
        if (changed := "".join(data)) != cells[row]:
            try:
                opened += len(codec.open_cells([changed], [str(row)]))
            except SealFault:
                continue
    assert opened == 0


NO_CELLS = [
    "anna@example.com",
    "",
    None,
    "v1",
    "v1.",
    "v1..",
    "v2.{id}.{body}",
    "d1.{id}.{body}",
    "V1.{id}.{body}",
    "v1.{id}.",
    "v1.{body}",
    "v1.{id}.{body}.",
    " v1.{id}.{body}",
    "v1.{id}.{body}\n",
    "v1.{id}.{body}=",
    "v1.{id}.AAAA",
    "v1.{id}.é",
    "v1.{id}.A",
    "{id}.{body}",
]


@pytest.mark.parametrize("text", NO_CELLS)
def test_what_is_no_cell_is_never_taken_for_one(text):
    codec = randomised()
    _, identity, body = codec.seal_cells(["anna"], ["c-17"])[0].split(".")
    text = text and text.format(id=identity, body=body)
    refused(codec, [text], ["c-17"])
    refused(searchable(), [text])


def test_one_kind_is_not_opened_as_the_other():
    cell, token = randomised().seal_cells(["anna"], ["c-17"])[0], searchable().cell_of("anna")
    assert "another form" in refused(searchable(), [cell])
    assert "another form" in refused(randomised(), [token], ["c-17"])


def test_faults_are_told_apart_and_counted():
    codec, cells = cells_of()
    foreign = randomised(key=OTHER).seal_cells(VALUES, ROWS)
    mixed = [cells[0], "anna@example.com", None, *foreign[3:6], cells[7], cells[6], *cells[8:]]
    with pytest.raises(SealFault) as caught:
        codec.open_cells(mixed, ROWS)
    rules = [fault.rule for fault in caught.value.faults]
    assert [rule.split(" cells ")[0] for rule in rules] == ["2 of 10", "3 of 10", "2 of 10"]
    assert [rule.split("first: ")[1] for rule in rules] == ["row 2)", "row 4)", "row 7)"]


def test_an_authentic_cell_of_other_rules_is_refused():
    codec = randomised()
    for plain in (b"", b"\2anna\x80", b"\1anna", b"\1\xff\x80", bytes(16), b"\x80"):
        nonce = bytes(12)
        sealed, tag = cellreader.cipher(KEY, "v1", ["customers", "email", "r", 1], nonce).encrypt_and_digest(plain)
        cell = f"v1.{cellreader.identity(KEY, 'v1')}.{cellreader.base64url(nonce + sealed + tag)}"
        assert "another form" in refused(codec, [cell], ["r"])


# --- what cells tell


def test_equal_and_missing_values_look_like_any_other():
    cells = randomised().seal_cells(["anna"] * 50 + [None] * 50, [str(row) for row in range(100)])
    assert len(set(cells)) == 100
    assert len({len(cell) for cell in cells}) == 1
    bodies = [cell.split(".")[2] for cell in cells]
    assert len({body[:16] for body in bodies}) == 100


def test_lengths_are_told_in_buckets_only():
    for bucket in (16, 64):
        codec = randomised(ColumnPlace("customers", "email", 1, bucket))
        sizes = [None, *range(3 * bucket)]
        cells = codec.seal_cells([None if size is None else "x" * size for size in sizes], list(map(str, sizes)))
        lengths = Counter(len(cell) for cell in cells)
        # Two bytes are the form's own; a missing value is in the first bucket.
        assert [lengths[length] for length in sorted(lengths)] == [bucket, bucket, bucket, 1]
        assert lengths[len(cells[0])] == bucket


def test_equal_values_give_equal_searchable_cells_and_missing_ones_never_do():
    codec = searchable()
    values = [None, *column(2000, distinct=1000), None]
    cells = codec.seal_cells(values)
    assert codec.open_cells(cells) == values
    assert cells[1:1001] == cells[1001:2001]
    assert len(set(cells)) == 1002
    assert cells[0] not in codec.seal_cells(values)
    assert [codec.cell_of(value) for value in values[1:20]] == cells[1:20]
    # A missing value is as long as any value of one bucket.
    assert len(cells[0]) == len(codec.cell_of("x" * 14))


def test_cells_of_one_place_are_nothing_to_another_place():
    tokens = {
        SearchableCells(ColumnPlace(data, name, version), KEY, source=OsSource()).cell_of("anna")
        for data, name, version in (("a", "b", 1), ("a", "b", 2), ("a", "c", 1), ("d", "b", 1))
    }
    assert len(tokens) == 4


def test_nonces_do_not_repeat_from_call_to_call_even_of_a_seeded_source():
    codec = RandomisedCells(PLACE, KEY, source=SeededSource(b"seed"))
    cells = [codec.seal_cells(["anna"], ["c-17"])[0] for _ in range(50)] + codec.seal_cells(VALUES, ROWS)
    nonces = {cell.split(".")[2][:16] for cell in cells}
    assert len(nonces) == 60
    again = RandomisedCells(PLACE, KEY, source=SeededSource(b"seed"))
    assert again.seal_cells(["anna"], ["c-17"]) == cells[:1]
    columns = SearchableCells(PLACE, KEY, source=SeededSource(b"seed"))
    assert columns.seal_cells([*column(1000), None])[-1] != columns.seal_cells([*column(1000), None])[-1]


# --- what is not sealed


def test_a_key_seals_as_many_cells_as_its_nonces_carry_and_no_more():
    codec = randomised(sealed=MOST_CELLS - 2)
    with pytest.raises(KeyFault, match="of which 2 are left"):
        codec.seal_cells(["a", "b", "c"], ["1", "2", "3"])
    assert codec.sealed == MOST_CELLS - 2
    codec.seal_cells(["a", "b"], ["1", "2"])
    assert codec.sealed == MOST_CELLS == 2**32
    with pytest.raises(KeyFault, match="of which 0 are left"):
        codec.seal_cells(["a"], ["1"])
    assert codec.seal_cells([], []) == []


def test_two_rows_with_one_key_are_refused_without_the_key():
    codec = randomised()
    for act in (codec.seal_cells, codec.open_cells):
        with pytest.raises(ContractFault, match="row 3") as caught:
            act(["a", "b", "c"], ["anna", "bob", "anna"])
        assert "anna" not in str(caught.value)
    with pytest.raises(ValueError, match="2 rows need as many keys, not 1"):
        codec.seal_cells(["a", "b"], ["1"])


def test_half_a_surrogate_pair_is_refused_by_the_number_of_its_row():
    whole = column(1000)
    acts = {
        "row 2": lambda: randomised().seal_cells(["a", "anna\ud800"], ["1", "2"]),
        "row 1": lambda: randomised().seal_cells(["a", "b"], ["anna\ud800", "2"]),
        "row 1001": lambda: searchable().seal_cells([*whole, "anna\ud800"]),
    }
    for number, act in acts.items():
        with pytest.raises(ContractFault, match=f"{number} has") as caught:
            act()
        assert "anna" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_key_of_another_length_is_refused(size):
    for make in (randomised, searchable):
        with pytest.raises(KeyFault, match=f"32 bytes, not {size}"):
            make(key=bytes(size))


@pytest.mark.parametrize(("version", "bucket"), [(0, 16), (-1, 16), (2**53, 16), (1, 15), (1, 4097), (1, 0)])
def test_versions_and_buckets_outside_their_range_are_refused(version, bucket):
    with pytest.raises(ValueError, match="version"):
        ColumnPlace("d", "c", version, bucket)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (column(999), ["1000 distinct values or more, and there are 999"]),
        (column(100_000, 999), ["there are 999"]),
        ([*column(1000), *["top"] * 11], ["1 % of 1011 cells or fewer, and one is in 11"]),
        ([*column(1000), *[None] * 9000, *["top"] * 11], ["1 % of 1011 cells"]),
        (["yes", "no"] * 500, ["there are 2", "one is in 500"]),
        ([], ["there are 0"]),
        ([None] * 5000, ["there are 0"]),
    ],
    ids=["few", "few of many", "frequent", "frequent among those present", "both", "none", "all missing"],
)
def test_columns_whose_values_their_frequencies_would_tell_are_refused(values, told):
    with pytest.raises(ContractFault) as caught:
        searchable().seal_cells(values)
    assert len(caught.value.faults) == len(told)
    assert all(word in fault.rule for word, fault in zip(told, caught.value.faults, strict=True))
    assert "top" not in str(caught.value)
    assert "user1" not in str(caught.value)


def test_columns_at_the_limits_are_searchable():
    check_cardinality("email", column(1000))
    check_cardinality("email", [*column(999), *["top"] * 10, None])
    check_cardinality("email", column(10_000, 1000) + [None] * 10**5)


def test_no_fault_or_codec_shows_a_key_or_a_value():
    codecs = randomised(), searchable()
    for codec in codecs:
        assert KEY.hex() not in repr(vars(codec))
        assert repr(KEY) not in repr(vars(codec))
    with pytest.raises(CoterieError) as caught:
        codecs[0].open_cells(["secret-text"], ["secret-row"])
    assert "secret" not in str(caught.value)
