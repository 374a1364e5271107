"""`coterie audit`: the reviewer's door. It opens without torch, flwr or opacus."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie.cli.attack import attack
from coterie.cli.counting import counts
from coterie.cli.stating import overlaps_of, show_overlaps, statement
from coterie.cli.verdicts import show_check, show_for_life, show_limits, show_verdict
from coterie.privacy.plain import plain

if TYPE_CHECKING:
    from coterie.privacy.review.verdict import Check, Verdict

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    epilog="Exit codes: 0 all checks hold, 1 at least one fails, 2 not a bundle or wrong use, 3 could not be decided.",
)

_BUNDLE = typer.Argument(help="A partner's bundle, as `coterie audit export` wrote it.")
_BUNDLES = typer.Argument(help="Bundles of one partner, or of all partners of a study.")
_JSON = typer.Option("--json", help="Print the result as JSON.")
_EARLIER = typer.Option(help="A checkpoint or an earlier bundle that you kept; may be given several times.")
_PARTNER = typer.Option(help="A partner's public key that you compared; all others are refused.")
_COORDINATOR = typer.Option(help="A coordinator's public key that you compared; all others are refused.")
_OVERLAP = typer.Option(help="Noisy counts of shared customers, whose release is looked for; may be given often.")
_CODES = {"holds": 0, "fails": 1, "open": 3}


@app.command()
def verify(
    bundles: Annotated[list[Path], _BUNDLES],
    earlier: Annotated[list[Path] | None, _EARLIER] = None,
    partner_key: Annotated[list[str] | None, _PARTNER] = None,
    coordinator_key: Annotated[list[str] | None, _COORDINATOR] = None,
    overlap: Annotated[list[Path] | None, _OVERLAP] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave the two accountants out.")] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Check bundles: signatures, tree, checkpoints, consents, charges, budgets, epsilon by two accountants.

    Exit codes: 0 all checks hold, 1 at least one fails, 2 not a bundle, 3 something could not be decided.

    Example: coterie audit verify bank.bundle shop.bundle --earlier bank-last-quarter.bundle
    """
    verdicts, across = _reviewed(
        bundles, earlier or [], keys=(partner_key or [], coordinator_key or []), accounting=not quick
    )
    counted, statuses = overlaps_of(overlap or [], verdicts)
    if as_json:
        from coterie.cli.verdicts import LIFE_DELTA
        from coterie.privacy.review.cross import for_life

        lives = for_life(verdicts, LIFE_DELTA)
        told = {"delta": LIFE_DELTA, "epsilon_by_partners": [epsilon for _, epsilon in lives]}
        bundles_ = [v.to_dict() for v in verdicts]
        counts_ = [{"partner": one.partner, "plan": one.plan, "checked": one.checked} for one in counted]
        everything = {"bundles": bundles_, "across": _as_dict(across), "for_life": told, "overlaps": counts_}
        typer.echo(json.dumps(everything))
    else:
        for verdict in verdicts:
            show_verdict(verdict)
        if across is not None:
            typer.echo("\nAll bundles together")
            show_check(across)
            show_for_life(verdicts)
        show_overlaps(overlap or [], counted)
        show_limits()
    raise typer.Exit(_code([*(v.status for v in verdicts), *([across.status] if across else []), *statuses]))


