"""From a study's published model to the shapes that a report shows: the model itself, told whole.

The form is `docs/formats/report.md`. All of it follows from what was released, and costs nothing more.
"""

from typing import Any

from coterie.clients.explaining import explained
from coterie.models.propensity import Weights
from coterie.models.shapes import PairShape, Shape
from coterie.privacy.plan import Plan

__all__ = ["shaped"]


def shaped(plan: Plan, weights: Weights) -> dict[str, Any]:
    """Return the key of a report's "release" that tells the model whole, or nothing where its weights do not.

    Args:
        plan: Of the study.
        weights: Of its published model.
    """
    found = explained(plan, weights)
    if found is None:
        return {}
    spacing = {column.name: "edges" if column.edges else column.spacing for column in plan.contract.features}
    return {
        "shapes": {
            "intercept": found.intercept,
            "customers": sum(partner.customers for partner in plan.partners),
            "columns": [{**_column(shape), "spacing": spacing.get(shape.name, "even")} for shape in found.shapes],
            "pairs": [_pair(pair) for pair in found.pairs],
        }
    }


def _column(shape: Shape) -> dict[str, Any]:
    points = [
        {
            "kind": point.kind,
            "label": point.label,
            "low": point.low,
            "high": point.high,
            "share": point.share,
            "contribution": point.contribution,
            "noise": point.noise,
            "noise_most": point.noise_most,
            "sampling": point.sampling,
        }
        for point in shape.points
    ]
    return {
        "name": shape.name,
        "kind": shape.kind,
        "trend": shape.trend,
        "importance": shape.importance,
        "points": points,
    }


def _pair(pair: PairShape) -> dict[str, Any]:
    return {
        "names": list(pair.names),
        "groups": [list(texts) for texts in pair.groups],
        "importance": pair.importance,
        "share": pair.share.tolist(),
        "contribution": pair.contribution.tolist(),
        "noise": None if pair.noise is None else pair.noise.tolist(),
        "noise_most": None if pair.noise_most is None else pair.noise_most.tolist(),
        "sampling": pair.sampling.tolist(),
    }
