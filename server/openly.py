"""A study whose every step is a sum that each partner releases by itself, with all its noise in it.

The coordinator adds the partners' sums up, so that the noise of all of them is in every step.
"""

import math
from dataclasses import replace

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from coterie.clients.sumwire import encode_sum
from coterie.clients.task import SumTask
from coterie.clients.wire import EVALUATE, TRAIN, WireFault, decode_release
from coterie.models.propensity import Weights
from coterie.privacy import schedule
from coterie.privacy.record import Receipt
from coterie.privacy.release import PartnerSum, ScoreHistogram, release_digest, weights_digest
from coterie.server.aggregate import Expected, ReplyRefused, check_reply
from coterie.server.bounds import longest_histogram, longest_sum
from coterie.server.registry import Counts, Progress, Refusal, with_news
from coterie.server.steps import Total
from coterie.server.summed import SummedStudy

__all__ = ["OpenStudy"]


class OpenStudy(SummedStudy):
    """The sums of one run of one study; arguments as `SummedStudy`."""

    def _opened(self, name: str, rest: tuple[str, ...], weights: Weights, *, size: int, round_: int) -> Total:
        del rest
        arrays = self._asked(name, weights, shape=(size,), round_=round_)
        if len(arrays) < self._plan.privacy.threshold:
            raise self._not_opened(name)
        names = tuple(sorted(arrays))
        return Total(np.sum([arrays[one] for one in names], axis=0, dtype=np.int64), names)

    def _histograms(self, name: str, round_: int) -> Counts | None:
        shape = self._plan.histogram_shape
        return self._asked(name, self.progress.weights, shape=shape, round_=round_) or None

    def _round_over(self) -> None:
        """Nothing is kept from one sum to the next."""

    def _news(self, progress: Progress) -> Progress:
        return with_news(progress, self._conduct.refusals, ())

    def _asked(
        self, step: str, weights: Weights, *, shape: tuple[int, ...], round_: int
    ) -> dict[str, NDArray[np.int64]]:
        """Ask every partner, and again where an attempt was lost and the plan has spare ones; keep what is right."""
        found: dict[str, NDArray[np.int64]] = {}
        asking, attempt = set(self._cohort.nodes), 1
        while asking and attempt <= 1 + self._plan.training.spare:
            before = len(self._conduct.refusals)
            for partner, content in self._answers(step, attempt, weights, asking, round_).items():
                about = (partner, self._plan.digest(), step, attempt, weights_digest(weights))
                wanted = Expected(*about, (shape,), "int64", self._longest(step, partner, shape))
                array = self._believed(content, wanted, round_)
                if array is not None:
                    found[partner] = array
            asking = {refusal.partner for refusal in self._conduct.refusals[before:] if refusal.code == "lost"}
            attempt += 1
        return found

    def _longest(self, step: str, partner: str, shape: tuple[int, ...]) -> float:
        if step.startswith(f"{schedule.EVALUATE}/"):
            return longest_histogram(self._plan, self._conduct.mechanisms, partner)
        return longest_sum(self._plan, step, math.prod(shape))

    def _answers(
        self, step: str, attempt: int, weights: Weights, asking: set[str], round_: int
    ) -> dict[str, RecordDict]:
        digest, kind = self._plan.digest(), EVALUATE if step.startswith(f"{schedule.EVALUATE}/") else TRAIN
        asked = {
            partner: encode_sum(SumTask(digest, step, attempt, weights, 1, (partner,), ()))
            for partner in sorted(asking)
        }
        return self._conduct.gather(self._cohort, asked, kind, (kind, round_))

    def _believed(self, content: RecordDict, wanted: Expected, round_: int) -> NDArray[np.int64] | None:
        """Return a reply's array if it is the plan's, and write down that it was received, or why it is not."""
        made = self._conduct.mechanisms
        counting = wanted.step.startswith(f"{schedule.COUNT}/")
        kind = ScoreHistogram if wanted.step.startswith(f"{schedule.EVALUATE}/") else PartnerSum
        label = EVALUATE if kind is ScoreHistogram else TRAIN
        try:
            update = made.counting if counting else made.update
            release = decode_release(content, update=update, histogram=made.histogram)
            if not isinstance(release, PartnerSum | ScoreHistogram) or not isinstance(release, kind):
                raise ReplyRefused
            check_reply(release, wanted, set())
        except (WireFault, ReplyRefused) as error:
            rule = error.faults[0].rule if error.faults else "another kind of release"
            self._conduct.refusals.append(Refusal(wanted.partner, label, round_, "rejected", rule))
            return None
        receipt = Receipt(wanted.partner, wanted.step, wanted.attempt, release_digest(release))
        self.progress = replace(self.progress, receipts=(*self.progress.receipts, receipt))
        return release.arrays[0]