@app.command()
def explain(bundle: Annotated[Path, _BUNDLE], as_json: Annotated[bool, _JSON] = False) -> None:
    """Say in plain words what a bundle shows: for what, on whose data, how protected, and what is not covered.

    Example: coterie audit explain bank.bundle
    """
    from coterie.privacy.review.explain import explain as explained
    from coterie.privacy.review.facts import facts

    (verdict,), _ = _reviewed([bundle], [])
    sections = explained(verdict)
    if as_json:
        known = {study.plan: facts(verdict, study) for study in verdict.studies}
        told = [{"title": section.title, "paragraphs": list(section.paragraphs)} for section in sections]
        said = {plan: [vars(fact) for fact in found] for plan, found in known.items()}
        typer.echo(json.dumps({"sections": told, "facts": said}, default=str))
    else:
        for section in sections:
            typer.echo(f"\n{plain(section.title)}\n{'=' * len(section.title)}")
            for paragraph in section.paragraphs:
                typer.echo(f"\n{plain(paragraph)}")
    raise typer.Exit(_code([verdict.status]))


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(help="The earlier bundle.")],
    new: Annotated[Path, typer.Argument(help="The later bundle of the same partner.")],
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Say what a partner did between two bundles, and whether the later one extends the earlier.

    Example: coterie audit diff bank-q1.bundle bank-q2.bundle
    """
    from coterie.privacy.review.difference import difference

    (before,), _ = _reviewed([old], [])
    (after,), _ = _reviewed([new], [old])
    found = difference(before, after)
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
    else:
        for line in found.lines():
            typer.echo(plain(line))
    raise typer.Exit(_code([before.status, after.status]))


@app.command()
def budget(bundle: Annotated[Path, _BUNDLE], as_json: Annotated[bool, _JSON] = False) -> None:
    """Show what is left of every budget, as epsilon and as "N more runs like this".

    Example: coterie audit budget bank.bundle
    """
    from coterie.cli.show import print_table

    (verdict,), _ = _reviewed([bundle], [])
    if as_json:
        typer.echo(json.dumps(verdict.to_dict()["budgets"]))
    else:
        cells = [
            (
                plain(row.name),
                row.group,
                f"{100 * row.share:.1f} %",
                max(0.0, row.epsilon - row.spent),
                row.epsilon,
                f"{row.delta:g}",
                plain(", ".join(f"{count} more like {name}" for name, count in row.runs)) or "-",
            )
            for row in verdict.budgets
        ]
        titles = ("budget", "customers", "used", "epsilon left", "epsilon in all", "delta", "room for")
        print_table(f"Budgets of {plain(verdict.partner)}", titles, cells)
        typer.echo(plain(verdict.line))
    raise typer.Exit(_code([verdict.status]))


@app.command()
def report(
    bundles: Annotated[list[Path], _BUNDLES],
    output: Annotated[Path, typer.Option("--output", "-o", help="Page to write.")] = Path("report.html"),
    earlier: Annotated[list[Path] | None, _EARLIER] = None,
) -> None:
    """Write one page that needs no network: verdict, budgets, proofs, what-if, refusals; to read, print and keep.

    Example: coterie audit report bank.bundle --output report.html
    """
    from coterie.cli.show import console
    from coterie.privacy.durable import write_durably
    from coterie.privacy.review.kept import file_digest
    from coterie.privacy.review.page.content import Reviewed
    from coterie.privacy.review.page.outlook import outlook
    from coterie.privacy.review.page.render import render
    from coterie.privacy.review.proofs import named_in, proofs_of

    verdicts, across = _reviewed(bundles, earlier or [])
    reviewed = []
    with console.status("working out what further studies would take") as status:
        for path, verdict in zip(bundles, verdicts, strict=True):
            ahead = outlook(verdict, seen=lambda done, count: status.update(f"{done} of {count} epsilons tried"))
            proofs = proofs_of(path, named=named_in(verdict))
            reviewed.append(Reviewed(verdict, proofs, ahead, file_digest(path)))
    write_durably(output, render(reviewed, crossed=(across,) if across else ()).encode())
    for verdict in verdicts:
        typer.echo(f"{plain(verdict.partner)}: {plain(verdict.line)}")
    typer.echo(f"page: {output}")
    raise typer.Exit(_code([*(v.status for v in verdicts), *([across.status] if across else [])]))


@app.command()
def serve(
    folder: Annotated[Path, typer.Argument(help="The partner's workspace; its node may be at work.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than loopback let others read.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; any free one when 0.")] = 8765,
) -> None:
    """Show the page over a live workspace, read-only, until Ctrl-C.

    Example: coterie audit serve ./bank
    """
    from coterie.cli.serve import serve as serving

    serving(folder, host, port=port, show=typer.echo)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="The partner's workspace.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New file to write.")],
) -> None:
    """Write the bundle that a reviewer checks: ledger, plans, policies, cards, checkpoints; no row, no key.

    Example: coterie audit export ./bank --output bank.bundle
    """
    from coterie.clients.export import export_bundle
    from coterie.privacy.clock import now
    from coterie.privacy.review.kept import file_digest

    size = export_bundle(folder, output, now)
    typer.echo(f"{output}: {size} entries\nsha256: {file_digest(output)}")


@app.command()
def impact(
    bundle: Annotated[Path, _BUNDLE], output: Annotated[Path | None, typer.Option("--output", "-o")] = None
) -> None:
    """Draft a data-protection impact assessment (GDPR art. 35, PIPL art. 55) from a bundle, as Markdown.

    Example: coterie audit impact bank.bundle --output impact.md
    """
    from coterie.privacy.durable import write_durably
    from coterie.privacy.review.impact import impact_draft

    (verdict,), _ = _reviewed([bundle], [])
    text = impact_draft(verdict)
    if output is None:
        typer.echo(text)
    else:
        write_durably(output, text.encode())
        typer.echo(f"{output}: a draft; what the ledger cannot know is marked")
    raise typer.Exit(_code([verdict.status]))


app.command()(attack)
app.command()(counts)
app.command()(statement)


def _reviewed(
    bundles: list[Path],
    earlier: list[Path],
    *,
    keys: tuple[Sequence[str], Sequence[str]] = ((), ()),
    accounting: bool = True,
) -> "tuple[list[Verdict], Check | None]":
    """Verify bundles, showing progress on long ones."""
    from coterie.cli.show import console
    from coterie.privacy.review.cross import cross_check
    from coterie.privacy.review.kept import Keys, earlier_notes
    from coterie.privacy.review.verify import verify_bundle

    verdicts = []
    with console.status("reading") as status:
        for path, notes in zip(bundles, earlier_notes(bundles, earlier), strict=True):
            verdicts.append(
                verify_bundle(
                    path,
                    earlier=notes,
                    keys=Keys(frozenset(keys[0]), frozenset(keys[1])),
                    accounting=accounting,
                    seen=lambda done, count: status.update(f"{done:,} of {count:,} entries read"),
                )
            )
    return verdicts, cross_check(verdicts) if len(verdicts) > 1 else None


def _as_dict(check: "Check | None") -> dict[str, Any] | None:
    import dataclasses

    return dataclasses.asdict(check) if check is not None else None


def _code(statuses: list[str]) -> int:
    return max((_CODES[status] for status in statuses if status != "open"), default=0) or (
        _CODES["open"] if "open" in statuses else 0
    )
