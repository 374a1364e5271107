"""One bad reply of five: what Flower's FedAvg makes of sixteen kinds, and what this coordinator makes of them and more.

    python benchmarks/bad_replies.py --output benchmarks/results/bad_replies.md

Flower's strategy is called with five replies of 1,000 numbers. Ours runs whole studies of five partners over the
in-process grid, with one partner's answer of the second of three rounds replaced. A kind is harmless where the model is
that of the other four: to the last bit for ours, to 1e-5 for Flower's.
"""

import contextlib
import io
import logging
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / ".dev"))  # the tests' own federation and catalogue

import numpy as np
from conditions import arguments_for, conditions
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from coterie.privacy.durable import write_durably
from coterie.privacy.plan import Partner, Plan
from coterie.tests.clients.federation import MORE, Federation, study, table_of
from coterie.tests.clients.summing import quick_folder
from coterie.tests.server import badreplies as bad

SIZE, NODES = 1000, 5
HARMLESS, CORRUPTS, RAISES = "harmless", "corrupts the model", "ends the run"

PLAN: Plan = study(
    partners=tuple(Partner(name=name, customers=120) for name in MORE[:NODES]),
    privacy__threshold=4,
    training__rounds=3,
    metrics__rounds=(3,),
)


def replied(array: object, examples: float = 100) -> RecordDict:
    """Return a reply to Flower's strategy."""
    record = ArrayRecord({"w": Array(np.asarray(array))})
    return RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": examples})})


def flowers(honest: np.ndarray) -> dict[str, RecordDict]:
    """Return the kinds, as replies to Flower's strategy."""
    nan, inf = honest.copy(), honest.copy()
    nan[3], inf[3] = np.nan, np.inf
    more = replied(honest)
    more["arrays"]["v"] = Array(honest)
    return {
        "one NaN": replied(nan),
        "one infinity": replied(inf),
        "a million times as much": replied(honest * np.float32(1e6)),
        "shape (1,)": replied(np.ones(1, np.float32)),
        "shape (n, 1)": replied(honest.reshape(-1, 1)),
        "one number too few": replied(honest[:-1]),
        "int8": replied(np.full(SIZE, 127, np.int8)),
        "float64 1e300": replied(np.full(SIZE, 1e300)),
        "an array missing": RecordDict({"arrays": ArrayRecord({}), "metrics": more["metrics"]}),
        "an array too many": more,
        "no metrics": RecordDict({"arrays": ArrayRecord({"w": Array(honest)})}),
        "no records": RecordDict({}),
        "num-examples 1e12": replied(honest, 10**12),
        "num-examples -400": replied(honest, -400),
        "num-examples 0": replied(honest, 0),
        "num-examples NaN": replied(honest, float("nan")),
    }


def counted(examples: float) -> Callable[[bad.Scene], object]:
    """Return the way in which a partner of ours claims to have so many examples."""
    return bad.records(lambda r: {**r, "metrics": MetricRecord({"num-examples": examples})})


OURS: dict[str, Callable[[bad.Scene], object]] = {
    "one NaN": bad.NUMBERS["NaN"],
    "one infinity": bad.NUMBERS["infinity"],
    "a million times as much": bad.NUMBERS["a million times as much"],
    "shape (1,)": bad.SHAPES["one number for all"],
    "shape (n, 1)": bad.SHAPES["a column"],
    "one number too few": bad.SHAPES["one number too few"],
    "int8": bad.TYPES["int8"],
    "float64 1e300": bad.TYPES["float64 beyond float32"],
    "an array missing": bad.SHAPES["an array too few"],
    "an array too many": bad.SHAPES["an array too many"],
    "no metrics": bad.RECORDS["no release's record"],
    "no records": bad.RECORDS["no records"],
    "num-examples 1e12": counted(10**12),
    "num-examples -400": counted(-400),
    "num-examples 0": counted(0),
    "num-examples NaN": counted(float("nan")),
}


def flower(content: RecordDict, honest: list[np.ndarray]) -> str:
    """Return what becomes of Flower's round with this reply as the third of five."""
    contents = [replied(array) for array in honest]
    contents[2] = content
    replies = [Message(one, dst_node_id=node, message_type="train") for node, one in enumerate(contents, start=1)]
    try:
        made, _ = FedAvg().aggregate_train(1, replies)
        got = made["w"].numpy()
    except Exception as error:  # noqa: BLE001 - whatever it is, it ends the run
        return f"{RAISES} ({type(error).__name__})"
    expected = np.mean([array for place, array in enumerate(honest) if place != 2], axis=0)
    same = got.shape == expected.shape and np.allclose(got, expected, rtol=1e-5, atol=1e-6)
    return HARMLESS if same else CORRUPTS


