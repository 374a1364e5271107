"""A hundred and more kinds of bad reply: refused by name, and the model is the one made without them, bit for bit."""

import dataclasses
import itertools
import logging
import shutil

import numpy as np
import pytest
from flwr.app import Array, Message

from coterie.privacy.calibration import calibrate
from coterie.privacy.plan import Partner
from coterie.privacy.release import ModelUpdate
from coterie.server.aggregate import Expected, ReplyRefused, check_reply
from coterie.server.bounds import longest_histogram, longest_update
from coterie.server.coordinator import Interrupted
from coterie.server.registry import Registry
from coterie.tests.clients.federation import MORE, Federation, secure_study, study, table_of
from coterie.tests.clients.summing import quick_folder
from coterie.tests.server.badreplies import (
    CANARY,
    CONSENTS,
    HISTOGRAMS,
    REJECTED,
    SILENT,
    SUMS,
    WORDS,
    BadGrid,
    arrays,
    bytes_of,
    fields,
    first_number,
    nothing,
    source,
    travelled,
)

FOUR = MORE[:4]
PLAN = study(
    partners=tuple(Partner(name=name, customers=120) for name in FOUR),
    privacy__threshold=3,
    training__rounds=3,
    metrics__rounds=(2, 3),
)
"""Three of four partners make a round, so that one that misbehaves ends nothing."""

HURT = "cedar"
ROUNDS = ("1", "2", "3")


@pytest.fixture(scope="module")
def ground():
    with quick_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def fresh(ground):
    """A federation that has not begun."""
    return Federation(ground / "fresh", PLAN, {name: table_of(name, 60) for name in FOUR})


@pytest.fixture(scope="module")
def begun(ground, fresh):
    """A federation after the first of three rounds, and what its partner answered in it."""
    federation, rounds = Federation(shutil.copytree(fresh.root, ground / "begun"), PLAN), []
    grid = BadGrid(federation)
    with pytest.raises(Interrupted):
        federation.run(grid, stop=lambda: bool(rounds), show=lambda s: rounds.append(1) if s.what == "published" else 0)
    return federation, grid.left


@pytest.fixture(scope="module")
def go(ground, fresh, begun):
    """Run the study from the start, or from after its first round, with some answers replaced.

    What is tried is the coordinator: a partner is asked what it was not asked in an earlier run alone.
    """
    numbers, memories = iter(range(10**6)), {"fresh": {}, "begun": {}}

    def run(instead, *, rounds=("2",), whole=False, **options):
        template = fresh if whole or "1" in rounds else begun[0]
        options["memory"] = memories[template.root.name]
        folder = shutil.copytree(template.root, ground / f"run-{next(numbers)}")
        federation = Federation(folder, PLAN)
        grid = BadGrid(federation, instead, rounds=rounds, before=begun[1], **options)
        progress = federation.run(grid)
        assert grid.struck == (len(rounds) if instead else 0) or options.get("kind") == "query.close"
        assert Registry(folder / "coordinator").resume(federation.digest).round == progress.round == 3
        assert CANARY.encode() not in b"".join(f.read_bytes() for f in (folder / "coordinator").rglob("*.*"))
        shutil.rmtree(folder)
        return progress

    return run


@pytest.fixture(scope="module")
def without(go):
    """The study in which the partner's answers of some rounds never came, by rounds."""
    return {rounds: go(nothing, rounds=rounds) for rounds in (("2",), ROUNDS)}


@pytest.fixture(scope="module")
def undisturbed(go):
    return go(None)


def bits(progress):
    return b"".join(array.tobytes() for array in progress.weights)


def said(progress, step="train"):
    """What was written down of the misbehaving partner, and of nobody else."""
    assert {refusal.partner for refusal in progress.refusals} <= {HURT}
    assert all(len(refusal.why) < 200 for refusal in progress.refusals)
    assert all(CANARY not in refusal.why + refusal.code for refusal in progress.refusals)
    return {(r.step, r.round, r.code) for r in progress.refusals if r.step == step}


def receipts(progress):
    return {(r.partner, r.step) for r in progress.receipts}


EVERY = {(name, step) for name in FOUR for step in ("train/1", "train/2", "train/3", "evaluate/2", "evaluate/3")}


