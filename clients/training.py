"""One local training: the training customers, encoded, and the private trainer."""

import functools

import numpy as np

from coterie.clients.opening import Opened
from coterie.clients.taint import taint
from coterie.clients.task import encoding_of
from coterie.models import propensity
from coterie.models.features import encode
from coterie.privacy.errors import ContractFault, Fault
from coterie.privacy.events import PoissonGaussian
from coterie.privacy.plan import Plan
from coterie.privacy.randomness import Stream
from coterie.privacy.training import Customers, Trainer, TrainerSettings

__all__ = ["check_cohort", "train", "trainer_for", "trainer_settings", "training_customers"]


def check_cohort(opened: Opened, least: int) -> None:
    """Raise ContractFault where the training customers are fewer than the policy's minimum."""
    count = len(np.unique(opened.customer[~opened.held_out]))
    if count < least:
        rule = f"has fewer training customers than the policy's {least}"
        raise ContractFault(Fault("the table", rule, "take part when there are more"))


def training_customers(opened: Opened, plan: Plan) -> Customers:
    """Encode the training customers."""
    mine = ~opened.held_out
    columns = {name: values[mine] for name, values in opened.columns.items()}
    features = taint(encode(encoding_of(plan.contract), columns))
    longest = plan.contract.rows_per_customer
    return Customers(features, taint(opened.labels[mine]), opened.customer[mine], longest=longest)


def trainer_settings(plan: Plan, partner: str, noise_multiplier: float) -> TrainerSettings:
    """Return the public settings of a partner's steps.

    The normaliser is the rate times the size that the partner declared, never the real one.
    """
    training = plan.training
    entry = plan.partner(partner)
    declared = entry.customers if entry is not None else 1
    return TrainerSettings(
        clip=training.clip,
        noise_multiplier=noise_multiplier,
        sample_rate=training.sample_rate,
        normaliser=training.sample_rate * declared,
        learning_rate=training.learning_rate,
        positive_weight=training.positive_weight,
    )


@functools.lru_cache(maxsize=4)
def trainer_for(family: str, inputs: int, hidden: int) -> Trainer:
    """Return this process's one trainer for a kind of model; weights are overwritten by each training."""
    return Trainer(propensity.build(family, inputs, hidden))


def train(
    plan: Plan,
    partner: str,
    weights: propensity.Weights,
    customers: Customers,
    *,
    noise: float,
    stream: Stream,
) -> tuple[propensity.Weights, PoissonGaussian]:
    """Train for one round.

    Args:
        plan: The plan.
        partner: The partner's name in it.
        weights: The model's weights at the start of the round.
        customers: The training customers.
        noise: Noise multiplier from the study's calibration.
        stream: Secret randomness for this round alone.

    Returns:
        New weights minus old, and the event that pays for them.
    """
    width = encoding_of(plan.contract).width
    trainer = trainer_for(plan.model.family, width, plan.model.hidden)
    settings = trainer_settings(plan, partner, noise)
    return trainer.train(weights, customers, settings=settings, steps=plan.training.local_steps, stream=stream)
