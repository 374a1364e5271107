"""A hostile coordinator, and peers that help it, against a partner's node: nothing succeeds, all of it is logged.

Messages travel through Flower's wire form to the app behind its door; the partner's ledger, reports and log are real.
"""

import os
import sys
from pathlib import Path

import pytest

from coterie.tests.clients.summing import quick_folder
from coterie.tests.stories import match_attacks, plan_attacks, sum_attacks, task_attacks
from coterie.tests.stories.attacks import (
    ATTACKS,
    MATCH_ATTACKS,
    SUM_ATTACKS,
    Attack,
    Verdict,
    judge,
    table,
    write_table,
)
from coterie.tests.stories.inprocess import (
    MATCH_PLAN,
    OWN_PLAN,
    SECRETS,
    SUM_PLAN,
    copied,
    hostile,
    matching,
    overheard,
    prepared,
)
from coterie.tests.stories.test_mute import sings

CATALOGUE = [*ATTACKS, *SUM_ATTACKS, *MATCH_ATTACKS]
KINDS = {"own": ATTACKS, "sums": SUM_ATTACKS, "match": MATCH_ATTACKS}
FILES = (plan_attacks, task_attacks, sum_attacks, match_attacks)


@pytest.fixture(scope="module")
def made():
    """Federations whose partners approved a plan; every attack gets a copy."""
    with quick_folder() as folder:
        kinds = {"own": prepared(folder / "own", OWN_PLAN), "sums": prepared(folder / "sums", SUM_PLAN)}
        yield folder, {**kinds, "match": matching(folder / "match", MATCH_PLAN)}


@pytest.fixture(scope="module")
def verdicts():
    """What the attacks came to; written at the end where COTERIE_ATTACK_TABLE names a file."""
    found: list[Verdict] = []
    yield found
    sys.stdout.write("\n" + table(found))
    if "COTERIE_ATTACK_TABLE" in os.environ:
        write_table(found, Path(os.environ["COTERIE_ATTACK_TABLE"]))


@pytest.mark.parametrize("attack", CATALOGUE, ids=lambda attack: attack.name.replace(" ", "-"))
def test_an_attack_fails_and_is_logged(made, verdicts, tmp_path, attack: Attack):
    folder, federations = made
    kind = next(kind for kind, attacks in KINDS.items() if attack in attacks)
    federation = copied(federations[kind], folder / attack.name.replace(" ", "-"))
    with overheard() as log:
        verdict = judge(attack, hostile(federation, log), canaries=sings, secrets=SECRETS)
    verdicts.append(verdict)
    assert verdict.complaints == ()


def test_the_catalogue_has_the_attacks_that_were_promised():
    assert len(CATALOGUE) >= 25
    assert len({attack.name for attack in CATALOGUE}) == len(CATALOGUE)
    assert all(attack.does.endswith(".") for attack in CATALOGUE)
