"""Attacks on a match of customers: a coordinator, and a partner that helps it, want to know single customers.

What is known to break private matching is tried on the protocol itself in `tests/privacy/matching`; here the same
coordinator drives a node, with its ledger, its quotas and its door. Part of the catalogue.
"""

import dataclasses

from flwr.app import ConfigRecord, RecordDict

from coterie.clients.matchwire import MATCH, Agree, Asked, Commit, Count, End, Give, Take, encode_match
from coterie.privacy.canonical import canonical
from coterie.privacy.identity import Identity
from coterie.privacy.matching.channel import Address, Parcel
from coterie.privacy.matching.commitment import Commitment
from coterie.privacy.matching.manifest import verified
from coterie.privacy.matchterms import match_terms
from coterie.tests.stories.attacks import MATCH_ATTACKS, Hostile, attack

MADE = "disclosure"
AGREED = f"{MADE}, manifest"


def ask(c: Hostile, *asked: Asked) -> None:
    """Ask the victim."""
    for one in asked:
        c.ask(MATCH, encode_match(one))


def committed(c: Hostile) -> tuple[Commitment, ...]:
    """Let all partners commit to their lists."""
    question = encode_match(Commit(c.digest, 1))
    return tuple(c.relay(name, MATCH, question).commitment for name in c.names)  # type: ignore[union-attr]


def agreed(c: Hostile) -> tuple[Commitment, ...]:
    """Let all partners work with these lists."""
    shown = committed(c)
    for name in c.names:
        c.relay(name, MATCH, encode_match(Agree(c.digest, shown)))
    return shown


