"""What coordinator and partner both must know of a plan: tasks, shapes, and what a consent signs.

This module is the part of the partners' language that knows nothing of Flower; `wire.py` puts it on the wire.
"""

from dataclasses import dataclass

import numpy as np

from coterie.models import propensity
from coterie.models.binning import BinnedColumn, Binning
from coterie.models.features import Binned, Block, Categorical, Encoding, Numeric
from coterie.models.recommenders import family
from coterie.models.recommenders.settings import Recommender
from coterie.privacy.canonical import canonical
from coterie.privacy.contract import Column, Contract
from coterie.privacy.plan import Plan, Recommendation
from coterie.privacy.secagg.messages import DealtShares, RoundKeys, SurvivorsSigned
from coterie.privacy.secagg.transcript import Claim

__all__ = [
    "DealAsked",
    "KeysAsked",
    "RevealAsked",
    "SignAsked",
    "SumTask",
    "Task",
    "binning_of",
    "consent_message",
    "encoding_of",
    "initial_weights",
    "recommender_of",
    "weight_shapes",
]


@dataclass(frozen=True)
class Task:
    """What the coordinator asks for in a round.

    Args:
        plan: Digest of the plan.
        round: 1 to the plan's rounds.
        attempt: 1, or more after a lost attempt.
        weights: The model's weights at the start of the round.
    """

    plan: str
    round: int
    attempt: int
    weights: propensity.Weights


@dataclass(frozen=True)
class SumTask:
    """What the coordinator asks for in one sum, secure or a partner's own.

    Args:
        plan: Digest of the plan.
        step: Which sum, e.g. "count/1", "train/3" or "evaluate/2".
        attempt: 1, or more after an attempt that was not opened.
        weights: The model's weights that the sum is about.
        epoch: Which set-up of the study; 1 for a partner's own sum.
        cohort: Names between whom the masks are to cancel, sorted; the partner alone for its own sum.
        dealt: What the partners dealt in this epoch, with its first sum; nothing afterwards.
    """

    plan: str
    step: str
    attempt: int
    weights: propensity.Weights
    epoch: int
    cohort: tuple[str, ...]
    dealt: tuple[DealtShares, ...]


@dataclass(frozen=True)
class KeysAsked:
    """The question for fresh keys.

    Args:
        plan: Digest of the plan.
        epoch: Which set-up of the study.
        steps: The sums that the keys are for.
    """

    plan: str
    epoch: int
    steps: tuple[str, ...]


@dataclass(frozen=True)
class DealAsked:
    """The question for shares, with everybody's keys.

    Args:
        plan: Digest of the plan.
        epoch: Which set-up of the study.
        keys: What the partners answered to `KeysAsked`.
    """

    plan: str
    epoch: int
    keys: tuple[RoundKeys, ...]


@dataclass(frozen=True)
class SignAsked:
    """The question whether a sum may be opened over these vectors.

    Args:
        plan: Digest of the plan.
        epoch: Which set-up of the study.
        claims: The survivors' vectors, by digest and signature.
    """

    plan: str
    epoch: int
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class RevealAsked:
    """The question for the shares that open a sum, with the others' signatures.

    Args:
        plan: Digest of the plan.
        epoch: Which set-up of the study.
        signed: What survivors answered to `SignAsked`.
    """

    plan: str
    epoch: int
    signed: tuple[SurvivorsSigned, ...]


def consent_message(plan: str, partner: str) -> bytes:
    """Return what a partner signs when it consents to the plan with this digest."""
    return b"coterie/consent/v1\n" + canonical({"plan": plan, "partner": partner})


def encoding_of(contract: Contract) -> Encoding:
    """Return the encoding that a contract's public bounds, edges and vocabularies define."""
    return Encoding(tuple(_block(column) for column in contract.features))


def binning_of(plan: Plan) -> Binning:
    """Return the public part of a plan's private bins.

    Raises:
        ValueError: The plan has none.
    """
    bins = plan.bins
    if bins is None:
        raise ValueError("the plan has no bins")
    trends = {**dict.fromkeys(bins.rising, 1), **dict.fromkeys(bins.falling, -1)}
    columns = tuple(_binned(column, bins.cells, trends.get(column.name, 0)) for column in plan.contract.features)
    place = {column.name: index for index, column in enumerate(columns)}
    return Binning(columns, bins.most, tuple((place[one], place[two]) for one, two in bins.crossed))


def recommender_of(plan: Plan) -> Recommender:
    """Return the public settings of a plan's recommender.

    Raises:
        ValueError: The plan makes none.
    """
    catalogue, rows = plan.catalogue, plan.contract.interactions
    if catalogue is None or rows is None:
        raise ValueError("the plan makes no recommender")
    how = plan.recommendation or Recommendation()
    return Recommender(
        family=plan.model.family,
        items=catalogue.items,
        longest=rows.most,
        keep=how.keep,
        rank=how.rank,
        dimension=how.dimension,
        exponent=how.exponent,
        ridge=how.ridge,
        content=how.content,
        negatives=how.negatives,
        attributes=catalogue.attributes,
    )


def initial_weights(plan: Plan) -> propensity.Weights:
    """Return the public weights that a study starts from; none for a match."""
    if plan.matches:
        return ()
    if plan.recommends:
        return family.initial(recommender_of(plan))
    model = plan.model
    if plan.bins is not None:
        binning = binning_of(plan)
        counts = np.zeros(binning.cells, dtype=np.float32)
        return counts, *propensity.initial(model.family, binning.slots, model.hidden, seed=0)
    return propensity.initial(model.family, encoding_of(plan.contract).width, model.hidden, seed=0)


def weight_shapes(plan: Plan) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of the plan's model; none for a match."""
    if plan.matches:
        return ()
    if plan.recommends:
        return family.shapes(recommender_of(plan))
    if plan.bins is not None:
        binning = binning_of(plan)
        return (binning.cells,), *propensity.shapes(plan.model.family, binning.slots, plan.model.hidden)
    return propensity.shapes(plan.model.family, encoding_of(plan.contract).width, plan.model.hidden)


def _binned(column: Column, cells: int, trend: int) -> BinnedColumn:
    """Return a column's public cells: by its edges, or evenly in its range, or in the logarithm of it."""
    if column.kind == "categorical":
        return BinnedColumn(column.name, words=column.values)
    low, high, edges = float(column.low or 0.0), float(column.high or 0.0), column.edges
    if not edges:
        parts = np.arange(1, cells) / cells
        within = (high - low) * parts if column.spacing == "even" else np.expm1(np.log1p(high - low) * parts)
        edges = tuple((low + within).tolist())
    return BinnedColumn(column.name, atoms=column.atoms, edges=edges, trend=trend, low=low, high=high)


def _block(column: Column) -> Block:
    if column.kind == "categorical":
        return Categorical(column.name, column.values)
    if column.edges:
        return Binned(column.name, column.edges)
    return Numeric(column.name, float(column.low or 0.0), float(column.high or 0.0))
