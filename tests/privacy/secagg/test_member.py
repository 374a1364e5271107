"""A partner's side: what it answers, what it answers again, what it refuses, and what it forgets."""

import dataclasses
import hashlib
import hmac
import itertools
import json
from collections.abc import Sequence

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from coterie.privacy.events import Nothing
from coterie.privacy.randomness import SeededSource
from coterie.privacy.secagg import masks, member
from coterie.privacy.secagg.epoch import Epoch
from coterie.privacy.secagg.errors import Misuse, PeerFault
from coterie.privacy.secagg.member import MemberState, Own, claim_of
from coterie.privacy.secagg.opening import key_list_digest
from coterie.privacy.secagg.sealing import sealed_size
from coterie.privacy.secagg.stages import AGAIN, TABLE, Move, Stage, after
from coterie.tests.privacy.secagg.cohort import (
    EVENT,
    MODEL,
    NAMES,
    OTHER_MODEL,
    STEPS,
    Cohort,
    epoch_of,
    identity,
    signed_by,
    vectors_of,
)

VECTOR = np.arange(5, dtype=np.int64)


def same(one, other):
    return one.header == other.header and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(one.arrays, other.arrays, strict=True)
    )


def masked_sum(count=4, **fields):
    cohort = Cohort(count, **fields).set_up()
    return cohort, cohort.mask_all(vectors_of(cohort.names))


def refused(call, partner=""):
    with pytest.raises(PeerFault) as caught:
        call()
    assert caught.value.partner == partner
    return str(caught.value)


# What is sent, computed again by other means.


