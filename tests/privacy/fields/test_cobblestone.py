"""Sealed streams are C2SP chunked-encryption: its published vectors, and a second implementation, both ways."""

import hashlib
import zlib

import pytest

from coterie.privacy.fields.errors import KeyFault, SealFault
from coterie.privacy.fields.keysource import unwrap_key, wrap_key
from coterie.privacy.fields.streams import OpenedStream, SealedStream
from coterie.tests.privacy.fields import chunked
from coterie.tests.privacy.fields.wholestream import open_whole

KEY, CONTEXT = bytes(range(32)), b'["a","context"]'
# Around one chunk, two chunks, and where the number of a chunk needs a second byte.
SIZES = (0, 1, 16383, 16384, 16385, 32768, 40000, 257 * 16384 + 1)
YELLOW, ORANGE = b"YELLOW SUBMARINE YELLOW SUBMARIN", b"ORANGE SUBMARINE ORANGE SUBMARIN"
SHORT = (
    "e85f32a85f1d4f7c9b2d36d20eca8435d81253e7075e9dea069eb1b6da48daf9"
    "2ef1797367b520d8a46c4f72cecb85b1daff8887fcb41721d39943d1952fc180"
)

# C2SP/wycheproof, testvectors_v1/c2sp_chunked_encryption_aes_256_gcm_test.json (algorithm "Cobblestone-256"), by tcId:
# key, context, ciphertext (compressed by zlib), and length and SHA-512 of the message.
PUBLISHED = {
    1: (
        YELLOW,
        b"",
        "78da004800b7ff43a2e39431cbae0389d3fc86adf46f7c3a24de88d9311617e53f3164cc1d5dc738a66b97f0bf786565c31799c2f463d50a"
        "7e10046011dc6fc3c939e3a5db7affb6191551669554fb010000ffff4bc124df",
        0,
        "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
        "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
    ),
    2: (
        YELLOW,
        b"",
        "78da004f00b0ffa1a1b56f6db58cd1ede0c5c9db62aef20d3f96a6c594bb9252bb38122de91236502b42a1d7fcab820ffa292940d2f86add"
        "212cfa42c38df19d3cc9139ee61a5990d3db57433514229beea49a8a72bd010000ffffdb4f2a44",
        7,
        SHORT,
    ),
    3: (
        YELLOW,
        b"",
        "78daecc0312b05010000e0ab33889449c9a0cb22b9ba89943f70a5fc02db1918582c6e757465a0db6eb11ad5a52e1383b2dca26c66a4647b"
        "75f55ebdf733def27d4f7ff71fd7e9db7137b778b1558707cdd27cf270d4177b2f7751f738d80e376f9ed7aaaf7c793dfa0d47ef2797b3e5"
        "7ed6bf360100000000000000000000000000000030750bc9613ffc6cafd232cb57ebd3b320de5d29cedbf876a7da18ff7fffcc4c020000ff"
        "ffea552abb",
        16385,
        "db9e441f318209d02c8eaedfa94be7a08d3414057835c80ecea2deb0b16438ff"
        "97ae6dac13a749efe4a24686b01dc0dfab756703e810cc164466cd5cce99b3e8",
    ),
    6: (
        YELLOW,
        b"",
        "78daecc0ad4a0301000060c560f019c49faca0ed821ea2588c62100541cc2746413841835a7c018b20076a325dd4032d8eb5856361db2d6d"
        "6c8b2b838ded3156beeff3fce3e4eb20e9fcf5aaedb07ffb589b1f657190fee7f16f763d3bdcf9ce8aabe5d74a145e5e1cdd6fad6c2c1ebe"
        "ad8d8b87c60c00000000000000000000000000000030759bfb7bc7ade6dcfa69ba5abf7bff79d92e3d07e585a7ddbcbb743648a29b490000"
        "00ffff4eef2f3b",
        16384,
        "d787e0bf39e0d2e9a707b94bc77329f665286160744507f0fac9608e33a98994"
        "b6d9dd4a43a6326287d32b2e15d76e0de6a8818689698bee2ca419bf9bbedc02",
    ),
    9: (
        YELLOW,
        b"test context",
        "78da004f00b0ffdbedaefc1c35dc6c0f22b743b03e488747166a51f33479e7ceb8b7e11cc0d2710f624a127501bc4aea7d0af6f83cfe359b"
        "9e69415aa537f36adf86eb35b070475baa039bb7791432adbca49578bbd3010000ffff2fed280a",
        7,
        SHORT,
    ),
    10: (
        YELLOW,
        b"test\0context",
        "78da004f00b0ff12ede102c3ef730da4f3d4dbfaf11003683238315befe73b21ebb2246ac19f3a7d50abd2a5a365f7652bda670814dbc883"
        "ce618256d2d513bd238c2c0dded7614d52bef77bc04273656df97a294323010000ffff7d862843",
        7,
        SHORT,
    ),
}
# The same file's, that must be refused: key, context, ciphertext.
REFUSED = {
    "11, a flipped bit": (
        YELLOW,
        b"",
        "78da004900b6ff0093274a932cb4340ca678d500719d80ccc21f69c49586a8cae519f1ae94a13a97038610177fe840ac755f660484927244"
        "4b0de559508a2a00538b8dd8cc3a83e14df1343fa14630a2010000ffffc0482101",
    ),
    "21, wrong commitment": (
        YELLOW,
        b"",
        "78da004900b6ffa7bf214ab87afe86ae30940aba6d25aa92d1c26a7c4de03ece1f5f63bd31ca5d9517ce97effb9ce62c4f01433335d070ca"
        "3de6243f4cb67a00a4deb622c6b80140d1c88f54ade32fdc010000ffff59a52514",
    ),
    "22, wrong key": (
        ORANGE,
        b"",
        "78da004900b6ffabeb3f4f4a3ea1f1f76bc25808b37063d4cb21425ca6a8b16271ed22f6a3f51ec7e7fa4dcef196179d3c77b5b42103766a"
        "e1975bae6ae0690079aa245e53811c13d45a553b0365b499010000ffffa0d324a1",
    ),
    "25, wrong context": (
        YELLOW,
        b"wrong context",
        "78da004900b6ff36201844cafc0e596bec8782c560b7b1d065b90a94d227007f07a7185f0c1f449310232a0ff1d5667ece42aff4e7c0359d"
        "f78ece43b312d50034c80236b5c7900f7eebe540d242b8eb010000ffffc64f22fe",
    ),
    "26, wrong salt": (
        YELLOW,
        b"",
        "78da004900b6ff7c510aa191fdb799b3715106fb9da30a3e314a08a12bf1eed6084369ad9560c21c856d0087e1206c5c1e9a994b3ca98542"
        "e0fe1ffef9e23c0091398606b7077f679901eea490bb8f6b010000fffff4792294",
    ),
    "28, only salt": (
        YELLOW,
        b"",
        "78dacaefb91479802ffcd17ddfcda766ca0536acbc22d4d02b69a70e080000ffff9d580b79",
    ),
}


