"""`coterie audit counts`: records of exact counts that a partner shows, held against its bundle."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coterie.privacy.plain import plain

if TYPE_CHECKING:
    from coterie.privacy.review.committed import Held
    from coterie.privacy.review.verdict import Check, Verdict

__all__ = ["counts"]


def counts(
    bundle: Annotated[Path, typer.Argument(help="A partner's bundle, as `coterie audit export` wrote it.")],
    record: Annotated[Path, typer.Argument(help="What the partner shows: from `coterie partner counts --json`.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Say of which charge a record of exact counts is, or that no entry of the ledger commits to it.

    Exit codes: 0 every record is a charge's, 1 one is not, or the bundle fails, 2 no bundle or no record, 3 the bundle
    could not be decided.

    Example: coterie audit counts bank.bundle counts.json
    """
    from coterie.privacy.review.committed import held, records_in
    from coterie.privacy.review.verify import verify_bundle

    records = records_in(record)
    verdict = verify_bundle(bundle, accounting=False)
    bad = _bad(verdict)
    found = held(bundle, records)
    failed = any(one.wrong for one in found) or any(check.status == "fails" for check in bad)
    if as_json:
        told = [dataclasses.asdict(one) for one in found]
        typer.echo(json.dumps({"records": told, "bundle": {check.name: check.status for check in bad}}))
    else:
        names = {study.plan: study.name for study in verdict.studies}
        for number, one in enumerate(found, start=1):
            typer.echo(plain(f"record {number}: {_words(one, names.get(one.plan, 'an unknown study'))}"))
        for check in bad:
            typer.echo(plain(f"the bundle: {check.status} ({check.name}): {check.findings[0]}"))
        if not bad:
            typer.echo("the bundle: nothing contradicts it; the accountants were not asked")
    raise typer.Exit(1 if failed else 3 if bad else 0)


def _bad(verdict: "Verdict") -> "list[Check]":
    """Return the checks that do not hold, but for the accountants, who have nothing to say of counts."""
    return [
        check
        for check in verdict.checks
        if check.status == "fails" or (check.status == "open" and check.name != "accountants")
    ]


def _words(one: "Held", study: str) -> str:
    if not one.entry:
        return one.wrong
    told = f"entry {one.entry} of {one.at[:10]} commits to it: {one.step}, attempt {one.attempt}, of study {study}"
    return f"{told}. BUT {one.wrong}" if one.wrong else told
