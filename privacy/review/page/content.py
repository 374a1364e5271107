"""What the page says of one partner, made ready for its template."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coterie.privacy.plan import MATCHING
from coterie.privacy.review.explain import explain
from coterie.privacy.review.facts import facts
from coterie.privacy.review.page.figures import Bar, Line, burn_down, timeline
from coterie.privacy.review.page.outlook import Outlook, Row, in_order
from coterie.privacy.review.page.wording import day, instant, visible
from coterie.privacy.review.proofs import Proof
from coterie.privacy.review.verdict import Model, Point, Verdict
from coterie.privacy.review.verify import CANNOT_PROVE

__all__ = ["BY_HAND", "MOST", "Reviewed", "content_of"]

MOST = 100
"""Rows of a table, and studies in a figure."""
_FIGURES = 12  # budgets drawn
_FACTS = 12  # studies whose facts are told
_NO_LIMIT = 1e9  # stands for an infinite share where only plain JSON numbers pass

BY_HAND = r"""import hashlib, sys

def sha256(data):
    return hashlib.sha256(data).digest()

bundle, number, path = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
lines = [line for line in open(bundle, "rb") if line.startswith(b'{"entry":')]
value = sha256(b"\x00coterie/entry/v2\n" + lines[number - 1][len(b'{"entry":'):-76])
print("leaf", value.hex())
for step in path:
    other = bytes.fromhex(step[1:])
    value = sha256(b"\x01" + (other + value if step[0] == "L" else value + other))
print("root", value.hex())
"""
"""A whole program that follows an inclusion proof, and needs nothing of this package."""


@dataclass(frozen=True)
class Reviewed:
    """One bundle and what is to be shown of it.

    Args:
        verdict: What its review found.
        proofs: Of its entries.
        outlook: What further studies would take; None where it was not worked out.
        file: SHA-256 of the bundle in hexadecimal, or empty.
        working: Whether the outlook is being worked out.
    """

    verdict: Verdict
    proofs: tuple[Proof, ...] = ()
    outlook: Outlook | None = None
    file: str = ""
    working: bool = False


def content_of(reviewed: Reviewed, number: int) -> dict[str, Any]:
    """Return the template's variables for one partner, the `number`th on the page."""
    verdict, name = reviewed.verdict, f"p{number}"
    spans, models = _spans(verdict), _models(verdict)
    return {
        "id": name,
        "v": verdict,
        "file": reviewed.file,
        "working": reviewed.working,
        "cosigned": max((size for size, _, _ in verdict.cosigned), default=0),
        "tree": next((check.status for check in verdict.checks if check.name == "tree"), "open"),
        "names": {study.plan: study.name for study in verdict.studies},
        "proofs": reviewed.proofs,
        "budgets": in_order(verdict.budgets),
        "shown": {proof.entry for proof in reviewed.proofs},
        "spans": spans,
        "charges": _thinned(verdict.points),
        "refusals": verdict.refusals[-MOST:],
        "erasures": verdict.at_rest.erasures[-MOST:],
        "disclosures": verdict.disclosures[-MOST:],
        "matched": [study for study in verdict.studies[-MOST:] if study.matched is not None],
        "models": models[-MOST:],
        "received": len(models),
        "figures": _figures(verdict, spans, name),
        "timeline": _timeline(verdict, name),
        "outlook": _outlook(reviewed.outlook) if reviewed.outlook else None,
        "metrics": sorted({name for model in models[-MOST:] for name, _ in model.metrics}),
        "studies": verdict.studies[-MOST:],
        "sections": [section for section in explain(verdict) if section.paragraphs != CANNOT_PROVE],
        "facts": {study.plan: facts(verdict, study) for study in verdict.studies[-_FACTS:]},
    }


def _models(verdict: Verdict) -> tuple[Model, ...]:
    """Return the models that were received: a match ends with a record, and makes none."""
    return tuple(one for one in verdict.models if verdict.plans.get(one.plan, {}).get("task") != MATCHING)


