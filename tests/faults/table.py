"""The table of injected faults, as benchmarks/results/faults.md has it; `python -m` of this module runs the suite.

python -m coterie.tests.faults.table [MINUTES]
"""

import datetime
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coterie.privacy.errors import CoterieError
from coterie.privacy.plan import SECURE
from coterie.privacy.signed import SignedPlan
from coterie.server.registry import Registry
from coterie.simulations.deployment import Site
from coterie.tests.faults import invariants
from coterie.tests.faults.faults import KINDS, Kind
from coterie.tests.faults.harness import World, faulty_plan, world
from coterie.tests.faults.suite import Count, batches, inject

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "faults.md"


@dataclass
class Outcome:
    """What a suite ended with.

    Args:
        count: The table's rows.
        seed: Of what was drawn.
        seconds: How long faults were injected.
        rounds: Rounds that were published, over how many studies.
        resumed: Studies that ended early and were resumed, with the reason.
        unpaid: Releases without a settled charge of their own.
        different: Questions that got two different answers within one attempt.
        repeated: Questions that were answered more than once.
        wrong: Rounds with another model than the releases make.
        checked: Rounds whose model was computed again.
        audits: What auditors found wrong.
        charges: Releases that left, as the middle saw them or the coordinator took them.
        site: Where it all lies.
    """

    count: Count
    seed: int
    seconds: float = 0.0
    rounds: tuple[int, int] = (0, 0)
    resumed: list[str] = field(default_factory=list)
    unpaid: list[str] = field(default_factory=list)
    different: list[object] = field(default_factory=list)
    repeated: int = 0
    wrong: list[object] = field(default_factory=list)
    checked: int = 0
    audits: list[str] = field(default_factory=list)
    charges: int = 0
    site: Site | None = None


def suite(root: Path, kinds: Sequence[Kind] = KINDS, *, seed: int, minutes: float = 120.0) -> Outcome:
    """Inject every kind's faults into one federation, and check what must hold.

    Args:
        root: An empty folder.
        kinds: What is injected, and how often.
        seed: Of what is drawn.
        minutes: After so many no further batch is begun.
    """
    draw, count = random.Random(seed), Count()  # noqa: S311
    plans = [faulty_plan(f"faults {number}", 100) for number in range(1, 16)]
    plans[1:1] = [faulty_plan(f"secure faults {n}", 20, trust=SECURE, threshold=3) for n in (1, 2)]
    outcome = Outcome(count, seed)
    with world(root, plans, disks=True, number=os.getpid() % 10_000) as made:
        if not made.watch.further(0, 1, 300.0):
            raise RuntimeError(f"the federation published nothing: see the logs below {root}")
        began = time.monotonic()
        for batch in batches(kinds, draw):
            if time.monotonic() - began > 60 * minutes:
                break
            inject(made, batch, count, draw)
            told = ", ".join(f"{kind.name} {who}".strip() for kind, who in batch)
            at = made.watch.published()
            print(f"{time.monotonic() - began:6.0f} s, {count.injected} faults, {at} rounds: {told}", flush=True)  # noqa: T201
        outcome.seconds = time.monotonic() - began
        outcome.resumed = list(made.watch.resumed)
        for service in (*made.partners.values(), made.coordinator):
            service.stop()
        check(made, outcome, root)
    return outcome


