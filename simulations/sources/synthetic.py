"""Five made-up companies with customers in common: a source that needs no data package.

A town of 12,000 people shops at five companies of very different size. Each company attracts its own kind of
people (by age) and makes its own kind of offers, and sends every customer one to three of them; the label is
whether the customer responds. The log-odds of a response are the same function of the columns everywhere
(`log_odds`) plus a base of the company, so the companies have one thing to learn, differ in how much of it
they can see, and the small ones gain most from learning together.

Rows come from a generator with a fixed seed: the same tables every time. The seed shapes the data alone and
has no part in the noise that protects privacy.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from coterie.simulations.sources.packages import PackageFile
from coterie.simulations.sources.tables import Ints

__all__ = ["FILES", "PARTNERS", "Company", "identifiers", "load", "log_odds"]

FILES: Final[tuple[PackageFile, ...]] = ()

Columns = dict[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Company:
    """A made-up partner.

    Args:
        name: Its name.
        customers: How many customers it has.
        age: The age that it attracts most.
        orders: Orders of a typical customer in a year.
        basket: Typical value of an order.
        offers: How often it makes each of the offers.
        base: Its part of the log-odds.
    """

    name: str
    customers: int
    age: float
    orders: float
    basket: float
    offers: tuple[float, float, float, float]
    base: float


PARTNERS: Final = (
    Company(name="grocer", customers=3200, age=50, orders=14, basket=35, offers=(0.5, 0.1, 0.4, 0.0), base=-2.2),
    Company(name="fashion", customers=2200, age=31, orders=5, basket=60, offers=(0.3, 0.4, 0.0, 0.3), base=-2.0),
    Company(
        name="electronics",
        customers=1300,
        age=40,
        orders=2,
        basket=180,
        offers=(0.2, 0.3, 0.5, 0.0),
        base=-1.8,
    ),
    Company(name="books", customers=800, age=58, orders=6, basket=20, offers=(0.1, 0.6, 0.2, 0.1), base=-1.5),
    Company(name="travel", customers=500, age=45, orders=1, basket=600, offers=(0.2, 0.0, 0.3, 0.5), base=-2.0),
)

_SEED: Final = 20_250_101
_TOWN: Final = 12_000
_AREAS: Final = np.array(["city", "suburb", "town", "rural"])
_DEVICES: Final = np.array(["app", "web", "store", "phone"])
_OFFERS: Final = np.array(["discount", "free-delivery", "bundle", "early-access"])
_EFFECTS: Final = {
    "area": {"city": 0.3, "suburb": 0.1, "town": -0.1, "rural": -0.4},
    "device": {"app": 0.6, "web": 0.2, "store": -0.3, "phone": -0.6},
    "offer": {"discount": 0.5, "free-delivery": 0.2, "bundle": -0.4, "early-access": -0.1},
}

# Area and first digits of a thousand numbers each that Ofcom keeps for drama: valid, and nobody's.
_DRAMA: Final = (
    *((area, "4960") for area in ("113", "114", "116", "117", "118", "121", "131", "141", "151", "161")),
    ("191", "4980"),
    ("20", "79460"),
)


def load() -> dict[str, pa.Table]:
    """Generate the tables.

    Returns:
        Partner name -> table, one row for each offer sent to a customer.
    """
    rng = np.random.default_rng(_SEED)
    people = {"age": rng.gamma(9, 5, _TOWN).clip(18, 95).round(), "area": rng.choice(_AREAS, _TOWN)}
    return {company.name: _table(company, people, rng) for company in PARTNERS}


def identifiers() -> dict[str, pa.Table]:
    """Return what every company knows its customers by: a person has one address, one number and one card everywhere.

    Each company writes addresses and numbers in a style of its own. Addresses are of a domain that nobody can have (RFC
    2606).

    Returns:
        Partner name -> table with the columns customer, email, phone and loyalty, one row for each customer.
    """
    found = {}
    for style, (name, table) in enumerate(load().items()):
        customers = sorted(set(table["customer"].to_pylist()))
        people = [int(customer.removeprefix("S")) for customer in customers]
        columns = {
            "email": [_email(person)[style] for person in people],
            "phone": [_phone(person)[style] for person in people],
            "loyalty": [f"TOWN-{person:05d}" for person in people],
        }
        found[name] = pa.table({"customer": customers, **columns})
    return found


def log_odds(columns: Columns, base: float) -> Floats:
    """Return the log-odds of a response, the truth that a model can come to know.

    Args:
        columns: The features, one value a row.
        base: The company's own part.
    """
    score = base - 0.9 * np.log1p(columns["recency_days"] / 14) + 0.7 * np.log1p(columns["orders_12m"])
    score += 0.15 * columns["emails_opened_30d"] + 1.5 * columns["discount_share"]
    score += np.where(np.abs(columns["age"] - 40) < 10, 0.5, -0.2) + 0.3 * (columns["tenure_months"] < 6)
    for name, effects in _EFFECTS.items():
        score += np.array([effects[value] for value in columns[name]])
    return np.asarray(score, dtype=np.float64)


def _table(company: Company, people: Columns, rng: np.random.Generator) -> pa.Table:
    pull = np.exp(-(((people["age"] - company.age) / 12) ** 2) / 2) + 0.02
    person = rng.choice(_TOWN, company.customers, replace=False, p=pull / pull.sum())
    # The customer's own facts are drawn once, the offers' facts for every row.
    row = np.repeat(np.arange(company.customers), rng.choice([1, 2, 3], company.customers, p=[0.5, 0.3, 0.2]))
    columns = {name: values[row] for name, values in _customers(company, person, people, rng).items()}
    columns["offer"] = rng.choice(_OFFERS, len(row), p=company.offers)
    columns["emails_opened_30d"] = rng.poisson(columns.pop("interest"))
    chance = 1 / (1 + np.exp(-log_odds(columns, company.base)))
    label = (rng.random(len(row)) < chance).astype(np.int64)
    names = {"customer": pa.array([f"S{number:05d}" for number in person[row]])}
    return pa.table(names | {name: pa.array(v) for name, v in columns.items()} | {"label": pa.array(label)})


def _customers(company: Company, person: Ints, people: Columns, rng: np.random.Generator) -> Columns:
    size = len(person)
    orders = rng.poisson(company.orders * rng.gamma(1.5, 1 / 1.5, size))
    spend = orders * company.basket * rng.lognormal(0, 0.4, size)
    return {
        "age": people["age"][person].astype(np.int64),
        "area": people["area"][person],
        "device": rng.choice(_DEVICES, size, p=[0.4, 0.3, 0.2, 0.1]),
        "tenure_months": rng.exponential(30, size).clip(0, 240).astype(np.int64),
        "recency_days": rng.exponential(300 / (orders + 1)).clip(0, 365).astype(np.int64),
        "orders_12m": orders,
        "spend_12m": spend.round(2),
        "discount_share": np.where(rng.random(size) < 0.4, 0.0, rng.beta(1.5, 4, size)).round(3),
        "interest": rng.gamma(1.0, 2.0, size),
    }


def _email(person: int) -> tuple[str, ...]:
    """Return a person's address in the style of each company."""
    address = f"person.{person:05d}@example.com"
    return (address, address.upper(), f" {address}", address.replace("person", "Person"), f"{address}  ")


def _phone(person: int) -> tuple[str, ...]:
    """Return a person's number in the style of each company."""
    area, first = _DRAMA[person // 1000]
    number = f"{first}{person % 1000:03d}"
    start, end = number[:-4], number[-4:]
    return (
        f"+44 {area} {number}",
        f"+44{area}{number}",
        f"+44 (0){area} {start} {end}",
        f"+44-{area}-{start}-{end}",
        f"+44.{area}.{start}.{end}",
    )
