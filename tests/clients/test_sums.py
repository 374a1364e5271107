"""A partner's node in secure sums: the order of things, what it will not do twice, and what it keeps where."""

import dataclasses
import datetime
import itertools
import json
import shutil
import sqlite3

import numpy as np
import pytest
from flwr.app import Message
from flwr.clientapp import ClientApp
from scipy import stats

from coterie.clients import parts as sum_parts
from coterie.clients import sumnode, work
from coterie.clients.door import ERROR_CODE, Door
from coterie.clients.groups import is_held_out
from coterie.clients.opening import Opened
from coterie.clients.refusals import TaskRefused
from coterie.clients.sealed import read_sealed
from coterie.clients.sums import Sums
from coterie.clients.sumwire import encode_keys
from coterie.clients.task import DealAsked, KeysAsked, RevealAsked, SignAsked
from coterie.clients.wire import decode_release, encode_release
from coterie.privacy import sums
from coterie.privacy.calibration import calibrate
from coterie.privacy.ledger import Ledger
from coterie.privacy.randomness import OsSource
from coterie.privacy.release import ConsentGiven, Refused, release_digest
from coterie.privacy.secagg.codec import to_bytes
from coterie.privacy.secagg.messages import MaskedVector, signed_bytes
from coterie.privacy.sums import most_epochs, numbers_of
from coterie.simulations.partners import workspace_of
from coterie.tests.clients.federation import (
    BOOKKEEPING,
    CONTRACT,
    Federation,
    changed,
    secure_study,
    study,
    table_of,
    today,
    watched,
    with_cells,
)
from coterie.tests.clients.summing import FOUR, PLAN, STEPS, Ears, Summing, quick_folder

MEASURED = ("evaluate/1",)
KINDS = [STEPS, MEASURED]
OTHERS = {"train": STEPS, "evaluate": MEASURED}


def refused(code, ask, *args, **kwargs):
    with pytest.raises(TaskRefused) as caught:
        ask(*args, **kwargs)
    assert caught.value.code == code
    return caught.value.faults


def crowded(name):
    """A table in which every customer has three rows of its own."""
    table = table_of(name, 60)
    ids = [f"{name}-{row // 3:05d}" for row in range(60 * 3)]
    import pyarrow as pa

    table = pa.concat_tables([table] * 3)
    rng = np.random.default_rng(len(name))
    table = table.set_column(1, "age", pa.array(rng.integers(18, 91, 180)))
    return table.set_column(0, "customer", pa.array(ids))


CROWDED = secure_study(
    training__rounds=1,
    metrics__rounds=(1,),
    contract=dataclasses.replace(CONTRACT, rows_per_customer=1, too_many_rows="sample"),
)


@pytest.fixture(scope="module")
def made():
    """Federations after consent, with an epoch of training and one of measuring set up; tests get copies."""
    with quick_folder() as folder:
        plans = {"plain": PLAN, "spare": changed(PLAN, training__spare=1), "crowded": CROWDED}
        federations = {}
        for label, plan in plans.items():
            tables = {n: crowded(n) if label == "crowded" else table_of(n, 90) for n in FOUR}
            agreed = Summing(folder / label, plan, tables).consent()
            federations[label, "agreed"] = agreed
            for kind, steps in OTHERS.items():
                federations[label, kind] = agreed.copied(folder / f"{label}-{kind}").set_up(1, steps)
        yield folder, federations


@pytest.fixture
def begin(made):
    """Return a function that copies one of the federations."""
    folder, federations = made
    copies = []

    def copy(kind="train", label="plain"):
        copies.append(federations[label, kind].copied(folder / f"copy-{len(copies)}"))
        return copies[-1]

    yield copy
    for one in copies:
        shutil.rmtree(one.root)


def state_path(federation, name="amber"):
    return federation.folders[name] / "sums" / f"{federation.digest.removeprefix('sha256:')}.sealed"


def unsealed(federation, name="amber"):
    key = (federation.folders[name] / "keys" / "sums.key").read_bytes()
    table = json.loads(read_sealed(state_path(federation, name), key))
    return json.loads(bytes.fromhex(table["state"]))["state"]


