"""Tokens: stable in their match, meaningless in every other, and compared pair by pair."""

import hashlib

import numpy as np
import pytest

from coterie.privacy.matching import tokens as token_functions
from coterie.privacy.matching.errors import MatchFault, PeerFault
from coterie.privacy.matching.group import hash_to_group, multiply
from coterie.privacy.matching.tokens import canaries_digest, exchange_legs, matches, rekeyed, tokens
from coterie.tests.privacy.matching.matchkit import Match, item, terms_of

LISTS = {"art": list(range(20)), "books": list(range(10, 30)), "cars": list(range(5))}


@pytest.fixture(scope="module")
def match():
    return Match(terms_of(3, "rows"), LISTS).run().exchange()


def test_a_token_is_the_hash_of_all_keys_times_the_customers_point(match):
    """By itself: the product of all partners' keys, which no partner has."""
    point = hash_to_group([item(12)], match.terms.dst)
    for one in match.parties.values():
        point = multiply(point, one.own.secrets.scalar)
    manifest = match.parties["art"].manifest
    expected = hashlib.sha256(b"coterie/match/token/v1\n" + manifest.digest.encode() + point.tobytes()).digest()[:16]
    found = match.tokens()
    assert found["art"][12] == found["books"][12] == expected


@pytest.mark.parametrize(
    "changes", [{"epoch": 2}, {"plan": "sha256:" + "c" * 64}, {"rules": "2"}, {"identifier": "phone"}]
)
def test_tokens_of_another_match_have_nothing_in_common(match, changes):
    """Even under equal secrets, as `own_of` gives them for one plan."""
    other = Match(terms_of(3, "rows", **changes), LISTS).run()
    mine, theirs = ({token for of in one.tokens().values() for token in of.values()} for one in (match, other))
    assert len(mine) == len(theirs) == 30
    assert not mine & theirs
    if "plan" not in changes:
        assert other.parties["art"].own.secrets == match.parties["art"].own.secrets


def test_what_pairs_exchange_has_nothing_in_common(match):
    """Art sends books and cars the same tokens under two keys; and neither learns a token of the other's."""
    count = len(match.terms.names)
    sent = {
        (name, other): {row.tobytes() for row in match.parties[name].rows[name, count, other]}
        for name in match.terms.names
        for other in match.terms.names
        if other != name
    }
    assert not sent["art", "books"] & sent["art", "cars"]
    assert not sent["books", "art"] & sent["books", "cars"]
    assert len(sent["art", "books"] & sent["books", "art"]) == 10 + 8  # customers of both, and canaries
    all_tokens = {token for of in match.tokens().values() for token in of.values()}
    assert not all_tokens & set.union(*sent.values())


def test_what_is_sent_is_in_ascending_order_and_as_long_as_the_padded_list(match):
    for name in match.terms.names:
        one = match.parties[name]
        for other in set(match.terms.names) - {name}:
            rows = [row.tobytes() for row in one.rows[name, 3, other]]
            assert rows == sorted(rows)
            assert len(rows) == one.commitment.size


def comparing(match, received, **changes):
    art = match.parties["art"]
    fields = {"other": "books", "tokens": art.mine(), "received": received, "count": 20, **changes}
    return matches(art.own, art.manifest, **fields)


def received(match):
    return np.concatenate(match.parties["art"].inbox["books", 4, "art"])


def test_rows_are_found_where_they_are(match):
    assert list(comparing(match, received(match))) == [one >= 10 for one in range(20)]


@pytest.mark.parametrize("how", ["reversed", "equal", "shorter"])
def test_tokens_out_of_order_or_twice_are_refused(match, how):
    good = received(match)
    bad = {"reversed": good[::-1], "equal": good[[0, *range(len(good) - 1)]], "shorter": good[1:]}[how]
    with pytest.raises(PeerFault, match="tokens of books: are not as many") as caught:
        comparing(match, bad)
    assert caught.value.partner == "books"


def test_a_missing_canary_fails_the_pair_and_gives_no_row(match):
    books = match.parties["books"]
    mine = books.mine().copy()
    mine[20] ^= 1  # the first behind its twenty customers
    bad = rekeyed(books.own, books.manifest, other="art", tokens=mine)
    with pytest.raises(PeerFault, match="lists of art and books: do not agree in their canaries"):
        comparing(match, bad)


def test_shared_padding_fails_the_pair(match):
    """Nobody else has a partner's padding: who echoes a list back is seen."""
    art = match.parties["art"]
    echo = rekeyed(art.own, art.manifest, other="books", tokens=art.mine())
    with pytest.raises(PeerFault, match="do not agree"):
        comparing(match, echo)


def test_canaries_are_the_same_for_all_and_for_no_other_match(match):
    parties = match.parties.values()
    found = {canaries_digest(one.mine(), count=len(one.identifiers)) for one in parties}
    other = Match(terms_of(3, "rows", epoch=2), LISTS).run()
    assert len(found) == 1
    assert not found & other.canaries()


def test_tokens_are_exchanged_for_rows_alone():
    for outcome in ("counts", "tokens"):
        art = Match(terms_of(2, outcome), LISTS).parties["art"]
        with pytest.raises(MatchFault, match="rows, and nowhere else"):
            exchange_legs(art.own, art.manifest)


def test_no_tokens_of_no_points(match):
    assert tokens(match.parties["art"].manifest, np.zeros((0, 32), dtype=np.uint8)).shape == (0, 16)


def test_re_keying_a_piece_at_a_time_changes_nothing(monkeypatch):
    match = Match(terms_of(2, "rows"), {"art": range(40), "books": range(20, 50)}).run()
    art = match.parties["art"]
    whole = rekeyed(art.own, art.manifest, other="books", tokens=art.mine())
    monkeypatch.setattr(token_functions, "CHUNK", 7)
    assert np.array_equal(rekeyed(art.own, art.manifest, other="books", tokens=art.mine()), whole)
    assert len({row.tobytes() for row in whole}) == len(whole) > 40
