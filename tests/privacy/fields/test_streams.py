"""Sealed streams in pieces: what is read is what was written, and nothing else is ever read to its end."""

import errno
import hashlib
import itertools
import os
import random
import resource
import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coterie.privacy.fields import streams
from coterie.privacy.fields.errors import SealFault
from coterie.privacy.fields.streams import OpenedStream, SealedStream
from coterie.tests.privacy.fields.wholestream import open_whole

KEY, OTHER, CONTEXT = bytes(range(32)), bytes(range(1, 33)), b'["coterie/vault/v1/column","customers","email"]'
CHUNK = 16384
SECRET = b"somebody@example.com"


def written(path, *parts, key=KEY, context=CONTEXT):
    stream = SealedStream(path, key, context)
    for part in parts:
        assert stream.write(part) == len(part)
    stream.close()
    return path


def by_pieces(path, key=KEY, context=CONTEXT, *, sizes=(7,)):
    """Read a stream in pieces of sizes that take turns."""
    with OpenedStream(path, key, context) as stream:
        parts, turn = [], 0
        while part := stream.read(sizes[turn % len(sizes)]):
            parts.append(part)
            turn += 1
    return b"".join(parts)


def refused(path, key=KEY, context=CONTEXT):
    for opens in (open_whole, by_pieces):
        with pytest.raises(SealFault) as caught:
            opens(path, key, context)
        assert SECRET.decode() not in str(caught.value)
        assert caught.value.__suppress_context__
    return True


def accepted(path, key=KEY, context=CONTEXT):
    """How many of the two readers took a stream to its end."""
    taken = 0
    for opens in (open_whole, lambda *given: by_pieces(*given, sizes=(1 << 15,))):
        try:
            opens(path, key, context)
            taken += 1
        except SealFault:
            pass
    return taken


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.sampled_from([0, 1, 15, 16, 17, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK]), max_size=6),
    sizes=st.lists(st.sampled_from([1 << 20, CHUNK, CHUNK - 1, 4099, 100000]), min_size=1, max_size=4),
    seed=st.integers(0, 10**6),
)
def test_pieces_of_any_size_come_back_as_they_were_written(lengths, sizes, seed, tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "stream"
    parts = [hashlib.shake_128(b"%d/%d" % (seed, number)).digest(size) for number, size in enumerate(lengths)]
    written(path, *parts)
    assert by_pieces(path, sizes=sizes) == bytes(open_whole(path, KEY, CONTEXT)) == b"".join(parts)


def test_single_bytes_come_back_across_the_edge_of_a_chunk(tmp_path):
    data = hashlib.shake_128(b"edge").digest(CHUNK + 50)
    path = written(tmp_path / "stream", *(data[start : start + 1] for start in range(len(data))))
    assert by_pieces(path, sizes=(1,)) == data


def test_arrays_are_written_as_their_bytes(tmp_path):
    numbers = memoryview(bytes(range(64))).cast("Q")
    stream = SealedStream(tmp_path / "stream", bytearray(KEY), CONTEXT)
    assert stream.write(numbers) == 64
    stream.close()
    assert open_whole(tmp_path / "stream", bytearray(KEY), CONTEXT) == bytes(range(64))


def test_a_stream_says_how_long_it_is_and_what_its_digest_is(tmp_path):
    stream = SealedStream(tmp_path / "stream", KEY, CONTEXT)
    for size in (5, CHUNK, 3 * CHUNK):
        stream.write(bytes(size))
    stream.close()
    data = (tmp_path / "stream").read_bytes()
    assert (stream.size, stream.digest) == (len(data), "sha256:" + hashlib.sha256(data).hexdigest())


def test_a_stream_is_the_owners_alone_and_never_replaces_a_file(tmp_path):
    path = written(tmp_path / "stream", SECRET)
    before = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        SealedStream(path, KEY, CONTEXT)
    assert path.read_bytes() == before


def test_a_key_of_another_length_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="32"):
        SealedStream(tmp_path / "stream", KEY[:31], CONTEXT)
    assert not list(tmp_path.iterdir())


def test_nothing_of_what_was_written_is_in_the_file(tmp_path):
    data = written(tmp_path / "stream", SECRET * 1000).read_bytes()
    assert SECRET not in data
    assert KEY not in data
    assert data != written(tmp_path / "again", SECRET * 1000).read_bytes()


