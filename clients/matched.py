"""What a partner learned in its matches about its own customers, sealed in the vault like its other tables.

A match whose outcome is rows leaves, at each of two owners, which of its own customers the other has; one whose outcome
is tokens leaves a token for each of its own. Both are rows of the data set "matches", and so are sealed, given
new keys, checked, and erased with a customer as every data set is.

Guarantees:
    A match is kept whole or not at all, and kept again replaces itself.

Leaks:
    Nothing leaves. Whoever has the files and no key sees roughly how many rows there are, as of every data set.
"""

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coterie.clients.ordered import begins, repeats, together
from coterie.clients.sealing import See, stage, unseen
from coterie.clients.tables.table import PIECE
from coterie.clients.taint import taint
from coterie.clients.vault import MATCHES, Vault
from coterie.privacy.errors import ContractFault, Fault, FileFault

__all__ = [
    "TOKEN",
    "KeptMatch",
    "keep_matched",
    "keep_tokens",
    "kept_matches",
    "matched_customers",
    "multiplicities",
    "rows_of_match",
    "tokens_of",
]

TOKEN = 16  # bytes
_WORD = pa.dictionary(pa.int32(), pa.string())
_SCHEMA = pa.schema(
    [
        ("plan", _WORD),
        ("day", _WORD),
        ("partner", _WORD),  # "" for tokens
        ("customer", pa.large_string()),  # missing in the first row of each partner: the match was made
        ("token", pa.binary(TOKEN)),  # missing for rows
    ]
)


@dataclass(frozen=True)
class KeptMatch:
    """A match that is kept; for the partner's own eyes.

    Args:
        plan: Digest of its plan.
        outcome: "rows" or "tokens".
        day: On which it was kept, in UTC.
        customers: How many of the partner's own customers each other partner has; for tokens how many have one,
            under "".
    """

    plan: str
    outcome: str
    day: str
    customers: Mapping[str, int] = field(repr=False)


def keep_matched(
    vault: Vault, plan: str, found: Mapping[str, pa.Array], *, day: datetime.date, see: See = unseen
) -> None:
    """Seal which of the partner's own customers each other partner has.

    Args:
        vault: The partner's.
        plan: Digest of the match's plan.
        found: For each other partner, customers as large strings, each once; a partner that has none is named, too.
        day: Of the match, in UTC.
        see: Is told of progress.

    Raises:
        ContractFault: No partner is named, or a customer is missing or there twice.
        FileFault: The vault cannot be written; it is as it was.
        SealFault: What is in the vault is not what the ledger says.
        KeyFault: The keys cannot be had.
    """
    if not found or "" in found:
        raise ContractFault(Fault("a match", "names no other partner", "this is a fault of the program: report it"))
    for customers in found.values():
        _check(customers)
    fresh = (batch for partner, who in found.items() for batch in _batches((plan, day, partner), who))
    _keep(vault, plan, fresh, see)


def keep_tokens(
    vault: Vault, plan: str, told: tuple[pa.Array, NDArray[np.uint8]], *, day: datetime.date, see: See = unseen
) -> None:
    """Seal the token of each of the partner's own customers.

    Args:
        vault: The partner's.
        plan: Digest of the match's plan.
        told: Customers as large strings, each once, and their tokens, bytes of shape (customers, 16).
        day: Of the match, in UTC.
        see: Is told of progress.

    Raises:
        ContractFault: A customer is missing or there twice, or there is not one token of 16 bytes for each.
        FileFault: The vault cannot be written; it is as it was.
        SealFault: What is in the vault is not what the ledger says.
        KeyFault: The keys cannot be had.
    """
    customers, tokens = told
    _check(customers)
    if tokens.shape != (len(customers), TOKEN) or tokens.dtype != np.uint8:
        fix = "this is a fault of the program: report it"
        raise ContractFault(Fault("a match", f"has no token of {TOKEN} bytes for each customer", fix))
    data = pa.py_buffer(np.ascontiguousarray(tokens))
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(TOKEN), len(customers), [None, data])
    _keep(vault, plan, _batches((plan, day, ""), customers, column), see)


def kept_matches(vault: Vault) -> list[KeptMatch]:
    """Return every match that is kept, in the order of their days.

    Raises:
        SealFault: What is in the vault is not what the ledger says.
        KeyFault: The keys cannot be had.
    """
    days, counts = dict[str, str](), dict[str, dict[str, int]]()
    if vault.holds(MATCHES):
        for piece in vault.table(MATCHES).pieces(["plan", "day", "partner", "customer"]):
            grouped = pa.table(piece).group_by(["plan", "day", "partner"]).aggregate([("customer", "count")])
            for row in grouped.to_pylist():
                days[row["plan"]] = row["day"]
                mine = counts.setdefault(row["plan"], {})
                mine[row["partner"]] = mine.get(row["partner"], 0) + row["customer_count"]
    found = [
        KeptMatch(plan, "tokens" if "" in counts[plan] else "rows", day, counts[plan]) for plan, day in days.items()
    ]
    return sorted(found, key=lambda one: (one.day, one.plan))


