"""Injecting faults one batch after another, and counting what became of each."""

import random
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from coterie.tests.faults.faults import COORDINATOR, LINK, MESSAGE, PARTNER, Injected, Kind
from coterie.tests.faults.harness import DEADLINE, LINKED, NAMES, World

LIMIT = 12 * DEADLINE
"""Seconds within which two further rounds must be published after a fault was taken back."""
_SPOKEN = tuple(name for name in NAMES if name != LINKED)


@dataclass
class Row:
    """What became of the faults of one kind.

    Args:
        injected: How many there were.
        rounds: Rounds that were published afterwards, before the next batch.
        recovered: After how many all went on as before.
        left_out: After how many the partner was left out of a round, and named.
        stuck: After how many no further round was published in time.
        unnamed: After how many a partner was gone and nobody said so.
        seconds: Longest time until two further rounds, after the fault was taken back.
    """

    injected: int = 0
    rounds: int = 0
    recovered: int = 0
    left_out: int = 0
    stuck: int = 0
    unnamed: int = 0
    seconds: float = 0.0


@dataclass
class Count:
    """The table.

    Args:
        rows: By the kind's name.
        notes: What a reader should know of single faults.
    """

    rows: dict[str, Row] = field(default_factory=lambda: defaultdict(Row))
    notes: list[str] = field(default_factory=list)

    @property
    def injected(self) -> int:
        """How many faults there were."""
        return sum(row.injected for row in self.rows.values())


def batches(kinds: Sequence[Kind], draw: random.Random) -> Iterator[list[tuple[Kind, str]]]:
    """Deal the kinds' faults into batches, each with its partner.

    At most two partners have something done to their processes at once, so that the plan's threshold can be met; the
    coordinator has at most one fault at a time, and messages of the other partners one each.

    Args:
        kinds: Every kind with its count.
        draw: Chooses.
    """
    left = [kind for kind in kinds for _ in range(kind.count)]
    draw.shuffle(left)
    while left:
        batch: list[tuple[Kind, str]] = []
        hit: set[str] = set()
        for kind in tuple(left):
            fits = not batch or not (kind.alone or batch[0][0].alone or (kind.away and len(batch) > 1))
            if not fits or (kind.at == COORDINATOR and any(other.at == COORDINATOR for other, _ in batch)):
                continue
            if any(other.away for other, _ in batch) and kind.at != MESSAGE:
                continue
            heavy = sum(other.at in (PARTNER, LINK) for other, _ in batch)
            if kind.at in (PARTNER, LINK) and heavy >= 2:
                continue
            free = {PARTNER: NAMES, LINK: (LINKED,), MESSAGE: _SPOKEN, COORDINATOR: ("",)}[kind.at]
            choice = [name for name in free if name not in hit]
            if not choice:
                continue
            who = draw.choice(choice)
            hit |= {who} - {""}
            batch.append((kind, who))
            left.remove(kind)
            if kind.alone or len(batch) >= 5:
                break
        yield batch


def inject(world: World, batch: Iterable[tuple[Kind, str]], count: Count, draw: random.Random) -> None:
    """Inject a batch at random moments of a round, take it back, and see what became of it."""
    named = world.watch.absences()
    done: list[tuple[Kind, str, Injected, float]] = []
    for kind, who in batch:
        time.sleep(draw.uniform(0.0, 0.6))
        fault = kind.do(world, who, draw)
        done.append((kind, who, fault, time.monotonic() + fault.seconds))
        world.watch.published()
    for _, _, fault, due in sorted(done, key=lambda one: one[3]):
        while time.monotonic() < due:
            world.watch.published()
            time.sleep(0.1)
        fault.undo()
    before, began = world.watch.published(), time.monotonic()
    in_time = world.watch.further(before, 2, LIMIT)
    took = time.monotonic() - began
    last = world.watch.last()
    missing = set(NAMES) - set(last.cohort) if last else set()
    every = world.watch.absences()
    for kind, who, fault, _ in done:
        if not fault.happened():
            continue  # no message came by that it could have been done to
        row = count.rows[kind.name]
        row.injected += 1
        row.rounds += world.watch.published() - before
        row.seconds = max(row.seconds, took)
        gone, now_named = who in missing or kind.away, any(one[1] == who for one in every - named)
        # What is known of partners that are gone since an earlier batch was said then.
        spoken = now_named or any(one[1] == who for one in every)
        row.stuck += not in_time
        row.left_out += in_time and (now_named or (gone and spoken))
        row.recovered += in_time and not now_named and not gone
    silently = sorted(name for name in missing if in_time and not any(one[1] == name for one in every))
    if silently and done:
        count.rows[done[0][0].name].unnamed += 1
        count.notes.append(f"gone, and not named: {', '.join(silently)}")
    if not in_time:
        kinds = ", ".join(f"{kind.name} ({who})" for kind, who, _, _ in done)
        count.notes.append(f"no further round within {LIMIT:g} s after: {kinds}")
