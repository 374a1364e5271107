"""Thousands of wrong messages against a node: each is answered by a charged release or by one word, and nothing grows.

One seed decides all that is drawn, and is printed; COTERIE_MUTATION_SEED gives another.
"""

import io
import logging
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coterie.clients.matchwire import MATCH, Agree, Commit, Count, Give, Take, encode_match
from coterie.clients.task import KeysAsked
from coterie.clients.wire import CLOSE, EVALUATE, PROPOSE, TRAIN, encode_close, encode_plan, encode_task, with_witness
from coterie.privacy.matching.ways import stretches
from coterie.privacy.matchterms import match_terms
from coterie.privacy.record import StudyRecord, sign_record
from coterie.privacy.release import weights_digest
from coterie.privacy.schedule import trained
from coterie.tests.clients.summing import quick_folder
from coterie.tests.stories.attacks import Hostile
from coterie.tests.stories.inprocess import (
    COUNT_PLAN,
    OWN_PLAN,
    SUM_PLAN,
    copied,
    hostile,
    matching,
    overheard,
    prepared,
)
from coterie.tests.stories.match_attacks import agreed
from coterie.tests.stories.mutations import Jury, Mutator
from coterie.tests.stories.sum_attacks import DEAL, KEYS, REVEAL, SIGN, STEPS, Round, encode_keys, encode_sum

SEED = int(os.environ.get("COTERIE_MUTATION_SEED", "20310504"))
MOST_GROWN = 50 * 2**20  # bytes of memory over a run
MOST_REPORTED = 256 * 2**10  # bytes of reports
CHUNK = 2000
RELEASES = {
    *("model-update", "score-histogram", "consent-given", "model-received"),
    *("round-keys", "dealt-shares", "masked-vector", "survivors-signed", "revealed-shares"),
    *("match-committed", "manifest-accepted", "match-parcel", "parcel-taken", "overlap-counts", "match-ended"),
}


class Lines(logging.Handler):
    """Counts what is logged, and keeps none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.refused += "was refused" in record.getMessage()


@pytest.fixture(scope="module")
def made():
    """Federations whose partners approved a plan."""
    with quick_folder() as folder:
        kinds = {"own": prepared(folder / "own", OWN_PLAN), "sums": prepared(folder / "sums", SUM_PLAN)}
        yield folder, {**kinds, "match": matching(folder / "match", COUNT_PLAN)}


def own_corpus(c: Hostile) -> list[bytes]:
    """Every valid question of a study in which each partner's noise suffices alone."""
    node = c.nodes[c.victim]
    record = StudyRecord(c.digest, weights_digest(c.weights()), {}, ())
    plan, task = encode_plan(c.signed.to_bytes()), encode_task(c.task())
    questions = (
        *((PROPOSE, plan), (TRAIN, task), (EVALUATE, encode_task(c.task(2))), (TRAIN, encode_task(c.task(2)))),
        (CLOSE, encode_close(sign_record(record, c.identity), c.weights())),
        *((PROPOSE, with_witness(plan, "")), (TRAIN, with_witness(task, ""))),
    )
    return [node.wire(kind, content) for kind, content in questions]


def sum_corpus(c: Hostile) -> list[bytes]:
    """Every valid question of one epoch of secure sums, which the honest partners answer."""
    round_ = Round(c).begin()
    questions = [(KEYS, encode_keys(KeysAsked(c.digest, 1, STEPS))), (DEAL, round_.dealing(round_.keys))]
    round_.deal()
    questions += [(TRAIN, encode_sum(round_.about())), (TRAIN, encode_sum(round_.about(step="train/2")))]
    round_.mask().sign()
    questions += [(SIGN, round_.signing(round_.masked)), (REVEAL, round_.revealing(list(round_.signed.values())))]
    node = c.nodes[c.victim]
    return [node.wire(PROPOSE, encode_plan(c.signed.to_bytes())), *(node.wire(k, content) for k, content in questions)]


def match_corpus(c: Hostile) -> list[bytes]:
    """Every valid question of a match that is counted, up to the counts; the end would leave nothing to be had."""
    node, found = c.nodes[c.victim], [(PROPOSE, encode_plan(c.signed.to_bytes()))]
    shown = agreed(c)
    found += [(MATCH, encode_match(asked)) for asked in (Commit(c.digest, 1), Agree(c.digest, shown), Count(c.digest))]
    terms = match_terms(c.plan, rules=shown[0].rules)
    for owner in c.names:
        for stretch in stretches(terms, owner):
            give = encode_match(Give(c.digest, stretch.address(0)))
            given = c.relay(stretch.sender, MATCH, give)
            take = encode_match(Take(c.digest, given.parcel))
            c.relay(stretch.receiver, MATCH, take)
            found += [(MATCH, give)] if stretch.sender == c.victim else [(MATCH, take)]
    return [node.wire(kind, content) for kind, content in found]


