"""Parcels that are wrong in every way: one word leaves, the operator reads who, which chunk and why, and it goes on."""

import dataclasses
import re

import numpy as np
import pyarrow as pa
import pytest

from coterie.clients.door import ERROR_CODE
from coterie.clients.identifiers import SEALED
from coterie.clients.matchwire import MATCH, Agree, Commit, End, Take, encode_match
from coterie.clients.refusals import TaskRefused
from coterie.clients.sealing import stage
from coterie.clients.vault import IDENTIFIERS, open_vault
from coterie.clients.wire import decode_release
from coterie.privacy.matching.channel import Address, opened
from coterie.privacy.release import ParcelTaken, Refused
from coterie.tests.clients.federation import Federation, files_of
from coterie.tests.clients.matching import (
    Matched,
    asking,
    chunks_of,
    counted,
    drawn,
    match_plan,
    sealed_anew,
    taking,
    with_noise,
)
from coterie.tests.clients.summing import quick_folder
from coterie.tests.privacy.matching.vectors import BAD, HOSTILE

AT = Address("amber", 1, 1)  # amber's list, on its way from birch to cedar, the second of its three parcels


@pytest.fixture(scope="module", autouse=True)
def _small_chunks():
    with chunks_of(48):
        yield


@pytest.fixture(scope="module")
def folder():
    with quick_folder() as found:
        yield found


@pytest.fixture(scope="module")
def template(folder):
    """A match of rows that waits for cedar to take AT; and the parcel that is right there."""
    federation = Matched(folder / "template", match_plan(3, "rows")).consented()
    lead = federation.lead(taking("amber", 1, 1))
    return federation, lead


@pytest.fixture
def made(template, folder):
    """A copy of it, and its coordinator, ready to ask what is next."""
    federation, lead = template
    copy = federation.copied(folder / f"copy-{sum(1 for _ in folder.iterdir())}")
    return copy, lead.next[1].parcel


def rows_in(federation, parcel):
    """The points of a parcel, as its receiver opens them."""
    who = parcel.receiver
    return np.array(opened(federation.own(who), federation.manifest(who), parcel))


def secrets_in(text, federation):
    """What of customers is in a text: numbers, or anything as long as half a point."""
    cards = [card for card in set().union(*federation.cards.values()) if card in text]
    return cards + re.findall(r"[0-9a-f]{24,}", text.replace(federation.digest.removeprefix("sha256:"), ""))


def refused(federation, parcel, *words, name="cedar"):
    """A parcel is refused by one word; the report has the words; files and ledger are as they were."""
    folder = federation.folders[name] / "matches"
    files, entries = files_of(folder), federation.kinds(name)
    with pytest.raises(TaskRefused) as caught:
        federation.answer(name, Take(federation.digest, parcel))
    assert caught.value.code == "match"
    (fault,) = caught.value.faults
    assert all(word in str(fault) for word in words), str(fault)
    assert str(fault) in federation.report(name)
    assert secrets_in(str(fault), federation) == []
    assert files_of(folder) == files
    assert federation.kinds(name) == entries
    return str(fault)


def changes(parcel):
    """Parcels whose header or bytes were changed on the way."""
    flipped = bytearray(parcel.sealed)
    flipped[40] ^= 1
    one = dataclasses.replace
    yield "a bit", one(parcel, sealed=bytes(flipped)), ("birch", "chunk 1", "does not open")
    yield "a nonce", one(parcel, sealed=bytes(12) + parcel.sealed[12:]), ("birch", "chunk 1", "does not open")
    yield "truncated", one(parcel, sealed=parcel.sealed[:-1]), ("birch", "chunk 1", "longer or shorter")
    yield "longer", one(parcel, sealed=parcel.sealed + bytes(32)), ("birch", "chunk 1", "longer or shorter")
    yield "empty", one(parcel, sealed=b""), ("birch", "chunk 1", "longer or shorter")
    yield "another plan", one(parcel, plan="sha256:" + "0" * 64), ("coordinator", "chunk 1", "another plan")
    yield "another manifest", one(parcel, manifest="sha256:" + "0" * 64), ("coordinator", "another manifest")
    yield "another sender", one(parcel, sender="amber"), ("coordinator", "not on the way")
    yield "from itself", one(parcel, sender="cedar"), ("coordinator", "not on the way")
    yield "another receiver", one(parcel, receiver="amber"), ("coordinator", "not on the way")
    yield "more parcels", one(parcel, count=4), ("birch", "3 chunks as committed")
    yield "fewer parcels", one(parcel, count=2), ("birch", "3 chunks as committed")


