"""Sources of interactions: their counts, their order in time, their catalogues and their partners.

The figures are those published for the data sets or counted independently of this code. Nothing is skipped
when a data package is missing: `make test` installs them.
"""

import csv
import functools
import io
import zipfile
from collections import Counter, defaultdict
from datetime import date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from coterie.clients.catalogues import match_items, read_catalogue, write_catalogue
from coterie.models.catalogue import encoded
from coterie.simulations import sources
from coterie.simulations.sources import SourceFault, baskets, journeyitems, movies, movies1m, regions
from coterie.simulations.sources.interactions import first_times, kcore

DATASETS = ("baskets", "journey-items", "journey-shared", "movies")

load = functools.cache(sources.load)
catalogue = functools.cache(sources.catalogue)


def rows(tables):
    """Return (customer, item, day since 1970-01-01) of every row."""
    whole = pa.concat_tables(tables.values())
    columns = (whole["customer"], whole["item"], whole["day"].cast(pa.int32()))
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


def since(day):
    return (day - date(1970, 1, 1)).days


def customers(tables):
    return {name: len(set(table["customer"].to_pylist())) for name, table in tables.items()}


def check_pairs(tables, *, items, people):
    whole = pa.concat_tables(tables.values())
    assert whole.group_by(["customer", "item"]).aggregate([]).num_rows == whole.num_rows
    assert (pc.count_distinct(whole["item"]).as_py(), pc.count_distinct(whole["customer"]).as_py()) == (items, people)


# --- counts ---------------------------------------------------------------------------------------------


def test_movielens_is_the_whole_published_set():
    every = rows(load("movies"))
    assert len(every) == 100_000
    check_pairs(load("movies"), items=1_682, people=943)
    assert len(catalogue("movies")) == 1_682
    stars = Counter(pa.concat_tables(load("movies").values())["rating"].to_pylist())
    assert stars == {1: 6_110, 2: 11_370, 3: 27_145, 4: 34_174, 5: 21_201}
    days = [day for _, _, day in every]
    assert (min(days), max(days)) == (since(date(1997, 9, 20)), since(date(1998, 4, 22)))
    lengths = sorted(Counter(customer for customer, _, _ in every).values())
    assert (lengths[0], lengths[471], lengths[-1]) == (20, 65, 737)


def test_movielens_partners_are_areas_of_postcodes():
    # Users by first digit, counted on the published table: 96, 97, 101, 62, 77, 121, 78, 67, 56, 170; 18 in Canada.
    assert customers(load("movies")) == {
        "midwest": 77 + 121 + 78,
        "mountain": 67 + 56 + 18,
        "northeast": 96 + 97,
        "pacific": 170,
        "south": 101 + 62,
    }
    assert [movies.area(code) for code in ("02139", "V5A2B", "", "94043")] == [
        "northeast",
        "mountain",
        "mountain",
        "pacific",
    ]


def test_films_have_titles_genres_and_the_years_in_their_titles():
    films = catalogue("movies")
    toy, unknown = films.codes.index("1"), films.codes.index("267")
    assert films.names[toy] == "Toy Story (1995)"
    assert films.attributes["genre"][toy] == "Animation|Children's|Comedy"
    assert films.attributes["year"][toy] == 1995
    assert films.names[unknown] == "unknown"
    assert films.attributes["genre"][unknown] == ""
    assert np.flatnonzero(np.isnan(films.attributes["year"])).tolist() == [unknown]
    # Published counts of three genres.
    words = Counter(word for cell in films.attributes["genre"] for word in cell.split("|") if word)
    assert (len(words), words["Drama"], words["Comedy"], words["Film-Noir"]) == (18, 725, 505, 24)


def test_baskets_are_first_purchases_of_every_customer_and_subclass():
    check_pairs(load("baskets"), items=2_012, people=32_266)
    assert len(catalogue("baskets")) == 2_012
    assert customers(load("baskets")) == {
        "postcode-115": 10_803,
        "postcode-221": 8_542,
        "postcode-others": 3_701,
        "postcode-110": 3_689,
        "postcode-114": 2_169,
        "postcode-unknown": 1_453,
        "postcode-105": 972,
        "postcode-106": 937,
    }


