"""What a partner tests before its first study: everything that would otherwise fail in the middle of one.

Each check says what it found, or what is wrong by which rule and how to mend it. Nothing is sent to the coordinator but
what its gateway's health page asks for, unless the node is not running: then its key is shown once (`reaching.py`).
"""

import datetime
import importlib.metadata
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from coterie.clients.bundle import bundle_digest
from coterie.clients.history import introduce
from coterie.clients.joined import joined
from coterie.clients.rehearsal import rehearse
from coterie.clients.workspace import Workspace
from coterie.privacy.canonical import digest
from coterie.privacy.errors import CoterieError, Fault, FileFault
from coterie.privacy.ledger import Ledger
from coterie.privacy.policy import read_policy

__all__ = ["Check", "Clock", "PreflightFault", "checks_here", "run_checks"]

Clock = Callable[[], datetime.datetime]

_LEAST_DISK = 1 << 30  # bytes
_FLOWER = "1.41."
_IMPORT = "import the table: coterie partner import FOLDER TABLE --plan PLAN"


class PreflightFault(CoterieError):
    """Something that would stop a study."""


@dataclass(frozen=True)
class Check:
    """One thing that was tested.

    Args:
        name: In a word or two.
        fine: Whether it is as it must be.
        said: What was found; for what is not fine, what is wrong and the fix.
    """

    name: str
    fine: bool
    said: str


def run_checks(checks: Iterator[tuple[str, Callable[[], str]]]) -> Iterator[Check]:
    """Run checks one after another; what one raises is its finding.

    Args:
        checks: Names, and functions that return what they found.
    """
    for name, check in checks:
        try:
            yield Check(name, True, check())  # noqa: FBT003 - a finding, not a flag
        except CoterieError as error:
            yield Check(name, False, " ".join(str(fault) for fault in error.faults))  # noqa: FBT003
        except OSError as error:
            rule = f"cannot be used ({error.strerror or type(error).__name__})"
            said = str(Fault(str(error.filename or "the system"), rule, "check the path, its rights and the disk"))
            yield Check(name, False, said)  # noqa: FBT003


def checks_here(workspace: Workspace, clock: Clock) -> Iterator[tuple[str, Callable[[], str]]]:
    """Return the checks that need no network.

    Args:
        workspace: The partner's.
        clock: Returns the time in UTC.
    """
    yield "workspace", lambda: _files(workspace)
    if not _is_one(workspace):
        return  # nothing is looked for, or tried, in somebody else's folder
    yield "ledger", lambda: _ledger(workspace, clock)
    yield "policy", lambda: _policy(workspace)
    yield "vault and contracts", lambda: _vault(workspace)
    yield "admission", lambda: _admission(workspace, clock)
    yield "versions", _versions
    yield "disk", lambda: _disk(workspace.root)
    yield "dry round", lambda: f"{rehearse(clock)} charged releases with made-up customers, in a folder thrown away"


def _files(workspace: Workspace) -> str:
    if not _is_one(workspace):
        raise FileFault(Fault(str(workspace.root), "is not a workspace", "make one with: coterie partner init"))
    open_to_others = [
        path for path in (workspace.root, *sorted((workspace.root / "keys").iterdir())) if _others_may(path)
    ]
    if open_to_others:
        raise PreflightFault(
            *(Fault(str(path), "is open to other users", f"chmod go-rwx {path}") for path in open_to_others)
        )
    _ = workspace.identity, workspace.group_key
    return f"{workspace.name}, keys readable by their owner alone"


def _is_one(workspace: Workspace) -> bool:
    return (workspace.root / "coterie.toml").is_file()


def _others_may(path: Path) -> bool:
    return path.suffix != ".pub" and bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def _ledger(workspace: Workspace, clock: Clock) -> str:
    with Ledger(workspace.ledger, clock) as ledger:
        if next(ledger.entries("opened"), None) is not None:  # before the first study there is nothing to hold it to
            introduce(ledger, workspace)
        return f"opens, and is this partner's; {ledger.size} entries"


def _policy(workspace: Workspace) -> str:
    policy = read_policy(workspace.policy)
    said = f"lifetime epsilon {policy.budget.lifetime_epsilon:g}, at most {policy.budget.study_epsilon:g} a study"
    if policy.approval is None:
        return f"{said}; every plan waits for your approval"
    return f"{said}; plans up to epsilon {policy.approval.automatic_epsilon:g} are approved by themselves"


def _vault(workspace: Workspace) -> str:
    contracts = sorted((workspace.root / "contracts").glob("*.json"))
    if not contracts:
        raise PreflightFault(Fault("contracts", "none is approved, so no study can run", _IMPORT))
    for path in contracts:
        contract = _approved(path)
        table = workspace.interactions if contract.get("interactions") else workspace.table
        missing = sorted(_wanted(contract) - _columns(table))
        if missing:
            raise PreflightFault(Fault(str(table), f"has no column {', '.join(missing)}", _IMPORT))
    return f"{len(contracts)} approved, and the vault has their columns"


def _approved(path: Path) -> dict[str, Any]:
    """Read an approved contract, whose file is named by its digest."""
    try:
        contract = json.loads(path.read_bytes())
        if contract.get("interactions") is None:
            contract.pop("interactions", None)  # as the contract's own digest has it
        if digest(contract) == f"sha256:{path.stem}":
            return dict(contract)
    except (ValueError, AttributeError):
        pass
    raise PreflightFault(Fault(str(path), "is not the contract that was approved", f"remove it, and {_IMPORT}"))


def _wanted(contract: dict[str, Any]) -> set[str]:
    rows = contract.get("interactions")
    names = [rows["item"], rows["time"], rows["value"]] if rows else [contract["label"]]
    return {name for name in (contract["customer"], *names, *(one["name"] for one in contract["columns"])) if name}


def _columns(table: Path) -> set[str]:
    if not table.exists():
        raise PreflightFault(Fault(str(table), "is missing, though a contract for it is approved", _IMPORT))
    try:
        return set(pyarrow.parquet.read_schema(table).names)
    except pa.ArrowInvalid:
        raise PreflightFault(Fault(str(table), "is not a readable Parquet file", _IMPORT)) from None


def _admission(workspace: Workspace, clock: Clock) -> str:
    admission = joined(workspace)
    admission.check_dates(clock())
    admission.check_bundle(f"sha256:{bundle_digest()}")
    return f"by the coordinator {admission.fingerprint}, until {admission.expires[:10]}"


def _versions() -> str:
    flower, here = importlib.metadata.version("flwr"), importlib.metadata.version("coterie")
    if not flower.startswith(_FLOWER):
        fix = f"pip install 'flwr=={_FLOWER}*'"
        raise PreflightFault(Fault("flwr", f"is {flower}, and this coterie is held to {_FLOWER}x", fix))
    return f"coterie {here}, flwr {flower}, torch {importlib.metadata.version('torch')}"


def _disk(root: Path) -> str:
    probe = root / "run" / "probe"
    probe.parent.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(handle, b"\0" * 4096)
        os.fsync(handle)
    finally:
        os.close(handle)
        probe.unlink()
    free = shutil.disk_usage(root).free
    if free < _LEAST_DISK:
        raise PreflightFault(
            Fault(str(root), f"has {free >> 20} MiB free of the {_LEAST_DISK >> 20} it wants", "make room")
        )
    return f"{free >> 30} GiB free, and it keeps what is written"
