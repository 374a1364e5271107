"""One simulated federation at work: workspaces, an engine, and the coordinator's last published state."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from coterie.clients.app import client_app
from coterie.models.catalogue import Catalogue
from coterie.models.propensity import Weights
from coterie.privacy.clock import now
from coterie.privacy.identity import Identity
from coterie.privacy.plan import Plan
from coterie.privacy.randomness import RandomSource
from coterie.privacy.signed import SignedPlan
from coterie.server.app import server_app
from coterie.server.coordinator import Patience, Seen
from coterie.server.registry import Progress, Registry
from coterie.server.rounds import StudyAborted
from coterie.server.witness import Witness
from coterie.simulations.engines.local import run_local
from coterie.simulations.engines.ray import node_configs, run_ray
from coterie.simulations.partners import partner_folders, provision, workspace_of

__all__ = ["ENGINES", "Outcome", "run_federation"]

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Outcome:
    """What a federation ended with.

    Args:
        signed: The plan that was carried out.
        progress: The last published state.
        folders: The partners' workspaces, in the roster's order.
        published: The model by published round.
    """

    signed: SignedPlan
    progress: Progress
    folders: tuple[Path, ...]
    published: Mapping[int, Weights]


def run_federation(  # noqa: PLR0913 - all of it is the edge of the program
    root: Path,
    plan: Plan,
    tables: Mapping[str, pa.Table],
    *,
    seed: int,
    engine: str,
    random: RandomSource,
    show: Callable[[Seen], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    catalogue: Catalogue | None = None,
    identifiers: Mapping[str, pa.Table] | None = None,
) -> Outcome:
    """Run a study among simulated partners, or go on with one that was interrupted.

    Args:
        root: Folder of the federation.
        plan: The study.
        tables: The partners' tables.
        seed: Decides which customers are held out.
        engine: One of `ENGINES`.
        random: Where the partners' secret randomness comes from.
        show: Called with what may be shown.
        stop: Asked before every round whether to stop.
        catalogue: The items of a plan that recommends.
        identifiers: The partners' tables of identifiers, for a plan that matches.

    Raises:
        StudyAborted: Too few partners answered.
        Interrupted: `stop` said so.
    """
    signed = provision(root, plan, tables, seed=seed, catalogue=catalogue, identifiers=identifiers)
    folders = tuple(partner_folders(root, signed.plan))
    client = client_app(functools.partial(workspace_of, folders), random=random)
    coordinator = root / "coordinator"
    ended: list[Progress] = []
    failed: list[BaseException] = []
    server = server_app(
        signed,
        (Registry(coordinator), Witness(coordinator, Identity.load(coordinator / "identity.pem"), now)),
        patience=Patience(seconds=3600.0, poll=0.02),
        show=show,
        stop=stop,
        done=ended.append,
        failed=failed.append,
    )
    if engine == "ray":
        run_ray(server, client, len(folders))
    else:
        run_local(server, client, node_configs([partner.name for partner in plan.partners]))
    if failed:
        raise failed[0]
    if not ended:
        raise StudyAborted
    return Outcome(signed, ended[0], folders, Registry(root / "coordinator").published())
