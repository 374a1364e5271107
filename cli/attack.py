"""`coterie audit attack`: try to refute what this build claims."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from coterie.cli.show import console, print_table

if TYPE_CHECKING:
    from coterie.simulations.attacks.audit import AttackReport

__all__ = ["attack"]

_TASKS = typer.Option("--task", help="What to attack: propensity, bins, recommendation or all.")
_CANARIES = typer.Option(min=100, max=200_000, help="Customers made to be seen, for each epsilon.")


def attack(
    epsilon: Annotated[str, typer.Option(help="Claims to attack, separated by commas.")] = "0.5,1,1.5",
    canaries: Annotated[int, _CANARIES] = 16_000,
    task: Annotated[str, _TASKS] = "all",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Attack this build's own private training; exit with 1 if a claim or a check does not hold.

    Example: coterie audit attack --epsilon 1 --task bins
    """
    import torch

    from coterie.privacy.randomness import OsSource
    from coterie.simulations.attacks.audit import run_audit

    claims, tasks = _claims(epsilon), _tasks(task)
    torch.set_num_threads(1)  # the models are tiny: threads would only wait for each other
    with console.status("starting") as status:
        report = run_audit(claims, canaries=canaries, random=OsSource(), show=status.update, tasks=tasks)
    if as_json:
        typer.echo(json.dumps(report.to_dict()))
    else:
        _print(report)
    if report.caught:
        raise typer.Exit(1)


def _claims(text: str) -> list[float]:
    from coterie.privacy.errors import Fault, FileFault

    try:
        values = sorted({float(part) for part in text.split(",")})
    except ValueError:
        values = []
    if not values or not all(0.05 <= value <= 20 for value in values):
        raise FileFault(Fault("--epsilon", "must be numbers in 0.05..20, separated by commas", "e.g. 0.5,1,1.5"))
    return values


def _tasks(text: str) -> tuple[str, ...]:
    from coterie.privacy.errors import Fault, FileFault
    from coterie.simulations.attacks.audit import TASKS

    if text not in {"all", *TASKS}:
        raise FileFault(Fault("--task", f"must be one of all, {', '.join(TASKS)}", "e.g. bins"))
    return TASKS if text == "all" else (text,)


def _print(report: "AttackReport") -> None:
    from coterie.simulations.attacks.audit import BLIND, CAVEAT

    _print_claims(report)
    _print_checks(report)
    _print_membership(report)
    for check in report.checks:
        if not check.passed:
            typer.echo(f"FAILED {check.name}: {check.means}.")
    typer.echo(
        "\nfinal: from the last model; all: from every round's model, or every sum; SNJ: any (epsilon, delta); f-DP:"
        f" the charged event's own curve.\n\n{CAVEAT}\n\nAn attack on models cannot see:"
    )
    for fault in BLIND:
        typer.echo(f"- {fault}")


def _print_claims(report: "AttackReport") -> None:
    from coterie.simulations.attacks.canaries import CONFIDENCE, DELTA

    print_table(
        f"Claims at delta {DELTA:g} and what {report.canaries} canaries refute, each at {CONFIDENCE:.0%} confidence",
        ("model", "claim", "final, SNJ", "final, f-DP", "all, f-DP", "verdict"),
        [(a.model, f"{a.claim:g}", a.snj_final, a.fdp_final, a.fdp_iterates, report.verdict(a)) for a in report.claims],
    )


def _print_checks(report: "AttackReport") -> None:
    rows = [
        (
            check.name,
            f"{check.measured:.4g}",
            f"{check.expected:.4g}",
            "exact" if check.p_value is None else f"{check.p_value:.2g}",
            "passed" if check.passed else "FAILED",
        )
        for check in report.checks
    ]
    head = ("check", "measured", "expected", "p", "result")
    print_table("Checks from inside, on the real trainer and sums", head, rows)


def _print_membership(report: "AttackReport") -> None:
    rows = []
    for found in report.membership:
        private = found.private
        rows.append(
            (
                found.model,
                f"{found.claim:g}",
                f"{private.auc:.3f} ({private.auc_low:.3f}–{private.auc_high:.3f})",
                f"{private.true_positives:.3f} ({private.true_positives_low:.3f}–{private.true_positives_high:.3f})",
                found.allowed,
                found.without_noise.auc,
            )
        )
    print_table(
        "Members guessed by their loss or by how their items are scored (AUC 0.5 is blind); caught: share of members at"
        " 1 % false alarms",
        ("model", "epsilon", "AUC", "caught", "allowed", "AUC without noise"),
        rows,
    )
