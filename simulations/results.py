"""From trials to the report's figures; the form is `docs/formats/report.md`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coterie.clients.workspace import Workspace
from coterie.models import metrics
from coterie.privacy.accountant import epsilon
from coterie.privacy.calibration import HOLDOUT, TRAINING, calibrate
from coterie.privacy.charges import Reservation
from coterie.privacy.clock import now
from coterie.privacy.events import Event
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import Plan, Secure
from coterie.privacy.policy import limits, policy_digest, read_policy
from coterie.privacy.renyi import Filter, curve, total
from coterie.privacy.schedule import EVALUATE, summed
from coterie.server.registry import Progress
from coterie.server.securely import ALL
from coterie.simulations.federation import Outcome
from coterie.simulations.trial import MODELS

__all__ = ["budget", "compared", "refusals_of", "released", "simulated", "spread", "study_facts", "verdict"]


def study_facts(plan: Plan, dataset: str) -> dict[str, Any]:
    """Return the report's "study"."""
    training, privacy, match = plan.training, plan.privacy, plan.matching
    matched = {"identifier": match.identifier, "outcome": match.outcome, "epoch": match.epoch} if match else {}
    trained = {
        "family": plan.model.family,
        "rounds": training.rounds,
        "local_steps": training.local_steps,
        "sample_rate": training.sample_rate,
        "clip": training.clip,
        "server": (plan.secure or Secure()).optimizer if summed(plan) else training.server,
    }
    return {
        "name": plan.name,
        "purpose": plan.purpose,
        "task": plan.task,
        "digest": plan.digest(),
        "expires": plan.expires.isoformat(),
        **matched,
        **({} if plan.matches else trained),
        "trust": privacy.trust,
        "threshold": privacy.threshold,
        "colluders": privacy.colluders,
        "dataset": dataset,
        "partners": [{"name": p.name, "declared_customers": p.customers} for p in plan.partners],
    }


def released(progress: Progress) -> dict[str, Any]:
    """Return the report's "release": only what left the partners, charged."""
    rounds = []
    for number, by_partner in sorted(progress.histograms.items()):
        if by_partner:
            summary = metrics.summary(_summed(by_partner))
            rounds.append({"round": number, "partners": _counted(progress, number), **summary})
    last = max((n for n, by in progress.histograms.items() if by), default=None)
    counts = _summed(progress.histograms[last]) if last is not None else None
    return {
        "rounds": rounds,
        "calibration": [list(point) for point in metrics.calibration(counts)] if counts else [],
        "lift": [list(point) for point in metrics.lift_curve(counts)] if counts else [],
        "refusals": refusals_of(progress),
    }


def refusals_of(progress: Progress) -> list[dict[str, Any]]:
    """Return who refused what: it depends on no customer."""
    return [{"partner": r.partner, "step": r.step, "round": r.round, "code": r.code} for r in progress.refusals]


def _counted(progress: Progress, number: int) -> int:
    """Return how many partners' customers are in a round's histogram."""
    by_partner = progress.histograms[number]
    if ALL not in by_partner:
        return len(by_partner)
    return len({receipt.partner for receipt in progress.receipts if receipt.step == f"{EVALUATE}/{number}"})


def budget(outcome: Outcome) -> list[dict[str, Any]]:
    """Return the report's "budget", read from every partner's ledger."""
    plan = outcome.signed.plan
    mechanisms = calibrate(plan)
    cache: dict[tuple[Event, ...], float] = {}
    found = []
    for partner, folder in zip(plan.partners, outcome.folders, strict=True):
        workspace = Workspace(folder)
        policy = read_policy(workspace.policy)
        with Ledger(workspace.ledger, now) as ledger:
            reservations = ledger.reservations()
        lifetime, *_ = limits(policy, plan.purpose, now().year)
        found.append(
            {
                "partner": partner.name,
                "policy_digest": policy_digest(workspace.policy),
                "lifetime_epsilon": policy.budget.lifetime_epsilon,
                "lifetime_delta": policy.budget.delta,
                "study_epsilon": plan.privacy.epsilon,
                "lifetime_share": max(
                    lifetime.budget.share(
                        total(curve([r.charge.event]) for r in reservations if r.charge.group == group)
                    )
                    for group in (TRAINING, HOLDOUT)
                ),
                "runs_left": min(
                    lifetime.budget.runs_left(
                        total(curve([r.charge.event]) for r in reservations if r.charge.group == group),
                        curve(mechanisms.events(group)),
                    )
                    for group in (TRAINING, HOLDOUT)
                ),
                "steps": _burn_down(plan, reservations, lifetime.budget, cache),
            }
        )
    return found


