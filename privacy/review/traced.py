"""Noisy counts of shared customers, held against what ledgers and records say was released."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from coterie.privacy.calibration import calibrate
from coterie.privacy.errors import CoterieError
from coterie.privacy.matching.overlap import check_overlap
from coterie.privacy.matchterms import match_terms
from coterie.privacy.overlaps import UNVERIFIED, Counted
from coterie.privacy.plan import Plan
from coterie.privacy.review.composition import plan_of
from coterie.privacy.review.consents import release_name
from coterie.privacy.review.verdict import Study, Verdict
from coterie.privacy.statement import statement

__all__ = ["statements", "traced"]

_IN_LEDGER = "verified: the ledger of the partner who counted names this release"
_IN_RECORD = "verified: the coordinator's signed record names this release"
_CONTRADICTS = "contradicted: the match's plan has other partners, another noise or another partner who counts"


def traced(counted: Counted, verdicts: Sequence[Verdict]) -> tuple[Counted, str]:
    """Say where counts come from.

    Args:
        counted: The counts, as a file has them.
        verdicts: Reviews of bundles, of the partner who counted or of others of the match.

    Returns:
        The counts with that; and "holds" where their release is in a ledger or a record that does not fail, "fails"
        where they contradict the plan of their match, "open" otherwise.
    """
    sound = [verdict for verdict in verdicts if verdict.status != "fails"]
    plan = next((found for verdict in sound if (found := _plan(verdict, counted.plan)) is not None), None)
    if plan is None:
        return counted, "open"
    named = dataclasses.replace(counted, study=plan.name)
    if not _of_plan(counted, plan):
        return dataclasses.replace(named, checked=_CONTRADICTS), "fails"
    release = release_name(counted.release)
    for verdict in sound:
        if verdict.partner == counted.partner and release in verdict.released.get(counted.plan, frozenset()):
            return dataclasses.replace(named, checked=_IN_LEDGER), "holds"
    for verdict in sound:
        if release in verdict.received.get(counted.plan, {}).get(counted.partner, frozenset()):
            return dataclasses.replace(named, checked=_IN_RECORD), "holds"
    return dataclasses.replace(named, checked=UNVERIFIED), "open"


def statements(verdicts: Sequence[Verdict], counted: Sequence[Counted]) -> list[dict[str, Any]]:
    """Return the statement of every study in bundles, each once, with the counts of customers that its partners share.

    Args:
        verdicts: Reviews.
        counted: As `traced` gave them; counts of other partners than a study's are not told with it.
    """
    told: dict[str, dict[str, Any]] = {}
    for verdict in verdicts:
        for study in verdict.studies:
            plan = plan_of(verdict, study)
            if plan is not None and study.plan not in told:
                told[study.plan] = _statement(verdict, study, plan=plan, counted=counted)
    return list(told.values())


def _statement(verdict: Verdict, study: Study, *, plan: Plan, counted: Sequence[Counted]) -> dict[str, Any]:
    roster = {partner.name for partner in plan.partners}
    overlap = next((one for one in counted if set(one.overlap.names) == roster), None)
    drawn = next((check.status for check in verdict.checks if check.name == "randomness"), "open")
    head = {"name": study.name, "plan": study.plan, "purpose": study.purpose}
    source = "os" if drawn == "holds" else "not known to be secret"
    return head | statement(plan, calibrate(plan), random_source=source, overlap=overlap)


def _plan(verdict: Verdict, digest: str) -> Plan | None:
    return next((plan_of(verdict, study) for study in verdict.studies if study.plan == digest), None)


def _of_plan(counted: Counted, plan: Plan) -> bool:
    """Return whether counts are of a match as the plan has it: by its partners, sets and noise, and who counts."""
    if not plan.matches or plan.matching is None or plan.discloses:
        return False
    try:
        check_overlap(match_terms(plan, rules="any: no count depends on it"), counted.overlap)
    except CoterieError:
        return False
    return counted.partner == (plan.matching.teller or plan.partners[0].name)
