"""A study from proposal to last round: through refusals, silence, interruptions and lost attempts."""

import dataclasses
import shutil

import numpy as np
import pytest
from flwr.app import Context, Error, Message, RecordDict
from flwr.proto.message_pb2 import Message as Proto

from coterie.clients.deciding import Decision, decide
from coterie.clients.wire import encode_release, encode_task
from coterie.privacy.calibration import calibrate
from coterie.privacy.release import ConsentGiven
from coterie.server.app import server_app
from coterie.server.coordinator import Interrupted, run_study
from coterie.server.registry import Refusal, Registry
from coterie.server.rounds import StudyAborted
from coterie.simulations.engines.ray import node_configs
from coterie.tests.clients.federation import AT_ONCE, NAMES, Clients, Federation, Recorder, altered, study, today
from coterie.tests.clients.processes import Process, work

SHORT = {"metrics__rounds": (2,)}


def registry(federation):
    return Registry(federation.root / "coordinator").resume(federation.digest)


def charges(federation, name="amber"):
    return sorted((r.charge.step, r.charge.attempt) for r in federation.reservations(name))


def same(one, other):
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def copied(federation, name):
    return Federation(shutil.copytree(federation.root, federation.root.with_name(name)), federation.plan)


EVERY_STEP = [("evaluate/1", 1), ("evaluate/2", 1), ("train/1", 1), ("train/2", 1)]


# --- a study that goes well ---------------------------------------------------------------------------------


def test_a_study_publishes_every_round_and_charges_each_once(federation):
    progress = federation.run()
    assert (progress.round, progress.refusals) == (2, ())
    assert {round_: set(by) for round_, by in progress.histograms.items()} == {1: set(NAMES), 2: set(NAMES)}
    assert list(Registry(federation.root / "coordinator").published()) == [1, 2]
    assert same(registry(federation).weights, progress.weights)
    for name in NAMES:
        assert charges(federation, name) == EVERY_STEP


def test_a_round_is_the_mean_of_what_the_partners_released(federation):
    grid = federation.grid()
    progress = federation.run(grid)
    first = Registry(federation.root / "coordinator").published()[1]
    updates = {name: federation.train(name).arrays for name in NAMES}  # the same bytes again
    start = federation.weights()
    for place, array in enumerate(first):
        expected = start[place] + np.mean([updates[name][place] for name in NAMES], axis=0, dtype=np.float64)
        np.testing.assert_allclose(array, expected, rtol=1e-6)
    assert not same(first, progress.weights)


def test_an_unequal_roster_is_weighted_by_what_it_declared(tmp_path):
    partners = tuple(
        dataclasses.replace(partner, customers=size)
        for partner, size in zip(study().partners, (100, 200, 700), strict=True)
    )
    federation = Federation(tmp_path, study(partners=partners, training__rounds=1, metrics__rounds=(1,)))
    progress = federation.run()
    updates = [federation.train(name).arrays[0].astype(np.float64) for name in NAMES]
    expected = 0.1 * updates[0] + 0.2 * updates[1] + 0.7 * updates[2]
    np.testing.assert_allclose(progress.weights[0], expected, rtol=1e-6)


def test_fedadam_keeps_its_moments_over_an_interruption(tmp_path):
    federation = Federation(
        tmp_path / "one", study(training__server="fedadam", training__server_learning_rate=0.1, **SHORT)
    )
    other = copied(federation, "other")
    whole = federation.run()
    with pytest.raises(Interrupted):
        other.run(stop=lambda: registry(other) is not None and registry(other).round == 1)
    again = other.run()
    assert same(again.weights, whole.weights)
    assert same(again.adam.second, whole.adam.second)
    assert whole.adam.second[0].any()


def test_every_node_is_asked_for_consent_and_only_partners_for_work(federation):
    federation.policy("cedar", purposes=["churn"])
    grid = federation.grid()
    federation.run(grid)
    asked = [Proto.FromString(wire).metadata for wire in grid.passed]
    asked = [(m.dst_node_id, m.message_type) for m in asked if m.dst_node_id >= 1000]
    assert {node for node, kind in asked if kind == "query.propose"} == {1000, 1001, 1002}
    assert {node for node, kind in asked if kind != "query.propose"} == {1000, 1001}


