"""From a plan to the terms of its match: what the protocol is told, by partners and coordinator alike."""

from coterie.privacy.calibration import calibrate
from coterie.privacy.errors import Fault, PlanFault
from coterie.privacy.matching.terms import MatchTerms
from coterie.privacy.plan import Plan

__all__ = ["match_terms"]


def match_terms(plan: Plan, *, rules: str) -> MatchTerms:
    """Return the terms of a plan's match.

    Args:
        plan: The plan, with its partners' keys.
        rules: Version of the rules that made identifiers canonical; equal at all partners.

    Raises:
        PlanFault: The plan matches nothing, or no reasonable noise keeps its budget.
        MatchFault: The protocol does not protect under such terms.
    """
    matching = plan.matching
    if matching is None:
        raise PlanFault(Fault("plan.matching", "is missing", "give a plan with [matching]"))
    overlap = calibrate(plan).overlap
    return MatchTerms(
        plan=plan.digest(),
        identifier=matching.identifier,
        outcome=matching.outcome,
        epoch=matching.epoch,
        rules=rules,
        most=matching.most,
        least=matching.least,
        size_class=matching.size_class,
        teller=matching.teller or plan.partners[0].name,
        roster=tuple((partner.name, partner.key) for partner in plan.partners),
        sigma=overlap.sigma if overlap is not None else None,
    )
