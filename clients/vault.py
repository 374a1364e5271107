"""The vault: a partner's data sets, each a set of sealed columns; raw rows are opened here and nowhere else.

Rules this module enforces:
- no plaintext is ever written: columns are sealed in memory, piece by piece, on their way to the disk;
- the newest ledger entry about a data set says which manifest is current, so that what is put back is found out, and
  a change is one durable entry: killed before it, the old data set is there, killed after it, the new one;
- every stream has a data key of its own, wrapped by the workspace's key source, and is bound to partner, data set,
  column and version;
- whoever uses a vault holds the workspace's lock.

What is on disk: `docs/formats/vault.md`.
"""

import contextlib
import datetime
import json
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from coterie.clients.history import introduce
from coterie.clients.hygiene import forbid_dumps
from coterie.clients.patience import patiently
from coterie.clients.sealedtable import SealedTable
from coterie.clients.workspace import Workspace
from coterie.privacy.canonical import canonical
from coterie.privacy.durable import sync_folder, write_durably
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.fields.errors import KeyFault, SealFault
from coterie.privacy.fields.keysource import KEY_BYTES, KeySource
from coterie.privacy.fields.manifest import Manifest, Stream, Whose, inside_context, key_context
from coterie.privacy.fields.wiping import wiped
from coterie.privacy.ledger import Ledger

__all__ = [
    "CONSENTS",
    "CUSTOMERS",
    "DATASETS",
    "IDENTIFIERS",
    "INTERACTIONS",
    "MATCHES",
    "Vault",
    "open_vault",
]

Clock = Callable[[], datetime.datetime]

CUSTOMERS, INTERACTIONS, CONSENTS = "customers", "interactions", "consents"
IDENTIFIERS, MATCHES = "identifiers", "matches"
DATASETS = (CUSTOMERS, INTERACTIONS, CONSENTS, IDENTIFIERS, MATCHES)


