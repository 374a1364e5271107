"""What is left out for evaluation is each training customer's last item, and no partner has it."""

import datetime

import numpy as np
import pyarrow as pa
import pytest

from coterie.clients.groups import is_held_out
from coterie.clients.interactions import open_histories
from coterie.clients.tables.files import table_at
from coterie.models.catalogue import Catalogue
from coterie.models.histories import Histories
from coterie.privacy.contract import Contract, Interactions
from coterie.privacy.errors import ContractFault
from coterie.privacy.study import read_study
from coterie.simulations.histories import hold_back, together
from coterie.tests.simulations import blocks

KEY = b"k" * 32
CATALOGUE = Catalogue(tuple(f"i{number:02d}" for number in range(30)))
CONTRACT = Contract(
    customer="who",
    interactions=Interactions(item="what", time="when", most=4, least=2, earliest="2024-01-01", latest="2024-12-31"),
)


def day(number):
    return datetime.date(2024, 1, 1) + datetime.timedelta(days=number)


@pytest.fixture
def messy():
    """Return rows in no order, with items bought again, several on one day, unknown codes, and sizes from 1 to 9."""
    draw = np.random.default_rng(5)
    rows = []
    for customer in range(80):
        chosen = zip(draw.integers(12, size=1 + customer % 9), draw.integers(6, size=1 + customer % 9), strict=True)
        rows += [(f"c{customer}", f"i{item:02d}", day(int(on))) for item, on in chosen]
        rows.append((f"c{customer}", "unknown", day(300)))
    draw.shuffle(rows)
    who, what, when = zip(*((a, b, datetime.date.fromisoformat(str(c))) for a, b, c in rows), strict=True)
    return pa.table({"who": list(who), "what": list(what), "when": pa.array(when, pa.date32())})


def by_hand(table):
    """Return each customer's known items in the order of their first days, as plain lists."""
    rows = list(zip(*(table[name].to_pylist() for name in ("who", "what", "when")), strict=True))
    found = {}
    for who, what, _ in sorted(rows, key=lambda row: row[2]):  # a stable sort: one day's rows stay in their order
        items = found.setdefault(who, [])
        if what != "unknown" and what not in items:
            items.append(what)
    return found


def one_by_one(histories):
    """Return each customer's items and days, in an order that does not depend on the table's."""
    pairs = zip(histories.starts[:-1], histories.starts[1:], strict=True)
    return sorted((tuple(histories.items[a:b].tolist()), tuple(histories.days[a:b].tolist())) for a, b in pairs)


def test_the_last_new_item_of_every_training_customer_with_more_than_enough_is_taken_out(messy):
    kept = hold_back(messy, CONTRACT, CATALOGUE, group_key=KEY)
    before, after = by_hand(messy), by_hand(kept.table)
    taken = 0
    for who, items in before.items():
        if is_held_out(KEY, who) or len(items) <= 2:
            assert after[who] == items
        else:
            assert after[who] == items[:-1]
            taken += 1
    assert taken > 20
    assert (kept.held >= 0).sum() == taken
    assert sorted(CATALOGUE.codes[item] for item in kept.held if item >= 0) == sorted(
        items[-1] for who, items in before.items() if not is_held_out(KEY, who) and len(items) > 2
    )


def test_what_is_seen_is_what_the_partner_itself_will_open(messy, tmp_path):
    kept = hold_back(messy, CONTRACT, CATALOGUE, group_key=KEY)
    path = tmp_path / "table.parquet"
    pa.parquet.write_table(kept.table, path)
    opened = open_histories(table_at(path), CONTRACT, CATALOGUE, group_key=KEY)
    assert one_by_one(kept.seen) == one_by_one(opened.training)
    assert kept.held_out == len(opened.held_out)
    assert kept.seen.lengths.max() == 4  # the contract's most


def test_no_held_item_is_left_in_the_history_it_was_taken_from(messy):
    kept = hold_back(messy, CONTRACT, CATALOGUE, group_key=KEY)
    for customer, item in enumerate(kept.held):
        assert item not in kept.seen.items[kept.seen.starts[customer] : kept.seen.starts[customer + 1]]


def test_rows_of_held_out_customers_are_all_still_there(messy):
    kept = hold_back(messy, CONTRACT, CATALOGUE, group_key=KEY)
    for table in (messy, kept.table):
        assert [is_held_out(KEY, who) for who in table["who"].to_pylist()].count(True) > 50
    assert [row for row in messy.to_pylist() if is_held_out(KEY, row["who"])] == [
        row for row in kept.table.to_pylist() if is_held_out(KEY, row["who"])
    ]


def test_a_table_of_another_kind_is_refused(messy):
    with pytest.raises(ContractFault, match="interactions"):
        hold_back(messy, Contract(customer="who", label="what"), CATALOGUE, group_key=KEY)


def test_together_puts_partners_one_after_the_other():
    one = Histories(np.array([0, 2, 2]), np.array([5, 6]), np.array([1, 2]))
    other = Histories(np.array([0, 1]), np.array([7]), np.array([3]))
    both = together({"a": one, "b": other})
    assert both.starts.tolist() == [0, 2, 2, 3]
    assert both.items.tolist() == [5, 6, 7]
    assert both.days.tolist() == [1, 2, 3]


def test_the_study_of_these_tests_says_in_toml_what_it_says_in_python(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(blocks.STUDY, encoding="utf-8")
    plan = read_study(path).plan.to_dict()
    plan["model"]["family"] = "item-gram"
    assert plan == blocks.PLAN.to_dict()
