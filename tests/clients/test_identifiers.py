"""Identifiers: sealed in one spelling each, rejected by reason, opened for who may be matched, held against dicts."""

import datetime
import logging
import stat

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.clients.consents import consented
from coterie.clients.erasing import erase, rows_of
from coterie.clients.groups import Among, segment_of
from coterie.clients.identifierrows import open_identifiers
from coterie.clients.identifiers import Identified
from coterie.clients.identifying import take_in_identifiers
from coterie.clients.rekeying import destroy_older, rekey, rewrap
from coterie.clients.tables.files import table_at
from coterie.clients.tables.held import HeldTable
from coterie.clients.tables.table import whole
from coterie.clients.taint import is_tainted
from coterie.clients.vault import IDENTIFIERS
from coterie.clients.who import EVERYBODY, Who
from coterie.privacy.errors import ContractFault, FileFault
from coterie.privacy.fields.errors import SealFault
from coterie.privacy.matching.identifiers import RULES, rules_version
from coterie.privacy.policy import Segments
from coterie.tests.stories.vaultkit import GROUP_KEY, opened, put, read, tree, unnamed_files, workspace

CANARY = "canary-4711@mail.example"
MAIL = Identified("id", {"email": "mail"})
ALL = Identified("id", {"email": "mail", "phone": "mobile", "loyalty": "card"}, "GB")


@pytest.fixture
def bank(tmp_path):
    return workspace(tmp_path / "bank")


def table(**columns):
    return HeldTable(pa.table({name: pa.array(column) for name, column in columns.items()}))


def sealed(bank, where=MAIL, **columns):
    with opened(bank) as vault:
        return take_in_identifiers(vault, table(**columns), where)


def found(bank, kind="email", who=EVERYBODY):
    with opened(bank) as vault:
        return open_identifiers(vault.table(IDENTIFIERS), kind, group_key=GROUP_KEY, who=who)


def by_item(opened_list):
    """The items with their customers, each asked for by a mask of its own."""
    items = [item for piece in opened_list.items() for item in piece]
    masks = np.eye(len(items), dtype=np.bool_)
    return {item: opened_list.customers_of(mask).to_pylist() for item, mask in zip(items, masks, strict=True)}


def rows(bank):
    with opened(bank) as vault:
        kept = vault.table(IDENTIFIERS)
        return [tuple(row.values()) for row in whole(kept, kept.schema.names).to_pylist()]


def report(bank):
    text = (bank.root / "reports" / "identifiers-rejected.csv").read_text().splitlines()
    assert text[0] == '"row","kind","reason"'
    return [tuple(cell.strip('"') for cell in line.split(",")) for line in text[1:]]


# --- on their way in ----------------------------------------------------------------------------------------------


def test_every_kind_is_sealed_in_one_spelling_with_the_rules_that_made_it(bank):
    done = sealed(
        bank,
        ALL,
        id=["a", "b"],
        mail=[" Jane.Saoirse+Work@gmail.com ", None],
        mobile=["+44 20 7946 0958", "020 7946 0959"],
        card=["C-1", ""],
    )
    assert sorted(rows(bank)) == [
        ("a", "email", "janesaoirse@gmail.com", RULES),
        ("a", "loyalty", open_value(bank, "loyalty"), RULES),
        ("a", "phone", "+442079460958", rules_version("phone")),
        ("b", "phone", "+442079460959", rules_version("phone")),
    ]
    assert dict(done.taken) == {"email": 1, "phone": 2, "loyalty": 1}
    assert done.rejected == {("email", "empty"): 1, ("loyalty", "empty"): 1}
    assert report(bank) == []
    assert [found(bank, kind).version for kind in ("email", "phone")] == [RULES, rules_version("phone")]


def open_value(bank, kind):
    ((value,),) = [list(piece) for piece in found(bank, kind).items()]
    return value


def test_both_forms_of_unicode_are_one_item(bank):
    sealed(bank, id=["a", "b"], mail=["jos\u00e9@mail.example", "jose\u0301@mail.example"])
    assert by_item(found(bank)) == {"jos\u00e9@mail.example": ["a", "b"]}


def test_what_is_rejected_is_counted_and_its_rows_are_in_a_report_that_shows_no_value(bank):
    done = sealed(
        bank,
        ALL,
        id=["a", "b", "c", "a", "a"],
        mail=["a@mail.example", "no address", None, "A@mail.example", "other@mail.example"],
        mobile=["020 7946 0958", "12", "555-0100", None, ""],
        card=[None] * 5,
    )
    assert done.rejected == {
        ("email", "empty"): 1,
        ("email", "not-an-address"): 1,
        ("email", "second"): 1,
        ("loyalty", "empty"): 5,
        ("phone", "empty"): 2,
        ("phone", "not-valid"): 2,
    }
    assert report(bank) == [
        ("2", "email", "not-an-address"),
        ("5", "email", "second"),
        ("2", "phone", "not-valid"),
        ("3", "phone", "not-valid"),
    ]
    assert stat.S_IMODE(done.report.stat().st_mode) == 0o600
    assert by_item(found(bank)) == {"a@mail.example": ["a"]}


