"""What is known to break secure aggregation, tried on ours by a coordinator that keeps to no rule.

The first ones were shown to work on a published implementation of SecAgg+: every survivor asked for both of a victim's
shares, thresholds and moduli of the server's choice, masks from 32-bit seeds, keys that nobody signed.
"""

import ast
import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import coterie.privacy.secagg
from coterie.privacy.secagg import keys as key_functions
from coterie.privacy.secagg import member, messages, opening
from coterie.privacy.secagg.errors import Misuse, PeerFault
from coterie.privacy.secagg.member import Claim, MaskTask, claim_of
from coterie.privacy.secagg.transcript import transcript_digest
from coterie.tests.privacy.secagg.cohort import (
    NAMES,
    OTHER_MODEL,
    Cohort,
    epoch_of,
    identity,
    signed_by,
    vectors_of,
)

SOURCES = sorted(Path(coterie.privacy.secagg.__path__[0]).glob("*.py"))


def refused(call, partner=""):
    with pytest.raises(PeerFault) as caught:
        call()
    assert caught.value.partner == partner
    return str(caught.value)


def without(masked, *names):
    return {name: message for name, message in masked.items() if name not in names}


# Both lists: the victim is counted among the survivors before some, and among the dropped before others.


def test_no_partner_reveals_a_victims_two_shares():
    cohort = Cohort(7).set_up()
    masked = cohort.mask_all(vectors_of(cohort.names))
    lived, died = masked, without(masked, "gold")
    shown = {}
    words = {name: cohort.sign(name, lived) for name in cohort.names}
    for name in ("art", "books"):
        shown[name] = cohort.reveal(name, words).arrays[0][6].tobytes()
        refused(lambda name=name: cohort.sign(name, died))
        refused(lambda name=name: cohort.sign(name, without(lived, "flat")))
    both = Cohort(7).set_up()
    for name, revealed in shown.items():
        pair, own = (both.states[name].steps[0].shares[6 * 64 :][cut : cut + 32] for cut in (0, 32))
        assert revealed == own != pair


def test_no_message_can_name_who_dropped_so_that_a_name_may_be_in_both_lists():
    fields = {field.name for kind in messages.Message.__args__ for field in dataclasses.fields(kind)}
    assert not {name for name in fields if "drop" in name or "dead" in name or "active" in name}
    # What is revealed of each is decided by one list, and the complement is taken here.
    cohort = Cohort(5).set_up()
    held = Cohort(5).set_up().states["art"].steps[0].shares
    masked = cohort.mask_all(vectors_of(cohort.names[:4]))
    words = {name: cohort.sign(name, masked) for name in masked}
    revealed = cohort.reveal("art", words).arrays[0]
    for place, name in enumerate(cohort.names):
        pair, own = (held[place * 64 + cut : place * 64 + cut + 32] for cut in (0, 32))
        assert revealed[place].tobytes() == (own if name in masked else pair)


def test_a_victim_counted_twice_among_survivors_is_refused():
    cohort = Cohort(4).set_up()
    masked = cohort.mask_all(vectors_of(cohort.names))
    claims = [claim_of(message) for message in masked.values()]
    own, state = cohort.owns["art"], cohort.states["art"]
    refused(lambda: member.sign(own, state, [*claims[:3], claims[2]]))


# Values of the server's choice.


@pytest.mark.parametrize("threshold", [0, 1, 2, 4, -1])
def test_no_epoch_has_a_threshold_of_two_thirds_or_less(threshold):
    with pytest.raises(Misuse):
        epoch_of(6, threshold=threshold)


@pytest.mark.parametrize("bits", [1, 8, 31, 33, 40, 128])
def test_no_epoch_has_another_modulus(bits):
    with pytest.raises(Misuse):
        epoch_of(6, bits=bits)


def test_no_request_has_a_place_for_a_threshold_a_modulus_a_roster_or_noise():
    kinds = [*messages.Message.__args__, MaskTask, Claim]
    fields = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    words = ("threshold", "bits", "modulus", "mod", "roster", "clip", "noise", "scale", "range", "colluders")
    assert fields == {
        *("plan", "partner", "epoch", "step", "steps", "attempt", "model", "cohort", "keys", "vector", "transcript"),
        *("signature", "arrays", "event"),
    }
    assert not fields & set(words)


