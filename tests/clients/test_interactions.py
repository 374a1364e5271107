"""Interactions in the vault: what is taken in whole or not at all, and which histories are opened for whom."""

import dataclasses
import datetime
import itertools
import zoneinfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from coterie.clients.catalogues import CatalogueFault, write_catalogue
from coterie.clients.groups import Among, is_held_out, segment_of
from coterie.clients.intake import take_in_interactions
from coterie.clients.interactions import attributes_of, catalogue_of, open_histories
from coterie.clients.tables.files import table_at
from coterie.clients.taint import is_tainted
from coterie.clients.vault import INTERACTIONS, open_vault
from coterie.clients.who import Who
from coterie.clients.workspace import Workspace
from coterie.models.catalogue import Catalogue
from coterie.privacy.clock import now
from coterie.privacy.contract import Contract, Interactions
from coterie.privacy.errors import ContractFault
from coterie.privacy.plan import Catalogued
from coterie.privacy.policy import Segments
from coterie.tests.clients.federation import files_of
from coterie.tests.clients.recommending import (
    ATTRIBUTES,
    CATALOGUE,
    CODES,
    CONTRACT,
    FIRST_DAY,
    ITEMS,
    recommends,
    rows_of,
    table_of,
    told,
)

KEY = bytes(range(32))
PLAN = recommends()
ROWS = rows_of("amber")
CANARY = "canary-4711"
LATE = datetime.date(2031, 5, 5)


def contract(**changes) -> Contract:
    return dataclasses.replace(CONTRACT, interactions=dataclasses.replace(CONTRACT.interactions, **changes))


@pytest.fixture
def written(tmp_path):
    numbers = itertools.count()

    def write(table, suffix="parquet"):
        path = tmp_path / f"table-{next(numbers)}.{suffix}"
        (pyarrow.csv.write_csv if suffix == "csv" else pyarrow.parquet.write_table)(table, path)
        return path

    return write


def opened(path, contract_=CONTRACT, **options):
    return open_histories(table_at(path), contract_, CATALOGUE, **{"group_key": KEY} | options)


def lists(histories):
    pairs = itertools.pairwise(histories.starts.tolist())
    return sorted(histories.items[start:end].tolist() for start, end in pairs)


# --- opening ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_histories_are_those_that_plain_python_finds_and_each_customer_is_in_its_group(written, suffix):
    found, expected = opened(written(table_of(ROWS), suffix)), told(ROWS)
    for histories, held_out in ((found.training, False), (found.held_out, True)):
        own = [items for customer, items in expected.items() if is_held_out(KEY, customer) == held_out]
        assert len(own) > 3
        assert lists(histories) == sorted(own)
    assert found.notes["rows of items that the catalogue does not know"] == sum(c == "unheard-of" for _, c, _ in ROWS)


def test_a_customer_is_in_the_same_group_whatever_else_the_table_or_the_contract_says(written):
    among = {customer for customer, *_ in ROWS if is_held_out(KEY, customer)}
    for rows, asked in (
        (ROWS[::-1], CONTRACT),
        ([row for row in ROWS if row[0] in among], contract(most=3)),
        (ROWS, contract(least=1)),
    ):
        if {customer for customer, *_ in rows} <= among:
            with pytest.raises(ContractFault, match="no customer"):  # none of them is a training customer
                opened(written(table_of(rows)), asked)
            continue
        least, most = asked.interactions.least, asked.interactions.most
        own = [items for customer, items in told(rows, most, least).items() if customer in among]
        assert lists(opened(written(table_of(rows)), asked).held_out) == sorted(own)


