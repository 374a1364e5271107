"""Attacks on secure sums through messages: the other partners are honest, the coordinator is not.

What is known to break secure aggregation is tried on the protocol itself in `tests/privacy/secagg/test_attacks.py`;
here the same coordinator drives a node, with its ledger, its outbox and its door. Part of the catalogue.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from flwr.app import RecordDict

from coterie.clients.records import pack
from coterie.clients.sumwire import (
    DEAL,
    KEYS,
    REVEAL,
    SIGN,
    encode_deal,
    encode_keys,
    encode_reveal,
    encode_sign,
    encode_sum,
)
from coterie.clients.task import DealAsked, KeysAsked, RevealAsked, SignAsked, SumTask
from coterie.clients.wire import EVALUATE, TRAIN, encode_task
from coterie.privacy.canonical import canonical
from coterie.privacy.identity import Identity
from coterie.privacy.release import MaskedVector, SurvivorsSigned
from coterie.privacy.secagg.member import claim_of
from coterie.privacy.secagg.messages import signed_bytes
from coterie.privacy.sums import most_epochs
from coterie.tests.stories.attacks import SUM_ATTACKS, Hostile, attack
from coterie.tests.stories.plan_attacks import put
from coterie.tests.stories.task_attacks import bare_of

STEPS = ("train/1", "train/2")
SET_UP = "round-keys, dealt-shares"
KEYED = "keys x2"  # entries of the ledger
SUMMED = f"{KEYED}, reserve, settle"


class Round:
    """One epoch as a coordinator leads it: what it was shown, and how it goes on rightly.

    Args:
        c: Who leads.
    """

    def __init__(self, c: Hostile) -> None:
        self.c = c
        self.keys: tuple = ()
        self.dealt: tuple = ()
        self.masked: dict = {}
        self.signed: dict = {}

    def begin(self, epoch: int = 1, steps: tuple[str, ...] = STEPS) -> "Round":
        self.epoch, self.steps = epoch, steps
        question = encode_keys(KeysAsked(self.c.digest, epoch, steps))
        self.keys = tuple(self.c.relay(name, KEYS, question) for name in self.c.names)
        return self

    def deal(self) -> "Round":
        question = self.dealing(self.keys)
        self.dealt = tuple(self.c.relay(name, DEAL, question) for name in self.c.names)
        return self

    def dealing(self, keys: Sequence, **changes) -> RecordDict:
        return encode_deal(DealAsked(changes.get("plan", self.c.digest), changes.get("epoch", self.epoch), tuple(keys)))

    def about(self, **changes) -> SumTask:
        fields = {
            "plan": self.c.digest,
            "step": "train/1",
            "attempt": 1,
            "weights": self.c.weights(),
            "epoch": self.epoch,
            "cohort": self.c.names,
            "dealt": self.dealt,
            **changes,
        }
        return SumTask(**fields)

    def mask(self, **changes) -> "Round":
        question = encode_sum(self.about(**changes))
        self.masked = {name: self.c.relay(name, TRAIN, question) for name in self.c.names}
        return self

    def signing(self, masked: dict[str, MaskedVector], **changes) -> RecordDict:
        claims = tuple(claim_of(message) for message in masked.values())
        return encode_sign(SignAsked(self.c.digest, changes.get("epoch", self.epoch), claims))

    def sign(self) -> "Round":
        question = self.signing(self.masked)
        self.signed = {name: self.c.relay(name, SIGN, question) for name in self.c.names}
        return self

    def revealing(self, signed: Sequence[SurvivorsSigned], **changes) -> RecordDict:
        return encode_reveal(RevealAsked(self.c.digest, changes.get("epoch", self.epoch), tuple(signed)))

    def without(self, messages: dict, *names: str) -> dict:
        return {name: message for name, message in messages.items() if name not in names}


def forged(by: Identity, message, **changes):
    """A message with changes, signed by somebody."""
    message = dataclasses.replace(message, **changes)
    return dataclasses.replace(message, signature=by.sign(signed_bytes(message)).hex())


# --- plans ----------------------------------------------------------------------------------------------------


@attack("refused peers x3", writes="refusal x3", on=SUM_ATTACKS)
def peers_of_the_attackers_making(c: Hostile) -> None:
    """Puts keys of its own in the places of one peer, of all peers, and of an invented one beside them."""
    swapped = [Identity.create().public for _ in c.plan.partners]
    one, every = [], []
    for place, partner in enumerate(c.plan.partners):
        mine = dataclasses.replace(partner, key=swapped[place])
        one.append(mine if place == 2 else partner)
        every.append(mine if partner.name != c.victim else partner)
    more = dataclasses.replace(c.plan.partners[1], name="zebra", key=c.outsider.public)
    c.propose_with(partners=tuple(one))
    c.propose_with(partners=tuple(every))
    c.propose_with(partners=(*c.plan.partners, more), privacy__threshold=4)


@attack("refused signature x6", writes="refusal", on=SUM_ATTACKS)
def a_threshold_that_is_lowered(c: Hostile) -> None:
    """Signs plans that open sums of two, of one, of none, or count on nobody or on too many to help it."""
    table = c.plan.to_dict()
    for name, value in (("threshold", 2), ("threshold", 1), ("threshold", 0), ("colluders", 0), ("colluders", 3)):
        c.propose_table(put(table, ("privacy", name), value))
    c.propose_table(put(table, ("partners",), table["partners"][:2]))


@attack("task x2", on=SUM_ATTACKS)
def a_partners_own_update_in_a_study_of_sums(c: Hostile) -> None:
    """Asks for an update and a histogram that nobody else's noise and masks are in."""
    c.train(1)
    c.measure(1)


