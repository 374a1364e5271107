"""How near a federation comes to pooling all data, under the same privacy: the price of trusting nobody, in AUC.

    python benchmarks/parity.py --output benchmarks/results/parity.json

For every epsilon the study `income` runs twice as `coterie simulate run` runs it: with trust "local" and with trust
"secure-aggregation" (the plan's threshold and colluders). Beside it, on the same customers, the same steps with the
noise of one curator who holds everything ("pooled"), and with the partners' shares of exactly that noise, added as
plain sums ("zero margin": nobody drops out, nobody colludes; a secure sum equals the plain one bit for bit). Epsilon,
delta and accountant are the same everywhere; "pooled" for trust "local" has that plan's steps. Exact AUC on everybody's
held-out customers, which exists in simulation alone; every seed splits the customers anew and draws its own noise.
Seeds 0, 1, ... are not those on which the settings were chosen.
"""

import concurrent.futures
import multiprocessing
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conditions import arguments_for, conditions, publish

from coterie.models import metrics, propensity
from coterie.privacy.plan import SECURE
from coterie.privacy.randomness import OsSource
from coterie.simulations import baselines, studies
from coterie.simulations.partners import partner_folders
from coterie.simulations.rows import everyone, read_rows
from coterie.simulations.run import Settings, run_simulation, save_settings, study_of

EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0)


def run(folder: str, epsilon: float, trust: str, seeds: int) -> dict[str, Any]:
    """Run a study, and the sums at zero margin beside it."""
    torch.set_num_threads(1)
    place = Path(folder) / f"{trust}-{epsilon:g}"
    settings = Settings(studies.path("income").read_text(encoding="utf-8"), epsilon, "local", seeds, trust)
    save_settings(place, settings)
    report = run_simulation(place)
    models = {model["key"]: model["metrics"]["auc"]["seeds"] for model in report["simulation"]["models"]}
    found = {
        "federated": models["federated-private"],
        "pooled": models["pooled-private"],
        "alone": models["alone-private"],
        "without privacy": models["pooled"],
        "noise": report["guarantee"]["groups"][0]["events"],
    }
    if trust == SECURE:
        found["zero margin"] = [zero_margin(place, settings, seed) for seed in range(seeds)]
    return found


def zero_margin(place: Path, settings: Settings, seed: int) -> float:
    """Return the AUC of plain sums over the partners, each with its share of exactly the noise charged for."""
    plan, _ = study_of(place, settings)
    training, held_out = read_rows(plan, partner_folders(place / f"seed-{seed}", plan))
    declared = sum(partner.customers for partner in plan.partners)
    weights = baselines.summed_private(plan, training, declared=declared, random=OsSource())
    rows = everyone(held_out)
    logits = propensity.logits(plan.model.family, plan.model.hidden, weights, rows.features)
    counts = metrics.exact_counts(logits, rows.labels.astype(np.float64), rows.weights)
    return float(metrics.summary(counts)["auc"] or 0.0)


def gap(one: list[float], other: list[float]) -> dict[str, float]:
    """Return the mean difference, seed by seed, and the standard deviation of a seed's."""
    differences = [a - b for a, b in zip(one, other, strict=True)]
    return {"mean": statistics.mean(differences), "deviation": statistics.stdev(differences)}


def main() -> None:
    parser = arguments_for(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        concurrent.futures.ProcessPoolExecutor(arguments.jobs, mp_context=context) as pool,
    ):
        asked = {
            (epsilon, trust): pool.submit(run, folder, epsilon, trust, arguments.seeds)
            for epsilon in EPSILONS
            for trust in ("local", SECURE)
        }
        found = {key: future.result() for key, future in asked.items()}
    rows = []
    for epsilon in EPSILONS:
        local, secure = found[epsilon, "local"], found[epsilon, SECURE]
        rows.append(
            {
                "epsilon": epsilon,
                "local": local,
                SECURE: secure,
                "zero margin less pooled": gap(secure["zero margin"], secure["pooled"]),
                "secure less pooled": gap(secure["federated"], secure["pooled"]),
                "local less pooled": gap(local["federated"], secure["pooled"]),
            }
        )
    what = f"AUC on everybody's held-out customers, study income, {arguments.seeds} seeds"
    publish({"what": what, **conditions("flwr", "opacus", "torch", "dp-accounting"), "rows": rows}, arguments.output)


if __name__ == "__main__":
    main()
