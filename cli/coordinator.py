"""`coterie coordinator`: preparing and signing studies."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)


@app.command()
def keygen(output: Annotated[Path, typer.Argument(help="New key file.")]) -> None:
    """Make the coordinator's signing key and print its public half, which partners pin.

    Example: coterie coordinator keygen coordinator.pem
    """
    from coterie.privacy.errors import Fault, FileFault
    from coterie.privacy.identity import Identity

    if output.exists():
        raise FileFault(Fault(str(output), "exists", "choose another file; a key is never overwritten"))
    identity = Identity.create()
    identity.save(output)
    typer.echo(identity.public)


@app.command()
def sign(
    study: Annotated[Path, typer.Argument(help="Study file whose partners carry their keys.")],
    key: Annotated[Path, typer.Option(help="The coordinator's key file.")],
    output: Annotated[Path, typer.Option(help="Signed plan to write.")] = Path("plan.json"),
) -> None:
    """Sign a study as a plan that partners can consent to.

    Example: coterie coordinator sign study.toml --key coordinator.pem --output plan.json
    """
    from coterie.privacy.chosen import chosen_propensity
    from coterie.privacy.durable import write_durably
    from coterie.privacy.errors import Fault, FileFault
    from coterie.privacy.identity import Identity
    from coterie.privacy.signed import sign
    from coterie.privacy.study import read_study

    agreed = chosen_propensity(read_study(study).plan)
    keyless = [partner.name for partner in agreed.partners if not partner.key]
    if keyless:
        fix = "add each partner's public key, as `coterie partner init` printed it"
        raise FileFault(*(Fault(f"{study}: partners.{name}.key", "is missing", fix) for name in keyless))
    write_durably(output, sign(agreed, Identity.load(key)).to_bytes())
    typer.echo(f"{output}: {agreed.digest()}")
