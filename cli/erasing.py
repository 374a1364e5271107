"""`coterie partner rotate`, `erase` and `trace`: new keys, customers that are erased, and what was made with one."""

import functools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coterie.cli.asking import KEYS, SETTINGS, new_passphrase, passphrase, settings_of
from coterie.cli.partner import app as partner
from coterie.cli.sealing import progress
from coterie.cli.show import print_table
from coterie.privacy.errors import Fault, FileFault

if TYPE_CHECKING:
    from coterie.clients.tracing import Trace

__all__: list[str] = []

_FOLDER = typer.Argument(help="The partner's workspace.")
_JSON = typer.Option("--json", help="Print the result as JSON.")
_CUSTOMER = typer.Option(help="The identifier; asked for without an echo when left out.")


@partner.command()
def rotate(
    folder: Annotated[Path, _FOLDER],
    columns: Annotated[list[str] | None, typer.Option("--column", help="Seal this column anew; repeatable.")] = None,
    dataset: Annotated[
        str, typer.Option(help="The data set: customers, interactions, consents, identifiers or matches.")
    ] = "customers",
    all_columns: Annotated[bool, typer.Option("--all-columns", help="Seal all of them anew.")] = False,
    destroy: Annotated[bool, typer.Option("--destroy-older", help="Then destroy older key-encryption keys.")] = False,
    to: Annotated[str | None, typer.Option(help=f"Move to another source of keys. {KEYS}")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help=SETTINGS)] = None,
) -> None:
    """Give the vault a new key-encryption key, or columns new data keys; interrupted, it goes on where it was.

    Example: coterie partner rotate ./bank --column email
    """
    from coterie.clients.rekeying import destroy_older, rewrap
    from coterie.clients.vault import open_vault
    from coterie.privacy.clock import now

    if to is not None:
        _move(folder, to, settings or [])
    elif columns or all_columns:
        _rekey(folder, dataset, columns)
    else:
        with open_vault(folder, now, ask=passphrase) as vault:
            done = rewrap(vault)
        typer.echo(f"{len(done.datasets)} data sets are wrapped under key-encryption key {done.epoch}")
    if destroy:
        with open_vault(folder, now, ask=passphrase) as vault:
            gone = destroy_older(vault)
        typer.echo(f"destroyed: {', '.join(gone) or 'none, there was no older one'}")


def _rekey(folder: Path, dataset: str, columns: list[str] | None) -> None:
    from coterie.clients.rekeying import forget_waiting, rekey, waiting_columns
    from coterie.clients.vault import open_vault
    from coterie.privacy.clock import now

    ask = functools.cache(passphrase)
    with open_vault(folder, now, ask=ask) as vault:
        waiting = waiting_columns(vault, dataset, columns or None)
    for column in waiting:  # between two columns a running node may answer
        with open_vault(folder, now, ask=ask) as vault, progress(f"rows of {column}") as see:
            rekey(vault, dataset, column, see=see)
    with open_vault(folder, now, ask=ask) as vault:
        forget_waiting(vault, dataset)
    typer.echo(f"{len(waiting)} columns of {dataset} have new data keys")


def _move(folder: Path, to: str, settings: list[str]) -> None:
    from coterie.clients.rekeying import move_keys
    from coterie.clients.vault import open_vault
    from coterie.privacy.clock import now
    from coterie.privacy.fields.sources.settings import new_key_source

    wanted = settings_of(to, settings)
    with open_vault(folder, now, ask=passphrase) as vault:
        workspace = vault.workspace
        if wanted.source == workspace.key_settings.source:
            raise FileFault(Fault("--to", "names the source that the vault has", "rotate without --to"))
        target = new_key_source(wanted, workspace.root, environment=os.environ, ask=new_passphrase)
        moved = move_keys(vault, target)
        workspace.keep_keys(wanted)
    typer.echo(f"{len(moved.datasets)} data sets are wrapped under {wanted.source} key {moved.epoch}")
    typer.echo("the old source's keys are as they were: destroy them where no backup needs them")


@partner.command()
def erase(
    folder: Annotated[Path, _FOLDER],
    customer: Annotated[str | None, _CUSTOMER] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Erase one customer: its rows, and what older copies were sealed under; says which models were trained with it.

    Example: coterie partner erase ./bank --customer C-10023
    """
    from coterie.clients.erasing import erase as erase_customer
    from coterie.clients.vault import open_vault
    from coterie.privacy.clock import now

    named = customer or _asked()
    with open_vault(folder, now, ask=passphrase) as vault, progress("rows kept") as see:
        done = erase_customer(vault, named, see=see)
    if as_json:
        told = {"rows": done.rows, "destroyed": list(done.destroyed), "proved": done.proved, "answer": done.answer}
        typer.echo(json.dumps(told | {"trace": done.trace.to_dict()}))
        return
    typer.echo(f"erased: {sum(done.rows.values())} rows in {len(done.rows)} data sets, sealed anew under new keys")
    if done.proved:
        gone = ", ".join(done.destroyed) or "none was left"
        typer.echo(f"older keys are destroyed ({gone}): older copies of the vault are dead")
    else:
        typer.echo(
            "older copies CANNOT be proved dead: their keys may lie in the same backups, or elsewhere (docs/vault.md)"
        )
    _print_trace(done.trace)
    typer.echo(f"the ledger names nobody; it commits to this answer: {done.answer}")


@partner.command()
def trace(
    folder: Annotated[Path, _FOLDER],
    customer: Annotated[str | None, _CUSTOMER] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Say which models were trained with a customer, and what was spent of its privacy; changes nothing.

    Example: coterie partner trace ./bank --customer C-10023
    """
    from coterie.clients.erasing import trace_customer
    from coterie.clients.vault import open_vault
    from coterie.privacy.clock import now

    named = customer or _asked()
    with open_vault(folder, now, ask=passphrase) as vault:
        found = trace_customer(vault, named)
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
        return
    _print_trace(found)


def _asked() -> str:
    import getpass

    return getpass.getpass("identifier of the customer: ")


def _print_trace(found: "Trace") -> None:
    if not found.studies:
        typer.echo("no model was made with this customer's group: nothing was spent of its privacy")
        return
    cells = [(s.name, s.purpose, s.role, s.releases, s.spent, s.when) for s in found.studies]
    print_table("Models made with this customer", ("study", "purpose", "was", "releases", "spent", "when"), cells)
