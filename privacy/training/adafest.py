"""DP-AdaFEST: noise only on the rows of a table that enough customers use, as a noisy count says.

Algorithm 1 of Ghazi et al. 2023, arXiv 2311.08357. A step first releases a noisy map of contributions: each customer
counts 1 for every row that it uses, the counts clipped to an L2 norm. Rows whose noisy count reaches a threshold get
their noisy gradient; all other rows stay bit for bit what they were.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from coterie.privacy.events import PoissonGaussian
from coterie.privacy.training.bookkeeping import BookkeepingSGD
from coterie.privacy.training.contributions import Rows, RowSum
from coterie.privacy.training.recording import Recording

__all__ = ["AdaFestSGD", "Selection"]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """How rows are chosen; all public.

    Args:
        clip: Greatest L2 norm of one customer's counts over all tables, above 0.
        ratio: The map's noise multiplier over the gradient's, above 0.
        threshold: Least noisy count of a row that is trained.
    """

    clip: float
    ratio: float
    threshold: float


class AdaFestSGD(BookkeepingSGD):
    """A `BookkeepingSGD` that trains, in each step, only the rows that a noisy count chooses.

    Args:
        optimizer: Plain `torch.optim.SGD` over a `BookkeepingModule`'s parameters.
        selection: How rows are chosen.
        settings: As for `BookkeepingOptimizer`; `noise_multiplier` is what the pair of map and gradient costs.

    Guarantees:
        With s1 = `map_multiplier` and s2 = `gradient_multiplier`, s1^-2 + s2^-2 = noise_multiplier^-2. A step is
        post-processing of one Gaussian mechanism: the vector (map / (s1 clip), gradient / (s2 max_grad_norm)) of a
        customer has norm at most 1 / noise_multiplier, the noise on it is N(0, I), and the gradient is clipped before
        rows are chosen, so that leaving rows out only drops coordinates. So the step costs the `PoissonGaussian` that
        `event` returns, under Poisson sampling too, as both parts are of the same sample.

    Leaks:
        Which rows a step changed: that is the map's release, and paid for.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, selection: Selection, **settings: Any) -> None:  # noqa: ANN401 - the base's arguments
        if not (selection.clip > 0 and selection.ratio > 0):
            raise ValueError("a selection's clip and ratio must be above 0")
        super().__init__(optimizer, **settings)
        self.selection = selection
        self._counts: dict[nn.Parameter, RowSum] = {}

    @property
    def map_multiplier(self) -> float:
        """Standard deviation of the map's noise over the map's clip."""
        return self.gradient_multiplier * self.selection.ratio

    @property
    def gradient_multiplier(self) -> float:
        """Standard deviation of the gradient's noise over the gradient's clip."""
        return float(self.noise_multiplier) * math.sqrt(1.0 + self.selection.ratio**-2)

    def event(self, sample_rate: float, steps: int) -> PoissonGaussian:
        """Return what steps cost.

        Args:
            sample_rate: Poisson rate over customers, a public constant in (0, 1].
            steps: How many, at least 1.
        """
        return PoissonGaussian(float(self.noise_multiplier), sample_rate, steps)

    def accumulate(self, recording: Recording) -> torch.Tensor:
        """Add one pass, and its customers' clipped counts."""
        finite = super().accumulate(recording)
        found = {parameter: recording.contributions.get(parameter) for parameter in self.params}
        pairs = {parameter: rows.distinct() for parameter, rows in found.items() if isinstance(rows, Rows)}
        used = torch.zeros(int(finite.sum()), dtype=torch.float64, device=finite.device)  # rows of each customer
        for who, _ in pairs.values():
            used.index_add_(0, who, torch.ones_like(who, dtype=torch.float64))
        weights = (self.selection.clip / used.clamp(min=1.0).sqrt()).clamp(max=1.0)
        for parameter, (who, row) in pairs.items():
            counts = RowSum([row], [weights[who].unsqueeze(1)])
            self._counts[parameter] = self._counts[parameter] + counts if parameter in self._counts else counts
        return finite

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - PyTorch's signature
        """Clear gradients, recordings and counts, and sums unless they wait for more (a virtual step)."""
        super().zero_grad(set_to_none)
        if not self._is_last_step_skipped:
            self._counts.clear()

    def move(self, parameter: Any, scale: float) -> None:  # noqa: ANN401 - with what Opacus and recording hang on it
        """Subtract `scale` times the noisy clipped sum, of a table on the chosen rows alone."""
        if not hasattr(parameter, "table"):
            super().move(parameter, scale)
            return
        rows = self._chosen(parameter, self._counts.pop(parameter, RowSum()))
        deviation = abs(scale) * self.gradient_multiplier * self.max_grad_norm
        noise = self.normals.rows(torch.full((len(rows),), deviation, device=rows.device), parameter)
        parameter.scatter_add_(0, rows[:, None].expand_as(noise), noise)
        if isinstance(parameter.summed_grad, RowSum):
            parameter.summed_grad = parameter.summed_grad.within(rows, len(parameter))
        self.add_sum(parameter, parameter, -scale)

    def _chosen(self, parameter: Any, counts: RowSum) -> torch.Tensor:  # noqa: ANN401 - likewise
        """Return the rows whose noisy count reaches the threshold."""
        deviation = self.map_multiplier * self.selection.clip
        used, place = torch.unique(torch.cat([*counts.indices, _none(parameter)]), return_inverse=True)
        count = torch.zeros(len(used), dtype=torch.float64, device=parameter.device)
        if counts.rows:
            count.index_add_(0, place, torch.cat(counts.rows).squeeze(1))
        count += deviation * self.normals.draw((len(used),), count)
        # A row that nobody uses has noise alone: whether that reaches the threshold is a coin of known probability.
        unused = self.normals.coins(len(parameter), _upper(self.selection.threshold, deviation)).to(parameter.device)
        unused = unused[~torch.isin(unused, used)]
        chosen = torch.cat([used[count >= self.selection.threshold], unused])
        return chosen if parameter.table.padding is None else chosen[chosen != parameter.table.padding]


def _none(parameter: torch.Tensor) -> torch.Tensor:
    return torch.empty(0, dtype=torch.int64, device=parameter.device)


def _upper(threshold: float, deviation: float) -> float:
    """Return the probability that N(0, deviation^2) is at least `threshold`."""
    if deviation == 0.0:
        return float(threshold <= 0.0)
    return 0.5 * math.erfc(threshold / deviation / math.sqrt(2.0))
