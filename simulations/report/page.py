"""The page of one study."""

from collections.abc import Mapping, Sequence
from typing import Any

from coterie.simulations.report import decidingpage, figures, matchpage, rankpage, shapepage, tables
from coterie.simulations.report.canvas import Sheet
from coterie.simulations.report.layout import fill, final_round, matches, ranks, report_of
from coterie.simulations.report.palette import OURS
from coterie.simulations.report.wording import counted, decimals, delta, epsilon, percent, plain

__all__ = ["headline", "render"]

_CALIBRATION = ("predicted", "observed", "weight")
_LIFT = ("depth", "lift")


def render(report: Mapping[str, Any]) -> str:
    """Draw a report as one self-contained page.

    Args:
        report: A report of the format coterie/report/v1, simulated or deployed.

    Returns:
        HTML that needs no other file, no script and no network.

    Raises:
        FileFault: The document is of another format.
    """
    held = report_of(report)
    template, of_task = _of_task(held)
    context = {
        "report": held,
        "headline": headline(held),
        "shapes": shapepage.shapes(held["release"]),
        "decisions": decidingpage.decisions(held["release"]),
        "fairness": decidingpage.fairness(held["release"]),
        "guarantee": _guarantee(held["guarantee"]),
        "budgets": _budgets(held),
        "settings": _settings(held),
        **of_task,
    }
    return fill(template, context)


