"""Four times as many rows need hashes of their customers more: each profile is made by a process of its own."""

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

ROWS, NUMBERS = 160_000, 40
CHILD = """
import sys
from pathlib import Path

from coterie.clients.tables.files import table_at
from coterie.tests.clients.profile.profiles import WISH
from coterie.clients.profile.profiling import profile_table
from coterie.privacy.contract import Column, Contract

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

columns = (Column(name="x0", kind="numeric", low=0, high=1),)
before = peak()
made = profile_table(table_at(Path(sys.argv[1])), Contract(customer="who", label="y", columns=columns), WISH)
print(made.customers.customers, peak() - before)
"""


@pytest.mark.slow
def test_memory_grows_with_hashes_of_customers_and_nothing_else(tmp_path):
    grown, env = [], os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system", "PYTHONPATH": os.pathsep.join(sys.path)}
    draw = np.random.default_rng(3)
    for times in (1, 4):
        path, rows = tmp_path / f"{times}.parquet", times * ROWS
        columns = {"who": np.arange(rows), "y": np.arange(rows) % 2}
        columns |= {f"x{i}": draw.random(rows) for i in range(NUMBERS)}
        pyarrow.parquet.write_table(pa.table(columns), path)
        words = [sys.executable, "-c", CHILD, str(path)]
        said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=120, env=env).stdout.split()
        assert int(said[0]) == rows
        grown.append(1024 * int(said[1]))
    # A hash and a count for each customer, in some copies while they are sorted; the rows themselves have 336 bytes.
    assert grown[1] - grown[0] < 150 * 3 * ROWS
