"""The partner's own rules, as a file.

Policy beats plan: the coordinator can only ask for less than the policy allows, and a missing policy refuses
everything. What follows from a policy for a plan is decided in `consent.py`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coterie.privacy.canonical import digest
from coterie.privacy.charges import Limit
from coterie.privacy.errors import FileFault
from coterie.privacy.plan import COUNTS, PROPENSITY, RECOMMENDERS, ROWS, SECURE, TOKENS
from coterie.privacy.redlines import RedLines, unreadable
from coterie.privacy.renyi import Filter
from coterie.privacy.schema import integer, load, number, one_of, parse, text

__all__ = [
    "Approval",
    "Budget",
    "Consent",
    "MatchRules",
    "Policy",
    "Segments",
    "all_limits",
    "limits",
    "policy_digest",
    "read_policy",
    "read_rules",
]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What all studies together may spend of one customer's privacy.

    Args:
        study_epsilon: Most that one study may ask for.
        lifetime_epsilon: Most over all studies, for ever.
        delta: Delta of the lifetime and purpose budgets, and most that one study may ask for.
        purposes: Most per purpose, over all its studies; a purpose not named has the lifetime budget.
        year_epsilon: Most in one calendar year (UTC), over all studies; None where the lifetime budget is enough.
    """

    study_epsilon: float = field(metadata=number(0, 100, ends="(]"))
    lifetime_epsilon: float = field(metadata=number(0, 1000, ends="(]"))
    delta: float = field(metadata=number(0, 1e-3, ends="(]"))
    purposes: dict[str, float] = field(default_factory=dict, metadata=number(0, 1000, ends="(]"))
    year_epsilon: float | None = field(default=None, metadata=number(0, 1000, ends="(]"))


@dataclass(frozen=True, kw_only=True)
class Segments:
    """How customers are divided for life, so that studies on different segments do not pay for each other.

    Args:
        by: "hash" divides by a keyed hash that is fixed for life; anything else names a column that is public and
            never changes for a customer, such as the country of the contract.
        names: The segments: any names for "hash", the column's values otherwise.
    """

    by: str = field(metadata=text(100))
    names: tuple[str, ...] = field(metadata=text(60))


@dataclass(frozen=True, kw_only=True)
class Approval:
    """What is approved without a person; every other plan waits for the operator's word.

    Args:
        automatic_epsilon: Most total epsilon of a plan that is approved by this rule.
        purposes: The rule is for plans of these purposes alone; None for every permitted one.
        disclosures: Whether it is for plans with a match of rows or tokens, too, which no epsilon covers.
    """

    automatic_epsilon: float = field(metadata=number(0, 100, ends="(]"))
    purposes: tuple[str, ...] | None = field(default=None, metadata=text(100))
    disclosures: bool = False


@dataclass(frozen=True, kw_only=True)
class Consent:
    """For which purposes customers need not be in the partner's table of consents.

    Args:
        elsewhere: Purposes that rest on another legal ground, each with the ground and where it is written down. For
            every other one, only customers are read whose consent to it is in the table.
    """

    elsewhere: dict[str, str] = field(default_factory=dict, metadata=text(200))