def compared(trials: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return every model's metrics over the seeds, in the order of their titles."""
    return [
        {
            "key": key,
            "title": title,
            "private": key.endswith("private"),
            "metrics": {
                name: spread([trial["models"][key][name] for trial in trials]) for name in trials[0]["models"][key]
            },
        }
        for key, title in titles.items()
    ]


def simulated(trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the report's "simulation" from the exact figures of each seed."""
    first = trials[0]
    return {
        "models": compared(trials, MODELS),
        "partners": [
            {
                "partner": partner,
                "customers": entry["customers"],
                "held_out": entry["held_out"],
                "models": {key: spread([t["partners"][partner]["models"][key] for t in trials]) for key in MODELS},
                "union": {key: spread([t["partners"][partner]["union"][key] for t in trials]) for key in MODELS},
            }
            for partner, entry in first["partners"].items()
        ],
        "rounds": [
            {"round": int(number), **_interval([trial["rounds"][number] for trial in trials])}
            for number in first["rounds"]
        ],
        "calibration": {key: [list(point) for point in points] for key, points in first["calibration"].items()},
        "lift": {key: [list(point) for point in points] for key, points in first["lift"].items()},
        "verdict": verdict(trials),
    }


def verdict(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say in sentences what the comparison shows, and where it does not."""
    ours = _mean([t["models"]["federated-private"]["auc"] for t in trials])
    same = _mean([t["models"]["alone-private"]["auc"] for t in trials])
    pooled = _mean([t["models"]["pooled"]["auc"] for t in trials])
    partners = list(trials[0]["partners"])
    sentences = [
        f"On everybody's held-out customers the private federation reaches AUC {ours:.3f}; one partner alone under "
        f"the same privacy reaches {same:.3f} on average, and pooling all data without privacy {pooled:.3f}."
    ]
    for key, words in (("alone-private", "under the same privacy"), ("alone", "without any privacy")):
        beaten = [
            name for name in partners if ours > _mean([trial["partners"][name]["union"][key] for trial in trials])
        ]
        sentences.append(_compared(beaten, partners, words, "on everybody's held-out customers"))
        own = [
            name
            for name in partners
            if _mean([trial["partners"][name]["models"]["federated-private"] for trial in trials])
            > _mean([trial["partners"][name]["models"][key] for trial in trials])
        ]
        sentences.append(_compared(own, partners, words, "on the partner's own held-out customers"))
    return sentences


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Return mean, interval and every seed's figure."""
    return {**_interval(values), "seeds": list(values)}


def _interval(values: Sequence[float | None]) -> dict[str, float | None]:
    """Return the mean with its 95 % confidence interval over seeds (Student's t)."""
    known = [value for value in values if value is not None]
    if not known:
        return {"mean": None, "low": None, "high": None}
    mean = float(np.mean(known))
    if len(known) < 2:
        return {"mean": mean, "low": None, "high": None}
    from scipy import stats  # noqa: PLC0415 - half a second of import for one quantile

    half = float(stats.t.ppf(0.975, len(known) - 1) * np.std(known, ddof=1) / math.sqrt(len(known)))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _compared(beaten: Sequence[str], partners: Sequence[str], words: str, where: str) -> str:
    if len(beaten) == len(partners):
        return f"It beats every partner alone {words}, {where}."
    if not beaten:
        return f"It beats no partner alone {words}, {where}."
    missed = ", ".join(name for name in partners if name not in beaten)
    return f"It beats {len(beaten)} of {len(partners)} partners alone {words}, {where}; not {missed}."


def _burn_down(
    plan: Plan, reservations: Sequence[Reservation], lifetime: Filter, cache: dict[tuple[Event, ...], float]
) -> list[dict[str, Any]]:
    """Return what was spent after each charge of this plan; charges of earlier plans count for life alone."""
    training = "step " if summed(plan) else "round "
    steps: list[dict[str, Any]] = []
    mine: dict[str, list[Event]] = {}
    life: dict[str, list[Event]] = {}
    for reservation in reservations:
        charge = reservation.charge
        life.setdefault(charge.group, []).append(charge.event)
        if charge.plan != plan.digest():
            continue
        events = mine.setdefault(charge.group, [])
        events.append(charge.event)
        key = tuple(events)
        if key not in cache:
            cache[key] = epsilon(key, plan.privacy.delta)
        steps.append(
            {
                "step": _named(charge.step, training),
                "group": charge.group,
                "study_epsilon": cache[key],
                "lifetime_epsilon": lifetime.spent_epsilon(curve(life[charge.group])),
            }
        )
    return steps


def _named(step: str, training: str) -> str:
    """Write a release's name for a reader."""
    return step.replace("train/", training).replace("evaluate/", "metrics ").replace("count/", "count ")


def _summed(by_partner: Mapping[str, Any]) -> metrics.Counts:
    return metrics.binned_counts(np.sum([by_partner[name] for name in sorted(by_partner)], axis=0))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
