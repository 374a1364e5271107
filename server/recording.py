"""The record of a study: what was released of it, and from whom, for every partner to keep."""

import numpy as np

from coterie.models import metrics
from coterie.privacy.plan import Plan
from coterie.privacy.record import StudyRecord
from coterie.privacy.release import weights_digest
from coterie.server.rankmetrics import rank_metrics
from coterie.server.registry import Progress

__all__ = ["record_of"]


def record_of(plan: Plan, progress: Progress) -> StudyRecord:
    """Return the record of a plan's study as it stands."""
    receipts = tuple(sorted(progress.receipts))
    said = rank_metrics(plan, progress) if plan.recommends else _metrics(progress)
    if plan.matches:
        said = _shared(progress)
    return StudyRecord(progress.plan, weights_digest(progress.weights), said, receipts)


def _shared(progress: Progress) -> dict[str, float]:
    """Return how many customers each set of partners shares, as released; what is below the plan's least is out."""
    told = {kind: progress.overlap.get(kind, ()) for kind in ("cells", "pairs", "totals", "multiplicity")}
    every = ((kind, one) for kind, found in told.items() for one in found)
    return {
        f"{kind}: {', '.join(one['partners'])}": float(one["customers"])
        for kind, one in every
        if one["customers"] is not None
    }


def _metrics(progress: Progress) -> dict[str, float]:
    """Return what the last charged histograms of scores say of the model."""
    last = max((number for number, by in progress.histograms.items() if by), default=None)
    if last is None:
        return {}
    by_partner = progress.histograms[last]
    counts = metrics.binned_counts(np.sum([by_partner[name] for name in sorted(by_partner)], axis=0))
    return {name: value for name, value in metrics.summary(counts).items() if value is not None}
