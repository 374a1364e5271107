"""Keys in folders: the suite of every source, and what files, rights and kills ask for."""

import os
import shutil
from pathlib import Path

import pytest

from coterie.privacy.fields.errors import KeyFault
from coterie.privacy.fields.keysource import unwrap_key
from coterie.privacy.fields.sources import keyfolder
from coterie.privacy.fields.sources.keyfolder import KeyFolder, read_secret
from coterie.privacy.fields.sources.local import LocalKeys
from coterie.tests.privacy.fields.sourcesuite import CONTEXTS, SourceContract, fresh, refused

MODES = (0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666)


class Rig:
    ours = True

    def __init__(self, folder, kind) -> None:
        self.folder, self.kind = folder, kind
        if kind == "mount":
            folder.mkdir(mode=0o755)
        LocalKeys.create(folder, kind=kind)

    def source(self):
        return LocalKeys(self.folder, kind=self.kind)

    def add(self):
        source = self.source()
        return source.advance(source.epochs()[-1])

    @property
    def secrets(self):
        return [path.read_bytes().hex() for path in self.folder.glob("*.key")]

    def faults(self):
        path = self.folder / "0001.key"
        short = path.with_name("0002.key")

        def cut():
            short.write_bytes(path.read_bytes()[:31])
            short.chmod(0o600)
            self.source().wrap(fresh(1), CONTEXTS[:1])

        def opened():
            short.unlink()
            path.chmod(0o644)
            self.source().wrap(fresh(1), CONTEXTS[:1])

        return [cut, opened]


class TestFile(SourceContract):
    apart = False

    @pytest.fixture
    def rig(self, tmp_path):
        return Rig(tmp_path / "keys" / "vault", "file")


class TestMount(SourceContract):
    @pytest.fixture
    def rig(self, tmp_path):
        return Rig(tmp_path / "medium", "mount")


@pytest.fixture
def folder(tmp_path):
    LocalKeys.create(tmp_path / "vault")
    return tmp_path / "vault"


# --- the format


def test_a_key_file_is_32_bytes_for_its_owner_alone(folder):
    LocalKeys(folder).advance("0001")
    assert [(path.name, path.stat().st_size, path.stat().st_mode & 0o777) for path in sorted(folder.iterdir())] == [
        ("0001.key", 32, 0o600),
        ("0002.key", 32, 0o600),
    ]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "0001.key").read_bytes() != (folder / "0002.key").read_bytes()


def test_data_keys_are_wrapped_under_the_bytes_of_the_newest_file(folder):
    LocalKeys(folder).advance("0001")
    (key,) = fresh(1)
    (wrapped,) = LocalKeys(folder).wrap([key], CONTEXTS[:1])
    assert unwrap_key((folder / "0002.key").read_bytes(), wrapped, CONTEXTS[0]) == key


def test_a_file_that_an_operator_put_there_is_an_epoch(folder):
    path = folder / "0007.key"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o400)
    assert LocalKeys(folder).epochs() == ("0001", "0007")
    assert LocalKeys(folder).advance("0001") == "0007"
    assert LocalKeys(folder).advance("0007") == "0008"


def test_other_files_are_left_alone(folder):
    names = ["0002.key.new", "0003.key~", "00004.key", "005.key", "a001.key", "0006.KEY", "notes.txt", "٠٠٠٧.key"]
    for name in names:
        (folder / name).write_bytes(bytes(32))
    assert LocalKeys(folder).epochs() == ("0001",)
    assert LocalKeys(folder).advance("0001") == "0002"
    assert all((folder / name).exists() for name in names[1:])


def test_creating_again_leaves_the_keys_as_they_are(folder):
    before = (folder / "0001.key").read_bytes()
    assert LocalKeys.create(folder).epochs() == ("0001",)
    assert (folder / "0001.key").read_bytes() == before


