"""The coordinator in one secure sum: who is silent or wrong is named and left out, and too few open nothing."""

import dataclasses
import shutil

import numpy as np
import pytest

from coterie.clients.wire import decode_release, encode_release, split_head
from coterie.privacy.calibration import calibrate
from coterie.privacy.release import Refused
from coterie.privacy.secagg.messages import signed_bytes
from coterie.server.registry import Refusal, Registry
from coterie.server.rounds import StudyAborted
from coterie.tests.clients.federation import MORE, Clients, altered, changed, table_of
from coterie.tests.clients.summing import FOUR, PLAN, Ears, SilentGrid, Summing, quick_folder

STAGES = ("query.keys", "query.deal", "train", "query.sign", "query.reveal")
LABELS = {stage: stage.removeprefix("query.") for stage in (*STAGES, "evaluate")}
# Which question of the study belongs to which sum: the second keys and shares are those of the histogram.
PLACES = [(stage, 1) for stage in (*STAGES, "evaluate")]
PLACES += [("query.keys", 2), ("query.deal", 2), ("train", 2)]
PLACES += [(stage, turn) for stage in ("query.sign", "query.reveal") for turn in (2, 3)]


@pytest.fixture(scope="module")
def made():
    with quick_folder() as folder:
        yield Summing(folder / "start", PLAN, {name: table_of(name, 60) for name in FOUR}).consent()


@pytest.fixture
def federation(made):
    copy = made.copied(made.root.with_name("copy"))
    yield copy
    shutil.rmtree(copy.root)


def run(federation, grid=None):
    """Run the study, and hold every sum that was opened to the plain sum of its vectors."""
    with Ears().listening() as ears:
        try:
            return federation.run(grid), ears
        finally:
            ears.check()


def published(federation):
    return Registry(federation.root / "coordinator").resume(federation.digest)


def survivors(ears):
    """By step, over whom it was opened."""
    return {next(iter(masked.values())).step: opened.survivors for _, masked, _, opened in ears.sums}


# --- silence ----------------------------------------------------------------------------------------------------


# At every place the question or the answer is lost in turn; the other one with the slow tests.
@pytest.mark.parametrize(
    ("kind", "turn", "heard"),
    [
        pytest.param(*place, heard, marks=[pytest.mark.slow] if number % 2 == heard else [])
        for number, place in enumerate(PLACES)
        for heard in (False, True)
    ],
)
def test_one_silent_partner_is_named_and_the_sum_goes_on(federation, kind, turn, heard):
    grid = SilentGrid(federation, {("cedar", kind, turn)}, heard=heard)
    progress, ears = run(federation, grid)
    assert (progress.round, progress.step) == (1, 2)
    assert progress.refusals == (Refusal("cedar", LABELS[kind], 1, "silent"),)
    rest = tuple(name for name in FOUR if name != "cedar")
    out = dict.fromkeys(("train/1", "train/2", "evaluate/1"), FOUR)
    if kind in {"query.keys", "query.deal"}:
        out |= {"train/1": rest, "train/2": rest} if turn == 1 else {"evaluate/1": rest}
    elif kind == "train":
        out |= {"train/1": rest, "train/2": rest} if turn == 1 else {"train/2": rest}
    elif kind == "evaluate":
        out["evaluate/1"] = rest
    assert survivors(ears) == out
    assert set(progress.histograms[1]) == {"all partners"}


@pytest.mark.parametrize("kind", STAGES)
def test_below_the_threshold_nothing_is_opened_and_the_missing_are_named(federation, kind):
    turns = {(name, kind, turn) for name in ("birch", "damson") for turn in range(1, 9)}
    grid = SilentGrid(federation, turns)
    with Ears().listening() as ears, pytest.raises(StudyAborted):
        federation.run(grid)
    assert ears.sums == []
    kept = published(federation)
    assert (kept.round, kept.step, kept.receipts) == (0, 0, ())
    silent = {(name, LABELS[kind], "silent") for name in ("birch", "damson")}
    assert {(r.partner, r.step, r.code) for r in kept.refusals} == silent
    charged = [name for name in FOUR if federation.reservations(name)]
    before = {"query.keys": [], "query.deal": [], "train": ["amber", "cedar"]}
    assert charged == before.get(kind, [*FOUR])
    if kind == "query.reveal":
        # Both that were asked revealed; two shares of three open nothing, whoever holds them.
        assert grid.left.count("query.reveal") == 2


