"""Attacks by work: tasks, witness notes and records that no honest coordinator sends. Part of the catalogue."""

import dataclasses
import io
import pickle
import shutil
import tempfile
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from coterie.clients.agreed import MOST_WEIGHT
from coterie.clients.records import pack
from coterie.clients.sumwire import encode_keys
from coterie.clients.task import KeysAsked
from coterie.clients.wire import (
    CLOSE,
    EVALUATE,
    PROPOSE,
    TRAIN,
    encode_close,
    encode_plan,
    encode_task,
    split_head,
    with_witness,
)
from coterie.privacy.canonical import digest
from coterie.privacy.checkpoint import cosign
from coterie.privacy.identity import Identity
from coterie.privacy.record import Receipt, StudyRecord, sign_record
from coterie.privacy.release import weights_digest
from coterie.tests.clients.federation import bare
from coterie.tests.stories.attacks import Hostile, attack


def as_task(c: Hostile, **fields: Any) -> RecordDict:
    """A task's message with some fields in others' place."""
    config = {"plan": c.digest, "round": 1, "attempt": 1, **fields}
    return RecordDict({"task": ConfigRecord(config), "weights": pack(c.weights())})


def with_array(c: Hostile, data: bytes, *, shape: Sequence[int] = (1, 7), dtype: str = "float32") -> RecordDict:
    """A task whose first array is these bytes, whatever Flower is told of them."""
    content = encode_task(c.task())
    content["weights"]["0"] = Array(dtype=dtype, shape=tuple(shape), stype="numpy.ndarray", data=data)
    return content


def npy(shape: Sequence[int], data: bytes, dtype: str = "<f4") -> bytes:
    """An array's file that says whatever it likes."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {tuple(shape)!r}, }}".encode()
    text += b" " * (64 - (len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


# --- for which plan, which round ------------------------------------------------------------------------------


@attack("no-consent x4")
def work_for_a_plan_that_was_never_shown(c: Hostile) -> None:
    """Asks for work under digests of other plans, and under none."""
    for plan in ("sha256:" + "0" * 64, digest({"plan": 1}), "", "sha256:"):
        c.train(plan=plan)


@attack("no-consent x9, fault")
def digests_that_lead_elsewhere(c: Hostile) -> None:
    """Writes ways to other files in a digest's place, and the approved digest in other spellings."""
    for plan in (
        "../../../../etc/passwd",
        "sha256:../../coterie",
        "/etc/passwd",
        "sha256:" + "../" * 1000,
        f"{c.digest}\x00.json",
        c.digest.upper(),
        c.digest + " ",
        c.digest.removeprefix("sha256:"),
        "\u202e" + c.digest,
    ):
        c.train(plan=plan)
    c.ask(TRAIN, as_task(c, plan=c.digest.encode()))


@attack("task x12")
def rounds_that_the_plan_does_not_have(c: Hostile) -> None:
    """Asks for rounds before the first, after the last, and at the ends of what a number can say."""
    for round_ in (0, -1, c.plan.training.rounds + 1, 2**31, 2**63 - 1, -(2**63)):
        c.train(round_)
        c.measure(round_)


@attack("task x10")
def attempts_that_nothing_calls_for(c: Hostile) -> None:
    """Asks for attempts zero, negative, beyond the spare ones, and second ones where no first was lost."""
    for attempt in (0, -1, 2, 2**31, 2**63 - 1):
        c.train(1, attempt)
        c.measure(c.plan.metrics.rounds[0], attempt)


@attack("fault x9")
def fields_of_other_types(c: Hostile) -> None:
    """Sends a task's fields as truths, fractions, texts, bytes and lists, one missing, and one more."""
    for fields in (
        {"round": True},
        {"round": 1.0},
        {"round": "1"},
        {"round": [1]},
        {"attempt": True},
        {"attempt": b"1"},
        {"plan": [c.digest]},
        {"note": "more"},
    ):
        c.ask(TRAIN, as_task(c, **fields))
    content = as_task(c)
    del content["task"]["attempt"]
    c.ask(TRAIN, content)


@attack("task")
def an_exact_metric_in_a_round_that_is_not_measured(c: Hostile) -> None:
    """Asks for metrics where the plan has none."""
    (free,) = set(range(1, c.plan.training.rounds + 1)) - set(c.plan.metrics.rounds)
    c.measure(free)


