"""Keys in a folder that a passphrase opens: `locked` says how one is kept.

Leaks:
    Who has the folder can guess at leisure, for ever: a passphrase is no stronger than it is long and random. Changing
    it closes no copy of the folder that was made before.
"""

import secrets
import unicodedata
from pathlib import Path

from coterie.privacy.durable import write_durably
from coterie.privacy.errors import Fault
from coterie.privacy.fields.errors import KeyFault
from coterie.privacy.fields.keysource import KEY_BYTES
from coterie.privacy.fields.sources.held import HeldKeys, not_there
from coterie.privacy.fields.sources.keyfolder import KeyFolder
from coterie.privacy.fields.sources.locked import lock_key, normal, open_key
from coterie.privacy.fields.wiping import wipe, wiped

__all__ = ["SHORTEST", "PassphraseKeys", "change_passphrase"]

SHORTEST = 12  # characters of a new passphrase
_LONGEST = 1024
_FIRST = "0001"


class PassphraseKeys(HeldKeys):
    """Keys in a folder, `0001.json` and so on, that a passphrase opens.

    Args:
        folder: Where they lie.
        passphrase: What opens them; it and the opened keys are kept in memory as long as the object.

    Raises:
        KeyFault: The passphrase is no text.
    """

    kind = "passphrase"
    apart = False

    def __init__(self, folder: Path, passphrase: str) -> None:
        super().__init__()
        self._files = KeyFolder(folder, ".json")
        self._passphrase = normal(passphrase)
        self._opened: dict[str, bytearray] = {}  # Argon2id is slow on purpose: once for each epoch

    @staticmethod
    def create(folder: Path, passphrase: str) -> "PassphraseKeys":
        """Return the source of a folder, made with a first key where it has none.

        Raises:
            KeyFault: The folder lets others in or cannot be written; or it has keys and the passphrase does not open
                them, or has none and the passphrase is shorter than `SHORTEST` characters.
        """
        source = PassphraseKeys(folder, passphrase)
        source._files.make()
        if source._files.names():
            with wiped([source._key(source.epochs()[-1])]):
                return source
        _long_enough(passphrase)
        source._add(_FIRST)
        return source

    def _names(self) -> tuple[str, ...]:
        return _there(self._files)

    def _key(self, epoch: str) -> bytearray:
        path = self._files.path(epoch)
        if epoch not in self._files.names():
            raise not_there(epoch)
        if epoch not in self._opened:
            self._opened[epoch] = open_key(path, epoch, self._passphrase)
        return bytearray(self._opened[epoch])

    def _make(self, newest: str) -> None:
        with wiped([self._key(newest)]):  # a mistyped passphrase must not become the next epoch's
            self._add(self._files.next(newest))

    def _add(self, epoch: str) -> None:
        with wiped([bytearray(secrets.token_bytes(KEY_BYTES))]) as (key,):
            content = lock_key(key, epoch, self._passphrase)
        self._files.add(epoch, content, fix="free some space, or check its rights")

    def _destroy(self, epoch: str) -> None:
        wipe([self._opened.pop(epoch, bytearray())])
        self._files.shred(epoch)


def change_passphrase(folder: Path, old: str, new: str) -> None:
    """Wrap every key of a folder under another passphrase; the keys, and what they sealed, stay as they are.

    Cut short, it is done again with the same two passphrases.

    Args:
        folder: The folder of keys.
        old: What opens them now.
        new: 12 to 1024 characters.

    Raises:
        KeyFault: The new one is too short, the folder holds no key, or a key opens under neither; nothing is changed.
        FileFault: A file cannot be written.

    Leaks:
        Who has a copy of the old files and the old passphrase has the keys: rotate afterwards.
    """
    _long_enough(new)
    files = KeyFolder(folder, ".json")
    with wiped([normal(old), normal(new)]) as (before, after), wiped([]) as keys:
        names = _there(files)
        keys.extend(_under_either(files, epoch, before, after) for epoch in names)
        for epoch, key in zip(names, keys, strict=True):
            write_durably(files.path(epoch), lock_key(key, epoch, after))


def _there(files: KeyFolder) -> tuple[str, ...]:
    names = files.names()
    if not names:
        fix = "restore it; where nothing is sealed yet, make a first key"
        raise KeyFault(Fault(str(files.folder), "holds no key", fix))
    return names


def _under_either(files: KeyFolder, epoch: str, before: bytearray, after: bytearray) -> bytearray:
    try:
        return open_key(files.path(epoch), epoch, before)
    except KeyFault as fault:
        try:
            return open_key(files.path(epoch), epoch, after)
        except KeyFault:
            raise fault from None


def _long_enough(passphrase: str) -> None:
    if not SHORTEST <= len(unicodedata.normalize("NFC", passphrase)) <= _LONGEST:
        rule = f"must have {SHORTEST} to {_LONGEST} characters"
        raise KeyFault(Fault("the new passphrase", rule, "take several random words"))
