"""A partner's workspace on disk.

    coterie.toml    the partner's name, and where the vault's keys come from
    policy.toml     the partner's rules; without it everything is refused
    keys/           identity.pem (signs consents), groups.key (decides customer groups for life), node (Flower's)
    federation/     admission.json, authority.pem: the coordinator's word that this partner may connect
    inbox/          signed plans that wait for the operator's decision
    keys/vault/     key-encryption keys, or the file that the passphrase opens; nothing where they lie elsewhere
    vault/          customers, interactions, consents, identifiers, matches: sealed, see docs/formats/vault.md
    catalogues/     public items of plans that recommend, by digest
    contracts/      data contracts that the partner's operator approved, by importing a table for them; `identifiers`
                    where sealed identifiers may be matched
    plans/          signed plans that were consented to
    outbox/         releases, so that an unchanged question gets the identical bytes
    ledger.sqlite   every charge
    models/         models received
    counts/         exact counts of what was opened for each charge, sealed; keys/counts.key opens them
    reports/        what the partner's own operator may read: refusals in full
    run/, logs/     what the running node keeps: who runs, where its parts meet, what they did

Everything is readable by its owner alone. One process at a time holds the workspace (`lock`).
"""

import dataclasses
import fcntl
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from coterie.privacy.canonical import canonical
from coterie.privacy.contract import Contract
from coterie.privacy.durable import write_durably
from coterie.privacy.errors import CoterieError, Fault, FileFault
from coterie.privacy.fields.keysource import KeySource
from coterie.privacy.fields.sources.settings import KeySettings, key_source, new_key_source
from coterie.privacy.identity import Identity
from coterie.privacy.ledger import Ledger
from coterie.privacy.schema import read, text

__all__ = ["Workspace", "WorkspaceBusy"]

_LONGEST = 60  # of a name, as in the plan's roster
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FOLDERS = ("keys", "vault", "contracts", "plans", "outbox", "models", "reports")


class WorkspaceBusy(CoterieError):
    """Another process holds the workspace."""


@dataclass(frozen=True, kw_only=True)
class _Settings:
    name: str = field(metadata=text(_LONGEST))
    keys: KeySettings = field(default_factory=KeySettings)


