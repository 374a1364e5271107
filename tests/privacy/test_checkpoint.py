"""Checkpoints are notes of the C2SP formats; what is not exactly the partner's and its coordinator's is refused.

The other side is written here in a few lines from the specifications (signed-note, tlog-checkpoint, tlog-cosignature),
and first held against a note and a cosigned checkpoint that others published.
"""

import base64
import hashlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.privacy.checkpoint import (
    Checkpoint,
    Cosigned,
    cosign,
    noted_size,
    origin_of,
    read_note,
    sign_checkpoint,
)
from coterie.privacy.errors import LedgerFault
from coterie.privacy.identity import Identity

ROOT = bytes(range(32))
PARTNER, OTHER, COORDINATOR, STRANGER = (
    Identity(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)) for number in range(1, 5)
)
NOW = 1_900_000_000
NOTE = sign_checkpoint(42, ROOT, PARTNER)
COSIGNED = cosign(NOTE, COORDINATOR, NOW)
NAMED = {"partner": PARTNER.public, "coordinators": (COORDINATOR.public,)}
BAD_ORDER = 2**252 + 27742317777372353535851937790883648493  # of the group of Ed25519 (RFC 8032, section 5.1)


# --- the formats, from their specifications -----------------------------------------------------------------------


def key_id(name, kind, raw):
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + raw).digest()[:4]


def opened(note, name, kind, raw):
    """Check the one signature of a name and type as the specifications say; return the time of a cosignature."""
    text, _, signatures = note.partition("\n\n")
    text += "\n"
    for line in signatures.splitlines():
        dash, by, payload = line.split(" ")
        data = base64.b64decode(payload)
        if (dash, by, data[:4]) != ("\u2014", name, key_id(name, kind, raw)):
            continue
        if kind == 1:
            Ed25519PublicKey.from_public_bytes(raw).verify(data[4:], text.encode())
            return None
        at = int.from_bytes(data[4:12], "big")
        Ed25519PublicKey.from_public_bytes(raw).verify(data[12:], f"cosignature/v1\ntime {at}\n{text}".encode())
        return at
    raise LookupError(name)


def raw_of(identity):
    return base64.b64decode(identity.public.removeprefix("ed25519:"))


# The example of golang.org/x/mod/sumdb/note, and a checkpoint of a public log with the cosignature of a witness.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = """If you think cryptography is the answer to your problem,
then you don't know what your problem is.

\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""
LOG_KEY = "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
WITNESS_KEY = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
LOG_SIGNATURE = "ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ="
WITNESS_SIGNATURE = (
    "2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw=="
)
LOG_NOTE = f"""arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

\u2014 arche2025h1.staging.ct.transparency.dev {LOG_SIGNATURE}
\u2014 remora.n621.de {WITNESS_SIGNATURE}
"""


@pytest.mark.parametrize(("key", "note"), [(GO_KEY, GO_NOTE), (LOG_KEY, LOG_NOTE), (WITNESS_KEY, LOG_NOTE)])
def test_the_few_lines_of_this_test_read_what_others_published(key, note):
    name, shown, encoded = key.split("+", 2)
    kind, raw = base64.b64decode(encoded)[0], base64.b64decode(encoded)[1:]
    assert key_id(name, kind, raw).hex() == shown
    assert opened(note, name, kind, raw) == (0x6A122120 if kind == 4 else None)
    altered = note.replace("problem", "Problem", 1).replace("1432088532", "1432088533", 1)
    with pytest.raises(InvalidSignature):
        opened(altered, name, kind, raw)


def test_a_checkpoint_and_its_cosignature_are_read_by_another_implementation():
    assert opened(COSIGNED, origin_of(PARTNER.public), 1, raw_of(PARTNER)) is None
    assert opened(COSIGNED, origin_of(COORDINATOR.public, coordinator=True), 4, raw_of(COORDINATOR)) == NOW


def test_a_checkpoint_says_whose_it_is_how_long_and_its_root():
    name = hashlib.sha256(raw_of(PARTNER)).hexdigest()[:32]
    assert NOTE.split("\n")[:4] == [f"coterie-ledger/{name}", "42", base64.b64encode(ROOT).decode(), ""]
    assert read_note(NOTE, partner=PARTNER.public) == (Checkpoint(f"coterie-ledger/{name}", 42, ROOT), ())
    assert noted_size(NOTE) == noted_size(COSIGNED) == 42
    assert PARTNER.public not in COSIGNED


def test_a_cosignature_names_the_coordinator_and_its_time():
    checkpoint, cosigned = read_note(COSIGNED, **NAMED)
    assert (checkpoint.size, checkpoint.root) == (42, ROOT)
    assert cosigned == (Cosigned(COORDINATOR.public, NOW),)
    assert COSIGNED.startswith(NOTE)  # the partner's own lines stay as they were


