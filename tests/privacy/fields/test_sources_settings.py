"""The `[keys]` table: which settings fit together, and which source they name."""

import base64
import tomllib

import pytest

from coterie.privacy.errors import CoterieError, FileFault
from coterie.privacy.fields.sources.settings import KeySettings, key_source, new_key_source
from coterie.privacy.schema import parse
from coterie.tests.privacy.fields.sourcesuite import CONTEXTS, fresh, refused
from coterie.tests.privacy.fields.transitmock import TOKEN, Mock, serving

WORDS = "canary words of some length"
ONE = base64.b64encode(bytes(32)).decode()


def settings(text):
    return parse(KeySettings, tomllib.loads(text), place="coterie.toml: keys")


def made(text, root, *, new=True, environment=None, ask=None):
    act = new_key_source if new else key_source
    return act(settings(text), root, environment=environment or {}, ask=ask)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "bank" / "keys").mkdir(parents=True, mode=0o700)
    return tmp_path / "bank"


def secret(path, text, mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


def test_without_a_table_keys_are_files_in_the_workspace(root):
    assert KeySettings() == settings("") == settings('source = "file"')
    source = made("", root)
    assert (source.kind, source.apart) == ("file", False)
    assert [path.name for path in (root / "keys" / "vault").iterdir()] == ["0001.key"]


def test_only_a_new_source_makes_a_key(root):
    refused(lambda: made("", root, new=False).epochs())
    assert not (root / "keys" / "vault").exists()
    made("", root)
    assert made("", root, new=False).epochs() == made("", root).epochs() == ("0001",)


def test_a_relative_path_is_the_workspaces(root):
    made('path = "elsewhere/keys"', root)
    assert (root / "elsewhere" / "keys" / "0001.key").exists()


def test_a_mount_lies_where_the_path_says(root, tmp_path):
    (tmp_path / "medium").mkdir(mode=0o700)
    for path in (str(tmp_path / "medium"), "../medium"):
        source = made(f'source = "mount"\npath = "{path}"', root)
        assert (source.kind, source.apart, source.epochs()) == ("mount", True, ("0001",))
    assert (tmp_path / "medium" / "0001.key").exists()


def test_a_mount_inside_the_workspace_does_not_count_as_apart(root, tmp_path):
    (tmp_path / "link").symlink_to(root / "keys")
    for path in ("keys", str(root / "keys"), ".", "../bank/keys", str(tmp_path / "link")):
        with pytest.raises(FileFault, match="outside the workspace"):
            made(f'source = "mount"\npath = "{path}"', root)


def test_key_files_outside_the_workspace_are_a_mount(root, tmp_path):
    (root / "out").symlink_to(tmp_path)
    for path in (str(tmp_path / "medium"), "..", "out/medium"):
        with pytest.raises(FileFault, match="inside the workspace"):
            made(f'path = "{path}"', root)


def test_the_environment_is_the_one_that_was_given(root):
    source = made('source = "environment"\nvariable = "KEYS"', root, environment={"KEYS": f"a:{ONE}"})
    assert (source.kind, source.apart, source.epochs()) == ("environment", True, ("a",))


def test_a_first_key_is_not_made_in_the_environment(root):
    refused(lambda: made('source = "environment"\nvariable = "KEYS"', root))


# --- the passphrase


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_passphrase_comes_from_the_file_of_the_path(root, end):
    secret(root / "words", WORDS + end)
    source = made('source = "passphrase"\npath = "words"', root)
    assert (source.kind, source.apart) == ("passphrase", False)
    wrapped = source.wrap(fresh(1), CONTEXTS[:1])
    again = made('source = "passphrase"', root, new=False, ask=lambda: WORDS)
    assert again.unwrap(wrapped, CONTEXTS[:1], epoch="0001")


def test_or_from_the_file_that_the_variable_names_before_anybody_is_asked(root, tmp_path):
    named = {"COTERIE_PASSPHRASE_FILE": str(secret(tmp_path / "words", WORDS))}
    made('source = "passphrase"', root, environment=named, ask=lambda: pytest.fail("it asked"))
    made('source = "passphrase"', root, ask=lambda: WORDS)
    secret(root / "wrong", "another passphrase")
    refused(lambda: made('source = "passphrase"\npath = "wrong"', root, environment=named))


def test_or_nowhere_from(root):
    fault = refused(lambda: made('source = "passphrase"', root)).faults[0]
    assert "COTERIE_PASSPHRASE_FILE" in fault.fix


@pytest.mark.parametrize("text", ["", "\n", "two\nlines of words", "tab\tbed words here", "x" * 5000])
def test_a_passphrase_file_holds_one_line(root, text):
    secret(root / "words", text)
    fault = str(refused(lambda: made('source = "passphrase"\npath = "words"', root)))
    assert "words here" not in fault
    assert "xxxx" not in fault


def test_a_passphrase_file_is_its_owners_alone(root):
    secret(root / "words", WORDS, 0o640)
    assert "chmod 600" in refused(lambda: made('source = "passphrase"\npath = "words"', root)).faults[0].fix


def test_a_passphrase_file_that_is_no_text_is_refused(root):
    (root / "words").write_bytes(b"\xff\xfe words of some length")
    (root / "words").chmod(0o600)
    refused(lambda: made('source = "passphrase"\npath = "words"', root))


# --- the key server


def test_a_key_of_the_mock_server_is_made_with_the_token_of_the_file_or_of_the_variable(root):
    mock = Mock()
    with serving(mock) as address:
        text = f'source = "transit"\naddress = "{address}"\nkey = "bank"\n'
        refused(lambda: made(text, root))
        refused(lambda: made(text, root, environment={"VAULT_TOKEN": "another"}))
        source = made(text, root, environment={"VAULT_TOKEN": TOKEN})
        assert (source.kind, source.apart, source.epochs()) == ("transit", True, ("v1",))
        secret(root / "keys" / "token", TOKEN + "\n")
        again = made(text + 'token = "keys/token"', root, new=False, environment={"VAULT_TOKEN": "another"})
        assert again.epochs() == ("v1",)
        (root / "keys" / "token").chmod(0o644)
        assert "chmod 600" in refused(lambda: again.advance("v1")).faults[0].fix


def test_a_token_that_is_written_anew_is_read_anew(root):
    with serving(Mock()) as address:
        secret(root / "token", "stale")
        source = made(f'source = "transit"\naddress = "{address}"\nkey = "bank"\ntoken = "token"', root, new=False)
        refused(source.epochs)
        secret(root / "token", TOKEN)
        assert "is not there" in refused(source.epochs).faults[0].rule  # the token passes; nothing made the key


# --- settings that do not fit together

WRONG = {
    'source = "file"\nvariable = "X"': ["variable"],
    'source = "file"\ntoken = "t"\nkey = "k"': ["key", "token"],
    'source = "mount"': ["path"],
    'source = "mount"\npath = "/x"\naddress = "https://h"': ["address"],
    'source = "environment"': ["variable"],
    'source = "environment"\nvariable = "X"\npath = "p"': ["path"],
    'source = "passphrase"\nvariable = "X"': ["variable"],
    'source = "transit"': ["address", "key"],
    'source = "transit"\naddress = "https://h"\nkey = "k"\npath = "p"\nvariable = "V"': ["path", "variable"],
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text.replace("\n", " "))
def test_settings_of_another_source_and_missing_ones_are_all_named(root, text):
    for new in (True, False):
        with pytest.raises(FileFault) as error:
            made(text, root, new=new)
        assert [fault.place for fault in error.value.faults] == [f"coterie.toml: keys.{name}" for name in WRONG[text]]


@pytest.mark.parametrize(
    "text",
    [
        'source = "vault"',
        "source = 1",
        'path = ""',
        'kind = "file"',
        'passphrase = "secret words"',
        'variable = "\\u0007"',
    ],
)
def test_the_schema_refuses_what_is_no_setting(text):
    with pytest.raises(FileFault) as error:
        settings(text)
    assert "secret words" not in str(error.value)


@pytest.mark.parametrize(
    "address",
    [
        "http://vault.example:8200",
        "http://10.0.0.1:8200",
        "http://127.0.0.1.example:8200",
        "http://localhost.example",
        "ftp://127.0.0.1",
        "https://",
        "vault.example:8200",
        "https://user:canary-password@vault.example",
        "https://vault.example/v1",
        "https://vault.example?namespace=a",
        "https://vault.example#a",
        "https://vault.example:99999",
    ],
)
def test_an_address_that_is_not_the_servers_over_tls_is_refused(root, address):
    text = f'source = "transit"\naddress = "{address}"\nkey = "bank"'
    fault = refused(lambda: made(text, root, new=False, environment={"VAULT_TOKEN": TOKEN}))
    assert "canary" not in str(fault)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8200", "http://127.1.2.3", "http://[::1]:8200", "http://localhost:1", "https://h/"]
)
def test_plain_http_is_for_this_machine(root, address):
    made(f'source = "transit"\naddress = "{address}"\nkey = "bank"', root, new=False)


@pytest.mark.parametrize(
    "key", ["..", "a/../b", "/a", "a/", "a//b", "a b", "a?b", "a#b", "a%2fb", ".a", "ä", "a/keys/.."]
)
def test_a_key_name_that_could_ask_for_another_path_is_refused(root, key):
    with pytest.raises(CoterieError):
        made(f'source = "transit"\naddress = "https://h"\nkey = "{key}"', root, new=False)


@pytest.mark.parametrize("text", [None, "", "no certificate"])
def test_an_authority_that_is_no_certificate_is_refused(root, text):
    if text is not None:
        (root / "authority.pem").write_text(text)
    start = 'source = "transit"\naddress = "https://h"\nkey = "k"\nauthority = "authority.pem"'
    fault = refused(lambda: made(start, root, new=False)).faults[0]
    assert "authority" in fault.place
