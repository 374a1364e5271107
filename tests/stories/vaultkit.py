"""Small vaults with known rows, and what they hold afterwards; imported as `coterie.tests.stories.vaultkit`.

The oracle is the plain Arrow table that was sealed: whatever is done to a vault, its rows are held against that.
"""

import datetime
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from coterie.clients.checkup import check_vault
from coterie.clients.sealing import stage
from coterie.clients.tables.table import whole
from coterie.clients.vault import CONSENTS, CUSTOMERS, DATASETS, IDENTIFIERS, INTERACTIONS, MATCHES, open_vault
from coterie.clients.workspace import Workspace
from coterie.privacy.fields.sources.local import LocalKeys
from coterie.privacy.fields.sources.settings import KeySettings
from coterie.privacy.identity import Identity

NOW = datetime.datetime(2031, 5, 4, 12, tzinfo=datetime.UTC)
GROUP_KEY = bytes(range(32))
POLICY = f"""coordinator = "{Identity.create().public}"
customer = "customer"
labels = ["bought"]
purposes = ["coupons"]
columns = ["age", "spend", "region"]
special = []
families = ["logistic"]
trust = ["local"]
minimum_partners = 3
minimum_customers = 10
[budget]
study_epsilon = 1.0
lifetime_epsilon = 4.0
delta = 1e-6
[peers]
"""


def today():
    return NOW


def name_of(number):
    return f"customer-{number:04d}"


def tables(count=40):
    """Three data sets: one row for each customer, three, and two."""
    numbers = range(count)
    return {
        CUSTOMERS: pa.table(
            {
                "customer": [name_of(n) for n in numbers],
                "age": pa.array([18 + n * 7 % 72 for n in numbers], pa.int16()),
                "spend": [n * 3.25 if n % 5 else None for n in numbers],
                "region": pa.array([("north", "south", "east")[n % 3] for n in numbers]).dictionary_encode(),
                "bought": [n % 2 == 0 for n in numbers],
            }
        ),
        INTERACTIONS: pa.table(
            {
                "customer": [name_of(n) for n in numbers for _ in range(3)],
                "item": [f"item-{(n * 5 + k) % 17}" for n in numbers for k in range(3)],
                "day": [datetime.date(2031, 1, 1 + (n + k) % 28) for n in numbers for k in range(3)],
            }
        ),
        CONSENTS: pa.table(
            {
                "customer": [name_of(n) for n in numbers for _ in range(2)],
                "purpose": ["coupons", "news"] * count,
                "given": [datetime.date(2030, 1 + n % 12, 1) for n in numbers for _ in range(2)],
                "expires": pa.nulls(2 * count, pa.date32()),
                "withdrawn": pa.array([NOW if n % 7 == 0 else None for n in numbers for _ in range(2)]),
            }
        ),
    }


def all_tables(count=40):
    """All five data sets: also one identifier for each customer, and what a match with two partners left of some."""
    names = [name_of(n) for n in range(count)]
    word = pa.dictionary(pa.int32(), pa.string())
    shared = {"amber": names[::2], "birch": names[::3]}
    rows = [(partner, who) for partner, known in shared.items() for who in (None, *known)]
    return tables(count) | {
        IDENTIFIERS: pa.table(
            {
                "customer": pa.array(names, pa.large_string()),
                "kind": pa.array(["email"] * count).cast(pa.dictionary(pa.int8(), pa.string())),
                "value": pa.array([f"{name}@mail.example" for name in names], pa.large_string()),
                "rules": pa.array(["1"] * count).cast(pa.dictionary(pa.int8(), pa.string())),
            }
        ),
        MATCHES: pa.table(
            {
                "plan": pa.array(["sha256:" + "ab" * 32] * len(rows), pa.string()).cast(word),
                "day": pa.array(["2031-05-04"] * len(rows), pa.string()).cast(word),
                "partner": pa.array([partner for partner, _ in rows], pa.string()).cast(word),
                "customer": pa.array([who for _, who in rows], pa.large_string()),
                "token": pa.nulls(len(rows), pa.binary(16)),
            }
        ),
    }