@pytest.mark.parametrize("kind", ["evaluate", "query.keys", "query.sign", "query.reveal"])
def test_a_histogram_below_the_threshold_is_none_and_the_model_stands(federation, kind):
    first = {"evaluate": 1, "query.keys": 2, "query.sign": 3, "query.reveal": 3}[kind]
    turns = {(name, kind, turn) for name in ("birch", "damson") for turn in range(first, 9)}
    progress, ears = run(federation, SilentGrid(federation, turns))
    assert (progress.round, progress.step, dict(progress.histograms)) == (1, 2, {})
    assert set(survivors(ears)) == {"train/1", "train/2"}
    assert {(r.partner, r.step) for r in progress.refusals} == {(n, LABELS[kind]) for n in ("birch", "damson")}
    assert all("model" in {entry.kind for entry in federation.everything(name)} for name in FOUR)


def test_partners_that_fail_one_after_the_other_bring_a_sum_down_to_the_threshold_and_no_further(federation):
    grid = SilentGrid(federation, {("cedar", "query.deal", 1), ("birch", "query.sign", 1)})
    with pytest.raises(StudyAborted):
        run(federation, grid)
    assert [(r.partner, r.step) for r in published(federation).refusals] == [("cedar", "deal"), ("birch", "sign")]


# --- wrong answers -------------------------------------------------------------------------------------------------


def event(federation):
    return calibrate(federation.plan).update


def read(federation, reply):
    return decode_release(reply.content, summed=event(federation))


def with_bit(array):
    bent = array.copy()
    bent.reshape(-1)[-1] ^= 1
    return bent


def resigned(federation, message, **changes):
    """What a dishonest amber sends: its own key signs it."""
    message = dataclasses.replace(message, **changes)
    signature = federation.workspace("amber").identity.sign(signed_bytes(message))
    return encode_release(dataclasses.replace(message, signature=signature.hex()))


def unsigned(federation, reply):
    return encode_release(dataclasses.replace(read(federation, reply), signature="0" * 128))


def of_another_epoch(federation, reply):
    return resigned(federation, read(federation, reply), epoch=7)


def of_another_plan(federation, reply):
    return resigned(federation, read(federation, reply), plan="sha256:" + "0" * 64)


def as_birch(federation, reply):
    return encode_release(dataclasses.replace(read(federation, reply), partner="birch"))


def of_another_size(federation, reply):
    message = read(federation, reply)
    arrays = tuple(np.concatenate([array, array]) for array in message.arrays)
    return resigned(federation, message, arrays=arrays)


def of_another_kind(federation, reply):
    return encode_release(Refused(federation.digest, ("secagg",)))


def without_anything(federation, reply):
    del reply.content["arrays"]
    return reply.content


WRONG = (unsigned, of_another_epoch, of_another_plan, as_birch, of_another_size, of_another_kind, without_anything)


# Every second runs always, each wrong answer at two stages and more; the others with the slow tests.
@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        pytest.param(kind, wrong, id=f"{kind}-{wrong.__name__}", marks=[pytest.mark.slow] if (i + j) % 2 else [])
        for i, kind in enumerate(STAGES)
        for j, wrong in enumerate(WRONG)
    ],
)
def test_one_wrong_answer_is_named_and_the_sum_goes_on_without_it(federation, kind, wrong):
    if (kind, wrong) == ("query.sign", of_another_size):
        wrong = unsigned  # it has no arrays
    app = federation.app()
    bad = altered(app, lambda reply: wrong(federation, reply), (kind,))
    progress, ears = run(federation, federation.grid(Clients(app, amber=bad)))
    assert (progress.round, progress.step) == (1, 2)
    assert {(r.partner, r.step, r.code) for r in progress.refusals} == {("amber", LABELS[kind], "rejected")}
    assert all(r.why for r in progress.refusals)
    vectors = kind in {"query.sign", "query.reveal"}  # amber's vectors were right
    taken = survivors(ears)
    assert ("amber" in taken["train/1"]) == ("amber" in taken["train/2"]) == vectors
    assert ("amber" in taken["evaluate/1"]) == (vectors or kind == "train")


