"""Work on a vault in a process of its own, which kills itself where a test says; its modules are imported before."""

import os
import signal
import sys
import tempfile
from pathlib import Path

import pyarrow as pa

from coterie.clients import erasing, rekeying, sealing, tracing, vault
from coterie.clients.vault import CUSTOMERS
from coterie.privacy import durable, ledger, storage
from coterie.privacy.fields import keysource, manifest, streams
from coterie.privacy.fields.sources import keyfolder, local
from coterie.privacy.ledger import Ledger
from coterie.tests.stories.vaultkit import opened, put, tables

MODULES = (
    erasing,
    rekeying,
    sealing,
    tracing,
    vault,
    durable,
    ledger,
    storage,
    keysource,
    manifest,
    streams,
    keyfolder,
)
WATCHED = {module.__file__ for module in (*MODULES, local)}
DURABLE = ("fsync", "replace", "unlink", "link", "mkdir")
LEFT = "canary-id-7f3a91c4"  # who is erased


def planted(label):
    """The three data sets with canaries in several columns; `label` is told apart in one of them."""
    made = tables(12)
    customers = made[CUSTOMERS].to_pydict()
    customers["customer"][3] = LEFT
    customers["spend"][3:5] = [271.8281828, 47.8171945]
    customers["region"][3] = "canary-word-58be02d7"
    customers["region"][4] = f"canary-label-c90d11aa-{label}"
    fields = made[CUSTOMERS].schema
    fields = fields.set(fields.get_field_index("region"), pa.field("region", pa.string()))
    found = {CUSTOMERS: pa.table(customers, schema=fields)}
    for name in made.keys() - {CUSTOMERS}:
        rows = made[name].to_pydict()
        rows["customer"] = [LEFT if who == "customer-0003" else who for who in rows["customer"]]
        found[name] = pa.table(rows, schema=made[name].schema)
    return {name: found[name] for name in made}


def seal(lent):
    put(lent, CUSTOMERS, planted("new")[CUSTOMERS], piece=4)


def rewrap(lent):
    rekeying.rewrap(lent)


def rekey(lent):
    for column in rekeying.waiting_columns(lent, CUSTOMERS):
        rekeying.rekey(lent, CUSTOMERS, column)
    rekeying.forget_waiting(lent, CUSTOMERS)


def erase(lent):
    erasing.erase(lent, LEFT)


WORKS = {"seal": seal, "rewrap": rewrap, "rekey": rekey, "erase": erase}


class Steps:
    """Counts steps, and kills this process before one of them."""

    def __init__(self, last):
        self.passed, self._last = 0, last

    def step(self):
        self.passed += 1
        if self.passed == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def before_durable(self):
        """Step before everything that makes a change last; twice for the ledger: before it, and after."""
        for name in DURABLE:
            setattr(os, name, self._stepping(getattr(os, name)))
        record = Ledger.record

        def recording(*args):
            self.step()
            entry = record(*args)
            self.step()
            return entry

        Ledger.record = recording

    def _stepping(self, really):
        def stepping(*args, **kwargs):
            self.step()
            return really(*args, **kwargs)

        return stepping

    def before_lines(self):
        """Step before every line of the modules that matter."""

        def trace(frame, event, arg):
            if frame.f_code.co_filename not in WATCHED:
                return None
            if event == "line":
                self.step()
            return trace

        sys.settrace(trace)


def work(root: Path, kind: str, how: str, last: int, temporary: Path, pipe) -> None:
    """Do one work, and die before its `last`-th durable step or line; 0 for never, and then say how many there were."""
    tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
    steps = Steps(last)
    with opened(root) as lent:
        steps.before_durable() if how == "durable" else steps.before_lines()
        WORKS[kind](lent)
        sys.settrace(None)
    pipe.send(steps.passed)
