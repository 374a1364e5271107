"""What a coordinator hears of a bad table: one word, the same for every reason that depends on rows."""

import pytest

from coterie.clients.opening import open_table
from coterie.clients.training import check_cohort
from coterie.privacy.errors import ContractFault
from coterie.tests.clients.bad_tables import FAULTS, PARQUET_FAULTS, all_wrong, as_tables
from coterie.tests.clients.federation import bare, files_of, table_of

TABLES = {**as_tables(FAULTS), **as_tables(PARQUET_FAULTS), "all at once": all_wrong(), "too few": table_of(count=11)}


def ask(federation, kind):
    """Ask for a step of an approved contract; return the bytes of the answer but for identifiers and times."""
    federation.workspace().approve(federation.plan.contract)
    grid = federation.grid()
    reply = federation.ask_task(grid, kind)
    assert reply.has_error()
    return bare(grid.passed[-1])


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_every_fault_of_a_table_is_the_same_bytes_to_the_coordinator(agreed, kind):
    answers = {}
    for name, table in TABLES.items():
        agreed.put(table)
        answers[name] = ask(agreed, kind)
    for path in agreed.streams().iterdir():
        path.write_bytes(b"no table at all")
    answers["garbage"] = ask(agreed, kind)
    for path in agreed.streams().iterdir():
        path.unlink()
        path.mkdir()
    answers["folders"] = ask(agreed, kind)
    agreed.lose()
    answers["absent"] = ask(agreed, kind)
    assert b"unavailable" in answers["absent"]
    different = [name for name, answer in answers.items() if answer != answers["absent"]]
    assert different == []


@pytest.mark.parametrize("kind", ["train", "evaluate"])
@pytest.mark.parametrize("name", TABLES)
def test_a_bad_table_is_told_in_full_to_the_partner_and_changes_nothing_else(agreed, kind, name):
    agreed.put(TABLES[name])
    before = files_of(agreed.folders["amber"])
    entries = agreed.everything()
    ask(agreed, kind)
    after = files_of(agreed.folders["amber"])
    changed = {file for file in after if before.get(file) != after[file]}
    assert changed <= {"reports/refusals.log", "ledger.sqlite", "lock"}
    (approval,) = before.keys() - after.keys()
    assert approval.startswith("contracts/")
    # Appended: that it was unavailable, and nothing of why.
    *earlier, last = agreed.everything()
    assert earlier == entries
    assert (last.kind, last.body["codes"]) == ("refusal", ["unavailable"])
    with pytest.raises(ContractFault) as caught:
        open_as_operator(agreed)
    told = agreed.report().splitlines()
    assert told == [str(fault) for fault in caught.value.faults]


def open_as_operator(agreed):
    """Open the table as the partner's own operator would."""
    stream, group_key = agreed.random.stream("rows"), agreed.workspace().group_key
    with agreed.sealed() as table:
        opened = open_table(table, agreed.plan.contract, group_key=group_key, stream=stream)
    check_cohort(opened, agreed.plan.cohort.minimum_customers)


def test_a_study_goes_on_without_the_partner_whose_table_is_bad(federation):
    federation.put(all_wrong(), "cedar")
    progress = federation.run()
    assert progress.round == 2
    assert {(r.partner, r.code, r.why) for r in progress.refusals} == {("cedar", "unavailable", "")}
    assert federation.reservations("cedar") == ()
