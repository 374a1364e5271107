"""The catalogue of bad replies: what a partner that is broken, or means harm, answers instead of what it was asked for.

Each is a function of a `Scene`, the moment of answering, and returns what comes instead: the records of a reply, an
error, a message, or any number of messages. `BadGrid` carries it, through Flower's own wire format.

Imported as `coterie.tests.server.badreplies`.
"""

import dataclasses
import hashlib
import io
import json
import shutil

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto, recorddict_to_proto
from flwr.proto.message_pb2 import Message as Proto

from coterie.clients.wire import decode_release, encode_release, split_head, with_head
from coterie.privacy.calibration import Mechanisms, calibrate
from coterie.privacy.checkpoint import noted_size, sign_checkpoint
from coterie.privacy.events import DistributedGaussian
from coterie.privacy.identity import Identity
from coterie.privacy.release import ConsentGiven, LedgerHead, ModelReceived, PartnerSum, Refused
from coterie.simulations.engines.local import LocalGrid
from coterie.simulations.engines.ray import node_configs

CANARY = "canary-4711"


@dataclasses.dataclass(frozen=True)
class Scene:
    """The moment at which a partner answers.

    Args:
        question: What it was asked.
        reply: What it honestly answers.
        before: Its honest answer to the same question a round earlier; None in the first.
        neighbours: Other partners' honest answers to this question, with the messages that asked for them.
        identity: Its own key.
        other: A neighbour's key.
        mechanisms: The plan's events.
    """

    question: Message
    reply: Message
    before: RecordDict | None
    neighbours: tuple[tuple[Message, Message], ...]
    identity: Identity
    other: Identity
    mechanisms: Mechanisms

    @property
    def head(self) -> LedgerHead:
        return split_head(self.reply.content)[0]

    @property
    def content(self) -> RecordDict:
        """Its honest answer without the checkpoint."""
        return split_head(self.reply.content)[1]

    @property
    def release(self):
        made = self.mechanisms
        if isinstance(made.update, DistributedGaussian):
            return decode_release(self.content, summed=made.update)
        return decode_release(self.content, update=made.update, histogram=made.histogram)

    def beside(self, content: RecordDict) -> RecordDict:
        """Other records beside the checkpoint that it honestly shows."""
        return with_head(content, self.head) if self.head else content


