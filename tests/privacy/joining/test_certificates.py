"""The coordinator's own authority: TLS handshakes, OpenSSL's word, dates, certificates from elsewhere."""

import datetime
import shutil
import socket
import ssl
import subprocess
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from coterie.privacy.joining.certificates import (
    Pair,
    authority_text,
    check_authority,
    check_dates,
    check_served,
    expiry,
    issue_server,
    make_authority,
)
from coterie.privacy.joining.forms import JoinFault

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
DAY = datetime.timedelta(days=1)
HOST = "studies.example"
AUTHORITY = make_authority("ministry", NOW)
SERVER = issue_server(AUTHORITY, HOST, NOW)


def written(folder, pair, name="server"):
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    return certificate, key


def greet(folder, pair, authority, host):
    """Shake hands over a real socket; return what the server said."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*written(folder, pair))
    client = ssl.create_default_context(cadata=authority.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            accepted, _ = listening.accept()
            try:
                with server.wrap_socket(accepted, server_side=True) as safe:
                    safe.sendall(b"welcome")
            except OSError:
                accepted.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            with (
                socket.create_connection(listening.getsockname(), timeout=10) as plain,
                client.wrap_socket(plain, server_hostname=host) as safe,
            ):
                return safe.recv(100)
        finally:
            thread.join(10)


@pytest.mark.parametrize("host", [HOST, "localhost", "127.0.0.1"])
def test_a_client_that_knows_the_authority_connects(tmp_path, host):
    assert greet(tmp_path, SERVER, AUTHORITY.certificate, host) == b"welcome"


@pytest.mark.parametrize("host", ["192.0.2.7", "::1"])
def test_an_address_may_be_a_number(tmp_path, host):
    assert greet(tmp_path, issue_server(AUTHORITY, host, NOW), AUTHORITY.certificate, host) == b"welcome"


@pytest.mark.parametrize("host", ["other.example", "sub.studies.example", "127.0.0.2"])
def test_a_client_of_another_name_does_not_connect(tmp_path, host):
    with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid"):
        greet(tmp_path, SERVER, AUTHORITY.certificate, host)


@pytest.mark.parametrize("other", [make_authority("ministry", NOW), make_authority("impostor", NOW)])
def test_a_client_that_knows_another_authority_does_not_connect(tmp_path, other):
    with pytest.raises(ssl.SSLCertVerificationError):
        greet(tmp_path, SERVER, other.certificate, HOST)


def test_an_expired_certificate_stops_the_handshake(tmp_path):
    old = NOW - 400 * DAY
    authority = make_authority("ministry", old)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        greet(tmp_path, issue_server(authority, HOST, old), authority.certificate, HOST)


@pytest.mark.slow
def test_openssl_says_the_same(tmp_path):
    openssl = shutil.which("openssl")
    assert openssl, "this test needs openssl: install the package openssl"
    authority, _ = written(tmp_path, AUTHORITY, "authority")
    server, _ = written(tmp_path, SERVER)
    command = [openssl, "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", authority]
    done = subprocess.run([*command, "-verify_hostname", HOST, server], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    other, _ = written(tmp_path, make_authority("ministry", NOW), "other")
    refused = subprocess.run([*command[:-1], other, server], capture_output=True, text=True, check=False)
    assert refused.returncode != 0


def test_the_server_cannot_certify_others(tmp_path):
    """A stolen server key must not make certificates: RFC 5280, section 4.2.1.9."""
    forged = issue_server(Pair(SERVER.key, SERVER.certificate), HOST, NOW)
    chained = Pair(forged.key, forged.certificate + SERVER.certificate)
    with pytest.raises(ssl.SSLCertVerificationError):
        greet(tmp_path, chained, AUTHORITY.certificate, HOST)


def test_extensions_say_who_may_do_what():
    authority = x509.load_pem_x509_certificate(AUTHORITY.certificate)
    server = x509.load_pem_x509_certificate(SERVER.certificate)
    basic = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert (basic.value.ca, basic.value.path_length) == (True, 0)
    usage = authority.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not server.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    purposes = server.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [purpose.dotted_string for purpose in purposes] == ["1.3.6.1.5.5.7.3.1"]  # serverAuth
    assert authority.public_key().curve.name == server.public_key().curve.name == "secp384r1"


def test_dates_are_a_year_and_ten_with_an_hour_for_clocks_that_differ():
    authority = x509.load_pem_x509_certificate(AUTHORITY.certificate)
    server = x509.load_pem_x509_certificate(SERVER.certificate)
    assert authority.not_valid_before_utc == server.not_valid_before_utc == NOW - datetime.timedelta(hours=1)
    assert server.not_valid_after_utc == expiry(SERVER.certificate) == NOW + 365 * DAY
    assert 3650 <= (authority.not_valid_after_utc - NOW).days <= 3653


def test_a_server_s_certificate_never_outlives_its_authority():
    late = expiry(AUTHORITY.certificate) - 30 * DAY
    assert expiry(issue_server(AUTHORITY, HOST, late).certificate) == expiry(AUTHORITY.certificate)
    with pytest.raises(JoinFault, match="has expired"):
        issue_server(AUTHORITY, HOST, expiry(AUTHORITY.certificate) + DAY)


def test_renewing_makes_another_key_and_another_number():
    again = issue_server(AUTHORITY, HOST, NOW)
    assert again.key != SERVER.key
    numbers = {x509.load_pem_x509_certificate(pair.certificate).serial_number for pair in (again, SERVER)}
    assert len(numbers) == 2


def test_dates_are_checked_by_the_clock_that_is_given():
    check_dates(SERVER.certificate, NOW, whose="server.pem")
    check_dates(SERVER.certificate, NOW - datetime.timedelta(hours=1), whose="server.pem")
    check_dates(SERVER.certificate + AUTHORITY.certificate, NOW + 365 * DAY, whose="server.pem")
    for late in (NOW + 365 * DAY + datetime.timedelta(seconds=1), NOW + 4000 * DAY):
        with pytest.raises(JoinFault, match=r"server\.pem: has expired"):
            check_dates(AUTHORITY.certificate + SERVER.certificate, late, whose="server.pem")
    with pytest.raises(JoinFault, match="is not valid yet"):
        check_dates(SERVER.certificate, NOW - datetime.timedelta(hours=1, seconds=1), whose="server.pem")


def test_the_printed_form_of_a_pair_has_no_key():
    assert b"PRIVATE KEY" in SERVER.key
    assert "PRIVATE KEY" not in repr(SERVER)
    load_pem_private_key(SERVER.key, None)


def test_an_authority_s_key_of_another_authority_is_refused():
    other = make_authority("ministry", NOW)
    with pytest.raises(JoinFault, match=r"is not the key of authority\.pem"):
        issue_server(Pair(other.key, AUTHORITY.certificate), HOST, NOW)


def test_served_files_that_a_partner_would_accept_pass(tmp_path):
    for host in (HOST, "localhost", "127.0.0.1"):
        check_served(*written(tmp_path, SERVER), authority=AUTHORITY.certificate.decode(), host=host)


def test_dates_are_not_the_business_of_the_handshake_in_memory(tmp_path):
    old = NOW - 4000 * DAY
    authority = make_authority("ministry", old)
    served = issue_server(authority, HOST, old)
    check_served(*written(tmp_path, served), authority=authority.certificate.decode(), host=HOST)


def test_served_files_that_a_partner_would_not_accept_are_refused(tmp_path):
    known, other = AUTHORITY.certificate.decode(), make_authority("ministry", NOW).certificate.decode()
    wrong = [
        (SERVER, known, "other.example"),
        (SERVER, other, HOST),
        (Pair(issue_server(AUTHORITY, HOST, NOW).key, SERVER.certificate), known, HOST),
        (Pair(SERVER.key, b"canary"), known, HOST),
        (Pair(b"canary", SERVER.certificate), known, HOST),
        (AUTHORITY, known, HOST),
        (SERVER, "canary", HOST),
    ]
    for pair, authority, host in wrong:
        with pytest.raises(JoinFault) as caught:
            check_served(*written(tmp_path, pair), authority=authority, host=host)
        assert "canary" not in str(caught.value)
    with pytest.raises(JoinFault):
        check_served(tmp_path / "nowhere.pem", tmp_path / "nowhere.key", authority=known, host=HOST)


def test_what_surrounds_certificates_is_left_out_and_a_key_is_never_carried():
    around = b"# our authority\r\n" + AUTHORITY.key + b"\n" + AUTHORITY.certificate + b"\n\n"
    assert authority_text(around) == AUTHORITY.certificate.decode()
    check_authority(authority_text(around))


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "canary-4711",
        AUTHORITY.certificate.decode() + AUTHORITY.key.decode(),
        AUTHORITY.certificate.decode() + "\n",
        AUTHORITY.certificate.decode() * 11,
        SERVER.certificate.decode(),
        AUTHORITY.certificate.decode() + SERVER.certificate.decode(),
        AUTHORITY.certificate.decode().replace("M", "N", 1),
        " " * 50_000 + AUTHORITY.certificate.decode(),
        "é" + AUTHORITY.certificate.decode(),
    ],
)
def test_what_is_not_authorities_alone_is_refused(pem):
    with pytest.raises(JoinFault) as caught:
        check_authority(pem)
    assert "4711" not in str(caught.value)
