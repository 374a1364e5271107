"""Scoring: a partner uses a model on its own customers, inside its own building.

The output is the partner's own customers' data, in plain: an explicit exception to "no plaintext on disk", so
the file is readable by its owner alone.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from coterie.clients.opening import open_table
from coterie.clients.predicting import inputs_of, layout_for, logits_of, parameters_of
from coterie.clients.tables.files import table_at
from coterie.clients.tables.table import Table, whole
from coterie.clients.task import encoding_of, weight_shapes
from coterie.clients.vault import CUSTOMERS, open_vault
from coterie.models.binning import slots_of
from coterie.models.modelfile import ModelFile, ModelFileError, load_model
from coterie.models.reasons import contributions, slot_contributions, slot_differences, slot_names, top_reasons
from coterie.privacy.clock import now
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.plan import Plan, plan_from_dict
from coterie.privacy.randomness import RandomSource

__all__ = ["Scored", "customers_of", "published_model", "score"]


@dataclass(frozen=True)
class Scored:
    """What was written.

    Args:
        output: The file.
        rows: How many rows; for the partner's own operator.
        notes: Local counts of what the contract let pass.
        contacted: How many rows are to be contacted; None where nobody asked.
    """

    output: Path
    rows: int
    notes: dict[str, int]
    contacted: int | None = None


def score(
    model_path: Path, table: Table, output: Path, *, reasons: int, random: RandomSource, contact: float | None = None
) -> Scored:
    """Score a table and write score (raw and calibrated), decile and reasons for each row, and whom to contact.

    Args:
        model_path: A published model.
        table: With the contract's columns; no label is needed.
        output: Parquet file to write; never overwritten.
        reasons: How many reasons per row.
        random: Unused draws of the vault come from here.
        contact: Share of the rows to contact, in [0, 1]: the column `contact` is true for so many of the best and never
            for more. None leaves it out.

    Raises:
        FileFault: The model is not one, the output exists or cannot be written, or the share is outside [0, 1].
        ContractFault: The table breaks the model's contract.
    """
    if contact is not None and not 0 <= contact <= 1:
        raise FileFault(Fault("--contact", "must be in [0, 1]", "give a share of the customers, such as 0.1"))
    if output.exists():
        raise FileFault(Fault(str(output), "exists", "choose another file, or remove it"))
    model, plan = published_model(model_path)
    opened = open_table(table, plan.contract, group_key=bytes(32), stream=random.stream("score"), needs_label=False)
    inputs = inputs_of(plan, opened.columns)
    logits = logits_of(plan, model.weights, inputs)
    why = top_reasons(*_added(model, plan, inputs), reasons)
    customer = pc.cast(whole(table, [plan.contract.customer]).column(0), pa.string())
    order = np.argsort(np.argsort(-logits, kind="stable"), kind="stable")
    scored = pa.table(
        {
            plan.contract.customer: customer,
            "score": 1 / (1 + np.exp(-logits)),
            **_calibrated(model, logits),
            "decile": 1 + (10 * order // len(order)),
            "reasons": pa.array(why, pa.list_(pa.string())),
        }
    )
    if contact is None:
        _write(output, scored)
        return Scored(output, len(logits), dict(opened.notes))
    # By rank, not by score: the budget holds exactly, whoever these customers are. A share such as 0.29 of 100 is a
    # little less than 29 in floating point.
    most = math.floor(contact * len(order) + 1e-9)
    _write(output, scored.append_column("contact", pa.array(order < most)))
    return Scored(output, len(logits), dict(opened.notes), most)


@contextmanager
def customers_of(model_path: Path, *, table: Path | None, workspace: Path | None) -> Iterator[Table]:
    """Lend the table to score: a file, or else what the workspace keeps sealed.

    Args:
        model_path: A published model, which is looked at first.
        table: A file of customers.
        workspace: The partner's workspace, which is held meanwhile.

    Raises:
        FileFault: The model is not one; neither table nor workspace is given, or both; or there is no workspace.
        ContractFault: The file is no table.
        SealFault: What is in the vault is not what the ledger says, or there is nothing.
        KeyFault: The vault's keys cannot be had.
        WorkspaceBusy: Another process holds the workspace.
    """
    published_model(model_path)
    if (table is None) == (workspace is None):
        raise FileFault(Fault("--input", "or --workspace is needed, and not both", "give one of them"))
    if workspace is None:
        yield table_at(table or Path())
        return
    with open_vault(workspace, now) as vault:
        yield vault.table(CUSTOMERS)


def published_model(path: Path) -> tuple[ModelFile, Plan]:
    """Return a published propensity model and the plan that it carries.

    Raises:
        FileFault: The file is no such model, or its weights are not its plan's.
    """
    try:
        model = load_model(path)
        plan = plan_from_dict(model.about["plan"])
    except (ModelFileError, KeyError, TypeError):
        raise FileFault(Fault(str(path), "is not a published model", "give a model.safetensors")) from None
    if tuple(array.shape for array in model.weights) != weight_shapes(plan):
        raise FileFault(Fault(str(path), "has weights that are not its plan's", "get the model again"))
    if not _can_be(model.about.get("calibration")):
        raise FileFault(Fault(str(path), "has a calibration that cannot be", "get the model again"))
    return model, plan


def _added(model: ModelFile, plan: Plan, inputs: NDArray[Any]) -> tuple[NDArray[np.float64], list[str]]:
    """Return what each column adds to the log-odds of rows, shape (rows, columns), and the columns' names."""
    if plan.bins is None:
        encoding = encoding_of(plan.contract)
        return contributions(model, encoding, inputs), [block.name for block in encoding.blocks]
    layout = layout_for(plan, model.weights)
    slots = slots_of(layout, inputs)
    if plan.model.family == "mlp":
        return slot_differences(model, layout, slots), slot_names(layout)
    return slot_contributions(parameters_of(plan, model.weights), layout, slots), slot_names(layout)


def _calibrated(model: ModelFile, logits: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return the column of probabilities after the private calibration; none where the model has no such thing."""
    told = model.about.get("calibration")
    if told is None:
        return {}
    odds = told["slope"] * logits + told["intercept"]  # as `calibrating.calibrated` has it
    return {"calibrated": np.exp(-np.logaddexp(0.0, -odds))}


def _can_be(told: object) -> bool:
    """Return whether a model file's calibration is none, or one that keeps the order of customers."""
    if told is None:
        return True
    if not isinstance(told, dict) or set(told) != {"slope", "intercept"}:
        return False
    return all(type(value) is float and math.isfinite(value) for value in told.values()) and told["slope"] >= 0


def _write(output: Path, table: pa.Table) -> None:
    beside = output.with_name(output.name + ".new")
    try:
        beside.touch(mode=0o600)
        pyarrow.parquet.write_table(table, beside, compression="zstd")
        beside.replace(output)
    except OSError as error:
        beside.unlink(missing_ok=True)
        why = error.strerror or "the system refused"
        raise FileFault(Fault(str(output), f"cannot be written ({why})", "free some space or check rights")) from None
