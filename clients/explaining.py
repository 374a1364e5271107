"""What a published model on private bins says, from the model and its plan alone: nothing of it is private."""

import math

from coterie.clients.predicting import layout_for, parameters_of
from coterie.models.propensity import Weights
from coterie.models.shapes import Explanation, explain
from coterie.models.stepnoise import Learning
from coterie.privacy.plan import Plan, Secure
from coterie.privacy.schedule import COUNT, trained
from coterie.privacy.sums import numbers_of

__all__ = ["explained", "learning_of"]


def explained(plan: Plan, weights: Weights) -> Explanation | None:
    """Return what a published model says, or None where weights of slots do not say it: without bins, or of an mlp.

    Args:
        plan: Of the model.
        weights: As they were published.
    """
    if plan.bins is None or plan.model.family == "mlp":
        return None
    return explain(parameters_of(plan, weights), layout_for(plan, weights), learning_of(plan))


def learning_of(plan: Plan) -> Learning:
    """Return how a plan's model on bins is learned, with the noise of sums in which every partner is.

    Args:
        plan: With private bins.

    Raises:
        ValueError: The plan has none.
        PlanFault: It has no sums.
    """
    bins, training, secure = plan.bins, plan.training, plan.secure or Secure()
    if bins is None:
        raise ValueError("the plan has no bins")
    steps = [step for step in trained(plan) if not step.startswith(f"{COUNT}/")]
    numbers, customers = numbers_of(plan, steps[0]), sum(partner.customers for partner in plan.partners)
    active = len(plan.contract.features) + len(bins.pairs)
    noise = math.sqrt(len(plan.partners)) * numbers.share * training.clip / numbers.sensitivity
    noise /= training.sample_rate * customers
    return Learning(
        kind=secure.optimizer,
        steps=len(steps),
        learning_rate=training.learning_rate,
        momentum=secure.momentum,
        averaging=secure.averaging,
        noise=noise,
        customers=customers,
        ridge=bins.ridge / customers,
        damping=bins.damping * noise,
        residual=training.clip / math.sqrt(active + 1),
        positive_weight=training.positive_weight,
    )
