"""Erasing one customer: every data set is sealed anew without its rows, and what the old ones were sealed under dies.

In this order, each step durable, so that the same command finishes what was interrupted:
    1. which models were trained with the customer, and what was spent, is answered;
    2. a new key-encryption key is made;
    3. every data set is sealed anew without the customer, under new data keys and the new key-encryption key, also
       those that do not hold it: what is written of an erasure depends on nobody's rows;
    4. older key-encryption keys are destroyed;
    5. the ledger gets an entry that names nobody.

Guarantees:
    Afterwards no data set of the vault holds the customer. Where all key-encryption keys that the vault ever had are of
    one source that is held apart from the workspace and its backups (`KeySource.apart`), no copy of an older vault can
    be opened any more. A vault that was moved from another source has copies under keys that are not this one's.

Leaks:
    That something was erased, and when. Models that were released stay as they are: what they say of the customer is
    bounded by what was spent. With a passphrase or key files an older backup that has them opens still (PRIVACY.md,
    rule 20): the entry says "not-provable".
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from coterie.clients.matching.store import drop_matches
from coterie.clients.rekeying import destroy_older
from coterie.clients.sealedtable import SealedTable
from coterie.clients.sealing import See, stage, unseen
from coterie.clients.tracing import Trace, trace
from coterie.clients.vault import DATASETS, Vault
from coterie.privacy.canonical import canonical, digest
from coterie.privacy.durable import sync_folder, write_durably
from coterie.privacy.errors import Fault, FileFault

__all__ = ["Erased", "erase", "rows_of", "trace_customer"]

_LABEL = b"coterie/erasure/v1\n"


@dataclass(frozen=True)
class Erased:
    """What was done.

    Args:
        rows: How many rows of the customer there were, by data set; for the partner's own operator.
        trace: Which models were trained with the customer, and what was spent.
        answer: Digest of that answer with a salt, as the ledger has it.
        destroyed: Epochs of key-encryption keys that are gone.
        proved: Whether this proves that older copies are dead.
    """

    rows: dict[str, int]
    trace: Trace
    answer: str
    destroyed: tuple[str, ...]
    proved: bool


def rows_of(vault: Vault, customer: str) -> dict[str, int]:
    """Return how many rows each data set holds of a customer.

    Raises:
        SealFault: What is in the vault is not what the ledger says.
        KeyFault: The keys cannot be had.
    """
    found = {}
    for name in DATASETS:
        if vault.holds(name):
            table = vault.table(name)
            column = str(table.inside["customer"])
            found[name] = sum(
                int(pc.sum(_is(piece, column, customer)).as_py() or 0) for piece in table.pieces([column])
            )
    return found


def trace_customer(vault: Vault, customer: str) -> Trace:
    """Say which models were trained with a customer, and what was spent; changes nothing.

    Raises:
        SealFault: What is in the vault is not what the ledger says.
        KeyFault: The keys cannot be had.
        FileFault: The policy or a plan cannot be read.
        LedgerFault: The ledger cannot be read.
    """
    held = rows_of(vault, customer)
    since: dict[str, int] = {}
    for entry in vault.ledger.entries("vault"):
        name = str(entry.body["dataset"])
        # Whoever is in a data set now was in it since it was last sealed from a table: nothing else adds rows.
        if entry.body["what"] == "sealed" and held.get(name):
            since[name] = entry.seq
    return trace(vault.workspace, vault.ledger, customer, since=since)


def erase(vault: Vault, customer: str, *, see: See = unseen) -> Erased:
    """Erase a customer; called again after an interruption, it finishes.

    Args:
        vault: The vault.
        customer: The identifier, as the tables write it.
        see: Is told of progress, for each data set from 0 on.

    Raises:
        FileFault: Nothing is sealed of the customer; or an erasure of another customer was interrupted; or the policy,
            a plan or the vault cannot be read or written.
        KeyFault: The key source cannot make a new key, destroy the old one, or be reached.
        SealFault: What is in the vault is not what the ledger says.
        LedgerFault: The ledger cannot be written.
    """
    begun = _begun(vault, customer)
    drop_matches(vault.workspace)  # their lists were made with the customer, and cannot go on without
    rows = rows_of(vault, customer)
    if begun is None:
        if not any(rows.values()):
            fix = "write the identifier as the table does; an identifier that was never there cannot be erased"
            raise FileFault(Fault("the vault", "holds no row of this customer", fix))
        begun = _begin(vault, customer, trace_customer(vault, customer))
    current = vault.keys.epochs()[-1]
    # Whatever was sealed or wrapped with the customer since it was begun is left behind as well.
    if begun["epoch"] != current and any(_epoch(vault, name) == current for name, count in rows.items() if count):
        begun = _note_down(vault, begun | {"epoch": current})
    if current == begun["epoch"]:
        current = vault.keys.advance(after=current)
    for name in rows:
        _without(vault, name, customer, current, see)
    destroyed = destroy_older(vault)
    proved = _proved(vault)
    _record(vault, begun, list(rows), current, "destroyed" if proved else "not-provable")
    found = Trace.from_dict(begun["trace"])
    return Erased(rows, found, _answer(begun), destroyed, proved)


def _proved(vault: Vault) -> bool:
    """Return whether no older copy can be opened: all were under this source's keys, which lie apart and are gone."""
    sources = {entry.body["keys"] for entry in vault.ledger.entries("vault")}
    return vault.keys.apart and sources == {vault.keys.kind}


