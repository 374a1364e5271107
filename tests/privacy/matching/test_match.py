"""A whole match, held against plain sets: counts, rows and tokens for 2, 3 and 5 partners."""

import itertools
import random

import numpy as np
import pytest

from coterie.privacy.matching.commitment import own_points
from coterie.privacy.matching.decoys import numbers, spread
from coterie.privacy.matching.errors import MatchFault
from coterie.privacy.matching.legs import Leg
from coterie.privacy.matching.own import Secrets
from coterie.privacy.randomness import SeededSource
from coterie.tests.privacy.matching.matchkit import Match, Party, item, own_of, terms_of

# By number of partners, random cases: 500 for counts, 500 for rows, 125 for tokens; more of five partners are slow.
COUNTED, CASES = [(2, 370), (3, 120), (5, 10)], [(2, 340), (3, 140), (5, 20)]
BATCH = 10
SLOW = [pytest.param(5, first, marks=pytest.mark.slow) for first in range(20, 100, BATCH)]


def batches(cases):
    return [(count, first) for count, many in cases for first in range(0, many, BATCH)]


def random_lists(names, seed, most=24):
    """Draw lists of 1 to `most` customers each, of very unlike sizes and overlaps."""
    rng = random.Random(seed)  # noqa: S311 - a test
    people = range(rng.choice([1, 3, most, 4 * most]))
    return {name: rng.sample(people, rng.randint(1, min(most, len(people)))) for name in names}


def venn(sets):
    """Count by plain sets how many things lie in exactly which of them."""
    names = sorted(sets)
    found = {}
    for size in range(1, len(names) + 1):
        for part in itertools.combinations(names, size):
            inside = set.intersection(*(set(sets[name]) for name in part))
            outside = set().union(*(sets[name] for name in names if name not in part))
            found[frozenset(part)] = len(inside - outside)
    return found


def planted_labels(terms, seed):
    """Return what the specification says every list holds besides customers, as labels in plain sets."""
    labels = {name: {("canary", one) for one in range(8)} for name in terms.names}
    width = spread(terms.sigma)
    for owner in terms.names:
        stream = SeededSource(f"{seed}/{terms.plan}".encode()).stream(f"planted/{owner}")
        for cell, number in numbers(terms, owner, stream).items():
            if cell == (owner,):
                labels[owner] |= {("junk", owner, one) for one in range(number)}
                continue
            for member in cell:
                many = number if member == owner else width
                labels[member] |= {("dummy", owner, cell, one) for one in range(many)}
    return labels


@pytest.mark.parametrize(("count", "first"), [*batches(COUNTED), *SLOW])
def test_counts_are_those_of_plain_sets_and_the_noise_that_was_drawn(count, first):
    terms = terms_of(count, sigma=0.1, chunk=32)
    for seed in range(first, first + BATCH):
        lists = random_lists(terms.names, f"{count}/{seed}")
        match = Match(terms, lists, seed).run()
        labels = planted_labels(terms, seed)
        assert match.raw() == venn({name: {*lists[name], *labels[name]} for name in terms.names})
        # The noise in a cell is what is planted there, less its expectation; the rest is the plain Venn diagram.
        shown = {frozenset(one.partners): one.customers for one in match.overlap().cells}
        noise, true = venn(labels), venn(lists)
        for cell, number in noise.items():
            extra = 8 if len(cell) == count else 0
            noisy = true[cell] + number - extra - count * spread(0.1) // 2
            assert shown[cell] == (noisy if noisy >= terms.least else None)


@pytest.mark.parametrize(("count", "first"), [*batches(CASES), *SLOW])
def test_rows_are_those_of_plain_sets(count, first):
    terms = terms_of(count, "rows")
    for seed in range(first, first + BATCH):
        lists = random_lists(terms.names, f"{count}/{seed}")
        match = Match(terms, lists, seed).run().exchange()
        for one, other in itertools.permutations(terms.names, 2):
            assert match.parties[one].shared_with(other) == set(lists[one]) & set(lists[other])


@pytest.mark.parametrize(("count", "seed"), [(count, seed) for count, cases in CASES for seed in range(cases // 4)])
def test_tokens_are_equal_for_equal_customers_and_for_no_others(count, seed):
    terms = terms_of(count, "tokens")
    lists = random_lists(terms.names, f"{count}/{seed}")
    match = Match(terms, lists, seed).run()
    assert len(match.canaries()) == 1
    by_customer = {}
    for of in match.tokens().values():
        for customer, token in of.items():
            by_customer.setdefault(customer, set()).add(token)
    assert all(len(found) == 1 for found in by_customer.values())
    assert len(set.union(*by_customer.values())) == len(by_customer)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 2), (2, 65), (63, 64), (64, 65), (1, 200)])
