"""The key by which Flower knows a partner's SuperNode: ECDSA on P-384, in OpenSSH's form.

It is a second key beside the partner's identity (Ed25519), because Flower takes NIST curves alone for nodes. It opens
the connection and signs nothing else. Curve and hash are those of FIPS 186-5, section 6.
"""

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from coterie.privacy.errors import Fault
from coterie.privacy.joining.forms import JoinFault

__all__ = ["check_node", "check_proof", "make_node_key", "prove", "public_of"]

_ECDSA = ec.ECDSA(SHA384())


def make_node_key() -> bytes:
    """Return a fresh private key, as the OpenSSH file that Flower's SuperNode reads.

    Guarantees:
        Made from the operating system's randomness; whoever calls keeps it in a file of mode 0600 and sends it nowhere.
    """
    return ec.generate_private_key(ec.SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def public_of(private: bytes) -> str:
    """Return the public half as "ecdsa-sha2-nistp384" and base64, in one line without a comment.

    Raises:
        JoinFault: `private` is not such a key.
    """
    return _text(_private(private).public_key())


def prove(private: bytes, message: bytes) -> bytes:
    """Return a signature that only the holder of the private key can make; DER, about 104 bytes.

    Args:
        private: What `make_node_key` returned.
        message: Begins with its domain label.

    Raises:
        JoinFault: `private` is not such a key.
    """
    return _private(private).sign(message, _ECDSA)


def check_node(node: str) -> None:
    """Check that a text is the public half of a node's key, in its one spelling.

    Raises:
        JoinFault: It is not.
    """
    _public(node)


def check_proof(node: str, proof: bytes, message: bytes) -> None:
    """Check that the holder of a node's key signed a message.

    Raises:
        JoinFault: `node` is no such key, or `proof` is not its signature of `message`.
    """
    try:
        _public(node).verify(proof, message, _ECDSA)
    except InvalidSignature:
        rule = "does not prove that its sender holds the node's key"
        raise JoinFault(Fault("proof", rule, "ask the partner to make the request again")) from None


def _private(private: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_ssh_private_key(private, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        fix = "restore it, or make a new one with: coterie partner request FOLDER --renew"
        raise JoinFault(Fault("keys/node", "is not an ECDSA P-384 key in OpenSSH's form", fix))
    return key


def _public(node: str) -> ec.EllipticCurvePublicKey:
    try:
        key = load_ssh_public_key(node.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1) or _text(key) != node:
        rule = 'must be "ecdsa-sha2-nistp384" and base64, without a comment'
        raise JoinFault(Fault("node", rule, "ask the partner to make the request again"))
    return key


def _text(key: ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
