"""Keys of a key server: the suite of every source against a mock of its documented API, and each way it can fail."""

import datetime
import ipaddress
import re

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from coterie.privacy.fields.sources import transitcalls
from coterie.privacy.fields.sources.transit import TransitKeys
from coterie.privacy.fields.sources.transitcalls import TransitCalls
from coterie.tests.privacy.fields.sourcesuite import CONTEXTS, SourceContract, fresh, refused
from coterie.tests.privacy.fields.transitmock import TOKEN, Key, Mock, serving


class Rig:
    kind, ours, secrets = "transit", True, [TOKEN]

    def __init__(self, address) -> None:
        self.address = address
        TransitKeys.create(self.calls())

    def calls(self, token=TOKEN):
        return TransitCalls(self.address, "bank", lambda: token)

    def source(self, token=TOKEN):
        return TransitKeys(self.calls(token))

    def add(self):
        source = self.source()
        return source.advance(source.epochs()[-1])

    def faults(self):
        tokens = ("another-canary-token", "canary\ntoken", "canary tökén", "canary token", "")
        self.secrets = [*self.secrets, *(token for token in tokens if token)]
        return [lambda token=token: self.source(token).wrap(fresh(1), CONTEXTS[:1]) for token in tokens]


@pytest.fixture
def mock():
    return Mock()


@pytest.fixture
def rig(mock):
    with serving(mock) as address:
        yield Rig(address)


class TestMockServer(SourceContract):
    stride = 13


# --- what is asked


def test_the_mock_is_asked_for_the_current_version_with_contexts_as_associated_data(mock, rig):
    source = rig.source()
    rig.add()
    assert source.epochs() == ("v1", "v2")
    mock.calls.clear()
    source.wrap(fresh(2), CONTEXTS[:2])
    (method, path, headers, body) = mock.calls[0]
    assert (method, path, headers["X-Vault-Token"]) == ("POST", "/v1/transit/encrypt/bank", TOKEN)
    assert body.count(b'"key_version":2') == 2
    assert b'"associated_data":"WyJiYW5rIiwiY3VzdG9tZXJzIiwiYSJd"' in body


def test_no_secret_is_in_a_path_of_the_mock(mock, rig):
    (key,), source = fresh(1), rig.source()
    source.unwrap(source.wrap([key], CONTEXTS[:1]), CONTEXTS[:1], epoch="v1")
    assert {path for _, path, _, _ in mock.calls} == {
        f"/v1/transit/{verb}/bank" for verb in ("keys", "encrypt", "decrypt")
    }


def test_a_wrapped_key_is_the_mocks_own_text(rig):
    (wrapped,) = rig.source().wrap(fresh(1), CONTEXTS[:1])
    assert re.fullmatch(rb"vault:v1:[A-Za-z0-9+/]{80}", wrapped)


def test_another_mount_is_named_before_the_key(mock):
    with serving(mock) as address:
        refused(lambda: TransitKeys.create(TransitCalls(address, "engines/transit/bank", lambda: TOKEN)))
    assert mock.calls[0][1] == "/v1/engines/transit/keys/bank"


def test_a_key_is_made_once(mock, rig):
    TransitKeys.create(rig.calls())
    assert [call[:2] for call in mock.calls].count(("POST", "/v1/transit/keys/bank")) == 1


def test_a_key_that_is_not_there_is_not_made_by_using_it(mock):
    with serving(mock) as address:
        source = TransitKeys(TransitCalls(address, "bank", lambda: TOKEN))
        for act in (
            source.epochs,
            lambda: source.wrap(fresh(1), CONTEXTS[:1]),
            lambda: source.unwrap([b"vault:v1:AAAA"], CONTEXTS[:1], epoch="v1"),
            lambda: source.advance("v1"),
            lambda: source.destroy("v1"),
        ):
            assert "is not there" in refused(act).faults[0].rule
    assert {call[0] for call in mock.calls} == {"GET"}


# --- destroying


def test_the_mock_is_told_to_trim_and_no_bound_is_lowered(mock, rig):
    for _ in range(4):
        rig.add()
    ring = mock.rings["bank"]
    ring.config({"min_decryption_version": 3, "min_encryption_version": 4})
    source = rig.source()
    source.destroy("v1")
    told = ring.read()
    assert [told[f"min_{what}_version"] for what in ("available", "decryption", "encryption")] == [2, 3, 4]
    assert sorted(ring.keys) == [2, 3, 4, 5]
    for epoch in ("v2", "v3"):
        source.destroy(epoch)
    told = ring.read()
    assert [told[f"min_{what}_version"] for what in ("available", "decryption", "encryption")] == [4, 4, 4]
    assert sorted(ring.keys) == [4, 5]


