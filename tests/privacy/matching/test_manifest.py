"""The manifest: all partners of the plan, each under its key, by the plan's limits, and one for ever."""

import dataclasses

import numpy as np
import pytest

from coterie.privacy.matching.commitment import commit
from coterie.privacy.matching.decoys import sizes
from coterie.privacy.matching.errors import MatchFault, PeerFault
from coterie.privacy.matching.manifest import manifest, settled, verified
from coterie.tests.privacy.matching.matchkit import Match, Party, identity, own_of, terms_of

LISTS = {"art": range(5), "books": range(3, 9), "cars": range(4), "dogs": [1]}


@pytest.fixture
def match():
    return Match(terms_of(3, chunk=64), LISTS)


def shown(match):
    return {name: one.commitment for name, one in match.parties.items()}


def asked(match, commitments):
    art = match.parties["art"]
    return manifest(art.own, art.commitment, commitments=list(commitments))


def resigned(party, **changes):
    """Return a commitment as a dishonest partner would sign it after a change."""
    from coterie.privacy.canonical import canonical

    said = dataclasses.replace(party.commitment, **changes)
    message = b"coterie/match/commitment/v1\n" + canonical(said.said)
    return dataclasses.replace(said, signature=identity(party.name).sign(message).hex())


def test_the_order_in_which_commitments_are_shown_does_not_matter(match):
    whole = list(shown(match).values())
    assert asked(match, whole) == asked(match, whole[::-1]) == verified(match.terms, whole)
    assert asked(match, whole).digest == match.parties["books"].manifest.digest


def test_it_says_how_many_points_a_partner_will_be_asked_to_multiply(match):
    whole = shown(match)
    found = verified(match.terms, list(whole.values()))
    assert found.evaluations("art") == whole["books"].size + whole["cars"].size


@pytest.mark.parametrize("missing", ["art", "books", "cars"])
def test_a_missing_partner_is_named(match, missing):
    rest = [one for name, one in shown(match).items() if name != missing]
    with pytest.raises(PeerFault, match=f"no commitment of {missing}") as caught:
        asked(match, rest)
    assert caught.value.partner == ""


def test_an_invented_partner_is_refused(match):
    stranger = Party(terms_of(4, chunk=64), "dogs", [1, 2]).commitment
    with pytest.raises(PeerFault, match="dogs, who is not of the plan"):
        asked(match, [*shown(match).values(), stranger])


def test_a_partner_under_another_key_is_refused(match):
    whole = shown(match)
    forged = dataclasses.replace(whole["books"], signature=whole["cars"].signature)
    with pytest.raises(PeerFault, match="identity key did not sign") as caught:
        asked(match, [whole["art"], forged, whole["cars"]])
    assert caught.value.partner == "books"


def test_one_partner_shown_twice_is_refused(match):
    whole = list(shown(match).values())
    with pytest.raises(PeerFault, match="two commitments of one partner"):
        asked(match, [*whole, whole[1]])


def test_another_commitment_of_ones_own_is_refused(match):
    whole = shown(match)
    second = commit(match.parties["art"].own, match.parties["art"].points[:-1], attempt=1)
    with pytest.raises(PeerFault, match="another commitment than this partner signed"):
        asked(match, [second, whole["books"], whole["cars"]])


CHANGES = {
    "another plan": ({"plan": "sha256:" + "0" * 64}, "for another plan"),
    "other rules": ({"rules": "2"}, "another version of the rules"),
    "too long": ({"size": 2**30}, "points; from"),
    "too short": ({"size": 8}, "points; from"),
    "a chunk too few": ({"chunks": ("0" * 64,)}, "committed to 1 chunks"),
    "key of small order": ({"channel": "00" * 32}, "small order"),
}


@pytest.mark.parametrize(("changes", "rule"), CHANGES.values(), ids=CHANGES)
def test_a_commitment_that_breaks_a_rule_names_its_partner_and_the_rule(match, changes, rule):
    whole = shown(match)
    if "chunks" in changes:
        match = Match(terms_of(3, chunk=16), LISTS)
        whole = shown(match)
    bad = resigned(match.parties["books"], **changes)
    with pytest.raises(PeerFault, match=rule) as caught:
        asked(match, [whole["art"], bad, whole["cars"]])
    assert caught.value.partner == "books"