def test_a_sum_of_fewer_than_three_is_neither_signed_nor_opened():
    cohort = Cohort(3).set_up()
    masked = cohort.mask_all(vectors_of(cohort.names))
    for group in itertools.combinations(cohort.names, 2):
        refused(lambda group=group: cohort.sign(group[0], {name: masked[name] for name in group}))
        refused(lambda group=group: cohort.open({name: masked[name] for name in group}, {}))


def test_fewer_partners_than_the_threshold_cannot_even_set_up():
    cohort = Cohort(4)
    refused(lambda: cohort.deal("art", cohort.keys[:2]))


# Seeds.


def test_no_module_knows_a_generator_that_is_not_for_secrets():
    assert len(SOURCES) >= 12
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not {"random", "secrets", "os", "time"} & {alias.name.split(".")[0] for alias in node.names}, (
                    path
                )
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in {"random", "secrets", "os", "time"}, path
                assert node.module != "numpy.random", path
                assert not (node.module == "numpy" and "random" in {alias.name for alias in node.names}), path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {("np", "random"), ("numpy", "random")}, path


def test_every_mask_comes_from_a_whole_secret_of_32_bytes_through_hkdf(monkeypatch):
    cohort = Cohort(4).set_up()
    seen, real = [], key_functions.derived
    monkeypatch.setattr("coterie.privacy.secagg.masks.derived", lambda *args: seen.append(args) or real(*args))
    used = []
    apply = opening.masks.apply

    def watched(vector, *, plus, minus):
        used.extend([*plus, *minus])
        apply(vector, plus=plus, minus=minus)

    monkeypatch.setattr("coterie.privacy.secagg.masks.apply", watched)
    leaf = cohort.states["books"].steps[0].own
    cohort.mask("books", np.arange(4, dtype=np.int64))
    assert len(seen) == len(used) == 4
    assert [len(secret) for secret, _ in seen] == [32] * 4
    assert leaf in [secret for secret, _ in seen]
    assert sorted(real(*args) for args in seen) == sorted(used)
    assert {len(key) for key in used} == {32}


@pytest.mark.parametrize("byte", range(0, 32, 5))
def test_every_byte_of_a_secret_matters(byte):
    about = member.about(epoch_of(3), Cohort(3).task(), "sha256:" + "f" * 64)
    leaf = bytearray(range(32))
    before = opening.masks.self_key(bytes(leaf), about, "art")
    leaf[byte] ^= 1
    assert opening.masks.self_key(bytes(leaf), about, "art") != before


# Keys of the server's.


def test_a_server_in_the_middle_cannot_put_its_own_keys_in_a_partners_place():
    cohort = Cohort(4)
    mine = X25519PrivateKey.from_private_bytes(b"m" * 32).public_key().public_bytes_raw()
    channel = np.frombuffer(mine, dtype=np.uint8)
    forged = dataclasses.replace(cohort.keys[2], arrays=(channel, cohort.keys[2].arrays[1]))
    for bad in (
        forged,
        dataclasses.replace(forged, signature=identity("the server").sign(messages.signed_bytes(forged)).hex()),
        signed_by("dogs", forged),
    ):
        refused(lambda bad=bad: cohort.deal("art", [*cohort.keys[:2], bad, cohort.keys[3]]), "cars")


def test_a_server_cannot_invent_a_partner_or_count_one_twice():
    cohort = Cohort(4)
    other = Cohort(4, seed=9)
    invented = signed_by("the server", cohort.keys[3], partner="the server")
    refused(lambda: cohort.deal("art", [*cohort.keys[:3], invented]))
    refused(lambda: cohort.deal("art", [*cohort.keys[:3], other.keys[1]]))
    with pytest.raises(Misuse):
        epoch_of(4, roster=(*epoch_of(3).roster, ("more", identity("art").public)))


