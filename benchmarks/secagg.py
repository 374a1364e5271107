"""What a secure sum costs: ours against Flower's SecAgg+ and against CKKS by TenSEAL, in one run and in turns.

3, 10 and 30 partners, 1,000,000 parameters, all in this process, on one core. All times are seconds of processor time,
so that other work on the machine counts little; `wall_over_processor_time` says how much of it there was. A client's
figure is the mean over the partners of one repetition; medians, least and greatest are over repetitions.

    pip install tenseal==0.3.18
    python benchmarks/secagg.py --output benchmarks/results/secagg.json

What is comparable:

- The same float32 vectors, so the same sums; what each computes from a vector to its bytes, and from bytes to the sum.
- "set_up" and "sum" apart. Ours is set up once for an epoch of 20 sums: `client_seconds_amortised` is a sum and a 20th
  of that, `client_seconds_alone` a sum and the set-up of an epoch of one. SecAgg+ is set up anew for every sum. The
  keys of CKKS are made once, and are not counted in its sum.

What is not:

- What is promised. Ours: signed by pinned identities, masks bound to plan, model, cohort and step, a signed survivor
  list, all keys of 256 bits. SecAgg+: unsigned keys, masks from a generator seeded with 32 bits. CKKS: no drop-outs or
  threshold; every client holds the one secret key, and whoever holds it and sees a ciphertext opens it.
- Thresholds: ours is the least T > 2n/3 (3, 7, 21); SecAgg+ rounds 2n/3 (2, 7, 20).
- Quantisation: SecAgg+ clips and rounds floats inside its client function (`quantising_seconds`, and a ratio without
  it). Ours starts from whole numbers, which training makes a customer at a time, and is clamped inside the figure.
- Noise: only ours has any to draw; it is measured apart, and no error is of noise. An error in ours is that of
  rounding the vectors to units, of which `units` make 1; the sum of the whole numbers must be exact, or the run fails.
- Bytes: all messages of a client, without transport. Ours as its own codec writes them, SecAgg+ as Flower's protocol
  buffers, CKKS as TenSEAL's serialised ciphertexts. Writing and reading them is in the seconds of ours and of CKKS; of
  SecAgg+ only what its functions do themselves, the protocol buffers not. A client's state on disk is in no figure.
- CKKS: N = 8192, scale 2^40. "usual" has moduli of 60, 40 and 60 bits and a public key; "lean" has one prime of data,
  as few as can be, and encrypts with the secret key. A client's sum is to encrypt and serialise; opening comes on
  top of it, for whoever opens (`client_open_seconds`), and is not in the ratios.
- Drop-outs: so many partners are gone when masked vectors are collected. The coordinator's time is shown.
"""

import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from conditions import arguments_for, conditions, publish
from numpy.typing import NDArray

REPEATS = {3: 5, 10: 5, 30: 3}
SPREAD = 7.5  # within what SecAgg+ clips at, so that no error is of clipping

Figures = dict[str, float]


