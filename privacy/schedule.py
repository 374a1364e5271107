"""Which releases a study consists of, by name: the same list for who asks, who answers and who checks afterwards.

trust "local"                 train/ROUND: one update of local steps;   evaluate/ROUND: one histogram
trust "secure-aggregation"    train/STEP: one secure sum for each step of every round, counted through;
                              evaluate/ROUND: one secure sum of histograms
matching                      match/GROUP for each group of customers, paid by one list; nothing else of the above
private bins                  count/1, before all else: one sum of counts of fine cells; the others are sums, as below
recommendation                count/1, before all else: one sum of items' popularity (not for the family of that name);
                              train/STEP and evaluate/ROUND as above, secure sums or each partner's own by the trust
"""

from coterie.privacy.plan import SECURE, Plan

__all__ = [
    "COUNT",
    "COUNTED",
    "EVALUATE",
    "MATCH",
    "TRAIN",
    "countings",
    "releases_of",
    "round_of",
    "summed",
    "trained",
    "trainings",
]

COUNT, TRAIN, EVALUATE, MATCH = "count", "train", "evaluate", "match"

COUNTED = f"{MATCH}/counts"
"""What a match counted, which was paid for with the lists."""


def summed(plan: Plan) -> bool:
    """Return whether every step of training is a sum of whole numbers, opened among partners or each one's own."""
    return plan.privacy.trust == SECURE or plan.recommends or plan.bins is not None


def countings(plan: Plan) -> int:
    """Return how many sums the study counts first, of items' popularity or cells, without spare attempts."""
    return int(plan.bins is not None or (plan.recommends and plan.model.family != "popularity"))


def trainings(plan: Plan) -> int:
    """Return how many updates, or sums of steps, the study has, without spare attempts."""
    per_round = plan.training.local_steps if summed(plan) else 1
    return plan.training.rounds * per_round


def trained(plan: Plan) -> tuple[str, ...]:
    """Return the names of all releases about training customers, in their order."""
    counted = tuple(f"{COUNT}/{number}" for number in range(1, countings(plan) + 1))
    return (*counted, *(f"{TRAIN}/{number}" for number in range(1, trainings(plan) + 1)))


def releases_of(plan: Plan, round_: int) -> tuple[str, ...]:
    """Return the names of a round's releases, in their order."""
    per_round = trainings(plan) // plan.training.rounds
    first = (round_ - 1) * per_round + 1
    counted = tuple(f"{COUNT}/{number}" for number in range(1, countings(plan) + 1) if round_ == 1)
    measured = (f"{EVALUATE}/{round_}",) if round_ in plan.metrics.rounds else ()
    return (*counted, *(f"{TRAIN}/{number}" for number in range(first, first + per_round)), *measured)


def round_of(plan: Plan, step: str) -> int | None:
    """Return the round to which a release belongs, or None for a name that the plan does not have."""
    kind, _, text = step.partition("/")
    if not text.isascii() or not text.isdigit() or text != str(int(text)):
        return None
    number = int(text)
    if kind == EVALUATE:
        return number if number in plan.metrics.rounds else None
    if kind == COUNT:
        return 1 if 1 <= number <= countings(plan) else None
    if kind != TRAIN or not 1 <= number <= trainings(plan):
        return None
    return (number - 1) // (trainings(plan) // plan.training.rounds) + 1
