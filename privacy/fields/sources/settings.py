"""The `[keys]` table of coterie.toml, and the source of keys that it names.

    source = "file"           path: the folder of keys in the workspace; keys/vault without it
    source = "passphrase"     path: the file that holds the passphrase; without it, see `key_source`
    source = "mount"          path: the folder of keys, outside the workspace
    source = "environment"    variable: its name
    source = "transit"        address, key; token: the file that holds the token; authority: the file of certificates

A secret is never a setting: the file and the variables that hold one are named.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.fields.errors import KeyFault
from coterie.privacy.fields.keysource import KeySource
from coterie.privacy.fields.sources.environment import EnvironmentKeys
from coterie.privacy.fields.sources.keyfolder import read_secret
from coterie.privacy.fields.sources.local import LocalKeys
from coterie.privacy.fields.sources.passphrase import PassphraseKeys
from coterie.privacy.fields.sources.transit import TransitKeys
from coterie.privacy.fields.sources.transitcalls import TransitCalls
from coterie.privacy.fields.wiping import wiped
from coterie.privacy.schema import one_of, text

__all__ = ["FOLDER", "PASSPHRASE_FILE", "KeySettings", "key_source", "new_key_source", "secret_variables"]

FOLDER = "keys/vault"  # of the workspace
PASSPHRASE_FILE = "COTERIE_PASSPHRASE_FILE"  # noqa: S105 - the name of a variable
_TOKEN = "VAULT_TOKEN"  # noqa: S105 - the name of a variable
_MOST = 4096  # bytes of a passphrase's or a token's file
# What each source needs, and what it may have beside.
_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "file": ((), ("path",)),
    "passphrase": ((), ("path",)),
    "mount": (("path",), ()),
    "environment": (("variable",), ()),
    "transit": (("address", "key"), ("token", "authority")),
}


@dataclass(frozen=True, kw_only=True)
class KeySettings:
    """Where the key-encryption keys of a workspace come from; the module says which setting is whose.

    Args:
        source: The kind of source.
        path: A file or folder; a relative one is the workspace's.
        variable: Name of an environment variable.
        address: The key server, "https://HOST:PORT".
        key: The server's name of the key.
        token: The file of the server's token; the variable VAULT_TOKEN without it.
        authority: The file of certificates that the server's must chain to; the system's without it.
    """

    source: str = field(default="file", metadata=one_of(*_KEYS))
    path: str | None = field(default=None, metadata=text(1000))
    variable: str | None = field(default=None, metadata=text(200))
    address: str | None = field(default=None, metadata=text(500))
    key: str | None = field(default=None, metadata=text(200))
    token: str | None = field(default=None, metadata=text(1000))
    authority: str | None = field(default=None, metadata=text(1000))


def key_source(
    settings: KeySettings, root: Path, *, environment: Mapping[str, str], ask: Callable[[], str] | None
) -> KeySource:
    """Return the source of keys that a workspace has.

    Args:
        settings: Its `[keys]`.
        root: The workspace's folder.
        environment: The process' environment.
        ask: Asks a person for the passphrase, where neither `path` nor the variable COTERIE_PASSPHRASE_FILE names a
            file that holds it; None where nobody is there.

    Raises:
        FileFault: The settings do not fit together.
        KeyFault: The passphrase cannot be had, or the server's settings are wrong.
    """
    _check(settings, root)
    match settings.source:
        case "passphrase":
            return PassphraseKeys(root / FOLDER, _passphrase(settings, root, environment, ask))
        case "environment":
            return EnvironmentKeys(settings.variable or "", environment)
        case "transit":
            return TransitKeys(_calls(settings, root, environment))
        case "mount":
            return LocalKeys(root / (settings.path or ""), kind="mount")
        case _:
            return LocalKeys(root / (settings.path or FOLDER))


def new_key_source(
    settings: KeySettings, root: Path, *, environment: Mapping[str, str], ask: Callable[[], str] | None
) -> KeySource:
    """Return the source of keys of a workspace, with a first key where it has none.

    For a workspace with nothing sealed: beside a vault, a key that is missing is to be restored and not made anew.

    Args:
        settings: As `key_source`, and the next three.
        root: The workspace's folder.
        environment: The process' environment.
        ask: Asks for the passphrase.

    Raises:
        FileFault: The settings do not fit together.
        KeyFault: The first key cannot be made, or is somebody else's to make (the fix says what they must do).
    """
    _check(settings, root)
    match settings.source:
        case "passphrase":
            return PassphraseKeys.create(root / FOLDER, _passphrase(settings, root, environment, ask))
        case "transit":
            return TransitKeys.create(_calls(settings, root, environment))
        case "mount":
            return LocalKeys.create(root / (settings.path or ""), kind="mount")
        case "file":
            return LocalKeys.create(root / (settings.path or FOLDER))
        case _:
            source = key_source(settings, root, environment=environment, ask=ask)
            source.epochs()
            return source


def secret_variables(settings: KeySettings) -> frozenset[str]:
    """Return the environment variables that hold or lead to a key: for the process that opens the vault alone."""
    return frozenset({PASSPHRASE_FILE, _TOKEN, *([settings.variable] if settings.variable else [])})


def _check(settings: KeySettings, root: Path) -> None:
    needed, allowed = _KEYS[settings.source]
    place, faults = "coterie.toml: keys", []
    for name in (each.name for each in fields(KeySettings) if each.name != "source"):
        given = getattr(settings, name) is not None
        if given and name not in needed + allowed:
            rule = f'is not a setting of source = "{settings.source}"'
            faults.append(Fault(f"{place}.{name}", rule, "remove it, or correct the source"))
        elif not given and name in needed:
            faults.append(Fault(f"{place}.{name}", f'is missing for source = "{settings.source}"', "add it"))
    if settings.path is not None and settings.source in ("file", "mount"):
        inside = (root / settings.path).resolve().is_relative_to(root.resolve())
        if inside != (settings.source == "file"):
            rule = "must lie inside the workspace" if not inside else "must lie outside the workspace"
            fix = 'give another folder; source = "mount" is outside, "file" inside'
            faults.append(Fault(f"{place}.path", f'{rule} for source = "{settings.source}"', fix))
    if faults:
        raise FileFault(*faults)


def _passphrase(
    settings: KeySettings, root: Path, environment: Mapping[str, str], ask: Callable[[], str] | None
) -> str:
    named = settings.path or environment.get(PASSPHRASE_FILE)
    if named:
        return _line(root / named, "the passphrase")
    if ask is None:
        rule = "is not there: no file is named that holds it, and nobody is there to type it"
        fix = f"name its file in [keys] path or the variable {PASSPHRASE_FILE}, or start from a terminal"
        raise KeyFault(Fault("the passphrase", rule, fix))
    return ask()


def _calls(settings: KeySettings, root: Path, environment: Mapping[str, str]) -> TransitCalls:
    def token() -> str:
        if settings.token is not None:
            return _line(root / settings.token, "the key server's token")
        return environment.get(_TOKEN, "")

    authority = root / settings.authority if settings.authority is not None else None
    return TransitCalls(settings.address or "", settings.key or "", token, authority)


def _line(path: Path, what: str) -> str:
    """Return the one line of a secret file."""
    with wiped([read_secret(path, most=_MOST)]) as (data,):
        try:
            line = data.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            line = ""
    if min(line, default="") < " ":
        raise KeyFault(Fault(str(path), f"must hold {what} as one line of UTF-8 text", "write it anew"))
    return line
