"""Which keys seal a column's cells: made, counted, wrapped anew and forgotten; the workspace's lock is held.

Guarantees:
    A key is durable before any cell is sealed under it, and cells are counted before they are sealed: what a crash
    leaves is a key too much, or a count that is too high.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace

from coterie.clients.cellring import CellKey, current, read_ring, wrapped, wrapped_by, write_ring
from coterie.clients.vault import Vault
from coterie.privacy.fields.cells import key_id
from coterie.privacy.fields.keysource import KEY_BYTES, KeySource
from coterie.privacy.fields.wiping import wiped

__all__ = ["count_cells", "forget_older", "fresh_keys", "keys_for", "rewrap_cells"]


def keys_for(vault: Vault, dataset: str, wanted: Mapping[str, tuple[str, str]]) -> list[CellKey]:
    """Return a key for each column, durable; a fresh one where none is of this kind of cells and type of values.

    Args:
        vault: The vault.
        dataset: The data set.
        wanted: By column, the kind of its cells and the type of its values.

    Raises:
        FileFault: The file of keys cannot be read or written.
        SealFault, KeyFault: As `read_ring`.
    """
    ring = read_ring(vault, dataset)
    held = {column: ring.newest(column) for column in wanted}
    found = {column: key for column, key in held.items() if key and (key.cells, key.type) == wanted[column]}
    lacking = {column: told for column, told in wanted.items() if column not in found}
    made = {key.column: key for key in fresh_keys(vault, dataset, lacking)} if lacking else {}
    return [(found | made)[column] for column in wanted]


def fresh_keys(vault: Vault, dataset: str, wanted: Mapping[str, tuple[str, str]]) -> list[CellKey]:
    """Make a next version of each column's key, durable; older ones stay, with what they sealed, until `forget_older`.

    Args:
        vault: The vault.
        dataset: The data set.
        wanted: As for `keys_for`.

    Raises:
        As `keys_for`.
    """
    ring = current(vault, read_ring(vault, dataset), vault.keys)
    with wiped([bytearray(secrets.token_bytes(KEY_BYTES)) for _ in wanted]) as keys:
        drafts = [
            CellKey(
                column=column,
                version=1 if (newest := ring.newest(column)) is None else newest.version + 1,
                cells=cells,
                type=kind,
                id=key_id(key, f"coterie/cells/v1/{cells}/id"),
                sealed=0,
                key=b"",
            )
            for key, (column, (cells, kind)) in zip(keys, wanted.items(), strict=True)
        ]
        made = wrapped(vault, dataset, drafts, secret=keys, source=vault.keys)
    write_ring(vault, replace(ring, keys=(*ring.keys, *made)))
    return list(made)


def count_cells(vault: Vault, dataset: str, keys: Sequence[CellKey], rows: int) -> None:
    """Count cells under each of some keys, durably: before they are sealed, or negative for those that were not.

    Raises:
        FileFault, SealFault, KeyFault: As `keys_for`.
    """
    ring, used = read_ring(vault, dataset), {key.id for key in keys}
    counted = tuple(replace(key, sealed=key.sealed + rows) if key.id in used else key for key in ring.keys)
    write_ring(vault, replace(ring, keys=counted))


def forget_older(vault: Vault, dataset: str) -> int:
    """Forget all keys of columns but the newest, and return how many: what they sealed cannot be opened here any more.

    Raises:
        FileFault, SealFault, KeyFault: As `keys_for`.
    """
    ring = read_ring(vault, dataset)
    kept = tuple(key for key in ring.keys if ring.newest(key.column) == key)
    if len(kept) < len(ring.keys):
        write_ring(vault, replace(ring, keys=kept))
    return len(ring.keys) - len(kept)


def rewrap_cells(vault: Vault, source: KeySource) -> None:
    """Wrap the keys of all cells under the current epoch of a source, where they are not; called again, it finishes.

    Args:
        vault: The vault, with the source that it had.
        source: That one, or another kind.

    Raises:
        FileFault, SealFault, KeyFault: As `keys_for`.
    """
    now = (source.kind, source.epochs()[-1])
    for dataset, held in wrapped_by(vault).items():
        if held != now:
            write_ring(vault, read_ring(vault, dataset), source=source)
