"""What was measured of the vault, as a page, with what was aimed at and whether it was met."""

import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conditions import conditions
from vault_data import NUMBERS, SCHEMA, SENSITIVE, STUDY
from vault_tamper import CASES, FORMATS, SAME
from vault_timing import OURS, PEER, PLAIN, WHO

__all__ = ["CHANGES", "MEMORY", "TIMES", "page"]

TIMES, MEMORY, CHANGES = "times", "memory", "changes"
"""Parts of what is measured."""

SLOWEST = 1.5  # times plain Parquet, for the columns of a study, and
LEAST = 500_000  # sensitive fields a second, and
CONSTANT = 1.1  # times the memory for four times the rows, or, as allocators vary,
SLACK = 4  # MiB more: what is aimed at
_SEALS = ("seal from memory", "take in a Parquet file", "take in a CSV file")
_OPENS = (f"read the {len(STUDY)} columns of a study", f"read {len(NUMBERS)} numeric columns")
_ALIKE = (
    "seal pieces",
    "take in a Parquet file",
    "take in a CSV file",
    "rotate the key-encryption key",
    "rotate one column's data key",
    "erase one customer",
)
_MIB = 1 << 20


@dataclass(frozen=True)
class Figure:
    """What something took, each time.

    Args:
        seconds: By the clock.
        busy: Seconds of processor time, of all threads together.
    """

    seconds: tuple[float, ...]
    busy: tuple[float, ...]

    @property
    def middle(self) -> float:
        return statistics.median(self.seconds)

    @property
    def work(self) -> float:
        return statistics.median(self.busy)

    def __str__(self) -> str:
        unit, name = (1e3, "ms") if self.middle < 1 else (1, "s")
        told = (self.middle, min(self.seconds), max(self.seconds), self.work)
        middle, least, most, work = (_digits(one * unit) for one in told)
        return f"{middle} {name} ({least} to {most}), {work} of work"


