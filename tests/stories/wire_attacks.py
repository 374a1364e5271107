"""Attacks that need a wire: on messages as Flower carries them, and on the processes that take them in.

The judge is that of the catalogue (`attacks.py`); the victim is always a `WireNode`.
"""

import time

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.app.message import make_message
from flwr.common.serde import recorddict_to_proto
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    no_object_id_recompute,
)

from coterie.clients.door import ERROR_CODE
from coterie.clients.folding import fold
from coterie.clients.wire import PROPOSE, TRAIN, encode_plan, encode_task
from coterie.tests.stories.attacks import Attack, Hostile, attack
from coterie.tests.stories.task_attacks import bare_of
from coterie.tests.stories.wire import WireNode

WIRE_ATTACKS: list[Attack] = []
"""On a study in which each partner's noise suffices alone."""

FELLING = {"types that are no types", "pieces that cannot be read", "a message whose pieces never come"}
"""Attacks that are made to fell a process of the node."""

BACK = 420.0
"""Seconds within which a node must answer again; Flower itself waits 180 for the pieces of a message."""


def node_of(c: Hostile) -> WireNode:
    """The victim's end of the wire."""
    node = c.nodes[c.victim]
    assert isinstance(node, WireNode)
    return node


def ask_all(c: Hostile, *questions: tuple[str, RecordDict]) -> list[Message]:
    """Send messages at once and as they are, and remember the answers."""
    replies = node_of(c).ask_all(questions)
    c.heard += replies
    c.said += [c.word(reply) for reply in replies]
    return replies


def packed(data: object, **more: object) -> RecordDict:
    """What looks like a folded message."""
    return RecordDict({"folded": ConfigRecord({"bytes": data, **more})})


def still_there(c: Hostile) -> None:
    """Ask something until the node answers, as after a fall; what it was asked before that may be lost."""
    node, end = node_of(c), time.monotonic() + BACK
    while True:
        made = node.wire.push([node.wire.message(node.number, TRAIN, fold(encode_task(c.task(99))))])
        try:
            replies = node.read(node.wire.pull(made, seconds=min(20.0, BACK)))
        except AssertionError:
            replies = []
        if not replies or (replies[0].has_error() and replies[0].error.code < min(ERROR_CODE.values())):
            # Nothing, or Flower's own word that the node is not there.
            assert time.monotonic() < end, f"the node does not answer within {BACK:g} seconds"
            continue
        c.heard += replies
        c.said += [c.word(reply) for reply in replies]
        return


