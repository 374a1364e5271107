"""`coterie partner`: a partner's own side."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from coterie.cli.asking import KEYS, SETTINGS, new_passphrase, settings_of
from coterie.cli.show import console, print_table

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

_FOLDER = typer.Argument(help="The partner's workspace.")
_JSON = typer.Option("--json", help="Print the result as JSON.")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    name: Annotated[str, typer.Option(help="The partner's name in studies.")],
    keys: Annotated[str, typer.Option(help=KEYS)] = "file",
    settings: Annotated[list[str] | None, typer.Option("--set", help=SETTINGS)] = None,
) -> None:
    """Make a workspace with fresh keys and a policy to fill in.

    Example: coterie partner init ./bank --name bank --keys passphrase
    """
    from coterie.clients.workspace import Workspace
    from coterie.privacy.durable import write_durably

    workspace = Workspace.create(folder, name, keys=settings_of(keys, settings or []), ask=new_passphrase)
    write_durably(folder / "policy.example.toml", _POLICY.encode())
    typer.echo(f"workspace:  {folder}\npublic key: {workspace.identity.public}")
    if keys == "file":
        typer.echo(f"vault keys: a file in {folder / 'keys'}: whoever has the whole folder can open the vault;")
        typer.echo("            for more: --keys passphrase, mount, environment or transit (docs/vault.md)")
    typer.echo(f"next: edit {folder / 'policy.example.toml'} and save it as policy.toml; without it all is refused")


@app.command("catalogue")
def check_catalogue(
    items: Annotated[Path, typer.Argument(help="Parquet or CSV file with a column `item` and public attributes.")],
    kind: Annotated[str, typer.Option(help="What the codes are: taxonomy or gtin.")] = "taxonomy",
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Check an item table and say what partners compare, and a plan's [catalogue] holds.

    Example: coterie partner catalogue items.csv --kind gtin
    """
    from coterie.clients.catalogues import read_catalogue
    from coterie.models.catalogue import encoded

    found = read_catalogue(items, kind)
    told = {"items": len(found), "digest": found.digest(), "kind": kind, "attributes": encoded(found).shape[1]}
    if as_json:
        typer.echo(json.dumps(told))
        return
    typer.echo("[catalogue]")
    for name, value in told.items():
        typer.echo(f"{name} = {json.dumps(value)}")


