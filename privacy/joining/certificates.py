"""The coordinator's small certificate authority (RFC 5280), and what else may stand in its place.

One authority, made at the coordinator, certifies one server. Partners take no other authority for this connection, so
neither a public authority nor a name server can put somebody else in the coordinator's place. A certificate of the
operator's own is taken when a client that knows the given authority would accept it.
"""

import datetime
import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coterie.privacy.errors import Fault
from coterie.privacy.joining.forms import SKEW, JoinFault

__all__ = [
    "Pair",
    "authority_text",
    "check_authority",
    "check_dates",
    "check_served",
    "expiry",
    "issue_server",
    "make_authority",
]

_AUTHORITY_LIFE = datetime.timedelta(days=3652)
_SERVER_LIFE = datetime.timedelta(days=365)
_MOST_AUTHORITIES = 10
_LONGEST = 40_000
_LOOPBACK = ("localhost", "127.0.0.1")
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: dates are checked by the caller's clock


@dataclass(frozen=True)
class Pair:
    """A private key and its certificate, both PEM; its `repr` leaves the key out.

    Args:
        key: PKCS#8, without a passphrase; kept in a file of mode 0600.
        certificate: X.509.
    """

    key: bytes = field(repr=False)
    certificate: bytes


def make_authority(name: str, now: datetime.datetime) -> Pair:
    """Return a new authority: ECDSA P-384, for ten years, which can certify servers and no further authority.

    Args:
        name: The coordinator's name, 1 to 60 characters.
        now: The time; the certificate begins an hour earlier, since clocks differ.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    subject = _subject(name, "coterie authority")
    builder = (
        _builder(key, subject, now, now + _AUTHORITY_LIFE)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
    )
    return _pair(key, builder.sign(key, SHA384()))


def issue_server(authority: Pair, host: str, now: datetime.datetime) -> Pair:
    """Return a fresh key and a certificate for the server at `host`, at "localhost" and at 127.0.0.1.

    Args:
        authority: What `make_authority` returned.
        host: The name or address that partners connect to.
        now: The time; the certificate begins an hour earlier, and lasts a year or as long as its authority.

    Raises:
        JoinFault: The authority has expired, or its key is not its certificate's.
    """
    issuer, signing = _read(authority)
    check_dates(authority.certificate, now, whose="authority.pem")
    key = ec.generate_private_key(ec.SECP384R1())
    ends = min(now + _SERVER_LIFE, issuer.not_valid_after_utc)
    names = tuple(dict.fromkeys((host, *_LOOPBACK)))
    (organisation,) = issuer.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    builder = (
        _builder(key, _subject(str(organisation.value), "coterie coordinator"), now, ends)
        .issuer_name(issuer.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
    )
    return _pair(key, builder.sign(signing, SHA384()))


def expiry(pem: bytes) -> datetime.datetime:
    """Return until when the first certificate of a file is valid.

    Raises:
        JoinFault: It is not PEM certificates.
    """
    return _certificates(pem, "certificate")[0].not_valid_after_utc


def check_dates(pem: bytes, now: datetime.datetime, *, whose: str) -> None:
    """Check that every certificate of a file is in force.

    Args:
        pem: One certificate or more.
        now: The time.
        whose: Name of the file, for the fault.

    Raises:
        JoinFault: It is not PEM certificates, or one has expired or is not valid yet.
    """
    for certificate in _certificates(pem, whose):
        if now > certificate.not_valid_after_utc:
            raise JoinFault(Fault(whose, "has expired", "renew it: coterie coordinator renew FOLDER"))
        if now < certificate.not_valid_before_utc:
            raise JoinFault(Fault(whose, "is not valid yet", "set this machine's clock right"))


def authority_text(data: bytes) -> str:
    """Return the certificates of a file as an admission carries them: nothing around them, and never a key.

    Raises:
        JoinFault: It is not PEM certificates.
    """
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in _certificates(data, "authority"))


def check_authority(pem: str) -> None:
    """Check what partners are to know a server by: certificates of authorities, and nothing else in the text.

    Raises:
        JoinFault: It is too long, holds something else or more than ten of them, or one is not an authority's.
    """
    found = _certificates(pem.encode(), "authority")
    if pem != authority_text(pem.encode()) or len(found) > _MOST_AUTHORITIES:
        rule = f"must be 1 to {_MOST_AUTHORITIES} PEM certificates and nothing else"
        raise JoinFault(Fault("authority", rule, "leave out keys, comments and empty lines"))
    for one in found:
        if not _certifies(one):
            raise JoinFault(Fault("authority", "must be an authority's certificate", "give the one that signed yours"))


def check_served(certificate: Path, key: Path, *, authority: str, host: str) -> None:
    """Check a server's files as a partner will: a TLS handshake in memory, dates aside.

    Args:
        certificate: PEM file, with whatever stands between it and the authority.
        key: PEM file, without a passphrase.
        authority: PEM text that partners will know it by.
        host: The name or address that partners connect to.

    Raises:
        JoinFault: The files do not belong together, or such a client would not accept them.
    """
    try:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate, key, password=lambda: "")
        client = ssl.create_default_context(cadata=authority)
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        rule = "is not PEM with its own key, without a passphrase"
        raise JoinFault(Fault(str(certificate), rule, "give certificate and key of one server")) from None
    client.minimum_version = ssl.TLSVersion.TLSv1_2
    client.verify_flags |= ssl.VERIFY_X509_STRICT | _NO_CHECK_TIME
    try:
        _shake_hands(server, client, host)
    except ssl.CertificateError:
        rule = "is not what a partner who knows this authority would accept at the given address"
        fix = "give the authority that signed it, every certificate between them, and the address that it names"
        raise JoinFault(Fault(str(certificate), rule, fix)) from None


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(10):  # TLS 1.3 takes two turns
        for end in tuple(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                continue
        if not ends:
            return
    raise ssl.SSLCertVerificationError("the handshake does not end")


def _builder(
    key: ec.EllipticCurvePrivateKey, subject: x509.Name, now: datetime.datetime, ends: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _subject(organisation: str, name: str) -> x509.Name:
    attributes = ((NameOID.ORGANIZATION_NAME, organisation), (NameOID.COMMON_NAME, name))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pair(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Pair:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Pair(private, certificate.public_bytes(Encoding.PEM))


def _read(pair: Pair) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate = _certificates(pair.certificate, "authority.pem")[0]
    try:
        key = load_pem_private_key(pair.key, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise JoinFault(Fault("authority.key", "is not the key of authority.pem", "restore both from one backup"))
    return certificate, key


def _certificates(pem: bytes, place: str) -> list[x509.Certificate]:
    try:
        if len(pem) > _LONGEST:
            raise ValueError
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        rule = f"must be PEM certificates of at most {_LONGEST} bytes"
        raise JoinFault(Fault(place, rule, "give a file that begins with -----BEGIN CERTIFICATE-----")) from None


def _certifies(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False