def moved(parcel):
    """The same under another address."""
    for address in (
        *(Address("amber", 1, 3), Address("amber", 1, -1), Address("amber", 1, 2**31 - 1), Address("amber", 1, 2)),
        *(Address("amber", 0, 1), Address("amber", 2, 1), Address("birch", 1, 1), Address("cedar", 1, 1)),
        *(Address("zebra", 1, 1), Address("amber", 3, 0, "cedar"), Address("amber", 1, 1, "cedar")),
    ):
        yield dataclasses.replace(parcel, address=address)


def test_a_parcel_that_was_changed_on_its_way_is_refused_and_the_right_one_taken_after(made):
    federation, parcel = made
    for _, changed, words in changes(parcel):
        refused(federation, changed, *words)
    for changed in moved(parcel):
        refused(federation, changed, f"chunk {changed.address.index}")
    lead = federation.lead()  # repeats all that was asked before, and goes on
    assert lead.next is None
    for name in federation.names:
        assert federation.rows_at(name) == federation.shared_at(name)


def test_a_parcel_of_another_match_with_the_same_header_does_not_open(made, folder):
    federation, parcel = made
    epoch = Matched(folder / "another-epoch", match_plan(3, "rows", matching__epoch=2)).consented()
    lead = epoch.lead(taking("amber", 1, 1))
    theirs = lead.next[1].parcel
    assert theirs.plan != parcel.plan
    refused(federation, theirs, "coordinator", "another plan")
    refused(federation, dataclasses.replace(parcel, sealed=theirs.sealed), "birch", "does not open")


def test_a_parcel_out_of_its_turn_is_refused(made):
    federation, parcel = made
    rows = federation.store("birch").read("made-0-1", 32)
    later = federation.sealed_by("birch", Address("amber", 1, 2), np.array(rows[96:144]))
    refused(federation, later, "amber", "chunk 2", "birch", "out of order: chunk 1 of 3 is next")
    assert isinstance(federation.answer("cedar", Take(federation.digest, parcel)), ParcelTaken)
    assert isinstance(federation.answer("cedar", Take(federation.digest, later)), ParcelTaken)


def test_a_parcel_is_taken_once_more_only_with_the_same_rows(made):
    federation, parcel = made
    rows = rows_in(federation, parcel)
    taken = federation.answer("cedar", Take(federation.digest, parcel))
    again = federation.sealed_by("birch", AT, rows)  # under another nonce
    assert again.sealed != parcel.sealed
    assert federation.answer("cedar", Take(federation.digest, again)) == taken
    other = federation.sealed_by("birch", AT, rows[::-1].copy())
    refused(federation, other, "amber", "chunk 1", "birch", "was taken before, and has other rows now")


@pytest.mark.parametrize("encoding", [*BAD, *HOSTILE, "58" + "66" * 31], ids=lambda text: text[:6] + text[-4:])
def test_bytes_that_are_no_point_of_the_group_are_refused(made, encoding):
    federation, parcel = made
    rows = rows_in(federation, parcel)
    rows[5] = np.frombuffer(bytes.fromhex(encoding), dtype=np.uint8)
    bad = federation.sealed_by("birch", AT, rows)
    refused(federation, bad, "amber", "chunk 1", "birch", "point 5 of it")


