"""Scoring: a partner uses a model on its own customers, inside its own building.

The output is the partner's own customers' data, in plain: an explicit exception to "no plaintext on disk", so
the file is readable by its owner alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from coterie.clients.opening import open_table
from coterie.clients.tables.files import table_at
from coterie.clients.tables.table import Table, whole
from coterie.clients.task import encoding_of, weight_shapes
from coterie.clients.vault import CUSTOMERS, open_vault
from coterie.models import propensity
from coterie.models.features import encode
from coterie.models.modelfile import ModelFile, ModelFileError, load_model
from coterie.models.reasons import contributions, top_reasons
from coterie.privacy.clock import now
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.plan import Plan, plan_from_dict
from coterie.privacy.randomness import RandomSource

__all__ = ["Scored", "customers_of", "score"]


@dataclass(frozen=True)
class Scored:
    """What was written.

    Args:
        output: The file.
        rows: How many rows; for the partner's own operator.
        notes: Local counts of what the contract let pass.
    """

    output: Path
    rows: int
    notes: dict[str, int]


def score(model_path: Path, table: Table, output: Path, *, reasons: int, random: RandomSource) -> Scored:
    """Score a table and write score, decile and reasons for each row.

    Args:
        model_path: A published model.
        table: With the contract's columns; no label is needed.
        output: Parquet file to write; never overwritten.
        reasons: How many reasons per row.
        random: Unused draws of the vault come from here.

    Raises:
        FileFault: The model is not one, or the output exists or cannot be written.
        ContractFault: The table breaks the model's contract.
    """
    if output.exists():
        raise FileFault(Fault(str(output), "exists", "choose another file, or remove it"))
    model, plan = _model(model_path)
    opened = open_table(table, plan.contract, group_key=bytes(32), stream=random.stream("score"), needs_label=False)
    encoding = encoding_of(plan.contract)
    features = encode(encoding, opened.columns)
    logits = propensity.logits(model.family, model.hidden, model.weights, features)
    why = top_reasons(contributions(model, encoding, features), encoding, reasons)
    customer = pc.cast(whole(table, [plan.contract.customer]).column(0), pa.string())
    order = np.argsort(np.argsort(-logits, kind="stable"), kind="stable")
    scored = pa.table(
        {
            plan.contract.customer: customer,
            "score": 1 / (1 + np.exp(-logits)),
            "decile": 1 + (10 * order // len(order)),
            "reasons": pa.array(why, pa.list_(pa.string())),
        }
    )
    _write(output, scored)
    return Scored(output, len(logits), dict(opened.notes))


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
    _model(model_path)
    if (table is None) == (workspace is None):
        raise FileFault(Fault("--input", "or --workspace is needed, and not both", "give one of them"))
    if workspace is None:
        yield table_at(table or Path())
        return
    with open_vault(workspace, now) as vault:
        yield vault.table(CUSTOMERS)


def _model(path: Path) -> tuple[ModelFile, Plan]:
    try:
        model = load_model(path)
        plan = plan_from_dict(model.about["plan"])
    except (ModelFileError, KeyError, TypeError):
        raise FileFault(Fault(str(path), "is not a published model", "give a model.safetensors")) from None
    if tuple(array.shape for array in model.weights) != weight_shapes(plan):
        raise FileFault(Fault(str(path), "has weights that are not its plan's", "get the model again"))
    return model, plan


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
