"""`coterie`: doors for the researcher, the partner, the coordinator and the reviewer."""

import sys
import traceback

import typer

from coterie.cli import (
    approving,
    audit,
    cells,
    checking,
    coordinator,
    erasing,
    explaining,
    federation,
    identifying,
    joining,
    matching,
    operating,
    partner,
    profiling,
    publishing,
    sealing,
    simulate,
)
from coterie.privacy.errors import CoterieError

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    # A crash must not print local variables: they may hold rows or keys.
    pretty_exceptions_enable=False,
    help="Privacy-preserving federated modelling for marketing partners.",
)
# These add their commands to those of `partner` and `coordinator`.
_MORE = (
    approving,
    cells,
    checking,
    erasing,
    explaining,
    federation,
    identifying,
    joining,
    matching,
    operating,
    profiling,
    publishing,
    sealing,
)

app.add_typer(simulate.app, name="simulate", help="Try studies on this machine, with simulated partners.")
app.add_typer(partner.app, name="partner", help="Run a partner's side: rules, data, budget, scoring.")
app.add_typer(coordinator.app, name="coordinator", help="Prepare and sign studies.")
app.add_typer(audit.app, name="audit", help="Check, offline and trusting nobody, what a partner spent on whom.")


def main() -> None:
    """Run the command; every error of ours is printed as what is wrong, by which rule, and the fix."""
    try:
        app(standalone_mode=True)
    except CoterieError as error:
        interrupted = type(error).__name__ == "Interrupted"
        for fault in error.faults:
            typer.echo(f"{'stopped' if interrupted else 'error'}: {fault}", err=True)
        sys.exit(130 if interrupted else 2)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        typer.echo(f"error: {place}{error.strerror or 'the system refused'}.", err=True)
        sys.exit(2)
    except Exception as error:  # noqa: BLE001 - what a library says of an error may hold a cell: only where it was
        typer.echo("".join(traceback.format_tb(error.__traceback__)), err=True, nl=False)
        typer.echo(f"error: {type(error).__name__}, unforeseen; its text may hold a value and is not shown", err=True)
        sys.exit(70)


if __name__ == "__main__":
    main()
