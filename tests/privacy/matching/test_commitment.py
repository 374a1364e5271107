"""A partner's word for its list: one list, one spelling, one signature."""

import dataclasses

import numpy as np
import pytest

from coterie.privacy.matching.commitment import Commitment, ascending, check_signed, chunk_digest, commit
from coterie.privacy.matching.errors import MatchFault, PeerFault
from coterie.privacy.matching.own import Own, Secrets, new_secrets
from coterie.privacy.randomness import SeededSource
from coterie.tests.privacy.matching.matchkit import Match, identity, own_of, terms_of


def rows(count, seed=0, width=32):
    return np.frombuffer(SeededSource(str(seed).encode()).stream("rows").bits(count * width), np.uint8).reshape(
        -1, width
    )


def in_order(count, seed=0):
    points = rows(count, seed)
    return points[ascending(points)]


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_the_order_is_that_of_the_bytes(count):
    points = rows(count)
    expected = sorted(row.tobytes() for row in points)
    assert [row.tobytes() for row in points[ascending(points)]] == expected


def test_points_that_begin_alike_are_ordered_by_all_their_bytes():
    points = rows(600, 1).copy()
    points[:, :8] = points[:, :8] % 2 * 255  # 256 beginnings at most
    points[:300, 8:30] = 7
    points = np.random.default_rng(1).permutation(np.unique(points, axis=0))
    expected = sorted(row.tobytes() for row in points)
    assert [row.tobytes() for row in points[ascending(points)]] == expected


@pytest.mark.parametrize("pair", [(0, 1), (3, 99)])
def test_two_equal_points_are_refused(pair):
    points = rows(100, 2).copy()
    points[pair[0]] = points[pair[1]]
    with pytest.raises(MatchFault, match="two equal points"):
        ascending(points)


@pytest.mark.parametrize("pair", [(0, 1), (15, 16), (38, 39)])
@pytest.mark.parametrize("how", ["swapped", "equal"])
def test_a_list_that_is_not_in_order_is_not_committed_to(pair, how):
    """Also across the cut between two chunks."""
    points = in_order(40).copy()
    points[list(pair)] = points[list(pair[::-1])] if how == "swapped" else points[[pair[0], pair[0]]]
    with pytest.raises(MatchFault, match="in ascending order"):
        commit(own_of(terms_of(chunk=16), "art"), points, attempt=1)


def test_a_commitment_says_the_size_and_every_chunk():
    own = own_of(terms_of(chunk=16), "art")
    points = in_order(40, 3)
    said = commit(own, points, attempt=2)
    assert (said.size, said.attempt, said.rules, said.partner) == (40, 2, "1", "art")
    assert said.chunks == tuple(chunk_digest(points[start : start + 16]) for start in (0, 16, 32))
    check_signed(own.terms, said)
    assert Commitment.from_header(said.header) == said


@pytest.mark.parametrize("field", ["plan", "partner", "attempt", "rules", "size", "chunks", "channel", "signature"])
def test_a_changed_field_breaks_the_signature(field):
    own = own_of(terms_of(), "art")
    said = commit(own, in_order(40), attempt=1)
    other = commit(own_of(terms_of(), "books", seed=1), in_order(33, 5), attempt=2)
    changes = {"plan": "sha256:" + "0" * 64, "rules": "2"}
    changed = dataclasses.replace(said, **{field: changes.get(field, getattr(other, field))})
    with pytest.raises(PeerFault) as caught:
        check_signed(own.terms, changed)
    assert caught.value.partner == ("books" if field == "partner" else "art")


BAD_HEADERS = {
    "missing": lambda h: h.pop("size"),
    "extra": lambda h: h.update(more=1),
    "text-for-number": lambda h: h.update(size="40"),
    "boolean": lambda h: h.update(attempt=True),
    "zero": lambda h: h.update(size=0),
    "huge": lambda h: h.update(size=2**40),
    "no-chunks": lambda h: h.update(chunks=[]),
    "short-chunk": lambda h: h.update(chunks=["ab"]),
    "upper-case": lambda h: h.update(channel=h["channel"].upper()),
    "number-for-text": lambda h: h.update(plan=3),
    "nested": lambda h: h.update(chunks=[["a"]]),
    "text-of-chunks": lambda h: h.update(chunks="ab"),
}


@pytest.mark.parametrize("change", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_a_header_that_is_not_one_is_refused(change):
    header = commit(own_of(terms_of(), "art"), in_order(40), attempt=1).header
    change(header)
    with pytest.raises(PeerFault, match="not a commitment"):
        Commitment.from_header(header)


@pytest.mark.parametrize("what", [None, [], "text", 3])
def test_what_is_no_table_is_no_commitment(what):
    with pytest.raises(PeerFault, match="not a commitment"):
        Commitment.from_header(what)


def test_secrets_are_kept_as_they_are_and_show_in_no_text():
    for outcome in ("counts", "rows"):
        secrets = own_of(terms_of(2, outcome), "art").secrets
        assert Secrets.from_bytes(secrets.to_bytes()) == secrets
        assert repr(secrets) == "Secrets()"
        assert secrets.scalar.hex() not in repr(own_of(terms_of(2, outcome), "art"))


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"format":"coterie/match/secrets/v1"}', b"\xff"])
def test_secrets_that_cannot_be_read_are_refused(data):
    with pytest.raises(MatchFault, match="cannot be read"):
        Secrets.from_bytes(data)


def test_a_stored_scalar_of_zero_is_refused():
    secrets = own_of(terms_of(), "art").secrets
    with pytest.raises(MatchFault):
        Secrets.from_bytes(dataclasses.replace(secrets, scalar=bytes(32)).to_bytes())


def test_nobody_speaks_under_anothers_name():
    terms = terms_of()
    secrets = new_secrets(terms, SeededSource(b"x").stream("secrets"))
    for name, key in (("art", "books"), ("ink", "ink")):
        with pytest.raises(MatchFault, match="own key"):
            Own(name, identity(key), terms, secrets)


def test_secrets_of_another_outcome_are_refused():
    counted, listed = terms_of(2), terms_of(2, "rows")
    with pytest.raises(MatchFault, match="another outcome"):
        Own("art", identity("art"), listed, own_of(counted, "art").secrets)
    with pytest.raises(MatchFault, match="another outcome"):
        Own("art", identity("art"), counted, own_of(listed, "art").secrets)
    with pytest.raises(MatchFault, match="does not come back"):
        _ = own_of(counted, "art").secrets.last


def test_a_list_is_committed_to_in_ascending_order_whatever_the_order_of_rows():
    lists = {"art": list(range(30)), "books": [1, 2, 3]}
    forwards = Match(terms_of(2, "counts"), lists).parties["art"]
    backwards = Match(terms_of(2, "counts"), {**lists, "art": lists["art"][::-1]}).parties["art"]
    assert forwards.commitment == backwards.commitment
    rows_of = [row.tobytes() for row in forwards.points]
    assert rows_of == sorted(rows_of)
