"""What was measured of matches, as a page, with what was aimed at and whether it was met."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from conditions import conditions

__all__ = ["OURS", "PEER", "PRIMITIVES", "page"]

PRIMITIVES, OURS, PEER = "primitives", "ours", "peer"
"""Parts of what is measured."""

FASTER = 2.5  # times as fast as OpenMined, at
AT = 100_000  # customers of each of two parties; and
LARGE, MINUTES, MEMORY = 1_000_000, 4, 500e6  # so many in so many minutes, below so many bytes; and
LINEAR = 1.25  # times the processor time for an identifier, at most, for ten times the identifiers
_MIB = 1 << 20

Row = Mapping[str, Any]
Rows = Sequence[Row]


def page(kept: Mapping[str, Any], about: str) -> str:
    """Return the results as a page.

    Args:
        kept: What each part measured, in one or more goes; of what was measured twice the last stands.
        about: The benchmark's docstring.
    """
    said = conditions("cryptography", "numpy", "phonenumbers")
    versions = ", ".join(f"{name} {version}" for name, version in said["versions"].items())
    lines = [
        "# Matching beside OpenMined's private set intersection",
        "",
        f"`benchmarks/matching.py`, {said['date']}, {said['machine']}, Python {said['python']}, {versions},",
        "libsodium of the system, openmined-psi 2.0.6 in an environment of its own.",
        '"Load" is how many processes wanted to run on the machine in the minute before.',
        "",
        *about.split("\n\n", 2)[2].strip().splitlines(),
    ]
    ours, peer = _rows(kept.get(OURS, [])), _rows(kept.get(PEER, []))
    if ours:
        lines += ["", "## Aims", "", *_aims(ours, peer)]
        lines += ["", "## Matches", "", *_table(ours)]
    if peer:
        lines += ["", "## OpenMined's intersections, two parties", "", *_table(peer)]
    if ours and peer:
        lines += ["", "## Beside each other, two parties", "", *_beside(ours, peer)]
    if PRIMITIVES in kept:
        lines += ["", "## One operation, in microseconds", "", *_primitives(kept[PRIMITIVES][-1])]
    return "\n".join([*lines, *_ELSEWHERE]) + "\n"


_ELSEWHERE = """
## Elsewhere

SecretFlow's RR22 (SPU 0.9.5) took 12.4 s of processor time for 1,000,000 x 1,000,000, measured apart on two cores of
the same kind: about 17 times less than two parties need here, since it does not compute in a group for every
identifier. It cannot be had beside Flower (it needs numpy below 2 and Python below 3.12), each party must reach the
other, and nobody can relay between them. `docs/decisions/0030-matching-group.md` has what else was looked at.
""".splitlines()


def _rows(goes: Sequence[Mapping[str, Any]]) -> Rows:
    measured = ({**one["measured"], "load": one["load"][0].split(",")[0]} for one in goes)
    last = {(row["size"], row["partners"], row["outcome"]): row for row in measured}
    return [last[key] for key in sorted(last)]


def _find(rows: Rows, size: int, outcome: str, partners: int = 2) -> Row | None:
    wanted = (size, partners, outcome)
    return next((row for row in rows if (row["size"], row["partners"], row["outcome"]) == wanted), None)


def _aims(ours: Rows, peer: Rows) -> Iterator[str]:
    for outcome in ("counts", "rows"):
        mine, other = _find(ours, AT, outcome), _find(peer, AT, "both learn")
        if mine and other:
            times, work = other["seconds"] / mine["seconds"], other["busy"] / mine["busy"]
            aim = f"{FASTER} times as fast as OpenMined where both learn"
            # By the clock they are comparable only if the machine was as busy: work must say the same.
            met = min(times, work) >= FASTER
            told = f"{times:.2f} by the clock, at loads of {other['load']} and {mine['load']}; {work:.2f} by work"
            yield f"- {AT:,} x {AT:,}, {outcome}: {aim}. {_word(met)}: {told}."
    for outcome in ("counts", "rows"):
        if row := _find(ours, LARGE, outcome):
            minutes = row["seconds"] / 60
            idle = row["busy"] / (os.cpu_count() or 1) / 60
            aim = f"within {MINUTES} minutes on two cores"
            told = f"{minutes:.1f} at a load of {row['load']}; its work is {idle:.1f} minutes of two cores"
            yield f"- {LARGE:,} x {LARGE:,}, {outcome}: {aim}. {_word(minutes <= MINUTES)}: {told}."
            aim, peak = f"less than {MEMORY / 1e6:.0f} MB a party", row["peak"]
            yield f"- {LARGE:,} x {LARGE:,}, {outcome}: {aim}. {_word(peak < MEMORY)}: {peak / 1e6:.0f} MB."
        few, many = _find(ours, AT, outcome), _find(ours, LARGE, outcome)
        if few and many:
            growth = _per_id(many) / _per_id(few)
            aim = f"at most {LINEAR} times the processor time for an identifier, for ten times the identifiers"
            yield f"- {outcome}: {aim}. {_word(growth <= LINEAR)}: {growth:.2f}."


def _word(met: bool) -> str:  # noqa: FBT001 - a verdict is what it is about
    return "Met" if met else "Missed"


def _per_id(row: Row) -> float:
    return float(row["busy"] / row["size"] / row["partners"] * 1e6)


_COLUMNS = (
    "customers of each",
    "parties",
    "what",
    "seconds",
    "CPU seconds of all",
    "CPU us per id",
    "ids a second",
    "MB relayed of a party",
    "MB peak of a party",
    "of it with identifiers, at the start",
    "idle",
    "load",
)


def _table(rows: Rows) -> Iterator[str]:
    yield f"| {' | '.join(_COLUMNS)} |"
    yield "|" + "---|" * len(_COLUMNS)
    for row in rows:
        rate = row["size"] * row["partners"] / row["seconds"]
        memory = " | ".join(f"{row[name] / 1e6:,.0f}" for name in ("peak", "identifiers", "idle"))
        yield (
            f"| {row['size']:,} | {row['partners']} | {row['outcome']} | {row['seconds']:.1f} | {row['busy']:.1f} | "
            f"{_per_id(row):.0f} | {rate:,.0f} | {row['sent'] / 1e6:.1f} | {memory} | {row['load']} |"
        )


def _beside(ours: Rows, peer: Rows) -> Iterator[str]:
    yield "How many times our time, work and bytes OpenMined has; above 1 it has more."
    yield ""
    yield "| customers of each | ours | OpenMined | seconds | CPU seconds | bytes | peak of memory |"
    yield "|---|---|---|---|---|---|---|"
    for mine in ours:
        for who in ("one learns", "both learn"):
            other = _find(peer, mine["size"], who)
            if mine["partners"] == 2 and other:
                ratios = " | ".join(f"{other[name] / mine[name]:.2f}" for name in ("seconds", "busy", "sent", "peak"))
                yield f"| {mine['size']:,} | {mine['outcome']} | {who} | {ratios} |"


def _primitives(last: Mapping[str, Any]) -> Iterator[str]:
    yield f"Load {last['load'][0].split(',')[0]}."
    yield ""
    yield "| what | by the clock | of processor time |"
    yield "|---|---|---|"
    for what, (clock, busy) in last["measured"].items():
        yield f"| {what} | {clock:.1f} | {busy:.1f} |"
