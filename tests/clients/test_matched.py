"""What matches left: kept sealed, replaced by itself alone, erased with a customer, and held against plain sets."""

import datetime
import stat

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.clients.erasing import erase, rows_of
from coterie.clients.matched import (
    keep_matched,
    keep_tokens,
    kept_matches,
    matched_customers,
    multiplicities,
    tokens_of,
)
from coterie.clients.matchfiles import match_called, write_rows, write_tokens
from coterie.clients.rekeying import rewrap
from coterie.clients.taint import is_tainted
from coterie.clients.vault import MATCHES, Vault
from coterie.privacy.errors import ContractFault, FileFault
from coterie.tests.stories.vaultkit import opened, unnamed_files, workspace

ONE, TWO, THREE = (f"sha256:{digit * 64}" for digit in "abc")
DAY = datetime.date(2031, 5, 4)
LEFT = "canary-id-7f3a91c4"


def texts(*names):
    return pa.array(names, pa.large_string())


def tokens(count, fill=0):
    return (np.arange(count * 16) * 7 + fill).astype(np.uint8).reshape(count, 16)


@pytest.fixture
def bank(tmp_path):
    return workspace(tmp_path / "bank")


@pytest.fixture
def vault(bank):
    with opened(bank) as vault:
        yield vault


@pytest.fixture
def kept(vault):
    """A vault with two matches of rows, one of them with nobody, and one of tokens."""
    keep_matched(
        vault, ONE, {"amber": texts("a", "b", LEFT), "birch": texts("b", "c", LEFT), "cedar": texts()}, day=DAY
    )
    keep_tokens(vault, TWO, (texts("a", "b", LEFT), tokens(3)), day=DAY + datetime.timedelta(days=1))
    keep_matched(vault, THREE, {"amber": texts()}, day=DAY)
    return vault


def told(vault, plan):
    customers, known = multiplicities(vault, plan)
    return dict(zip(customers.to_pylist(), known.tolist(), strict=True))


def tokens_told(vault, plan):
    customers, found = tokens_of(vault, plan)
    return {who: bytes(token) for who, token in zip(customers.to_pylist(), found, strict=True)}


def test_who_is_known_at_how_many_partners_is_what_was_kept(kept):
    assert told(kept, ONE) == {"a": 2, "b": 3, "c": 2, LEFT: 3}
    assert set(matched_customers(kept, ONE).to_pylist()) == {"a", "b", "c", LEFT}
    assert sorted(matched_customers(kept, ONE, at_least=3).to_pylist()) == ["b", LEFT]
    assert matched_customers(kept, ONE, at_least=4).to_pylist() == []
    assert told(kept, THREE) == {}


NAMES = [f"c{n}" for n in range(12)]


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["amber", "birch", "cedar", "dogwood"]), st.sets(st.sampled_from(NAMES)), min_size=1
    )
)
def test_multiplicities_are_those_of_plain_sets(tmp_path_factory, shared):
    with opened(workspace(tmp_path_factory.mktemp("sets") / "bank")) as vault:
        keep_matched(vault, ONE, {name: texts(*sorted(known)) for name, known in shared.items()}, day=DAY)
        everybody = set().union(*shared.values())
        counted = {who: 1 + sum(who in known for known in shared.values()) for who in everybody}
        assert told(vault, ONE) == counted
        for least in (2, 3, 5):
            expected = {who for who, count in counted.items() if count >= least}
            assert set(matched_customers(vault, ONE, at_least=least).to_pylist()) == expected
        (found,) = kept_matches(vault)
        assert found.customers == {name: len(known) for name, known in shared.items()}


def test_tokens_come_back_to_their_customers(kept):
    assert tokens_told(kept, TWO) == {who: bytes(tokens(3)[n]) for n, who in enumerate(["a", "b", LEFT])}


def test_a_long_list_comes_back_whole(vault):
    count = 70_000
    keep_tokens(vault, ONE, (texts(*(f"c{n}" for n in range(count))), tokens(count)), day=DAY)
    customers, found = tokens_of(vault, ONE)
    assert customers.to_pylist() == [f"c{n}" for n in range(count)]
    assert np.array_equal(found, tokens(count))
    keep_matched(vault, TWO, {"amber": customers}, day=DAY)
    assert len(matched_customers(vault, TWO)) == count