# --- keys -----------------------------------------------------------------------------------------------------


@attack("task x5, fault x4", on=SUM_ATTACKS)
def keys_for_what_the_plan_does_not_have(c: Hostile) -> None:
    """Asks for keys for unknown steps, two kinds, none, one twice, too many, and under numbers that are none."""
    for steps in (("train/9",), ("train/1", "evaluate/1"), (), ("train/1", "train/1"), ("../../etc/passwd",)):
        c.ask(KEYS, encode_keys(KeysAsked(c.digest, 1, steps)))
    c.ask(KEYS, encode_keys(KeysAsked(c.digest, 1, ("train/1",) * 10_001)))
    for epoch in (0, -1, 2**31):
        c.ask(KEYS, encode_keys(KeysAsked(c.digest, epoch, STEPS)))


@attack("round-keys x3, secagg x3", writes="keys x2", on=SUM_ATTACKS)
def epochs_that_are_not_new(c: Hostile) -> None:
    """Begins an epoch again, an older one, one with other steps, and one beyond the plan's last."""
    for epoch, steps in (
        (1, STEPS),
        (1, STEPS),
        (2, STEPS),
        (1, STEPS),
        (2, ("train/1",)),
        (most_epochs(c.plan) + 1, STEPS),
    ):
        c.ask(KEYS, encode_keys(KeysAsked(c.digest, epoch, steps)))
    assert bare_of(c.heard[0]) == bare_of(c.heard[1])


@attack("round-keys, secagg x4", writes="keys", on=SUM_ATTACKS)
def keys_that_a_peer_never_made(c: Hostile) -> None:
    """Shows the victim keys of its own in a peer's place, signed by itself, by another peer, and by nobody."""
    round_ = Round(c).begin()
    victim, first, second, *rest = round_.keys
    mine = (np.frombuffer(b"k" * 32, dtype=np.uint8), second.arrays[1])
    for bad in (
        forged(c.identity, second, arrays=mine),
        forged(c.peers[first.partner], second, arrays=mine),
        dataclasses.replace(second, arrays=mine),
        forged(c.peers[second.partner], second, partner="stranger"),
    ):
        c.ask(DEAL, round_.dealing((victim, first, bad, *rest)))