# --- partners that do not take part -------------------------------------------------------------------------


def test_one_partner_that_refuses_is_named_and_the_others_go_on(federation):
    federation.policy("birch", purposes=["churn"], families=["mlp"])
    progress = federation.run()
    assert progress.round == 2
    assert progress.refusals == (
        Refusal("node 1001", "consent", 0, "family"),
        Refusal("node 1001", "consent", 0, "purpose"),
    )
    assert set(progress.histograms[2]) == {"amber", "cedar"}
    assert charges(federation, "birch") == []


def test_below_the_threshold_no_study_begins_and_the_refusals_are_kept(federation):
    for name in ("birch", "cedar"):
        federation.policy(name, purposes=["churn"])
    with pytest.raises(StudyAborted, match="while proposed"):
        federation.run()
    kept = registry(federation)
    assert kept.round == 0
    assert [(r.partner, r.code) for r in kept.refusals] == [("node 1001", "purpose"), ("node 1002", "purpose")]
    assert charges(federation, "amber") == []


def test_a_round_below_the_threshold_ends_the_study_and_keeps_what_was_published(federation):
    def lose_two(seen):
        if (seen.what, seen.round) == ("published", 1):
            for name in ("birch", "cedar"):
                federation.lose(name)

    with pytest.raises(StudyAborted, match="while training"):
        federation.run(show=lose_two)
    kept = registry(federation)
    assert kept.round == 1
    assert kept.refusals == (
        Refusal("birch", "train", 2, "unavailable"),
        Refusal("cedar", "train", 2, "unavailable"),
    )
    for name in ("birch", "cedar"):
        federation.find(name)
        federation.workspace(name).approve(federation.plan.contract)  # the operator looked
    again = federation.run()
    assert again.round == 2
    assert again.refusals == kept.refusals
    for name in NAMES:
        assert charges(federation, name) == EVERY_STEP


def test_a_partner_that_is_silent_from_the_first_is_left_out(federation):
    grid = federation.grid()
    grid.deaf = {federation.node_id(grid, "cedar")}
    progress = federation.run(grid)
    assert progress.round == 2
    assert progress.refusals == (Refusal("node 1002", "consent", 0, "silent"),)


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_partner_gone_silent_is_named_and_the_others_go_on(federation, rounds):
    grid = federation.grid()

    def goes(seen):
        if (seen.what, seen.round) == ("consents", 0) if rounds == 1 else (seen.what, seen.round) == ("published", 1):
            grid.deaf = {federation.node_id(grid, "cedar")}

    progress = federation.run(grid, show=goes)
    assert progress.round == 2
    assert {(r.partner, r.code) for r in progress.refusals} == {("cedar", "silent")}
    silent = {(step, round_) for step in ("train", "evaluate") for round_ in range(rounds, 3)}
    assert {(r.step, r.round) for r in progress.refusals} == silent | {("close", 2)}


def test_fewer_nodes_than_partners_are_waited_for_only_so_long(federation):
    grid = federation.grid()
    del grid._contexts[federation.node_id(grid, "cedar")]
    assert federation.run(grid).round == 2


def test_an_error_of_flowers_own_counts_as_silence(federation):
    def crashed(message, context):
        raise RuntimeError("canary-text")

    app = federation.app()
    grid = federation.grid(
        Clients(app, cedar=lambda m, c: crashed(m, c) if m.metadata.message_type == "train" else app(m, c))
    )
    progress = federation.run(grid)
    assert {(r.partner, r.step, r.code, r.why) for r in progress.refusals} == {("cedar", "train", "silent", "")}


def test_a_node_that_answers_a_plan_with_something_else_is_named(federation):
    federation.propose("amber")
    update = federation.train("amber")
    app = federation.app()
    for content in (encode_release(update), encode_task(federation.task()), RecordDict()):
        client = altered(app, lambda reply, c=content: c, ("query.propose",))
        progress = federation.run(federation.grid(Clients(app, cedar=client)))
        assert ("node 1002", "consent", "rejected") in {(r.partner, r.step, r.code) for r in progress.refusals}


