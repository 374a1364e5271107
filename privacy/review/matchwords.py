"""What a ledger tells of matches, in words: which lists were paid for, and which results no epsilon covers."""

from collections.abc import Sequence

from coterie.privacy.plan import Matching, Plan
from coterie.privacy.review.composition import plan_of
from coterie.privacy.review.matched import Disclosed, Matched
from coterie.privacy.review.trust import trusted
from coterie.privacy.review.verdict import Study, Verdict

__all__ = [
    "COUNTED",
    "NOT_COVERED",
    "declared_match",
    "discloses",
    "disclosure_words",
    "match_sections",
    "matched_words",
    "planned_match",
    "public_match",
    "trusted_by",
]

NOT_COVERED = "not covered by epsilon"
COUNTED = (
    "For matches that count: what is hidden is whether a customer's identifier was on this partner's list, from "
    "everybody who sees everything that left the partner: the coordinator and all other partners, even if they work "
    "together and keep what they see for ever. The partner plants items for this, as many as it alone knows. It rests "
    "on a problem of cryptography that is believed to be hard (decisional Diffie-Hellman), and on partners who do not "
    "forge their own lists."
)

_MOST = 20  # disclosures that are told one by one
_BY = {"email": "e-mail address", "phone": "phone number", "loyalty": "loyalty number"}
_LEARNT = {
    "rows": "the partners learnt, two by two, exactly which of their own customers the other has",
    "tokens": "each partner got a token for each of its own customers, equal for equal customers of others",
}


def discloses(plan: Plan | None) -> bool:
    """Return whether a plan matches customers and nothing else, with a result that no epsilon covers."""
    return plan is not None and plan.matches and plan.discloses


def disclosure_words(one: Disclosed) -> str:
    """Say what a Disclosure told whom.

    Args:
        one: The Disclosure.
    """
    named = f"“{one.name}”" if one.name else "an unknown study"
    by, learnt = _BY.get(one.identifier, "identifier"), _LEARNT.get(one.outcome, "exact results")
    among = ", ".join(f"“{name}”" for name in one.partners)
    return (
        f"On {one.at[:10]}, entry {one.entry}, {NOT_COVERED}: customers were matched by {by} for {named}, for the "
        f"purpose “{one.purpose}”, among {among}. Outcome “{one.outcome}”: {learnt}."
    )


def match_sections(verdict: Verdict) -> list[tuple[str, list[str]]]:
    """Return the parts of an explanation that are about matches: (title, paragraphs); none where there is no match.

    Args:
        verdict: What a review found.
    """
    parts: list[tuple[str, list[str]]] = []
    if verdict.disclosures:
        lines = [
            "These results are exact. No noise hides a customer in them, no budget pays for them, and every figure of "
            "this file is without them. The partner's own rules permitted each, or the verdict says that they did not.",
            *(disclosure_words(one) for one in verdict.disclosures[-_MOST:]),
        ]
        lines += [f"And {len(verdict.disclosures) - _MOST} before these."] if len(verdict.disclosures) > _MOST else []
        parts.append((f"Disclosures: {NOT_COVERED}", lines))
    told = [one for study in verdict.studies for one in _study(study, plan_of(verdict, study))]
    if told:
        parts.append(("Matches", told[:_MOST]))
    return parts


def trusted_by(plan: Plan | None, trust: str) -> str:
    """Say in one sentence who is trusted in a study.

    Args:
        plan: Its plan, None where it is not known.
        trust: Its trust model.
    """
    if plan is None or not plan.matches:
        return trusted(trust)
    if discloses(plan):
        return "The other partners, with what comes out: it is exact. The coordinator sees sealed lists."
    return "Every partner plants all its own noise; the others may be curious, but must not forge their lists."


def matched_words(study: Study, plan: Plan) -> list[str]:
    """Say what was paid for a plan that matches customers and trains nothing.

    Args:
        study: The study.
        plan: Its plan.
    """
    if discloses(plan):
        return [f"Nothing was paid: what came out is {NOT_COVERED}. No figure can be given for it."]
    lists = max((group.charges for group in study.groups), default=0)
    return [
        f"{lists} {'list was' if lists == 1 else 'lists were'} paid for, by the customers of both groups: a list holds "
        f"all of them, and each pays in its own group. {study.lost} charges were lost in a crash, {study.unsettled} "
        "were open at the end; lost and open ones count in full.",
        "What came out is how many customers each set of partners shares, with noise.",
    ]


