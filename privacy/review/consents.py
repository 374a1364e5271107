"""Consents and charges held against the signed plan: what a study may do, and whether it did nothing else."""

import datetime
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from coterie.privacy.calibration import HOLDOUT, TRAINING
from coterie.privacy.canonical import digest
from coterie.privacy.charges import Charge, Entry
from coterie.privacy.compliance import breaches, misplaced
from coterie.privacy.events import DiscreteGaussian, Event, PoissonGaussian, event_from_dict
from coterie.privacy.plan import Plan
from coterie.privacy.policy import Policy

__all__ = ["Consented", "charge_faults", "consent_faults", "release_name"]

_ROUND = re.compile(r"[1-9][0-9]{0,5}")
_GROUPS = {"train": TRAINING, "evaluate": HOLDOUT}


@dataclass
class Consented:
    """A study as the replay knows it.

    Args:
        entry: Entry of the first consent.
        at: Its time.
        body: Its body.
        plan: The plan, once its signature was checked; None where the bundle lacks it.
        events: What may be charged to each group, and how many times.
        charged: What was charged, by group.
        keys: (step, attempt) of every charge.
        ends: How many charges were settled and lost.
        settled: (step, attempt, `release_name` of the release) of settled charges.
        sound: Whether plan and policy permit all that was consented to.
    """

    entry: int
    at: str
    body: dict[str, Any]
    plan: Plan | None
    events: dict[str, tuple[Event, int]]
    charged: dict[str, Counter[Event]] = field(default_factory=lambda: {TRAINING: Counter(), HOLDOUT: Counter()})
    keys: set[tuple[str, int]] = field(default_factory=set)
    ends: Counter[str] = field(default_factory=Counter)
    settled: set[tuple[str, int, bytes]] = field(default_factory=set)
    sound: bool = True


def release_name(digest: str) -> bytes:
    """Return the first 16 bytes of a release's digest: enough to name it, in a tenth of the memory."""
    try:
        return bytes.fromhex(digest.removeprefix("sha256:")[:32])
    except ValueError:  # a coordinator's word, which is compared and nothing else
        return digest.encode()


def consent_faults(entry: Entry, plan: Plan, policy: Policy, *, partner: tuple[str, str]) -> list[str]:
    """Return what a consent says or does that plan and policy do not.

    Args:
        entry: The consent.
        plan: Its plan, whose signature was checked.
        policy: The policy that it names.
        partner: Name and public key of the ledger's partner.
    """
    body, contract, cohort = entry.body, plan.contract, plan.cohort
    day = datetime.date.fromisoformat(entry.at[:10])
    reasons = [*misplaced(plan, *partner, day), *breaches(plan, policy)]
    faults = [f"the policy did not permit the plan ({reason.code})" for reason in reasons]
    told = (body["name"], body["purpose"], body["customer"], body["contract"], body["expires"])
    if told != (plan.name, plan.purpose, contract.customer, contract.digest(), plan.expires.isoformat()):
        faults.append("says something else of the plan than the plan does")
    if tuple(body.get("segments", ())) != (cohort.segments or ()):
        faults.append("names other segments than the plan does")
    division = digest(asdict(policy.segments)) if policy.segments and cohort.segments else None
    if body.get("division") != division:
        faults.append("divides customers otherwise than the policy does")
    update, histogram, training = event_from_dict(body["update"]), event_from_dict(body["histogram"]), plan.training
    if not isinstance(update, PoissonGaussian) or not isinstance(histogram, DiscreteGaussian):
        faults.append("declares other mechanisms than the plan has")
    elif (update.sample_rate, update.steps, histogram.count) != (training.sample_rate, training.local_steps, 1):
        faults.append("declares another sample rate or other steps than the plan has")
    if int(body["updates"]) != training.rounds + training.spare:
        faults.append("declares another number of updates than the plan has rounds and spare attempts")
    if int(body["histograms"]) != len(plan.metrics.rounds) + training.spare:
        faults.append("declares another number of histograms than the plan has measured rounds and spare attempts")
    return faults


def charge_faults(charge: Charge, at: str, study: Consented) -> list[str]:
    """Return what a charge does that its study's consent and plan do not allow.

    Args:
        charge: The charge.
        at: Time of its entry.
        study: What was consented to and charged so far.
    """
    kind, _, number = charge.step.partition("/")
    group, plan = _GROUPS.get(kind), study.plan
    if group != charge.group or _ROUND.fullmatch(number) is None or charge.attempt < 1:
        return ["charges another group than its step touches"]
    event, most = study.events[group]
    faults = []
    if charge.event != event or charge.purpose != study.body["purpose"]:
        faults.append("charges another event or purpose than was consented to")
    if charge.segments != tuple(study.body.get("segments", ())):
        faults.append("charges other segments than were consented to")
    if (charge.step, charge.attempt) in study.keys:
        faults.append("charges a step and attempt a second time")
    if study.charged[group].total() >= most:
        faults.append("charges more often than was consented to")
    if at[:10] > study.body["expires"]:
        faults.append("charges after the plan had expired")
    if plan is not None:
        rounds = range(1, plan.training.rounds + 1) if group == TRAINING else plan.metrics.rounds
        if int(number) not in rounds or charge.attempt > 1 + plan.training.spare:
            faults.append("charges a round or an attempt that the plan does not have")
    return faults
