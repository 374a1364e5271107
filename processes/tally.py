"""What a child process counts for its supervisor's metrics: a small file of totals in the folder `run`.

The file is not written durably: after a crash of the machine its counts are worth nothing.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Count", "Tally", "counts"]

_LARGEST = 1 << 16  # bytes


@dataclass(frozen=True)
class Count:
    """A counter's total.

    Args:
        name: One of `METRICS`.
        labels: Its labels.
        total: Since the process that counts was started.
    """

    name: str
    labels: dict[str, str]
    total: float


class Tally:
    """The counts of one process.

    Args:
        folder: The folder `run`, which is there.
        process: Its name.
    """

    def __init__(self, folder: Path, process: str) -> None:
        self._path = _path(folder, process)
        self._totals: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def count(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter, in memory.

        Args:
            name: One of `METRICS`.
            amount: Not negative.
            labels: Its labels, each a short word of the code's own.
        """
        key = (name, tuple(sorted(labels.items())))
        self._totals[key] = self._totals.get(key, 0.0) + amount

    def write(self) -> None:
        """Write the totals for the supervisor; where the disk is full, the older ones stay."""
        rows = [
            {"name": name, "labels": dict(labels), "total": total} for (name, labels), total in self._totals.items()
        ]
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(rows), encoding="utf-8")
            fresh.chmod(0o600)
            fresh.replace(self._path)
        except OSError:
            return  # counting must not stop the work


def counts(folder: Path, process: str) -> Iterator[Count]:
    """Yield what a process has counted; nothing where it has not, or the file is damaged.

    Args:
        folder: The folder `run`.
        process: The name that the process has there.
    """
    try:
        with _path(folder, process).open("rb") as file:
            rows = json.loads(file.read(_LARGEST))
        found = [_count(row["name"], row["labels"], row["total"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return
    yield from found


def _count(name: object, labels: dict[object, object], total: float) -> Count:
    if not 0 <= total < math.inf:
        raise ValueError("a total is never negative")
    return Count(str(name), {str(label): str(value) for label, value in labels.items()}, float(total))


def _path(folder: Path, process: str) -> Path:
    return folder / f"counts-{process}.json"
