"""Things with another value than before: rules of a policy, and how the data lie."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coterie.privacy.plain import plain
from coterie.privacy.review.atrest import AtRest, DataSet
from coterie.privacy.review.holding import source_words

__all__ = ["Change", "another_vault", "rule_changes", "vault_changes"]

_MISSING = object()
_LONGEST = 200  # characters of a rule's value


@dataclass(frozen=True)
class Change:
    """One thing with another value than before.

    Args:
        name: What it is: a rule of the policy, or a study.
        then: Its value in words; "" where it was not there.
        now: Likewise.
    """

    name: str
    then: str
    now: str


def rule_changes(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> tuple[Change, ...]:
    """Return every rule of a policy that is another one than before, key by key; None is no policy."""
    then, now = _flat(old or {}), _flat(new or {})
    keys = sorted({*then, *now})
    return tuple(
        _rule(key, then.get(key, _MISSING), now.get(key, _MISSING))
        for key in keys
        if then.get(key, _MISSING) != now.get(key, _MISSING)
    )


def _rule(key: str, then: object, now: object) -> Change:
    """Say how a rule changed; of two lists, what only one of them holds, unless their order is all that differs."""
    if isinstance(then, list) and isinstance(now, list):
        gone, new = [one for one in then if one not in now], [one for one in now if one not in then]
        if gone or new:
            return Change(f"{plain(key)}, what differs", _word(gone), _word(new))
    return Change(plain(key), _word(then), _word(now))


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return every value of nested tables by its path."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        path = f"{prefix}{key}"
        flat.update(_flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value})
    return flat


def _word(value: object) -> str:
    if value is _MISSING:
        return ""
    text = plain(json.dumps(value, ensure_ascii=False, sort_keys=True))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def vault_changes(old: AtRest, new: AtRest) -> tuple[Change, ...]:
    """Return what of the data at rest is otherwise than before: versions, keys and their source, by data set."""
    then, now = (_told(found) for found in (old, new))
    names = list(dict.fromkeys([*then, *now]))
    found = [Change(name, then.get(name, ""), now.get(name, "")) for name in names if then.get(name) != now.get(name)]
    moves = [f"{at[:10]} {source_words(keys)}" for at, keys in new.sources[max(1, len(old.sources)) :]]
    return tuple(found + ([Change("source of keys, changed to", "", plain("; ".join(moves)))] if moves else []))


def another_vault(old: AtRest, new: AtRest) -> bool:
    """Return whether a later ledger tells another history of the data at rest than an earlier one."""
    then, now = ({one.name: one for one in found.datasets} for found in (old, new))
    lists: tuple[tuple[tuple[object, ...], tuple[object, ...]], ...] = (
        (old.erasures, new.erasures),
        (old.sources, new.sources),
    )
    if any(after[: len(before)] != before for before, after in lists):
        return True
    return any(_went_back(one, now.get(name)) for name, one in then.items())


def _went_back(then: DataSet, now: DataSet | None) -> bool:
    if now is None:
        return True
    return now.first != then.first or now.versions < then.versions or now.sealed < then.sealed


def _told(found: AtRest) -> dict[str, str]:
    """Return what is compared, in words."""
    told = {}
    for one in found.datasets:
        told[f"{one.name}, versions"] = (
            f"{one.versions}, sealed from a table {one.sealed}, last changed {one.last[:10]}"
        )
        told[f"{one.name}, keys from"] = source_words(one.keys)
        told[f"{one.name}, key-encryption key"] = plain(f"{one.epoch}, of {(one.rotated or one.first)[:10]}")
        if one.rekeyed:
            told[f"{one.name}, data keys of single columns"] = f"renewed {one.rekeyed[:10]}"
    return told
