"""What is spent, by life, purpose, year and segment, against customers who count for themselves."""

import datetime
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.privacy.charges import Charge, Limit
from coterie.privacy.errors import BudgetExhausted
from coterie.privacy.events import DiscreteGaussian
from coterie.privacy.ledger import Ledger
from coterie.privacy.renyi import ORDERS, Filter

SEGMENTS = ("a", "b", "c")
NEW_YEAR = datetime.datetime(2031, 1, 1, tzinfo=datetime.UTC)
EVENT = DiscreteGaussian(10.0, 1)
DELTA = 1e-5


def cost(sigma):
    """Rényi divergences of one noisy histogram (Canonne, Kamath, Steinke 2020, theorem 4)."""
    return [order / (2 * sigma**2) for order in ORDERS]


def cap(runs, sigma=EVENT.sigma):
    """A filter that carries exactly `runs` charges of this noise."""
    low, high = 1e-3, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        budget = Filter(middle, DELTA)
        few = runs * cost(sigma)[budget.index] > budget.capacity
        low, high = (middle, high) if few else (low, middle)
    return Filter(high, DELTA)


class Clock:
    """A clock that goes where a test sets it."""

    def __init__(self, now=NEW_YEAR):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    """A clock that stands at the beginning of 2031 until it is set."""
    return Clock()


@pytest.fixture
def ledger(tmp_path, clock):
    Ledger.create(tmp_path / "ledger.sqlite")
    with Ledger(tmp_path / "ledger.sqlite", clock) as opened:
        yield opened


def charge(step, segments=(), **fields):
    whole = {"plan": f"sha256:{step}", "purpose": "coupons", "step": str(step), "attempt": 1, "group": "training"}
    return Charge(**{**whole, "event": EVENT, "random": "os", **fields}, segments=segments)


def granted(ledger, one, *limits):
    try:
        ledger.reserve(one, limits, declared=1)
    except BudgetExhausted:
        return False
    return True


# --- against customers who count for themselves --------------------------------------------------------------------


CHARGES = st.tuples(
    st.sets(st.sampled_from(SEGMENTS)).map(sorted).map(tuple),
    st.sampled_from(["coupons", "churn"]),
    st.sampled_from(["training", "holdout"]),
    st.sampled_from([5.0, 8.0, 13.0]),
    st.integers(-500, 500),  # days by which the clock goes on, or back
)
ASKED = [(), ("a",), ("c",), ("a", "b"), SEGMENTS]


@settings(max_examples=60, deadline=None)
@given(st.lists(CHARGES, max_size=10))
def test_the_worst_customer_of_the_segments_asked_for_is_what_is_spent(charges):
    folder = Path(tempfile.mkdtemp())
    clock, latest = Clock(), datetime.datetime.min.replace(tzinfo=datetime.UTC)
    # One customer in each segment of each group, who writes down all that touches it, with the span it falls into.
    lost = {(group, segment): [] for group in ("training", "holdout") for segment in SEGMENTS}
    Ledger.create(folder / "ledger.sqlite")
    with Ledger(folder / "ledger.sqlite", clock) as ledger:
        for step, (segments, purpose, group, sigma, days) in enumerate(charges):
            clock.now += datetime.timedelta(days=days)
            latest = max(latest, clock.now)
            event = DiscreteGaussian(sigma, 1)
            ledger.reserve(charge(step, segments, purpose=purpose, group=group, event=event), [], declared=1)
            for segment in segments or SEGMENTS:
                lost[group, segment].append((purpose, latest.year, sigma))
        for group in ("training", "holdout"):
            for span in ("life", "purpose/coupons", "purpose/churn", "year/2030", "year/2031", "year/2032"):
                for asked in ASKED:
                    worst = [0.0] * len(ORDERS)
                    for segment in asked or SEGMENTS:
                        counted = Counter(
                            sigma
                            for purpose, year, sigma in lost[group, segment]
                            if span in {"life", f"purpose/{purpose}", f"year/{year}"}
                        )
                        own = [
                            sum(number * cost(sigma)[place] for sigma, number in counted.items())
                            for place in range(len(ORDERS))
                        ]
                        worst = [max(pair) for pair in zip(worst, own, strict=True)]
                    assert ledger.spent_in(span, group, asked) == pytest.approx(worst, rel=1e-9)
    shutil.rmtree(folder)


def test_spent_by_name_is_what_is_spent_in_the_span(ledger):
    ledger.reserve(charge(1, ("a",)), [], declared=1)
    ledger.reserve(charge(2, ("b",), purpose="churn"), [], declared=1)
    assert ledger.spent("training", "churn") == pytest.approx(cost(10.0))
    assert ledger.spent("training", "churn", segments=("a",)) == pytest.approx([0.0] * len(ORDERS))
    assert ledger.spent("training", year=2031) == ledger.spent("training") == pytest.approx(cost(10.0))
    assert ledger.spent("training", year=2030) == pytest.approx([0.0] * len(ORDERS))


# --- segments -------------------------------------------------------------------------------------------------------


def test_segments_pay_for_themselves_alone(ledger):
    limit = Limit(cap(2))
    assert [granted(ledger, charge(n, ("a",)), limit) for n in range(3)] == [True, True, False]
    assert [granted(ledger, charge(10 + n, ("b",)), limit) for n in range(2)] == [True, True]
    assert not granted(ledger, charge(20, ("a", "c")), limit)  # one of its segments has nothing left
    assert not granted(ledger, charge(21), limit)  # everybody is in some segment
    assert granted(ledger, charge(22, ("c",)), limit)
    assert not granted(ledger, charge(23), limit)