@attack("round-keys, secagg x4", writes="keys", on=SUM_ATTACKS)
def too_few_keys(c: Hostile) -> None:
    """Has the victim deal its secrets to fewer than the threshold, to itself alone, to nobody, to one peer twice."""
    round_ = Round(c).begin()
    for keys in (round_.keys[:2], round_.keys[:1], (), (*round_.keys[:3], round_.keys[2])):
        c.ask(DEAL, round_.dealing(keys))


@attack(f"{SET_UP} x2, secagg x2", writes=KEYED, on=SUM_ATTACKS)
def shares_dealt_twice(c: Hostile) -> None:
    """Has the victim deal again, to the same peers and to fewer, to hear more shares of one secret."""
    round_ = Round(c).begin().deal()
    c.ask(DEAL, round_.dealing(round_.keys))
    c.ask(DEAL, round_.dealing(round_.keys[:3]))
    c.ask(DEAL, round_.dealing(round_.keys, epoch=2))
    assert bare_of(c.heard[1]) == bare_of(c.heard[2])


@attack("round-keys, fault x4", writes="keys", on=SUM_ATTACKS)
def keys_that_are_no_keys(c: Hostile) -> None:
    """Shows other messages and noise in the place of keys."""
    round_ = Round(c).begin()
    question = round_.dealing(round_.keys)
    for noise in (b"", b"\0" * 8, b"\xff" * 100, (2**40).to_bytes(8, "big") + b"{}"):
        question["messages"] = pack([np.frombuffer(noise, dtype=np.uint8)])
        c.ask(DEAL, question)


# --- sums -----------------------------------------------------------------------------------------------------


@attack(f"{SET_UP}, secagg x5", writes=KEYED, on=SUM_ATTACKS)
def cohorts_that_hide_nobody(c: Hostile) -> None:
    """Asks for a sum among two, alone, without the victim, with a stranger, and with a way to a file for a name."""
    round_ = Round(c).begin().deal()
    for cohort in (
        c.names[:2],
        c.names[:1],
        c.names[1:],
        (*c.names[:3], "stranger"),
        (*c.names[:3], "../../etc/passwd"),
    ):
        c.ask(TRAIN, encode_sum(round_.about(cohort=tuple(sorted(cohort)))))


@attack(f"{SET_UP}, secagg x3", writes=KEYED, on=SUM_ATTACKS)
def shares_that_nobody_dealt(c: Hostile) -> None:
    """Shows the victim shares that were never dealt: forged, one missing, none."""
    round_ = Round(c).begin().deal()
    victim, first, *rest = round_.dealt
    bent = tuple(array.copy() for array in first.arrays)
    bent[0].reshape(-1)[0] ^= 1
    c.ask(TRAIN, encode_sum(round_.about(dealt=(victim, dataclasses.replace(first, arrays=bent), *rest))))
    c.ask(TRAIN, encode_sum(round_.about(dealt=(victim, forged(c.identity, first, arrays=bent), *rest))))
    c.ask(TRAIN, encode_sum(round_.about(dealt=())))


@attack(f"{SET_UP}, task x8, fault x2", writes=KEYED, on=SUM_ATTACKS)
def sums_that_the_plan_does_not_have(c: Hostile) -> None:
    """Asks for sums of other steps, attempts and weights."""
    round_ = Round(c).begin().deal()
    for changes in (
        {"step": "train/9"},
        {"step": "train/01"},
        {"step": "train/\u0661"},  # an Arabic one
        {"step": "../outbox"},
        {"attempt": 2},
        {"attempt": 2**31 - 1},
        {"weights": tuple(np.full_like(array, np.nan) for array in c.weights())},
        {"weights": ()},
        {"attempt": 0},
        {"attempt": 2**53 - 1},
    ):
        c.ask(TRAIN, encode_sum(round_.about(**changes)))


