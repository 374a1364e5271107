"""Flower's own simulation engine, on Ray: slower to start, and the way to more machines."""

import logging
import os
import warnings
from collections.abc import Sequence

from flwr.app import ConfigRecordValues
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from coterie.privacy.errors import CoterieError, Fault

__all__ = ["EngineMissing", "node_configs", "run_ray"]


class EngineMissing(CoterieError):
    """The engine's package is not installed."""


def run_ray(server: ServerApp, client: ClientApp, count: int) -> None:
    """Run a server app against `count` client nodes on Ray.

    Each node's context carries its "partition-id", 0 to count - 1.

    Raises:
        EngineMissing: Ray is not installed.
    """
    # Read by Flower and Ray at import: nothing of a study is anybody else's business.
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # noqa: F401, PLC0415 - optional, and slow to import
    except ImportError:
        raise EngineMissing(
            Fault("--engine ray", "needs the package ray", "install coterie[ray], or use --engine local")
        ) from None
    from flwr.simulation import run_simulation  # noqa: PLC0415 - imports Ray

    logging.getLogger("flwr").setLevel(logging.ERROR)
    quiet: dict[str, ConfigRecordValues] = {"logging_level": "ERROR", "log_to_driver": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_simulation(
            server_app=server,
            client_app=client,
            num_supernodes=count,
            backend_config={
                "init_args": quiet,
                "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            },
        )


def node_configs(names: Sequence[str]) -> list[dict[str, int]]:
    """Return what Ray's nodes see as their configuration, for the local engine to say the same."""
    return [{"partition-id": index, "num-partitions": len(names)} for index in range(len(names))]
