"""Tables that break the contract of `federation.py`, each in one way, with values that nothing may ever say."""

import math

import pyarrow as pa

from coterie.tests.clients.federation import table_of, with_cells, with_column

TABLE = table_of()
# Planted in tables; none may ever be said.
CANARY, NUMBER = "canary-Zo\u00eb-7f3a", 987654321.4375
CANARIES = (CANARY, "987654321", "9007199254740993", "amber-00003")


def doubled(table, row, times):
    """The table with one customer's row so many times."""
    return pa.concat_tables([table, *[table.slice(row, 1)] * (times - 1)])


def renamed(table, old, new):
    return table.rename_columns([new if name == old else name for name in table.column_names])


# what is wrong -> the table, the column that is named, and what is said of it
FAULTS = {
    "a missing feature": (renamed(TABLE, "spend", CANARY), "spend", "is missing"),
    "a missing label": (renamed(TABLE, "bought", CANARY), "bought", "is missing"),
    "a missing customer": (renamed(TABLE, "customer", CANARY), "customer", "is missing"),
    "a number as text": (with_cells(with_column(TABLE, "age", [CANARY] * 150), "age", {}), "age", "must hold numbers"),
    "a number out of bounds": (
        with_cells(TABLE, "spend", {1: NUMBER, 5: -NUMBER}),
        "spend",
        "outside 0 to 500 in 2 rows",
    ),
    "an infinite number": (with_cells(TABLE, "spend", {1: math.inf, 5: -math.inf}), "spend", "is infinite in 2 rows"),
    "a whole number that no float holds": (
        with_cells(TABLE, "age", {4: 2**53 + 1}),
        "age",
        "outside 18 to 90 in 1 rows",
    ),
    "a missing number": (with_cells(TABLE, "age", {1: None, 5: None, 9: None}), "age", "is missing in 3 rows"),
    "a number that is none": (with_cells(TABLE, "spend", {1: math.nan, 5: math.nan}), "spend", "is missing in 2 rows"),
    "an unknown word": (with_cells(TABLE, "region", {3: CANARY, 4: "North"}), "region", "holds 2 values outside"),
    "a missing word": (with_cells(TABLE, "region", {3: None}), "region", "is missing in 1 rows"),
    "a customer twice": (doubled(TABLE, 3, 2), "customer", "names 1 customers in more than 1 rows each"),
    "a row of no customer": (with_cells(TABLE, "customer", {3: None}), "customer", "is missing in 1 rows"),
    "no rows": (TABLE.slice(0, 0), "", "has no rows"),
    "one class": (with_column(TABLE, "bought", [1] * 150), "bought", "has one class only"),
    "a label of 2": (with_cells(TABLE, "bought", {3: 2}), "bought", "must hold 0 or 1 in every row"),
    "a label far too large": (with_cells(TABLE, "bought", {3: 2**53 + 1}), "bought", "must hold 0 or 1 in every row"),
    "a label that is a text": (with_column(TABLE, "bought", [CANARY] * 150), "bought", "must hold 0 or 1"),
    "a label that is a fraction": (with_cells(TABLE, "bought", {3: 0.5}), "bought", "must hold 0 or 1 in every row"),
    "a label that is missing": (with_cells(TABLE, "bought", {3: None}), "bought", "must hold 0 or 1 in every row"),
}

# What a text file cannot say.
PARQUET_FAULTS = {
    "a label that is no number": (
        with_cells(TABLE, "bought", {3: math.nan}),
        "bought",
        "must hold 0 or 1 in every row",
    ),
    "customers that are lists": (
        with_column(TABLE, "customer", [[CANARY]] * 150),
        "customer",
        "must hold texts or whole numbers",
    ),
    "customers that are no text": (
        with_column(TABLE, "customer", [b"\xff" + CANARY.encode()] * 150),
        "customer",
        "must hold",
    ),
    "words that are no text": (with_column(TABLE, "region", [b"\xff" + CANARY.encode()] * 150), "region", "must hold"),
}


def as_tables(faults):
    """The tables alone."""
    return {name: table for name, (table, _, _) in faults.items()}


def all_wrong():
    """Something wrong in every column."""
    table = doubled(TABLE, 3, 2)
    table = with_cells(table, "age", {1: 17, 2: 91})
    table = with_cells(table, "spend", {1: None})
    table = with_cells(table, "region", {1: CANARY})
    return with_cells(table, "bought", {1: 7})
