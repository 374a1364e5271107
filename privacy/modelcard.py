"""A model's card for machines: what it is for, who made it, how well it does, and what its guarantee is.

Everything in it follows from the signed plan, the coordinator's signed record, and the events that the plan fixes; a
reviewer computes it again and compares.
"""

import dataclasses
from typing import Any

from coterie.privacy.accountant import Guarantee
from coterie.privacy.plan import Plan
from coterie.privacy.record import StudyRecord

__all__ = ["FORMAT", "model_card"]

FORMAT = "coterie/model-card/v1"


def model_card(plan: Plan, record: StudyRecord, bound: Guarantee) -> dict[str, Any]:
    """Return the card of a study's final model as plain JSON values.

    Args:
        plan: The plan.
        record: The coordinator's record of the study.
        bound: What the study guarantees to the worst protected group.
    """
    return {
        "format": FORMAT,
        "plan": plan.digest(),
        "record": record.digest(),
        "model": record.model,
        "name": plan.name,
        "purpose": plan.purpose,
        "task": plan.task,
        "family": plan.model.family,
        "inputs": [column.name for column in plan.contract.columns],
        "special": [column.name for column in plan.contract.columns if column.sensitivity == "special"],
        "label": plan.contract.label,
        "partners": [partner.name for partner in plan.partners],
        "rounds": plan.training.rounds,
        "expires": plan.expires.isoformat(),
        "metrics": dict(record.metrics),
        "guarantee": dataclasses.asdict(bound),
        "tuning": {"configurations": plan.tuning.configurations, "data": plan.tuning.data},
    }
