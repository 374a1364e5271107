"""The statement of a study: its guarantee in figures and in words, recomputed from its events."""

import dataclasses
import functools
import math
from typing import Any

from coterie.privacy.accountant import ADD_REMOVE, REPLACE_ONE, UNIT, Guarantee, epsilon, guarantee
from coterie.privacy.calibration import HOLDOUT, TRAINING, Mechanisms
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.events import DistributedGaussian, Event, copies_of
from coterie.privacy.overlaps import Counted, disclosed_words, match_words, shares, told_row, told_shares, uncovered
from coterie.privacy.plan import SECURE, Plan
from coterie.privacy.schedule import summed

__all__ = ["NOT_COVERED", "not_covered", "not_covered_by", "share_of", "statement", "study_bound"]

NOT_COVERED: tuple[str, ...] = (
    "Which companies take part, the plan, and who refused which step: these depend on no customer.",
    "What a partner does with the model inside its own building, such as scoring its customers.",
    "What the model teaches about people in general: a true pattern is learnt whether or not one customer is in.",
    "Attacks on a partner's own systems: the local administrator is trusted.",
    "The order of magnitude of its customers that each partner declared as public in the plan.",
    "How long a partner takes to answer, which grows with its table.",
    "The exact shape of floating-point noise in model updates; histograms use exact discrete noise.",
)
_FLOATS = NOT_COVERED[-1]
_OF_TRAINING = frozenset({NOT_COVERED[1], NOT_COVERED[2], _FLOATS})
_SUMMED = (
    "A study in which more partners than the plan's colluders help the coordinator: what they know of the masks and of "
    "the noise is then missing.",
    "That the machine's arithmetic gives one customer's gradient the same bits whoever else is in the table: it is "
    "computed row by row for this, and tested, not proved for every processor.",
)


def statement(
    plan: Plan, mechanisms: Mechanisms, *, random_source: str = "os", overlap: Counted | None = None
) -> dict[str, Any]:
    """Return the statement as plain JSON values, in the form that `docs/formats/report.md` gives.

    Args:
        plan: The plan.
        mechanisms: Its calibrated events.
        random_source: Where the noise came from; anything but "os" voids every figure.
        overlap: Noisy counts of customers that the plan's partners share, of a match that was paid for elsewhere.

    Raises:
        FileFault: The counts are of other partners than the plan's.
    """
    groups = {group: _bound(plan, mechanisms, group, random_source=random_source) for group in (TRAINING, HOLDOUT)}
    worst = max(groups.values(), key=lambda g: g.epsilon)
    multiplicity = _multiplicity(plan, mechanisms, random_source)
    told: dict[str, Any] = {}
    if overlap is not None:
        _check_partners(plan, overlap)
        told = {"overlap": told_shares(overlap, [row["epsilon"] for row in multiplicity])}
        rows = zip(multiplicity, overlap.overlap.multiplicity, shares(overlap.overlap), strict=True)
        multiplicity = [{**row, **told_row(one, share)} for row, one, share in rows]
    return {
        "groups": [
            {
                "group": group,
                "share": share_of(plan, group),
                "epsilon": _finite(bound.epsilon),
                "delta": bound.delta,
                "events": [_described(plan, mechanisms, group)],
            }
            for group, bound in groups.items()
        ],
        "study": {
            "epsilon": _finite(worst.epsilon),
            "delta": worst.delta,
            "unit": f"person at up to {plan.parts} partners" if plan.parts > 1 else worst.unit,
            "relation": worst.relation,
            "trust": worst.trust,
            "accountant": worst.accountant,
        },
        "words": _words(plan, worst),
        "not_covered": list(not_covered_by(plan)),
        "disclosures": disclosed_words(plan),
        "multiplicity": multiplicity,
        "replace_one": _finite(_replaced(plan, mechanisms, random_source)),
        **told,
    }


def share_of(plan: Plan, group: str) -> float:
    """Return which part of a plan's epsilon a group of customers may spend; a list for a match is about both."""
    if plan.matches:
        return 1.0
    return plan.privacy.split.training if group == TRAINING else plan.privacy.split.metrics


