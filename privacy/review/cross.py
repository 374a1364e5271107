"""Several partners' bundles held against each other: did all of them see the same study, and was all of it paid for?

One partner alone could leave something out. The coordinator's record of a study is in every partner's ledger, and
names the releases of all of them: what one bundle lacks, another one shows.
"""

from collections.abc import Mapping, Sequence

from coterie.privacy.events import Event, copies_of
from coterie.privacy.renyi import ORDERS, conversion
from coterie.privacy.review.divergence import direct_curve
from coterie.privacy.review.findings import ASKS
from coterie.privacy.review.verdict import Check, Finding, Verdict

__all__ = ["cross_check", "for_life"]


def cross_check(verdicts: Sequence[Verdict]) -> Check:
    """Compare bundles of several partners.

    Args:
        verdicts: One for each bundle.

    Returns:
        One check; its findings name the partners by the place of their bundle, from 1.
    """
    fails = [*_twice(verdicts), *_records(verdicts), *_rosters(verdicts), *_receipts(verdicts), *_lists(verdicts)]
    opened = _incomplete(verdicts)
    status = "fails" if fails else "open" if opened else "holds"
    return Check("bundles", ASKS["bundles"], status, tuple(fails or opened))


def for_life(verdicts: Sequence[Verdict], delta: float) -> tuple[tuple[int, float], ...]:
    """Return what holds for a customer of k of these partners, over all studies in their ledgers (PRIVACY rule 11).

    Args:
        verdicts: One for each partner.
        delta: In (0, 1).

    Returns:
        (k, epsilon) for k = 1 .. partners: the worst k partners and the worst group at each, composed at every Rényi
        order; the best order counts.

    Guarantees:
        Sums of Rényi divergences compose (Mironov 2017, proposition 1); conversion as in `renyi.py`. A secure sum's
        noise is there once, however many of the k partners put a contribution into it: each of the k ledgers is charged
        with a k-th of the variance (`events.copies_of`). The order is chosen after the fact, so this is a reading for
        studies that were not chosen by one another's results. What is promised whatever happens are the budgets in
        each partner's policy.
    """
    found = []
    for k in range(1, len(verdicts) + 1):
        spent = [_worst(verdict, k) for verdict in verdicts]
        sums = [sum(sorted(at, reverse=True)[:k]) for at in zip(*spent, strict=True)]
        bounds = [total + conversion(order, delta) for order, total in zip(ORDERS, sums, strict=True)]
        found.append((k, max(0.0, min(bounds)) if any(sums) else 0.0))
    return tuple(found)


def _worst(verdict: Verdict, partners: int) -> tuple[float, ...]:
    """Return what a partner's worst customer has spent who is a customer of so many, order by order."""
    curves = [_curve(events, partners) for kinds in verdict.paid.values() for events in kinds]
    return tuple(max(at) for at in zip(direct_curve([]), *curves, strict=True))


def _curve(events: Sequence[tuple[Event, int]], partners: int) -> tuple[float, ...]:
    each = [(direct_curve([copies_of(event, partners)]), count) for event, count in events]
    return tuple(sum(count * one[index] for one, count in each) for index in range(len(ORDERS)))


def _twice(verdicts: Sequence[Verdict]) -> list[Finding]:
    keys = [verdict.key for verdict in verdicts]
    return [Finding(0, "two bundles are of one partner")] if len(set(keys)) < len(keys) else []


def _records(verdicts: Sequence[Verdict]) -> list[Finding]:
    """One study has one record, whoever tells of it."""
    told: dict[str, dict[str, list[int]]] = {}
    for number, verdict in enumerate(verdicts, start=1):
        for plan, record in verdict.records.items():
            told.setdefault(plan, {}).setdefault(record, []).append(number)
    return [
        Finding(0, f"bundles {_numbers(by)} hold different records of one study: the coordinator told two stories")
        for by in told.values()
        if len(by) > 1
    ]


def _rosters(verdicts: Sequence[Verdict]) -> list[Finding]:
    """Each partner is in the roster of the others' plans under the key of its own bundle."""
    findings = []
    for number, verdict in enumerate(verdicts, start=1):
        for plan in verdict.plans.values():
            keys = {str(partner["name"]): str(partner["key"]) for partner in plan["partners"]}
            for other, at in enumerate(verdicts, start=1):
                if at.partner in keys and keys[at.partner] != at.key:
                    says = f"bundle {other} is signed by another key than a plan in bundle {number} names"
                    findings.append(Finding(0, says))
    return findings


def _receipts(verdicts: Sequence[Verdict]) -> list[Finding]:
    """What any record says was received from a partner is in that partner's own ledger."""
    findings = []
    for number, verdict in enumerate(verdicts, start=1):
        for plan, by_partner in verdict.received.items():
            for other, at in enumerate(verdicts, start=1):
                missing = by_partner.get(at.partner, frozenset()) - at.released.get(plan, frozenset())
                if missing:
                    says = f"shows {len(missing)} releases of bundle {other}'s partner that that ledger lacks"
                    findings.append(Finding(0, f"bundle {number} {says}"))
    return findings


def _lists(verdicts: Sequence[Verdict]) -> list[Finding]:
    """One match has one manifest: partners who accepted different lists were told two stories."""
    told: dict[str, dict[str, list[int]]] = {}
    for number, verdict in enumerate(verdicts, start=1):
        for study in verdict.studies:
            if study.matched is not None and study.matched.manifest:
                told.setdefault(study.plan, {}).setdefault(study.matched.manifest, []).append(number)
    return [
        Finding(0, f"bundles {_numbers(by)} accepted different lists for one match: the coordinator told two stories")
        for by in told.values()
        if len(by) > 1
    ]


def _incomplete(verdicts: Sequence[Verdict]) -> list[Finding]:
    """Say which studies could not be compared: of partners in the roster whose bundle is not here, or lacks them."""
    findings = []
    here = {verdict.partner: verdict for verdict in verdicts}
    plans = {name: plan for verdict in verdicts for name, plan in verdict.plans.items()}
    for name, plan in plans.items():
        roster = [str(partner["name"]) for partner in plan["partners"]]
        absent = [partner for partner in roster if partner not in here]
        without = [partner for partner in roster if partner in here and name not in here[partner].plans]
        told = any(name in verdict.records for verdict in verdicts)
        silent = [p for p in roster if told and p in here and name in here[p].plans and name not in here[p].records]
        for count, says in (
            (len(absent), "gave no bundle"),
            (len(without), "have a ledger that knows nothing of it"),
            (len(silent), "hold no record of it, though others do"),
        ):
            if count:
                findings.append(Finding(0, f"study {plan['name']}: {count} of {len(roster)} partners {says}"))
    return findings


def _numbers(by: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(str(number) for number in sorted(number for numbers in by.values() for number in numbers))
