"""The key sources of a process: made once a workspace, and their secrets given to the worker alone."""

import pytest

from coterie.clients.keysources import HeldSources
from coterie.clients.running.service import children
from coterie.clients.workspace import Workspace
from coterie.privacy.fields.errors import KeyFault
from coterie.privacy.fields.sources.settings import KeySettings

PHRASE = "seven quiet rivers at dawn"


@pytest.fixture
def shut(tmp_path):
    """A workspace under a passphrase, and the file that holds it."""
    phrase = tmp_path / "phrase"
    phrase.write_text(PHRASE)
    phrase.chmod(0o600)
    keys = KeySettings(source="passphrase", path="../phrase")
    return Workspace.create(tmp_path / "bank", "bank", keys=keys), phrase


def test_a_passphrase_is_worked_on_once_in_the_life_of_a_process(shut, monkeypatch):
    workspace, _ = shut
    calls = []
    made = Workspace.key_source
    monkeypatch.setattr(Workspace, "key_source", lambda self: calls.append(1) or made(self))
    held = HeldSources()
    assert held(workspace) is held(workspace)
    assert len(calls) == 1


def test_other_settings_are_another_source(shut, tmp_path):
    workspace, _ = shut
    held = HeldSources()
    before = held(workspace)
    workspace.keep_keys(KeySettings(source="mount", path=str(tmp_path / "mount")))
    assert held(workspace) is not before
    assert held(workspace).kind == "mount"
    assert workspace.name == "bank"


def test_a_source_that_cannot_be_had_is_asked_for_again(shut):
    workspace, phrase = shut
    phrase.rename(phrase.with_name("away"))
    held = HeldSources()
    with pytest.raises(KeyFault):
        held(workspace)
    phrase.with_name("away").rename(phrase)
    assert held(workspace).kind == "passphrase"


def test_what_leads_to_the_keys_is_in_the_workers_environment_alone(shut, tmp_path):
    workspace, _ = shut
    workspace.keep_keys(KeySettings(source="environment", variable="BANK_KEYS"))
    secrets = {"BANK_KEYS": "1:AAAA", "VAULT_TOKEN": "t", "COTERIE_PASSPHRASE_FILE": "f"}
    found = {child.name: child.env for child in children(workspace, {"PATH": "/bin"} | secrets)}
    assert found["worker"] == {"PATH": "/bin"} | secrets
    assert found["supernode"] == {"PATH": "/bin"}
