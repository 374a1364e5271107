"""Membership inference by loss: does the final model know its own customers better than strangers?

The attacker has the final model and one customer's row, and takes a low loss for a sign of membership (Yeom et al.
2018, arXiv 1709.01604). Labels are coins, so that a model can only learn them by heart: the setting is the
attacker's best, and a training without noise shows that the attack would work.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.clients.task import encoding_of, weight_shapes
from coterie.models import propensity
from coterie.models.features import encode
from coterie.privacy.auditing.bounds import Attack, attack, most_true_positives
from coterie.privacy.plan import Plan, Training
from coterie.privacy.randomness import RandomSource
from coterie.simulations.attacks.canaries import DELTA, Rows, audit_plan, play

__all__ = ["FALSE_POSITIVES", "Membership", "infer_membership"]

Floats = NDArray[np.float64]

FALSE_POSITIVES = 0.01
_MEMBERS, _COLUMNS = 500, 500
_QUIET = 1e-9


@dataclass(frozen=True, kw_only=True)
class Membership:
    """What the attack achieved.

    Args:
        claim: Epsilon of the training.
        private: Against the private model.
        without_noise: Against the same training without noise; it has no epsilon.
        allowed: Greatest true positive rate that the claim allows at `FALSE_POSITIVES`.
        model: What was trained.
    """

    claim: float
    private: Attack
    without_noise: Attack
    allowed: float
    model: str = "logistic"


def infer_membership(claim: float, *, random: RandomSource) -> Membership:
    """Train with and without noise, and attack both models.

    Args:
        claim: Epsilon of the private training.
        random: Where noise, samples and rows come from.
    """
    steps = Training(rounds=5, local_steps=20, sample_rate=0.25, learning_rate=4.0, clip=1.0)
    plan = audit_plan(_COLUMNS, epsilon=claim, training=steps, declared=_MEMBERS)
    rows = _people(random)
    return Membership(
        claim=claim,
        private=_attack(plan, rows, random, None),
        without_noise=_attack(plan, rows, random, _QUIET),
        allowed=most_true_positives(FALSE_POSITIVES, claim=claim, delta=DELTA),
    )


def _attack(plan: Plan, rows: Rows, random: RandomSource, noise: float | None) -> Attack:
    label = f"membership/{plan.privacy.epsilon}/{noise}"
    released, _ = play(plan, rows, random=random, label=label, noise=noise)
    scores = -_losses(plan, rows, _weights(plan, released.sum(axis=0)))
    return attack(scores[~rows.held_out], scores[rows.held_out], false_positives=FALSE_POSITIVES)


def _losses(plan: Plan, rows: Rows, weights: propensity.Weights) -> Floats:
    """Return each row's log-loss, shape (rows,)."""
    features = encode(encoding_of(plan.contract), rows.columns)
    logits = propensity.logits(plan.model.family, plan.model.hidden, weights, features)
    return np.logaddexp(0.0, np.where(rows.labels > 0, -logits, logits))


def _weights(plan: Plan, flat: Floats) -> propensity.Weights:
    """Cut one vector into the model's arrays; training began at zero, so it is the sum of what was released."""
    shapes = weight_shapes(plan)
    cuts = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    return tuple(
        part.reshape(shape).astype(np.float32) for part, shape in zip(np.split(flat, cuts), shapes, strict=True)
    )


def _people(random: RandomSource) -> Rows:
    """Make members and as many strangers of the same kind, who are held out of the training."""
    stream, count = random.stream("membership/people"), 2 * _MEMBERS
    columns = {f"c{index}": 2 * stream.uniforms(count) - 1 for index in range(_COLUMNS)}
    labels = (stream.uniforms(count) < 0.5).astype(np.float32)
    numbers = np.arange(count)
    return Rows(columns, labels, numbers, numbers >= _MEMBERS)
