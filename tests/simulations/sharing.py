"""Plans of four shops that share people, and what each of them knows these people by."""

import dataclasses

import pyarrow as pa

from coterie.privacy.plan import NO_METRICS, NO_TRAINING, NOTHING, Matching
from coterie.privacy.terms import PERSON
from coterie.simulations.matchtrial import run_match_trial
from coterie.tests.simulations import blocks

__all__ = ["COUNTED", "FIRST", "JOINT", "LISTED", "STUDY", "identifiers", "people", "tried"]

CUSTOMERS = 120
FIRST = {"north": 0, "south": 30, "east": 60, "west": 90}
"""A shop's customer i is person FIRST + i, so that people are at one to four shops."""

_SMALL = dataclasses.replace(blocks.PLAN.cohort, minimum_customers=20)


def _matching(outcome):
    return Matching(identifier="email", outcome=outcome, least=12, size_class=16, most=1000)


COUNTED = dataclasses.replace(
    blocks.PLAN,
    name="counted",
    task="matching",
    contract=dataclasses.replace(blocks.PLAN.contract, interactions=None),
    model=NOTHING,
    training=NO_TRAINING,
    metrics=NO_METRICS,
    catalogue=None,
    recommendation=None,
    cohort=_SMALL,
    matching=_matching("counts"),
    privacy=dataclasses.replace(blocks.PLAN.privacy, trust="local", threshold=4),
)
LISTED = dataclasses.replace(COUNTED, name="listed", matching=_matching("rows"))
JOINT = dataclasses.replace(
    blocks.PLAN,
    name="joint",
    matching=_matching("rows"),
    cohort=dataclasses.replace(_SMALL, partners=2),
    privacy=dataclasses.replace(blocks.PLAN.privacy, unit=PERSON, partners_per_person=3),
)

STUDY = f"""
name = "counted"
purpose = "overlap planning"
task = "matching"
expires = 2030-12-31

[contract]
customer = "customer"

[matching]
identifier = "email"
outcome = "counts"
least = 12
most = 1000

[privacy]
unit = "customer of one partner"
epsilon = 8.0
delta = 1e-5
trust = "local"
threshold = 4
colluders = 1

[cohort]
minimum_customers = 20
{
    "".join(
        f'''
[[partners]]
name = "{name}"
customers = 100
'''
        for name in FIRST
    )
}
[source]
dataset = "synthetic"
"""


def people(name):
    """Return the person that each customer of a shop is."""
    return {f"{name}-{number}": FIRST[name] + number for number in range(CUSTOMERS)}


def identifiers():
    """Return every shop's customers with their addresses, each shop in its own spelling."""
    spelt = {"north": str, "south": str.upper, "east": "  {}".format, "west": "{} ".format}
    return {
        name: pa.table(
            {
                "customer": list(people(name)),
                "email": [spelt[name](f"person{person}@example.org") for person in people(name).values()],
            }
        )
        for name in FIRST
    }


def tried(folder, plan, random, *, engine="local", stop=lambda: False):
    """Match the shops' customers."""
    return run_match_trial(
        folder, plan, identifiers(), seed=0, engine=engine, random=random, show=lambda _: None, stop=stop
    )
