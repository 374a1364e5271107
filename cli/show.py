"""What a terminal shows while a study runs, and tables after it."""

import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from coterie.privacy.plan import Plan
    from coterie.server.coordinator import Seen

__all__ = ["StudyProgress", "console", "interval", "print_table", "stoppable"]

console = Console(stderr=True)


class StudyProgress:
    """A bar per seed: rounds, partners that answered, epsilon spent, time left.

    Args:
        plan: The study.
        seeds: How many bars.
    """

    def __init__(self, plan: "Plan", seeds: int) -> None:
        self._plan = plan
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("match" if plan.matches else "round {task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[note]}", style="dim"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        # A match is one thing to do; how long its lists are is known when they come.
        total = 1 if plan.matches else plan.training.rounds
        self._tasks: list[TaskID] = [
            self._bars.add_task(f"seed {seed}", total=total, start=False, note="") for seed in range(seeds)
        ]
        self._answered: dict[int, int] = {}

    def __enter__(self) -> Callable[[int, "Seen"], None]:
        """Start showing; returns what to call with news."""
        self._bars.start()
        return self._see

    def __exit__(self, *_: object) -> None:
        """Stop showing."""
        self._bars.stop()

    def _see(self, seed: int, seen: "Seen") -> None:
        task = self._tasks[seed]
        if seen.what == "consents":
            self._bars.start_task(task)
            self._bars.update(task, completed=seen.round)
        elif seen.what == "relayed":
            self._bars.update(task, note=f"to {seen.partner}: {seen.step}")
        elif seen.what == "matched":
            self._bars.update(task, completed=1 if self._plan.matches else 0, note="matched")
        elif seen.what == "reply" and seen.step != "match":
            self._answered[seed] = self._answered.get(seed, 0) + 1
            # At the close every partner is asked twice: for its receipt, and for the checkpoint after it.
            partners = f"{min(self._answered[seed], len(self._plan.partners))} of {len(self._plan.partners)} partners"
            self._bars.update(task, note=f"{seen.step}: {partners}")
        elif seen.what == "published":
            self._bars.update(task, completed=seen.round, note=self._spent(seen.round))
        elif seen.what == "baselines":
            self._bars.update(task, completed=seen.round, note=f"{self._spent(seen.round)}, comparing")
        if seen.what not in {"reply", "relayed"}:
            self._answered[seed] = 0

    def _spent(self, rounds: int) -> str:
        from coterie.privacy.accountant import epsilon
        from coterie.privacy.calibration import calibrate
        from coterie.privacy.schedule import countings, trainings

        made, steps = calibrate(self._plan), trainings(self._plan) // self._plan.training.rounds
        counted = [made.counting] * countings(self._plan) if made.counting is not None and rounds else []
        spent = epsilon([*counted, *[made.update] * (rounds * steps)], self._plan.privacy.delta)
        return f"epsilon {spent:.2f} of {self._plan.privacy.epsilon:g} spent"


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a wish to stop at the next round; the second one stops at once."""
    asked: list[int] = []

    def ask(signum: int, frame: FrameType | None) -> None:
        del frame
        if asked:
            raise KeyboardInterrupt
        asked.append(signum)
        console.print("stopping after this round; press Ctrl-C again to stop at once", style="yellow")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table to standard output."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    Console(file=sys.stdout).print(table)


def interval(figure: Mapping[str, Any]) -> str:
    """Write a mean with its interval."""
    if figure["mean"] is None:
        return "–"
    if figure["low"] is None:
        return f"{figure['mean']:.3f}"
    return f"{figure['mean']:.3f} ({figure['low']:.3f}–{figure['high']:.3f})"


def _cell(value: object) -> str:
    # A name may come from a stranger: it is shown as it is, never read as rich's markup.
    return escape(f"{value:.3f}" if isinstance(value, float) else str(value))