def test_a_consent_forged_in_a_partners_name_is_named_and_keeps_nobody_out(federation):
    forged = encode_release(ConsentGiven(federation.digest, "birch", bytes(64)))
    app = federation.app()
    client = altered(app, lambda reply: forged, ("query.propose",))
    progress = federation.run(federation.grid(Clients(app, amber=client)))
    assert progress.refusals == (
        Refusal("node 1000", "consent", 0, "rejected", "does not verify under the pinned key"),
    )
    assert set(progress.histograms[2]) == {"birch", "cedar"}


# --- interruptions ------------------------------------------------------------------------------------------


def test_a_study_stopped_before_its_first_round_has_charged_nothing(federation):
    with pytest.raises(Interrupted, match="go on with --resume"):
        federation.run(stop=lambda: True)
    assert registry(federation).round == 0
    assert charges(federation) == []


def test_a_study_stopped_and_resumed_ends_like_one_that_was_not(federation):
    other = copied(federation, "other")
    whole = federation.run()
    rounds = []
    with pytest.raises(Interrupted):
        other.run(stop=lambda: len(rounds) == 1, show=lambda s: rounds.append(1) if s.what == "published" else None)
    assert registry(other).round == 1
    again = other.run()
    assert same(again.weights, whole.weights)
    for round_ in (1, 2):
        for name in NAMES:
            assert np.array_equal(again.histograms[round_][name], whole.histograms[round_][name])
            assert charges(other, name) == EVERY_STEP


class Crash(Exception):
    """The coordinator's process is gone."""


@pytest.mark.parametrize("place", range(0, 18, 3))
def test_a_coordinator_that_dies_anywhere_goes_on_and_no_partner_pays_twice(tmp_path, place):
    federation = Federation(tmp_path / "one")
    other = copied(federation, "other")
    whole = federation.run()
    seen = []

    def dies(what):
        if len(seen) == place:
            raise Crash
        seen.append(what)

    with pytest.raises(Crash):
        other.run(show=dies)
    again = other.run()
    assert same(again.weights, whole.weights)
    for name in NAMES:
        assert charges(other, name) == EVERY_STEP
        for round_ in (1, 2):
            assert np.array_equal(again.histograms[round_][name], whole.histograms[round_][name])


def test_a_finished_study_costs_nothing_more_when_it_is_run_again(federation):
    first = federation.run()
    ledgers = {name: federation.reservations(name) for name in NAMES}
    again = federation.run()
    assert same(again.weights, first.weights)
    assert {name: federation.reservations(name) for name in NAMES} == ledgers


# --- attempts that were lost ----------------------------------------------------------------------------------


def killed_while_training(federation, plan):
    """Let amber's process be killed after it has paid and before it has answered."""
    federation.propose("amber")
    whole = Process(work, copied(federation, "whole").root, plan, "train", None)
    before, after = 1, whole.heard()[-1]  # lines at which nothing is paid yet, and all is answered
    while True:
        line = (before + after) // 2
        trial = copied(federation, f"trial-{line}")
        Process(work, trial.root, plan, "train", line).heard()
        held = trial.reservations()
        if held and held[0].settled is None:
            return trial
        assert after - before > 1, "no line was found between reservation and settlement"
        before, after = (before, line) if held else (line, after)


def test_a_lost_attempt_without_a_spare_leaves_the_round_to_the_others(tmp_path):
    federation = Federation(tmp_path / "one", study(**SHORT))
    hurt = killed_while_training(federation, study(**SHORT))
    progress = hurt.run()
    assert progress.round == 2
    assert progress.refusals == (Refusal("amber", "train", 1, "lost"),)
    # The lost attempt took one of the two updates that were declared; the other is spent in round 2.
    assert charges(hurt) == [("evaluate/2", 1), ("train/1", 1), ("train/2", 1)]


