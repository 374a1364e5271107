"""`coterie coordinator studies, models, export-model` and `coterie partner models`: what came of studies."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from coterie.cli.coordinator import app as coordinator
from coterie.cli.partner import app as partner
from coterie.cli.show import print_table
from coterie.privacy.errors import Fault, FileFault

__all__: list[str] = []

_OFFICE = typer.Argument(help="The coordinator's folder.")
_WORKSPACE = typer.Argument(help="The partner's workspace.")
_JSON = typer.Option("--json", help="Print the result as JSON.")


@coordinator.command("studies")
def studies(folder: Annotated[Path, _OFFICE], as_json: Annotated[bool, _JSON] = False) -> None:
    """List the studies in the books: where each stands, its rounds, and who did not answer.

    Example: coterie coordinator studies ./office
    """
    from coterie.privacy.clock import now
    from coterie.server.books import Books
    from coterie.server.office import Office

    with Books(Office(folder).books_url, now) as books:
        found = [(study, books.rounds(study.digest), books.refusals(study.digest)) for study in books.studies()]
    if as_json:
        told = []
        for study, rounds, refusals in found:
            row = {name: value for name, value in dataclasses.asdict(study).items() if name != "signed"}
            row["rounds"] = [dataclasses.asdict(round_) for round_ in rounds]
            told.append(row | {"refusals": [dataclasses.asdict(refusal) for refusal in refusals]})
        typer.echo(json.dumps(told))
        return
    cells = [
        (study.name, study.digest[:19], study.status, len(rounds), len(refusals), study.submitted, study.reason)
        for study, rounds, refusals in found
    ]
    columns = ("study", "plan", "status", "rounds", "refusals", "submitted", "reason")
    print_table("Studies", columns, cells)


@coordinator.command("models")
def models(folder: Annotated[Path, _OFFICE], as_json: Annotated[bool, _JSON] = False) -> None:
    """List the published models, each checked against its signature.

    Example: coterie coordinator models ./office
    """
    from coterie.privacy.clock import now
    from coterie.server.books import Books
    from coterie.server.office import Office
    from coterie.server.published import check_published, model_path

    office = Office(folder)
    with Books(office.books_url, now) as books:
        found = books.models()
    key, rows = office.identity.public, []
    for model in found:
        path = model_path(office.models, model)
        try:
            published = check_published(path, coordinator=key)
            sound = (published.plan, published.version, published.model) == (model.study, model.version, model.model)
            check = "verified" if sound else "is not the model in the books"
        except FileFault as error:
            check = error.faults[0].rule
        rows.append(dataclasses.asdict(model) | {"file": str(path), "check": check})
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        cells = [(row["name"], row["version"], row["study"][:19], row["at"], row["check"]) for row in rows]
        print_table("Models", ("study", "version", "plan", "published", "check"), cells)
    if any(row["check"] != "verified" for row in rows):
        raise typer.Exit(1)


@coordinator.command("export-model")
def export_model(
    folder: Annotated[Path, _OFFICE],
    study: Annotated[str, typer.Argument(help="The study's name, or the beginning of its digest.")],
    output: Annotated[Path, typer.Option(help="Model file to write; its signature goes beside it, as .json.")],
    version: Annotated[int | None, typer.Option(min=1, help="Which version; the newest when left out.")] = None,
) -> None:
    """Copy a published model with its signature, after checking both.

    Example: coterie coordinator export-model ./office spring --version 1 --output spring.safetensors
    """
    from coterie.privacy.clock import now
    from coterie.server.books import Books
    from coterie.server.office import Office
    from coterie.server.published import export, signature_path

    office = Office(folder)
    with Books(office.books_url, now) as books:
        found = [model for model in books.models(study) if version in {None, model.version}]
    if not found:
        raise FileFault(Fault("the model", "is not published", "see which are: coterie coordinator models FOLDER"))
    if len({model.name for model in found}) > 1:
        raise FileFault(Fault("the model", "could be of several studies", "give more of the plan's digest"))
    made = export(office.models, found[-1], output, coordinator=office.identity.public)
    typer.echo(f"{output}: {made.name}, version {made.version}, with its signature in {signature_path(output)}")


@partner.command("models")
def received(folder: Annotated[Path, _WORKSPACE], as_json: Annotated[bool, _JSON] = False) -> None:
    """List the models that were received, each checked against the coordinator's signed record and the ledger.

    Example: coterie partner models ./bank
    """
    from coterie.clients.received import received_models
    from coterie.privacy.clock import now

    found = received_models(folder, clock=now)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(model) | {"file": str(model.file)} for model in found]))
    else:
        cells = [
            (model.study, model.plan[:19], "" if model.epsilon is None else f"{model.epsilon:.3g}", model.check)
            for model in found
        ]
        print_table("Models received", ("study", "plan", "epsilon", "check"), cells)
    if not all(model.sound for model in found):
        raise typer.Exit(1)