@attack("score-histogram, replay x20", writes="reserve, settle")
def a_membership_oracle(c: Hostile) -> None:
    """Measures models made to tell one customer from another: the first is answered with noise, no other is."""
    round_ = c.plan.metrics.rounds[0]
    for shift in range(21):
        c.measure(round_, weights=c.weights(shift / 10))


@attack("model-update, replay x5", writes="reserve, settle")
def another_model_for_the_same_step(c: Hostile) -> None:
    """Shows one partner another model than the others in the same round, to see what its own rows do."""
    c.train(1)
    for shift in (1.0, -1.0, 0.5, 1e-7, 100.0):
        c.train(1, weights=c.weights(shift))


@attack("model-update x2, replay, model-update", writes="reserve, settle, reserve, settle")
def an_older_round_with_a_newer_model(c: Hostile) -> None:
    """Goes back to a round that was answered, with the model of a later one."""
    c.train(1)
    c.train(2, weights=c.weights(0.1))
    c.train(1, weights=c.weights(0.1))
    c.train(2, weights=c.weights(0.1))
    assert bare_of(c.heard[1]) == bare_of(c.heard[3])


@attack("model-update x2", writes="reserve, settle, reserve, settle")
def rounds_out_of_their_order(c: Hostile) -> None:
    """Skips a round and comes back to it: each is charged once, as in order; no other number of rounds is to be had."""
    c.train(2)
    c.train(1)


@attack("model-update x50", writes="reserve, settle")
def the_same_question_fifty_times(c: Hostile) -> None:
    """Asks again and again, to average the noise away: all answers are the same bytes, at one charge."""
    for _ in range(50):
        c.train(1)
    assert len({bare_of(reply) for reply in c.heard}) == 1


def bare_of(reply: Message) -> bytes:
    """An answer's bytes without what differs from one sending to the next."""
    from flwr.common.serde import message_to_proto

    return bare(message_to_proto(reply).SerializeToString())


# --- weights --------------------------------------------------------------------------------------------------


@attack("task x10")
def weights_that_are_no_numbers(c: Hostile) -> None:
    """Sends weights that are not finite, or beyond all sense, everywhere or in one place."""
    for value in (np.nan, np.inf, -np.inf, 1e38, 2 * MOST_WEIGHT):
        c.train(weights=tuple(np.full_like(array, value) for array in c.weights()))
        one = tuple(array.copy() for array in c.weights())
        one[-1].reshape(-1)[-1] = value
        c.train(weights=one)


@attack("task x8")
def weights_of_other_shapes(c: Hostile) -> None:
    """Sends the weights turned, flat, one short, one more, none, empty, of whole numbers, and in reverse."""
    first, *rest = c.weights()
    for weights in (
        (first.T.copy(), *rest),
        (first.reshape(-1), *rest),
        (first[:, :-1].copy(), *rest),
        (first, *rest, first),
        (),
        (np.zeros((0, 7), np.float32), *rest),
        (first.astype(np.int64), *rest),
        tuple(reversed((first, *rest))),
    ):
        c.train(weights=weights)


@attack("fault x8")
def arrays_that_say_more_than_they_hold(c: Hostile) -> None:
    """Declares arrays of a tera-element, of a negative size, of many dimensions, of other lengths than they have."""
    tracemalloc.start()
    for shape in ((2**40,), (2**20, 2**20), (2**62, 2), (-1, -7), (1,) * 40, (10**18,) * 8, (8,), (1, 6)):
        c.ask(
            TRAIN,
            with_array(c, npy(shape, bytes(28)), shape=shape if min(shape) > 0 and max(shape) < 2**31 else (1, 7)),
        )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    c.note = f"peak {peak / 2**20:.1f} MiB"
    assert peak < 16 * 2**20, c.note


@attack("fault x7")
def arrays_that_are_code(c: Hostile) -> None:
    """Sends pickled objects that make a file when they are read, in numpy's wrapping and bare, and other formats."""

    trap = Path(tempfile.mkdtemp()) / "unpickled"  # it must never be made

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (trap,)

    objects, named_ = io.BytesIO(), io.BytesIO()
    np.save(objects, np.array([Trap()], dtype=object), allow_pickle=True)
    np.savez(named_, np.ones(3))
    good = npy((1, 7), bytes(28))
    for data in (
        objects.getvalue(),
        pickle.dumps(Trap()),
        named_.getvalue(),
        npy((1, 7), bytes(28), dtype="|O"),
        good.replace(b"False", b"__import__('os')"),
        good.replace(b"\x01\x00", b"\x03\x00", 1),
        npy((1, 7), bytes(56), dtype="<c8"),
    ):
        c.ask(TRAIN, with_array(c, data))
    made = trap.exists()
    shutil.rmtree(trap.parent)
    assert not made, "it was unpickled"


