"""Killed anywhere, a match goes on to the same end: nothing paid is lost, nothing is answered in two ways."""

import collections
import itertools
import random
import shutil
import signal

import pytest

from coterie.tests.clients.matching import Matched, chunks_of, drawn, match_plan, with_noise
from coterie.tests.clients.processes import Process
from coterie.tests.clients.summing import quick_folder
from coterie.tests.stories.killed_match import AFTER, BEFORE, CHUNK, told, work

PLANS = {
    "counts": match_plan(2, "counts", training__spare=1),
    "rows": match_plan(2, "rows"),
    "tokens": match_plan(2, "tokens"),
}


@pytest.fixture(scope="module")
def folder():
    with quick_folder() as found:
        yield found


@pytest.fixture(scope="module")
def templates(folder):
    """Federations that consented, by outcome."""
    return {outcome: Matched(folder / outcome, plan).consented() for outcome, plan in PLANS.items()}


def ended(federation, answers):
    """Go on after a kill, to the end; remember every answer."""
    federation.random = AFTER
    with chunks_of(CHUNK):
        return federation.run(told(federation, answers.append))


def wrong_with(federation, progress):
    """What of a finished match is not as it must be."""
    wrong = []
    for name in federation.names:
        left = {path.name for path in federation.store(name).folder.iterdir()}
        wrong += [] if left == {"ended"} else [f"{name} keeps {sorted(left)}"]
        wrong += [] if federation.kinds(name).count("manifest") == 1 else [f"{name} has several manifests"]
    outcome = federation.plan.matching.outcome
    if outcome == "rows":
        told_ = {name: federation.rows_at(name) == federation.shared_at(name) for name in federation.names}
        wrong += [f"the rows of {name} are others" for name, right in told_.items() if not right]
    if outcome == "tokens":
        amber, birch = (federation.tokens_at(name) for name in federation.names)
        shared = {card for card, token in amber.items() if token in set(birch.values())}
        wrong += [] if shared == federation.cards["amber"] & federation.cards["birch"] else ["tokens do not join"]
    if outcome == "counts":
        wrong += _wrong_counts(federation, progress)
    else:
        kinds = {name: federation.kinds(name).count("disclosure") for name in federation.names}
        wrong += [f"{name} disclosed {count} times" for name, count in kinds.items() if count != 1]
    return wrong


def _wrong_counts(federation, progress):
    """Hold counts to plain sets and to the noise that every partner drew, before the kill or after it."""
    cells = {frozenset(one["partners"]): one["customers"] for one in progress.overlap["cells"]}
    held = {name: federation.reservations(name) for name in federation.names}
    attempts = {name: max(r.charge.attempt for r in held[name]) for name in federation.names}
    either = [
        [drawn(federation, name, source, attempt=attempts[name]) for source in (BEFORE, AFTER)]
        for name in federation.names
    ]
    explained = (with_noise(federation.cards, dict(zip(federation.names, one))) for one in itertools.product(*either))  # noqa: B905
    wrong = [] if cells in list(explained) else ["the counts are not the sets and the noise"]
    for name in federation.names:
        last = [r.settled for r in held[name] if r.charge.attempt == attempts[name]]
        if len(last) != 2 or len(set(last)) != 1 or None in last:
            wrong.append(f"{name} did not pay for its list in both groups")
        # A lost attempt is one that a kill left; it stays charged, and there is one kill.
        if attempts[name] > 2 or (attempts[name] == 2 and all(r.settled for r in held[name])):
            wrong.append(f"{name} made a list in vain")
    return wrong


def killed(template, folder, last):
    """Copy a federation, match until the kill, and return the copy, what was answered, and how the process ended."""
    federation = template.copied(folder)
    process = Process(work, federation.root, template.plan, last)
    return federation, process.heard(), process.ended()


@pytest.mark.parametrize("outcome", PLANS)
@pytest.mark.parametrize("count", [5, pytest.param(120, marks=pytest.mark.slow)], ids=["some", "many"])
def test_a_match_that_is_killed_anywhere_comes_to_the_same_end(templates, folder, outcome, count):
    template = templates[outcome]
    federation, said, end = killed(template, folder / f"{outcome}-whole-{count}", 0)
    assert (end, federation.learned("amber")) == (0, int(outcome != "counts"))
    total = said[-1]
    assert total > 150
    chosen = random.Random(count).sample(range(1, total + 1), min(count, total))  # noqa: S311 - no secret
    wrong, states = {}, collections.Counter()
    for last in chosen:
        federation, before, end = killed(template, folder / f"{outcome}-{last}-{count}", last)
        assert end == -signal.SIGKILL
        answers: list[tuple[str, str]] = []
        progress = ended(federation, answers)
        found = wrong_with(federation, progress)
        earlier = dict(before)
        found += [f"answered in two ways: {asked}" for asked, one in answers if earlier.get(asked, one) != one]
        states[f"{len(earlier) // 10 * 10} answers, {sum(asked in earlier for asked, _ in answers)} again"] += 1
        if found:
            wrong[last] = found
        shutil.rmtree(federation.root)
    print(outcome, total, "steps:", dict(states))  # noqa: T201 - shown by -rP and where it fails
    assert wrong == {}
    assert len(states) > 2
