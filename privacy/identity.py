"""Long-lived signing identities: Ed25519 (RFC 8032) through `cryptography`.

Signed bytes always begin with a domain label, so that a signature made for one thing is worth nothing for
another.
"""

import base64
import binascii
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from coterie.privacy.errors import Fault, FileFault, PlanFault

__all__ = ["Identity", "raw_key", "verify"]

_LABEL = "ed25519:"


class Identity:
    """A signing key of one organisation; its `repr` shows the public half alone."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def __repr__(self) -> str:
        """Return the public half."""
        return f"Identity({self.public})"

    @staticmethod
    def create() -> "Identity":
        """Make a new identity from the operating system's randomness."""
        return Identity(Ed25519PrivateKey.generate())

    @staticmethod
    def load(path: Path) -> "Identity":
        """Read an identity that `save` wrote.

        Raises:
            FileFault: The file is missing or is not such a key.
        """
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
            raise FileFault(
                Fault(str(path), "is not a readable identity key", "restore it or run the init command")
            ) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise FileFault(Fault(str(path), "is not an Ed25519 key", "restore it"))
        return Identity(key)

    def save(self, path: Path) -> None:
        """Write the key as PKCS#8 PEM, readable by its owner alone; never overwrites."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)

    @property
    def public(self) -> str:
        """The public key as "ed25519:" and base64 of 32 bytes."""
        raw = self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return _LABEL + base64.b64encode(raw).decode()

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of `message`, which begins with its domain label."""
        return self._key.sign(message)


def raw_key(public: str) -> bytes:
    """Return the 32 bytes of a public key in the form "ed25519:" and base64.

    Raises:
        PlanFault: The key is malformed.
    """
    try:
        raw = base64.b64decode(public.removeprefix(_LABEL), validate=True)
        # One spelling for one key: base64 has spare bits, in which two texts could differ.
        if _LABEL + base64.b64encode(raw).decode() != public or len(raw) != 32:
            raise ValueError
    except (ValueError, binascii.Error):
        raise PlanFault(Fault("public key", 'must be "ed25519:" and base64 of 32 bytes', "copy it again")) from None
    return raw


def verify(public: str, signature: bytes, message: bytes) -> None:
    """Check a signature.

    Args:
        public: "ed25519:" and base64 of the 32-byte public key.
        signature: 64 bytes.
        message: What was signed, with its domain label.

    Raises:
        PlanFault: The key is malformed, or the signature is not its.
    """
    try:
        Ed25519PublicKey.from_public_bytes(raw_key(public)).verify(signature, message)
    except (ValueError, InvalidSignature, PlanFault):
        raise PlanFault(
            Fault("signature", "does not verify under the pinned key", "compare the key out of band")
        ) from None