def test_a_lost_attempt_with_a_spare_is_asked_for_again_and_charged_in_full(tmp_path):
    plan = study(training__spare=1, **SHORT)
    hurt = killed_while_training(Federation(tmp_path / "one", plan), plan)
    progress = hurt.run()
    assert (progress.round, progress.refusals) == (2, ())
    assert charges(hurt) == [("evaluate/2", 1), ("train/1", 1), ("train/1", 2), ("train/2", 1)]
    declared = calibrate(plan).updates
    assert len([charge for charge in charges(hurt) if charge[0].startswith("train")]) == declared == 3


# --- the app ------------------------------------------------------------------------------------------------


def test_the_app_hands_over_the_end_or_the_reason(federation):
    done, failed = [], []
    app = server_app(
        federation.signed,
        federation.places(),
        patience=AT_ONCE,
        show=lambda _: None,
        stop=lambda: False,
        done=done.append,
        failed=failed.append,
    )
    context = Context(1, 1, {}, RecordDict(), {})
    app(grid=federation.grid(), context=context)
    assert (done[0].round, failed) == (2, [])
    for name in NAMES:
        federation.policy(name, purposes=["churn"])
    app(grid=federation.grid(), context=context)
    assert len(done) == 1
    assert isinstance(failed[0], StudyAborted)


def test_what_is_shown_is_names_and_rounds(federation):
    shown = []
    federation.run(show=shown.append)
    assert {seen.what for seen in shown} == {"consents", "reply", "published", "measured"}
    assert {seen.partner for seen in shown} <= {"", *NAMES, "node 1000", "node 1001", "node 1002"}
    assert [seen.round for seen in shown if seen.what == "published"] == [1, 2]


def test_a_study_of_another_plan_in_the_same_folder_is_not_mixed_up(federation):
    federation.run()
    with pytest.raises(Exception, match="belongs to another plan"):
        run_study(
            federation.grid(),
            federation.sign(name="autumn"),
            federation.places(),
            patience=AT_ONCE,
            show=lambda _: None,
            stop=lambda: False,
        )


# --- operators that are to approve ------------------------------------------------------------------------------


def patiently(federation, grid, *, approving, show=lambda _: None, stop=lambda: False, nodes=None, **changes):
    """Run a study whose coordinator waits for operators."""
    patience = dataclasses.replace(AT_ONCE, approving=approving, proposing=0.01, **changes)
    return run_study(grid, federation.signed, federation.places(), patience=patience, show=show, stop=stop, nodes=nodes)


def proposals(grid, node):
    """How often a plan went to a node."""
    asked = [Proto.FromString(wire).metadata for wire in grid.passed]
    return len([m for m in asked if (m.dst_node_id, m.message_type) == (node, "query.propose")])


@pytest.fixture
def cautious(federation):
    """A federation in which one operator approves every plan by hand."""
    federation.policy("cedar", approval=None)
    return federation


def approve(federation, word="approved"):
    return decide(federation.folders["cedar"], federation.digest, Decision(word), clock=today)


def test_a_plan_is_proposed_again_until_the_operator_has_approved_it(cautious):
    grid, waited = cautious.grid(), []

    def seen(what):
        if what.what == "awaiting":
            waited.append(proposals(grid, 1002))
            if len(waited) == 3:
                approve(cautious)

    progress = patiently(cautious, grid, approving=1000.0, show=seen)
    assert (progress.round, progress.refusals) == (2, ())
    assert waited == [1, 2, 3]
    assert proposals(grid, 1002) == 4
    assert [proposals(grid, node) for node in (1000, 1001)] == [1, 1]  # who has consented is not asked again
    assert set(progress.histograms[2]) == set(NAMES)
    assert charges(cautious, "cedar") == EVERY_STEP


def test_an_operator_that_declines_is_waited_for_no_longer(cautious):
    grid = cautious.grid()
    progress = patiently(
        cautious, grid, approving=1000.0, show=lambda s: s.what == "awaiting" and approve(cautious, "declined")
    )
    assert Refusal("node 1002", "consent", 0, "declined") in progress.refusals
    assert set(progress.histograms[2]) == {"amber", "birch"}
    assert charges(cautious, "cedar") == []


