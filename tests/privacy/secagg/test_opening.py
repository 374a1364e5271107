"""What is opened is the plain sum, bit for bit, or nothing; and whose fault it was."""

import dataclasses
import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.privacy.secagg import dealing, opening
from coterie.privacy.secagg.errors import PeerFault
from coterie.privacy.secagg.member import claim_of
from coterie.privacy.secagg.shamir import split
from coterie.tests.privacy.secagg.cohort import OTHER_MODEL, Cohort, identity, signed_by, vectors_of


def plain_sum(vectors, names, bits):
    """Add as whole numbers of any size; read modulo 2**bits nearest to 0."""
    sums = [sum(int(value) for value in column) for column in zip(*(vectors[name] for name in names), strict=True)]
    return [(value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) for value in sums]


def with_row(message, row, value):
    """Return a message's first array with one row replaced."""
    array = message.arrays[0].copy()
    array[row] = value
    return (array,)


def a_sum(count=5, *, survivors=None, seed=0):
    """Return a cohort with all messages of one sum."""
    cohort = Cohort(count, seed).set_up()
    vectors = vectors_of(cohort.names if survivors is None else survivors)
    masked = cohort.mask_all(vectors)
    signed = {name: cohort.sign(name, masked) for name in masked}
    revealed = {name: cohort.reveal(name, signed) for name in masked}
    return cohort, vectors, masked, revealed


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 8), st.sampled_from([32, 64]), st.integers(0, 10**6), st.data())
def test_the_opened_sum_is_the_plain_sum_whoever_drops_out_wherever(count, bits, seed, data):
    cohort = Cohort(count, seed, bits).set_up()
    spare = count - cohort.epoch.threshold
    late = data.draw(st.permutations(cohort.names))[: data.draw(st.integers(0, spare))]
    stages = {name: data.draw(st.sampled_from(["mask", "sign", "reveal"])) for name in late}
    survivors = [name for name in cohort.names if stages.get(name) != "mask"]
    signers = [name for name in survivors if stages.get(name) != "sign"]
    revealers = [name for name in signers if stages.get(name) != "reveal"]
    vectors = vectors_of(survivors, seed=seed, reach=2 ** (bits - 1))
    opened = cohort.run(vectors, signers=signers, revealers=revealers)
    assert opened.total.dtype == np.int64
    assert opened.total.tolist() == plain_sum(vectors, survivors, bits)
    assert opened.survivors == tuple(survivors)
    assert set(opened.dropped) == set(cohort.names) - set(survivors)
    assert opened.blamed == ()