CORPORA = {"own": own_corpus, "sums": sum_corpus, "match": match_corpus}


def say(*lines: str) -> None:
    """Print lines, which `pytest -s` shows."""
    sys.stdout.write("\n".join(lines) + "\n")


def memory() -> int:
    """Bytes of this process's resident memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def counting() -> Iterator[Lines]:
    """Count refusals in what "coterie" logs; keep Flower quiet about records that come twice."""
    lines, logger, flower = Lines(), logging.getLogger("coterie"), logging.getLogger("flwr")
    level = flower.level
    logger.addHandler(lines)
    logger.propagate = False
    flower.setLevel(logging.ERROR)
    try:
        yield lines
    finally:
        logger.removeHandler(lines)
        logger.propagate = True
        flower.setLevel(level)


def run(made, kind: str, count: int) -> Counter[str]:
    """Put wrong messages to a node, and check what is left behind; return how often each word was heard.

    After every two thousand the node stands again where it stood at first, so that there is something to be had of it.
    """
    folder, federations = made
    begun_with = copied(federations[kind], folder / f"{kind}-{count}")
    with overheard() as log:
        led = hostile(begun_with, log)
        corpus = CORPORA[kind](led)
    mutator = Mutator(corpus, led.identity, seed=SEED, signed=min(0.02, 400 / count))
    answers, seconds, gained = Counter(), Counter(), Counter()
    begun = most = 0
    for number in range(0, count, CHUNK):
        fresh = copied(begun_with, folder / f"{kind}-{count}-{number}")
        with counting() as lines:
            jury = Jury(hostile(fresh, io.StringIO()))
            for place in range(CHUNK):
                jury.put(mutator.next())
                begun = begun if begun or place < CHUNK // 4 else memory()  # by now everything is loaded
        check(jury, lines)
        answers, seconds, gained = answers + jury.answers, seconds + jury.seconds, gained + jury.growth()
        shutil.rmtree(fresh.root)
        most = max(most, memory() - begun)
    told = {word: f"{times} ({1000 * seconds[word] / times:.2f} ms each)" for word, times in answers.most_common()}
    say(f"\nseed {SEED}, {kind}: {count} messages, memory grew by {most / 2**20:.1f} MiB")
    say(*(f"  {word}: {text}" for word, text in told.items()), f"  the ledger gained {dict(gained)}")
    assert most < MOST_GROWN
    return answers


def check(jury: Jury, lines: Lines) -> None:
    """Hold the ledger, the reports and the log to what was answered."""
    c, new = jury.hostile, jury.node.ledger()[jury.before :]
    kinds = Counter(entry.kind for entry in new)
    known = {*trained(c.plan), *(f"evaluate/{number}" for number in c.plan.metrics.rounds)}
    known |= {"match/training", "match/holdout"} if c.plan.matches else set()
    charged = [(e.body["plan"], e.body["step"], e.body["attempt"]) for e in new if e.kind == "reserve"]
    assert set(charged) <= {(c.digest, step, 1) for step in known}
    assert len(set(charged)) == len(charged) == kinds["settle"]
    refused = [e.body["plan"] for e in new if e.kind == "refusal"]
    assert len(set(refused)) == len(refused)
    assert set(refused) <= {"", *jury.plans}, "a plan was refused by name that the coordinator did not sign"
    own = {"reserve", "settle", "refusal", "model", "keys", "opening", "manifest", "match"}
    assert set(kinds) <= own, "nothing was consented to"
    assert len(jury.node.reports()) < MOST_REPORTED
    spoken = sum(count for word, count in jury.answers.items() if word not in RELEASES | {"unread"})
    assert lines.refused == spoken, "every refusal is a line of the log"


@pytest.mark.parametrize("kind", CORPORA)
def test_two_thousand_wrong_messages_get_a_word_or_a_charged_release(made, kind):
    answers = run(made, kind, CHUNK)
    assert answers["unread"] < CHUNK / 2, "most messages must come as far as the app"
    assert len(answers) >= 6, "the messages must be wrong in different ways"


@pytest.mark.slow
@pytest.mark.parametrize("kind", CORPORA)
def test_a_hundred_thousand_wrong_messages_get_a_word_or_a_charged_release(made, kind):
    answers = run(made, kind, 66_000)  # of which some are no messages at all
    assert answers.total() - answers["unread"] >= 50_000


def test_the_same_seed_makes_the_same_messages(made):
    folder, federations = made
    with overheard() as log:
        c = hostile(copied(federations["own"], folder / "alike"), log)
    corpus = own_corpus(c)
    one, two = (Mutator(corpus, c.identity, seed=SEED, signed=0.1) for _ in range(2))
    made_ = [(one.next(), two.next()) for _ in range(200)]
    assert all(first == second for first, second in made_)
    assert len({first.data for first, _ in made_}) > 180
