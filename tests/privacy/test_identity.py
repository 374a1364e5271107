"""Signing identities against RFC 8032's vectors, and how a key is kept."""

import base64
import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.privacy.errors import FileFault, PlanFault
from coterie.privacy.identity import Identity, verify

RFC_8032 = [  # section 7.1, tests 1 to 3: secret, public, message, signature
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


def public_text(raw):
    return "ed25519:" + base64.b64encode(raw).decode()


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_keys_and_signatures_are_those_of_rfc_8032(secret, public, message, signature):
    identity = Identity(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)))
    assert identity.public == public_text(bytes.fromhex(public))
    assert identity.sign(bytes.fromhex(message)).hex() == signature
    verify(identity.public, bytes.fromhex(signature), bytes.fromhex(message))


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_a_signature_of_other_bytes_or_another_key_is_refused(secret, public, message, signature):
    key, good, text = public_text(bytes.fromhex(public)), bytes.fromhex(signature), bytes.fromhex(message)
    wrong = [
        (key, good, text + b"\0"),
        (key, bytes([good[0] ^ 1]) + good[1:], text),
        (key, good[:-1] + bytes([good[-1] ^ 0x10]), text),
        (key, good[:-1], text),
        (key, good + b"\0", text),
        (key, b"", text),
        (Identity.create().public, good, text),
    ]
    for public_key, bytes_signed, said in wrong:
        with pytest.raises(PlanFault):
            verify(public_key, bytes_signed, said)


@pytest.mark.parametrize(
    "public",
    [
        "",
        "ed25519:",
        "ed25519:!!!!",
        "ed25519:AAAA",
        "rsa:" + "A" * 43 + "=",
        "A" * 43 + "=",
        "ed25519:é",
        "ed25519:A\n",
    ],
)
def test_a_malformed_public_key_is_refused_as_a_plan_fault(public):
    with pytest.raises(PlanFault):
        verify(public, bytes(64), b"message")


def test_new_identities_differ_and_show_their_public_half_alone():
    one, other = Identity.create(), Identity.create()
    assert one.public != other.public
    assert repr(one) == f"Identity({one.public})"
    secret = one._key.private_bytes_raw()
    for hidden in (secret.hex(), base64.b64encode(secret).decode(), str(secret)):
        assert hidden not in repr(one)
        assert hidden not in str(one)


def test_a_saved_identity_is_its_owner_s_alone_and_comes_back(tmp_path):
    identity, path = Identity.create(), tmp_path / "identity.pem"
    identity.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Identity.load(path).public == identity.public
    verify(identity.public, Identity.load(path).sign(b"label\n"), b"label\n")


def test_a_key_file_is_never_overwritten(tmp_path):
    path = tmp_path / "identity.pem"
    Identity.create().save(path)
    kept = path.read_bytes()
    with pytest.raises(FileExistsError):
        Identity.create().save(path)
    assert path.read_bytes() == kept


def pem(key, encryption):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"canary-4711",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        pem(Ed25519PrivateKey.generate(), serialization.BestAvailableEncryption(b"secret")),
        pem(generate_private_key(SECP256R1()), serialization.NoEncryption()),
        None,
    ],
    ids=["empty", "text", "damaged", "encrypted", "another kind", "missing"],
)
def test_what_is_not_an_identity_is_a_file_fault_that_names_the_file(tmp_path, content):
    path = tmp_path / "identity.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileFault) as caught:
        Identity.load(path)
    (fault,) = caught.value.faults
    assert fault.place == str(path)
    assert fault.fix
    assert "4711" not in str(caught.value)