def test_one_partners_keys_under_anothers_name_are_refused():
    cohort = Cohort(4)
    swapped = dataclasses.replace(cohort.keys[2], partner="dogs")
    refused(lambda: cohort.deal("art", [*cohort.keys[:3], swapped]), "dogs")


SMALL_ORDER = [
    # The points of order 1, 2, 4 and 8 of the curve and of its twist (Bernstein 2006, "Curve25519").
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    2**255 - 20,
    2**255 - 19,
    2**255 - 18,
]


@pytest.mark.parametrize("point", SMALL_ORDER)
@pytest.mark.parametrize("where", ["channel", "pair"])
def test_keys_of_small_order_are_refused_and_attributed(point, where):
    cohort = Cohort(4)
    key = np.frombuffer(point.to_bytes(32, "little"), dtype=np.uint8)
    channel, leaves = cohort.keys[2].arrays[0], cohort.keys[2].arrays[1].copy()
    if where == "channel":
        channel = key
    else:
        leaves[1, 0] = key
    bad = signed_by("cars", cohort.keys[2], arrays=(channel, leaves))
    assert "small order" in refused(lambda: opening.check_keys(cohort.epoch, bad), "cars")
    assert "small order" in refused(lambda: cohort.deal("art", [*cohort.keys[:2], bad, cohort.keys[3]]), "cars")
    assert "small order" in refused(lambda: key_functions.shared(b"k" * 32, key.tobytes(), "cars"), "cars")


# Stories.


@pytest.mark.parametrize("count", [4, 5, 6, 7, 8])
def test_of_two_stories_about_the_survivors_one_at_most_is_confirmed(count):
    for seed, victim in itertools.product(range(2), (NAMES[0], NAMES[count - 1])):
        cohort = Cohort(count, seed).set_up()
        masked = cohort.mask_all(vectors_of(cohort.names))
        stories = [masked, without(masked, victim)]
        rng = np.random.default_rng(seed)
        told = {name: int(rng.integers(0, 2)) if name != victim else 0 for name in cohort.names}
        words = [{}, {}]
        for name in rng.permutation(cohort.names):
            for story in (told[name], 1 - told[name]):
                if name in stories[story]:
                    try:
                        words[story][name] = cohort.sign(name, stories[story])
                    except PeerFault:
                        continue
        assert sum(len(said) for said in words) == count  # everyone signed once
        opened = [len(said) >= cohort.epoch.threshold for said in words]
        for story, name in itertools.product((0, 1), cohort.names):
            try:
                cohort.reveal(name, words[story])
            except PeerFault:
                continue
            assert opened[story]
        assert sum(opened) <= 1


@pytest.mark.parametrize("count", range(3, 30))
def test_two_groups_of_the_threshold_share_more_than_a_third(count):
    threshold = epoch_of(3).threshold if count == 3 else 2 * count // 3 + 1
    assert 3 * threshold > 2 * count
    assert 3 * (2 * threshold - count) > count  # so that many would have to say two things


def test_words_about_different_stories_are_not_counted_together():
    cohort = Cohort(4).set_up()
    masked = cohort.mask_all(vectors_of(cohort.names))
    words = {"art": cohort.sign("art", masked), "books": cohort.sign("books", masked)}
    words["cars"] = cohort.sign("cars", without(masked, "dogs"))
    refused(lambda: cohort.reveal("art", words), "cars")
    refused(lambda: cohort.reveal("cars", words), "art")


def test_another_vector_in_a_survivors_place_splits_the_cohort():
    # The victim's state was put back and it masked another vector: two signatures that are both its own.
    cohort, twin = Cohort(4).set_up(), Cohort(4).set_up()
    masked = cohort.mask_all(vectors_of(cohort.names))
    other = {**masked, "dogs": twin.mask("dogs", np.arange(5))}
    words = {name: cohort.sign(name, masked) for name in ("art", "dogs")}
    words |= {name: cohort.sign(name, other) for name in ("books", "cars")}
    for name in cohort.names:
        with pytest.raises(PeerFault):
            cohort.reveal(name, words)