def test_baskets_are_those_that_a_plain_reading_of_the_file_finds():
    # One line after the other, days in order and lines of one day in the order of the file.
    (file,) = baskets.FILES
    by_day = defaultdict(list)
    with zipfile.ZipFile(file.path()) as archive, archive.open(archive.namelist()[0]) as stream:
        lines = csv.reader(io.TextIOWrapper(stream, encoding="utf-8-sig"))
        assert next(lines)[:5] == ["TRANSACTION_DT", "CUSTOMER_ID", "AGE_GROUP", "PIN_CODE", "PRODUCT_SUBCLASS"]
        for day, customer, _, _, item, *_ in lines:
            by_day[day].append((customer, item))
    firsts = defaultdict(dict)
    for day in sorted(by_day, key=lambda text: datetime.strptime(text, "%m/%d/%Y")):  # noqa: DTZ007
        then = since(datetime.strptime(day, "%m/%d/%Y").date())  # noqa: DTZ007
        for customer, item in by_day[day]:
            firsts[customer].setdefault(item, then)
    found = defaultdict(list)
    for customer, item, day in rows(load("baskets")):
        found[customer].append((item, day))
    assert found == {customer: list(items.items()) for customer, items in firsts.items()}


def test_the_published_core_of_ta_feng_is_found_again():
    core = baskets.core(load("baskets"))
    check_pairs(core, items=1_315, people=18_465)
    assert set(core) == set(load("baskets"))
    for name, table in core.items():
        kept = set(rows({name: table}))
        assert rows({name: table}) == [row for row in rows({name: load("baskets")[name]}) if row in kept]


def test_subclasses_know_their_place_in_the_tree_of_goods():
    goods = catalogue("baskets")
    place = goods.codes.index("100205")
    assert (goods.attributes["department"][place], goods.attributes["class"][place]) == ("D10", "C1002")
    assert len(set(goods.attributes["department"])) == 26
    assert len(set(goods.attributes["class"])) == 201


def test_journey_items_are_all_types_and_each_household_has_one_home():
    tables, goods = load("journey-items"), catalogue("journey-items")
    assert len(goods) == 2_378
    assert len(set(goods.attributes["department"])) <= 32
    place = goods.codes.index("BREAD:ITALIAN/FRENCH")
    assert (goods.attributes["department"][place], goods.attributes["category"][place]) == ("PASTRY", "BREAD")
    assert set(tables) == {f"region-{number}" for number in range(1, 6)}
    # Of 2,469 households, 24 have no receipt in any region; some types nobody bought at home, and they are items too.
    check_pairs(tables, items=2_214, people=2_445)
    assert min(customers(tables).values()) > 300


def test_a_household_has_what_it_bought_at_home():
    receipts, products = (pq.read_table(file.path()) for file in journeyitems.FILES)
    household, store = receipts["household_id"].to_numpy(), receipts["store_id"].to_pylist()
    numbers = {name: number for number, name in enumerate(dict.fromkeys(store))}
    shops = np.array([numbers[name] for name in store])
    region = regions.grow(household, shops, regions=5)
    kinds = dict(zip(products["product_id"].to_pylist(), products["product_type"].to_pylist(), strict=True))
    for number in (1, 906, 1228, 2500):
        mine = receipts.filter(pa.array(household == number)).to_pylist()
        where = [int(region[numbers[line["store_id"]]]) for line in mine]
        visits = Counter(place for place, _ in {(p, line["basket_id"]) for p, line in zip(where, mine, strict=True)})
        visits.pop(regions.OUTSIDE, None)
        home = min(visits, key=lambda place: (-visits[place], place))
        firsts = {}
        for place, line in zip(where, mine, strict=True):
            if place == home and kinds.get(line["product_id"]) is not None:
                firsts.setdefault(kinds[line["product_id"]], line["transaction_timestamp"].date())
        table = load("journey-items")[f"region-{home + 1}"]
        own = table.filter(pc.equal(table["customer"], f"H{number:04d}"))
        assert list(zip(own["item"].to_pylist(), own["day"].to_pylist(), strict=True)) == list(firsts.items())


