"""A coordinator's folder: made once, readable by its owner alone, its settings read strictly."""

import datetime
import os
import ssl
import stat

import pytest

from coterie.privacy.errors import CoterieError, FileFault
from coterie.privacy.identity import Identity
from coterie.privacy.joining.forms import JoinFault
from coterie.server.office import Office

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def clock():
    return NOW


@pytest.fixture
def office(tmp_path):
    return Office.create(tmp_path / "office", name="ministry", address="studies.example:443", clock=clock)


@pytest.fixture
def loose_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def edit(office, old, new):
    path = office.root / "coterie.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_new_office_has_everything_that_its_docstring_says(office):
    there = {path.relative_to(office.root).as_posix() for path in office.root.rglob("*")}
    assert there == {
        "coterie.toml",
        "keys",
        "keys/identity.pem",
        "keys/authority.key",
        "keys/authority.pem",
        "keys/server.key",
        "keys/server.pem",
        "keys/superexec.secret",
        "superlink",
        "studies",
        "models",
        "logs",
        "run",
    }
    for path in (office.superlink, office.studies, office.models, office.logs, office.run):
        assert path.is_dir()
    for path in (office.certificate, office.key, office.authority, office.authority_key, office.secret):
        assert path.is_file()


def test_everything_is_readable_by_its_owner_alone(tmp_path, loose_umask):
    root = tmp_path / "empty-before"
    root.mkdir(mode=0o755)
    Office.create(root, name="ministry", address="studies.example:443", clock=clock)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (root, *root.rglob("*"))}
    assert not {name: oct(mode) for name, mode in modes.items() if mode not in (0o600, 0o700)}


def test_two_offices_share_no_key(tmp_path):
    one, other = (
        Office.create(tmp_path / name, name="ministry", address="studies.example:443", clock=clock)
        for name in ("one", "other")
    )
    assert one.identity.public != other.identity.public
    for name in ("secret", "key", "authority_key", "certificate", "authority"):
        assert getattr(one, name).read_bytes() != getattr(other, name).read_bytes(), name


def test_the_secret_has_256_bits_and_no_line_break_that_an_editor_would_add(office):
    assert len(bytes.fromhex(office.secret.read_text())) == 32


def test_settings_come_back_with_everything_that_was_left_out(office):
    settings = office.settings
    assert (settings.name, settings.address, settings.listen) == ("ministry", "studies.example:443", "0.0.0.0:443")
    assert (settings.superlink_port, settings.health_port) == (39092, 39093)
    assert (settings.deadline, settings.approval_days) == (600.0, 14)
    assert office.books_url == f"sqlite:///{office.root / 'books.sqlite'}"


@pytest.mark.parametrize("address", ["127.0.0.1:9443", "localhost:9443", "[::1]:9443"])
def test_an_office_for_this_machine_alone_is_not_offered_to_the_network(tmp_path, address):
    office = Office.create(tmp_path / "office", name="ministry", address=address, clock=clock)
    assert office.settings.listen == address


def test_settings_are_the_operator_s_to_change(office):
    edit(office, 'database = ""', 'database = "postgresql://books@127.0.0.1/coterie"')
    edit(office, "deadline = 600.0", "deadline = 30")
    edit(office, "superlink_port = 39092", "superlink_port = 18000")
    assert office.books_url == "postgresql://books@127.0.0.1/coterie"
    assert office.settings.deadline == 30.0
    assert office.settings.superlink_port == 18000


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("deadline", "deadlin", "unknown key"),
        ("deadline = 600.0", "deadline = 0", "deadline: must be"),
        ("superlink_port = 39092", "superlink_port = 70000", "superlink_port: must be"),
        ("superlink_port = 39092", 'superlink_port = "39092"', "superlink_port: must be a whole number"),
        ("approval_days = 14", "approval_days = 0", "approval_days: must be"),
        ("studies.example:443", "studies.example", "host:port"),
        ('"0.0.0.0:443"', '"everywhere"', "host:port"),
    ],
)
def test_a_wrong_setting_is_a_fault_that_names_it(office, old, new, said):
    edit(office, old, new)
    with pytest.raises(CoterieError, match=said):
        _ = office.settings


@pytest.mark.parametrize("name", ['say "so"', "back\\slash", "Zo\u00eb & Co.", "\x7f", "n" * 60])
def test_a_name_is_kept_as_it_was_given(tmp_path, name):
    office = Office.create(tmp_path / "office", name=name, address="studies.example:443", clock=clock)
    assert office.settings.name == name


@pytest.mark.parametrize(
    ("name", "address", "listen"),
    [
        ("", "studies.example:443", ""),
        ("n" * 61, "studies.example:443", ""),
        ("line\n", "studies.example:443", ""),
        ("ministry", "studies.example", ""),
        ("ministry", "studies.example:443", "everywhere"),
    ],
)
def test_a_wrong_word_is_refused_before_anything_is_made(tmp_path, name, address, listen):
    with pytest.raises((FileFault, JoinFault)):
        Office.create(tmp_path / "office", name=name, address=address, clock=clock, listen=listen)
    assert not (tmp_path / "office").exists()


def test_an_office_is_never_made_over_another(office):
    before = {path: path.read_bytes() for path in office.root.rglob("*") if path.is_file()}
    with pytest.raises(FileFault, match="is not empty"):
        Office.create(office.root, name="other", address="other.example:443", clock=clock)
    assert {path: path.read_bytes() for path in office.root.rglob("*") if path.is_file()} == before


def test_a_folder_that_is_no_office_is_said_to_be_none(tmp_path):
    with pytest.raises(FileFault, match="coterie coordinator init"):
        _ = Office(tmp_path).settings


def test_a_study_has_a_folder_by_its_digest_and_by_nothing_else(office):
    digest = "sha256:" + "ab" * 32
    assert office.study(digest) == office.studies / ("ab" * 32)
    for wrong in ("", "ab" * 32, "sha256:../../etc", digest + "/..", digest.upper(), digest + "\n"):
        with pytest.raises(FileFault, match="64 hex digits"):
            office.study(wrong)


def test_the_keys_are_what_python_s_tls_and_the_identity_read(office):
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(office.certificate, office.key)
    ssl.create_default_context(cafile=office.authority)
    assert office.identity.public == Identity.load(office.identity_file).public
