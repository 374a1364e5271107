"""The file of a data set's cell keys: per column and version 32 random bytes, wrapped.

    vault/cells/<data set>.json    which source and epoch wrapped what is inside; sealed: the columns, and their keys

Column names and counts of cells are in the sealed part (PRIVACY rule 17). The file is written whole or not at all and
names its epoch, so that a rotation that was cut short is finished by the next one (`rekeying.py`).

Guarantees:
    Nobody writes such a file without the key-encryption key. Once an epoch is destroyed, no copy of a file that was
    wrapped under it opens.

Leaks:
    About how many keys there are, by the file's size. That an older file was put back no ledger says: cells sealed
    since then under newer versions are then refused for want of a key, and the counts are too low.
"""

import base64
import binascii
import contextlib
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from coterie.clients.vault import DATASETS, Vault
from coterie.privacy.canonical import canonical
from coterie.privacy.durable import write_durably
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.fields.errors import KeyFault, SealFault
from coterie.privacy.fields.keysource import KEY_BYTES, KeySource
from coterie.privacy.fields.wiping import wiped

__all__ = ["CellKey", "Ring", "current", "lent", "read_ring", "wrapped", "wrapped_by", "write_ring"]

FORMAT = "coterie/cells/v1/keys"


@dataclass(frozen=True, kw_only=True)
class CellKey:
    """The key of one version of a column's cells.

    Args:
        column: The column's name.
        version: 1 for the first; it is bound into every cell.
        cells: "randomised" or "searchable".
        type: Of the values before they were texts, by Arrow's name.
        id: As it stands in every cell.
        sealed: Cells that were sealed under it, or more.
        key: Wrapped.
    """

    column: str
    version: int
    cells: str
    type: str
    id: str
    sealed: int
    key: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Ring:
    """All keys of a data set's cells, in the order in which they were made.

    Args:
        dataset: The data set.
        source: Kind of the source of the key-encryption keys.
        epoch: Under which of its epochs they are wrapped.
        keys: The keys.
    """

    dataset: str
    source: str
    epoch: str
    keys: tuple[CellKey, ...]

    def newest(self, column: str) -> CellKey | None:
        """Return the newest key of a column, or None."""
        return next((key for key in reversed(self.keys) if key.column == column), None)


def read_ring(vault: Vault, dataset: str) -> Ring:
    """Return the keys of a data set's cells; none where no cell was ever sealed.

    Raises:
        SealFault: The file is damaged, or another workspace's.
        KeyFault: The key source does not answer, is not the one that wrapped the keys, or lacks the epoch.
        FileFault: The file cannot be read.
    """
    path = _path(vault, dataset)
    outer = _outer(path)
    if outer is None:
        return Ring(dataset=dataset, source=vault.keys.kind, epoch=vault.keys.epochs()[-1], keys=())
    if outer["source"] != vault.keys.kind:
        place, fix = "coterie.toml [keys]", "set the source again that the vault had, and move keys with: rotate --to"
        raise KeyFault(Fault(place, "is not the source of keys that wrapped the keys of cells", fix))
    if outer["epoch"] not in vault.keys.epochs():  # asked here: the name is not signed, and may be that of any file
        rule, fix = (
            "is wrapped under a key-encryption key that is not there",
            "restore the key; or remove the file, and lose its cells",
        )
        raise KeyFault(Fault(str(path), rule, fix))
    try:
        key, sealed = (base64.b64decode(outer[name], validate=True) for name in ("key", "sealed"))
    except binascii.Error:
        raise _damaged(path) from None
    context = _context(vault, dataset)
    with wiped(vault.keys.unwrap([key], [context], epoch=outer["epoch"])) as keys:
        opening = Cobblestone256Decryptor(keys[0], context)
        try:
            inside = json.loads(opening.update(sealed) + opening.finalize())
            held = tuple(CellKey(**one | {"key": base64.b64decode(one["key"])}) for one in inside)
        except (InvalidTag, ValueError, TypeError, KeyError):
            raise _damaged(path) from None
    return Ring(dataset=dataset, source=outer["source"], epoch=outer["epoch"], keys=held)


@contextlib.contextmanager
def lent(vault: Vault, ring: Ring, keys: Sequence[CellKey]) -> Iterator[list[bytearray]]:
    """Lend the secret bytes of keys to a block, and overwrite them when it ends.

    Raises:
        KeyFault: The key source does not answer, or a key was changed.
    """
    contexts = [_key_context(vault, ring.dataset, key) for key in keys]
    with wiped(vault.keys.unwrap([key.key for key in keys], contexts, epoch=ring.epoch) if keys else []) as secret:
        yield secret