def test_after_9999_epochs_there_is_none(folder):
    (folder / "0001.key").rename(folder / "9999.key")
    refused(lambda: LocalKeys(folder).advance("9999"))
    assert LocalKeys(folder).epochs() == ("9999",)


# --- what is refused


@pytest.mark.parametrize("size", [0, 1, 16, 31, 33, 44, 64, 100000])
def test_a_key_of_another_length_is_refused(folder, size):
    (folder / "0001.key").write_bytes(os.urandom(size))
    error = refused(lambda: LocalKeys(folder).wrap(fresh(1), CONTEXTS[:1]))
    assert error.faults[0].place.endswith("0001.key")


@pytest.mark.parametrize("mode", MODES, ids=oct)
def test_a_key_that_others_may_touch_is_refused_with_what_to_run(folder, mode):
    (folder / "0001.key").chmod(mode)
    fault = refused(lambda: LocalKeys(folder).wrap(fresh(1), CONTEXTS[:1])).faults[0]
    assert fault.fix == f"run: chmod 600 {folder / '0001.key'}"


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o770, 0o707, 0o711, 0o755], ids=oct)
def test_a_folder_in_the_workspace_that_lets_others_in_is_refused(folder, mode):
    folder.chmod(mode)
    assert "chmod go-rwx" in refused(lambda: LocalKeys(folder).epochs()).faults[0].fix
    refused(lambda: LocalKeys.create(folder))


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o720, 0o702, 0o1777], ids=oct)
def test_a_mount_that_others_may_change_is_refused(folder, mode):
    folder.chmod(mode)
    refused(lambda: LocalKeys(folder, kind="mount").epochs())


@pytest.mark.parametrize("mode", [0o700, 0o500, 0o755, 0o555], ids=oct)
def test_a_mount_that_others_may_only_list_is_taken(folder, mode):
    folder.chmod(mode)
    assert LocalKeys(folder, kind="mount").epochs() == ("0001",)


def test_a_place_that_is_not_mounted_gets_no_new_key(tmp_path):
    refused(lambda: LocalKeys.create(tmp_path / "medium", kind="mount"))
    assert not (tmp_path / "medium").exists()


def test_a_folder_without_keys_is_refused(folder):
    (folder / "0001.key").unlink()
    for act in (lambda s: s.epochs(), lambda s: s.wrap(fresh(1), CONTEXTS[:1]), lambda s: s.destroy("0001")):
        refused(lambda act=act: act(LocalKeys(folder)))
    shutil.rmtree(folder)
    refused(lambda: LocalKeys(folder).epochs())


