"""Who shares whom, read from everybody's identifiers at once: the truth that a match is held against.

A deployment has no such view: it exists in simulation alone.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.matching.identifiers import canonical
from coterie.privacy.plan import Plan

__all__ = ["cells", "exact_overlap", "of_partners", "sharing"]

Tables = Mapping[str, pa.Table]


def of_partners(plan: Plan, identifiers: Tables) -> dict[str, dict[str, str]]:
    """Return every partner's customers with their canonical identifiers, as the plan matches them.

    Args:
        plan: With [matching].
        identifiers: The partners' tables of identifiers by name.

    Raises:
        FileFault: The plan matches nothing, or by a kind of identifier that the source has not.
    """
    kind = plan.matching.identifier if plan.matching is not None else ""
    found = {}
    for partner in plan.partners:
        table = identifiers[partner.name]
        if kind not in table.schema.names:
            known = ", ".join(sorted(set(table.schema.names) - {plan.contract.customer}))
            raise FileFault(Fault("matching.identifier", "must be one that the source has", f"name one of {known}"))
        rows = zip(table[plan.contract.customer].to_pylist(), table[kind].to_pylist(), strict=True)
        values = ((customer, canonical(kind, text).value) for customer, text in rows)
        found[partner.name] = {customer: value for customer, value in values if value is not None}
    return found


def cells(plan: Plan, identifiers: Tables) -> dict[frozenset[str], int]:
    """Count the identifiers that exactly these partners have, for every set of partners that has any; as `of_partners`.

    Leaks:
        Exact counts: in a simulation alone.
    """
    owners: dict[str, set[str]] = {}
    for name, held in of_partners(plan, identifiers).items():
        for value in held.values():
            owners.setdefault(value, set()).add(name)
    return dict(Counter(frozenset(names) for names in owners.values()))


def exact_overlap(plan: Plan, identifiers: Tables) -> dict[str, list[dict[str, Any]]]:
    """Return the exact counts that a match gives out noisily, in the form and order of `Overlap.to_dict`.

    Leaks:
        Exact counts: in a simulation alone.
    """
    names, found = [partner.name for partner in plan.partners], cells(plan, identifiers)
    sets = [part for size in range(1, len(names) + 1) for part in itertools.combinations(names, size)]

    def counted(partners: Iterable[str], chosen: Iterable[frozenset[str]]) -> dict[str, Any]:
        return {"partners": list(partners), "customers": sum(found[cell] for cell in chosen)}

    return {
        "cells": [counted(part, [cell for cell in found if cell == set(part)]) for part in sets],
        "totals": [counted((name,), [cell for cell in found if name in cell]) for name in names],
        "pairs": [
            counted(pair, [cell for cell in found if set(pair) <= cell]) for pair in itertools.combinations(names, 2)
        ],
        "multiplicity": [
            counted((str(k),), [cell for cell in found if len(cell) == k]) for k in range(1, len(names) + 1)
        ],
    }


def sharing(plan: Plan, identifiers: Tables) -> dict[str, pa.Array]:
    """Return the customers of every partner that take part in a plan of shared customers.

    They are at no fewer partners than the plan's cohort asks for, and at no more than a person may be. Raises as
    `of_partners`.
    """
    held = of_partners(plan, identifiers)
    at = Counter(value for values in held.values() for value in set(values.values()))
    return {
        name: pa.array(
            [customer for customer, value in values.items() if plan.cohort.partners <= at[value] <= plan.parts],
            pa.string(),
        )
        for name, values in held.items()
    }
