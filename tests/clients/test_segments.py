"""Customer segments: a customer is in one of them for life, and only those that are asked for are opened and pay."""

import hashlib
import hmac
import shutil
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from scipy.stats import chi2

from coterie.clients import training
from coterie.clients.groups import Among, is_held_out, segment_rows
from coterie.clients.opening import open_table
from coterie.clients.refusals import TaskRefused
from coterie.clients.tables.files import table_at
from coterie.clients.who import Who
from coterie.privacy.calibration import calibrate
from coterie.privacy.errors import ContractFault
from coterie.privacy.ledger import Ledger
from coterie.privacy.policy import Segments
from coterie.privacy.randomness import OsSource
from coterie.privacy.release import ConsentGiven, ModelUpdate
from coterie.privacy.renyi import curve
from coterie.tests.clients.federation import CONTRACT, Federation, study, table_of, watched, with_cells

KEY = bytes(range(32))
THREE = Segments(by="hash", names=("a", "b", "c"))
CROWD = 6000
TWO = {"by": "hash", "names": ["a", "b"]}


def rows(table, division, *chosen, key=KEY):
    return segment_rows(table, "customer", Among(division, chosen), key)


def customers(table):
    return set(table["customer"].to_pylist())


def crowd(count=CROWD):
    return pa.table({"customer": [f"customer-{number}" for number in range(count)]})


# --- by a keyed hash ------------------------------------------------------------------------------------------------


def test_the_segment_is_the_keyed_hash_of_the_identifier_and_nothing_else():
    table = crowd(300)
    for place, name in enumerate(THREE.names):
        expected = {
            identifier
            for identifier in table["customer"].to_pylist()
            if int.from_bytes(
                hmac.new(KEY, b"coterie/segment/v1\n" + identifier.encode(), hashlib.sha256).digest()[:8], "big"
            )
            % 3
            == place
        }
        assert customers(rows(table, THREE, name)) == expected


def test_segments_are_disjoint_and_together_everybody():
    table = crowd()
    parts = [customers(rows(table, THREE, name)) for name in THREE.names]
    assert sum(map(len, parts)) == CROWD
    assert set().union(*parts) == customers(table)
    assert customers(rows(table, THREE, "a", "c")) == parts[0] | parts[2]
    assert rows(table, THREE, *THREE.names).equals(table)


def test_segments_are_roughly_equal():
    counts = np.array([rows(crowd(), THREE, name).num_rows for name in THREE.names])
    statistic = ((counts - CROWD / 3) ** 2 / (CROWD / 3)).sum()
    assert statistic < chi2.ppf(0.999, df=2)


def test_who_is_held_out_has_nothing_to_do_with_the_segment():
    table, held = crowd(), []
    for name in THREE.names:
        mine = customers(rows(table, THREE, name))
        held.append([sum(is_held_out(KEY, identifier) for identifier in mine), len(mine)])
    seen = np.array([[out, all_ - out] for out, all_ in held])
    expected = seen.sum(1, keepdims=True) * seen.sum(0) / seen.sum()
    assert ((seen - expected) ** 2 / expected).sum() < chi2.ppf(0.999, df=2)


def test_a_customers_segment_depends_on_no_other_and_no_order():
    table = crowd(600)
    shuffled = table.take(np.random.default_rng(3).permutation(600))
    for name in THREE.names:
        mine = customers(rows(table, THREE, name))
        assert customers(rows(shuffled, THREE, name)) == mine
        assert customers(rows(table.slice(100, 50), THREE, name)) == mine & customers(table.slice(100, 50))


def test_all_rows_of_a_customer_are_in_one_segment():
    table = pa.concat_tables([crowd(200)] * 3)
    for name in THREE.names:
        assert set(Counter(rows(table, THREE, name)["customer"].to_pylist()).values()) == {3}


def test_another_key_divides_otherwise():
    one, other = (customers(rows(crowd(), THREE, "a", key=key)) for key in (KEY, bytes(32)))
    assert abs(len(one & other) / CROWD - 1 / 9) < 0.02


def test_a_number_and_its_text_are_one_customer():
    numbers = pa.table({"customer": list(range(500))})
    texts = pa.table({"customer": [str(number) for number in range(500)]})
    assert set(map(str, customers(rows(numbers, THREE, "b")))) == customers(rows(texts, THREE, "b"))


# --- by a column ----------------------------------------------------------------------------------------------------

COUNTRY = Segments(by="country", names=("de", "fr"))
LANDS = ["de", "fr", "it", None, "de"] * 40


