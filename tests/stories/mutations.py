"""Messages made wrong in every way: bits, bytes, records, arrays, JSON within, types, and right signatures on it.

A `Mutator` draws from valid messages of every kind; a `Jury` puts each mutated one to a node, and holds the answer to
what may come: a release that the ledger holds, or a code with its word.

Imported as `coterie.tests.stories.mutations`.
"""

import copy
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.serde import message_to_proto, recorddict_from_proto, recorddict_to_proto
from flwr.proto.message_pb2 import Message as Proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecords

from coterie.clients.door import ERROR_CODE
from coterie.clients.wire import encode_plan
from coterie.privacy.canonical import canonical, digest
from coterie.privacy.identity import Identity
from coterie.privacy.release import CODES, release_digest
from coterie.tests.stories.attacks import Hostile, signed_table
from coterie.tests.stories.inprocess import Node
from coterie.tests.stories.test_mute import sings

KINDS = (
    *("query.propose", "train", "evaluate", "query.close", "query.keys", "query.deal", "query.sign", "query.reveal"),
    "query.match",
    *("query", "query.x", "system", "train.x", "", "evaluate\n"),
)
WORDS = (
    *("", " ", "\x00", "../../etc/passwd", "sha256:" + "0" * 64, "\u202e", "a" * 1001, "amber", "birch", "1", "true"),
    *("null", "[]", "{}", "train/1", "train/2", "evaluate/1", "evaluate/2", "NaN", "\u0661", "round-keys", "\ud7ff"),
)
NUMBERS = (0, -1, 1, 2, 3, 9, 255, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, -(2**63))
FRACTIONS = (0.0, -0.0, 1.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))
NAMES = (
    "task",
    "weights",
    "plan",
    "record",
    "sum",
    "messages",
    "witness",
    "head",
    "0",
    "1",
    "signed",
    "fields",
    "note",
    "match",
    "sealed",
)


@dataclass(frozen=True)
class Mutated:
    """One wrong message.

    Args:
        data: A message's bytes on Flower's wire.
        how: The way in which it was made.
        plan: Digest of a plan in it that the coordinator rightly signed; "" for none.
    """

    data: bytes
    how: str
    plan: str = ""