def test_a_list_that_is_not_the_one_its_owner_committed_to_is_refused(folder):
    federation = Matched(folder / "committed", match_plan(3, "rows")).consented()
    lead = federation.lead(taking("amber", 0, 1))
    right = lead.next[1].parcel
    rows = rows_in(federation, right)
    other = federation.sealed_by("amber", right.address, rows[::-1].copy())
    refused(federation, other, "amber", "chunk 1", "is not what its owner committed to", name="birch")
    assert lead.on().next is None
    assert federation.rows_at("birch") == federation.shared_at("birch")


def test_a_list_with_two_equal_points_is_refused_and_names_its_owner(made):
    federation, parcel = made
    rows = rows_in(federation, parcel)
    rows[5] = rows[6]
    federation.answer("cedar", Take(federation.digest, federation.sealed_by("birch", AT, rows)))
    last = np.array(federation.store("birch").read("made-0-1", 32)[96:144])
    refused_last = federation.sealed_by("birch", Address("amber", 1, 2), last)
    with pytest.raises(TaskRefused) as caught:
        federation.answer("cedar", Take(federation.digest, refused_last))
    assert caught.value.code == "match"
    assert "the list of amber: has two equal points" in str(caught.value)
    assert "the list of amber: has two equal points" in federation.report("cedar")


def test_over_messages_one_word_leaves_and_nothing_of_the_parcel(made):
    federation, parcel = made
    grid, said = federation.grid(), set()
    for _, changed, _ in changes(parcel):
        content = encode_match(Take(federation.digest, changed))
        reply = Federation.ask(federation, grid, MATCH, content, "cedar")
        assert (reply.error.reason, reply.error.code) == ("match", ERROR_CODE["match"])
        assert not reply.has_content()
        said.add(str(reply.error))
    assert len(said) == 1
    right = Federation.ask(federation, grid, MATCH, encode_match(Take(federation.digest, parcel)), "cedar")
    assert isinstance(decode_release(right.content), ParcelTaken)


def test_a_list_under_another_key_gives_nothing_to_anybody_who_compares(folder):
    """birch multiplies cedar's list by another key than the others': the canaries of the lists do not agree."""
    federation = Matched(folder / "two-keys", match_plan(3, "rows")).consented()
    lead = federation.lead(
        lambda name, asked: isinstance(asked, Take) and asked.parcel.address.list == "cedar" and name == "birch"
    )
    kept = federation.stands("birch")
    scalar = bytes([7]) + bytes(31)
    with federation.workspace("birch").lock():
        federation.store("birch").save(
            dataclasses.replace(kept, secrets=dataclasses.replace(kept.secrets, scalar=scalar))
        )
    lead.on(
        lambda name, asked: isinstance(asked, End) or (isinstance(asked, Take) and asked.parcel.address.list != "cedar")
    )
    with federation.workspace("birch").lock():
        now = federation.store("birch").load()
        federation.store("birch").save(dataclasses.replace(now, secrets=kept.secrets))
    lead.on(asking(End))
    for name in federation.names:
        with pytest.raises(TaskRefused) as caught:
            federation.answer(name, End(federation.digest))
        assert caught.value.code == "match"
        assert "canaries" in str(caught.value)
        assert "cedar" in str(caught.value)
        assert federation.learned(name) == 0


# --- lists that cannot be made -----------------------------------------------------------------------------------


def put(federation, columns):
    """Put identifiers into amber's vault as they are, past the checks of the intake."""
    with open_vault(federation.folders["amber"], federation.clock) as vault:
        table = pa.table(columns, schema=SEALED)
        stage(vault, IDENTIFIERS, table.to_batches(), schema=SEALED, customer="customer").commit("sealed")
        vault.workspace.approve_identifiers()


def columns_of(count, rules="1", *, second=False):
    names = [f"amber-{number}" for number in range(count)]
    names[-1:] = names[:1] if second else names[-1:]
    return {
        "customer": names,
        "kind": ["loyalty"] * count,
        "value": [f"X{number:05d}" for number in range(count)],
        "rules": [rules] * (count - 1) + ["1"] * min(count, 1),
    }


UNUSABLE = {
    "none": columns_of(0),
    "one": columns_of(1),
    "too few": columns_of(9),
    "too many": columns_of(61),
    "two versions": columns_of(20, rules="0"),
    "one of somebody twice": columns_of(20, second=True),
    "another kind": {**columns_of(20), "kind": ["email"] * 20},
}