def _without(vault: Vault, dataset: str, customer: str, epoch: str, see: See) -> None:
    """Seal a data set anew without a customer, where that was not done yet."""
    table = vault.table(dataset)
    if table.manifest.epoch == epoch:
        return
    column = str(table.inside["customer"])
    stage(vault, dataset, _others(table, column, customer), schema=table.schema, customer=column, see=see).commit(
        "erased"
    )


def _newest_in_use(vault: Vault) -> str:
    """Return the newest epoch that a data set is under: one that an operator added since is new already."""
    used = {_epoch(vault, name) for name in DATASETS}
    return next((epoch for epoch in reversed(vault.keys.epochs()) if epoch in used), vault.keys.epochs()[-1])


def _epoch(vault: Vault, dataset: str) -> str:
    manifest = vault.newest(dataset)
    return manifest.epoch if manifest else ""


def _others(table: SealedTable, column: str, customer: str) -> Iterator[pa.RecordBatch]:
    for piece in table.pieces(table.schema.names):
        yield piece.filter(pc.invert(_is(piece, column, customer)))


def _is(piece: pa.RecordBatch, column: str, customer: str) -> pa.Array:
    return pc.fill_null(pc.equal(pc.cast(piece[column], pa.string()), customer), fill_value=False)


def _note(vault: Vault) -> Path:
    return vault.workspace.vault / "erasing"


def _begin(vault: Vault, customer: str, found: Trace) -> dict[str, Any]:
    """Write down that an erasure has begun: of whom, as a keyed hash alone."""
    begun = {
        "customer": _hashed(vault, customer),
        "epoch": _newest_in_use(vault),
        "trace": found.to_dict(),
        "salt": secrets.token_hex(32),
    }
    return _note_down(vault, begun)


def _note_down(vault: Vault, begun: dict[str, Any]) -> dict[str, Any]:
    write_durably(_note(vault), canonical(begun))
    return begun


def _begun(vault: Vault, customer: str) -> dict[str, Any] | None:
    """Return the erasure that was interrupted, or None."""
    path = _note(vault)
    if not path.exists():
        return None
    try:
        begun: dict[str, Any] = json.loads(path.read_bytes())
        same = hmac.compare_digest(begun["customer"], _hashed(vault, customer))
    except (OSError, ValueError, KeyError, TypeError):
        fix = "remove it, and erase the customer again"
        raise FileFault(Fault(str(path), "is damaged", fix)) from None
    if not same:
        rule, fix = "was interrupted", "finish it first: the same command with that customer"
        raise FileFault(Fault("the erasure of another customer", rule, fix))
    return begun


def _hashed(vault: Vault, customer: str) -> str:
    return hmac.new(vault.workspace.group_key, _LABEL + customer.encode(), hashlib.sha256).hexdigest()


def _answer(begun: dict[str, Any]) -> str:
    return digest({"format": "coterie/erasure/v1", "salt": begun["salt"], "trace": begun["trace"]})


def _record(vault: Vault, begun: dict[str, Any], datasets: list[str], epoch: str, shredded: str) -> None:
    answer = _answer(begun)
    if not any(entry.body["answer"] == answer for entry in vault.ledger.entries("erasure")):
        body = {"answer": answer, "datasets": datasets, "keys": vault.keys.kind, "epoch": epoch, "shredded": shredded}
        vault.ledger.record("erasure", body)
    kept = vault.workspace.root / "reports" / "erasures"
    kept.mkdir(mode=0o700, exist_ok=True)
    about = {"format": "coterie/erasure/v1", "salt": begun["salt"], "trace": begun["trace"]}
    write_durably(kept / f"{answer.removeprefix('sha256:')}.json", canonical(about))
    _note(vault).unlink()
    sync_folder(vault.workspace.vault)