def ledger_kinds(path):
    """What is durable in a ledger, seen through a connection of one's own."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return [kind for (kind,) in db.execute("SELECT kind FROM entries ORDER BY seq") if kind not in BOOKKEEPING]
    finally:
        db.close()


# --- the order ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OTHERS)
def test_data_is_opened_before_the_charge_and_summed_and_noised_after_it(begin, kind, monkeypatch):
    federation, seen = begin(kind), []
    ledger = federation.workspace().ledger

    def told(word, real):
        def watching(*args, **kwargs):
            seen.append((word, ledger_kinds(ledger)))
            return real(*args, **kwargs)

        return watching

    monkeypatch.setattr(work, "open_table", told("open", work.open_table))
    made = "_gradients" if kind == "train" else "_counts"
    monkeypatch.setattr(sum_parts, made, told("sum", getattr(sum_parts, made)))
    monkeypatch.setattr(sumnode, "discrete_gaussians", told("noise", sumnode.discrete_gaussians))
    release = federation.add(step=OTHERS[kind][0])
    before = ["consent", "keys", "keys"]
    assert seen == [("open", before), ("sum", [*before, "reserve"]), ("noise", [*before, "reserve"])]
    assert federation.kinds() == [*before, "reserve", "settle"]
    (held,) = federation.reservations()
    mechanisms = calibrate(federation.plan)
    assert held.settled == release_digest(release)
    assert held.charge.event == release.event == (mechanisms.update if kind == "train" else mechanisms.histogram)
    assert held.charge.group == ("training" if kind == "train" else "holdout")


def test_the_state_says_masked_before_the_charge_is_settled(begin, monkeypatch):
    federation, seen = begin(), []
    settle = Ledger.settle

    def watching(ledger, reservation, release):
        seen.append([step["stage"] for step in unsealed(federation)["steps"]])
        return settle(ledger, reservation, release)

    monkeypatch.setattr(Ledger, "settle", watching)
    federation.add()
    assert seen == [["masked", "fresh"]]


@pytest.mark.parametrize("kind", OTHERS)
def test_the_budget_is_asked_before_the_table_is_opened(begin, kind):
    federation = begin(kind)
    federation.policy(budget__lifetime_epsilon=0.3)
    with watched(federation.streams()) as opened:
        faults = refused("budget", federation.add, step=OTHERS[kind][0])
    assert opened == []
    assert faults[0].place == "lifetime budget"
    assert federation.reservations() == ()
    assert [step["stage"] for step in unsealed(federation)["steps"]] == ["fresh"] * len(OTHERS[kind])


def test_no_more_is_charged_than_the_plan_declares(begin):
    federation = begin("agreed", "spare")
    for epoch, (step, attempt) in enumerate([("train/1", 1), ("train/1", 2), ("train/2", 1)], start=1):
        federation.set_up(epoch).add("amber", step, attempt)
    federation.set_up(4)
    refused("budget", federation.add, "amber", "train/2", 2)
    assert len(federation.reservations()) == calibrate(federation.plan).updates == 3


def other_noise(field):
    """What calibration returns in a version that makes other noise of the same plan."""

    def newer(plan):
        found = calibrate(plan)
        numbers = {
            kind: dataclasses.replace(n, **{field: max(64, getattr(n, field) // 2)})
            for kind, n in vars(found.summed).items()
            if n is not None
        }
        return dataclasses.replace(found, summed=dataclasses.replace(found.summed, **numbers))

    return newer


@pytest.mark.parametrize("field", ["share", "sensitivity"])
@pytest.mark.parametrize("kind", OTHERS)
def test_noise_that_is_not_the_one_consented_to_opens_no_table(begin, kind, field, monkeypatch):
    federation, step = begin(kind), OTHERS[kind][0]
    monkeypatch.setattr(sums, "calibrate", other_noise(field))
    with watched(federation.streams()) as opened:
        refused("fault", federation.add, step=step)
    assert opened == []
    assert federation.reservations() == ()
    assert [step["stage"] for step in unsealed(federation)["steps"]] == ["fresh"] * len(OTHERS[kind])
    monkeypatch.undo()
    assert isinstance(federation.add(step=step), MaskedVector)


def test_a_consent_to_more_partners_noise_than_the_plan_has_opens_no_table(begin, monkeypatch):
    federation, real = begin(), work.agreed_plan

    def other(*args, **kwargs):
        agreed = real(*args, **kwargs)
        return dataclasses.replace(agreed, update=dataclasses.replace(agreed.update, shares=agreed.update.shares + 1))

    monkeypatch.setattr(work, "agreed_plan", other)
    with watched(federation.streams()) as opened:
        refused("fault", federation.add)
    assert opened == []
    assert federation.reservations() == ()


def test_noise_that_changed_while_it_was_drawn_is_not_masked(begin, monkeypatch):
    federation, real = begin(), Sums.ready

    def other(*args):
        working = real(*args)
        return dataclasses.replace(working, numbers=dataclasses.replace(working.numbers, share=64))

    monkeypatch.setattr(Sums, "ready", other)
    refused("fault", federation.add)
    assert [step["stage"] for step in unsealed(federation)["steps"]] == ["fresh", "fresh"]


def test_a_broken_table_is_one_word_and_costs_nothing(begin):
    for table in (None, with_cells(table_of(), "age", {3: 1e9})):
        federation = begin()
        if table is None:
            federation.lose()
        else:
            federation.put(table)
        refused("unavailable", federation.add)
        assert federation.kinds() == ["consent", "keys", "keys", "refusal"]
        assert [step["stage"] for step in unsealed(federation)["steps"]] == ["fresh", "fresh"]
        refused("unavailable", federation.add)  # the approval was taken back: once broken, one word
        assert federation.reservations() == ()


def test_what_the_protocol_refuses_opens_no_table_and_costs_nothing(begin):
    federation = begin()
    strangers = dataclasses.replace(federation.dealt[1], epoch=2)
    with watched(federation.streams()) as opened:
        for changes in (
            {"cohort": FOUR[:2]},
            {"cohort": FOUR[1:]},
            {"cohort": FOUR[::-1]},
            {"cohort": (*FOUR, "elder")},
            {"dealt": ()},
            {"dealt": federation.dealt[:2]},
            {"dealt": (federation.dealt[0], strangers, *federation.dealt[2:])},
            {"epoch": 2},
        ):
            refused("secagg", federation.add, **changes)
        for changes in ({"weights": (np.zeros(3, np.float32),)}, {"step": "train/3"}, {"attempt": 2}, {"step": "x"}):
            refused("task", federation.add, **changes)
        refused("secagg", federation.add, step="evaluate/1")  # the plan's, but not this epoch's
    assert opened == []
    assert federation.kinds() == ["consent", "keys", "keys"]
    federation.add()  # and nothing of it stands in the way


# --- once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OTHERS)
def test_an_answered_question_gets_the_same_bytes_whatever_is_gone(begin, kind):
    federation, step = begin(kind), OTHERS[kind][0]
    federation.random = OsSource()
    first = federation.add(step=step)
    ledger = federation.entries()
    federation.lose()
    state_path(federation).unlink()
    (federation.folders["amber"] / "keys" / "sums.key").unlink()
    federation.policy(budget__lifetime_epsilon=0.3)
    assert to_bytes(federation.add(step=step)) == to_bytes(first)
    assert to_bytes(federation.add(step=step, dealt=())) == to_bytes(first)
    assert federation.entries() == ledger


def test_the_same_step_in_another_epoch_cohort_or_model_is_a_replay(begin):
    federation = begin()
    federation.add()
    refused("replay", federation.add, cohort=FOUR[:3])
    refused("replay", federation.add, weights=federation.weights(0.25))
    refused("replay", federation.add, epoch=2)
    federation.set_up(2)
    refused("replay", federation.add)
    assert len(federation.reservations()) == 1


def test_a_new_attempt_is_a_new_sample_with_new_noise_in_a_new_epoch_charged_in_full(begin):
    federation = begin("train", "spare")
    federation.random = OsSource()
    with Ears().listening() as ears:
        first = federation.add()
        refused("secagg", federation.add, attempt=2)  # the step's keys have served
        federation.set_up(2)
        second = federation.add(attempt=2)
    one, two = (ears.vectors[release_digest(release)] for release in (first, second))
    assert len(set(one) & set(two)) < 3  # of eight, of which hundreds of thousands of values are likely
    assert [r.charge.attempt for r in federation.reservations()] == [1, 2]
    refused("task", federation.add, attempt=3)


def test_an_attempt_after_a_later_one_is_refused(begin):
    federation = begin("train", "spare")
    federation.add(attempt=2)  # this partner missed the first
    federation.set_up(2)
    refused("task", federation.add, attempt=1)
    assert [r.charge.attempt for r in federation.reservations()] == [2]


def test_an_attempt_that_was_lost_stays_lost(begin, monkeypatch):
    federation = begin("train", "spare")
    with monkeypatch.context() as patch:
        patch.setattr(sumnode, "discrete_gaussians", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            federation.add()
    refused("lost", federation.add)
    assert isinstance(federation.add(attempt=2), MaskedVector)
    assert [(r.charge.attempt, r.lost) for r in federation.reservations()] == [(1, True), (2, False)]


def test_keys_and_shares_are_said_again_as_they_were_and_written_down_once(begin):
    federation = begin("agreed")
    federation.random = OsSource()
    first = [federation.keys(name) for name in FOUR]
    federation.shown = tuple(first)
    dealt = federation.deal()
    ledger = federation.everything()
    assert ledger[-2].body["release"] == release_digest(first[0])
    assert ledger[-1].body["release"] == release_digest(dealt)
    assert to_bytes(federation.keys()) == to_bytes(first[0])
    assert to_bytes(federation.deal()) == to_bytes(dealt)
    federation.shown = tuple(reversed(first))
    assert to_bytes(federation.deal()) == to_bytes(dealt)
    assert federation.everything() == ledger
    refused("secagg", federation.deal, keys=first[:3])
    refused("secagg", federation.keys, steps=("train/1",))


def test_signing_and_revealing_are_said_again_as_they_were_and_to_nobody_else(begin):
    federation = begin()
    masked = {name: federation.add(name) for name in FOUR}
    signed = {name: federation.sign(masked, name) for name in FOUR}
    assert to_bytes(federation.sign(masked)) == to_bytes(signed["amber"])
    three = {name: masked[name] for name in FOUR[:3]}
    refused("secagg", federation.sign, three)
    revealed = federation.reveal(signed)
    ledger = federation.everything()
    assert [entry.body["what"] for entry in ledger[-2:]] == ["survivors-signed", "revealed-shares"]
    assert all(entry.body["survivors"] == list(FOUR) for entry in ledger[-2:])
    assert to_bytes(federation.reveal(signed)) == to_bytes(revealed)
    refused("secagg", federation.sign, three)
    refused("secagg", federation.reveal, {name: signed[name] for name in FOUR[:2]})
    assert federation.everything() == ledger


def test_questions_out_of_turn_are_refused(begin):
    federation = begin()
    other = begin()
    masked = {name: other.add(name) for name in FOUR}
    signed = {name: other.sign(masked, name) for name in FOUR}
    refused("secagg", federation.sign, masked)
    refused("secagg", federation.reveal, signed)
    federation.add()
    refused("secagg", federation.reveal, signed)
    refused("secagg", federation.sign, {name: masked[name] for name in FOUR[1:]})
    refused("secagg", federation.sign, masked, epoch=2)
    fresh = begin("agreed")
    fresh.shown, fresh.dealt = federation.shown, federation.dealt
    refused("secagg", fresh.deal)
    refused("secagg", fresh.add)


@pytest.mark.parametrize("epoch", [1, 2])
def test_an_epoch_that_the_ledger_knows_is_not_begun_again(begin, epoch):
    federation = begin("agreed")
    federation.keys(epoch=2)
    state_path(federation).unlink()
    refused("secagg", federation.keys, epoch=epoch)
    assert federation.keys(epoch=3).epoch == 3
    refused("secagg", federation.keys, epoch=2)


def test_epochs_of_a_plan_come_to_an_end_and_may_be_skipped(begin):
    federation = begin("agreed")
    most = most_epochs(federation.plan)
    before = federation.everything()
    for epoch in (most + 1, 2**31 - 1):
        refused("secagg", federation.keys, epoch=epoch)
    assert federation.everything() == before
    assert not state_path(federation).exists()
    for epoch in (1, 4, most):
        federation.keys(epoch=epoch)
    refused("secagg", federation.keys, epoch=most - 1)
    refused("secagg", federation.keys, epoch=most + 1)
    assert federation.keys(epoch=most).epoch == most
    assert len(federation.everything()) == len(before) + 3
    federation.set_up(most)
    with Ears().listening() as ears:
        federation.open()
    ears.check()


# --- what is put back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("label", ["plain", "crowded"])
def test_a_workspace_put_back_answers_the_same_question_with_the_same_bytes(begin, kind, label):
    federation, step = begin(kind, label), OTHERS[kind][0]
    federation.random = OsSource()
    copy = shutil.copytree(federation.folders["amber"], federation.root / "copy")
    first = federation.add(step=step)
    federation.put_back(copy)
    assert federation.reservations() == ()
    assert to_bytes(federation.add(step=step)) == to_bytes(first)


def test_in_a_workspace_put_back_another_question_has_other_noise(begin):
    federation = begin("train", "spare")
    federation.random = OsSource()
    copy = shutil.copytree(federation.folders["amber"], federation.root / "copy")
    noises = []
    real = sumnode.discrete_gaussians
    with pytest.MonkeyPatch.context() as patch, Ears().listening():
        patch.setattr(sumnode, "discrete_gaussians", lambda *a: noises.append(real(*a)) or noises[-1])
        for changes in ({}, {"attempt": 2}, {"cohort": FOUR[:3]}, {"weights": federation.weights(0.5)}):
            federation.add(**changes)
            federation.put_back(copy)
    assert len({noise.tobytes() for noise in noises}) == 4
    assert len(set(noises[0].tolist()) & set(noises[1].tolist())) < 3


def drawn(federation, copy, *, step, tables, greedy=0):
    """Put a workspace back and ask the same of one table after another; return what was drawn for each."""
    found = []
    opening, drawing = work.open_table, sumnode.discrete_gaussians
    makers = {name: getattr(sum_parts, name) for name in ("_gradients", "_counts")}

    def opened(*args, stream, **kwargs):
        found.append({"rows": stream.bits(64)})
        return opening(*args, stream=stream, **kwargs)

    def summed(name):
        def made(plan, weights, data, numbers, stream):
            found[-1]["sample"] = stream.bits(64 + greedy)[:64]
            return makers[name](plan, weights, data, numbers, stream)

        return made

    def noise(scale, count, stream):
        found[-1]["bits"] = stream.bits(64)
        found[-1]["noise"] = drawing(scale, count, stream)
        return found[-1]["noise"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "open_table", opened)
        patch.setattr(sumnode, "discrete_gaussians", noise)
        for name in makers:
            patch.setattr(sum_parts, name, summed(name))
        for table in tables:
            federation.put_back(copy)
            federation.put(table)
            federation.add(step=step)
    return found


@pytest.mark.parametrize("kind", OTHERS)
def test_in_a_workspace_put_back_another_table_has_other_coins_and_other_noise(begin, kind):
    federation, step = begin(kind), OTHERS[kind][0]
    federation.random = OsSource()
    copy = shutil.copytree(federation.folders["amber"], federation.root / "copy")
    table, key = table_of("amber", 90), federation.workspace().group_key
    training = [i for i, name in enumerate(table["customer"].to_pylist()) if not is_held_out(key, name)]
    held_out = [i for i in range(90) if i not in training]
    tables = [
        table,
        with_cells(table, "age", {training[0]: 44}),
        with_cells(table, "age", {held_out[0]: 44}),
        table.take([i for i in range(90) if i != training[0]]),
        table.take([i for i in range(90) if i != held_out[0]]),
        table.take(list(range(90))[::-1]),
    ]
    found = drawn(federation, copy, step=step, tables=tables)
    for purpose in ("rows", "sample"):
        assert len({one[purpose] for one in found}) == len(tables), purpose
    # Noise that was drawn a few words later, or earlier, is not other noise.
    for one, other in itertools.combinations([one["noise"] for one in found], 2):
        for shift in range(-3, 4):
            pairs = list(zip(one[max(0, shift) :], other[max(0, -shift) :], strict=False))
            assert sum(mine == its for mine, its in pairs) <= len(pairs) // 2, shift


def test_all_that_a_sum_is_made_of_is_in_the_digest_of_its_rows():
    parts = {"labels": np.zeros(3, np.float32), "customer": np.arange(3), "held_out": np.zeros(3, bool)}
    rows = Opened({"age": np.zeros(3), "spend": np.ones(3)}, **parts, notes={})
    others = [rows, dataclasses.replace(rows, columns={"age": np.ones(3), "spend": np.zeros(3)})]
    for name, array in parts.items():
        bent = array.copy()
        bent[2] = 1
        others.append(dataclasses.replace(rows, **{name: bent}))
    assert len({sum_parts.contents_of(one) for one in others}) == 5


@pytest.mark.parametrize("kind", OTHERS)
def test_how_much_is_drawn_for_rows_and_sample_moves_no_noise(begin, kind):
    federation, step = begin(kind), OTHERS[kind][0]
    federation.random = OsSource()
    copy, table = shutil.copytree(federation.folders["amber"], federation.root / "copy"), table_of("amber", 90)
    (one,) = drawn(federation, copy, step=step, tables=[table])
    (other,) = drawn(federation, copy, step=step, tables=[table], greedy=8)
    assert one["sample"] == other["sample"]
    assert one["noise"].tolist() == other["noise"].tolist()
    assert len({one["rows"], one["sample"], one["bits"]}) == 3


@pytest.mark.parametrize("kind", OTHERS)
def test_a_workspace_put_back_answers_alike_over_the_same_rows_in_another_file(begin, kind):
    federation, step = begin(kind), OTHERS[kind][0]
    federation.random = OsSource()
    copy = shutil.copytree(federation.folders["amber"], federation.root / "copy")
    first = federation.add(step=step)
    federation.put_back(copy)
    before = {path.name for path in federation.streams().iterdir()}
    federation.put(federation.rows())
    assert not before & {path.name for path in federation.streams().iterdir()}
    assert to_bytes(federation.add(step=step)) == to_bytes(first)


def test_a_state_put_back_without_its_ledger_says_nothing_else_than_it_said(begin):
    federation = begin()
    masked = {name: federation.add(name) for name in FOUR}
    copy = shutil.copytree(federation.folders["amber"] / "sums", federation.root / "masked")
    signed = {name: federation.sign(masked, name) for name in FOUR}
    federation.reveal(signed)
    federation.put_back(copy, part="sums")
    three = {name: masked[name] for name in FOUR[:3]}
    refused("secagg", federation.sign, three)
    assert [step["stage"] for step in unsealed(federation)["steps"]] == ["masked", "fresh"]
    assert to_bytes(federation.sign(masked)) == to_bytes(signed["amber"])


def test_a_state_put_back_deals_to_nobody_else(begin):
    federation = begin("agreed")
    federation.shown = tuple(federation.keys(name) for name in FOUR)
    copy = shutil.copytree(federation.folders["amber"] / "sums", federation.root / "begun")
    dealt = federation.deal()
    federation.put_back(copy, part="sums")
    refused("secagg", federation.deal, keys=federation.shown[:3])
    assert to_bytes(federation.deal()) == to_bytes(dealt)


def test_what_others_dealt_is_stored_with_the_first_vector_and_the_channel_key_is_gone_with_it(begin):
    federation = begin()
    before = state_path(federation).read_bytes()
    federation.lose()
    refused("unavailable", federation.add)
    assert state_path(federation).read_bytes() == before
    assert unsealed(federation)["channel"]
    other = begin()
    other.add()
    assert unsealed(other)["channel"] == ""
    assert [bool(step["shares"]) for step in unsealed(other)["steps"]] == [True, True]


# --- state on disk --------------------------------------------------------------------------------------------


def spoil_state(federation):
    path = state_path(federation)
    data = path.read_bytes()
    path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])


def spoil_key(federation):
    (federation.folders["amber"] / "keys" / "sums.key").write_bytes(bytes(32))


def lose_state(federation):
    state_path(federation).unlink()


@pytest.mark.parametrize("spoil", [spoil_state, spoil_key, lose_state])
def test_a_state_that_cannot_be_read_ends_its_epoch_and_nothing_more(begin, spoil):
    federation = begin()
    masked = {name: federation.add(name) for name in FOUR}
    spoil(federation)
    refused("secagg", federation.sign, masked)
    refused("secagg", federation.deal)
    refused("secagg", federation.add, step="train/2")
    refused("secagg", federation.keys)
    federation.set_up(2, ("train/2",))
    with Ears().listening() as ears:
        federation.open("train/2")
    ears.check()
    assert len(federation.reservations()) == 2


def test_a_key_of_another_length_is_a_fault_until_it_is_removed(begin):
    federation = begin()
    key = federation.folders["amber"] / "keys" / "sums.key"
    key.write_bytes(b"short")
    refused("fault", federation.add)
    refused("fault", federation.keys, epoch=2)
    key.unlink()
    refused("secagg", federation.add)
    assert federation.keys(epoch=2).epoch == 2


def test_secrets_are_the_owners_alone_sealed_and_gone_when_they_have_served(begin):
    federation = begin()
    path, key = state_path(federation), federation.folders["amber"] / "keys" / "sums.key"
    for file in (path, key):
        assert file.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700

    def secrets_of(step):
        return {name: bytes.fromhex(step[name]) for name in ("pair", "own", "noise", "shares")}

    first, second = (secrets_of(step) for step in unsealed(federation)["steps"])
    held = [value for secrets in (first, second) for value in secrets.values() if value]
    held.append(bytes.fromhex(unsealed(federation)["channel"]))
    assert len(held) == 7  # the shares come with the first sum
    for file in federation.folders["amber"].rglob("*"):
        data = file.read_bytes() if file.is_file() else b""
        assert not any(secret in data or secret.hex().encode() in data for secret in held), file
    federation.open()
    after, still = (secrets_of(step) for step in unsealed(federation)["steps"])
    assert set(after.values()) == {b""}
    assert {still[name] for name in ("pair", "own", "noise")} == {second[name] for name in ("pair", "own", "noise")}
    assert len(still["shares"]) == 64 * 4
    assert unsealed(federation)["channel"] == ""


def test_the_end_of_a_study_destroys_what_is_left_of_its_secrets():
    with quick_folder() as folder:
        federation = Federation(folder / "federation", PLAN, {n: table_of(n, 60) for n in FOUR})
        seen = []
        federation.run(show=lambda s: seen.append([state_path(federation, n).exists() for n in FOUR]))
        assert [True] * 4 in seen
        assert not any(state_path(federation, name).exists() for name in FOUR)


# --- plans and policies ---------------------------------------------------------------------------------------


def asking(federation, plan=None):
    """Every question of a secure sum, about a plan."""
    digest = plan or federation.digest
    masked = {}
    about = dataclasses.replace(federation.about(), plan=digest)
    return {
        "keys": KeysAsked(digest, 9, ("train/1",)),
        "deal": DealAsked(digest, 1, federation.shown),
        "add": about,
        "sign": SignAsked(digest, 1, tuple(masked)),
        "reveal": RevealAsked(digest, 1, ()),
    }


def ask_all(code, federation, plan=None):
    for name, asked in asking(federation, plan).items():
        with federation.node() as node:
            refused(code, getattr(node.sums, name), asked)


def test_a_plan_that_has_expired_or_is_withdrawn_or_unknown_refuses_every_question(begin):
    federation = begin()
    federation.add()  # what was answered is not said again either
    before = federation.kinds()
    ask_all("no-consent", federation, "sha256:" + "0" * 64)
    federation.policy(purposes=["churn"])
    ask_all("no-consent", federation)
    federation.policy(purposes=["coupons"], peers={})
    ask_all("no-consent", federation)
    fresh = begin()
    fresh.clock = lambda: datetime.datetime(2032, 1, 1, tzinfo=datetime.UTC)
    ask_all("expired", fresh)
    assert federation.kinds() == before


def test_a_plan_of_own_releases_has_no_sums_and_the_other_way_round(begin, made):
    federation = begin()
    for kind in ("train", "measure"):
        refused("task", getattr(federation, kind))
    assert federation.reservations() == ()
    own = Summing(made[0] / "own", study(partners=PLAN.partners), {n: table_of(n, 90) for n in FOUR})
    own.propose()
    own.shown, own.dealt = federation.shown, federation.dealt
    ask_all("task", own)
    assert own.kinds() == ["consent"]
    shutil.rmtree(own.root)


@pytest.mark.parametrize("change", ["missing", "another"])
def test_peers_that_are_not_pinned_are_a_reason_to_refuse(begin, change):
    federation = begin("agreed")
    peers = {name: federation.workspace(name).identity.public for name in FOUR[1:]}
    if change == "missing":
        del peers["cedar"]
    else:
        peers["cedar"] = federation.coordinator.public
    federation.policy(peers=peers)
    answer = federation.propose()
    assert isinstance(answer, Refused)
    assert answer.codes == ("peers",)
    assert "cedar" in federation.report()
    federation.policy(peers={name: federation.workspace(name).identity.public for name in FOUR})
    assert isinstance(federation.propose(), ConsentGiven)


# --- the door -------------------------------------------------------------------------------------------------


def through_the_door(federation, release):
    """Let a handler answer with a release behind the node's back, and return what comes out."""
    folders = tuple(federation.folders.values())
    app = ClientApp(mods=[Door(lambda context: workspace_of(folders, context), today)])
    app.query("keys")(lambda message, context: Message(encode_release(release), reply_to=message))
    asked = KeysAsked(federation.digest, 1, STEPS)
    return federation.ask(federation.grid(app), "query.keys", encode_keys(asked))


