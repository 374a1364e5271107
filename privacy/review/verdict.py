"""What a review found: plain data, for the terminal, the page and other programs alike."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from coterie.privacy.events import Event
from coterie.privacy.review.accountants import Recomputed
from coterie.privacy.review.atrest import AtRest
from coterie.privacy.review.happened import Model, Point, Refusal, Rules
from coterie.privacy.review.matched import Disclosed, Matched
from coterie.privacy.review.openings import Openings

__all__ = ["Budget", "Check", "Finding", "GroupSpent", "Model", "Point", "Refusal", "Rules", "Study", "Verdict"]


@dataclass(frozen=True)
class Finding:
    """One thing that does not hold, or could not be looked at.

    Args:
        entry: Its place in the ledger, from 1; 0 where it is about the whole.
        says: What is wrong, without any value out of the bundle.
    """

    entry: int
    says: str

    def __str__(self) -> str:
        """Return the finding as one line."""
        return f"entry {self.entry}: {self.says}" if self.entry else self.says


@dataclass(frozen=True)
class Check:
    """One question and its answer.

    Args:
        name: Short name.
        asks: The question in plain words.
        status: "holds", "fails", or "open" where it could not be decided.
        findings: What does not hold or is open, the first of them.
        more: How many further ones there are.
    """

    name: str
    asks: str
    status: str
    findings: tuple[Finding, ...] = ()
    more: int = 0


@dataclass(frozen=True)
class GroupSpent:
    """What a study charged one group of customers.

    Args:
        group: "training" or "holdout".
        events: (event, how many), in the order of first use.
        allowed: The events that the consent allows, each with how many.
        charges: How many charges.
        declared: How many charges the consent allows in all.
        recomputed: Epsilon of what was charged, by two accountants; None where it was not asked for.
        claimed: Epsilon of all that the consent allows, likewise.
    """

    group: str
    events: tuple[tuple[Event, int], ...]
    allowed: tuple[tuple[Event, int], ...]
    charges: int
    declared: int
    recomputed: Recomputed | None
    claimed: Recomputed | None


@dataclass(frozen=True)
class Study:
    """One study, as this partner's ledger tells it.

    Args:
        plan: Digest of the plan.
        name: Its name.
        purpose: What for.
        entry: Entry of the consent.
        at: When consent was given.
        expires: Last day on which the partner may work for it.
        epsilon: What the plan may spend in all.
        delta: At which delta.
        trust: The plan's trust model.
        unit: The unit of privacy.
        partners: Names in the roster.
        groups: What was charged to whom.
        settled: Charges that paid for a release.
        lost: Charges that a crash left without one.
        unsettled: Charges that are open at the end of the ledger; they count in full.
        segments: Customer segments that it touches; empty for all.
        openings: What became of its secure sums; None where its plan has none, or is not known.
        matched: What became of its match; None where the ledger tells of none.
    """

    plan: str
    name: str
    purpose: str
    entry: int
    at: str
    expires: str
    epsilon: float | None
    delta: float | None
    trust: str
    unit: str
    partners: tuple[str, ...]
    groups: tuple[GroupSpent, ...]
    settled: int
    lost: int
    unsettled: int
    segments: tuple[str, ...] = ()
    openings: Openings | None = None
    matched: Matched | None = None


@dataclass(frozen=True)
class Budget:
    """One budget of the policy in force at the end.

    Args:
        name: E.g. "lifetime budget".
        span: "life", "purpose/..." or "year/...".
        group: Customer group; "training/north" where the policy divides customers into segments.
        epsilon: The budget.
        delta: At which delta.
        spent: Epsilon at the filter's order.
        share: Part of the capacity that is used; unlike epsilons, shares add up.
        runs: (name of a study, how many more like it fit).
    """

    name: str
    span: str
    group: str
    epsilon: float
    delta: float
    spent: float
    share: float
    runs: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Verdict:
    """All that a review of one bundle found.

    Args:
        partner: The partner's name, as the bundle says it.
        key: Its public key; compare it out of band.
        made: When the bundle was made, by the partner's clock.
        software: What made it.
        size: Entries of the ledger.
        root: Root of its tree, in hexadecimal, recomputed.
        checks: Questions and answers.
        studies: By consent.
        budgets: Of the policy in force at the end.
        points: How the budgets went.
        refusals: What was refused.
        models: What was received.
        cosigned: (size, coordinator's key, seconds since 1970) of each cosigned checkpoint.
        policy: The policy in force at the end, as it is written in the ledger; None where there is none.
        rules: Every policy that was in force, in order: a loose one for a day shows here.
        coordinators: Public keys that policies named as their coordinator's; compare them out of band.
        plans: Each plan that was consented to, as plain JSON values, by digest.
        records: Digest of each study's record by plan.
        received: What the records say was received: names of releases by plan and partner.
        released: What this ledger says was released: names of releases by plan.
        life: Rényi curve of all that the worst customer of each group has spent for life, by group.
        paid: What that is made of, by group: for every kind of customer, events and how many times each was charged.
        carried: How many entries were carried over from version 1, which kept no tree: what they were before that
            cannot be shown.
        at_rest: What the ledger tells of how the data are kept, and of erasures.
        disclosures: Lists of customers that left for matches whose outcome no epsilon covers.
    """

    partner: str
    key: str
    made: str
    software: str
    size: int
    root: str
    checks: tuple[Check, ...]
    studies: tuple[Study, ...] = ()
    budgets: tuple[Budget, ...] = ()
    points: tuple[Point, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    models: tuple[Model, ...] = ()
    cosigned: tuple[tuple[int, str, int], ...] = ()
    policy: dict[str, Any] | None = None
    rules: tuple[Rules, ...] = ()
    coordinators: tuple[str, ...] = ()
    plans: dict[str, Any] = field(default_factory=dict)
    records: dict[str, str] = field(default_factory=dict)
    received: dict[str, dict[str, frozenset[bytes]]] = field(default_factory=dict)
    released: dict[str, frozenset[bytes]] = field(default_factory=dict)
    life: dict[str, tuple[float, ...]] = field(default_factory=dict)
    paid: dict[str, tuple[tuple[tuple[Event, int], ...], ...]] = field(default_factory=dict)
    carried: int = 0
    at_rest: AtRest = field(default_factory=AtRest)
    disclosures: tuple[Disclosed, ...] = ()

    @property
    def status(self) -> str:
        """The worst of the checks: "fails", then "open", then "holds"."""
        statuses = {check.status for check in self.checks}
        return next((status for status in ("fails", "open") if status in statuses), "holds")

    @property
    def line(self) -> str:
        """The verdict in one line, naming the first entry that does not hold."""
        if self.status == "holds":
            told = f"VERIFIED: {self.size} entries, {len(self.studies)} studies, nothing contradicts the claims"
            count = len(self.disclosures)
            words = f"; {count} {'disclosure is' if count == 1 else 'disclosures are'} not covered by epsilon"
            return told + (words if count else "")
        word = "FAILED" if self.status == "fails" else "CANNOT BE DECIDED"
        check = next(check for check in self.checks if check.status == self.status)
        return f"{word} ({check.name}): {check.findings[0]}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        table: dict[str, Any] = {"status": self.status, "verdict": self.line, **dataclasses.asdict(self)}
        for name in ("received", "released", "paid"):  # for comparing bundles; the ledger itself tells them better
            del table[name]
        for study, told in zip(self.studies, table["studies"], strict=True):
            for group, fields in zip(study.groups, told["groups"], strict=True):
                fields["events"] = [(str(event), count) for event, count in group.events]
                fields["allowed"] = "; ".join(str(event) for event, _ in group.allowed)
        return table