def test_a_pipe_a_folder_and_a_long_file_are_no_secret_files(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    (tmp_path / "long").write_bytes(bytes(100))
    (tmp_path / "long").chmod(0o600)
    for name in ("pipe", "folder", "long", "missing"):
        refused(lambda name=name: read_secret(tmp_path / name, most=99))
    assert read_secret(tmp_path / "long", most=100) == bytes(100)


# --- read-only


@pytest.fixture
def read_only(folder, monkeypatch):
    """A file system that takes no change; rights alone would not stop root."""
    opening = os.open

    def closed(path, flags, *rest, **options):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(30, os.strerror(30), str(path))
        return opening(path, flags, *rest, **options)

    LocalKeys(folder).advance("0001")
    monkeypatch.setattr(keyfolder.os, "open", closed)
    return folder


def test_a_read_only_mount_names_the_file_to_make(read_only):
    fault = refused(lambda: LocalKeys(read_only, kind="mount").advance("0002")).faults[0]
    assert "0003.key" in fault.fix
    assert "32 random bytes" in fault.fix
    assert LocalKeys(read_only, kind="mount").advance("0001") == "0002"


def test_a_read_only_mount_names_the_file_to_remove(read_only):
    source = LocalKeys(read_only, kind="mount")
    fault = refused(lambda: source.destroy("0001")).faults[0]
    assert str(read_only / "0001.key") in fault.fix
    (read_only / "0001.key").unlink()
    source.destroy("0001")
    assert source.epochs() == ("0002",)


# --- destroying


def test_what_is_destroyed_is_overwritten_under_all_its_names(folder, tmp_path):
    LocalKeys(folder).advance("0001")
    os.link(folder / "0001.key", tmp_path / "kept")  # shows the blocks that the name stood for
    os.link(folder / "0001.key", folder / "0001.key.new")  # as a kill between link and unlink leaves it
    key = (folder / "0001.key").read_bytes()
    LocalKeys(folder).destroy("0001")
    assert sorted(path.name for path in folder.iterdir()) == ["0002.key"]
    left = (tmp_path / "kept").read_bytes()
    assert len(left) > 32  # overwritten to its end, and no key
    assert sum(one == two for one, two in zip(left, key, strict=False)) < 8


def test_a_link_to_another_file_is_not_overwritten(folder, tmp_path):
    LocalKeys(folder).advance("0001")
    (tmp_path / "other").write_bytes(b"somebody's")
    (folder / "0001.key").unlink()
    (folder / "0001.key").symlink_to(tmp_path / "other")
    refused(lambda: LocalKeys(folder).destroy("0001"))
    assert (tmp_path / "other").read_bytes() == b"somebody's"


# --- killed at any step


class Killed(BaseException):
    """Nothing of the process' own runs after it: no handler of errors takes it."""


class Steps:
    """Counts what is done to the disk, and stops before one of the steps."""

    def __init__(self, monkeypatch, at) -> None:
        self.left = at
        for place, name in ((keyfolder.os, "open"), (keyfolder.os, "link"), (keyfolder.os, "fsync"), (Path, "unlink")):
            monkeypatch.setattr(place, name, self.counted(getattr(place, name)))
        monkeypatch.setattr(keyfolder, "sync_folder", self.counted(keyfolder.sync_folder))

    def counted(self, act):
        def step(*words, **options):
            if self.left == 0:
                raise Killed
            self.left -= 1
            return act(*words, **options)

        return step


@pytest.mark.parametrize("at", range(8))
def test_killed_while_it_makes_a_key_it_has_the_old_ones_or_a_whole_new_one(folder, monkeypatch, at):
    keys = fresh(2)
    (old,) = LocalKeys(folder).wrap(keys[:1], CONTEXTS[:1])
    source = LocalKeys(folder)
    with monkeypatch.context() as patched:
        steps = Steps(patched, at)
        with pytest.raises(Killed):
            source._files.add("0002", bytes(range(32)), fix="none")
        assert steps.left == 0
    names = LocalKeys(folder).epochs()
    assert names in (("0001",), ("0001", "0002"))
    new = LocalKeys(folder).advance("0001")
    assert new == "0002"
    if len(names) == 2:
        assert (folder / "0002.key").read_bytes() == bytes(range(32))
    assert LocalKeys(folder).unwrap([old], CONTEXTS[:1], epoch="0001") == keys[:1]
    assert LocalKeys(folder).advance("0002") == "0003"
    LocalKeys(folder).destroy("0001")
    LocalKeys(folder).destroy("0002")
    assert [path.name for path in folder.iterdir()] == ["0003.key"]


@pytest.mark.parametrize("at", range(5))
def test_killed_while_it_destroys_a_key_it_is_destroyed_when_asked_again(folder, monkeypatch, at):
    LocalKeys(folder).advance("0001")
    key = (folder / "0001.key").read_bytes()
    with monkeypatch.context() as patched:
        steps = Steps(patched, at)
        with pytest.raises(Killed):
            KeyFolder(folder, ".key").shred("0001")
        assert steps.left == 0
    if (folder / "0001.key").exists() and (folder / "0001.key").read_bytes() != key:
        with pytest.raises(KeyFault):  # random bytes never pass for the key
            LocalKeys(folder).unwrap([], [], epoch="0001")
    LocalKeys(folder).destroy("0001")
    assert [path.name for path in folder.iterdir()] == ["0002.key"]
