"""What the coordinator asks and takes while it runs one study over one grid."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
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
from coterie.models.propensity import Weights
from coterie.privacy.calibration import calibrate
from coterie.privacy.codes import PENDING
from coterie.privacy.errors import Fault, LedgerFault
from coterie.privacy.record import sign_record
from coterie.privacy.release import CODES, ConsentGiven, Refused
from coterie.privacy.signed import SignedPlan
from coterie.server.cohort import Cohort, admit
from coterie.server.exchange import Patience, exchange
from coterie.server.recording import record_of
from coterie.server.registry import Progress, Refusal
from coterie.server.strategy import PlanStrategy
from coterie.server.witness import Witness

__all__ = ["Conduct", "Patience", "Seen"]


@dataclass(frozen=True)
class Seen:
    """Something to show while a study runs.

    Args:
        what: "consents", "reply", "awaiting", "published" or "measured".
        round: Rounds published, or the round at work.
        partner: Who replied, for "reply".
        step: "consent", "train" or "evaluate".
    """

    what: str
    round: int
    partner: str = ""
    step: str = ""


class Conduct:
    """One run of one study over one grid.

    Args:
        grid: Flower's grid, real or in this process.
        signed: The plan.
        witness: Where the partners' checkpoints are kept.
        patience: How long to wait.
        nodes: Finds the nodes that may be asked at all; every node of the grid when None.
    """

    def __init__(
        self,
        grid: Grid,
        signed: SignedPlan,
        witness: Witness,
        *,
        patience: Patience,
        nodes: Callable[[], Sequence[int]] | None = None,
    ) -> None:
        self.grid, self.signed, self.witness, self.patience = grid, signed, witness, patience
        self.plan = signed.plan
        self.mechanisms = calibrate(signed.plan)
        self.refusals: list[Refusal] = []
        self.undecided = 0
        """Partners whose operators had not decided when the proposal ended."""
        self.show: Callable[[Seen], None] = lambda _: None
        self.stop: Callable[[], bool] = lambda: False
        self._online = nodes or (lambda: sorted(grid.get_node_ids()))
        self._silent: set[int] = set()
        self._refused: set[int] = set()  # what they said to the plan is final

    @property
    def hopeless(self) -> bool:
        """Whether enough partners said no for good that the plan cannot reach its threshold."""
        return len(self.plan.partners) - len(self._refused) < self.plan.privacy.threshold

    def consents(self, expected: int) -> Cohort:
        """Propose the plan to every node and bind those that consent; wait for operators as long as patience has it."""
        given: dict[int, ConsentGiven] = {}
        end = time.monotonic() + self.patience.approving
        asking = self._nodes(expected)
        while asking:
            awaiting = self._propose(asking, given)
            left = end - time.monotonic()
            if not awaiting or left <= 0 or self.stop():
                self.undecided = len(awaiting)
                told = ((node, code) for node, words in sorted(awaiting.items()) for code in words)
                self.refusals.extend(Refusal(f"node {node}", "consent", 0, code) for node, code in told)
                break
            self.show(Seen("awaiting", 0))
            time.sleep(min(self.patience.proposing, left))
            asking = sorted({*awaiting, *self._online()} - set(given) - self._refused - self._silent)
        cohort, faults = admit(self.plan, given)
        self.refusals.extend(Refusal(f.place, "consent", 0, "rejected", f.rule) for f in faults)
        return cohort

    def _propose(self, nodes: Sequence[int], given: dict[int, ConsentGiven]) -> dict[int, tuple[str, ...]]:
        """Propose the plan to nodes, take down consents and refusals, and return who waits for its operator."""
        # Which partner answers at a node is not known yet, so no checkpoint is shown; the first task shows it.
        content = encode_plan(self.signed.to_bytes())
        awaiting: dict[int, tuple[str, ...]] = {}
        silent = set(nodes)
        for node, reply in self._exchange([Message(content, dst_node_id=n, message_type=PROPOSE) for n in nodes]):
            silent.discard(node)
            taken = self._taken(node, reply)
            if isinstance(taken, ConsentGiven):
                given[node] = taken
            elif taken:
                awaiting[node] = taken
            self.show(Seen("reply", 0, f"node {node}", "consent"))
        self._silent.update(silent)
        self.refusals.extend(Refusal(f"node {node}", "consent", 0, "silent") for node in sorted(silent))
        return awaiting

    def _taken(self, node: int, reply: Message) -> ConsentGiven | tuple[str, ...]:
        """Return a node's consent, or the words that its operator can take back; anything else is taken down."""
        place = f"node {node}"
        if reply.has_error():
            refusals = [Refusal(place, "consent", 0, *_code(reply))]
        else:
            try:
                release = decode_release(reply.content, update=None, histogram=None)
            except WireFault as error:
                release = None
                refusals = [Refusal(place, "consent", 0, "rejected", error.faults[0].rule)]
            if isinstance(release, ConsentGiven):
                return release
            if isinstance(release, Refused) and release.codes and set(release.codes) <= PENDING:
                return release.codes
            if isinstance(release, Refused):
                refusals = [Refusal(place, "consent", 0, code) for code in release.codes if code in CODES]
            elif release is not None:
                refusals = [Refusal(place, "consent", 0, "rejected", "another kind of release")]
        self.refusals.extend(refusals)
        self._refused.add(node)
        return ()

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
                elif _code(reply)[0] == "lost" and attempts[partner] <= self.plan.training.spare:
                    attempts[partner] += 1
                    again[partner] = attempts[partner]
                else:
                    self.refusals.append(Refusal(partner, kind, round_, *_code(reply)))
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
                self.refusals.append(Refusal(partner, label, round_, *_code(reply)))
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
        """Wait for the expected number of nodes, a while longer once enough are there, or for the deadline."""
        began = time.monotonic()
        end = began + (self.patience.gathering if self.patience.again_later else self.patience.seconds)
        while len(nodes := sorted(self._online())) < expected and (now := time.monotonic()) < end and not self.stop():
            if len(nodes) < self.plan.privacy.threshold:
                began = now
            elif now - began > self.patience.gathering:
                break
            time.sleep(self.patience.poll)
        return nodes

    def _exchange(self, messages: Iterable[Message]) -> Iterable[tuple[int, Message]]:
        """Send messages and yield replies; whoever was silent before is not waited for while it is offline."""
        asking = list(messages)
        if self.patience.again is not None and self._silent:
            away = self._silent - set(self._online())
            asking = [message for message in asking if message.metadata.dst_node_id not in away]
        silent = {message.metadata.dst_node_id for message in asking}
        for node, reply in exchange(self.grid, asking, patience=self.patience, unlikely=frozenset(self._silent)):
            silent.discard(node)
            self._silent.discard(node)
            yield node, reply
        self._silent |= silent


def _code(reply: Message) -> tuple[str, str]:
    """Return the data-free word of an error reply, and why; Flower's own errors are "silent" to us."""
    if reply.error.code == ErrorCode.INVALID_FAB:
        return "rejected", "the partner runs another version of coterie"
    reason = reply.error.reason or ""
    return (reason if reason in CODES else "silent"), ""
