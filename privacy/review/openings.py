"""Secure sums as one partner's ledger tells them: which keys it made, and which sums it helped to open.

The protocol is in `privacy/secagg/`. A ledger cannot show that masks cancelled or that others drew their noise; it can
show that this partner masked every vector under keys of its own, never opened a sum over too few, never one sum over
two lists of survivors, and none that it had not paid for. That is what the noise of honest partners in every opened sum
rests on.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from coterie.privacy.charges import Charge, Entry
from coterie.privacy.events import DistributedGaussian
from coterie.privacy.plan import SECURE, Plan
from coterie.privacy.schedule import round_of

__all__ = ["DEALT", "KEYS", "LEAST", "REVEALED", "SIGNED", "Openings", "Sums", "sum_faults"]

KEYS, DEALT = "round-keys", "dealt-shares"
SIGNED, REVEALED = "survivors-signed", "revealed-shares"

LEAST = 3
"""Fewest partners over whom any sum is opened: over two, each would learn the other's part."""


@dataclass(frozen=True)
class Openings:
    """How many secure sums of a study this partner had a part in.

    Args:
        epochs: For how many set-ups it made keys.
        signed: Of how many sums it signed the list of survivors.
        revealed: For how many it gave its shares, which opens them where enough others did so too.
        fewest: Least survivors of any of them; 0 where there is none.
    """

    epochs: int
    signed: int
    revealed: int
    fewest: int


@dataclass
class Sums:
    """The secure sums of one study as the replay knows them.

    Args:
        steps: For each epoch whose keys were made, the sums that they are for.
        dealt: Epochs whose shares were dealt.
        told: What was signed and revealed for a sum, by (step, attempt): each "what" with its entry's body.
        under: The epoch whose keys a vector was masked with, by (step, attempt), told when it was charged; 0 for none.
        used: (step, epoch) of vectors that were settled: a step's keys in an epoch mask one of them.
    """

    steps: dict[int, tuple[str, ...]] = field(default_factory=dict)
    dealt: set[int] = field(default_factory=set)
    told: dict[tuple[str, int], dict[str, Mapping[str, Any]]] = field(default_factory=dict)
    under: dict[tuple[str, int], int] = field(default_factory=dict)
    used: set[tuple[str, int]] = field(default_factory=set)

    def reserved(self, charge: Charge) -> None:
        """Take note of a charge: its vector can be masked with the newest keys alone, older ones are gone by now."""
        newest = max(self.steps, default=0)
        masks = newest in self.dealt and charge.step in self.steps[newest]
        self.under.setdefault((charge.step, charge.attempt), newest if masks else 0)

    def settled(self, charge: Charge) -> list[str]:
        """Take note of a vector that was made, and return what is wrong with the keys that it was masked with.

        Two vectors under one mask give their difference to everybody; one under no keys was not masked at all.
        """
        if not isinstance(charge.event, DistributedGaussian):
            return []
        epoch = self.under.get((charge.step, charge.attempt), 0)
        if not epoch:
            return ["settles a vector of a secure sum for which no keys and shares were dealt"]
        if (charge.step, epoch) in self.used:
            return ["settles a second vector of a secure sum under keys that masked one before"]
        self.used.add((charge.step, epoch))
        return []

    def summary(self) -> Openings:
        """Return what became of them."""
        bodies = [body for told in self.told.values() for body in told.values()]
        counts = {what: sum(what in told for told in self.told.values()) for what in (SIGNED, REVEALED)}
        fewest = min((len(set(body["survivors"])) for body in bodies), default=0)
        return Openings(len(self.steps), counts[SIGNED], counts[REVEALED], fewest)


def sum_faults(
    entry: Entry, plan: Plan | None, sums: Sums, *, name: str, paid: Collection[tuple[str, int]]
) -> list[str]:
    """Take note of keys or of an opening, and return what is wrong with it.

    Args:
        entry: Of kind "keys" or "opening".
        plan: The study's plan; None where the bundle lacks it, and its rules are then not held against it.
        sums: What the study's ledger told so far; changed.
        name: The partner's name in the roster.
        paid: (step, attempt) of the study's settled charges.
    """
    if plan is not None and plan.privacy.trust != SECURE:
        return ["is about a secure sum of a study that has none"]
    if entry.kind == "keys":
        return _keys_faults(entry.body, plan, sums)
    return [*_opening_faults(entry.body, sums, paid), *_survivor_faults(entry.body["survivors"], plan, name)]


def _keys_faults(body: Mapping[str, Any], plan: Plan | None, sums: Sums) -> list[str]:
    epoch, steps = int(body["epoch"]), tuple(body["steps"])
    if body["what"] == DEALT:
        if epoch in sums.dealt:
            return ["deals shares for an epoch a second time"]
        sums.dealt.add(epoch)
        if epoch != max(sums.steps, default=0) or sums.steps.get(epoch) != steps:
            return ["deals shares for another epoch or other steps than the last keys are for"]
        return []
    if epoch in sums.steps:
        return ["makes keys for an epoch a second time"]
    faults = []
    if epoch < 1 or epoch < max(sums.steps, default=0):
        faults.append("makes keys for an epoch before the last one")
    sums.steps[epoch] = steps
    if len(set(steps)) < len(steps) or (plan is not None and any(round_of(plan, step) is None for step in steps)):
        faults.append("makes keys for a step twice, or for one that the plan does not have")
    return faults


def _opening_faults(body: Mapping[str, Any], sums: Sums, paid: Collection[tuple[str, int]]) -> list[str]:
    what, key, epoch = body["what"], (body["step"], body["attempt"]), int(body["epoch"])
    told = sums.told.setdefault(key, {})
    faults = []
    if key not in paid:
        faults.append("opens a secure sum that no settled charge paid for")
    if epoch not in sums.dealt or key[0] not in sums.steps.get(epoch, ()):
        faults.append("opens a secure sum in an epoch without keys and shares for it")
    if sums.under.get(key, 0) not in {0, epoch}:
        faults.append("opens a secure sum in another epoch than its vector was masked in")
    # The same entry again is a reply that was made again after a crash, byte for byte.
    if what in told and told[what] != body:
        verb = "signs a list of survivors" if what == SIGNED else "reveals shares"
        faults.append(f"{verb} a second time for one secure sum")
    if what == REVEALED and SIGNED not in told:
        faults.append("reveals shares for a secure sum whose survivors it did not sign")
    told.setdefault(what, dict(body))
    if len({(one["transcript"], one["epoch"], frozenset(one["survivors"])) for one in told.values()}) > 1:
        faults.append("reveals shares for another list of survivors than it signed")
    return faults


def _survivor_faults(survivors: list[str], plan: Plan | None, name: str) -> list[str]:
    names, faults = set(survivors), []
    if len(names) < len(survivors):
        faults.append("opens a secure sum over a partner twice")
    if name not in names:
        faults.append("opens a secure sum in which it has no part")
    if plan is not None and not names <= {partner.name for partner in plan.partners}:
        faults.append("opens a secure sum over somebody who is not in the roster")
    if len(names) < max(LEAST, plan.privacy.threshold if plan is not None else LEAST):
        faults.append("opens a secure sum over fewer partners than the plan's threshold")
    return faults
