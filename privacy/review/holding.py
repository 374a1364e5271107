"""How a partner's data lie, in plain words: what the ledger says of seals, keys and erasures, and no more."""

from collections.abc import Sequence

from coterie.privacy.review.atrest import BESIDE, AtRest, DataSet, Erasure

__all__ = ["NOTHING", "at_rest_facts", "at_rest_words", "erasure_words", "source_words"]

NOTHING = "nothing: the ledger has no entry about a vault, as those of earlier versions"

_MOST = 20  # erasures that are told one by one
_SOURCES = {
    "file": "files in the workspace itself",
    "passphrase": "a passphrase",
    "mount": "a folder outside the workspace",
    "environment": "the environment of the process",
    "transit": "a key server",
}
_METHOD = (
    "every column by itself, in chunks of 16 KiB under AES-256-GCM (Cobblestone-256), with a data key of its own that "
    "is wrapped under the key-encryption key; what the software does, if it ran unchanged"
)


def source_words(keys: str) -> str:
    """Say where keys come from.

    Args:
        keys: Kind of the source, as the ledger has it.
    """
    return _SOURCES.get(keys, "a source that this version does not know")


def erasure_words(one: Erasure) -> str:
    """Say what an erasure is said to have done."""
    tables = _joined([_TABLES[name] for name in one.datasets if name in _TABLES]) or "no table"
    told = f"On {one.at[:10]} a customer was erased from {tables}; "
    if one.destroyed:
        return (
            told + "older copies are dead: the keys that they were under are said to be destroyed, outside of backups."
        )
    if one.keys not in BESIDE:
        return told + (
            "older copies cannot be proved dead: the ledger does not tell that the key of each was destroyed, outside "
            "of backups."
        )
    return told + (
        f"older copies cannot be proved dead, since the keys come from {source_words(one.keys)}, and a backup of the "
        "workspace may hold what opens it."
    )


def at_rest_words(found: AtRest) -> list[str]:
    """Say how the data lie, by the ledger's word.

    Args:
        found: What the ledger tells.
    """
    if not found.datasets:
        return [f"How the customers' rows lay on the partner's disks, this ledger tells {NOTHING}.", *_counts(found)]
    lines = [_dataset(one) for one in found.datasets]
    changed = [f"on {at[:10]} to {source_words(keys)}" for at, keys in found.sources[1:][-_MOST:]]
    lines += [f"Where keys come from was changed {_joined(changed)}."] if changed else []
    lines += [erasure_words(one) for one in found.erasures[-_MOST:]] or ["No customer was erased."]
    if len(found.erasures) > _MOST:
        lines.append(f"Before these, customers were erased {_times(len(found.erasures) - _MOST)}.")
    if found.before:
        lines.append(f"{found.before} of {found.charges} charges were made before any table was sealed.")
    return [*lines, *_counts(found), "All of this is the partner's word, in the order in which it was given."]


def at_rest_facts(found: AtRest) -> list[tuple[str, str]]:
    """Return (name, value) of what the ledger tells, for a list of facts; none where it tells nothing."""
    rows = []
    for one in found.datasets:
        told = [f"since {one.first[:10]}", f"{one.versions} versions, the last of {one.last[:10]}"]
        told.append(f"keys from {source_words(one.keys)}, epoch {one.epoch}")
        told += (
            [f"new key-encryption key on {one.rotated[:10]}"] if one.rotated else ["key-encryption key never changed"]
        )
        told += [f"new data keys of single columns on {one.rekeyed[:10]}"] if one.rekeyed else []
        rows.append((f"said to be sealed: {one.name}", "; ".join(told)))
    if not rows:
        return []
    proved = sum(one.destroyed for one in found.erasures)
    erased = f"{len(found.erasures)}; older keys said to be destroyed outside of any backup: {proved} of them"
    return [("how", _METHOD), *rows, ("customers erased", erased if found.erasures else "none")]


def _dataset(one: DataSet) -> str:
    table = _TABLES.get(one.name, "another table")
    text = f"{table[0].upper()}{table[1:]} was sealed on {one.first[:10]}"
    if one.versions > 1:
        text += f" and changed {_times(one.versions - 1)} since, the last time on {one.last[:10]}"
    text += f". Its keys come from {source_words(one.keys)}; "
    text += f"the newest key-encryption key is of {one.rotated[:10]}" if one.rotated else "they have not been changed"
    text += f", and data keys of single columns were last renewed on {one.rekeyed[:10]}" if one.rekeyed else ""
    return f"{text}."


def _counts(found: AtRest) -> list[str]:
    if not found.charges:
        return []
    return [
        f"{found.committed} of {found.charges} charges commit to the exact counts of what was opened for them, without "
        "telling them. Whoever is shown such a record can hold it against this file."
    ]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _joined(parts: Sequence[str]) -> str:
    *most, last = parts or [""]
    return f"{', '.join(most)} and {last}" if most else last


_TABLES = {
    "customers": "the customers' table",
    "interactions": "the table of interactions",
    "consents": "the table of consents",
    "identifiers": "the table of identifiers",
    "matches": "the table of matched customers",
}
