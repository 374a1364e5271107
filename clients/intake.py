"""Taking a table into the vault for a contract, which the partner's operator thereby approves.

What is checked is what is sealed: the pieces are read once, checked and sealed in one pass, and nothing becomes current
before the last of them has kept the contract.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coterie.clients.catalogues import write_catalogue
from coterie.clients.consents import check_consents
from coterie.clients.findings import Findings, wanted_columns
from coterie.clients.interactions import attributes_of, catalogue_of, open_histories
from coterie.clients.opening import check_columns
from coterie.clients.sealing import See, Staged, stage, unseen
from coterie.clients.tables.numbers import numbers_of
from coterie.clients.tables.table import Table
from coterie.clients.vault import CONSENTS, CUSTOMERS, INTERACTIONS, Vault
from coterie.privacy.contract import Contract
from coterie.privacy.errors import ContractFault, Fault, FileFault
from coterie.privacy.plan import Plan, plan_from_dict
from coterie.privacy.study import read_study

__all__ = ["contract_of", "plan_of", "take_in", "take_in_consents", "take_in_interactions"]


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


def take_in(vault: Vault, table: Table, contract: Contract, *, see: See = unseen) -> Mapping[str, int]:
    """Check a table against a contract, seal it whole or not at all, and approve the contract.

    The memory that is used does not grow with the rows, but for 8 bytes of each, by which customers with too many rows
    are found; at the end, 25 for a moment.

    Args:
        vault: The partner's.
        table: The customers.
        contract: What the table must keep. Sealing for it is the operator's approval: its bounds and vocabularies are
            the coordinator's words, and from then on studies may ask through them.
        see: Is told of progress.

    Returns:
        Local counts of what the contract lets pass.

    Raises:
        ContractFault: The table breaks the contract; vault and approvals are left as they were.
        FileFault: The vault cannot be written; it is left as it was.
        KeyFault: The key source does not answer.
    """
    check_columns(table, wanted_columns(contract))
    check_columns(table, table.schema.names)
    findings, schema = Findings(contract), _schema(table.schema, contract)
    pieces = _checked(table, contract, schema, findings)
    stage(vault, CUSTOMERS, pieces, schema=schema, customer=contract.customer, see=see).commit("sealed")
    vault.workspace.approve(contract)
    return findings.notes


def take_in_interactions(
    vault: Vault, table: Table, plan: Plan, catalogue: Path, *, see: See = unseen
) -> Mapping[str, int]:
    """Check a table of interactions against a plan that recommends, seal it, and approve its contract.

    Args:
        vault: The partner's.
        table: The interactions.
        plan: The plan.
        catalogue: The item table that the partners agreed on.
        see: Is told of progress.

    Returns:
        Local counts of what the contract lets pass.

    Raises:
        ContractFault: The table breaks the contract; vault and approvals are left as they were.
        CatalogueFault: The catalogue is unreadable, or not the plan's.
        FileFault: The vault cannot be written.
        KeyFault: The key source does not answer.
    """
    workspace = vault.workspace
    agreed = catalogue_of(catalogue, plan)
    if plan.catalogue is not None and plan.catalogue.attributes:
        attributes_of(catalogue, plan)  # at work another number of them would cost the contract its approval
    check_columns(table, table.schema.names)
    pieces, customer = table.pieces(table.schema.names), plan.contract.customer
    staged = stage(vault, INTERACTIONS, pieces, schema=table.schema, customer=customer, see=see)
    with _as_read_from(table, staged):
        opened = open_histories(staged.table(), plan.contract, agreed, group_key=workspace.group_key)
    kept = workspace.catalogue(agreed.digest())
    kept.parent.mkdir(exist_ok=True)
    write_catalogue(agreed, kept)
    staged.commit("sealed")
    workspace.approve(plan.contract)
    return opened.notes


def take_in_consents(vault: Vault, table: Table, *, see: See = unseen) -> Mapping[str, int]:
    """Check a table of customers' consents and seal it.

    Args:
        vault: The partner's.
        table: Columns customer, purpose, given, expires and withdrawn.
        see: Is told of progress.

    Returns:
        Rows for each purpose, for the partner's own eyes.

    Raises:
        ContractFault: The table is not one of consents; the vault is left as it was.
        FileFault: The vault cannot be written.
        KeyFault: The key source does not answer.
    """
    check_columns(table, table.schema.names)
    pieces = table.pieces(table.schema.names)
    staged = stage(vault, CONSENTS, pieces, schema=table.schema, customer="customer", see=see)
    with _as_read_from(table, staged):
        found = check_consents(staged.table())
    staged.commit("sealed")
    return found


@contextlib.contextmanager
def _as_read_from(table: Table, staged: Staged) -> Iterator[None]:
    """Drop what was staged where it breaks a rule, and tell it of the table that it came from."""
    try:
        yield
    except ContractFault as error:
        staged.drop()
        here = staged.place
        said = ((fault.place.replace(here, table.place), fault.rule, fault.fix) for fault in error.faults)
        raise ContractFault(*(Fault(*words) for words in said)) from None


def _schema(schema: pa.Schema, contract: Contract) -> pa.Schema:
    """Return how columns are sealed: as they come, but numbers that are written as texts as numbers."""
    numeric = {column.name for column in contract.columns if column.kind == "numeric"} | {contract.label}
    return pa.schema([_number(field) if field.name in numeric else field for field in schema])


def _number(field: pa.Field) -> pa.Field:
    text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    return field.with_type(pa.float64()) if text else field


def _checked(table: Table, contract: Contract, schema: pa.Schema, findings: Findings) -> Iterator[pa.RecordBatch]:
    """Yield a table's pieces as they are sealed, and raise after the last one where they broke the contract."""
    names, hashes = table.schema.names, list[NDArray[np.int64]]()
    for piece in table.pieces(names):
        for column in contract.columns:
            findings.feature(column, piece[column.name])
        findings.labels(piece[contract.label])
        customers = findings.customers(piece[contract.customer]).drop_null()
        # Python's own hash of a text, keyed anew for each process: 64 bits, so that two customers are taken for one
        # once in 2**64 / customers**2.
        hashes.append(np.fromiter(map(hash, customers.to_pylist()), dtype=np.int64, count=len(customers)))
        yield pa.RecordBatch.from_arrays(
            [
                column if field.type == column.type else pa.array(numbers_of(column).values, from_pandas=True)
                for column, field in zip(piece.columns, schema, strict=True)
            ],
            schema=schema,
        )
    if not hashes:
        raise ContractFault(Fault(table.place, "has no rows", "give a table with customers"))
    findings.crowded(_rows_of_each(hashes))
    faults = findings.faults(table.place)
    if faults:
        raise ContractFault(*faults)


def _rows_of_each(hashes: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return how many rows each customer has, in no order; the list is emptied, so that memory is not taken twice."""
    together = np.concatenate(hashes)
    hashes.clear()
    together.sort()
    last = np.flatnonzero(np.append(together[1:] != together[:-1], [True] * bool(together.size)))
    del together
    return np.diff(last, prepend=-1)