def test_home_is_the_region_with_most_receipts_and_not_with_most_lines():
    # Household 0: two receipts in region 1, one long one in region 0. Household 1: a tie. Household 2: outside.
    lines = [(0, 0, 1), (0, 0, 1), (0, 0, 1), (0, 1, 2), (0, 1, 3), (1, 1, 4), (1, 0, 5), (2, regions.OUTSIDE, 6)]
    household, region, basket = (np.array(column) for column in zip(*lines, strict=True))
    assert journeyitems.home(household, region, basket).tolist() == [1, 0, regions.OUTSIDE]


# --- what every source of interactions keeps ------------------------------------------------------------


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_table_has_the_columns_of_interactions(dataset):
    for table in load(dataset).values():
        assert table.column_names[:3] == ["customer", "item", "day"]
        assert [table[name].type for name in ("customer", "item", "day")] == [pa.string(), pa.string(), pa.date32()]
        assert all(table[name].null_count == 0 for name in table.column_names)
        assert (np.diff(table["day"].cast(pa.int32()).to_numpy()) >= 0).all()


@pytest.mark.parametrize("dataset", DATASETS)
def test_partners_share_no_customer_and_every_item_is_in_the_catalogue(dataset):
    names = Counter(name for table in load(dataset).values() for name in set(table["customer"].to_pylist()))
    assert set(names.values()) == {1}
    for table in load(dataset).values():
        assert (match_items(table["item"], catalogue(dataset)) >= 0).all()


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("name", ["items.csv", "items.parquet"])
def test_a_catalogue_that_goes_to_partners_as_a_file_keeps_its_digest(tmp_path, dataset, name):
    write_catalogue(catalogue(dataset), tmp_path / name)
    assert read_catalogue(tmp_path / name, "taxonomy").digest() == catalogue(dataset).digest()


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_catalogue_is_the_same_each_time_and_can_be_encoded(dataset):
    assert sources.catalogue(dataset).digest() == catalogue(dataset).digest()
    matrix = encoded(catalogue(dataset))
    assert 20 <= matrix.shape[1] <= 400
    assert (np.linalg.norm(matrix, axis=1) > 0.99).mean() > 0.98


def test_ratings_of_one_day_stand_in_the_order_of_the_clock():
    data = pq.read_table(movies.FILES[0].path())
    clock = {(f"U{row['user_id']:04d}", str(row["movie_id"])): row["timestamp"] for row in data.to_pylist()}
    for table in load("movies").values():
        times = [clock[row["customer"], row["item"]] for row in table.to_pylist()]
        assert times == sorted(times)


def test_what_has_no_catalogue_says_so():
    with pytest.raises(SourceFault, match="baskets, journey-items, journey-shared, movies, movies-1m"):
        sources.catalogue("adult")
    with pytest.raises(SourceFault, match="must be a known source"):
        sources.catalogue("basket")


# --- MovieLens-1M, as a user would supply it ------------------------------------------------------------

FILES = {
    "ratings.dat": "1::20::5::978300760\n2::3::4::978300760\n1::3::3::978300759\n3::20::1::978300761\n",
    "users.dat": "1::F::1::10::48067\n2::M::56::16::02460-1234\n3::M::25::15::98117\n",
    "movies.dat": '3::"Great" Misérables, Les (1995)::Drama|Musical\n20::Money (1919), b: 2 (1994)::Action\n'
    "7::No Year::Comedy\n",
}


def place(folder, changes=None):
    for name, text in (FILES | (changes or {})).items():
        if text is not None:
            (folder / name).write_bytes(text.encode("latin-1"))
    return folder


