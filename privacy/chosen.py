"""`family = "auto"` for propensity: model and settings by what is public before anybody's data is looked at."""

import dataclasses
import math

from coterie.privacy.binterms import Bins
from coterie.privacy.plan import SECURE, Plan
from coterie.privacy.terms import Model, Secure

__all__ = ["chosen_propensity"]

_CLIPPED = 0.7  # of a residual, whose greatest is 1
_STEPS, _FEW_STEPS, _FEW = 30, 15, 15_000.0  # steps, and so many where customers times epsilon are no more than that
_DAMPING, _MORE_DAMPING, _FEWER = 1.0, 2.0, 4_000.0
_BINS, _SIZE = 24, 40_000.0  # of a numeric column at so many customers and epsilon 1
_CELLS, _SIGNAL = 256, 30_000.0  # at so many customers times epsilon


def chosen_propensity(plan: Plan) -> Plan:
    """Return a plan whose family is "auto" with the additive family, and settings that follow from its public facts.

    Kept are rounds and spare attempts, what is measured, the weight of positives, and bins where the plan has them. The
    constants were chosen on splits of public data outside any guarantee; `benchmarks/results/propensity.md` is the
    evidence.

    Args:
        plan: A propensity plan; one with another family is returned as it is.

    Guarantees:
        Declared sizes, epsilon, trust and the contract decide: nobody's count, and nothing computed from one.
    """
    if plan.task != "propensity" or plan.model.family != "auto":
        return plan
    private, signal = plan.privacy, _signal(plan)
    # A row adds its residual to the intercept, to every column and to every pair: its gradient is that much longer.
    length = len(plan.contract.features) + 1 + (len(plan.bins.pairs) if plan.bins else 0)
    steps = _STEPS if signal > _FEW else _FEW_STEPS
    training = dataclasses.replace(
        plan.training,
        local_steps=math.ceil(steps / max(1, plan.training.rounds)),
        sample_rate=1.0,
        learning_rate=5 / length,
        clip=_CLIPPED * math.sqrt(length),
        server="fedavg",
        server_learning_rate=1.0,
    )
    secure = Secure(optimizer="newton", momentum=0.5, averaging=0.9, batch_cap=(plan.secure or Secure()).batch_cap)
    bins = Bins(
        most=_within(_BINS * math.sqrt(signal / private.epsilon / _SIZE) * private.epsilon ** (1 / 3), 8, 64),
        cells=2 ** _within(math.log2(_CELLS * math.sqrt(signal / _SIGNAL)), 6, 10),
        damping=_DAMPING if signal > _FEWER else _MORE_DAMPING,
    )
    model = Model(family="additive")
    return dataclasses.replace(plan, model=model, training=training, secure=secure, bins=plan.bins or bins)


def _signal(plan: Plan) -> float:
    """Return the declared customers times epsilon, less where every partner adds all of the noise."""
    customers = sum(partner.customers for partner in plan.partners)
    alone = 1.0 if plan.privacy.trust == SECURE else math.sqrt(len(plan.partners))
    return customers * plan.privacy.epsilon / alone


def _within(value: float, least: int, most: int) -> int:
    return min(max(round(value), least), most)
