"""Kept matches for the partner's own operator: found by a plan's first digits, and written to a file.

The file is the partner's own customers' data, in plain: an explicit exception to "no plaintext on disk", so it is
readable by its owner alone.
"""

from pathlib import Path

import pyarrow as pa

from coterie.clients.matched import KeptMatch, kept_matches, rows_of_match
from coterie.clients.tables.newfile import NewFile
from coterie.clients.vault import Vault
from coterie.privacy.errors import Fault, FileFault

__all__ = ["match_called", "write_rows", "write_tokens"]

_FEWEST_DIGITS = 6
_FIX = "see them with: coterie partner matches FOLDER"


def match_called(vault: Vault, wanted: str) -> KeptMatch:
    """Return the one match whose plan's digest begins with some digits.

    Args:
        vault: The partner's.
        wanted: At least 6 digits, with or without "sha256:"; or "" where only one match is kept.

    Raises:
        FileFault: None or several begin so, or there are too few digits.
        SealFault: What is in the vault is not what the ledger says.
        KeyFault: The keys cannot be had.
    """
    digits = wanted.removeprefix("sha256:")
    if wanted and len(digits) < _FEWEST_DIGITS:
        rule = f"needs at least {_FEWEST_DIGITS} digits of the plan's digest"
        raise FileFault(Fault("PLAN", rule, _FIX))
    found = [one for one in kept_matches(vault) if one.plan.removeprefix("sha256:").startswith(digits)]
    if len(found) != 1:
        rule = "names several matches that are kept" if found else "names no match that is kept"
        raise FileFault(Fault("PLAN", rule, _FIX))
    return found[0]


def write_rows(vault: Vault, plan: str, output: Path) -> int:
    """Write which customers which partner has, and return how many rows there are.

    Args:
        vault: The partner's.
        plan: Digest of the match's plan.
        output: CSV or Parquet file, of mode 0600; never overwritten.

    Raises:
        FileFault: No such match is kept, or its outcome is tokens; or the file exists or cannot be written.
        SealFault: What is in the vault is not what the ledger says.
        KeyFault: The keys cannot be had.
    """
    schema = pa.schema([("customer", pa.large_string()), ("partner", pa.string())])
    rows = 0
    with NewFile(output, schema) as file:
        for piece in rows_of_match(vault, plan, "rows"):
            columns = [piece["customer"], piece["partner"].cast(pa.string())]
            file.add(pa.RecordBatch.from_arrays(columns, schema=schema))
            rows += piece.num_rows
    return rows


def write_tokens(vault: Vault, plan: str, output: Path) -> int:
    """Write the token of each customer, in hexadecimal, and return how many there are.

    Args:
        vault: The partner's.
        plan: Digest of the match's plan.
        output: CSV or Parquet file, of mode 0600; never overwritten.

    Raises:
        FileFault: No such match is kept, or its outcome is rows; or the file exists or cannot be written.
        SealFault: What is in the vault is not what the ledger says.
        KeyFault: The keys cannot be had.
    """
    schema = pa.schema([("customer", pa.large_string()), ("token", pa.string())])
    rows = 0
    with NewFile(output, schema) as file:
        for piece in rows_of_match(vault, plan, "tokens"):
            tokens = pa.array([token.hex() for token in piece["token"].to_pylist()], pa.string())
            file.add(pa.RecordBatch.from_arrays([piece["customer"], tokens], schema=schema))
            rows += piece.num_rows
    return rows
