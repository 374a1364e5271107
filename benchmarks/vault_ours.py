"""The vault, as its commands use it: each method opens the workspace anew, as a new process would, but for imports."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from vault_data import CONTRACT, SCHEMA

from coterie.clients.erasing import erase
from coterie.clients.intake import take_in
from coterie.clients.opening import Opened, open_table
from coterie.clients.rekeying import rekey, rewrap
from coterie.clients.sealing import stage
from coterie.clients.tables.files import table_at
from coterie.clients.tables.table import Table, whole
from coterie.clients.vault import CUSTOMERS, Vault, open_vault
from coterie.clients.workspace import Workspace
from coterie.privacy.clock import now
from coterie.privacy.durable import write_durably
from coterie.privacy.identity import Identity
from coterie.privacy.randomness import SeededSource

__all__ = ["Ours", "opened"]

_POLICY = """\
coordinator = "{coordinator}"
customer = "customer"
labels = ["bought"]
purposes = ["benchmark"]
columns = ["age"]
families = ["logistic"]
trust = ["local"]
minimum_partners = 2
minimum_customers = 1000

[budget]
study_epsilon = 1.0
lifetime_epsilon = 3.0
delta = 1e-6
"""
_GROUPS = bytes(range(32))


@dataclass(frozen=True)
class Ours:
    """A workspace whose vault holds customers; its keys lie in key files.

    Args:
        folder: Where the workspace is, or will be.
    """

    folder: Path

    def create(self) -> None:
        """Make the workspace, with a policy that permits next to nothing."""
        workspace = Workspace.create(self.folder, "bench")
        write_durably(workspace.policy, _POLICY.format(coordinator=Identity.create().public).encode())

    @contextmanager
    def vault(self) -> Iterator[Vault]:
        """Lend the vault."""
        with open_vault(self.folder, now) as vault:
            yield vault

    def seal(self, pieces: Iterable[pa.RecordBatch]) -> None:
        """Seal pieces in place of what is there."""
        with self.vault() as vault:
            stage(vault, CUSTOMERS, pieces, schema=SCHEMA, customer="customer").commit("sealed")

    def take_in(self, source: Path) -> None:
        """Do what `coterie partner seal` does: check a table against the contract, and seal it."""
        with self.vault() as vault:
            take_in(vault, table_at(source), CONTRACT)

    def read(self, names: Sequence[str]) -> pa.Table:
        """Return some columns in memory."""
        with self.vault() as vault:
            return whole(vault.table(CUSTOMERS), names)

    def run_through(self, names: Sequence[str]) -> int:
        """Open some columns a piece at a time, keep none, and return how many rows there were."""
        with self.vault() as vault:
            return sum(piece.num_rows for piece in vault.table(CUSTOMERS).pieces(names))

    def open(self) -> Opened:
        """Open the table for a study, as a node does before it trains."""
        with self.vault() as vault:
            return opened(vault.table(CUSTOMERS))

    def rotate(self) -> None:
        """Wrap all data keys under a new key-encryption key."""
        with self.vault() as vault:
            rewrap(vault)

    def rekey(self) -> None:
        """Seal one column anew, under a new data key."""
        with self.vault() as vault:
            rekey(vault, CUSTOMERS, "email")

    def erase(self, customer: str) -> None:
        """Erase a customer."""
        with self.vault() as vault:
            erase(vault, customer)

    def files(self) -> list[Path]:
        """Return what the data set is made of: manifest and streams."""
        return sorted(path for path in (self.folder / "vault" / CUSTOMERS).rglob("*") if path.is_file())


def opened(table: Table) -> Opened:
    """Open a table, checked against the contract."""
    return open_table(table, CONTRACT, group_key=_GROUPS, stream=SeededSource(b"benchmark").stream("rows"))
