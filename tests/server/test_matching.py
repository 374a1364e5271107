"""The coordinator of a match: it resumes anywhere, one error names who failed at what, and no lie becomes a result."""

import dataclasses
import shutil

import pytest
from flwr.app import Message

from coterie.clients.matchwire import MATCH
from coterie.clients.wire import decode_release, encode_release
from coterie.privacy.calibration import calibrate
from coterie.privacy.overlaps import read_overlap
from coterie.privacy.release import (
    ManifestAccepted,
    MatchCommitted,
    MatchEnded,
    MatchParcel,
    ModelReceived,
    OverlapCounts,
)
from coterie.server.coordinator import Interrupted
from coterie.server.registry import Registry
from coterie.server.rounds import StudyAborted
from coterie.tests.clients.federation import Clients, altered
from coterie.tests.clients.matching import Matched, chunks_of, drawn, match_plan, sealed_anew, with_noise
from coterie.tests.clients.summing import quick_folder


@pytest.fixture(scope="module", autouse=True)
def _small_chunks():
    with chunks_of(64):
        yield


@pytest.fixture(scope="module")
def folder():
    with quick_folder() as found:
        yield found


@pytest.fixture(scope="module")
def templates(folder):
    """Federations that consented, by outcome and partners."""
    return {
        (outcome, count): Matched(folder / f"{outcome}-{count}", match_plan(count, outcome)).consented()
        for outcome, count in (("counts", 2), ("rows", 2), ("tokens", 2), ("rows", 3))
    }


@pytest.fixture
def made(templates, folder):
    """Returns a copy of one of them."""

    def make(outcome, count=2):
        number = sum(1 for _ in folder.iterdir())
        return templates[outcome, count].copied(folder / f"copy-{number}")

    return make


def right(federation, progress):
    """What came out is what plain sets say, and the noise that was drawn; everybody was charged or disclosed once."""
    for name in federation.names:
        assert federation.kinds(name).count("manifest") == 1
    outcome = federation.plan.matching.outcome
    if outcome == "counts":
        noise = {name: drawn(federation, name, federation.random) for name in federation.names}
        cells = {frozenset(one["partners"]): one["customers"] for one in progress.overlap["cells"]}
        return cells == with_noise(federation.cards, noise) and all(
            len(federation.reservations(name)) == 2 for name in federation.names
        )
    told = [federation.kinds(name).count("disclosure") == 1 for name in federation.names]
    if outcome == "tokens":
        amber, birch = (federation.tokens_at(name) for name in federation.names)
        both = federation.cards["amber"] & federation.cards["birch"]
        return all(told) and {card for card in amber if amber[card] in set(birch.values())} == both
    return all(told) and all(federation.rows_at(name) == federation.shared_at(name) for name in federation.names)


# --- stopping and going on --------------------------------------------------------------------------------------


def stops(federation):
    """How often a run asks whether to stop."""
    asked = []
    federation.run(stop=lambda: asked.append(1))
    return len(asked)


def interrupted(federation, last):
    """Stop a run where it asks for the `last`-th time."""
    asked = []

    def stop():
        asked.append(1)
        return len(asked) == last

    with pytest.raises(Interrupted):
        federation.run(stop=stop)


@pytest.mark.parametrize("outcome", ["counts", "rows"])
def test_a_coordinator_that_was_stopped_between_any_two_steps_goes_on(made, outcome):
    count = stops(made(outcome))
    assert count > 4
    for last in range(1, count + 1, 4):
        federation = made(outcome)
        interrupted(federation, last)
        assert right(federation, federation.run()), last


class Killed(BaseException):
    """Stands for a kill: nothing of the coordinator survives but its folder."""


