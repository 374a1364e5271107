"""Published models: the file, where it comes from, and the coordinator's signature beside it.

    NAME-vN.safetensors    the model; its header holds the plan, the statement of its guarantee, and its provenance
    NAME-vN.json           the same provenance, the file's digest and the study's signed record, signed

The signature is over everything in the second file, and through the digest over every byte of the first. The second is
written last: a model without it is not published.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coterie.models.modelfile import ModelFile, ModelFileError, load_model, model_bytes
from coterie.privacy.calibration import calibrate
from coterie.privacy.canonical import canonical, digest
from coterie.privacy.durable import write_durably
from coterie.privacy.errors import Fault, FileFault, PlanFault
from coterie.privacy.identity import Identity, verify
from coterie.privacy.plan import Plan, plan_from_dict
from coterie.privacy.record import StudyRecord, read_record, sign_record
from coterie.privacy.release import weights_digest
from coterie.privacy.schedule import round_of
from coterie.privacy.signed import SignedPlan
from coterie.privacy.statement import statement
from coterie.server.books import Books, Model
from coterie.server.recording import record_of
from coterie.server.registry import Progress

__all__ = ["Published", "check_published", "export", "model_path", "publish", "signature_path"]

_DOMAIN = b"coterie/published/v1\n"
_FORMAT = "coterie/published/v1"
_FIELDS = {"format", "file", "provenance", "record", "signature"}


@dataclass(frozen=True)
class Published:
    """Where a published model comes from.

    Args:
        name: The study's.
        version: From 1, counted up over the studies of one name.
        plan: Digest of the plan.
        model: Digest of the weights.
        record: Digest of the study's record.
        coordinator: The public key that signs.
        at: When it was published, ISO 8601 in UTC.
        cohort: The rounds that each partner's releases went into.
    """

    name: str
    version: int
    plan: str
    model: str
    record: str
    coordinator: str
    at: str
    cohort: Mapping[str, tuple[int, ...]]


def publish(folder: Path, books: Books, *, signed: SignedPlan, progress: Progress, identity: Identity) -> Published:
    """Publish a finished study's model: give it a version in the books, write it, and sign it.

    Interrupted anywhere, it is done again under the same version; done already, it changes nothing.

    Args:
        folder: Where published models are kept; made when missing.
        books: The coordinator's; the study was submitted to them.
        signed: The plan.
        progress: The study after its last round.
        identity: The coordinator's.

    Raises:
        BooksFault: The study is not in the books, or was published with another model.
        FileFault: The files cannot be written, are damaged, or are another study's.
        ValueError: The study is not finished: a fault of the caller.

    Leaks:
        Nothing beyond what every partner gets with the model: weights and metrics that were released and charged, and
        who took part in which round.
    """
    plan = signed.plan
    if progress.plan != plan.digest() or progress.round != plan.training.rounds:
        raise ValueError("only the last round of the plan's own study is published")
    record = record_of(plan, progress)
    row = books.publish_model(plan.digest(), model=record.model, record=record.digest())
    made = _provenance(plan, record, row, identity.public)
    path = model_path(folder, row)
    if signature_path(path).exists():
        if check_published(path, coordinator=identity.public) != made:
            raise FileFault(Fault(str(path), "is another study's model", "move it elsewhere"))
        return made
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = {"plan": plan.to_dict(), "digest": plan.digest(), "guarantee": statement(plan, calibrate(plan))}
    about["provenance"] = asdict(made)
    if record.calibration:
        about["calibration"] = record.calibration
    data = model_bytes(ModelFile(plan.model.family, plan.model.hidden, progress.weights, about))
    told = {"format": _FORMAT, "file": _sha256(data), "provenance": asdict(made)}
    told["record"] = json.loads(sign_record(record, identity))
    signature = identity.sign(_DOMAIN + digest(told).encode()).hex()
    write_durably(path, data)
    write_durably(signature_path(path), canonical(told | {"signature": signature}))
    return made


def check_published(path: Path, *, coordinator: str) -> Published:
    """Check a published model against its signature, its record and its plan.

    Args:
        path: The model file; the signature is beside it.
        coordinator: The public key that must have signed.

    Returns:
        Where it comes from.

    Raises:
        FileFault: A file is missing, a byte of either is not what was signed, or another key signed.
    """
    try:
        data, table = path.read_bytes(), signature_path(path).read_bytes()
    except OSError as error:
        fix = "keep both files of the model in one folder"
        raise FileFault(Fault(str(path), f"cannot be read with its signature ({error.strerror})", fix)) from None
    try:
        return _checked(path, data, _signed_table(table, coordinator))
    except (ModelFileError, PlanFault, FileFault, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        rule = "is not what the coordinator signed"
        raise FileFault(Fault(str(path), rule, "get it again, and compare the coordinator's key")) from None


def export(folder: Path, model: Model, output: Path, *, coordinator: str) -> Published:
    """Copy a published model with its signature, after checking both.

    Args:
        folder: Where published models are kept.
        model: The one, from the books.
        output: The model file to write; the signature is written beside it.
        coordinator: The public key that must have signed.

    Raises:
        FileFault: The model does not check, is not the books', or a file would be overwritten.
    """
    source = model_path(folder, model)
    found = check_published(source, coordinator=coordinator)
    if (found.plan, found.version, found.model) != (model.study, model.version, model.model):
        raise FileFault(Fault(str(source), "is not the model in the books", "restore it from a backup"))
    if output.suffix == ".json":
        raise FileFault(Fault(str(output), "is where the signature goes", "name the model's file .safetensors"))
    for path in (output, signature_path(output)):
        if path.exists():
            raise FileFault(Fault(str(path), "exists", "choose another file"))
    write_durably(output, source.read_bytes())
    write_durably(signature_path(output), signature_path(source).read_bytes())
    return check_published(output, coordinator=coordinator)


def model_path(folder: Path, model: Model) -> Path:
    """Return where a published model is kept; a study's name may hold anything, a file's only plain letters."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", model.name).lstrip(".-")
    if plain != model.name:
        plain = f"{plain or 'model'}-{hashlib.sha256(model.name.encode()).hexdigest()[:8]}"
    return folder / f"{plain}-v{model.version}.safetensors"


