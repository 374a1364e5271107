"""Recommending: a partner's own customers, in its own building, in a file for its own eyes."""

import datetime
import errno
import json
import os
import stat
import traceback
import weakref

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from coterie.clients import listmaking, recommending
from coterie.clients.catalogues import CatalogueFault, write_catalogue
from coterie.clients.recommending import Terms, recommend, sources
from coterie.clients.sealing import stage
from coterie.clients.tables.files import table_at
from coterie.clients.tables.table import whole
from coterie.clients.vault import INTERACTIONS, open_vault
from coterie.clients.workspace import Workspace
from coterie.models.catalogue import Catalogue, encoded
from coterie.models.histories import Histories
from coterie.models.modelfile import ModelFile, model_bytes
from coterie.models.recommenders import family
from coterie.models.recommenders.settings import FAMILIES
from coterie.privacy.clock import now
from coterie.privacy.contract import Contract, Interactions
from coterie.privacy.errors import ContractFault, FileFault
from coterie.privacy.plan import Catalogued, Model, Recommendation, Training
from coterie.tests.clients.federation import changed, study

ITEMS, KEPT, RANK, MOST = 40, 30, 4, 6
TODAY = datetime.date(2026, 3, 31)
CODES = tuple(f"item-{number:02d}" for number in range(ITEMS))
AISLES = tuple(("bread", "wine|gifts", "soap")[number % 3] for number in range(ITEMS))
CATALOGUE = Catalogue(CODES, {"aisle": AISLES, "name": tuple(f"Item {number}" for number in range(ITEMS))})
POPULARITY = np.linspace(0.9, 0.01, ITEMS, dtype=np.float32)[np.random.default_rng(3).permutation(ITEMS)]
CANARY = "canary-4711"


def plan_for(name="item-gram", **changes):
    columns = {"item": "what", "time": "when", "most": MOST, "earliest": "2026-01-01", "latest": "2026-02-28"}
    attributes = encoded(CATALOGUE).shape[1]
    return study(
        task="recommendation",
        contract=Contract(customer="who", interactions=Interactions(**(columns | changes))),
        model=Model(family=name),
        training=Training(rounds=1, local_steps=1, sample_rate=1.0, learning_rate=0.5, clip=1.0),
        catalogue=Catalogued(items=ITEMS, digest=CATALOGUE.digest(), attributes=attributes),
        metrics__rounds=(1,),
        recommendation=Recommendation(keep=KEPT, rank=RANK),
    )


def weights_for(name):
    draw = np.random.default_rng(7)
    if name == "popularity":
        return (POPULARITY,)
    if name != "item-gram":
        shapes = family.shapes(recommending.recommender_of(plan_for(name)))
        return POPULARITY, *(draw.normal(size=shape).astype(np.float32) for shape in shapes[1:])
    factors = np.linalg.qr(draw.normal(size=(KEPT, RANK)))[0].astype(np.float32)
    return POPULARITY, factors, np.array([0.9, 0.8, 0.5, 0.2], np.float32)


def purchases_table(customers=50, seed=0):
    draw = np.random.default_rng(seed)
    rows = [
        (f"customer-{customer:03d}", CODES[item], datetime.date(2026, 1, 1) + datetime.timedelta(int(day)))
        for customer in range(customers)
        for item, day in zip(
            draw.choice(ITEMS, draw.integers(1, 12), replace=False), draw.integers(0, 59, 12), strict=False
        )
    ]
    who, what, when = zip(*[rows[place] for place in draw.permutation(len(rows))], strict=True)
    return pa.table({"who": who, "what": what, "when": when})


