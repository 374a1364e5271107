"""What the empirical audit measures: of this build, and of this build with faults planted in it.

Runs what `coterie audit attack` runs: canaries, checks from inside and membership inference, on the real training with
the operating system's randomness. Each fault is planted in the real optimiser or customer grouping, and the audit is
run against one claim; the table says which scores and checks saw it. Prints everything, with versions and machine, as
JSON.

    python benchmarks/attack.py --output benchmarks/results/attack.json
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from conditions import arguments_for, conditions, publish

from coterie.privacy.auditing.conformance import failed
from coterie.privacy.randomness import OsSource, Stream
from coterie.privacy.training import Customers
from coterie.privacy.training.optimizer import SecretNoiseOptimizer
from coterie.simulations.attacks.audit import run_audit
from coterie.simulations.attacks.canaries import audit_canaries
from coterie.simulations.attacks.conforming import run_checks

CLAIMS = [0.5, 1.0, 1.5]
FAULTY_CLAIM = 1.5

real_noise = SecretNoiseOptimizer.add_noise
real_customers = Customers.__init__


def scaled(factor: float) -> Callable[[SecretNoiseOptimizer], None]:
    def faulty(self: SecretNoiseOptimizer) -> None:
        multiplier = self.noise_multiplier
        self.noise_multiplier = factor * multiplier
        real_noise(self)
        self.noise_multiplier = multiplier

    return faulty


def repeated(self: SecretNoiseOptimizer) -> None:
    self.use(Stream(bytes(32)))
    real_noise(self)


def unclipped(self: SecretNoiseOptimizer) -> None:
    for parameter in self.params:
        before = 0 if parameter.summed_grad is None else parameter.summed_grad
        parameter.summed_grad = before + parameter.grad_sample.double().sum(dim=0)


def rows_as_customers(self: Customers, features: Any, labels: Any, customer: Any, **longest: Any) -> None:  # noqa: ANN401
    real_customers(self, features, labels, np.arange(len(customer)), **longest)


FAULTS = {
    "none": None,
    "noise halved": (SecretNoiseOptimizer, "add_noise", scaled(0.5)),
    "noise divided by the root of two": (SecretNoiseOptimizer, "add_noise", scaled(1 / math.sqrt(2))),
    "noise 2 % too small": (SecretNoiseOptimizer, "add_noise", scaled(0.98)),
    "the same noise at every step": (SecretNoiseOptimizer, "add_noise", repeated),
    "clipping off": (SecretNoiseOptimizer, "clip_and_accumulate", unclipped),
    "two rows of one customer as two customers": (Customers, "__init__", rows_as_customers),
}


@contextmanager
def planted(fault: tuple[type, str, Any] | None) -> Iterator[None]:
    if fault is None:
        yield
        return
    with mock.patch.object(*fault):
        yield


def against(fault: tuple[type, str, Any] | None, canaries: int, repeat: int) -> dict[str, Any]:
    """Audit a faulty build several times; a lower bound is a matter of luck."""
    random = OsSource()
    with planted(fault):
        checks = [failed(run_checks(random)) for _ in range(repeat)]
        found = [audit_canaries(FAULTY_CLAIM, canaries=canaries, random=random) for _ in range(repeat)]
    names = sorted({name for names in checks for name in names})
    bounds = ("snj_final", "fdp_final", "fdp_iterates")
    return {
        "claim": FAULTY_CLAIM,
        "audits": repeat,
        "lower_bounds": {bound: [round(getattr(one, bound), 3) for one in found] for bound in bounds},
        "claim_refuted_in": sum(one.most > FAULTY_CLAIM for one in found),
        "refuted_by": {bound: sum(getattr(one, bound) > FAULTY_CLAIM for one in found) for bound in bounds},
        "failed_checks": {name: sum(name in one for one in checks) for name in names},
        "checks_failed_in": sum(bool(one) for one in checks),
    }


def main() -> None:
    parser = arguments_for(__doc__)
    parser.add_argument("--canaries", type=int, default=16_000)
    parser.add_argument("--repeat", type=int, default=5, help="audits of each fault")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    report = run_audit(CLAIMS, canaries=arguments.canaries, random=OsSource(), show=lambda _: None)
    seconds = time.perf_counter() - began
    result = {
        "what": f"{arguments.canaries} canaries for each claim, 40 steps, Poisson rate 0.25, 1 torch thread",
        **conditions("opacus", "torch", "dp-accounting", "scipy", "numpy"),
        "seconds": round(seconds, 1),
        "audit": report.to_dict(),
        "faults": {name: against(fault, arguments.canaries, arguments.repeat) for name, fault in FAULTS.items()},
    }
    publish(result, arguments.output)


if __name__ == "__main__":
    main()
