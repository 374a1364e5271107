"""Complete Journey as six retailers that share customers: cards to match by, and what was bought at every one of them.

Partners are six regions of stores, grown as `regions` says. A household is a customer of every region in whose stores
it has at least two receipts: whoever came once by the way has no card there yet. Of 2,401 households that are anybody's
customer so, 38.3 % are customers of two or more partners, 11.9 % of three or more and none of all six; with one receipt
it would be 49.0 % of 2,445. (Six clusters of stores by shared households, found in another way, had 38.4 % too.)

Every partner numbers its customers itself, in the order in which they first came, so one household has another number
everywhere. What it has everywhere is its card of the common loyalty programme, 16 digits, which the partners' systems
write down each in its own style. The cards are made up here from the households' numbers: real ones are as easy to try
all of, which is why they are matched and not hashed.

A row of the interactions is a household's first purchase of a product type in the partner's own stores. For the items,
and the data's provenance, see `journeyitems` and `completejourney`.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coterie.models.catalogue import Catalogue
from coterie.simulations.sources import journeyitems, regions
from coterie.simulations.sources.interactions import first_times, interactions
from coterie.simulations.sources.tables import Ints, codes, distinct

__all__ = ["FILES", "REGIONS", "catalogue", "identifiers", "load", "members"]

FILES: Final = journeyitems.FILES
REGIONS: Final = 6

_LINES: Final = ("household_id", "store_id", "basket_id", "product_id", "transaction_timestamp")
_FEWEST_RECEIPTS: Final = 2
_CARD: Final = 6335_0000_0000_0000
_BETWEEN: Final = (" ", "-", "", " ", "", "-")
"""What stands between the groups of four digits of a card, by region."""


@dataclass(frozen=True)
class _Till:
    """Lines of receipts in stores of some region, in order of time.

    Args:
        household: Number of each line's household.
        region: Of each line's store.
        product: Of each line.
        time: Of each line.
        customers: Which households are customers of which region, shape (households, regions).
    """

    household: Ints
    region: Ints
    product: pa.Array
    time: npt.NDArray[np.datetime64]
    customers: npt.NDArray[np.bool_]

    def numbered(self, region: int) -> tuple[Ints, pa.Array]:
        """Return the households that are a region's customers, in the order of its numbers, and these numbers."""
        here = self.household[self.region == region]
        here = here[self.customers[here, region]]
        known, first = np.unique(here, return_index=True)
        ordered: Ints = known[np.argsort(first)]
        return ordered, pa.array([f"R{region + 1}-{number:04d}" for number in range(1, len(ordered) + 1)])


def load() -> dict[str, pa.Table]:
    """Read the data and split it into partners.

    Returns:
        Partner name -> table, one row for each type that a customer bought there, at its first purchase there.

    Raises:
        SourceFault: The data package is missing or altered.
    """
    till, products = _read(), journeyitems.typed_products(FILES[1].path())
    place = pc.index_in(till.product, value_set=products["product_id"].combine_chunks())
    kinds = products["product_type"].combine_chunks().take(place)
    typed = np.asarray(pc.is_valid(place))  # a product without a type is no item
    return {f"region-{number + 1}": _table(till, number, kinds, typed) for number in range(REGIONS)}


def identifiers() -> dict[str, pa.Table]:
    """Return every partner's customers and their cards.

    Returns:
        Partner name -> table with the columns customer and loyalty, one row for each customer.

    Raises:
        SourceFault: The data package is missing or altered.
    """
    till, found = _read(), {}
    for number in range(REGIONS):
        households, customers = till.numbered(number)
        cards = [_written(_CARD + int(household), _BETWEEN[number]) for household in households]
        found[f"region-{number + 1}"] = pa.table({"customer": customers, "loyalty": pa.array(cards)})
    return found


def catalogue() -> Catalogue:
    """Return all product types; as in `journeyitems`."""
    return journeyitems.catalogue()


def members(household: Ints, region: Ints, basket: Ints) -> npt.NDArray[np.bool_]:
    """Find which households are customers of which region.

    Args:
        household: Number of each line's household.
        region: Region of each line's store, or `regions.OUTSIDE`.
        basket: Number of each line's receipt.

    Returns:
        Shape (households, regions).
    """
    inside, households = region != regions.OUTSIDE, int(household.max(initial=0)) + 1
    cell = household[inside] * REGIONS + region[inside]
    receipts = distinct(cell, basket[inside], households * REGIONS).reshape(households, REGIONS)
    return np.asarray(receipts >= _FEWEST_RECEIPTS, dtype=np.bool_)


def _read() -> _Till:
    lines = pq.read_table(FILES[0].path(), columns=list(_LINES))
    household, store = lines["household_id"].to_numpy(), codes(lines["store_id"])[0]
    region = regions.grow(household, store, regions=REGIONS)[store]
    customers = members(household, region, codes(lines["basket_id"])[0])
    rows = np.flatnonzero(region != regions.OUTSIDE)
    time = lines["transaction_timestamp"].to_numpy()
    rows = rows[np.argsort(time[rows], kind="stable")]
    product = lines["product_id"].combine_chunks().take(pa.array(rows))
    return _Till(household[rows], region[rows], product, time[rows], customers)


def _table(till: _Till, region: int, kinds: pa.Array, typed: npt.NDArray[np.bool_]) -> pa.Table:
    """Return the first purchases of one region's customers in its stores."""
    households, names = till.numbered(region)
    rows = np.flatnonzero(typed & (till.region == region) & till.customers[till.household, region])
    items, time = kinds.take(pa.array(rows)), till.time[rows]
    first = first_times(till.household[rows], codes(items)[0], time.astype(np.int64))
    number = np.zeros(int(till.household.max(initial=0)) + 1, dtype=np.int64)
    number[households] = np.arange(len(households))
    customers = names.take(pa.array(number[till.household[rows][first]]))
    return interactions(customers, items.take(pa.array(first)), time[first].astype("datetime64[D]").astype(np.int64))


def _written(card: int, between: str) -> str:
    """Return a card's digits in groups of four."""
    digits = f"{card:016d}"
    return between.join(digits[start : start + 4] for start in range(0, len(digits), 4))
