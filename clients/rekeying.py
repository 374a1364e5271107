"""New keys for what is sealed: a new key-encryption key for all of it, or new data keys for single columns.

The first changes no stream, so its time does not grow with the rows. The second seals columns anew, one at a time, each
of them one durable step: killed in between, the same command goes on where it was.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from coterie.clients.cellkeys import rewrap_cells
from coterie.clients.cellring import wrapped_by
from coterie.clients.sealing import See, or_swept, seal_columns, unseen
from coterie.clients.vault import DATASETS, Vault
from coterie.privacy.canonical import canonical
from coterie.privacy.durable import sync_folder, write_durably
from coterie.privacy.errors import Fault
from coterie.privacy.fields.errors import SealFault
from coterie.privacy.fields.keysource import KeySource
from coterie.privacy.fields.manifest import Manifest, Stream, key_context
from coterie.privacy.fields.wiping import wiped

__all__ = ["Rewrapped", "destroy_older", "forget_waiting", "move_keys", "rekey", "rewrap", "waiting_columns"]


@dataclass(frozen=True)
class Rewrapped:
    """What a new key-encryption key was given to.

    Args:
        epoch: The epoch that is current now.
        datasets: Data sets that were wrapped anew.
    """

    epoch: str
    datasets: tuple[str, ...]


def rewrap(vault: Vault) -> Rewrapped:
    """Wrap every data key under a new key-encryption key; an interrupted one is finished instead of begun again.

    Keys of older epochs stay, so that backups can still be opened, until `destroy_older`.

    Args:
        vault: The vault.

    Raises:
        KeyFault: The key source cannot make a key, or does not answer.
        SealFault: What is in the vault is not what the ledger says.
        FileFault: The vault cannot be written.
    """
    manifests = {name: manifest for name in DATASETS if (manifest := vault.newest(name)) is not None}
    epoch = vault.keys.epochs()[-1]
    wrapped = [manifest.epoch for manifest in manifests.values()] + [held for _, held in wrapped_by(vault).values()]
    if all(held == epoch for held in wrapped):
        epoch = vault.keys.advance(after=epoch)
    behind = [name for name, manifest in manifests.items() if manifest.epoch != epoch]
    for name, manifest in manifests.items():
        if name in behind:
            _wrap_anew(vault, manifest, vault.keys)
        else:
            vault.tidy(name)  # an interruption may have left the older manifest
    rewrap_cells(vault, vault.keys)
    return Rewrapped(epoch, tuple(behind))


def move_keys(vault: Vault, target: KeySource) -> Rewrapped:
    """Wrap every data key under another source's key; an interrupted move is finished by the same call.

    Args:
        vault: The vault, with the source that it had.
        target: Of another kind.

    Raises:
        KeyFault: Either source does not answer.
        SealFault: What is in the vault is not what the ledger says.
        FileFault: The vault cannot be written.
    """
    moved = []
    for name in DATASETS:
        manifest = vault.newest(name)
        if manifest is not None and manifest.keys != target.kind:
            _wrap_anew(vault, manifest, target)
            moved.append(name)
        else:
            vault.tidy(name)
    rewrap_cells(vault, target)
    return Rewrapped(target.epochs()[-1], tuple(moved))


def destroy_older(vault: Vault) -> tuple[str, ...]:
    """Destroy every key-encryption key but the current one, and return the epochs that are gone.

    What a crash left beside the vault is swept away first.

    Raises:
        KeyFault: The source is somebody else's to change.
        SealFault: Something is still wrapped under an older key; rotate first.
    """
    *older, current = vault.keys.epochs()
    for name in DATASETS:
        manifest = vault.newest(name)
        if manifest is not None and manifest.epoch != current:
            fix = "finish it: coterie partner rotate FOLDER"
            raise SealFault(Fault(f"the vault's {name}", "is wrapped under an older key still", fix))
        vault.sweep(name, manifest)
    rewrap_cells(vault, vault.keys)
    for epoch in older:
        vault.keys.destroy(epoch)
    return tuple(older)


def waiting_columns(vault: Vault, dataset: str, columns: Sequence[str] | None = None) -> list[str]:
    """Return the columns that are to have new data keys, in order, and remember them until they have.

    Args:
        vault: The vault.
        dataset: The data set.
        columns: Which ones; None to go on with those of an interrupted call, or with all where there was none.

    Raises:
        SealFault: What is in the vault is not what the ledger says.
        ContractFault: A column is not there once.
        KeyFault: The keys cannot be had.
        FileFault: The vault cannot be written.
    """
    table = vault.table(dataset)
    vault.sweep(dataset, table.manifest)
    named = {stream.file: name for stream, name in zip(table.manifest.streams, table.schema.names, strict=True)}
    path = vault.workspace.vault / dataset / "waiting"
    if columns is None and path.exists():
        try:
            kept = json.loads(path.read_bytes())
            return [named[file] for file in kept if file in named]
        except (ValueError, TypeError, OSError):
            fix = "remove it, and rotate again"
            raise SealFault(Fault(str(path), "is damaged", fix)) from None
    chosen = table.schema.names if columns is None else list(columns)
    table.check(chosen)
    # Names of streams: drawn at random, they say nothing to who reads the file.
    write_durably(path, canonical([file for file, name in named.items() if name in chosen]))
    return chosen


def rekey(vault: Vault, dataset: str, column: str, *, see: See = unseen) -> None:
    """Seal one column anew, under a new data key.

    Args:
        vault: The vault.
        dataset: The data set.
        column: The column.
        see: Is told of progress.

    Raises:
        ContractFault: The column is not there once.
        KeyFault: The keys cannot be had.
        SealFault: What is in the vault is not what the ledger says.
        FileFault: The vault cannot be written; it is as it was.
    """
    table = vault.table(dataset)
    table.check([column])
    place = table.schema.names.index(column)
    version = vault.begin(dataset)
    part = (table.pieces([column]), table.schema.empty_table().select([place]).schema)
    with or_swept(vault, dataset):
        (fresh,), _ = seal_columns(vault, dataset, version, part, see=see)
        streams = _wrapped(vault, table.manifest, vault.keys)
        streams[place] = fresh
        manifest = vault.draft(dataset, version, streams, table.inside)
    vault.commit(manifest, "rekeyed")


def forget_waiting(vault: Vault, dataset: str) -> None:
    """Forget which columns were to have new keys: all of them have."""
    folder = vault.workspace.vault / dataset
    (folder / "waiting").unlink(missing_ok=True)
    sync_folder(folder)


def _wrap_anew(vault: Vault, manifest: Manifest, source: KeySource) -> None:
    inside, dataset = vault.inside_of(manifest), manifest.whose.dataset
    streams = _wrapped(vault, manifest, source)
    version = vault.begin(dataset)
    vault.commit(vault.under(source).draft(dataset, version, streams, inside), "rewrapped")


def _wrapped(vault: Vault, manifest: Manifest, source: KeySource) -> list[Stream]:
    """Return a manifest's streams with their data keys wrapped under a source's current key."""
    with wiped(vault.unwrapped(manifest, manifest.streams)) as keys:
        wrapped = source.wrap(keys, [key_context(manifest.whose, stream.file) for stream in manifest.streams])
    return [replace(stream, key=key) for stream, key in zip(manifest.streams, wrapped, strict=True)]