@pytest.mark.parametrize("outcome", ["counts", "rows"])
@pytest.mark.parametrize("overlap", ["none", "all"])
def test_lists_of_any_size_that_share_nothing_or_everything(sizes, outcome, overlap):
    terms = terms_of(2, outcome, sigma=0.1 if outcome == "counts" else None, chunk=64)
    start = sizes[0] if overlap == "none" else 0
    lists = {"art": range(sizes[0]), "books": range(start, start + sizes[1])}
    match = Match(terms, lists).run()
    common = set(lists["art"]) & set(lists["books"])
    if outcome == "rows":
        assert match.exchange().parties["books"].shared_with("art") == common
        return
    labels = planted_labels(terms, 0)
    both = frozenset(terms.names)
    assert match.raw()[both] == len(common) + venn(labels)[both]


@pytest.mark.parametrize("outcome", ["counts", "rows", "tokens"])
def test_an_empty_list_is_refused_before_anything_leaves(outcome):
    with pytest.raises(MatchFault, match="takes 1 to 10000 different identifiers"):
        Match(terms_of(2, outcome), {"art": [], "books": [1]})


def test_a_list_that_is_longer_than_the_plan_takes_is_refused():
    with pytest.raises(MatchFault, match="takes 1 to 3 different identifiers"):
        Match(terms_of(2, most=3), {"art": range(4), "books": [1]})


@pytest.mark.parametrize("outcome", ["counts", "rows"])
def test_the_size_of_chunks_changes_no_result(outcome):
    lists = random_lists(("art", "books", "cars"), 5)
    found = []
    for chunk in (1, 7, 16, 10_000):
        match = Match(terms_of(3, outcome, chunk=chunk), lists).run()
        pairs = itertools.permutations(match.terms.names, 2)
        found.append(
            match.raw()
            if outcome == "counts"
            else [match.parties[a].shared_with(b) for match in [match.exchange()] for a, b in pairs]
        )
    assert all(one == found[0] for one in found)


def test_the_number_of_threads_and_the_cut_into_pieces_change_no_point():
    own = own_of(terms_of(), "art")
    items = [item(one) for one in range(700)]
    whole = np.concatenate(list(own_points(own, [items], threads=1)))
    for threads, step in ((0, 700), (2, 699), (3, 64)):
        pieces = [items[start : start + step] for start in range(0, 700, step)]
        assert np.array_equal(np.concatenate(list(own_points(own, pieces, threads=threads))), whole)


@pytest.mark.parametrize("teller", ["art", "books", "cars"])
def test_any_partner_may_count(teller):
    terms = terms_of(3, teller=teller)
    lists = random_lists(terms.names, 9)
    labels = planted_labels(terms, 0)
    match = Match(terms, lists).run()
    assert match.raw() == venn({name: {*lists[name], *labels[name]} for name in terms.names})
    assert all(match.terms.path(owner)[-1] == teller for owner in terms.names)


class Forgetful(Party):
    """A partner that is killed after every step, and is asked everything twice."""

    def take(self, parcel):
        assert super().take(parcel) is False
        self.restart()
        assert super().take(parcel) is True

    def work(self, key):
        super().work(key)
        self.restart()
        super().work(key)

    def send(self, key):
        for parcel in super().send(key):
            self.restart()
            again = next(one for one in super().send(key) if one.address == parcel.address)
            assert again.sealed != parcel.sealed  # another nonce: never one nonce for two messages
            yield again

    def restart(self):
        self.legs = {key: Leg.from_bytes(leg.to_bytes()) for key, leg in self.legs.items()}
        secrets = Secrets.from_bytes(self.own.secrets.to_bytes())
        self.own = type(self.own)(self.name, self.own.identity, self.terms, secrets)


@pytest.mark.parametrize("outcome", ["counts", "rows"])
def test_partners_that_are_killed_after_every_step_come_to_the_same_end(outcome):
    lists = random_lists(("art", "books", "cars"), 3)
    terms = terms_of(3, outcome)
    plain, forgetful = Match(terms, lists).run(), Match(terms, lists, party=Forgetful).run()
    if outcome == "counts":
        assert forgetful.raw() == plain.raw()
    else:
        plain.exchange(), forgetful.exchange()
        assert forgetful.parties["art"].shared_with("cars") == plain.parties["art"].shared_with("cars")
    assert all(leg.done for one in forgetful.parties.values() for leg in one.legs.values() if not leg.towards)
