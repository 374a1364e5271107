"""Where a simulated study takes its partners' tables from.

Three sources read public data sets from the files of installed packages (`packages.txt` pins them); one
is generated. Every source answers with one table for each partner, whose columns are those that the
contract of the study of that source names. A source is imported only when it is asked for.
"""

import importlib
from typing import Final, Protocol, cast

import pyarrow as pa

from coterie.privacy.errors import Fault
from coterie.simulations.sources.packages import PackageFile, SourceFault

__all__ = ["SourceFault", "available", "load"]

_MODULES: Final = {
    "adult": "coterie.simulations.sources.adult",
    "completejourney": "coterie.simulations.sources.completejourney",
    "synthetic": "coterie.simulations.sources.synthetic",
    "tafeng": "coterie.simulations.sources.tafeng",
}


class _Source(Protocol):
    FILES: tuple[PackageFile, ...]

    def load(self) -> dict[str, pa.Table]: ...


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
