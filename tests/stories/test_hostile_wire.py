"""The catalogue of attacks over a real wire, at a real partner's node: nothing succeeds, all of it is logged.

One SuperLink with TLS and node authentication, one gateway, one `coterie partner start`; the hostile coordinator has
the run's own task. Between two attacks the workspace's content is made fresh; the processes go on, and none of them
may end but in the three attacks that are made to fell them.
"""

import os
import sys
from pathlib import Path

import pytest

from coterie.privacy.clock import now
from coterie.tests.clients.summing import quick_folder
from coterie.tests.stories import plan_attacks, sum_attacks, task_attacks, wire_attacks
from coterie.tests.stories.attacks import ATTACKS, SUM_ATTACKS, Attack, Verdict, judge, table, write_table
from coterie.tests.stories.deployed import until
from coterie.tests.stories.inprocess import OWN_PLAN, SECRETS, SUM_PLAN, copied, overheard, prepared
from coterie.tests.stories.test_mute import sings
from coterie.tests.stories.wire import Besieged
from coterie.tests.stories.wire_attacks import FELLING, WIRE_ATTACKS

FILES = (plan_attacks, task_attacks, sum_attacks, wire_attacks)

ELSEWHERE = {"a flood of questions"}
"""A thousand questions one after another: over the wire two hundred come at once in their place."""

TRAVELLING = [one for one in (*ATTACKS, *SUM_ATTACKS, *WIRE_ATTACKS) if one.name not in ELSEWHERE]

MOST = {"supernode": 1 << 30, "worker": 3 << 29}
"""Bytes of memory that a process may have used in the end; the largest message is 100 MB."""


@pytest.fixture(scope="module")
def made():
    """Federations whose partners approved a plan, and a node in service; every attack gets a copy of the former."""
    with quick_folder() as folder:
        own = prepared(folder / "own", OWN_PLAN, clock=now)
        sums = prepared(folder / "sums", SUM_PLAN, clock=now)
        with Besieged(folder / "besieged", own) as besieged:
            yield folder, own, sums, besieged


@pytest.fixture(scope="module")
def verdicts():
    """What the attacks came to; written at the end where COTERIE_WIRE_TABLE names a file."""
    found: list[Verdict] = []
    yield found
    sys.stdout.write("\n" + table(found))
    if "COTERIE_WIRE_TABLE" in os.environ:
        write_table(found, Path(os.environ["COTERIE_WIRE_TABLE"]))


@pytest.mark.slow
@pytest.mark.parametrize("attack", TRAVELLING, ids=lambda attack: attack.name.replace(" ", "-"))
def test_an_attack_over_the_wire_fails_and_is_logged(made, verdicts, attack: Attack):
    folder, own, sums, besieged = made
    federation = copied(sums if attack in SUM_ATTACKS else own, folder / attack.name.replace(" ", "-"))
    before = besieged.processes()
    with overheard() as log:
        hostile = besieged.against(federation, log)
        verdict = judge(attack, hostile, canaries=sings, secrets=SECRETS)
    verdicts.append(verdict)
    assert verdict.complaints == ()
    raw = b"".join(hostile.nodes[hostile.victim].raw)
    assert hostile.heard
    assert len(raw) > 0
    assert sings(raw) == []
    assert not any(secret.encode() in raw for secret in SECRETS)
    assert (besieged.processes() == before) == (attack.name not in FELLING)


@pytest.mark.slow
def test_the_node_is_well_after_all_of_them(made):
    _, _, _, besieged = made
    assert besieged.service.poll() is None
    until(besieged.healthy, 60, "the node's health")
    assert all(used < MOST[name] for name, used in besieged.memory().items()), besieged.memory()


def test_the_attacks_over_the_wire_are_many_and_all_named():
    names = [attack.name for attack in TRAVELLING]
    assert len(names) >= 25
    assert len(set(names)) == len(names)
    assert set(names) >= FELLING
    assert {attack.name for attack in (*ATTACKS, *SUM_ATTACKS)} >= ELSEWHERE
    assert all(attack.does.endswith(".") for attack in TRAVELLING)