def hkdf(secret, context):
    """RFC 5869 by its text, for 32 bytes; JSON that is canonical as these texts have no escapes."""
    info = json.dumps(context, sort_keys=True, separators=(",", ":")).encode()
    extracted = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def keystream(key, count, bits):
    """AES-256 in counter mode by its text: the encrypted counters, as little-endian words."""
    blocks = (count * bits // 8 + 15) // 16
    counters = b"".join(block.to_bytes(16, "big") for block in range(blocks))
    data = Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update(counters)  # noqa: S305 - one block at a time
    return [int.from_bytes(data[i * bits // 8 : (i + 1) * bits // 8], "little") for i in range(count)]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", ["art", "cars", "dogs"])
def test_a_masked_vector_is_the_one_that_the_specification_says(bits, name):
    cohort = Cohort(4, bits=bits).set_up()
    step = cohort.states[name].steps[0]
    vector = vectors_of([name], size=9)[name]
    context = {
        "format": "coterie/secagg/mask/v1",
        "plan": cohort.epoch.plan,
        "epoch": 1,
        "step": "train/1",
        "attempt": 1,
        "model": MODEL,
        "keys": key_list_digest(cohort.keys),
        "cohort": "sha256:"
        + hashlib.sha256(json.dumps(list(cohort.names), separators=(",", ":")).encode()).hexdigest(),
    }
    expected = [int(value) for value in vector]

    def add(sign, secret, purpose, who):
        stream = keystream(hkdf(secret, {**context, "purpose": purpose, "who": who}), 9, bits)
        expected[:] = [value + sign * word for value, word in zip(expected, stream, strict=True)]

    add(1, step.own, "self", [name])
    for other in cohort.names:
        if other != name:
            public = next(key.arrays[1][0, 0].tobytes() for key in cohort.keys if key.partner == other)
            private = X25519PrivateKey.from_private_bytes(step.pair)
            secret = private.exchange(X25519PublicKey.from_public_bytes(public))
            add(1 if name < other else -1, secret, "pair", sorted([name, other]))
    message = cohort.mask(name, vector)
    assert message.arrays[0].dtype == (np.uint32 if bits == 32 else np.uint64)
    assert message.arrays[0].tolist() == [value % 2**bits for value in expected]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("size", [1, 3, 32768, 32769, 100_001])
def test_long_masks_are_one_stream(bits, size):
    key = bytes(range(32))
    dtype = np.uint32 if bits == 32 else np.uint64
    vector = np.zeros(size, dtype=dtype)
    masks.apply(vector, plus=[key], minus=[])
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(size * bits // 8))
    assert vector.tobytes() == stream
    masks.apply(vector, plus=[bytes(32)], minus=[key, bytes(32)])
    assert not vector.any()


def test_sealed_shares_are_those_that_the_specification_says():
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    cohort = Cohort(4)
    private = cohort.states["cars"].channel
    cohort.deal_all()
    sender = next(key for key in cohort.keys if key.partner == "art").arrays[0].tobytes()
    secret = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(sender))
    names = {"sender": "art", "receiver": "cars"}
    context = {"plan": cohort.epoch.plan, "epoch": 1, "keys": key_list_digest(cohort.keys), **names}
    key = hkdf(secret, {"format": "coterie/secagg/seal/v1", **context})
    sealed = cohort.dealt[0].arrays[0][2].tobytes()
    shares = AESGCM(key).decrypt(sealed[:12], sealed[12:], None)
    assert len(sealed) == sealed_size(len(STEPS))
    cohort.accept("cars")
    assert shares == b"".join(step.shares[:64] for step in cohort.states["cars"].steps)


def test_nonces_and_leaves_are_all_different():
    cohort = Cohort(5).deal_all()
    nonces = {row.tobytes()[:12] for message in cohort.dealt for row in message.arrays[0]}
    assert len(nonces) == 25
    leaves = {leaf for s in cohort.states.values() for step in s.steps for leaf in (step.pair, step.own, step.noise)}
    assert len(leaves) == 5 * 3 * 3
    assert {len(leaf) for leaf in leaves} == {32}


# Masks hide.


def p_uniform(words, bits):
    """Pearson's chi-square of the highest and of the lowest byte."""
    p = 1.0
    for shift in (0, bits - 8):
        seen = np.bincount(((words >> words.dtype.type(shift)) & words.dtype.type(255)).astype(int), minlength=256)
        expected = len(words) / 256
        p = min(p, float(chi2.sf(((seen - expected) ** 2 / expected).sum(), 255)))
    return p


@pytest.mark.parametrize("bits", [32, 64])
def test_a_masked_vector_alone_is_uniform(bits):
    cohort = Cohort(3, bits=bits).set_up()
    constant = np.full(100_000, 12345, dtype=np.int64)
    assert p_uniform(cohort.mask("books", constant).arrays[0], bits) > 1e-4
    assert p_uniform(constant.astype(np.uint32 if bits == 32 else np.uint64), bits) < 1e-9  # the check can fail


def test_the_same_vector_under_other_secrets_is_another():
    first, second = (Cohort(3, seed).set_up().mask("art", VECTOR).arrays[0] for seed in (0, 1))
    assert (first != second).all()


def test_the_self_mask_hides_the_vector_from_all_who_know_the_pair_masks():
    cohort = Cohort(3).set_up()
    states = dict(cohort.states)
    both = [cohort.mask("art", np.zeros(5, dtype=np.int64)).arrays[0] for _ in range(1)]
    for name, leaf in (("art", bytes(32)),):
        cohort.states[name] = states[name].with_step(dataclasses.replace(states[name].steps[0], own=leaf))
    both.append(cohort.mask("art", np.zeros(5, dtype=np.int64)).arrays[0])
    assert (both[0] != both[1]).all()


FIELDS = {
    "plan": lambda: Cohort(4, plan="sha256:" + "d" * 64),
    "epoch": lambda: Cohort(4, number=2),
    "step": "train/2",
    "attempt": 2,
    "model": OTHER_MODEL,
    "cohort": ("art", "books", "cars"),
    "keys": "sha256:" + "e" * 64,
}


@pytest.mark.parametrize("field", FIELDS)
def test_masks_and_noise_are_bound_to_every_field(field):
    leaf, public = bytes(range(32)), X25519PrivateKey.from_private_bytes(b"k" * 32).public_key().public_bytes_raw()
    epoch, changed = epoch_of(4), epoch_of(4)
    task, keys = Cohort(4).task(), "sha256:" + "f" * 64
    other_task, other_keys = task, keys
    if field == "plan":
        changed = epoch_of(4, plan="sha256:" + "d" * 64)
    elif field == "epoch":
        changed = epoch_of(4, number=2)
    elif field == "keys":
        other_keys = FIELDS[field]
    else:
        other_task = dataclasses.replace(task, **{field: FIELDS[field]})
    first, second = member.about(epoch, task, keys), member.about(changed, other_task, other_keys)
    assert masks.self_key(leaf, first, "art") != masks.self_key(leaf, second, "art")
    for purpose in masks.PURPOSES:
        drawn = [masks.noise_key(leaf, about, "art", purpose=purpose, table="") for about in (first, second)]
        assert drawn[0] != drawn[1]
    pair = ("art", "books")
    assert masks.pair_key(leaf, public, first, pair=pair) != masks.pair_key(leaf, public, second, pair=pair)


def test_masks_of_one_secret_differ_by_purpose_and_by_who():
    about = member.about(epoch_of(4), Cohort(4).task(), "sha256:" + "f" * 64)
    leaf = bytes(range(32))
    drawn = {
        masks.noise_key(leaf, about, "art", purpose=p, table=t) for p in masks.PURPOSES for t in ("", "one", "two")
    }
    assert len({masks.self_key(leaf, about, "art"), *drawn}) == 10
    assert masks.self_key(leaf, about, "art") != masks.self_key(leaf, about, "books")


def test_noise_is_the_same_for_the_same_question_from_a_snapshot_and_another_for_another():
    cohort = Cohort(4).set_up()
    own, state = cohort.owns["art"], cohort.states["art"]
    restored = MemberState.from_bytes(state.to_bytes())
    tasks = [cohort.task(), cohort.task(model=OTHER_MODEL), cohort.task(attempt=2), cohort.task("train/2")]
    tasks.append(cohort.task(cohort=("art", "books", "cars")))
    purposes, tables = ("rows", "sample", "noise"), ("", "a" * 64, "b" * 64)

    def draws(kept):
        kinds = itertools.product(tasks, purposes, tables)
        return [member.noise_stream(own, kept, k, purpose=p, table=t).bits(16) for k, p, t in kinds]

    assert draws(restored) == draws(state)
    assert len(set(draws(state))) == len(tasks) * 9
    cohort.mask("art", VECTOR)
    refused(lambda: member.noise_stream(own, cohort.states["art"], cohort.task(), purpose="noise", table=""))


def test_a_stream_is_for_a_purpose_that_there_is():
    cohort = Cohort(4).set_up()
    for purpose in ("self", "pair", "", "Noise"):  # the first two are purposes of masks
        with pytest.raises(Misuse):
            member.noise_stream(cohort.owns["art"], cohort.states["art"], cohort.task(), purpose=purpose, table="")


# Said again.


def test_the_same_request_gives_the_same_bytes():
    cohort = Cohort(4)
    first = cohort.deal("art")
    assert same(first, cohort.deal("art", cohort.keys[::-1]))
    cohort.dealt = [first, *(cohort.deal(name) for name in cohort.names[1:])]
    for name in cohort.names:
        cohort.accept(name)
    state = cohort.states["art"]
    cohort.accept("art", cohort.dealt[::-1])
    assert cohort.states["art"] == state
    assert same(first, cohort.deal("art"))
    masked = cohort.mask_all(vectors_of(cohort.names))
    signed = {name: cohort.sign(name, masked) for name in cohort.names}
    assert same(signed["art"], cohort.sign("art", dict(reversed(masked.items()))))
    revealed = cohort.reveal("art", signed)
    state = cohort.states["art"]
    three = {name: signed[name] for name in ("books", "cars", "dogs")}
    assert same(revealed, cohort.reveal("art", three))
    assert same(signed["art"], cohort.sign("art", masked))
    assert cohort.states["art"] == state


def test_another_list_than_before_is_refused():
    cohort = Cohort(4).deal_all()
    assert "another list" in refused(lambda: cohort.deal("art", cohort.keys[:3]))
    cohort.accept("art")
    assert "another list" in refused(lambda: cohort.accept("art", cohort.dealt[:3]))
    assert "another list" in refused(lambda: cohort.deal("art", cohort.keys[:3]))


def test_other_survivors_than_before_are_refused():
    cohort, masked = masked_sum()
    three = {name: masked[name] for name in ("art", "books", "cars")}
    words = {name: cohort.sign(name, masked) for name in masked}
    assert "other survivors" in refused(lambda: cohort.sign("art", three))
    cohort.reveal("art", words)
    assert "other survivors" in refused(lambda: cohort.sign("art", three))


def test_a_step_is_masked_once():
    cohort = Cohort(4).set_up()
    cohort.mask("art", VECTOR)
    for task in (cohort.task(), cohort.task(model=OTHER_MODEL), cohort.task(attempt=2)):
        with pytest.raises(Misuse):
            cohort.mask("art", VECTOR, task)
        refused(lambda task=task: member.ready(cohort.owns["art"], cohort.states["art"], task))
    cohort.mask("art", VECTOR, cohort.task("train/2"))


@pytest.mark.parametrize(
    "vector", [VECTOR.astype(np.int32), VECTOR.astype(float), VECTOR.reshape(1, 5), VECTOR[:0], [1, 2], None]
)
def test_only_vectors_of_whole_numbers_are_masked(vector):
    cohort = Cohort(3).set_up()
    with pytest.raises(Misuse):
        member.mask(cohort.owns["art"], cohort.states["art"], cohort.task(), vector, EVENT)


def test_a_vector_that_nothing_pays_for_is_not_masked():
    cohort = Cohort(3).set_up()
    with pytest.raises(Misuse):
        member.mask(cohort.owns["art"], cohort.states["art"], cohort.task(), VECTOR, Nothing())


# The order of things.


def test_the_table_has_one_way_through():
    assert [
        TABLE[stage, move] for stage, move in zip((Stage.BEGUN, Stage.DEALT), (Move.DEAL, Move.ACCEPT), strict=True)
    ]
    ways = {
        (Stage.BEGUN, Move.DEAL): Stage.DEALT,
        (Stage.DEALT, Move.ACCEPT): Stage.READY,
        (Stage.FRESH, Move.MASK): Stage.MASKED,
        (Stage.MASKED, Move.SIGN): Stage.SIGNED,
        (Stage.SIGNED, Move.REVEAL): Stage.REVEALED,
    }
    for stage in Stage:
        for move in Move:
            if (stage, move) in ways:
                assert after(stage, move) == (ways[stage, move], False)
            elif (stage, move) in AGAIN:
                assert after(stage, move) == (stage, True)
            else:
                refused(lambda stage=stage, move=move: after(stage, move))
    assert not [(stage, move) for stage, move in AGAIN if move is Move.MASK]


def test_what_is_asked_too_early_is_refused():
    cohort = Cohort(4)
    other = Cohort(4).set_up()
    refused(lambda: cohort.accept("art", other.dealt))
    refused(lambda: cohort.mask("art", VECTOR))
    cohort.deal_all()
    assert "before its set-up" in refused(lambda: cohort.mask("art", VECTOR))
    masked = other.mask_all(vectors_of(other.names))
    words = {name: other.sign(name, masked) for name in masked}
    for name in cohort.names:
        cohort.accept(name)
    refused(lambda: cohort.sign("art", masked))
    refused(lambda: cohort.reveal("art", words))
    cohort.mask("art", vectors_of(cohort.names)["art"])
    refused(lambda: cohort.reveal("art", words))


def test_a_state_is_one_partners_of_one_epoch():
    cohort = Cohort(4).set_up()
    for own in (
        cohort.owns["books"],
        Own("art", identity("art"), epoch_of(4, number=2)),
        Own("art", identity("art"), epoch_of(4, plan="sha256:" + "d" * 64)),
        Own("art", identity("art"), epoch_of(4, steps=STEPS[:2])),
    ):
        with pytest.raises(Misuse):
            member.ready(own, cohort.states["art"], cohort.task())
        with pytest.raises(Misuse):
            member.deal(own, cohort.states["art"], cohort.keys, cohort.source.stream(""))
        with pytest.raises(Misuse):
            member.accept(own, cohort.states["art"], cohort.dealt)
        with pytest.raises(Misuse):
            member.mask(own, cohort.states["art"], cohort.task(), VECTOR, EVENT)
        with pytest.raises(Misuse):
            member.sign(own, cohort.states["art"], [])
        with pytest.raises(Misuse):
            member.reveal(own, cohort.states["art"], [])


def test_nobody_speaks_under_anothers_name():
    for name, who in (("art", "books"), ("zebra", "art")):
        with pytest.raises(Misuse):
            Own(name, identity(who), epoch_of(4))


# What is remembered, and what is not.


def test_a_state_is_read_back_as_it_was_at_every_stage():
    cohort = Cohort(4)
    seen = []

    def look():
        state = cohort.states["art"]
        assert MemberState.from_bytes(state.to_bytes()) == state
        seen.append(state.to_bytes())

    look()
    cohort.deal_all()
    look()
    for name in cohort.names:
        cohort.accept(name)
    look()
    masked = cohort.mask_all(vectors_of(cohort.names))
    look()
    words = {name: cohort.sign(name, masked) for name in masked}
    look()
    cohort.reveal("art", words)
    look()
    assert len(set(seen)) == 6


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"format":"coterie/secagg/state/v1","state":{}}',
        b'{"format":"coterie/secagg/state/v1","state":[]}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_what_is_no_state_is_refused(data):
    with pytest.raises(Misuse):
        MemberState.from_bytes(data)


def test_an_altered_state_is_refused_or_is_another():
    data = Cohort(3).set_up().states["art"].to_bytes()
    for old, new in ((b'"stage":"ready"', b'"stage":"done"'), (b'"gone":[]', b'"gone": []'), (b'"gone":[],', b"")):
        assert old in data
        with pytest.raises(Misuse):
            MemberState.from_bytes(data.replace(old, new, 1))


def test_secrets_are_erased_when_they_have_served():
    cohort = Cohort(4)
    channel = cohort.states["art"].channel
    leaves = cohort.states["art"].steps[0]
    cohort.set_up()
    assert channel.hex().encode() not in cohort.states["art"].to_bytes()
    shares = cohort.states["art"].steps[0].shares
    assert len(shares) == 4 * 64
    masked = cohort.mask_all(vectors_of(cohort.names))
    for leaf in (leaves.pair, leaves.own, leaves.noise):
        assert leaf.hex().encode() not in cohort.states["art"].to_bytes()
    words = {name: cohort.sign(name, masked) for name in masked}
    cohort.reveal("art", words)
    left = cohort.states["art"].to_bytes()
    pairs = [shares[start : start + 32] for start in range(0, 256, 64)]
    assert not [share for share in pairs if share.hex().encode() in left]  # nobody dropped: these were never revealed
    other = cohort.states["art"].steps[1]
    assert len(other.pair) == len(other.own) == len(other.noise) == 32
    assert len(other.shares) == 4 * 64


def test_secrets_are_not_in_what_a_state_prints():
    state = Cohort(3).set_up().states["art"]
    printed = repr(state)
    assert state.steps[0].pair.hex() not in printed
    assert repr(state.steps[0].pair) not in printed
    assert repr(state.steps[0].shares) not in printed


def test_what_was_decided_before_a_restart_stands_after_it():
    cohort, masked = masked_sum()
    words = {name: cohort.sign(name, masked) for name in masked}
    cohort.states = {name: MemberState.from_bytes(state.to_bytes()) for name, state in cohort.states.items()}
    refused(lambda: cohort.sign("art", {name: masked[name] for name in ("art", "books", "cars")}))
    first = cohort.reveal("art", words)
    cohort.states = {name: MemberState.from_bytes(state.to_bytes()) for name, state in cohort.states.items()}
    assert same(first, cohort.reveal("art", words))
    with pytest.raises(Misuse):
        cohort.mask("art", VECTOR)


# Lists.


def test_key_lists_that_are_none_are_refused():
    cohort, other = Cohort(4), Cohort(4, seed=1)
    stranger = signed_by("zebra", cohort.keys[0], partner="zebra")
    refused(lambda: cohort.deal("art", cohort.keys[:2]))
    refused(lambda: cohort.deal("art", []))
    refused(lambda: cohort.deal("art", cohort.keys[1:]))
    refused(lambda: cohort.deal("art", [*cohort.keys, cohort.keys[1]]))
    refused(lambda: cohort.deal("art", [*cohort.keys[:3], cohort.keys[1]]))
    refused(lambda: cohort.deal("art", [*cohort.keys[:3], stranger]))
    # Its own keys, signed by itself, but not the ones that it drew for this epoch.
    assert "without this partner's own" in refused(lambda: cohort.deal("art", [other.keys[0], *cohort.keys[1:]]))


def test_lists_of_shares_that_are_none_are_refused():
    cohort = Cohort(5)
    four = cohort.keys[:4]
    cohort.dealt = [cohort.deal(name, four) for name in cohort.names[:4]]
    five = Cohort(5).deal_all()
    refused(lambda: cohort.accept("art", cohort.dealt[:3]))
    refused(lambda: cohort.accept("art", [*cohort.dealt[:3], cohort.dealt[0]]))
    refused(lambda: cohort.accept("art", cohort.dealt[1:]))
    refused(lambda: cohort.accept("art", [*cohort.dealt, five.dealt[4]]), "eggs")
    forged = signed_by("eggs", cohort.dealt[1], partner="eggs")
    assert "did not show" in refused(lambda: cohort.accept("art", [*cohort.dealt, forged]))
    mine = signed_by("art", cohort.dealt[0], arrays=(cohort.dealt[0].arrays[0], cohort.dealt[0].arrays[1] ^ 1))
    assert "without this partner's own" in refused(lambda: cohort.accept("art", [mine, *cohort.dealt[1:]]))


def test_a_sealed_share_that_was_not_committed_to_is_its_dealers_fault():
    cohort = Cohort(4).deal_all()
    bad = cohort.dealt[2]
    commitments = bad.arrays[1].copy()
    commitments[0, 1, 1, 5] ^= 1
    cohort.dealt[2] = signed_by("cars", bad, arrays=(bad.arrays[0], commitments))
    assert "commit" in refused(lambda: cohort.accept("art"), "cars")
    cohort.accept("books")  # its own share is as committed


@pytest.mark.parametrize(
    "cohort_of",
    [
        lambda names: names[:2],
        lambda names: names[1:],
        lambda names: names[::-1],
        lambda names: (*names[:3], names[2]),
        lambda names: (*names[:3], "zebra"),
        lambda names: (*names, "zebra"),
        list,
        lambda names: (*names[:3], 7),
        lambda names: "art",
        lambda names: None,
    ],
)
def test_a_cohort_that_is_none_is_refused(cohort_of):
    cohort = Cohort(4).set_up()
    task = dataclasses.replace(cohort.task(), cohort=cohort_of(cohort.names))
    refused(lambda: member.ready(cohort.owns["art"], cohort.states["art"], task))
    refused(lambda: cohort.mask("art", VECTOR, task))


def test_a_partner_whose_shares_are_not_held_may_not_be_in_a_cohort():
    cohort = Cohort(4).deal_all()
    cohort.accept("art", cohort.dealt[:3])
    refused(lambda: cohort.mask("art", VECTOR))
    cohort.mask("art", VECTOR, cohort.task(cohort=cohort.names[:3]))


@pytest.mark.parametrize(
    "change",
    [
        {"step": "train/9"},
        {"step": None},
        {"step": ["train/1"]},
        {"attempt": 0},
        {"attempt": True},
        {"attempt": 2**60},
        {"attempt": 1.0},
        {"model": ""},
        {"model": None},
        {"model": "sha256:" + "g" * 64},
        {"model": MODEL + "\n"},
    ],
)
def test_a_task_that_is_none_is_refused(change):
    cohort = Cohort(4).set_up()
    task = dataclasses.replace(cohort.task(), **change)
    refused(lambda: member.ready(cohort.owns["art"], cohort.states["art"], task))
    refused(lambda: cohort.mask("art", VECTOR, task))
    refused(lambda: member.mask(cohort.owns["art"], cohort.states["art"], None, VECTOR, EVENT))


def test_who_dropped_out_is_out_for_the_epoch():
    cohort = Cohort(5).set_up()
    cohort.run(vectors_of(cohort.names[:4]))
    assert "dropped out" in refused(lambda: cohort.mask("art", VECTOR, cohort.task("train/2")))
    cohort.mask("art", VECTOR, cohort.task("train/2", cohort=cohort.names[:4]))


def test_survivors_that_are_none_are_refused():
    cohort, masked = masked_sum(5)
    four = {name: masked[name] for name in cohort.names[:4]}
    refused(lambda: cohort.sign("art", {}))
    refused(lambda: cohort.sign("art", {name: masked[name] for name in cohort.names[:3]}))
    refused(lambda: cohort.sign("eggs", four))
    refused(lambda: cohort.sign("art", {**four, "again": masked["art"]}))
    refused(lambda: cohort.sign("art", {**four, "zebra": dataclasses.replace(masked["art"], partner="zebra")}))
    refused(lambda: cohort.sign("art", {**four, "books": dataclasses.replace(masked["books"], attempt=2)}))
    refused(lambda: cohort.sign("art", {**four, "books": dataclasses.replace(masked["books"], step="train/2")}))
    assert cohort.states["art"].steps[0].stage is Stage.MASKED


def test_a_claim_is_checked_against_its_partners_own_key():
    cohort, masked = masked_sum()
    own, state = cohort.owns["art"], cohort.states["art"]
    claims = [claim_of(message) for message in masked.values()]
    for change in (
        {"signature": bytes(64)},
        {"signature": b""},
        {"signature": claims[2].signature},
        {"vector": claims[2].vector},
        {"partner": "cars", "vector": claims[2].vector},
    ):
        bad = [*claims[:1], dataclasses.replace(claims[1], **change), *claims[3:]]
        named = change.get("partner", "books")
        refused(lambda bad=bad: member.sign(own, state, bad), named)
    for vector in ("", "sha256:", None, claims[1].vector.upper()):
        bad = [claims[0], dataclasses.replace(claims[1], vector=vector), *claims[2:]]
        refused(lambda bad=bad: member.sign(own, state, bad))


def test_a_survivor_from_outside_the_cohort_is_refused():
    cohort = Cohort(4).set_up()
    three = cohort.names[:3]
    masked = {name: cohort.mask(name, VECTOR, cohort.task(cohort=three)) for name in three}
    masked["dogs"] = signed_by("dogs", dataclasses.replace(masked["art"], partner="dogs"))
    assert "outside the cohort" in refused(lambda: cohort.sign("art", masked))


def test_another_own_vector_is_refused():
    # A snapshot that was put back has signed another vector of the same step: its signature is good.
    cohort, masked = masked_sum()
    twin = Cohort(4).set_up()
    masked["art"] = twin.mask("art", VECTOR + 1)
    assert "own vector" in refused(lambda: cohort.sign("art", masked))


def test_words_that_are_none_are_refused():
    cohort, masked = masked_sum(5)
    four = {name: masked[name] for name in cohort.names[:4]}
    words = {name: cohort.sign(name, four) for name in four}
    forged = signed_by("eggs", dataclasses.replace(words["art"], partner="eggs"))
    refused(lambda: cohort.reveal("art", {}))
    refused(lambda: cohort.reveal("art", {name: words[name] for name in cohort.names[:3]}))
    refused(lambda: cohort.reveal("art", {**words, "again": words["art"]}))
    assert "did not survive" in refused(lambda: cohort.reveal("art", {**words, "eggs": forged}))
    for change in ({"transcript": "sha256:" + "0" * 64}, {"attempt": 2}, {"epoch": 2}, {"plan": "x"}):
        bad = {**words, "books": signed_by("books", words["books"], **change)}
        refused(lambda bad=bad: cohort.reveal("art", bad), "books")
    bad = {**words, "books": dataclasses.replace(words["books"], signature="0" * 128)}
    refused(lambda: cohort.reveal("art", bad), "books")
    refused(lambda: cohort.reveal("eggs", words))
    assert len(cohort.states["art"].steps[0].shares) == 5 * 64


# Strangers' bytes.

ODD = [
    None,
    True,
    -1,
    1.5,
    2**70,
    "",
    "x",
    "\ud800",
    "x" * 100_000,
    b"",
    (),
    [],
    {},
    ("a",),
    np.zeros(3),
    (np.zeros(3),),
    (np.zeros((2, 2), dtype=object),),
    (np.broadcast_to(np.uint8(1), (2**40,)),),
    (np.zeros(0, dtype=np.uint8), np.zeros(0, dtype=np.uint8)),
    (None, None),
    object(),
]


def odd_copies(message):
    for field in dataclasses.fields(message):
        for value in ODD:
            yield dataclasses.replace(message, **{field.name: value})


def only_peer_faults(call, bad):
    try:
        call(bad)
    except PeerFault:
        return
    # What was not refused said the same, in a field that nothing is decided by.
    assert getattr(bad, "kind", "") == "masked-vector"
    assert bad.event is not EVENT


def test_nothing_of_a_stranger_raises_anything_but_a_peers_fault():
    cohort = Cohort(4)
    own, stream = cohort.owns["art"], SeededSource(b"").stream("")
    begun = cohort.states["art"]
    cohort.deal_all()
    dealt = cohort.states["art"]
    for name in cohort.names:
        cohort.accept(name)
    masked = cohort.mask_all(vectors_of(cohort.names))
    after_mask = cohort.states["art"]
    words = {name: cohort.sign(name, masked) for name in masked}
    signed = cohort.states["art"]
    claims = [claim_of(message) for message in masked.values()]
    revealed = {name: cohort.reveal(name, words) for name in words}
    only = only_peer_faults
    for bad in [*odd_copies(cohort.keys[1]), *ODD]:
        only(lambda bad: member.deal(own, begun, [cohort.keys[0], bad, *cohort.keys[2:]], stream), bad)
    for bad in [*odd_copies(cohort.dealt[1]), *ODD]:
        only(lambda bad: member.accept(own, dealt, [cohort.dealt[0], bad, *cohort.dealt[2:]]), bad)
    for bad in [*odd_copies(claims[1]), *ODD]:
        only(lambda bad: member.sign(own, after_mask, [claims[0], bad, *claims[2:]]), bad)
        only(lambda bad: member.sign(own, after_mask, [bad, *claims]), bad)
    for bad in [*odd_copies(words["books"]), *ODD]:
        only(lambda bad: member.reveal(own, signed, [bad, *(words[name] for name in ("art", "cars", "dogs"))]), bad)
    for bad in [*odd_copies(masked["books"]), *ODD]:
        only(lambda bad: cohort.open({**masked, "books": bad}, revealed), bad)
    for bad in [*odd_copies(revealed["books"]), *ODD]:
        blamed = cohort.open(masked, {**revealed, "books": bad}).blamed
        assert [fault.partner for fault in blamed] == ["books"]
    for bad in ODD:
        only(lambda bad: member.deal(own, begun, bad, stream), bad)
        only(lambda bad: member.accept(own, dealt, bad), bad)
        only(lambda bad: member.sign(own, after_mask, bad), bad)
        only(lambda bad: member.reveal(own, signed, bad), bad)
        only(lambda bad: member.ready(own, dealt, bad), bad)


class Endless(Sequence):
    """A list that is longer than anybody has time for."""

    def __len__(self):
        return 10**12

    def __getitem__(self, place):
        raise AssertionError("was looked at")


def test_a_list_longer_than_the_roster_is_not_looked_at():
    cohort, _ = masked_sum()
    own, state = cohort.owns["art"], cohort.states["art"]
    refused(lambda: cohort.deal("art", Endless()))
    refused(lambda: cohort.accept("art", Endless()))
    refused(lambda: member.sign(own, state, Endless()))
    refused(lambda: member.reveal(own, state, Endless()))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_order_of_requests_reveals_one_kind_of_share_at_most(data):
    """A coordinator that asks at random, with real messages, never learns both shares of one partner of one step."""
    cohort = Cohort(4).set_up()
    masked = cohort.mask_all(vectors_of(cohort.names))
    groups = [cohort.names, ("art", "books", "cars"), ("art", "books", "dogs"), ("art", "cars", "dogs")]
    words, shown = {}, {}
    for _ in range(12):
        name, group = data.draw(st.sampled_from(cohort.names)), data.draw(st.sampled_from(groups))
        try:
            if data.draw(st.booleans()):
                word = cohort.sign(name, {one: masked[one] for one in group})
                words.setdefault(word.transcript, {})[name] = word
            else:
                said = data.draw(st.sampled_from([{}, *words.values()]))
                shares = cohort.reveal(name, said)
                shown.setdefault(name, set()).add((shares.transcript, shares.arrays[0].tobytes()))
        except PeerFault:
            continue
    assert all(len(kinds) == 1 for kinds in shown.values())
    assert len({transcript for kinds in shown.values() for transcript, _ in kinds}) <= 1


# The epoch.


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 0},
        {"threshold": 1},
        {"threshold": 2},
        {"threshold": 4},  # of six: exactly two thirds
        {"threshold": 7},
        {"bits": 16},
        {"bits": 40},
        {"bits": 0},
        {"steps": ()},
        {"steps": ("train/1", "train/1")},
        {"number": 0},
        {"roster": tuple((name, identity("art").public) for name in NAMES[:6])},
        {"roster": tuple(("art", identity(name).public) for name in NAMES[:6])},
        {"roster": tuple((str(place), f"key{place}") for place in range(256)), "threshold": 200},
    ],
)
def test_an_epoch_that_does_not_protect_is_refused(change):
    assert epoch_of(6, threshold=5).threshold == 5
    with pytest.raises(Misuse):
        epoch_of(6, **change)


def test_two_of_two_partners_are_no_epoch():
    with pytest.raises(Misuse):
        epoch_of(2, threshold=2)
    assert isinstance(epoch_of(3, threshold=3), Epoch)