def divided(values=LANDS, count=200):
    return crowd(count).append_column("country", pa.array(values))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_a_column_divides_by_its_values(kind):
    table = divided(pa.array(LANDS, pa.string()).cast(kind))
    for name in ("de", "fr"):
        assert rows(table, COUNTRY, name)["country"].to_pylist() == [land for land in LANDS if land == name]
    assert set(rows(table, COUNTRY, "de", "fr")["country"].to_pylist()) == {"de", "fr"}


def test_a_column_of_numbers_divides_by_their_texts():
    table = divided([1, 2, 3, None] * 50)
    assert rows(table, Segments(by="country", names=("1", "2")), "2")["country"].to_pylist() == [2] * 50


@pytest.mark.parametrize("chosen", [("de",), ("fr",), ("de", "fr")])
def test_a_customer_in_two_segments_is_a_fault_by_count_alone(chosen):
    table = pa.concat_tables([divided(), divided(["fr"] * 200)])
    with pytest.raises(ContractFault, match="puts 120 customers into two segments") as caught:
        rows(table, COUNTRY, *chosen)
    assert "customer-" not in str(caught.value)


def test_a_column_that_is_not_there_once_is_a_fault():
    twice = divided().append_column("country", pa.array(LANDS))
    for table in (crowd(200), twice):
        with pytest.raises(ContractFault, match="is not there once"):
            rows(table, COUNTRY, "de")


def test_the_vault_opens_the_chosen_customers_alone(tmp_path):
    table = table_of(count=300)
    pyarrow.parquet.write_table(table, tmp_path / "table.parquet")
    ages = []
    for name in THREE.names:
        got = open_table(
            table_at(tmp_path / "table.parquet"),
            CONTRACT,
            group_key=KEY,
            stream=OsSource().stream("rows"),
            who=Who(Among(THREE, (name,))),
        )
        mine = rows(table, THREE, name)
        assert got.columns["age"].tolist() == mine["age"].to_pylist()
        assert got.held_out.tolist() == [is_held_out(KEY, one) for one in mine["customer"].to_pylist()]
        ages += got.columns["age"].tolist()
    assert sorted(ages) == sorted(table["age"].to_pylist())


# --- at a partner -----------------------------------------------------------------------------------------------------


@pytest.fixture
def divided_by_hash(federation):
    """A federation whose partner amber divides its customers into a and b."""
    federation.policy(segments=TWO)
    return federation


def consented(federation, *segments, name="spring"):
    """Propose a plan on some segments; tasks are then of this plan."""
    signed = federation.sign(name=name, cohort__segments=segments or None)
    federation.digest = signed.plan.digest()
    return federation.propose(signed=signed.to_bytes())


def spent(federation, *segments, group="training"):
    with Ledger(federation.workspace().ledger, federation.clock) as ledger:
        return ledger.spent(group, segments=segments)


def test_a_study_on_one_segment_opens_it_alone_and_leaves_the_others_budget_alone(divided_by_hash, monkeypatch):
    federation, trained = divided_by_hash, []
    real = training.training_customers
    monkeypatch.setattr(
        "coterie.clients.node.training.training_customers", lambda *a: trained.append(real(*a)) or trained[-1]
    )
    assert isinstance(consented(federation, "a"), ConsentGiven)
    assert isinstance(federation.train(), ModelUpdate)
    (held,) = federation.reservations()
    assert held.charge.segments == ("a",)
    one = curve([calibrate(federation.plan).update])
    assert spent(federation, "a") == spent(federation) == pytest.approx(one)
    assert max(spent(federation, "b")) == 0
    group_key = federation.workspace().group_key
    mine = rows(table_of(), Segments(by="hash", names=("a", "b")), "a", key=group_key)["customer"].to_pylist()
    assert len(trained[0]) == sum(not is_held_out(group_key, one) for one in mine)


def test_every_segment_of_a_study_is_charged_and_a_study_on_all_charges_everybody(divided_by_hash):
    federation = divided_by_hash
    one = curve([calibrate(federation.plan).update])
    consented(federation, "a", "b")
    federation.train()
    assert spent(federation, "a") == spent(federation, "b") == pytest.approx(one)
    consented(federation, name="autumn")
    federation.train()
    assert [r.charge.segments for r in federation.reservations()] == [("a", "b"), ()]
    assert spent(federation, "b") == pytest.approx([2 * value for value in one])


