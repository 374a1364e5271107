"""The model card: what a model is for, how well it does, and what its training cost, as Markdown."""

from collections.abc import Mapping
from typing import Any

__all__ = ["model_card"]


def model_card(report: Mapping[str, Any]) -> str:
    """Write the card of a study's model from its report.

    Args:
        report: In the form of `docs/formats/report.md`; only charged figures are used.
    """
    study, bound = report["study"], report["guarantee"]["study"]
    last = report["release"]["rounds"][-1] if report["release"]["rounds"] else {}
    epsilon = "none" if bound["epsilon"] is None else f"{bound['epsilon']:.3g}"
    lines = [
        f"# Model card: {study['name']}",
        "",
        f"- **For**: {study['purpose']} ({study['task']}); nothing else was consented to.",
        f"- **Model**: {study['family']}, file `{report['model']['file']}`, sha256 `{report['model']['sha256']}`.",
        f"- **Plan**: `{study['digest']}`, valid until {study['expires']}.",
        f"- **Trained by**: {len(study['partners'])} partners over {_rounds(study['rounds'])}; no row left any of "
        "them.",
        f"- **Guarantee**: epsilon {epsilon} at delta {bound['delta']:g} per {bound['unit']} ({bound['relation']}), "
        f"trust {bound['trust']}, by {bound['accountant']}.",
        "",
        "## How well it does",
        "",
        _HOW[study["task"]],
        "",
        "| metric | value |",
        "|---|---|",
        *(f"| {name} | {_figure(value)} |" for name, value in _measured(study["task"], last)),
        "",
        *_said(report["release"].get("shapes")),
        "## What the guarantee means",
        "",
        *(f"- {sentence}" for sentence in report["guarantee"]["words"]),
        "",
        "## What it does not cover",
        "",
        *(f"- {sentence}" for sentence in report["guarantee"]["not_covered"]),
        "",
        "## Before use",
        "",
        *(f"- {sentence}" for sentence in _USE[study["task"]]),
        "",
    ]
    return "\n".join(lines)


_METRICS = {
    "propensity": ("auc", "average_precision", "top_decile_lift", "calibration_error"),
    "recommendation": ("hr@10 of 99", "hr@10", "hr@20", "ndcg@10", "mrr"),
}
_HOW = {
    "propensity": "Computed from noisy histograms of held-out customers, which were paid for from the same budget.",
    "recommendation": "Computed from noisy counts of the places of held-out customers' last items, which were paid for "
    "from the same budget. What is most popular is the floor.",
}
_USE = {
    "propensity": (
        "The score ranks customers; decisions with legal or similarly significant effect need a human.",
        "Check calibration and fairness on your own customers: noise weighs most on small groups.",
    ),
    "recommendation": (
        "Scores rank items for a customer from its own history, at its partner; they are no probabilities.",
        "Lists and reasons say something of a customer's history to whoever sees them: show them to that customer.",
        "Where the model is not clearly above the floor, recommend what is most popular.",
        "Check which items and which customers are served less: rare items are lost in noise first.",
    ),
}


def _measured(task: str, last: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return names and values of what was released; of a recommender with the floor's beside."""
    found = [(name, last.get(name)) for name in _METRICS[task]]
    floor = last.get("floor") or {}
    return found + [(f"{name} of what is most popular", floor[name]) for name in _METRICS[task] if name in floor]


_TOP = 8
_SHARE = 0.01  # of customers: what fewer have says little of a column


def _said(shapes: Mapping[str, Any] | None) -> list[str]:
    """Return what a model that can be told whole says of its most important columns."""
    if shapes is None:
        return []
    rows = [
        f"| {_cell(column['name'])} | {column['importance']:.2f} | {_direction(column)} |"
        for column in shapes["columns"][:_TOP]
    ]
    return [
        "## What it says",
        "",
        "What a column adds to the log-odds, less its average: the model is the sum. It says what goes with the "
        "outcome, and nothing of what causes it.",
        "",
        "| column | adds on average, up or down | in which direction |",
        "|---|---|---|",
        *rows,
        "",
    ]


def _direction(column: Mapping[str, Any]) -> str:
    """Say where a column adds most and least, among what is clear of the noise."""
    frequent = [point for point in column["points"] if point["share"] >= _SHARE]
    most = max(frequent, key=lambda point: point["contribution"] - _unsure(point), default=None)
    others = [point for point in frequent if point is not most]
    least = min(others, key=lambda point: point["contribution"] + _unsure(point), default=None)
    ends = [
        f"{word} for {_cell(point['label'])} ({point['contribution']:+.2f})"
        for word, point in (("most", most), ("least", least))
        if point is not None and abs(point["contribution"]) > _unsure(point)
    ]
    trend = {1: "may only rise; ", -1: "may only fall; "}.get(column["trend"], "")
    return trend + ("; ".join(ends) or "lost in the noise")


def _unsure(point: Mapping[str, Any]) -> float:
    """Return two standard deviations of the most noise that there may be in a contribution."""
    return 2.0 * (point["noise_most"] or 0.0)


def _cell(text: str) -> str:
    """Write a name so that it stays in its cell of a Markdown table."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())


def _rounds(count: int) -> str:
    return "1 round" if count == 1 else f"{count} rounds"


def _figure(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "-"