@attack(f"{SET_UP}, masked-vector x3, replay x3", writes=SUMMED, on=SUM_ATTACKS)
def a_vector_under_other_masks(c: Hostile) -> None:
    """Has one noisy vector masked again: for another cohort, model or epoch; the same question gets the same bytes."""
    round_ = Round(c).begin().deal()
    for _ in range(3):
        c.ask(TRAIN, encode_sum(round_.about()))
    c.ask(TRAIN, encode_sum(round_.about(cohort=c.names[:3])))
    c.ask(TRAIN, encode_sum(round_.about(weights=c.weights(1.0))))
    c.ask(TRAIN, encode_sum(round_.about(epoch=2)))
    assert len({bare_of(reply) for reply in c.heard[2:5]}) == 1


@attack(f"{SET_UP}, masked-vector, secagg x2", writes=SUMMED, on=SUM_ATTACKS)
def another_model_for_one_partner(c: Hostile) -> None:
    """Sends the victim another model than the others: nobody signs such a sum, and the victim does not either."""
    round_ = Round(c).begin().deal()
    others = encode_sum(round_.about())
    trap = encode_sum(round_.about(weights=c.weights(1.0)))
    masked = {name: c.relay(name, TRAIN, trap if name == c.victim else others) for name in c.names}
    c.ask(SIGN, round_.signing(masked))
    refusals = [c.nodes[name].ask(SIGN, round_.signing(masked)) for name in c.names[1:]]
    assert [c.word(reply) for reply in refusals] == ["secagg"] * 3
    c.ask(REVEAL, round_.revealing(()))


# --- opening --------------------------------------------------------------------------------------------------


OPENING = f"{SET_UP}, masked-vector, survivors-signed"


@attack(f"{OPENING} x2, secagg x3", writes=f"{SUMMED}, opening", on=SUM_ATTACKS)
def two_stories_about_the_survivors(c: Hostile) -> None:
    """Tells the victim first that all survived and then that others did not, to have both of a peer's shares."""
    round_ = Round(c).begin().deal().mask()
    for masked in (
        *(round_.masked, round_.masked),
        *(round_.without(round_.masked, name) for name in c.names[1:]),
    ):
        c.ask(SIGN, round_.signing(masked))
    assert bare_of(c.heard[-5]) == bare_of(c.heard[-4])


@attack(f"{SET_UP}, masked-vector, secagg x5", writes=SUMMED, on=SUM_ATTACKS)
def survivors_that_did_not(c: Hostile) -> None:
    """Claims too few survivors, one twice, none, a vector that nobody sent, and one that another signed."""
    round_ = Round(c).begin().deal().mask()
    other = dict(round_.masked)
    name = c.names[1]
    vector = (other[name].arrays[0] ^ np.uint32(1),) if other[name].arrays[0].dtype == np.uint32 else other[name].arrays
    claims = [claim_of(message) for message in round_.masked.values()]
    c.ask(SIGN, round_.signing(dict(list(round_.masked.items())[:2])))
    c.ask(SIGN, encode_sign(SignAsked(c.digest, 1, (*claims[:3], claims[2]))))
    c.ask(SIGN, encode_sign(SignAsked(c.digest, 1, ())))
    c.ask(SIGN, round_.signing({**other, name: forged(c.identity, other[name], arrays=vector)}))
    c.ask(SIGN, round_.signing({**other, name: dataclasses.replace(other[c.names[2]], partner=name)}))