def vectors_for(partners: int, parameters: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(partners)
    return [rng.standard_normal(parameters, dtype=np.float32).clip(-SPREAD, SPREAD) for _ in range(partners)]


def told(runs: Sequence[Mapping[Any, float]]) -> dict[str, Any]:
    """Return median, least and greatest of every figure."""
    return {str(name): spread([run[name] for run in runs]) for name in runs[0]}


def spread(values: Sequence[float]) -> Figures:
    kinds = (("median", statistics.median), ("min", min), ("max", max))
    return {kind: round(of(values)) if of(values) >= 1000 else float(f"{of(values):.4g}") for kind, of in kinds}


def ratios(turn: Mapping[str, Figures]) -> Figures:
    """Return a client's seconds elsewhere over ours, of one turn."""
    ours, flower = turn["ours"], turn["secagg_plus"]
    there = flower["client_set_up_seconds"] + flower["client_sum_seconds"]
    amortised, alone = ours["client_seconds_amortised"], ours["client_seconds_alone"]
    return {
        "secagg_plus_over_ours_amortised": there / amortised,
        "secagg_plus_over_ours_alone": there / alone,
        "secagg_plus_without_quantising_over_ours_amortised": (there - flower["quantising_seconds"]) / amortised,
        "secagg_plus_without_quantising_over_ours_alone": (there - flower["quantising_seconds"]) / alone,
        "secagg_plus_server_over_ours": flower["server_seconds"] / ours["server_seconds_amortised"],
        "secagg_plus_bytes_over_ours": flower["sum_bytes_up"] / ours["sum_bytes_up"],
        **{
            f"{name}_{what}_over_ours": turn[name][figure] / base
            for name in ("ckks_usual", "ckks_lean")
            for what, figure, base in (
                ("client", "client_sum_seconds", amortised),
                ("bytes", "sum_bytes_up", ours["sum_bytes_up"]),
            )
        },
    }


def measured(partners: int, parameters: int, repeat: int) -> dict[str, Any]:
    """Measure all kinds in turns, so that a slow minute of the machine is a slow minute of every one."""
    from secagg_ours import of_ours, threshold_of
    from secagg_peers import of_ckks, of_flower, quantising

    vectors, most = vectors_for(partners, parameters), partners - threshold_of(partners)
    turns: list[dict[str, Figures]] = []
    drop_outs: list[dict[int, float]] = []
    theirs: list[dict[int, float]] = []
    for _ in range(repeat):
        ours, without = of_ours(vectors)
        flower = of_flower(vectors) | {"quantising_seconds": quantising(vectors[0])}
        ckks = {f"ckks_{setting}": of_ckks(vectors, setting) for setting in ("usual", "lean")}
        turns.append({"ours": ours, "secagg_plus": flower, **ckks})
        drop_outs.append(without)
        theirs.append({most: of_flower(vectors, most)["server_seconds"]} if most else {})
    return {
        "threshold": threshold_of(partners),
        "repetitions": repeat,
        **{kind: told([turn[kind] for turn in turns]) for kind in turns[0]},
        "drop_outs": {"ours_server_seconds": told(drop_outs), "secagg_plus_server_seconds": told(theirs)},
        "ratios": told([ratios(turn) for turn in turns]),
    }


def on_one_core() -> None:
    """Keep to one core: Flower's shares and TenSEAL would start threads of their own."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main() -> None:
    parser = arguments_for(__doc__)
    parser.add_argument("--partners", type=int, nargs="+", default=list(REPEATS))
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, help="repetitions, instead of 5, 5 and 3")
    arguments = parser.parse_args()
    if importlib.util.find_spec("tenseal") is None:
        print("secagg.py compares with TenSEAL, which is not installed: pip install tenseal==0.3.18", file=sys.stderr)
        sys.exit(2)
    from secagg_ours import SHARE, STEPS, noise_seconds

    on_one_core()
    began = time.perf_counter(), time.process_time()
    noise_seconds(arguments.parameters)  # makes its table, once for each scale
    measured(3, arguments.parameters, 1)  # for warming up
    noise = spread([noise_seconds(arguments.parameters) for _ in range(9)])
    counts = {
        str(partners): measured(partners, arguments.parameters, arguments.repeat or REPEATS.get(partners, 3))
        for partners in arguments.partners
    }
    wall, processor = time.perf_counter() - began[0], time.process_time() - began[1]
    result = {
        "what": f"one secure sum of {arguments.parameters} parameters, seconds of processor time on one core",
        **conditions("flwr", "tenseal", "numpy", "cryptography"),
        "wall_over_processor_time": round(wall / processor, 2),
        "sums_in_an_epoch": STEPS,
        "noise": {"scale": SHARE, "draws": arguments.parameters, "seconds": noise},
        "partners": counts,
    }
    publish(result, arguments.output)


if __name__ == "__main__":
    main()
