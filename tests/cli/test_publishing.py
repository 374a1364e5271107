"""The commands about studies and models: what they list is what is there, checked; what they copy is whole."""

import datetime
import json

import pytest
from typer.testing import CliRunner

from coterie.cli.main import app
from coterie.clients.receiving import record_path
from coterie.models.modelfile import load_model
from coterie.privacy.errors import CoterieError
from coterie.privacy.identity import Identity
from coterie.privacy.record import sign_record
from coterie.server.books import Absence, Books
from coterie.server.office import Office
from coterie.server.published import check_published, publish
from coterie.server.recording import record_of
from coterie.tests.server.bookwriters import Clock, a_round


def today():
    return datetime.datetime.now(datetime.UTC)


@pytest.fixture
def office(tmp_path):
    return Office.create(tmp_path / "office", name="lab", address="localhost:9092", clock=today)


@pytest.fixture
def coterie():
    """Run a command; return its exit code and what it printed."""

    def call(*words):
        done = CliRunner().invoke(app, [str(word) for word in words])
        if isinstance(done.exception, CoterieError):
            return 2, str(done.exception)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout

    return call


@pytest.fixture
def publishes(office, federation):
    """The federation's study, filed and published in the office, under the office's key."""
    progress = federation.run()
    with Books(office.books_url, Clock()) as books:
        books.submit(federation.signed)
        books.move(federation.digest, "running")
        books.note_round(a_round(federation.signed, 1))
        books.note_refusals(federation.digest, [Absence("cedar", "train", 1, "silent")])
        publish(office.models, books, signed=federation.signed, progress=progress, identity=office.identity)
        books.move(federation.digest, "finished")
    return federation


def test_studies_are_listed_with_their_rounds_and_refusals(coterie, office, publishes):
    code, printed = coterie("coordinator", "studies", office.root)
    assert code == 0
    assert "spring" in printed
    assert "finished" in printed
    code, printed = coterie("coordinator", "studies", office.root, "--json")
    (study,) = json.loads(printed)
    assert (study["digest"], study["status"], study["stop"]) == (publishes.digest, "finished", False)
    assert [round_["round"] for round_ in study["rounds"]] == [1]
    assert [(r["partner"], r["step"], r["code"]) for r in study["refusals"]] == [("cedar", "train", "silent")]
    assert "signed" not in study


def test_an_office_without_studies_lists_none(coterie, office):
    assert coterie("coordinator", "studies", office.root, "--json") == (0, "[]\n")
    assert coterie("coordinator", "models", office.root, "--json") == (0, "[]\n")


def test_published_models_are_listed_with_their_check(coterie, office, publishes):
    code, printed = coterie("coordinator", "models", office.root, "--json")
    (model,) = json.loads(printed)
    assert code == 0
    assert (model["name"], model["version"], model["study"], model["check"]) == (
        "spring",
        1,
        publishes.digest,
        "verified",
    )
    path = office.models / "spring-v1.safetensors"
    assert model["file"] == str(path)
    path.write_bytes(path.read_bytes() + b"\n")
    code, printed = coterie("coordinator", "models", office.root, "--json")
    assert (code, json.loads(printed)[0]["check"]) == (1, "is not what the coordinator signed")


def test_a_model_is_exported_with_its_signature(coterie, office, publishes, tmp_path):
    output = tmp_path / "out.safetensors"
    code, printed = coterie("coordinator", "export-model", office.root, "spring", "--output", output)
    assert (code, "spring, version 1" in printed) == (0, True)
    found = check_published(output, coordinator=office.identity.public)
    assert (found.plan, found.version) == (publishes.digest, 1)
    code, printed = coterie("coordinator", "export-model", office.root, "spring", "--output", output)
    assert (code, "exists" in printed) == (2, True)


@pytest.mark.parametrize("words", [("summer",), ("spring", "--version", "2")])
def test_a_model_that_is_not_published_is_a_clear_error(coterie, office, publishes, tmp_path, words):
    output = tmp_path / "out.safetensors"
    code, printed = coterie("coordinator", "export-model", office.root, *words, "--output", output)
    assert (code, "is not published" in printed) == (2, True)
    assert not output.exists()


def test_a_folder_that_is_no_office_is_a_clear_error(coterie, tmp_path):
    for command in ("studies", "models"):
        code, printed = coterie("coordinator", command, tmp_path)
        assert (code, "is not a coordinator's folder" in printed) == (2, True)
    assert list(tmp_path.iterdir()) == []


# --- at a partner -----------------------------------------------------------------------------------------------


def listed(coterie, federation, name="amber"):
    code, printed = coterie("partner", "models", federation.folders[name], "--json")
    return code, json.loads(printed)


def test_a_partner_sees_the_models_that_it_received(coterie, federation):
    assert listed(coterie, federation) == (0, [])
    progress = federation.run()
    code, (model,) = listed(coterie, federation)
    assert (code, model["check"], model["study"], model["plan"]) == (0, "verified", "spring", federation.digest)
    assert 0 < model["epsilon"] <= federation.plan.privacy.epsilon
    assert model["model"] == record_of(federation.plan, progress).model
    code, printed = coterie("partner", "models", federation.folders["amber"])
    assert (code, "verified" in printed) == (0, True)


def test_a_partner_sees_what_is_wrong_with_a_model(coterie, federation):
    progress = federation.run()
    workspace = federation.workspace()
    record, model = record_path(workspace, federation.digest), _model(workspace, federation)
    sound = {path: path.read_bytes() for path in (record, model)}
    stranger = sign_record(record_of(federation.plan, progress), Identity.create())
    cases = [
        (record, stranger, "the record is not signed by the policy's coordinator"),
        (record, _other_record(federation, progress), "the record is not the ledger's"),
        (record, None, "the coordinator's record cannot be read"),
        (model, sound[model][:-1], "the model cannot be read"),
        (model, _shifted(sound[model]), "the weights are not the record's"),
        (model, None, "the model cannot be read"),
    ]
    for path, data, said in cases:
        path.unlink() if data is None else path.write_bytes(data)
        code, (found,) = listed(coterie, federation)
        assert (code, found["check"]) == (1, said)
        path.write_bytes(sound[path])
    assert listed(coterie, federation)[0] == 0


def test_another_plans_model_under_a_name_is_seen(coterie, federation):
    federation.run()
    workspace = federation.workspace()
    path = _model(workspace, federation)
    data = path.read_bytes()
    assert data.count(b'\\"name\\": \\"spring\\"') == 1
    path.write_bytes(data.replace(b'\\"name\\": \\"spring\\"', b'\\"name\\": \\"sprung\\"'))
    assert load_model(path).about["plan"]["name"] == "sprung"
    code, (found,) = listed(coterie, federation)
    assert (code, found["check"]) == (1, "the record, the file and its name are of different plans")


def _model(workspace, federation):
    return workspace.root / "models" / f"{federation.digest.removeprefix('sha256:')}.safetensors"


def _shifted(data):
    return data[:-1] + bytes([data[-1] ^ 0x01])


def _other_record(federation, progress):
    record = record_of(federation.plan, progress)
    fewer = type(record)(record.plan, record.model, record.metrics, record.receipts[1:])
    return sign_record(fewer, federation.coordinator)
