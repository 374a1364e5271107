"""Admission: a node speaks for a partner because of a signature, never because it is there."""

import dataclasses

import pytest

from coterie.privacy.identity import Identity
from coterie.privacy.plan import Partner
from coterie.privacy.release import ConsentGiven
from coterie.server.cohort import admit
from coterie.tests.clients.federation import NAMES, study

IDENTITIES = {name: Identity.create() for name in NAMES}
PLAN = study(partners=tuple(Partner(name=name, customers=120, key=key.public) for name, key in IDENTITIES.items()))


def consent(name, *, plan=PLAN.digest(), signer=None, said=None):  # noqa: B008 - a constant
    # What is signed, written out.
    message = b'coterie/consent/v1\n{"partner":"%s","plan":"%s"}' % (name.encode(), plan.encode())
    return ConsentGiven(plan, said or name, (signer or IDENTITIES[name]).sign(message))


def test_nodes_are_bound_to_the_partners_that_signed():
    cohort, faults = admit(PLAN, {31: consent("cedar"), 7: consent("amber"), 12: consent("birch")})
    assert dict(cohort.nodes) == {"amber": 7, "birch": 12, "cedar": 31}
    assert faults == ()
    assert len(cohort) == 3
    assert cohort.partner_of(12) == "birch"


FORGED = {
    "another key": consent("amber", signer=Identity.create()),
    "another partner's consent": consent("birch", said="amber"),
    "another plan": consent("amber", plan="sha256:" + "0" * 64),
    "another plan under this one's name": dataclasses.replace(
        consent("amber", plan="sha256:" + "0" * 64), plan=PLAN.digest()
    ),
    "a name outside the roster": consent("dogwood", signer=IDENTITIES["amber"]),
    "no signature": dataclasses.replace(consent("amber"), signature=b""),
    "half a signature": dataclasses.replace(consent("amber"), signature=consent("amber").signature[:32]),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_consent_that_is_not_the_partners_own_is_a_fault_that_names_the_node(name):
    cohort, faults = admit(PLAN, {7: FORGED[name], 12: consent("birch")})
    assert dict(cohort.nodes) == {"birch": 12}
    (fault,) = faults
    assert fault.place == "node 7"


def test_a_forger_does_not_keep_the_partner_itself_out():
    cohort, faults = admit(PLAN, {1: FORGED["another key"], 7: consent("amber")})
    assert dict(cohort.nodes) == {"amber": 7}
    assert [fault.place for fault in faults] == ["node 1"]


def test_a_second_node_for_one_partner_is_a_fault():
    cohort, faults = admit(PLAN, {7: consent("amber"), 8: consent("amber")})
    assert dict(cohort.nodes) == {"amber": 7}
    assert [fault.place for fault in faults] == ["node 8"]


def test_a_roster_without_keys_admits_nobody():
    cohort, faults = admit(study(), {7: ConsentGiven(study().digest(), "amber", bytes(64))})
    assert len(cohort) == 0
    assert len(faults) == 1
