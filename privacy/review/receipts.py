"""A model's receipt held against the coordinator's record: did it receive anything that no charge paid for?"""

from collections.abc import Mapping
from typing import Any

from coterie.privacy.errors import CoterieError
from coterie.privacy.record import StudyRecord, read_record
from coterie.privacy.review.consents import Consented, release_name

__all__ = ["received"]


def received(
    body: Mapping[str, Any], data: bytes, coordinator: str, *, name: str, study: Consented
) -> tuple[StudyRecord | None, list[str]]:
    """Return the record that a received model came with, and what is wrong with it.

    Args:
        body: Of the entry.
        data: The study's signed record.
        coordinator: Public key that the policy in force names.
        name: The partner's name.
        study: The study.

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
    if not mine <= study.settled:
        faults.append("the coordinator received a release that no charge paid for")
    return record, faults