class Shop:
    """Files of a partner in a folder, and the command over them."""

    def __init__(self, folder):
        self.folder = folder
        self.lists = folder / "lists.parquet"
        write_catalogue(CATALOGUE, folder / "items.parquet")
        self.model()
        self.table(purchases_table())

    def model(self, name="item-gram", weights=None, **changes):
        about = {"plan": plan_for(name, **changes).to_dict()}
        self.weights = weights or weights_for(name)
        (self.folder / "model.safetensors").write_bytes(model_bytes(ModelFile(name, 32, self.weights, about)))

    def table(self, table, name="table.parquet"):
        (pyarrow.csv.write_csv if name.endswith("csv") else pyarrow.parquet.write_table)(table, self.folder / name)
        self.source = self.folder / name

    def rules(self, text):
        (self.folder / "rules.toml").write_text(text)

    def recommend(self, **terms):
        rules = self.folder / "rules.toml"
        wanted = {"top": 5, "today": TODAY, "rules": rules if rules.exists() else None} | terms
        model, items = self.folder / "model.safetensors", self.folder / "items.parquet"
        return recommend(model, table_at(self.source), self.lists, catalogue=items, terms=Terms(**wanted))

    def given(self):
        """Every customer's list, best first."""
        lists = {}
        for row in pyarrow.parquet.read_table(self.lists).to_pylist():
            lists.setdefault(row["customer"], []).append(row)
        assert all([row["rank"] for row in rows] == list(range(1, len(rows) + 1)) for rows in lists.values())
        return lists


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path)


def history_of(table, customer):
    """The most recent items of a customer, oldest first, by hand; ties of a day in the table's order."""
    rows = [row for row in table.to_pylist() if row["who"] == customer]
    first = {}
    for row in sorted(rows, key=lambda row: row["when"]):
        first.setdefault(row["what"], row["when"])
    items = list(first)[-MOST:]
    days = [(first[item] - datetime.date(1970, 1, 1)).days for item in items]
    return np.array([CODES.index(item) for item in items], np.int64), np.array(days, np.int64)


def by_hand(shop, table, customer, name, *, owned=False):
    """One customer alone: scores by the family, owned items away, the best first and ties by position."""
    items, days = history_of(table, customer)
    histories = Histories(np.array([0, len(items)], np.int64), items, days)
    settings = recommending.recommender_of(plan_for(name))
    scores = family.scorer(settings, shop.weights, encoded(CATALOGUE))(histories)[0]
    order = [item for item in np.argsort(-scores, kind="stable") if owned or item not in items]
    return [(CODES[item], scores[item]) for item in order[:5]]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_every_customer_gets_the_best_of_what_it_has_not_whoever_else_is_in_its_piece(shop, monkeypatch, name, suffix):
    monkeypatch.setattr(listmaking, "_MOST", 7)
    table = purchases_table()
    shop.table(table, f"table.{suffix}")
    shop.model(name)
    done = shop.recommend()
    given = shop.given()
    assert (done.customers, done.rows) == (50, 250)
    assert list(given) == list(dict.fromkeys(table["who"].to_pylist()))  # in the order of their first rows
    for customer, rows in given.items():
        expected = by_hand(shop, table, customer, name)
        assert [row["item"] for row in rows] == [item for item, _ in expected]
        np.testing.assert_allclose([row["score"] for row in rows], [score for _, score in expected], atol=1e-3)


def test_owned_items_come_back_where_the_rules_let_them(shop):
    shop.rules("exclude_owned = false")
    shop.recommend()
    for customer, rows in shop.given().items():
        expected = by_hand(shop, purchases_table(), customer, "item-gram", owned=True)
        assert [row["item"] for row in rows] == [item for item, _ in expected]


def test_who_has_no_history_gets_the_most_popular_items_and_is_counted(shop):
    table = pa.table({"who": ["new", "old", "odd"], "what": [None, CODES[0], "unknown"], "when": [None, TODAY, TODAY]})
    shop.table(table)
    done = shop.recommend()
    best = [CODES[item] for item in np.argsort(-POPULARITY, kind="stable")[:5]]
    given = shop.given()
    assert [row["item"] for row in given["new"]] == [row["item"] for row in given["odd"]] == best
    assert [row["reasons"] for row in given["new"]] == [["liked by many"]] * 5
    assert done.notes == {
        "rows without an item": 1,
        "rows of items that the catalogue does not know": 1,
        "customers without a history, who got the most popular items": 2,
    }


def test_customers_with_more_items_than_are_used_are_counted(shop):
    table = purchases_table()
    many = sum(len(set(rows)) > MOST for rows in by_customer(table).values())
    assert many
    assert shop.recommend().notes == {"customers with more items than are used": many}


