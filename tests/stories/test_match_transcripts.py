"""What the coordinator of a match sees: kinds, sizes and an order that follow from the plan, and no identifier."""

import hashlib
import re
from collections import Counter

import numpy as np
import pytest
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import Message as Proto

from coterie.clients.matchwire import MATCH, Take, decode_match
from coterie.clients.wire import decode_release, split_head
from coterie.privacy.calibration import calibrate
from coterie.privacy.matching.group import hash_to_group
from coterie.privacy.matching.identifiers import item
from coterie.privacy.matchterms import match_terms
from coterie.privacy.randomness import OsSource
from coterie.privacy.release import MatchCommitted, MatchParcel
from coterie.tests.clients.federation import files_of
from coterie.tests.clients.matching import Matched, asking, chunks_of, match_plan
from coterie.tests.clients.summing import quick_folder

OUTCOMES = ("counts", "rows", "tokens")


@pytest.fixture(scope="module", autouse=True)
def _small_chunks():
    with chunks_of(64):
        yield


@pytest.fixture(scope="module")
def folder():
    with quick_folder() as found:
        yield found


def cards(common, only, seed=""):
    """Two partners of so many customers, of whom some are shared."""
    both = {f"{seed}both{number:04d}" for number in range(common)}
    return {name: both | {f"{seed}{name}{number:04d}" for number in range(only)} for name in ("amber", "birch")}


def overheard(folder, outcome, held):
    """A federation that matched, and all that passed its coordinator."""
    federation = Matched(folder / f"{outcome}-{sum(1 for _ in folder.iterdir())}", match_plan(2, outcome), held)
    federation.random = OsSource()
    grid = federation.grid()
    federation.run(grid)
    return federation, grid.passed


@pytest.fixture(scope="module")
def seen(folder):
    """One match of every outcome."""
    return {outcome: overheard(folder, outcome, cards(12, 30)) for outcome in OUTCOMES}


def shape(passed):
    """A transcript without its contents: of each message its kind, from or to whom, and its size."""
    protos = [Proto.FromString(wire) for wire in passed]
    return [
        (one.metadata.message_type, one.metadata.src_node_id, one.metadata.dst_node_id, _size(one)) for one in protos
    ]


def _size(proto):
    """Bytes of a message's content; of numbers in the ledger's checkpoint, only how many there are."""
    return sum(len(item_.SerializeToString()) for item_ in proto.content.items if item_.key not in {"head", "witness"})


@pytest.mark.parametrize("outcome", ["rows", "tokens"])
def test_federations_of_equal_size_look_alike_whoever_they_share(folder, seen, outcome):
    """Nobody shared, or everybody; other numbers; the two lists swapped: the same kinds, order and sizes."""
    _, passed = seen[outcome]
    swapped = cards(12, 30)
    swapped = {"amber": swapped["birch"], "birch": swapped["amber"]}
    for held in (cards(0, 42), cards(42, 0), cards(12, 30, "x"), cards(10, 34), swapped):
        _, theirs = overheard(folder, outcome, held)
        assert shape(theirs) == shape(passed)
    _, longer = overheard(folder, outcome, cards(12, 46))  # another size class can be seen
    assert shape(longer) != shape(passed)


def test_counts_of_equal_size_have_the_same_kinds_and_order(folder, seen):
    """Sizes of lists have noise, which is paid for; pieces and what is between them follow from these alone."""
    _, passed = seen["counts"]
    kinds = Counter(kind for kind, *_ in shape(passed))
    for held in (cards(0, 42), cards(42, 0)):
        _, theirs = overheard(folder, "counts", held)
        assert Counter(kind for kind, *_ in shape(theirs)).keys() == kinds.keys()
        first, second = (_without_pieces(shape(one)) for one in (passed, theirs))
        assert first == second


def _without_pieces(told):
    """The order of kinds and partners, what is alike in a row counted once: lists may be a piece longer or shorter."""
    bare = [(kind, source, to) for kind, source, to, _ in told]
    return sorted(set(bare), key=bare.index)