class BadGrid(LocalGrid):
    """A grid on which one partner's answers to one kind of question are replaced in some rounds.

    Args:
        federation: Whose nodes answer.
        instead: From a scene to what comes instead; None for an honest partner.
        kind: The question's message type.
        rounds: By what the coordinator calls them; "" for a proposal.
        partner: Who misbehaves; somebody must come before it by name.
        before: Its honest answers of an earlier run, by kind and round.
        memory: What nodes answered in runs from the same workspaces, by all that they had been asked till then, and
            their workspaces as they were afterwards; None asks every node anew.
    """

    def __init__(
        self, federation, instead=None, *, kind="train", rounds=("2",), partner="cedar", before=None, memory=None
    ):
        super().__init__(federation.app(), node_configs(federation.names))
        self.federation, self.instead, self.partner = federation, instead, partner
        self.memory = memory
        self._asked, self._behind = {}, set()  # a digest of all that a node was asked; who has not been asked itself
        self.kind, self.rounds = kind, rounds
        self.left = dict(before or {})  # honest answers of the partner, by kind and round
        self.struck = 0
        self._heard = {}

    def pull_messages(self, message_ids):
        for message_id in list(message_ids):
            message = self._sent.pop(message_id, None)
            if message is not None:
                yield from self._through(message, travelled(self._answer(message)))

    def _answer(self, message):
        """Answer as in an earlier run in which the node had been asked the very same; else ask it, where it stood."""
        node, metadata = message.metadata.dst_node_id, message.metadata
        asked = self._asked.get(node, "")
        question = recorddict_to_proto(message.content).SerializeToString(deterministic=True)
        for part in (metadata.message_type.encode(), metadata.group_id.encode(), question):
            asked = hashlib.sha256(asked.encode() + hashlib.sha256(part).digest()).hexdigest()
        before, self._asked[node] = self._asked.get(node, ""), asked
        if self.memory is None:
            return super()._answer(message)
        if (node, asked) in self.memory:
            self._behind.add(node)
            return again(self.memory[node, asked][0], message)
        folder = self.federation.folders[self.federation.names[self.get_node_ids().index(node)]]
        if node in self._behind:
            shutil.rmtree(folder)
            shutil.copytree(self.memory[node, before][1], folder)
            self._behind.remove(node)
        reply = super()._answer(message)
        kept = shutil.copytree(
            folder, self.federation.root.with_name(f"kept-{self.federation.root.name}-{node}-{asked}")
        )
        self.memory[node, asked] = message_to_proto(reply).SerializeToString(), kept
        return reply

    def _through(self, message, reply):
        kind, round_ = message.metadata.message_type, message.metadata.group_id
        if message.metadata.dst_node_id != self.federation.node_id(self, self.partner):
            # A copy: the coordinator takes the checkpoint off what it was given.
            self._heard.setdefault((kind, round_), []).append((message, travelled(reply)))
            yield reply
            return
        if not reply.has_error():
            self.left[kind, round_] = travelled(reply).content
        if self.instead is None or kind != self.kind or round_ not in self.rounds:
            yield reply
            return
        self.struck += 1
        before = self.left.get((kind, str(int(round_ or 0) - 1)))
        keys = [self.federation.workspace(name).identity for name in (self.partner, self.federation.names[0])]
        neighbours = tuple(self._heard.get((kind, round_), ()))
        scene = Scene(message, reply, before, neighbours, *keys, calibrate(self.federation.plan))
        made = self.instead(scene)
        for one in made if isinstance(made, list) else [made]:
            yield travelled(one if isinstance(one, Message) else Message(one, reply_to=message))


def travelled(message):
    """A message as it arrives."""
    return message_from_proto(Proto.FromString(message_to_proto(message).SerializeToString()))


def again(said, message):
    """What was answered to another message, as an answer to this one."""
    reply = message_from_proto(Proto.FromString(said))
    return Message(reply.error if reply.has_error() else reply.content, reply_to=message)


# --- ways to change an answer -----------------------------------------------------------------------------------------


def fields(**changes):
    """Fields of the release in other values; a function is given the release."""

    def instead(scene):
        made = {key: value(scene.release) if callable(value) else value for key, value in changes.items()}
        return scene.beside(encode_release(dataclasses.replace(scene.release, **made)))

    return instead


def arrays(change):
    """The release with other arrays."""
    return fields(arrays=lambda release: tuple(change([array.copy() for array in release.arrays])))


def first_number(value):
    """The release with one number in another's place."""

    def change(found):
        found[0].flat[2] = value
        return found

    return arrays(change)


def header(change):
    """The release's header as another text; `change` is given the honest one."""

    def instead(scene):
        content = scene.content
        content["release"]["header"] = change(content["release"]["header"])
        return scene.beside(content)

    return instead


def table(**changes):
    """The header with fields that are not of their types, or not there before; written canonically otherwise."""

    def change(text):
        return json.dumps({**json.loads(text), **changes}, sort_keys=True, separators=(",", ":"))

    return header(change)


def without(name):
    return header(lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != name}, sort_keys=True))


def config(**changes):
    """Other words around the release; None takes one away."""

    def instead(scene):
        content = scene.content
        for key, value in changes.items():
            if value is None:
                del content["release"][key]
            else:
                content["release"][key] = value
        return scene.beside(content)

    return instead


