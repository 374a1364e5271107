"""Which releases a study consists of, by name: the same list for who asks, who answers and who checks afterwards.

trust "local"                 train/ROUND: one update of local steps;   evaluate/ROUND: one histogram
trust "secure-aggregation"    train/STEP: one secure sum for each step of every round, counted through;
                              evaluate/ROUND: one secure sum of histograms
"""

from coterie.privacy.plan import SECURE, Plan

__all__ = ["EVALUATE", "TRAIN", "releases_of", "round_of", "trainings"]

TRAIN, EVALUATE = "train", "evaluate"


def trainings(plan: Plan) -> int:
    """Return how many releases of the training group the study has, without spare attempts."""
    per_round = plan.training.local_steps if plan.privacy.trust == SECURE else 1
    return plan.training.rounds * per_round


def releases_of(plan: Plan, round_: int) -> tuple[str, ...]:
    """Return the names of a round's releases, in their order."""
    per_round = trainings(plan) // plan.training.rounds
    first = (round_ - 1) * per_round + 1
    measured = (f"{EVALUATE}/{round_}",) if round_ in plan.metrics.rounds else ()
    return (*(f"{TRAIN}/{number}" for number in range(first, first + per_round)), *measured)


def round_of(plan: Plan, step: str) -> int | None:
    """Return the round to which a release belongs, or None for a name that the plan does not have."""
    kind, _, text = step.partition("/")
    if not text.isascii() or not text.isdigit() or text != str(int(text)):
        return None
    number = int(text)
    if kind == EVALUATE:
        return number if number in plan.metrics.rounds else None
    if kind != TRAIN or not 1 <= number <= trainings(plan):
        return None
    return (number - 1) // (trainings(plan) // plan.training.rounds) + 1
