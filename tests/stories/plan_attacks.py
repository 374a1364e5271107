"""Attacks by proposal: plans that nobody should consent to. Part of the catalogue (`attacks.py`)."""

import copy
import dataclasses
import datetime
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from coterie.clients.records import named
from coterie.clients.wire import PROPOSE
from coterie.privacy.canonical import canonical
from coterie.privacy.contract import Contract
from coterie.privacy.plan import Partner, Plan
from coterie.privacy.signed import sign
from coterie.tests.stories.attacks import Hostile, attack, signed_table


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every plain value of a table, with the way to it."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))
    else:
        yield path, value


def other(value: Any) -> Any:
    """A value of the same type that is not this one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1:] != "0" else "1")
    return value + 1


def put(table: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy of a table with one value in another's place."""
    table = copy.deepcopy(table)
    place: Any = table
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return table


def column(plan: Plan, name: str, **changes: Any) -> Contract:
    """The contract of a plan with one column changed."""
    columns = tuple(dataclasses.replace(c, **(changes if c.name == name else {})) for c in plan.contract.columns)
    return dataclasses.replace(plan.contract, columns=columns)


# --- signatures -----------------------------------------------------------------------------------------------


@attack("refused signature x4", writes="refusal")
def a_plan_without_a_signature(c: Hostile) -> None:
    """Sends the plan unsigned: with no signature, an empty one, 64 zero bytes, and one over nothing."""
    table = c.plan.to_dict()
    c.propose(canonical(table))
    for signature in ("", "00" * 64, c.identity.sign(b"").hex()):
        c.propose(canonical({"format": "coterie/plan/v1", "plan": table, "signature": signature}))


@attack("refused signature", writes="refusal")
def a_plan_signed_by_a_key_that_nobody_knows(c: Hostile) -> None:
    """Signs the approved plan with a key of its own making."""
    c.propose(sign(c.plan, c.outsider))


@attack("refused signature x2", writes="refusal")
def a_plan_signed_by_a_partner(c: Hostile) -> None:
    """Has partners of the roster sign the plan in the coordinator's place."""
    for peer in list(c.peers.values())[:2]:
        c.propose(sign(c.plan, peer))


@attack("refused signature x*", writes="refusal")
def an_approved_plan_with_one_field_changed_under_its_old_signature(c: Hostile) -> None:
    """Changes every field of the approved plan in turn, and keeps the signature."""
    table = c.plan.to_dict()
    for path, value in leaves(table):
        changed = put(table, path, other(value))
        c.propose(canonical({"format": "coterie/plan/v1", "plan": changed, "signature": c.signed.signature.hex()}))
    c.note = f"{len(c.said)} fields"
    assert len(c.said) > 40


