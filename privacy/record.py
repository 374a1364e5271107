"""The coordinator's record of a study: what it received from whom, and the model that came of it, signed.

Every partner keeps the same record; its digest is an entry of the partner's ledger. A reviewer who holds the bundles
of several partners can so tell whether all of them saw the same study, and whether all that was received was charged.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from coterie.privacy.canonical import canonical, digest
from coterie.privacy.errors import Fault, PlanFault
from coterie.privacy.identity import Identity, verify

__all__ = ["Receipt", "StudyRecord", "read_record", "sign_record"]

_DOMAIN = b"coterie/record/v1\n"
_FORMAT = "coterie/record/v1"
_FIELDS = {"partner": str, "step": str, "attempt": int, "release": str}


@dataclass(frozen=True, order=True)
class Receipt:
    """A release that the coordinator received and used.

    Args:
        partner: Who sent it.
        step: Which release of the plan, e.g. "train/3".
        attempt: 1, or more after a lost attempt.
        release: Its digest.
    """

    partner: str
    step: str
    attempt: int
    release: str


@dataclass(frozen=True)
class StudyRecord:
    """A study as the coordinator saw it.

    Args:
        plan: Digest of the plan.
        model: Digest of the final weights.
        metrics: What the last charged histograms say of the model.
        receipts: What was received, sorted.
    """

    plan: str
    model: str
    metrics: Mapping[str, float]
    receipts: tuple[Receipt, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        receipts = [asdict(receipt) for receipt in self.receipts]
        return {"plan": self.plan, "model": self.model, "metrics": dict(self.metrics), "receipts": receipts}

    @property
    def calibration(self) -> dict[str, float]:
        """Return the private calibration of log-odds, its "slope" and "intercept"; empty where there is none."""
        slope, intercept = self.metrics.get("calibration_slope"), self.metrics.get("calibration_intercept")
        return {} if slope is None or intercept is None else {"slope": slope, "intercept": intercept}

    def digest(self) -> str:
        """Return the digest that names the record."""
        return digest(self.to_dict())


def sign_record(record: StudyRecord, coordinator: Identity) -> bytes:
    """Return a record with the coordinator's signature, as canonical JSON."""
    signature = coordinator.sign(_DOMAIN + record.digest().encode())
    return canonical({"format": _FORMAT, "record": record.to_dict(), "signature": signature.hex()})


def read_record(data: bytes, *, coordinator: str) -> StudyRecord:
    """Read and verify a record.

    Args:
        data: What `sign_record` wrote.
        coordinator: The coordinator's public key.

    Raises:
        PlanFault: Not a record, altered, or signed by another key.
    """
    try:
        table = json.loads(data)
        if set(table) != {"format", "record", "signature"} or canonical(table) != data or table["format"] != _FORMAT:
            raise ValueError
        fields = table["record"]
        receipts = tuple(_receipt(receipt) for receipt in fields["receipts"])
        metrics = {str(name): float(value) for name, value in fields["metrics"].items()}
        record = StudyRecord(_text(fields["plan"]), _text(fields["model"]), metrics, receipts)
        if list(receipts) != sorted(set(receipts)) or canonical(record.to_dict()) != canonical(fields):
            raise ValueError
        signature = bytes.fromhex(table["signature"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise PlanFault(Fault("record", "is not a study's record", "ask the coordinator for it again")) from None
    verify(coordinator, signature, _DOMAIN + record.digest().encode())
    return record


def _receipt(table: Mapping[str, Any]) -> Receipt:
    if set(table) != set(_FIELDS) or any(type(table[name]) is not kind for name, kind in _FIELDS.items()):
        raise TypeError
    return Receipt(**table)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
