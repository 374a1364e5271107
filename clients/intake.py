"""Taking a table into the vault, after it has been held against a contract."""

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet

from coterie.clients.vault import open_table, read_table
from coterie.clients.workspace import Workspace
from coterie.privacy.contract import Contract
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.plan import plan_from_dict, read_study
from coterie.privacy.randomness import OsSource

__all__ = ["contract_of", "take_in"]


def contract_of(path: Path) -> Contract:
    """Read the contract of a study file or of a signed plan.

    Raises:
        FileFault: It is neither.
    """
    if path.suffix == ".toml":
        return read_study(path).plan.contract
    try:
        return plan_from_dict(json.loads(path.read_bytes())["plan"]).contract
    except (OSError, ValueError, KeyError, TypeError):
        raise FileFault(Fault(str(path), "is not a plan", "give a study file or a signed plan")) from None


def take_in(folder: Path, table: Path, plan: Path) -> Mapping[str, int]:
    """Check a table against a plan's contract, and put it into the vault whole or not at all.

    Args:
        folder: The partner's workspace.
        table: Parquet or CSV.
        plan: Study file or signed plan.

    Returns:
        Local counts of what the contract lets pass.

    Raises:
        ContractFault: The table breaks the contract; the vault is left as it was.
        FileFault: The plan or the workspace is wrong, or the vault cannot be written.
        WorkspaceBusy: Another process holds the workspace.
    """
    contract = contract_of(plan)
    workspace = Workspace(folder)
    with workspace.lock():
        stream = OsSource().stream("intake")
        opened = open_table(table, contract, group_key=workspace.group_key, stream=stream)
        beside = workspace.table.with_name(workspace.table.name + ".new")
        try:
            beside.touch(mode=0o600)
            pyarrow.parquet.write_table(read_table(table, contract), beside, compression="zstd")
            beside.replace(workspace.table)
        except OSError as error:
            beside.unlink(missing_ok=True)
            why = error.strerror or "the system refused"
            raise FileFault(Fault(str(workspace.table), f"cannot be written ({why})", "free some space")) from None
    return opened.notes
