"""Four times as many rows need no more memory: each table is read by a process of its own, which says its peak."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

ROWS = 500_000
CHILD = """
import sys
from pathlib import Path

def peak():
    # Of this program alone: what `getrusage` says may be of the process that began it.
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

path = sys.argv[1]
if path.endswith(".db"):
    from coterie.clients.tables.database import table_in
    table = table_in(f"sqlite:///{path}", "t")
else:
    from coterie.clients.tables.files import table_at
    table = table_at(Path(path))
before = peak()
print(sum(piece.num_rows for piece in table.pieces(["x", "who"])), peak() - before)
"""


def write(path, rows):
    draw = np.random.default_rng(5)
    who = pa.array(draw.integers(10**11, 10**12, rows)).cast(pa.string())
    table = pa.table({"who": who, "x": draw.random(rows), "other": draw.integers(0, 9, rows)})
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=rows)  # one: as large as the table
    else:
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("CREATE TABLE t (who TEXT, x REAL, other INTEGER)")
            columns = (column.to_pylist() for column in table.columns)
            db.executemany("INSERT INTO t VALUES (?, ?, ?)", zip(*columns, strict=True))


@pytest.mark.parametrize(("suffix", "rows"), [(".csv", 2 * ROWS), (".parquet", ROWS), (".db", ROWS // 8)])
def test_memory_does_not_grow_with_the_rows(tmp_path, suffix, rows):
    grown, env = [], os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # gives back at once what is freed
    for times in (1, 4):
        path = tmp_path / f"{times}{suffix}"
        write(path, times * rows)
        words = [sys.executable, "-c", CHILD, str(path)]
        said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60, env=env).stdout.split()
        assert int(said[0]) == times * rows
        grown.append(int(said[1]))
    assert grown[1] < 1.3 * grown[0] + 4096  # KiB: how much is read ahead is a matter of chance
