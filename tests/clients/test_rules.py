"""A partner's own rules: strict to read, and what they leave of the catalogue."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from coterie.clients.rules import OwnRules, permitted, read_own_rules
from coterie.models.catalogue import Catalogue
from coterie.privacy.errors import FileFault

CATALOGUE = Catalogue(
    ("beer", "bread", "milk", "snuff"),
    {"aisle": ("Alcohol|Cold", "Bakery", "Cold", "Tobacco"), "price": np.array([2.0, 1.0, np.nan, 9.0])},
)
CANARY = "canary-4711"


def left(rules, folder):
    found = permitted(rules, CATALOGUE, place=folder / "rules.toml")
    return [code for code, may in zip(CATALOGUE.codes, found.items, strict=True) if may], found.notes


def test_a_file_of_all_rules_is_read(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(
        'exclude_owned = false\nstock = "stock.txt"\nat_most_per_item = 7\ndiversity = 0.5\nleast_score = -2\n'
        '[red_lines]\naisle = ["Alcohol"]\n'
    )
    rules = read_own_rules(path)
    assert rules == OwnRules(
        exclude_owned=False,
        stock="stock.txt",
        red_lines={"aisle": ("Alcohol",)},
        at_most_per_item=7,
        diversity=0.5,
        least_score=-2.0,
    )
    of_lists = rules.of_lists(9)
    assert (of_lists.top, of_lists.owned, of_lists.least, of_lists.diversity) == (9, True, -2.0, 0.5)
    assert of_lists.most_per_item == 7


def test_an_empty_file_is_the_usual_rules(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text("")
    assert read_own_rules(path) == OwnRules()
    assert not OwnRules().of_lists(3).owned
    assert OwnRules().of_lists(3).least == -np.inf


@pytest.mark.parametrize(
    "text",
    [
        "exclude_owned = 1",
        "at_most_per_item = 0",
        "at_most_per_item = 1.5",
        "diversity = 1.0",
        "diversity = -0.1",
        'least_score = "high"',
        "least_score = nan",
        "stock = 3",
        'red_lines = ["Alcohol"]',
        'red_lines.aisle = "Alcohol"',
        f'{CANARY} = "x"\nexclude_own = true',
    ],
)
def test_a_file_that_breaks_the_schema_is_refused(tmp_path, text):
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(FileFault, match=r"rules\.toml: "):
        read_own_rules(path)


def test_without_rules_every_item_may_be_had(tmp_path):
    assert left(OwnRules(), tmp_path) == (list(CATALOGUE.codes), {})


def test_items_with_a_forbidden_word_are_left_out_in_any_case_of_letters(tmp_path):
    assert left(OwnRules(red_lines={"aisle": ("ALCOHOL", " tobacco ")}), tmp_path)[0] == ["bread", "milk"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ({"aisle": ("Alcohol", CANARY)}, "red_lines.aisle: has 1 words that no item has"),
        ({"aisle": ()}, "red_lines.aisle: is empty"),
        ({"isle": ("Alcohol",)}, "red_lines.isle: is no attribute of words"),
        ({"price": ("9",)}, "red_lines.price: is no attribute of words"),
        ({"aisle": ("alcohol", "bakery", "cold", "tobacco")}, "leaves no item"),
    ],
)
def test_a_red_line_that_would_hold_nothing_back_is_an_error(tmp_path, lines, said):
    with pytest.raises(FileFault, match=said) as caught:
        left(OwnRules(red_lines=lines), tmp_path)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("name", ["stock.txt", "stock.csv", "stock.parquet"])
def test_only_what_is_in_stock_may_be_had_and_unknown_codes_are_counted(tmp_path, name):
    path = tmp_path / name
    table = pa.table({"shelf": [1, 2, 3, 4], "item": ["milk", "beer", "snow", None]})
    if name.endswith("csv"):
        pyarrow.csv.write_csv(table, path)
    elif name.endswith("parquet"):
        pyarrow.parquet.write_table(table, path)
    else:
        path.write_text("milk\r\n beer \n\nsnow\n")
    found, notes = left(OwnRules(stock=name), tmp_path)
    assert found == ["beer", "milk"]
    assert notes == {"codes in the stock that the catalogue does not know": 1}


def test_codes_in_the_stock_are_those_of_the_catalogue_however_long_they_are_written(tmp_path):
    catalogue = Catalogue(("04006381333931", "05012345678900"), kind="gtin")
    (tmp_path / "stock.txt").write_text("4006381333931\n")
    found = permitted(OwnRules(stock="stock.txt"), catalogue, place=tmp_path / "rules.toml")
    assert found.items.tolist() == [True, False]


@pytest.mark.parametrize("harm", ["gone", "no column", "garbage", "nothing known"])
def test_a_stock_that_says_nothing_is_an_error(tmp_path, harm):
    path = tmp_path / ("stock.txt" if harm == "nothing known" else "stock.parquet")
    if harm == "no column":
        pyarrow.parquet.write_table(pa.table({"code": ["milk"]}), path)
    elif harm != "gone":
        path.write_text(CANARY)
    with pytest.raises(FileFault, match=path.name) as caught:
        left(OwnRules(stock=path.name), tmp_path)
    assert CANARY not in str(caught.value)