def test_partners_that_were_shown_different_keys_do_not_come_together():
    # One partner's state was put back and it signed two sets of keys.
    cohort, twin = Cohort(4), Cohort(4, seed=1)
    lists = [cohort.keys, [*cohort.keys[:3], twin.keys[3]]]
    cohort.dealt = [cohort.deal(name, lists[place % 2]) for place, name in enumerate(cohort.names[:3])]
    cohort.dealt.append(cohort.deal("dogs", lists[0]))
    refused(lambda: cohort.accept("art"), "books")
    refused(lambda: cohort.accept("art", [cohort.dealt[0], *cohort.dealt[2:], cohort.dealt[1]]), "books")
    refused(lambda: cohort.accept("books"), "art")


def test_partners_that_were_named_different_cohorts_do_not_come_together():
    cohort = Cohort(5).set_up()
    vectors = vectors_of(cohort.names)
    five, four = cohort.task(), cohort.task(cohort=cohort.names[:4])
    masked = {
        name: cohort.mask(name, vectors[name], five if name in {"art", "books"} else four) for name in four.cohort
    }
    refused(lambda: cohort.sign("art", masked), "cars")
    refused(lambda: cohort.sign("cars", masked), "art")
    refused(lambda: cohort.open(masked, {}), "cars")


def test_partners_that_were_sent_different_models_do_not_come_together():
    cohort = Cohort(4).set_up()
    vectors = vectors_of(cohort.names, reach=100)
    trap = cohort.task(model=OTHER_MODEL)
    masked = {name: cohort.mask(name, vectors[name], trap if name == "art" else None) for name in cohort.names}
    for name in ("books", "cars", "dogs"):
        refused(lambda name=name: cohort.sign(name, masked), "art")
    refused(lambda: cohort.sign("art", masked), "books")
    refused(lambda: cohort.open(masked, {}), "art")
    # And the masks do not cancel: even with every self mask known, the sum is noise.
    twin = Cohort(4).set_up()
    total = np.zeros(5, dtype=np.uint32)
    for message in masked.values():
        total += message.arrays[0]
    digest = opening.key_list_digest(cohort.keys)
    selves = [
        opening.masks.self_key(
            twin.states[name].steps[0].own,
            member.about(cohort.epoch, trap if name == "art" else cohort.task(), digest),
            name,
        )
        for name in cohort.names
    ]
    opening.masks.apply(total, plus=[], minus=selves)
    assert (np.abs(opening.from_ring(total)) > 400).any()


# Replays.


@pytest.mark.parametrize(
    "other", [{"number": 2}, {"plan": "sha256:" + "d" * 64}, {"seed": 5}], ids=["epoch", "study", "keys"]
)
def test_nothing_of_another_epoch_or_study_is_taken(other):
    cohort, elsewhere = Cohort(4), Cohort(4, **other)
    if "seed" not in other:
        refused(lambda: cohort.deal("art", [cohort.keys[0], *elsewhere.keys[1:]]), "books")
    cohort.set_up()
    elsewhere.set_up()
    again = Cohort(4).deal_all()
    refused(lambda: again.accept("art", [again.dealt[0], *elsewhere.dealt[1:]]), "books")
    vectors = vectors_of(cohort.names)
    masked, foreign = cohort.mask_all(vectors), elsewhere.mask_all(vectors)
    words = {name: elsewhere.sign(name, foreign) for name in cohort.names}
    if "seed" not in other:
        refused(lambda: cohort.sign("art", {"art": masked["art"], **without(foreign, "art")}), "books")
    ours = {"art": cohort.sign("art", masked)}
    refused(lambda: cohort.reveal("art", {**ours, **without(words, "art")}), "books")
    shares = {name: elsewhere.reveal(name, words) for name in words}
    with pytest.raises(PeerFault) as caught:
        cohort.open(masked, shares)
    assert caught.value.partner == "art"