def test_matches_are_listed_by_their_days_also_one_with_nobody(kept):
    assert [(m.plan, m.outcome, m.day, m.customers) for m in kept_matches(kept)] == [
        (ONE, "rows", "2031-05-04", {"amber": 3, "birch": 3, "cedar": 0}),
        (THREE, "rows", "2031-05-04", {"amber": 0}),
        (TWO, "tokens", "2031-05-05", {"": 3}),
    ]
    assert "amber" not in repr(kept_matches(kept))


def test_a_vault_without_matches_lists_none(vault):
    assert kept_matches(vault) == []
    for ask in (multiplicities, tokens_of):
        with pytest.raises(FileFault, match="is not kept here"):
            ask(vault, ONE)


def test_kept_again_a_match_replaces_itself_alone(kept, bank):
    keep_matched(kept, ONE, {"amber": texts("d")}, day=DAY)
    assert told(kept, ONE) == {"d": 2}
    assert len(tokens_told(kept, TWO)) == 3
    keep_tokens(kept, TWO, (texts("z"), tokens(1, 9)), day=DAY)
    assert tokens_told(kept, TWO) == {"z": bytes(tokens(1, 9)[0])}
    assert [(m.plan, m.day) for m in kept_matches(kept)] == [(plan, "2031-05-04") for plan in (ONE, TWO, THREE)]


@pytest.mark.parametrize(("ask", "plan"), [(multiplicities, TWO), (tokens_of, ONE), (tokens_of, THREE)])
def test_a_match_of_the_other_outcome_is_one_clear_fault(kept, ask, plan):
    with pytest.raises(FileFault, match=r"has no (rows|tokens)"):
        ask(kept, plan)


def test_an_erased_customer_is_in_no_match_and_the_others_are_as_they_were(bank, kept):
    assert rows_of(kept, LEFT) == {MATCHES: 3}
    erase(kept, LEFT)
    assert rows_of(kept, LEFT) == {MATCHES: 0}
    assert told(kept, ONE) == {"a": 2, "b": 3, "c": 2}
    assert tokens_told(kept, TWO) == {who: bytes(tokens(3)[n]) for n, who in enumerate("ab")}
    assert [m.customers for m in kept_matches(kept)] == [{"amber": 2, "birch": 2, "cedar": 0}, {"amber": 0}, {"": 2}]
    assert unnamed_files_of(bank) == []
    assert kept.newest(MATCHES).epoch == "0002"


def unnamed_files_of(bank):
    """What no manifest names, without opening the vault that is held already."""
    named = {path.name for path in (bank.vault / MATCHES / "streams").iterdir()}
    return [] if len(named) == 5 else sorted(named)


def test_new_keys_cover_them(kept):
    assert rewrap(kept).datasets == (MATCHES,)
    assert told(kept, THREE) == {}
    assert len(told(kept, ONE)) == 4


def test_killed_before_it_is_kept_the_older_ones_are_there(bank, monkeypatch):
    class Stop(Exception):
        pass

    def stop(self, manifest, what):
        raise Stop

    with opened(bank) as vault:
        keep_matched(vault, ONE, {"amber": texts("a")}, day=DAY)
        with monkeypatch.context() as patch:
            patch.setattr(Vault, "commit", stop)
            with pytest.raises(Stop):
                keep_matched(vault, TWO, {"amber": texts("b")}, day=DAY)
        assert [m.plan for m in kept_matches(vault)] == [ONE]
        keep_matched(vault, TWO, {"amber": texts("b")}, day=DAY)
        assert [m.plan for m in kept_matches(vault)] == [ONE, TWO]
    assert unnamed_files(bank) == []