@pytest.mark.parametrize("count", [4, 5, 7])
def test_every_group_of_drop_outs_before_masking_is_borne(count):
    for missing in itertools.combinations(range(count), count - (2 * count // 3 + 1)):
        cohort = Cohort(count).set_up()
        vectors = vectors_of([name for place, name in enumerate(cohort.names) if place not in missing])
        assert cohort.run(vectors).total.tolist() == plain_sum(vectors, vectors, 32)


def test_sums_of_an_epoch_follow_one_another_and_who_dropped_stays_out():
    cohort = Cohort(5).set_up()
    first = vectors_of(cohort.names[:4], seed=1)
    assert cohort.run(first).total.tolist() == plain_sum(first, first, 32)
    second = vectors_of(cohort.names[:4], seed=2, size=9)
    task = cohort.task("evaluate/1", cohort=cohort.names[:4])
    assert cohort.run(second, task).total.tolist() == plain_sum(second, second, 32)


def test_a_late_vector_of_who_was_given_up_stays_masked():
    # The partner's pair leaf is joined, so all its pair masks are known; its self mask still hides the vector.
    cohort = Cohort(4).set_up()
    vectors = vectors_of(cohort.names, size=4000)
    late = cohort.mask("hats" if "hats" in cohort.names else cohort.names[-1], vectors[cohort.names[-1]])
    others = {name: vectors[name] for name in cohort.names[:-1]}
    opened = cohort.run(others)
    assert opened.dropped == (cohort.names[-1],)
    stripped = late.arrays[0].copy()
    leaf = Cohort(4).set_up().states[cohort.names[-1]].steps[0].pair  # the same seed draws the same leaves
    context = opening.about(cohort.epoch, cohort.task(), opening.key_list_digest(cohort.keys))
    publics = {message.partner: message.arrays[1][0, 0].tobytes() for message in cohort.keys}
    pairs = [
        opening.masks.pair_key(leaf, publics[name], context, pair=(cohort.names[-1], name))
        for name in cohort.names[:-1]
    ]
    opening.masks.apply(stripped, plus=pairs, minus=[])  # its name sorts last: it subtracted them all
    assert (stripped == vectors[cohort.names[-1]].astype(np.uint32)).mean() < 0.01
    assert abs((stripped >> np.uint32(31)).mean() - 0.5) < 0.05


@pytest.mark.parametrize("gone", ["mask", "sign", "reveal"])
def test_too_few_open_nothing(gone):
    cohort = Cohort(4).set_up()
    few, names = cohort.names[:2], cohort.names
    vectors = vectors_of(few if gone == "mask" else names)
    with pytest.raises(PeerFault) as caught:
        cohort.run(vectors, signers=few if gone == "sign" else None, revealers=few if gone == "reveal" else None)
    assert caught.value.partner == ""


def test_the_coordinator_by_itself_refuses_too_few_vectors_and_too_few_shares():
    cohort, _, masked, revealed = a_sum(4)
    few = dict(list(revealed.items())[:2])
    with pytest.raises(PeerFault):
        cohort.open(masked, few)
    with pytest.raises(PeerFault):
        cohort.open(dict(list(masked.items())[:2]), revealed)


@pytest.mark.parametrize("row", [0, 4])
def test_a_wrong_share_is_attributed_and_left_out(row):
    cohort, vectors, masked, revealed = a_sum(5, survivors=None)
    revealed["cars"] = signed_by("cars", revealed["cars"], arrays=with_row(revealed["cars"], row, 7))
    opened = cohort.open(masked, revealed)
    assert opened.total.tolist() == plain_sum(vectors, vectors, 32)
    assert [fault.partner for fault in opened.blamed] == ["cars"]


def test_wrong_shares_beyond_the_spare_ones_are_attributed_and_nothing_opens():
    cohort, _, masked, revealed = a_sum(5)
    for name in ("cars", "dogs"):
        revealed[name] = signed_by(name, revealed[name], arrays=with_row(revealed[name], 1, 7))
    with pytest.raises(PeerFault) as caught:
        cohort.open(masked, revealed)
    assert caught.value.partner == "cars"


def test_a_share_of_the_other_leaf_is_not_the_right_one():
    cohort, _, masked, revealed = a_sum(5)
    untouched = Cohort(5).set_up().states["cars"].steps[0].shares
    other = np.frombuffer(untouched[:32], dtype=np.uint8)  # of the first partner's pair leaf, and it survived
    revealed["cars"] = signed_by("cars", revealed["cars"], arrays=with_row(revealed["cars"], 0, other))
    assert [fault.partner for fault in cohort.open(masked, revealed).blamed] == ["cars"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda message: dataclasses.replace(message, signature="0" * 128),
        lambda message: signed_by("cars", message, transcript="sha256:" + "0" * 64),
        lambda message: signed_by("cars", message, epoch=2),
        lambda message: signed_by("cars", message, arrays=(message.arrays[0][:4],)),
        lambda message: signed_by("cars", message, arrays=(message.arrays[0].astype(np.uint16),)),
        lambda message: signed_by("cars", message, partner="zebra"),
        lambda message: signed_by("dogs", message, partner="dogs"),
        lambda message: "not a message",
    ],
)
def test_revealed_shares_that_are_no_such_message_are_attributed_and_left_out(spoil):
    cohort, vectors, masked, revealed = a_sum(5)
    revealed["cars"] = spoil(revealed["cars"])
    opened = cohort.open(masked, revealed)
    assert [fault.partner for fault in opened.blamed] == ["cars"]
    assert opened.total.tolist() == plain_sum(vectors, vectors, 32)


def test_shares_of_who_dropped_out_are_not_counted():
    cohort, vectors, masked, revealed = a_sum(5, survivors=("art", "books", "cars", "dogs"))
    revealed["eggs"] = signed_by("eggs", dataclasses.replace(revealed["art"], partner="eggs"))
    opened = cohort.open(masked, revealed)
    assert [fault.partner for fault in opened.blamed] == ["eggs"]
    assert opened.total.tolist() == plain_sum(vectors, vectors, 32)


def test_right_shares_of_who_dropped_out_are_not_counted_either():
    cohort, _, masked, revealed = a_sum(5, survivors=("art", "books", "cars", "dogs"))
    held = np.frombuffer(Cohort(5).set_up().states["eggs"].steps[0].shares, dtype=np.uint8).reshape(5, 2, 32)
    rows = held[np.arange(5), [1, 1, 1, 1, 0]]
    revealed["eggs"] = signed_by("eggs", dataclasses.replace(revealed["art"], partner="eggs", arrays=(rows,)))
    opened = cohort.open(masked, revealed)
    assert [fault.partner for fault in opened.blamed] == ["eggs"]
    del revealed["art"]
    with pytest.raises(PeerFault):
        cohort.open(masked, revealed)


@pytest.mark.parametrize("which", ["keys", "dealt"])
def test_lists_are_checked_again_when_a_sum_is_opened(which):
    cohort, _, masked, revealed = a_sum(4)
    listed = getattr(cohort, which)
    listed[2] = dataclasses.replace(listed[2], signature="0" * 128)
    with pytest.raises(PeerFault) as caught:
        cohort.open(masked, revealed)
    assert caught.value.partner == "cars"


@pytest.mark.parametrize("survives", [True, False])
def test_a_dealer_of_shares_that_are_on_no_polynomial_is_attributed(monkeypatch, survives):
    cohort = Cohort(5)

    def crooked(secrets, *, threshold, holders, stream):
        shares = split(secrets, threshold=threshold, holders=holders, stream=stream)
        shares[1] ^= 1  # the second holder's share is committed to, and of another polynomial
        return shares

    with monkeypatch.context() as patch:
        patch.setattr(dealing, "split", crooked)
        bad = cohort.deal("eggs")
    cohort.dealt = [*(cohort.deal(name) for name in cohort.names[:4]), bad]
    for name in cohort.names:
        cohort.accept(name)
    vectors = vectors_of(cohort.names if survives else cohort.names[:4])
    with pytest.raises(PeerFault) as caught:
        cohort.run(vectors)
    assert caught.value.partner == "eggs"
    assert "published" in str(caught.value)


def test_a_dealer_of_another_leaf_than_it_published_is_attributed():
    cohort = Cohort(4)
    state = cohort.states["dogs"]
    other = dataclasses.replace(state.steps[0], own=bytes(32))
    cohort.states["dogs"] = state.with_step(other)
    cohort.set_up()
    with pytest.raises(PeerFault) as caught:
        cohort.run(vectors_of(cohort.names))
    assert caught.value.partner == "dogs"


SPOILT_VECTORS = {
    "signature": lambda m: dataclasses.replace(m, signature="0" * 128),
    "no signature": lambda m: dataclasses.replace(m, signature=""),
    "bit": lambda m: dataclasses.replace(m, arrays=(m.arrays[0] ^ np.uint32(1),)),
    "plan": lambda m: signed_by("cars", m, plan="sha256:" + "0" * 64),
    "epoch": lambda m: signed_by("cars", m, epoch=2),
    "step": lambda m: signed_by("cars", m, step="train/2"),
    "attempt": lambda m: signed_by("cars", m, attempt=2),
    "model": lambda m: signed_by("cars", m, model=OTHER_MODEL),
    "cohort": lambda m: signed_by("cars", m, cohort="sha256:" + "0" * 64),
    "size": lambda m: signed_by("cars", m, arrays=(m.arrays[0][:-1],)),
    "axis": lambda m: signed_by("cars", m, arrays=(m.arrays[0].reshape(1, -1),)),
    "dtype": lambda m: signed_by("cars", m, arrays=(m.arrays[0].astype(np.uint64),)),
    "two": lambda m: signed_by("cars", m, arrays=(m.arrays[0], m.arrays[0])),
    "none": lambda m: signed_by("cars", m, arrays=()),
}


@pytest.mark.parametrize("spoil", SPOILT_VECTORS.values(), ids=SPOILT_VECTORS)
def test_a_spoilt_vector_is_attributed(spoil):
    cohort, _, masked, revealed = a_sum(5)
    size = masked["cars"].arrays[0].size
    spoilt = spoil(masked["cars"])
    for check in (
        lambda: opening.check_masked(cohort.epoch, cohort.task(), spoilt, size=size),
        lambda: cohort.open({**masked, "cars": spoilt}, revealed),
    ):
        with pytest.raises(PeerFault) as caught:
            check()
        assert caught.value.partner == "cars"


def test_a_vector_from_outside_the_cohort_or_under_another_name_is_refused():
    cohort, _, masked, revealed = a_sum(5)
    four = cohort.names[:4]
    task = cohort.task(cohort=four)
    message = signed_by("eggs", masked["eggs"], cohort=opening.cohort_digest(four))
    with pytest.raises(PeerFault) as caught:
        opening.check_masked(cohort.epoch, task, message, size=5)
    assert caught.value.partner == "eggs"
    with pytest.raises(PeerFault):
        cohort.open({**masked, "eggs": masked["dogs"]}, revealed)
    with pytest.raises(PeerFault):
        cohort.open({"art": masked["books"], "books": masked["art"], **dict(list(masked.items())[2:])}, revealed)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: dataclasses.replace(m, signature="0" * 128),
        lambda m: signed_by("cars", m, plan="sha256:" + "0" * 64),
        lambda m: signed_by("cars", m, epoch=2),
        lambda m: signed_by("cars", m, steps=("train/1",)),
        lambda m: signed_by("cars", m, steps=m.steps[::-1]),
        lambda m: signed_by("cars", m, arrays=(m.arrays[0][:31], m.arrays[1])),
        lambda m: signed_by("cars", m, arrays=(m.arrays[0], m.arrays[1][:2])),
        lambda m: signed_by("cars", m, arrays=(np.zeros(32, np.uint8), m.arrays[1])),
        lambda m: signed_by("cars", m, arrays=(m.arrays[0], np.zeros_like(m.arrays[1]))),
    ],
)
def test_spoilt_keys_are_attributed(spoil):
    cohort = Cohort(4).deal_all()
    spoilt = spoil(cohort.keys[2])
    with pytest.raises(PeerFault) as caught:
        opening.check_keys(cohort.epoch, spoilt)
    assert caught.value.partner == "cars"
    with pytest.raises(PeerFault) as caught:
        cohort.deal("art", [spoilt if key.partner == "cars" else key for key in cohort.keys])
    assert caught.value.partner == "cars"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: dataclasses.replace(m, signature="0" * 128),
        lambda m: signed_by("cars", m, plan="sha256:" + "0" * 64),
        lambda m: signed_by("cars", m, epoch=2),
        lambda m: signed_by("cars", m, keys="sha256:" + "0" * 64),
        lambda m: signed_by("cars", m, arrays=(m.arrays[0][:3], m.arrays[1])),
        lambda m: signed_by("cars", m, arrays=(m.arrays[0], m.arrays[1][:3])),
        lambda m: signed_by("cars", m, arrays=(m.arrays[0] ^ 1, m.arrays[1])),
        lambda m: signed_by("cars", m, arrays=(m.arrays[0], m.arrays[1] ^ 1)),
        lambda m: signed_by("cars", m, arrays=(m.arrays[0][::-1], m.arrays[1][::-1])),
    ],
)
def test_spoilt_shares_are_attributed(spoil):
    cohort = Cohort(4).deal_all()
    cohort.dealt[2] = spoil(cohort.dealt[2])
    with pytest.raises(PeerFault) as caught:
        cohort.accept("art")
    assert caught.value.partner == "cars"
    # Without the one at fault the others go on.
    cohort.accept("art", cohort.dealt[:2] + cohort.dealt[3:])