def test_two_coordinators_may_cosign_one_checkpoint():
    both = cosign(COSIGNED, OTHER, NOW + 1)
    _, cosigned = read_note(both, partner=PARTNER.public, coordinators=(OTHER.public, COORDINATOR.public))
    assert [one.at for one in cosigned] == [NOW, NOW + 1]


# --- what is refused ----------------------------------------------------------------------------------------------


def resigned(note, old, new):
    """The same note with a text in another's place, everything signed anew by whoever may."""
    text = note.partition("\n\n")[0].replace(old, new, 1) + "\n"
    name = origin_of(PARTNER.public)
    payload = key_id(name, 1, raw_of(PARTNER)) + PARTNER.sign(text.encode())
    return f"{text}\n\u2014 {name} {base64.b64encode(payload).decode()}\n"


def line_of(note, place):
    return note.partition("\n\n")[2].splitlines()[place]


def payload_of(note, place):
    return base64.b64decode(line_of(note, place).split(" ")[2])


def with_payload(note, place, payload):
    encoded = payload if isinstance(payload, str) else base64.b64encode(payload).decode()
    return note.replace(line_of(note, place).split(" ")[2], encoded)


def second_spelling(encoded):
    """The same bytes in another spelling of base64: spare bits that are not zero."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    stem = encoded.rstrip("=")
    other = stem[:-1] + alphabet[alphabet.index(stem[-1]) + 1] + encoded[len(stem) :]
    assert base64.b64decode(other) == base64.b64decode(encoded)
    return other


def other_s(signature):
    """The same signature with S + L for S, which a careless verifier believes too."""
    s = int.from_bytes(signature[32:], "little") + BAD_ORDER
    return signature[:32] + s.to_bytes(32, "little")


def partners(note, by):
    """A note of one partner under the name and key number of another."""
    return with_payload(note, 0, key_id(origin_of(PARTNER.public), 1, raw_of(PARTNER)) + payload_of(by, 0)[4:])


LATER = (NOW + 1).to_bytes(8, "big")
ROOT64 = base64.b64encode(ROOT).decode()
IN_ITS_NAME = sign_checkpoint(42, ROOT, OTHER).replace(origin_of(OTHER.public), origin_of(PARTNER.public))
FALSE = {
    "nothing": ("", "is not a checkpoint"),
    "a text alone": (NOTE.partition("\n\n")[0] + "\n", "is not a checkpoint"),
    "no signature": (NOTE.partition("\n\n")[0] + "\n\n", "is not a checkpoint"),
    "no last line feed": (NOTE.removesuffix("\n"), "is not a checkpoint"),
    "a line feed more": (NOTE + "\n", "is not a checkpoint"),
    "carriage returns": (NOTE.replace("\n", "\r\n"), "is not a checkpoint"),
    "a line in the text": (resigned(NOTE, "\n42\n", "\n42\nmore\n"), "is not a checkpoint"),
    "an extension line": (resigned(NOTE, ROOT64, ROOT64 + "\nmore"), "is not a checkpoint"),
    "a size with a zero": (resigned(NOTE, "\n42\n", "\n042\n"), "is not a checkpoint"),
    "a negative size": (resigned(NOTE, "\n42\n", "\n-42\n"), "is not a checkpoint"),
    "a size in other digits": (resigned(NOTE, "\n42\n", "\n\u0664\u0662\n"), "is not a checkpoint"),
    "an endless size": (resigned(NOTE, "\n42\n", f"\n{'9' * 17}\n"), "is not a checkpoint"),
    "a short root": (resigned(NOTE, ROOT64, base64.b64encode(ROOT[:31]).decode()), "is not a checkpoint"),
    "a root in another spelling": (resigned(NOTE, ROOT64, second_spelling(ROOT64)), "is not a checkpoint"),
    "another dash": (NOTE.replace("\u2014", "-"), "is not a checkpoint"),
    "a signature in another spelling": (
        with_payload(COSIGNED, 1, second_spelling(line_of(COSIGNED, 1).split(" ")[2])),
        "is not a checkpoint",
    ),
    "unpadded base64": (COSIGNED.replace("==\n", "\n"), "is not a checkpoint"),
    "too much of it": (NOTE + line_of(NOTE, 0) * 100 + "\n", "is not a checkpoint"),
    "another partner's": (sign_checkpoint(42, ROOT, OTHER), "belongs to another partner's ledger"),
    "another partner's in its name": (IN_ITS_NAME, "is signed by another key"),
    "another's with its key number": (partners(NOTE, sign_checkpoint(42, ROOT, OTHER)), "does not verify"),
    "another size": (COSIGNED.replace("\n42\n", "\n43\n"), "does not verify"),
    "another root": (COSIGNED.replace(ROOT64, base64.b64encode(bytes(32)).decode()), "does not verify"),
    "another kind of signature": (
        with_payload(NOTE, 0, key_id(origin_of(PARTNER.public), 4, raw_of(PARTNER)) + payload_of(NOTE, 0)[4:]),
        "is signed by another key",
    ),
    "a short signature": (with_payload(NOTE, 0, payload_of(NOTE, 0)[:-1]), "does not verify"),
    "no more than a key number": (with_payload(NOTE, 0, payload_of(NOTE, 0)[:4]), "does not verify"),
    "a signature with a second S": (
        with_payload(NOTE, 0, payload_of(NOTE, 0)[:4] + other_s(payload_of(NOTE, 0)[4:])),
        "does not verify",
    ),
    "another time": (
        with_payload(COSIGNED, 1, payload_of(COSIGNED, 1)[:4] + LATER + payload_of(COSIGNED, 1)[12:]),
        "does not verify",
    ),
    "a cosignature with a second S": (
        with_payload(COSIGNED, 1, payload_of(COSIGNED, 1)[:12] + other_s(payload_of(COSIGNED, 1)[12:])),
        "does not verify",
    ),
    "a short cosignature": (with_payload(COSIGNED, 1, payload_of(COSIGNED, 1)[:8]), "does not verify"),
    "a cosignature of another checkpoint": (
        NOTE + line_of(cosign(sign_checkpoint(41, ROOT, PARTNER), COORDINATOR, NOW), 1) + "\n",
        "does not verify",
    ),
    "a cosignature twice": (COSIGNED + line_of(COSIGNED, 1) + "\n", "is cosigned twice"),
    "two times of one coordinator": (cosign(COSIGNED, COORDINATOR, NOW + 9), "is cosigned twice"),
    "a coordinator that was not named": (cosign(NOTE, STRANGER, NOW), "that was not named"),
    "a stranger in the coordinator's name": (
        cosign(NOTE, STRANGER, NOW).replace(
            origin_of(STRANGER.public, coordinator=True), origin_of(COORDINATOR.public, coordinator=True)
        ),
        "is signed by another key",
    ),
    "the partner as its own coordinator": (cosign(NOTE, PARTNER, NOW), "that was not named"),
    "the partner's signature twice": (NOTE + line_of(NOTE, 0) + "\n", "that was not named"),
    "the cosignature before the signature": (
        NOTE.partition("\n\n")[0] + f"\n\n{line_of(COSIGNED, 1)}\n{line_of(COSIGNED, 0)}\n",
        "is signed by another key",
    ),
}


@pytest.mark.parametrize("name", FALSE)
def test_what_is_not_exactly_the_note_is_one_clear_fault(name):
    note, rule = FALSE[name]
    assert note != COSIGNED
    with pytest.raises(LedgerFault) as caught:
        read_note(note, **NAMED)
    (fault,) = caught.value.faults
    assert rule in fault.rule
    assert fault.place == "the checkpoint"
    assert "compare keys" in fault.fix


def test_a_note_is_not_anothers():
    with pytest.raises(LedgerFault, match="another partner's"):
        read_note(COSIGNED, partner=OTHER.public, coordinators=(COORDINATOR.public,))
    with pytest.raises(LedgerFault, match="not named"):
        read_note(COSIGNED, partner=PARTNER.public)
    with pytest.raises(LedgerFault, match="not named"):
        read_note(COSIGNED, partner=PARTNER.public, coordinators=(PARTNER.public, OTHER.public))


def test_one_key_in_both_parts_signs_neither_for_the_other():
    """A coordinator that is a partner too: its cosignature of a text is not its signature of it, nor the reverse."""
    own = cosign(sign_checkpoint(3, ROOT, PARTNER), PARTNER, NOW)
    _, cosigned = read_note(own, partner=PARTNER.public, coordinators=(PARTNER.public,))
    assert cosigned == (Cosigned(PARTNER.public, NOW),)
    name = origin_of(PARTNER.public, coordinator=True)
    moved = key_id(name, 4, raw_of(PARTNER)) + NOW.to_bytes(8, "big") + payload_of(own, 0)[4:]
    with pytest.raises(LedgerFault, match="does not verify"):
        read_note(with_payload(own, 1, moved), partner=PARTNER.public, coordinators=(PARTNER.public,))


@settings(max_examples=1500, deadline=None)
@given(st.integers(0, len(COSIGNED) - 1), st.characters(codec="utf-8"))
def test_no_character_of_a_note_may_be_another(place, character):
    altered = COSIGNED[:place] + character + COSIGNED[place + 1 :]
    if altered == COSIGNED:
        return
    with pytest.raises(LedgerFault):
        read_note(altered, **NAMED)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_a_note_or_one_fault(text):
    for note in (text, NOTE + text):
        if note != NOTE:
            with pytest.raises(LedgerFault):
                read_note(note, **NAMED)