def check(made: World, outcome: Outcome, root: Path) -> None:
    """Check everything that must hold once the processes have ended."""
    office, books = made.site.office, made.watch.books
    digests = [study.digest for study in books.studies()]
    published = [(digest, Registry(office.study(digest)).resume(digest)) for digest in digests]
    receipts = [(digest, one) for digest, progress in published if progress for one in progress.receipts]
    outcome.rounds = (sum(p.round for _, p in published if p), sum(p is not None for _, p in published))
    handed = invariants.handed_in(made.middle.objects)
    outcome.different = list(invariants.not_the_same_bytes(handed))
    outcome.repeated = sum(len(digests_) > 1 for digests_ in handed.values())
    releases: dict[invariants.Key, tuple[object, ...]] = {}
    for name, folder in made.site.workspaces.items():
        outcome.unpaid += invariants.unpaid(folder, name, handed, receipts)
        releases |= invariants.releases_of(folder)
        found = invariants.unverified(folder, root / f"{folder.name}.bundle")
        outcome.audits += [f"{name}: {found}"] if found else []
    outcome.charges = len(handed.keys() | {(r.partner, d, r.step, r.attempt) for d, r in receipts})
    for digest in digests:
        plan = SignedPlan.from_bytes(books.study(digest).signed, coordinator=office.identity.public).plan
        progress = Registry(office.study(digest)).resume(digest)
        if progress and plan.privacy.trust == "local":
            outcome.wrong += [(plan.name, round_) for round_ in invariants.wrong_models(office, plan, releases)]
            outcome.checked += progress.round


def table(outcome: Outcome) -> str:
    """Return the table as Markdown."""
    rows = sorted(outcome.count.rows.items())
    lines = [
        "# Faults injected into real processes",
        "",
        f"{datetime.datetime.now(datetime.UTC):%d %B %Y}, {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}; a coordinator and four partners, TLS, one partner in a network namespace, every "
        f"folder on a disk of its own; seed {outcome.seed}. Made by `python -m coterie.tests.faults.table`; "
        "how it is done: [decision 27](../../docs/decisions/0027-faults.md).",
        "",
        f"{outcome.count.injected} faults in {outcome.seconds / 60:.0f} minutes, while {outcome.rounds[0]} rounds of "
        f"{outcome.rounds[1]} studies were published. **Lost budget: {len(outcome.unpaid) + len(outcome.audits)}. "
        f"Wrong models: {len(outcome.wrong)}. Stuck: {sum(row.stuck for _, row in rows)}.**",
        "",
        "| fault | injected | rounds after | recovered | left out and named | gone, not named | stuck | slowest, s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in rows:
        told = (row.injected, row.rounds, row.recovered, row.left_out, row.unnamed, row.stuck)
        lines.append(f"| {name} | " + " | ".join(str(one) for one in told) + f" | {row.seconds:.0f} |")
    lines += [
        "",
        "- *rounds after*: published after the fault was taken back and before the next was injected; *slowest*: until "
        "two further rounds were published.",
        f"- Budget: {outcome.charges} releases were seen to leave or were taken by the coordinator; "
        f"{len(outcome.unpaid)} lack a settled charge of their own. Bundles that auditors find fault with: "
        f"{len(outcome.audits)} of 4.",
        f"- Same bytes: {outcome.repeated} questions were answered more than once; "
        f"{len(outcome.different)} with other bytes within one attempt.",
        f"- Models: {outcome.checked} published rounds were computed again from the partners' outboxes in plain numpy; "
        f"{len(outcome.wrong)} differ.",
        f"- Studies that ended early and were resumed as an operator would: {len(outcome.resumed)}.",
        *(f"  - {why}" for why in sorted(set(outcome.resumed))),
        *(f"- {note}" for note in outcome.count.notes),
        "",
    ]
    return "\n".join(lines)


def main(minutes: float) -> int:
    """Run the suite and write the table; return how many things did not hold."""
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}", flush=True)  # noqa: T201
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        outcome = suite(root / "site", seed=seed, minutes=minutes)
    finally:
        print(f"logs: {root}", flush=True)  # noqa: T201
    text = table(outcome)
    RESULT.write_text(text, encoding="utf-8")
    print(text)  # noqa: T201
    stuck = sum(row.stuck + row.unnamed for row in outcome.count.rows.values())
    wrong = len(outcome.unpaid) + len(outcome.audits) + len(outcome.wrong) + len(outcome.different) + stuck
    for line in (*outcome.unpaid, *outcome.audits, *outcome.wrong, *outcome.different):
        print(line)  # noqa: T201
    if not wrong:
        shutil.rmtree(root)
    return wrong


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is stopped then, too
    try:
        sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 120.0))
    except CoterieError as error:
        sys.exit("\n".join(str(fault) for fault in error.faults))
