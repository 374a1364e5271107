"""Processes that charge one ledger together until they are killed; run as a script by the tests beside it.

    kill_children.py FOLDER NAME PIPE

Each writes to PIPE what it was told, a line at a time and only after the ledger had returned: "r SEQ STEP" for a
reservation, "s SEQ" for a settlement, "x" for a refusal.
"""

import datetime
import os
import sys
from pathlib import Path

from coterie.privacy.charges import Charge, Limit
from coterie.privacy.errors import BudgetExhausted
from coterie.privacy.events import DiscreteGaussian
from coterie.privacy.ledger import Ledger
from coterie.privacy.renyi import ORDERS, Filter

SEGMENTS = ("", "east", "west")
FIRST_YEAR = 2030


def event_for(budget, room):
    """A charge of which `room` fit into a budget, with half a one to spare."""
    return DiscreteGaussian((ORDERS[budget.index] * (room + 0.5) / (2 * budget.capacity)) ** 0.5, 1)


ROOM = 40  # charges for any one customer in a year
YEAR = Filter(1.0, 1e-5)
EVENT = event_for(YEAR, ROOM)
LIFE = Filter(900.0, 1e-5)


def limits(year):
    """The budgets: ample for life, tight in a year."""
    return [Limit(LIFE), Limit(LIFE, purpose="test"), Limit(YEAR, year=year)]


def clock_of(folder):
    """A clock that the test sets: the year is in a file."""

    def clock():
        return datetime.datetime(int((folder / "year").read_text()), 7, 1, tzinfo=datetime.UTC)

    return clock


def charge_for(ledger, name, number, say):
    """Charge once, and settle two out of three."""
    segment = SEGMENTS[number % 3]
    charge = Charge(
        f"sha256:{name}", "test", f"{number}", 1, "training", EVENT, "os", segments=(segment,) if segment else ()
    )
    try:
        held = ledger.reserve(charge, limits(ledger.year), declared=10**6)
    except BudgetExhausted:
        say("x")
        return
    say(f"r {held.seq} {number}")
    if number % 3 != 1:
        ledger.settle(held, f"sha256:{name}{number}")
        say(f"s {held.seq}")


def work(folder, name, pipe):
    """Charge without end."""

    def say(text):
        os.write(pipe, f"{text}\n".encode())

    with Ledger(folder / "ledger.sqlite", clock_of(folder)) as ledger:
        number = sum(held.charge.plan == f"sha256:{name}" for held in ledger.reservations())
        while True:
            number += 1
            charge_for(ledger, name, number, say)


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