def test_what_touched_everybody_is_paid_by_every_segment_seen_before_or_not(ledger):
    limit = Limit(cap(2))
    assert granted(ledger, charge(1, ("a",)), limit)
    assert granted(ledger, charge(2), limit)
    assert [granted(ledger, charge(3 + n, (name,)), limit) for n, name in enumerate("aab")] == [False, False, True]
    assert [granted(ledger, charge(7 + n, ("unseen",)), limit) for n in range(2)] == [True, False]


def test_a_charge_of_two_segments_is_paid_by_both(ledger):
    limit = Limit(cap(1))
    assert granted(ledger, charge(1, ("a", "b")), limit)
    assert not granted(ledger, charge(2, ("a",)), limit)
    assert not granted(ledger, charge(3, ("b",)), limit)


# --- years ----------------------------------------------------------------------------------------------------------


def test_a_year_has_its_own_budget_and_the_next_one_another(ledger, clock):
    limit = Limit(cap(2), year=2031)
    assert limit.name == "budget of the year 2031"
    assert [granted(ledger, charge(n), limit) for n in range(3)] == [True, True, False]
    with pytest.raises(BudgetExhausted, match="budget of the year 2031"):
        ledger.would_carry(charge(3), [limit], declared=1)
    clock.now = datetime.datetime(2031, 12, 31, 23, 59, 59, 999999, tzinfo=datetime.UTC)
    assert not granted(ledger, charge(4), limit)
    clock.now += datetime.timedelta(microseconds=1)
    assert ledger.year == 2032
    assert [granted(ledger, charge(5 + n), limit) for n in range(3)] == [True, True, False]


def test_the_year_is_the_one_of_greenwich_wherever_the_clock_stands(ledger, clock):
    eastern = datetime.timezone(datetime.timedelta(hours=5))
    clock.now = datetime.datetime(2032, 1, 1, 3, tzinfo=eastern)  # 22 hours on the last day of 2031
    assert ledger.year == 2031
    ledger.reserve(charge(1), [], declared=1)
    assert ledger.spent("training", year=2031) == pytest.approx(cost(10.0))


@pytest.mark.parametrize("back", [1, 400, 5000])
def test_a_clock_that_is_put_back_gives_no_budget_back(ledger, clock, back):
    limit = Limit(cap(2), year=2031)
    ledger.reserve(charge(1), [limit], declared=1)
    ledger.reserve(charge(2), [limit], declared=1)
    clock.now -= datetime.timedelta(days=back)
    for year in (clock.now.year, 2031):
        assert not granted(ledger, charge(3), Limit(cap(2), year=year))
    assert ledger.year == 2031
    times = [entry.at for entry in ledger.entries()]
    ledger.record("refusal", {"release": "", "plan": "", "codes": []})
    assert [entry.at for entry in ledger.entries()] == [*times, times[-1]]


def test_a_clock_that_runs_ahead_and_is_put_right_spends_the_later_year(ledger, clock):
    clock.now = NEW_YEAR.replace(year=2034)
    assert granted(ledger, charge(1), Limit(cap(2), year=2031))
    clock.now = NEW_YEAR
    assert [granted(ledger, charge(2 + n), Limit(cap(2), year=2031)) for n in range(2)] == [True, False]
    assert ledger.spent("training", year=2034) == pytest.approx([2 * value for value in cost(10.0)])
    assert ledger.spent("training", year=2031) == pytest.approx([0.0] * len(ORDERS))


# --- more than one at once ------------------------------------------------------------------------------------------


def test_two_handles_on_one_file_share_one_budget(tmp_path, ledger, clock):
    limits = [Limit(cap(5)), Limit(cap(3), purpose="coupons"), Limit(cap(4), year=2031)]
    with Ledger(tmp_path / "ledger.sqlite", clock) as other:
        told = [granted((ledger, other)[n % 2], charge(n), *limits) for n in range(6)]
        more = [granted((other, ledger)[n % 2], charge(9 + n, purpose="x"), limits[0], limits[2]) for n in range(3)]
        assert (told, more) == ([True] * 3 + [False] * 3, [True, False, False])
        assert other.spent("training") == ledger.spent("training") == pytest.approx([4 * c for c in cost(10.0)])


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_processes_that_charge_segments_at_once_never_overspend_a_customer(tmp_path, seed):
    script = Path(__file__).with_name("ledger_children.py")
    command = [sys.executable, str(script), "dividing", str(tmp_path), "5", "40", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["errors"] == []
    assert told["refused"] > 0 < len(told["held"])
    assert sorted(told["held"]) == sorted(told["granted"])
    budgets = {"life": Filter(1.0, DELTA), "test": Filter(0.7, DELTA), "year": Filter(0.8, DELTA)}
    for name, budget in budgets.items():
        for segment in SEGMENTS:
            lost = sum(
                cost(sigma)[budget.index]
                for segments, purpose, sigma in told["held"]
                if (segment in segments or not segments) and (name != "test" or purpose == "test")
            )
            assert lost <= budget.capacity * (1 + 1e-12)
