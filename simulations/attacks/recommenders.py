"""Plans of recommenders and made-up histories, for the audit; `studies.py` makes studies of them."""

import datetime
from collections.abc import Sequence

import numpy as np

from coterie.models.histories import Histories
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
    Secure,
    Training,
)
from coterie.simulations.attacks.canaries import DELTA, PARTNER

__all__ = ["histories_of", "recommender_plan"]


def recommender_plan(
    family: str,
    items: int,
    *,
    epsilon: float,
    declared: int,
    training: Training | None = None,
    recommendation: Recommendation | None = None,
) -> Plan:
    """Return a plan of one partner that makes a recommender of sums of its own.

    Args:
        family: Which.
        items: Items of the catalogue.
        epsilon: What the plan claims, all of it for training customers.
        declared: The partner's declared number of customers.
        training: How it trains; None for one sum over everybody.
        recommendation: How it is made; None for the defaults, with all items kept.
    """
    once = Training(rounds=1, local_steps=1, sample_rate=1.0, learning_rate=1.0, clip=1.0)
    rows = Interactions(item="item", time="day", most=8, least=1, earliest="2000-01-01", latest="2001-01-01")
    return Plan(
        name="audit",
        purpose="audit of this build",
        task="recommendation",
        expires=datetime.date.max,
        contract=Contract(customer="customer", interactions=rows),
        model=Model(family=family),
        training=training or once,
        privacy=Privacy(
            unit="customer of one partner", epsilon=epsilon, delta=DELTA, trust="local", threshold=1, colluders=1
        ),
        metrics=Metrics(rounds=(training.rounds if training else 1,)),
        cohort=Cohort(),
        partners=(Partner(name=PARTNER, customers=declared),),
        catalogue=Catalogued(items=items, digest="sha256:" + "0" * 64),
        recommendation=recommendation or Recommendation(keep=items),
        secure=Secure(momentum=0.0, averaging=0.0),
    )


def histories_of(customers: Sequence[Sequence[int]]) -> Histories:
    """Return the histories of customers with these items, oldest first."""
    starts = np.concatenate([[0], np.cumsum([len(items) for items in customers])]).astype(np.int64)
    items = np.array([item for items in customers for item in items], dtype=np.int64)
    return Histories(starts, items, np.arange(len(items), dtype=np.int64))
