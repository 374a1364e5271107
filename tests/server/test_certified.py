"""The server's certificates: renewed, brought by the operator, and never shown when a partner would not take them."""

import dataclasses
import datetime
import stat

import pytest

from coterie.privacy.errors import FileFault
from coterie.privacy.joining.certificates import expiry, issue_server, make_authority
from coterie.privacy.joining.forms import JoinFault
from coterie.server.certified import OwnCertificate, check_certificates, check_own, renew, renew_authority, take
from coterie.server.office import Office

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
DAY = datetime.timedelta(days=1)
HOST = "studies.example"
CORPORATE = make_authority("corporation", NOW)


@pytest.fixture
def office(tmp_path):
    return Office.create(tmp_path / "office", name="ministry", address=f"{HOST}:443", clock=lambda: NOW)


@pytest.fixture
def own(tmp_path):
    """Return a function that writes a corporate certificate."""

    def write(host=HOST, authority=CORPORATE, at=NOW):
        pair, files = issue_server(authority, host, at), tmp_path / f"own-{len(list(tmp_path.iterdir()))}"
        files.mkdir()
        found = OwnCertificate(files / "cert.pem", files / "cert.key", files / "ca.pem")
        found.certificate.write_bytes(pair.certificate)
        found.key.write_bytes(pair.key)
        found.authority.write_bytes(b"# corporate\r\n" + authority.certificate)
        return found

    return write


def content(office):
    return {path.name: path.read_bytes() for path in (office.root / "keys").iterdir()}


def test_a_new_office_s_certificates_are_in_order_for_a_year(office):
    check_certificates(office, NOW)
    check_certificates(office, NOW + 364 * DAY)
    with pytest.raises(JoinFault, match=r"server.pem: has expired.*coterie coordinator renew"):
        check_certificates(office, NOW + 366 * DAY)
    with pytest.raises(JoinFault, match="is not valid yet"):
        check_certificates(office, NOW - DAY)


def test_renewing_replaces_certificate_and_key_and_keeps_the_authority(office):
    before, later = content(office), NOW + 300 * DAY
    renew(office, later)
    after = content(office)
    assert {name for name in after if after[name] != before[name]} == {"server.pem", "server.key"}
    assert expiry(office.certificate.read_bytes()) == later + 365 * DAY
    check_certificates(office, later + 364 * DAY)


def test_a_fresh_authority_replaces_all_four_files_and_the_old_one_knows_the_server_no_more(office, tmp_path):
    before = content(office)
    old = tmp_path / "old.pem"
    old.write_bytes(office.authority.read_bytes())
    renew_authority(office, NOW)
    after = content(office)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"server.pem", "server.key", "authority.pem", "authority.key"}
    check_certificates(office, NOW)
    with pytest.raises(JoinFault, match="a partner who knows this authority"):
        check_own(OwnCertificate(office.certificate, office.key, old), HOST, NOW)


@pytest.mark.parametrize("lost", ["server.key", "server.pem", "authority.pem"])
def test_files_that_do_not_belong_together_are_named_and_renewing_repairs_them(office, tmp_path, lost):
    other = Office.create(tmp_path / "other", name="ministry", address=f"{HOST}:443", clock=lambda: NOW)
    path = office.root / "keys" / lost
    mine = path.read_bytes()
    path.write_bytes((other.root / "keys" / lost).read_bytes())
    with pytest.raises(JoinFault, match=r"server\.pem"):
        check_certificates(office, NOW)
    if lost == "authority.pem":
        with pytest.raises(JoinFault, match=r"is not the key of authority\.pem"):
            renew(office, NOW)
        path.write_bytes(mine)
    renew(office, NOW)
    check_certificates(office, NOW)


def test_an_address_that_was_changed_needs_a_new_certificate(office):
    path = office.root / "coterie.toml"
    path.write_text(path.read_text().replace(HOST, "new.example"))
    with pytest.raises(JoinFault, match="at the given address"):
        check_certificates(office, NOW)
    renew(office, NOW)
    check_certificates(office, NOW)


def test_a_missing_file_is_named(office):
    office.key.unlink()
    with pytest.raises(JoinFault, match=r"server\.pem"):
        check_certificates(office, NOW)
    office.certificate.unlink()
    with pytest.raises(FileFault, match=r"server\.pem: cannot be read"):
        check_certificates(office, NOW)


def test_a_certificate_of_the_operator_s_own_is_shown_to_partners_and_ours_on_loopback(office, own):
    ours, files = office.loopback_certificate.read_bytes(), own()
    assert take(office, files, NOW) is True
    assert office.has_own_certificate
    assert office.certificate.read_bytes() == files.certificate.read_bytes()
    assert office.key.read_bytes() == files.key.read_bytes()
    assert office.authority.read_bytes() == CORPORATE.certificate
    assert office.loopback_certificate.read_bytes() == ours
    check_certificates(office, NOW)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (office.root / "keys").iterdir()} == {0o600}


def test_the_next_certificate_of_the_same_authority_changes_nothing_for_partners(office, own):
    take(office, own(), NOW)
    assert take(office, own(at=NOW + DAY), NOW + DAY) is False
    assert take(office, own(authority=make_authority("corporation", NOW)), NOW) is True


def test_a_certificate_that_partners_would_not_accept_is_not_taken(office, own):
    good, other = own(), own(authority=make_authority("other", NOW))
    before = content(office)
    wrong = [
        (own(host="other.example"), NOW),
        (dataclasses.replace(good, key=other.key), NOW),
        (dataclasses.replace(good, authority=other.authority), NOW),
        (dataclasses.replace(good, authority=good.certificate), NOW),
        (good, NOW + 366 * DAY),
        (good, NOW - DAY),
    ]
    for files, at in wrong:
        with pytest.raises(JoinFault):
            take(office, files, at)
        with pytest.raises(JoinFault):
            check_own(files, HOST, at)
    with pytest.raises(FileFault):
        take(office, dataclasses.replace(good, certificate=good.key.with_name("nowhere")), NOW)
    assert content(office) == before