class Mutator:
    """Makes wrong messages of right ones.

    Args:
        corpus: Valid messages, as bytes.
        identity: The coordinator's key.
        seed: Decides all that is drawn.
        signed: Share of messages that carry a wrong plan or record under a right signature.
    """

    def __init__(self, corpus: list[bytes], identity: Identity, *, seed: int, signed: float) -> None:
        self._corpus, self._identity, self._signed = corpus, identity, signed
        self._draw = random.Random(seed)  # noqa: S311 - which messages are tried is no secret
        self._ways: tuple[Callable[[Proto], None], ...] = (
            *(self._record, self._record, self._value, self._value, self._value, self._json, self._json),
            *(self._array, self._array, self._array, self._kind, self._metadata),
        )

    def next(self) -> Mutated:
        """Make one."""
        draw = self._draw
        if draw.random() < self._signed:
            return self._rightly_signed()
        data = draw.choice(self._corpus)
        if draw.random() < 0.25:
            return Mutated(self._bytes(data), "bytes")
        proto = Proto.FromString(data)
        hows = []
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            way = draw.choice(self._ways)
            way(proto)
            hows.append(way.__name__.strip("_"))
        return Mutated(proto.SerializeToString(), hows[0])

    # --- bytes ---------------------------------------------------------------------------------------------

    def _bytes(self, data: bytes) -> bytes:
        draw, place = self._draw, self._draw.randrange(len(data))
        size = draw.choice((1, 2, 4, 16, 100))
        way = draw.randrange(7)
        if way < 3:
            flipped = bytearray(data)
            for _ in range(size):
                flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            return bytes(flipped)
        if way == 3:
            return data[:place]
        if way == 4:
            return data[:place] + data[place + size :]
        if way == 5:
            return data[:place] + draw.randbytes(size) + data[place:]
        other = draw.choice(self._corpus)
        return data[:place] + other[draw.randrange(len(other)) :]

    # --- messages and records ------------------------------------------------------------------------------

    def _kind(self, proto: Proto) -> None:
        proto.metadata.message_type = self._draw.choice(KINDS)

    def _metadata(self, proto: Proto) -> None:
        draw, metadata = self._draw, proto.metadata
        metadata.ttl, metadata.created_at = draw.choice(FRACTIONS), draw.choice(FRACTIONS)
        metadata.group_id, metadata.reply_to_message_id = draw.choice(WORDS), draw.choice(WORDS)
        metadata.message_type = draw.choice(KINDS) if draw.random() < 0.2 else metadata.message_type

    def _record(self, proto: Proto) -> None:
        draw, items = self._draw, proto.content.items
        if not items:
            return
        item = draw.choice(items)
        way = draw.randrange(6)
        if way == 0:
            items.remove(item)
        elif way == 1:
            item.key = draw.choice((*NAMES, *WORDS[:6]))
        elif way == 2:
            items.add().CopyFrom(item)
            items[-1].key = draw.choice(NAMES)
        elif way == 3:
            other = Proto.FromString(draw.choice(self._corpus)).content.items
            items.add().CopyFrom(draw.choice(other))
        elif way == 4:
            other = Proto.FromString(draw.choice(self._corpus)).content.items
            key = item.key
            item.CopyFrom(draw.choice(other))
            item.key = key
        else:
            record = draw.choice((ConfigRecord({"note": 1}), MetricRecord({"a": 1.0}), ArrayRecord({})))
            (one,) = recorddict_to_proto(RecordDict({item.key: record})).items
            item.CopyFrom(one)

    def _value(self, proto: Proto) -> None:
        """Put another value, of this type or another, under a key of a config record."""
        draw = self._draw
        found = [item for item in proto.content.items if item.WhichOneof("value") == "config_record"]
        if not found:
            self._array(proto)
            return
        item = draw.choice(found)
        (record,) = recorddict_from_proto(ProtoRecords(items=[item])).values()
        config = dict(record)
        key = draw.choice(list(config) or ["note"])
        choice = draw.randrange(8)
        if choice == 0:
            config.pop(key, None)
        elif choice == 1:
            config[draw.choice(NAMES)] = config.get(key, 1)
        elif choice == 2:
            config[draw.choice((*NAMES, "more"))] = draw.choice(WORDS)
        else:
            value: Any = draw.choice(
                (*NUMBERS, *FRACTIONS, *WORDS, True, False, b"", b"\x80", [1, 2], ["a"], [b"a"], [0.5])
            )
            config[key] = value
        (one,) = recorddict_to_proto(RecordDict({item.key: ConfigRecord(config)})).items
        item.CopyFrom(one)

    # --- arrays --------------------------------------------------------------------------------------------

    def _array(self, proto: Proto) -> None:  # noqa: C901 - a list of ways, one after another
        draw = self._draw
        found = [item for item in proto.content.items if item.WhichOneof("value") == "array_record"]
        arrays = draw.choice(found).array_record.items if found else ()
        if not arrays:
            self._record(proto)
            return
        array = draw.choice(arrays)
        data, way = array.value.data, draw.randrange(9)
        if way == 0:
            array.key = draw.choice((*NAMES, "2", "-1", "00"))
        elif way == 1:
            arrays.remove(array)
        elif way == 2:
            arrays.add().CopyFrom(array)
            arrays[-1].key = str(len(arrays) - 1)
        elif way == 3:
            array.value.data = data[: draw.randrange(len(data) + 1)]
        elif way == 4:
            array.value.data = data + draw.randbytes(draw.choice((1, 4, 28)))
        elif way == 5:
            array.value.data = self._bytes(data[:128]) + data[128:] if data else b"x"
        elif way == 6:
            swaps = (
                (b"<f4", b"|O8"),
                (b"<f4", b"<i8"),
                (b"|u1", b"<u4"),
                (b"False", b"True "),
                (b"(", b"(-"),
                (b",)", b"0)"),
            )
            old, new = draw.choice(swaps)
            array.value.data = data.replace(old, new, 1)
        elif way == 7:
            tail = bytearray(data)
            for _ in range(draw.choice((1, 4, 40))):
                if len(tail) > 128:
                    tail[draw.randrange(128, len(tail))] = draw.randrange(256)
            array.value.data = bytes(tail)
        else:
            array.value.dtype, array.value.stype = draw.choice(WORDS), draw.choice(WORDS)

    # --- JSON ----------------------------------------------------------------------------------------------

    def _json(self, proto: Proto) -> None:
        """Change a value of the JSON that an array or a config record holds, and spell it canonically again."""
        draw = self._draw
        for item in draw.sample(list(proto.content.items), len(proto.content.items)):
            content = recorddict_from_proto(ProtoRecords(items=[item]))
            (record,) = content.values()
            if isinstance(record, ConfigRecord) and isinstance(record.get("fields"), str):
                record["fields"] = self._rewritten(str(record["fields"]).encode()).decode("utf-8", "replace")
            elif isinstance(record, ArrayRecord) and record:
                name = draw.choice(list(record))
                record[name] = self._inside(record[name])
            else:
                continue
            (one,) = recorddict_to_proto(content).items
            item.CopyFrom(one)
            return

    def _inside(self, array: Array) -> Array:
        head, text = array.data[:128], array.data[128:]
        if b"'|u1'" not in head or b"{" not in text:
            return array
        begin = text.index(b"{")
        # A peer's message begins with the length of its head.
        if begin == 8:
            size = int.from_bytes(text[:8], "big")
            fresh = self._rewritten(text[8 : 8 + size])
            text = len(fresh).to_bytes(8, "big") + fresh + text[8 + size :]
        else:
            text = self._rewritten(text)
        return as_bytes(text)

    def _rewritten(self, text: bytes) -> bytes:
        try:
            return written(self.changed(json.loads(text)))
        except ValueError:
            return text

    def changed(self, table: Any) -> Any:
        """Return JSON with one value, key or item changed."""
        draw, table = self._draw, copy.deepcopy(table)
        holder, key = None, None
        place = table
        while isinstance(place, dict | list) and place and draw.random() < 0.85:
            key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
            holder, place = place, place[key]
        if holder is None:
            return table
        way = draw.randrange(5)
        if way == 0:
            del holder[key]
        elif way == 1 and isinstance(holder, dict):
            holder[draw.choice((*NAMES, "sigma", "seed"))] = place
        elif way == 2:
            holder[key] = draw.choice(([], {}, [place], {"a": place}, [place] * 300, None, True))
        elif way == 3 and isinstance(place, str) and place:
            at = draw.randrange(len(place))
            holder[key] = place[:at] + chr(draw.choice((0x30, 0x41, 0x200B, 0x0430, 0x2F))) + place[at + 1 :]
        else:
            holder[key] = draw.choice((*NUMBERS, *FRACTIONS[:5], *WORDS))
        return table

    def _rightly_signed(self) -> Mutated:
        """A wrong plan under the coordinator's right signature."""
        draw = self._draw
        plans = [data for data in self._corpus if Proto.FromString(data).metadata.message_type == "query.propose"]
        proto = Proto.FromString(draw.choice(plans))
        (item,) = proto.content.items[0].array_record.items
        plan = json.loads(item.value.data[128:])["plan"]
        for _ in range(draw.choice((1, 1, 2))):
            plan = self.changed(plan)
        try:
            data = signed_table(plan, self._identity)
        except (ValueError, TypeError):
            return self._rightly_signed()  # what has no canonical form has no digest to sign
        proto.content.CopyFrom(recorddict_to_proto(encode_plan(data)))
        return Mutated(proto.SerializeToString(), "signed", digest(plan))


