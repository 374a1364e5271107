"""From a study file to the books: keys of those admitted, strangers by name, and asking again."""

import pytest

from coterie.privacy.clock import now
from coterie.privacy.errors import FileFault, PlanFault
from coterie.privacy.identity import Identity
from coterie.privacy.signed import SignedPlan
from coterie.server.books import Books, BooksFault
from coterie.server.office import Office
from coterie.server.submitting import resume, submit
from coterie.simulations import studies
from coterie.tests.server.bookwriters import member


@pytest.fixture
def office(tmp_path):
    return Office.create(tmp_path / "office", name="coordinator", address="localhost:4711", clock=now)


@pytest.fixture
def books(office):
    with Books(office.books_url, now) as books:
        yield books


@pytest.fixture
def study(tmp_path):
    """A study file, and the names of its partners."""
    path = tmp_path / "study.toml"
    path.write_text(studies.path("synthetic").read_text(encoding="utf-8"), encoding="utf-8")
    from coterie.privacy.study import read_study

    return path, [partner.name for partner in read_study(path).plan.partners]


def admit(books, names):
    keys = {name: Identity.create().public for name in names}
    for name in names:
        books.admit(member(name, key=keys[name]))
    return keys


def test_partners_without_a_key_get_that_of_their_admission_and_the_office_signs(office, books, study):
    path, names = study
    keys = admit(books, names)
    filed = submit(office, books, path)
    plan = SignedPlan.from_bytes(filed.signed, coordinator=office.identity.public).plan
    assert {partner.name: partner.key for partner in plan.partners} == keys
    assert (filed.status, filed.name, filed.digest) == ("queued", plan.name, plan.digest())
    assert books.studies() == (filed,)


def test_partners_that_were_not_admitted_are_all_named_and_nothing_is_filed(office, books, study):
    path, names = study
    admit(books, names)
    for name in names[:2]:
        books.revoke(name)
    with pytest.raises(FileFault) as error:
        submit(office, books, path)
    assert [fault.place for fault in error.value.faults] == [f"{path}: partners.{name}" for name in names[:2]]
    assert all("coterie coordinator admit" in fault.fix for fault in error.value.faults)
    assert books.studies() == ()


def test_a_key_in_the_file_stands_whatever_the_books_have(office, books, study):
    path, names = study
    own = Identity.create().public
    named = f'name = "{names[0]}"\n'
    assert named in path.read_text()
    path.write_text(path.read_text().replace(named, f'{named}key = "{own}"\n', 1))
    admit(books, names)
    filed = submit(office, books, path)
    plan = SignedPlan.from_bytes(filed.signed, coordinator=office.identity.public).plan
    assert plan.partners[0].key == own


def test_a_wrong_study_file_is_refused_before_the_books_are_touched(office, books, study):
    path, names = study
    admit(books, names)
    path.write_text(path.read_text().replace("[privacy]", "[privacy]\nsurprise = 1"))
    with pytest.raises((PlanFault, FileFault)):
        submit(office, books, path)
    assert books.studies() == ()


@pytest.mark.parametrize("status", ["queued", "running", "finished"])
def test_a_plan_that_is_there_already_is_returned_as_it_stands(office, books, study, status):
    path, names = study
    admit(books, names)
    first = submit(office, books, path)
    for step in {"queued": (), "running": ("running",), "finished": ("running", "finished")}[status]:
        books.move(first.digest, step)
    assert submit(office, books, path).status == status
    assert len(books.studies()) == 1


@pytest.mark.parametrize("status", ["stopped", "failed", "aborted"])
def test_a_plan_whose_study_ended_early_is_queued_again(office, books, study, status):
    path, names = study
    admit(books, names)
    first = submit(office, books, path)
    books.move(first.digest, "running")
    books.move(first.digest, status, "a reason")
    again = submit(office, books, path)
    assert (again.digest, again.status, again.reason, again.stop) == (first.digest, "queued", "", False)


@pytest.mark.parametrize("status", ["stopped", "failed", "aborted"])
def test_what_ended_early_is_resumed_by_name_or_digest(office, books, study, status):
    path, names = study
    admit(books, names)
    first = submit(office, books, path)
    for ref in (first.name, first.digest, first.digest[7:15]):
        books.move(first.digest, "running")
        books.ask_stop(first.digest)
        books.move(first.digest, status)
        assert (resume(books, ref).status, books.stop_asked(first.digest)) == ("queued", False)


@pytest.mark.parametrize("status", ["queued", "running", "finished"])
def test_what_waits_runs_or_is_finished_is_not_resumed(office, books, study, status):
    path, names = study
    admit(books, names)
    first = submit(office, books, path)
    for step in {"queued": (), "running": ("running",), "finished": ("running", "finished")}[status]:
        books.move(first.digest, step)
    with pytest.raises(FileFault, match=f"is {status}"):
        resume(books, first.name)
    assert books.study(first.digest).status == status


def test_a_study_that_nobody_submitted_is_not_resumed(books):
    with pytest.raises(BooksFault):
        resume(books, "never")


def test_another_coordinators_signature_under_the_same_plan_is_refused(office, books, study, tmp_path):
    path, names = study
    admit(books, names)
    submit(office, books, path)
    other = Office.create(tmp_path / "other", name="coordinator", address="localhost:4711", clock=now)
    with pytest.raises(BooksFault, match="another signature"):
        submit(other, books, path)
