"""Published models: what they say of themselves is checked, and a changed byte anywhere is found."""

import dataclasses
import json
import shutil
import stat

import numpy as np
import pytest

from coterie.models.modelfile import load_model, model_bytes
from coterie.privacy.errors import FileFault
from coterie.privacy.identity import Identity
from coterie.privacy.release import weights_digest
from coterie.server import published
from coterie.server.books import Books, BooksFault, Model
from coterie.server.published import check_published, export, model_path, publish, signature_path
from coterie.server.recording import record_of
from coterie.tests.clients.federation import NAMES, Federation
from coterie.tests.server.bookwriters import Clock


@pytest.fixture(scope="module")
def finished(made, tmp_path_factory):
    """A study that ran to its end."""
    federation = Federation(shutil.copytree(made / "fresh", tmp_path_factory.mktemp("finished") / "federation"))
    return federation, federation.run()


@pytest.fixture
def books(tmp_path, finished):
    with Books(f"sqlite:///{tmp_path / 'books.sqlite'}", Clock()) as books:
        books.submit(finished[0].signed)
        yield books


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def put(folder, books, finished):
    """Publish the finished study; return where its model is."""
    federation, progress = finished

    def call():
        publish(folder, books, signed=federation.signed, progress=progress, identity=federation.coordinator)
        return folder / "spring-v1.safetensors"

    return call


def changed(path, change):
    """Give a model's file other words or weights, as somebody without the key would."""
    model = load_model(path)
    path.write_bytes(model_bytes(change(model)))


def test_a_published_model_says_where_it_comes_from(put, finished):
    federation, progress = finished
    path = put()
    found = check_published(path, coordinator=federation.coordinator.public)
    assert (found.name, found.version, found.plan) == ("spring", 1, federation.digest)
    assert found.cohort == dict.fromkeys(NAMES, (1, 2))
    assert found.model == weights_digest(progress.weights)
    model = load_model(path)
    assert all(one.tobytes() == other.tobytes() for one, other in zip(model.weights, progress.weights, strict=True))
    assert model.about["plan"] == federation.plan.to_dict()
    assert model.about["guarantee"]["study"]["epsilon"] <= federation.plan.privacy.epsilon
    assert model.about["provenance"]["record"] == found.record
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_a_published_model_has_the_calibration_of_its_record(books, folder, finished):
    federation, progress = finished
    counts = np.array([[300, 500, 900, 900, 500, 200, 60, 20], [5, 20, 90, 200, 250, 200, 90, 60]])
    measured = dataclasses.replace(progress, histograms={2: {"amber": counts}})
    publish(folder, books, signed=federation.signed, progress=measured, identity=federation.coordinator)
    path = folder / "spring-v1.safetensors"
    told = record_of(federation.plan, measured).calibration
    assert set(told) == {"slope", "intercept"}
    assert load_model(path).about["calibration"] == told
    check_published(path, coordinator=federation.coordinator.public)
    # A file that has lost it is not the record's.
    without = {key: value for key, value in load_model(path).about.items() if key != "calibration"}
    changed(path, lambda model: dataclasses.replace(model, about=without))
    signed_anew(path, federation.coordinator, lambda table: None)
    assert refused(path, federation.coordinator.public)


def test_the_cohort_of_a_round_is_who_was_heard_in_it(made, tmp_path, books, folder):
    federation = Federation(shutil.copytree(made / "fresh", tmp_path / "short"))
    federation.policy("cedar", purposes=["churn"])
    progress = federation.run()
    books.submit(federation.signed)
    found = publish(folder, books, signed=federation.signed, progress=progress, identity=federation.coordinator)
    assert found.cohort == {"amber": (1, 2), "birch": (1, 2)}


def test_a_model_published_again_is_the_same_to_the_byte(put, books):
    path = put()
    before = [file.read_bytes() for file in (path, signature_path(path))]
    put()
    assert [file.read_bytes() for file in (path, signature_path(path))] == before
    signature_path(path).unlink()  # interrupted between the two files
    put()
    assert [file.read_bytes() for file in (path, signature_path(path))] == before
    assert [model.version for model in books.models()] == [1]


def test_a_study_that_is_not_finished_is_not_published(books, folder, finished):
    federation, progress = finished
    early = dataclasses.replace(progress, round=1)
    with pytest.raises(ValueError, match="last round"):
        publish(folder, books, signed=federation.signed, progress=early, identity=federation.coordinator)
    assert books.models() == ()


def test_other_weights_of_a_published_study_are_refused(put, books, folder, finished):
    federation, progress = finished
    path = put()
    before = path.read_bytes()
    other = dataclasses.replace(progress, weights=federation.weights(0.5))
    with pytest.raises(BooksFault, match="with another model"):
        publish(folder, books, signed=federation.signed, progress=other, identity=federation.coordinator)
    assert path.read_bytes() == before


def test_a_damaged_model_is_not_published_over(put):
    path = put()
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(FileFault, match="is not what the coordinator signed"):
        put()


# --- every byte -------------------------------------------------------------------------------------------------


def refused(path, key):
    with pytest.raises(FileFault, match="is not what the coordinator signed"):
        check_published(path, coordinator=key)
    return True


@pytest.mark.parametrize("bit", [0x01, 0x20, 0x80])
def test_a_changed_byte_of_the_model_is_found(put, finished, bit):
    path, key = put(), finished[0].coordinator.public
    data = path.read_bytes()
    for place in [*range(0, len(data), 11), len(data) - 1]:
        path.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
        assert refused(path, key)
    path.write_bytes(data)
    check_published(path, coordinator=key)


