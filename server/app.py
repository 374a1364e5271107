"""The coordinator's Flower app."""

from collections.abc import Callable

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from coterie.privacy.errors import CoterieError
from coterie.privacy.signed import SignedPlan
from coterie.server.coordinator import Patience, Seen, run_study
from coterie.server.registry import Progress, Registry
from coterie.server.witness import Witness

__all__ = ["server_app"]


def server_app(  # noqa: PLR0913 - all of it is the edge of the program
    signed: SignedPlan,
    places: tuple[Registry, Witness],
    *,
    patience: Patience,
    show: Callable[[Seen], None],
    stop: Callable[[], bool],
    done: Callable[[Progress], None],
    failed: Callable[[CoterieError], None],
) -> ServerApp:
    """Make the coordinator's app for one study.

    Args:
        signed: The plan.
        places: Where rounds are published, and where the partners' checkpoints are kept.
        patience: How long to wait.
        show: Called with what may be shown.
        stop: Asked before every step whether to stop.
        done: Called with the last published state.
        failed: Called with the reason when the study ends without one; an engine may run the app in a thread of
            its own, out of which no exception comes.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context  # the plan says everything
        try:
            done(run_study(grid, signed, places, patience=patience, show=show, stop=stop))
        except CoterieError as error:
            failed(error)

    return app
