"""The plan as a Flower strategy: four thin verbs over the cohort, the checks and the sums.

The loop around the verbs is `coordinator.py`, because Flower's own neither has a deadline nor resumes.
"""

from collections.abc import Iterable, Mapping
from typing import NoReturn

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from coterie.clients.task import Task, weight_shapes
from coterie.clients.wire import EVALUATE, TRAIN, WireFault, decode_release, encode_task
from coterie.models.propensity import Weights
from coterie.privacy.calibration import Mechanisms
from coterie.privacy.plan import Plan
from coterie.privacy.record import Receipt
from coterie.privacy.release import ModelUpdate, Refused, ScoreHistogram, release_digest, weights_digest
from coterie.server.aggregate import (
    AdamState,
    Expected,
    ReplyRefused,
    check_reply,
    fedadam,
    fedavg,
    weighted_mean,
)
from coterie.server.bounds import longest_histogram, longest_update
from coterie.server.cohort import Cohort
from coterie.server.registry import Refusal

__all__ = ["PlanStrategy"]


class PlanStrategy(Strategy):
    """What the plan says to ask, and how its answers add up.

    Args:
        plan: The plan.
        mechanisms: Its calibrated events.
        cohort: Who takes part.
        adam: Moments of FedAdam so far.
    """

    def __init__(self, plan: Plan, mechanisms: Mechanisms, cohort: Cohort, adam: AdamState) -> None:
        self._plan = plan
        self._digest = plan.digest()
        self._mechanisms = mechanisms
        self.cohort = cohort
        self._asked: dict[tuple[str, str], Expected] = {}
        self._start: Weights = ()
        self.adam = adam
        self.histograms: dict[str, NDArray[np.int64]] = {}
        self.rejected: list[Refusal] = []
        self.receipts: list[Receipt] = []
        self.answered: set[str] = set()

    def ask(self, kind: str, round_: int, weights: Weights, attempts: Mapping[str, int]) -> list[Message]:
        """Write a message for each partner.

        Args:
            kind: `TRAIN` or `EVALUATE`.
            round_: Which round.
            weights: The model.
            attempts: Attempt to ask for, by partner.
        """
        step = f"{kind}/{round_}"
        shapes = weight_shapes(self._plan) if kind == TRAIN else (self._plan.histogram_shape,)
        dtype = "float32" if kind == TRAIN else "int64"
        model = weights_digest(weights)
        messages = []
        for partner, attempt in sorted(attempts.items()):
            longest = self._longest(kind, partner, weights)
            self._asked[partner, kind] = Expected(partner, self._digest, step, attempt, model, shapes, dtype, longest)
            content = encode_task(Task(self._digest, round_, attempt, weights))
            node = self.cohort.nodes[partner]
            messages.append(Message(content, dst_node_id=node, message_type=kind, group_id=str(round_)))
        return messages

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the whole cohort to train; Flower's verb."""
        del config, grid
        return self.begin(TRAIN, server_round, tuple(arrays.to_numpy_ndarrays()))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the whole cohort for histograms, after rounds that the plan measures; Flower's verb."""
        del config, grid
        if server_round not in self._plan.metrics.rounds:
            return []
        return self.begin(EVALUATE, server_round, tuple(arrays.to_numpy_ndarrays()))

    def begin(self, kind: str, round_: int, weights: Weights) -> list[Message]:
        """Start a step: forget the last one's answers and ask everyone for a first attempt."""
        self._start = weights
        self.answered = set()
        self.histograms = {}
        return self.ask(kind, round_, weights, dict.fromkeys(self.cohort.nodes, 1))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Add the updates that are the plan's, and take the server's step; None below the threshold."""
        updates: dict[str, tuple[NDArray[np.float32], ...]] = {}
        for release in self._believed(TRAIN, server_round, replies):
            if isinstance(release, ModelUpdate):
                updates[release.partner] = release.arrays
        if len(updates) < self._plan.privacy.threshold:
            return None, None
        declared = {partner.name: float(partner.customers) for partner in self._plan.partners}
        mean = weighted_mean(updates, declared)
        rate = self._plan.training.server_learning_rate
        if self._plan.training.server == "fedadam":
            weights, self.adam = fedadam(self._start, mean, self.adam, rate)
        else:
            weights = fedavg(self._start, mean, rate)
        return ArrayRecord(list(weights)), None

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Keep the histograms that are the plan's; they are added up when they are read."""
        for release in self._believed(EVALUATE, server_round, replies):
            if isinstance(release, ScoreHistogram):
                self.histograms[release.partner] = release.arrays[0]
        return None

    def summary(self) -> None:
        """Say nothing: progress is the coordinator's to show."""

    def start(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse Flower's own loop, which has no deadline, quorum or resumption."""
        raise NotImplementedError("run the study with coterie.server.coordinator.run_study")

    def _longest(self, kind: str, partner: str, weights: Weights) -> float:
        if kind == TRAIN:
            return longest_update(self._plan, self._mechanisms, partner, weights)
        return longest_histogram(self._plan, self._mechanisms, partner)

    def _believed(self, kind: str, round_: int, replies: Iterable[Message]) -> Iterable[ModelUpdate | ScoreHistogram]:
        """Yield the replies that hold against what was asked; write down the others."""
        for reply in replies:
            partner = self.cohort.partner_of(reply.metadata.src_node_id)
            try:
                release = decode_release(
                    reply.content, update=self._mechanisms.update, histogram=self._mechanisms.histogram
                )
                wanted = ModelUpdate if kind == TRAIN else ScoreHistogram
                if isinstance(release, Refused) or not isinstance(release, wanted):
                    self.rejected.append(Refusal(partner, kind, round_, "rejected", "another kind of release"))
                    continue
                check_reply(release, self._asked[partner, kind], self.answered)
            except (WireFault, ReplyRefused) as error:
                self.rejected.append(Refusal(partner, kind, round_, "rejected", error.faults[0].rule))
                continue
            self.answered.add(partner)
            self.receipts.append(Receipt(partner, release.step, release.attempt, release_digest(release)))
            yield release
