"""How figures are written on a page; whatever is not known is an en dash."""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from markupsafe import Markup

__all__ = [
    "METRICS",
    "MISSING",
    "RELEASED",
    "RELEASED_RANKS",
    "article",
    "count",
    "counted",
    "decimals",
    "delta",
    "difference",
    "digest",
    "epsilon",
    "held_out",
    "interval",
    "label",
    "metric",
    "percent",
    "plain",
]

MISSING = "\u2013"
METRICS = {
    "auc": "AUC",
    "average_precision": "Average precision",
    "log_loss": "Log loss",
    "top_decile_lift": "Top-decile lift",
    "calibration_error": "Calibration error",
    "hr@10 of 99": "HR@10 of 99",
    "ndcg@10 of 99": "NDCG@10 of 99",
    "hr@10": "HR@10",
    "hr@20": "HR@20",
    "ndcg@10": "NDCG@10",
    "ndcg@20": "NDCG@20",
    "mrr": "MRR",
    "coverage": "Coverage@10",
    "novelty": "Novelty@10, bits",
    "gini": "Gini@10",
}
RELEASED = ("auc", "average_precision", "top_decile_lift", "calibration_error")
RELEASED_RANKS = ("hr@10 of 99", "hr@10", "hr@20", "ndcg@10", "mrr")

_NUMBERS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")
_MINUS = "\u2212"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_LABELS = {
    "at": "Made at",
    "clip": "Clipping norm",
    "digest": "Plan digest",
    "sha256": "SHA-256",
    "seconds": "Seconds taken",
    "study_epsilon": "Study ε",
    "lifetime_epsilon": "Lifetime ε",
    "epsilon": "ε",
    "delta": "δ",
}


def _known(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def decimals(value: object, places: int = 3) -> str:
    """Write a figure with a fixed number of decimals and a true minus sign.

    Args:
        value: The figure; anything else is unknown.
        places: How many decimals.

    Returns:
        The figure as text.
    """
    return f"{value:.{places}f}".replace("-", _MINUS) if _known(value) else MISSING


def metric(name: str, value: object) -> str:
    """Write a metric: two decimals for a lift, which is a multiple, and three for the rest.

    Args:
        name: Name of the metric.
        value: The figure.

    Returns:
        The figure as text.
    """
    return decimals(value, 2 if name.endswith("lift") else 3)


def percent(value: object) -> str:
    """Write a share as a percentage, without a fraction where it has none."""
    if not _known(value):
        return MISSING
    return f"{100 * value:.1f}".removesuffix(".0") + " %"


def count(value: object) -> str:
    """Write a count with thin spaces between its thousands."""
    return f"{value:,.0f}".replace(",", "\u202f") if _known(value) else MISSING


def counted(number: int, one: str, *, many: str) -> str:
    """Begin a sentence with a number of things, in words up to ten.

    Args:
        number: How many there are.
        one: Their name in the singular.
        many: And in the plural.

    Returns:
        For example `Three partners`.
    """
    written = _NUMBERS[number] if number < len(_NUMBERS) else str(number)
    return f"{written} {one if number == 1 else many}"


def epsilon(value: object) -> str:
    """Write an epsilon: two decimals from one upwards, three below."""
    return decimals(value, 2 if _known(value) and value >= 1 else 3)


def delta(value: object) -> str:
    """Write a delta as a multiple of a power of ten."""
    if not _known(value) or value < 0:
        return MISSING
    if value == 0:
        return "0"
    mantissa, power = f"{value:.1e}".split("e")
    ten = "10" + str(int(power)).translate(_SUPERSCRIPTS)
    return ten if mantissa == "1.0" else f"{mantissa.removesuffix('.0')} \u00d7 {ten}"


def difference(left: object, right: object, *, write: Callable[[object], str] = decimals) -> str:
    """Write how far the right figure lies above the left one, signed.

    Args:
        left: A figure.
        right: Another.
        write: Writes the distance.

    Returns:
        The difference as text.
    """
    if not (_known(left) and _known(right)):
        return MISSING
    gap = right - left
    return ("+" if gap > 0 else _MINUS if gap < 0 else "") + write(abs(gap))


def digest(value: object) -> str:
    """Write a digest or a file name so that its characters are told apart."""
    return Markup("<code>{}</code>").format(value) if value else MISSING


def interval(name: str, figure: Mapping[str, Any] | None) -> Markup:
    """Write a mean with its interval beneath it.

    Args:
        name: Name of the metric, which settles the decimals.
        figure: The figure's mean, low and high; None where the model has no such figure.

    Returns:
        A table cell's content.
    """
    held = figure or {}
    low, high = held.get("low"), held.get("high")
    known = _known(low) and _known(high)
    span = f"{metric(name, low)} to {metric(name, high)}" if known else MISSING
    return Markup('{} <span class="interval">{}</span>').format(metric(name, held.get("mean")), span)


def label(key: str) -> str:
    """Name a key of the report for a reader."""
    text = key.replace("_", " ")
    return METRICS.get(key) or _LABELS.get(key) or text[:1].upper() + text[1:]


def article(name: str) -> str:
    """Write a metric's name behind its article, as in "an AUC"; all main metrics begin with a vowel when spoken."""
    return f"an {label(name)}"


def held_out(name: str) -> str:
    """Say what a metric is found on."""
    return "held-out items" if name in RELEASED_RANKS else "held-out customers"


def plain(value: object) -> str:
    """Write a setting of any JSON type as text."""
    if value is None or value in ("", [], {}):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(entry)}" for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(entry) for entry in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