def forged(federation, message, **changes):
    """A message that amber's own key signed, but that the node never made."""
    message = dataclasses.replace(message, **changes)
    signature = federation.workspace().identity.sign(signed_bytes(message))
    return dataclasses.replace(message, signature=signature.hex())


def test_the_door_lets_out_what_the_ledger_holds_of_a_sum_and_nothing_else(begin):
    federation = begin()
    masked = {name: federation.add(name) for name in FOUR}
    signed = {name: federation.sign(masked, name) for name in FOUR}
    revealed = federation.reveal(signed)
    genuine = [federation.shown[0], federation.dealt[0], masked["amber"], signed["amber"], revealed]
    for message in genuine:
        reply = through_the_door(federation, message)
        passed = decode_release(reply.content, summed=calibrate(federation.plan).update)
        assert release_digest(passed) == release_digest(message)
        others = [forged(federation, message, epoch=2)]
        if message.arrays:
            bent = message.arrays[0].copy()
            bent.reshape(-1)[0] ^= 1
            others.append(forged(federation, message, arrays=(bent, *message.arrays[1:])))
        if hasattr(message, "transcript"):
            others.append(forged(federation, message, transcript="sha256:" + "0" * 64))
        others.append(dataclasses.replace(message, partner="birch"))
        for other in others:
            reply = through_the_door(federation, other)
            assert reply.has_error(), other.kind
            assert (reply.error.reason, reply.error.code) == ("fault", ERROR_CODE["fault"])


