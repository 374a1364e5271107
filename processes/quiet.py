"""The environment in which Flower's processes look nothing up, install nothing and tell nobody."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["quiet_environment"]

# Names as in flwr 1.41: supercore/telemetry.py, supercore/update_check.py, common/constant.py, supercore/tracing.py.
_SETTINGS = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_TELEMETRY_LOGGING": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TRACING_ENABLED": "0",
    "FLWR_ENABLE_EVENT_LOG": "0",
    # One partner's threads fight for the cores of a machine, its own and others'.
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "NO_COLOR": "1",
}
# A proxy would see, and could answer, what is meant for loopback; a start-up file would run in every process.
_DROPPED = frozenset({"http_proxy", "https_proxy", "all_proxy", "ftp_proxy", "no_proxy", "pythonstartup"})


def quiet_environment(base: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return the environment for the processes that a supervisor starts.

    Args:
        base: The environment to begin with, such as `os.environ`; Flower's own settings in it are dropped.
        home: Flower's home, a folder of this workspace.

    Returns:
        It without proxies, with telemetry, update checks, tracing and installations off, and with this
        interpreter's programs first on PATH.
    """
    kept = {
        name: value
        for name, value in base.items()
        if name.lower() not in _DROPPED and not name.startswith("FLWR_") and name not in _SETTINGS
    }
    programs = str(Path(sys.executable).parent)
    others = [folder for folder in kept.get("PATH", os.defpath).split(os.pathsep) if folder and folder != programs]
    return {**kept, **_SETTINGS, "FLWR_HOME": str(home), "PATH": os.pathsep.join([programs, *others])}
