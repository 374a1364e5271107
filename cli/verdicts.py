"""A review on the terminal."""

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from coterie.privacy.plain import plain

if TYPE_CHECKING:
    from coterie.privacy.review.verdict import Check, Verdict

__all__ = ["LIFE_DELTA", "show_check", "show_for_life", "show_limits", "show_verdict"]

LIFE_DELTA = 1e-6


def show_verdict(verdict: "Verdict") -> None:
    """Print a verdict: whose, every check, every study with both accountants, and the verdict in one line."""
    typer.echo(f"\n{plain(verdict.partner)}  {plain(verdict.key)}\nroot {verdict.root}, {verdict.size} entries")
    for key in verdict.coordinators:
        typer.echo(f"coordinator {plain(key)}: compare both keys on another way, and give them as options")
    for size, key, at in verdict.cosigned[-1:]:
        day = datetime.datetime.fromtimestamp(at, datetime.UTC).date()
        typer.echo(f"{len(verdict.cosigned)} cosigned states, the last of {size} entries on {day} by {plain(key)}")
    for rules in verdict.rules:
        typer.echo(f"policy in force from entry {rules.entry} ({plain(rules.at)}): {_budgets(rules.content)}")
    if verdict.carried:
        typer.echo(f"{verdict.carried} entries were carried over from version 1, which kept no tree")
    for check in verdict.checks:
        show_check(check)
    for study in verdict.studies:
        typer.echo(f"  study {plain(study.name)} ({plain(study.purpose)}), consented at entry {study.entry}")
        for group in study.groups:
            if group.recomputed is not None:
                typer.echo(f"    {group.group}: {group.charges} of {group.declared} charges; {group.recomputed}")
                for kind, first, second in group.recomputed.accountants:
                    typer.echo(f"      {kind}: {first} | {second}")
    _show_disclosures(verdict)
    typer.echo(plain(verdict.line))


def _show_disclosures(verdict: "Verdict") -> None:
    """Print what no epsilon covers."""
    from coterie.privacy.review.matchwords import disclosure_words

    for one in verdict.disclosures:
        typer.echo(plain(f"  {disclosure_words(one)}"))


def _budgets(content: dict[str, Any]) -> str:
    """Say what a policy's budgets are."""
    budget = content.get("budget", {})
    return plain(", ".join(f"{name} {value}" for name, value in sorted(budget.items())))


def show_check(check: "Check") -> None:
    """Print one question with its answer and what was found."""
    typer.echo(f"  {check.status:5}  {check.asks}")
    for finding in check.findings:
        typer.echo(f"           {plain(str(finding))}")
    if check.more:
        typer.echo(f"           and {check.more} more")


def show_for_life(verdicts: "Sequence[Verdict]") -> None:
    """Print what holds for somebody who is a customer of several of the partners, over all their studies."""
    from coterie.privacy.review.cross import for_life

    typer.echo(f"  a customer of several of these partners, over all studies in all ledgers, delta {LIFE_DELTA:g}:")
    for k, epsilon in for_life(verdicts, LIFE_DELTA):
        typer.echo(f"    of {k}: epsilon {epsilon:.3g} at the worst (not for studies chosen by one another's results)")


def show_limits() -> None:
    """Print what no bundle can prove."""
    from coterie.privacy.review.verify import CANNOT_PROVE

    typer.echo("\nWhat no offline bundle can prove:")
    for sentence in CANNOT_PROVE:
        typer.echo(f"  - {sentence}")
