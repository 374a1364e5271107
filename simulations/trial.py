"""One seed of a study: a federation, its baselines, and their exact metrics, as plain JSON values."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coterie.clients.predicting import logits_of
from coterie.models import metrics
from coterie.models.propensity import Weights
from coterie.privacy.calibration import calibrate
from coterie.privacy.plan import Plan
from coterie.privacy.randomness import RandomSource
from coterie.server.coordinator import Seen, unless_stopped
from coterie.simulations import baselines
from coterie.simulations.federation import Outcome, run_federation
from coterie.simulations.rows import Rows, everyone, read_rows

__all__ = ["MODELS", "Trial", "run_trial"]

MODELS: dict[str, str] = {
    "federated-private": "Federated, private",
    "alone-private": "Partner alone, same privacy",
    "alone": "Partner alone, no privacy",
    "federated": "Federated, no privacy",
    "pooled-private": "Pooled, same privacy",
    "pooled": "Pooled, no privacy",
}


@dataclasses.dataclass(frozen=True)
class Trial:
    """What one seed showed.

    Args:
        outcome: The federation's.
        exact: Exact figures: metrics by model, by partner, by round, and curves.
    """

    outcome: Outcome
    exact: Mapping[str, Any]


def run_trial(  # noqa: PLR0913 - all of it is the edge of the program
    root: Path,
    plan: Plan,
    tables: Mapping[str, pa.Table],
    *,
    seed: int,
    engine: str,
    random: RandomSource,
    show: Callable[[Seen], None],
    stop: Callable[[], bool],
) -> Trial:
    """Run a federation and its baselines; arguments as `run_federation`."""
    outcome = run_federation(root, plan, tables, seed=seed, engine=engine, random=random, show=show, stop=stop)
    unless_stopped(stop)
    show(Seen("baselines", plan.training.rounds))
    training, held_out = read_rows(outcome.signed.plan, outcome.folders)
    models = _models(outcome, training, random)
    return Trial(outcome, _exact(outcome, models, held_out, training))


def _models(outcome: Outcome, training: Mapping[str, Rows], random: RandomSource) -> dict[str, dict[str, Weights]]:
    """Return the weights of every model by the partner that uses them."""
    plan = outcome.signed.plan
    mechanisms = calibrate(plan)
    names = list(training)
    return {
        "federated-private": dict.fromkeys(names, outcome.progress.weights),
        "alone-private": {
            name: baselines.alone_private(plan, name, rows, mechanisms=mechanisms, random=random)
            for name, rows in training.items()
        },
        "alone": {name: baselines.converged(plan, rows) for name, rows in training.items()},
        "federated": dict.fromkeys(names, baselines.federated(plan, training)),
        "pooled-private": dict.fromkeys(names, baselines.pooled_private(plan, everyone(training), random=random)),
        "pooled": dict.fromkeys(names, baselines.converged(plan, everyone(training))),
    }


def _exact(
    outcome: Outcome,
    models: Mapping[str, Mapping[str, Weights]],
    held_out: Mapping[str, Rows],
    training: Mapping[str, Rows],
) -> dict[str, Any]:
    plan = outcome.signed.plan
    union = everyone(held_out)
    exact: dict[str, Any] = {"models": {}, "partners": {}, "calibration": {}, "lift": {}}
    for key, by_partner in models.items():
        scored = {name: _logits(plan, weights, union) for name, weights in _distinct(by_partner).items()}
        # A model that is one partner's own is judged as a partner on average would be.
        each = [_figures(logits, union) for logits in scored.values()]
        exact["models"][key] = {metric: float(np.mean([one[metric] for one in each])) for metric in each[0]}
        counts = metrics.exact_counts(
            np.concatenate(list(scored.values())),
            np.tile(union.labels, len(scored)).astype(np.float64),
            np.tile(union.weights, len(scored)),
        )
        exact["calibration"][key] = metrics.calibration(counts)
        exact["lift"][key] = metrics.lift_curve(counts)
        for name, rows in held_out.items():
            entry = exact["partners"].setdefault(
                name, {"customers": training[name].customers, "held_out": rows.customers, "models": {}, "union": {}}
            )
            entry["models"][key] = _figures(_logits(plan, by_partner[name], rows), rows)["auc"]
            entry["union"][key] = _figures(scored[name if name in scored else next(iter(scored))], union)["auc"]
    exact["rounds"] = {
        str(round_): _figures(_logits(plan, weights, union), union)["auc"]
        for round_, weights in outcome.published.items()
    }
    return exact


def _distinct(by_partner: Mapping[str, Weights]) -> dict[str, Weights]:
    """Return one entry for a shared model, or one for each partner's own."""
    first = next(iter(by_partner.items()))
    return dict([first]) if all(w is first[1] for w in by_partner.values()) else dict(by_partner)


def _logits(plan: Plan, weights: Weights, rows: Rows) -> NDArray[np.float64]:
    return logits_of(plan, weights, rows.features)


def _figures(logits: NDArray[np.float64], rows: Rows) -> dict[str, Any]:
    labels = rows.labels.astype(np.float64)
    summary = metrics.summary(metrics.exact_counts(logits, labels, rows.weights))
    return {**summary, "log_loss": metrics.log_loss(logits, labels, rows.weights)}