class Vault:
    """The sealed data sets of one workspace, under its lock.

    Args:
        workspace: Whose it is.
        ledger: Its open ledger, which knows whose it is.
        keys: Where its key-encryption keys come from.
    """

    def __init__(self, workspace: Workspace, ledger: Ledger, keys: KeySource) -> None:
        self.workspace, self.ledger, self.keys = workspace, ledger, keys
        self._identity = workspace.identity
        _refuse_open_to_others(workspace.vault)

    def whose(self, dataset: str) -> Whose:
        """Return what a manifest of a data set is about."""
        return Whose(self._identity.public, dataset)

    def newest(self, dataset: str) -> Manifest | None:
        """Return the manifest of a data set that the ledger names, or None where nothing was ever sealed.

        Raises:
            SealFault: The manifest is missing, was changed, or is not the one that the ledger names.
        """
        named = self._named(dataset)
        if named is None:
            return None
        path = self._manifests(dataset) / named["manifest"].removeprefix("sha256:")
        fix = "restore the vault together with its ledger, or seal the table again"
        try:
            data = path.read_bytes()
        except OSError:
            rule = f"lacks the manifest that the ledger names (version {named['version']}): an older vault, or a part"
            raise SealFault(Fault(str(path.parent), rule, fix)) from None
        found = Manifest.from_bytes(data, self.whose(dataset), place=str(path))
        if found.digest() != named["manifest"] or found.version != named["version"]:
            raise SealFault(Fault(str(path), "is not the manifest that the ledger names", fix))
        return found

    def holds(self, dataset: str) -> bool:
        """Return whether a data set was sealed, by the ledger's word."""
        return self._named(dataset) is not None

    def table(self, dataset: str) -> SealedTable:
        """Return a data set for reading.

        Raises:
            SealFault: It was never sealed, or is not what the ledger says.
            KeyFault: Its keys cannot be had.
        """
        manifest = self.newest(dataset)
        if manifest is None:
            fix = _HOW.get(dataset, "seal it: coterie partner seal FOLDER TABLE --plan PLAN")
            raise SealFault(Fault(str(self.workspace.vault / dataset), "holds nothing sealed", fix))
        return self.table_of(manifest)

    def table_of(self, manifest: Manifest) -> SealedTable:
        """Return the table of a manifest, also of one that is not committed yet; raises as `table`."""
        inside = self.inside_of(manifest)
        return SealedTable(self.streams(manifest.whose.dataset), manifest, inside, self.unwrapped)

    def unwrapped(self, manifest: Manifest, streams: Sequence[Stream]) -> list[bytearray]:
        """Return the data keys of some streams, for the caller to wipe."""
        contexts = [key_context(manifest.whose, stream.file) for stream in streams]
        self._hold_to_source(manifest)
        return self.keys.unwrap([stream.key for stream in streams], contexts, epoch=manifest.epoch)

    def streams(self, dataset: str) -> Path:
        """Return the folder of a data set's streams."""
        return self.workspace.vault / dataset / "streams"

    def begin(self, dataset: str) -> int:
        """Make room for a new version of a data set, sweeping away what a crash left, and return its number.

        Raises:
            FileFault: The folders cannot be made.
        """
        named = self._named(dataset)
        try:
            for folder in (self.workspace.vault / dataset, self.streams(dataset), self._manifests(dataset)):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise FileFault(Fault(str(self.workspace.vault), f"cannot be written ({error.strerror})", _ROOM)) from None
        self.tidy(dataset)
        return 1 if named is None else int(named["version"]) + 1

    def draft(self, dataset: str, version: int, streams: Sequence[Stream], inside: dict[str, Any]) -> Manifest:
        """Sign and write a manifest; nothing is changed until it is committed.

        Args:
            dataset: The data set.
            version: From `begin`.
            streams: Durable ones, whose data keys are wrapped under the current epoch.
            inside: What its sealed part says: JSON values.

        Raises:
            KeyFault: The key source does not answer.
            FileFault: It cannot be written.
        """
        whose, salt = self.whose(dataset), Manifest.new_salt()
        with wiped([bytearray(secrets.token_bytes(KEY_BYTES))]) as keys:
            sealing = Cobblestone256Encryptor(keys[0], inside_context(whose, version, salt))
            sealed = sealing.update(canonical(inside)) + sealing.finalize()
            inside_key = self.keys.wrap(keys, [key_context(whose, salt)])[0]
        manifest = Manifest(
            whose=whose,
            version=version,
            keys=self.keys.kind,
            epoch=self.keys.epochs()[-1],
            streams=tuple(streams),
            inside=bytes(sealed),
            inside_key=inside_key,
            salt=salt,
        ).signed(self._identity)
        write_durably(self._manifests(dataset) / manifest.digest().removeprefix("sha256:"), manifest.to_bytes())
        return manifest

    def commit(self, manifest: Manifest, what: str) -> None:
        """Make a drafted manifest the current one: one entry of the ledger. What was before is then removed.

        Args:
            manifest: From `draft`.
            what: "sealed", "rewrapped", "rekeyed" or "erased".

        Raises:
            LedgerFault: The entry cannot be written; the old data set stays.
        """
        dataset = manifest.whose.dataset
        self.ledger.record(
            "vault",
            {
                "dataset": dataset,
                "version": manifest.version,
                "manifest": manifest.digest(),
                "what": what,
                "keys": manifest.keys,
                "epoch": manifest.epoch,
            },
        )
        self.sweep(dataset, manifest)

    def under(self, keys: KeySource) -> "Vault":
        """Return the same vault with another source of keys."""
        return Vault(self.workspace, self.ledger, keys)

    def inside_of(self, manifest: Manifest) -> dict[str, Any]:
        """Return what a manifest's sealed part says.

        Raises:
            KeyFault: Its key cannot be had.
            SealFault: It was changed.
        """
        whose = manifest.whose
        self._hold_to_source(manifest)
        unwrapped = self.keys.unwrap([manifest.inside_key], [key_context(whose, manifest.salt)], epoch=manifest.epoch)
        with wiped(unwrapped) as keys:
            opening = Cobblestone256Decryptor(keys[0], inside_context(whose, manifest.version, manifest.salt))
            try:
                inside = json.loads(opening.update(manifest.inside) + opening.finalize())
            except (InvalidTag, ValueError):
                inside = None
        if not isinstance(inside, dict) or len(inside.get("columns", ())) != len(manifest.streams):
            fix = "restore the vault together with its ledger"
            raise SealFault(Fault(f"the vault's {whose.dataset}", "has a manifest whose sealed part is damaged", fix))
        return inside

    def _hold_to_source(self, manifest: Manifest) -> None:
        if manifest.keys != self.keys.kind:
            place, fix = "coterie.toml [keys]", f'set source = "{manifest.keys}" again, and move keys with: rotate --to'
            raise KeyFault(Fault(place, f"is not the source of keys that sealed {manifest.whose.dataset}", fix))

    def _named(self, dataset: str) -> dict[str, Any] | None:
        bodies = [entry.body for entry in self.ledger.entries("vault") if entry.body["dataset"] == dataset]
        return dict(bodies[-1]) if bodies else None

    def _manifests(self, dataset: str) -> Path:
        return self.workspace.vault / dataset / "manifests"

    def tidy(self, dataset: str) -> None:
        """Sweep, but where the vault is not what the ledger says: what is there may be all that can be restored from.

        A table that is sealed anew replaces it, once that is committed.
        """
        with contextlib.suppress(SealFault):
            self.sweep(dataset, self.newest(dataset))

    def sweep(self, dataset: str, manifest: Manifest | None) -> None:
        """Remove every file that the current manifest does not name: older versions, and what a crash left."""
        kept = {stream.file for stream in manifest.streams} if manifest else set()
        named = {manifest.digest().removeprefix("sha256:")} if manifest else set()
        for folder, keep in ((self.streams(dataset), kept), (self._manifests(dataset), named)):
            with contextlib.suppress(FileNotFoundError):
                gone = [path for path in folder.iterdir() if path.name not in keep]
                for path in gone:
                    path.unlink()
                if gone:
                    sync_folder(folder)