@attack("fault x10")
def arrays_that_are_malformed(c: Hostile) -> None:
    """Sends arrays that are empty, cut, grown, in Fortran's order, big-endian, of text, or of a false header length."""
    good = npy((1, 7), bytes(28))
    for data in (
        b"",
        good[:5],
        good[:60],
        good[:-1],
        good + b"\0",
        good.replace(b"False", b"True "),
        good.replace(b"<f4", b">f4"),
        good.replace(b"<f4", b"<U1"),
        good[:8] + b"\xff\xff" + good[10:],
        b"\x93NUMPY" + b"\0" * 200,
    ):
        c.ask(TRAIN, with_array(c, data))


@attack("task x2")
def an_array_of_64_mebibytes(c: Hostile) -> None:
    """Sends one array of 64 MiB, and 5,000 arrays of one number each, in the model's place."""
    c.train(weights=(np.zeros(2**24, np.float32),))
    c.train(weights=tuple(np.zeros(1, np.float32) for _ in range(5_000)))


# --- messages -------------------------------------------------------------------------------------------------


@attack("fault x9")
def message_types_that_nobody_knows(c: Hostile) -> None:
    """Asks under types that the node has no handler for; what is no type at all, Flower takes for no message."""
    content = encode_task(c.task())
    for kind in (
        *("train.xyz", "query.steal", "query", "evaluate.exact", "query.__class__", "train.default2", "system"),
        *("query.ke\u0443s", "query." + "a" * 200),
    ):
        c.ask(kind, content)


@attack("fault x7")
def a_message_under_another_type(c: Hostile) -> None:
    """Sends a task as a plan, a plan as a task, a record as keys, and the like."""
    task, plan = encode_task(c.task()), encode_plan(c.signed.to_bytes())
    close = encode_close(b"{}", c.weights())
    for kind, content in (
        (PROPOSE, task),
        (TRAIN, plan),
        (EVALUATE, close),
        (CLOSE, task),
        ("query.keys", plan),
        ("query.sign", task),
        ("query.reveal", close),
    ):
        c.ask(kind, content)


@attack("fault x6")
def records_that_do_not_belong(c: Hostile) -> None:
    """Adds records to a task, leaves some out, or sends them as others."""
    task = encode_task(c.task())
    for content in (
        RecordDict({**task, "metrics": MetricRecord({"auc": 1.0})}),
        RecordDict({**task, "config": ConfigRecord({"proximal-mu": 0.1})}),
        RecordDict({"task": task["task"]}),
        RecordDict({"weights": task["weights"]}),
        RecordDict({"task": MetricRecord({"round": 1}), "weights": task["weights"]}),
        RecordDict(),
    ):
        c.ask(TRAIN, content)


@attack("task x*")
def secure_sums_of_a_plan_that_has_none(c: Hostile) -> None:
    """Asks for keys under a plan in which partners release each by themselves."""
    c.ask("query.keys", encode_keys(KeysAsked(c.digest, 1, ("train/1",))))
    c.ask("query.keys", encode_keys(KeysAsked(c.digest, 2, ("train/1", "train/2"))))


# --- the witness ----------------------------------------------------------------------------------------------


def note_of(c: Hostile) -> str:
    """Ask for the ledger's checkpoint, as an honest coordinator does."""
    head, _ = split_head(c.ask(TRAIN, with_witness(encode_task(c.task()), "")).content)
    assert head is not None
    return head.note


def shown(c: Hostile, note: str) -> Message:
    """Show a checkpoint with a question that was answered before."""
    return c.ask(TRAIN, with_witness(encode_task(c.task()), note))


@attack("model-update, rollback x6", writes="reserve, settle")
def witness_notes_that_are_forged(c: Hostile) -> None:
    """Shows the partner a checkpoint of its ledger with a longer size, another root, or another one's signature."""
    note = note_of(c)
    origin, size, root, *rest = note.split("\n")
    longer = "\n".join((origin, str(int(size) + 1), root, *rest))
    other_root = "\n".join((origin, size, "A" * 43 + "=", *rest))
    for forged in (longer, other_root):
        shown(c, cosign(forged, c.identity, 1))
    shown(c, note)  # nobody cosigned it
    shown(c, cosign(note, c.outsider, 1))
    shown(c, cosign(note, next(iter(c.peers.values())), 1))
    shown(c, "a\n" * 2000)


