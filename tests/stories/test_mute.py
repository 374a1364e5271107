"""A canary in every column: it sings in the partner's own scores and nowhere else, the vault's files included."""

import base64
import dataclasses
import io
import logging
import struct
import traceback

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from coterie.clients.intake import take_in
from coterie.clients.preview import preview_plan, spent_budgets
from coterie.clients.scoring import score
from coterie.clients.tables.files import table_at
from coterie.clients.vault import open_vault
from coterie.models.modelfile import ModelFile, model_bytes
from coterie.privacy.errors import CoterieError
from coterie.privacy.randomness import OsSource
from coterie.tests.clients.federation import CONTRACT, Federation, study, table_of, with_cells, with_column
from coterie.tests.clients.matching import Matched, cards_of, match_plan

WORDS = {"customer": "canary-id-7f3a91c4", "region": "canary-word-58be02d7", "label": "canary-label-c90d11aa"}
NUMBERS = {"age": 47.8171945, "spend": 271.8281828, "beyond": 987654321.4375, "label": 61803398.5}
WHOLE = 9007199254740993  # 2**53 + 1: a library refuses to convert it, and says so

LENIENT = study(
    contract=dataclasses.replace(
        CONTRACT,
        columns=tuple(dataclasses.replace(c, outside="clip", missing="centre") for c in CONTRACT.columns),
        rows_per_customer=2,
        too_many_rows="sample",
    )
)


def songs():
    """Every spelling in which a canary might be heard."""
    texts = [*WORDS.values(), *(repr(number) for number in NUMBERS.values()), str(WHOLE), "987654321", "61803398"]
    heard = []
    for text in texts:
        plain = text.encode()
        # Base64 of a text begins in one of three ways; the middle of it is the same in each.
        coded = [base64.b64encode(bytes(shift) + plain)[4:-4] for shift in range(3)]
        heard += [plain, text.encode("utf-16-le"), text.encode("utf-16-be"), plain.hex().encode()]
        heard += [plain.hex().upper().encode(), *(c for c in coded if len(c) >= 8)]
    for number in NUMBERS.values():
        heard += [struct.pack(form, number) for form in ("<d", ">d", "<f", ">f")]
    heard += [struct.pack(form, WHOLE) for form in ("<q", ">q")]
    return heard


SONGS = songs()


def sings(data):
    return [song for song in SONGS if song in data]


def planted(table):
    """A table with a canary in every column, all of which the lenient contract lets pass."""
    table = with_column(table, "age", table["age"].to_numpy().astype(np.float64))
    table = with_cells(table, "customer", {3: WORDS["customer"], 4: WORDS["customer"]})
    table = with_cells(table, "region", {3: WORDS["region"], 9: WORDS["region"]})
    table = with_cells(table, "age", {3: NUMBERS["age"]})
    table = with_cells(table, "spend", {3: NUMBERS["spend"], 8: NUMBERS["beyond"], 9: -NUMBERS["beyond"]})
    crowd = table.slice(4, 1)
    return pa.concat_tables([table, crowd, crowd, crowd])


def broken(table):
    """Tables that break even a lenient contract, each by a canary."""
    yield "a label", with_column(table, "bought", [WORDS["label"]] * table.num_rows)
    yield "a number for a label", with_cells(table, "bought", {3: NUMBERS["label"]})
    yield "a whole number for a label", with_cells(table, "bought", {3: WHOLE})
    yield "a name of a column", table.rename_columns(["customer", "age", WORDS["region"], "region", "bought"])
    yield "a number as text", with_column(table, "spend", [WORDS["region"]] * table.num_rows)
    yield (
        "an identifier that is no text",
        with_column(table, "customer", [b"\xff" + WORDS["customer"].encode()] * table.num_rows),
    )
    yield "words that are no text", with_column(table, "region", [b"\xff" + WORDS["region"].encode()] * table.num_rows)
    yield "lists", with_column(table, "customer", [[WORDS["customer"]]] * table.num_rows)
    infinite = with_cells(table, "spend", {0: float("inf"), 3: NUMBERS["spend"]})
    yield "an infinite number", with_cells(infinite, "customer", {0: WORDS["customer"]})


