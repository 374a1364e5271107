"""What a node refuses: one data-free word for the coordinator, the text for the partner's own operator."""

from collections.abc import Sequence
from pathlib import Path

from coterie.privacy.durable import write_durably
from coterie.privacy.errors import CoterieError, Fault

__all__ = ["Notes", "TaskRefused", "refused", "unforeseen"]


class TaskRefused(CoterieError):
    """A task that the node will not do; `code` is all that leaves.

    Args:
        code: A key of `privacy.release.CODES`.
        faults: The same for the partner's operator.
    """

    def __init__(self, code: str, *faults: Fault) -> None:
        super().__init__(*faults)
        self.code = code


def refused(code: str, place: str, rule: str, fix: str) -> TaskRefused:
    """Return a refusal with one fault."""
    return TaskRefused(code, Fault(place, rule, fix))


def unforeseen(error: Exception) -> Fault:
    """Name an error by its type: its text may hold a cell."""
    return Fault("the table", f"could not be used ({type(error).__name__})", "check it with: coterie partner seal")


class Notes:
    """Reports that only the partner's own operator reads; each line is kept once.

    Args:
        folder: The workspace's reports.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, file: str, faults: Sequence[Fault]) -> None:
        """Add lines to a report."""
        path = self._folder / file
        known = path.read_text(encoding="utf-8") if path.exists() else ""
        fresh = [line for line in (f"{fault}\n" for fault in faults) if line not in known]
        if fresh:
            write_durably(path, (known + "".join(fresh)).encode())