def message(size):
    return hashlib.shake_128(b"message").digest(size)


def written(path, data, key=KEY, context=CONTEXT):
    stream = SealedStream(path, key, context)
    stream.write(data)
    stream.close()
    return path


def put(path, data):
    path.write_bytes(data)
    return path


def read(path, key=KEY, context=CONTEXT):
    with OpenedStream(path, key, context) as stream:
        parts = []
        while part := stream.read(5000):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("number", PUBLISHED)
def test_every_published_stream_opens(number, tmp_path):
    key, context, compressed, size, sha512 = PUBLISHED[number]
    sealed = zlib.decompress(bytes.fromhex(compressed))
    path = put(tmp_path / "stream", sealed)
    for plain in (open_whole(path, key, context), read(path, key, context), chunked.open_(key, context, sealed)):
        assert (len(plain), hashlib.sha512(plain).hexdigest()) == (size, sha512)
    # The second implementation writes the published bytes, given the salt.
    assert chunked.seal(key, context, bytes(plain), salt=sealed[:24]) == sealed


@pytest.mark.parametrize("number", REFUSED)
def test_every_published_forgery_is_refused(number, tmp_path):
    key, context, compressed = REFUSED[number]
    sealed = zlib.decompress(bytes.fromhex(compressed))
    path = put(tmp_path / "stream", sealed)
    for opens in (open_whole, read):
        with pytest.raises(SealFault):
            opens(path, key, context)
    with pytest.raises(chunked.Damaged):
        chunked.open_(key, context, sealed)