def test_the_coordinator_checks_shares_and_words_as_a_partner_does():
    cohort = Cohort(4).set_up()
    keys = opening.key_list_digest(cohort.keys)
    for message in cohort.dealt:
        opening.check_dealt(cohort.epoch, message, keys=keys, holders=4)
    masked = cohort.mask_all(vectors_of(cohort.names))
    words = {name: cohort.sign(name, masked) for name in masked}
    survivors = opening.check_claims(cohort.epoch, cohort.task(), [claim_of(message) for message in masked.values()])
    transcript = opening.transcript_digest(cohort.epoch, cohort.task(), keys=keys, survivors=survivors)
    for word in words.values():
        opening.check_signed(cohort.epoch, cohort.task(), word, transcript=transcript)
    revealed = cohort.reveal("art", words)
    opening.check_revealed(cohort.epoch, cohort.task(), revealed, transcript=transcript)
    with pytest.raises(PeerFault) as caught:
        opening.check_signed(cohort.epoch, cohort.task(), words["art"], transcript="sha256:" + "0" * 64)
    assert caught.value.partner == "art"


@pytest.mark.parametrize(
    "names",
    [("art", "books"), ("books", "art", "cars", "dogs"), ("art", "art", "books", "cars"), ("art", "books", "zebra")],
)
def test_a_cohort_that_is_none_opens_nothing(names):
    cohort, _, masked, revealed = a_sum(4)
    with pytest.raises(PeerFault):
        cohort.open(masked, revealed, names)


