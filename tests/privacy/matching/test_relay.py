"""A partner's part in the way of a list: what may come next, and what is refused by name."""

import dataclasses

import numpy as np
import pytest

from coterie.privacy.matching.commitment import ascending, chunk_digest, commit
from coterie.privacy.matching.errors import MatchFault, PeerFault
from coterie.privacy.matching.group import multiply
from coterie.privacy.matching.legs import TABLE, Leg, Move, Stage
from coterie.privacy.matching.relay import arranged, begun, evaluated, forward, made, receive
from coterie.tests.privacy.matching.matchkit import Match, Party, terms_of

LISTS = {"art": range(30), "books": range(10, 40), "cars": range(25)}
KEY = ("art", 1, "")


@pytest.fixture
def match():
    return Match(terms_of(3, chunk=16, sigma=0.1), LISTS)


def parcels(match, name="art"):
    return list(match.parties[name].send((name, 0, "")))


def take_all(match, name="books"):
    for parcel in parcels(match):
        match.parties[name].take(parcel)
    return match.parties[name]


def test_the_table_is_the_whole_life_of_a_list():
    assert {(Stage.TAKING, Move.TAKE), (Stage.TAKEN, Move.MAKE), (Stage.MADE, Move.HAND)} == set(TABLE)


def test_every_partner_has_one_leg_of_every_list_and_the_ends_two(match):
    legs = {name: begun(one.own, one.manifest) for name, one in match.parties.items()}
    found = {name: [(leg.list, leg.position, leg.ends) for leg in of] for name, of in legs.items()}
    assert found["art"] == [
        ("art", 0, False),
        ("art", 3, True),
        ("books", 2, True),
        ("cars", 1, False),
        ("cars", 3, True),
    ]
    assert found["books"] == [("art", 1, False), ("books", 0, False), ("cars", 2, False)]


def test_a_parcel_is_taken_once_and_answered_alike(match):
    first, second, *_ = parcels(match)
    books = match.parties["books"]
    assert books.take(first) is False
    state = books.legs[KEY]
    assert books.take(first) is True
    assert books.legs[KEY] == state
    assert books.take(second) is False
    assert books.take(first) is True
    assert len(books.inbox[KEY]) == 2


def test_the_same_rows_under_another_nonce_are_the_same_parcel(match):
    books = match.parties["books"]
    once, again = parcels(match)[0], parcels(match)[0]
    assert once.sealed != again.sealed
    assert books.take(once) is False
    assert books.take(again) is True


@pytest.mark.parametrize("order", [[1], [0, 2], [0, 1, 3]])
def test_a_gap_is_refused_by_list_chunk_and_rule(match, order):
    books = match.parties["books"]
    sent = parcels(match)
    for index in order[:-1]:
        books.take(sent[index])
    with pytest.raises(PeerFault, match=f"list of art, chunk {order[-1]}, from art: comes out of order") as caught:
        books.take(sent[order[-1]])
    assert caught.value.partner == "art"
    assert len(books.inbox[KEY]) == len(order) - 1


def test_other_rows_for_a_chunk_that_was_taken_are_refused(match):
    """From a hop on where no commitment holds them."""
    take_all(match)
    books, cars = match.parties["books"], match.parties["cars"]
    books.work(KEY)
    cars.take(next(books.send(KEY)))
    leg, whole = books.legs[KEY], books.rows[KEY].copy()
    whole[:16] = whole[15::-1]
    changed = [chunk_digest(whole[:16]), *leg.made[1:]]
    books.legs[KEY], books.rows[KEY] = dataclasses.replace(leg, made=tuple(changed), handed=0), whole
    with pytest.raises(PeerFault, match="list of art, chunk 0, from books: was taken before, and has other rows now"):
        cars.take(next(books.send(KEY)))


def test_a_list_that_is_not_the_one_committed_to_is_refused_at_once(match):
    art = match.parties["art"]
    own_leg = art.legs["art", 0, ""]
    whole = art.points.copy()
    whole[[17, 18]] = whole[[18, 17]]
    art.rows["art", 0, ""] = whole
    made_of = [chunk_digest(whole[start : start + 16]) for start in range(0, len(whole), 16)]
    art.legs["art", 0, ""] = dataclasses.replace(own_leg, made=tuple(made_of))
    first, second, *_ = parcels(match)
    books = match.parties["books"]
    books.take(first)
    with pytest.raises(PeerFault, match="chunk 1, from art: is not what its owner committed to"):
        books.take(second)