def test_every_flipped_byte_is_refused(tmp_path):
    path = written(tmp_path / "stream", SECRET)
    good = path.read_bytes()
    for place in range(len(good)):
        for change in (1, 0x80, 0xFF):
            path.write_bytes(good[:place] + bytes([good[place] ^ change]) + good[place + 1 :])
            assert refused(path)
    path.write_bytes(good)
    assert open_whole(path, KEY, CONTEXT) == SECRET


@pytest.mark.parametrize("size", [0, 20, 2 * CHUNK, 2 * CHUNK + 20])
def test_every_shorter_file_is_refused(size, tmp_path):
    path = written(tmp_path / "stream", hashlib.shake_128(b"cut").digest(size))
    good = path.read_bytes()
    whole = CHUNK + 16
    edges = {56 + whole * number + near for number in (0, 1, 2) for near in range(-17, 18)}
    for length in sorted(set(range(100)) | edges):
        if 0 <= length < len(good):
            path.write_bytes(good[:length])
            assert refused(path)


def test_whatever_is_appended_is_refused(tmp_path):
    path = written(tmp_path / "stream", SECRET)
    good = path.read_bytes()
    for more in (b"\0", bytes(16), good[56:], good, bytes(CHUNK), bytes(3 << 20)):
        path.write_bytes(good + more)
        assert refused(path)


def test_streams_of_one_key_are_not_exchanged(tmp_path):
    one = written(tmp_path / "one", b"income", context=b"income")
    other = written(tmp_path / "other", b"age", context=b"age")
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    assert refused(one, context=b"income")
    assert refused(other, context=b"age")
    assert open_whole(one, KEY, b"age") == b"age"


def test_another_key_or_context_is_refused(tmp_path):
    path = written(tmp_path / "stream", SECRET)
    assert refused(path, key=OTHER)
    assert refused(path, context=CONTEXT + b"\0")
    assert refused(path, context=b"")


def test_a_file_that_is_missing_or_a_folder_is_a_fault_of_the_seal(tmp_path):
    assert refused(tmp_path / "missing")
    assert refused(tmp_path)


def mutations(good, other, rng):
    """Yield changed files without end: flips, cuts, insertions, repetitions, and mixtures of two streams."""
    while True:
        data, kind = bytearray(good), rng.randrange(6)
        start, end = sorted(rng.choices(range(len(data) + 1), k=2))
        if kind == 0:
            for _ in range(rng.randint(1, 3)):
                data[rng.randrange(len(data))] ^= rng.randint(1, 255)
        elif kind == 1:
            del data[start:end]
        elif kind == 2:
            data[start:start] = rng.randbytes(rng.randint(1, 40))
        elif kind == 3:
            data[end:end] = data[start:end]
        elif kind == 4:
            data[start:] = other[start:]
        else:
            data[start:end] = other[start:end]
        if data != good:
            yield kind, bytes(data)


def test_of_ten_thousand_mutations_none_is_accepted(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "_READ", 1000)  # of files this small, so that they too are read in several pieces
    rng = random.Random(20)  # noqa: S311 - the same changes each time
    seen = dict.fromkeys(range(6), 0)
    taken = 0
    for size, count in ((20, 9000), (CHUNK + 20, 1000)):
        path = written(tmp_path / f"good{size}", rng.randbytes(size))
        good = path.read_bytes()
        other = written(tmp_path / f"other{size}", rng.randbytes(size)).read_bytes()
        # The other stream as a whole is a stream of the same key and context: that is what the manifest is for.
        changed = (item for item in mutations(good, other, rng) if item[1] != other)
        # Overwriting is far quicker than emptying a file first, which some file systems take for a reason to flush.
        with path.open("r+b", buffering=0) as file:
            for kind, data in itertools.islice(changed, count):
                seen[kind] += 1
                os.pwrite(file.fileno(), data, 0)
                file.truncate(len(data))
                taken += accepted(path)
        path.write_bytes(good)
        assert accepted(path) == 2
    assert taken == 0
    assert min(seen.values()) > 1000


def test_a_stream_that_was_refused_stays_refused(tmp_path):
    for size, cut in ((20, 1), (CHUNK, 16), (CHUNK + 20, 1), (3 << 20, 40)):
        path = written(tmp_path / f"stream{size}", bytes(size))
        path.write_bytes(path.read_bytes()[:-cut])
        with OpenedStream(path, KEY, CONTEXT) as stream:
            for _ in range(4):
                with pytest.raises(SealFault):
                    stream.read(size)


