"""Where a simulated study takes its partners' tables from.

Most sources read public data sets from the files of installed packages (`packages.txt` pins them); one is
generated, and one reads files that the user supplies. Every source answers with one table for each partner, whose
columns are those that the contract of the study of that source names; a source of interactions has a catalogue of
its items beside, and one whose partners share customers has their identifiers. A source is imported only when it is
asked for.
"""

import importlib
from pathlib import Path
from typing import Final, Protocol, cast

import pyarrow as pa

from coterie.models.catalogue import Catalogue
from coterie.privacy.errors import Fault
from coterie.simulations.sources.packages import SourceFault

__all__ = ["SourceFault", "available", "catalogue", "identifiers", "load"]

_MODULES: Final = {
    "adult": "coterie.simulations.sources.adult",
    "bank": "coterie.simulations.sources.bank",
    "baskets": "coterie.simulations.sources.baskets",
    "census": "coterie.simulations.sources.census",
    "completejourney": "coterie.simulations.sources.completejourney",
    "journey-items": "coterie.simulations.sources.journeyitems",
    "journey-shared": "coterie.simulations.sources.journeyshared",
    "movies": "coterie.simulations.sources.movies",
    "movies-1m": "coterie.simulations.sources.movies1m",
    "synthetic": "coterie.simulations.sources.synthetic",
    "tafeng": "coterie.simulations.sources.tafeng",
}


_ITEMS: Final = ("baskets", "journey-items", "journey-shared", "movies", "movies-1m")
_SHARED: Final = ("journey-shared", "synthetic")


class _File(Protocol):
    def path(self) -> Path: ...


class _Source(Protocol):
    FILES: tuple[_File, ...]

    def load(self) -> dict[str, pa.Table]: ...


class _ItemSource(_Source, Protocol):
    def catalogue(self) -> Catalogue: ...


class _SharedSource(_Source, Protocol):
    def identifiers(self) -> dict[str, pa.Table]: ...


def load(dataset: str) -> dict[str, pa.Table]:
    """Load a data set, split into partners.

    Args:
        dataset: Name of the source, as `[source] dataset` in a study file.

    Returns:
        Partner name -> table; the label is 0 or 1 and the customer's identifier a text.

    Raises:
        SourceFault: No such source, or its data package is missing or altered.
    """
    return _source(dataset).load()


def catalogue(dataset: str) -> Catalogue:
    """Return the items of a source of interactions, from public lists alone and never counted.

    Args:
        dataset: Name of the source.

    Raises:
        SourceFault: No such source of interactions, or its data are missing or altered.
    """
    if dataset in _MODULES and dataset not in _ITEMS:
        rule = "must be a source of interactions"
        raise SourceFault(Fault("source.dataset", rule, f"name one of {', '.join(_ITEMS)}"))
    return cast("_ItemSource", _source(dataset)).catalogue()


def identifiers(dataset: str) -> dict[str, pa.Table]:
    """Return the identifiers of the customers of a source whose partners share some.

    Args:
        dataset: Name of the source.

    Returns:
        Partner name -> table with the column customer, as in the other tables, and one for each kind of identifier that
        there is: email, phone, loyalty. They are written as people write them.

    Raises:
        SourceFault: No such source with identifiers, or its data are missing or altered.
    """
    if dataset in _MODULES and dataset not in _SHARED:
        rule = "must be a source with identifiers"
        raise SourceFault(Fault("source.dataset", rule, f"name one of {', '.join(_SHARED)}"))
    return cast("_SharedSource", _source(dataset)).identifiers()


def available(dataset: str) -> bool:
    """Return whether `load` would find the files of a data set, unaltered.

    Args:
        dataset: Name of the source.

    Raises:
        SourceFault: No such source. A misspelt name is never taken for data that is missing.
    """
    try:
        for file in _source(dataset).FILES:
            file.path()
    except SourceFault:
        if dataset not in _MODULES:
            raise
        return False
    return True


def _source(dataset: str) -> _Source:
    if dataset not in _MODULES:
        known = ", ".join(sorted(_MODULES))
        raise SourceFault(Fault("source.dataset", "must be a known source", f"name one of {known}"))
    return cast("_Source", importlib.import_module(_MODULES[dataset]))
