"""Our families in the table: the product's own sums and steps, added up here without the masks, which cancel exactly.

pooled      one curator with everybody's data, who adds all the noise once
secure      secure aggregation at the default threshold and one colluder: the noise has a margin for who drops out
zero        secure aggregation at zero margin: all partners' shares together are the noise of the curator
local       every partner adds all the noise itself
alone       a partner by itself on its own customers, with the same epsilon
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from propensity_data import DELTA, Rows, study_of
from propensity_settings import NO_PRIVACY, Cell, with_settings

from coterie.clients.binnedsums import BinnedCustomers
from coterie.clients.predicting import inputs_of, logits_of
from coterie.privacy.plan import SECURE, Metrics, Partner, Plan
from coterie.privacy.randomness import OsSource
from coterie.privacy.terms import CUSTOMER
from coterie.simulations.binnedpath import (
    NO_NOISE,
    Shares,
    binned_model,
    central_shares,
    own_shares,
    planned_shares,
)

__all__ = ["MODES", "models", "plan_of"]

MODES = ("pooled", "zero", "secure", "local", "alone")
_LARGEST = 8.0

Floats = NDArray[np.float64]


def models(cell: Cell, train: Rows, test: Rows) -> Iterator[Floats]:
    """Yield the log-odds of the held-out rows by each model: one, or one for each partner that is alone.

    Args:
        cell: Of one of our families.
        train: Training rows with their partners.
        test: Held-out rows.
    """
    parts = [train] if cell.mode == "pooled" else train.parts()
    for group in [[part] for part in parts] if cell.mode == "alone" else [parts]:
        plan = plan_of(cell, [part.customers for part in group])
        held = {
            partner.name: BinnedCustomers(inputs_of(plan, part.columns), part.labels, part.customer)
            for partner, part in zip(plan.partners, group, strict=True)
        }
        shares = NO_NOISE if cell.epsilon == NO_PRIVACY else _shares(cell.mode, plan)
        weights = binned_model(plan, held, shares=shares, stream=OsSource().stream("benchmark"))
        yield logits_of(plan, weights, inputs_of(plan, test.columns))


def plan_of(cell: Cell, sizes: list[int]) -> Plan:
    """Return the plan of partners of these sizes, under secure aggregation where the cell has it.

    Args:
        cell: Of one of our families; without privacy the plan is that of the largest epsilon, and no noise is added.
        sizes: Customers of each partner, which are declared as orders of magnitude, as partners would.
    """
    study, private = study_of(cell.data), cell.epsilon or _LARGEST
    secure, least = cell.mode in {"zero", "secure"}, max(3, 2 * len(sizes) // 3 + 1)
    privacy = replace(
        study.privacy,
        unit=CUSTOMER,
        epsilon=private,
        delta=DELTA,
        trust=SECURE if secure else "local",
        threshold=least if secure else 1,
        colluders=1,
    )
    roster = tuple(Partner(name=f"p{number}", customers=_declared(size)) for number, size in enumerate(sizes, 1))
    study = replace(study, privacy=privacy, partners=roster, cohort=replace(study.cohort, minimum_customers=10))
    plan = with_settings(study, cell.family, cell.epsilon)
    plan = replace(plan, metrics=Metrics(rounds=(plan.training.rounds,), groups=study.metrics.groups))
    if len(sizes) > 1:  # nobody may sign a plan of one, who has nobody to help the coordinator
        plan.check(f"{cell.data} with {cell.family}")
    return plan


def _declared(size: int) -> int:
    """Return the order of magnitude of a size: one digit, as in the studies."""
    unit = 10 ** (len(str(size)) - 1)
    return max(unit, round(size / unit) * unit)


def _shares(mode: str, plan: Plan) -> Shares:
    """Return what each partner adds."""
    if mode == "zero":
        return central_shares(plan, len(plan.partners))
    return planned_shares(plan) if mode == "secure" else own_shares(plan)