@pytest.mark.parametrize("bad", [bytes(32), b"\xff" * 32, b"\x01" + bytes(31)], ids=["identity", "ones", "odd"])
@pytest.mark.parametrize("hop", [0, 1, 2])
def test_what_is_no_point_is_refused_by_list_chunk_and_place(bad, hop):
    """At every hop: from the owner, from who evaluated, and at the teller that only counts."""

    class Hostile(Party):
        def work(self, key):
            super().work(key)
            if hop and key == ("art", hop, ""):
                self.spoil(key)

        def spoil(self, key):
            whole = self.rows[key].copy()
            whole[20] = np.frombuffer(bad, dtype=np.uint8)
            self.rows[key] = whole
            digests = tuple(chunk_digest(whole[start : start + 16]) for start in range(0, len(whole), 16))
            self.legs[key] = dataclasses.replace(self.legs[key], made=digests)

    match, place = Match(terms_of(3, chunk=16, sigma=0.1), LISTS, party=Hostile), 20
    if hop == 0:
        art = match.parties["art"]
        art.points = art.points.copy()
        art.points[place] = np.frombuffer(bad, dtype=np.uint8)
        art.points = np.ascontiguousarray(art.points[ascending(art.points)])
        place = [row.tobytes() for row in art.points].index(bad)
        art.commitment = commit(art.own, art.points, attempt=1)
        shown = [one.commitment for one in match.parties.values()]
        for one in match.parties.values():
            one.agree(shown)
    sender = match.terms.path("art")[hop]
    rule = f"list of art, chunk {place // 16}, from {sender}: point {place % 16} of it is not"
    with pytest.raises(PeerFault, match=rule) as caught:
        match.run()
    assert caught.value.partner == sender


def test_two_equal_points_are_refused_by_the_name_of_the_list(match):
    whole = match.parties["art"].points.copy()
    whole[3] = whole[50]
    books = match.parties["books"]
    with pytest.raises(PeerFault, match="list of art: has two equal points") as caught:
        arranged(books.manifest, books.legs[KEY], whole)
    assert caught.value.partner == "art"


def test_a_list_goes_on_as_a_whole_and_sorted(match):
    books = take_all(match)
    leg = books.legs[KEY]
    assert leg.stage is Stage.TAKEN
    with pytest.raises(MatchFault, match="once it is whole"):
        forward(books.own, books.manifest, leg=leg, index=0, rows=books.inbox[KEY][0], stream=books.nonces)
    books.work(KEY)
    expected = multiply(match.parties["art"].points, books.own.secrets.scalar)
    assert [row.tobytes() for row in books.rows[KEY]] == sorted(row.tobytes() for row in expected)


def test_a_list_for_rows_keeps_its_order():
    match = Match(terms_of(3, "rows"), LISTS)
    books = take_all(match)
    books.work(KEY)
    assert np.array_equal(books.rows[KEY], multiply(match.parties["art"].points, books.own.secrets.scalar))


def test_nothing_is_made_of_a_list_that_is_not_whole(match):
    books = match.parties["books"]
    books.take(parcels(match)[0])
    with pytest.raises(MatchFault, match="as a whole"):
        made(books.manifest, books.legs[KEY], match.parties["art"].points)


def test_what_was_made_stays_what_it_is(match):
    books = take_all(match)
    books.work(KEY)
    leg = books.legs[KEY]
    assert made(books.manifest, leg, books.rows[KEY]) == leg
    with pytest.raises(MatchFault, match="worked on once"):
        made(books.manifest, leg, books.rows[KEY][::-1])
    with pytest.raises(MatchFault, match="nothing else"):
        forward(books.own, books.manifest, leg=leg, index=0, rows=books.rows[KEY][16:32], stream=books.nonces)


@pytest.mark.parametrize("index", [-1, 1, 99])
def test_parcels_go_on_in_their_order(match, index):
    books = take_all(match)
    books.work(KEY)
    rows = books.rows[KEY][:16]
    with pytest.raises(MatchFault, match="in the order of its parcels"):
        forward(books.own, books.manifest, leg=books.legs[KEY], index=index, rows=rows, stream=books.nonces)


def test_a_list_that_ended_goes_nowhere():
    match = Match(terms_of(2), LISTS).run()
    art = match.parties["art"]
    leg = art.legs["books", 1, ""]
    assert leg.ends
    assert leg.done
    with pytest.raises(MatchFault):
        forward(art.own, art.manifest, leg=leg, index=0, rows=art.rows["books", 1, ""][:16], stream=art.nonces)


def test_a_parcel_of_another_leg_is_not_taken(match):
    books = match.parties["books"]
    leg = books.legs["cars", 2, ""]
    with pytest.raises(MatchFault, match="another part"):
        receive(books.own, books.manifest, leg=leg, parcel=parcels(match)[0])


def test_ones_own_list_is_not_evaluated_at_its_start(match):
    art = match.parties["art"]
    with pytest.raises(MatchFault, match="made, not evaluated"):
        evaluated(art.own, art.manifest, leg=art.legs["art", 0, ""], index=0, points=art.points[:16])


def test_legs_are_of_ones_own_match(match):
    other = Match(terms_of(3, chunk=16, sigma=0.1, epoch=2), LISTS)
    with pytest.raises(MatchFault, match="another match's"):
        begun(match.parties["art"].own, other.parties["art"].manifest)


def test_a_leg_is_kept_as_it_is(match):
    books = take_all(match)
    books.work(KEY)
    next(books.send(KEY))
    for leg in books.legs.values():
        assert Leg.from_bytes(leg.to_bytes()) == leg


@pytest.mark.parametrize("data", [b"", b"{}", b'{"leg":{}}', b"[]", b"\xff"])
def test_a_leg_that_cannot_be_read_is_refused(data):
    with pytest.raises(MatchFault, match="cannot be read"):
        Leg.from_bytes(data)
