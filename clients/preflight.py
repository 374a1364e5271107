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

from coterie.clients.bundle import bundle_digest
from coterie.clients.findings import wanted_columns
from coterie.clients.history import introduce
from coterie.clients.hygiene import check_rights, forbid_dumps, swap_warning
from coterie.clients.joined import joined
from coterie.clients.rehearsal import rehearse
from coterie.clients.vault import CUSTOMERS, IDENTIFIERS, INTERACTIONS, open_vault
from coterie.clients.workspace import Workspace
from coterie.privacy.contract import Contract
from coterie.privacy.errors import CoterieError, Fault, FileFault
from coterie.privacy.ledger import Ledger
from coterie.privacy.matching.sodium import sodium
from coterie.privacy.policy import read_policy
from coterie.privacy.schema import parse

__all__ = ["Check", "Clock", "PreflightFault", "checks_here", "run_checks"]

Clock = Callable[[], datetime.datetime]

_LEAST_DISK = 1 << 30  # bytes
_FLOWER = "1.41."
_SEAL = "seal the table: coterie partner seal FOLDER TABLE --plan PLAN"


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
    yield "vault and contracts", lambda: _vault(workspace, clock)
    yield "hygiene", lambda: _hygiene(workspace)
    yield "admission", lambda: _admission(workspace, clock)
    yield "versions", _versions
    yield "matching", lambda: _matching(workspace)
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


def _vault(workspace: Workspace, clock: Clock) -> str:
    contracts = sorted((workspace.root / "contracts").glob("*.json"))
    matched = workspace.identifies()
    if not contracts and not matched:
        raise PreflightFault(Fault("contracts", "none is approved, so no study can run", _SEAL))
    with open_vault(workspace.root, clock) as vault:
        for path in contracts:
            contract = _approved(path)
            table = vault.table(INTERACTIONS if contract.interactions else CUSTOMERS)
            missing = sorted(set(_wanted(contract)) - set(table.schema.names))
            if missing:
                raise PreflightFault(Fault(table.place, f"has no column {', '.join(missing)}", _SEAL))
        if matched:
            vault.table(IDENTIFIERS)
        kind = vault.keys.kind
    also = "; identifiers may be matched" if matched else ""
    return f"{len(contracts)} approved, and the vault has their columns, sealed under keys of source {kind}{also}"


def _hygiene(workspace: Workspace) -> str:
    plain = [path for name in (CUSTOMERS, INTERACTIONS) if (path := workspace.vault / f"{name}.parquet").exists()]
    if plain:
        rule, fix = "lies there in plain, from before tables were sealed", f"{_SEAL}; then remove it"
        raise PreflightFault(*(Fault(str(path), rule, fix) for path in plain))
    looked, by = check_rights(workspace.vault), ", ".join(forbid_dumps())
    swap = swap_warning() or "no swap"
    return f"{looked} files and folders of the vault are yours alone; no core dumps ({by}); {swap}"


def _approved(path: Path) -> Contract:
    """Read an approved contract, whose file is named by its digest."""
    try:
        contract = parse(Contract, _said(json.loads(path.read_bytes())), place=str(path))
    except (OSError, ValueError, FileFault):
        contract = None
    if contract is None or contract.digest() != f"sha256:{path.stem}":
        raise PreflightFault(Fault(str(path), "is not the contract that was approved", f"remove it, and {_SEAL}"))
    return contract


def _said(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return JSON values without what they do not say: a file of a contract writes that as null."""
    if isinstance(value, dict):
        return {name: _said(item) for name, item in value.items() if item is not None}
    return [_said(item) for item in value] if isinstance(value, list) else value


def _wanted(contract: Contract) -> list[str]:
    rows = contract.interactions
    if rows is None:
        return wanted_columns(contract)
    return [contract.customer, rows.item, rows.time, *([rows.value] if rows.value else [])]


def _admission(workspace: Workspace, clock: Clock) -> str:
    admission = joined(workspace)
    admission.check_dates(clock())
    admission.check_bundle(f"sha256:{bundle_digest()}")
    return f"by the coordinator {admission.fingerprint}, until {admission.expires[:10]}"


def _matching(workspace: Workspace) -> str:
    rules = read_policy(workspace.policy).matching if workspace.policy.exists() else None
    if rules is None:
        return "no policy permits a match"
    sodium()
    most = f"{rules.evaluations:,} evaluations and {rules.disclosures} disclosures a year"
    return f"libsodium is there and right; {', '.join(rules.outcomes)} by {', '.join(rules.identifiers)}, {most}"


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
