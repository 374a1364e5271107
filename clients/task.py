"""What coordinator and partner both must know of a plan: tasks, shapes, and what a consent signs.

This module is the part of the partners' language that knows nothing of Flower; `wire.py` puts it on the wire.
"""

from dataclasses import dataclass

from coterie.models import propensity
from coterie.models.features import Binned, Block, Categorical, Encoding, Numeric
from coterie.privacy.canonical import canonical
from coterie.privacy.contract import Column, Contract
from coterie.privacy.plan import Plan

__all__ = ["Task", "consent_message", "encoding_of", "weight_shapes"]


@dataclass(frozen=True)
class Task:
    """What the coordinator asks for in a round.

    Args:
        plan: Digest of the plan.
        round: 1 to the plan's rounds.
        attempt: 1, or more after a lost attempt.
        weights: The model's weights at the start of the round.
    """

    plan: str
    round: int
    attempt: int
    weights: propensity.Weights


def consent_message(plan: str, partner: str) -> bytes:
    """Return what a partner signs when it consents to the plan with this digest."""
    return b"coterie/consent/v1\n" + canonical({"plan": plan, "partner": partner})


def encoding_of(contract: Contract) -> Encoding:
    """Return the encoding that a contract's public bounds, edges and vocabularies define."""
    return Encoding(tuple(_block(column) for column in contract.columns))


def weight_shapes(plan: Plan) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of the plan's model."""
    return propensity.shapes(plan.model.family, encoding_of(plan.contract).width, plan.model.hidden)


def _block(column: Column) -> Block:
    if column.kind == "categorical":
        return Categorical(column.name, column.values)
    if column.edges:
        return Binned(column.name, column.edges)
    return Numeric(column.name, float(column.low or 0.0), float(column.high or 0.0))
