"""What a match costs, beside OpenMined's private set intersection, in one run.

    python benchmarks/matching.py --output benchmarks/results/matching.md

The parts (primitives, ours, peer) may also be measured apart: `--parts ours --keep FILE`, and so on; `--quick` measures
10,000 and 100,000 customers alone. FILE keeps what was measured, and the page has all of it, with the machine's load.

Every party is a process of its own; whoever measures relays. A party of ours works as at a node: its list, its parcels
and its state are files that are forced to disk, lists go in sealed parcels of 65,536 points, all cores are used. Left
out are consent, charge, ledger and Flower: they do not grow with lists. Half of everybody's customers are everybody's.

- "counts": how many customers each set of partners shares, with noise, known to all. Its lists have dummies: about 860
  on a list of two partners, 17,000 on one of five, at the noise that is used here (sigma 20).
- "rows": every pair of partners learns which of its own customers the other has.
- Seconds are by the clock, from identifiers in memory to the result, on this machine, which all parties share; partners
  have machines of their own, and need their share of the processor time divided by their cores.
- "CPU us per id" is the processor time of all parties, divided by the customers of all parties.
- Bytes are what a party gives to be relayed, at most. Memory is the greatest peak of a party's process (VmHWM), with
  its identifiers; beside it that of a process that has imported the same and does nothing.

OpenMined's library (2.0.6: P-256, one thread, two parties) runs in an environment of its own, made here: it fixes a
version of protobuf that Flower does not have. Its parties work at the same time wherever its protocol lets them. "One
learns" is one query; for "both learn" each asks the other. Its messages are not sealed, and nothing is forced to disk.
Golomb-compressed sets, false positives below 1e-9.
"""

import json
import math
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from conditions import arguments_for
from matching_ours import terms_of
from matching_page import OURS, PEER, PRIMITIVES, page
from matching_pipe import Party, parties
from matching_primitives import primitives
from vault import load

from coterie.privacy.durable import write_durably
from coterie.privacy.matching.commitment import Commitment
from coterie.privacy.matching.manifest import Manifest, verified
from coterie.privacy.matching.ways import stretches

HERE = Path(__file__).parent
SIZES = (10_000, 100_000, 1_000_000)
PARTNERS = (2, 3, 5)
OUTCOMES = ("counts", "rows")
PEERS = "openmined-psi==2.0.6"


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Args:
        folder: An empty one.
        sizes: Customers of each party.
        partners: Numbers of parties.
        outcomes: Of matches.
        most: Customers of all parties together, above which nothing is measured.
    """

    folder: Path
    sizes: Sequence[int]
    partners: Sequence[int]
    outcomes: Sequence[str]
    most: int


def ours(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield what matches cost."""
    idle = _idle([sys.executable, str(HERE / "matching_ours.py"), str(settings.folder), "-1", "{}"])
    for size in settings.sizes:
        for partners in settings.partners:
            for outcome in settings.outcomes:
                if size * partners <= settings.most:
                    yield _matched(settings.folder, partners, outcome, size) | {"idle": idle}