def test_the_catalogue_has_a_hundred_kinds_and_more():
    assert len(REJECTED) + len(SILENT) + len(WORDS) >= 120
    assert len(HISTOGRAMS) + len(CONSENTS) >= 30


def test_an_undisturbed_study_is_another_one_and_takes_everything(undisturbed, without):
    assert undisturbed.refusals == ()
    assert receipts(undisturbed) == EVERY
    assert len({bits(undisturbed), bits(without["2",]), bits(without[ROUNDS])}) == 3
    assert np.isfinite(np.concatenate([array.ravel() for array in undisturbed.weights])).all()


# --- updates ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REJECTED)
def test_a_bad_update_is_refused_by_its_rule_and_the_model_is_that_of_the_others(go, without, caplog, name):
    with caplog.at_level(logging.DEBUG):
        progress = go(REJECTED[name])
    assert said(progress) == {("train", 2, "rejected")}
    assert all(refusal.why for refusal in progress.refusals)
    assert bits(progress) == bits(without["2",])
    assert receipts(progress) == EVERY - {(HURT, "train/2")}
    assert CANARY not in caplog.text


@pytest.mark.parametrize("name", SILENT)
def test_what_is_no_answer_is_silence_and_the_model_is_that_of_the_others(go, without, caplog, name):
    with caplog.at_level(logging.DEBUG):
        progress = go(SILENT[name])
    assert said(progress) == {("train", 2, "silent")}
    assert bits(progress) == bits(without["2",])
    assert CANARY not in caplog.text


@pytest.mark.parametrize("word", WORDS)
def test_a_refusal_is_taken_down_by_its_word(go, without, word):
    progress = go(WORDS[word])
    assert said(progress) == {("train", 2, word)}
    assert bits(progress) == bits(without["2",])


ALWAYS = ("NaN", "a million times as much", "one number for all", "pickled objects", "a shape of 2**40 numbers")
ALWAYS += ("another partner", "deep nesting", "no records", "a neighbour's answer", "no checkpoint")


@pytest.mark.parametrize("name", ALWAYS)
def test_a_partner_that_never_answers_well_changes_no_bit_of_the_others_model(go, without, name):
    progress = go(REJECTED[name], rounds=ROUNDS)
    assert said(progress) == {("train", round_, "rejected") for round_ in (1, 2, 3)}
    assert bits(progress) == bits(without[ROUNDS])


def test_an_answer_from_another_node_is_put_down_to_the_one_that_was_asked(go, without):
    for node in (1001, 77):
        progress = go(source(node))
        assert said(progress) == {("train", 2, "rejected")}
        assert bits(progress) == bits(without["2",])


def test_the_first_of_two_answers_counts(go, without, undisturbed):
    def good_first(scene):
        return [travelled(scene.reply), Message(REJECTED["NaN"](scene), reply_to=scene.question)]

    def bad_first(scene):
        return good_first(scene)[::-1]

    progress = go(good_first)
    assert (progress.refusals, bits(progress)) == ((), bits(undisturbed))
    progress = go(bad_first)
    assert (said(progress), bits(progress)) == ({("train", 2, "rejected")}, bits(without["2",]))


def test_an_answer_that_comes_a_round_late_is_not_added(go, without):
    kept = []

    def late(scene):
        kept.append(travelled(scene.reply))
        return [] if len(kept) == 1 else [kept[0], scene.reply]

    progress = go(late, rounds=("2", "3"))
    assert said(progress) == {("train", 2, "silent")}
    assert bits(progress) == bits(without["2",])


# --- what is formally permitted ---------------------------------------------------------------------------------------


def test_zeros_are_an_update_like_any_other(go, undisturbed, without):
    progress = go(arrays(lambda found: [np.zeros_like(one) for one in found]))
    assert (said(progress), receipts(progress)) == (set(), EVERY)
    # The partner's own node sees in the record of the study that something else than its update was received.
    assert said(progress, "close") == {("close", 3, "rollback")}
    assert bits(progress) not in {bits(undisturbed), bits(without["2",])}


