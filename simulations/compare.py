"""Two reports side by side, as rows."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coterie.privacy.errors import Fault, FileFault

__all__ = ["compared", "load_report"]


def load_report(path: Path) -> dict[str, Any]:
    """Read a report from a run's folder or from its file.

    Raises:
        FileFault: There is none, or it is of another format.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if report["format"] != "coterie/report/v1":
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise FileFault(
            Fault(str(file), "is not a report of format coterie/report/v1", "give the folder of a finished run")
        ) from None
    return report


def compared(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per model and metric that both reports have; differences are the second less the first."""
    others = {model["key"]: model["metrics"] for model in second.get("simulation", {}).get("models", [])}
    rows = []
    for model in first.get("simulation", {}).get("models", []):
        for metric, figure in model["metrics"].items():
            other = others.get(model["key"], {}).get(metric)
            if other is not None and figure["mean"] is not None and other["mean"] is not None:
                difference = other["mean"] - figure["mean"]
                row = {"model": model["key"], "metric": metric, "first": figure, "second": other}
                rows.append({**row, "difference": difference})
    return rows