@pytest.mark.parametrize("change", [{"step": "train/9"}, {"attempt": 0}, {"model": "the last one"}])
def test_vectors_that_are_all_about_an_unknown_sum_open_nothing(change):
    cohort, _, masked, revealed = a_sum(4)
    masked = {name: signed_by(name, message, **change) for name, message in masked.items()}
    with pytest.raises(PeerFault):
        cohort.open(masked, revealed)


def test_a_fault_survives_the_way_back_from_a_worker():
    import pickle

    cohort, _, masked, revealed = a_sum(4)
    masked["art"] = dataclasses.replace(masked["art"], signature="0" * 128)
    with pytest.raises(PeerFault) as caught:
        cohort.open(masked, revealed)
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own bytes
    assert (copy.partner, str(copy)) == ("art", str(caught.value))


def test_digests_of_lists_do_not_depend_on_their_order_but_on_all_that_was_signed():
    cohort = Cohort(4)
    digest = opening.key_list_digest(cohort.keys)
    assert opening.key_list_digest(cohort.keys[::-1]) == digest
    other = Cohort(4, seed=1).keys
    for place in range(4):
        changed = [*cohort.keys]
        changed[place] = other[place]
        assert opening.key_list_digest(changed) != digest
    assert opening.cohort_digest(["b", "a"]) == opening.cohort_digest(("a", "b")) != opening.cohort_digest(["a"])


def test_the_commitment_is_sha_256_of_the_share_and_the_self_leaf_is_published_as_its_sha_256():
    cohort = Cohort(4)
    leaf, public = cohort.states["art"].steps[1].own, cohort.keys[0].arrays[1][1, 1].tobytes()
    assert hashlib.sha256(leaf).digest() == public
    cohort.set_up()
    share = cohort.states["cars"].steps[1].shares[:64]
    commitments = cohort.dealt[0].arrays[1][2, 1]
    assert [hashlib.sha256(share[:32]).digest(), hashlib.sha256(share[32:]).digest()] == [
        row.tobytes() for row in commitments
    ]
    assert identity("art").public == cohort.epoch.key_of("art")
