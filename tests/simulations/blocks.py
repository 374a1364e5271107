"""A study that recommends in seconds: customers who stay within one of six kinds of items, at four shops."""

import dataclasses
import datetime

import numpy as np
import pyarrow as pa

from coterie.models.catalogue import Catalogue, encoded
from coterie.privacy.contract import Contract, Interactions
from coterie.privacy.plan import (
    Catalogued,
    Cohort,
    Metrics,
    Model,
    Partner,
    Plan,
    Privacy,
    Recommendation,
    Training,
)

__all__ = ["CATALOGUE", "ITEMS", "NAMES", "PLAN", "STUDY", "tables"]

KINDS, ITEMS = 6, 60
NAMES = ("north", "south", "east", "west")
CODES = tuple(f"i{number:03d}" for number in range(ITEMS))
CATALOGUE = Catalogue(CODES, {"kind": tuple(f"kind {number % KINDS}" for number in range(ITEMS))})
_FIRST = datetime.date(2024, 1, 1)

PLAN = Plan(
    name="blocks",
    purpose="recommendation",
    task="recommendation",
    expires=datetime.date(2030, 12, 31),
    contract=Contract(
        customer="customer",
        interactions=Interactions(item="item", time="day", most=16, earliest="2024-01-01", latest="2024-12-31"),
    ),
    model=Model(family="item-gram"),
    training=Training(rounds=1, local_steps=1, sample_rate=1.0, learning_rate=1.0, clip=1.0),
    privacy=Privacy(
        unit="customer of one partner", epsilon=8.0, delta=1e-5, trust="secure-aggregation", threshold=3, colluders=1
    ),
    metrics=Metrics(rounds=(1,), bins=8),
    cohort=Cohort(minimum_customers=50),
    partners=tuple(Partner(name=name, customers=100) for name in NAMES),
    catalogue=Catalogued(items=ITEMS, digest=CATALOGUE.digest(), attributes=encoded(CATALOGUE).shape[1]),
    recommendation=Recommendation(keep=60, rank=16, ridge=0.02),
)

STUDY = f"""
name = "blocks"
purpose = "recommendation"
task = "recommendation"
expires = 2030-12-31

[contract]
customer = "customer"

[contract.interactions]
item = "item"
time = "day"
most = 16
earliest = "2024-01-01"
latest = "2024-12-31"

[catalogue]
items = {ITEMS}
digest = "{CATALOGUE.digest()}"
attributes = {PLAN.catalogue.attributes}

[model]
family = "auto"

[recommendation]
keep = 60
rank = 16
ridge = 0.02

[training]
rounds = 1
local_steps = 1
sample_rate = 1.0
learning_rate = 1.0
clip = 1.0

[privacy]
unit = "customer of one partner"
epsilon = 8.0
delta = 1e-5
trust = "secure-aggregation"
threshold = 3
colluders = 1

[metrics]
rounds = [1]
bins = 8

[cohort]
minimum_customers = 50

{
    "".join(
        f'''
[[partners]]
name = "{name}"
customers = 100
'''
        for name in NAMES
    )
}
[source]
dataset = "synthetic"
"""


def local(plan=PLAN):
    """Return the plan with every partner's noise its own."""
    return dataclasses.replace(plan, privacy=dataclasses.replace(plan.privacy, trust="local"))


def tables(customers=120, seed=0):
    """Return one table for each shop: six items of one kind for every customer, and the first one bought again."""
    draw, made = np.random.default_rng(seed), {}
    for name in NAMES:
        rows = []
        for customer in range(customers):
            own = draw.permutation(np.arange(draw.integers(KINDS), ITEMS, KINDS))[:6]
            for day, item in enumerate([*own, own[0]]):
                rows.append((f"{name}-{customer}", CODES[item], _FIRST + datetime.timedelta(days=day)))
        who, items, days = zip(*rows, strict=True)
        made[name] = pa.table({"customer": who, "item": items, "day": pa.array(days, pa.date32())})
    return made
