"""Studies that rest on consent: work reads who consented, as if nobody else were there, and the others are counted."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from coterie.clients.intake import take_in_consents
from coterie.clients.refusals import TaskRefused
from coterie.clients.tables.table import whole
from coterie.clients.vault import CONSENTS, INTERACTIONS, open_vault
from coterie.privacy.errors import ContractFault
from coterie.privacy.release import ConsentGiven, Refused
from coterie.tests.clients.federation import TODAY, Federation, table_of, today
from coterie.tests.clients.recommending import Recommending, recommends

ALL = [f"amber-{number:05d}" for number in range(150)]
KINDS = ("train", "measure")


class Held:
    """Rows of consents in memory."""

    place = "consents.csv"

    def __init__(self, rows):
        names = ("customer", "purpose", "given", "expires", "withdrawn")
        self.table = pa.table({n: pa.array([row[i] for row in rows], pa.string()) for i, n in enumerate(names)})
        self.schema = self.table.schema

    def pieces(self, names):
        yield from self.table.select(list(names)).to_batches(max_chunksize=40)


def given(customers, purpose="coupons", since="2030-01-01", until=None, withdrawn=None):
    return [(customer, purpose, since, until, withdrawn) for customer in customers]


def seal(federation, rows, name="amber"):
    with open_vault(federation.folders[name], federation.clock) as vault:
        return take_in_consents(vault, Held(rows))


@pytest.fixture
def asking(federation):
    """A federation whose first partner needs consents, and has not sealed any."""
    federation.policy(consent={"elsewhere": {}})
    return federation


def twin(federation, rows, tmp_path):
    """The same federation, in which the others are no customers at all and no consent is asked for."""
    other = Federation(shutil.copytree(federation.root, tmp_path / "twin"))
    other.policy(consent={"elsewhere": {"coupons": "tests"}})
    other.put(rows)
    other.propose()
    return other


def test_a_plan_is_consented_to_once_a_table_of_consents_is_sealed(asking):
    assert asking.propose() == Refused(asking.digest, ("consent",))
    assert seal(asking, given(ALL) + given(ALL[:3], "churn")) == {"coupons": 150, "churn": 3}
    assert isinstance(asking.propose(), ConsentGiven)
    asking.train()
    (record,) = asking.kept().values()
    assert record.counts == {"rows": 150, "customers": 150}


@pytest.mark.parametrize("kind", KINDS)
def test_a_release_is_the_one_in_which_who_did_not_consent_is_no_customer(asking, tmp_path, kind):
    rows = [*given(ALL[:100]), *given(ALL[100:120], withdrawn="2031-05-04"), *given(ALL[120:130], until="2031-05-03")]
    rows += [*given(ALL[130:140], since="2031-05-05"), *given(ALL[140:145], "churn")]
    seal(asking, rows)
    asking.propose()
    one = getattr(asking, kind)()
    other = getattr(twin(asking, table_of().slice(0, 100), tmp_path), kind)()
    assert all(a.tobytes() == b.tobytes() for a, b in zip(one.arrays, other.arrays, strict=True))
    (record,) = asking.kept().values()
    said = {word: count for word, count in record.counts.items() if word not in {"rows", "customers"}}
    assert record.counts["rows"] == record.counts["customers"] == 100
    assert sorted(said.values()) == [10, 10, 10, 20]
    for reason, count in {
        "withdrawn": 20,
        "expired": 10,
        "not yet given": 10,
        "no consent for the purpose": 10,
    }.items():
        assert [n for word, n in said.items() if reason in word] == [count]


def test_everybody_would_have_given_another_release(asking, tmp_path):
    seal(asking, given(ALL[:100]))
    asking.propose()
    everybody = twin(asking, table_of(), tmp_path).train()
    assert not np.array_equal(asking.train().arrays[0], everybody.arrays[0])


def test_a_withdrawal_between_two_rounds_counts_from_the_next_on(asking):
    seal(asking, given(ALL))
    asking.propose()
    asking.train()
    seal(asking, given(ALL[:110]) + given(ALL[110:], withdrawn="2031-05-04T11:59:59Z"))
    asking.train("amber", 2)
    assert sorted(record.counts["rows"] for record in asking.kept().values()) == [110, 150]


def test_a_consent_that_ends_while_a_study_runs_ends_there_and_a_clock_put_back_revives_none(asking):
    seal(asking, given(ALL[:110]) + given(ALL[110:], until="2031-05-04T12:30:00Z"))
    asking.propose()
    asking.train()
    asking.clock = lambda: TODAY.replace(hour=13)
    asking.train("amber", 2)
    asking.clock = today
    asking.measure()
    assert sorted(record.counts["rows"] for record in asking.kept().values()) == [110, 110, 150]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("who", ["nobody", "too few", "another purpose", "a consent table that is gone"])
def test_where_too_few_consented_the_partner_is_unavailable_like_for_any_other_reason(asking, kind, who):
    rows = {"nobody": [], "too few": given(ALL[:8]), "another purpose": given(ALL, "churn")}.get(who, given(ALL))
    seal(asking, rows)
    asking.propose()
    if who == "a consent table that is gone":
        shutil.rmtree(asking.workspace().vault / CONSENTS / "streams")
    with pytest.raises(TaskRefused) as refused:
        getattr(asking, kind)()
    assert refused.value.code == "unavailable"
    assert asking.reservations() == ()
    assert [e.body["codes"] for e in asking.entries() if e.kind == "refusal"] == [["unavailable"]]


def test_a_broken_table_of_consents_is_not_sealed_and_the_old_one_stays(asking):
    seal(asking, given(ALL[:120]))
    with pytest.raises(
        ContractFault, match=r"consents[.]csv column given: is no ISO 8601 day or time with a zone in 2 rows"
    ):
        seal(asking, given(ALL) + given(ALL[:2], since="04/05/2031"))
    asking.propose()
    asking.train()
    assert [record.counts["rows"] for record in asking.kept().values()] == [120]


def test_the_others_need_none_where_their_policy_names_another_ground(asking):
    seal(asking, given(ALL))
    progress = asking.run()
    assert (progress.round, progress.refusals) == (2, ())


def test_a_recommender_learns_from_who_consented_as_if_nobody_else_were_there(tmp_path):
    federation = Recommending(tmp_path / "one", recommends())
    with federation.sealed("amber", INTERACTIONS) as table:
        rows = whole(table, table.schema.names)
    names = sorted(set(rows["customer"].to_pylist()))
    kept = names[: 3 * len(names) // 4]
    other = federation.copied(tmp_path / "two")
    other.put(rows.filter(pc.is_in(rows["customer"], value_set=pa.array(kept))))
    federation.policy(consent={"elsewhere": {}})
    seal(federation, given(kept))
    for one in (federation, other):
        one.propose()
    released = [one.answer() for one in (federation, other)]
    assert released[0].arrays[0].tobytes() == released[1].arrays[0].tobytes()
    (record,) = federation.kept().values()
    assert record.counts["training customers"] + record.counts["held-out customers"] <= len(kept)
    assert [n for word, n in record.counts.items() if "no consent" in word] == [len(names) - len(kept)]
