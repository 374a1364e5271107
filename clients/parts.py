"""A partner's part in a sum: its rows opened and checked, ready to be added up once the charge is durable."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.clients import measuring, training
from coterie.clients.agreed import Agreed
from coterie.clients.binnedsums import binned_customers, binned_total, sum_settings
from coterie.clients.opening import Opened
from coterie.clients.recommendersums import Asked, rank_histogram, recommender_total
from coterie.clients.task import SumTask, encoding_of
from coterie.clients.work import Work
from coterie.models import propensity
from coterie.privacy.calibration import TRAINING
from coterie.privacy.charges import Charge
from coterie.privacy.plan import Plan
from coterie.privacy.randomness import Stream
from coterie.privacy.secagg.messages import arrays_digest
from coterie.privacy.secagg.numbers import Numbers, clamped
from coterie.privacy.training import Customers, Summer

__all__ = ["Part", "contents_of", "open_part"]


@dataclass(frozen=True)
class Part:
    """What a sum is made of; dies with the call.

    Args:
        contents: Digest of all of it; it goes nowhere but into the keys of streams.
        counts: Of what was opened, for the partner's sealed records.
        total: Returns the sum over the customers, without noise, by a stream of secret randomness for the sample.
    """

    contents: str
    counts: Mapping[str, int]
    total: Callable[[Stream], NDArray[np.int64]]

    def __repr__(self) -> str:
        """Return a text without any size or value."""
        return "Part(...)"


def open_part(
    work: Work, agreed: Agreed, task: SumTask, charge: Charge, *, numbers: Numbers, rows: Callable[[str], Stream]
) -> Part:
    """Open the rows that a sum is about.

    Args:
        work: The workspace at work.
        agreed: The plan.
        task: Which sum.
        charge: What it costs; it says which customers the sum is about.
        numbers: The whole numbers in which it is made.
        rows: Returns, for the digest of the sealed table, the stream that chooses rows of customers that have too many.

    Raises:
        TaskRefused: "unavailable", whatever is wrong with the table.
    """
    if agreed.plan.recommends:
        return _histories(work, agreed, task, charge, numbers)
    plan, weights = agreed.plan, task.weights
    opened = work.open(agreed, charge, rows)
    contents = contents_of(opened)
    if charge.group != TRAINING:
        return Part(contents, opened.counts, lambda stream: _counts(plan, weights, opened, numbers, stream))
    if plan.bins is not None:
        mine = work.local(lambda: binned_customers(opened, plan), plan)
        step = task.step
        return Part(
            contents,
            opened.counts,
            lambda stream: binned_total(plan, step, weights, mine, numbers=numbers, stream=stream),
        )
    customers = work.local(lambda: training.training_customers(opened, plan), plan)
    return Part(contents, opened.counts, lambda stream: _gradients(plan, weights, customers, numbers, stream))


def contents_of(opened: Opened) -> str:
    """Return the digest of all that a sum is made of."""
    return arrays_digest((*opened.columns.values(), opened.labels, opened.customer, opened.held_out))


def _histories(work: Work, agreed: Agreed, task: SumTask, charge: Charge, numbers: Numbers) -> Part:
    opened, asked = work.open_histories(agreed), Asked(agreed.plan, task.weights, work.attributes(agreed))
    mine = opened.training if charge.group == TRAINING else opened.held_out
    contents = arrays_digest((mine.starts, mine.items, mine.days))

    def total(stream: Stream) -> NDArray[np.int64]:
        if charge.group == TRAINING:
            return recommender_total(asked, task.step, mine, numbers=numbers, stream=stream)
        counts = rank_histogram(asked, mine, stream=stream)
        return clamped(counts.ravel() * (numbers.sensitivity // agreed.plan.parts), numbers.bound)

    return Part(contents, opened.counts, total)


@functools.lru_cache(maxsize=4)
def _summer_for(family: str, inputs: int, hidden: int) -> Summer:
    """Return this process's one summer for a kind of model; weights are overwritten by each sum."""
    return Summer(propensity.build(family, inputs, hidden))


def _gradients(
    plan: Plan, weights: propensity.Weights, customers: Customers, numbers: Numbers, stream: Stream
) -> NDArray[np.int64]:
    """Sum the clipped gradients of a sample of the training customers, without noise."""
    summer = _summer_for(plan.model.family, encoding_of(plan.contract).width, plan.model.hidden)
    return summer.total(weights, customers, settings=sum_settings(plan, numbers), stream=stream)


def _counts(
    plan: Plan, weights: propensity.Weights, opened: Opened, numbers: Numbers, stream: Stream
) -> NDArray[np.int64]:
    """Count held-out customers by label and score, in units, without noise: a customer changes one count."""
    counts = measuring.score_histogram(opened, plan, weights, stream)
    return clamped(counts.ravel() * numbers.sensitivity, numbers.bound)
