"""Dummies: how many there are, by what law, and what of them a customer can change."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import chi2

from coterie.privacy.canonical import canonical
from coterie.privacy.discrete import discrete_gaussians
from coterie.privacy.matching import decoys
from coterie.privacy.matching.commitment import own_points
from coterie.privacy.matching.decoys import CANARIES, cells_of, check_count, numbers, planted, sizes, spread
from coterie.privacy.matching.errors import MatchFault
from coterie.privacy.matching.group import hash_to_group, multiply
from coterie.privacy.randomness import SeededSource
from coterie.tests.privacy.matching.matchkit import Match, own_of, terms_of


def stream(seed):
    return SeededSource(str(seed).encode()).stream("numbers")


def law(sigma, reach):
    """Return the discrete Gaussian's probabilities from -reach to reach, from its definition."""
    weights = [math.exp(-(z * z) / (2 * sigma * sigma)) for z in range(-reach, reach + 1)]
    return np.array(weights) / math.fsum(weights)


def statistic(draws, sigma, reach):
    """Return the chi-squared statistic of draws against a law, what lies beyond the reach in the last bins."""
    expected = law(sigma, 40)[40 - reach : 41 + reach] * len(draws)
    expected[[0, -1]] += (len(draws) - expected.sum()) / 2
    found = np.bincount(np.clip(draws, -reach, reach) + reach, minlength=2 * reach + 1)
    return float(((found - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("sigma", [0.1, 1.0, 4.37, 100.0, 10_000.0])
def test_noise_exceeds_half_a_set_with_a_probability_below_two_to_the_minus_eighty(sigma):
    half = spread(sigma) // 2
    # P(|z| > half) <= 2 exp(-(half + 1)^2 / (2 sigma^2)), in base 2.
    assert 1 - (half + 1) ** 2 / (2 * sigma**2) * math.log2(math.e) < -80
    assert spread(sigma) % 2 == 0


def test_every_coordinate_has_the_law_of_the_discrete_gaussian():
    terms, sigma, reach, rounds = terms_of(3, sigma=2.0), 2.0, 5, 1500
    half = spread(sigma) // 2
    drawn = [numbers(terms, "books", stream(seed)) for seed in range(rounds)]
    assert set(drawn[0]) == {("books",), ("art", "books"), ("books", "cars"), ("art", "books", "cars")}
    limit = chi2.isf(1e-4, 2 * reach)
    for cell in drawn[0]:
        z = np.array([one[cell] for one in drawn]) - half
        assert statistic(z, sigma, reach) < limit
        assert statistic(z, sigma / 2, reach) > limit  # the test sees a scale that is half
    z = np.array([[one[cell] for cell in one] for one in drawn])
    # Independent: correlations of 1,500 draws stay below 4.5 of their deviations.
    assert np.abs(np.corrcoef(z.T) - np.eye(4)).max() < 4.5 / math.sqrt(rounds)


def test_a_partner_lies_in_half_of_the_cells_and_in_one_more_of_them():
    terms = terms_of(4)
    cells = cells_of(terms, "cars")
    others = [one for one in terms.names if one != "cars"]
    parts = [set(part) | {"cars"} for size in range(4) for part in itertools.combinations(others, size)]
    assert cells[0] == ("cars",)
    assert sorted(map(sorted, cells)) == sorted(map(sorted, parts))
    assert all(list(cell) == [one for one in terms.names if one in cell] for cell in cells)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_list_has_its_canaries_and_dummies_and_no_more(count):
    terms = terms_of(count, sigma=0.7)
    width = spread(0.7)
    for name in terms.names:
        own = own_of(terms, name)
        points = planted(terms, name, secrets=own.secrets, stream=stream(name), count=5)
        mine = numbers(terms, name, stream(name))
        of_others = sum((len(cell) - 1) * width for cell in mine)
        assert len(points) == CANARIES + of_others + sum(mine.values())
        least, most = sizes(terms)
        assert least <= len(points) + terms.least
        assert len(points) + terms.most <= most


def test_the_limits_of_a_list_are_reached_by_the_extremes_of_the_noise():
    terms = terms_of(3, sigma=0.7)
    width = spread(0.7)
    cells = cells_of(terms, "art")
    fewest = CANARIES + sum((len(cell) - 1) * width for cell in cells)
    assert sizes(terms) == (terms.least + fewest, terms.most + fewest + width * len(cells))


@pytest.mark.parametrize(("count", "size"), [(1, 16), (8, 16), (9, 32), (24, 32), (25, 48)])
def test_lists_for_rows_are_padded_to_their_class(count, size):
    terms = terms_of(2, "rows")
    own = own_of(terms, "art")
    assert count + len(planted(terms, "art", secrets=own.secrets, stream=stream(1), count=count)) == size


def test_padding_is_new_in_every_match_and_canaries_are_the_same_for_all():
    terms = terms_of(2, "rows")
    secrets = own_of(terms, "art").secrets
    one, two = (planted(terms, "art", secrets=secrets, stream=stream(seed), count=2) for seed in (1, 2))
    other = planted(terms, "books", secrets=secrets, stream=stream(3), count=2)
    assert np.array_equal(one[:CANARIES], two[:CANARIES])
    assert np.array_equal(one[:CANARIES], other[:CANARIES])
    rest = [{row.tobytes() for row in points[CANARIES:]} for points in (one, two, other)]
    assert len(set.union(*rest)) == sum(map(len, rest))


def test_which_dummies_a_partner_takes_is_drawn_as_well():
    terms = terms_of(2, sigma=3.0)
    secrets = own_of(terms, "art").secrets
    # Equal numbers, other ranks: were the first n taken, whoever marks one dummy would learn how great n is.
    chosen = {("art", "books"): 20}
    first, second = (set(decoys._dummies(terms, "art", chosen, stream(seed))) for seed in (1, 2))
    assert len(first) == len(second) == 20 + spread(3.0)
    assert first != second
    assert secrets.blind is None


@pytest.mark.parametrize("count", [0, 2, 101])
def test_too_few_or_too_many_identifiers_are_refused(count):
    terms = terms_of(2, least=3, most=100)
    with pytest.raises(MatchFault, match="3 to 100"):
        check_count(terms, count)


def test_a_customer_more_changes_one_coordinate_of_what_the_others_see_by_one():
    """What the others can count of a list: its points by the cell that they lie in, with its noise held fixed."""
    terms = terms_of(3, sigma=0.5)
    lists = {"art": range(10), "books": range(5, 15), "cars": range(8, 20)}
    others = {"art": lists["art"], "cars": lists["cars"]}
    before = Match(terms, lists).run().raw()
    for person, cell in ((3, "art books"), (16, "books cars"), (99, "books"), (18, "books cars"), (0, "art books")):
        after = Match(terms, {**others, "books": [*lists["books"], person]}).run().raw()
        mine = {one: after[one] - before[one] for one in after if "books" in one and after[one] != before[one]}
        assert mine == {frozenset(cell.split()): 1}
        rest = {one: after[one] - before[one] for one in after if "books" not in one and after[one] != before[one]}
        assert rest == ({frozenset(cell.split()) - {"books"}: -1} if cell != "books" else {})


def test_noise_comes_from_the_exact_sampler():
    terms = terms_of(2, sigma=1.5)
    drawn = discrete_gaussians(1.5, 2, stream(7))
    half = spread(1.5) // 2
    assert list(numbers(terms, "art", stream(7)).values()) == [half + int(z) for z in drawn]


@pytest.mark.parametrize("reach", [10**6, -(10**6)])
def test_noise_beyond_half_a_set_is_cut_off(reach, monkeypatch):
    monkeypatch.setattr(decoys, "discrete_gaussians", lambda sigma, count, stream: np.full(count, reach))
    assert set(numbers(terms_of(3, sigma=2.0), "art", stream(1)).values()) == {spread(2.0) if reach > 0 else 0}


def test_no_identifier_is_a_canary_or_a_dummy():
    """Not even one whose bytes are a canary's or a dummy's."""
    terms = terms_of(2, sigma=1.0)
    own = own_of(terms, "art")
    points = planted(terms, "art", secrets=own.secrets, stream=stream(1), count=5)
    texts = [canonical({"kind": "canary", "number": one}) for one in range(CANARIES)]
    texts += [decoys._dummy("books", ("art", "books"), one) for one in range(spread(1.0))]
    named = np.concatenate(list(own_points(own, [texts])))
    under = multiply(hash_to_group(texts, terms.dst + b"-planted"), own.secrets.scalar)
    rows_of = [{row.tobytes() for row in one} for one in (points, named, under)]
    assert rows_of[2] <= rows_of[0]
    assert not rows_of[1] & rows_of[0]
