"""Files that are written whole or not at all, for their owner's eyes."""

import os
import stat
from pathlib import Path

import pytest

from coterie.privacy.durable import write_durably
from coterie.privacy.errors import FileFault


def test_a_file_holds_exactly_what_was_written_last(tmp_path):
    path = tmp_path / "f"
    for data in (b"first, and long", b"", b"third"):
        write_durably(path, data)
        assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_its_owner_s_alone_whatever_a_crash_left_beside_it(tmp_path):
    path, stale = tmp_path / "f", tmp_path / "f.new"
    stale.write_bytes(b"half of something longer")
    stale.chmod(0o644)
    write_durably(path, b"data")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == b"data"


def test_data_is_on_disk_before_it_takes_the_name_and_the_name_after(tmp_path, monkeypatch):
    done = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(descriptor):
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "data")
        real_sync(descriptor)

    def replace(self, target):
        done.append("name")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    write_durably(tmp_path / "f", b"data")
    assert done == ["data", "name", "folder"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_the_old_content_and_nothing_beside_it(tmp_path, monkeypatch, step):
    path = tmp_path / "f"
    write_durably(path, b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync", fail) if step == "fsync" else (Path, "replace", fail)))
    with pytest.raises(FileFault) as caught:
        write_durably(path, b"new")
    (fault,) = caught.value.faults
    assert fault.place == str(path)
    assert "No space left" in fault.rule
    assert "space" in fault.fix
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_hold_a_file_is_a_fault(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path / "none" / "f", tmp_path / "file" / "f"):
        with pytest.raises(FileFault) as caught:
            write_durably(path, b"data")
        assert caught.value.faults[0].place == str(path)