def test_a_customer_with_a_hundred_thousand_rows_keeps_its_most_recent_items_and_is_counted(written):
    draw = np.random.default_rng(3)
    heavy = next(f"heavy-{n}" for n in itertools.count() if not is_held_out(KEY, f"heavy-{n}"))
    items, days = draw.integers(ITEMS, size=100_000), draw.integers(120, size=100_000)
    rows = [(heavy, CODES[i], FIRST_DAY + datetime.timedelta(days=int(d))) for i, d in zip(items, days, strict=True)]
    found = opened(written(table_of([*ROWS, *rows])))
    without = opened(written(table_of(ROWS)))
    (own,) = (one for one in lists(found.training) if one not in lists(without.training))
    assert len(own) == 8
    first = {item: min(days[items == item]) for item in range(ITEMS)}
    assert min(first[item] for item in own) >= max(first[item] for item in set(range(ITEMS)) - set(own))
    note = "customers with too many items"
    assert found.notes[note] == without.notes.get(note, 0) + 1


def test_customers_with_too_few_known_items_take_no_part_and_are_counted(written):
    strangers = [(f"new-{n}", code, FIRST_DAY) for n in range(9) for code in ("unheard-of", "never-seen")]
    loners = [(f"one-{n}", CODES[n], FIRST_DAY) for n in range(5)]
    empty = [("nobody", None, None)]
    plain, found = opened(written(table_of(ROWS))), opened(written(table_of([*ROWS, *strangers, *loners, *empty])))
    assert lists(found.training) == lists(plain.training)
    assert lists(found.held_out) == lists(plain.held_out)
    note = "customers with too few items"
    assert found.notes[note] - plain.notes.get(note, 0) == 15


def test_rows_of_one_day_and_item_again_are_one_interaction(written):
    again = [row for row in ROWS for _ in range(3)]
    assert lists(opened(written(table_of(again))).training) == lists(opened(written(table_of(ROWS))).training)


@pytest.mark.parametrize(("rating", "kept"), [(3.0, True), (4.0, True), (2.0, False)])
def test_ratings_that_are_all_alike_are_all_kept_or_all_left_out(written, rating, kept):
    path = written(table_of(ROWS).append_column("stars", pa.array([rating] * len(ROWS))))
    asked = contract(value="stars", least_value=3.0)
    if kept:
        assert lists(opened(path, asked).training) == lists(opened(path).training)
    else:
        with pytest.raises(ContractFault, match="no customer with enough items"):
            opened(path, asked)


def test_a_day_is_the_one_that_is_written_whatever_zone_it_is_told_in(written):
    # Half past eleven at night in New York is the next day in UTC, beyond the contract's last day.
    zone, last = "America/New_York", datetime.date(2031, 5, 4)
    late = datetime.datetime.combine(last, datetime.time(23, 30))
    plain = pa.array([late for _ in ROWS], pa.timestamp("s"))
    texts = pa.array([f"{last}T23:30:00-04:00" for _ in ROWS])
    zoned = pa.array([late.replace(tzinfo=zoneinfo.ZoneInfo(zone)) for _ in ROWS], pa.timestamp("s", zone))
    for days in (plain, zoned, texts):
        table = table_of(ROWS).set_column(2, "day", days)
        assert set(opened(written(table)).training.days.tolist()) == {(last - datetime.date(1970, 1, 1)).days}


def test_where_a_hash_divides_customers_only_the_chosen_ones_are_opened(written):
    path, division = written(table_of(ROWS)), Segments(by="hash", names=("red", "blue"))
    parts = [opened(path, who=Who(Among(division, (name,)))) for name in division.names]
    whole = opened(path)
    assert sorted(lists(parts[0].training) + lists(parts[1].training)) == lists(whole.training)
    own = {c: i for c, i in told(ROWS).items() if segment_of(division, KEY, c) == "red" and not is_held_out(KEY, c)}
    assert lists(parts[0].training) == sorted(own.values())
    with pytest.raises(ContractFault, match="which interactions do not have"):
        opened(path, who=Who(Among(Segments(by="region", names=("red", "blue")), ("red",))))


def test_what_is_opened_is_marked_as_made_of_rows_and_shows_nothing(written):
    found = opened(written(table_of(ROWS)))
    for histories in (found.training, found.held_out):
        assert all(is_tainted(array) for array in (histories.starts, histories.items, histories.days))
    assert repr(found) == "OpenedHistories(...)"


# --- taking in ----------------------------------------------------------------------------------------------------


