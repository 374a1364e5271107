"""Taking customers' identifiers into the vault, for matching and nothing else.

They are made canonical on their way in (`coterie.privacy.matching.identifiers`), so that they are judged once, where
their owner sees what was rejected; a match reads what is sealed. Sealing them is the operator's approval that they may
be matched, by plans that the policy permits and the operator approves.

Guarantees:
    A data set of identifiers holds one row of a customer and kind at most: whoever adds or removes a customer changes a
    list of identifiers by one item at most.

Leaks:
    Nothing leaves. What was rejected is in a local report, by row and reason, and never by value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coterie.clients.identifiers import REPORT, SEALED, Identified, Rows
from coterie.clients.opening import check_columns
from coterie.clients.sealing import See, stage, unseen
from coterie.clients.tables.newfile import NewFile
from coterie.clients.tables.table import Table
from coterie.clients.vault import IDENTIFIERS, Vault
from coterie.privacy.errors import ContractFault, Fault

__all__ = ["Taken", "take_in_identifiers"]


@dataclass(frozen=True)
class Taken:
    """What became of a table of identifiers; for the partner's own eyes.

    Args:
        taken: How many customers have an identifier of each kind.
        rejected: How many rows were rejected, by kind and reason.
        report: The file that names their rows.
    """

    taken: Mapping[str, int]
    rejected: Mapping[tuple[str, str], int]
    report: Path


def take_in_identifiers(vault: Vault, table: Table, where: Identified, *, see: See = unseen) -> Taken:
    """Make a table's identifiers canonical and seal them; what was sealed before is replaced.

    The memory that is used does not grow with the rows, but for 16 bytes of each customer and kind, by which a second
    identifier is found, and three times that for a moment.

    Args:
        vault: The partner's.
        table: The customers.
        where: Which columns say what.
        see: Is told of progress.

    Raises:
        ContractFault: A column is missing, there twice or of another type; a row names no customer; no kind is asked
            for, or an unknown one; the region is no country's; or no identifier is left. The vault is left as it was.
        FileFault: The vault or the report cannot be written; the vault is left as it was.
        KeyFault: The key source does not answer.
    """
    where.check()
    check_columns(table, where.wanted)
    report = vault.workspace.root / "reports" / "identifiers-rejected.csv"
    report.unlink(missing_ok=True)
    with NewFile(report, REPORT) as rejected:
        rows = Rows(table, where, rejected)
        staged = stage(vault, IDENTIFIERS, rows.pieces(), schema=SEALED, customer="customer", see=see)
    if not rows.taken.total():
        staged.drop()
        rule, fix = "has no identifier that can be taken", f"see why in {report}, and check the columns and the region"
        raise ContractFault(Fault(table.place, rule, fix))
    staged.commit("sealed")
    vault.workspace.approve_identifiers()
    return Taken(dict(rows.taken), dict(sorted(rows.rejected.items())), report)
