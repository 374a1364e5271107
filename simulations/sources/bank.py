"""Bank Marketing: 4,521 customers of a Portuguese bank who were telephoned, read from the files of `hypernets`.

The study `bank` asks who takes the term deposit that the calls offer: 521 did. The file is the official tenth of the
45,211 calls of May 2008 to November 2010; each row is one customer. Licence of the data: CC BY 4.0 (UCI Machine
Learning Repository; Moro, Cortez and Rita, Decision Support Systems 62, 2014); the package's own licence covers its
code only.

Partners are companies that meet people by what they do:

- `management`: those who decide: managers, entrepreneurs and the self-employed;
- `technicians`: technicians alone;
- `office`: clerks and services;
- `manual`: workers and household staff;
- `home`: retired people, students, the unemployed, and the 38 people whose job is not known.

Left out: `duration`, the seconds that the call took: it is known only when the call is over, and then so is the answer;
and `id`, which numbers the rows.
"""

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from coterie.simulations.sources.packages import PackageFile
from coterie.simulations.sources.tables import by_partner

__all__ = ["FILES", "PARTNERS", "load", "tables"]

FILES: Final = (
    PackageFile(
        package="hypernets",
        relative="tabular/datasets/bank-uci.csv.gz",
        sha256="b0b8f7507192b58bdd963c33351d1f90f27704211ec30ef13b599b3347246ec9",
    ),
)

PARTNERS: Final = {
    "management": ("management", "entrepreneur", "self-employed"),
    "technicians": ("technician",),
    "office": ("admin.", "services"),
    "manual": ("blue-collar", "housemaid"),
    "home": ("retired", "student", "unemployed", "unknown"),
}

_LEFT_OUT: Final = ("id", "duration", "y")


def load() -> dict[str, pa.Table]:
    """Read the data and split it into partners.

    Returns:
        Partner name -> table, one row a customer.

    Raises:
        SourceFault: The data package is missing or altered.
    """
    (file,) = FILES
    return tables(pyarrow.csv.read_csv(file.path()))


def tables(calls: pa.Table) -> dict[str, pa.Table]:
    """Turn the table of calls into one table for each partner.

    Args:
        calls: The table as it is shipped.

    Returns:
        Partner name -> table.
    """
    columns = {"customer": pa.array([f"B{row:05d}" for row in range(1, calls.num_rows + 1)])}
    columns |= {name: calls[name] for name in calls.column_names if name not in _LEFT_OUT}
    columns["label"] = pc.equal(calls["y"], "yes").cast(pa.int64())
    partner_of = {job: partner for partner, group in PARTNERS.items() for job in group}
    return by_partner(pa.table(columns), pa.array([partner_of[job] for job in calls["job"].to_pylist()]))
