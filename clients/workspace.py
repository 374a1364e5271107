"""A partner's workspace on disk.

    coterie.toml    the partner's name
    policy.toml     the partner's rules; without it everything is refused
    keys/           identity.pem (signs consents), groups.key (decides customer groups for life)
    vault/          customers.parquet
    plans/          signed plans that were consented to
    outbox/         releases, so that an unchanged question gets the identical bytes
    ledger.sqlite   every charge
    models/         models received
    reports/        what the partner's own operator may read: refusals in full, data notes

Everything is readable by its owner alone. One process at a time holds the workspace (`lock`).
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from coterie.privacy.durable import write_durably
from coterie.privacy.errors import CoterieError, Fault, FileFault
from coterie.privacy.identity import Identity
from coterie.privacy.schema import read, text

__all__ = ["Workspace", "WorkspaceBusy"]

_FOLDERS = ("keys", "vault", "plans", "outbox", "models", "reports")


class WorkspaceBusy(CoterieError):
    """Another process holds the workspace."""


@dataclass(frozen=True, kw_only=True)
class _Settings:
    name: str = field(metadata=text(60))


@dataclass(frozen=True)
class Workspace:
    """Where one partner keeps everything.

    Args:
        root: The folder.
    """

    root: Path

    @staticmethod
    def create(root: Path, name: str, *, group_key: bytes | None = None) -> "Workspace":
        """Make a new workspace with fresh keys; an existing one is left as it is.

        Args:
            root: A folder that is missing or empty.
            name: The partner's name in studies.
            group_key: 32 bytes that decide customer groups; fresh when None. Simulations pass one, so that a
                customer of several partners is held out at all of them.

        Raises:
            FileFault: The folder holds something, or cannot be made.
        """
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(root.iterdir()):
                raise FileFault(Fault(str(root), "is not empty", "choose a new folder"))
            for folder in _FOLDERS:
                (root / folder).mkdir(mode=0o700)
        except OSError as error:
            raise FileFault(Fault(str(root), f"cannot be made ({error.strerror})", "check its parent")) from None
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        write_durably(root / "coterie.toml", f'name = "{escaped}"\n'.encode())
        write_durably(root / "keys" / "groups.key", group_key or secrets.token_bytes(32))
        Identity.create().save(root / "keys" / "identity.pem")
        return Workspace(root)

    @property
    def name(self) -> str:
        """The partner's name, from coterie.toml."""
        return read(_Settings, self.root / "coterie.toml").name

    @property
    def identity(self) -> Identity:
        """The partner's signing identity."""
        return Identity.load(self.root / "keys" / "identity.pem")

    @property
    def group_key(self) -> bytes:
        """The key that decides customer groups, fixed for life."""
        path = self.root / "keys" / "groups.key"
        try:
            key = path.read_bytes()
        except OSError:
            key = b""
        if len(key) != 32:
            raise FileFault(Fault(str(path), "must hold 32 bytes", "restore it; a new key would move customers"))
        return key

    @property
    def policy(self) -> Path:
        """The policy file."""
        return self.root / "policy.toml"

    @property
    def table(self) -> Path:
        """The customer table."""
        return self.root / "vault" / "customers.parquet"

    @property
    def ledger(self) -> Path:
        """The ledger file."""
        return self.root / "ledger.sqlite"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the workspace for this process.

        Raises:
            WorkspaceBusy: Another process holds it.
            FileFault: There is no workspace here.
        """
        try:
            handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            raise FileFault(
                Fault(
                    str(self.root),
                    "is not a workspace",
                    "make one with: coterie partner init FOLDER --name NAME",
                )
            ) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise WorkspaceBusy(
                Fault(str(self.root), "is in use by another process", "wait for it to end, or stop it")
            ) from None
        else:
            yield
        finally:
            os.close(handle)