def test_each_segment_has_the_whole_budget(divided_by_hash):
    federation = divided_by_hash
    federation.policy(budget__lifetime_epsilon=6.0)  # one study of 4 fits, and not two
    for number, (segments, fits) in enumerate(
        [(("a",), True), (("a",), False), (("b",), True), (("a", "b"), False), ((), False)]
    ):
        given = consented(federation, *segments, name=f"study {number}")
        assert isinstance(given, ConsentGiven) == fits
        if fits:
            for round_ in (1, 2):
                federation.train(round_=round_)
                federation.measure(round_=round_)
        else:
            assert given.codes == ("budget",)


@pytest.mark.parametrize("division", [None, TWO, {"by": "hash", "names": ["north", "south"]}])
def test_a_plan_on_segments_that_are_not_the_policys_is_refused(federation, division):
    if division:
        federation.policy(segments=division)
    with watched(federation.streams()) as opened:
        given = consented(federation, "a", "elsewhere")
    assert given.codes == ("segment",)
    assert opened == []


OTHERS = {
    "a segment more": {"by": "hash", "names": ["a", "b", "c"]},
    "another order": {"by": "hash", "names": ["b", "a"]},
    "a column": {"by": "region", "names": ["a", "b"]},
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_division_that_a_consent_rests_on_is_not_changed(divided_by_hash, name):
    federation = divided_by_hash
    consented(federation, "a")
    federation.policy(segments=OTHERS[name])
    with watched(federation.streams()) as opened:
        for work in (federation.train, federation.measure):  # under the new one, others' rows would be opened
            with pytest.raises(TaskRefused) as caught:
                work()
            assert caught.value.code == "no-consent"
        for number, segments in enumerate([("a",), ()]):
            assert consented(federation, *segments, name=f"later {number}").codes == ("segment",)
    assert opened == []
    assert federation.reservations() == ()
    federation.policy(segments=TWO)
    assert isinstance(consented(federation, "a"), ConsentGiven)
    federation.train()


def test_a_division_that_is_taken_away_after_a_consent_refuses_everything(divided_by_hash):
    federation = divided_by_hash
    path = federation.workspace().policy
    whole = path.read_text(encoding="utf-8")
    consented(federation, "a")
    before, _, after = whole.partition("[segments]")
    path.write_text(before + after[after.index("[budget]") :], encoding="utf-8")
    with pytest.raises(TaskRefused) as caught:
        federation.train()
    assert caught.value.code == "no-consent"
    assert consented(federation, name="later").codes == ("segment",)


def test_a_division_that_no_consent_rests_on_may_be_changed(divided_by_hash):
    federation = divided_by_hash
    consented(federation)
    federation.train()
    federation.policy(segments=OTHERS["a segment more"])
    assert isinstance(consented(federation, "c", name="later"), ConsentGiven)


@pytest.mark.parametrize("kind", ["train", "measure"])
@pytest.mark.parametrize("harm", ["torn", "no column", "nobody", "too few"])
def test_what_segments_say_of_rows_is_one_word(federation, kind, harm):
    federation.policy(segments={"by": "country", "names": ["de", "fr", "it"]})
    table = table_of()
    if harm == "torn":
        table = with_cells(table, "customer", {1: "amber-00000"})
    if harm != "no column":
        lands = {"nobody": ["fr"], "too few": ["fr"] * 74 + ["de"]}.get(harm, ["de", "fr"])
        table = table.append_column("country", pa.array(lands * (table.num_rows // len(lands))))
    federation.put(table)
    consented(federation, "de")
    with pytest.raises(TaskRefused) as caught:
        getattr(federation, kind)()
    assert caught.value.code == "unavailable"
    assert federation.reservations() == ()
    assert federation.entries()[-1].body["codes"] == ["unavailable"]
    assert "amber-0" not in federation.report()
    assert ("two segments" in federation.report()) == (harm == "torn")


def test_a_study_on_a_column_trains_on_its_value_alone(tmp_path):
    plan = study(cohort__segments=("north",))
    federation = Federation(tmp_path / "one", plan)
    federation.policy(segments={"by": "region", "names": ["east", "north", "south"]})
    federation.propose()
    table, regions = table_of(), table_of()["region"].to_pylist()
    updates = {}
    for name in ("one", "others'", "its own"):
        copy = federation if name == "one" else Federation(shutil.copytree(federation.root, tmp_path / name), plan)
        updates[name] = copy
        hurt = {row for row, region in enumerate(regions) if (region == "north") == (name == "its own")}
        copy.put(table if name == "one" else with_cells(table, "age", dict.fromkeys(hurt, 18)))
    # The noise is the same in a test: the same rows release the same bytes.
    made = {name: b"".join(array.tobytes() for array in copy.train().arrays) for name, copy in updates.items()}
    assert made["one"] == made["others'"] != made["its own"]
