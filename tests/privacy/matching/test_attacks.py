"""What a coalition, a coordinator or a dishonest partner gets out of a match."""

import itertools
import random
import re

import numpy as np
import pytest
from scipy.stats import chi2, mannwhitneyu, spearmanr

from coterie.privacy.matching.errors import MatchError, PeerFault
from coterie.privacy.matching.group import hash_to_group, multiply, random_scalar
from coterie.privacy.randomness import SeededSource
from coterie.tests.privacy.matching.matchkit import Match, Party, item, terms_of

LISTS = {"art": list(range(40)), "books": list(range(20, 60)), "cars": list(range(10, 50))}


def seen_by(match, names):
    """Return all points that partners hold or held, with the parcels that came to them in plain."""
    found = set()
    for name in names:
        one = match.parties[name]
        for rows in (*one.rows.values(), *(part for parts in one.inbox.values() for part in parts)):
            if rows.shape[1] == 32:
                found |= {row.tobytes() for row in rows}
    return found


def products(points, scalars):
    """Return points times the product of every set of scalars."""
    found = set()
    for size in range(len(scalars) + 1):
        for some in itertools.combinations(scalars, size):
            rows = points
            for scalar in some:
                rows = multiply(rows, scalar)
            found |= {row.tobytes() for row in rows}
    return found


@pytest.mark.parametrize("outcome", ["counts", "rows"])
def test_a_dictionary_finds_nobody_as_long_as_one_key_is_missing(outcome):
    """Art and cars, with the coordinator, try every identifier on every point that books' customers became."""
    match = Match(terms_of(3, outcome, sigma=0.1 if outcome == "counts" else None), LISTS).run()
    books = match.parties["books"]
    guesses = hash_to_group([item(one) for one in range(100)], match.terms.dst)
    seen = seen_by(match, ("art", "cars"))
    known = [
        key
        for name in ("art", "cars")
        for secrets in [match.parties[name].own.secrets]
        for key in (secrets.scalar, secrets.blind)
        if key is not None
    ]
    theirs = {row.tobytes() for row in books.points}
    carried = products(books.points, [match.parties[name].own.secrets.scalar for name in ("cars", "art")])
    assert theirs <= seen
    assert not products(guesses, known) & carried
    # With books' own key or blind the same search finds all of its customers, and nobody else: the test can fail.
    whose = products(guesses, [*known, books.own.secrets.first]) & theirs
    assert len(whose) == len(LISTS["books"])


def test_two_matches_of_the_same_customers_share_no_point():
    first, second = (Match(terms_of(3, sigma=0.1), LISTS, seed).run() for seed in (1, 2))
    assert not seen_by(first, first.terms.names) & seen_by(second, second.terms.names)


@pytest.mark.parametrize("changes", [{"epoch": 2}, {"rules": "2"}, {"identifier": "phone"}])
def test_another_epoch_has_other_points_even_under_equal_secrets(changes):
    first, second = (Match(terms_of(2, "rows", **change), LISTS) for change in ({}, changes))
    assert first.parties["art"].own.secrets == second.parties["art"].own.secrets
    rows = [{row.tobytes() for row in one.parties["art"].points} for one in (first, second)]
    assert not rows[0] & rows[1]


def test_nobody_can_tell_dummies_from_customers_by_their_places():
    """All but books help each other. Its list, and theirs behind it, are in an order that says nothing."""
    match = Match(terms_of(3, sigma=4.0), {**LISTS, "books": list(range(300, 800))}, seed=3).run()
    books = match.parties["books"]
    planted = np.flatnonzero(books.order >= 500)
    customers = np.flatnonzero(books.order < 500)
    assert mannwhitneyu(planted, customers).pvalue > 0.01
    # As it was made, customers come first: the test sees it.
    made = np.arange(len(books.order))
    assert mannwhitneyu(made[500:], made[:500]).pvalue < 1e-20
    # Art's list went in one order and came out in another.
    before = np.concatenate(books.inbox["art", 1, ""])
    after = {row.tobytes(): place for place, row in enumerate(books.rows["art", 1, ""])}
    places = [after[row.tobytes()] for row in multiply(before, books.own.secrets.scalar)]
    assert spearmanr(np.arange(len(places)), places).pvalue > 0.01


@pytest.mark.parametrize("outcome", ["counts", "rows"])
def test_transcripts_of_lists_of_one_size_cannot_be_told_apart(outcome):
    """What the coordinator relays: addresses, order and sizes are those of other customers', to the last byte."""
    terms = terms_of(3, outcome, sigma=0.1 if outcome == "counts" else None)
    strangers = {name: [one + 1000 * place for one in of] for place, (name, of) in enumerate(LISTS.items())}
    lists = (LISTS, strangers, {name: of[:-3] for name, of in LISTS.items()} if outcome == "rows" else LISTS)
    runs = [Match(terms, each, seed=1).run() for each in lists]
    if outcome == "rows":
        runs = [one.exchange() for one in runs]

    def shown(match):
        manifest = match.parties["art"].manifest.digest
        return [({**one.header, "manifest": one.manifest == manifest}, len(one.sealed)) for one in match.transcript]

    assert shown(runs[0]) == shown(runs[1]) == shown(runs[2])
    for match in runs[:2]:
        data = np.frombuffer(b"".join(one.sealed for one in match.transcript), dtype=np.uint8)
        found = np.bincount(data, minlength=256)
        assert ((found - len(data) / 256) ** 2 / (len(data) / 256)).sum() < chi2.isf(1e-4, 255)