def _spans(verdict: Verdict) -> dict[str, str]:
    """Return what each span is called: those of the policy at the end first, then others that were charged."""
    named = {budget.span: budget.name for budget in in_order(verdict.budgets)}
    for point in verdict.points:
        kind, _, rest = point.span.partition("/")
        told = {"purpose": f"budget of purpose {rest}", "year": f"budget of the year {rest}"}
        named.setdefault(point.span, told.get(kind, "lifetime budget"))
    return named


def _thinned(points: Sequence[Point]) -> tuple[Point, ...]:
    step = max(1, math.ceil(len(points) / MOST))
    kept = tuple(points[::step])
    return kept if not points or kept[-1] is points[-1] else (*kept, points[-1])


def _figures(verdict: Verdict, spans: Mapping[str, str], name: str) -> list[dict[str, Any]]:
    limits = {budget.span: budget for budget in verdict.budgets}
    ends, places = _axis(verdict)
    figures = []
    for number, (span, title) in enumerate(list(spans.items())[:_FIGURES]):
        groups: dict[str, list[tuple[float, float]]] = {
            budget.group: [] for budget in verdict.budgets if budget.span == span
        }
        for point in verdict.points:
            if point.span == span:
                groups.setdefault(point.group, []).append((places[point.entry], 1 - point.share))
        ordered = sorted(groups.items(), key=lambda item: item[0] != "training")
        lines = [Line(group, tuple(steps)) for group, steps in ordered]
        drawing = burn_down(f"{name}-f{number}", lines, title=f"What was left of the {title}", ends=ends)
        limit = limits.get(span)
        told = {"epsilon": limit.epsilon, "delta": limit.delta} if limit else {"epsilon": None, "delta": None}
        figures.append({"title": f"{title[:1].upper()}{title[1:]}.", "drawing": drawing, **told})
    return figures


def _axis(verdict: Verdict) -> tuple[tuple[str, str], dict[int, float]]:
    """Return what the axis' ends are called, and where on it each charge lies: by time, or by entry without times."""
    points = verdict.points
    first = instant(min((study.at for study in verdict.studies), default=points[0].at if points else ""))
    last = instant(verdict.made)
    times = {point.entry: instant(point.at) for point in points}
    if first is not None and last is not None and last > first and None not in times.values():
        length = (last - first).total_seconds()
        places = {e: (at - first).total_seconds() / length for e, at in times.items() if at is not None}
        if all(0 <= place <= 1 for place in places.values()):
            return (day(first.isoformat()), day(last.isoformat())), places
    return ("entry 1", f"entry {verdict.size}"), {e: e / max(1, verdict.size) for e in times}


def _timeline(verdict: Verdict, name: str) -> str:
    bars = []
    for study in verdict.studies[-MOST:]:
        start, end = instant(study.at), instant(study.expires)
        if start is None:
            continue
        charges = (instant(point.at) for point in verdict.points if point.plan == study.plan)
        models = (instant(model.at) for model in _models(verdict) if model.plan == study.plan)
        bars.append(
            Bar(
                study.name,
                start,
                max(start, end or start),
                tuple(at for at in charges if at is not None),
                tuple(at for at in models if at is not None),
            )
        )
    return timeline(f"{name}-t", bars, title="Studies in time") if bars else ""


def _outlook(found: Outlook) -> dict[str, Any]:
    """Return what the template prints, and the same as JSON for the page's script."""
    plain = [
        {
            "name": visible(row.name),
            "group": visible(row.group),
            "share": min(row.share, _NO_LIMIT),
            "costs": [min(cost, _NO_LIMIT) for cost in row.costs],
        }
        for row in found.rows
    ]
    nearest = min(range(len(found.epsilons)), key=lambda at: abs(found.epsilons[at] - found.own))
    return {
        "study": found.study,
        "purpose": found.purpose,
        "epsilons": found.epsilons,
        "start": nearest,
        "data": json.dumps({"own": found.own, "epsilons": found.epsilons, "rows": plain}),
        "rows": [_row(row) for row in found.rows],
    }


def _row(row: Row) -> dict[str, Any]:
    fits = [max(0, int((1 - row.share) / cost)) if cost > 0 else "any number" for cost in row.costs]
    width = f"{120 * min(1.0, row.share):.1f}"
    return {"name": row.name, "group": row.group, "share": row.share, "costs": row.costs, "fits": fits, "width": width}