@attack("refused signature x*", writes="refusal")
def an_approved_plan_with_one_byte_changed(c: Hostile) -> None:
    """Changes one byte of the signed plan, at a hundred places spread over all of it."""
    data = c.signed.to_bytes()
    for place in np.linspace(0, len(data) - 1, 100).astype(int):
        c.propose(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    c.note = f"{len(c.said)} places"


@attack("refused signature x5", writes="refusal")
def one_plan_in_another_spelling(c: Hostile) -> None:
    """Spells the signed plan otherwise: spaces, a field twice, a field more, upper case, a nesting without end."""
    data = c.signed.to_bytes()
    table = json.loads(data)
    c.propose(data.replace(b'":', b'": ', 1))
    c.propose(b'{"format":"coterie/plan/v1",' + data[1:])
    c.propose(canonical({**table, "note": "more"}))
    c.propose(data.replace(table["signature"].encode(), table["signature"].upper().encode()))
    c.propose(b'{"format":' + b"[" * 100_000)


@attack("fault x3")
def a_plan_that_is_too_long_or_not_bytes(c: Hostile) -> None:
    """Sends a plan longer than any, one as numbers, and one as a text."""
    c.propose(b" " * (2**20 + 1))
    c.ask(PROPOSE, RecordDict({"plan": named(["signed"], [np.frombuffer(b"12345678", dtype="<f4")])}))
    c.ask(PROPOSE, RecordDict({"plan": ConfigRecord({"signed": c.signed.to_bytes()})}))


@attack("refused awaiting x3, no-consent x3", writes="refusal x3")
def an_approved_plan_altered_and_signed_anew(c: Hostile) -> None:
    """Alters the approved plan within all limits, signs it rightly, and works for it as if it were approved."""
    plans = [
        sign(dataclasses.replace(c.plan, **change), c.identity)
        for change in (
            {"name": "summer"},
            {"expires": c.plan.expires + datetime.timedelta(days=1)},
            {"training": dataclasses.replace(c.plan.training, learning_rate=0.4)},
        )
    ]
    for signed in plans:
        c.propose(signed)
    for signed in plans:
        c.train(plan=signed.plan.digest())


# --- budgets --------------------------------------------------------------------------------------------------


@attack("refused study-budget x2", writes="refusal x2")
def epsilon_above_what_a_study_may_have(c: Hostile) -> None:
    """Asks for more epsilon than the policy lets one study have, by a little and by much."""
    c.propose_with(privacy__epsilon=c.plan.privacy.epsilon * 1.0001)
    c.propose_with(privacy__epsilon=c.plan.privacy.epsilon * 2)


@attack("*model-update*refused budget x3", writes="*refusal x3")
def epsilon_above_what_a_life_may_have(c: Hostile) -> None:
    """Runs the approved study to its end, and proposes others that each keep the cap of a study."""
    for round_ in range(1, c.plan.training.rounds + 1):
        c.train(round_)
        if round_ in c.plan.metrics.rounds:
            c.measure(round_)
    for name in ("second", "third", "fourth"):
        c.propose_with(name=name)


@attack("refused delta", writes="refusal")
def a_delta_that_is_too_large(c: Hostile) -> None:
    """Asks for a delta of a thousandth."""
    c.propose_with(privacy__delta=1e-3)


@attack("refused signature x8", writes="refusal")
def an_epsilon_that_is_no_number(c: Hostile) -> None:
    """Signs plans whose epsilon, delta or clip is zero, negative, a text, or beyond every range."""
    table = c.plan.to_dict()
    for value in (0.0, -1.0, 1e308, "4.0", True, None):
        c.propose_table(put(table, ("privacy", "epsilon"), value))
    c.propose_table(put(table, ("privacy", "delta"), 1.0))
    c.propose_table(put(table, ("training", "clip"), 0.0))


# --- what is read ---------------------------------------------------------------------------------------------


@attack("refused column+contract", writes="refusal")
def a_column_outside_the_whitelist(c: Hostile) -> None:
    """Adds a column that the policy does not permit."""
    more = dataclasses.replace(c.plan.contract.columns[0], name="income")
    c.propose_with(contract=dataclasses.replace(c.plan.contract, columns=(*c.plan.contract.columns, more)))


@attack("refused column+contract x2", writes="refusal x2")
def the_label_or_the_customer_as_a_column(c: Hostile) -> None:
    """Asks for the identifier, and for a permitted column under a look-alike name."""
    first = c.plan.contract.columns[0]
    for name in ("card", "\u0430ge"):  # a Cyrillic letter
        columns = (dataclasses.replace(first, name=name), *c.plan.contract.columns[1:])
        c.propose_with(contract=dataclasses.replace(c.plan.contract, columns=columns))


@attack("refused contract+label", writes="refusal")
def a_label_outside_the_whitelist(c: Hostile) -> None:
    """Asks for another column as the label."""
    c.propose_with(contract=dataclasses.replace(c.plan.contract, label="churned"))


@attack("refused contract, refused contract+special-column", writes="refusal x2")
def a_special_column_called_ordinary(c: Hostile) -> None:
    """Calls a special column ordinary, and an ordinary one special that the policy does not list as such."""
    c.propose_with(contract=column(c.plan, "region", sensitivity="ordinary"))
    c.propose_with(contract=column(c.plan, "age", sensitivity="special"))


@attack("refused contract+customer", writes="refusal")
def another_unit_of_privacy(c: Hostile) -> None:
    """Names another column as the customer, so that each row would be protected for itself."""
    c.propose_with(contract=dataclasses.replace(c.plan.contract, customer="row"))


@attack("refused contract x6", writes="refusal x6")
def contracts_that_differ_by_little(c: Hostile) -> None:
    """Shifts bounds and edges a little from plan to plan, so that the difference of two answers is a few customers."""
    for high in (89.0, 88.0, 87.0):
        c.propose_with(contract=column(c.plan, "age", high=high))
    c.propose_with(contract=column(c.plan, "spend", edges=(50.0, 151.0)))
    c.propose_with(contract=column(c.plan, "region", values=("north", "south")))
    c.propose_with(contract=dataclasses.replace(c.plan.contract, rows_per_customer=1))


@attack("refused segment x2", writes="refusal x2")
def a_shifted_cohort(c: Hostile) -> None:
    """Asks for a part of the customers by a segment that the partner never made."""
    c.propose_with(cohort__segments=("north",))
    c.propose_with(cohort__segments=("north", "south"))


@attack("refused signature x2, refused cohort x2", writes="refusal x3")
def a_cohort_of_the_attackers_size(c: Hostile) -> None:
    """Sets the least cohort to one, to none, and to sizes by which the table could be counted."""
    for size in (1, 0):
        c.propose_table(put(c.plan.to_dict(), ("cohort", "minimum_customers"), size))
    for size in (11, 10**9):
        c.propose_with(cohort__minimum_customers=size)


@attack("refused signature x5", writes="refusal")
def metrics_without_noise(c: Hostile) -> None:
    """Asks for histograms of no bin, of a billion, in rounds that do not exist, and names a sigma of zero."""
    table = c.plan.to_dict()
    for path, value in (
        (("metrics", "bins"), 0),
        (("metrics", "bins"), 10**9),
        (("metrics", "rounds"), [1, 1, 2]),
        (("metrics", "rounds"), [1, 2, 3]),
        (("metrics", "sigma"), 0.0),
    ):
        c.propose_table(put(table, path, value))


# --- what for, by whom ----------------------------------------------------------------------------------------


@attack("refused purpose x5", writes="refusal x5")
def a_purpose_outside_the_policy(c: Hostile) -> None:
    """Names another purpose, and the permitted one with letters that look alike, are wide, or are not seen."""
    for purpose in ("credit scoring", "c\u043eupons", "\uff43oupons", "coupons\u200b", "Coupons"):
        c.propose_with(purpose=purpose)


@attack("refused family", writes="refusal")
def a_family_outside_the_policy(c: Hostile) -> None:
    """Asks for a larger model."""
    c.propose_with(model__family="mlp")


@attack("refused trust", writes="refusal")
def a_trust_outside_the_policy(c: Hostile) -> None:
    """Asks for secure sums, in which the partner's own noise alone would not suffice."""
    c.propose_with(privacy__trust="secure-aggregation", privacy__threshold=3)


@attack("refused expired x2", writes="refusal x2")
def a_plan_that_has_expired(c: Hostile) -> None:
    """Signs a plan that ended yesterday, and one that ended long ago."""
    c.propose_with(expires=datetime.date(2020, 1, 1))
    c.propose_with(expires=datetime.date(1970, 1, 1))


@attack("refused partners+roster, refused roster", writes="refusal x2")
def a_plan_without_this_partner(c: Hostile) -> None:
    """Sends a partner a plan of others, and one in which another name has its place."""
    others = tuple(partner for partner in c.plan.partners if partner.name != c.victim)
    c.propose_with(partners=others)
    c.propose_with(partners=(Partner(name="someone", customers=120, key=c.outsider.public), *others))


@attack("refused roster x3", writes="refusal x3")
def another_key_in_the_roster(c: Hostile) -> None:
    """Puts its own key, a stranger's, and none in the victim's place."""
    for key in (c.identity.public, c.outsider.public, ""):
        roster = tuple(dataclasses.replace(p, key=key) if p.name == c.victim else p for p in c.plan.partners)
        c.propose_with(partners=roster)


@attack("refused signature, refused partners", writes="refusal x2")
def a_federation_of_one_or_two(c: Hostile) -> None:
    """Leaves the victim alone in the roster, or with one that helps the attacker, so that the model is its own."""
    alone = tuple(partner for partner in c.plan.partners if partner.name == c.victim)
    pair = (*alone, next(partner for partner in c.plan.partners if partner.name != c.victim))
    table = c.plan.to_dict()
    c.propose_table({**table, "partners": [p for p in table["partners"] if p["name"] == c.victim]})
    c.propose_with(partners=pair)


@attack("refused signature x5", writes="refusal")
def names_that_are_no_names(c: Hostile) -> None:
    """Signs plans with a name of a million letters, half a character, two alike, and a roster of nobody."""
    table = c.plan.to_dict()
    c.propose_table(put(table, ("name",), "n" * 500_000))
    c.propose_table(put(table, ("partners", 0, "name"), "n" * 500_000))
    c.propose_table(put(table, ("partners", 1, "name"), table["partners"][0]["name"]))
    c.propose_table(put(table, ("partners",), []))
    c.propose(signed_table(table, c.identity).replace(b'"spring"', b'"\\ud800"'))


@attack("consent-given x100")
def the_approved_plan_a_hundred_times(c: Hostile) -> None:
    """Proposes the approved plan again and again; the ledger must not grow."""
    for _ in range(100):
        c.propose(c.signed)


@attack("refused signature x100", writes="refusal")
def a_hundred_plans_by_other_keys(c: Hostile) -> None:
    """Floods the partner with plans that are not the coordinator's, each another."""
    for number in range(100):
        c.propose(sign(dataclasses.replace(c.plan, name=f"n{number}"), c.outsider))


@attack("refused awaiting x110", writes="refusal x110")
def an_inbox_filled_to_the_brim(c: Hostile) -> None:
    """Floods the operator with 110 plans that nothing speaks against: a hundred are kept, and the reports say so."""
    for number in range(110):
        c.propose_with(name=f"n{number}")
    assert "holds 100 plans that wait" in c.nodes[c.victim].reports()


@attack("refused purpose x100", writes="refusal x100")
def a_hundred_plans_that_the_policy_refuses(c: Hostile) -> None:
    """Signs a hundred plans that are each refused: of each stay one entry and one line, and no more."""
    before = len(c.nodes[c.victim].reports())
    for number in range(100):
        c.propose_with(purpose=f"p{number}")
    grown = (len(c.nodes[c.victim].reports()) - before) / 100
    c.note = f"{grown:.0f} bytes of reports each"
    assert grown < 200, c.note
