"""Keys of a key server's transit secrets engine (HashiCorp Vault 1.13 or later, OpenBao): they never leave it.

An epoch is a version of one key of type aes256-gcm96: "v1", "v2" and so on. The server wraps data keys with AES-256-GCM
and binds their contexts as associated data. The key is for one workspace alone: destroying an epoch trims it.

Guarantees:
    A trimmed version is deleted by the server for good: what was wrapped under it opens nowhere again, but with a
    backup of the server's own storage and the server's own unseal keys. A key that the server would hand out in plain
    text (exportable, or with plaintext backup) is refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

from coterie.privacy.errors import Fault
from coterie.privacy.fields.errors import KeyFault
from coterie.privacy.fields.sources.held import checked, current_stays, not_there
from coterie.privacy.fields.sources.transitcalls import TransitCalls
from coterie.privacy.fields.sources.transitwrap import check_binding, unwrap_all, wrap_all

__all__ = ["TransitKeys"]

_EPOCH = re.compile(r"v([1-9][0-9]{0,8})", re.ASCII)
# What a key must be: bound to contexts, of 256 bits, and never handed out.
_MUST = {"type": "aes256-gcm96", "derived": False, "exportable": False, "allow_plaintext_backup": False}


@dataclass(frozen=True)
class _Versions:
    """A key's versions as the server tells them; 0 where a bound was never set."""

    latest_version: int
    min_available_version: int
    min_decryption_version: int
    min_encryption_version: int

    @property
    def oldest(self) -> int:
        """The oldest one that the server has: it is there until it is trimmed, even where it opens nothing any more."""
        return max(1, self.min_available_version)


class TransitKeys:
    """The versions of one key of a key server.

    Args:
        calls: The key.
    """

    kind = "transit"
    apart = True

    def __init__(self, calls: TransitCalls) -> None:
        self._calls, self._binds = calls, False
        self._seen: tuple[str, ...] = ()

    @staticmethod
    def create(calls: TransitCalls) -> "TransitKeys":
        """Return the source of a key, made where the server has none of its name.

        Raises:
            KeyFault: The server does not answer or the token does not allow it, or the key is of another kind.
        """
        if calls.read() is None:
            calls.make()
        source = TransitKeys(calls)
        source.epochs()
        return source

    def epochs(self) -> tuple[str, ...]:
        """Return the versions that the server has, as this object first saw them or last changed them.

        Raises:
            KeyFault: The server does not answer, or has no such key, or one of another kind.
        """
        if not self._seen:
            self._seen = _names(self._versions())
        return self._seen

    def wrap(self, keys: Sequence[bytes | bytearray], contexts: Sequence[bytes]) -> list[bytes]:
        """Have data keys wrapped under the current version, each bound to its context.

        Raises:
            KeyFault: The server does not answer, refuses, or does not bind contexts.
            ValueError: As `checked`.
        """
        pairs, current = checked(keys, contexts), self.epochs()[-1]
        wrapped = wrap_all(self._calls, pairs, epoch=current, number=_number(current))
        if wrapped and not self._binds:
            check_binding(self._calls, wrapped[0], pairs[0], epoch=current)
            self._binds = True
        return wrapped

    def unwrap(self, wrapped: Sequence[bytes], contexts: Sequence[bytes], *, epoch: str) -> list[bytearray]:
        """Have data keys unwrapped, into memory that the caller wipes.

        Raises:
            KeyFault: The server does not answer, the version is gone, or a key was not wrapped under it and for its
                context.
            ValueError: There are more keys than contexts, or fewer.
        """
        pairs = list(zip(wrapped, contexts, strict=True))
        versions = self._versions()
        if not versions.oldest <= _number(epoch) <= versions.latest_version:
            raise not_there(epoch)
        return unwrap_all(self._calls, pairs, epoch=epoch)

    def advance(self, after: str) -> str:
        """Make a version that is newer than `after` the current one: one that is there, or else a new one.

        Raises:
            KeyFault: The server does not answer or refuses, or `after` is not there.
        """
        names = _names(self._versions())
        if after not in names:
            raise not_there(after)
        if after == names[-1]:
            refused = Fault(self._calls.place, "cannot be rotated", "see in the server what forbids it")
            self._calls.post("rotate", {}, refused=refused)
            names = _names(self._versions())
        if after == names[-1]:
            raise KeyFault(Fault(self._calls.place, "was rotated, and has no newer version", "check the server"))
        self._seen = names
        return names[-1]

    def destroy(self, epoch: str) -> None:
        """Have a version deleted for good; nothing where it is gone already. The oldest go first.

        Raises:
            KeyFault: It is the current one, an older one is there still, or the server does not answer or refuses.
        """
        versions, number = self._versions(), _number(epoch)
        if epoch in (self.epochs()[-1], f"v{versions.latest_version}"):
            raise current_stays(epoch)
        if not versions.oldest <= number < versions.latest_version:
            return
        if number > versions.oldest:
            rule = f"holds v{versions.oldest} still, which would go with {epoch}"
            raise KeyFault(Fault(self._calls.place, rule, "destroy the oldest first"))
        self._trim(versions, number + 1)
        if self._versions().min_available_version <= number:
            raise KeyFault(Fault(self._calls.place, f"holds {epoch} still", "trim it in the server"))
        self._seen = tuple(name for name in self._seen if name != epoch)

    def _trim(self, versions: _Versions, least: int) -> None:
        refused = Fault(
            self._calls.place, f"does not let versions before v{least} go", "see in the server what forbids it"
        )
        # A version can be trimmed once nothing is encrypted or decrypted under it any more; no bound is ever lowered.
        bounds = {
            "min_decryption_version": max(least, versions.min_decryption_version),
            "min_encryption_version": max(least, versions.min_encryption_version),
        }
        self._calls.post("config", bounds, refused=refused)
        self._calls.post("trim", {"min_available_version": least}, refused=refused)

    def _versions(self) -> _Versions:
        told = self._calls.read()
        if told is None:
            fix = "restore it, or correct [keys] key; where nothing is sealed yet, make it"
            raise KeyFault(Fault(self._calls.place, "is not there", fix))
        for name, value in _MUST.items():
            if told.get(name) != value:
                fix = "make another key of type aes256-gcm96, neither derived nor exportable, and name it"
                raise KeyFault(Fault(self._calls.place, f"must have {name} = {value}", fix))
        numbers = {each.name: told.get(each.name) for each in fields(_Versions)}
        versions = {name: value for name, value in numbers.items() if type(value) is int and value >= 0}
        if versions.keys() != numbers.keys() or not versions["latest_version"]:
            raise KeyFault(Fault(self._calls.place, "does not tell its versions", "check [keys] address"))
        return _Versions(**versions)


def _names(versions: _Versions) -> tuple[str, ...]:
    return tuple(f"v{number}" for number in range(versions.oldest, versions.latest_version + 1))


def _number(epoch: str) -> int:
    """Return an epoch's version, and 0, which no key has, for a name that is none."""
    found = _EPOCH.fullmatch(epoch)
    return int(found[1]) if found else 0