def check_million(tables, films):
    assert {name: table.to_pylist() for name, table in tables.items()} == {
        "midwest": [
            {"customer": "U0001", "item": "3", "day": date(2000, 12, 31), "rating": 3.0},
            {"customer": "U0001", "item": "20", "day": date(2000, 12, 31), "rating": 5.0},
        ],
        "northeast": [{"customer": "U0002", "item": "3", "day": date(2000, 12, 31), "rating": 4.0}],
        "pacific": [{"customer": "U0003", "item": "20", "day": date(2000, 12, 31), "rating": 1.0}],
    }
    assert films.codes == ("20", "3", "7")
    assert films.names == ("Money (1919), b: 2 (1994)", '"Great" Misérables, Les (1995)', "No Year")
    assert films.attributes["genre"] == ("Action", "Drama|Musical", "Comedy")
    assert np.array_equal(films.attributes["year"], [1994, 1995, np.nan], equal_nan=True)


def test_a_million_ratings_are_read_from_a_folder_or_a_zip(tmp_path, monkeypatch):
    folder = place(tmp_path)
    check_million(movies1m.load(folder), movies1m.catalogue(folder))
    packed = tmp_path / "ml-1m.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for name in FILES:
            archive.write(folder / name, f"ml-1m/{name}")
    monkeypatch.setenv(movies1m.PLACE, str(packed))
    assert sources.available("movies-1m")
    check_million(sources.load("movies-1m"), sources.catalogue("movies-1m"))


def test_a_million_ratings_that_nobody_supplied_are_not_available(tmp_path, monkeypatch):
    monkeypatch.delenv(movies1m.PLACE, raising=False)
    assert not sources.available("movies-1m")
    with pytest.raises(SourceFault, match="must name a folder or zip that is there"):
        sources.load("movies-1m")
    monkeypatch.setenv(movies1m.PLACE, str(tmp_path / "gone"))
    assert not sources.available("movies-1m")


@pytest.mark.parametrize(
    ("changes", "file"),
    [
        ({"ratings.dat": None}, "ratings.dat"),
        ({"ratings.dat": "1::3::Zwetschge::978300760\n"}, "ratings.dat"),
        ({"ratings.dat": "1::3::978300760\n"}, "ratings.dat"),
        ({"ratings.dat": "9::3::4::978300760\n"}, "ratings.dat"),
        ({"users.dat": ""}, "users.dat"),
    ],
)
def test_files_of_another_form_are_refused_without_their_words(tmp_path, changes, file):
    with pytest.raises(SourceFault, match=file) as caught:
        movies1m.load(place(tmp_path, changes))
    assert "Zwetschge" not in str(caught.value)


def test_what_is_no_zip_or_lacks_a_file_is_refused(tmp_path):
    (tmp_path / "text.zip").write_text("nothing")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    for name in ("text.zip", "empty.zip"):
        with pytest.raises(SourceFault, match=r"movies\.dat"):
            movies1m.catalogue(tmp_path / name)


# --- small steps ----------------------------------------------------------------------------------------


def test_first_times_are_those_that_a_walk_through_the_days_finds():
    draw = np.random.default_rng(4)
    customer, item, time = (draw.integers(0, high, 400) for high in (12, 9, 20))
    seen, walk = set(), []
    for row in sorted(range(400), key=lambda row: time[row]):
        if (customer[row], item[row]) not in seen:
            seen.add((customer[row], item[row]))
            walk.append(row)
    assert first_times(customer, item, time).tolist() == walk
    empty = np.array([], dtype=np.int64)
    assert first_times(empty, empty, empty).tolist() == []


def test_the_core_is_what_is_left_when_nobody_has_too_few():
    draw = np.random.default_rng(5)
    for size in (0, 40, 150, 300):
        pairs = sorted(
            {(int(a), int(b)) for a, b in zip(draw.integers(0, 30, size), draw.integers(0, 20, size), strict=True)}
        )
        left = set(pairs)
        while True:  # one customer or item at a time, in any order: the core is the same
            low = [("a", a) for a in {a for a, _ in left} if sum(x == a for x, _ in left) < 6]
            low += [("b", b) for b in {b for _, b in left} if sum(y == b for _, y in left) < 4]
            if not low:
                break
            side, number = low[-1]
            left = {pair for pair in left if pair[side == "b"] != number}
        columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        kept = kcore(*columns, of_customer=6, of_item=4)
        assert {pair for pair, stays in zip(pairs, kept, strict=True) if stays} == left
    assert left