# --- what is opened -------------------------------------------------------------------------------------------


def heard_noise(begin, kind, *, wide, patch):
    """Open a sum over customers whose sum is zero, with noise in many coordinates."""
    federation = begin(kind)
    federation.random = OsSource()
    zero = np.zeros(wide, dtype=np.int64)
    patch.setattr(sum_parts, "_gradients", lambda *_: zero.copy())
    patch.setattr(sum_parts, "_counts", lambda *_: zero.copy())
    federation.set_up(2, OTHERS[kind])
    step = OTHERS[kind][0]
    with Ears().listening() as ears:
        opened = federation.open(step)
    ears.sums.append((None, None, None, opened))
    return numbers_of(federation.plan, step).share, opened, np.array(list(ears.vectors.values()), dtype=np.float64)


def agrees(values, variance):
    """Return whether a sum of squares is that of a Gaussian with this variance, but once in a hundred million."""
    squares = float((np.asarray(values, dtype=np.float64) ** 2).sum() / variance)
    low, high = stats.chi2(np.size(values)).ppf([5e-9, 1 - 5e-9])
    return low < squares < high


@pytest.mark.parametrize("kind", OTHERS)
def test_an_opened_sum_carries_the_noise_of_every_partner(begin, kind, monkeypatch):
    share, opened, vectors = heard_noise(begin, kind, wide=6000, patch=monkeypatch)
    total = opened.total.astype(np.float64)
    assert vectors.sum(axis=0).tolist() == total.tolist()
    assert agrees(total, 4 * share**2)
    # The oracle sees one partner's noise dropped, halved, or drawn alike by two.
    assert not agrees(total - vectors[0], 4 * share**2)
    assert not agrees(total - vectors[0] / 2, 4 * share**2)
    assert not agrees(total - vectors[0] + vectors[1], 4 * share**2)
    assert all(agrees(vector, share**2) for vector in vectors)
    correlations = np.corrcoef(vectors)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 6 / np.sqrt(6000)


def test_an_opened_sum_is_the_plain_sum_of_the_vectors_also_where_one_is_missing(begin):
    federation = begin()
    with Ears().listening() as ears:
        first = federation.open("train/1", survivors=FOUR[:3])
        second = federation.open("train/2", survivors=FOUR[:3], cohort=FOUR[:3])
    assert first.dropped == ("damson",)
    for step, opened in (("train/1", first), ("train/2", second)):
        mine = [
            vector
            for name in FOUR[:3]
            for digest, vector in ears.vectors.items()
            if any(r.settled == digest and r.charge.step == step for r in federation.reservations(name))
        ]
        assert len(mine) == 3
        assert opened.total.tolist() == [sum(column) for column in zip(*mine, strict=True)]


def test_who_dropped_out_is_not_summed_with_again_in_its_epoch(begin):
    federation = begin()
    federation.open("train/1", survivors=FOUR[:3])
    refused("secagg", federation.add, "amber", "train/2")
    assert federation.set_up(2, ("train/2",)).open("train/2").dropped == ()
