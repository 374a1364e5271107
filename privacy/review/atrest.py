"""How a partner's data lie, as its ledger says it: plain data, for the verdict."""

from dataclasses import dataclass

__all__ = ["APART", "BESIDE", "AtRest", "DataSet", "Erasure"]

APART = frozenset({"mount", "environment", "transit"})
"""Sources of keys that lie apart from the workspace and its backups (`docs/formats/keys.md`)."""
BESIDE = frozenset({"file", "passphrase"})
"""Those that do not: a backup may hold an older key beside what is under it."""


@dataclass(frozen=True)
class DataSet:
    """A sealed data set, as the ledger tells of it.

    Args:
        name: "customers", "interactions", "consents", "identifiers" or "matches".
        versions: How many versions there were.
        sealed: How many of them were sealed from a table.
        first: When it was first sealed.
        last: When it last changed in any way.
        keys: Kind of the source of its key-encryption key.
        epoch: Name of that key.
        rotated: When it last got a new key-encryption key; "" where it has the first.
        rekeyed: When a column last got a new data key by itself; "" where none did.
    """

    name: str
    versions: int
    sealed: int
    first: str
    last: str
    keys: str
    epoch: str
    rotated: str = ""
    rekeyed: str = ""


@dataclass(frozen=True)
class Erasure:
    """A customer that was erased; nobody says which.

    Args:
        entry: Its entry.
        at: When.
        datasets: Data sets that it names.
        keys: Kind of the source of keys.
        destroyed: Whether all older keys are said to be destroyed, outside of any backup, and that can be: they came
            from a source that lies apart, and from no other.
    """

    entry: int
    at: str
    datasets: tuple[str, ...]
    keys: str
    destroyed: bool


@dataclass(frozen=True)
class AtRest:
    """What a ledger tells of the data at rest.

    Args:
        datasets: In the order in which they were first sealed; none in ledgers of earlier versions.
        erasures: In order.
        sources: (when, kind) of each source of keys, from the first on, whenever it changed.
        charges: How many charges there are.
        committed: How many of them commit to the exact counts of what was opened.
        before: How many of them were made before any table was sealed.
    """

    datasets: tuple[DataSet, ...] = ()
    erasures: tuple[Erasure, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()
    charges: int = 0
    committed: int = 0
    before: int = 0
