"""What the coordinator's books do on every database: one suite, run on SQLite and on PostgreSQL.

A module that runs it has a fixture `url`, of books that do not exist yet.
"""

import functools

import pytest

from coterie.privacy.signed import sign
from coterie.server.bookrows import FOLLOWS
from coterie.server.books import Absence, Books, BooksFault
from coterie.tests.server.bookwriters import (
    ROUNDS,
    Clock,
    Identity,
    a_round,
    admit_with,
    member,
    signed,
    struck,
    together,
    until_killed,
    work_on_a_study,
)


def rule(error):
    return error.value.faults[0].rule


class BooksContract:
    """The suite; a subclass is collected where there is a `url`."""

    @pytest.fixture
    def books(self, url):
        with Books(url, Clock()) as books:
            yield books

    @pytest.fixture
    def plan(self, books):
        plan = signed()
        books.submit(plan)
        return plan

    # --- partners -----------------------------------------------------------------------------------------------

    def test_a_partner_is_there_as_it_was_admitted(self, books):
        books.admit(member("birch"))
        books.admit(member("amber"))
        assert books.members() == (member("amber"), member("birch"))
        assert books.member("birch") == member("birch")

    def test_the_same_partner_admitted_again_is_no_error(self, books):
        books.admit(member())
        books.admit(member(expires="2033-05-04"))
        assert books.members() == (member(expires="2033-05-04"),)
        assert books.retired() == ()

    def test_another_key_under_an_admitted_name_is_refused(self, books):
        books.admit(member())
        with pytest.raises(BooksFault) as error:
            books.admit(member(key="ed25519:other", node="other"))
        assert rule(error) == "is admitted with another key"
        assert books.members() == (member(),)

    @pytest.mark.parametrize("field", ["key", "node"])
    def test_a_key_of_another_partner_is_refused(self, books, field):
        books.admit(member())
        with pytest.raises(BooksFault, match="a key of another partner"):
            books.admit(member("birch", **{field: getattr(member(), field)}))
        assert books.members() == (member(),)

    def test_a_renewed_node_key_takes_the_old_one_out_of_use(self, books):
        books.admit(member())
        books.admit(member(node="fresh"))
        assert (books.member("amber").node, books.retired()) == ("fresh", ("ecdsa amber",))
        with pytest.raises(BooksFault, match="replaced or revoked"):
            books.admit(member())
        assert books.member("amber").node == "fresh"

    def test_a_revoked_partner_stays_listed_and_its_node_key_never_comes_back(self, books):
        books.admit(member())
        revoked = books.revoke("amber")
        assert revoked.revoked == books.member("amber").revoked == "2031-05-04T12:00:02.000+00:00"
        assert books.revoke("amber") == revoked
        for back in (member(), member("birch", key="ed25519:birch", node=member().node)):
            with pytest.raises(BooksFault):
                books.admit(back)
        books.admit(member(key="ed25519:new", node="fresh"))
        assert books.members() == (member(key="ed25519:new", node="fresh"),)
        assert books.retired() == (member().node,)

    def test_a_partner_that_is_not_there_is_a_named_fault(self, books):
        for ask in (books.member, books.revoke):
            with pytest.raises(BooksFault, match="not in the books"):
                ask("nobody")

    # --- studies ------------------------------------------------------------------------------------------------

    def test_a_submitted_study_is_queued_and_holds_the_signed_bytes(self, books):
        plan = signed()
        filed = books.submit(plan)
        assert (filed.name, filed.status, filed.run, filed.stop) == ("spring", "queued", "", False)
        assert filed.signed == plan.to_bytes()
        assert books.submit(plan) == filed == books.study("spring")
        assert books.studies() == (filed,)

    def test_the_same_plan_under_another_signature_is_refused(self, books, plan):
        with pytest.raises(BooksFault, match="another signature"):
            books.submit(sign(plan.plan, Identity.create()))
        assert books.study("spring").signed == plan.to_bytes()

    def test_a_study_is_found_by_name_digest_or_six_digits_of_it(self, books, plan):
        digest = plan.plan.digest()
        bare = digest.removeprefix("sha256:")
        for ref in ("spring", digest, bare, bare[:6], digest[:13]):
            assert books.study(ref).digest == digest

    @pytest.mark.parametrize("ref", ["", "summer", "sprin", "sha256:", "%", "______", "sha256:" + "0" * 64])
    def test_what_names_no_study_finds_none(self, books, plan, ref):
        with pytest.raises(BooksFault, match="names no study"):
            books.study(ref)

    def test_five_digits_of_a_digest_are_too_few(self, books, plan):
        with pytest.raises(BooksFault, match="names no study"):
            books.study(plan.plan.digest().removeprefix("sha256:")[:5])

    def test_a_name_of_two_studies_asks_for_more(self, books, plan):
        books.submit(signed(day=30))
        with pytest.raises(BooksFault, match="names 2 studies"):
            books.study("spring")
        assert books.study(plan.plan.digest()).digest == plan.plan.digest()

    @pytest.mark.parametrize("first", sorted(FOLLOWS))
    @pytest.mark.parametrize("then", sorted(FOLLOWS))
    def test_a_status_changes_along_the_table_alone(self, books, plan, first, then):
        digest = plan.plan.digest()
        for status in {"queued": (), "running": ("running",)}.get(first, ("running", first)):
            books.move(digest, status)
        drawn = {
            "queued": "running aborted stopped failed",
            "running": "queued finished aborted stopped failed",
            "aborted": "queued",
            "stopped": "queued",
            "failed": "queued",
            "finished": "",
        }
        if then == first or then in drawn[first].split():
            assert books.move(digest, then).status == then
        else:
            with pytest.raises(ValueError, match="does not follow"):
                books.move(digest, then)
            assert books.study(digest).status == first

    def test_an_ended_study_says_when_and_why_until_it_is_asked_for_again(self, books, plan):
        digest = plan.plan.digest()
        books.move(digest, "running")
        books.set_run(digest, "17")
        ended = books.move(digest, "aborted", "too few answered")
        assert (ended.reason, ended.ended) == ("too few answered", "2031-05-04T12:00:03.000+00:00")
        assert books.move(digest, "aborted", "another word") == ended
        again = books.move(digest, "queued")
        assert (again.status, again.reason, again.ended, again.run) == ("queued", "", None, "17")

    def test_a_wish_to_stop_holds_until_the_study_is_asked_for_again(self, books, plan):
        digest = plan.plan.digest()
        assert not books.stop_asked(digest)
        books.move(digest, "running")
        books.ask_stop(digest)
        assert books.stop_asked(digest)
        books.move(digest, "stopped")
        with pytest.raises(BooksFault, match="stopped already"):
            books.ask_stop(digest)
        books.move(digest, "queued")
        assert not books.stop_asked(digest)

    def test_a_study_that_was_not_submitted_takes_nothing(self, books, plan):
        other = signed("other")
        digest = other.plan.digest()
        for write in (
            functools.partial(books.move, digest, "running"),
            functools.partial(books.set_run, digest, "1"),
            functools.partial(books.ask_stop, digest),
            functools.partial(books.stop_asked, digest),
            functools.partial(books.note_round, a_round(other, 1)),
            functools.partial(books.note_refusals, digest, [Absence("amber", "train", 1, "silent")]),
            functools.partial(books.publish_model, digest, model="sha256:m", record="sha256:r"),
        ):
            with pytest.raises(BooksFault, match="not in the books"):
                write()
        assert (books.rounds(digest), books.refusals(digest), books.models()) == ((), (), ())

    # --- what came of them --------------------------------------------------------------------------------------

    def test_rounds_are_there_in_their_order(self, books, plan):
        for number in (2, 10, 1):
            books.note_round(a_round(plan, number, sent=2**40, received=2**41))
        found = books.rounds(plan.plan.digest())
        assert [round_.round for round_ in found] == [1, 2, 10]
        assert (found[0].cohort, found[0].seconds, found[0].sent) == (("amber", "birch"), 1.5, 2**40)
        assert (found[0].received, found[0].at) == (2**41, "2031-05-04T12:00:04.000+00:00")

    def test_a_round_noted_again_stands_as_it_was_first(self, books, plan):
        books.note_round(a_round(plan, 1))
        before = books.rounds(plan.plan.digest())
        books.note_round(a_round(plan, 1, seconds=9.0))
        assert books.rounds(plan.plan.digest()) == before

    def test_another_model_for_a_published_round_is_refused(self, books, plan):
        books.note_round(a_round(plan, 1))
        with pytest.raises(BooksFault, match="in round 1 with another model"):
            books.note_round(a_round(plan, 1, model="sha256:other"))
        assert [round_.model for round_ in books.rounds(plan.plan.digest())] == [a_round(plan, 1).model]

    def test_refusals_are_there_once_each(self, books, plan):
        digest = plan.plan.digest()
        first = [Absence("birch", "train", 2, "silent"), Absence("node 7", "consent", 0, "rejected", "twice")]
        books.note_refusals(digest, first)
        books.note_refusals(digest, [*first, Absence("amber", "train", 2, "lost"), first[0]])
        books.note_refusals(digest, [])
        assert [(a.round, a.partner, a.code, a.why) for a in books.refusals(digest)] == [
            (0, "node 7", "rejected", "twice"),
            (2, "amber", "lost", ""),
            (2, "birch", "silent", ""),
        ]

    def test_versions_count_up_over_the_studies_of_a_name(self, books):
        plans = [signed(day=day) for day in (28, 29, 30)] + [signed("autumn")]
        for plan in plans:
            books.submit(plan)
        made = [books.publish_model(p.plan.digest(), model=f"m{i}", record="r") for i, p in enumerate(plans)]
        assert [(model.name, model.version) for model in made] == [
            ("spring", 1),
            ("spring", 2),
            ("spring", 3),
            ("autumn", 1),
        ]
        assert books.models() == (made[3], *made[:3])
        assert books.models("spring") == tuple(made[:3])
        assert books.models(plans[1].plan.digest()) == (made[1],)
        assert books.models("summer") == ()

    def test_a_model_published_again_keeps_its_version_and_its_time(self, books, plan):
        digest = plan.plan.digest()
        made = books.publish_model(digest, model="m", record="r")
        assert books.publish_model(digest, model="m", record="r") == made
        for other in ({"model": "n", "record": "r"}, {"model": "m", "record": "s"}):
            with pytest.raises(BooksFault, match="published as version 1"):
                books.publish_model(digest, **other)
        assert books.models() == (made,)

    # --- several processes, and their ends ----------------------------------------------------------------------

    def test_books_opened_again_hold_what_was_written(self, url):
        plan = signed()
        with Books(url, Clock()) as books:
            filed = books.submit(plan)
        with Books(url, Clock()) as books:
            assert books.studies() == (filed,)

    def test_eight_processes_lose_no_write_and_share_no_version(self, url):
        days = range(20, 28)
        versions = together(functools.partial(work_on_a_study, url), days)
        assert sorted(versions.values()) == list(range(1, 9))
        with Books(url, Clock()) as books:
            assert len(books.studies()) == 8
            for study_ in books.studies():
                assert study_.status == "finished"
                assert [round_.round for round_ in books.rounds(study_.digest)] == list(range(1, ROUNDS + 1))
                assert len(books.refusals(study_.digest)) == ROUNDS
            assert {model.study: model.version for model in books.models()} == {
                signed(day=day).plan.digest(): version for day, version in versions.items()
            }

    def test_of_eight_partners_that_ask_with_one_node_key_at_once_one_is_admitted(self, url):
        names = [f"partner-{number}" for number in range(8)]
        taken = together(functools.partial(admit_with, url, node="one node key"), names)
        assert sorted(taken.values()) == [False] * 7 + [True]
        with Books(url, Clock()) as books:
            assert [m.name for m in books.members()] == [name for name, took in taken.items() if took is True]

    def test_a_kill_in_the_midst_of_writing_loses_nothing_that_was_acknowledged(self, url):
        plan, last = signed(), 0
        for enough in (1, 7, 20, 60, 1, 33, 150, 2):
            told = struck(until_killed, url, plan, last + 1, enough=enough)
            with Books(url, Clock()) as books:
                kept = [round_.round for round_ in books.rounds(plan.plan.digest())]
            assert kept == list(range(1, len(kept) + 1))
            assert told
            assert len(kept) - told[-1] in {0, 1}  # the one at work may be there without a word of it
            last = len(kept)
