"""A node's key: what Flower takes, what OpenSSH writes, and nothing else."""

import base64
import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, public_key_to_bytes, uses_nist_ec_curve

from coterie.privacy.joining.forms import JoinFault
from coterie.privacy.joining.nodekey import check_node, check_proof, make_node_key, prove, public_of

KEY = make_node_key()
SAID = b"coterie/test\nhello"


def test_flower_takes_the_key_for_a_node():
    public = bytes_to_public_key(public_key_to_bytes(load_ssh_public_key(public_of(KEY).encode())))
    assert uses_nist_ec_curve(public)
    assert public.curve.name == "secp384r1"


@pytest.mark.slow
def test_openssh_finds_the_same_public_half(tmp_path):
    keygen = shutil.which("ssh-keygen")
    assert keygen, "this test needs ssh-keygen: install openssh-client"
    path = tmp_path / "node"
    path.write_bytes(KEY)
    path.chmod(0o600)
    done = subprocess.run([keygen, "-y", "-f", path], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:2] == public_of(KEY).split()


def test_keys_are_fresh_and_their_public_half_holds_no_private_byte():
    assert make_node_key() != KEY
    assert public_of(KEY).startswith("ecdsa-sha2-nistp384 ")
    assert base64.b64decode(public_of(KEY).split()[1])[-97] == 4  # an uncompressed point: 1 + 2 x 48 bytes


def test_a_proof_is_an_ecdsa_signature_with_sha_384():
    public = load_ssh_public_key(public_of(KEY).encode())
    public.verify(prove(KEY, SAID), SAID, ec.ECDSA(hashes.SHA384()))
    check_proof(public_of(KEY), prove(KEY, SAID), SAID)


@pytest.mark.parametrize(
    ("key", "said", "change"),
    [
        (make_node_key(), SAID, lambda proof: proof),
        (KEY, SAID + b"!", lambda proof: proof),
        (KEY, SAID, lambda proof: proof[:-1]),
        (KEY, SAID, lambda proof: proof[:-1] + bytes([proof[-1] ^ 1])),
        (KEY, SAID, lambda proof: b""),
    ],
)
def test_a_proof_of_another_key_or_of_other_words_is_refused(key, said, change):
    with pytest.raises(JoinFault, match="does not prove"):
        check_proof(public_of(key), change(prove(KEY, SAID)), said)


def openssh(key):
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@pytest.mark.parametrize(
    "node",
    [
        "",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp384 AAAA",
        public_of(KEY) + " bank@example",
        " " + public_of(KEY),
        public_of(KEY) + "\n",
        public_of(KEY)[:-4] + "====",
        openssh(ec.generate_private_key(ec.SECP256R1())),
        openssh(Ed25519PrivateKey.generate()),
        KEY.decode(),
        "é",
    ],
    ids=range(11),  # keys are fresh: their text is no name
)
def test_what_is_not_a_node_s_key_in_its_one_spelling_is_refused(node):
    with pytest.raises(JoinFault, match="ecdsa-sha2-nistp384"):
        check_node(node)


@pytest.mark.parametrize(
    "private",
    [
        b"",
        b"canary-4711",
        KEY[:-60],
        public_of(KEY).encode(),
        ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
    ],
)
def test_a_damaged_private_key_is_a_fault_that_says_nothing_of_it(private):
    for use in (public_of, lambda key: prove(key, SAID)):
        with pytest.raises(JoinFault, match="is not an ECDSA P-384 key") as caught:
            use(private)
        assert "4711" not in str(caught.value)