@attack("fault x9", on=WIRE_ATTACKS)
def folded_messages_that_are_not(c: Hostile) -> None:
    """Sends noise, nothing, a text, too much, two records, a fold in a fold and others' bytes as a folded message."""
    good = fold(encode_task(c.task()))["folded"]["bytes"]
    for content in (
        packed(b"\xff" * 1000),
        packed(b""),
        packed("text"),
        packed(good, more=1),
        packed(bytes((128 << 10) + 1)),
        packed(good[: len(good) // 2]),
        RecordDict({**packed(good), "task": ConfigRecord({"round": 1})}),
        RecordDict({"folded": ArrayRecord([np.zeros(1)])}),
        packed(recorddict_to_proto(packed(good)).SerializeToString()),
    ):
        ask_all(c, (TRAIN, content))


@attack("consent-given, model-update x2", writes="reserve, settle", on=WIRE_ATTACKS)
def one_question_folded_and_in_pieces(c: Hostile) -> None:
    """Sends one question in both of its forms, to have it answered twice: it gets the same bytes, at one charge."""
    ask_all(c, (PROPOSE, encode_plan(c.signed.to_bytes())))
    ask_all(c, (TRAIN, encode_task(c.task())))
    c.train(1)
    assert bare_of(c.heard[1]) == bare_of(c.heard[2])


@attack("model-update", writes="reserve, settle", on=WIRE_ATTACKS)
def one_message_twice(c: Hostile) -> None:
    """Sends the very same message twice, under the same number."""
    node = node_of(c)
    message = node.wire.message(node.number, TRAIN, fold(encode_task(c.task())))
    first, again = node.wire.push([message])[0], node.wire.push([message])[0]
    assert first is not None
    c.note = "the SuperLink takes it once" if again in (None, first) else "the SuperLink takes both"
    replies = node.read(node.wire.pull([first]))
    c.heard += replies
    c.said += [c.word(reply) for reply in replies]


@attack("fault", on=WIRE_ATTACKS)
def an_error_for_a_question(c: Hostile) -> None:
    """Sends an error where a question should be."""
    node = node_of(c)
    empty = node.wire.message(node.number, TRAIN, RecordDict())
    number = node.wire.push([make_message(metadata=empty.metadata, error=Error(code=1, reason="x"))])
    assert number[0] is not None, "the SuperLink did not take it"
    replies = node.read(node.wire.pull(number))
    c.heard += replies
    c.said += [c.word(reply) for reply in replies]


@attack("task", on=WIRE_ATTACKS)
def an_array_of_100_megabytes(c: Hostile) -> None:
    """Sends one array of 100 MB in the model's place."""
    began = time.monotonic()
    c.train(weights=(np.zeros(25_000_000, np.float32),))
    c.note = f"answered in {time.monotonic() - began:.0f} s"


@attack("consent-given x50, model-update x50, no-consent x50, fault x50", writes="reserve, settle", on=WIRE_ATTACKS)
def two_hundred_messages_at_once(c: Hostile) -> None:
    """Sends two hundred messages of four kinds in one request: each is answered, one after another, and it is over."""
    plan, task = encode_plan(c.signed.to_bytes()), encode_task(c.task())
    strange = [encode_task(c.task(plan=f"sha256:{number:064x}")) for number in range(50)]
    junk = [RecordDict({f"x{number}": ConfigRecord({"y": number})}) for number in range(50)]
    before, began = len(node_of(c).reports()), time.monotonic()
    ask_all(
        c,
        *[(PROPOSE, fold(plan))] * 50,
        *[(TRAIN, fold(task))] * 50,
        *[(TRAIN, fold(one)) for one in (*strange, *junk)],
    )
    grown = len(node_of(c).reports()) - before
    c.note = f"all answered in {time.monotonic() - began:.0f} s; the reports grew by {grown} bytes"
    assert len({bare_of(reply) for reply in c.heard[50:100]}) == 1
    assert grown < 2000, c.note


@attack("task*", on=WIRE_ATTACKS)
def lifetimes_that_no_clock_can_tell(c: Hostile) -> None:
    """Sends messages that live for ever, for no time, for no number of seconds, or since after the end of time."""
    node = node_of(c)
    task = fold(encode_task(c.task(99)))
    kinds = ({"ttl": 1e300}, {"ttl": 1e-9}, {"ttl": float("nan")}, {"created_at": 1e300}, {"created_at": float("inf")})
    numbers = [node.wire.push([node.wire.message(node.number, TRAIN, task, **odd)])[0] for odd in kinds]
    c.note = f"the SuperLink takes {sum(number is not None for number in numbers)} of {len(kinds)}"
    still_there(c)


@attack("task", on=WIRE_ATTACKS)
def a_message_whose_pieces_never_come(c: Hostile) -> None:
    """Announces a message and sends nothing of what is in it: the node waits, gives it up, falls and is back."""
    node = node_of(c)
    began = time.monotonic()
    message = node.wire.message(node.number, TRAIN, encode_task(c.task(98)))
    node.wire.push_pieces(message, get_object_tree(message), {})
    still_there(c)
    c.note = f"the next one was answered after {time.monotonic() - began:.0f} s"


@attack("task", on=WIRE_ATTACKS)
def types_that_are_no_types(c: Hostile) -> None:
    """Hides types that Flower would let nobody write in the pieces of messages that are announced as others."""
    node = node_of(c)
    for kind in ("query.propose.propose", "../../etc/passwd", "\x1b[2J\n\u202e", ""):
        message = node.wire.message(node.number, kind, fold(encode_task(c.task())))
        with no_object_id_recompute():
            pieces = {number: piece.deflate() for number, piece in get_all_nested_objects(message).items()}
            tree = get_object_tree(message)
        node.wire.push_pieces(node.wire.message(node.number, TRAIN, RecordDict()), tree, pieces)
    still_there(c)


@attack("task", on=WIRE_ATTACKS)
def pieces_that_cannot_be_read(c: Hostile) -> None:
    """Sends a message of noise, on which the process that reads it falls: the node is back by itself, and unharmed."""
    node, began = node_of(c), time.monotonic()
    noise = b"Message  3\0abc"
    number = get_object_id(noise)
    message = node.wire.message(node.number, TRAIN, RecordDict())
    node.wire.push_pieces(message, ObjectTree(object_id=number), {number: noise})
    still_there(c)
    c.note = f"the node answered again after {time.monotonic() - began:.0f} s"