def test_a_version_that_opens_nothing_any_more_is_there_until_it_is_trimmed(mock, rig):
    (wrapped,) = rig.source().wrap(fresh(1), CONTEXTS[:1])
    rig.add()
    mock.rings["bank"].config({"min_decryption_version": 2, "min_encryption_version": 2})
    assert rig.source().epochs() == ("v1", "v2")
    refused(lambda: rig.source().unwrap([wrapped], CONTEXTS[:1], epoch="v1"))
    rig.source().destroy("v1")
    assert rig.source().epochs() == ("v2",)


def test_a_version_between_others_is_not_destroyed_with_the_older_ones(mock, rig):
    rig.add()
    rig.add()
    source = rig.source()
    assert "oldest first" in refused(lambda: source.destroy("v2")).faults[0].fix
    assert sorted(mock.rings["bank"].keys) == [1, 2, 3]
    source.destroy("v1")
    source.destroy("v2")
    assert sorted(mock.rings["bank"].keys) == [3]


def test_a_trim_that_was_cut_short_is_done_when_asked_again(mock, rig):
    rig.add()
    mock.denied = re.compile("trim")
    source = rig.source()
    refused(lambda: source.destroy("v1"))
    assert source.epochs() == rig.source().epochs() == ("v1", "v2")  # as long as the server has it
    assert sorted(mock.rings["bank"].keys) == [1, 2]
    mock.denied = re.compile("(?!)")
    rig.source().destroy("v1")
    assert sorted(mock.rings["bank"].keys) == [2]


def test_a_server_that_says_it_trimmed_and_did_not_is_not_believed(mock, rig, monkeypatch):
    rig.add()
    monkeypatch.setattr(Key, "trim", lambda ring, body: ring.read())
    assert "still" in refused(lambda: rig.source().destroy("v1")).faults[0].rule


# --- what a server may do wrong


@pytest.mark.parametrize(
    ("verb", "act"),
    [
        ("encrypt", lambda source: source.wrap(fresh(1), CONTEXTS[:1])),
        ("decrypt", lambda source: source.wrap(fresh(1), CONTEXTS[:1])),
        ("rotate", lambda source: source.advance("v2")),
        ("config", lambda source: source.destroy("v1")),
        ("trim", lambda source: source.destroy("v1")),
    ],
)
def test_a_token_that_may_not_is_told_for_which_path(mock, rig, verb, act):
    rig.add()
    mock.denied = re.compile(verb)
    fault = refused(lambda: act(rig.source())).faults[0]
    assert "token" in fault.rule
    assert verb in fault.rule


def test_a_sealed_server_is_named_as_such(mock, rig):
    mock.sealed = True
    assert "sealed" in refused(rig.source().epochs).faults[0].rule


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((307, {"Location": "http://127.0.0.1:1/v1/transit/keys/bank"}, b""), "another server"),
        ((500, {}, b'{"errors":["canary"]}'), "500"),
        ((200, {}, b""), "form"),
        ((200, {}, b"canary"), "form"),
        ((200, {}, b"[" * 100000), "form"),
        ((200, {}, b"[]"), "form"),
        ((200, {}, b'{"data":null}'), "form"),
        ((200, {}, b'{"data":{}}'), "must have type"),
        ((204, {}, b""), "must have type"),
        ((200, {"Content-Encoding": "gzip"}, b"canary"), "DecodingError"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_answer_of_another_form_is_one_fault_without_its_words(mock, rig, answer, said):
    mock.answer = answer
    error = refused(rig.source().epochs)
    assert len(error.faults) == 1
    assert said in error.faults[0].rule
    assert "canary" not in str(error)


@pytest.mark.parametrize("name", ["latest_version", "min_available_version", "min_decryption_version"])
@pytest.mark.parametrize("value", [None, "1", 1.5, -1, True], ids=str)
def test_versions_that_are_no_numbers_are_refused(mock, rig, monkeypatch, name, value):
    reading = Key.read
    monkeypatch.setattr(Key, "read", lambda ring: {**reading(ring), name: value})
    assert "versions" in refused(rig.source().epochs).faults[0].rule


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("type", "aes128-gcm96"),
        ("type", "rsa-4096"),
        ("derived", True),
        ("exportable", True),
        ("allow_plaintext_backup", True),
    ],
)
def test_a_key_that_binds_nothing_or_can_be_handed_out_is_refused(mock, rig, name, value):
    mock.rings["bank"].told[name] = value
    assert name in refused(rig.source().epochs).faults[0].rule