def test_the_coordinator_relays_no_point_in_plain():
    match = Match(terms_of(3, sigma=0.1), LISTS).run()
    relayed = b"".join(one.to_bytes() for one in match.transcript)
    assert match.transcript
    assert not [row for row in seen_by(match, match.terms.names) if row in relayed]


def wrong_for(owner, by):
    class Wrong(Party):
        """A partner that multiplies one list by another key than all others."""

        def work(self, key):
            mine, secrets = self.own, self.own.secrets
            if (self.name, key[0]) == (by, owner):
                other = random_scalar(SeededSource(b"wrong").stream("key"))
                self.own = type(mine)(
                    self.name, mine.identity, self.terms, type(secrets)(other, secrets.blind, secrets.channel)
                )
            super().work(key)
            self.own = mine

    return Wrong


@pytest.mark.parametrize(("owner", "by"), [("art", "books"), ("books", "cars"), ("cars", "art")])
def test_a_list_under_another_key_is_named_and_nothing_is_counted(owner, by):
    match = Match(terms_of(3, sigma=0.1), LISTS, party=wrong_for(owner, by)).run()
    with pytest.raises(PeerFault, match=f"the list of {owner}: does not hold the canaries"):
        match.overlap()


def test_rows_under_another_key_are_not_given():
    match = Match(terms_of(3, "rows"), LISTS, party=wrong_for("art", "books")).run().exchange()
    for one, other in (("books", "art"), ("cars", "art"), ("art", "cars")):
        with pytest.raises(PeerFault, match="do not agree in their canaries"):
            match.parties[one].shared_with(other)
    assert match.parties["books"].shared_with("cars") == set(LISTS["books"]) & set(LISTS["cars"])


def test_tokens_under_another_key_have_other_canaries():
    match = Match(terms_of(3, "tokens"), LISTS, party=wrong_for("art", "books")).run()
    assert len(match.canaries()) == 2


def test_a_replayed_parcel_of_another_attempt_does_not_open():
    first, second = (Match(terms_of(2), LISTS, seed) for seed in (1, 2))
    old = next(first.parties["art"].send(("art", 0, "")))
    with pytest.raises(PeerFault, match="another plan or another manifest"):
        second.parties["books"].take(old)


def test_a_partner_that_leaves_dummies_out_counts_exactly_as_the_limits_say(monkeypatch):
    """Not a guarantee but the end of one: noise hides from partners that put it on their lists."""

    class Cheat(Party):
        def __post_init__(self):
            with monkeypatch.context() as patch:
                if self.name == "art":
                    patch.setattr("coterie.privacy.matching.decoys._dummies", lambda *_: [])
                super().__post_init__()

    terms = terms_of(2, sigma=2.0, least=1)
    honest, cheated = (Match(terms, LISTS, party=party).run().raw()[frozenset(terms.names)] for party in (Party, Cheat))
    assert cheated == len(set(LISTS["art"]) & set(LISTS["books"])) + 8
    assert honest > cheated


def test_no_error_says_an_identifier_or_a_point():
    """Every hostile way above, once more, with identifiers that would be seen."""
    people = {name: [f"person-{one}@example.org" for one in of] for name, of in LISTS.items()}
    texts = []
    rng = random.Random(1)  # noqa: S311 - a test
    for owner, by, chunk in (("art", "books", 7), ("cars", "art", 16)):
        match = Match(terms_of(3, sigma=0.1, chunk=chunk), people, party=wrong_for(owner, by)).run()
        with pytest.raises(MatchError) as caught:
            match.overlap()
        texts.append(str(caught.value))
    match = Match(terms_of(3, sigma=0.1), people)
    sent = list(match.parties["art"].send(("art", 0, "")))
    for parcel in (sent[2], type(sent[0])(**{**vars(sent[0]), "sealed": rng.randbytes(len(sent[0].sealed))})):
        with pytest.raises(MatchError) as caught:
            match.parties["books"].take(parcel)
        texts.append(str(caught.value))
    for changes in ({"least": 50}, {"most": 20}):
        with pytest.raises(MatchError) as caught:
            Match(terms_of(3, sigma=0.1, **changes), people)
        texts.append(str(caught.value))
    assert len(texts) == 6
    assert not [text for text in texts if "person" in text or "@" in text or re.search("[0-9a-f]{16}", text)]
