"""What the commands about keys ask a person: settings on the command line, and passphrases without an echo."""

import getpass
from collections.abc import Sequence
from typing import TYPE_CHECKING

from coterie.privacy.errors import Fault, FileFault

if TYPE_CHECKING:
    from coterie.privacy.fields.sources.settings import KeySettings

__all__ = ["KEYS", "SETTINGS", "new_passphrase", "passphrase", "settings_of"]

KEYS = "Where the vault's keys come from: file, passphrase, mount, environment or transit."
SETTINGS = "A setting of that source, as NAME=VALUE: path, variable, address, key, token, authority."


def settings_of(source: str, given: Sequence[str]) -> "KeySettings":
    """Return the settings of a source of keys.

    Args:
        source: Its kind.
        given: "NAME=VALUE" of each setting.

    Raises:
        FileFault: One is no such pair, or is not known.
    """
    from coterie.privacy.fields.sources.settings import KeySettings
    from coterie.privacy.schema import parse

    table: dict[str, object] = {"source": source}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals:
            raise FileFault(Fault("--set", "must be NAME=VALUE", "for example: --set path=/run/secrets/coterie"))
        table[name] = value
    return parse(KeySettings, table, place="--keys and --set")


def passphrase() -> str:
    """Ask for the vault's passphrase."""
    return getpass.getpass("passphrase of the vault: ")


def new_passphrase() -> str:
    """Ask for a new passphrase, twice.

    Raises:
        FileFault: The two differ.
    """
    first = getpass.getpass("new passphrase of the vault (12 characters or more): ")
    if getpass.getpass("once more: ") != first:
        raise FileFault(Fault("the passphrase", "was not typed the same way twice", "run the command again"))
    return first
