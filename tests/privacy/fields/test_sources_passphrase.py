"""Keys that a passphrase opens: the suite of every source, Argon2id, the format, and changing the passphrase."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from coterie.privacy.errors import FileFault
from coterie.privacy.fields.keysource import unwrap_key
from coterie.privacy.fields.sources import locked, passphrase
from coterie.privacy.fields.sources.keyfolder import KeyFolder
from coterie.privacy.fields.sources.passphrase import PassphraseKeys, change_passphrase
from coterie.tests.privacy.fields import chunked
from coterie.tests.privacy.fields.sourcesuite import CONTEXTS, SourceContract, flipped, fresh, refused

WORDS = "canary correct horse battery staple"
OTHER = "another six words of some length"


@pytest.fixture
def cheap(monkeypatch):
    """The least costs that are read back; the tests of the costs take the real ones."""
    for name, cost in (("_MEMORY", 8192), ("_PASSES", 1), ("_LANES", 1)):
        monkeypatch.setattr(locked, name, cost)


class Rig:
    kind, ours = "passphrase", True

    def __init__(self, folder) -> None:
        self.folder = folder
        PassphraseKeys.create(folder, WORDS)

    def source(self):
        return PassphraseKeys(self.folder, WORDS)

    def add(self):
        source = self.source()
        return source.advance(source.epochs()[-1])

    @property
    def secrets(self):
        wrapped = [json.loads(path.read_bytes())["wrapped"] for path in self.folder.glob("*.json")]
        return [WORDS, WORDS.encode().hex(), OTHER, *wrapped]

    def faults(self):
        return [
            lambda: PassphraseKeys(self.folder, OTHER).wrap(fresh(1), CONTEXTS[:1]),
            lambda: PassphraseKeys.create(self.folder, OTHER),
            lambda: change_passphrase(self.folder, OTHER, OTHER + "!"),
            lambda: PassphraseKeys(self.folder, WORDS + "\ud800"),
        ]


class TestPassphrase(SourceContract):
    apart = False

    @pytest.fixture
    def rig(self, tmp_path, cheap):
        return Rig(tmp_path / "vault")


@pytest.fixture
def folder(tmp_path, cheap):
    PassphraseKeys.create(tmp_path / "vault", WORDS)
    return tmp_path / "vault"


def opens(folder, words, wrapped, epoch="0001"):
    return PassphraseKeys(folder, words).unwrap([wrapped], CONTEXTS[:1], epoch=epoch)


# --- Argon2id and the format


def test_argon2id_gives_the_tag_of_rfc_9106_section_5_3():
    stretched = Argon2id(
        salt=bytes([2] * 16),
        length=32,
        iterations=3,
        lanes=4,
        memory_cost=32,
        ad=bytes([4] * 12),
        secret=bytes([3] * 8),
    ).derive(bytes([1] * 32))
    assert stretched.hex() == "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"


def test_a_new_file_has_the_costs_of_the_second_recommended_option(tmp_path):
    folder = tmp_path / "vault"
    PassphraseKeys.create(folder, WORDS)
    told = json.loads((folder / "0001.json").read_bytes())
    assert {key: value for key, value in told.items() if key not in ("salt", "wrapped")} == {
        "format": "coterie/keys/passphrase/v1",
        "memory_kib": 64 * 1024,
        "passes": 3,
        "lanes": 4,
    }
    assert len(base64.b64decode(told["salt"])) == 16
    assert (folder / "0001.json").stat().st_mode & 0o777 == 0o600


def test_a_file_is_read_as_its_format_is_written_down(tmp_path):
    folder = tmp_path / "vault"
    PassphraseKeys.create(folder, WORDS)
    told = json.loads((folder / "0001.json").read_bytes())
    stretched = Argon2id(
        salt=base64.b64decode(told["salt"]), length=32, iterations=3, lanes=4, memory_cost=1 << 16
    ).derive(WORDS.encode())
    context = f'["coterie/keys/passphrase/v1","0001","{told["salt"]}",65536,3,4]'.encode()
    kek = chunked.open_(stretched, context, base64.b64decode(told["wrapped"]))
    (key,) = fresh(1)
    (wrapped,) = PassphraseKeys(folder, WORDS).wrap([key], CONTEXTS[:1])
    assert unwrap_key(kek, wrapped, CONTEXTS[0]) == key


def test_no_two_files_share_a_salt_or_a_key(folder):
    PassphraseKeys(folder, WORDS).advance("0001")
    told = [json.loads(path.read_bytes()) for path in sorted(folder.iterdir())]
    assert told[0]["salt"] != told[1]["salt"]
    keys = [locked.open_key(folder / f"{name}.json", name, locked.normal(WORDS)) for name in ("0001", "0002")]
    assert keys[0] != keys[1]


def test_a_file_does_not_stand_for_another_epoch(folder):
    (folder / "0002.json").write_bytes((folder / "0001.json").read_bytes())
    (folder / "0002.json").chmod(0o600)
    refused(lambda: PassphraseKeys(folder, WORDS).wrap(fresh(1), CONTEXTS[:1]))


def test_letters_mean_the_same_however_they_are_composed(tmp_path, cheap):
    source = PassphraseKeys.create(tmp_path / "vault", "Fu\u0308nfzig sch\u00f6ne W\u00f6rter")
    (wrapped,) = source.wrap(fresh(1), CONTEXTS[:1])
    assert opens(tmp_path / "vault", "F\u00fcnfzig scho\u0308ne Wo\u0308rter", wrapped)
    refused(lambda: opens(tmp_path / "vault", "Funfzig schone Worter", wrapped))


def test_the_passphrase_is_stretched_once_for_each_epoch(folder, monkeypatch):
    calls, deriving = [], locked._derived
    monkeypatch.setattr(locked, "_derived", lambda *words: (calls.append(1), deriving(*words))[1])
    source = PassphraseKeys(folder, WORDS)
    for _ in range(3):
        source.unwrap(source.wrap(fresh(3), CONTEXTS), CONTEXTS, epoch="0001")
    assert len(calls) == 1


# --- wrong passphrases and changed files


@pytest.mark.parametrize("words", ["", " ", WORDS[:-1], WORDS + " ", WORDS.upper(), WORDS + "\n"])
def test_a_wrong_passphrase_is_one_clear_fault(folder, words):
    error = refused(lambda: PassphraseKeys(folder, words).wrap(fresh(1), CONTEXTS[:1]))
    assert len(error.faults) == 1
    assert "another passphrase" in error.faults[0].rule


def test_a_wrong_passphrase_makes_no_new_epoch(folder):
    refused(lambda: PassphraseKeys(folder, WORDS + "!").advance("0001"))
    assert [path.name for path in folder.iterdir()] == ["0001.json"]


@pytest.mark.parametrize("words", ["", "eleven char", "e\u0308" * 11, "x" * 1025])
def test_a_new_passphrase_has_twelve_characters_at_least(tmp_path, folder, words):
    fault = refused(lambda: PassphraseKeys.create(tmp_path / "new", words)).faults[0]
    assert "12" in fault.rule
    assert not list((tmp_path / "new").iterdir())
    refused(lambda: change_passphrase(folder, WORDS, words))
    PassphraseKeys(folder, WORDS).wrap(fresh(1), CONTEXTS[:1])


@pytest.mark.parametrize(
    "change",
    [
        {"memory_kib": 100 * 1024 * 1024},
        {"memory_kib": (1 << 20) + 1},
        {"memory_kib": 8191},
        {"memory_kib": -1},
        {"memory_kib": 65536.0},
        {"passes": 17},
        {"passes": 0},
        {"passes": 10**30},
        {"lanes": 17},
        {"lanes": 0},
        {"lanes": True},
        {"format": "coterie/keys/passphrase/v2"},
        {"salt": "AAAA"},
        {"salt": "A" * 24},
        {"salt": "!" * 24},
        {"salt": "A" * 5000},
        {"wrapped": "!!!!"},
        {"wrapped": ""},
        {"wrapped": 5},
        {"more": 1},
    ],
    ids=str,
)
def test_a_changed_file_is_refused_before_anything_is_stretched(folder, monkeypatch, change):
    told = {**json.loads((folder / "0001.json").read_bytes()), **change}
    (folder / "0001.json").write_text(json.dumps(told))
    monkeypatch.setattr(locked, "_derived", lambda *words: pytest.fail("it was stretched"))
    refused(lambda: PassphraseKeys(folder, WORDS).wrap(fresh(1), CONTEXTS[:1]))


@pytest.mark.parametrize("change", [{"memory_kib": 8200}, {"memory_kib": 32768}, {"passes": 2}, {"lanes": 2}], ids=str)
def test_other_costs_that_are_allowed_do_not_open(folder, change):
    told = {**json.loads((folder / "0001.json").read_bytes()), **change}
    (folder / "0001.json").write_text(json.dumps(told))
    refused(lambda: PassphraseKeys(folder, WORDS).wrap(fresh(1), CONTEXTS[:1]))


def test_costs_of_another_time_open_where_they_were_sealed_in(folder):
    key, salt = fresh(1)[0], base64.b64encode(b"s" * 16).decode()
    costs = {"format": "coterie/keys/passphrase/v1", "salt": salt, "memory_kib": 9000, "passes": 2, "lanes": 2}
    stretched = Argon2id(salt=b"s" * 16, length=32, iterations=2, lanes=2, memory_cost=9000).derive(WORDS.encode())
    context = f'["coterie/keys/passphrase/v1","0001","{salt}",9000,2,2]'.encode()
    wrapped = base64.b64encode(chunked.seal(stretched, context, bytes(key))).decode()
    (folder / "0001.json").write_text(json.dumps({**costs, "wrapped": wrapped}))
    assert locked.open_key(folder / "0001.json", "0001", locked.normal(WORDS)) == key


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 4000, b'{"a":1}', b"x" * 5000], ids=len)
def test_a_file_that_is_no_wrapped_key_is_refused(folder, data):
    (folder / "0001.json").write_bytes(data)
    refused(lambda: PassphraseKeys(folder, WORDS).wrap(fresh(1), CONTEXTS[:1]))


def test_a_flipped_bit_of_the_wrapped_key_is_refused(folder):
    told = json.loads((folder / "0001.json").read_bytes())
    for bit in range(0, 104 * 8, 97):
        changed = base64.b64encode(flipped(base64.b64decode(told["wrapped"]), bit)).decode()
        (folder / "0001.json").write_text(json.dumps({**told, "wrapped": changed}))
        refused(lambda: PassphraseKeys(folder, WORDS).wrap(fresh(1), CONTEXTS[:1]))


def test_creating_again_checks_the_passphrase_and_changes_nothing(folder):
    before = (folder / "0001.json").read_bytes()
    assert PassphraseKeys.create(folder, WORDS).epochs() == ("0001",)
    refused(lambda: PassphraseKeys.create(folder, OTHER))
    assert (folder / "0001.json").read_bytes() == before


def test_a_file_that_others_may_read_is_refused(folder):
    (folder / "0001.json").chmod(0o644)
    assert "chmod 600" in refused(lambda: PassphraseKeys(folder, WORDS).wrap(fresh(1), CONTEXTS[:1])).faults[0].fix


# --- changing it


def test_after_a_change_the_new_passphrase_opens_what_was_wrapped_and_the_old_one_nothing(folder):
    source, keys = PassphraseKeys(folder, WORDS), fresh(2)
    (one,) = source.wrap(keys[:1], CONTEXTS[:1])
    source.advance("0001")
    (two,) = source.wrap(keys[1:], CONTEXTS[:1])
    change_passphrase(folder, WORDS, OTHER)
    assert opens(folder, OTHER, one) + opens(folder, OTHER, two, "0002") == keys
    for wrapped, epoch in ((one, "0001"), (two, "0002")):
        refused(lambda wrapped=wrapped, epoch=epoch: opens(folder, WORDS, wrapped, epoch))
    assert sorted(path.name for path in folder.iterdir()) == ["0001.json", "0002.json"]


def test_a_change_with_a_wrong_old_passphrase_changes_nothing(folder):
    before = (folder / "0001.json").read_bytes()
    refused(lambda: change_passphrase(folder, WORDS + "!", OTHER))
    assert (folder / "0001.json").read_bytes() == before


@pytest.mark.parametrize("at", [0, 1])
def test_a_change_that_was_cut_short_is_done_again(folder, monkeypatch, at):
    source, keys = PassphraseKeys(folder, WORDS), fresh(2)
    (one,) = source.wrap(keys[:1], CONTEXTS[:1])
    source.advance("0001")
    (two,) = source.wrap(keys[1:], CONTEXTS[:1])
    writing, done = passphrase.write_durably, []

    def stopped(path, data):
        if len(done) == at:
            raise FileFault(*refused(lambda: KeyFolder(folder, ".none").path("x")).faults)
        done.append(writing(path, data))

    with monkeypatch.context() as patched:
        patched.setattr(passphrase, "write_durably", stopped)
        with pytest.raises(FileFault):
            change_passphrase(folder, WORDS, OTHER)
    change_passphrase(folder, WORDS, OTHER)
    assert opens(folder, OTHER, one) + opens(folder, OTHER, two, "0002") == keys


def test_a_folder_without_keys_has_no_passphrase_to_change(folder):
    (folder / "0001.json").unlink()
    refused(lambda: change_passphrase(folder, WORDS, OTHER))
    refused(lambda: PassphraseKeys(folder, WORDS).epochs())