@pytest.mark.parametrize("outcome", ["counts", "rows"])
def test_whatever_is_wrong_with_the_identifiers_one_word_leaves_and_they_are_withdrawn(folder, outcome):
    plan = match_plan(2, outcome, matching__most=60)
    cards = {name: {f"{name}{number}" for number in range(30)} for name in ("amber", "birch")}
    federation = Matched(folder / f"unusable-{outcome}", plan, cards).consented()
    grid, heard, reports = federation.grid(), set(), set()
    for what, columns in UNUSABLE.items():
        put(federation, columns)
        before = len(federation.entries())
        content = encode_match(Commit(federation.digest, 1))
        reply = Federation.ask(federation, grid, MATCH, content, "amber")
        heard.add((reply.error.reason, reply.error.code))
        assert [e.kind for e in federation.entries()[before:]] == ["refusal"], what
        assert federation.entries()[-1].body["codes"] == ["unavailable"]
        assert federation.store("amber").load() is None
        assert federation.propose().codes == ("identifiers",)
        reports.add(federation.report())
        assert not re.search(r"X\d{5}|amber-\d", federation.report())
    assert heard == {("unavailable", ERROR_CODE["unavailable"])}
    assert len(reports) > 1
    sealed_anew(federation, "amber", federation.tables["amber"].to_pydict())
    assert not isinstance(federation.propose(), Refused)
    assert federation.answer("amber", Commit(federation.digest, 1)).commitment.attempt == 1


# --- identifiers that change meanwhile ----------------------------------------------------------------------------


def without_one(table):
    return {name: column[1:] for name, column in table.items()}


def with_another_number(table):
    return {**table, "loyalty": ["L999999", *table["loyalty"][1:]]}


def with_two_exchanged(table):
    first, second, *rest = table["loyalty"]
    return {**table, "loyalty": [second, first, *rest]}


CHANGES = {"one-less": without_one, "another-number": with_another_number, "two-exchanged": with_two_exchanged}


@pytest.mark.parametrize("outcome", ["rows", "tokens"])
@pytest.mark.parametrize("change", CHANGES)
def test_identifiers_that_were_changed_meanwhile_are_not_matched(folder, outcome, change):
    federation = Matched(folder / f"anew-{outcome}-{change}", match_plan(2, outcome)).consented()
    lead = federation.lead(asking(End))
    sealed_anew(federation, "amber", CHANGES[change](federation.tables["amber"].to_pydict()))
    with pytest.raises(TaskRefused) as caught:
        lead.on()
    assert caught.value.code == "match"
    assert "are not those that the list was made of any more" in str(caught.value)
    assert federation.learned("amber") == 0


@pytest.mark.parametrize("outcome", ["rows", "tokens"])
def test_the_same_identifiers_sealed_again_in_another_order_are_matched(folder, outcome):
    federation = Matched(folder / f"again-{outcome}", match_plan(2, outcome)).consented()
    lead = federation.lead(asking(End))
    table = federation.tables["amber"].to_pydict()
    sealed_anew(federation, "amber", {name: column[::-1] for name, column in table.items()})
    lead.on()
    if outcome == "rows":
        assert federation.rows_at("amber") == federation.shared_at("amber")
    else:
        amber, birch = federation.tokens_at("amber"), federation.tokens_at("birch")
        shared = {card for card, token in amber.items() if token in set(birch.values())}
        assert shared == federation.cards["amber"] & federation.cards["birch"]


def test_counts_need_no_identifiers_any_more_once_the_list_is_made(folder):
    federation = Matched(folder / "anew-counts", match_plan(2, "counts")).consented()
    lead = federation.lead(asking(Agree))
    sealed_anew(federation, "amber", federation.tables["birch"].to_pydict())
    lead.on()
    noise = {name: drawn(federation, name, federation.random) for name in federation.names}
    assert counted(lead.overlap) == with_noise(federation.cards, noise)
