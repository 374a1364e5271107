"""Taking a table into the vault for a contract, which the partner's operator thereby approves."""

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from coterie.clients.vault import open_table, read_table
from coterie.clients.workspace import Workspace
from coterie.privacy.contract import Contract
from coterie.privacy.durable import write_durably
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.plan import plan_from_dict
from coterie.privacy.randomness import OsSource
from coterie.privacy.study import read_study

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


def take_in(folder: Path, table: Path, contract: Contract) -> Mapping[str, int]:
    """Check a table against a contract, put it into the vault whole or not at all, and approve the contract.

    Args:
        folder: The partner's workspace.
        table: Parquet or CSV.
        contract: What the table must keep. Importing for it is the operator's approval: its bounds and vocabularies are
            the coordinator's words, and from then on studies may ask through them.

    Returns:
        Local counts of what the contract lets pass.

    Raises:
        ContractFault: The table breaks the contract; vault and approvals are left as they were.
        FileFault: The workspace is wrong, or the vault cannot be written.
        WorkspaceBusy: Another process holds the workspace.
    """
    workspace = Workspace(folder)
    with workspace.lock():
        stream = OsSource().stream("intake")
        opened = open_table(table, contract, group_key=workspace.group_key, stream=stream)
        sink = pa.BufferOutputStream()
        pyarrow.parquet.write_table(read_table(table, contract), sink, compression="zstd")
        write_durably(workspace.table, sink.getvalue().to_pybytes())
        workspace.approve(contract)
    return opened.notes