def _digits(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


Figures = Mapping[str, Mapping[str, Figure]]
"""By what was done, and by whom."""


def page(kept: Mapping[str, Any], about: str) -> str:
    """Return the results as a page.

    Args:
        kept: What each part measured; those that are missing are left out.
        about: The benchmark's docstring.
    """
    said = conditions("pyarrow", "cryptography", "numpy")
    versions = ", ".join(f"{name} {version}" for name, version in said["versions"].items())
    loads = (f"{part} {one['load'][0]}, after it {one['load'][1]}" for part, one in kept.items())
    lines = [
        "# The vault beside Parquet",
        "",
        f"`benchmarks/vault.py`, {said['date']}, {said['machine']}, Python {said['python']}, {versions}.",
        f"Load of the machine (1, 5, 15 minutes) before {'; before '.join(loads)}.",
        "",
        *about.split("\n\n", 2)[2].strip().splitlines(),
    ]
    tables = {TIMES: _of_times, MEMORY: _of_memory, CHANGES: _of_changes}
    for part, table in tables.items():
        if part in kept:
            lines += table(kept[part])
    return "\n".join(lines) + "\n"


def _of_times(part: Mapping[str, Any]) -> list[str]:
    places: dict[str, Figures] = {
        place: {what: {who: Figure(*zip(*each, strict=True)) for who, each in by.items()} for what, by in all_.items()}
        for place, all_ in part["places"].items()
    }
    lines = ["", "## Aims of time", "", *_aims(places, part["rows"])]
    for place, figures in places.items():
        lines += ["", f"## Time, on {place}: {part['rows']:,} rows, {len(SCHEMA)} columns", ""]
        lines += [f"Medians of {part['repeats']}, with least and most.", "", *_times(figures)]
    lines += ["", "## Sealing, by the second", "", *_rates(places, part["rows"])]
    return [*lines, "", "## Size", "", *_sizes(part["sizes"] | {"Arrow, in memory": part["arrow"]}, part["arrow"])]


def _of_memory(part: Mapping[str, Any]) -> list[str]:
    few, many = ({what: max(all_) for what, all_ in peaks.items()} for peaks in part["peaks"].values())
    rows = [int(one) for one in part["peaks"]]
    lines = ["", f"## Peak memory, the greatest of {part['repeats']}", "", *_memory(few, many, rows)]
    return [*lines, "", "## Aims of memory", "", *_constant(few, many, rows)]


def _of_changes(part: Mapping[str, Any]) -> list[str]:
    return ["", "## Changed files", "", *_changes(part["formats"])]


def _aims(places: Mapping[str, Figures], rows: int) -> Iterator[str]:
    cores = os.cpu_count() or 1
    for place, figures in places.items():
        for what in _OPENS:
            ours, plain = figures[what][OURS], figures[what][PLAIN]
            ratio, work = ours.middle / plain.middle, ours.work / plain.work
            said = f"- {place}, {what}: at most {SLOWEST} of plain Parquet's time."
            idle = f"at most {work * cores:.2f} where it has {cores} cores to itself"
            yield f"{said} {_word(ratio <= SLOWEST)}: {ratio:.2f} (of its work: {work:.2f}; {idle})."
    for place, figures in places.items():
        for what in _SEALS:
            rate = rows * len(SENSITIVE) / figures[what][OURS].middle
            said = f"- {place}, {what}: at least {LEAST:,} sensitive fields a second."
            yield f"{said} {_word(rate >= LEAST)}: {rate:,.0f}."


def _constant(few: Mapping[str, int], many: Mapping[str, int], rows: Sequence[int]) -> Iterator[str]:
    for what in _ALIKE:
        one, other = few[what] / _MIB, many[what] / _MIB
        times = f"{rows[1] / rows[0]:g} times the rows"
        aim = f"at most {CONSTANT} times the memory, or {SLACK} MiB more, for {times}"
        yield f"- {what}: {aim}. {_word(other <= max(CONSTANT * one, one + SLACK))}: {one:.0f} MiB, then {other:.0f}."


def _word(met: bool) -> str:  # noqa: FBT001 - a verdict is what it is about
    return "Met" if met else "Missed"


def _times(figures: Figures) -> Iterator[str]:
    yield f"| what | {OURS} | {PLAIN} | of its time | of its work | {PEER} | of its time | of its work |"
    yield "|---|---|---|---|---|---|---|---|"
    for what, by in figures.items():
        cells = [str(by[OURS])]
        for who in (PLAIN, PEER):
            cells += _beside(by[OURS], by[who]) if who in by else ["-", "-", "-"]
        yield f"| {what} | {' | '.join(cells)} |"


def _beside(ours: Figure, peer: Figure) -> list[str]:
    return [str(peer), f"{ours.middle / peer.middle:.2f}", f"{ours.work / peer.work:.2f}"]


def _rates(places: Mapping[str, Figures], rows: int) -> Iterator[str]:
    yield "| place | what | who | rows | sensitive fields | fields |"
    yield "|---|---|---|---|---|---|"
    for place, figures in places.items():
        for what in _SEALS:
            for who in WHO:
                rate = rows / figures[what][who].middle
                cells = " | ".join(f"{rate * fields:,.0f}" for fields in (1, len(SENSITIVE), len(SCHEMA)))
                yield f"| {place} | {what} | {who} | {cells} |"


def _sizes(sizes: Mapping[str, int], arrow: int) -> Iterator[str]:
    yield "| what | bytes | of plain Parquet | of the rows in memory |"
    yield "|---|---|---|---|"
    for what, many in sizes.items():
        yield f"| {what} | {many:,} | {many / sizes[PLAIN]:.4f} | {many / arrow:.4f} |"


def _memory(few: Mapping[str, int], many: Mapping[str, int], rows: Sequence[int]) -> Iterator[str]:
    yield f"| what | MiB, {rows[0]:,} rows | MiB, {rows[1]:,} rows | times as much | bytes for each row more |"
    yield "|---|---|---|---|---|"
    for what, one in few.items():
        other = many[what]
        growth = f"{other / one:.2f} | {(other - one) / (rows[1] - rows[0]):.1f}"
        yield f"| {what} | {one / _MIB:.0f} | {other / _MIB:.0f} | {growth} |"


def _changes(formats: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Iterator[str]:
    yield "How many changes came to what, one at a time. Where one was not noticed, the read ended without an error;"
    yield f'"{SAME}" came of bits that nothing reads.'
    yield ""
    yield f"| change | {' | '.join(FORMATS)} |"
    yield "|---|---|---|---|---|"
    for case in CASES:
        cells = (formats[name].get(case, {}) for name in FORMATS)
        said = (", ".join(f"{many} {word}" for word, many in sorted(cell.items())) or "-" for cell in cells)
        yield f"| {case} | {' | '.join(said)} |"
    yield ""
    yield "The vault cannot find out a whole older workspace, its ledger too: the coordinator keeps"
    yield "the last head that it saw of every ledger, and a node whose ledger does not extend it answers nothing."
