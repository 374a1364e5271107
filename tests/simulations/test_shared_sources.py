"""Sources whose partners share customers: who is whose customer, and how each partner writes them down."""

import dataclasses
import functools
import re
from collections import Counter, defaultdict

import numpy as np
import pyarrow.parquet as pq
import pytest

from coterie.privacy.matching.identifiers import KINDS, canonical
from coterie.privacy.study import read_study
from coterie.simulations import sources, studies
from coterie.simulations.shared import cells, of_partners, sharing
from coterie.simulations.sources import SourceFault, journeyshared, regions
from coterie.simulations.sources.tables import codes

REGIONS = tuple(f"region-{number}" for number in range(1, 7))
STUDIES = ("journey-joint", "overlap", "overlap-synthetic")

load = functools.cache(sources.load)
identifiers = functools.cache(sources.identifiers)


def plan_of(study):
    return read_study(studies.path(study)).plan


@functools.cache
def receipts():
    """Return which receipts each household has in the stores of each region, one line after the other."""
    columns = ["household_id", "store_id", "basket_id", "transaction_timestamp"]
    lines = pq.read_table(journeyshared.FILES[0].path(), columns=columns)
    household, store = lines["household_id"].to_numpy(), codes(lines["store_id"])[0]
    region = regions.grow(household, store, regions=6)[store]
    times = lines["transaction_timestamp"].to_numpy().tolist()
    found, first = defaultdict(set), {}
    for who, where, basket, time in zip(
        household.tolist(), region.tolist(), lines["basket_id"].to_pylist(), times, strict=True
    ):
        if where != regions.OUTSIDE:
            found[who, where].add(basket)
            first[who, where] = min(first.get((who, where), time), time)
    return found, first


@functools.cache
def owners():
    """Return the card of each customer of each region, by the digits alone."""
    tables = identifiers("journey-shared")
    return {
        name: {
            row["customer"]: int(re.sub("[ -]", "", row["loyalty"])) - 6335_0000_0000_0000
            for row in tables[name].to_pylist()
        }
        for name in REGIONS
    }


# --- Complete Journey -----------------------------------------------------------------------------------


def test_a_household_is_a_customer_wherever_it_has_two_receipts():
    found, _ = receipts()
    for number, name in enumerate(REGIONS):
        assert set(owners()[name].values()) == {
            who for (who, where), baskets in found.items() if where == number and len(baskets) >= 2
        }


def test_38_percent_of_households_are_customers_of_two_regions_or_more():
    at = Counter(household for held in owners().values() for household in held.values())
    assert [sum(k == count for k in at.values()) for count in range(1, 7)] == [1482, 633, 240, 40, 6, 0]
    assert sum(k > 1 for k in at.values()) / len(at) == pytest.approx(0.383, abs=0.0005)
    found, _ = receipts()
    once = Counter(who for who, _ in found)
    assert sum(k > 1 for k in once.values()) / len(once) == pytest.approx(0.490, abs=0.0005)


def test_partners_number_their_customers_themselves_in_the_order_of_their_first_visits():
    _, first = receipts()
    everywhere = Counter(customer for held in owners().values() for customer in held)
    assert set(everywhere.values()) == {1}
    for number, name in enumerate(REGIONS):
        held = owners()[name]
        assert list(held) == [f"R{number + 1}-{place:04d}" for place in range(1, len(held) + 1)]
        times = [first[household, number] for household in held.values()]
        assert times == sorted(times)
        for other in REGIONS[:number]:
            theirs = {household: int(customer[3:]) for customer, household in owners()[other].items()}
            both = [(int(c[3:]), theirs[h]) for c, h in held.items() if h in theirs]
            assert sum(a == b for a, b in both) <= 0.05 * len(both) + 1


def test_interactions_are_of_customers_and_in_the_partners_own_stores():
    tables, kinds = load("journey-shared"), {}
    for row in pq.read_table(journeyshared.FILES[1].path(), columns=["product_id", "product_type"]).to_pylist():
        kinds[row["product_id"]] = row["product_type"]
    for name in REGIONS:
        assert set(tables[name]["customer"].to_pylist()) <= set(owners()[name])
    columns = ["household_id", "store_id", "product_id", "transaction_timestamp"]
    lines = pq.read_table(journeyshared.FILES[0].path(), columns=columns)
    household, store = lines["household_id"].to_numpy(), codes(lines["store_id"])[0]
    region = regions.grow(household, store, regions=6)[store]
    for number, name in ((0, "region-1"), (4, "region-5")):
        customer, who = next((c, h) for c, h in owners()[name].items() if h in set(owners()["region-6"].values()))
        mine = lines.filter(np.asarray((household == who) & (region == number))).sort_by("transaction_timestamp")
        firsts = {}
        for row in mine.to_pylist():
            kind = kinds.get(row["product_id"])
            if kind is not None:
                firsts.setdefault(kind, row["transaction_timestamp"].date())
        own = [row for row in tables[name].to_pylist() if row["customer"] == customer]
        assert {row["item"]: row["day"] for row in own} == firsts
        assert len(own) == len(firsts) > 20


