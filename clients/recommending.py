"""Recommending: a partner makes lists for its own customers, inside its own building.

What is held of all customers at a time is two whole numbers a row and each one's name; see `listmaking.py`.

The output is the partner's own customers' data, in plain: an explicit exception to "no plaintext on disk", so the file
is readable by its owner alone.
"""

import datetime
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from coterie.clients.because import Because, model_sides
from coterie.clients.catalogues import match_items
from coterie.clients.interactions import attributes_of, catalogue_of, wanted_rows
from coterie.clients.listfile import ListFile
from coterie.clients.listmaking import Engine, write_lists
from coterie.clients.purchases import read_purchases
from coterie.clients.rules import OwnRules, permitted, read_own_rules
from coterie.clients.tables.files import table_at
from coterie.clients.tables.table import Table
from coterie.clients.task import recommender_of, weight_shapes
from coterie.clients.vault import INTERACTIONS, open_vault
from coterie.clients.workspace import Workspace
from coterie.models.modelfile import ModelFile, ModelFileError, load_model
from coterie.models.recommenders import family
from coterie.models.reranking import Reranker
from coterie.privacy.clock import now
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.plan import Plan, plan_from_dict

__all__ = ["Recommended", "Terms", "recommend", "sources"]


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What lists are wanted.

    Args:
        top: Items of a list.
        reasons: Most reasons of an item.
        rules: File of the partner's own rules; None for the usual ones.
        today: The day; later purchases are from the future.
        see: Told how many customers have their lists, of how many; None for nobody.
    """

    top: int = 20
    reasons: int = 1
    rules: Path | None = None
    today: datetime.date
    see: Callable[[int, int], None] | None = None


@dataclass(frozen=True)
class Recommended:
    """What was written; for the partner's own operator.

    Args:
        output: The file.
        customers: How many customers were served.
        rows: How many recommendations they got.
        notes: Local counts of what was left out.
    """

    output: Path
    customers: int
    rows: int
    notes: Mapping[str, int]


def recommend(model_path: Path, table: Table, output: Path, *, catalogue: Path, terms: Terms) -> Recommended:
    """Write a ranked list for every customer of a table: customer, rank, item, score and reasons.

    Args:
        model_path: A published model.
        table: With the contract's columns; a row without an item only names its customer.
        output: Parquet file to write; never overwritten, and there whole or not at all.
        catalogue: The items that the partners agreed on.
        terms: What lists are wanted.

    Raises:
        FileFault: The model is not one, a file of rules says what it must not, or the output exists or cannot be
            written.
        CatalogueFault: The catalogue is unreadable, or not the plan's.
        ContractFault: The table breaks the model's contract.

    Leaks:
        Nothing leaves: everything is computed where the table lies, and costs no privacy budget.
    """
    if output.exists():
        raise FileFault(Fault(str(output), "exists", "choose another file, or remove it"))
    model, plan = _model(model_path)
    agreed, encoded = catalogue_of(catalogue, plan), attributes_of(catalogue, plan)
    attributes = encoded if encoded.shape[1] else None
    own = read_own_rules(terms.rules) if terms.rules else OwnRules()
    may = permitted(own, agreed, place=terms.rules or Path())
    if own.diversity and attributes is None:
        rule = "needs a catalogue with attributes, by which items are alike"
        raise FileFault(Fault(f"{terms.rules}: diversity", rule, "leave it out"))
    # The contract's last day bounds what a model is made of, not what its user may know since.
    wanted = replace(wanted_rows(plan.contract), today=terms.today, early="drop")
    purchases = read_purchases(table, wanted, lambda codes: match_items(codes, agreed))
    settings = recommender_of(plan)
    engine = Engine(
        settings=settings,
        weights=model.weights,
        score=family.scorer(settings, model.weights, attributes),
        reranker=Reranker(
            own.of_lists(terms.top),
            may.items,
            customers=len(purchases),
            vectors=attributes if own.diversity else None,
        ),
        because=Because.of(agreed, model_sides(settings, model.weights), attributes, terms.reasons),
        in_turn=own.at_most_per_item is not None,
        seed=hashlib.sha256(model_path.read_bytes()).digest(),
    )
    with ListFile(output, purchases.customers, agreed.codes) as file:
        notes = write_lists(engine, purchases, file, see=terms.see)
    return Recommended(output, len(purchases), file.rows, {**purchases.notes, **may.notes, **notes})


@contextmanager
def sources(
    model_path: Path, *, table: Path | None, catalogue: Path | None, workspace: Path | None
) -> Iterator[tuple[Table, Path]]:
    """Lend the table and the catalogue to use: the files that are named, or else what the workspace keeps sealed.

    Args:
        model_path: A published model; its plan says which catalogue.
        table: A file of interactions.
        catalogue: The items that the partners agreed on.
        workspace: The partner's workspace, which is held meanwhile.

    Raises:
        FileFault: Neither is given, the model is not one, or the workspace lacks what is needed.
        ContractFault: The file is no table.
        SealFault: What is in the vault is not what the ledger says, or there is nothing.
        KeyFault: The vault's keys cannot be had.
        WorkspaceBusy: Another process holds the workspace.
    """
    _, plan = _model(model_path)
    items = catalogue
    if items is None and workspace is not None:
        items = Workspace(workspace).catalogue(plan.catalogue.digest if plan.catalogue else "")
    if items is None or (table is None and workspace is None):
        rule = "are needed where there is no --workspace"
        raise FileFault(Fault("--input and --catalogue", rule, "give both, or the workspace"))
    if table is not None or workspace is None:
        yield table_at(table or Path()), items
        return
    with open_vault(workspace, now) as vault:
        yield vault.table(INTERACTIONS), items


def _model(path: Path) -> tuple[ModelFile, Plan]:
    try:
        model = load_model(path)
        plan = plan_from_dict(model.about["plan"])
    except (ModelFileError, KeyError, TypeError):
        raise FileFault(Fault(str(path), "is not a published model", "give a model.safetensors")) from None
    if not plan.recommends:
        raise FileFault(Fault(str(path), "does not recommend", "use `coterie partner score`"))
    if tuple(array.shape for array in model.weights) != weight_shapes(plan):
        raise FileFault(Fault(str(path), "has weights that are not its plan's", "get the model again"))
    if not all(np.isfinite(array).all() for array in model.weights):
        raise FileFault(Fault(str(path), "has weights that are no numbers", "get the model again"))
    return model, plan