def by_customer(table):
    bought = {}
    for row in table.to_pylist():
        bought.setdefault(row["who"], []).append(row["what"])
    return bought


def test_red_lines_and_stock_are_kept_for_everybody(shop):
    stock = [code for number, code in enumerate(CODES) if number % 2]
    (shop.folder / "stock.txt").write_text("\n".join([*stock, "unknown"]))
    shop.rules('stock = "stock.txt"\n[red_lines]\naisle = ["Wine"]')
    done = shop.recommend(top=ITEMS)
    given = {row["item"] for rows in shop.given().values() for row in rows}
    assert given == {code for code in stock if "wine" not in AISLES[CODES.index(code)]}
    assert done.notes["codes in the stock that the catalogue does not know"] == 1
    assert done.notes["customers with a shorter list"] == 50


def test_items_below_the_least_score_are_not_recommended(shop):
    shop.recommend(top=ITEMS)
    scores = sorted(row["score"] for rows in shop.given().values() for row in rows)
    shop.lists.unlink()
    least = scores[len(scores) // 2]
    shop.rules(f"least_score = {least!r}")
    shop.recommend(top=ITEMS)
    kept = sorted(row["score"] for rows in shop.given().values() for row in rows)
    assert kept == [score for score in scores if score >= least]


def test_an_item_goes_to_no_more_customers_than_the_rules_allow_and_all_are_served(shop, monkeypatch):
    monkeypatch.setattr(listmaking, "_MOST", 7)
    shop.rules("at_most_per_item = 9")
    shop.recommend()
    given = shop.given()
    times = {}
    for rows in given.values():
        assert len(rows) == 5
        for row in rows:
            times[row["item"]] = times.get(row["item"], 0) + 1
    assert max(times.values()) == 9


def test_who_comes_first_is_drawn_anew_for_every_model_and_alike_every_time(shop):
    shop.rules("at_most_per_item = 9")
    orders = []
    for weights in (None, None, (POPULARITY * np.float32(0.5), *weights_for("item-gram")[1:])):
        shop.model(weights=weights)
        shop.recommend()
        orders.append([(customer, [row["item"] for row in rows]) for customer, rows in shop.given().items()])
        shop.lists.unlink()
    assert orders[0] == orders[1]
    in_table = list(dict.fromkeys(purchases_table()["who"].to_pylist()))
    names = [[customer for customer, _ in order] for order in orders]
    assert names[0] not in (names[2], in_table, sorted(in_table))
    assert sorted(names[0]) == sorted(names[2]) == sorted(in_table)


def test_the_same_lists_come_of_any_number_of_cores(shop, monkeypatch):
    monkeypatch.setattr(listmaking, "_MOST", 7)
    shop.rules("at_most_per_item = 9\ndiversity = 0.3")
    found = []
    for cores in (1, 5):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        shop.recommend()
        found.append(pyarrow.parquet.read_table(shop.lists))
        shop.lists.unlink()
    assert found[0].equals(found[1])


@pytest.mark.parametrize("rules", ["exclude_owned = true", "at_most_per_item = 900"])
def test_no_more_than_a_few_pieces_are_held_at_a_time_however_many_there_are(shop, monkeypatch, rules):
    monkeypatch.setattr(listmaking, "_MOST", 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    made, living = [], []

    def scorer(*_):
        def score(histories):
            scores = np.zeros((len(histories), ITEMS), np.float32)
            made.append(weakref.ref(scores))
            living.append(sum(scores() is not None for scores in made))
            return scores

        return score

    monkeypatch.setattr(family, "scorer", scorer)
    shop.table(purchases_table(400))
    shop.rules(rules)
    assert shop.recommend().customers == 400
    assert len(made) == 200
    assert max(living) <= 6


def test_variety_brings_more_aisles_into_a_list(shop):
    def aisles():
        shop.recommend()
        counts = [len({AISLES[CODES.index(row["item"])] for row in rows}) for rows in shop.given().values()]
        shop.lists.unlink()
        return np.mean(counts)

    plain = aisles()
    shop.rules("diversity = 0.6")
    assert aisles() > plain + 0.3


def test_variety_without_attributes_by_which_items_are_alike_is_refused(shop):
    bare = Catalogue(CODES)
    write_catalogue(bare, shop.folder / "items.parquet")
    plan = changed(plan_for(), catalogue=Catalogued(items=ITEMS, digest=bare.digest()))
    model = ModelFile("item-gram", 32, shop.weights, {"plan": plan.to_dict()})
    (shop.folder / "model.safetensors").write_bytes(model_bytes(model))
    assert shop.recommend().rows == 250
    shop.lists.unlink()
    shop.rules("diversity = 0.5")
    with pytest.raises(FileFault, match="needs a catalogue with attributes"):
        shop.recommend()


def test_reasons_are_items_that_the_customer_bought(shop):
    shop.recommend(reasons=3)
    bought, told = by_customer(purchases_table()), 0
    for customer, rows in shop.given().items():
        names = {f"Item {CODES.index(item)}" for item in bought[customer]}
        for row in rows:
            assert 1 <= len(row["reasons"]) <= 3
            for reason in row["reasons"]:
                words = (
                    reason.removeprefix("because you bought ").removeprefix("like ").removesuffix(", which you have")
                )
                assert reason == "liked by many" or words in names
                told += reason.startswith("because you bought")
    assert told > 250


def test_no_reasons_are_asked_for_no_reasons_are_given(shop):
    shop.recommend(reasons=0)
    assert all(row["reasons"] == [] for rows in shop.given().values() for row in rows)


def test_progress_is_told_to_the_end(shop, monkeypatch):
    monkeypatch.setattr(listmaking, "_MOST", 20)
    seen = []
    shop.recommend(see=lambda done, of: seen.append((done, of)))
    assert seen == [(20, 50), (40, 50), (50, 50)]


def test_purchases_after_the_model_was_made_count_and_those_after_today_are_an_error(shop):
    table = pa.table({"who": ["ann", "ann"], "what": CODES[:2], "when": [TODAY, TODAY]})
    shop.table(table)
    shop.rules("exclude_owned = true")
    shop.recommend(top=ITEMS)
    assert len(shop.given()["ann"]) == ITEMS - 2
    shop.lists.unlink()
    with pytest.raises(ContractFault, match="lies after 2026-03-30 in 2 rows"):
        shop.recommend(today=TODAY - datetime.timedelta(1))
    shop.model(outside="drop")
    done = shop.recommend(today=TODAY - datetime.timedelta(1))
    assert done.notes["rows after the last day"] == 2


def test_the_lists_are_readable_by_their_owner_alone(shop):
    left_by_a_crash = shop.folder / "lists.parquet.new"
    left_by_a_crash.touch(mode=0o666)
    before = os.umask(0)
    try:
        left_by_a_crash.chmod(0o666)
        shop.recommend()
    finally:
        os.umask(before)
    assert stat.S_IMODE(shop.lists.stat().st_mode) == 0o600
    assert not left_by_a_crash.exists()


def test_an_output_that_is_there_is_never_written_over(shop):
    shop.lists.write_text("mine")
    with pytest.raises(FileFault, match="exists"):
        shop.recommend()
    assert shop.lists.read_text() == "mine"


def test_an_output_that_appears_meanwhile_is_not_written_over_either(shop):
    with pytest.raises(FileFault, match="another file took its name"):
        shop.recommend(see=lambda *_: shop.lists.write_text("mine"))
    assert shop.lists.read_text() == "mine"
    assert not (shop.folder / "lists.parquet.new").exists()


@pytest.mark.parametrize("harm", [KeyboardInterrupt, MemoryError])
def test_a_run_that_is_broken_off_leaves_nothing(shop, monkeypatch, harm):
    monkeypatch.setattr(listmaking, "_MOST", 7)

    def see(done, of):
        if done > 20:
            raise harm

    before = {path.name for path in shop.folder.iterdir()}
    with pytest.raises(harm):
        shop.recommend(see=see)
    assert {path.name for path in shop.folder.iterdir()} == before


def test_a_folder_that_cannot_be_written_is_one_clear_error(shop):
    shop.lists = shop.folder / "nowhere" / "lists.parquet"
    with pytest.raises(FileFault, match="cannot be written"):
        shop.recommend()


def test_a_disk_that_is_full_is_one_clear_error_and_leaves_nothing(shop, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    before = {path.name for path in shop.folder.iterdir()}
    with pytest.raises(FileFault, match="No space left"):
        shop.recommend()
    assert {path.name for path in shop.folder.iterdir()} == before


def test_another_catalogue_than_the_plans_is_refused_by_both_digests(shop):
    other = Catalogue(CODES, {"aisle": AISLES[1:] + AISLES[:1], "name": CATALOGUE.attributes["name"]})
    write_catalogue(other, shop.folder / "items.parquet")
    with pytest.raises(CatalogueFault) as caught:
        shop.recommend()
    assert CATALOGUE.digest() in str(caught.value)
    assert other.digest() in str(caught.value)


@pytest.mark.parametrize("harm", ["gone", "garbage", "no plan", "one that scores", "other weights", "not finite"])
def test_what_is_no_model_of_lists_is_refused(shop, harm):
    path = shop.folder / "model.safetensors"
    if harm == "gone":
        path.unlink()
    elif harm == "garbage":
        path.write_bytes(b"\0" * 100)
    elif harm == "no plan":
        path.write_bytes(model_bytes(ModelFile("item-gram", 32, shop.weights, {})))
    elif harm == "one that scores":
        path.write_bytes(model_bytes(ModelFile("logistic", 32, shop.weights, {"plan": study().to_dict()})))
    elif harm == "other weights":
        shop.model(weights=(POPULARITY[1:], *shop.weights[1:]))
    else:
        shop.model(weights=(POPULARITY * np.float32(np.nan), *shop.weights[1:]))
    with pytest.raises(FileFault, match=r"model\.safetensors"):
        shop.recommend()
    assert not shop.lists.exists()


def test_no_error_says_a_value_of_the_table(shop):
    shop.table(
        pa.table({"who": [CANARY, None], "what": [CANARY, CODES[0]], "when": [TODAY, datetime.date(2031, 1, 1)]})
    )
    with pytest.raises(ContractFault) as caught:
        shop.recommend()
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_workspace_gives_table_and_catalogue_where_they_are_not_named(shop):
    workspace = Workspace.create(shop.folder / "amber", "amber")
    model, kept = shop.folder / "model.safetensors", workspace.catalogue(CATALOGUE.digest())
    rows = pyarrow.parquet.read_table(shop.source)
    with open_vault(workspace.root, now) as vault:
        stage(vault, INTERACTIONS, rows.to_batches(), schema=rows.schema, customer="who").commit("sealed")
    with sources(model, table=None, catalogue=None, workspace=workspace.root) as (table, items):
        assert whole(table, rows.column_names).equals(rows)
        assert items == kept
    with sources(model, table=shop.source, catalogue=None, workspace=workspace.root) as (table, items):
        assert (table.place, items) == (str(shop.source), kept)
    nothing = sources(model, table=shop.source, catalogue=None, workspace=None)
    with pytest.raises(FileFault, match="give both, or the workspace"), nothing:
        pass


def test_the_command_makes_lists_and_says_what_was_left_out(shop, monkeypatch, capsys):
    from coterie.cli.main import main

    arguments = ["partner", "recommend", "--model", shop.folder / "model.safetensors", "--input", shop.source]
    arguments += ["--catalogue", shop.folder / "items.parquet", "--output", shop.lists, "--top", 3, "--json"]
    monkeypatch.setattr("sys.argv", ["coterie", *map(str, arguments)])
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # as the command sets it, and to be put back
    monkeypatch.setattr("coterie.privacy.clock.now", lambda: datetime.datetime(2026, 3, 31, tzinfo=datetime.UTC))
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    said = json.loads(capsys.readouterr().out)
    assert (said["customers"], said["rows"]) == (50, 150)
    assert len(shop.given()) == 50