def rows_of_match(vault: Vault, plan: str, outcome: str) -> Iterator[pa.RecordBatch]:
    """Yield partner, customer and token of each row of a match, in pieces.

    Args:
        vault: The partner's.
        plan: Digest of the match's plan.
        outcome: "rows" or "tokens"; a match has one of them.

    Raises:
        FileFault: No such match is kept, or its outcome is the other one.
        SealFault: What is in the vault is not what the ledger says.
        KeyFault: The keys cannot be had.
    """
    there = set[bool]()
    if vault.holds(MATCHES):
        for piece in vault.table(MATCHES).pieces(_SCHEMA.names):
            mine = piece.filter(_is(piece, plan))
            partners = pc.unique(pc.cast(mine["partner"], pa.string())).to_pylist()
            there.update(partner == "" for partner in partners)
            if not there <= {outcome == "tokens"}:
                break
            yield mine.filter(pc.is_valid(mine["customer"])).select(["partner", "customer", "token"])
    if there != {outcome == "tokens"}:
        rule = f"has no {outcome}" if there else "is not kept here"
        fix = "see the kept ones with: coterie partner matches FOLDER"
        raise FileFault(Fault(f"the match of plan {plan.removeprefix('sha256:')[:12]}", rule, fix))


def multiplicities(vault: Vault, plan: str) -> tuple[pa.Array, NDArray[np.int64]]:
    """Return the customers that another partner has, and at how many partners each is known, this one counted.

    Args:
        vault: The partner's.
        plan: Digest of the match's plan.

    Returns:
        Customers as large strings, each once, and the numbers, from 2 on, shape (customers,).

    Raises:
        FileFault: No such match is kept, or its outcome is tokens.
        SealFault: What is in the vault is not what the ledger says.
        KeyFault: The keys cannot be had.
    """
    names = together([piece["customer"] for piece in rows_of_match(vault, plan, "rows")])
    names = names.take(pc.sort_indices(names))
    new = begins(names)
    others = np.diff(np.append(np.flatnonzero(new), len(names)))
    return names.filter(pa.array(new)), taint((1 + others).astype(np.int64))


def matched_customers(vault: Vault, plan: str, *, at_least: int = 2) -> pa.Array:
    """Return the customers that at least so many partners have, as large strings, each once.

    Args:
        vault: The partner's.
        plan: Digest of the match's plan.
        at_least: How many, this one counted; 2 or more.

    Raises:
        FileFault: No such match is kept, or its outcome is tokens.
        SealFault: What is in the vault is not what the ledger says.
        KeyFault: The keys cannot be had.
    """
    customers, known = multiplicities(vault, plan)
    return customers.filter(pa.array(known >= at_least))


def tokens_of(vault: Vault, plan: str) -> tuple[pa.Array, NDArray[np.uint8]]:
    """Return the customers of a match, as large strings, and their tokens, bytes of shape (customers, 16).

    Args:
        vault: The partner's.
        plan: Digest of the match's plan.

    Raises:
        FileFault: No such match is kept, or its outcome is rows.
        SealFault: What is in the vault is not what the ledger says.
        KeyFault: The keys cannot be had.
    """
    pieces = list(rows_of_match(vault, plan, "tokens"))
    customers = pa.concat_arrays([piece["customer"] for piece in pieces])
    tokens = np.empty((len(customers), TOKEN), dtype=np.uint8)
    place = 0
    for piece in pieces:
        told = b"".join(piece["token"].to_pylist())
        tokens[place : place + len(piece)] = np.frombuffer(told, dtype=np.uint8).reshape(-1, TOKEN)
        place += len(piece)
    return customers, taint(tokens)


def _keep(vault: Vault, plan: str, fresh: Iterator[pa.RecordBatch], see: See) -> None:
    def pieces() -> Iterator[pa.RecordBatch]:
        if vault.holds(MATCHES):
            for piece in vault.table(MATCHES).pieces(_SCHEMA.names):
                yield piece.filter(pc.invert(_is(piece, plan)))
        yield from fresh

    stage(vault, MATCHES, pieces(), schema=_SCHEMA, customer="customer", see=see).commit("sealed")


def _batches(
    about: tuple[str, datetime.date, str], customers: pa.Array, tokens: pa.Array | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of one partner: the first says that there was a match with it."""
    yield _batch(about, pa.nulls(1, pa.large_string()), pa.nulls(1, pa.binary(TOKEN)))
    for start in range(0, len(customers), PIECE):
        part = customers.slice(start, PIECE)
        yield _batch(
            about, part, pa.nulls(len(part), pa.binary(TOKEN)) if tokens is None else tokens.slice(start, PIECE)
        )


def _batch(about: tuple[str, datetime.date, str], customers: pa.Array, tokens: pa.Array) -> pa.RecordBatch:
    plan, day, partner = about
    zeros = pa.array(np.zeros(len(customers), dtype=np.int32))
    words = [pa.DictionaryArray.from_arrays(zeros, pa.array([word])) for word in (plan, day.isoformat(), partner)]
    return pa.RecordBatch.from_arrays([*words, customers, tokens], schema=_SCHEMA)


def _is(piece: pa.RecordBatch, plan: str) -> pa.Array:
    return pc.equal(pc.cast(piece["plan"], pa.string()), plan)


def _check(customers: pa.Array) -> None:
    if customers.null_count or repeats(customers):
        rule = "has a customer that is missing or there twice"
        raise ContractFault(Fault("a match", rule, "this is a fault of the program: report it"))