def wrapped_by(vault: Vault) -> dict[str, tuple[str, str]]:
    """Return, by data set, under which source and epoch the keys of its cells are wrapped.

    Raises:
        SealFault: A file is damaged.
        FileFault: One cannot be read.
    """
    found = ((dataset, _outer(_path(vault, dataset))) for dataset in DATASETS)
    return {dataset: (outer["source"], outer["epoch"]) for dataset, outer in found if outer is not None}


def current(vault: Vault, ring: Ring, source: KeySource) -> Ring:
    """Return a ring with its keys wrapped under a source's current epoch.

    Raises:
        KeyFault: A source does not answer.
    """
    now = (source.kind, source.epochs()[-1])
    if (ring.source, ring.epoch) == now:
        return ring
    with lent(vault, ring, ring.keys) as secret:
        keys = wrapped(vault, ring.dataset, ring.keys, secret=secret, source=source)
    return replace(ring, source=now[0], epoch=now[1], keys=keys)


def wrapped(
    vault: Vault, dataset: str, keys: Sequence[CellKey], *, secret: Sequence[bytearray], source: KeySource
) -> tuple[CellKey, ...]:
    """Return keys with their secret bytes, wrapped under a source's current epoch.

    Raises:
        KeyFault: The source does not answer.
    """
    sealed = source.wrap(secret, [_key_context(vault, dataset, key) for key in keys]) if keys else []
    return tuple(replace(key, key=one) for key, one in zip(keys, sealed, strict=True))


def write_ring(vault: Vault, ring: Ring, *, source: KeySource | None = None) -> None:
    """Write the file of keys, durably, with all of them under the source's current epoch.

    Args:
        vault: The vault.
        ring: From `read_ring`, and what was made of it.
        source: Of the key-encryption keys; the vault's own when None.

    Raises:
        FileFault: It cannot be written; what was there stays.
        KeyFault: A source does not answer.
    """
    source = source or vault.keys
    ring = current(vault, ring, source)
    path, context = _path(vault, ring.dataset), _context(vault, ring.dataset)
    inside = [asdict(key) | {"key": base64.b64encode(key.key).decode()} for key in ring.keys]
    with wiped([bytearray(secrets.token_bytes(KEY_BYTES))]) as keys:
        sealing = Cobblestone256Encryptor(keys[0], context)
        sealed = sealing.update(canonical(inside)) + sealing.finalize()
        (key,) = source.wrap(keys, [context])
    outer = {"format": FORMAT, "source": ring.source, "epoch": ring.epoch}
    told = {name: base64.b64encode(data).decode() for name, data in (("key", key), ("sealed", bytes(sealed)))}
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        fix = "free some space or check its rights"
        raise FileFault(Fault(str(path.parent), f"cannot be made ({error.strerror})", fix)) from None
    write_durably(path, canonical(outer | told))


def _outer(path: Path) -> dict[str, str] | None:
    """Return what lies open in a file of keys, or None where there is none."""
    try:
        outer: dict[str, str] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileFault(Fault(str(path), f"cannot be read ({error.strerror})", "check its rights")) from None
    except ValueError:
        raise _damaged(path) from None
    names = {"format", "source", "epoch", "key", "sealed"}
    whole = isinstance(outer, dict) and outer.keys() == names and all(isinstance(text, str) for text in outer.values())
    if not whole or outer["format"] != FORMAT:
        raise _damaged(path)
    return outer


def _damaged(path: Path) -> SealFault:
    rule = "is not this workspace's file of cell keys, or was changed"
    fix = "restore it with the workspace; or remove it, and lose the cells that its keys sealed"
    return SealFault(Fault(str(path), rule, fix))


def _path(vault: Vault, dataset: str) -> Path:
    return vault.workspace.vault / "cells" / f"{dataset}.json"


def _context(vault: Vault, dataset: str) -> bytes:
    return canonical([FORMAT, vault.whose(dataset).partner, dataset])


def _key_context(vault: Vault, dataset: str, key: CellKey) -> bytes:
    return canonical(
        ["coterie/cells/v1/key", vault.whose(dataset).partner, dataset, key.column, key.version, key.cells, key.type]
    )