@pytest.mark.parametrize("outcome", ["counts", "rows", "tokens"])
@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
def test_a_coordinator_that_died_after_any_answer_goes_on_with_what_it_wrote(made, outcome, step):
    """Every answer is lost once: in the end, too, where some partners have ended and some have not."""
    federation = made(outcome)
    grid = federation.grid()
    federation.run(grid)
    total = len(grid.passed) // 2
    for last in sorted({*range(1, total + 1, step), *range(total - 6, total + 1)}):
        federation, passed = made(outcome), []
        app = federation.app()

        def dying(message, context, app=app, passed=passed, last=last):
            reply = app(message, context)
            passed.append(1)
            if len(passed) == last:
                raise Killed
            return reply

        with pytest.raises(Killed):
            federation.run(federation.grid(dying))
        progress = federation.run()
        assert progress.matched
        assert right(federation, progress), last


def test_a_partner_whose_whole_workspace_was_set_back_is_out(made, folder):
    federation = made("rows")
    interrupted(federation, 3)
    older = shutil.copytree(federation.folders["amber"], folder / "older-amber")
    interrupted(federation, 4)
    newer = federation.folders["amber"].rename(folder / "newer-amber")
    shutil.copytree(older, federation.folders["amber"])
    with pytest.raises(StudyAborted):
        federation.run()
    progress = Registry(federation.root / "coordinator").resume(federation.digest)
    assert "rollback" in {one.code for one in progress.refusals}
    shutil.rmtree(federation.folders["amber"])
    newer.rename(federation.folders["amber"])
    assert right(federation, federation.run())


def test_what_was_counted_lies_beside_the_state_and_is_read_again(made):
    federation = made("counts")
    progress = federation.run()
    registry = Registry(federation.root / "coordinator")
    assert read_overlap(registry.overlap.read_bytes(), place="overlap").overlap.to_dict() == progress.overlap
    again = registry.resume(federation.digest)
    assert (again.matched, again.overlap, again.flown, again.receipts) == (
        progress.matched,
        progress.overlap,
        progress.flown,
        progress.receipts,
    )


# --- partners that stop -----------------------------------------------------------------------------------------


def failing_after(federation, count, name="birch"):
    """A grid on which a partner stops to answer after so many questions of the match."""
    app, heard = federation.app(), []

    def silent(message, context):
        if message.metadata.message_type == MATCH:
            heard.append(1)
        if len(heard) > count:
            raise RuntimeError
        return app(message, context)

    return federation.grid(Clients(app, **{name: silent}))


@pytest.mark.parametrize("count", [0, 1, 2, 4, 7, 10])
def test_a_partner_that_stops_is_named_with_what_it_did_not_do_and_nobody_keeps_anything(made, count):
    federation = made("rows", 3)
    with pytest.raises(StudyAborted) as caught:
        federation.run(failing_after(federation, count))
    said = str(caught.value)
    assert "birch" in said
    if count > 1:
        assert "birch did not" in said
        assert "piece " in said
        assert any(f"the list of {owner}" in said for owner in federation.names)
    assert len(caught.value.faults) == 1
    for name in federation.names:
        assert federation.learned(name) == 0
        assert "match-ended" not in {e.body["what"] for e in federation.entries(name) if e.kind == "match"}
    assert right(federation, federation.run())


def test_a_match_needs_all_partners(made):
    federation = made("rows", 3)
    federation.policy("cedar", matching=None)
    with pytest.raises(StudyAborted, match=r"privacy\.threshold"):
        federation.run()
    progress = Registry(federation.root / "coordinator").resume(federation.digest)
    assert [one.code for one in progress.refusals] == ["matching"]
    for name in federation.names:
        assert not {"disclosure", "manifest", "match"} & set(federation.kinds(name))


def test_one_that_has_no_list_is_named_and_no_list_goes_anywhere(made):
    federation = made("rows", 3)
    table = federation.tables["cedar"].to_pydict()
    sealed_anew(federation, "cedar", {name: column[:5] for name, column in table.items()})
    with pytest.raises(StudyAborted) as caught:
        federation.run()
    assert "has no list of: cedar" in str(caught.value)
    for name in federation.names:
        assert not {"manifest", "match"} & set(federation.kinds(name))


# --- partners that lie ------------------------------------------------------------------------------------------


def lying(federation, change, name="birch"):
    """A grid on which a partner's releases in the match are changed behind its door."""
    event = calibrate(federation.plan).overlap

    def rewritten(reply: Message):
        if reply.has_error():
            return reply
        release = decode_release(reply.content, listed=event)
        return encode_release(change(release))

    return federation.grid(Clients(federation.app(), **{name: altered(federation.app(), rewritten, kinds=(MATCH,))}))