class Studies:
    """Studies that begin alike; `run` replaces one answer and returns the model and what was written down."""

    def __init__(self, ground: Path) -> None:
        self._ground, self._count = ground, 0
        self._start = Federation(ground / "start", PLAN, {name: table_of(name, 60) for name in MORE[:NODES]})

    def run(self, instead: Callable[[bad.Scene], object] | None) -> tuple[bytes, str]:
        """Run one study."""
        self._count += 1
        folder = shutil.copytree(self._start.root, self._ground / f"study-{self._count}")
        federation = Federation(folder, PLAN)
        progress = federation.run(bad.BadGrid(federation, instead))
        shutil.rmtree(folder)
        said = {refusal.why or refusal.code for refusal in progress.refusals if refusal.step == "train"}
        return b"".join(array.tobytes() for array in progress.weights), "; ".join(sorted(said))


def ours(studies: Studies, instead: Callable[[bad.Scene], object], without: bytes) -> tuple[str, str]:
    """Return what becomes of our study, and what is written down."""
    try:
        model, said = studies.run(instead)
    except Exception as error:  # noqa: BLE001 - it is what is looked for
        return f"{RAISES} ({type(error).__name__})", ""
    return (HARMLESS if model == without else CORRUPTS), said


def lines(flowers_said: dict[str, str], studies: Studies) -> list[str]:
    """Return both tables as Markdown."""
    without = studies.run(bad.nothing)[0]
    if without == studies.run(None)[0]:
        raise SystemExit("the partner changes nothing: there is nothing to compare")
    here = {name: ours(studies, instead, without) for name, instead in OURS.items()}
    catalogue = {**bad.REJECTED, **bad.SILENT, **bad.WORDS}
    every = {name: ours(studies, instead, without) for name, instead in catalogue.items()}
    told = [f"| {name} | {flowers_said[name]} | {here[name][0]} | {here[name][1]} |" for name in OURS]
    good = [sum(said == HARMLESS for said in flowers_said.values()), sum(one == HARMLESS for one, _ in here.values())]
    harmless = sum(one == HARMLESS for one, _ in every.values())
    return [
        *("| one bad reply of five | Flower's FedAvg | coterie | what coterie writes down |", "|---|---|---|---|"),
        *told,
        f"| **harmless** | **{good[0]} of {len(OURS)}** | **{good[1]} of {len(OURS)}** | |",
        "",
        f"## The whole catalogue: {harmless} of {len(every)} harmless",
        "",
        *("| kind | outcome | what is written down |", "|---|---|---|"),
        *(f"| {name} | {one} | {said} |" for name, (one, said) in every.items()),
    ]


def main() -> None:
    """Print the tables, and write them down where it is asked for."""
    arguments = arguments_for(__doc__).parse_args()
    logging.disable(logging.ERROR)
    draw = np.random.default_rng(1)
    honest = [draw.normal(0, 0.1, SIZE).astype(np.float32) for _ in range(NODES)]
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        with quick_folder() as ground:
            studies = Studies(ground)
            studies.run(None)  # Flower's messages can be made once there has been a grid
            flowers_said = {name: flower(content, honest) for name, content in flowers(honest[2]).items()}
            tables = lines(flowers_said, studies)
    met = conditions("flwr", "numpy")
    versions = ", ".join(f"{name} {version}" for name, version in met["versions"].items())
    head = [
        *("# Bad replies", "", f"`benchmarks/bad_replies.py`, {met['date']}, Python {met['python']}, {versions}.", ""),
        "Harmless: the run goes on, and the model is that of the other four partners; ours to the last bit,",
        "Flower's to 1e-5. Weights are the plan's public constants with us: a reply that brings a number of examples",
        "is refused. What lies within a plan's bounds is formally permitted: one partner's update may be as long as",
        "its clip, noise and sixteen times its declared customers allow.",
        "",
    ]
    text = "\n".join([*head, *tables]) + "\n"
    print(text)
    if arguments.output is not None:
        write_durably(arguments.output, text.encode())


if __name__ == "__main__":
    main()