@attack("model-update, rollback", writes="reserve, settle")
def a_checkpoint_of_another_partner(c: Hostile) -> None:
    """Shows the partner the true checkpoint of another one's ledger."""
    other = c.names[1]
    content = with_witness(encode_plan(c.signed.to_bytes()), "")
    head, _ = split_head(c.nodes[other].ask(PROPOSE, content).content)
    assert head is not None
    note_of(c)
    shown(c, cosign(head.note, c.identity, 1))


@attack("model-update x2, rollback x2", writes="reserve, settle")
def a_witness_that_has_forgotten(c: Hostile) -> None:
    """Shows a cosigned checkpoint, and later none, as if it had never seen one."""
    note = note_of(c)
    shown(c, cosign(note, c.identity, 1))
    shown(c, "")
    c.train(1)


@attack("fault x4")
def witness_records_that_are_none(c: Hostile) -> None:
    """Sends the witness as a number, with a field more, as arrays, and longer than any."""
    task = encode_task(c.task())
    for record in (
        ConfigRecord({"note": 1}),
        ConfigRecord({"note": "", "more": ""}),
        ArrayRecord([np.zeros(1)]),
        ConfigRecord({"note": "x" * 5000}),
    ):
        c.ask(TRAIN, RecordDict({**task, "witness": record}))


# --- the end of a study ---------------------------------------------------------------------------------------


def closing(c: Hostile, weights: Any = None, by: Identity | None = None, **changes: Any) -> Message:
    """Close the study with a record that says whatever the attack wants."""
    weights = c.weights() if weights is None else weights
    record = StudyRecord(c.digest, weights_digest(c.weights()), {}, ())
    record = dataclasses.replace(record, **changes)
    return c.ask(CLOSE, encode_close(sign_record(record, by or c.identity), weights))


@attack("signature x3")
def a_record_that_others_signed(c: Hostile) -> None:
    """Sends a study's record signed by a stranger, by a partner, and not at all."""
    closing(c, by=c.outsider)
    closing(c, by=next(iter(c.peers.values())))
    c.ask(CLOSE, encode_close(b"{}", c.weights()))


@attack("rollback x2")
def a_record_of_releases_that_never_were(c: Hostile) -> None:
    """Claims in the record to have received what the partner never released."""
    closing(c, receipts=(Receipt(c.victim, "train/1", 1, digest({"a": 1})),))
    closing(c, receipts=(Receipt(c.victim, "train/9", 7, digest({"a": 2})),))


@attack("task x4, no-consent x2")
def a_model_of_another_study(c: Hostile) -> None:
    """Closes with a model of other shapes, with other numbers than the record's, and for plans that nobody knows."""
    first, *rest = c.weights()
    closing(c, weights=(first[:, :-1].copy(), *rest))
    closing(c, weights=c.weights(1.0))
    closing(c, weights=tuple(np.full_like(array, np.nan) for array in c.weights()))
    closing(c, model=digest({"a": 1}))
    closing(c, plan=digest({"a": 1}))
    closing(c, plan="../../etc/passwd")


@attack("model-received x2, replay x2", writes="model")
def two_records_of_one_study(c: Hostile) -> None:
    """Closes the study, and again with another model and another record."""
    closing(c)
    closing(c)
    closing(c, metrics={"auc": 0.9})
    closing(c, weights=c.weights(1.0), model=weights_digest(c.weights(1.0)))


# --- floods ---------------------------------------------------------------------------------------------------


@attack("fault x250, no-consent x250, task x250, fault x250")
def a_flood_of_questions(c: Hostile) -> None:
    """Sends a thousand questions that are wrong in four ways, all different; nothing of the partner's may grow."""
    before = len(c.nodes[c.victim].reports())
    for number in range(250):
        c.ask(TRAIN, RecordDict({f"x{number}": ConfigRecord({"y": number})}))
    for number in range(250):
        c.train(plan=f"sha256:{number:064x}")
    for number in range(250):
        c.train(1000 + number)
    for number in range(250):
        c.ask(f"query.x{number}", encode_task(c.task()))
    grown = len(c.nodes[c.victim].reports()) - before
    c.note = f"the reports grew by {grown} bytes"
    assert grown < 2000, c.note
