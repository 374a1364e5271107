"""The tables of a study's page."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from coterie.simulations.report.layout import Table
from coterie.simulations.report.palette import swatch
from coterie.simulations.report.wording import (
    METRICS,
    MISSING,
    RELEASED,
    count,
    decimals,
    delta,
    digest,
    epsilon,
    interval,
    label,
    metric,
    percent,
    plain,
)

__all__ = [
    "declared_table",
    "groups_table",
    "models_table",
    "multiplicity_table",
    "named",
    "partners_table",
    "refusals_table",
    "released_table",
    "seeds_table",
    "settings_table",
    "steps_table",
    "versions_table",
]


_CODES = ("card", "digest", "file", "sha256")


def named(model: Mapping[str, Any]) -> Markup:
    """Write a model's title behind its marker."""
    return Markup("{} {}").format(swatch(model["key"]), model["title"])


def released_table(rounds: Sequence[Mapping[str, Any]], names: Sequence[str] = RELEASED) -> Table:
    """Return the charged metrics by round."""
    rows = [
        [plain(entry["round"]), _answered(entry["partners"])] + [metric(name, entry.get(name)) for name in names]
        for entry in rounds
    ]
    head = ["Round", "Partners", *(label(name) for name in names)]
    caption = "Metrics by round, each computed from noisy histograms"
    return Table(caption, head, rows, words=0, empty="No metric was released.")


def refusals_table(refusals: Sequence[Mapping[str, Any]]) -> Table:
    """Return what partners refused."""
    rows = [[plain(refusal.get(name)) for name in ("partner", "step", "round", "code")] for refusal in refusals]
    head = ["Partner", "Step", "Round", "Reason"]
    return Table("Refusals", head, rows, words=4, empty="No partner refused a step.")


def groups_table(groups: Sequence[Mapping[str, Any]]) -> Table:
    """Return the guarantee of each group of customers."""
    rows = [
        [
            label(group["group"]),
            percent(group.get("share")),
            epsilon(group.get("epsilon")),
            delta(group.get("delta")),
        ]
        for group in groups
    ]
    head = ["Group", "Share of ε", "ε", "δ"]
    return Table("The guarantee by group of customers", head, rows, empty="No group was charged.")


def multiplicity_table(entries: Sequence[Mapping[str, Any]]) -> Table:
    """Return the epsilon of a person who is a customer of several partners."""
    rows = [[plain(entry["partners"]), epsilon(entry.get("epsilon"))] for entry in entries]
    caption, head = "A person who is a customer of several partners", ["Partners that know the person", "ε"]
    if any("share" in entry for entry in entries):
        head.append("Estimated share of persons")
        rows = [[*row, percent(entry.get("share"))] for row, entry in zip(rows, entries, strict=True)]
    return Table(caption, head, rows, words=0, empty="Not computed.")


def steps_table(entry: Mapping[str, Any]) -> Table:
    """Return what one partner's ledger was charged, step by step."""
    rows = [
        [
            plain(step["step"]),
            plain(step.get("group")),
            epsilon(step.get("study_epsilon")),
            epsilon(step.get("lifetime_epsilon")),
        ]
        for step in entry["steps"]
    ]
    head = ["Step", "Group", "ε spent in the study", "ε spent in the lifetime"]
    return Table(f"Charges of {entry['partner']}", head, rows, words=2, empty="No step was charged.")


def models_table(
    models: Sequence[Mapping[str, Any]],
    among: Sequence[str] = tuple(METRICS),
    caption: str = "Mean over the seeds, with its 95 % confidence interval",
) -> Table:
    """Return every model's metrics with their intervals."""
    names = [name for name in among if any(name in model["metrics"] for model in models)]
    rows = [[named(model)] + [interval(name, model["metrics"].get(name)) for name in names] for model in models]
    return Table(caption, ["Model", *(label(name) for name in names)], rows)


def partners_table(partners: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Any]]) -> Table:
    """Return every model's AUC on each partner's own held-out customers.

    Args:
        partners: Partner, customers, held-out customers and models' figures.
        models: Key and title of each model.

    Returns:
        The table.
    """
    rows = [
        [partner["partner"], count(partner.get("customers")), count(partner.get("held_out"))]
        + [interval("auc", partner["models"].get(model["key"])) for model in models]
        for partner in partners
    ]
    caption = "AUC on each partner\u2019s own held-out customers, with its 95 % confidence interval"
    return Table(caption, ["Partner", "Customers", "Held out", *(named(model) for model in models)], rows)


def seeds_table(seeds: Sequence[Any], models: Sequence[Mapping[str, Any]], *, name: str = "auc") -> Table:
    """Return one metric of every model by seed.

    Args:
        seeds: The study's seeds.
        models: The models with their metrics.
        name: Of the metric.

    Returns:
        The table.
    """
    held = [model["metrics"].get(name, {}).get("seeds") or [] for model in models]
    rows = [
        [plain(seed)] + [decimals(values[at]) if at < len(values) else MISSING for values in held]
        for at, seed in enumerate(seeds)
    ]
    return Table(f"{label(name)} by seed", ["Seed", *(named(model) for model in models)], rows, empty="No seeds.")


def settings_table(caption: str, settings: Mapping[str, Any]) -> Table:
    """Return settings by name; nested ones are written on one line.

    Args:
        caption: What the table shows.
        settings: Any part of a report.

    Returns:
        The table.
    """
    rows = [[label(key), digest(value) if key in _CODES else plain(value)] for key, value in settings.items()]
    return Table(caption, ["Setting", "Value"], rows, words=2)


def declared_table(partners: Sequence[Mapping[str, Any]], digests: Mapping[str, Any]) -> Table:
    """Return what the partners declared, and the policy that each of them signed.

    Args:
        partners: Name and declared customers.
        digests: Policy digest by partner.

    Returns:
        The table.
    """
    rows = [
        [partner["name"], digest(digests.get(partner["name"])), count(partner.get("declared_customers"))]
        for partner in partners
    ]
    head = ["Partner", "Policy digest", "Customers declared"]
    return Table("Partners and their policies", head, rows, words=2)


def versions_table(versions: Mapping[str, Any]) -> Table:
    """Return the versions of the packages that the study ran with."""
    rows = [[name, plain(version)] for name, version in sorted(versions.items())]
    return Table("Versions", ["Package", "Version"], rows, words=2, empty="Not recorded.")


def _answered(partners: object) -> str:
    """Write how many partners answered, whether they are counted or listed."""
    return str(len(partners)) if isinstance(partners, (list, tuple)) else plain(partners)