def strictly_broken(table):
    """Tables that break the strict contract by a canary."""
    yield "an identifier twice", with_cells(table, "customer", {3: WORDS["customer"], 4: WORDS["customer"]})
    yield "an unknown word", with_cells(table, "region", {3: WORDS["region"]})
    yield "a number beyond", with_cells(table, "spend", {3: NUMBERS["beyond"]})
    yield "a whole number", with_cells(table, "age", {3: WHOLE})
    yield "a row of nobody", with_cells(table, "customer", {2: None, 3: WORDS["customer"]})
    yield "a missing word", with_cells(with_cells(table, "region", {2: None}), "customer", {2: WORDS["customer"]})


def elsewhere(root, allowed=()):
    """Every file but those that were brought in which a canary is heard: vaults are sealed, and are no exception."""
    return [
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file()
        and path.parent != root / "brought"
        and path.name not in allowed
        and (sings(path.read_bytes()) or sings(str(path).encode()))
    ]


@pytest.fixture
def quiet(caplog, capfd):
    """Listens to logs and streams, and checks at the end that nothing was heard."""
    caplog.set_level(logging.DEBUG)
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] in {"coterie", "flwr", "opacus"}:
            logging.getLogger(name).setLevel(logging.DEBUG)
    flower = logging.getLogger("flwr")
    handler = logging.StreamHandler(heard := io.StringIO())
    flower.addHandler(handler)
    yield
    flower.removeHandler(handler)
    out, err = capfd.readouterr()
    records = "".join(f"{r.getMessage()} {r.args} {r.exc_text} {r.exc_info}" for r in caplog.records)
    assert sings((heard.getvalue() + caplog.text + records + out + err).encode()) == []


def everything(federation, grid):
    """Ask amber for all that a coordinator may ask for, also what is wrong."""
    federation.ask_plan(grid)
    for round_ in (1, 2):
        for kind in ("train", "evaluate"):
            federation.ask_task(grid, kind, federation.task(round_))
            federation.ask_task(grid, kind, federation.task(round_))
            federation.ask_task(grid, kind, federation.task(round_, weights=federation.weights(1.0)))
            federation.ask_task(grid, kind, federation.task(round_, attempt=2))


def test_the_listener_hears():
    for word in WORDS.values():
        assert sings(b"..." + word.encode() + b"...")
        assert sings(word.encode("utf-16-le"))
        assert sings(base64.b64encode(b"ab" + word.encode() + b"c"))
    for number in NUMBERS.values():
        assert sings(np.array([1.0, number]).tobytes())
        assert sings(np.array([1.0, number], np.float32).tobytes())
    assert sings(np.array([WHOLE]).tobytes())
    assert sings(b"nothing of the kind") == []


def test_a_canary_that_a_contract_lets_pass_is_heard_nowhere(tmp_path, quiet):
    tables = {name: planted(table_of(name)) for name in ("amber", "birch", "cedar")}
    federation = Federation(tmp_path / "federation", LENIENT, tables)
    grid = federation.grid()
    progress = federation.run(grid)
    assert (progress.round, progress.refusals) == (2, ())
    everything(federation, grid)
    assert len(grid.passed) > 50
    assert [wire for wire in grid.passed if sings(wire)] == []
    assert elsewhere(tmp_path) == []
    # And it was there to be heard: the partner's own sealed counts say what the contract let pass.
    noted = {"region: outside the vocabulary: 2", "spend: clipped: 2", "customers with too many rows: 1"}
    assert noted <= federation.noted()


