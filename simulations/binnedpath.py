"""Models on private bins made by a plan's own sums and the coordinator's own steps, in one process and without masks.

What differs from a federation is who adds which noise; nothing is charged, and nothing is said to be private.
Comparisons are made of it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from coterie.clients.binnedsums import BinnedCustomers, binned_total
from coterie.clients.task import initial_weights
from coterie.models.propensity import Weights
from coterie.privacy.centralnoise import central_noise
from coterie.privacy.plan import Plan
from coterie.privacy.randomness import Stream
from coterie.privacy.schedule import COUNT, trained
from coterie.privacy.secagg.noise import discrete_gaussians
from coterie.privacy.sums import numbers_of
from coterie.server.optimizers import OptimizerState
from coterie.server.steps import Total, stepped, told

__all__ = ["NO_NOISE", "Shares", "binned_model", "central_shares", "own_shares", "planned_shares"]


@dataclass(frozen=True)
class Shares:
    """What every party adds to its sums.

    Args:
        counting: Deviation of its noise on the sum that counts first, over the sensitivity.
        update: The same of a gradient's sum, over the clip.
    """

    counting: float
    update: float


NO_NOISE = Shares(0.0, 0.0)


def central_shares(plan: Plan, parties: int) -> Shares:
    """Return shares that add up to the noise of one trusted party: secure aggregation without any margin."""
    whole = central_noise(plan)
    return Shares(whole.counting / math.sqrt(parties), whole.update / math.sqrt(parties))


def own_shares(plan: Plan) -> Shares:
    """Return the noise of a party that trusts nobody: all of it, in each party's own sums."""
    whole = central_noise(plan)
    return Shares(whole.counting, whole.update)


def planned_shares(plan: Plan) -> Shares:
    """Return the plan's own, with its margin for who drops out or colludes.

    Raises:
        PlanFault: The plan has no sums.
    """
    first, last = numbers_of(plan, f"{COUNT}/1"), numbers_of(plan, trained(plan)[-1])
    return Shares(first.share / first.sensitivity, last.share / last.sensitivity)


def binned_model(plan: Plan, parts: Mapping[str, BinnedCustomers], *, shares: Shares, stream: Stream) -> Weights:
    """Take the plan's steps along plain sums over some parties.

    Args:
        plan: With private bins; the parties are in its roster.
        parts: Their training customers.
        shares: What each adds.
        stream: Secret randomness of samples and noise.

    Leaks:
        As much as its noise is too small for what it is said to be; in a simulation alone.
    """
    counted = 0.0
    state, declared = OptimizerState.start(initial_weights(plan)), sum(p.customers for p in plan.partners)
    for step in trained(plan):
        numbers, counting = numbers_of(plan, step), step.startswith(f"{COUNT}/")
        share = math.ceil((shares.counting if counting else shares.update) * numbers.sensitivity)
        sums = [
            binned_total(plan, step, state.weights, part, numbers=numbers, stream=stream) for part in parts.values()
        ]
        total = sum(sums[1:], start=sums[0])
        if share:
            total = total + sum(discrete_gaussians(share, len(total), stream) for _ in sums)
        clip, rate = (1.0, 1.0) if counting else (plan.training.clip, plan.training.sample_rate)
        noise = math.sqrt(len(sums)) * share * clip / numbers.sensitivity / (rate * declared)
        counted = noise if counting else counted
        state = stepped(plan, state, step, Total(total, tuple(parts)), noise=noise)
    return told(plan, state, noise=counted)