def _multiplicity(plan: Plan, mechanisms: Mechanisms, random_source: str) -> list[dict[str, Any]]:
    return [
        {"partners": k, "epsilon": _finite(_several(plan, mechanisms, k, random_source))}
        for k in range(1, len(plan.partners) + 1)
    ]


def _check_partners(plan: Plan, overlap: Counted) -> None:
    if set(overlap.overlap.names) != {partner.name for partner in plan.partners}:
        fix = "give the counts of a match of exactly the plan's partners"
        raise FileFault(
            Fault("the counts of customers that partners share", "are of other partners than the plan's", fix)
        )


def _void(plan: Plan, random_source: str) -> bool:
    """Return whether no figure means anything: noise could be repeated, or what comes out is exact by intent."""
    return random_source != "os" or (plan.matches and plan.discloses)


def study_bound(plan: Plan, mechanisms: Mechanisms, *, random_source: str = "os") -> Guarantee:
    """Return what a study guarantees to the worst protected group; arguments as `statement`."""
    bounds = (_bound(plan, mechanisms, group, random_source=random_source) for group in (TRAINING, HOLDOUT))
    return max(bounds, key=lambda bound: bound.epsilon)


def _bound(plan: Plan, mechanisms: Mechanisms, group: str, *, random_source: str) -> Guarantee:
    if _void(plan, random_source) and random_source == "os":
        return Guarantee(math.inf, plan.privacy.delta, UNIT, ADD_REMOVE, plan.privacy.trust, "none: a Disclosure")
    return _guaranteed(mechanisms.events(group), plan.privacy.delta, plan.privacy.trust, random_source)


@functools.lru_cache(maxsize=64)
def _guaranteed(events: tuple[Event, ...], delta: float, trust: str, random_source: str) -> Guarantee:
    return guarantee(events, delta, trust=trust, random_source=random_source)


def _several(plan: Plan, mechanisms: Mechanisms, partners: int, random_source: str) -> float:
    """Return the worst epsilon of a person at k partners: held out at any number of them, trained on at the others."""
    if _void(plan, random_source):
        return math.inf
    training, holdout = mechanisms.events(TRAINING), mechanisms.events(HOLDOUT)
    if training == holdout:  # as of a match: one mixture is as good as another
        return epsilon(_at(training, partners), plan.privacy.delta)
    if plan.parts > 1:
        return max(
            epsilon(_divided(events, partners / plan.parts), plan.privacy.delta) for events in (training, holdout)
        )
    splits = ((trained, partners - trained) for trained in range(partners + 1))
    return max(epsilon([*_at(training, t), *_at(holdout, h)], plan.privacy.delta) for t, h in splits)


def _divided(events: tuple[Event, ...], share: float) -> tuple[Event, ...]:
    """Return what a person pays whose contributions to secure sums are, together, so many times the bound."""
    summed = (event.gaussian for event in events if isinstance(event, DistributedGaussian))
    return tuple(dataclasses.replace(event, noise_multiplier=event.noise_multiplier / share) for event in summed)


def _at(events: tuple[Event, ...], partners: int) -> tuple[Event, ...]:
    """Return what a person at so many partners pays for events that each of them charges."""
    return tuple(copies_of(event, partners) for event in events) * partners if partners else ()


def _replaced(plan: Plan, mechanisms: Mechanisms, random_source: str) -> float:
    """Return the worst epsilon when one customer is replaced by another, of the same group or the other."""
    if _void(plan, random_source):
        return math.inf
    delta = plan.privacy.delta
    within = [epsilon(mechanisms.events(group), delta, relation=REPLACE_ONE) for group in (TRAINING, HOLDOUT)]
    # Across groups it leaves one and enters the other: an add and a remove, which compose.
    across = epsilon((*mechanisms.events(TRAINING), *mechanisms.events(HOLDOUT)), delta)
    return max(*within, across)


def not_covered(trust: str) -> tuple[str, ...]:
    """Return what a plan's guarantee does not cover, in sentences, under a trust."""
    if trust != SECURE:
        return NOT_COVERED
    return (*(words for words in NOT_COVERED if words != _FLOATS), *_SUMMED)