def _of_task(report: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the template of a report's task, and what it shows in its own way."""
    release = report["release"]
    if matches(report):
        shown = (matchpage.keys(report), matchpage.released(release), matchpage.simulated(report))
        template = "matchpage.html"
    elif ranks(report):
        shown = (rankpage.keys(report), rankpage.released(release), rankpage.simulated(report))
        template = "rankpage.html"
    else:
        shown = (_keys(report), _release(release), _simulation(report))
        template = "page.html"
    return template, dict(zip(("keys", "release", "simulation"), shown, strict=True))


def headline(report: Mapping[str, Any]) -> str:
    """Say in one sentence what was released and under which guarantee; it draws on nothing exact.

    Args:
        report: The report.

    Returns:
        The sentence.
    """
    if matches(report):
        return matchpage.headline(report)
    if ranks(report):
        return rankpage.headline(report)
    study, held = report["guarantee"]["study"], report["study"]
    released = decimals(final_round(report).get("auc"))
    who = counted(len(held["partners"]), "partner", many="partners")
    rounds = "one round" if held.get("rounds") == 1 else f"{plain(held.get('rounds'))} rounds"
    return (
        f"{who} trained one model in {rounds}; it releases an AUC of {released} "
        f"under a guarantee of ε\u00a0=\u00a0{epsilon(study.get('epsilon'))} "
        f"and δ\u00a0=\u00a0{delta(study.get('delta'))}."
    )


def _keys(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name, value and remark of each key figure."""
    study, held = report["guarantee"]["study"], report["study"]
    after = plain(final_round(report).get("round"))
    return [
        ("Private AUC released", decimals(final_round(report).get("auc")), f"noisy, after round {after}"),
        ("ε of the study", epsilon(study.get("epsilon")), f"δ = {delta(study.get('delta'))}"),
        ("Unit protected", plain(study.get("unit")), plain(study.get("relation"))),
        ("Partners", str(len(held["partners"])), f"threshold {plain(held.get('threshold'))}"),
        ("Rounds", plain(held.get("rounds")), f"{plain(held.get('local_steps'))} local steps each"),
    ]


def _release(release: Mapping[str, Any]) -> dict[str, Any]:
    # The reader of the released figures sees the private federation alone, so it keeps that model's look.
    calibration = figures.curve(OURS, "released", rows=release["calibration"], names=_CALIBRATION)
    lift = figures.curve(OURS, "released", rows=release["lift"], names=_LIFT)
    first = f" At depth {percent(lift.points[0][0])} it is {decimals(lift.points[0][1], 2)}." if lift.points else ""
    about = "Calibration of the released model: observed against predicted share"
    return {
        "rounds": tables.released_table(release["rounds"]),
        "refusals": tables.refusals_table(release["refusals"]),
        "calibration": figures.calibration_figure(
            [calibration], Sheet("released-calibration", f"{about} in {len(calibration.points)} bins.")
        ),
        "lift": figures.lift_figure(
            [lift],
            Sheet("released-lift", f"Lift of the released model by share of customers contacted.{first}"),
        ),
    }


def _guarantee(guarantee: Mapping[str, Any]) -> dict[str, Any]:
    study = {key: value for key, value in guarantee["study"].items() if key not in ("epsilon", "delta")}
    return {
        "groups": tables.groups_table(guarantee["groups"]),
        "multiplicity": tables.multiplicity_table(guarantee["multiplicity"]),
        "terms": tables.settings_table("Terms of the guarantee", study),
    }


def _budgets(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    planned = report["guarantee"]["study"].get("epsilon")
    return [_budget(entry, planned, name=f"budget-{at}") for at, entry in enumerate(report["budget"], start=1)]


def _budget(entry: Mapping[str, Any], planned: float | None, *, name: str) -> dict[str, Any]:
    last = entry["steps"][-1] if entry["steps"] else {"study_epsilon": 0.0, "lifetime_epsilon": None}
    # A share of the budget's capacity: epsilons at a Rényi order do not add up, capacities do.
    share = min(entry.get("lifetime_share") or 0.0, 1.0)
    alt = (
        f"{entry['partner']} has spent an epsilon of {epsilon(last.get('study_epsilon'))} in the study "
        f"after {len(entry['steps'])} charges; its limit is {epsilon(entry.get('study_epsilon'))}."
    )
    return {
        "entry": entry,
        "figure": figures.budget_figure(entry, planned, sheet=Sheet(name, alt, width=310, height=220)),
        "spent": last,
        "share": f"{100 * share:.1f}",
        "runs": _runs(entry.get("runs_left")),
        "steps": tables.steps_table(entry),
    }


def _runs(left: float | None) -> str:
    if left is None:
        return "How many more runs like this it carries is not known."
    amount = {0: "no more run", 1: "one more run"}.get(int(left), f"{int(left)} more runs")
    return f"It carries {amount} like this."


def _simulation(report: Mapping[str, Any]) -> dict[str, Any] | None:
    if report.get("simulation") is None:
        return None
    held = report["simulation"]
    models: Sequence[Mapping[str, Any]] = held["models"]
    alt = "Mean AUC of each model with its 95 % interval; the table below gives every figure."
    ends = [{**model, "mean": model["metrics"]["auc"]["mean"]} for model in models]
    return {
        "verdict": held["verdict"],
        "legend": models,
        "models": tables.models_table(models),
        "seeds": tables.seeds_table(report["made"]["seeds"], models),
        "partners": tables.partners_table(held["partners"], models),
        "comparison": figures.models_figure([("", models)], Sheet("models", alt)),
        "rounds": figures.rounds_figure(
            held["rounds"], ends, sheet=Sheet("rounds", "Exact AUC of the private federation by round.")
        ),
        "calibration": figures.calibration_figure(
            _curves(held, "calibration", names=_CALIBRATION),
            Sheet("calibration", "Calibration of every model: observed against predicted share."),
        ),
        "lift": figures.lift_figure(
            _curves(held, "lift", names=_LIFT),
            Sheet("lift", "Lift of every model by share of customers contacted."),
        ),
    }


def _curves(held: Mapping[str, Any], kind: str, *, names: Sequence[str]) -> list[figures.Curve]:
    return [
        figures.curve(model["key"], model["title"], rows=held[kind].get(model["key"], []), names=names)
        for model in held["models"]
    ]


def _settings(report: Mapping[str, Any]) -> dict[str, Any]:
    shown = {key: value for key, value in report["study"].items() if key not in ("partners", "name", "purpose")}
    made = {key: value for key, value in report["made"].items() if key != "versions"}
    digests = {entry["partner"]: entry.get("policy_digest") for entry in report["budget"]}
    return {
        "plan": tables.settings_table("The signed plan", shown),
        "made": tables.settings_table("How the study was run", made),
        "partners": tables.declared_table(report["study"]["partners"], digests),
        "versions": tables.versions_table(report["made"].get("versions") or {}),
        "model": tables.settings_table("The released model", report["model"]) if report.get("model") else None,
    }