@attack(f"{SET_UP}, masked-vector, fault x3", writes=SUMMED, on=SUM_ATTACKS)
def claims_without_end(c: Hostile) -> None:
    """Sends a thousand and one claims, one whose signature is no hexadecimal, and a text of a thousand letters."""
    round_ = Round(c).begin().deal().mask()
    claim = claim_of(round_.masked[c.names[1]])
    c.ask(SIGN, encode_sign(SignAsked(c.digest, 1, (claim,) * 1001)))
    question = round_.signing(round_.masked)
    fields = str(question["sum"]["fields"])
    question["sum"]["fields"] = fields.replace(claim.signature.hex(), "zz" * 64)
    c.ask(SIGN, question)
    c.ask(SIGN, encode_sign(SignAsked(c.digest, 1, (dataclasses.replace(claim, vector="v" * 1001),))))


@attack(f"{OPENING}, secagg x5", writes=f"{SUMMED}, opening", on=SUM_ATTACKS)
def shares_before_enough_have_signed(c: Hostile) -> None:
    """Asks for the shares with too few signatures, none, one twice, and ones that it made itself."""
    round_ = Round(c).begin().deal().mask().sign()
    words = list(round_.signed.values())
    c.ask(REVEAL, round_.revealing(words[:2]))
    c.ask(REVEAL, round_.revealing(()))
    c.ask(REVEAL, round_.revealing((*words[:2], words[1])))
    c.ask(REVEAL, round_.revealing((*words[:2], *(forged(c.identity, word) for word in words[2:]))))
    c.ask(REVEAL, round_.revealing(words, epoch=2))


@attack(f"{OPENING}, revealed-shares x3, secagg x*", writes=f"{SUMMED}, opening x2", on=SUM_ATTACKS)
def shares_revealed_twice(c: Hostile) -> None:
    """Has the sum opened, and opened again: the same words get the same shares, no others get any."""
    round_ = Round(c).begin().deal().mask().sign()
    words = list(round_.signed.values())
    for _ in range(3):
        c.ask(REVEAL, round_.revealing(words))
    assert len({bare_of(reply) for reply in c.heard[-3:]}) == 1
    c.ask(
        REVEAL,
        round_.revealing([*words[:3], forged(c.peers[words[3].partner], words[3], transcript="sha256:" + "0" * 64)]),
    )
    c.ask(SIGN, round_.signing(round_.without(round_.masked, c.names[1])))


@attack("no-consent x5", on=SUM_ATTACKS)
def sums_of_another_study(c: Hostile) -> None:
    """Asks every question of a secure sum for a plan that was never approved."""
    plan = "sha256:" + "0" * 64
    round_ = Round(c)
    round_.epoch = 1
    for kind, content in (
        (KEYS, encode_keys(KeysAsked(plan, 1, STEPS))),
        (DEAL, round_.dealing((), plan=plan)),
        (TRAIN, encode_sum(round_.about(plan=plan))),
        (SIGN, encode_sign(SignAsked(plan, 1, ()))),
        (REVEAL, encode_reveal(RevealAsked(plan, 1, ()))),
    ):
        c.ask(kind, content)


@attack("fault x*", on=SUM_ATTACKS)
def fields_of_a_sum_that_are_none(c: Hostile) -> None:
    """Writes the fields of a question in other spellings, with others beside them, nested without end, and huge."""
    good = encode_keys(KeysAsked(c.digest, 1, STEPS))
    text = str(good["sum"]["fields"])
    for fields in (
        text.replace(",", ", ", 1),
        text[:-1] + ',"note":"x"}',
        text.replace('"epoch":1', '"epoch":1.0'),
        text.replace('"epoch":1', '"epoch":true'),
        text.replace('"epoch":1', '"epoch":' + "9" * 5000),
        text.replace('"epoch":1', '"epoch":NaN'),
        "[" * 100_000,
        "null",
        "",
        canonical({"plan": c.digest}).decode(),
        '"' + "x" * (2**20) + '"',
    ):
        question = encode_keys(KeysAsked(c.digest, 1, STEPS))
        question["sum"]["fields"] = fields
        c.ask(KEYS, question)
    c.ask(EVALUATE, RecordDict({**good, "task": encode_task(c.task())["task"]}))
