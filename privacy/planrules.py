"""The rules of a plan beyond types and ranges: what of it does not go together, each with its fix.

Nothing here depends on data. A plan that breaks a rule is read by nobody, so that what is signed has one meaning.
"""

import dataclasses
from typing import TYPE_CHECKING

from coterie.privacy.binrules import bin_faults, group_faults
from coterie.privacy.errors import Fault
from coterie.privacy.terms import (
    COUNTS,
    MATCHING,
    NO_TRAINING,
    PERSON,
    PROPENSITY,
    RECOMMENDERS,
    ROWS,
    SECURE,
    TRAINED,
    Recommendation,
)

if TYPE_CHECKING:
    from coterie.privacy.plan import Plan

__all__ = ["faults_of"]

_MOST_STEPS = 100_000
_MOST_CELLS = 2**24  # numbers of a sweep's sum, and of one customer in it
_MOST_SUMMED, _MOST_SUMS = 255, 1024  # shares are points of GF(256); keys are dealt a round at a time
_MOST_COUNTED = 8  # partners whose customers are counted: every one plants dummies for each of 2^(n-1) cells


def faults_of(plan: "Plan", place: str) -> list[Fault]:
    """Return everything that is wrong with a plan beyond types and ranges.

    Args:
        plan: The plan.
        place: How the plan is called in a fault.
    """
    faults = [*_roster_faults(plan, place), *_round_faults(plan, place)]
    segments = plan.cohort.segments
    if segments is not None and (not segments or list(segments) != sorted(set(segments))):
        rule = "must name segments in ascending order, each once"
        faults.append(Fault(f"{place}: cohort.segments", rule, "correct the list, or leave it out for all"))
    if plan.privacy.trust == SECURE:
        faults += _secure_faults(plan, place)
    faults += [*_task_faults(plan, place), *_unit_faults(plan, place)]
    faults += [*_match_faults(plan, place), *_shared_faults(plan, place), *bin_faults(plan, place)]
    faults += group_faults(plan, place)
    return faults if plan.matches else [*faults, *plan.contract.faults(f"{place}: contract")]


def _roster_faults(plan: "Plan", place: str) -> list[Fault]:
    faults = []
    names = [partner.name for partner in plan.partners]
    if len(set(names)) != len(names) or not names:
        faults.append(Fault(f"{place}: partners", "names must differ, at least one", "correct the roster"))
    if not plan.privacy.threshold <= len(names):
        faults.append(Fault(f"{place}: privacy.threshold", "exceeds the roster", "lower it"))
    if not plan.privacy.colluders < len(names):
        faults.append(Fault(f"{place}: privacy.colluders", "must be below the roster's size", "lower it"))
    keys = [partner.key for partner in plan.partners if partner.key]
    if len(set(keys)) != len(keys):
        faults.append(Fault(f"{place}: partners", "two partners have one key", "give each its own"))
    return faults


def _round_faults(plan: "Plan", place: str) -> list[Fault]:
    faults = []
    if (plan.training.rounds + plan.training.spare) * plan.training.local_steps > _MOST_STEPS:
        rule = f"rounds times local_steps must be at most {_MOST_STEPS}"
        faults.append(Fault(f"{place}: training", rule, "ask for fewer steps"))
    rounds = plan.metrics.rounds
    ascending = list(rounds) == sorted(set(rounds)) and rounds
    if not plan.matches and (not ascending or rounds[0] < 1 or rounds[-1] != plan.training.rounds):
        rule = f"must ascend within 1..{plan.training.rounds} and end with the last round"
        faults.append(Fault(f"{place}: metrics.rounds", rule, "correct the list"))
    return faults


def _unit_faults(plan: "Plan", place: str) -> list[Fault]:
    """Return what keeps persons at several partners from being protected as one.

    Parts of a k-th each add up to one contribution in a secure sum over all customers, whatever group the person is
    in at which partner: of Gaussians with a and b parts in both groups, a + b = k, the losses compose to no more
    than the worse group's alone, because (a/k)^2 + (b/k)^2 <= 1. So they do over attempts with other partners in
    each, because no partner makes more sums of a kind than were charged, and squares add up (Dong, Roth and Su
    2022, corollary 3.3). Sampled by each partner for itself, they do not.
    """
    privacy = plan.privacy
    if (privacy.unit == PERSON) != (privacy.partners_per_person is not None):
        return [Fault(f"{place}: privacy.partners_per_person", f'goes with unit "{PERSON}"', "give both or neither")]
    if privacy.unit != PERSON:
        return []
    right = plan.recommends and privacy.trust == SECURE and plan.training.sample_rate == 1
    if right and plan.parts <= len(plan.partners):
        return []
    rule = f"is for recommendation by {SECURE} at sample_rate 1, with k at most the roster"
    return [Fault(f"{place}: privacy.unit", rule, "see the statement's table by number of partners instead")]