def test_a_changed_byte_of_the_signature_file_is_found(put, finished):
    path, key = put(), finished[0].coordinator.public
    beside = signature_path(path)
    data = beside.read_bytes()
    for place in [*range(0, len(data) - 160, 5), *range(len(data) - 160, len(data))]:  # the signature is at the end
        # Turning letters' case is the change that a reader of hexadecimal would not see.
        bit = 0x20 if place % 2 or data[place : place + 1].isalpha() else 1 << place % 8
        beside.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
        assert refused(path, key)
    beside.write_bytes(data)
    check_published(path, coordinator=key)


def test_files_cut_or_grown_are_found(put, finished):
    path, key = put(), finished[0].coordinator.public
    for file in (path, signature_path(path)):
        data = file.read_bytes()
        for other in (b"", data[:-1], data + b"\n", data[1:], data + data, b"[]", b"null", b"[" * 100_000):
            file.write_bytes(other)
            assert refused(path, key)
        file.write_bytes(data)
    check_published(path, coordinator=key)


def test_another_key_does_not_sign_for_the_coordinator(put):
    assert refused(put(), Identity.create().public)


@pytest.mark.parametrize("gone", [0, 1])
def test_a_model_without_its_signature_is_not_taken(put, finished, gone):
    path = put()
    (path, signature_path(path))[gone].unlink()
    with pytest.raises(FileFault, match="cannot be read with its signature"):
        check_published(path, coordinator=finished[0].coordinator.public)


# --- even where the coordinator's key signs: what is signed must fit together -------------------------------------


def signed_anew(path, identity, change):
    """Sign a changed signature file with the right key, over the model as it lies there."""
    beside = signature_path(path)
    table = json.loads(beside.read_bytes())
    del table["signature"]
    table["file"] = published._sha256(path.read_bytes())
    change(table)
    signature = identity.sign(published._DOMAIN + published.digest(table).encode()).hex()
    beside.write_bytes(published.canonical(table | {"signature": signature}))


def test_a_signature_over_the_unchanged_words_passes(put, finished):
    path, identity = put(), finished[0].coordinator
    signed_anew(path, identity, lambda table: None)
    check_published(path, coordinator=identity.public)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table["provenance"].update(model="sha256:" + "0" * 64),
        lambda table: table["provenance"].update(plan="sha256:" + "0" * 64),
        lambda table: table["provenance"].update(record="sha256:" + "0" * 64),
        lambda table: table["provenance"].update(name="summer"),
        lambda table: table["provenance"].update(version=2),
        lambda table: table["provenance"].update(coordinator=Identity.create().public),
        lambda table: table["provenance"]["cohort"].update(damson=[1]),
        lambda table: table["provenance"]["cohort"].pop("amber"),
        lambda table: table["record"]["record"]["receipts"].pop(),
        lambda table: table["record"].pop("signature"),
        lambda table: table.update(format="coterie/published/v2"),
        lambda table: table.update(more=1),
        lambda table: table.pop("record"),
    ],
)
def test_a_provenance_that_does_not_follow_is_refused(put, finished, change):
    path, identity = put(), finished[0].coordinator
    signed_anew(path, identity, change)
    assert refused(path, identity.public)


def test_weights_or_a_plan_that_the_record_does_not_have_are_refused(put, finished):
    path, federation = put(), finished[0]
    data = path.read_bytes()
    other = federation.sign(name="summer").plan.to_dict()
    for change in (
        lambda model: dataclasses.replace(model, weights=federation.weights(0.5)),
        lambda model: dataclasses.replace(model, about={**model.about, "plan": other}),
        lambda model: dataclasses.replace(model, about={**model.about, "provenance": {}}),
        lambda model: dataclasses.replace(
            model, about={**model.about, "calibration": {"slope": 1.5, "intercept": 0.0}}
        ),
    ):
        path.write_bytes(data)
        changed(path, change)
        signed_anew(path, federation.coordinator, lambda table: None)
        assert refused(path, federation.coordinator.public)


# --- names and copies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/b", "..", ".hidden", "naïve", "x" * 60, "a b", "-rf", "\u202e"]
)
def test_a_name_is_one_plain_file_in_the_folder(tmp_path, name):
    path = model_path(tmp_path, Model("sha256:0", name, 3, "m", "r", ""))
    assert path.parent == tmp_path
    assert path.name.endswith("-v3.safetensors")
    assert path.name.isascii()
    assert path.name[0] not in ".-"


def test_names_that_look_alike_as_files_are_kept_apart(tmp_path):
    names = ["a b", "a/b", "a-b", "a:b", "", ".", ".."]
    assert len({model_path(tmp_path, Model("s", name, 1, "m", "r", "")) for name in names}) == len(names)


def test_an_exported_model_checks_where_it_lies(put, books, folder, finished, tmp_path):
    path, key = put(), finished[0].coordinator.public
    output = tmp_path / "out.safetensors"
    made = export(folder, books.models("spring")[0], output, coordinator=key)
    assert output.read_bytes() == path.read_bytes()
    assert check_published(output, coordinator=key) == made
    with pytest.raises(FileFault, match="exists"):
        export(folder, books.models("spring")[0], output, coordinator=key)


def test_a_damaged_or_exchanged_model_is_not_exported(put, books, folder, finished, tmp_path):
    path, key = put(), finished[0].coordinator.public
    model, output = books.models("spring")[0], tmp_path / "out.safetensors"
    with pytest.raises(FileFault, match="not the model in the books"):
        export(folder, dataclasses.replace(model, model="sha256:other"), output, coordinator=key)
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(FileFault, match="is not what the coordinator signed"):
        export(folder, model, output, coordinator=key)
    assert not output.exists()