def planned_match(plan: Plan, matching: Matching) -> list[tuple[str, str, str]]:
    """Return (topic, name, value) of what a plan says that matches and trains nothing."""
    privacy = plan.privacy
    spends = f"epsilon {privacy.epsilon:g}, delta {privacy.delta:g}"
    return [
        ("unit", "whose presence is hidden", "nobody's: a Disclosure" if discloses(plan) else privacy.unit),
        ("unit", "column that names a customer", plan.contract.customer),
        ("unit", "by which identifier customers are matched", _BY[matching.identifier]),
        ("contribution bound", "identifiers of a customer", "one of the kind at most, once on the list"),
        ("guarantee", "what the plan may spend on a customer", NOT_COVERED if discloses(plan) else spends),
        ("sampling", "rate", "none: every customer with such an identifier is on the list"),
        ("trust", "model", privacy.trust),
        ("trust", "who takes part", f"all {len(plan.partners)} partners, or nobody"),
    ]


def declared_match(matching: Matching) -> tuple[tuple[str, str, str], ...]:
    """Return (topic, name, value) of what the software is built to do in a match."""
    return (
        ("unit", "how it is enforced", "by the partner's software: equal identifiers are one item of its list"),
        ("composition inside the study", "groups", "one list is about both groups, and each customer pays in its own"),
        (
            *("composition across studies", "method"),
            "a Rényi filter at one order, fixed by the budget: each study may be chosen after seeing all earlier "
            "results (Feldman and Zrnic 2021). Not covered: a budget that is edited after results were seen",
        ),
        ("trust", "who sees what", "the coordinator sees sealed pieces; a partner sees points under others' secrets"),
        ("trust", "if this partner is dishonest", "nothing here protects its customers from it"),
        ("trust", "if other partners are curious, however many", "everything holds: each plants all its own noise"),
        ("trust", "if another partner forges its list", "not covered: it learns which of what it put there is shared"),
        ("trust", "assumption of cryptography", "decisional Diffie-Hellman in ristretto255, and SHA-512 as an oracle"),
        ("several partners", "assumed", "that the other partners charge what this plan allows"),
        ("randomness", "generator", "AES-256 in counter mode, under a fresh key of the operating system a mechanism"),
        ("floating point", "noise", "whole numbers of planted items: no such gap"),
        ("public inputs", "most identifiers of a partner", f"{matching.most}"),
        ("retention", "the ledger", "keeps events, digests, times and rules for ever; no identifier, and no point"),
        ("retention", "the match's secrets", "destroyed when it ends, by the ledger's word"),
    )


def public_match(plan: Plan, matching: Matching) -> list[tuple[str, str, str]]:
    """Return (topic, name, value) of what somebody declared for a match."""
    sizes = ", ".join(f"{partner.name} {partner.customers}" for partner in plan.partners)
    tuning = f"{plan.tuning.configurations} tried on: {plan.tuning.data}; not covered"
    return [
        ("public inputs", "customers, order of magnitude", sizes),
        ("public inputs", "least length of a list, and least noisy count that is printed", f"{matching.least}"),
        ("tuning", "how settings were chosen", tuning),
    ]


def _study(study: Study, plan: Plan | None) -> Sequence[str]:
    found = study.matched
    if found is None:
        return ()
    kind = plan.matching.outcome if plan is not None and plan.matching is not None else "a result that cannot be told"
    if not found.manifest:
        return (f"“{study.name}” ({kind}): this partner accepted no lists, so it worked on nobody else's.",)
    return (f"“{study.name}” ({kind}): {_worked(found)}",)


def _worked(found: Matched) -> str:
    told = (
        f"this partner accepted the lists of all partners once, at entry {found.entry}, and agreed to evaluate "
        f"{found.evaluations:,} points of others; it evaluated {found.evaluated:,}, and handed on {found.parcels} "
        "sealed pieces."
    )
    told += " It counted, and released noisy counts." if found.counts else ""
    return told + (" It says that its secrets are destroyed." if found.ended else " It does not say that it ended.")
