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
        f"- **Trained by**: {len(study['partners'])} partners over {study['rounds']} rounds; no row left any of them.",
        f"- **Guarantee**: epsilon {epsilon} at delta {bound['delta']:g} per {bound['unit']} ({bound['relation']}), "
        f"trust {bound['trust']}, by {bound['accountant']}.",
        "",
        "## How well it does",
        "",
        "Computed from noisy histograms of held-out customers, which were paid for from the same budget.",
        "",
        "| metric | value |",
        "|---|---|",
        *(f"| {name} | {_figure(last.get(name))} |" for name in _METRICS),
        "",
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
        "- The score ranks customers; decisions with legal or similarly significant effect need a human.",
        "- Check calibration and fairness on your own customers: noise weighs most on small groups.",
        "",
    ]
    return "\n".join(lines)


_METRICS = ("auc", "average_precision", "top_decile_lift", "calibration_error")


def _figure(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "-"