def test_nothing_of_another_step_is_taken():
    cohort = Cohort(4).set_up()
    vectors = vectors_of(cohort.names)
    first = cohort.mask_all(vectors)
    words = {name: cohort.sign(name, first) for name in first}
    shares = {name: cohort.reveal(name, words) for name in words}
    second = cohort.mask_all(vectors, cohort.task("train/2"))
    refused(lambda: cohort.sign("art", {"art": second["art"], **without(first, "art")}))
    renamed = {name: dataclasses.replace(message, step="train/2") for name, message in first.items()}
    refused(lambda: cohort.sign("art", {"art": second["art"], **without(renamed, "art")}), "books")
    later = {"art": cohort.sign("art", second)}
    refused(lambda: cohort.reveal("art", {**without(words, "art"), **later}), "books")
    with pytest.raises(PeerFault):
        cohort.open(second, shares)


def test_a_sealed_share_is_worth_nothing_in_anothers_hands():
    cohort = Cohort(4).deal_all()
    message = cohort.dealt[1]
    swapped = message.arrays[0].copy()
    swapped[[0, 2]] = swapped[[2, 0]]
    cohort.dealt[1] = signed_by("books", message, arrays=(swapped, message.arrays[1]))
    assert "does not open" in refused(lambda: cohort.accept("art"), "books")


def test_a_partners_shares_under_anothers_name_do_not_open():
    cohort = Cohort(4).deal_all()
    cohort.dealt[2] = signed_by("cars", cohort.dealt[1], partner="cars")
    assert "does not open" in refused(lambda: cohort.accept("art"), "cars")


# Who helps the coordinator.


def test_fewer_than_the_threshold_with_the_coordinator_cannot_join_a_leaf():
    from coterie.privacy.secagg.shamir import join

    cohort = Cohort(5).set_up()
    leaf = Cohort(5).states["art"].steps[0].own
    held = {
        place + 1: np.frombuffer(cohort.states[name].steps[0].shares[32:64], dtype=np.uint8).reshape(1, 32)
        for place, name in enumerate(cohort.names)
    }
    for group in itertools.combinations(held, cohort.epoch.threshold):
        assert join({point: held[point] for point in group}).tobytes() == leaf
    for group in itertools.combinations(held, cohort.epoch.threshold - 1):
        assert join({point: held[point] for point in group}).tobytes() != leaf


def test_what_opened_one_step_opens_no_other():
    cohort = Cohort(4).set_up()
    leaves = {leaf for state in cohort.states.values() for step in state.steps[1:] for leaf in (step.pair, step.own)}
    cohort.run(vectors_of(cohort.names))
    left = b"".join(step.revealed for state in cohort.states.values() for step in state.steps)
    assert not [leaf for leaf in leaves if leaf in left]
    shares = [step.shares for state in cohort.states.values() for step in state.steps[1:]]
    pieces = [share[start : start + 32] for share in shares for start in range(0, len(share), 32)]
    assert len(set(pieces)) == len(pieces)
    assert not [piece for piece in pieces if piece in left]


def test_a_transcript_says_everything_that_a_sum_is_about():
    epoch, task = epoch_of(4), Cohort(4).task()
    survivors = dict.fromkeys(("art", "books", "cars"), "sha256:" + "1" * 64)
    keys = "sha256:" + "f" * 64
    said = [transcript_digest(epoch, task, keys=keys, survivors=survivors)]
    said += [
        transcript_digest(changed, task, keys=keys, survivors=survivors)
        for changed in (epoch_of(4, number=2), epoch_of(4, plan="sha256:" + "d" * 64))
    ]
    for change in (
        {"step": "train/2"},
        {"attempt": 2},
        {"model": OTHER_MODEL},
        {"cohort": ("art", "books", "cars")},
    ):
        said.append(transcript_digest(epoch, dataclasses.replace(task, **change), keys=keys, survivors=survivors))
    said.append(transcript_digest(epoch, task, keys="sha256:" + "e" * 64, survivors=survivors))
    said.append(transcript_digest(epoch, task, keys=keys, survivors={**survivors, "dogs": "sha256:" + "1" * 64}))
    said.append(transcript_digest(epoch, task, keys=keys, survivors={**survivors, "cars": "sha256:" + "2" * 64}))
    assert len(set(said)) == len(said) == 10
