"""Seals, new keys and erasures, as a ledger tells them: whether they can be true together.

A ledger cannot show that rows lay sealed; it shows what was said, when, and in which order. What contradicts the order
in which the software works, or what the partner itself says of its keys, is a finding.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coterie.privacy.charges import Entry
from coterie.privacy.policy import Policy
from coterie.privacy.review.atrest import APART, BESIDE, AtRest, DataSet, Erasure

__all__ = ["Sealings"]

_CONSENTS = "consents"
_READ = frozenset({"customers", "interactions", "identifiers"})  # what a charge can have been made on
_UNSEALED = "charges were made before any table was sealed: the table lay unsealed then"
_UNFINISHED = "was erased from, and no entry says that the erasure was finished: older keys may be there still"
_EARLIER = (
    "says that older keys were destroyed; some copies were under keys of another source, of which it tells nothing"
)


@dataclass
class _State:
    """One data set while a ledger is read."""

    first: Entry
    last: Entry
    sealed: int = 0
    filled: Entry | None = None  # sealed from a table
    erased: Entry | None = None
    rotated: str = ""
    rekeyed: str = ""
    sources: set[str] = field(default_factory=set)


class Sealings:
    """What was sealed, under which keys, and erased, while a ledger is read."""

    def __init__(self) -> None:
        self._states: dict[str, _State] = {}
        self._erasures: list[Erasure] = []
        self._sources: list[tuple[str, str]] = []
        self._dead: set[str] = set()  # epochs of the newest source that are said to be destroyed
        self._epochs: set[str] = set()  # that it had
        self._open: list[tuple[int, str]] = []
        self._charges = self._committed = self._before = self._first = 0
        self._held: set[tuple[str, str]] = set()  # plans, and policies that they were held against

    def take(self, entry: Entry) -> list[str]:
        """Read an entry of kind "vault", and return what is wrong with it, in a few words."""
        body, state = entry.body, self._states.get(entry.body["dataset"])
        faults = _faults(body, state.last.body if state else None)
        if not self._sources or self._sources[-1][1] != body["keys"]:
            # Another source names its epochs anew.
            self._sources.append((entry.at, str(body["keys"])))
            self._dead, self._epochs = set(), set()
        if body["epoch"] in self._dead:
            faults.append("is under a key-encryption key that was said to be destroyed")
        self._epochs.add(str(body["epoch"]))
        if state is None:
            state = self._states[body["dataset"]] = _State(entry, entry)
        _change(state, entry)
        return faults

    def erasure(self, entry: Entry) -> list[str]:
        """Read an entry of kind "erasure", and return what is wrong with it, in a few words."""
        body, named = entry.body, tuple(entry.body["datasets"])
        since = self._erasures[-1].entry if self._erasures else 0
        keys, claimed = str(body["keys"]), body["shredded"] == "destroyed"
        faults = [f"leaves out {name}, which was sealed" for name in self._states if name not in named]
        if set(named) - set(self._states):
            faults.append("names a data set that was never sealed")
        known = [state for name, state in self._states.items() if name in named]
        apart = keys in APART and all(state.sources == {keys} for state in known)
        self._erasures.append(Erasure(entry.seq, entry.at, named, keys, claimed and apart))
        begun = any(state.erased is not None and state.erased.seq > since for state in known)
        for name in (name for name in self._states if name in named):
            faults += self._erased(name, entry, since, begun=begun)
        return faults + (self._destroyed(entry, apart=apart) if claimed else [])

    def _erased(self, name: str, entry: Entry, since: int, *, begun: bool) -> list[str]:
        """Return why a data set that an erasure names was not erased from, by the entries before."""
        state, key = self._states[name], _key(entry.body)
        if _key(state.last.body) != key:
            return [f"names another key-encryption key than {name} is under"]
        filled = state.filled
        if state.erased is not None and state.erased.seq > max(since, filled.seq if filled else 0):
            return []
        if begun and filled is not None and filled.seq > since and _key(filled.body) == key:
            # An erasure was cut short, and the table was sealed anew before it was finished.
            says = f"{name} was sealed from a table while a customer was being erased: who was in it is not told"
            self._open.append((entry.seq, says))
            return []
        return [f"names {name}, which was not erased from"]

    def _destroyed(self, entry: Entry, *, apart: bool) -> list[str]:
        """Return what contradicts that older keys are destroyed, outside of any backup."""
        keys = str(entry.body["keys"])
        if keys in BESIDE:
            return ["says that older keys were destroyed, though backups of the workspace hold them (PRIVACY rule 20)"]
        if keys not in APART:
            self._open.append((entry.seq, "names a source of keys that this version does not know"))
        elif not apart:
            self._open.append((entry.seq, _EARLIER))
        self._dead |= self._epochs - {str(entry.body["epoch"])}
        return []

    def charged(self, entry: Entry, policy: Policy | None, named: str) -> list[str]:
        """Count a charge, and return what is wrong with it; told once for a plan and a policy.

        Args:
            entry: The charge.
            policy: What is in force, or None where that is not known.
            named: The policy's digest.
        """
        body = entry.body
        self._charges += 1
        self._committed += "rows" in body
        if not _READ & self._states.keys():
            self._before += 1
            self._first = self._first or entry.seq
        if (body["plan"], named) in self._held:
            return []
        self._held.add((body["plan"], named))
        return self.against(entry, body["purpose"], policy)

    def against(self, entry: Entry, purpose: str, policy: Policy | None) -> list[str]:
        """Return that a purpose rests on customers' consents and no table of them was sealed before an entry.

        Ledgers of earlier versions know no such table: they have no entry of kind "vault", and their policies name no
        other ground.

        Args:
            entry: A consent or a charge.
            purpose: What its plan is for.
            policy: What is in force, or None where that is not known.
        """
        if policy is None or not policy.consents(purpose):
            return []
        table = self._states.get(_CONSENTS)
        if table is not None and table.first.seq < entry.seq:
            return []
        known = any(state.first.seq < entry.seq for state in self._states.values())
        if not known and not policy.consent.elsewhere:
            return []
        return ["is for a purpose that rests on customers' consents, while no table of them was sealed"]

    def left_open(self) -> list[tuple[int, str]]:
        """Return (entry, what) of all that could not be decided, at the end of the ledger."""
        found = list(self._open)
        # Who commits to counts has a vault: that nothing was sealed may not pass for a ledger of an earlier version.
        if self._before and (self._states or self._committed):
            found.append((self._first, _UNSEALED))
        last = self._erasures[-1].entry if self._erasures else 0
        begun = (state.erased.seq for state in self._states.values() if state.erased is not None)
        return [*found, *((seq, _UNFINISHED) for seq in begun if seq > last)]

    def summary(self) -> AtRest:
        """Return what the ledger tells, as it says it."""
        return AtRest(
            datasets=tuple(_dataset(name, state) for name, state in self._states.items()),
            erasures=tuple(self._erasures),
            sources=tuple(self._sources),
            charges=self._charges,
            committed=self._committed,
            before=self._before,
        )


def _faults(body: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[str]:
    """Return how the next version of a data set contradicts the one before."""
    faults = []
    if body["version"] != (before["version"] + 1 if before else 1):
        faults.append("is not the version after the one before it: versions are 1, 2, 3, ...")
    if before is None:
        return faults if body["what"] == "sealed" else [*faults, "changes a data set that was never sealed"]
    if body["what"] in {"rewrapped", "erased"} and _key(body) == _key(before):
        faults.append("is under the key-encryption key of the version before it, which older copies are under")
    # A table may be sealed anew under any keys; what reads the version before has that one's.
    if body["what"] in {"rekeyed", "erased"} and body["keys"] != before["keys"]:
        faults.append("comes from another source of keys, which nothing was moved to")
    if body["manifest"] == before["manifest"]:
        faults.append("names the manifest of the version before it")
    return faults


def _change(state: _State, entry: Entry) -> None:
    what, renewed = entry.body["what"], _key(entry.body) != _key(state.last.body)
    if what == "sealed":
        state.sealed, state.filled = state.sealed + 1, entry
    elif what == "erased":
        state.erased = entry
    elif what == "rekeyed":
        state.rekeyed = entry.at
    if renewed:
        state.rotated = entry.at
    state.sources.add(str(entry.body["keys"]))
    state.last = entry


def _key(body: Mapping[str, Any]) -> tuple[str, str]:
    return str(body["keys"]), str(body["epoch"])


def _dataset(name: str, state: _State) -> DataSet:
    body = state.last.body
    return DataSet(
        name=name,
        versions=int(body["version"]),
        sealed=state.sealed,
        first=state.first.at,
        last=state.last.at,
        keys=str(body["keys"]),
        epoch=str(body["epoch"]),
        rotated=state.rotated,
        rekeyed=state.rekeyed,
    )