def test_rows_are_counted_over_pieces_and_a_customer_keeps_its_first_over_all_of_them(bank, tmp_path):
    count = 140_000
    mails = [f"c{n}@mail.example" for n in range(count)] + ["c0@mail.example", "late@mail.example", "x"]
    columns = {"id": [f"c{n}" for n in range(count)] + ["c0", "c69999", "new"], "mail": mails}
    pyarrow.csv.write_csv(pa.table(columns), tmp_path / "long.csv")
    seen = []
    with opened(bank) as vault:
        done = take_in_identifiers(vault, table_at(tmp_path / "long.csv"), MAIL, see=seen.append)
    assert (dict(done.taken), seen[-1]) == ({"email": count}, count)
    assert report(bank) == [(str(count + 2), "email", "second"), (str(count + 3), "email", "not-an-address")]
    assert [len(piece) for piece in found(bank).items()] == [65_536, 65_536, count - 2 * 65_536]


def test_a_column_says_each_numbers_country_and_no_country_is_guessed(bank):
    numbers = ["020 7946 0958", "030 901820", "030 901820", "030 901820", "+49 30 901821"]
    where = Identified("id", {"phone": "mobile"}, "GB", "land")
    done = sealed(bank, where, id=list("abcde"), mobile=numbers, land=[None, "DE", "Germany", "UK", "XX"])
    assert by_item(found(bank, "phone")) == {"+442079460958": ["a"], "+4930901820": ["b"], "+4930901821": ["e"]}
    assert done.rejected == {("phone", "no-region"): 2}


def test_one_column_may_hold_two_kinds_and_customers_may_be_numbers(bank):
    where = Identified("id", {"email": "contact", "loyalty": "contact"})
    sealed(bank, where, id=[7, 12], contact=["a@mail.example", "C-2"])
    assert by_item(found(bank)) == {"a@mail.example": ["7"]}
    assert "12" in found(bank, "loyalty").owners()[0].to_pylist()


def test_sealing_again_replaces_all_and_its_report_and_is_an_approval(bank):
    assert not bank.identifies()
    sealed(bank, id=["a", "b"], mail=["a@mail.example", "no"])
    assert bank.identifies()
    bank.withdraw_identifiers()
    bank.withdraw_identifiers()
    assert not bank.identifies()
    sealed(bank, id=["c"], mail=["c@mail.example"])
    assert bank.identifies()
    assert by_item(found(bank)) == {"c@mail.example": ["c"]}
    assert report(bank) == []
    assert unnamed_files(bank) == []