def parcels_of(federation, passed):
    """Every sealed piece that passed."""
    found = []
    for wire in passed:
        message = message_from_proto(Proto.FromString(wire))
        if message.metadata.message_type == MATCH and "match" in message.content:
            content = {key: message.content[key] for key in ("match", "sealed") if key in message.content}
            asked = decode_match(type(message.content)(content))
            found += [asked.parcel] if isinstance(asked, Take) else []
    assert found
    return found


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_coordinator_sees_no_number_and_no_hash_of_one(seen, outcome):
    federation, passed = seen[outcome]
    everybody = sorted(set().union(*federation.cards.values()))
    needles = {card.encode() for card in everybody}
    for card in everybody:
        for kind in ("sha256", "sha1", "md5", "sha512"):
            digest = hashlib.new(kind, card.encode()).digest()
            needles |= {digest[:16], digest.hex()[:32].encode()}
    haystack = b"\0".join([*passed, *files_of(federation.root / "coordinator").values()])
    assert [needle for needle in needles if needle in haystack] == []


@pytest.mark.parametrize("outcome", ["counts", "rows", "tokens"])
def test_the_coordinator_sees_no_point_and_no_token(folder, outcome):
    federation = Matched(folder / f"points-{outcome}", match_plan(2, outcome), cards(12, 30)).consented()
    federation.random = OsSource()
    lead = federation.lead(asking(type(None)))
    terms = match_terms(federation.plan, rules=lead.said[0][2].commitment.rules)
    points = hash_to_group([item("loyalty", card) for card in sorted(federation.cards["amber"])], terms.dst)
    again = Matched(folder / f"points-{outcome}-again", match_plan(2, outcome), cards(12, 30)).consented()
    held = set()
    stopped = again.lead(asking(type(lead.said[-1][1])))  # before the end, while lists are there
    for name in again.names:
        for path in again.store(name).folder.glob("*.points"):
            data = path.read_bytes()
            held |= {data[start : start + 16] for start in range(0, len(data), 16)}
    assert held
    wires = b"".join(_bytes_of(answer) for _, _, answer in stopped.said)
    assert not [one for one in held if one in wires]
    assert not [bytes(one) for one in points if bytes(one) in wires]
    if outcome == "tokens":
        tokens = set(federation.tokens_at("amber").values())
        told = b"".join(_bytes_of(answer) for _, _, answer in lead.said)
        assert not [token for token in tokens if token in told or token.hex().encode() in told]


def _bytes_of(answer):
    sealed = answer.parcel.sealed if isinstance(answer, MatchParcel) else b""
    return repr(answer.header).encode() + sealed


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_sealed_pieces_are_bytes_without_a_pattern(seen, outcome):
    """Each byte value as often as any other: 255 degrees of freedom, and bounds far out in the tails."""
    federation, passed = seen[outcome]
    parcels = parcels_of(federation, passed)
    data = np.frombuffer(b"".join(one.sealed for one in parcels), dtype=np.uint8)
    counts = np.bincount(data, minlength=256)
    expected = len(data) / 256
    chi = float(((counts - expected) ** 2 / expected).sum())
    assert 130 < chi < 420
    nonces = [one.sealed[:12] for one in parcels]
    assert len(set(nonces)) == len(nonces)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_what_is_not_sealed_is_the_same_words_for_whatever_customers(seen, outcome):
    """Beyond sealed pieces: names, numbers of pieces, digests, keys and signatures, noisy counts; no other text."""
    federation, passed = seen[outcome]
    event, kinds = calibrate(federation.plan).overlap, Counter()
    for wire in passed:
        message = message_from_proto(Proto.FromString(wire))
        if message.metadata.message_type != MATCH or "match" in message.content:
            continue
        release = decode_release(split_head(message.content)[1], listed=event)
        kinds[release.kind] += 1
        text = re.sub(r"[0-9a-f]{64,128}", "#", repr(release.header))
        words = set(re.findall(r"[a-z][a-z-]+", text))
        assert words <= {
            *("sha", "plan", "partner", "attempt", "rules", "size", "chunks", "channel", "signature", "manifest"),
            *(
                "list",
                "hop",
                "index",
                "towards",
                "count",
                "sender",
                "receiver",
                "canaries",
                "overlap",
                "amber",
                "birch",
            ),
            *("cells", "totals", "pairs", "multiplicity", "partners", "customers", "deviation", "names", "least"),
            *("sigma", "width"),
        }, release.kind
        if isinstance(release, MatchCommitted) and outcome != "counts":
            assert release.commitment.size % federation.plan.matching.size_class == 0
    assert set(kinds) >= {"match-committed", "manifest-accepted", "match-parcel", "parcel-taken", "match-ended"}
    assert ("overlap-counts" in kinds) == (outcome == "counts")
