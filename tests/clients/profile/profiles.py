"""What the tests of the profile share: tables in memory, a contract, and a wish with a fixed key."""

import dataclasses
import datetime

import pyarrow as pa

from coterie.clients.profile.profiling import Wish, profile_table
from coterie.tests.clients.federation import CONTRACT

DAY = datetime.date(2031, 5, 4)
KEY = bytes(range(32))
WISH = Wish(today=DAY, key=KEY)


class Held:
    """A table in memory, in pieces of so many rows."""

    def __init__(self, table, size=64):
        self._table, self._size = table, size
        self.read = []

    @property
    def place(self):
        return "the held table"

    @property
    def schema(self):
        return self._table.schema

    def pieces(self, names):
        self.read.append(list(names))
        places = [self._table.schema.get_field_index(name) for name in names]
        yield from self._table.select(places).to_batches(max_chunksize=self._size)


def profile_of(table, contract=CONTRACT, **wish):
    """Profile a table or a mapping of columns."""
    table = table if isinstance(table, pa.Table) else pa.table(table)
    return profile_table(Held(table), contract, dataclasses.replace(WISH, **wish))


def column(profile, name):
    (found,) = [one for one in profile.columns if one.name == name]
    return found


def said(faults):
    return [str(fault) for fault in faults]
