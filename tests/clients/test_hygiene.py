"""What the machine keeps of a process that had rows open: no core file, no value in a traceback, no open folder."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from coterie.clients.hygiene import check_rights, swap_warning
from coterie.clients.preflight import checks_here, run_checks
from coterie.privacy.errors import FileFault
from coterie.tests.stories.test_mute import WORDS, sings
from coterie.tests.stories.vaultkit import opened, put, small_vault, tables, today, workspace

NOBODY = 65534
CRASH = """
import ctypes, os, resource, signal, sys
from pathlib import Path
_, most = resource.getrlimit(resource.RLIMIT_CORE)
resource.setrlimit(resource.RLIMIT_CORE, (most, most))
canary = "-".join(["canary", "id", "7f3a91c4"])
if sys.argv[1] == "vault":
    from coterie.clients.tables.table import whole
    from coterie.clients.vault import open_vault
    from coterie.privacy.clock import now
    lent = open_vault(Path(sys.argv[2]), now)
    rows = whole(lent.__enter__().table("customers"), ["customer", "spend"])
    canary = rows["customer"][3].as_py()
    assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0  # PR_GET_DUMPABLE
elif sys.argv[1] == "node":
    from coterie.clients.node import open_node
    from coterie.privacy.clock import now
    from coterie.privacy.randomness import OsSource
    lent = open_node(Path(sys.argv[2]), random=OsSource(), clock=now)
    lent.__enter__()
os.kill(os.getpid(), int(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    made = workspace(tmp_path_factory.mktemp("hygiene") / "bank")
    columns = tables()["customers"].to_pydict()
    columns["customer"][3] = WORDS["customer"]
    with opened(made) as vault:
        put(vault, "customers", tables()["customers"].set_column(0, "customer", [columns["customer"]]))
    return made


def crashed(folder, what, bank, signal):
    """Let a process end by a signal in a folder; return its signal and whether the kernel dumped it."""
    script = folder / "crash.py"
    script.write_text(CRASH)
    before = Path.cwd()
    os.chdir(folder)
    try:
        words = [sys.executable, str(script), what, str(bank.root), str(int(signal))]
        child = os.posix_spawn(sys.executable, words, os.environ)
    finally:
        os.chdir(before)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    return os.WTERMSIG(status), os.WCOREDUMP(status)


@pytest.mark.parametrize("signal", ["SIGABRT", "SIGSEGV"])
@pytest.mark.parametrize("what", ["vault", "node"])
def test_a_crash_with_rows_open_leaves_no_core_file(tmp_path, bank, what, signal):
    import signal as signals

    number = getattr(signals, signal)
    assert crashed(tmp_path, what, bank, number) == (number, False)
    assert [path.name for path in tmp_path.iterdir()] == ["crash.py"]
    assert [path for path in bank.root.rglob("*") if path.is_file() and sings(path.read_bytes())] == []


def test_the_same_crash_without_an_open_vault_is_dumped_where_the_system_lets_it(tmp_path, bank):
    """So that the test above sees what it would have seen."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    assert crashed(tmp_path, "nothing", bank, 6)[1] == (most != 0)


CHILD = """
import os, subprocess, sys, threading
from pathlib import Path
from coterie.clients.hygiene import forbid_dumps

if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
print(*forbid_dumps())
print(*forbid_dumps())
# The kernel gives the files of a process that may not be dumped to root.
words = ["stat", "-c", "%u", "/proc/self/environ"]
owner = subprocess.run(words, capture_output=True, text=True, cwd="/", check=True).stdout
print(int(owner) == os.getuid(), Path("/proc/self/environ").stat().st_uid)
print("VmRSS" in Path("/proc/self/status").read_text(), len(os.listdir("/proc/self/fd")) > 2)
child = os.fork()
if child == 0:
    parent = os.getppid()
    os._exit(0 if Path(f"/proc/{parent}/stat").read_text() and Path(f"/proc/{parent}/status").read_text() else 1)
print(os.waitpid(child, 0)[1])
child = os.fork()
if child == 0:
    try:
        open(f"/proc/{os.getppid()}/mem", "rb")
    except PermissionError:
        os._exit(7)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_what_it_forbids_breaks_nothing_that_supervisors_and_metrics_read(tmp_path):
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, cwd=tmp_path)
    said = done.stdout.splitlines()
    assert said == ["limit undumpable", "limit undumpable", "True 0", "True True", "0", "7"]


SWAPS = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"


def test_swap_is_told_where_it_is_on(tmp_path):
    swaps = tmp_path / "swaps"
    swaps.write_text(SWAPS)
    assert swap_warning(swaps) is None
    swaps.write_text(SWAPS + "/dev/zram0  partition\t1024\t0\t100\n")
    assert swap_warning(swaps) is None
    swaps.write_text(SWAPS + "/dev/zram0  partition\t1\t0\t100\n/dev/dm-1 partition\t1\t0\t-2\n/swap file\t1\t0\t-3\n")
    assert swap_warning(swaps).startswith("swap is on (2 areas)")
    assert swap_warning(tmp_path / "missing") == "whether swap is on cannot be seen here"


@pytest.mark.parametrize("kind", ["streams", "manifests", "."])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610])
def test_anything_of_a_vault_that_is_open_to_others_is_found_and_the_fix_mends_it(tmp_path, kind, mode):
    made = small_vault(tmp_path / "bank")
    fine = check_rights(made.vault)
    assert fine == 1 + 3 * 3 + 16
    path = next(p for p in sorted((made.vault / "customers" / kind).iterdir()))
    path.chmod(mode | (path.stat().st_mode & 0o100))
    with pytest.raises(FileFault, match="is open to other users") as caught:
        check_rights(made.vault)
    (fault,) = caught.value.faults
    assert fault.place == str(path)
    subprocess.run(fault.fix.split(), check=True)
    assert check_rights(made.vault) == fine


