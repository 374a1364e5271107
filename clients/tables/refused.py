"""Why a file is refused as a table: in words of this house, because a library's own text may hold a cell."""

import codecs
from pathlib import Path

from coterie.privacy.errors import ContractFault, Fault

__all__ = ["encoding_like", "not_utf8", "refused", "utf16"]

_READ = 1 << 20


def refused(path: Path, error: BaseException) -> ContractFault:
    """Return what to say of a file that could not be opened or read.

    Args:
        path: The file.
        error: What was raised; its kind counts, its text is not passed on.
    """
    if isinstance(error, FileNotFoundError):
        rule, fix = "is missing", "give the path of a Parquet or CSV file"
    elif isinstance(error, IsADirectoryError) or path.is_dir():
        rule, fix = "is a folder", "give one Parquet or CSV file"
    elif isinstance(error, PermissionError):
        rule, fix = "may not be read by this user", "give the user the right to read it"
    else:
        rule, fix = "cannot be read as a table", "give a Parquet or CSV file with a header"
    return ContractFault(Fault(str(path), rule, fix))


def not_utf8(path: Path, looks: str) -> ContractFault:
    """Return what to say of a text file in another encoding."""
    return ContractFault(Fault(str(path), f"is not UTF-8: it looks like {looks}", "save it as UTF-8"))


def encoding_like(path: Path) -> str | None:
    """Return which encoding a text file seems to be in; None for UTF-8. Reads all of it, in pieces.

    Raises:
        OSError: It cannot be read.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        data = file.read(_READ)
        if utf16(data):
            return "UTF-16"
        try:
            while data:
                decoder.decode(data)
                data = file.read(_READ)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "Windows-1252 or Latin-1"
    return None


def utf16(head: bytes) -> bool:
    """Tell whether a text begins as UTF-16 does: with its mark, or with a Latin letter of two bytes."""
    return head[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE} or head[:2].count(0) == 1