def _matched(folder: Path, partners: int, outcome: str, size: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        chosen = json.dumps({"partners": partners, "outcome": outcome, "size": size})
        script = str(HERE / "matching_ours.py")
        commands = [[sys.executable, script, f"{place}/p{one}", str(one), chosen] for one in range(partners)]
        with parties(commands) as all_, ThreadPoolExecutor(partners) as pool:
            before = [one.cost() for one in all_]
            began = time.perf_counter()
            headers = [header for header, _ in pool.map(lambda one: one.ask("make"), all_)]
            list(pool.map(lambda one: one.ask("agree", commitments=headers), all_))
            terms = terms_of(partners, outcome)
            fixed = verified(terms, [Commitment.from_header(header) for header in headers])
            by_name = dict(zip(terms.names, all_, strict=True))
            list(pool.map(lambda owner: _relay(fixed, by_name, owner), terms.names))
            if outcome == "counts":
                _check_counts(all_[0].ask("count")[0], partners, size)
            else:
                for shared, _ in pool.map(lambda one: one.ask("rows"), all_):
                    _check(set(shared.values()) == {size // 2}, "rows")
            seconds = time.perf_counter() - began
            return {"outcome": outcome, **_costs(all_, before, seconds, size)}


def _relay(fixed: Manifest, by_name: Mapping[str, Party], owner: str) -> None:
    """Carry one list all its way, and for rows its tokens."""
    for stretch in stretches(fixed.terms, owner):
        sender, receiver = by_name[stretch.sender], by_name[stretch.receiver]
        for index in range(fixed.terms.chunks(fixed.of(owner).size)):
            _, parcel = sender.ask("give", address=asdict(stretch.address(index)))
            sender.sent += len(parcel)
            receiver.ask("take", parcel)


def peer(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield what OpenMined's intersections cost."""
    python = _environment(settings.folder / "peer")
    idle = _idle([python, str(HERE / "matching_peer.py"), "-1", "0"])
    for size in settings.sizes:
        for both in (False, True):
            if 2 * size <= settings.most and not (both and 4 * size > settings.most):
                yield _intersected(python, size, asking=2 if both else 1) | {"idle": idle}


def _intersected(python: str, size: int, asking: int) -> dict[str, Any]:
    """Let the first party, or both, ask the other."""
    commands = [[python, str(HERE / "matching_peer.py"), str(place), str(size)] for place in (0, 1)]
    with parties(commands) as all_, ThreadPoolExecutor(4) as pool:
        pairs = [(all_[one], all_[1 - one]) for one in range(asking)]
        before = [one.cost() for one in all_]
        began = time.perf_counter()
        setups = [pool.submit(_given, server, "setup", others=size) for _, server in pairs]
        requests = [pool.submit(_given, client, "request") for client, _ in pairs]
        answers = [
            pool.submit(_given, server, "process", request.result())
            for (_, server), request in zip(pairs, requests, strict=True)
        ]
        ends = []
        for (client, _), setup, answer in zip(pairs, setups, answers, strict=True):
            data, split = setup.result() + answer.result(), len(setup.result())
            ends.append(pool.submit(client.ask, "intersect", data, split=split))
        for end in ends:
            _check(end.result()[0]["shared"] == size // 2, "OpenMined's rows")
        seconds = time.perf_counter() - began
        return {"outcome": "both learn" if asking == 2 else "one learns", **_costs(all_, before, seconds, size)}


def _given(party: Party, what: str, data: bytes = b"", **facts: int) -> bytes:
    _, answer = party.ask(what, data, **facts)
    party.sent += len(answer)
    return answer


def _costs(all_: Sequence[Party], before: Sequence[Mapping[str, Any]], seconds: float, size: int) -> dict[str, Any]:
    after = [one.cost() for one in all_]
    busy = [one["busy"] - other["busy"] for one, other in zip(after, before, strict=True)]
    return {
        "partners": len(all_),
        "size": size,
        "seconds": seconds,
        "busy": sum(busy),
        "sent": max(one.sent for one in all_),
        "peak": max(one["peak"] for one in after),
        "identifiers": max(one["peak"] for one in before),
    }


def _check_counts(overlap: Mapping[str, Any], partners: int, size: int) -> None:
    """Hold noisy counts to what is known: everybody's half, and each party's own."""
    for cell in overlap["cells"]:
        many = len(cell["partners"])
        known = size / 2 if many in {1, partners} else 0
        _check(abs((cell["customers"] or 0) - known) <= 8 * cell["deviation"], "counts")


def _check(holds: bool, what: str) -> None:  # noqa: FBT001 - a verdict
    if not holds:
        raise SystemExit(f"{what} are wrong: no time is worth anything")


def _idle(command: Sequence[str]) -> int:
    with parties([command]) as (one,):
        return int(one.cost()["peak"])


def _environment(folder: Path) -> str:
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PEERS], check=True)
    return python


def single(_: Settings) -> Iterator[dict[str, list[float]]]:
    """Yield what single operations cost."""
    yield primitives()


PARTS: dict[str, Callable[[Settings], Iterator[Any]]] = {PRIMITIVES: single, OURS: ours, PEER: peer}


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was written is removed
    parser = arguments_for(__doc__ or "")
    parser.add_argument(
        "--sizes", nargs="*", type=int, default=list(SIZES), help="customers of each party, even numbers"
    )
    parser.add_argument("--partners", nargs="*", type=int, default=list(PARTNERS))
    parser.add_argument("--outcomes", nargs="*", choices=OUTCOMES, default=list(OUTCOMES))
    parser.add_argument("--most", type=int, default=5_000_000, help="customers of all parties together")
    parser.add_argument("--quick", action="store_true", help="10,000 and 100,000 customers alone")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--keep", type=Path, help="file of what was measured; what is in it stands on the page")
    parser.add_argument("--quiet", type=float, default=math.inf, help="load to wait for before each part")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="a folder on a disk")
    arguments = parser.parse_args()
    kept = json.loads(arguments.keep.read_bytes()) if arguments.keep and arguments.keep.exists() else {}
    sizes = [size for size in arguments.sizes if not arguments.quick or size <= 100_000]
    for part in arguments.parts:
        with tempfile.TemporaryDirectory(dir=arguments.folder, prefix=".matching-benchmark-") as folder:
            before = load(arguments.quiet)
            settings = Settings(Path(folder), sizes, arguments.partners, arguments.outcomes, arguments.most)
            for measured in PARTS[part](settings):
                print(measured, flush=True)
                kept.setdefault(part, []).append({"measured": measured, "load": [before, load()]})
                before = load()
                if arguments.keep:
                    write_durably(arguments.keep, json.dumps(kept).encode())
    text = page(kept, __doc__ or "")
    print(text)
    if arguments.output:
        write_durably(arguments.output, text.encode())


if __name__ == "__main__":
    main()