def test_an_operator_that_has_not_decided_in_time_is_named_and_the_others_go_on(cautious):
    progress = patiently(cautious, cautious.grid(), approving=0.3)
    assert Refusal("node 1002", "consent", 0, "awaiting") in progress.refusals
    assert set(progress.histograms[2]) == {"amber", "birch"}


def test_without_time_for_operators_a_plan_is_proposed_once(cautious):
    grid = cautious.grid()
    progress = cautious.run(grid)
    assert Refusal("node 1002", "consent", 0, "awaiting") in progress.refusals
    assert proposals(grid, 1002) == 1


def test_a_study_that_is_stopped_while_it_waits_for_operators_ends_at_once(cautious):
    waiting = []
    with pytest.raises(Interrupted):
        patiently(
            cautious,
            cautious.grid(),
            approving=1000.0,
            show=lambda s: waiting.append(s.what),
            stop=lambda: "awaiting" in waiting,
        )
    assert waiting.count("awaiting") == 1
    assert registry(cautious) is None  # nothing was begun
    assert charges(cautious) == []


def test_partners_that_come_online_while_operators_think_are_asked_too(cautious):
    grid, online = cautious.grid(), [1000, 1002]

    def seen(what):
        if what.what == "awaiting" and 1001 not in online:
            online.append(1001)
        elif what.what == "awaiting" and proposals(grid, 1001):
            approve(cautious)

    progress = patiently(cautious, grid, approving=1000.0, show=seen, nodes=lambda: online, gathering=0.0)
    assert set(progress.histograms[2]) == set(NAMES)


def test_nodes_that_are_not_the_plans_partners_are_never_asked(federation):
    grid = federation.grid()
    progress = patiently(federation, grid, approving=0.0, nodes=lambda: [1000, 1001])
    assert {Proto.FromString(wire).metadata.dst_node_id for wire in grid.passed} & {1002} == set()
    assert progress.round == 2


# --- partners that went away ------------------------------------------------------------------------------------


class Away(Recorder):
    """A grid on which some nodes are offline: they hear nothing, and are not listed."""

    def __init__(self, *args):
        super().__init__(*args)
        self.asked = []

    def get_node_ids(self):
        return [node for node in super().get_node_ids() if node not in self.deaf]

    def push_messages(self, messages):
        messages = list(messages)
        self.asked += [(m.dst_node_id, m.message_type) for m in (one.metadata for one in messages)]
        return super().push_messages(messages)


AGAIN = {"again": 1000.0}


def went(federation, comes_back):
    """Run a study in which cedar is away from round 1 on, and back for round 2 or not; return what it was asked."""
    grid = Away(federation.app(), node_configs(NAMES))

    def seen(what):
        if (what.what, what.round) == ("consents", 0):
            grid.deaf = {1002}
        if (what.what, what.round) == ("published", 1) and comes_back:
            grid.deaf = set()

    progress = patiently(federation, grid, approving=0.0, show=seen, **AGAIN)
    return progress, [kind for node, kind in grid.asked if node == 1002]


def test_a_partner_that_was_silent_and_is_offline_is_asked_no_more(federation):
    progress, asked = went(federation, comes_back=False)
    assert progress.round == 2
    assert asked == ["query.propose", "train"]
    silent = {(r.partner, r.step, r.round) for r in progress.refusals if r.code == "silent"}
    assert {("cedar", "train", 1), ("cedar", "evaluate", 1), ("cedar", "train", 2)} <= silent


def test_a_partner_that_was_silent_and_is_back_is_asked_again(federation):
    progress, asked = went(federation, comes_back=True)
    assert asked[:3] == ["query.propose", "train", "train"]
    assert set(progress.histograms[2]) == set(NAMES)
    assert ("train/2", 1) in charges(federation, "cedar")


def test_a_partner_with_another_version_is_named_as_that(federation):
    app = federation.app()
    other = Clients(app, cedar=lambda m, c: Message(Error(code=7, reason="The FAB could not be verified."), reply_to=m))
    progress = patiently(federation, federation.grid(other), approving=0.0, **AGAIN)
    assert (
        Refusal("node 1002", "consent", 0, "rejected", "the partner runs another version of coterie")
        in progress.refusals
    )
    assert progress.round == 2
