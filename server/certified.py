"""The certificates of a coordinator's server: checking, renewing, and those that the operator brings."""

import datetime
from dataclasses import dataclass
from pathlib import Path

from coterie.privacy.durable import write_durably
from coterie.privacy.errors import Fault, FileFault
from coterie.privacy.joining.admission import endpoint
from coterie.privacy.joining.certificates import (
    Pair,
    authority_text,
    check_authority,
    check_dates,
    check_served,
    issue_server,
    make_authority,
)
from coterie.server.office import Office

__all__ = ["OwnCertificate", "check_certificates", "check_own", "renew", "renew_authority", "take"]


@dataclass(frozen=True)
class OwnCertificate:
    """Files of a certificate that the operator has from elsewhere.

    Args:
        certificate: PEM, with whatever stands between it and the authority.
        key: PEM, without a passphrase.
        authority: PEM certificates that partners are to know the server by.
    """

    certificate: Path
    key: Path
    authority: Path


def check_certificates(office: Office, now: datetime.datetime) -> None:
    """Check that the gateway's certificate and the loopback's are in force, and what a client would accept.

    Raises:
        FileFault: One cannot be read.
        JoinFault: One has expired, does not belong to its key or its authority, or to the address.
    """
    host, _ = endpoint(office.settings.address)
    for served, name in (
        (OwnCertificate(office.certificate, office.key, office.authority), host),
        (OwnCertificate(office.loopback_certificate, office.loopback_key, office.loopback_authority), "127.0.0.1"),
    ):
        check_own(served, name, now)


def check_own(own: OwnCertificate, host: str, now: datetime.datetime) -> None:
    """Check a certificate as a partner's client will.

    Args:
        own: The files.
        host: The name or address that partners connect to.
        now: The time.

    Raises:
        FileFault: One cannot be read.
        JoinFault: One has expired, they do not belong together, or not to the host.
    """
    authority = authority_text(_content(own.authority))
    check_authority(authority)
    check_dates(_content(own.certificate), now, whose=str(own.certificate))
    check_dates(authority.encode(), now, whose=str(own.authority))
    check_served(own.certificate, own.key, authority=authority, host=host)


def take(office: Office, own: OwnCertificate, now: datetime.datetime) -> bool:
    """Copy an operator's certificate into the office; the gateway shows it from its next start on.

    Returns:
        Whether partners know the server by another authority now; then each has to be admitted again.

    Raises:
        FileFault: A file cannot be read or written.
        JoinFault: It is not what partners would accept at the office's address.
    """
    host, _ = endpoint(office.settings.address)
    check_own(own, host, now)
    authority, before = authority_text(_content(own.authority)).encode(), _content(office.authority)
    write_durably(office.own_authority, authority)
    write_durably(office.own_key, _content(own.key))
    write_durably(office.own_certificate, _content(own.certificate))  # last: with it the others count
    return authority != before


def renew(office: Office, now: datetime.datetime) -> None:
    """Replace the server's certificate of the office's own making, with a fresh key.

    A crash between the two files leaves a pair that does not belong together, which `check_certificates` names;
    renewing again repairs it.

    Raises:
        FileFault: A file cannot be read or written.
        JoinFault: The authority has expired.
    """
    host, _ = endpoint(office.settings.address)
    _issue(office, Pair(_content(office.authority_key), _content(office.loopback_authority)), host, now)


def renew_authority(office: Office, now: datetime.datetime) -> None:
    """Replace the office's own authority, and the server's certificate with it.

    For when one of their keys may be stolen, or after ten years. Unless the gateway shows a certificate of the
    operator's own, each partner has to be admitted again. After a crash, doing it again repairs what does not belong
    together.

    Raises:
        FileFault: A file cannot be read or written.
        JoinFault: coterie.toml has a malformed address.
    """
    host, _ = endpoint(office.settings.address)
    authority = make_authority(office.settings.name, now)
    write_durably(office.authority_key, authority.key)
    write_durably(office.loopback_authority, authority.certificate)
    _issue(office, authority, host, now)


def _issue(office: Office, authority: Pair, host: str, now: datetime.datetime) -> None:
    served = issue_server(authority, host, now)
    write_durably(office.loopback_key, served.key)
    write_durably(office.loopback_certificate, served.certificate)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileFault(Fault(str(path), f"cannot be read ({error.strerror})", "check its path and rights")) from None