@pytest.fixture
def workspace(tmp_path):
    return Workspace.create(tmp_path / "amber", "amber")


def put(workspace, table, plan=PLAN, catalogue=None):
    """Take a table in: an Arrow table, or the text of a CSV file."""
    folder = workspace.root.parent
    items = folder / "items.parquet"
    write_catalogue(catalogue or CATALOGUE, items)
    path = folder / ("rows.csv" if isinstance(table, str) else "rows.parquet")
    if isinstance(table, str):
        path.write_text(table)
    else:
        pyarrow.parquet.write_table(table, path)
    with open_vault(workspace.root, now) as vault:
        return take_in_interactions(vault, table_at(path), plan, items)


def kept_by(workspace, asked, key):
    """What a study would open of the vault."""
    with open_vault(workspace.root, now) as vault:
        return open_histories(vault.table(INTERACTIONS), asked, CATALOGUE, group_key=key)


def with_rows(*more):
    return table_of([*ROWS, *more])


OTHER = Catalogue((*CODES[:-1], "zebra"), {"category": CATALOGUE.attributes["category"]})
SINGLE = pa.table({"item": ["only"], "category": ["c"]})
BAD = {
    "days from the future": (with_rows((CANARY, CODES[0], LATE)), PLAN, None, ContractFault, "lies after"),
    "no customer": (with_rows((None, CODES[0], FIRST_DAY)), PLAN, None, ContractFault, "is missing in 1 rows"),
    "no day": (with_rows((CANARY, CODES[0], None)), PLAN, None, ContractFault, "no date in 1 rows"),
    "no items at all": (with_rows().drop_columns(["item"]), PLAN, None, ContractFault, "column item"),
    "no known item": (
        table_of([(c, "unheard-of", day) for c, _, day in ROWS]),
        *(PLAN, None, ContractFault, "holds no customer with enough items"),
    ),
    "one item each": (
        table_of([(f"{CANARY}-{n}", CODES[n % ITEMS], FIRST_DAY) for n in range(60)]),
        *(PLAN, None, ContractFault, "holds no customer with enough items"),
    ),
    "no rows": (with_rows()[:0], PLAN, None, ContractFault, "has no rows"),
    "another item table": (with_rows(), PLAN, OTHER, CatalogueFault, "agreed on the catalogue"),
    "another count of items": (
        with_rows(),
        dataclasses.replace(PLAN, catalogue=dataclasses.replace(PLAN.catalogue, items=ITEMS + 1)),
        *(None, ContractFault, "another number of items"),
    ),
    "another count of attributes": (
        with_rows(),
        dataclasses.replace(PLAN, catalogue=dataclasses.replace(PLAN.catalogue, attributes=9)),
        *(None, ContractFault, "another number of attributes"),
    ),
    "a plan without items": (
        with_rows(),
        dataclasses.replace(PLAN, catalogue=None),
        *(None, ContractFault, "has no catalogue"),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_taken_in_is_one_clear_error_and_nothing_is_lost(workspace, name):
    put(workspace, table_of(rows_of("birch")))
    before = files_of(workspace.root)
    table, plan, catalogue, kind, says = BAD[name]
    with pytest.raises(kind) as caught:
        put(workspace, table, plan, catalogue)
    text = str(caught.value)
    assert says in text
    assert CANARY not in text
    assert files_of(workspace.root) == before


def test_a_catalogue_of_a_single_item_is_refused_and_nothing_is_lost(workspace, tmp_path):
    put(workspace, table_of(rows_of("birch")))
    before = files_of(workspace.root)
    rows, items = tmp_path / "rows.parquet", tmp_path / "single.parquet"
    pyarrow.parquet.write_table(with_rows(), rows)
    pyarrow.parquet.write_table(SINGLE, items)
    with open_vault(workspace.root, now) as vault, pytest.raises(CatalogueFault, match="at least 2 items"):
        take_in_interactions(vault, table_at(rows), PLAN, items)
    assert files_of(workspace.root) == before


def test_days_from_the_future_may_be_dropped_and_are_counted(workspace):
    plan = dataclasses.replace(PLAN, contract=contract(outside="drop"))
    notes = put(workspace, with_rows(*[("late", code, LATE) for code in CODES[:3]]), plan)
    assert notes["rows after the last day"] == 3
    found = kept_by(workspace, plan.contract, workspace.group_key)
    everybody = lists(found.training) + lists(found.held_out)
    assert sorted(everybody) == sorted(told(ROWS).values())


PLAIN = "".join(f"{customer},{code},{day}\n" for customer, code, day in ROWS)
LAST = datetime.date(2031, 5, 4)
ODD = {
    "a row that only names its customer": PLAIN + "nobody,,\n",
    "times with a zone, late in the evening of the last day": "".join(
        f"{customer},{code},{LAST}T23:30:00-04:00\n" for customer, code, _ in ROWS
    ),
    "identifiers with zeros in front": PLAIN
    + "".join(f"007,{code},2031-01-01\n7,{code},2031-01-02\n" for code in CODES[:2]),
}


@pytest.mark.parametrize("name", ODD)
def test_what_was_checked_when_it_was_taken_in_is_what_is_opened_later(workspace, tmp_path, name):
    text = "customer,item,day\n" + ODD[name]
    path = tmp_path / "same.csv"
    path.write_text(text)
    put(workspace, text)
    key = workspace.group_key
    first = open_histories(table_at(path), CONTRACT, CATALOGUE, group_key=key)
    later = kept_by(workspace, CONTRACT, key)
    assert lists(later.training) == lists(first.training)
    assert lists(later.held_out) == lists(first.held_out)
    assert dict(later.notes) == dict(first.notes)


def test_taking_in_approves_the_contract_and_keeps_the_catalogue(workspace, tmp_path):
    assert not workspace.approves(CONTRACT)
    put(workspace, with_rows())
    assert workspace.approves(CONTRACT)
    assert workspace.holds(CATALOGUE.digest())
    kept = workspace.catalogue(CATALOGUE.digest())
    assert catalogue_of(kept, PLAN).digest() == CATALOGUE.digest()
    assert np.array_equal(attributes_of(kept, PLAN), ATTRIBUTES)


@pytest.mark.parametrize("harm", ["changed", "gone", "torn"])
def test_a_kept_catalogue_that_was_changed_is_found(workspace, harm):
    put(workspace, with_rows())
    kept = workspace.catalogue(CATALOGUE.digest())
    catalogue_of(kept, PLAN)  # read once, and remembered
    if harm == "gone":
        kept.unlink()
    elif harm == "torn":
        kept.write_bytes(kept.read_bytes()[:-9])
    else:
        write_catalogue(OTHER, kept)
    with pytest.raises(CatalogueFault):
        catalogue_of(kept, PLAN)


ELSEWHERE = ("../vault/interactions", "sha256:../vault/interactions", "../../amber/vault/interactions")


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_a_plan_cannot_ask_whether_any_other_file_is_there(workspace, elsewhere):
    put(workspace, with_rows())
    (workspace.vault / "interactions.parquet").touch()
    assert workspace.catalogue(elsewhere).exists()  # so it could be asked
    assert not workspace.holds(elsewhere)


def test_a_contract_of_interactions_names_what_is_wrong_with_it():
    rows = Interactions(item="item", time="day", earliest="2031-02-30", latest="soon", value="stars", most=2, least=3)
    faults = {f.place for f in Contract(customer="item", label="bought", interactions=rows).faults("contract")}
    assert faults == {
        "contract.interactions.earliest",
        "contract.interactions.value",
        "contract.interactions.least",
        "contract.label",
        "contract.interactions",
    }
    assert not CONTRACT.faults("contract")


def test_a_plan_that_counts_items_wrongly_is_not_read(workspace):
    put(workspace, with_rows())
    wrong = dataclasses.replace(PLAN, catalogue=Catalogued(items=ITEMS - 1, digest=CATALOGUE.digest()))
    with pytest.raises(ContractFault, match="another number of items"):
        catalogue_of(workspace.catalogue(CATALOGUE.digest()), wrong)