def replaced(kind, **changes):
    """A change of releases of one kind alone."""
    return lambda release: dataclasses.replace(release, **changes) if isinstance(release, kind) else release


def of_commitment(**changes):
    def change(release):
        if not isinstance(release, MatchCommitted):
            return release
        return dataclasses.replace(release, commitment=dataclasses.replace(release.commitment, **changes))

    return change


def of_parcel(**changes):
    def change(release):
        if not isinstance(release, MatchParcel):
            return release
        return MatchParcel(dataclasses.replace(release.parcel, **changes))

    return change


def at_other(**changes):
    def change(release):
        if not isinstance(release, MatchParcel):
            return release
        return MatchParcel(
            dataclasses.replace(release.parcel, address=dataclasses.replace(release.parcel.address, **changes))
        )

    return change


LIES = {
    "a changed size": (of_commitment(size=96), "did not sign"),
    "another's name": (of_commitment(partner="amber"), "birch"),
    "a stranger's name": (of_commitment(partner="zebra"), "birch"),
    "another plan": (of_commitment(plan="sha256:" + "0" * 64), "birch"),
    "another manifest": (replaced(ManifestAccepted, manifest="sha256:" + "0" * 64), "birch works with other lists"),
    "another piece": (at_other(index=1), "birch gave another piece"),
    "another list": (at_other(list="amber"), "birch"),
    "another receiver": (of_parcel(receiver="birch"), "birch"),
    "another sender": (of_parcel(sender="amber"), "birch"),
    "no word of the match": (lambda release: ModelReceived(release.plan, "birch", "sha256:m", "sha256:r"), "birch"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_partner_that_lies_is_named_and_the_match_goes_on_with_its_true_answers(made, lie):
    federation = made("rows")
    change, words = LIES[lie]
    with pytest.raises(StudyAborted) as caught:
        federation.run(lying(federation, change))
    assert words in str(caught.value)
    assert federation.learned("amber") == federation.learned("birch") == 0
    assert right(federation, federation.run())


def test_a_piece_that_is_not_what_was_sealed_stops_at_whom_it_goes_to(made):
    federation = made("rows")

    def spoiled(release):
        if not isinstance(release, MatchParcel):
            return release
        sealed = bytes([release.parcel.sealed[0] ^ 1]) + release.parcel.sealed[1:]
        return MatchParcel(dataclasses.replace(release.parcel, sealed=sealed))

    with pytest.raises(StudyAborted) as caught:
        federation.run(lying(federation, spoiled))
    said = str(caught.value)
    assert "amber did not take piece 0 of the list of birch from birch" in said
    assert "does not open" in federation.report("amber")
    assert right(federation, federation.run())


def test_counts_of_other_noise_or_partners_are_not_published(made):
    low = {"partners": ["amber"], "customers": 3, "deviation": 1.0}
    for changes in (
        *({"sigma": 0.5}, {"least": 2}, {"width": 2}, {"names": ["amber", "zebra"]}),
        *({"cells": []}, {"totals": [low, {**low, "partners": ["birch"]}]}, {"pairs": [low]}, {"multiplicity": [1]}),
    ):
        federation = made("counts")

        def change(release, changes=changes):
            if not isinstance(release, OverlapCounts):
                return release
            return dataclasses.replace(release, overlap={**release.overlap, **changes})

        with pytest.raises(StudyAborted, match="counts that cannot be"):
            federation.run(lying(federation, change, name="amber"))
        assert not Registry(federation.root / "coordinator").overlap.exists()
    assert right(federation, federation.run())


def test_tokens_that_are_not_under_one_key_are_found_out(made):
    federation = made("tokens")
    with pytest.raises(StudyAborted) as caught:
        federation.run(lying(federation, replaced(MatchEnded, canaries="0" * 64)))
    assert "different keys" in str(caught.value)
    assert not Registry(federation.root / "coordinator").resume(federation.digest).matched