def as_bytes(text: bytes) -> Array:
    """Bytes as an array."""
    import numpy as np

    return Array(np.frombuffer(text, dtype=np.uint8))


def written(table: Any) -> bytes:
    """JSON in its canonical form where it has one, and in some form otherwise."""
    try:
        return canonical(table)
    except (ValueError, TypeError):
        return json.dumps(table).encode()


# --- the jury -------------------------------------------------------------------------------------------------


@dataclass
class Jury:
    """Puts messages to a node, and holds every answer to what may come.

    Args:
        hostile: Reads releases, and knows the victim.
        answers: How often each word was heard; "unread" where Flower found no message in the bytes.
        seconds: Time spent by answer.
        plans: Digests of plans that were rightly signed.
    """

    hostile: Hostile
    answers: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)
    plans: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        node = self.hostile.nodes[self.hostile.victim]
        assert isinstance(node, Node)
        self.node = node
        self.before = len(node.ledger())
        self._hold()

    def put(self, mutated: Mutated) -> None:
        """Put one message to the node."""
        self.ways[mutated.how] += 1
        if mutated.plan:
            self.plans.add(mutated.plan)
        began = time.perf_counter()
        try:
            message = self.node.read(mutated.data)
        except Exception:  # noqa: BLE001 - what Flower cannot read never comes to the app
            self.answers["unread"] += 1
            return
        reply = self.node.answer(message)
        word = self.judged(reply)
        self.answers[word] += 1
        self.seconds[word] += time.perf_counter() - began

    def judged(self, reply: Message) -> str:
        """Return an answer's word; an assertion fails where it is not one that may come."""
        data = message_to_proto(reply).SerializeToString()
        assert not sings(data)
        if reply.has_error():
            word = reply.error.reason
            assert not reply.has_content()
            assert word in CODES, word
            assert reply.error.code == ERROR_CODE[word]
            return word
        found = release_digest(self.hostile.release(reply))
        if found not in self.held:
            self._hold()
        assert found in self.held, "a release left that the ledger does not hold"
        return self.hostile.word(reply).split(" ")[0]

    def growth(self) -> Counter[str]:
        """Return the ledger's new entries by kind."""
        return Counter(entry.kind for entry in self.node.ledger()[self.before :])

    def _hold(self) -> None:
        self.held = {str(e.body["release"]) for e in self.node.ledger() if "release" in e.body}

    def summary(self) -> Mapping[str, str]:
        """Return how often each word was heard, with the mean time of an answer in milliseconds."""
        return {
            word: f"{count} ({1000 * self.seconds[word] / count:.2f} ms)" for word, count in self.answers.most_common()
        }