@pytest.mark.parametrize("outcome", ["counts", "rows", "tokens"])
def test_a_canary_among_identifiers_is_heard_nowhere(tmp_path, quiet, outcome):
    plan = match_plan(2, outcome)
    cards = cards_of(2, 20)
    for held in cards.values():
        held.update((*WORDS.values(), str(WHOLE)))
    federation = Matched(tmp_path / "federation", plan, cards)
    federation.random = OsSource()
    grid = federation.grid()
    assert federation.run(grid).matched
    assert len(grid.passed) > 20
    assert [wire for wire in grid.passed if sings(wire)] == []
    assert elsewhere(tmp_path) == []
    if outcome == "rows":  # and it was there to be heard
        assert WORDS["customer"] in federation.shared_at("birch")["amber"]
        assert federation.rows_at("birch") == federation.shared_at("birch")


@pytest.mark.parametrize("contract", ["lenient", "strict"])
def test_a_canary_that_breaks_a_contract_is_heard_nowhere(tmp_path, quiet, contract):
    plan, tables = (LENIENT, broken) if contract == "lenient" else (study(), strictly_broken)
    federation = Federation(tmp_path / "federation", plan)
    for name in federation.folders:
        federation.propose(name)
    grid = federation.grid()
    for _, table in tables(table_of()):
        federation.put(table)
        federation.workspace().approve(federation.plan.contract)
        everything(federation, grid)
    assert {e.kind for e in federation.entries()} == {"consent", "refusal"}
    assert [wire for wire in grid.passed if sings(wire)] == []
    assert elsewhere(tmp_path) == []
    assert federation.report()


def sealed(federation, source, contract):
    with open_vault(federation.folders["amber"], federation.clock) as vault:
        take_in(vault, table_at(source), contract)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("contract", ["lenient", "strict"])
def test_the_intake_and_the_scoring_of_a_bad_table_say_no_canary(tmp_path, quiet, contract, suffix):
    plan, tables = (LENIENT, broken) if contract == "lenient" else (study(), strictly_broken)
    federation = Federation(tmp_path / "federation", plan)
    model = tmp_path / "model.safetensors"
    model.write_bytes(model_bytes(ModelFile("logistic", 32, federation.weights(), {"plan": plan.to_dict()})))
    (tmp_path / "brought").mkdir()
    source = tmp_path / "brought" / f"table.{suffix}"
    refused = 0
    for _, table in tables(table_of()):
        try:
            write = pyarrow.csv.write_csv if suffix == "csv" else pyarrow.parquet.write_table
            write(table, source)
        except pa.ArrowException:
            continue  # a text file holds no lists and no broken text
        for work in (
            lambda: sealed(federation, source, plan.contract),
            lambda: score(
                model, table_at(source), tmp_path / "brought" / "scores.parquet", reasons=2, random=OsSource()
            ),
        ):
            try:
                work()
            except CoterieError as error:
                refused += 1
                said = "".join(traceback.format_exception(error)) + repr(error) + repr(error.faults)
                assert sings(said.encode()) == []
    assert refused >= 5
    assert elsewhere(tmp_path) == []


def test_the_partners_own_scores_are_the_one_exception(tmp_path, quiet):
    federation = Federation(tmp_path / "federation", LENIENT)
    federation.put(planted(table_of()))
    model = tmp_path / "model.safetensors"
    model.write_bytes(model_bytes(ModelFile("logistic", 32, federation.weights(), {"plan": LENIENT.to_dict()})))
    output = tmp_path / "scores.parquet"
    with federation.sealed() as table:
        scored = score(model, table, output, reasons=2, random=OsSource())
    assert WORDS["customer"] in pyarrow.parquet.read_table(output)["customer"].to_pylist()
    assert sings(repr(scored).encode()) == []
    assert elsewhere(tmp_path, allowed=("scores.parquet",)) == []


def test_previews_and_budgets_say_no_canary(tmp_path, quiet):
    federation = Federation(tmp_path / "federation", LENIENT)
    federation.put(planted(table_of()))
    signed = tmp_path / "signed.json"
    signed.write_bytes(federation.signed.to_bytes())
    said = [preview_plan(federation.folders["amber"], signed), spent_budgets(federation.folders["amber"])]
    assert sings(repr(said).encode()) == []
