"""What a review finds on its way, by question: the first few of each, and how many there were."""

from collections.abc import Iterable, Mapping

from coterie.privacy.review.verdict import Check, Finding

__all__ = ["ASKS", "Findings"]

_MOST = 20

ASKS: Mapping[str, str] = {
    "form": "Is the bundle whole, and every line what it must be?",
    "signature": "Did the partner's key sign the whole bundle?",
    "keys": "Are partner and coordinators those whose keys you gave?",
    "kinds": "Is every entry of a kind that this version knows?",
    "entries": "Does every entry say exactly what entries of its kind say, and is the ledger this partner's?",
    "tree": "Does every entry hash to its leaf, and do all of them lead to the signed root?",
    "checkpoints": "Is every cosigned checkpoint a state that this ledger really went through?",
    "earlier": "Does the ledger extend what you were shown before?",
    "time": "Does time never go back?",
    "consents": "Was every plan that was consented to signed, approved, and permitted by the policy in force?",
    "charges": "Was every charge consented to, made once, and ended once?",
    "openings": "Was every secure sum under keys of its own, opened once, over enough partners, and paid for before?",
    "matching": "Was every list for a match paid for, or permitted as a disclosure, fixed once, and within the quotas?",
    "randomness": "Was all noise drawn from the system's secret randomness?",
    "budgets": "Was no budget ever exceeded, after any entry?",
    "accountants": "Do two independent accountants confirm what each study may spend and did spend?",
    "receipts": "Was everything that the coordinator received paid for?",
    "vault": "Was every table sealed before it was read, and is what is said of keys and erasures true to the entries?",
    "cards": "Does every model's card say what plan, record and accountant say?",
    "bundles": "Do the partners' bundles tell of the same studies?",
}
"""Every question, in the order in which it is asked."""


class Findings:
    """Collects findings by question."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list[Finding]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def fail(self, name: str, entry: int, says: str) -> None:
        """Write down that something does not hold."""
        self._keep(name, "fails", Finding(entry, says))

    def fail_all(self, name: str, entry: int, says: Iterable[str]) -> None:
        """Write down each thing that does not hold of one entry."""
        for one in says:
            self.fail(name, entry, one)

    def open(self, name: str, entry: int, says: str) -> None:
        """Write down that something could not be decided."""
        self._keep(name, "open", Finding(entry, says))

    def _keep(self, name: str, status: str, finding: Finding) -> None:
        found = self._found.setdefault((name, status), [])
        if len(found) < _MOST:
            found.append(finding)
        self._counts[name, status] = self._counts.get((name, status), 0) + 1

    def failed(self) -> bool:
        """Return whether anything does not hold."""
        return any(status == "fails" for _, status in self._found)

    def checks(self, asked: frozenset[str]) -> tuple[Check, ...]:
        """Return an answer to each question that was asked, and to each that something was found for."""
        names = [name for name in ASKS if name in asked or any(name == found for found, _ in self._found)]
        return tuple(self._check(name) for name in names)

    def _check(self, name: str) -> Check:
        status = next((s for s in ("fails", "open") if (name, s) in self._found), "holds")
        found = self._found.get((name, status), [])
        return Check(name, ASKS[name], status, tuple(found), self._counts.get((name, status), 0) - len(found))
