"""What happened to a partner's budgets, rules, plans and models, one by one: plain data, for the verdict."""

from dataclasses import dataclass
from typing import Any

__all__ = ["Model", "Point", "Refusal", "Rules"]


@dataclass(frozen=True)
class Point:
    """A budget's standing after one charge.

    Args:
        entry: The charge's entry.
        at: When.
        span: As in `Budget`.
        group: As in `Budget`.
        share: As in `Budget`, under the policy in force then.
        plan: Digest of the plan that was charged.
    """

    entry: int
    at: str
    span: str
    group: str
    share: float
    plan: str


@dataclass(frozen=True)
class Refusal:
    """A plan, or a step of one, that the partner refused.

    Args:
        entry: Its entry.
        at: When.
        plan: Digest of the plan, or "" where it could not be read.
        codes: Why, as keys of `release.CODES`.
    """

    entry: int
    at: str
    plan: str
    codes: tuple[str, ...]


@dataclass(frozen=True)
class Rules:
    """A policy that came into force.

    Args:
        entry: Its entry.
        at: When.
        policy: Its digest.
        content: The policy in full, as plain JSON values.
    """

    entry: int
    at: str
    policy: str
    content: dict[str, Any]


@dataclass(frozen=True)
class Model:
    """A model that the partner received.

    Args:
        entry: Its entry.
        at: When.
        plan: Digest of the plan.
        model: Digest of the weights.
        metrics: Charged figures in the coordinator's record.
    """

    entry: int
    at: str
    plan: str
    model: str
    metrics: tuple[tuple[str, float], ...]
