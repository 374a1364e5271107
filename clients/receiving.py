"""Receiving a study's final model, with the coordinator's record of what it received from whom."""

import dataclasses
from pathlib import Path

from coterie.clients.refusals import refused
from coterie.clients.task import weight_shapes
from coterie.clients.workspace import Workspace
from coterie.models.modelfile import ModelFile, model_bytes
from coterie.models.propensity import Weights
from coterie.privacy.calibration import calibrate
from coterie.privacy.canonical import canonical
from coterie.privacy.durable import write_durably
from coterie.privacy.errors import PlanFault
from coterie.privacy.ledger import Ledger
from coterie.privacy.modelcard import model_card
from coterie.privacy.plan import Plan
from coterie.privacy.record import StudyRecord, read_record
from coterie.privacy.release import ModelReceived, OverlapCounts, release_digest, weights_digest
from coterie.privacy.schedule import COUNTED
from coterie.privacy.signed import SignedPlan
from coterie.privacy.statement import study_bound

__all__ = ["card_path", "record_path", "take_model"]


def take_model(
    workspace: Workspace, ledger: Ledger, data: bytes, weights: Weights, *, coordinator: str
) -> ModelReceived:
    """Keep a model and its record, and write them down in the ledger once.

    Args:
        workspace: The partner's.
        ledger: Its open ledger.
        data: The signed record.
        weights: The model.
        coordinator: Public key that must have signed the record.

    Raises:
        TaskRefused: The record is not the coordinator's, is of a study without consent, speaks of releases that the
            ledger does not hold, or of another model.
    """
    try:
        record = read_record(data, coordinator=coordinator)
    except PlanFault as error:
        raise refused("signature", "the study's record", error.faults[0].rule, "ask the coordinator") from None
    plan = _consented(workspace, ledger, record.plan, coordinator)
    shapes = tuple(array.shape for array in weights)
    if shapes != weight_shapes(plan) or weights_digest(weights) != record.model:
        raise refused("task", "the model", "is not the record's", "ask the coordinator for it again")
    name = workspace.name
    _check_receipts(record, ledger, name)
    received = ModelReceived(record.plan, name, record.model, record.digest())
    earlier = next((e.body for e in ledger.entries("model") if e.body["plan"] == record.plan), None)
    if earlier is not None and earlier["record"] != record.digest():
        raise refused("replay", "the study's record", "is not the one that was received", "ask the coordinator")
    _keep(workspace, plan, data, record, weights)
    digest = release_digest(received)
    if not ledger.paid_for(digest):
        body = {"release": digest, "plan": record.plan, "model": record.model, "record": record.digest()}
        ledger.record("model", body)
    return received


def record_path(workspace: Workspace, plan: str) -> Path:
    """Return where a study's record is kept."""
    return _path(workspace, plan, "record.json")


def card_path(workspace: Workspace, plan: str) -> Path:
    """Return where the card of a study's model is kept."""
    return _path(workspace, plan, "card.json")


def _path(workspace: Workspace, plan: str, ending: str) -> Path:
    return workspace.root / "models" / f"{plan.removeprefix('sha256:')}.{ending}"


def _consented(workspace: Workspace, ledger: Ledger, digest: str, coordinator: str) -> Plan:
    if not any(entry.body["plan"] == digest for entry in ledger.entries("consent")):
        raise refused("no-consent", "the record's plan", "was never consented to", "propose it first")
    try:
        data = workspace.plan(digest).read_bytes()
        return SignedPlan.from_bytes(data, coordinator=coordinator).plan
    except (OSError, PlanFault):
        raise refused("no-consent", "the record's plan", "is not kept any more", "propose it again") from None


def _check_receipts(record: StudyRecord, ledger: Ledger, name: str) -> None:
    settled = {(r.charge.step, r.charge.attempt, r.settled) for r in ledger.charges_of(record.plan)}
    told = (e.body for e in ledger.entries("match"))  # counts of a match were paid with the lists
    settled |= {
        (COUNTED, 1, str(body["release"]))
        for body in told
        if (body["plan"], body["what"]) == (record.plan, OverlapCounts.kind)
    }
    mine = [r for r in record.receipts if r.partner == name]
    if not all((r.step, r.attempt, r.release) in settled for r in mine):
        fix = "restore the newest ledger, or ask the coordinator what it received"
        raise refused("rollback", "the ledger", "lacks a release that the coordinator received", fix)


def _keep(workspace: Workspace, plan: Plan, data: bytes, record: StudyRecord, weights: Weights) -> None:
    if plan.matches:  # what it made is sealed in the vault, or in the record
        write_durably(record_path(workspace, plan.digest()), data)
        return
    mechanisms = calibrate(plan)
    bound = study_bound(plan, mechanisms)
    about = {"plan": plan.to_dict(), "digest": plan.digest(), "guarantee": dataclasses.asdict(bound)}
    if record.calibration:
        about["calibration"] = record.calibration
    model = ModelFile(plan.model.family, plan.model.hidden, weights, about)
    write_durably(_path(workspace, plan.digest(), "safetensors"), model_bytes(model))
    write_durably(card_path(workspace, plan.digest()), canonical(model_card(plan, record, bound)))
    write_durably(record_path(workspace, plan.digest()), data)