@app.command()
def preview(
    folder: Annotated[Path, _FOLDER],
    plan: Annotated[Path, typer.Argument(help="A signed plan.")],
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Say what a plan would cost and whether the policy would consent; opens no data, records nothing.

    Example: coterie partner preview ./bank plan.json
    """
    from coterie.clients.preview import preview_plan

    found = preview_plan(folder, plan)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        would = "would be consented to" if found["consents"] else "would be refused"
        waits = ", once you approve it" if found["consents"] and found["approval"] == "awaiting" else ""
        typer.echo(f"plan {found['plan']}: {would}{waits}")
        for reason in found["reasons"]:
            typer.echo(f"  {reason}")
        for row in found["budgets"]:
            typer.echo(
                f"  {row['budget']}, {row['group']} customers: epsilon {row['spent']:.3g} of {row['limit']:g} spent; "
                f"{row['runs_left']} more runs like this"
            )
    if not found["consents"]:
        raise typer.Exit(1)


@app.command()
def budget(folder: Annotated[Path, _FOLDER], as_json: Annotated[bool, _JSON] = False) -> None:
    """Show what is spent and left, recomputed from the ledger.

    Example: coterie partner budget ./bank
    """
    from coterie.clients.preview import spent_budgets

    rows = spent_budgets(folder)
    if as_json:
        typer.echo(json.dumps(rows))
        return
    cells = [
        (r["budget"], r["group"], f"{100 * r['share']:.1f} %", r["spent"], r["limit"], f"{r['delta']:g}") for r in rows
    ]
    print_table("Budget", ("budget", "customers", "used", "epsilon spent", "epsilon in all", "delta"), cells)


@app.command()
def score(
    model: Annotated[Path, typer.Option(help="A published model.")],
    output: Annotated[Path, typer.Option(help="Parquet file to write.")],
    input: Annotated[Path | None, typer.Option(help="Parquet or CSV with the contract's columns.")] = None,  # noqa: A002
    workspace: Annotated[
        Path | None, typer.Option(help="Score the sealed customers of this workspace instead.")
    ] = None,
    reasons: Annotated[int, typer.Option(min=1, max=20, help="Reasons per customer.")] = 3,
    contact: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share to contact: marks so many of the best.")
    ] = None,
) -> None:
    """Score the partner's own customers, with reasons; nothing leaves.

    Example: coterie partner score --model model.safetensors --input customers.parquet --output scores.parquet
    --contact 0.1
    """
    from coterie.clients import scoring
    from coterie.privacy.randomness import OsSource

    with scoring.customers_of(model, table=input, workspace=workspace) as table:
        scored = scoring.score(model, table, output, reasons=reasons, random=OsSource(), contact=contact)
    typer.echo(f"{scored.rows} rows scored into {scored.output} (readable by you alone)")
    if scored.contacted is not None:
        typer.echo(f"  {scored.contacted} of them are marked in the column contact, the best scores first")
    for note, count in scored.notes.items():
        typer.echo(f"  noted: {note} in {count} rows")


@app.command()
def recommend(
    model: Annotated[Path, typer.Option(help="A published model.")],
    output: Annotated[Path, typer.Option(help="Parquet file to write.")],
    input: Annotated[Path | None, typer.Option(help="Parquet or CSV with customers' interactions.")] = None,  # noqa: A002
    catalogue: Annotated[Path | None, typer.Option(help="The items that the partners agreed on.")] = None,
    workspace: Annotated[Path | None, typer.Option(help="Take either of them from this workspace instead.")] = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="Items per customer.")] = 20,
    reasons: Annotated[int, typer.Option(min=0, max=20, help="Reasons per item.")] = 1,
    rules: Annotated[Path | None, typer.Option(help="Your rules for lists, as TOML; see docs/recommend.md.")] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Make a ranked list for each of the partner's own customers, with reasons; nothing leaves.

    Example: coterie partner recommend --model model.safetensors --catalogue items.parquet --input purchases.parquet
    --top 20 --output recs.parquet
    """
    # Customers are scored side by side; threads inside each piece would only wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from rich.progress import Progress

    from coterie.clients import recommending
    from coterie.privacy.clock import now

    lent = recommending.sources(model, table=input, catalogue=catalogue, workspace=workspace)
    with lent as (table, items), Progress(console=console, transient=True) as bars:
        bar = bars.add_task("customers", total=None)
        terms = recommending.Terms(
            top=top,
            reasons=reasons,
            rules=rules,
            today=now().date(),
            see=lambda done, of: bars.update(bar, completed=done, total=of),
        )
        made = recommending.recommend(model, table, output, catalogue=items, terms=terms)
    if as_json:
        found = {"output": str(made.output), "customers": made.customers, "rows": made.rows, "notes": dict(made.notes)}
        typer.echo(json.dumps(found))
        return
    typer.echo(f"{made.rows} recommendations to {made.customers} customers in {made.output} (readable by you alone)")
    for note, count in made.notes.items():
        typer.echo(f"  noted: {count} {note}")


_POLICY = """# This partner's rules. Policy beats plan: a coordinator can only ask for less than this allows.
# Save it as policy.toml. Every key is explained in docs/policy.md.

# Plans are read only when this key signed them; compare it with the coordinator out of band.
coordinator = "ed25519:..."

# The column that names a customer: the unit of privacy, fixed for life with the first consent.
customer = "customer_id"

# Columns that may be labels.
labels = ["label"]

# What models may be trained for.
purposes = ["propensity.example"]

# Columns that studies may use as features, and those of special sensitivity among them.
columns = []
special = []

families = ["logistic"]
# "local": every release is private on its own. "secure-aggregation": only sums over partners are opened, more accurate;
# it rests on the partners under [peers].
trust = ["local"]
minimum_partners = 3
# For secure-aggregation: how many of the others a plan must assume to work with the coordinator, at least.
minimum_colluders = 1
minimum_customers = 1000

# What all studies together may spend of one customer's privacy.
[budget]
study_epsilon = 1.0
lifetime_epsilon = 4.0
delta = 1e-6

# What is approved without you; every other plan waits for: coterie partner inbox FOLDER
# [approval]
# automatic_epsilon = 0.1

# Only customers are read whose consent to the study's purpose is in the table that was sealed with:
# coterie partner consents FOLDER TABLE. Purposes that rest on another legal ground are named here, with the ground and
# where it is written down.
[consent.elsewhere]
# "propensity.example" = "legitimate interest, GDPR article 6(1)(f); assessment LIA-7"

# What is never done, whatever else is permitted here, each with its reason.
[red_lines]
purposes = {}    # e.g. { "credit.*" = "no decision about credit rests on these models" }
attributes = {}  # columns that are never used, e.g. { religion = "special category, GDPR article 9" }
protected = {}   # columns that are never learned from or predicted, but for the purposes in audits
audits = []

# Which matches of customers with other partners are permitted; none while this is missing. "counts" is noisy and
# charged; "rows" and "tokens" are disclosures, which no epsilon covers. Both limits are for a calendar year.
# [matching]
# outcomes = ["counts"]
# identifiers = ["loyalty"]
# evaluations = 10_000_000
# disclosures = 0

# For secure-aggregation and matches: every other partner's key, compared with that partner itself, never taken from a
# coordinator.
[peers]
# books = "ed25519:..."
"""
