"""The settings of propensity models in `propensity.py`, and how many were tried before they were fixed.

They are what family "auto" would have, on every data set: declared sizes, epsilon, trust and columns decide, and
nothing else. So a partner alone has settings for its own size.
"""

from dataclasses import replace
from typing import NamedTuple

from coterie.privacy.chosen import chosen_propensity
from coterie.privacy.plan import Plan, Secure
from coterie.privacy.terms import Model

__all__ = ["NO_PRIVACY", "OURS", "PEERS", "TRIED", "Cell", "with_settings"]

OURS = ("additive", "logistic", "mlp")
PEERS = ("lightgbm", "ebm", "dp-ebm")

NO_PRIVACY = 0.0
"""Stands for the absence of an epsilon."""

TRIED = {
    "additive": "the rule of family auto; 833 tried, on Adult alone, on splits of seeds 0 to 4",
    "logistic": "the same, untried",
    "mlp": "bins as the same; 17 of optimiser, rate, clip, steps and width tried, on another split of Adult",
    "lightgbm": "defaults with learning_rate 0.05; rounds by five-fold cross-validation within training; none tried",
    "ebm": "defaults with outer_bags 1 and learning_rate 0.1, to end in time; 5 tried on an Adult split of seed 0",
    "dp-ebm": "defaults; vocabularies from the contract as ordered words or not: 2 tried on an Adult split of seed 0",
}
"""What was tried."""

_HIDDEN, _STEPS = 16, 60  # of mlp
_STEPS_WITHOUT_NOISE = 200


class Cell(NamedTuple):
    """One of the table: what is made, of what, and how.

    Args:
        data: Name of the source.
        partners: "dealt" or "natural".
        family: One of `OURS` or `PEERS`.
        mode: Who adds which noise.
        epsilon: Or `NO_PRIVACY`.
        seed: Of the split.
    """

    data: str
    partners: str
    family: str
    mode: str
    epsilon: float
    seed: int


def with_settings(plan: Plan, family: str, epsilon: float) -> Plan:
    """Return a plan with the settings of a family: those of "auto" for its epsilon, trust, partners and columns.

    Args:
        plan: Any plan on the data, with the partners that take part.
        family: One of `OURS`.
        epsilon: Of the table; with `NO_PRIVACY` there are more steps, since none of them costs anything.
    """
    bare = replace(plan, model=Model(family="auto"), bins=None, secure=None)
    ruled = chosen_propensity(replace(bare, training=replace(plan.training, rounds=1, positive_weight=1.0)))
    model, training, secure = Model(family=family, hidden=_HIDDEN), ruled.training, ruled.secure
    if epsilon == NO_PRIVACY:
        training = replace(training, local_steps=_STEPS_WITHOUT_NOISE)
    if family == "mlp":
        steps = max(_STEPS, training.local_steps)
        training = replace(training, learning_rate=0.03, clip=3.0, local_steps=steps)
        secure = Secure(optimizer="adam", momentum=0.9, averaging=0.8)
    return replace(ruled, model=model, training=training, secure=secure)
