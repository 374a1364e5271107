"""The models that a partner received, and whether each is still what the coordinator signed."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from coterie.clients.receiving import record_path
from coterie.clients.workspace import Workspace
from coterie.models.modelfile import ModelFileError, load_model
from coterie.privacy.errors import CoterieError, PlanFault
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import plan_from_dict
from coterie.privacy.policy import read_policy
from coterie.privacy.record import read_record
from coterie.privacy.release import weights_digest

__all__ = ["Received", "received_models"]

_SOUND = "verified"


@dataclass(frozen=True)
class Received:
    """A model in the workspace.

    Args:
        plan: Digest of its plan.
        file: The model file.
        check: "verified", or the rule that it breaks.
        study: The plan's name; "" where the file cannot be read.
        epsilon: What the study guarantees to the worst protected group; None where the file cannot be read.
        delta: The guarantee's delta; likewise.
        model: Digest of the weights, as the coordinator's record has it; "" where the record does not verify.
        record: Digest of the record; likewise.
    """

    plan: str
    file: Path
    check: str
    study: str = ""
    epsilon: float | None = None
    delta: float | None = None
    model: str = ""
    record: str = ""

    @property
    def sound(self) -> bool:
        """Whether the model is what the coordinator signed and the ledger has."""
        return self.check == _SOUND


def received_models(folder: Path, *, clock: Callable[[], datetime]) -> tuple[Received, ...]:
    """Check every model of a workspace against its signed record, and the record against the ledger.

    Args:
        folder: The partner's workspace.
        clock: Returns the time in UTC.

    Raises:
        FileFault: The workspace or its policy, which pins the coordinator, is wrong.
        LedgerFault: The ledger cannot be used.
    """
    workspace = Workspace(folder)
    coordinator = read_policy(workspace.policy).coordinator
    with Ledger(workspace.ledger, clock) as ledger:
        kept = {entry.body["plan"]: entry.body["record"] for entry in ledger.entries("model")}
    there = {f"sha256:{path.stem}" for path in (folder / "models").glob("*.safetensors")}
    return tuple(_checked(workspace, plan, kept.get(plan, ""), coordinator) for plan in sorted(there | kept.keys()))


def _checked(workspace: Workspace, plan: str, kept: str, coordinator: str) -> Received:
    file = workspace.root / "models" / f"{plan.removeprefix('sha256:')}.safetensors"
    try:
        record = read_record(record_path(workspace, plan).read_bytes(), coordinator=coordinator)
    except OSError:
        return Received(plan, file, "the coordinator's record cannot be read")
    except PlanFault:
        return Received(plan, file, "the record is not signed by the policy's coordinator")
    try:
        model = load_model(file)
        agreed = plan_from_dict(model.about["plan"])
        bound = model.about["guarantee"]
        epsilon, delta = float(bound["epsilon"]), float(bound["delta"])
    except (ModelFileError, CoterieError, LookupError, TypeError, ValueError, AttributeError):
        return Received(plan, file, "the model cannot be read", model=record.model, record=record.digest())
    check = _SOUND
    if record.digest() != kept:
        check = "the record is not the ledger's"
    elif not record.plan == agreed.digest() == plan:
        check = "the record, the file and its name are of different plans"
    elif weights_digest(model.weights) != record.model:
        check = "the weights are not the record's"
    return Received(plan, file, check, agreed.name, epsilon, delta, record.model, record.digest())
