"""Tables of interactions: who took up which item, and when.

Every source of interactions answers with the same columns: `customer` and `item` as texts, `day` as a date, and
`rating` where customers rate. Rows are in order of time, so that what came later stands later even on one day.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from coterie.simulations.sources.tables import Ints

__all__ = ["first_times", "interactions", "kcore"]


def interactions(
    customers: pa.Array, items: pa.Array, days: Ints, *, ratings: npt.NDArray[np.float64] | None = None
) -> pa.Table:
    """Return a table of interactions.

    Args:
        customers: Identifier of each row's customer.
        items: Code of each row's item.
        days: Days since 1970-01-01.
        ratings: How each row's customer rated the item; None where nobody rates.
    """
    columns = {
        "customer": pa.array(customers, pa.string()),
        "item": pa.array(items, pa.string()),
        "day": pa.array(days.astype(np.int32)).cast(pa.date32()),
    }
    if ratings is not None:
        columns["rating"] = pa.array(ratings, pa.float64())
    return pa.table(columns)


def first_times(customer: Ints, item: Ints, time: Ints) -> Ints:
    """Find the first time that each customer took up each item.

    Args:
        customer: Number of each row's customer.
        item: Number of each row's item.
        time: When it was; rows of one time happened in the order in which they stand.

    Returns:
        The rows of the first times, in order of time.
    """
    order = np.argsort(time, kind="stable")
    width = int(item.max(initial=0)) + 1
    first = np.unique(customer[order] * width + item[order], return_index=True)[1]
    rows: Ints = order[np.sort(first)]
    return rows


def kcore(customer: Ints, item: Ints, *, of_customer: int, of_item: int) -> npt.NDArray[np.bool_]:
    """Find the interactions among customers and items that have enough of one another.

    Customers and items with too few are left out until none is left that has. Who stays depends on everybody's rows,
    so this belongs to comparisons with published figures and to nothing that a guarantee speaks of.

    Args:
        customer: Number of each row's customer; a customer has an item once.
        item: Number of each row's item.
        of_customer: Fewest items of a customer.
        of_item: Fewest customers of an item.

    Returns:
        Whether each row stays.
    """
    kept = np.ones(len(customer), dtype=np.bool_)
    while True:
        items = np.bincount(customer[kept], minlength=int(customer.max(initial=0)) + 1)
        customers = np.bincount(item[kept], minlength=int(item.max(initial=0)) + 1)
        enough = kept & (items[customer] >= of_customer) & (customers[item] >= of_item)
        if np.array_equal(enough, kept):
            return kept
        kept = enough
