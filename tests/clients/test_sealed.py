"""Sealed files: what was sealed comes back; a changed, moved or foreign file does not."""

import itertools
import os
import secrets
import sys

import pytest

from coterie.clients import sealed as module
from coterie.clients.sealed import read_sealed, seal_key, write_sealed
from coterie.privacy.errors import FileFault

DATA = b"a secret that must outlive a process"


@pytest.fixture
def sealed(tmp_path):
    key = seal_key(tmp_path / "key")
    write_sealed(tmp_path / "state.sealed", key, DATA)
    return tmp_path / "state.sealed", key


def test_what_was_sealed_comes_back_and_is_not_to_be_seen(sealed):
    path, key = sealed
    assert read_sealed(path, key) == DATA
    assert DATA not in path.read_bytes()
    assert not any(DATA[start : start + 4] in path.read_bytes() for start in range(0, len(DATA), 4))


def test_files_are_their_owners_alone(sealed):
    path, _ = sealed
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.with_name("key").stat().st_mode & 0o777 == 0o600


def test_nothing_is_there_where_nothing_was_sealed(tmp_path):
    assert read_sealed(tmp_path / "state.sealed", bytes(32)) is None


def test_the_same_data_never_looks_the_same(sealed):
    path, key = sealed
    seen = {path.read_bytes()}
    for _ in range(20):
        write_sealed(path, key, DATA)
        seen.add(path.read_bytes())
    assert len(seen) == 21
    assert len({data[:12] for data in seen}) == 21


def test_every_bent_byte_and_every_cut_is_a_fault(sealed):
    path, key = sealed
    data = path.read_bytes()
    changed = [data[:p] + bytes([data[p] ^ 1]) + data[p + 1 :] for p in range(len(data))]
    for other in (*changed, *(data[:end] for end in range(len(data))), data + b"\0"):
        path.write_bytes(other)
        with pytest.raises(FileFault, match="damaged"):
            read_sealed(path, key)


def test_another_key_or_another_name_is_a_fault(sealed):
    path, key = sealed
    with pytest.raises(FileFault, match="another key"):
        read_sealed(path, secrets.token_bytes(32))
    moved = path.rename(path.with_name("other.sealed"))
    with pytest.raises(FileFault):
        read_sealed(moved, key)


def test_a_key_is_made_once_and_found_again(tmp_path):
    first = seal_key(tmp_path / "key")
    assert len(first) == 32
    assert seal_key(tmp_path / "key") == first
    assert seal_key(tmp_path / "other") != first


def killed_at(path, line):
    """Make a key in a process that ends, without any cleaning up, before its `line`th line; return whether it did."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    left = line

    def count(_, event, __):
        nonlocal left
        left -= event == "line"
        if left < 0:
            os._exit(9)
        return count

    sys.settrace(lambda frame, *_: count if frame.f_code.co_filename == module.__file__ else None)
    try:
        seal_key(path)
    finally:
        os._exit(0)


def test_a_kill_at_any_line_leaves_a_whole_key_or_none(tmp_path):
    for kills in itertools.count():
        path = tmp_path / str(kills) / "key"
        path.parent.mkdir()
        if not killed_at(path, kills):
            break
        kept = path.read_bytes() if path.exists() else None
        key = seal_key(path)
        assert len(key) == 32
        assert kept in {None, key}
        assert seal_key(path) == key
        assert list(path.parent.iterdir()) == [path]
    assert kills > 12


def test_a_key_that_another_process_made_first_is_the_key(tmp_path, monkeypatch):
    path, first = tmp_path / "key", secrets.token_bytes(32)
    real = os.link

    def link(source, target):
        path.write_bytes(first)
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    assert seal_key(path) == first
    assert list(tmp_path.iterdir()) == [path]


def test_a_key_that_cannot_be_written_is_a_fault_and_no_key(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FileFault, match="No space"):
            seal_key(tmp_path / "key")
    assert not (tmp_path / "key").exists()
    assert len(seal_key(tmp_path / "key")) == 32


@pytest.mark.parametrize("data", [b"", b"\0" * 31, b"\0" * 33])
def test_a_key_of_another_length_is_a_fault(tmp_path, data):
    (tmp_path / "key").write_bytes(data)
    with pytest.raises(FileFault, match="32 bytes"):
        seal_key(tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == data