def test_what_flower_says_of_an_array_is_not_believed_and_changes_nothing(go, undisturbed):
    def lying(data):
        return Array("int8", (2**31 - 1, 3), "torch.tensor", data)

    progress = go(bytes_of(lying))
    assert (said(progress), bits(progress)) == (set(), bits(undisturbed))


START = (np.zeros((1, 7), np.float32), np.zeros(1, np.float32))


def longest():
    return longest_update(PLAN, calibrate(PLAN), HURT, START)


def test_an_update_is_taken_up_to_the_bound_and_not_beyond(go, without):
    progress = go(arrays(lambda found: straight(found, longest() * 0.99)))
    assert said(progress) == set()
    # The harm that is left: its share of the mean, which is a quarter here, of the longest honest update.
    moved = np.concatenate([(a - b).ravel() for a, b in zip(progress.weights, without["2",].weights, strict=True)])
    assert np.linalg.norm(moved) < longest() / 2
    progress = go(arrays(lambda found: straight(found, longest() * 1.01)))
    assert said(progress) == {("train", 2, "rejected")}
    assert bits(progress) == bits(without["2",])


def straight(found, length):
    """All of an update in one number."""
    made = [np.zeros_like(one) for one in found]
    made[0].flat[0] = length
    return made


def test_the_bound_is_that_of_the_steps_that_are_described():
    plan = study(training__local_steps=5, training__learning_rate=0.25, training__clip=3.0)
    event = calibrate(plan).update
    bound = longest_update(plan, calibrate(plan), "amber", START)
    draw, longest_seen = np.random.default_rng(5), 0.0
    for _ in range(2000):  # the worst honest partner: sixteen times what it declared, and all pull one way
        update = np.zeros(8)
        for _ in range(5):
            pulled = np.zeros(8)
            pulled[0] = 3.0 * draw.binomial(16 * 120, 0.3)
            update -= 0.25 * (pulled + draw.normal(size=8) * 3.0 * event.noise_multiplier) / (0.3 * 120)
        longest_seen = max(longest_seen, float(np.linalg.norm(update)))
    assert longest_seen < bound < 1.6 * longest_seen


def test_a_bound_leaves_room_for_the_noise_of_a_histogram():
    made = calibrate(PLAN)
    draw, bound = np.random.default_rng(6), longest_histogram(PLAN, made, HURT)
    for _ in range(2000):
        counts = draw.normal(scale=made.histogram.sigma, size=(2, 8))
        counts[0, 0] += 16 * 120
        assert np.linalg.norm(counts) < bound
    assert bound < 16 * 120 + 12 * made.histogram.sigma * 4


def test_partners_that_send_no_updates_have_no_bound():
    plan = secure_study()
    assert longest_update(plan, calibrate(plan), "amber", ()) == float("inf")
    assert longest_histogram(plan, calibrate(plan), "amber") == float("inf")


def test_one_bad_number_among_a_hundred_thousand_is_found():
    numbers = np.zeros((1000, 100), np.float32)
    expected = Expected("amber", "p", "train/1", 1, "m", ((1000, 100),), "float32", 50.0)
    good = ModelUpdate("p", "amber", "train/1", 1, "m", calibrate(PLAN).update, (numbers,))
    check_reply(good, expected, set())
    for value in (np.nan, np.inf, -np.inf, 51.0, -51.0):
        bad = numbers.copy()
        bad[617, 83] = value
        with pytest.raises(ReplyRefused):
            check_reply(dataclasses.replace(good, arrays=(bad,)), expected, set())


# --- histograms, consents, and the end --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_a_bad_histogram_is_not_kept_and_changes_no_bit_of_the_model(go, undisturbed, name):
    progress = go(HISTOGRAMS[name], kind="evaluate")
    assert said(progress, "evaluate") == {("evaluate", 2, "rejected")}
    assert bits(progress) == bits(undisturbed)
    assert set(progress.histograms[2]) == set(FOUR) - {HURT}
    for partner, counts in progress.histograms[2].items():
        assert np.array_equal(counts, undisturbed.histograms[2][partner])


def test_counts_that_noise_may_have_made_are_kept(go, undisturbed):
    progress = go(first_number(-5), kind="evaluate")
    assert (said(progress, "evaluate"), bits(progress)) == (set(), bits(undisturbed))
    assert progress.histograms[2][HURT].flat[2] == -5


