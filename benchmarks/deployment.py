"""What a round costs among real processes: coterie's, beside a plain Flower app that moves the same arrays.

    python benchmarks/deployment.py --output benchmarks/results/deployment.md

Both in one run on this machine, four nodes each, the same SuperLink with TLS, node authentication and SQLite. Plain
Flower (`deployment_peer/`) sends an array back and does nothing else, by Flower's defaults: `send_and_receive`, a
process for every message. Coterie's is the shipped thing by its commands, with gateway, signatures, ledgers, clipping
and noise, and everything durable. Bytes are those between the nodes and the coordinator with TLS, headers and polls
that found nothing, counted by a relay that both have. The first round is left out: in it processes start.
"""

import dataclasses
import datetime
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from conditions import arguments_for, conditions
from deployment_plain import Rounds, free_ports, plain_rounds, plain_stack
from footprint import Relay, relayed, spent, used

from coterie.clients.task import weight_shapes
from coterie.privacy.clock import now
from coterie.privacy.contract import Column
from coterie.privacy.durable import write_durably
from coterie.privacy.plan import SECURE, Plan
from coterie.privacy.signed import sign
from coterie.privacy.study import read_study
from coterie.server.bookrows import ENDED, FINISHED, Study
from coterie.server.books import Books
from coterie.simulations import sources, studies
from coterie.simulations.deployment import Site, found, started

NAMES = ("books", "electronics", "fashion", "travel")
CODES = 907  # with 1,024 hidden units and the other columns: a million weights
LEAST = 5.0  # times as fast as plain Flower, and
MOST = 1.5  # seconds a round: what is aimed at
OURS, PLAIN, TORCH = "coterie", "plain Flower", "plain Flower, torch in the client"
_LONGEST = 1800.0


def small(rounds: int) -> Plan:
    """Return a study with a logistic model and a gentle step."""
    plan = read_study(studies.path("synthetic")).plan
    partners = tuple(partner for partner in plan.partners if partner.name in NAMES)
    codes = tuple(f"{i:04d}" for i in range(CODES))
    column = Column(name="code", kind="categorical", sensitivity="ordinary", values=codes)
    return dataclasses.replace(
        plan,
        contract=dataclasses.replace(plan.contract, columns=(*plan.contract.columns, column)),
        partners=partners,
        training=dataclasses.replace(plan.training, rounds=rounds, local_steps=1),
        privacy=dataclasses.replace(plan.privacy, threshold=len(NAMES)),
        metrics=dataclasses.replace(plan.metrics, rounds=(rounds,)),
    )


def large(rounds: int) -> Plan:
    """Return the study with a hidden layer: a million weights."""
    plan = small(rounds)
    model = dataclasses.replace(plan.model, family="mlp", hidden=1024)
    training = dataclasses.replace(plan.training, sample_rate=0.01, learning_rate=0.1)
    return dataclasses.replace(plan, name="large", model=model, training=training)


def secure(rounds: int) -> Plan:
    """Return the small study with every step a secure sum."""
    plan = small(rounds)
    return dataclasses.replace(plan, name="secure", privacy=dataclasses.replace(plan.privacy, trust=SECURE))


STUDIES = {"trivial": small, "million": large, "secure": secure}
PEERS = (("trivial", "client", PLAIN), ("million", "client", PLAIN), ("trivial", "learning", TORCH))


def tables() -> dict[str, pa.Table]:
    """Return the partners' tables, with the column of many values."""
    rng, loaded = np.random.default_rng(0), {}
    for name, table in sources.load("synthetic").items():
        if name in NAMES:
            codes = pa.array([f"{i:04d}" for i in rng.integers(CODES, size=table.num_rows)])
            loaded[name] = table.append_column("code", codes)
    return loaded


