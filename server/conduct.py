"""What the coordinator asks and takes while it runs one study over one grid."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from coterie.clients.wire import (
    CLOSE,
    PROPOSE,
    WireFault,
    decode_release,
    encode_close,
    encode_plan,
    split_head,
    with_witness,
)
from coterie.models import metrics
from coterie.models.propensity import Weights
from coterie.privacy.calibration import calibrate
from coterie.privacy.errors import Fault, LedgerFault
from coterie.privacy.plan import Plan
from coterie.privacy.record import StudyRecord, sign_record
from coterie.privacy.release import CODES, ConsentGiven, Refused, weights_digest
from coterie.privacy.signed import SignedPlan
from coterie.server.cohort import Cohort, admit
from coterie.server.exchange import exchange
from coterie.server.rankmetrics import rank_metrics
from coterie.server.registry import Progress, Refusal
from coterie.server.strategy import PlanStrategy
from coterie.server.witness import Witness

__all__ = ["Conduct", "Patience", "Seen", "record_of"]


@dataclass(frozen=True)
class Patience:
    """How long the coordinator waits.

    Args:
        seconds: For all replies to one step.
        poll: Between looks.
    """

    seconds: float = 3600.0
    poll: float = 0.2


@dataclass(frozen=True)
class Seen:
    """Something to show while a study runs.

    Args:
        what: "consents", "reply", "published" or "measured".
        round: Rounds published, or the round at work.
        partner: Who replied, for "reply".
        step: "consent", "train" or "evaluate".
    """

    what: str
    round: int
    partner: str = ""
    step: str = ""


class Conduct:
    """One run of one study over one grid."""

    def __init__(self, grid: Grid, signed: SignedPlan, witness: Witness, *, patience: Patience) -> None:
        self.grid, self.signed, self.witness, self.patience = grid, signed, witness, patience
        self.plan = signed.plan
        self.mechanisms = calibrate(signed.plan)
        self.refusals: list[Refusal] = []
        self.show: Callable[[Seen], None] = lambda _: None

    def consents(self, expected: int) -> Cohort:
        """Propose the plan to every node and bind those that consent."""
        nodes = self._nodes(expected)
        # Which partner answers at a node is not known yet, so no checkpoint is shown; the first task shows it.
        content = encode_plan(self.signed.to_bytes())
        messages = [Message(content, dst_node_id=node, message_type=PROPOSE) for node in nodes]
        given: dict[int, ConsentGiven] = {}
        silent = set(nodes)
        for node, reply in self._exchange(messages):
            silent.discard(node)
            if reply.has_error():
                self.refusals.append(Refusal(f"node {node}", "consent", 0, _code(reply)))
                continue
            try:
                release = decode_release(reply.content, update=None, histogram=None)
            except WireFault as error:
                self.refusals.append(Refusal(f"node {node}", "consent", 0, "rejected", error.faults[0].rule))
                continue
            if isinstance(release, ConsentGiven):
                given[node] = release
            elif isinstance(release, Refused):
                known = (code for code in release.codes if code in CODES)
                self.refusals.extend(Refusal(f"node {node}", "consent", 0, code) for code in known)
            else:
                self.refusals.append(Refusal(f"node {node}", "consent", 0, "rejected", "another kind of release"))
            self.show(Seen("reply", 0, f"node {node}", "consent"))
        self.refusals.extend(Refusal(f"node {node}", "consent", 0, "silent") for node in sorted(silent))
        cohort, faults = admit(self.plan, given)
        self.refusals.extend(Refusal(f.place, "consent", 0, "rejected", f.rule) for f in faults)
        return cohort

    def step(self, strategy: PlanStrategy, kind: str, round_: int, weights: Weights) -> list[Message]:
        """Ask the cohort for one step; ask again where an attempt was lost and the plan has spare ones."""
        replies: list[Message] = []
        asking = strategy.begin(kind, round_, weights)
        attempts: dict[str, int] = dict.fromkeys(strategy.cohort.nodes, 1)
        while asking:
            again: dict[str, int] = {}
            silent = {strategy.cohort.partner_of(m.metadata.dst_node_id) for m in asking}
            for node, reply in self._exchange(self._shown(asking, strategy.cohort)):
                partner = strategy.cohort.partner_of(node)
                silent.discard(partner)
                if not reply.has_error() and reply.metadata.src_node_id != node:
                    # The strategy goes by the source: one partner may not speak in another's name.
                    self.refusals.append(Refusal(partner, kind, round_, "rejected", "answered as another node"))
                elif not reply.has_error():
                    if self._extends(reply, partner, kind, round_):
                        replies.append(reply)
                    self.show(Seen("reply", round_, partner, kind))
                elif _code(reply) == "lost" and attempts[partner] <= self.plan.training.spare:
                    attempts[partner] += 1
                    again[partner] = attempts[partner]
                else:
                    self.refusals.append(Refusal(partner, kind, round_, _code(reply)))
            self.refusals.extend(Refusal(partner, kind, round_, "silent") for partner in sorted(silent))
            asking = strategy.ask(kind, round_, weights, again)
        return replies

    def close(self, cohort: Cohort, progress: Progress) -> None:
        """Hand the final model and the study's record to every partner, and then the checkpoint cosigned last."""
        record = record_of(self.plan, progress)
        content = encode_close(sign_record(record, self.witness.identity), progress.weights)
        for _ in range(2):  # the second time nothing is new but the checkpoint of the first answer
            self.gather(cohort, dict.fromkeys(cohort.nodes, content), CLOSE, ("close", progress.round))

    def gather(
        self, cohort: Cohort, asked: Mapping[str, RecordDict], kind: str, step: tuple[str, int]
    ) -> dict[str, RecordDict]:
        """Ask some partners, each once, and return the answers of those whose ledger extends what was seen of it.

        Args:
            cohort: Where the partners are.
            asked: The question to each partner.
            kind: The question's message type.
            step: What it is called where a refusal is written down, and the round.
        """
        label, round_ = step
        asking = [
            Message(content, dst_node_id=cohort.nodes[partner], message_type=kind, group_id=str(round_))
            for partner, content in sorted(asked.items())
        ]
        silent, answers = set(asked), {}
        for node, reply in self._exchange(self._shown(asking, cohort)):
            partner = cohort.partner_of(node)
            silent.discard(partner)
            if reply.has_error():
                self.refusals.append(Refusal(partner, label, round_, _code(reply)))
            elif self._extends(reply, partner, label, round_):
                answers[partner] = reply.content
            self.show(Seen("reply", round_, partner, label))
        self.refusals.extend(Refusal(partner, label, round_, "silent") for partner in sorted(silent))
        return answers

    def _shown(self, messages: Iterable[Message], cohort: Cohort) -> list[Message]:
        """Add to each question the last checkpoint that was seen of the ledger of whom it goes to."""
        shown = list(messages)
        for message in shown:
            partner = cohort.partner_of(message.metadata.dst_node_id)
            message.content = with_witness(message.content, self.witness.note(self._key(partner)))
        return shown

    def _extends(self, reply: Message, partner: str, kind: str, round_: int) -> bool:
        """Take the checkpoint off a reply and cosign it; return whether the reply may be used."""
        try:
            head, content = split_head(reply.content)
            if head is None:
                raise WireFault(Fault("the reply", "comes without the ledger's checkpoint", "upgrade the partner"))
            self.witness.see(self._key(partner), head)
        except (WireFault, LedgerFault) as error:
            self.refusals.append(Refusal(partner, kind, round_, "rejected", error.faults[0].rule))
            return False
        reply.content = content
        return True

    def _key(self, partner: str) -> str:
        entry = self.plan.partner(partner)
        return entry.key if entry else ""

    def _nodes(self, expected: int) -> list[int]:
        """Wait for the expected number of nodes, or for the deadline."""
        end = time.monotonic() + self.patience.seconds
        while len(nodes := sorted(self.grid.get_node_ids())) < expected and time.monotonic() < end:
            time.sleep(self.patience.poll)
        return nodes

    def _exchange(self, messages: Iterable[Message]) -> Iterable[tuple[int, Message]]:
        return exchange(self.grid, messages, seconds=self.patience.seconds, poll=self.patience.poll)


def record_of(plan: Plan, progress: Progress) -> StudyRecord:
    """Return the record of a plan's study as it stands."""
    receipts = tuple(sorted(progress.receipts))
    said = rank_metrics(plan, progress) if plan.recommends else _metrics(progress)
    return StudyRecord(progress.plan, weights_digest(progress.weights), said, receipts)


def _metrics(progress: Progress) -> dict[str, float]:
    """Return what the last charged histograms of scores say of the model."""
    last = max((number for number, by in progress.histograms.items() if by), default=None)
    if last is None:
        return {}
    by_partner = progress.histograms[last]
    counts = metrics.binned_counts(np.sum([by_partner[name] for name in sorted(by_partner)], axis=0))
    return {name: value for name, value in metrics.summary(counts).items() if value is not None}


def _code(reply: Message) -> str:
    """Return the data-free word of an error reply; Flower's own errors are "silent" to us."""
    reason = reply.error.reason or ""
    return reason if reason in CODES else "silent"