def test_the_end_is_checked_before_the_last_bytes_are_returned(tmp_path):
    # Whole chunks end with an empty one; who reads exactly what there should be must learn that it is gone.
    for chunks in (1, 2, 64):
        path = written(tmp_path / f"stream{chunks}", bytes(chunks * CHUNK))
        good = path.read_bytes()
        with OpenedStream(path, KEY, CONTEXT) as stream:
            assert stream.read(chunks * CHUNK) == bytes(chunks * CHUNK)
        path.write_bytes(good[:-16])
        with OpenedStream(path, KEY, CONTEXT) as stream, pytest.raises(SealFault):
            stream.read(chunks * CHUNK)


def test_what_is_returned_before_a_fault_is_the_start_of_what_was_written(tmp_path):
    data = hashlib.shake_128(b"prefix").digest(4 << 20)
    path = written(tmp_path / "stream", data)
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    read = []
    with OpenedStream(path, KEY, CONTEXT) as stream, pytest.raises(SealFault):
        read.extend(iter(lambda: stream.read(1000), b""))
    assert len(read) > 1000
    assert data.startswith(b"".join(read))


def test_a_stream_is_not_read_without_a_size_or_after_its_end(tmp_path):
    path = written(tmp_path / "stream", SECRET)
    with OpenedStream(path, KEY, CONTEXT) as stream:
        assert stream.read(0) == b""
        with pytest.raises(ValueError, match="size"):
            stream.read(-1)
        assert stream.read(100) == SECRET
        assert stream.read(100) == stream.read(1) == b""
    assert stream.closed
    with pytest.raises(ValueError, match="open"):
        stream.read(1)


@pytest.mark.parametrize("size", [0, 20, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_what_was_abandoned_does_not_open(size, tmp_path):
    stream = SealedStream(tmp_path / "stream", KEY, CONTEXT)
    stream.write(bytes(size))
    stream.abandon()
    assert refused(tmp_path / "stream")
    with pytest.raises(ValueError, match="closed"):
        stream.close()
    assert refused(tmp_path / "stream")


class Full:
    """A file on a disk with room for so many more bytes; writes are cut short before they fail, as POSIX has it."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        if self.file.closed or not self.room:
            self.file.write(b"")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = self.file.write(data[: self.room])
        self.room -= done
        return done

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 10, 56, 56 + CHUNK + 16, 40000])
def test_a_disk_that_is_full_where_write_raises_enospc_leaves_nothing_that_opens(room, tmp_path):
    stream = SealedStream(tmp_path / "stream", KEY, CONTEXT)
    stream._file = Full(stream._file, room)
    with pytest.raises(OSError, match="No space"):
        stream.write(bytes(4 * CHUNK))
    # Room again: what is written now would follow a gap.
    stream._file.room = 1 << 20
    with pytest.raises(ValueError, match="closed"):
        stream.write(bytes(CHUNK))
    with pytest.raises(ValueError, match="closed"):
        stream.close()
    assert (tmp_path / "stream").stat().st_size == room
    assert refused(tmp_path / "stream")


def test_a_disk_that_fills_up_with_the_last_chunk_leaves_nothing_that_opens(tmp_path):
    stream = SealedStream(tmp_path / "stream", KEY, CONTEXT)
    stream.write(bytes(CHUNK + 5))
    stream._file = Full(stream._file, 15)
    with pytest.raises(OSError, match="No space"):
        stream.close()
    assert refused(tmp_path / "stream")


def test_the_kernels_own_limit_on_a_file_is_an_error_and_leaves_nothing_that_opens(tmp_path):
    stream = SealedStream(tmp_path / "stream", KEY, CONTEXT)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            stream.write(bytes(3 * CHUNK))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "stream").stat().st_size == 20000
    assert refused(tmp_path / "stream")


def test_a_disk_that_does_not_keep_what_it_was_given_is_an_error(tmp_path, monkeypatch):
    def failing(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    stream = SealedStream(tmp_path / "stream", KEY, CONTEXT)
    stream.write(SECRET)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(OSError, match="Input/output"):
            stream.close()
    assert stream._file.closed


def test_a_disk_that_cannot_be_read_is_a_fault_without_the_content(tmp_path):
    class Failing:
        def read(self, size):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        def close(self):
            pass

    path = written(tmp_path / "stream", SECRET)
    with OpenedStream(path, KEY, CONTEXT) as stream:
        stream._file.close()
        stream._file = Failing()
        with pytest.raises(SealFault, match="cannot be read"):
            stream.read(10)
