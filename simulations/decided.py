"""From a study's last charged histogram to what can be done with the model: calibration, decisions, fairness.

The form is `docs/formats/report.md`. All of it is post-processing of what was charged, and costs nothing more.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.models.calibrating import NONE, Calibration, calibrated, fit
from coterie.models.decisions import Contact, Profit, best_contact, contact, profit_curve
from coterie.models.fairness import Group, review, whole
from coterie.models.influence import Estimate, as_released
from coterie.models.metrics import Counts
from coterie.privacy.plan import Plan
from coterie.server.noises import histogram_noise
from coterie.server.registry import Progress

__all__ = ["decided"]

_BUDGETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
_RATIOS = (5, 10, 20, 50)
_DEPTHS = tuple(step / 20 for step in range(1, 21))
_SELECTED = 0.1  # of all customers, for whom the groups' shares are compared
_UNSTATED = "not stated"


def decided(plan: Plan, progress: Progress) -> dict[str, Any]:
    """Return the keys of a report's "release" that say what to do with the model.

    Args:
        plan: Of the study.
        progress: Its histograms.

    Returns:
        "calibration_fit" and "decisions", and "fairness" where histograms are counted by group; nothing where no
        histogram was released.
    """
    last = max((number for number, by in progress.histograms.items() if by), default=None)
    if last is None:
        return {}
    by_partner = progress.histograms[last]
    histogram = np.sum([by_partner[name] for name in sorted(by_partner)], axis=0)
    noise = histogram_noise(plan, progress, last)
    counts, everybody = as_released(whole(histogram)), noise * math.sqrt(plan.grouped)
    fitted = fit(counts, noise=everybody)
    found = {
        "calibration_fit": _calibration(fitted, noise=everybody),
        "decisions": _decisions(counts, fitted, noise=everybody),
    }
    return found if plan.grouped == 1 else {**found, "fairness": _fairness(plan, histogram, noise=noise)}


def _calibration(fitted: Calibration, *, noise: float) -> dict[str, Any]:
    known = fitted.kind != NONE
    return {
        "kind": fitted.kind,
        "slope": fitted.slope if known else None,
        "intercept": fitted.intercept if known else None,
        "slope_error": fitted.slope_error if known else None,
        "intercept_error": fitted.intercept_error if known else None,
        "noise": noise,
    }


def _decisions(counts: Counts, fitted: Calibration, *, noise: float) -> dict[str, Any]:
    budgets = [contact(counts, share, noise=noise) for share in _BUDGETS]
    depths = [contact(counts, share, noise=noise) for share in _DEPTHS]
    profits = [_profit(counts, ratio, noise=noise) for ratio in _RATIOS]
    return {
        "noise": noise,
        "budgets": [_budget(one, fitted) for one in budgets if one is not None],
        "reach": [
            [one.share, one.conversions.value, one.conversions.low, one.conversions.high]
            for one in depths
            if one is not None
        ],
        "profits": [one for one in profits if one is not None],
    }


def _budget(one: Contact, fitted: Calibration) -> dict[str, Any]:
    worth = calibrated(np.array([one.threshold.value]), fitted)
    return {
        "share": one.share,
        "threshold": _scored(one.threshold),
        "calibrated": None if fitted.kind == NONE else _score(float(worth[0])),
        "conversions": _spanned(one.conversions),
        "lift": _spanned(one.lift),
        "rate": _spanned(one.rate),
    }


def _profit(counts: Counts, ratio: float, *, noise: float) -> dict[str, Any] | None:
    """Return where it pays best when a conversion is worth so many times a contact, and the curve around it."""
    best = best_contact(counts, ratio, cost=1.0, noise=noise)
    if best is None:
        return None
    curve: tuple[Profit, ...] = profit_curve(counts, ratio, cost=1.0, noise=noise)
    return {
        "ratio": ratio,
        "threshold": _scored(best.threshold),
        "share": _spanned(best.share),
        "profit": _spanned(best.profit),
        "curve": [[one.share.value, one.profit.value, one.profit.low, one.profit.high] for one in reversed(curve)],
    }


def _fairness(plan: Plan, histogram: NDArray[np.generic], *, noise: float) -> dict[str, Any]:
    column = next(column for column in plan.contract.columns if column.name == plan.metrics.groups)
    everybody = as_released(whole(histogram))
    cut = contact(everybody, _SELECTED, noise=noise * math.sqrt(plan.grouped))
    # Where conversions are lost in the noise, so is a budget's threshold; an even chance is one that needs no counts.
    threshold = 0.0 if cut is None else cut.threshold.value
    found = review(histogram, (*column.values, _UNSTATED), threshold=threshold, noise=noise)
    return {
        "column": column.name,
        "selected": None if cut is None else _SELECTED,
        "threshold": _score(threshold),
        "noise": noise,
        "groups": [_group(one) for one in found.groups],
        "gaps": [{"figure": g.figure, "most": g.most, "least": g.least, **_spanned(g.gap)} for g in found.gaps],
    }


def _group(one: Group) -> dict[str, Any]:
    figures: Mapping[str, Estimate | None] = {
        "auc": one.auc,
        "calibration": one.calibration,
        "selected": one.selected,
        "reached": one.reached,
    }
    told = {name: None if figure is None else _spanned(figure) for name, figure in figures.items()}
    return {"group": one.name, "customers": one.customers, **told}


def _spanned(one: Estimate) -> dict[str, float]:
    return {"value": one.value, "low": one.low, "high": one.high}


def _scored(one: Estimate) -> dict[str, float]:
    """Return a threshold in log-odds as scores: 0 for everybody, 1 for nobody."""
    return {"value": _score(one.value), "low": _score(one.low), "high": _score(one.high)}


def _score(odds: float) -> float:
    return float(np.exp(-np.logaddexp(0.0, -odds)))