def test_many_open_files_are_one_fault_with_their_count(tmp_path):
    made = small_vault(tmp_path / "bank")
    for path in (made.vault / "consents" / "streams").iterdir():
        path.chmod(0o644)
    with pytest.raises(FileFault, match="and 4 more: is open to other users"):
        check_rights(made.vault)


def test_whatever_the_mask_is_what_is_sealed_is_closed(tmp_path):
    before = os.umask(0)
    try:
        made = small_vault(tmp_path / "bank")
    finally:
        os.umask(before)
    assert check_rights(made.vault) == 26


def test_the_preflight_says_all_of_it(tmp_path):
    made = small_vault(tmp_path / "bank")

    def hygiene():
        (check,) = run_checks((name, look) for name, look in checks_here(made, today) if name == "hygiene")
        return check

    said = hygiene()
    assert said.fine
    assert "26 files and folders of the vault are yours alone; no core dumps (limit, undumpable)" in said.said
    (made.vault / "customers").chmod(0o755)
    assert not hygiene().fine
    assert "chmod -R go-rwx" in hygiene().said


UNFORESEEN = """
import sys
import coterie.cli.main as main
import coterie.clients.checkup
def broken(vault):
    row = "canary-id-7f3a91c4"
    try:
        raise KeyError(row)
    except KeyError:
        raise ValueError(f"could not convert {row!r}")
coterie.clients.checkup.check_vault = broken
sys.argv = ["coterie", "partner", "vault", sys.argv[1]]
main.main()
"""


def test_an_unforeseen_error_says_where_it_was_and_no_value(tmp_path, bank):
    script = tmp_path / "unforeseen.py"
    script.write_text(UNFORESEEN)
    done = subprocess.run([sys.executable, str(script), str(bank.root)], capture_output=True, check=False)
    assert done.returncode == 70
    assert b"canary-id-7f3a91c4" not in done.stdout + done.stderr
    assert b"cli/sealing.py" in done.stderr
    assert b"ValueError, unforeseen; its text may hold a value" in done.stderr
