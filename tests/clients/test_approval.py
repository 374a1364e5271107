"""Approval: a coordinator asks through bounds that the partner's operator has seen, and learns one bit at most."""

import dataclasses
import sqlite3

import pyarrow.parquet
import pytest

from coterie.clients.agreed import MOST_WEIGHT
from coterie.clients.intake import take_in
from coterie.clients.refusals import TaskRefused
from coterie.clients.tables.held import HeldTable
from coterie.clients.task import Task
from coterie.clients.vault import open_vault
from coterie.privacy.errors import ContractFault
from coterie.privacy.release import ConsentGiven
from coterie.privacy.signed import sign
from coterie.tests.clients.bad_tables import all_wrong
from coterie.tests.clients.federation import CONTRACT, bare, changed, table_of, watched


def column(name, **changes):
    columns = tuple(dataclasses.replace(c, **(changes if c.name == name else {})) for c in CONTRACT.columns)
    return dataclasses.replace(CONTRACT, columns=columns)


OTHERS = {
    "a bound": column("age", high=89.0),
    "an edge": column("spend", edges=(50.0, 151.0)),
    "a word": column("region", values=("north", "south", "west")),
    "what happens outside": column("age", outside="clip"),
    "what happens to the missing": column("age", missing="centre"),
    "the sensitivity": column("age", sensitivity="ordinary"),
    "the rows": dataclasses.replace(CONTRACT, rows_per_customer=2),
    "what happens to too many": dataclasses.replace(CONTRACT, too_many_rows="sample"),
}


def unapproved(federation, **changes):
    """Another plan of the same coordinator, that no operator has seen."""
    return sign(changed(federation.plan, **changes), federation.coordinator)


def answer(federation, signed, kind="train"):
    """What a coordinator hears of a plan and of its first task."""
    given = federation.propose(signed=signed.to_bytes())
    if not isinstance(given, ConsentGiven):
        return given.codes
    with federation.node() as node:
        try:
            getattr(node, kind)(Task(signed.plan.digest(), 1, 1, federation.weights()))
        except TaskRefused as error:
            return error.code
    return "answered"


@pytest.mark.parametrize("name", OTHERS)
def test_a_contract_that_differs_anywhere_needs_an_approval_of_its_own(federation, name):
    signed = unapproved(federation, contract=OTHERS[name])
    with watched(federation.streams()) as opened:
        assert answer(federation, signed) == ("contract",)
    assert opened == []
    federation.workspace().approve(OTHERS[name])
    assert isinstance(federation.propose(signed=signed.to_bytes()), ConsentGiven)


def test_the_sealing_of_a_table_is_the_approval(federation):
    contract = OTHERS["a bound"]
    signed = unapproved(federation, contract=contract)
    with open_vault(federation.folders["amber"], federation.clock) as vault, pytest.raises(ContractFault):
        take_in(vault, HeldTable(all_wrong()), contract)
    assert answer(federation, signed) == ("contract",)
    young = table_of().filter(pyarrow.compute.less_equal(table_of()["age"], 89))
    with open_vault(federation.folders["amber"], federation.clock) as vault:
        take_in(vault, HeldTable(young), contract)
    assert answer(federation, signed) == "answered"


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_an_answer_that_depends_on_rows_is_given_once_and_then_without_them(agreed, kind):
    agreed.put(all_wrong())
    vault = agreed.streams()
    grid = agreed.grid()
    with watched(vault) as opened:
        first = agreed.ask_task(grid, kind)
    assert opened
    heard = bare(grid.passed[-1])
    agreed.put(table_of())  # what is asked next does not depend on the table
    with watched(vault) as opened:
        for other in ("train", "evaluate"):
            again = agreed.ask_task(grid, other)
            assert again.error.reason == first.error.reason == "unavailable"
        agreed.ask_task(grid, kind)
    assert opened == []
    assert bare(grid.passed[-1]) == heard
    assert agreed.kinds() == ["consent", "refusal"]
    assert answer(agreed, agreed.signed) == ("contract",)


def test_a_row_of_plans_cannot_count_the_customers(federation):
    """Each plan asks for another cohort, as in a search by halves for the number of customers."""
    federation.policy(minimum_customers=100)
    heard = [answer(federation, federation.sign(name=f"n{n}", cohort__minimum_customers=n)) for n in range(10, 200, 27)]
    assert heard[0] == "answered"
    assert set(heard[:4]) <= {"answered", ("budget",)}
    assert set(heard[4:]) == {("cohort",)}
    federation.put(table_of(count=60))
    small = [answer(federation, federation.sign(name=f"m{n}", cohort__minimum_customers=n)) for n in range(10, 100, 27)]
    assert "answered" not in small
    assert len({str(one) for one in small}) == 1


def test_a_row_of_bounds_is_stopped_by_the_first_that_does_not_hold(federation):
    """Each plan asks for a lower bound, as in a search for the oldest customer; nobody approves between them."""
    plans = [unapproved(federation, name=f"h{high:g}", contract=column("age", high=high)) for high in (89.0, 88.0)]
    assert [answer(federation, plan) for plan in plans] == [("contract",)] * 2


@pytest.mark.parametrize("kind", ["train", "measure"])
def test_an_older_ledger_put_back_does_not_give_the_budget_back(agreed, kind):
    path = agreed.workspace().ledger
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").connection.close()
    older = path.read_bytes()
    getattr(agreed, kind)()
    for side in ("-wal", "-shm"):
        path.with_name(path.name + side).unlink(missing_ok=True)
    path.write_bytes(older)
    with pytest.raises(TaskRefused) as caught:
        getattr(agreed, kind)()
    assert caught.value.code == "fault"
    assert agreed.kinds() == ["consent"]


def test_weights_beyond_all_reason_are_no_task(agreed):
    with pytest.raises(TaskRefused) as caught:
        agreed.train(weights=agreed.weights(2 * MOST_WEIGHT))
    assert caught.value.code == "task"
    agreed.train(weights=agreed.weights(MOST_WEIGHT / 2))