WRONG = {
    "a customer twice": lambda vault: keep_matched(vault, ONE, {"amber": texts(LEFT, LEFT)}, day=DAY),
    "a customer missing": lambda vault: keep_matched(vault, ONE, {"amber": texts(LEFT, None)}, day=DAY),
    "no partner": lambda vault: keep_matched(vault, ONE, {}, day=DAY),
    "a partner without a name": lambda vault: keep_matched(vault, ONE, {"": texts(LEFT)}, day=DAY),
    "a token for two": lambda vault: keep_tokens(vault, ONE, (texts(LEFT, "b"), tokens(1)), day=DAY),
    "short tokens": lambda vault: keep_tokens(vault, ONE, (texts(LEFT), tokens(1)[:, :15]), day=DAY),
    "tokens of numbers": lambda vault: keep_tokens(vault, ONE, (texts(LEFT), tokens(1).astype(np.int64)), day=DAY),
    "a token twice": lambda vault: keep_tokens(vault, ONE, (texts(LEFT, LEFT), tokens(2)), day=DAY),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_match_is_not_kept_and_names_nobody(vault, case):
    with pytest.raises(ContractFault) as caught:
        WRONG[case](vault)
    assert LEFT not in str(caught.value)
    assert not vault.holds(MATCHES)


def test_nothing_of_them_is_in_the_clear(bank, kept):
    said = b"".join(path.read_bytes() for path in bank.root.rglob("*") if path.is_file())
    assert LEFT.encode() not in said
    assert bytes(tokens(3)[1]) not in said
    assert b"birch" not in said


def test_what_is_read_back_is_marked_as_rows(kept):
    assert is_tainted(multiplicities(kept, ONE)[1])
    assert is_tainted(tokens_of(kept, TWO)[1])


# --- for the operator ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "plan"), [("a" * 6, ONE), (TWO, TWO), (f"sha256:{'c' * 9}", THREE)])
def test_a_match_is_called_by_its_first_digits(kept, wanted, plan):
    assert match_called(kept, wanted).plan == plan


@pytest.mark.parametrize(("wanted", "rule"), [("", "several"), ("aaaaa", "6 digits"), ("dddddd", "no match")])
def test_a_call_that_is_not_of_one_match_says_so(kept, wanted, rule):
    with pytest.raises(FileFault, match=rule):
        match_called(kept, wanted)


def test_the_only_match_needs_no_digits(vault):
    keep_matched(vault, ONE, {"amber": texts("a")}, day=DAY)
    assert match_called(vault, "").plan == ONE
    keep_matched(vault, "sha256:" + "a" * 63 + "b", {"amber": texts("a")}, day=DAY)
    with pytest.raises(FileFault, match="several"):
        match_called(vault, "aaaaaa")


def test_files_hold_what_was_kept_for_their_owner_alone(kept, tmp_path):
    assert write_rows(kept, ONE, tmp_path / "rows.csv") == 6
    pairs = pyarrow.csv.read_csv(tmp_path / "rows.csv").to_pylist()
    assert {(p["customer"], p["partner"]) for p in pairs} == {
        *((who, "amber") for who in ("a", "b", LEFT)),
        *((who, "birch") for who in ("b", "c", LEFT)),
    }
    assert write_tokens(kept, TWO, tmp_path / "tokens.parquet") == 3
    found = pyarrow.parquet.read_table(tmp_path / "tokens.parquet").to_pylist()
    assert {row["customer"]: bytes.fromhex(row["token"]) for row in found} == tokens_told(kept, TWO)
    for name in ("rows.csv", "tokens.parquet"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


@pytest.mark.parametrize(("write", "plan"), [(write_rows, TWO), (write_tokens, ONE), (write_rows, "sha256:none")])
def test_a_file_of_what_is_not_kept_is_not_written(kept, tmp_path, write, plan):
    with pytest.raises(FileFault, match=r"has no|is not kept"):
        write(kept, plan, tmp_path / "out.csv")
    assert list(tmp_path.glob("out.csv*")) == []
    (tmp_path / "there.csv").write_text("mine")
    with pytest.raises(FileFault, match="exists"):
        write_rows(kept, ONE, tmp_path / "there.csv")
    assert (tmp_path / "there.csv").read_text() == "mine"
