"""The door in a match: each kind of message passes where the ledger holds just that one, and no other."""

import dataclasses

import pytest
from flwr.app import Message
from flwr.clientapp import ClientApp

from coterie.clients.door import ERROR_CODE, Door
from coterie.clients.matchwire import MATCH, Commit, Count, encode_match
from coterie.clients.wire import decode_release, encode_release, split_head
from coterie.privacy.calibration import calibrate
from coterie.privacy.events import Nothing
from coterie.privacy.matching.channel import Parcel
from coterie.privacy.matching.commitment import Commitment
from coterie.privacy.release import (
    ManifestAccepted,
    MatchCommitted,
    MatchEnded,
    MatchParcel,
    OverlapCounts,
    ParcelTaken,
    release_digest,
)
from coterie.simulations.partners import workspace_of
from coterie.tests.clients.federation import Federation, today
from coterie.tests.clients.matching import Matched, match_plan
from coterie.tests.clients.summing import quick_folder

KINDS = (MatchCommitted, ManifestAccepted, ParcelTaken, MatchParcel, OverlapCounts, MatchEnded)


@pytest.fixture(scope="module")
def finished():
    """A match that was counted, and what amber answered of every kind."""
    with quick_folder() as folder:
        federation = Matched(folder / "one", match_plan(2, "counts")).consented()
        lead = federation.lead()
        answers = {type(answer): answer for name, _, answer in lead.said if name == "amber"}
        assert set(answers) == set(KINDS)
        yield federation, answers


def leave(federation, content):
    """The reply to a question whose handler, behind the door, answers with some content."""
    folders = tuple(federation.folders.values())
    app = ClientApp(mods=[Door(lambda context: workspace_of(folders, context), today)])

    @app.query("match")
    def answer(message, context):
        return Message(content, reply_to=message)

    grid = federation.grid(app)
    return Federation.ask(federation, grid, MATCH, encode_match(Count(federation.digest)), "amber")


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_ledger_holds_passes(finished, kind):
    federation, answers = finished
    reply = leave(federation, encode_release(answers[kind]))
    event = calibrate(federation.plan).overlap
    passed = decode_release(split_head(reply.content)[1], listed=event)
    assert type(passed) is kind
    assert release_digest(passed) == release_digest(answers[kind])


def other(value):
    """Something else of the same type."""
    if isinstance(value, Commitment):
        return dataclasses.replace(value, size=value.size + 1)
    if isinstance(value, Parcel):
        return dataclasses.replace(value, sealed=value.sealed[:-1] + bytes([value.sealed[-1] ^ 1]))
    if isinstance(value, dict):
        first = {**value["totals"][0], "customers": 1}
        return {**value, "totals": [first, *value["totals"][1:]]}
    return value + 1 if isinstance(value, int) else value + "0"


@pytest.mark.parametrize("kind", KINDS)
def test_with_any_field_changed_it_does_not_pass(finished, kind):
    federation, answers = finished
    held = answers[kind]
    for field in dataclasses.fields(held):
        if field.name != "event":
            forged = dataclasses.replace(held, **{field.name: other(getattr(held, field.name))})
            reply = leave(federation, encode_release(forged))
            assert (reply.error.reason, reply.error.code) == ("fault", ERROR_CODE["fault"]), field.name
            assert not reply.has_content()


def test_a_list_of_another_event_is_not_told_apart_by_its_bytes_but_by_the_charge(finished):
    """The event is not on the wire: the ledger's charge says what was paid, the coordinator's plan what is due."""
    federation, answers = finished
    held = answers[MatchCommitted]
    assert release_digest(dataclasses.replace(held, event=Nothing())) == release_digest(held)
    assert {r.charge.event for r in federation.reservations()} == {held.event}


def test_a_disclosure_that_the_ledger_lacks_does_not_pass():
    with quick_folder() as folder:
        federation = Matched(folder / "rows", match_plan(2, "rows")).consented()
        answer = federation.answer("amber", Commit(federation.digest, 1))
        assert not leave(federation, encode_release(answer)).has_error()
        birch = federation.answer("birch", Commit(federation.digest, 1))
        assert leave(federation, encode_release(birch)).error.reason == "fault"
