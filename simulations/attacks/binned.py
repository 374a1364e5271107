"""Plans on private bins and made-up rows for them, for the audit; `studies.py` makes studies of them."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from coterie.privacy.contract import Column, Contract
from coterie.privacy.plan import SECURE, Bins, Model, Partner, Plan, Secure, Training
from coterie.simulations.attacks.canaries import Rows, audit_plan

__all__ = ["binned_plan", "numeric", "rows_of", "secured", "worded"]


def numeric(name: str, *, atoms: tuple[float, ...] = ()) -> Column:
    """Return a numeric column within -1 and 1."""
    return Column(name=name, kind="numeric", low=-1.0, high=1.0, atoms=atoms, missing="centre", outside="clip")


def worded(name: str, words: int) -> Column:
    """Return a categorical column of so many words."""
    values = tuple(f"w{number}" for number in range(words))
    return Column(name=name, kind="categorical", values=values, missing="centre")


def binned_plan(
    model: Model,
    columns: Sequence[Column],
    *,
    epsilon: float,
    training: Training,
    declared: int,
    bins: Bins | None = None,
) -> Plan:
    """Return a plan of one partner that learns on private bins by sums of its own.

    Args:
        model: The family; steps are Newton's but for an mlp.
        columns: Of the contract, which allows a customer three rows.
        epsilon: What the plan claims.
        training: How it trains.
        declared: The partner's declared number of customers.
        bins: The bins; None for the defaults.
    """
    plan = audit_plan(1, epsilon=epsilon, training=training, declared=declared, model=model)
    contract = Contract(customer="customer", label="label", columns=tuple(columns), rows_per_customer=3)
    steps = Secure(optimizer="sgd" if model.family == "mlp" else "newton", momentum=0.0, averaging=0.0)
    return dataclasses.replace(plan, contract=contract, bins=bins or Bins(), secure=steps)


def secured(plan: Plan) -> Plan:
    """Return the plan with secure sums among three partners, of which two add the noise that is counted on."""
    others = tuple(Partner(name=name, customers=plan.partners[0].customers) for name in ("second", "third"))
    privacy = dataclasses.replace(plan.privacy, trust=SECURE, threshold=3, colluders=1)
    return dataclasses.replace(plan, privacy=privacy, partners=(*plan.partners, *others))


def rows_of(
    columns: Mapping[str, NDArray[np.float64]], labels: NDArray[np.float32], customer: NDArray[np.int64]
) -> Rows:
    """Return rows of which none is held out.

    Args:
        columns: Numbers, NaN where missing, or indices of words, -1 where there is none; shape (rows,) each.
        labels: 0 or 1, shape (rows,).
        customer: 0, 1, ..., equal for rows of one customer, shape (rows,).
    """
    return Rows(columns, labels, customer, np.zeros(len(labels), dtype=np.bool_))
