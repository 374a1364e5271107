"""What every result says of where it was measured, and how it is written down."""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coterie.privacy.durable import write_durably


def conditions(*packages: str) -> dict[str, Any]:
    """Return date, machine and versions."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("coterie", *packages)},
    }


def arguments_for(text: str) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=text.split("\n", maxsplit=1)[0])
    parser.add_argument("--output", type=Path)
    return parser


def publish(result: Mapping[str, Any], output: Path | None) -> None:
    """Print a result, and write it down where it is asked for."""
    text = json.dumps(result, indent=1)
    print(text)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_durably(output, text.encode() + b"\n")
