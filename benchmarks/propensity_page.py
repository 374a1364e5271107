"""What was measured of propensity models, as a page, with what was aimed at and whether it was met."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from propensity_data import DATA, DEALT, DELTA, SEEDS, read, study_of
from propensity_settings import NO_PRIVACY, OURS, PEERS, TRIED

__all__ = ["page"]

METRICS = {"auc": "AUC", "ap": "average precision", "brier": "Brier score (less is better)"}
MODES = {
    "pooled": "pooled",
    "zero": "secure aggregation, zero margin",
    "secure": "secure aggregation",
    "local": "local noise",
    "alone": "a partner alone",
}
AIMS = {1.0: (0.913, 0.918), 2.0: (0.917, 0.920), 4.0: (0.919, 0.923)}  # of AUC on Adult: aim, and ambitious
NEAR, GAIN, GAIN_AT = 0.002, 0.015, 1.0  # secure from pooled, and above a partner alone at an epsilon

Row = Mapping[str, Any]
Rows = Sequence[Row]


def page(about: Mapping[str, Any], rows: Rows) -> str:
    """Return the results as a page.

    Args:
        about: Date, machine, versions and seeds.
        rows: A cell's figures each.
    """
    lines = ["# Propensity models beside boosting", "", *_conditions(about), "", *_EXPLAINED.strip().splitlines()]
    dealt = [row for row in rows if row["partners"] == "dealt"]
    natural = [row for row in rows if row["partners"] == "natural"]
    lines += ["", "## Aims, on Adult with equal partners", "", *_aims([row for row in dealt if row["data"] == "adult"])]
    for data in DATA:
        mine = [row for row in dealt if row["data"] == data]
        if mine:
            lines += ["", f"## {_title(data)}", "", *_about(data)]
            for metric, words in METRICS.items():
                lines += ["", *_table(mine, metric, words)]
    if natural:
        lines += ["", "## Natural partners", "", *_NATURAL.strip().splitlines(), "", *_naturals(natural)]
    lines += ["", "## What was tried", "", *(f"- {what}: {said}." for what, said in TRIED.items())]
    lines += ["", "Nothing was chosen on the splits of this page, for any data set."]
    return "\n".join(lines) + "\n"


def _conditions(about: Mapping[str, Any]) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    yield f"`benchmarks/propensity.py`, {about['date']}, {about['machine']}, Python {about['python']}, {versions}."


_EXPLAINED = f"""
Every figure is the mean over {len(SEEDS)} splits (seeds {SEEDS[0]} to {SEEDS[-1]}), four fifths for training and one
held out, with the standard error of that mean behind ±; "of 2" behind it says that so many were run. Splits share
customers, so the error says how far another split would lie, and less than how far other customers would. Privacy is
add/remove of a customer with delta {DELTA:g}, the budget whole for training; "none" has no noise, where it does not
matter who would add it. Everybody has the columns of the study's contract alone, within its bounds.

- **pooled**: one curator has everybody's rows and adds the noise once;
- **secure aggregation, zero margin**: {DEALT} partners whose shares of noise together are the curator's;
- **secure aggregation**: the same with the default margin, T = 4 of 5 partners and one colluder, nobody dropping out;
- **local noise**: each of {DEALT} partners adds all of its noise itself;
- **a partner alone**: its own rows, the same epsilon; the mean over the partners, all judged on all held-out rows.

