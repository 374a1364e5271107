"""The rules of a plan's private bins, and of what it measures by group; data-free, as all rules of plans."""

import itertools
from typing import TYPE_CHECKING

from coterie.privacy.errors import Fault
from coterie.privacy.terms import Secure

if TYPE_CHECKING:
    from coterie.privacy.binterms import Bins
    from coterie.privacy.plan import Plan

__all__ = ["bin_faults", "group_faults"]

_WIDEST = 20_000  # cells: what a coordinator may make a partner count
_MOST_PAIRS = 20
_MOST_GROUPS = 64


def bin_faults(plan: "Plan", place: str) -> list[Fault]:
    """Return what of a plan does not go with its private bins, or with having none.

    Args:
        plan: The plan.
        place: How the plan is called in a fault.
    """
    family, secure, bins = plan.model.family, plan.secure or Secure(), plan.bins
    if bins is None:
        faults = []
        if family == "additive":
            faults.append(Fault(f"{place}: bins", "is missing: the additive family learns on bins", "add [bins]"))
        if secure.optimizer == "newton":
            faults.append(Fault(f"{place}: secure.optimizer", "newton goes with [bins]", "add them, or choose another"))
        return faults
    if plan.task != "propensity":
        return [Fault(f"{place}: bins", f"are none for {plan.task}", "remove them")]
    faults = _column_faults(plan, bins, f"{place}: bins")
    if family == "mlp" and secure.optimizer == "newton":
        fix = 'choose "sgd" or "adam"'
        faults.append(Fault(f"{place}: secure.optimizer", "newton knows no curvature of an mlp", fix))
    if (bins.rising or bins.falling) and family != "additive":
        faults.append(Fault(f"{place}: bins.rising", "and falling go with the additive family", "remove them"))
    if plan.training.server != "fedavg" or plan.training.server_learning_rate != 1.0:
        fix = "leave it out, and set secure.optimizer and training.learning_rate"
        faults.append(Fault(f"{place}: training.server", "has no part in sums on bins", fix))
    return faults


def _column_faults(plan: "Plan", bins: "Bins", place: str) -> list[Fault]:
    """Return what is wrong with the columns that bins name, and with how many cells there are."""
    faults = []
    features = plan.contract.features
    numeric = {column.name for column in features if column.kind == "numeric"}
    ordered = [*bins.rising, *bins.falling]
    if len(set(ordered)) != len(ordered) or not set(ordered) <= numeric:
        rule = "and falling must name numeric columns of the contract, each once"
        faults.append(Fault(f"{place}.rising", rule, "correct the lists"))
    pairs = [frozenset(pair) for pair in bins.crossed]
    known = {column.name for column in features}
    if len(set(pairs)) != len(pairs) or any(len(pair) != 2 or not pair <= known for pair in pairs):
        rule = 'must be different pairs of the contract\'s columns, written "age * gender"'
        faults.append(Fault(f"{place}.pairs", rule, "correct the list"))
    crossed = set(itertools.chain.from_iterable(pairs))
    if crossed & set(ordered):
        rule = "may not name a column that rises or falls: an interaction could undo it"
        faults.append(Fault(f"{place}.pairs", rule, "leave it out of one of them"))
    if len(pairs) > _MOST_PAIRS:
        faults.append(Fault(f"{place}.pairs", f"are more than {_MOST_PAIRS}", "name those that matter"))
    width = sum(len(c.values) or len(c.atoms) + max(bins.cells, len(c.edges) + 1) for c in features) + len(features)
    if width > _WIDEST:
        rule = f"leads to more than {_WIDEST} cells over all columns"
        faults.append(Fault(f"{place}.cells", rule, "ask for fewer, or shorten vocabularies"))
    return faults


def group_faults(plan: "Plan", place: str) -> list[Fault]:
    """Return what keeps a plan's groups, by which held-out customers are counted, from being what it says."""
    name, columns = plan.metrics.groups, {column.name: column for column in plan.contract.columns}
    audited = {column.name for column in plan.contract.columns if not column.is_feature}
    if not audited <= {name}:
        rule, fix = "has a column for audits that metrics.groups does not name", "name it, or leave the column out"
        return [Fault(f"{place}: contract.columns", rule, fix)]
    if not name:
        return []
    if plan.task != "propensity" or name not in columns or columns[name].kind != "categorical":
        fix = "name one of the contract, or leave it out"
        return [Fault(f"{place}: metrics.groups", "must be a categorical column of a propensity plan", fix)]
    if plan.grouped > _MOST_GROUPS:
        fix = "ask with a shorter vocabulary"
        return [Fault(f"{place}: metrics.groups", f"has more than {_MOST_GROUPS} groups, too few in each", fix)]
    return []
