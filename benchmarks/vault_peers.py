"""What the vault is measured beside: plain Parquet, and Parquet's modular encryption with keys of an in-memory service.

Both by PyArrow with its defaults (snappy, all threads), each version written beside the old one, forced to disk and
renamed, as whoever must not lose a table does. Encrypted: AES_GCM_V1, data keys of 256 bits wrapped once, by a key of
the service for each of the sensitive columns, one for the footer and one for the columns beside; their key material
lies beside the file, since master keys can be rotated in no other way.
"""

import base64
import datetime
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from vault_data import SCHEMA, SENSITIVE

from coterie.privacy.durable import sync_folder

__all__ = ["Encrypted", "Plain"]

_FOOTER, _REST = "footer", "rest"
_MINUTES = datetime.timedelta(minutes=5)
_NONCE = 12


@dataclass
class Plain:
    """Plain Parquet.

    Args:
        folder: Where the file is.
    """

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "customers.parquet"

    def write(self, table: pa.Table) -> None:
        """Write a table durably in place of the one before."""
        beside = self.folder / "new.parquet"
        self._write(table, beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(self.path)
        sync_folder(self.folder)

    def take_in(self, source: Path) -> None:
        """Write the table of a CSV or Parquet file; nothing of it is checked."""
        self.write(pyarrow.csv.read_csv(source) if source.suffix == ".csv" else pq.read_table(source))

    def read(self, names: Sequence[str]) -> pa.Table:
        """Return some columns."""
        return pq.read_table(self.path, columns=list(names))

    def erase(self, customer: str) -> None:
        """Write the table without a customer."""
        table = self.read(SCHEMA.names)
        self.write(table.filter(pc.not_equal(table["customer"], customer)))

    def files(self) -> list[Path]:
        """Return what it is made of."""
        return [self.path]

    def _write(self, table: pa.Table, path: Path) -> None:
        pq.write_table(table, path)


class _Service(pe.KmsClient):
    """Master keys in memory; AES-256-GCM."""

    keys: dict[str, list[bytes]]

    def __init__(self, settings: pe.KmsConnectionConfig, keys: dict[str, list[bytes]]) -> None:
        super().__init__()
        self.settings, self.keys = settings, keys

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        versions, nonce = self.keys[master_key_identifier], secrets.token_bytes(_NONCE)
        sealed = AESGCM(versions[-1]).encrypt(nonce, key_bytes, master_key_identifier.encode())
        return base64.b64encode((len(versions) - 1).to_bytes(4) + nonce + sealed)

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        data = base64.b64decode(wrapped_key)
        key = self.keys[master_key_identifier][int.from_bytes(data[:4])]
        return AESGCM(key).decrypt(data[4 : 4 + _NONCE], data[4 + _NONCE :], master_key_identifier.encode())


@dataclass
class Encrypted(Plain):
    """Parquet with modular encryption.

    Args:
        folder: Where the file is.
        columns: Which are encrypted.
    """

    columns: Sequence[str] = tuple(SCHEMA.names)
    keys: dict[str, list[bytes]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in (_FOOTER, *self._masters()):
            self.keys[name] = [secrets.token_bytes(32)]

    def read(self, names: Sequence[str]) -> pa.Table:
        """Return some columns; every read asks the service, as a new process would."""
        factory, settings = self._factory()
        opening = factory.file_decryption_properties(
            settings, pe.DecryptionConfiguration(cache_lifetime=_MINUTES), str(self.path)
        )
        return pq.read_table(self.path, columns=list(names), decryption_properties=opening)

    def rotate(self) -> None:
        """Give every master key a new version, and wrap the data keys under it; the file stays."""
        for versions in self.keys.values():
            versions.append(secrets.token_bytes(32))
        factory, settings = self._factory()
        factory.rotate_master_keys(settings, str(self.path), double_wrapping=False)

    def rekey(self) -> None:
        """Give a column a new data key: there is no way but to write the whole file anew."""
        self.write(self.read(SCHEMA.names))

    def write(self, table: pa.Table) -> None:
        """Write a table and its key material durably in place of those before."""
        # The material's name is made of the file's and stands in no file: both are renamed.
        beside = self.folder / "new.parquet"
        _material(beside).unlink(missing_ok=True)
        self._write(table, beside)
        for path in (_material(beside), beside):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        _material(beside).replace(_material(self.path))
        beside.replace(self.path)
        sync_folder(self.folder)

    def files(self) -> list[Path]:
        return [self.path, _material(self.path)]

    def _write(self, table: pa.Table, path: Path) -> None:
        factory, settings = self._factory()
        masters = self._masters()
        configuration = pe.EncryptionConfiguration(
            footer_key=_FOOTER,
            column_keys=masters,
            encryption_algorithm="AES_GCM_V1",
            double_wrapping=False,
            data_key_length_bits=256,
            internal_key_material=False,
            cache_lifetime=_MINUTES,
        )
        sealing = factory.file_encryption_properties(settings, configuration, str(path))
        pq.write_table(table, path, encryption_properties=sealing)

    def _masters(self) -> dict[str, list[str]]:
        rest = [name for name in self.columns if name not in SENSITIVE]
        return {name: [name] for name in SENSITIVE} | ({_REST: rest} if rest else {})

    def _factory(self) -> tuple[pe.CryptoFactory, pe.KmsConnectionConfig]:
        return pe.CryptoFactory(lambda settings: _Service(settings, self.keys)), pe.KmsConnectionConfig()


def _material(path: Path) -> Path:
    """Return where the key material of a file lies."""
    return path.with_name(f"_KEY_MATERIAL_FOR_{path.name}.json")
