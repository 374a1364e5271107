"""The coordinator's admission: who may connect, with which keys, to which address, until when."""

import dataclasses
import datetime
import ipaddress
import re
from dataclasses import dataclass, field

from coterie.privacy.errors import Fault, PlanFault
from coterie.privacy.identity import Identity, raw_key, verify
from coterie.privacy.joining.certificates import check_authority
from coterie.privacy.joining.forms import SKEW, Form, JoinFault, fingerprint, moment, read_form
from coterie.privacy.joining.nodekey import check_node
from coterie.privacy.schema import text

__all__ = ["Admission", "endpoint", "read_admission", "sign_admission"]

_FORM = Form("coterie/admission/v1", "admission", ("signature",), 65536)
_BUNDLE = re.compile(r"sha256:[0-9a-f]{64}")
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # RFC 1123, section 2.1
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True, kw_only=True)
class Admission:
    """What a coordinator tells a partner that it lets in.

    Args:
        name: The partner's name in studies.
        key: The partner's public identity key.
        node: Public key of its SuperNode; this one alone may connect.
        coordinator: Public identity key of the coordinator, which signs admissions and plans.
        address: "host:port" where partners connect.
        authority: PEM certificates by which the partner knows the server at that address.
        bundle: Digest of the one Flower bundle that the coordinator's runs name, "sha256:" and 64 hex digits.
        admitted: From when, ISO 8601 in UTC.
        expires: Until when.
    """

    name: str = field(metadata=text(60))
    key: str = field(metadata=text(100))
    node: str = field(metadata=text(300))
    coordinator: str = field(metadata=text(100))
    address: str = field(metadata=text(300))
    authority: str
    bundle: str = field(metadata=text(80))
    admitted: str = field(metadata=text(40))
    expires: str = field(metadata=text(40))

    @property
    def fingerprint(self) -> str:
        """What the coordinator reads out by telephone: of its identity key."""
        return fingerprint(self.coordinator)

    def check_holder(self, name: str, key: str, nodes: tuple[str, ...]) -> None:
        """Check that the admission is for this partner and one of its nodes' keys.

        Raises:
            JoinFault: It is for another name, identity or node; every difference is named.
        """
        fix = "install the admission that answers this partner's own newest request"
        wrong = {"name": self.name != name, "key": self.key != key, "node": self.node not in nodes}
        faults = [
            Fault(f"admission.{what}", "is not this partner's", fix) for what, differs in wrong.items() if differs
        ]
        if faults:
            raise JoinFault(*faults)

    def check_dates(self, now: datetime.datetime) -> None:
        """Check that the admission is in force.

        Raises:
            JoinFault: It has expired, or begins more than an hour from now.
        """
        if now >= moment(self.expires, "admission.expires"):
            fix = "renew it: coterie partner request FOLDER --output request.json, and have it admitted again"
            raise JoinFault(Fault("admission.expires", "has passed", fix))
        if now < moment(self.admitted, "admission.admitted") - SKEW:
            rule = "is more than an hour ahead of this machine's clock"
            raise JoinFault(Fault("admission.admitted", rule, "set both clocks right"))

    def check_bundle(self, bundle: str) -> None:
        """Check that the coordinator's runs name the bundle that this installation computes.

        Raises:
            JoinFault: They name another: the two installations differ.
        """
        if self.bundle != bundle:
            fix = "install the same version of coterie at both ends, and have the request admitted again"
            raise JoinFault(Fault("admission.bundle", "is not the bundle of the coterie installed here", fix))


def sign_admission(admission: Admission, coordinator: Identity) -> bytes:
    """Return an admission signed by the coordinator whose key it names.

    Raises:
        JoinFault: A field is not what a partner would take.
        ValueError: The coordinator is not the one that the admission names.
    """
    if coordinator.public != admission.coordinator:
        raise ValueError("an admission is signed by the coordinator that it names")
    _check(admission)
    content = dataclasses.asdict(admission)
    return _FORM.write(content, coordinator.sign(_FORM.said(content, "signature")))


def read_admission(data: bytes) -> Admission:
    """Read an admission and check the signature of the coordinator that it names.

    Whether that is the right coordinator is not decided here: the policy pins its key, or people compare fingerprints.
    Nor whether it is for this partner, or in force: see the methods of `Admission`.

    Args:
        data: At most 65,536 bytes.

    Raises:
        JoinFault: It is malformed, altered, or not signed by the coordinator that it names.
    """
    admission, (signature,) = read_form(Admission, data, _FORM)
    try:
        verify(admission.coordinator, signature, _FORM.said(dataclasses.asdict(admission), "signature"))
    except PlanFault:
        rule = "is not by the coordinator that the admission names"
        raise JoinFault(Fault("signature", rule, "ask the coordinator for the admission again")) from None
    _check(admission)
    return admission


def endpoint(address: str) -> tuple[str, int]:
    """Return host and port of an address such as "studies.example:443" or "[::1]:443".

    Raises:
        JoinFault: It has no such form; a name has letters, digits, dots and hyphens (others as their "xn--" form).
    """
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    try:
        ipaddress.IPv6Address(host) if bracketed else host.encode("ascii")
    except (ValueError, UnicodeEncodeError):
        host = ""
    named = bracketed or (len(host) <= 253 and _NAME.fullmatch(host))
    if not colon or not host or not named or not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        raise JoinFault(Fault("address", "must be host:port, the port from 1 to 65535", "correct it"))
    return host, int(port)


def _check(admission: Admission) -> None:
    try:
        raw_key(admission.key)
    except PlanFault as error:
        raise JoinFault(*error.faults) from None
    endpoint(admission.address)
    check_node(admission.node)
    check_authority(admission.authority)
    begins, ends = moment(admission.admitted, "admission.admitted"), moment(admission.expires, "admission.expires")
    fix = "ask the coordinator for the admission again"
    if begins >= ends:
        raise JoinFault(Fault("admission.expires", "must be after admission.admitted", fix))
    if not _BUNDLE.fullmatch(admission.bundle):
        raise JoinFault(Fault("admission.bundle", 'must be "sha256:" and 64 hex digits', fix))