@dataclasses.dataclass(frozen=True)
class Live:
    """A federation that runs: its folders, what counts its bytes, its books, and its services' process ids."""

    site: Site
    relay: Relay
    books: Books
    pids: tuple[int, ...]

    def submit(self, plan: Plan) -> Study:
        """Submit a plan, with the partners' keys in its roster."""
        keyed = dataclasses.replace(plan, partners=self.site.plan.partners)
        return self.books.submit(sign(keyed, self.site.office.identity))


@contextmanager
def deployed(root: Path) -> Iterator[Live]:
    """Start a federation whose partners permit the three studies, with a relay before it."""
    (listen,) = free_ports(1)
    site = found(root, small(1), tables(), seed=0, settings={"listen": f'"127.0.0.1:{listen}"'})
    for folder in site.workspaces.values():
        policy = (folder / "policy.toml").read_text(encoding="utf-8")
        policy = policy.replace('families = ["logistic"]', 'families = ["logistic", "mlp"]')
        policy = policy.replace('trust = ["local"]', f'trust = ["local", "{SECURE}"]')
        write_durably(folder / "policy.toml", policy.encode())
    public = int(site.office.settings.address.rpartition(":")[2])
    with (
        relayed(public, listen) as relay,
        started(site) as services,
        Books(site.office.books_url, now) as books,
    ):
        yield Live(site, relay, books, tuple(service.pid for service in services.values()))


def ours(live: Live, plan: Plan) -> Rounds:
    """Run a study and return what all of its rounds but the first cost."""
    since = now()
    study = live.submit(plan)
    await_rounds(live.books, study, 1)
    up, down, before = live.relay.up, live.relay.down, used(*live.pids)
    # The last round ends with the measuring of the model, and is no round like the others.
    counted = plan.training.rounds - 2
    await_rounds(live.books, study, counted + 1)
    after, up, down = spent(before, used(*live.pids)), live.relay.up - up, live.relay.down - down
    await_end(live.books, study)
    rounds = live.books.rounds(study.digest)
    logs = [folder / "logs" / "worker.log" for folder in live.site.workspaces.values()]
    training = [seconds for log in logs for seconds in _training(log, since)]
    return Rounds(
        tuple(round_.seconds for round_ in rounds[1 : counted + 1]),
        up / counted,
        down / counted,
        {name: cpu / counted for name, cpu in after.items()},
        statistics.median(training) if training else None,
    )


def _training(log: Path, since: datetime.datetime) -> Iterator[float]:
    """Find how long a partner's own answers took."""
    for line in map(json.loads, log.read_text(encoding="utf-8").splitlines()):
        if line.get("kind") == "train" and datetime.datetime.fromisoformat(line["at"]) >= since:
            yield float(line["seconds"])


def await_rounds(books: Books, study: Study, count: int) -> None:
    """Wait until so many rounds are published."""
    end = time.monotonic() + _LONGEST
    while len(books.rounds(study.digest)) < count:
        at = books.study(study.digest)
        if at.status in ENDED and at.status != FINISHED:
            raise RuntimeError(f"the study ended as {at.status}: {at.reason}")
        if time.monotonic() > end:
            raise RuntimeError("the study takes too long")
        time.sleep(0.1)


def await_end(books: Books, study: Study) -> None:
    """Wait until a study has ended."""
    end = time.monotonic() + _LONGEST
    while books.study(study.digest).status not in ENDED and time.monotonic() < end:
        time.sleep(0.1)


def measure(root: Path, rounds: int, plain: int, kinds: Sequence[str]) -> dict[str, dict[str, Rounds]]:
    """Return what rounds cost, by arrays and by whose they are."""
    plans = {name: STUDIES[name](rounds + 2) for name in kinds}
    with deployed(root / "ours") as live:
        results = {name: {OURS: _told(name, OURS, ours(live, plan))} for name, plan in plans.items()}
    with plain_stack(root / "plain", len(NAMES)) as stack:
        for name, client, who in PEERS:
            if name in plans:
                one = plain_rounds(stack, numbers_of(plans[name]), plain + 1, client=client)
                results[name][who] = _told(name, who, one)
    return results