@dataclass(frozen=True)
class Workspace:
    """Where one partner keeps everything.

    Args:
        root: The folder.
    """

    root: Path

    @staticmethod
    def create(
        root: Path,
        name: str,
        *,
        group_key: bytes | None = None,
        keys: KeySettings | None = None,
        ask: Callable[[], str] | None = None,
    ) -> "Workspace":
        """Make a new workspace with fresh keys; an existing one is left as it is.

        Args:
            root: A folder that is missing or empty.
            name: The partner's name in studies.
            group_key: 32 bytes that decide customer groups; fresh when None. Simulations pass one, so that a
                customer of several partners is held out at all of them.
            keys: Where the vault's keys come from; a key file in the workspace when None.
            ask: Asks a person for a new passphrase, where `keys` want one.

        Raises:
            KeyFault: The first key of the vault cannot be made.
            FileFault: The folder holds something, or cannot be made; or the name is empty, too long, or holds a control
                character.
        """
        if not 0 < len(name) <= _LONGEST or min(name) < " ":
            rule = f"must have 1 to {_LONGEST} characters, none of them a control character"
            raise FileFault(Fault("the partner's name", rule, "choose another"))
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(root.iterdir()):
                raise FileFault(Fault(str(root), "is not empty", "choose a new folder"))
            root.chmod(0o700)  # also where it was there, empty, before
            for folder in _FOLDERS:
                (root / folder).mkdir(mode=0o700)
        except OSError as error:
            raise FileFault(Fault(str(root), f"cannot be made ({error.strerror})", "check its parent")) from None
        chosen = keys or KeySettings()
        new_key_source(chosen, root, environment=os.environ, ask=ask)
        write_durably(root / "coterie.toml", f"name = {_quoted(name)}\n{_told(chosen)}".encode())
        write_durably(root / "keys" / "groups.key", group_key or secrets.token_bytes(32))
        Identity.create().save(root / "keys" / "identity.pem")
        Ledger.create(root / "ledger.sqlite")
        return Workspace(root)

    @property
    def name(self) -> str:
        """The partner's name, from coterie.toml."""
        return read(_Settings, self.root / "coterie.toml").name

    @property
    def key_settings(self) -> KeySettings:
        """Where the vault's keys come from, from coterie.toml."""
        return read(_Settings, self.root / "coterie.toml").keys

    def key_source(self, ask: Callable[[], str] | None = None) -> KeySource:
        """Return the source of the vault's keys.

        Args:
            ask: Asks a person for a passphrase, where the settings want one; None where nobody is there.

        Raises:
            FileFault: The settings are wrong.
            KeyFault: A passphrase is wanted and cannot be had.
        """
        return key_source(self.key_settings, self.root, environment=os.environ, ask=ask)

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
    def node_key(self) -> Path:
        """The private key by which the coordinator's Flower knows this partner's SuperNode."""
        return self.root / "keys" / "node"

    @property
    def federation(self) -> Path:
        """The folder of the coordinator's admission."""
        return self.root / "federation"

    @property
    def inbox(self) -> Path:
        """The folder of signed plans that wait for a decision."""
        return self.root / "inbox"

    @property
    def run(self) -> Path:
        """The folder where the running node's parts find each other."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """The folder of the running node's logs."""
        return self.root / "logs"

    @property
    def policy(self) -> Path:
        """The policy file."""
        return self.root / "policy.toml"

    @property
    def vault(self) -> Path:
        """The folder of sealed data sets."""
        return self.root / "vault"

    def catalogue(self, digest: str) -> Path:
        """Return where the catalogue with this digest is kept; it is public."""
        return self.root / "catalogues" / f"{digest.removeprefix('sha256:')}.parquet"

    def holds(self, digest: str) -> bool:
        """Return whether the workspace has the catalogue with this digest."""
        # The digest is a coordinator's word, and must not ask for any other file.
        return _DIGEST.fullmatch(digest) is not None and self.catalogue(digest).exists()

    @property
    def ledger(self) -> Path:
        """The ledger file."""
        return self.root / "ledger.sqlite"

    def plan(self, digest: str) -> Path:
        """Return where the signed plan with this digest is kept."""
        return self.root / "plans" / f"{digest.removeprefix('sha256:')}.json"

    def approve(self, contract: Contract) -> None:
        """Write down that the partner's operator approved a contract; studies may read the table through it."""
        write_durably(self._approval(contract), canonical(dataclasses.asdict(contract)))

    def withdraw(self, contract: Contract) -> None:
        """Take an approval back, until a table is imported for the contract again."""
        self._approval(contract).unlink(missing_ok=True)

    def approves(self, contract: Contract) -> bool:
        """Return whether a contract is approved."""
        return self._approval(contract).exists()

    def approve_identifiers(self) -> None:
        """Write down that the operator sealed identifiers for matching; matches may read them."""
        write_durably(self._identified, b"")

    def withdraw_identifiers(self) -> None:
        """Take that back, until identifiers are sealed again."""
        self._identified.unlink(missing_ok=True)

    def identifies(self) -> bool:
        """Return whether sealed identifiers may be matched."""
        return self._identified.exists()

    @property
    def _identified(self) -> Path:
        return self.root / "contracts" / "identifiers"

    def _approval(self, contract: Contract) -> Path:
        return self.root / "contracts" / f"{contract.digest().removeprefix('sha256:')}.json"

    def keep_keys(self, settings: KeySettings) -> None:
        """Write down where the vault's keys come from, from now on.

        Raises:
            FileFault: coterie.toml cannot be read or written.
        """
        write_durably(self.root / "coterie.toml", f"name = {_quoted(self.name)}\n{_told(settings)}".encode())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the workspace for this process.

        Raises:
            WorkspaceBusy: Another process holds it.
            FileFault: There is no workspace here.
        """
        fault = Fault(str(self.root), "is not a workspace", "make one with: coterie partner init FOLDER --name NAME")
        if not (self.root / "coterie.toml").is_file():  # before anything is made in somebody else's folder
            raise FileFault(fault)
        try:
            handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            raise FileFault(fault) from None
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


def _quoted(text_: str) -> str:
    # A JSON text is a TOML text, but for DEL, which JSON leaves as it is.
    return json.dumps(text_, ensure_ascii=False).replace("\x7f", "\\u007f")


def _told(settings: KeySettings) -> str:
    """Return the [keys] table of coterie.toml; nothing for a key file in the workspace, which needs none."""
    given = {name: value for name, value in dataclasses.asdict(settings).items() if value is not None}
    if given == {"source": "file"}:
        return ""
    return "\n[keys]\n" + "".join(f"{name} = {_quoted(value)}\n" for name, value in given.items())
