"""Hundreds of rounds among real processes: what memory and files do.

    python benchmarks/soak.py --rounds 500 --output benchmarks/results/soak.md

A small study of four partners by the shipped commands. Every 25 rounds: the resident memory of every process, and files
and bytes of every folder. A slope is that of the least-squares line through the second half of the looks, in bytes a
round; the first half warms up allocators, caches and databases.
"""

import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from conditions import arguments_for, conditions
from deployment import NAMES, await_rounds, deployed, small
from footprint import on_disk, used

from coterie.privacy.durable import write_durably
from coterie.simulations.deployment import Site

STEADY = 4096  # bytes a round that count as no growth: 2 MB over 500 rounds, less than an allocator's breath

OFFICE = {
    "the SuperLink's database": ("superlink",),
    "the coordinator's books": ("books.sqlite*",),
    "published rounds": ("studies/*/rounds",),
    "the newest state of the study": ("studies/*/progress.safetensors",),
    "the partners' checkpoints": ("heads.json",),
    "the coordinator's logs": ("logs",),
}
WORKSPACE = {
    "the four ledgers": ("ledger.sqlite*",),
    "the four outboxes": ("outbox",),
    "the four folders of plans, models and reports": ("plans", "models", "reports"),
    "the four partners' logs": ("logs",),
    "what the four SuperNodes keep": ("supernode",),
}
WHY = {
    "published rounds": "the model of every round, to be had by partners and reports",
    "the newest state of the study": "a receipt of every partner for every round; written anew in every round",
    "the four ledgers": "every charge for ever (PRIVACY rule 7), and the tree over them",
    "the four outboxes": "releases, so that a repeated question gets the same bytes (PRIVACY rule 8)",
    "the coordinator's books": "a row of every round",
    "the SuperLink's database": "Flower's own",
    "the coordinator's logs": "a few lines a round; each file is cut at its limit",
    "the four partners' logs": "a few lines a round; each file is cut at its limit",
}
"""What may grow, and why."""


@dataclass(frozen=True)
class Look:
    """What was there after a round: bytes and how many, by what they are."""

    round: int
    memory: Mapping[str, int]
    bytes: Mapping[str, int]
    files: Mapping[str, int]


def look(round_: int, pids: Sequence[int], site: Site) -> Look:
    """Take a look at processes and folders."""
    memory: Counter[str] = Counter()
    for use in used(*pids).values():
        memory[use.name] += use.memory
    sizes: dict[str, int] = {}
    files: dict[str, int] = {}
    for places, roots in ((OFFICE, [site.office.root]), (WORKSPACE, list(site.workspaces.values()))):
        for name, patterns in places.items():
            seen = [on_disk(path) for root in roots for pattern in patterns for path in root.glob(pattern)]
            files[name], sizes[name] = sum(count for count, _ in seen), sum(size for _, size in seen)
    return Look(round_, memory, sizes, files)


def soak(root: Path, rounds: int, every: int, told: Callable[[Look], None]) -> tuple[list[Look], list[float]]:
    """Run the study; return the looks, and the seconds of every round."""
    looks = []
    with deployed(root) as live:
        study = live.submit(small(rounds))
        for at in range(every, rounds, every):
            await_rounds(live.books, study, at)
            looks.append(look(at, live.pids, live.site))
            told(looks[-1])
        await_rounds(live.books, study, rounds)
        return looks, [one.seconds for one in live.books.rounds(study.digest)]


def slope(looks: Sequence[Look], of: Callable[[Look], int]) -> float:
    """Return the bytes a round of the line through the second half of the looks."""
    half = looks[len(looks) // 2 :]
    return float(np.polyfit([one.round for one in half], [of(one) for one in half], 1)[0])


def page(looks: Sequence[Look], seconds: Sequence[float], every: int, load: Sequence[str]) -> str:
    """Return the results as a page."""
    said = conditions("flwr", "torch", "httpx", "uvicorn")
    versions = ", ".join(f"{name} {version}" for name, version in said["versions"].items())
    processes = sorted(looks[-1].memory)
    folders = list(looks[-1].bytes)
    return "\n".join(
        [
            f"# {len(seconds)} rounds among processes",
            "",
            f"`benchmarks/soak.py`, {said['date']}, {said['machine']}, Python {said['python']}, {versions}.",
            f"Load of the machine (1, 5, 15 minutes) before: {load[0]}; after: {load[1]}.",
            "",
            *(sys.modules[__name__].__doc__ or "").split("\n\n", 2)[2].strip().splitlines(),
            "",
            f"Seconds a round: {median(seconds):.2f} in the median, {median(seconds[1 : 1 + every]):.2f} in the first "
            f"{every} and {median(seconds[-every:]):.2f} in the last.",
            "",
            f"## Memory (MB, resident; those of {len(NAMES)} partners together)",
            "",
            *_table(looks, processes, lambda one, name: f"{one.memory[name] / 1e6:.1f}"),
            _slopes(looks, processes, lambda one, name: one.memory[name]),
            "",
            "## Files (KB)",
            "",
            *_table(looks, folders, lambda one, name: f"{one.bytes[name] / 1e3:,.0f}"),
            _slopes(looks, folders, lambda one, name: one.bytes[name]),
            "",
            "Why what grows does:",
            "",
            *(f"- {name}: {why}; {_files(looks, name)}." for name, why in WHY.items()),
            "",
            *_verdict(looks, processes, folders),
            "",
        ]
    )


def _table(looks: Sequence[Look], names: Sequence[str], cell: Callable[[Look, str], str]) -> list[str]:
    head = f"| round | {' | '.join(names)} |"
    rows = [f"| {one.round} | {' | '.join(cell(one, name) for name in names)} |" for one in looks]
    return [head, "|---" * (len(names) + 1) + "|", *rows]


def _slopes(looks: Sequence[Look], names: Sequence[str], of: Callable[[Look, str], int]) -> str:
    cells = (f"{slope(looks, lambda one, name=name: of(one, name)):+,.0f}" for name in names)
    return f"| bytes a round | {' | '.join(cells)} |"


def _files(looks: Sequence[Look], name: str) -> str:
    first, last = looks[0], looks[-1]
    return f"{first.files[name]} files after round {first.round}, {last.files[name]} after round {last.round}"


def _verdict(looks: Sequence[Look], processes: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Say which processes and folders grow by more than is stated."""
    growing = [name for name in processes if slope(looks, lambda one, name=name: one.memory[name]) > STEADY]
    more = [n for n in folders if n not in WHY and slope(looks, lambda one, n=n: one.bytes[n]) > 0]
    memory = f"Memory that grows by more than {STEADY} bytes a round: {', '.join(growing) or 'none'}."
    return [memory, f"Files that grow and are not named above: {', '.join(more) or 'none'}."]


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is stopped
    parser = arguments_for(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--every", type=int, default=25)
    arguments = parser.parse_args()
    began, before = time.monotonic(), ", ".join(f"{load:.1f}" for load in os.getloadavg())

    def told(one: Look) -> None:
        print(
            f"{time.monotonic() - began:.0f} s: round {one.round}, {sum(one.memory.values()) / 1e6:.0f} MB", flush=True
        )

    with tempfile.TemporaryDirectory() as folder:
        looks, seconds = soak(Path(folder), arguments.rounds + 1, arguments.every, told)
    after = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    text = page(looks, seconds[: arguments.rounds], arguments.every, (before, after))
    print(text)
    if arguments.output:
        write_durably(arguments.output, text.encode())


if __name__ == "__main__":
    main()