def test_two_partners_with_one_channel_key_are_refused(match):
    whole = shown(match)
    copied = resigned(match.parties["books"], channel=whole["cars"].channel)
    with pytest.raises(PeerFault, match="one channel key"):
        asked(match, [whole["art"], copied, whole["cars"]])


def test_a_list_for_rows_that_is_not_padded_is_refused():
    match = Match(terms_of(2, "rows", chunk=64), LISTS)
    bad = resigned(match.parties["books"], size=17)
    with pytest.raises(PeerFault, match="multiple of 16"):
        asked(match, [match.parties["art"].commitment, bad])


@pytest.mark.parametrize("outcome", ["counts", "rows"])
def test_limits_of_sizes_are_taken_to_the_last_point(outcome):
    match = Match(terms_of(2, outcome, chunk=10**6, most=50), LISTS)
    least, most = sizes(match.terms)
    step = 1 if outcome == "counts" else match.terms.size_class
    for size, taken in ((least, True), (most, True), (least - step, False), (most + step, False)):
        changed = resigned(match.parties["books"], size=size)
        if taken:
            assert asked(match, [match.parties["art"].commitment, changed]).of("books").size == size
        else:
            with pytest.raises(PeerFault, match=f"from {least} to {most}"):
                asked(match, [match.parties["art"].commitment, changed])


def test_a_second_manifest_is_refused_for_ever(match):
    first = asked(match, shown(match).values())
    settled(first, "")
    settled(first, first.digest)
    other = Party(match.terms, "books", range(2, 9))
    second = asked(match, [shown(match)["art"], other.commitment, shown(match)["cars"]])
    assert second.digest != first.digest
    with pytest.raises(PeerFault, match="second manifest"):
        settled(second, first.digest)


def test_the_digest_is_bound_to_every_term(match):
    whole = list(shown(match).values())
    changes = (
        {"epoch": 2},
        {"least": 2},
        {"identifier": "phone"},
        {"teller": "books"},
        {"sigma": 0.301},
        {"most": 9999},
    )
    digests = set()
    for change in ({}, *changes):
        terms = dataclasses.replace(match.terms, **change)
        digests.add(dataclasses.replace(verified(match.terms, whole), terms=terms).digest)
    assert len(digests) == 1 + len(changes)


def test_a_commitment_that_is_not_of_ones_own_secrets_is_a_fault_of_ones_own(match):
    other = own_of(match.terms, "art", seed=9)
    with pytest.raises(MatchFault, match="another partner's, or another match's"):
        manifest(other, match.parties["art"].commitment, commitments=list(shown(match).values()))


BAD_TERMS = {
    "one partner": {"roster": terms_of(2).roster[:1]},
    "a name twice": {"roster": (("art", "a"), ("art", "b"))},
    "a key twice": {"roster": (("art", "a"), ("books", "a"))},
    "no outcome": {"outcome": "sums"},
    "nobody's teller": {"teller": "ink"},
    "no noise": {"sigma": None},
    "zero noise": {"sigma": 0.0},
    "noise that is no number": {"sigma": float("nan")},
    "noise for rows": {"outcome": "rows", "sigma": 1.0},
    "least above most": {"least": 20_000},
    "least of nothing": {"least": 0},
    "too many": {"most": 10_000_001},
    "no class": {"size_class": 0},
    "no epoch": {"epoch": 0},
}


@pytest.mark.parametrize("changes", BAD_TERMS.values(), ids=BAD_TERMS)
def test_terms_under_which_nothing_is_protected_are_refused(changes):
    with pytest.raises(MatchFault):
        terms_of(**changes)


def test_nine_partners_cannot_be_counted_and_can_be_matched():
    assert len(terms_of(8).names) == 8
    with pytest.raises(MatchFault, match="at most 8 partners"):
        terms_of(9)
    assert len(terms_of(9, "rows").names) == 9


def test_lists_go_round_the_ring_to_their_owner_or_the_teller():
    rows = terms_of(4, "rows")
    assert rows.path("cars") == ("cars", "dogs", "art", "books", "cars")
    counts = terms_of(4, teller="books")
    assert counts.path("cars") == ("cars", "dogs", "art", "books")
    assert counts.path("art") == ("art", "books", "cars", "dogs", "books")
    assert counts.path("books") == ("books", "cars", "dogs", "art", "books")
    assert np.all([set(counts.route(name)) == set(counts.names) - {name} for name in counts.names])
