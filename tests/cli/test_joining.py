"""Joining by the command: from two empty folders to a partner that may connect, and back."""

import json
import os
import pty
import stat
import subprocess
import sys

import pytest

from coterie.cli.main import main
from coterie.clients.bundle import bundle_digest
from coterie.clients.joined import joined
from coterie.clients.workspace import Workspace
from coterie.privacy.clock import now
from coterie.privacy.identity import Identity
from coterie.privacy.joining.certificates import issue_server, make_authority
from coterie.server.certified import check_certificates
from coterie.server.office import Office


@pytest.fixture
def run_coterie(monkeypatch, capsys):
    """Run the command in this process; return its exit code and what it printed."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["coterie", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return call


def said(out, what):
    """Return the last thing that was printed after a word and a colon."""
    return [line.partition(":")[2].strip() for line in out.splitlines() if line.startswith(what + ":")][-1]


class Two:
    """A coordinator and a partner, by their folders, and everything that travelled between them."""

    def __init__(self, call, folder):
        self.call, self.folder = call, folder
        self.office, self.bank = folder / "coordinator", folder / "bank"

    def ok(self, *arguments):
        code, out, err = self.call(*arguments)
        assert code == 0, err
        return out

    def refused(self, *arguments):
        code, out, err = self.call(*arguments)
        assert code == 2, out
        (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
        assert "Fix: " in line
        assert "Traceback" not in err
        return line

    def init(self):
        out = self.ok("coordinator", "init", self.office, "--name", "ministry", "--address", "studies.example:443")
        self.ok("partner", "init", self.bank, "--name", "bank")
        return said(out, "fingerprint")

    def request(self, name="request.json", *options):
        out = self.ok("partner", "request", self.bank, "--output", self.folder / name, *options)
        return self.folder / name, said(out, "fingerprint")

    def admit(self, request, *options, name="admission.json"):
        self.ok("coordinator", "admit", self.office, request, "--output", self.folder / name, *options)
        return self.folder / name


@pytest.fixture
def two(run_coterie, tmp_path):
    return Two(run_coterie, tmp_path)


def test_from_two_empty_folders_to_a_partner_that_may_connect(two):
    coordinator = two.init()
    request, partner = two.request()
    admission = two.admit(request, "--fingerprint", partner)
    out = two.ok("partner", "install", two.bank, admission, "--fingerprint", coordinator)
    assert said(out, "fingerprint") == coordinator
    found = joined(Workspace(two.bank))
    assert found.name == "bank"
    assert found.coordinator == Office(two.office).identity.public
    assert found.bundle == f"sha256:{bundle_digest()}"
    found.check_dates(now())
    check_certificates(Office(two.office), now())
    (row,) = json.loads(two.ok("coordinator", "partners", two.office, "--json"))
    assert (row["name"], row["state"], row["fingerprint"]) == ("bank", "admitted", partner)
    assert (row["key"], row["node"]) == (found.key, found.node)
    table = two.ok("coordinator", "partners", two.office)
    assert "bank" in table
    assert "admitted" in table


def test_nothing_that_travels_or_is_printed_holds_a_private_key(two):
    coordinator = two.init()
    request, partner = two.request()
    printed = two.ok(
        "coordinator", "admit", two.office, request, "--fingerprint", partner, "--output", two.folder / "a"
    )
    printed += two.ok("partner", "install", two.bank, two.folder / "a", "--fingerprint", coordinator)
    travelled = request.read_bytes() + (two.folder / "a").read_bytes() + printed.encode()
    private = [path for folder in (two.office, two.bank) for path in (folder / "keys").rglob("*") if path.is_file()]
    hidden = [path for path in private if path.suffix not in (".pub",) and b"CERTIFICATE" not in path.read_bytes()]
    names = {path.name for path in hidden}
    assert {
        "identity.pem",
        "node",
        "groups.key",
        "0001.key",
        "authority.key",
        "server.key",
        "superexec.secret",
    } <= names
    for path in hidden:
        content = path.read_bytes()
        assert content not in travelled, path.name
        for line in content.splitlines():
            if len(line) >= 16 and b"-----" not in line:
                assert line not in travelled, path.name
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert stat.S_IMODE(request.stat().st_mode) == 0o600


def test_without_the_fingerprint_nobody_is_admitted_and_nothing_installed(two):
    two.init()
    request, partner = two.request()
    assert "--fingerprint: is missing" in two.refused("coordinator", "admit", two.office, request)
    wrong = ("0" if partner[0] != "0" else "1") + partner[1:]
    assert "exchanged on its way" in two.refused("coordinator", "admit", two.office, request, "--fingerprint", wrong)
    assert json.loads(two.ok("coordinator", "partners", two.office, "--json")) == []
    admission = two.admit(request, "--fingerprint", partner)
    assert "--fingerprint: is missing" in two.refused("partner", "install", two.bank, admission)
    assert "exchanged" in two.refused("partner", "install", two.bank, admission, "--fingerprint", partner)
    assert not (two.bank / "federation").exists()


def test_on_a_terminal_the_fingerprint_is_asked_for(two):
    two.init()
    request, partner = two.request()
    outer, inner = pty.openpty()
    code = "from coterie.cli.main import main; main()"
    command = [sys.executable, "-c", code, "coordinator", "admit", two.office, request, "--output", two.folder / "a"]
    with subprocess.Popen(command, stdin=inner, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.write(outer, partner.encode() + b"\n")
        out, err = process.communicate(timeout=60)
    os.close(outer)
    os.close(inner)
    assert process.returncode == 0, err
    assert b"Call bank and type the fingerprint" in out
    assert (two.folder / "a").exists()


def test_an_impostor_s_admission_is_not_installed(two, tmp_path):
    genuine = two.init()
    request, partner = two.request()
    two.ok("coordinator", "init", tmp_path / "impostor", "--name", "ministry", "--address", "evil.example:443")
    evil = tmp_path / "evil.json"
    two.ok("coordinator", "admit", tmp_path / "impostor", request, "--fingerprint", partner, "--output", evil)
    assert "exchanged" in two.refused("partner", "install", two.bank, evil, "--fingerprint", genuine)
    assert not (two.bank / "federation").exists()


def test_a_renewal_brings_a_new_key_and_needs_no_second_comparison_of_the_coordinator(two):
    coordinator = two.init()
    request, partner = two.request()
    two.ok("partner", "install", two.bank, two.admit(request, "--fingerprint", partner), "--fingerprint", coordinator)
    before = joined(Workspace(two.bank))
    renewal, renewed = two.request("renewal.json", "--renew")
    assert renewed != partner
    assert "--fingerprint: is missing" in two.refused("coordinator", "admit", two.office, renewal)
    two.ok("partner", "install", two.bank, two.admit(renewal, "--fingerprint", renewed))
    after = joined(Workspace(two.bank))
    assert after.node != before.node
    assert after.key == before.key


def test_more_time_for_the_same_keys_needs_no_comparison(two):
    coordinator = two.init()
    request, partner = two.request()
    two.ok("partner", "install", two.bank, two.admit(request, "--fingerprint", partner), "--fingerprint", coordinator)
    again, same = two.request("again.json")
    assert same == partner
    longer = two.admit(again, "--days", "700")
    # Nothing has to be compared, but what is given counts.
    assert "exchanged" in two.refused("partner", "install", two.bank, longer, "--fingerprint", partner)
    out = two.ok("partner", "install", two.bank, longer)
    assert "in force until" in out
    found = joined(Workspace(two.bank))
    assert found.expires[:4] > found.admitted[:4]


def test_a_revoked_partner_is_shown_as_such_and_its_key_is_out(two):
    two.init()
    request, partner = two.request()
    two.admit(request, "--fingerprint", partner)
    two.ok("coordinator", "revoke", two.office, "bank")
    two.ok("coordinator", "revoke", two.office, "bank")
    (row,) = json.loads(two.ok("coordinator", "partners", two.office, "--json"))
    assert row["state"] == "revoked"
    assert row["revoked"]
    assert "replaced or revoked" in two.refused("coordinator", "admit", two.office, request, "--fingerprint", partner)
    assert "is not in the books" in two.refused("coordinator", "revoke", two.office, "nobody")


def test_the_server_s_certificate_is_renewed_and_partners_need_nothing_new(two):
    two.init()
    office = Office(two.office)
    before, authority = office.certificate.read_bytes(), office.authority.read_bytes()
    out = two.ok("coordinator", "renew", two.office)
    assert "admit each of them again" not in out
    assert office.certificate.read_bytes() != before
    assert office.authority.read_bytes() == authority
    check_certificates(office, now())


def test_after_a_fresh_authority_the_same_keys_are_admitted_again_without_a_call(two):
    coordinator = two.init()
    request, partner = two.request()
    two.ok("partner", "install", two.bank, two.admit(request, "--fingerprint", partner), "--fingerprint", coordinator)
    before = joined(Workspace(two.bank)).authority
    assert "admit each of them again" in two.ok("coordinator", "renew", two.office, "--fresh-authority")
    two.ok("partner", "install", two.bank, two.admit(two.request()[0]))
    after = joined(Workspace(two.bank)).authority
    assert before != after == Office(two.office).authority.read_text()


def corporate(folder, host="studies.example"):
    authority = make_authority("corporation", now())
    pair = issue_server(authority, host, now())
    options = []
    for option, content in (
        ("certificate", pair.certificate),
        ("key", pair.key),
        ("authority", authority.certificate),
    ):
        (folder / option).write_bytes(content)
        options += [f"--{option}", folder / option]
    return options


def test_an_operator_s_own_certificate_is_used_from_the_start(two, tmp_path):
    options = corporate(tmp_path)
    start = ("coordinator", "init", two.office, "--name", "ministry", "--address")
    assert "must be given together" in two.refused(*start, "studies.example:443", *options[:4])
    assert "at the given address" in two.refused(*start, "other.example:443", *options)
    assert not two.office.exists()
    two.ok(*start, "studies.example:443", *options)
    two.ok("partner", "init", two.bank, "--name", "bank")
    request, partner = two.request()
    admission = json.loads(two.admit(request, "--fingerprint", partner).read_bytes())["admission"]
    assert admission["authority"].encode() == (tmp_path / "authority").read_bytes()
    assert "a certificate of your own" in two.refused("coordinator", "renew", two.office)
    assert "admit each of them again" in two.ok("coordinator", "renew", two.office, *corporate(tmp_path))
    check_certificates(Office(two.office), now())


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("coordinator", "init", "new", "--name", "m", "--address", "nowhere"), "host:port"),
        (("coordinator", "admit", "office", "missing.json"), "cannot be read"),
        (("coordinator", "admit", "office", "office/coterie.toml"), "is not a form of this format"),
        (("coordinator", "partners", "nowhere"), "coterie coordinator init"),
        (("coordinator", "revoke", "nowhere", "bank"), "coterie coordinator init"),
        (("coordinator", "renew", "nowhere"), "coterie coordinator init"),
        (("partner", "request", "nowhere"), "is not a workspace"),
        (("partner", "install", "bank", "office/coterie.toml"), "is not a form of this format"),
    ],
)
def test_bad_input_gives_one_error_with_its_fix(two, monkeypatch, arguments, fault):
    two.init()
    (two.folder / "office").symlink_to(two.office)
    monkeypatch.chdir(two.folder)
    assert fault in two.refused(*arguments)


def test_a_stranger_s_words_do_not_act_on_the_terminal(two):
    from coterie.privacy.joining.nodekey import make_node_key
    from coterie.privacy.joining.request import make_request

    two.init()
    nasty = two.folder / "nasty.json"
    name = "bank\u202e\u009b[bold]"
    nasty.write_bytes(make_request(name, Identity.create(), make_node_key(), version="1\u202e", now=now()))
    _, out, err = two.call("coordinator", "admit", two.office, nasty)
    assert "\u202e" not in out + err
    assert "\u009b" not in out + err
    assert "[bold]" in out
