"""Ta Feng as baskets: which kinds of goods the customers of a Taiwanese supermarket bought for the first time.

An item is a subclass of the shop's own tree of goods, all 2,012 of them that the data set names. The first two digits
of its code are the department and the first four the class, which is all that is public about it; nothing in the
catalogue is counted. A row is a customer's first purchase of a subclass (573,093 of them).

Partners, days and provenance are those of `tafeng`.
"""

from typing import Final

import numpy as np
import pyarrow as pa

from coterie.models.catalogue import Catalogue
from coterie.simulations.sources import tafeng
from coterie.simulations.sources.interactions import first_times, interactions, kcore
from coterie.simulations.sources.tables import by_partner, codes

__all__ = ["FILES", "catalogue", "core", "load", "tables"]

FILES: Final = tafeng.FILES


def load() -> dict[str, pa.Table]:
    """Read the data and split it into partners.

    Returns:
        Partner name -> table, one row for each subclass that a customer bought, at its first purchase.

    Raises:
        SourceFault: The data package is missing or altered.
    """
    return tables(tafeng.read())


def tables(lines: tafeng.Lines) -> dict[str, pa.Table]:
    """Turn receipt lines into one table for each partner.

    Args:
        lines: Receipt lines in the order of the file, which decides between lines of one day.

    Returns:
        Partner name -> table.
    """
    rows = first_times(lines.customer, lines.subclass, lines.day)
    customer = pa.array(lines.customer[rows])
    table = interactions(
        pa.array(lines.names, pa.string()).take(customer),
        pa.array(map(str, lines.subclasses), pa.string()).take(pa.array(lines.subclass[rows])),
        lines.day[rows],
    )
    return by_partner(table, pa.array([f"postcode-{code.lower()}" for code in lines.postcodes]).take(customer))


def catalogue() -> Catalogue:
    """Return all subclasses, with their department and class.

    Raises:
        SourceFault: The data package is missing or altered.
    """
    subclasses = tuple(sorted(str(code) for code in tafeng.read().subclasses))
    # A letter in front says that these are words and no quantities.
    attributes = {
        "class": tuple(f"C{code[:4]}" for code in subclasses),
        "department": tuple(f"D{code[:2]}" for code in subclasses),
    }
    return Catalogue(subclasses, attributes)


def core(partners: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Return the tables of the published protocol: customers with 10 items, items with 20 customers.

    Who stays depends on the customers of all partners, so this serves comparison alone.

    Args:
        partners: Partner name -> table, as `load` returns it.

    Returns:
        Partner name -> the rows that stay: 18,465 customers and 1,315 items.
    """
    whole = pa.concat_tables(partners.values())
    names = np.repeat(list(partners), [table.num_rows for table in partners.values()])
    kept = pa.array(kcore(codes(whole["customer"])[0], codes(whole["item"])[0], of_customer=10, of_item=20))
    return by_partner(whole.filter(kept), pa.array(names).filter(kept))