@pytest.mark.parametrize("size", SIZES)
def test_the_second_implementation_opens_our_streams(size, tmp_path):
    sealed = written(tmp_path / "stream", message(size)).read_bytes()
    assert chunked.open_(KEY, CONTEXT, sealed) == message(size)
    # 56 bytes in front, 16 behind each chunk, and the last chunk is never full.
    assert len(sealed) == 56 + size + 16 * (size // 16384 + 1)


@pytest.mark.parametrize("size", SIZES)
def test_we_open_the_second_implementations_streams(size, tmp_path):
    path = put(tmp_path / "stream", chunked.seal(KEY, CONTEXT, message(size)))
    assert bytes(open_whole(path, KEY, CONTEXT)) == read(path) == message(size)


def test_salt_and_commitment_are_of_the_key_and_the_context(tmp_path):
    sealed = written(tmp_path / "stream", b"value").read_bytes()
    salt, commitment = sealed[:24], sealed[24:56]
    assert commitment == chunked.secrets(KEY, salt, CONTEXT)[2]
    assert salt != written(tmp_path / "other", b"value").read_bytes()[:24]


@pytest.mark.parametrize(
    ("key", "context"), [(bytes(32), CONTEXT), (KEY, CONTEXT + b" "), (KEY, b"")], ids=["key", "context", "none"]
)
def test_another_key_or_context_fails_by_the_commitment_whatever_the_chunks_say(key, context, tmp_path):
    # Chunks that the wrong key would open are put behind the right header: the header alone must be enough to refuse.
    salt = bytes(24)
    derived, base, _ = chunked.secrets(key, salt, context)
    body = b"".join(chunked.cipher(derived, base, 0).encrypt_and_digest(b"value"))
    header = salt + chunked.secrets(KEY, salt, CONTEXT)[2]
    path = put(tmp_path / "stream", header + body)
    for opens in (open_whole, read):
        with pytest.raises(SealFault):
            opens(path, key, context)
        with pytest.raises(SealFault):
            opens(path, KEY, CONTEXT)


def pieces():
    """Return a header and its three sealed chunks, the last one short."""
    sealed = chunked.seal(KEY, CONTEXT, message(2 * 16384 + 100))
    body = sealed[56:]
    return sealed[:56], [body[:16400], body[16400:32800], body[32800:]]


CUTS = {
    "header alone": lambda header, chunks: header,
    "one chunk": lambda header, chunks: header + chunks[0],
    "two chunks": lambda header, chunks: header + chunks[0] + chunks[1],
    "swapped": lambda header, chunks: header + chunks[1] + chunks[0] + chunks[2],
    "duplicate": lambda header, chunks: header + chunks[0] + chunks[0] + chunks[1] + chunks[2],
    "first lost": lambda header, chunks: header + chunks[1] + chunks[2],
    "last first": lambda header, chunks: header + chunks[2],
    "last twice": lambda header, chunks: header + b"".join(chunks) + chunks[2],
    "full chunk behind": lambda header, chunks: header + b"".join(chunks) + chunks[0],
    "header twice": lambda header, chunks: header + header + b"".join(chunks),
}


@pytest.mark.parametrize("cut", CUTS)
def test_chunks_that_are_cut_exchanged_or_repeated_are_refused(cut, tmp_path):
    header, chunks = pieces()
    path = put(tmp_path / "stream", header + b"".join(chunks))
    assert len(read(path)) == len(open_whole(path, KEY, CONTEXT)) == 2 * 16384 + 100
    put(path, CUTS[cut](header, chunks))
    for opens in (open_whole, read):
        with pytest.raises(SealFault):
            opens(path, KEY, CONTEXT)


def test_chunks_of_two_streams_of_one_key_are_not_exchanged(tmp_path):
    (header, chunks), (_, others) = pieces(), pieces()
    path = put(tmp_path / "stream", header + chunks[0] + others[1] + chunks[2])
    for opens in (open_whole, read):
        with pytest.raises(SealFault):
            opens(path, KEY, CONTEXT)


def test_wrapped_keys_are_streams_of_the_second_implementation_too():
    key, kek = bytes(range(32, 64)), bytes(range(64, 96))
    assert chunked.open_(kek, CONTEXT, wrap_key(kek, key, CONTEXT)) == key
    assert unwrap_key(kek, chunked.seal(kek, CONTEXT, key), CONTEXT) == key
    with pytest.raises(KeyFault):
        unwrap_key(kek, chunked.seal(kek, CONTEXT, key[:31]), CONTEXT)
    with pytest.raises(KeyFault):
        unwrap_key(kek, chunked.seal(KEY, CONTEXT, key), CONTEXT)
