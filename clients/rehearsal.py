"""A dry round: a partner's whole way from a plan to charged releases, in a folder that is thrown away.

A made-up coordinator asks a made-up partner with made-up customers, on this machine and with what is installed on it;
the real workspace, its keys and its ledger have no part in it.
"""

import datetime
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from coterie.clients.intake import take_in
from coterie.clients.node import open_node
from coterie.clients.tables.held import HeldTable
from coterie.clients.task import Task, initial_weights
from coterie.clients.vault import open_vault
from coterie.clients.workspace import Workspace
from coterie.privacy.durable import write_durably
from coterie.privacy.errors import CoterieError, Fault
from coterie.privacy.identity import Identity
from coterie.privacy.plan import Plan, plan_from_dict
from coterie.privacy.randomness import OsSource
from coterie.privacy.release import ConsentGiven
from coterie.privacy.signed import sign

__all__ = ["RehearsalFault", "rehearse"]

_CUSTOMERS = 400


class RehearsalFault(CoterieError):
    """The dry round did not come to its end."""


def rehearse(clock: Callable[[], datetime.datetime]) -> int:
    """Take a made-up partner through proposal, training and measuring.

    Args:
        clock: Returns the time in UTC.

    Returns:
        How many releases were charged and made.

    Raises:
        RehearsalFault: The plan was not consented to.
        CoterieError: Anything else that would stop a study on this machine.
    """
    with tempfile.TemporaryDirectory(prefix="coterie-rehearsal-") as folder:
        workspace = Workspace.create(Path(folder) / "partner", "rehearsal")
        coordinator = Identity.create()
        plan = _plan(workspace.identity.public, clock().date())
        write_durably(workspace.policy, _policy(coordinator.public).encode())
        with open_vault(workspace.root, clock) as vault:
            take_in(vault, HeldTable(_customers()), plan.contract)
        weights = initial_weights(plan)
        with open_node(workspace.root, random=OsSource(), clock=clock) as node:
            given = node.propose(sign(plan, coordinator).to_bytes())
            if not isinstance(given, ConsentGiven):
                rule = "refused its own plan: " + ", ".join(given.codes)
                raise RehearsalFault(Fault("the dry round", rule, "install coterie anew; if it stays, report it"))
            node.train(Task(plan.digest(), 1, 1, weights))
            node.measure(Task(plan.digest(), 1, 1, weights))
            return sum(1 for _ in node.ledger.entries("settle"))


def _plan(key: str, today: datetime.date) -> Plan:
    column = {"name": "orders", "kind": "numeric", "low": 0.0, "high": 10.0, "edges": [1.0, 2.0, 5.0]}
    return plan_from_dict(
        {
            "name": "rehearsal",
            "purpose": "rehearsal",
            "task": "propensity",
            "expires": (today + datetime.timedelta(days=1)).isoformat(),
            "contract": {"customer": "customer", "label": "label", "columns": [column]},
            "model": {"family": "logistic"},
            "training": {"rounds": 1, "local_steps": 2, "sample_rate": 0.5, "learning_rate": 1.0, "clip": 1.0},
            "privacy": {
                "unit": "customer of one partner",
                "epsilon": 1.0,
                "delta": 1e-5,
                "trust": "local",
                "threshold": 1,
                "colluders": 1,
            },
            "metrics": {"rounds": [1]},
            "cohort": {"minimum_customers": 100},
            "partners": [
                {"name": "rehearsal", "customers": _CUSTOMERS, "key": key},
                {"name": "nobody", "customers": _CUSTOMERS, "key": Identity.create().public},
            ],
        }
    )


def _policy(coordinator: str) -> str:
    return f"""coordinator = "{coordinator}"
customer = "customer"
labels = ["label"]
purposes = ["rehearsal"]
columns = ["orders"]
families = ["logistic"]
trust = ["local"]
minimum_partners = 1
minimum_customers = 100
[budget]
study_epsilon = 1.0
lifetime_epsilon = 2.0
delta = 1e-5
[approval]
automatic_epsilon = 1.0
[consent.elsewhere]
rehearsal = "a dry round: made-up customers"
"""


def _customers() -> pa.Table:
    numbers = range(_CUSTOMERS)
    return pa.table(
        {
            "customer": [f"c{number}" for number in numbers],
            "orders": [float(number % 7) for number in numbers],
            "label": [int(number % 7 > 3) for number in numbers],
        }
    )
