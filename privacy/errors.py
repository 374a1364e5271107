"""The errors of the privacy room: each names a place, a rule and a fix, and never a value.

CoterieError
├── FileFault            a TOML file that does not say what it must
├── PlanFault            a plan that is unsigned, altered, expired or not the one consented to
├── ContractFault        data that does not keep the contract (local eyes only)
├── BudgetExhausted      a reservation that the policy's budget cannot carry
├── LedgerFault          a ledger that cannot be opened, written or believed
└── ReleaseRefused       something asked to leave that is not a charged release
"""

from dataclasses import dataclass

from coterie.privacy.plain import plain

__all__ = [
    "BudgetExhausted",
    "ContractFault",
    "CoterieError",
    "Fault",
    "FileFault",
    "LedgerFault",
    "PlanFault",
    "ReleaseRefused",
]


@dataclass(frozen=True)
class Fault:
    """One broken rule.

    Args:
        place: File, key path or column name.
        rule: What must hold, with its limits.
        fix: What to do about it.
    """

    place: str
    rule: str
    fix: str

    def __str__(self) -> str:
        """Return the fault as one line."""
        # Names may be a peer's words: no terminal escape or line break of theirs is printed or logged.
        return plain(f"{self.place}: {self.rule}. Fix: {self.fix}.")


class CoterieError(Exception):
    """Anything coterie refuses to do; carries every fault found, not only the first."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults

    def __reduce__(self) -> tuple[type["CoterieError"], tuple[Fault, ...]]:
        """Pickle by faults, so that an error survives the way back from a worker process."""
        return type(self), self.faults


class FileFault(CoterieError):
    """A configuration file breaks its schema."""


class PlanFault(CoterieError):
    """A plan is unsigned, altered, expired, or not the plan that was consented to."""


class ContractFault(CoterieError):
    """A partner's table does not keep the data contract; its text stays with the partner."""


class BudgetExhausted(CoterieError):
    """A reservation does not fit in what the policy leaves."""


class LedgerFault(CoterieError):
    """The ledger cannot be opened, written or believed."""


class ReleaseRefused(CoterieError):
    """Something asked to leave the partner that is not a charged release."""