@dataclass(frozen=True, kw_only=True)
class MatchRules:
    """Which matches of customers are permitted.

    Args:
        outcomes: "counts" is charged; "rows" and "tokens" are disclosures, which no epsilon covers.
        identifiers: By which kinds of identifiers: "email", "phone", "loyalty".
        evaluations: Most points of the others' lists that are evaluated in one calendar year (UTC): each is a guess
            that a partner may make at this partner's customers.
        disclosures: Most matches with rows or tokens in one calendar year: two of slightly different lists tell of the
            difference.
        least: Least `least` of a plan.
    """

    outcomes: tuple[str, ...] = field(metadata=one_of(COUNTS, ROWS, TOKENS))
    identifiers: tuple[str, ...] = field(metadata=one_of("email", "phone", "loyalty"))
    evaluations: int = field(metadata=integer(0, 10**12))
    disclosures: int = field(default=0, metadata=integer(0, 1000))
    least: int = field(default=50, metadata=integer(2, 1_000_000))


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A partner's rules; see `docs/policy.md` for each key.

    Args:
        coordinator: Public key whose plans are read at all.
        customer: The column that names a customer: the unit of privacy, fixed for life with the first consent.
        labels: Columns permitted as labels.
        purposes: Purposes permitted.
        columns: Columns permitted as features, by name; what is not named is never read.
        special: Those of them that a plan may call special; a second look, since a plan's word for a column's
            sensitivity is the coordinator's.
        families: Model families permitted.
        trust: Trust models permitted.
        peers: Identity keys of the other partners by name, compared with them and never taken from the coordinator;
            with secure aggregation the noise of these is what protects this partner's customers.
        minimum_partners: Least roster.
        minimum_colluders: Least number of partners that a plan with secure aggregation must assume to help the
            coordinator.
        minimum_customers: Least training customers for this partner to take part in anything. The constant is the
            partner's own: were it the plan's, a row of plans would count the customers.
        budget: What may be spent.
        segments: How customers are divided, fixed with the first consent; None where they are not.
        approval: What is approved without a person; None where a person approves every plan.
        consent: Which purposes need no table of consents; where it is missing, all of them do.
        red_lines: What is never done, whatever else is permitted.
        matching: Which matches are permitted; None where none is.
    """

    coordinator: str = field(metadata=text(100))
    customer: str = field(metadata=text(100))
    labels: tuple[str, ...] = field(metadata=text(100))
    purposes: tuple[str, ...] = field(metadata=text(100))
    columns: tuple[str, ...] = field(metadata=text(100))
    special: tuple[str, ...] = field(default=(), metadata=text(100))
    families: tuple[str, ...] = field(metadata=one_of(*PROPENSITY, *RECOMMENDERS))
    trust: tuple[str, ...] = field(metadata=one_of("local", SECURE))
    minimum_partners: int = field(metadata=integer(1, 1000))
    minimum_customers: int = field(metadata=integer(10, 1_000_000_000))
    budget: Budget
    segments: Segments | None = None
    peers: dict[str, str] = field(default_factory=dict, metadata=text(100))
    minimum_colluders: int = field(default=1, metadata=integer(1, 1000))
    approval: Approval | None = None
    consent: Consent = field(default_factory=Consent)
    red_lines: RedLines = field(default_factory=RedLines)
    matching: MatchRules | None = None

    def consents(self, purpose: str) -> bool:
        """Return whether a purpose rests on the table of consents: no other legal ground is named for it."""
        return purpose not in self.consent.elsewhere


def read_policy(path: Path) -> Policy:
    """Read a policy file.

    Raises:
        FileFault: It is missing or breaks the schema, or a red line could be misread.
    """
    policy, _ = read_rules(path)
    return policy


def read_rules(path: Path) -> tuple[Policy, dict[str, Any]]:
    """Read a policy file once: its rules, and its content as it stands there.

    Raises:
        FileFault: It is missing or breaks the schema, or a red line could be misread.
    """
    content = load(path)
    policy = parse(Policy, content, place=str(path))
    misread = unreadable(policy.red_lines, f"{path}: red_lines")
    if misread:
        raise FileFault(*misread)
    return policy, content


def policy_digest(path: Path) -> str:
    """Return the digest of the policy's content, whatever its layout."""
    return digest(load(path))


def limits(policy: Policy, purpose: str, year: int) -> tuple[Limit, ...]:
    """Return the budgets across studies that a charge for `purpose` in `year` must keep."""
    budget = policy.budget
    kept = [Limit(Filter(budget.lifetime_epsilon, budget.delta))]
    if purpose in budget.purposes:
        kept.append(Limit(Filter(budget.purposes[purpose], budget.delta), purpose=purpose))
    if budget.year_epsilon is not None:
        kept.append(Limit(Filter(budget.year_epsilon, budget.delta), year=year))
    return tuple(kept)


def all_limits(policy: Policy, year: int) -> tuple[Limit, ...]:
    """Return every budget of a policy, each once, with that of a year."""
    purposes = ("", *sorted(policy.budget.purposes))
    return tuple(dict.fromkeys(limit for purpose in purposes for limit in limits(policy, purpose, year)))