def put(vault, dataset, table, *, piece=16):
    """Seal a table past the checks of the intake, in pieces of a few rows."""
    pieces = table.to_batches(max_chunksize=piece)
    stage(vault, dataset, pieces, schema=table.schema, customer="customer").commit("sealed")


def workspace(root, *, keys=None):
    """A workspace with nothing sealed; `keys` is a folder outside of it for keys on a mount."""
    settings = None
    if keys is not None:
        keys.mkdir(mode=0o700)
        LocalKeys.create(keys, kind="mount")
        settings = KeySettings(source="mount", path=str(keys))
    made = Workspace.create(root, "bank", group_key=GROUP_KEY, keys=settings)
    made.policy.write_text(POLICY)
    return made


def small_vault(root, *, keys=None, sealed=None):
    """A workspace with the three data sets sealed."""
    made = workspace(root, keys=keys)
    with opened(made) as vault:
        for dataset, table in (sealed or tables()).items():
            put(vault, dataset, table)
    return made


@contextmanager
def opened(made):
    """The vault of a workspace, or of a folder that is one."""
    root = made if isinstance(made, Path) else made.root
    with open_vault(root, today) as vault:
        yield vault


def held(made):
    """All rows of all data sets, as Arrow tables."""
    with opened(made) as vault:
        return read(vault)


def read(vault):
    """All rows of an open vault, held against the look at everything."""
    tables_ = {name: vault.table(name) for name in DATASETS if vault.holds(name)}
    found = {name: whole(table, table.schema.names) for name, table in tables_.items()}
    assert {row["dataset"]: row["rows"] for row in check_vault(vault)} == {n: t.num_rows for n, t in found.items()}
    return found


def same(one, other):
    """Whether the rows of two sets of tables are the same, whatever pieces they come in."""
    return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)


def equal(one, other):
    """Whether two tables hold the same rows and types: cells are compared as Python's values."""
    return one.schema.equals(other.schema) and one.to_pylist() == other.to_pylist()


def without(table, customer):
    """A table without the rows of one customer."""
    return table.filter(pc.not_equal(table["customer"], customer))


def folder(made, dataset, kind):
    return made.vault / dataset / kind


def manifest_file(made, dataset=CUSTOMERS):
    """The one manifest of a data set."""
    (path,) = folder(made, dataset, "manifests").iterdir()
    return path


def stream_files(made, dataset=CUSTOMERS):
    """The streams of a data set, in no order of its columns."""
    return sorted(folder(made, dataset, "streams").iterdir())


def unnamed_files(made):
    """What lies in the vault and no manifest names: nothing, when no work is under way."""
    with opened(made) as vault:
        manifests = [found for name in DATASETS if (found := vault.newest(name)) is not None]
        streams = {s.file for found in manifests for s in found.streams}
        named = streams | {found.digest().removeprefix("sha256:") for found in manifests}
    return sorted(
        str(path.relative_to(made.vault)) for path in made.vault.rglob("*") if path.is_file() and path.name not in named
    )


def tree(root):
    """Every file below a folder, with its bytes and rights."""
    found = {}
    for path in sorted(root.rglob("*")):
        mode = path.stat().st_mode & 0o777
        found[str(path.relative_to(root))] = (mode, path.read_bytes() if path.is_file() else None)
    return found


def restore(root, before):
    """Bring a folder back to what `tree` returned, writing only what differs."""
    for path in sorted(root.rglob("*"), reverse=True):
        name = str(path.relative_to(root))
        if path.is_symlink() or name not in before or (before[name][1] is None) != path.is_dir():
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    for name, (mode, data) in before.items():
        path = root / name
        if data is None:
            path.mkdir(exist_ok=True)
        elif not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
        if path.stat().st_mode & 0o777 != mode:
            path.chmod(mode)
