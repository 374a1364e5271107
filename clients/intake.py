"""Taking a table into the vault for a contract, which the partner's operator thereby approves."""

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from coterie.clients.catalogues import write_catalogue
from coterie.clients.interactions import attributes_of, catalogue_of, open_histories
from coterie.clients.vault import open_table, read_table
from coterie.clients.workspace import Workspace
from coterie.privacy.contract import Contract
from coterie.privacy.durable import write_durably
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.plan import Plan, plan_from_dict
from coterie.privacy.randomness import OsSource
from coterie.privacy.study import read_study

__all__ = ["contract_of", "plan_of", "take_in", "take_in_interactions"]


def plan_of(path: Path) -> Plan:
    """Read the plan of a study file, or a signed plan.

    Raises:
        FileFault: It is neither.
    """
    if path.suffix == ".toml":
        return read_study(path).plan
    try:
        return plan_from_dict(json.loads(path.read_bytes())["plan"])
    except (OSError, ValueError, KeyError, TypeError):
        raise FileFault(Fault(str(path), "is not a plan", "give a study file or a signed plan")) from None


def contract_of(path: Path) -> Contract:
    """Read the contract of a study file or of a signed plan; raises as `plan_of`."""
    return plan_of(path).contract


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
        write_durably(workspace.table, _parquet(read_table(table, contract)))
        workspace.approve(contract)
    return opened.notes


def take_in_interactions(folder: Path, table: Path, plan: Plan, catalogue: Path) -> Mapping[str, int]:
    """Check a table of interactions against a plan that recommends, put it into the vault, and approve its contract.

    Args:
        folder: The partner's workspace.
        table: Parquet or CSV.
        plan: The plan.
        catalogue: The item table that the partners agreed on.

    Returns:
        Local counts of what the contract lets pass.

    Raises:
        ContractFault: The table breaks the contract; vault and approvals are left as they were.
        CatalogueFault: The catalogue is unreadable, or not the plan's.
        FileFault: The workspace is wrong, or the vault cannot be written.
        WorkspaceBusy: Another process holds the workspace.
    """
    workspace = Workspace(folder)
    with workspace.lock():
        agreed = catalogue_of(catalogue, plan)
        if plan.catalogue is not None and plan.catalogue.attributes:
            attributes_of(catalogue, plan)  # at work another number of them would cost the contract its approval
        opened = open_histories(table, plan.contract, agreed, group_key=workspace.group_key)
        kept = workspace.catalogue(agreed.digest())
        kept.parent.mkdir(exist_ok=True)
        write_catalogue(agreed, kept)
        write_durably(workspace.interactions, _parquet(read_table(table, plan.contract)))
        workspace.approve(plan.contract)
    return opened.notes


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())
