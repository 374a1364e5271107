"""Secure sums over a grid that loses, doubles, delays, cuts, bends and replays messages: right sums, or none.

Each schedule is made from its number alone. Its oracle knows nothing of masks: the vectors are taken before they are
masked, and added as whole numbers of any size.
"""

import dataclasses
import hashlib
import itertools
import random
import shutil

import pytest
from flwr.app import Array, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict

from coterie.clients.wire import decode_release, split_head, split_witness
from coterie.privacy.calibration import calibrate
from coterie.privacy.release import release_digest
from coterie.privacy.secagg.messages import DealtShares, MaskedVector, RevealedShares
from coterie.server.coordinator import run_study
from coterie.server.registry import Registry
from coterie.server.rounds import StudyAborted
from coterie.simulations.engines.local import LocalGrid
from coterie.simulations.engines.ray import node_configs
from coterie.tests.clients.federation import AT_ONCE, MORE, Federation, secure_study, table_of
from coterie.tests.clients.summing import Ears, quick_folder

PLAN = secure_study(training__rounds=1, metrics__rounds=(1,), training__spare=1)
# How often an undisturbed study asks one partner each question.
ASKED = {"query.keys": 2, "query.deal": 2, "train": 2, "evaluate": 1, "query.sign": 3, "query.reveal": 3}
FAULTS = ("lost", "doubled", "delayed", "cut", "bent", "replayed", "foreign")
CASES = tuple(itertools.product(ASKED, ("question", "answer"), FAULTS))
FAST, MANY = 36, 1008


@dataclasses.dataclass
class Hit:
    """One message that is hit."""

    kind: str
    way: str
    fault: str
    node: int
    turn: int
    struck: bool = False


def schedule(number):
    """Return the hits of a schedule: every case comes in turn; from two thirds of the many on, two at once."""
    rng = random.Random(number)  # noqa: S311
    order = random.Random("order").sample(CASES, len(CASES))  # noqa: S311
    chosen = [order[number % len(order)]]
    if number >= MANY * 2 // 3 or number % 10 == 9:
        chosen.append(rng.choice(CASES))
    hits = []
    for kind, way, fault in chosen:
        first = 2 if fault == "replayed" and ASKED[kind] > 1 else 1
        hits.append(Hit(kind, way, fault, 1000 + rng.randrange(4), rng.randint(first, ASKED[kind])))
    return hits, rng


def parsed(wire):
    """Return a message's content as it arrives, or None where it does not arrive as one."""
    try:
        return recorddict_from_proto(ProtoRecordDict.FromString(wire))
    except Exception:  # noqa: BLE001 - Flower's own readers fail in many ways
        return None


def copy_of(content):
    return parsed(recorddict_to_proto(content).SerializeToString())


def damaged(content, rng, change):
    """Change the bytes of the whole, or of one text or array in it."""
    content = copy_of(content)
    places = [(record, key) for record in content.values() for key in record]
    if rng.random() < 0.3 or not places:
        return parsed(change(recorddict_to_proto(content).SerializeToString()))
    record, key = rng.choice(places)
    value = record[key]
    if isinstance(value, Array):
        record[key] = Array(value.dtype, tuple(value.shape), value.stype, change(value.data))
    elif isinstance(value, str):
        try:
            record[key] = change(value.encode()).decode()
        except UnicodeDecodeError:
            return None
    else:
        record[key] = int(value) ^ 1
    return content


def cutter(rng):
    return lambda data: data[: rng.randrange(len(data))] if data else data


def bender(rng):
    def change(data):
        if not data:
            return data
        place = rng.randrange(len(data))
        return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]

    return change