def test_a_server_that_leaves_associated_data_aside_seals_nothing(mock, rig):
    mock.old = True
    fault = refused(lambda: rig.source().wrap(fresh(1), CONTEXTS[:1])).faults[0]
    assert "1.13" in fault.fix


def test_binding_is_checked_once_for_an_object(mock, rig):
    source = rig.source()
    for _ in range(3):
        source.wrap(fresh(2), CONTEXTS[:2])
    assert [path for _, path, _, _ in mock.calls].count("/v1/transit/decrypt/bank") == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda results: results[:1],
        lambda results: [*results, results[0]],
        lambda results: [results[0], {}],
        lambda results: [results[0], None],
        lambda results: [results[0], {"ciphertext": 5}],
        lambda results: [results[0], {"ciphertext": "canary"}],
        lambda results: [results[0], {"ciphertext": results[1]["ciphertext"].replace("v1", "v2")}],
        lambda results: [results[0], {"ciphertext": "vault:v1:"}],
        lambda results: results[::-1],
        lambda results: None,
        lambda results: "canary",
    ],
    ids=range(11),
)
def test_a_batch_that_comes_back_otherwise_is_refused(mock, rig, monkeypatch, change):
    batch = Mock.batch

    def changed(self, ring, verb, items):
        answer = batch(self, ring, verb, items)
        return {"batch_results": change(answer["batch_results"])} if len(items) > 1 else answer

    monkeypatch.setattr(Mock, "batch", changed)
    assert "canary" not in str(refused(lambda: rig.source().wrap(fresh(2), CONTEXTS[:2])))


@pytest.mark.parametrize("plain", [None, "", "AAAA", "!", 5], ids=str)
def test_a_data_key_that_comes_back_in_another_size_is_refused(rig, monkeypatch, plain):
    source = rig.source()
    wrapped = source.wrap(fresh(1), CONTEXTS[:1])
    monkeypatch.setattr(Key, "decrypt", lambda ring, item: {"plaintext": plain})
    refused(lambda: source.unwrap(wrapped, CONTEXTS[:1], epoch="v1"))


# --- the network


def test_a_server_that_is_not_there_is_named(mock):
    with serving(mock) as address:
        source = TransitKeys(TransitCalls(address, "bank", lambda: TOKEN))
    fault = refused(source.epochs).faults[0]
    assert address in fault.place
    assert "ConnectError" in fault.rule


def test_a_server_that_does_not_answer_is_left_after_a_while(mock, rig, monkeypatch):
    mock.pause = 5.0
    monkeypatch.setattr(transitcalls, "_WAIT", httpx.Timeout(0.2))
    assert "in time" in refused(rig.source().epochs).faults[0].rule


def test_the_environments_proxy_is_not_handed_the_token(mock, rig, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert rig.source().epochs() == ("v1",)


def certificate(folder, *names):
    """Write a certificate of these names that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a key server")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(list(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "chain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*form))
    return folder / "chain.pem", folder / "key.pem"


def test_over_tls_the_authority_must_be_the_named_one(mock, tmp_path):
    (tmp_path / "other").mkdir()
    chain, key = certificate(tmp_path, x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    other, _ = certificate(tmp_path / "other", x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    with serving(mock, (chain, key)) as address:
        assert TransitKeys.create(TransitCalls(address, "bank", lambda: TOKEN, chain)).epochs() == ("v1",)
        mock.calls.clear()
        for authority in (None, other):
            fault = refused(TransitKeys(TransitCalls(address, "bank", lambda: TOKEN, authority)).epochs).faults[0]
            assert "certificate" in fault.rule
        plain = address.replace("https", "http")
        refused(TransitKeys(TransitCalls(plain, "bank", lambda: TOKEN)).epochs)
    assert mock.calls == []  # the token went to nobody


def test_over_tls_the_name_must_be_the_certificates(mock, tmp_path):
    chain, key = certificate(tmp_path, x509.DNSName("vault.example"))
    with serving(mock, (chain, key)) as address:
        source = TransitKeys(TransitCalls(address, "bank", lambda: TOKEN, chain))
        assert "certificate" in refused(source.epochs).faults[0].rule
    assert mock.calls == []