@pytest.fixture(scope="module")
def three(go):
    """The study that one partner never answered."""
    return go(nothing, rounds=("",), kind="query.propose", whole=True)


@pytest.mark.parametrize("name", CONSENTS)
def test_a_bad_consent_admits_nobody_and_keeps_nobody_out(go, three, name):
    progress = go(CONSENTS[name], rounds=("",), kind="query.propose", whole=True)
    assert {(r.partner, r.step, r.code) for r in progress.refusals} == {("node 1002", "consent", "rejected")}
    assert all(r.why and CANARY not in r.why for r in progress.refusals)
    assert bits(progress) == bits(three)
    assert receipts(progress) == {(name, step) for name, step in EVERY if name != HURT}


@pytest.mark.parametrize("name", ["no records", "no checkpoint", "a checkpoint that shrinks", "a wrong proof"])
def test_a_bad_last_word_changes_nothing(go, undisturbed, name):
    progress = go(REJECTED[name], rounds=("3",), kind="query.close")
    assert said(progress, "close") == {("close", 3, "rejected")}
    assert bits(progress) == bits(undisturbed)


def test_names_are_read_whatever_they_are(go, without):
    progress = go(fields(partner="x" * 10**5))
    assert said(progress) == {("train", 2, "rejected")}
    assert bits(progress) == bits(without["2",])


# --- secure sums; what is particular to them is in test_sums.py and test_sum_faults.py --------------------------------

SECURE = secure_study(training__rounds=1, metrics__rounds=(1,))
STAGES = ("query.keys", "query.deal", "train", "query.sign", "query.reveal")
ABOUT_ARRAYS = {"cut short", "float64", "a shape of 2**40 numbers", "an array too many"}


@pytest.fixture(scope="module")
def secure(ground):
    """Run a study of secure sums with one partner's answers to one question replaced; return its end."""
    template = Federation(ground / "secure", SECURE, {name: table_of(name, 60) for name in FOUR})
    numbers, memory = iter(range(10**6)), {}

    def run(instead, kind="train"):
        federation = Federation(shutil.copytree(template.root, ground / f"secure-{next(numbers)}"), SECURE)
        grid = BadGrid(federation, instead, kind=kind, rounds=("1",), memory=memory)
        progress = federation.run(grid)
        assert grid.struck > 0 or instead is None
        shutil.rmtree(federation.root)
        return progress

    return run


@pytest.fixture(scope="module")
def silent_sums(secure):
    """The study in which one partner is silent whenever it is asked this."""
    return {kind: secure(nothing, kind) for kind in STAGES}


def test_a_partner_that_is_missing_from_a_sum_makes_another_model(secure, silent_sums):
    whole = bits(secure(None))
    assert all(bits(silent_sums[kind]) != whole for kind in ("query.keys", "query.deal", "train"))
    # Its vector was in the sums when it fell silent afterwards.
    assert bits(silent_sums["query.sign"]) == bits(silent_sums["query.reveal"])


CASES = tuple(itertools.product(STAGES, SUMS))
"""A quarter of them runs always, every kind and every stage among it; the others with the slow tests."""


@pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param(*case, marks=[pytest.mark.slow] if place % 4 else []) for place, case in enumerate(CASES)],
)
def test_a_bad_answer_in_a_secure_sum_is_named_and_the_model_is_that_of_silence(secure, silent_sums, kind, name):
    if kind == "query.sign" and name in ABOUT_ARRAYS:
        name = "a field too many"  # it has no arrays
    progress, silent = secure(SUMS[name], kind), silent_sums[kind]
    assert {refusal.partner for refusal in progress.refusals} == {HURT}
    assert {r.code for r in progress.refusals} == {"silent" if name.startswith("an error") else "rejected"}
    assert {(r.step, r.round) for r in progress.refusals} == {(r.step, r.round) for r in silent.refusals}
    assert all(CANARY not in r.why and len(r.why) < 200 for r in progress.refusals)
    assert bits(progress) == bits(silent)
    assert receipts(progress) == receipts(silent)
