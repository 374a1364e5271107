"""MovieLens-1M: a million ratings, read from files that the user has fetched and may not pass on.

The variable COTERIE_MOVIELENS_1M names the folder, or the zip as GroupLens offers it, with `ratings.dat`, `users.dat`
and `movies.dat`. Partners, attributes and terms of use are those of `movies`.
"""

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.csv

from coterie.models.catalogue import Catalogue
from coterie.privacy.errors import Fault
from coterie.simulations.sources.movies import films, ratings
from coterie.simulations.sources.packages import SourceFault

__all__ = ["FILES", "PLACE", "UserFile", "catalogue", "load"]

PLACE: Final = "COTERIE_MOVIELENS_1M"

# A mark that stands in no title, for the reader of CSV takes one character between columns and the files have two.
_BETWEEN: Final = "\x1f"
_FIX: Final = "fetch MovieLens-1M again and leave its files as they are"
_COLUMNS: Final = {
    "ratings.dat": {"user": pa.int64(), "film": pa.int64(), "rating": pa.int64(), "timestamp": pa.int64()},
    "users.dat": dict.fromkeys(("user", "gender", "age", "occupation", "postcode"), pa.string()),
    "movies.dat": {"film": pa.int64(), "title": pa.string(), "genres": pa.string()},
}


@dataclass(frozen=True)
class UserFile:
    """A folder or file that the user supplies.

    Args:
        variable: The variable of the environment that names it.
    """

    variable: str

    def path(self) -> Path:
        """Return where it lies.

        Raises:
            SourceFault: Nothing is named, or nothing is there.
        """
        named = os.environ.get(self.variable, "")
        if not named or not Path(named).exists():
            fix = "fetch MovieLens-1M from its publisher, and name its folder or zip in this variable"
            raise SourceFault(Fault(self.variable, "must name a folder or zip that is there", fix))
        return Path(named)


FILES: Final = (UserFile(PLACE),)


def load(place: Path | None = None) -> dict[str, pa.Table]:
    """Read the data and split it into partners.

    Args:
        place: Folder or zip; None for the one that the environment names.

    Returns:
        Partner name -> table, one row a rating.

    Raises:
        SourceFault: A file is missing or not of its form.
    """
    place = place or FILES[0].path()
    users = _read(place, "users.dat")
    postcodes = dict(zip(map(int, users["user"].to_pylist()), users["postcode"].to_pylist(), strict=True))
    data = _read(place, "ratings.dat")
    if not set(data["user"].to_pylist()) <= postcodes.keys():
        raise SourceFault(Fault("ratings.dat", "must name users of users.dat alone", _FIX))
    return ratings(data, postcodes)


def catalogue(place: Path | None = None) -> Catalogue:
    """Return all films, with title, genres and year.

    Args:
        place: Folder or zip; None for the one that the environment names.

    Raises:
        SourceFault: A file is missing or not of its form.
    """
    table = _read(place or FILES[0].path(), "movies.dat")
    return films(*(table[name].to_pylist() for name in ("film", "title", "genres")))


def _read(place: Path, name: str) -> pa.Table:
    columns = _COLUMNS[name]
    try:
        text = _bytes(place, name).decode("latin-1").replace("::", _BETWEEN)
        return pa.csv.read_csv(
            pa.BufferReader(text.encode()),
            read_options=pa.csv.ReadOptions(column_names=list(columns)),
            parse_options=pa.csv.ParseOptions(delimiter=_BETWEEN, quote_char=False),
            convert_options=pa.csv.ConvertOptions(column_types=columns),
        )
    except (OSError, ValueError, zipfile.BadZipFile):
        # The library's own text may hold a cell; it is not passed on.
        raise SourceFault(Fault(name, "must be there, in the form of MovieLens-1M", _FIX)) from None


def _bytes(place: Path, name: str) -> bytes:
    if place.is_dir():
        return (place / name).read_bytes()
    with zipfile.ZipFile(place) as archive:
        (member,) = (each for each in archive.namelist() if each.rsplit("/", 1)[-1] == name)
        return archive.read(member)