def _told(name: str, who: str, one: Rounds) -> Rounds:
    """Print what was measured at once: the whole takes minutes."""
    print(f"{name}, {who}: {one}", flush=True)
    return one


def numbers_of(plan: Plan) -> int:
    """Return how many weights a plan's model has."""
    return sum(int(np.prod(shape)) for shape in weight_shapes(plan))


def page(results: dict[str, dict[str, Rounds]], load: Sequence[str]) -> str:
    """Return the results as a page."""
    said = conditions("flwr", "torch", "numpy", "httpx", "uvicorn")
    versions = ", ".join(f"{name} {version}" for name, version in said["versions"].items())
    titles = {
        "trivial": f"{numbers_of(small(3)):,} numbers",
        "million": f"{numbers_of(large(3)):,} numbers",
        "secure": f"{numbers_of(secure(3)):,} numbers, secure aggregation",
    }
    lines = [
        "# Rounds among processes",
        "",
        f"`benchmarks/deployment.py`, {said['date']}, {said['machine']}, Python {said['python']}, {versions}.",
        f"Load of the machine (1, 5, 15 minutes) before: {load[0]}; after: {load[1]}.",
        "",
        *(sys.modules[__name__].__doc__ or "").split("\n\n", 2)[2].strip().splitlines(),
        "",
        "| float32 arrays | who | rounds | s a round, median (least to most) | ratio | KB up | KB down | CPU s |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(titles[name], who, one, by[OURS]) for name, by in results.items() for who, one in by.items()),
        "",
        *_verdict(results.get("trivial", {})),
        "",
        "Processor time a round, by process (seconds, all four nodes together; of a process that the executor starts",
        "for a message, what it used until it was gone):",
        "",
    ]
    for name, by in results.items():
        for who, one in by.items():
            cpu = ", ".join(f"{part} {used_:.2f}" for part, used_ in sorted(one.cpu.items(), key=lambda x: -x[1]))
            lines.append(f"- {titles[name]}, {who}: {cpu}.")
    training = {titles[n]: by[OURS].answering for n, by in results.items() if by[OURS].answering is not None}
    told = "; ".join(f"{title}: {seconds:.2f} s" for title, seconds in training.items())
    return "\n".join([*lines, "", f"A partner's own answer to a round, in the median: {told}."]) + "\n"


def _row(title: str, who: str, one: Rounds, our: Rounds) -> str:
    middle = statistics.median(one.seconds)
    ratio = "1" if one is our else f"{middle / statistics.median(our.seconds):.1f}"
    seconds = f"{middle:.2f} ({min(one.seconds):.2f} to {max(one.seconds):.2f})"
    cpu = sum(one.cpu.values())
    return (
        f"| {title} | {who} | {len(one.seconds)} | {seconds} | {ratio} | {one.up / 1e3:,.0f} | {one.down / 1e3:,.0f} "
        f"| {cpu:.2f} |"
    )


def _verdict(by: dict[str, Rounds]) -> Iterator[str]:
    """Say whether the aim was met, in the case that it names."""
    if PLAIN not in by:
        return
    middle = statistics.median(by[OURS].seconds)
    ratio = statistics.median(by[PLAIN].seconds) / middle
    met = "met" if middle <= MOST and ratio >= LEAST else "missed"
    yield f"Aim: at most {MOST} s a round and at least {LEAST:g} times as fast. It is {met}: {middle:.2f} s,"
    yield f"{ratio:.1f} times as fast."


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is stopped
    parser = arguments_for(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=12, help="of ours that count")
    parser.add_argument("--plain", type=int, default=4, help="of plain Flower's that count")
    parser.add_argument("--studies", nargs="+", choices=STUDIES, default=list(STUDIES))
    arguments = parser.parse_args()
    before = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), arguments.rounds, arguments.plain, arguments.studies)
    after = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    text = page(results, (before, after))
    print(text)
    if arguments.output:
        write_durably(arguments.output, text.encode())


if __name__ == "__main__":
    main()
