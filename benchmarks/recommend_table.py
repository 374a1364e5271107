"""The results of `recommend.py` as a table for people.

cd benchmarks; python recommend_table.py results/recommend-movies.json > results/recommend-movies.md
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from recommend_settings import FAMILIES

METRICS = ("hr@10 of 99", "ndcg@10 of 99", "hr@10")
SEEDS = 5
EPSILONS = (1.0, 2.0, 4.0, 8.0)
MODES = {
    "secure": "secure aggregation",
    "pooled": "one curator, no margin",
    "local": "local noise",
    "alone": "a partner alone",
}


def cell(rows: list[dict[str, Any]], metric: str) -> str:
    """Return mean and, over several seeds, standard deviation."""
    values = [row[metric] for row in rows]
    if not values:
        return ""
    spread = f" ({statistics.stdev(values):.3f})" if len(values) > 1 else ""
    spread += f" of {len(values)}" if len(values) not in {1, SEEDS} or (len(values) == 1 and rows[0]["epsilon"]) else ""
    return f"{statistics.mean(values):.3f}{spread}"


def chosen(rows: list[dict[str, Any]], family: str, mode: str, epsilon: float) -> list[dict[str, Any]]:
    """Return the rows of one cell."""
    return [row for row in rows if (row["family"], row["mode"], row["epsilon"]) == (family, mode, epsilon)]


def table(rows: list[dict[str, Any]], metric: str, mode: str) -> list[str]:
    """Return a table of one metric under one placement of noise."""
    lines = [f"| {metric} | " + " | ".join(f"epsilon {e:g}" for e in EPSILONS) + " | no privacy |", "|---" * 6 + "|"]
    bare = "alone" if mode == "alone" else "pooled"
    for family in FAMILIES:
        cells = [cell(chosen(rows, family, mode, epsilon), metric) for epsilon in EPSILONS]
        if any(cells):
            none = cell(chosen(rows, family, bare, 0.0), metric)
            lines.append(f"| {family} | " + " | ".join(cells) + f" | {none} |")
    return lines if len(lines) > 2 else []


def main() -> None:
    """Print the tables of one file of results."""
    found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    rows = found["rows"]
    seeds = len({row["seed"] for row in rows})
    print(f"# Recommenders: {found['what']}\n")
    print(
        f"Mean over {seeds} noise seeds, standard deviation in brackets; 'of 1' behind a figure of so many seeds alone."
    )
    print(f"Settings were chosen {found['settings tried']}.")
    print(f"Measured {found['date']} on {found['machine']}, {found['versions']}.")
    for metric in METRICS:
        for mode, words in MODES.items():
            lines = table(rows, metric, mode)
            if lines:
                print(f"\n## {metric}, {words}\n")
                print("\n".join(lines))


if __name__ == "__main__":
    main()