def signed_by(identity: Identity, commitment: Commitment, **changes: object) -> Commitment:
    """A commitment with changes, signed by somebody."""
    said = dataclasses.replace(commitment, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(
        said, signature=identity.sign(b"coterie/match/commitment/v1\n" + canonical(said.said)).hex()
    )


def forged(c: Hostile, shown: tuple[Commitment, ...], address: Address, **changes: object) -> Take:
    """A piece of bytes that the attacker made up, under a right header but for the changes."""
    manifest = verified(match_terms(c.plan, rules=shown[0].rules), shown)
    size = manifest.terms.rows_of(manifest.of(address.list).size, address.index) * 32 + 28
    count = manifest.terms.chunks(manifest.of(address.list).size)
    header = {"count": count, "sender": c.names[1], "receiver": c.victim, **changes}
    return Take(c.digest, Parcel(c.digest, manifest.digest, address, sealed=bytes(size), **header))  # type: ignore[arg-type]


# --- plans ----------------------------------------------------------------------------------------------------


@attack("refused peers x2", writes="refusal x2", on=MATCH_ATTACKS)
def a_partner_that_it_invented(c: Hostile) -> None:
    """Puts a partner of its own beside the others, whose list it chooses; and its key in the place of another's."""
    more = dataclasses.replace(c.plan.partners[1], name="zebra", key=c.outsider.public)
    c.propose_with(partners=(*c.plan.partners, more), privacy__threshold=len(c.plan.partners) + 1)
    swapped = dataclasses.replace(c.plan.partners[1], key=c.outsider.public)
    c.propose_with(partners=(c.plan.partners[0], swapped, *c.plan.partners[2:]))


@attack("refused matching x3", writes="refusal x3", on=MATCH_ATTACKS)
def a_match_that_nobody_permitted(c: Hostile) -> None:
    """Asks for tokens instead of rows, for another identifier, and for lists of two customers."""
    for changes in ({"matching__outcome": "tokens"}, {"matching__identifier": "email"}, {"matching__least": 2}):
        c.propose_with(**changes)


# --- lists ----------------------------------------------------------------------------------------------------


@attack("no-consent x6", on=MATCH_ATTACKS)
def a_match_of_a_plan_that_nobody_knows(c: Hostile) -> None:
    """Asks every question of a match for a plan that was never proposed."""
    other = "sha256:" + "0" * 64
    parcel = Parcel(other, other, Address("birch", 0, 0), 1, "birch", "amber", bytes(60))
    ask(c, Commit(other, 1), Agree(other, ()), Give(other, Address("amber", 0, 0)), Take(other, parcel))
    ask(c, Count(other), End(other))


@attack("match x5", on=MATCH_ATTACKS)
def questions_before_there_is_a_list(c: Hostile) -> None:
    """Wants pieces, counts and an end of a match that has no list yet."""
    parcel = Parcel(c.digest, c.digest, Address("birch", 0, 0), 1, "birch", "amber", bytes(60))
    ask(c, Agree(c.digest, ()), Give(c.digest, Address("amber", 0, 0)), Take(c.digest, parcel))
    ask(c, Count(c.digest), End(c.digest))


@attack("match-committed x4, task x3", writes=MADE, on=MATCH_ATTACKS)
def the_same_list_under_many_keys(c: Hostile) -> None:
    """Asks for the list again and again, to have one customer under several keys."""
    ask(c, *[Commit(c.digest, 1)] * 4, Commit(c.digest, 0), Commit(c.digest, 2), Commit(c.digest, 1000))


@attack("match-committed, match x5", writes=MADE, on=MATCH_ATTACKS)
def lists_that_others_did_not_sign(c: Hostile) -> None:
    """Shows a list of its own in a partner's name, an old signature under a changed list, too few, too many, none."""
    mine, theirs, *rest = committed(c)
    ask(c, Agree(c.digest, (mine, signed_by(c.outsider, theirs), *rest)))
    ask(c, Agree(c.digest, (mine, dataclasses.replace(theirs, size=theirs.size + 16), *rest)))
    ask(c, Agree(c.digest, (mine, *rest)), Agree(c.digest, ()))
    ask(c, Agree(c.digest, (mine, theirs, *rest, signed_by(c.outsider, theirs, partner="zebra"))))


@attack("match-committed, manifest-accepted, match x2, manifest-accepted", writes=AGREED, on=MATCH_ATTACKS)
def a_second_list_that_is_chosen_by_the_first(c: Hostile) -> None:
    """A partner that helps signs a second list, of one customer fewer, when the first is fixed."""
    mine, theirs, *rest = agreed(c)
    second = signed_by(c.peers[c.names[1]], theirs, chunks=("ab" * 32,) * len(theirs.chunks))
    ask(c, Agree(c.digest, (mine, second, *rest)))
    ask(c, Agree(c.digest, (mine, signed_by(c.peers[c.names[1]], second, channel="12" * 32), *rest)))
    ask(c, Agree(c.digest, (mine, theirs, *rest)))


# --- pieces ---------------------------------------------------------------------------------------------------


@attack("match-committed, manifest-accepted, match x7", writes=AGREED, on=MATCH_ATTACKS)
def pieces_that_it_made_up(c: Hostile) -> None:
    """Sends points of its own choosing to have them multiplied: it has no key to seal them with."""
    shown, (victim, other) = agreed(c), c.names[:2]
    coming = Address(other, len(c.names) - 2, 0) if len(c.names) == 2 else Address(c.names[2], 0, 0)
    first = coming.list
    ask(c, forged(c, shown, coming, sender=first), forged(c, shown, coming, sender=victim))
    ask(c, forged(c, shown, Address(victim, 0, 0)), forged(c, shown, Address(victim, len(c.names) - 1, 0)))
    ask(c, forged(c, shown, coming, sender=first, count=2), forged(c, shown, coming, receiver=other))
    take = forged(c, shown, coming, sender=first)
    ask(c, dataclasses.replace(take, parcel=dataclasses.replace(take.parcel, sealed=bytes(60))))


@attack("match-committed, manifest-accepted, match x6, match-parcel x3", writes=f"{AGREED}, match", on=MATCH_ATTACKS)
def pieces_that_are_not_on_their_way(c: Hostile) -> None:
    """Wants pieces of lists that are not here, not whole, or go elsewhere; what may go is the same bytes each time."""
    agreed(c)
    here = Address(c.victim, 0, 0)
    for address in (
        *(dataclasses.replace(here, index=1), dataclasses.replace(here, hop=1), dataclasses.replace(here, hop=99)),
        *(dataclasses.replace(here, list=c.names[1]), dataclasses.replace(here, list="zebra")),
        dataclasses.replace(here, hop=len(c.names), towards=c.names[1]),
    ):
        ask(c, Give(c.digest, address))
    before = len(c.heard)
    ask(c, *[Give(c.digest, here)] * 3)
    same = {bytes(c.release(reply).parcel.sealed) for reply in c.heard[before:]}  # type: ignore[union-attr]
    assert len(same) == 1, "a piece left under two nonces"


@attack("match-committed, manifest-accepted, task, match", writes=AGREED, on=MATCH_ATTACKS)
def results_before_the_lists_went_round(c: Hostile) -> None:
    """Wants counts of a match that has none, and its end before anything came back."""
    agreed(c)
    ask(c, Count(c.digest), End(c.digest))


@attack("fault x6", on=MATCH_ATTACKS)
def words_for_which_a_question_has_no_place(c: Hostile) -> None:
    """Sends a key, a scale of noise, customers, another teller or a list beside the question, or none."""
    for more in ({"scalar": "0" * 64}, {"sigma": 0}, {"customers": ["a"]}, {"teller": "birch"}, {"attempt": True}):
        fields = {"ask": "commit", "plan": c.digest, "attempt": 1, **more}
        c.ask(MATCH, RecordDict({"match": ConfigRecord({"fields": canonical(fields).decode()})}))
    c.ask(MATCH, RecordDict({}))
