"""A model's receipt held against the coordinator's record: did it receive anything that no charge paid for?"""

from collections.abc import Mapping
from typing import Any

from coterie.privacy.charges import Entry
from coterie.privacy.errors import CoterieError
from coterie.privacy.policy import Policy
from coterie.privacy.record import StudyRecord, read_record
from coterie.privacy.review.consents import Consented, release_name
from coterie.privacy.review.findings import Findings
from coterie.privacy.review.matches import Matches
from coterie.privacy.review.verdict import Model

__all__ = ["Receipts", "received_from"]


class Receipts:
    """The models that were received while a ledger is read, and the records that they came with.

    Args:
        name: The partner's name.
        signed: Signed records as bytes, by the plan that they speak of.
        findings: Where what does not hold is written down.
        matches: What the ledger tells of matches, which send releases that no charge names.
    """

    def __init__(self, name: str, signed: Mapping[str, bytes], findings: Findings, matches: Matches) -> None:
        self._name, self._signed, self._findings, self._matches = name, signed, findings, matches
        self.models: list[Model] = []
        self.records: dict[str, StudyRecord] = {}

    def take(self, entry: Entry, study: Consented | None, policy: Policy | None) -> None:
        """Read an entry of kind "model".

        Args:
            entry: The entry.
            study: The study that it names, or None where nobody consented to one.
            policy: What is in force, or None where that is not known.
        """
        body = entry.body
        data = self._signed.get(body["plan"])
        if study is None:
            self._findings.fail("receipts", entry.seq, "received the model of a study without consent")
            return
        if data is None or policy is None:
            self._findings.open("receipts", entry.seq, "the record of its study is not in the bundle")
            return
        matched = self._matches.released(body["plan"])
        record, faults = _received(body, data, policy.coordinator, name=self._name, study=study, matched=matched)
        for says in faults:
            self._findings.fail("receipts", entry.seq, says)
        if record is None:
            return
        self.records[body["plan"]] = record
        metrics = tuple(sorted(record.metrics.items()))
        self.models.append(Model(entry.seq, entry.at, body["plan"], body["model"], metrics))


def received_from(record: StudyRecord) -> dict[str, frozenset[bytes]]:
    """Return the names of the releases that a record says were received, by partner."""
    partners = {receipt.partner for receipt in record.receipts}
    return {p: frozenset(release_name(r.release) for r in record.receipts if r.partner == p) for p in partners}


def _received(
    body: Mapping[str, Any],
    data: bytes,
    coordinator: str,
    *,
    name: str,
    study: Consented,
    matched: frozenset[tuple[str, bytes]],
) -> tuple[StudyRecord | None, list[str]]:
    """Return the record that a received model came with, and what is wrong with it.

    Args:
        body: Of the entry.
        data: The study's signed record.
        coordinator: Public key that the policy in force names.
        name: The partner's name.
        study: The study.
        matched: As `Matches.released`: what a match sent beside what charges paid for.

    Returns:
        No record where it is not the coordinator's.
    """
    try:
        record = read_record(data, coordinator=coordinator)
    except CoterieError as error:
        return None, [f"the study's record {error.faults[0].rule}"]
    faults = []
    if (record.digest(), record.model, record.plan) != (body["record"], body["model"], body["plan"]):
        faults.append("names another record or model than the bundle holds")
    mine = {(r.step, r.attempt, release_name(r.release)) for r in record.receipts if r.partner == name}
    if any(one not in study.settled and (one[0], one[2]) not in matched for one in mine):
        faults.append("the coordinator received a release that no charge paid for")
    return record, faults
