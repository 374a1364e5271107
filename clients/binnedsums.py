"""What a partner's customers add to a model on private bins: counts of cells, and clipped gradients."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.clients.opening import Opened
from coterie.clients.predicting import inputs_of, layout_for, parameters_of
from coterie.clients.taint import taint
from coterie.clients.task import binning_of
from coterie.models.additive import margins
from coterie.models.binning import slots_of
from coterie.models.propensity import Weights
from coterie.privacy.plan import Plan
from coterie.privacy.randomness import Stream
from coterie.privacy.schedule import COUNT
from coterie.privacy.secagg.numbers import Numbers
from coterie.privacy.training import SumSettings
from coterie.privacy.training.binnedsums import Judged, ResidualSettings, cell_total, residual_total
from coterie.privacy.training.slotsums import SlotSummer

__all__ = ["BinnedCustomers", "binned_customers", "binned_total", "sum_settings"]


@dataclass(frozen=True)
class BinnedCustomers:
    """Customers' rows in cells; its `repr` shows nothing of them.

    Args:
        cells: Shape (rows, columns).
        labels: 0 or 1, shape (rows,).
        customer: Whole numbers, equal for rows of one customer, shape (rows,).
    """

    cells: NDArray[np.int64]
    labels: NDArray[np.float32]
    customer: NDArray[np.int64]

    def __repr__(self) -> str:
        """Return a text without any size or value."""
        return "BinnedCustomers(...)"


def binned_customers(opened: Opened, plan: Plan) -> BinnedCustomers:
    """Return the training customers' rows in the plan's cells."""
    mine = ~opened.held_out
    cells = taint(inputs_of(plan, {name: values[mine] for name, values in opened.columns.items()}))
    return BinnedCustomers(cells, taint(opened.labels[mine]), taint(opened.customer[mine]))


def binned_total(
    plan: Plan, step: str, weights: Weights, customers: BinnedCustomers, *, numbers: Numbers, stream: Stream
) -> NDArray[np.int64]:
    """Sum the training customers' parts of one of a plan's sums, without noise.

    Args:
        plan: With private bins.
        step: "count/1", or "train/" and the step.
        weights: The model.
        customers: Private.
        numbers: The whole numbers in which the sum is made.
        stream: Secret randomness of the sample.

    Returns:
        Units: of cells, shape (cells,); of a gradient, all its arrays flattened one after the other.

    Raises:
        ValueError: So many rows, or parameters, do not add up exactly.

    Guarantees:
        Adding or removing a customer changes the sum by a vector of whole numbers of L2 norm at most
        `numbers.sensitivity` (`privacy/training/binnedsums.py`, and `slotsums.py` for the families under Opacus).

    Leaks:
        Everything, as it stands: it is for masking with noise that is paid for, and for nothing else.
    """
    if step.startswith(f"{COUNT}/"):
        width, sensitivity = binning_of(plan).cells, numbers.sensitivity
        where = (customers.cells, customers.customer)
        return cell_total(*where, width=width, sensitivity=sensitivity, bound=numbers.bound)
    if plan.model.family == "additive":
        return _residuals(plan, weights, customers, numbers, stream)
    slots = taint(slots_of(layout_for(plan, weights), customers.cells))
    summer = _summer_for(binning_of(plan).slots, plan.model.hidden if plan.model.family == "mlp" else 0)
    table = (slots, customers.labels, customers.customer)
    return summer.total(parameters_of(plan, weights), table, settings=sum_settings(plan, numbers), stream=stream)


@functools.lru_cache(maxsize=4)
def _summer_for(slots: int, hidden: int) -> SlotSummer:
    """Return this process's one summer for a kind of model on slots; weights are overwritten by each sum."""
    return SlotSummer(slots, hidden)


def sum_settings(plan: Plan, numbers: Numbers) -> SumSettings:
    """Return the public settings of sums of gradients under Opacus' engine."""
    return SumSettings(**_settings(plan, numbers))


def _residuals(
    plan: Plan, weights: Weights, customers: BinnedCustomers, numbers: Numbers, stream: Stream
) -> NDArray[np.int64]:
    """Sum the clipped gradients of the additive family, by its own exact path."""
    layout = layout_for(plan, weights)
    slots = slots_of(layout, customers.cells)
    told = margins(parameters_of(plan, weights), slots)
    settings = ResidualSettings(**_settings(plan, numbers))
    judged = Judged(told, customers.labels, customers.customer)
    return residual_total(slots, judged, width=layout.binning.slots, settings=settings, stream=stream)


def _settings(plan: Plan, numbers: Numbers) -> dict[str, Any]:
    return {
        "clip": plan.training.clip,
        "sensitivity": numbers.sensitivity,
        "bound": numbers.bound,
        "sample_rate": plan.training.sample_rate,
        "positive_weight": plan.training.positive_weight,
    }