Sums are those of the product in whole numbers, added up without the masks, which cancel to the last bit. LightGBM and
EBM are without any privacy. DP-EBM (`interpret`) is private for one curator; it knows no federation.
"""

_NATURAL = """
The partners are those of the source, unequal and unlike each other. AUC is among a partner's own held-out customers,
averaged over partners by their number, so that no model gains from telling partners apart; alone, each is judged by its
own model. A person at two partners is two customers.
"""


def _title(data: str) -> str:
    return {
        "adult": "Adult",
        "census": "Census-Income (KDD)",
        "tafeng": "Ta Feng, who comes back",
        "completejourney": "Complete Journey, who answers a coupon",
        "bank": "Bank Marketing, the tenth, without the duration of the call",
    }[data]


def _about(data: str) -> Iterator[str]:
    rows = read(data).rows
    columns = len(study_of(data).contract.features)
    several = f" in {len(rows.labels):,} rows" if len(rows.labels) != rows.customers else ""
    share = float((rows.labels * rows.weights).sum() / rows.customers)
    yield f"{rows.customers:,} customers{several}, {columns} columns, {100 * share:.1f} % with label 1."


def _cell(rows: Rows, metric: str) -> str:
    values = [row[metric] for row in rows]
    if not values:
        return ""
    error = f" ± {statistics.stdev(values) / math.sqrt(len(values)):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{error}" + (f" of {len(values)}" if len(values) != len(SEEDS) else "")


def _chosen(rows: Rows, family: str, mode: str, epsilon: float) -> Rows:
    return [row for row in rows if (row["family"], row["mode"], row["epsilon"]) == (family, mode, epsilon)]


def _lines(rows: Rows, metric: str, epsilons: Sequence[float]) -> Iterator[str]:
    for family in (*OURS, *PEERS[::-1]):
        for mode, words in MODES.items():
            cells = [_cell(_chosen(rows, family, mode, epsilon), metric) for epsilon in epsilons]
            if any(cells):
                yield f"| {family} | {words} | {' | '.join(cells)} |"


def _table(rows: Rows, metric: str, words: str) -> Iterator[str]:
    epsilons = sorted({row["epsilon"] for row in rows} - {NO_PRIVACY})
    yield f"| {words} | | " + " | ".join(f"epsilon {epsilon:g}" for epsilon in epsilons) + " | none |"
    yield "|---" * (len(epsilons) + 3) + "|"
    yield from _lines(rows, metric, [*epsilons, NO_PRIVACY])


def _naturals(rows: Rows) -> Iterator[str]:
    for data in DATA:
        mine = [row for row in rows if row["data"] == data]
        epsilons = sorted({row["epsilon"] for row in mine} - {NO_PRIVACY})
        if mine:
            names = ", ".join(read(data).partners)
            yield f"{_title(data)}: {names}."
            yield ""
            yield "| AUC among a partner's own | | " + " | ".join(f"epsilon {e:g}" for e in epsilons) + " | none |"
            yield "|---" * (len(epsilons) + 3) + "|"
            yield from _lines(mine, "own", [*epsilons, NO_PRIVACY])
            yield ""


def _aims(rows: Rows) -> Iterator[str]:
    for epsilon, (aim, ambitious) in AIMS.items():
        for mode in ("zero", "secure"):
            values = [row["auc"] for row in _chosen(rows, "additive", mode, epsilon)]
            if values:
                mean = statistics.mean(values)
                said = "Met" if mean >= aim else "Missed"
                said += ", the ambitious one too" if mean >= ambitious else ""
                yield (
                    f"- Additive, {MODES[mode]}, epsilon {epsilon:g}: AUC at least {aim:.3f}, ambitious "
                    f"{ambitious:.3f}. {said}: {_cell(_chosen(rows, 'additive', mode, epsilon), 'auc')}."
                )
    for mode in ("zero", "secure"):
        for epsilon in sorted({row["epsilon"] for row in rows} - {NO_PRIVACY}):
            lost = _apart(rows, ("additive", "pooled", epsilon), ("additive", mode, epsilon))
            if lost:
                said = "Met" if statistics.mean(lost) <= NEAR else "Missed"
                yield f"- {MODES[mode]}, epsilon {epsilon:g}: within {NEAR} of pooled. {said}: {_spread(lost)} below."
        gained = _apart(rows, ("additive", mode, GAIN_AT), ("additive", "alone", GAIN_AT))
        if gained:
            said = "Met" if statistics.mean(gained) >= GAIN else "Missed"
            yield (
                f"- {MODES[mode]}, epsilon {GAIN_AT:g}: at least {GAIN} above a partner alone. {said}: "
                f"{_spread(gained)}."
            )
    for epsilon in AIMS:
        ahead = _apart(rows, ("additive", "secure", epsilon), ("dp-ebm", "pooled", epsilon))
        behind = _apart(rows, ("lightgbm", "pooled", NO_PRIVACY), ("additive", "secure", epsilon))
        if ahead and behind:
            yield (
                f"- Additive with secure aggregation at epsilon {epsilon:g} is {_spread(ahead)} above DP-EBM pooled, "
                f"and {_spread(behind)} below LightGBM pooled without privacy, on the same splits."
            )


def _apart(rows: Rows, first: tuple[str, str, float], second: tuple[str, str, float]) -> list[float]:
    """Return by how much the first's AUC is above the second's on each split that both have."""
    held = [{row["seed"]: row["auc"] for row in _chosen(rows, *one)} for one in (first, second)]
    return [held[0][seed] - held[1][seed] for seed in sorted(held[0].keys() & held[1].keys())]


def _spread(values: Sequence[float]) -> str:
    error = f" ± {statistics.stdev(values) / math.sqrt(len(values)):.4f}" if len(values) > 1 else ""
    return f"{round(statistics.mean(values), 4) + 0.0:.4f}{error}"
