"""A partner's request to join: who asks, with which keys, proved by both.

The node's key signs the content first, then the identity signs the content together with that proof. So neither key can
be put beside a stranger's other one, and no byte of the file can change.
"""

import dataclasses
import datetime
from dataclasses import dataclass, field
from typing import Any

from coterie.privacy.errors import Fault, PlanFault
from coterie.privacy.identity import Identity, verify
from coterie.privacy.joining.forms import SKEW, Form, JoinFault, fingerprint, moment, read_form, stamp
from coterie.privacy.joining.nodekey import check_node, check_proof, prove, public_of
from coterie.privacy.schema import text

__all__ = ["JoinRequest", "make_request", "read_request"]

_FORM = Form("coterie/join-request/v1", "request", ("proof", "signature"), 4096)


@dataclass(frozen=True, kw_only=True)
class JoinRequest:
    """What a partner asks a coordinator for.

    Args:
        name: The partner's name in studies, 1 to 60 characters.
        key: Public identity key, "ed25519:" and base64.
        node: Public key of its SuperNode, "ecdsa-sha2-nistp384" and base64.
        version: Version of coterie at the partner.
        at: When it was made, ISO 8601 in UTC.

    Leaks: the five fields, to the coordinator and whoever carries the file. Nothing in it depends on data.
    """

    name: str = field(metadata=text(60))
    key: str = field(metadata=text(100))
    node: str = field(metadata=text(300))
    version: str = field(metadata=text(60))
    at: str = field(metadata=text(40))

    @property
    def fingerprint(self) -> str:
        """What the partner reads out by telephone; it covers both keys, so that neither can be exchanged alone."""
        return fingerprint(f"{self.key}\n{self.node}")

    def check_age(self, now: datetime.datetime, most: datetime.timedelta) -> None:
        """Refuse a request that is old or comes from the future.

        Args:
            now: The reader's clock.
            most: Greatest age; an old file may hold a key that its partner has since given up.

        Raises:
            JoinFault: It is older, or its time is more than an hour ahead.
        """
        at = moment(self.at, "request.at")
        if at > now + SKEW:
            rule = f"is more than {SKEW.seconds // 3600} hour ahead of this machine's clock"
            raise JoinFault(Fault("request.at", rule, "set both clocks right, and have the request made again"))
        if at < now - most:
            rule = f"is more than {most.days} days old"
            raise JoinFault(Fault("request.at", rule, "ask the partner to make it again"))


def make_request(name: str, identity: Identity, node: bytes, *, version: str, now: datetime.datetime) -> bytes:
    """Return a signed request.

    Args:
        name: The partner's name.
        identity: Its identity, which signs.
        node: The private key of its SuperNode, which signs too.
        version: Version of coterie.
        now: The time.

    Returns:
        Canonical JSON; the same keys at the same time need not give the same bytes (ECDSA).

    Raises:
        JoinFault: `node` is not a node's key.

    Guarantees:
        Neither private key is in the bytes.
    """
    asked = JoinRequest(name=name, key=identity.public, node=public_of(node), version=version, at=stamp(now))
    content: dict[str, Any] = dataclasses.asdict(asked)
    proof = prove(node, _FORM.said(content, "proof"))
    return _FORM.write(content, proof, identity.sign(_signed(content, proof)))


def read_request(data: bytes) -> JoinRequest:
    """Read a request and check that whoever made it holds both of its keys.

    Who that is, is for people to compare: see `JoinRequest.fingerprint`.

    Args:
        data: At most 4,096 bytes from a stranger.

    Raises:
        JoinFault: It is malformed, altered, or not signed by both keys.
    """
    asked, (proof, signature) = read_form(JoinRequest, data, _FORM)
    content = dataclasses.asdict(asked)
    try:
        verify(asked.key, signature, _signed(content, proof))
    except PlanFault:
        rule = "is not by the identity that the request names"
        raise JoinFault(Fault("signature", rule, "ask the partner to make the request again")) from None
    check_node(asked.node)
    check_proof(asked.node, proof, _FORM.said(content, "proof"))
    moment(asked.at, "request.at")
    return asked


def _signed(content: dict[str, Any], proof: bytes) -> bytes:
    """Return what the identity signs: the content and, since ECDSA has two spellings, the proof as it stands."""
    return _FORM.said({"proof": proof.hex(), "request": content}, "signature")