@pytest.mark.parametrize("kind", STAGES)
def test_what_another_said_and_signed_is_not_taken_as_ones_own(federation, kind):
    app, heard = federation.app(), {}

    def birch(message, context):
        reply = app(message, context)
        if message.metadata.message_type == kind and not reply.has_error():
            heard[kind] = split_head(reply.content)[1]
        return reply

    parrot = altered(app, lambda reply: heard[kind], (kind,))
    progress, _ = run(federation, federation.grid(Clients(app, birch=birch, damson=parrot)))
    assert (progress.round, progress.step) == (1, 2)
    assert {(r.partner, r.step, r.code) for r in progress.refusals} == {("damson", LABELS[kind], "rejected")}
    assert "another partner's" in progress.refusals[0].why


def test_a_wrong_share_is_named_and_left_out_of_the_opening(federation):
    app = federation.app()

    def lying(reply):
        message = read(federation, reply)
        return resigned(federation, message, arrays=(with_bit(message.arrays[0]),))

    progress, ears = run(federation, federation.grid(Clients(app, amber=altered(app, lying, ("query.reveal",)))))
    assert (progress.round, progress.step) == (1, 2)
    assert len(ears.sums) == 3
    assert {(r.partner, r.step, r.code) for r in progress.refusals} == {("amber", "reveal", "rejected")}
    assert "did not commit to" in progress.refusals[0].why


def test_a_vector_that_its_partner_signed_is_in_the_sum_as_it_came(federation):
    # What a dishonest partner adds is its own affair; the sum is over what was signed, and nobody else is named.
    app = federation.app()

    def adding(reply):
        message = read(federation, reply)
        return resigned(federation, message, arrays=(message.arrays[0] + np.uint32(5),))

    with Ears().listening() as ears:
        progress = federation.run(federation.grid(Clients(app, amber=altered(app, adding, ("train",)))))
    # Amber's own node signed another vector, and refuses to sign the one that is shown: it is out by its own word.
    said = {(r.partner, r.step, r.code) for r in progress.refusals}
    # Nor does it take the record, whose receipts are of what came.
    assert said == {("amber", "sign", "secagg"), ("amber", "close", "rollback")}
    assert len(ears.sums) == 3


def test_a_dealer_whose_shares_do_not_open_stops_the_sums_by_the_others_word_and_nothing_is_opened(federation):
    app = federation.app()

    def lying(reply):
        message = read(federation, reply)
        sealed = message.arrays[0].copy()
        sealed[-1, -1] ^= 1  # of the shares that are sealed for damson
        return resigned(federation, message, arrays=(sealed, message.arrays[1]))

    bad = altered(app, lying, ("query.deal",))
    with Ears().listening() as ears, pytest.raises(StudyAborted):
        federation.run(federation.grid(Clients(app, amber=bad)))
    assert ears.sums == []
    assert {(r.partner, r.step, r.code) for r in published(federation).refusals} == {
        ("amber", "train", "secagg"),  # its own node does not know what was sent in its name
        ("damson", "train", "secagg"),
    }
    assert federation.reservations("damson") == ()


def test_a_larger_federation_bears_a_drop_out_and_has_it_back_in_the_next_epoch(made):
    partners = tuple(dataclasses.replace(PLAN.partners[0], name=name) for name in MORE)
    plan = changed(PLAN, partners=partners, privacy__threshold=5)
    federation = Summing(made.root.with_name("six"), plan, {name: table_of(name, 60) for name in MORE})
    progress, ears = run(federation, SilentGrid(federation, {("fig", "train", 1)}))
    assert progress.step == 2
    assert survivors(ears) == {"train/1": MORE[:5], "train/2": MORE[:5], "evaluate/1": MORE}
    assert progress.refusals == (Refusal("fig", "train", 1, "silent"),)
    shutil.rmtree(federation.root)