class FaultyGrid(LocalGrid):
    """A grid that does to some messages what networks, and their owners, do."""

    def __init__(self, federation, hits=(), *, rng=None, foreign=None):
        super().__init__(federation.app(), node_configs(federation.names))
        self.hits, self.rng, self.foreign = hits, rng, foreign or {}
        self.turns, self.late = {}, {}
        self.asked, self.left = [], []  # (kind, node, content): what was asked, and what truly left the partners

    def pull_messages(self, message_ids):
        for message_id in list(message_ids):
            message = self._sent.pop(message_id, None)
            if message is not None:
                yield from self._through(message)

    def _through(self, message):
        node, kind = message.metadata.dst_node_id, message.metadata.message_type
        turn = self.turns[node, kind] = self.turns.get((node, kind), 0) + 1
        hit = {h.way: h for h in self.hits if (h.kind, h.node, h.turn) == (kind, node, turn)}
        for held in self.late.pop(node, []):
            yield held if held.has_content() and held.metadata.reply_to_message_id else self._deliver(held)
        question = hit.get("question")
        if question:
            question.struck = True
            yield from self._hit_question(message, question)
        elif "answer" in hit:
            hit["answer"].struck = True
            yield from self._hit_answer(self._deliver(message), hit["answer"])
        else:
            yield self._deliver(message)

    def _hit_question(self, message, hit):
        if hit.fault == "lost":
            return
        if hit.fault == "delayed":
            self.late.setdefault(hit.node, []).append(message)
            return
        if hit.fault == "doubled":
            first, again = self._deliver(message), self._deliver(message)
            if not first.has_error():
                assert not again.has_error(), again.error
                assert told(first) == told(again)  # the same question, the same bytes
            yield again
            return
        content = self._other(message.content, hit, self.asked, split_witness)
        if content is not None:
            message.content = content
            yield self._deliver(message)

    def _hit_answer(self, reply, hit):
        if hit.fault == "lost":
            return
        if hit.fault == "delayed":
            self.late.setdefault(hit.node, []).append(reply)
        elif hit.fault == "doubled":
            yield reply
            yield reply
        elif not reply.has_error():
            content = self._other(reply.content, hit, self.left, split_head)
            if content is not None:
                reply.content = content
                yield reply
        else:
            yield reply

    def _other(self, content, hit, earlier, split):
        """Return what comes in a content's place, or None for nothing."""
        if hit.fault == "cut":
            return damaged(content, self.rng, cutter(self.rng))
        if hit.fault == "bent":
            return damaged(content, self.rng, bender(self.rng))
        if hit.fault == "foreign":
            other = self.foreign[hit.way, hit.kind, hit.node, hit.turn]
        else:
            mine = [(kind, old) for kind, node, old in earlier if node == hit.node and old is not content]
            alike = [old for kind, old in mine if kind == hit.kind]
            before = alike[:-1] if earlier is self.left else alike
            other = self.rng.choice(before or [old for _, old in mine])
        if self.rng.random() < 0.5:
            return copy_of(other)
        # The checkpoint of now beside the message of then: it is the message itself that must be seen through.
        now = {name: record for name, record in content.items() if name in {"witness", "head"}}
        return copy_of(RecordDict({**split(other)[1], **now}))

    def _deliver(self, message):
        node, kind = message.metadata.dst_node_id, message.metadata.message_type
        self.asked.append((kind, node, copy_of(message.content)))
        reply = self._answer(message)
        if not reply.has_error():
            self.left.append((kind, node, copy_of(reply.content)))
        return reply


def told(reply):
    return recorddict_to_proto(split_head(reply.content)[1]).SerializeToString(deterministic=True)


@pytest.fixture(scope="module")
def ground():
    with quick_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def start(ground):
    """A federation that agreed to two studies, and every message of the other one."""
    tables = {name: table_of(name, 60) for name in MORE[:4]}
    federation = Federation(ground / "start", PLAN, tables)
    other = federation.sign(name="autumn")
    for name in federation.names:
        federation.propose(name)
        federation.propose(name, other.to_bytes())
    there = Federation(shutil.copytree(federation.root, ground / "there"), PLAN)
    grid = FaultyGrid(there)
    places = (Registry(ground / "elsewhere"), there.witness())
    run_study(grid, other, places, patience=AT_ONCE, show=lambda _: None, stop=lambda: False)
    foreign = {}
    for way, messages in (("question", grid.asked), ("answer", grid.left)):
        for kind, node, content in messages:
            turn = sum(key[:3] == (way, kind, node) for key in foreign) + 1
            foreign[way, kind, node, turn] = content
    return federation, foreign


def releases(federation, grid):
    """Return what truly left the partners, by partner."""
    event = calibrate(federation.plan).update
    names = dict(zip(grid.get_node_ids(), federation.names, strict=True))
    found = []
    for _, node, content in grid.left:
        if "release" in content:
            release = decode_release(split_head(content)[1], summed=event)
            found.append((names[node], release))
    return found


def check_shares(left):
    """Of no partner's step both leaves were revealed, by whomever."""
    dealt = {(d.plan, d.epoch, d.partner): d for _, d in left if isinstance(d, DealtShares)}
    kinds = {}
    for _, one in left:
        if isinstance(one, RevealedShares):
            for share in one.arrays[0]:
                digest = hashlib.sha256(share.tobytes()).digest()
                known = [
                    (dealer, step, leaf)
                    for (plan, epoch, dealer), d in dealt.items()
                    if (plan, epoch) == (one.plan, one.epoch)
                    for holder, step, leaf in itertools.product(*map(range, d.arrays[1].shape[:3]))
                    if d.arrays[1][holder, step, leaf].tobytes() == digest
                ]
                assert len(known) == 1, "a share that nobody dealt"
                dealer, step, leaf = known[0]
                kinds.setdefault((one.plan, one.epoch, dealer, step), set()).add(leaf)
    assert all(len(leaves) == 1 for leaves in kinds.values())
    return kinds


