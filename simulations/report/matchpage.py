"""What the page of a study that matches customers shows where that of a propensity study shows calibration and lift.

Its pictures are those of the overlap page (`overlaps.py`); the guarantee, the budgets and the record are every study's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from coterie.privacy.matching.overlap import Estimate, Overlap
from coterie.privacy.overlaps import shares
from coterie.simulations.report import tables
from coterie.simulations.report.drawing import counted as told_count
from coterie.simulations.report.layout import Table
from coterie.simulations.report.overlaps import overlap_svg
from coterie.simulations.report.upset import multiplicity_bars, pairs_matrix
from coterie.simulations.report.wording import MISSING, counted, decimals, delta, epsilon, percent, plain

__all__ = ["headline", "keys", "released", "simulated"]

_KINDS = {"email": "e-mail address", "phone": "phone number", "loyalty": "loyalty number"}
_CAPTIONS = {
    "multiplicity": "Customers of exactly so many partners",
    "cells": "Customers of exactly these partners, and of no other",
    "totals": "All customers of each partner",
    "pairs": "Customers of both partners, whoever else has them",
}


def headline(report: Mapping[str, Any]) -> str:
    """Say in one sentence what was released and under which guarantee; it draws on nothing exact.

    Args:
        report: The report.

    Returns:
        The sentence.
    """
    study, held = report["guarantee"]["study"], report["study"]
    who = counted(len(held["partners"]), "partner", many="partners")
    share, by = _several(_overlap(report)), _KINDS.get(str(held.get("identifier")), "identifier")
    found = "how few customers they share" if share is None else f"that {percent(share)} of people are shared"
    bound = f"ε\u00a0=\u00a0{epsilon(study.get('epsilon'))} and δ\u00a0=\u00a0{delta(study.get('delta'))}"
    return f"{who} matched their customers by {by}, and learnt {found}: an estimate under a guarantee of {bound}."


def keys(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, value and remark of each key figure."""
    study, overlap = report["guarantee"]["study"], _overlap(report)
    told = sum(one.customers is not None for one in overlap.cells)
    return [
        ("Of two partners or more", percent(_several(overlap)), "estimated share of all persons"),
        ("ε of the study", epsilon(study.get("epsilon")), f"δ = {delta(study.get('delta'))}"),
        ("Unit protected", plain(study.get("unit")), plain(study.get("relation"))),
        ("Partners", str(len(overlap.names)), "a match needs all of them"),
        ("Sets told", f"{told} of {len(overlap.cells)}", f"none below {overlap.least:,} with its noise"),
    ]


def released(release: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the charged counts are shown by."""
    overlap = Overlap.from_dict(release["overlap"])
    ordered = sorted(overlap.cells, key=lambda one: -1 if one.customers is None else -one.customers)
    known = [one for one in ordered if one.customers is not None]
    rows = [[_who(one), told_count(one, overlap.least), decimals(one.deviation, 1)] for one in known]
    caption = f"{_CAPTIONS['cells']}: {len(known)} of {len(ordered)} sets, the others being below {overlap.least:,}"
    return {
        "picture": Markup(overlap_svg(overlap)),  # noqa: S704 - drawn in this package, names escaped
        "circles": len(overlap.names) <= 3,
        "multiplicity": multiplicity_bars(overlap, shares(overlap)),
        "pairs": pairs_matrix(overlap),
        "cells": Table(caption, ["Partners", "Customers", "Noise, one deviation"], rows, empty="None is told."),
        "refusals": tables.refusals_table(release["refusals"]),
    }


def simulated(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the exact counts are shown by; None where there are none."""
    held = report.get("simulation")
    if held is None:
        return None
    overlap = _overlap(report)
    shown = {
        name: _beside(caption, getattr(overlap, name), held["exact"][name], overlap.least)
        for name, caption in _CAPTIONS.items()
    }
    return {"verdict": held["verdict"], **shown}


def _overlap(report: Mapping[str, Any]) -> Overlap:
    return Overlap.from_dict(report["release"]["overlap"])


def _several(overlap: Overlap) -> float | None:
    """Return the estimated share of persons who are customers of two partners or more; None where none is told."""
    known = [share for share in shares(overlap)[1:] if share is not None]
    return sum(known) if known else None


def _beside(caption: str, noisy: Sequence[Estimate], exact: Sequence[Mapping[str, Any]], least: int) -> Table:
    """Return noisy counts, each beside its exact one."""
    rows = []
    for one, truth in zip(noisy, exact, strict=True):
        off = MISSING
        if one.customers is not None:
            off = f"{(one.customers - truth['customers']) / one.deviation:+.1f}".replace("-", "−")
        rows.append([_who(one), f"{truth['customers']:,}", told_count(one, least), off])
    return Table(f"{caption}: exact and noisy", ["Partners", "Exact", "Released", "Off by, in deviations"], rows)


def _who(one: Estimate) -> str:
    return " + ".join(one.partners)
