"""Expansion of messages: the vectors of RFC 9380, and its formula written down once more."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.privacy.matching.errors import MatchFault
from coterie.privacy.matching.expansion import expander

MESSAGES = (b"", b"abc", b"abcdef0123456789", b"q128_" + b"q" * 128, b"a512_" + b"a" * 512)

# RFC 9380, appendix K.1 (SHA-256), K.2 (its long tag, which is hashed first) and K.3 (SHA-512).
SHORT = b"QUUX-V01-CS02-with-expander-SHA256-128"
LONG = SHORT + b"-long-DST-" + b"1" * 208
K1 = (
    "68a985b87eb6b46952128911f2a4412bbc302a9d759667f87f7a21d803f07235",
    "d8ccab23b5985ccea865c6c97b6e5b8350e794e603b4b97902f53a8a0d605615",
    "eff31487c770a893cfb36f912fbfcbff40d5661771ca4b2cb4eafe524333f5c1",
    "b23a1d2b4d97b2ef7785562a7e8bac7eed54ed6e97e29aa51bfe3f12ddad1ff9",
    "4623227bcc01293b8c130bf771da8c298dede7383243dc0993d2d94823958c4c",
)
K2 = (
    "e8dc0c8b686b7ef2074086fbdd2f30e3f8bfbd3bdf177f73f04b97ce618a3ed3",
    "52dbf4f36cf560fca57dedec2ad924ee9c266341d8f3d6afe5171733b16bbb12",
)
K3 = (
    "6b9a7312411d92f921c6f68ca0b6380730a1a4d982c507211a90964c394179ba",
    "0da749f12fbe5483eb066a5f595055679b976e93abe9be6f0f6318bce7aca8dc",
    "087e45a86e2939ee8b91100af1583c4938e0f5fc6c9db4b107b83346bc967f58",
    "7336234ee9983902440f6bc35b348352013becd88938d2afec44311caf8356b3",
    "57b5f7e766d5be68a6bfe1768e3c2b7f1228b3e4b3134956dd73a59b954c66f4",
)
SHA512 = b"QUUX-V01-CS02-with-expander-SHA512-256"
K1_LONG_EMPTY = (
    "af84c27ccfd45d41914fdff5df25293e221afc53d8ad2ac06d5e3e29485dadbee0d121587713a3e0dd4d5e69e93eb7cd4f5df4cd103e188c"
    "f60cb02edc3edf18eda8576c412b18ffb658e3dd6ec849469b979d444cf7b26911a08e63cf31f9dcc541708d3491184472c2c29bb749d428"
    "6b004ceb5ee6b9a7fa5b646c993f0ced"
)
K3_LONG_EMPTY = (
    "41b037d1734a5f8df225dd8c7de38f851efdb45c372887be655212d07251b921b052b62eaed99b46f72f2ef4cc96bfaf254ebbbec091e1a3"
    "b9e4fb5e5b619d2e0c5414800a1d882b62bb5cd1778f098b8eb6cb399d5d9d18f5d5842cf5d13d7eb00a7cff859b605da678b318bd0e65eb"
    "ff70bec88c753b159a805d2c89c55961"
)
VECTORS = (
    *(("sha256", SHORT, message, found) for message, found in zip(MESSAGES, K1, strict=True)),
    *(("sha256", LONG, message, found) for message, found in zip(MESSAGES[:2], K2, strict=True)),
    *(("sha512", SHA512, message, found) for message, found in zip(MESSAGES, K3, strict=True)),
    ("sha256", SHORT, b"", K1_LONG_EMPTY),
    ("sha512", SHA512, b"", K3_LONG_EMPTY),
)


@pytest.mark.parametrize(("name", "tag", "message", "found"), VECTORS, ids=range(len(VECTORS)))
def test_the_vectors_of_the_rfc(name, tag, message, found):
    assert expander(tag, len(found) // 2, name=name)(message).hex() == found


def by_the_formula(message, tag, length):
    """RFC 9380, section 5.3.1, step by step."""
    hashed = hashlib.sha512
    if len(tag) > 255:
        tag = hashed(b"H2C-OVERSIZE-DST-" + tag).digest()
    ell = (length + 63) // 64
    primed = tag + bytes([len(tag)])
    b0 = hashed(bytes(128) + message + bytes([length // 256, length % 256]) + b"\x00" + primed).digest()
    b = [b0, hashed(b0 + b"\x01" + primed).digest()]
    for i in range(2, ell + 1):
        b.append(hashed(bytes(x ^ y for x, y in zip(b0, b[-1], strict=True)) + bytes([i]) + primed).digest())
    return b"".join(b[1:])[:length]


@given(message=st.binary(max_size=300), tag=st.binary(min_size=1, max_size=300), length=st.integers(1, 700))
def test_the_formula_of_the_rfc(message, tag, length):
    expand = expander(tag, length)
    assert expand(message) == by_the_formula(message, tag, length)
    assert expand(message) == by_the_formula(message, tag, length), "a second message sees nothing of the first"


@pytest.mark.parametrize("length", [0, -1, 64 * 255 + 1])
def test_a_length_out_of_range_is_refused(length):
    with pytest.raises(MatchFault, match="between 1 and 16320 bytes"):
        expander(b"tag", length)


def test_an_empty_tag_is_refused():
    with pytest.raises(MatchFault, match="at least 1 byte"):
        expander(b"", 64)