def check_charges(federation, left):
    """Every masked vector that left is charged, one for a charge, and no more than were declared."""
    mechanisms = calibrate(federation.plan)
    for name in federation.names:
        held = federation.reservations(name)
        settled = [r.settled for r in held if r.settled]
        vectors = {release_digest(r) for who, r in left if who == name and isinstance(r, MaskedVector)}
        assert vectors <= set(settled)
        assert len(settled) == len(set(settled))
        charges = [r.charge for r in held if r.charge.plan == federation.digest]
        assert all(c.event == (mechanisms.update if c.group == "training" else mechanisms.histogram) for c in charges)
        assert sum(c.group == "training" for c in charges) <= mechanisms.updates
        assert sum(c.group == "holdout" for c in charges) <= mechanisms.histograms


def go(start, folder, number):
    """Run one schedule, hold it to the oracle, and return what became of it."""
    template, foreign = start
    federation = Federation(shutil.copytree(template.root, folder), PLAN)
    hits, rng = schedule(number)
    grid = FaultyGrid(federation, hits, rng=rng, foreign=foreign)
    progress = None
    with Ears().listening() as ears:
        try:
            progress = federation.run(grid)
        except StudyAborted:
            assert len(hits) > 1, "one hit at one partner ends no study of four that opens with three"
    ears.check()
    left = releases(federation, grid)
    check_shares(left)
    check_charges(federation, left)
    if progress is not None:
        assert (progress.round, progress.step) == (1, 2)
        used = {(r.partner, r.step, r.attempt, r.release) for r in progress.receipts}
        opened = {(m.partner, m.step, m.attempt, release_digest(m)) for _, ms, _, _ in ears.sums for m in ms.values()}
        assert used == opened
    named = {r.partner for r in (progress.refusals if progress else ())}
    shutil.rmtree(folder)
    return hits, progress, named, len(ears.sums)


@pytest.mark.parametrize("number", range(FAST))
def test_a_sum_is_the_plain_sum_or_none_whatever_happens_to_a_message(start, ground, number):
    hits, progress, named, sums = go(start, ground / f"fast-{number}", number)
    assert any(hit.struck for hit in hits)
    if len(hits) == 1:
        assert progress is not None
        assert sums >= 2
        hurt = MORE[hits[0].node - 1000]
        assert named <= {hurt}
        if hits[0].fault in {"lost", "delayed", "foreign"}:
            assert named == {hurt}
        if hits[0].fault == "doubled":
            assert named == set()


@pytest.mark.slow
def test_a_thousand_schedules(start, ground):
    ended, sums, struck, loud = {"whole": 0, "aborted": 0}, 0, 0, 0
    for number in range(MANY):
        hits, progress, named, opened = go(start, ground / f"many-{number}", number)
        ended["aborted" if progress is None else "whole"] += 1
        sums += opened
        struck += sum(hit.struck for hit in hits)
        loud += bool(named)
    assert ended["whole"] >= MANY * 0.9
    assert sums > 2 * MANY
    assert struck >= MANY * 0.95
    assert loud > MANY / 2


def test_the_cases_are_all_in_the_many_and_most_in_the_fast():
    def met(count):
        return {(h.kind, h.way, h.fault) for n in range(count) for h in schedule(n)[0]}

    assert met(MANY) == set(CASES)
    assert len(met(FAST)) >= FAST
    assert {fault for _, _, fault in met(FAST)} == set(FAULTS)
    assert {(kind, way) for kind, way, _ in met(FAST)} == set(itertools.product(ASKED, ("question", "answer")))


def test_an_undisturbed_study_asks_as_often_as_the_schedules_think(start, ground):
    federation = Federation(shutil.copytree(start[0].root, ground / "quiet"), PLAN)
    grid = FaultyGrid(federation)
    with Ears().listening() as ears:
        progress = federation.run(grid)
    assert progress.refusals == ()
    for node in grid.get_node_ids():
        assert {kind: grid.turns[node, kind] for kind in ASKED} == ASKED
    ears.check()
    assert len(ears.sums) == 3
    left = releases(federation, grid)
    assert {type(release).kind for _, release in left} >= {"round-keys", "dealt-shares", "masked-vector"}
    assert len(check_shares(left)) == 3 * 4
