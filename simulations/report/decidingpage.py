"""What the page of a propensity study says beyond its metrics: what to do with the model, and whom it serves how."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from coterie.simulations.report.canvas import Sheet
from coterie.simulations.report.decidingfigures import group_figure, profit_figure, reach_figure
from coterie.simulations.report.layout import Table
from coterie.simulations.report.wording import MISSING, count, decimals, difference, metric, percent, plain

__all__ = ["decisions", "fairness"]

_FEW = "too few to say"
_FIGURES = {
    "auc": "AUC",
    "calibration": "Observed less predicted",
    "selected": "Selected",
    "reached": "Selected of those that convert",
}
_ABOUT = {
    "auc": "how well the model ranks customers of the group.",
    "calibration": "in percentage points; above zero, more convert than the model says, below fewer.",
    "selected": "share of the group that is contacted.",
    "reached": "share of the group’s conversions that is contacted; equal shares are equal opportunity.",
}
_KINDS = {
    "constant": "Higher scores do not go with more conversions here: as a probability, every score is worth the same.",
    "intercept": "The noise leaves too little to say whether scores are too far apart; only their level is corrected.",
    "none": "The noise leaves too little to correct the scores: take them as ranks, not as probabilities.",
}


def decisions(release: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the section "What to do with it" shows; None in a report without decisions.

    Args:
        release: A report's charged figures.
    """
    held = release.get("decisions")
    if held is None:
        return None
    reach = "Share of conversions reached by share of customers contacted, with its 95 % interval."
    return {
        "correction": _correction(release.get("calibration_fit") or {}),
        "noise": decimals(held["noise"], 1),
        "reach": reach_figure(held["reach"], held["budgets"], Sheet("reach", reach)) if held["reach"] else None,
        "budgets": _budgets(held["budgets"]),
        "profits": _profits(held["profits"]),
        "pictures": [_picture(at, one) for at, one in enumerate(held["profits"], start=1)],
    }


def fairness(release: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the section "Fairness" shows; None in a report whose histograms are not counted by group.

    Args:
        release: A report's charged figures.
    """
    held = release.get("fairness")
    if held is None:
        return None
    groups = held["groups"]
    height = 96 + 34 * len(groups)
    pictures = [
        {
            "title": f"{title}:",
            "about": _ABOUT[name],
            "drawing": group_figure(
                groups, name, Sheet(f"group-{name}", f"{title} by group, with 95 % intervals.", height=height)
            ),
        }
        for name, title in _FIGURES.items()
    ]
    return {
        "column": held["column"],
        "threshold": percent(held["threshold"]),
        "selected": percent(held["selected"]),
        "noise": decimals(held["noise"], 1),
        "pictures": pictures,
        "groups": _groups(groups),
        "gaps": _gaps(held["gaps"]),
    }


def _correction(fitted: Mapping[str, Any]) -> str:
    """Say in a sentence what makes scores probabilities."""
    kind, slope = fitted.get("kind"), fitted.get("slope")
    if kind not in ("platt", "intercept"):
        return _KINDS.get(plain(kind), "")
    shift = difference(0.0, fitted.get("intercept"), write=lambda value: decimals(value, 2))
    beside = f"(± {decimals(fitted.get('intercept_error'), 2)})"
    if kind == "intercept":
        return f"{_KINDS['intercept']} In log-odds, add {shift} {beside} to a score."
    times = f"{decimals(slope, 2)} (± {decimals(fitted.get('slope_error'), 2)})"
    return (
        f"To read a score as a probability, take its log-odds times {times} and add {shift} {beside}; "
        "behind ± is one standard error."
    )


def _budgets(budgets: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            percent(one["share"]),
            _spanned(one["threshold"], percent),
            percent(one["calibrated"]),
            _spanned(one["conversions"], percent),
            _spanned(one["lift"], _lift),
            _spanned(one["rate"], percent),
        ]
        for one in budgets
    ]
    head = [
        "Contacted",
        "Least score",
        "That score, corrected",
        "Of all conversions",
        "Lift",
        "Of the contacted convert",
    ]
    return Table("Whom to contact, by budget", head, rows, words=0, empty="Conversions are lost in the noise.")


def _profits(profits: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            f"{plain(one['ratio'])} contacts",
            _spanned(one["share"], percent),
            _spanned(one["threshold"], percent),
            _spanned(one["profit"], _signed),
        ]
        for one in profits
    ]
    head = ["A conversion is worth", "Contact", "Least score", "Profit per customer"]
    return Table("Where it pays best", head, rows, empty="Conversions are lost in the noise.")


def _picture(at: int, one: Mapping[str, Any]) -> dict[str, Any]:
    worth = f"A conversion is worth {plain(one['ratio'])} contacts:"
    alt = f"Expected profit by share of customers contacted where a conversion is worth {plain(one['ratio'])} contacts."
    return {"title": worth, "drawing": profit_figure(one, Sheet(f"profit-{at}", alt, height=270))}


def _groups(groups: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [one["group"], count(one["customers"])]
        + [_spanned(one.get(name), _writer(name), otherwise=_FEW) for name in _FIGURES]
        for one in groups
    ]
    return Table("By group", ["Group", "Customers, noisy", *_FIGURES.values()], rows, empty="No group was counted.")


def _gaps(gaps: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            _FIGURES.get(one["figure"], one["figure"]),
            one["most"],
            one["least"],
            _spanned(one, _gap_writer(one["figure"])),
        ]
        for one in gaps
    ]
    empty = "Fewer than two groups have enough customers to compare."
    return Table("The widest gaps", ["Figure", "Greatest for", "Least for", "Gap"], rows, words=3, empty=empty)


def _spanned(figure: Mapping[str, Any] | None, write: Callable[[object], str], *, otherwise: str = MISSING) -> Markup:
    """Write a figure with its interval beneath it; where there is none, say so."""
    if figure is None:
        return Markup("{}").format(otherwise)
    low, high = figure.get("low"), figure.get("high")
    span = MISSING if low is None or high is None else f"{write(low)} to {write(high)}"
    return Markup('{} <span class="interval">{}</span>').format(write(figure.get("value")), span)


def _writer(figure: str) -> Callable[[object], str]:
    return {"auc": decimals, "calibration": _points}.get(figure, percent)


def _gap_writer(figure: str) -> Callable[[object], str]:
    return decimals if figure == "auc" else _points


def _lift(value: object) -> str:
    return metric("lift", value)


def _signed(value: object) -> str:
    return difference(0.0, value, write=_amount)


def _amount(value: object) -> str:
    small = isinstance(value, float) and value < 1
    return decimals(value, 3 if small else 2)


def _points(value: object) -> str:
    return difference(0.0, value, write=lambda share: percent(share).removesuffix(" %")) + "\u00a0pp"