# --- what people are known by ---------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["journey-shared", "synthetic"])
def test_every_identifier_has_a_canonical_form_and_no_customer_has_anothers(dataset):
    for name, table in identifiers(dataset).items():
        customers = table["customer"].to_pylist()
        assert set(load(dataset)[name]["customer"].to_pylist()) <= set(customers)
        assert len(set(customers)) == len(customers)
        for kind in set(table.column_names) & set(KINDS):
            values = [canonical(kind, text).value for text in table[kind].to_pylist()]
            assert None not in values
            assert len(set(values)) == len(values)


def test_partners_write_one_identifier_in_different_ways():
    tables = identifiers("synthetic")
    for kind in ("email", "phone"):
        written, same = defaultdict(set), defaultdict(set)
        for table in tables.values():
            for text in table[kind].to_pylist():
                written[canonical(kind, text).value].add(text)
                same[text].add(canonical(kind, text).value)
        assert max(len(texts) for texts in written.values()) >= 3
        assert all(len(values) == 1 for values in same.values())
    cards = {name: table["loyalty"][0].as_py() for name, table in identifiers("journey-shared").items()}
    assert {re.sub("[0-9]", "", card) for card in cards.values()} == {"   ", "---", ""}


def test_made_up_people_can_be_written_to_and_called_by_nobody():
    for table in identifiers("synthetic").values():
        assert all(text.strip().lower().endswith("@example.com") for text in table["email"].to_pylist())
        numbers = [canonical("phone", text).value for text in table["phone"].to_pylist()]
        # Ofcom's numbers for drama: 496 0xxx in most cities, 498 0xxx in Tyneside, 7946 0xxx in London.
        assert all(re.fullmatch(r"\+44(1\d\d4960\d{3}|1914980\d{3}|2079460\d{3})", number) for number in numbers)


def test_made_up_people_share_companies_by_every_kind_alike():
    plan = plan_of("overlap-synthetic")
    people = Counter(
        customer for table in load("synthetic").values() for customer in set(table["customer"].to_pylist())
    )
    for kind in KINDS:
        found = cells(_by(plan, kind), identifiers("synthetic"))
        assert sum(found.values()) == len(people)
        assert sum(n for cell, n in found.items() if len(cell) > 1) == sum(k > 1 for k in people.values())


def _by(plan, kind):
    return dataclasses.replace(plan, matching=dataclasses.replace(plan.matching, identifier=kind))


# --- studies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_that_matches_is_of_its_sources_partners_and_within_its_own_limits(study):
    plan, source = plan_of(study), read_study(studies.path(study)).source
    tables = sources.identifiers(source.dataset)
    assert set(tables) == {partner.name for partner in plan.partners}
    for held in of_partners(plan, tables).values():
        assert plan.matching.least <= len(set(held.values())) <= plan.matching.most
    assert source.fallback == ("" if source.dataset == "synthetic" else "overlap-synthetic")
    assert all(re.fullmatch("[1-9]0*", str(partner.customers)) for partner in plan.partners)


@pytest.mark.parametrize("study", ["overlap", "overlap-synthetic"])
def test_declared_sizes_are_orders_of_magnitude(study):
    tables = sources.identifiers(read_study(studies.path(study)).source.dataset)
    for partner in plan_of(study).partners:
        assert 0.7 < partner.customers / len(tables[partner.name]) < 1.7


def test_enough_shared_customers_take_part_in_the_joint_study_at_every_region():
    plan = plan_of("journey-joint")
    taking = sharing(plan, identifiers("journey-shared"))
    for partner in plan.partners:
        training = 0.8 * len(taking[partner.name])
        assert training > plan.cohort.minimum_customers + 20  # whoever is held out by chance
        assert 0.65 < partner.customers / training < 1.55


def test_what_has_no_identifiers_says_so():
    with pytest.raises(SourceFault, match="journey-shared, synthetic"):
        sources.identifiers("adult")
    with pytest.raises(SourceFault, match="must be a known source"):
        sources.identifiers("journey")
