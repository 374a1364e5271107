"""The files that a partner brings, as tables."""

from pathlib import Path

from coterie.clients.tables.csvfile import CsvFile
from coterie.clients.tables.parquetfile import ParquetFile
from coterie.clients.tables.table import Table
from coterie.privacy.errors import ContractFault, Fault

__all__ = ["table_at"]

_KINDS: dict[str, type[CsvFile] | type[ParquetFile]] = {".csv": CsvFile, ".parquet": ParquetFile}


def table_at(path: Path) -> Table:
    """Return the table in a file.

    In a CSV file every cell is a text, as it is written ("007" is not 7), and an empty one is missing.

    Args:
        path: Ends in ".parquet", or in ".csv" for CSV with a header, in UTF-8 and parted by commas.

    Raises:
        ContractFault: The file is missing, a folder, unreadable, empty, cut short, not of its kind, or of neither kind.
    """
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        rule = "is neither a .csv nor a .parquet file"
        raise ContractFault(Fault(str(path), rule, "save it as CSV in UTF-8, or as Parquet"))
    return kind.at(path)