def _task_faults(plan: "Plan", place: str) -> list[Fault]:
    """Return what of the plan does not go with its task."""
    family, training, faults = plan.model.family, plan.training, list[Fault]()
    if plan.matches:
        return faults
    if family == "none" or training.rounds == 0:
        fix = "add [model], [training] and [metrics]"
        faults.append(Fault(f"{place}: training", "is missing: only matching trains nothing", fix))
    if family not in ({"auto", *RECOMMENDERS} if plan.recommends else {"auto", "none", *PROPENSITY}):
        faults.append(Fault(f"{place}: model.family", f"is none for {plan.task}", "choose another"))
    parts = (plan.contract.interactions is not None, plan.catalogue is not None)
    if parts != (plan.recommends, plan.recommends) or (plan.recommendation is not None and not plan.recommends):
        rule = "contract.interactions, catalogue and recommendation go together, with this task alone"
        faults.append(Fault(f"{place}: task", rule, "add what is missing, or remove what is too much"))
    if not plan.recommends:
        return faults
    if family not in {"auto", *TRAINED} and (training.sample_rate != 1 or training.local_steps != 1):
        rule = "and local_steps must be 1: every sum of this family is over all customers"
        faults.append(Fault(f"{place}: training.sample_rate", rule, "set both to 1"))
    if family in {"popularity", "item-gram"} and training.rounds != 1:
        faults.append(Fault(f"{place}: training.rounds", "must be 1: the model is made of one sum", "set it to 1"))
    if training.server != "fedavg" or training.server_learning_rate != 1.0 or training.positive_weight != 1.0:
        fix = "leave it out, and set secure.optimizer and training.learning_rate"
        faults.append(Fault(f"{place}: training.server", "has no part in recommendation", fix))
    return faults + _size_faults(plan, place)


def _match_faults(plan: "Plan", place: str) -> list[Fault]:
    """Return what keeps customers from being matched as the plan has it."""
    if plan.matching is None:
        return [Fault(f"{place}: matching", "is missing", "add [matching]")] if plan.matches else []
    names, match, faults = [partner.name for partner in plan.partners], plan.matching, []
    if len(names) < 2 or (plan.matches and plan.privacy.threshold != len(names)):
        rule = f"must be the whole roster, of at least 2: a match of {len(names)} needs all of them"
        faults.append(Fault(f"{place}: privacy.threshold", rule, "set it to the number of partners"))
    if match.teller and match.teller not in names:
        faults.append(Fault(f"{place}: matching.teller", "is not in the roster", "name one of the partners"))
    if match.outcome == COUNTS and len(names) > _MOST_COUNTED:
        rule = f"counts customers of at most {_MOST_COUNTED} partners"
        faults.append(Fault(f"{place}: matching.outcome", rule, "match fewer, or ask for rows"))
    if not plan.matches and match.outcome != ROWS:
        fix = f'match in a plan of its own, with task "{MATCHING}"'
        faults.append(Fault(f"{place}: matching.outcome", f'must be "{ROWS}" before training', fix))
    if plan.matches and _trains_something(plan):
        fix = "remove the model, training, metrics, catalogue, and all of the contract but its customer"
        faults.append(Fault(f"{place}: task", "trains nothing, and reads no column", fix))
    return faults


def _trains_something(plan: "Plan") -> bool:
    """Return whether a plan says more than a match needs: nothing that is signed is without use."""
    extra = (plan.contract.label, plan.contract.columns, plan.contract.interactions, plan.catalogue, plan.secure)
    spare = dataclasses.replace(plan.training, spare=0)
    plain = (plan.model.family, spare, plan.metrics.rounds) == ("none", NO_TRAINING, ())
    told = plan.recommendation is not None or plan.bins is not None
    return any(extra) or told or not plain or plan.privacy.trust == SECURE


def _shared_faults(plan: "Plan", place: str) -> list[Fault]:
    """Return what keeps a study of shared customers from being what it says.

    Whether a person takes part depends on its rows at other partners, so the person is the unit, and partners must
    know of whom it is a customer; whoever is at more than k partners takes no part.
    """
    least, parts = plan.cohort.partners, plan.parts
    matched = plan.matching is not None and not plan.matches
    if least == 1 and not matched:
        return []
    if least > 1 and matched and least <= parts:
        return []
    rule = f'goes with [matching] of outcome "{ROWS}", unit "{PERSON}", and at most partners_per_person'
    return [Fault(f"{place}: cohort.partners", rule, "give all of them, or leave them out")]


def _size_faults(plan: "Plan", place: str) -> list[Fault]:
    """Return what would make a partner's work too large: memory that grew with histories would tell of them."""
    rows, catalogue, how = plan.contract.interactions, plan.catalogue, plan.recommendation or Recommendation()
    if plan.model.family != "ials" or rows is None or catalogue is None:
        return []
    cells = how.dimension * (how.dimension + 3) // 2  # of one item
    if cells * max(rows.most, min(how.keep, catalogue.items)) <= _MOST_CELLS:
        return []
    rule = "makes sums of ials too large for so many items kept, or of one customer"
    return [Fault(f"{place}: recommendation.dimension", rule, "lower it, or keep fewer items")]


def _secure_faults(plan: "Plan", place: str) -> list[Fault]:
    """Return what makes secure sums unsafe: who may be missing, and who may tell two stories."""
    count, least, colluders = len(plan.partners), plan.privacy.threshold, plan.privacy.colluders
    faults = []
    if count < 3 or least < 3 or 3 * least <= 2 * count:
        rule = f"must be at least 3 and above two thirds of the {count} partners"
        faults.append(Fault(f"{place}: privacy.threshold", rule, "raise it, or add partners"))
    if least - colluders < 2 or 2 * least <= count + colluders:
        rule = "are too many: two different stories could both reach the threshold"
        faults.append(Fault(f"{place}: privacy.colluders", rule, "lower it, or raise the threshold"))
    if count > _MOST_SUMMED or plan.training.local_steps > _MOST_SUMS:
        rule = f"sums at most {_MOST_SUMMED} partners, in rounds of at most {_MOST_SUMS} steps"
        faults.append(Fault(f"{place}: privacy.trust", rule, "ask for fewer"))
    if plan.training.server != "fedavg" or plan.training.server_learning_rate != 1.0:
        fix = "leave it out, and set secure.optimizer and training.learning_rate"
        faults.append(Fault(f"{place}: training.server", "has no part in secure aggregation", fix))
    return faults