def signature_path(path: Path) -> Path:
    """Return where the signature of a published model is kept."""
    return path.with_suffix(".json")


def _provenance(plan: Plan, record: StudyRecord, row: Model, coordinator: str) -> Published:
    model, made = record.model, record.digest()
    return Published(plan.name, row.version, plan.digest(), model, made, coordinator, row.at, _cohort(plan, record))


def _cohort(plan: Plan, record: StudyRecord) -> dict[str, tuple[int, ...]]:
    """Return the rounds that each partner's releases went into, from what the coordinator received."""
    took: dict[str, set[int]] = {}
    for receipt in record.receipts:
        round_ = round_of(plan, receipt.step)
        if round_ is not None:
            took.setdefault(receipt.partner, set()).add(round_)
    return {partner: tuple(sorted(rounds)) for partner, rounds in sorted(took.items())}


def _signed_table(data: bytes, coordinator: str) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(data)
    signature = table.pop("signature")
    if {*table, "signature"} != _FIELDS or table["format"] != _FORMAT:
        raise ValueError
    # One signature, one byte string: hexadecimal has two spellings.
    if canonical(table | {"signature": bytes.fromhex(signature).hex()}) != data:
        raise ValueError
    verify(coordinator, bytes.fromhex(signature), _DOMAIN + digest(table).encode())
    return table


def _checked(path: Path, data: bytes, table: Mapping[str, Any]) -> Published:
    fields = dict(table["provenance"])
    cohort = {partner: tuple(rounds) for partner, rounds in fields.pop("cohort").items()}
    told = Published(**fields, cohort=cohort)
    record = read_record(canonical(table["record"]), coordinator=told.coordinator)
    if _sha256(data) != table["file"]:
        raise ValueError
    model = load_model(path)
    plan = plan_from_dict(model.about["plan"])
    row = Model(told.plan, told.name, told.version, told.model, told.record, told.at)
    follows = _provenance(plan, record, row, told.coordinator) == told and record.plan == plan.digest() == told.plan
    if not follows or weights_digest(model.weights) != told.model or model.about["provenance"] != table["provenance"]:
        raise ValueError
    if model.about.get("calibration", {}) != record.calibration:
        raise ValueError
    return told


def _sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
