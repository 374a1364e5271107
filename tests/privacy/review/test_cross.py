"""What holds for a customer of several partners, and what one partner's bundle tells of another's."""

import dataclasses
import math
from collections import Counter

import dp_accounting as dpa
import pytest
from dp_accounting.rdp import RdpAccountant

from coterie.privacy.accountant import epsilon
from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, PoissonGaussian
from coterie.privacy.renyi import ORDERS
from coterie.privacy.review.cross import cross_check, for_life
from coterie.privacy.review.verdict import Verdict

DELTA = 1e-6
TRAINED = [PoissonGaussian(1.3, 0.05, 40)] * 5
MEASURED = [DiscreteGaussian(9.0, 1)] * 3
AGAIN = [PoissonGaussian(2.0, 0.1, 10)] * 4


def verdict(key, training=(), holdout=(), **fields):
    paid = {"training": (tuple(Counter(training).items()),), "holdout": (tuple(Counter(holdout).items()),)}
    return Verdict(key, key, "", "", 0, "", (), paid=paid, **fields)


def by_library(events):
    accountant = RdpAccountant(list(ORDERS))
    for event in events:
        gaussian = dpa.GaussianDpEvent(event.noise_multiplier)
        accountant.compose(dpa.PoissonSampledDpEvent(event.sample_rate, gaussian), event.steps)
    return accountant.get_epsilon(DELTA)


def test_the_worst_partners_and_groups_are_composed_for_life():
    verdicts = [verdict("a", AGAIN, MEASURED), verdict("b", TRAINED), verdict("c", [], MEASURED[:1])]
    found = dict(for_life(verdicts, DELTA))
    assert list(found) == [1, 2, 3]
    assert found[1] == pytest.approx(by_library(TRAINED), rel=1e-3)
    assert found[2] == pytest.approx(by_library([*TRAINED, *AGAIN]), rel=1e-3)
    # Never below what is composed exactly, of whatever groups.
    for group in (MEASURED[:1], AGAIN):
        assert found[3] >= epsilon([*TRAINED, *AGAIN, *MEASURED[:1]], DELTA) > 0, group
    assert found[1] < found[2] < found[3]


def by_closed_form(sensitivity, sums):
    """Epsilon of Gaussian sums that are not sub-sampled, from rho = k^2 / (2 s^2) at every order, best order."""
    return min(sums * a * sensitivity**2 / 2 + math.log1p(-1 / a) - math.log(DELTA * a) / (a - 1) for a in ORDERS)


def test_the_noise_of_a_secure_sum_is_shared_by_all_partners_of_a_person():
    # Three ledgers of one study: a person at k of them moves every sum by k times the sensitivity.
    event = DistributedGaussian(share=2**18, shares=2, sensitivity=2**16, sample_rate=1.0, steps=1)
    scale = math.sqrt(2 * (2**18) ** 2 - 36) / 2**16
    found = dict(for_life([verdict(name, [event] * 5) for name in "abc"], DELTA))
    for k in (1, 2, 3):
        assert found[k] == pytest.approx(by_closed_form(k / scale, 5), rel=1e-9)
        alone = by_closed_form(math.sqrt(k) / scale, 5)  # as if every ledger's noise were its own
        assert found[k] > 1.2 * alone or k == 1
    # Noise of a partner's own is not shared.
    local = dict(for_life([verdict(name, [event.gaussian] * 5) for name in "abc"], DELTA))
    assert local[3] == pytest.approx(by_closed_form(math.sqrt(3) / scale, 5), rel=1e-9)


def test_customers_of_every_segment_are_reckoned_with_for_life():
    few, many = ((PoissonGaussian(2.0, 0.1, 10), 1),), ((PoissonGaussian(2.0, 0.1, 10), 4),)
    one = dataclasses.replace(verdict("a"), paid={"training": (few, many)})
    assert for_life([one], DELTA) == for_life([verdict("a", AGAIN)], DELTA)


def test_nobody_who_spent_nothing_has_lost_anything():
    assert for_life([verdict("a"), verdict("b")], DELTA) == ((1, 0.0), (2, 0.0))


def test_a_release_that_another_ledger_shows_and_this_one_lacks_is_found():
    plan = {"name": "spring", "partners": [{"name": "a", "key": "a"}, {"name": "b", "key": "b"}]}
    known = {"plans": {"p": plan}, "records": {"p": "r"}}
    received = {"p": {"a": frozenset({b"1", b"2"}), "b": frozenset({b"3"})}}
    first = verdict("a", **known, received=received, released={"p": frozenset({b"1", b"2"})})
    second = verdict("b", **known, received=received, released={"p": frozenset({b"3"})})
    assert cross_check([first, second]).status == "holds"
    short = dataclasses.replace(first, released={"p": frozenset({b"1"})})
    check = cross_check([short, second])
    assert check.status == "fails"
    assert {str(finding) for finding in check.findings} >= {
        "bundle 2 shows 1 releases of bundle 1's partner that that ledger lacks"
    }
    silent = dataclasses.replace(second, records={}, received={})
    assert cross_check([first, silent]).status == "open"
