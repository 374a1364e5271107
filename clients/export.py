"""The audit export: the one file that a partner hands to a reviewer.

It is an exit, and keeps the door's rules (PRIVACY rule 17): entries leave only in the exact shapes of
`privacy/entries.py`, beside signed plans, records and cards; no row, identifier, count of rows or key is in them.
"""

import datetime
import json
import os
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from coterie.clients.history import introduce, note_policy
from coterie.clients.receiving import card_path, record_path
from coterie.clients.workspace import Workspace
from coterie.privacy.charges import Entry
from coterie.privacy.checkpoint import noted_size
from coterie.privacy.durable import sync_folder
from coterie.privacy.entries import check_entry
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.ledger import Ledger
from coterie.privacy.review.bundle import KINDS, Header, bundle_lines

__all__ = ["bundle_of", "export_bundle", "software"]


def export_bundle(folder: Path, output: Path, clock: Callable[[], datetime.datetime]) -> int:
    """Write the bundle of a workspace, whole or not at all.

    Args:
        folder: The partner's workspace.
        output: A new file.
        clock: Returns the time in UTC.

    Returns:
        How many entries it holds.

    Raises:
        FileFault: The output exists or cannot be written, or there is no workspace.
        LedgerFault: An entry is not in a shape that may leave.
        WorkspaceBusy: Another process holds the workspace.
    """
    if output.exists():
        raise FileFault(Fault(str(output), "exists", "choose another file, or remove it"))
    workspace = Workspace(folder)
    beside = output.with_name(f"{output.name}.{os.getpid()}.new")
    with workspace.lock(), Ledger(workspace.ledger, clock) as ledger:
        introduce(ledger, workspace)
        ledger.check_index()
        if workspace.policy.exists():
            note_policy(ledger, workspace.policy)
        size = ledger.size
        try:
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                for line in bundle_of(workspace, ledger, clock()):
                    file.write(line)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(output)
            sync_folder(output.parent)
        except OSError as error:
            why = error.strerror or "the system refused"
            raise FileFault(
                Fault(str(output), f"cannot be written ({why})", "free some space or check rights")
            ) from None
        finally:
            beside.unlink(missing_ok=True)
    return size


def bundle_of(workspace: Workspace, ledger: Ledger, made: datetime.datetime) -> Iterator[bytes]:
    """Yield the lines of a bundle of the ledger as it is now; what is appended meanwhile is left for the next.

    Args:
        workspace: The partner's.
        ledger: Its open ledger.
        made: The time in UTC.
    """
    identity = workspace.identity
    head = ledger.checkpoint(identity)
    size = noted_size(head)
    parts = {kind: list(values) for kind, values in _before(workspace, ledger).items()}
    counts = {kind: len(parts.get(kind, ())) for kind in KINDS} | {"entry": size}
    header = Header(workspace.name, identity.public, made.isoformat(timespec="seconds"), software(), counts)
    before = [(kind, value) for kind, values in parts.items() for value in values]
    yield from bundle_lines(header, before, _entries(ledger, size), head=head, identity=identity)


def software() -> str:
    """Return name and version of what runs here."""
    try:
        return f"coterie {version('coterie')}"
    except PackageNotFoundError:
        return "coterie, not installed"


def _before(workspace: Workspace, ledger: Ledger) -> dict[str, list[Any]]:
    consented = dict.fromkeys(str(entry.body["plan"]) for entry in ledger.entries("consent"))
    received = dict.fromkeys(str(entry.body["plan"]) for entry in ledger.entries("model"))
    return {
        "plan": [found for plan in consented if (found := _stored(workspace.plan(plan))) is not None],
        "record": [found for plan in received if (found := _stored(record_path(workspace, plan))) is not None],
        "card": [found for plan in received if (found := _stored(card_path(workspace, plan))) is not None],
        "checkpoint": list(ledger.checkpoints()),
    }


def _stored(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    """Return what a file holds, or None where it is gone: the reviewer is told that it is missing."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _entries(ledger: Ledger, size: int) -> Iterator[Entry]:
    for entry in ledger.entries():
        if entry.seq > size:
            return
        check_entry(entry)
        yield entry