@contextlib.contextmanager
def open_vault(root: Path, clock: Clock, *, ask: Callable[[], str] | None = None) -> Iterator[Vault]:
    """Hold a workspace, and lend its vault; from then on this process leaves no core file.

    Args:
        root: The workspace's folder.
        clock: Returns the time in UTC.
        ask: Asks a person for a passphrase, where the workspace's keys want one.

    Raises:
        WorkspaceBusy: Another process held the workspace for ten seconds, longer than a node does during a task.
        FileFault: There is no workspace, or a file of it is wrong.
        LedgerFault: Its ledger cannot be used.
        KeyFault: Its key source is not there.
    """
    workspace = Workspace(root)
    forbid_dumps()
    with patiently(workspace), Ledger(workspace.ledger, clock) as ledger:
        introduce(ledger, workspace)
        yield Vault(workspace, ledger, workspace.key_source(ask))


_ROOM = "free some space or check its rights"
_HOW = {
    CONSENTS: "seal it: coterie partner consents FOLDER TABLE",
    IDENTIFIERS: "seal it: coterie partner identifiers FOLDER TABLE --customer COLUMN --email COLUMN",
    MATCHES: "take part in a match whose outcome is rows or tokens",
}


def _refuse_open_to_others(folder: Path) -> None:
    """Refuse a vault that other accounts may enter: its names and sizes tell how much there is."""
    try:
        mode = folder.stat().st_mode
    except OSError as error:
        raise FileFault(Fault(str(folder), f"cannot be used ({error.strerror})", "restore the workspace")) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise FileFault(Fault(str(folder), "is open to other users", f"chmod go-rwx {folder}"))
