"""The suite of every source against a real key server (HashiCorp Vault or OpenBao) of the test's own."""

import itertools

import httpx
import pytest

from coterie.privacy.fields.sources.transit import TransitKeys
from coterie.privacy.fields.sources.transitcalls import TransitCalls
from coterie.tests.privacy.fields.sourcesuite import CONTEXTS, SourceContract, fresh, refused
from coterie.tests.privacy.fields.transitserver import TOKEN, server

pytestmark = pytest.mark.slow
NUMBERS = itertools.count()
# What docs/formats/keys.md says a token must be allowed.
POLICY = {
    "transit/keys/{}": '"read"',
    "transit/encrypt/{}": '"update"',
    "transit/decrypt/{}": '"update"',
    "transit/keys/{}/rotate": '"update"',
    "transit/keys/{}/config": '"update"',
    "transit/keys/{}/trim": '"update"',
}


@pytest.fixture(scope="module")
def running():
    with server() as running:
        yield running


class Rig:
    kind, ours = "transit", True

    def __init__(self, running) -> None:
        self.server, self.name = running, f"bank-{next(NUMBERS)}"
        TransitKeys.create(self.calls(TOKEN))
        rules = {path.format(self.name): able for path, able in POLICY.items()}
        self.token = running.limited(self.name, rules)
        self.secrets = [TOKEN, self.token]

    def calls(self, token=None):
        return TransitCalls(self.server.address, self.name, lambda: token or self.token)

    def source(self):
        return TransitKeys(self.calls())

    def add(self):
        source = self.source()
        return source.advance(source.epochs()[-1])

    def faults(self):
        return [lambda: TransitKeys(self.calls("another-canary-token")).wrap(fresh(1), CONTEXTS[:1])]


@pytest.fixture
def rig(running):
    return Rig(running)


class TestRealServer(SourceContract):
    stride = 13


def test_a_real_server_has_deleted_what_was_destroyed(running, rig):
    source = rig.source()
    (wrapped,) = source.wrap(fresh(1), CONTEXTS[:1])
    new = source.advance("v1")
    source.destroy("v1")
    told = running.ask("GET", f"transit/keys/{rig.name}")["data"]
    assert (told["min_available_version"], list(told["keys"])) == (2, ["2"])
    assert source.epochs() == (new,) == ("v2",)
    # Not even its administrator brings the version back.
    with pytest.raises(httpx.HTTPStatusError):
        running.ask(
            "POST", f"transit/keys/{rig.name}/config", {"min_decryption_version": 1, "min_encryption_version": 1}
        )
    with pytest.raises(httpx.HTTPStatusError):
        running.ask("POST", f"transit/decrypt/{rig.name}", {"ciphertext": wrapped.decode(), "associated_data": "YQ=="})


def test_a_real_server_refuses_what_a_token_may_not(running, rig):
    rig.add()
    rules = {path.format(rig.name): able for path, able in POLICY.items() if "trim" not in path}
    rig.token = running.limited(rig.name + "-less", rules)
    assert "trim" in refused(lambda: rig.source().destroy("v1")).faults[0].rule
    assert rig.source().epochs() == ("v1", "v2")  # it is there still


def test_a_real_server_makes_no_key_for_a_token_that_may_not(running):
    token = running.limited("nothing", {"transit/keys/other": '"read"'})
    calls = TransitCalls(running.address, "other", lambda: token)
    assert "token" in refused(lambda: TransitKeys.create(calls)).faults[0].rule
    assert "is not there" in refused(TransitKeys(calls).epochs).faults[0].rule


def test_a_real_server_makes_a_key_for_a_token_that_may(running):
    rules = {path.format("first"): able for path, able in POLICY.items()}
    token = running.limited("first", {**rules, "transit/keys/first": '"read", "create", "update"'})
    source = TransitKeys.create(TransitCalls(running.address, "first", lambda: token))
    assert source.epochs() == ("v1",)
    assert TransitKeys.create(TransitCalls(running.address, "first", lambda: token)).epochs() == ("v1",)


def test_a_real_server_without_the_engine_is_one_fault(running):
    refused(TransitKeys(TransitCalls(running.address, "nowhere/bank", lambda: TOKEN)).epochs)


def test_a_real_servers_exportable_key_is_refused(running):
    running.ask("POST", "transit/keys/open", {"type": "aes256-gcm96", "exportable": True})
    assert (
        "exportable" in refused(TransitKeys(TransitCalls(running.address, "open", lambda: TOKEN)).epochs).faults[0].rule
    )


def test_a_real_server_that_was_sealed_is_named_as_such():
    with server() as own:
        source = Rig(own).source()
        own.ask("PUT", "sys/seal")
        assert "sealed" in refused(source.epochs).faults[0].rule
