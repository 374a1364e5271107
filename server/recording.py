"""The record of a study: what was released of it, and from whom, for every partner to keep."""

import math

import numpy as np

from coterie.models import metrics
from coterie.models.calibrating import NONE, fit
from coterie.models.fairness import whole
from coterie.models.influence import as_released
from coterie.privacy.plan import Plan
from coterie.privacy.record import StudyRecord
from coterie.privacy.release import weights_digest
from coterie.server.noises import histogram_noise
from coterie.server.rankmetrics import rank_metrics
from coterie.server.registry import Progress

__all__ = ["record_of"]


def record_of(plan: Plan, progress: Progress) -> StudyRecord:
    """Return the record of a plan's study as it stands."""
    receipts = tuple(sorted(progress.receipts))
    if plan.matches:
        said = _shared(progress)
    else:
        said = rank_metrics(plan, progress) if plan.recommends else _metrics(plan, progress)
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


def _metrics(plan: Plan, progress: Progress) -> dict[str, float]:
    """Return what the last charged histograms of scores say of the model, and how its scores are to be calibrated."""
    last = max((number for number, by in progress.histograms.items() if by), default=None)
    if last is None:
        return {}
    by_partner = progress.histograms[last]
    histogram = np.sum([by_partner[name] for name in sorted(by_partner)], axis=0)
    said = metrics.summary(metrics.binned_counts(histogram))
    # Everybody's counts hold the noise of every group. As they were released they are not biased; cut at 0 they are.
    noise = histogram_noise(plan, progress, last) * math.sqrt(plan.grouped)
    fitted = fit(as_released(whole(histogram)), noise=noise)
    if fitted.kind != NONE:
        said |= {"calibration_slope": fitted.slope, "calibration_intercept": fitted.intercept}
    return {name: value for name, value in said.items() if value is not None}
