"""What changed between two reviews of the same partner: entries, studies, charges, budgets, rules, models, refusals.

Two files of one partner must tell one story, the later going on where the earlier stopped. Whether the later really
extends the earlier follows from the tree: verify the later bundle with the earlier one's checkpoint.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from coterie.privacy.plain import plain
from coterie.privacy.review.changes import Change, another_vault, rule_changes, vault_changes
from coterie.privacy.review.explain import quoted
from coterie.privacy.review.holding import erasure_words
from coterie.privacy.review.matchwords import disclosure_words
from coterie.privacy.review.verdict import Budget, Study, Verdict

__all__ = ["Change", "Difference", "Movement", "difference"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Movement:
    """One budget then and now.

    Args:
        name: The budget's name.
        group: Customer group.
        epsilon_then: The budget, or None where there was none.
        epsilon_now: Likewise.
        share_then: Part of it that was used, likewise.
        share_now: Likewise.
    """

    name: str
    group: str
    epsilon_then: float | None
    epsilon_now: float | None
    share_then: float | None
    share_now: float | None


@dataclass(frozen=True)
class Difference:
    """What two verdicts differ in.

    Args:
        partner: The partner of the new verdict.
        findings: What must not be, or needs an explanation; empty where the new goes on from the old.
        extends: "holds", "fails" or "open": whether the new ledger extends the old one.
        entries: How many there were and are.
        charges: Likewise.
        studies_added: Names of studies that were consented to since.
        studies_changed: Studies that charged since.
        budgets: Every budget of either time.
        policy: Rules that are others than before, key by key.
        policies: How many policies came into force since; one that was there for a day shows here alone.
        models: Names of the studies whose models were received since.
        refusals: Reasons of each refusal since.
        vault: How the data lie otherwise than before: versions, keys and where they come from.
        erasures: What is said of each erasure since.
        disclosures: What is said of each Disclosure since, which no epsilon covers.
    """

    partner: str
    findings: tuple[str, ...]
    extends: str
    entries: tuple[int, int]
    charges: tuple[int, int]
    studies_added: tuple[str, ...]
    studies_changed: tuple[Change, ...]
    budgets: tuple[Movement, ...]
    policy: tuple[Change, ...]
    policies: int
    models: tuple[str, ...]
    refusals: tuple[tuple[str, ...], ...]
    vault: tuple[Change, ...]
    erasures: tuple[str, ...]
    disclosures: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        plainly: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plainly

    def lines(self) -> tuple[str, ...]:
        """Return the difference in plain words."""
        extends = {
            "holds": "The new ledger extends the old one: every entry of the old is still there, unchanged.",
            "fails": "The new ledger does not extend the old one: its history was rewritten, or it is another ledger.",
            "open": "Whether the new ledger extends the old one was not decided: verify it with the old one.",
        }[self.extends]
        told = [
            *(f"FINDING: {finding}." for finding in self.findings),
            extends,
            f"Entries: {self.entries[0]} then, {self.entries[1]} now. Charges: {self.charges[0]} then, "
            f"{self.charges[1]} now.",
            *(f"New study: {quoted(name)}." for name in self.studies_added),
            *(f"Study {quoted(one.name)}: {one.then} then, {one.now} now." for one in self.studies_changed),
            *(_moved(one) for one in self.budgets if _moves(one)),
            *(
                f"Rule {quoted(one.name)}: {one.then or 'not there'} then, {one.now or 'not there'} now."
                for one in self.policy
            ),
            *(
                f"Vault, {one.name}: {one.then or 'not there'} then, {one.now or 'not there'} now."
                for one in self.vault
            ),
            *self.erasures,
            *([f"Policies that came into force since: {self.policies}."] if self.policies else []),
            *(f"Model received: {quoted(name)}." for name in self.models),
            *(f"New: {words}" for words in self.disclosures),
            *(f"Refused: {', '.join(codes) or 'without a reason'}." for codes in self.refusals),
        ]
        return tuple(plain(line) for line in told)


def difference(old: Verdict, new: Verdict) -> Difference:
    """Compare two verdicts of the same partner.

    Args:
        old: Of the earlier bundle.
        new: Of the later one, verified with `earlier=` the old one's checkpoint.
    """
    before, after = ({study.plan: study for study in verdict.studies} for verdict in (old, new))
    names = {study.plan: study.name for study in (*old.studies, *new.studies)}
    findings = [*_identity(old, new), *_history(old, new, before, after)]
    return Difference(
        partner=plain(new.partner),
        findings=tuple(findings),
        extends=_extends(old, new),
        entries=(old.size, new.size),
        charges=(_total(old), _total(new)),
        studies_added=tuple(plain(study.name) for plan, study in after.items() if plan not in before),
        studies_changed=tuple(_charged(before, after)),
        budgets=_budgets(old, new),
        policy=rule_changes(old.policy, new.policy),
        policies=len(_added(old.rules, new.rules)),
        models=tuple(plain(names.get(one.plan, one.plan)) for one in _added(old.models, new.models)),
        refusals=tuple(tuple(plain(code) for code in one.codes) for one in _added(old.refusals, new.refusals)),
        vault=vault_changes(old.at_rest, new.at_rest),
        disclosures=tuple(plain(disclosure_words(one)) for one in _added(old.disclosures, new.disclosures)),
        erasures=tuple(erasure_words(one) for one in _added(old.at_rest.erasures, new.at_rest.erasures)),
    )


def _identity(old: Verdict, new: Verdict) -> list[str]:
    """What says that these are not two files of one partner, or not to be relied on."""
    found = []
    if old.key != new.key:
        found.append("the two bundles are of different keys: not the same partner, or its key was replaced")
    if old.partner != new.partner:
        found.append(f"the partner is called {quoted(old.partner)} in the old bundle, {quoted(new.partner)} in the new")
    for name, verdict in (("old", old), ("new", new)):
        bad = [check.name for check in verdict.checks if check.status == "fails"]
        if bad:
            found.append(f"the {name} bundle does not hold by itself ({', '.join(bad)})")
    return found


def _history(old: Verdict, new: Verdict, before: Mapping[str, Study], after: Mapping[str, Study]) -> list[str]:
    """What an append-only ledger cannot have done."""
    found = []
    if new.size < old.size:
        found.append("the new ledger has fewer entries than the old: some were removed, or the bundles are swapped")
    if new.size == old.size and new.root != old.root:
        found.append("both ledgers have as many entries, but not the same ones")
    if _extends(old, new) == "fails":
        found.append("the new ledger does not extend the old one")
    if new.made < old.made:
        found.append("the new bundle says that it was made before the old one")
    pairs = ((old.models, new.models), (old.refusals, new.refusals), (old.rules, new.rules))
    if any(tuple(now[: len(then)]) != tuple(then) for then, now in pairs):
        found.append("a model, refusal or policy of the old ledger is another one in the new")
    if new.disclosures[: len(old.disclosures)] != old.disclosures:
        found.append("a disclosure of the old ledger is another one in the new")
    if another_vault(old.at_rest, new.at_rest):
        found.append("what the old ledger tells of the vault and of erasures is another story in the new")
    return [*found, *_studies(before, after)]


def _studies(before: Mapping[str, Study], after: Mapping[str, Study]) -> list[str]:
    """What cannot become of a study."""
    found = []
    for plan, study in before.items():
        if plan not in after:
            found.append(f"study {quoted(study.name)} is not in the new ledger")
        elif _charges(after[plan]) < _charges(study):
            found.append(f"study {quoted(study.name)} has fewer charges than before")
        elif _opened(after[plan]) < _opened(study):
            found.append(f"study {quoted(study.name)} has fewer opened sums than before")
        elif (after[plan].entry, after[plan].at) != (study.entry, study.at):
            found.append(f"consent to study {quoted(study.name)} is at another place than before")
    return found


def _extends(old: Verdict, new: Verdict) -> str:
    """Return what the tree says; without the old checkpoint only ledgers of one size can be told."""
    if old.key != new.key or new.size < old.size:
        return "fails"
    if new.size == old.size:
        return "holds" if new.root == old.root else "fails"
    return next((check.status for check in new.checks if check.name == "earlier"), "open")


def _total(verdict: Verdict) -> int:
    return sum(_charges(study) for study in verdict.studies)


def _charges(study: Study) -> int:
    return sum(group.charges for group in study.groups)


def _opened(study: Study) -> int:
    return study.openings.revealed if study.openings is not None else 0


def _charged(before: Mapping[str, Study], after: Mapping[str, Study]) -> list[Change]:
    return [
        Change(plain(study.name), _spent(before[plan]), _spent(study))
        for plan, study in after.items()
        if plan in before and _spent(before[plan]) != _spent(study)
    ]


def _spent(study: Study) -> str:
    """Say what was charged, by group."""
    told = []
    for group in study.groups:
        epsilon = f", epsilon {group.recomputed.first:.3g}" if group.recomputed is not None else ""
        told.append(f"{group.group} {group.charges} of {group.declared} charges{epsilon}")
    sums = [f"{study.openings.revealed} secure sums opened"] if study.openings is not None else []
    return "; ".join([*told, f"{study.lost} lost, {study.unsettled} open", *sums])


def _budgets(old: Verdict, new: Verdict) -> tuple[Movement, ...]:
    then, now = ({(one.span, one.group): one for one in verdict.budgets} for verdict in (old, new))
    return tuple(_movement(then.get(key), now.get(key)) for key in {**then, **now})


def _movement(then: Budget | None, now: Budget | None) -> Movement:
    named = now or then
    return Movement(
        name=plain(named.name) if named else "",
        group=plain(named.group) if named else "",
        epsilon_then=then.epsilon if then else None,
        epsilon_now=now.epsilon if now else None,
        share_then=then.share if then else None,
        share_now=now.share if now else None,
    )


def _moves(one: Movement) -> bool:
    return (one.epsilon_then, one.share_then) != (one.epsilon_now, one.share_now)


def _moved(one: Movement) -> str:
    then, now = (
        "not there" if epsilon is None or share is None else f"{100 * share:.3g} % of epsilon {epsilon:g} used"
        for epsilon, share in ((one.epsilon_then, one.share_then), (one.epsilon_now, one.share_now))
    )
    return f"{one.name.capitalize()}, group {one.group}: {then} then, {now} now."


def _added(old: Sequence[_T], new: Sequence[_T]) -> Sequence[_T]:
    return new[len(old) :]
