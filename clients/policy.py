"""The partner's own rules, as a file.

Policy beats plan: the coordinator can only ask for less than the policy allows, and a missing policy refuses
everything. What follows from a policy for a plan is decided in `consent.py`.
"""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from coterie.privacy.canonical import digest
from coterie.privacy.charges import Limit
from coterie.privacy.renyi import Filter
from coterie.privacy.schema import integer, number, one_of, read, text

__all__ = ["Budget", "Policy", "limits", "policy_digest", "read_policy"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What all studies together may spend of one customer's privacy.

    Args:
        study_epsilon: Most that one study may ask for.
        lifetime_epsilon: Most over all studies, for ever.
        delta: Delta of the lifetime and purpose budgets, and most that one study may ask for.
        purposes: Most per purpose, over all its studies; a purpose not named has the lifetime budget.
    """

    study_epsilon: float = field(metadata=number(0, 100, ends="(]"))
    lifetime_epsilon: float = field(metadata=number(0, 1000, ends="(]"))
    delta: float = field(metadata=number(0, 1e-3, ends="(]"))
    purposes: dict[str, float] = field(default_factory=dict, metadata=number(0, 1000, ends="(]"))


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
        minimum_partners: Least roster.
        minimum_customers: Least training customers for this partner to take part in anything. The constant is the
            partner's own: were it the plan's, a row of plans would count the customers.
        budget: What may be spent.
    """

    coordinator: str = field(metadata=text(100))
    customer: str = field(metadata=text(100))
    labels: tuple[str, ...] = field(metadata=text(100))
    purposes: tuple[str, ...] = field(metadata=text(100))
    columns: tuple[str, ...] = field(metadata=text(100))
    special: tuple[str, ...] = field(default=(), metadata=text(100))
    families: tuple[str, ...] = field(metadata=one_of("logistic", "mlp"))
    trust: tuple[str, ...] = field(metadata=one_of("local"))
    minimum_partners: int = field(metadata=integer(1, 1000))
    minimum_customers: int = field(metadata=integer(10, 1_000_000_000))
    budget: Budget


def read_policy(path: Path) -> Policy:
    """Read a policy file.

    Raises:
        FileFault: It is missing or breaks the schema.
    """
    return read(Policy, path)


def policy_digest(path: Path) -> str:
    """Return the digest of the policy's content, whatever its layout."""
    return digest(tomllib.loads(path.read_text(encoding="utf-8")))


def limits(policy: Policy, purpose: str) -> tuple[Limit, ...]:
    """Return the budgets across studies that a charge for `purpose` must keep."""
    lifetime = Limit(Filter(policy.budget.lifetime_epsilon, policy.budget.delta))
    own = policy.budget.purposes.get(purpose)
    return (lifetime,) if own is None else (lifetime, Limit(Filter(own, policy.budget.delta), purpose))