FAULTS = {
    "a column that is missing": (Identified("id", {"email": "post"}), {}, "column post: is missing"),
    "a customer that is missing": (MAIL, {"id": ["a", None]}, "column id: is missing in 1 rows"),
    "numbers with points": (MAIL, {"id": [1.5, 2.5]}, "column id: must hold texts or whole numbers"),
    "addresses of a wrong type": (MAIL, {"mail": [True, False]}, "column mail: must hold texts or whole numbers"),
    "no kind": (Identified("id", {}), {}, "names no column of a known kind"),
    "an unknown kind": (Identified("id", {"fax": "mail"}), {}, "names no column of a known kind"),
    "no country": (Identified("id", {"phone": "mail"}, "UK"), {}, "the region: is no country's"),
    "a region for no number": (Identified("id", {"email": "mail"}, "GB"), {}, "is for phone numbers"),
    "nothing that can be taken": (MAIL, {"mail": ["no", CANARY[:11]]}, "has no identifier that can be taken"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_cannot_be_taken_in_changes_nothing_and_shows_no_value(bank, case, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    sealed(bank, id=["z"], mail=["z@mail.example"])
    bank.withdraw_identifiers()
    before = tree(bank.vault)
    where, columns, expected = FAULTS[case]
    with pytest.raises(ContractFault) as caught:
        sealed(bank, where, **({"id": ["a", "b"], "mail": [CANARY, "b@mail.example"]} | columns))
    out, err = capfd.readouterr()
    assert expected in str(caught.value)
    said = str(caught.value) + repr(caught.value) + caplog.text + out + err
    assert "canary" not in said
    assert tree(bank.vault) == before
    assert not bank.identifies()


def test_the_reasons_are_there_also_where_nothing_can_be_taken(bank):
    with pytest.raises(ContractFault, match=r"identifiers-rejected\.csv"):
        sealed(bank, id=["a", "b"], mail=["no", "nor this"])
    assert report(bank) == [("1", "email", "not-an-address"), ("2", "email", "not-an-address")]


def test_a_report_that_cannot_be_written_leaves_the_vault_as_it_was(bank):
    (bank.root / "reports" / "identifiers-rejected.csv.new").mkdir()
    with pytest.raises(FileFault, match="cannot be written"):
        sealed(bank, id=["a"], mail=["no"])
    with opened(bank) as vault:
        assert not vault.holds(IDENTIFIERS)


def test_no_value_is_in_the_clear_anywhere(bank, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    sealed(bank, id=["a", CANARY[:11]], mail=[CANARY, "canary no address"])
    kept = found(bank)
    out, err = capfd.readouterr()
    said = (caplog.text + out + err + repr(kept)).encode()
    said += b"".join(path.read_bytes() for path in bank.root.rglob("*") if path.is_file())
    assert b"canary" not in said
    assert by_item(kept) == {CANARY: ["a"]}  # and yet it is there


# --- new keys and erasure -----------------------------------------------------------------------------------------


def test_an_erased_customer_is_nowhere_and_the_others_and_the_rules_stay(bank):
    sealed(bank, ALL, id=["a", "b"], mail=["s@mail.example"] * 2, mobile=["020 7946 0958", None], card=["C-1", "C-2"])
    with opened(bank) as vault:
        assert rows_of(vault, "a") == {IDENTIFIERS: 3}
        assert erase(vault, "a").rows == {IDENTIFIERS: 3}
        assert rows_of(vault, "a") == {IDENTIFIERS: 0}
        assert vault.newest(IDENTIFIERS).epoch == "0002"
    assert by_item(found(bank)) == {"s@mail.example": ["b"]}
    assert found(bank).version == RULES
    with pytest.raises(ContractFault, match="holds none of this kind"):
        found(bank, "phone")


def test_new_keys_cover_them(bank):
    sealed(bank, id=["a"], mail=["a@mail.example"])
    with opened(bank) as vault:
        assert rewrap(vault).datasets == (IDENTIFIERS,)
        assert destroy_older(vault) == ("0001",)
    assert by_item(found(bank)) == {"a@mail.example": ["a"]}


# --- opened for a match -------------------------------------------------------------------------------------------

NAMES = [f"c{n}" for n in range(60)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES[:8]), st.sampled_from("pqrs")), min_size=1, max_size=30))
def test_items_and_their_customers_are_those_of_a_plain_reading(tmp_path_factory, told):
    first = {}
    for who, word in told:
        first.setdefault(who, f"{word}@mail.example")
    expected = {}
    for who, value in first.items():
        expected.setdefault(value, set()).add(who)
    place = workspace(tmp_path_factory.mktemp("plain") / "bank")
    sealed(place, id=[who for who, _ in told], mail=[f"{word}@mail.example" for _, word in told])
    kept = found(place)
    assert {item: set(who) for item, who in by_item(kept).items()} == expected
    assert sum(len(who) for who in by_item(kept).values()) == len(first)
    customers, places = kept.owners()
    items = [item for piece in kept.items() for item in piece]
    assert {who: items[at] for who, at in zip(customers.to_pylist(), places, strict=True)} == first
    assert kept.count == len(expected)
    assert kept.counts == {"items": len(expected), "customers": len(first)}


def test_removing_a_customer_changes_one_item_at_most(bank, tmp_path):
    values = [f"m{n % 40}@mail.example" for n in range(60)]
    sealed(bank, id=NAMES, mail=values)
    everybody = set(by_item(found(bank)))
    for place, gone in enumerate(NAMES[:45:11]):
        other = workspace(tmp_path / f"other{place}")
        chosen = [n for n, name in enumerate(NAMES) if name != gone]
        sealed(other, id=[NAMES[n] for n in chosen], mail=[values[n] for n in chosen])
        fewer = set(by_item(found(other)))
        assert fewer <= everybody
        assert len(everybody - fewer) == (0 if values.count(values[NAMES.index(gone)]) > 1 else 1)


def test_several_items_are_chosen_at_once(bank):
    sealed(bank, id=list("abcd"), mail=[f"{w}@mail.example" for w in "xyxz"])
    kept = found(bank)
    assert [item for piece in kept.items() for item in piece] == ["x@mail.example", "y@mail.example", "z@mail.example"]
    assert sorted(kept.customers_of(np.array([True, False, True])).to_pylist()) == ["a", "c", "d"]
    assert kept.customers_of(np.zeros(3, dtype=np.bool_)).to_pylist() == []


def test_a_digest_changes_with_any_item_and_any_owner_and_with_no_key(bank, tmp_path):
    names, values = list("abc"), ["p@mail.example", "q@mail.example", "p@mail.example"]
    told = [
        (names, values),
        (names, [*values[:2], "q@mail.example"]),
        (["d", "b", "c"], values),
        (names[:2], values[:2]),
    ]
    digests = []
    for place, (who, what) in enumerate(told):
        other = workspace(tmp_path / f"other{place}")
        sealed(other, id=who, mail=what)
        digests.append(found(other).digest)
        with opened(other) as vault:
            rewrap(vault)
            rekey(vault, IDENTIFIERS, "value")
        assert found(other).digest == digests[-1]
    assert len(set(digests)) == len(told)


DIVISION = Segments(by="hash", names=("north", "south", "east"))
AT = datetime.datetime(2031, 5, 4, 12, tzinfo=datetime.UTC)


def consents(names):
    given_ = [("2030-01-01", None if n % 3 else "2031-01-01") for n in range(len(names))]
    columns = ("customer", "purpose", "given", "expires", "withdrawn")
    cells = [[name, "coupons", since, None, gone] for name, (since, gone) in zip(names, given_, strict=True)]
    held = pa.table({c: pa.array([row[i] for row in cells], pa.string()) for i, c in enumerate(columns)})
    return consented(HeldTable(held), "coupons", AT)


@pytest.mark.parametrize("segments", [None, ("north",), ("east", "south")])
@pytest.mark.parametrize("asked", [False, True], ids=["everybody", "who consents"])
def test_only_who_may_be_read_is_in_the_list(bank, segments, asked):
    sealed(bank, id=NAMES, mail=[f"{name}@mail.example" for name in NAMES])
    mine = [n for n in NAMES if segments is None or segment_of(DIVISION, GROUP_KEY, n) in segments]
    known = NAMES[:50]
    kept = [n for n in mine if not asked or (n in known and known.index(n) % 3)]
    among = Among(DIVISION, segments) if segments else None
    opened_list = found(bank, who=Who(among, consents(known) if asked else None))
    assert sorted(opened_list.owners()[0].to_pylist()) == sorted(kept)
    assert 0 < len(kept) <= 60
    withdrawn = len([n for n in mine if n in known and known.index(n) % 3 == 0])
    never = len([n for n in mine if n not in known])
    told = {"customers: no consent for the purpose": never, "customers: withdrawn": withdrawn} if asked else {}
    assert dict(opened_list.notes) == {why: count for why, count in told.items() if count}


def test_segments_by_a_column_are_refused_since_identifiers_have_none(bank):
    sealed(bank, id=["a"], mail=["a@mail.example"])
    with pytest.raises(ContractFault, match="divides customers by a column"):
        found(bank, who=Who(Among(Segments(by="region", names=("north",)), ("north",))))


def test_it_may_be_that_nobody_is_left(bank):
    sealed(bank, id=["a"], mail=["a@mail.example"])
    kept = found(bank, who=Who(consented=consents([])))
    assert (kept.count, list(kept.items()), kept.version) == (0, [], RULES)
    assert kept.customers_of(np.zeros(0, dtype=np.bool_)).to_pylist() == []


def test_a_kind_that_was_not_sealed_and_a_vault_without_identifiers_say_so(bank):
    with pytest.raises(SealFault, match="coterie partner identifiers"):
        found(bank)
    sealed(bank, id=["a"], mail=["a@mail.example"])
    with pytest.raises(ContractFault, match="of kind phone: holds none of this kind"):
        found(bank, "phone")


@pytest.mark.parametrize(
    ("customers", "versions", "expected"),
    [(["a", "a"], ["1", "1"], "has two of one customer"), (["a", "b"], ["1", "2"], "under two versions of the rules")],
)
def test_what_the_intake_would_not_seal_is_not_opened(bank, customers, versions, expected):
    word = pa.dictionary(pa.int8(), pa.string())
    made = pa.table(
        {
            "customer": pa.array(customers, pa.large_string()),
            "kind": pa.array(["email", "email"]).cast(word),
            "value": pa.array(["p@mail.example", "q@mail.example"], pa.large_string()),
            "rules": pa.array(versions).cast(word),
        }
    )
    with opened(bank) as vault:
        put(vault, IDENTIFIERS, made)
        assert read(vault)[IDENTIFIERS].num_rows == 2
    with pytest.raises(ContractFault, match=expected):
        found(bank)


def test_what_is_opened_is_marked_as_rows(bank):
    sealed(bank, id=["a", "b"], mail=["a@mail.example", "b@mail.example"])
    kept = found(bank)
    assert is_tainted(kept.owners()[1])
    assert is_tainted(kept._starts)
    assert "mail" not in repr(kept)