def bytes_of(change, name="0"):
    """One array in other bytes; Flower's own description of it stays."""

    def instead(scene):
        content = scene.content
        old = content["arrays"][name]
        data = change(old.data)
        content["arrays"][name] = data if isinstance(data, Array) else Array(old.dtype, old.shape, old.stype, data)
        return scene.beside(content)

    return instead


def typed(dtype, value=None):
    """The first array in another type, as numpy writes it."""

    def change(data):
        array = np.load(io.BytesIO(data))
        made = array.astype(dtype) if value is None else np.full(array.shape, value, dtype)
        return saved(made)

    return bytes_of(change)


def saved(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def claiming(shape, descr="<f4", *, fortran=False, body=None):
    """An array whose own header claims a shape and type; with the honest bytes after it."""

    def change(data):
        text = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
        honest = data[10 + int.from_bytes(data[8:10], "little") :] if body is None else body
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + honest

    return bytes_of(change)


def records(change):
    """Other records in the message."""
    return lambda scene: scene.beside(RecordDict(change(dict(scene.content))))


def release(make):
    """Another release altogether."""
    return lambda scene: scene.beside(encode_release(make(scene)))


def head(**changes):
    """The honest answer beside another checkpoint; a function is given the scene."""

    def instead(scene):
        made = {key: value(scene) if callable(value) else value for key, value in changes.items()}
        return with_head(scene.content, dataclasses.replace(scene.head, **made))

    return instead


def head_text(change):
    """The honest answer beside a checkpoint in another text."""

    def instead(scene):
        content = scene.reply.content
        content["head"]["header"] = change(content["head"]["header"])
        return content

    return instead


def noted(size=0, root=None, by="identity"):
    """A checkpoint so much longer than the honest one, truly signed."""
    return lambda scene: sign_checkpoint(noted_size(scene.head.note) + size, root or bytes(32), getattr(scene, by))


def error(reason, code=120):
    return lambda scene: Error(code=code, reason=reason)


def source(node):
    """The honest answer, said to come from another node."""

    def instead(scene):
        scene.reply.metadata.__dict__["_src_node_id"] = node
        return scene.reply

    return instead


def answering(message_id):
    """The honest answer, said to answer another question."""

    def instead(scene):
        scene.reply.metadata.__dict__["_reply_to_message_id"] = message_id
        return scene.reply

    return instead


def nothing(scene):
    """Silence."""
    return []


# --- what is refused by a rule ----------------------------------------------------------------------------------------

NUMBERS = {
    "NaN": first_number(np.nan),
    "infinity": first_number(np.inf),
    "minus infinity": first_number(-np.inf),
    "all NaN": arrays(lambda found: [np.full_like(one, np.nan) for one in found]),
    "a million times as much": arrays(lambda found: [one * np.float32(1e6) for one in found]),
    "a million times as much, turned round": arrays(lambda found: [one * np.float32(-1e6) for one in found]),
    "the greatest float32": first_number(np.finfo(np.float32).max),
}

SHAPES = {
    "one number for all": arrays(lambda found: [np.ones(1, np.float32), found[1]]),
    "a column": arrays(lambda found: [found[0].reshape(-1, 1), found[1]]),
    "flat": arrays(lambda found: [found[0].ravel(), found[1]]),
    "one number too few": arrays(lambda found: [found[0][:, :-1], found[1]]),
    "no dimension": arrays(lambda found: [found[0], found[1].reshape(())]),
    "a dimension more": arrays(lambda found: [found[0][None], found[1]]),
    "an array too few": arrays(lambda found: found[:1]),
    "an array too many": arrays(lambda found: [*found, found[1]]),
    "no arrays": arrays(lambda found: []),
    "arrays in another order": arrays(lambda found: found[::-1]),
    "five thousand arrays": arrays(lambda found: [*found, *[found[1]] * 5000]),
}

TYPES = {
    "int8": typed("i1"),
    "float16": typed("f2"),
    "float64": typed("f8"),
    "float64 beyond float32": typed("f8", 1e300),
    "whole numbers": typed("i8"),
    "big-endian": typed(">f4"),
    "complex": typed("c8"),
    "booleans": typed("?"),
    "pickled objects": typed("O"),
    "a structure": bytes_of(lambda data: saved(np.zeros((1, 7), [("a", "<f4")]))),
    "Fortran order": bytes_of(lambda data: data.replace(b"'fortran_order': False", b"'fortran_order': True ", 1)),
}

BYTES = {
    "cut short": bytes_of(lambda data: data[:-3]),
    "cut within the header": bytes_of(lambda data: data[:40]),
    "a byte too many": bytes_of(lambda data: data + b"\0"),
    "empty": bytes_of(lambda data: b""),
    "zeros": bytes_of(lambda data: bytes(len(data))),
    "numpy's second format": bytes_of(lambda data: data[:6] + b"\x02\x00" + data[8:]),
    "a shape of 2**40 numbers": claiming("(1099511627776,)"),
    "a shape of 2**40 empty rows": claiming("(1099511627776, 0)"),
    "a shape beyond all numbers": claiming("(" + "999999999999999999, " * 8 + ")"),
    "a negative shape": claiming("(-1, 7)"),
    "a shape that is code": claiming("(__import__('os').getpid(),)"),
    "a shape that is not its bytes'": claiming("(2, 7)"),
    "a lying length of its header": bytes_of(lambda data: data[:8] + b"\xff\xff" + data[10:]),
    "other names of arrays": records(
        lambda r: {**r, "arrays": ArrayRecord({"a": r["arrays"]["0"], "b": r["arrays"]["1"]})}
    ),
    "names of arrays in another order": records(
        lambda r: {**r, "arrays": ArrayRecord({name: r["arrays"][name] for name in ("1", "0")})}
    ),
}

KINDS = {
    "a consent": release(lambda scene: ConsentGiven(scene.release.plan, "cedar", bytes(64))),
    "a refusal without an error": release(lambda scene: Refused(scene.release.plan, ("budget",))),
    "a refusal with a word of its own": release(lambda scene: Refused(scene.release.plan, (CANARY,))),
    "a receipt": release(lambda scene: ModelReceived(scene.release.plan, "cedar", "m", "r")),
    "a partner's sum": release(
        lambda scene: PartnerSum(**scene.release.header, event=scene.mechanisms.update, arrays=scene.release.arrays)
    ),
    "no known kind": config(kind=CANARY),
    "a checkpoint for a release": config(kind="ledger-head"),
    "a masked vector": config(kind="masked-vector"),
    "a list for a kind": config(kind=["model-update"]),
    "another kind's name": config(kind="score-histogram"),
}

NAMES = {
    "another plan": fields(plan="sha256:" + "0" * 64),
    "no plan": fields(plan=""),
    "another partner": fields(partner="birch"),
    "a partner that is none": fields(partner=CANARY),
    "the round before": fields(step="train/1"),
    "the round after": fields(step="train/3"),
    "another step": fields(step="evaluate/2"),
    "another model": fields(model="sha256:" + "0" * 64),
    "attempt 0": fields(attempt=0),
    "attempt 2": fields(attempt=2),
    "attempt -1": fields(attempt=-1),
    "a huge attempt": fields(attempt=2**52),
    "an attempt of 5,000 digits": header(lambda text: text.replace('"attempt":1', '"attempt":' + "9" * 5000)),
    "an attempt that is true": table(attempt=True),
    "an attempt of 1.0": header(lambda text: text.replace('"attempt":1', '"attempt":1.0')),
    "an attempt that is NaN": header(lambda text: text.replace('"attempt":1', '"attempt":NaN')),
    "an attempt in words": table(attempt="1"),
    "no attempt": without("attempt"),
    "a field too many": table(colour=CANARY),
    "an event of its own": table(event=1),
}

TEXTS = {
    "keys twice": header(lambda text: text.replace("{", '{"attempt":1,', 1)),
    "spaces": header(lambda text: text.replace('":', '": ')),
    "keys in another order": header(lambda text: json.dumps(dict(reversed(json.loads(text).items())))),
    "letters in another spelling": header(lambda text: text.replace("train", "\\u0074rain")),
    "half a letter": header(lambda text: text.replace("train/2", "\\ud800")),
    "deep nesting": header(lambda text: "[" * 10**5),
    "deep nesting of tables": header(lambda text: '{"a":' * 10**5),
    "100 MB": header(lambda text: text + " " * 10**8),
    "no JSON": header(lambda text: CANARY),
    "nothing for a header": header(lambda text: ""),
    "a list for a header": header(lambda text: "[1]"),
    "null for a header": header(lambda text: "null"),
    "bytes for a header": header(lambda text: text.encode()),
    "a version that is not known": config(format="coterie/release/v2"),
    "no version": config(format=None),
    "no kind": config(kind=None),
    "another word beside": config(colour=CANARY),
}

RECORDS = {
    "no records": lambda scene: RecordDict(),
    "no records but the checkpoint": lambda scene: scene.beside(RecordDict()),
    "no arrays' record": records(lambda r: {"release": r["release"]}),
    "no release's record": records(lambda r: {"arrays": r["arrays"]}),
    "a record too many": records(lambda r: {**r, "more": ConfigRecord({"a": 1})}),
    "figures beside": records(lambda r: {**r, "metrics": MetricRecord({"num-examples": 10**12})}),
    "records in each other's place": records(lambda r: {"release": r["arrays"], "arrays": r["release"]}),
    "figures for arrays": records(lambda r: {**r, "arrays": MetricRecord({"0": [0.0] * 7, "1": 0.0})}),
}

REPLAYS = {
    "its answer of the round before": lambda scene: scene.before,
    "its answer of the round before beside the checkpoint of now": lambda scene: scene.beside(
        split_head(scene.before)[1]
    ),
    "a neighbour's answer": lambda scene: scene.beside(split_head(scene.neighbours[0][1].content)[1]),
    "a neighbour's answer and checkpoint": lambda scene: scene.neighbours[0][1].content,
    "the checkpoint of the round before": lambda scene: with_head(scene.content, split_head(scene.before)[0]),
    "a neighbour's checkpoint": lambda scene: with_head(scene.content, split_head(scene.neighbours[0][1].content)[0]),
}

HEADS = {
    "no checkpoint": lambda scene: scene.content,
    "a checkpoint that shrinks": head(note=noted(-3)),
    "a checkpoint of another history": head(note=noted()),
    "a checkpoint without its proof": head(proof=()),
    "half a proof": head(proof=lambda scene: scene.head.proof[:-1]),
    "a proof too long": head(proof=lambda scene: (*scene.head.proof, "00" * 32)),
    "a wrong proof": head(proof=lambda scene: tuple("ff" * 32 for _ in scene.head.proof)),
    "a proof of no figures": head(proof=(CANARY,)),
    "a proof from elsewhere": head(since=1),
    "a proof from before all": head(since=-1),
    "a checkpoint under a neighbour's key": head(note=noted(by="other")),
    "a note whose signature is bent": head(note=lambda scene: bent(scene.head.note)),
    "a note of a size beyond all": head(note=lambda scene: sign_checkpoint(10**15, bytes(32), scene.identity)),
    "no note": head(note=CANARY),
    "a head of 1 MB": head_text(lambda text: text + " " * 2**20),
    "a head of deep nesting": head_text(lambda text: "[" * 10**4),
    "a head with a field too many": head_text(lambda text: text.replace("{", '{"a":1,', 1)),
    "a head of bytes": head_text(lambda text: text.encode()),
    "arrays for a head": lambda scene: RecordDict({**scene.content, "head": scene.content["arrays"]}),
}

REJECTED = {**NUMBERS, **SHAPES, **TYPES, **BYTES, **KINDS, **NAMES, **TEXTS, **RECORDS, **REPLAYS, **HEADS}
"""Refused by a rule, whose words are written down."""

SILENT = {
    "silence": nothing,
    "a crash": error("RuntimeError", code=2),
    "an error without a reason": lambda scene: Error(code=2),
    "an error with a word that nobody agreed on": error(CANARY),
    "an error with a customer in it": error(f"KeyError: 'bob@example.org {CANARY}'"),
    "an error with 1 MB of text": error(CANARY * 2**17),
    "an error of no number": error("", code=-(2**31)),
    "an answer to another question": answering("0" * 32),
    "an answer to no question": answering(""),
}
"""Taken for silence."""

WORDS = {word: error(word) for word in ("budget", "unavailable", "fault", "lost")}
"""Refusals in the language: their word is written down."""


# --- what is asked besides updates ------------------------------------------------------------------------------------

HISTOGRAMS = {
    "another shape": arrays(lambda found: [found[0][:, :-1]]),
    "transposed": arrays(lambda found: [np.ascontiguousarray(found[0].T)]),
    "two histograms": arrays(lambda found: found * 2),
    "floats": typed("f8"),
    "int32": typed("i4"),
    "a huge count": first_number(2**62),
    "the greatest count": first_number(2**63 - 1),
    "the least count": first_number(-(2**63)),
    "counts that overflow together": arrays(lambda found: [np.full_like(found[0], 2**62)]),
    "more customers than there are": first_number(10**6),
    "fewer than none": first_number(-(10**6)),
    "another round's": fields(step="evaluate/3"),
    "another plan's": fields(plan="sha256:" + "0" * 64),
    "another partner's": fields(partner="birch"),
    "a neighbour's": REPLAYS["a neighbour's answer"],
    "an update": config(kind="model-update"),
    "no checkpoint": HEADS["no checkpoint"],
    "no records": RECORDS["no records"],
}

CONSENTS = {
    "a signature that is none": fields(signature=bytes(64)),
    "a signature too short": fields(signature=b"\0"),
    "a neighbour's name": fields(partner="amber"),
    "a neighbour's consent": lambda scene: scene.neighbours[0][1].content,
    "a name outside the roster": fields(partner=CANARY),
    "another plan": fields(plan="sha256:" + "0" * 64),
    "a signature by another key": fields(signature=lambda r: Identity.create().sign(r.plan.encode())),
    "an update": config(kind="model-update"),
    "no known kind": config(kind=CANARY),
    "a field too many": table(colour=CANARY),
    "no signature": without("signature"),
    "a signature of no figures": table(signature="zz" * 64),
    "deep nesting": TEXTS["deep nesting"],
    "no records": RECORDS["no records"],
    "a checkpoint that nobody asked for": lambda scene: with_head(scene.content, LedgerHead(CANARY, 0, ())),
}

SUMS = {
    "cut short": BYTES["cut short"],
    "float64": TYPES["float64"],
    "a shape of 2**40 numbers": BYTES["a shape of 2**40 numbers"],
    "an array too many": arrays(lambda found: [*found, found[0]]),
    "another epoch": fields(epoch=7),
    "an update": config(kind="model-update"),
    "a field too many": table(colour=CANARY),
    "deep nesting": TEXTS["deep nesting"],
    "a neighbour's answer": REPLAYS["a neighbour's answer"],
    "no checkpoint": HEADS["no checkpoint"],
    "a note whose signature is bent": HEADS["a note whose signature is bent"],
    "a checkpoint under a neighbour's key": HEADS["a checkpoint under a neighbour's key"],
    "an error with 1 MB of text": SILENT["an error with 1 MB of text"],
}
"""To any question of a secure sum."""


def bent(note):
    """A note whose signature has one letter changed."""
    place = len(note) - 10
    return note[:place] + ("A" if note[place] != "A" else "B") + note[place + 1 :]
