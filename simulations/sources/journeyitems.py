"""Complete Journey as baskets: which kinds of products households bought for the first time.

An item is a product type, all 2,378 that the table of products names; its public attributes are the department and
the category that most products of the type lie in. A row is a household's first purchase of a type in the stores of
its home partner.

Partners are the regions of stores that `completejourney` grows. A household's home is the region in whose stores it
has most receipts (the first of them at a tie); what it bought elsewhere is left out, so that every household is a
customer of one partner. For the data's provenance see `completejourney`.
"""

from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coterie.models.catalogue import Catalogue
from coterie.simulations.sources import journey, regions
from coterie.simulations.sources.completejourney import REGIONS
from coterie.simulations.sources.interactions import first_times, interactions
from coterie.simulations.sources.tables import Ints, by_partner, codes, distinct

__all__ = ["FILES", "catalogue", "home", "load", "typed_products"]

FILES: Final = journey.FILES[:2]  # the receipts and the products

_LINES: Final = ("household_id", "store_id", "basket_id", "product_id", "transaction_timestamp")


def load() -> dict[str, pa.Table]:
    """Read the data and split it into partners.

    Returns:
        Partner name -> table, one row for each type that a household bought, at its first purchase.

    Raises:
        SourceFault: The data package is missing or altered.
    """
    receipts, goods = (file.path() for file in FILES)
    lines, products = pq.read_table(receipts, columns=list(_LINES)), typed_products(goods)
    household, store = lines["household_id"].to_numpy(), codes(lines["store_id"])[0]
    region = regions.grow(household, store, regions=REGIONS)[store]
    homes = home(household, region, codes(lines["basket_id"])[0])
    place = pc.index_in(lines["product_id"], value_set=products["product_id"].combine_chunks())
    typed = np.asarray(pc.is_valid(place))  # a product without a type is no item
    rows = np.flatnonzero(typed & (region != regions.OUTSIDE) & (region == homes[household]))
    items = products["product_type"].combine_chunks().take(place.take(pa.array(rows)).combine_chunks())
    time = lines["transaction_timestamp"].to_numpy()[rows]
    first = first_times(household[rows], codes(items)[0], time.astype(np.int64))
    buyers = household[rows][first]
    days = time[first].astype("datetime64[D]").astype(np.int64)
    table = interactions(pa.array([f"H{number:04d}" for number in buyers]), items.take(pa.array(first)), days)
    return by_partner(table, pa.array([f"region-{number + 1}" for number in homes[buyers]]))


def home(household: Ints, region: Ints, basket: Ints) -> Ints:
    """Find the region in which each household has most receipts.

    Args:
        household: Number of each row's household.
        region: Region of each row's store, or OUTSIDE.
        basket: Number of each row's receipt.

    Returns:
        The region of each household, by its number: the first at a tie, OUTSIDE for one with no receipt in any.
    """
    inside, households = region != regions.OUTSIDE, int(household.max(initial=0)) + 1
    width = int(region.max(initial=0)) + 1
    counts = distinct(household[inside] * width + region[inside], basket[inside], households * width)
    receipts = counts.reshape(households, width)
    return np.where(receipts.any(axis=1), receipts.argmax(axis=1), regions.OUTSIDE)


def catalogue() -> Catalogue:
    """Return all product types, with the department and category that most products of each lie in.

    Raises:
        SourceFault: The data package is missing or altered.
    """
    products = typed_products(FILES[1].path())
    types = products["product_type"].to_pylist()
    names = tuple(sorted(set(types)))
    attributes = {}
    for name, column in (("category", "product_category"), ("department", "department")):
        seen: dict[str, Counter[str]] = {kind: Counter() for kind in names}
        for kind, value in zip(types, products[column].to_pylist(), strict=True):
            seen[kind][value or ""] += 1
        attributes[name] = tuple(_most_common(seen[kind]) for kind in names)
    return Catalogue(names, attributes)


def _most_common(counts: Counter[str]) -> str:
    """Return the most common text, the first in the alphabet at a tie."""
    return min(counts, key=lambda text: (-counts[text], text))


def typed_products(path: Path) -> pa.Table:
    """Return number, type, category and department of the products of a file that have a type."""
    products = pq.read_table(path, columns=["product_id", "product_type", "product_category", "department"])
    return products.filter(pc.is_valid(products["product_type"]))
