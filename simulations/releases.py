"""What a report says was released, by the plan's task."""

from typing import Any

from coterie.privacy.plan import Plan
from coterie.server.registry import Progress
from coterie.simulations.decided import decided
from coterie.simulations.matchtrial import matched_release
from coterie.simulations.rankresults import ranked_release
from coterie.simulations.results import released as propensity_release
from coterie.simulations.shaped import shaped

__all__ = ["released"]


def released(plan: Plan, progress: Progress) -> dict[str, Any]:
    """Return the report's "release" of a finished study: only what left the partners, charged or disclosed."""
    if plan.matches:
        return matched_release(plan, progress)
    if plan.recommends:
        return ranked_release(plan, progress)
    return {**propensity_release(progress), **decided(plan, progress), **shaped(plan, progress.weights)}