def not_covered_by(plan: Plan) -> tuple[str, ...]:
    """Return what a plan's guarantee does not cover; a partner's own sums are made of whole numbers, too."""
    if plan.matches:
        return (*uncovered(plan), *(words for words in NOT_COVERED if words not in _OF_TRAINING))
    texts = (*disclosed_words(plan), *not_covered(plan.privacy.trust))
    if summed(plan) and plan.privacy.trust != SECURE:
        return (*(words for words in texts if words != _FLOATS), _SUMMED[-1])
    return texts


def _described(plan: Plan, mechanisms: Mechanisms, group: str) -> str:
    if plan.matches:
        if mechanisms.overlap is None:
            return "nothing: a Disclosure, which no epsilon covers"
        noise = f"discrete Gaussian noise of scale {mechanisms.overlap.sigma:g} in every number of planted items"
        return f"{mechanisms.overlaps} lists of identifiers for a match, with {noise}"
    if mechanisms.summed is not None:
        return "; ".join(f"{count} times {event}" for event, count in mechanisms.kinds(group))
    if group == TRAINING:
        return f"{mechanisms.updates} updates, each of {mechanisms.update}"
    return f"{mechanisms.histograms} times {mechanisms.histogram}"


def _words(plan: Plan, worst: Guarantee) -> list[str]:
    if plan.matches and not _void(plan, "os") and plan.matching is not None and math.isfinite(worst.epsilon):
        said = match_words(plan.matching, epsilon=worst.epsilon, delta=worst.delta)
        return [*said, _tuned(plan), _persons(plan)]
    if plan.matches and _void(plan, "os"):
        return disclosed_words(plan)
    if not math.isfinite(worst.epsilon):
        return ["There is no guarantee: the noise of this run was repeatable, as only tests make it."]
    odds = math.exp(worst.epsilon)
    against, trusted = _trust(plan)
    return [
        f"The unit of protection is one person at up to {plan.parts} partners: all of its rows at all of them."
        if plan.parts > 1
        else f"The unit of protection is one {UNIT}: all of that customer's rows at that partner, together.",
        f"{against} can hardly tell whether a given customer's rows were in the study at all.",
        f"In figures: it shifts the odds of any such guess by at most a factor of {odds:.2f} "
        f"(e to the power epsilon = {worst.epsilon:.2f}), except with probability {worst.delta:g}.",
        "A customer is in the training group or in the held-out group of a partner for life, by a keyed hash. Model "
        "updates touch the first group alone and metrics the second alone, so each customer pays for one of them.",
        *trusted,
        _tuned(plan),
        _persons(plan),
        *disclosed_words(plan),
    ]


def _tuned(plan: Plan) -> str:
    return (
        f"The plan's settings were chosen among {plan.tuning.configurations} configurations tried on: "
        f"{plan.tuning.data}. That choice is declared by the plan's author and not covered."
    )


def _persons(plan: Plan) -> str:
    if plan.parts > 1:
        return (
            f"A person who is a customer of up to {plan.parts} partners is protected as one: each of them holds what "
            f"the person adds to a sum to one part in {plan.parts} of the bound. At more partners it is protected less."
        )
    return "A person who is a customer of several partners is protected less: see the table by number of partners."


def _trust(plan: Plan) -> tuple[str, tuple[str, ...]]:
    """Return against whom the guarantee holds, and on what it rests."""
    privacy = plan.privacy
    if privacy.trust != SECURE:
        return "Whoever sees everything that left a partner, the coordinator and all other partners included,", (
            f'Trust is "{privacy.trust}": every partner adds all its own noise before anything leaves, so nobody '
            "outside the partner needs to be trusted.",
        )
    count, least, colluders = len(plan.partners), privacy.threshold, privacy.colluders
    surplus = math.sqrt(count / (least - colluders))
    who = f"The coordinator, together with up to {colluders} of the {count} partners,"
    return who, (
        f'Trust is "{privacy.trust}": only sums over at least {least} partners are opened. Each partner adds a share '
        f"of the noise, large enough for {least - colluders} honest ones; every partner holds the others to keys that "
        "it compared itself.",
        f"When all {count} take part and nobody colludes, a sum carries {surplus:.2f} times the noise that is charged "
        "for. This surplus is information: it is never credited.",
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
