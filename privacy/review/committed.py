"""Records of exact counts that a partner shows, held against the entries that commit to them.

The ledger says of a charge's counts a commitment alone (`docs/formats/ledger.md`). Whoever is shown the record can tell
whether it is the one that was written down before the noise was drawn, and of which step it is.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from coterie.privacy.calibration import HOLDOUT, TRAINING
from coterie.privacy.charges import Entry
from coterie.privacy.counts import NO_RECORD, Record, record_of
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.review.bundle import BundleFault, read_parts
from coterie.privacy.review.kept import check_file
from coterie.privacy.schedule import MATCH

__all__ = ["Held", "held", "records_in"]

_MOST = 64 * 2**20  # bytes of a file of records


@dataclass(frozen=True)
class Held:
    """A record held against a ledger.

    Args:
        commitment: To the record.
        entry: Number of the entry that commits to it; 0 where none does.
        at: Its time, or "".
        plan: Digest of the plan that it charges for, or "".
        step: The step that it charges, or "".
        attempt: Which attempt at it; 0 where no entry commits.
        wrong: What does not fit, without a value of the record; "" where everything does.
    """

    commitment: str
    entry: int = 0
    at: str = ""
    plan: str = ""
    step: str = ""
    attempt: int = 0
    wrong: str = ""


def records_in(path: Path) -> tuple[Record, ...]:
    """Return the records in a file: one, or a list, as the partner's counts command prints them.

    Args:
        path: A JSON file.

    Raises:
        FileFault: It cannot be read, or something in it is no record.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST + 1)
        value = json.loads(data) if len(data) <= _MOST else None
    except OSError as error:
        raise FileFault(Fault(str(path), f"cannot be read ({error.strerror})", "check the path")) from None
    except (ValueError, RecursionError):
        value = None
    shown = value if isinstance(value, list) else [value]
    if not shown:
        raise FileFault(Fault(str(path), *NO_RECORD))
    return tuple(_record(one, f"{path}, record {number}") for number, one in enumerate(shown, start=1))


def _record(value: object, place: str) -> Record:
    """Read a record beside which its commitment may stand, which is computed here and not believed."""
    bare = {name: part for name, part in value.items() if name != "commitment"} if isinstance(value, dict) else value
    return record_of(bare, place)


def held(bundle: Path, records: Sequence[Record]) -> tuple[Held, ...]:
    """Say of each record which entry of a bundle commits to it; whether the bundle holds is for its review to say.

    Args:
        bundle: The bundle.
        records: What the partner shows.

    Raises:
        BundleFault: The bundle cannot be read, or is none, or breaks off.
    """
    wanted = [record.commitment for record in records]
    found = _charges(bundle, frozenset(wanted))
    return tuple(
        _held(record, commitment, found.get(commitment, ())) for record, commitment in zip(records, wanted, strict=True)
    )


def _charges(bundle: Path, wanted: Collection[str]) -> dict[str, list[Entry]]:
    """Return the charges, and disclosures, that commit to what is wanted."""
    found: dict[str, list[Entry]] = {}
    try:
        check_file(bundle)
        with bundle.open("rb") as file:
            for part, _ in read_parts(file):
                if part.kind == "entry" and part.value.kind in {"reserve", "disclosure"}:
                    rows = part.value.body.get("rows")
                    if isinstance(rows, str) and rows in wanted:
                        found.setdefault(rows, []).append(part.value)
    except OSError as error:
        raise BundleFault(Fault(str(bundle), f"cannot be read ({error.strerror})", "check the path")) from None
    return found


def _held(record: Record, commitment: str, entries: Sequence[Entry]) -> Held:
    if not entries:
        return Held(commitment, wrong="no entry commits to it: it was changed, or is not of this ledger")
    entry, body = entries[0], entries[0].body
    told = {name: str(body.get(name, "")) for name in ("plan", "purpose", "step", "attempt")}
    if entry.kind == "disclosure":  # it says neither: a plan discloses one list
        told |= {"step": f"{MATCH}/disclosure", "attempt": record.about.get("attempt", "")}
    other = [name for name, value in told.items() if record.about.get(name) != value]
    wrong = f"it tells another {' and '.join(other)} than the entry that commits to it" if other else ""
    if len(entries) > 1 and not _of_one_list(entries):
        wrong = "more than one entry commits to it, and each charge has counts of its own"
    attempt = body.get("attempt")
    return Held(
        commitment,
        entry.seq,
        entry.at,
        told["plan"],
        told["step"],
        attempt if isinstance(attempt, int) else 0,
        wrong,
    )


def _of_one_list(entries: Sequence[Entry]) -> bool:
    """Return whether entries are the charges of both customer groups for one list of a match."""
    lists = {(e.body.get("plan"), e.body.get("attempt")) for e in entries}
    steps = [str(entry.body.get("step")) for entry in entries]
    return len(lists) == 1 and sorted(steps) == [f"{MATCH}/{HOLDOUT}", f"{MATCH}/{TRAINING}"]
