"""A partner's machine of its own: a network namespace, a veth pair to the coordinator's, and a relay inside.

The partner connects to localhost, as all partners here do; in its namespace the relay takes that to the gateway, over a
link that can be cut (`partitioned`), narrowed by a token bucket and delayed (`slow`).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

RELAY = Path(__file__).with_name("relay.py")


def missing() -> list[str]:
    """Return what this machine lacks for faults that need an administrator."""
    lacking = [] if os.geteuid() == 0 else ["the rights of root"]
    return lacking + [f"the program {name}" for name in ("ip", "tc", "mount", "umount") if shutil.which(name) is None]


def told(*command: str) -> None:
    """Run a command of the system."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


class Link:
    """A namespace with one link out of it.

    Args:
        number: Makes names and addresses that no other test has.
        port: Where the partner connects on its localhost.
        gateway: Port of the gateway on the host's side.
    """

    def __init__(self, number: int, port: int, gateway: int) -> None:
        self.name, self._port, self._gateway = f"faults{number}", port, gateway
        self._outer, self._inner = f"fo{number}", f"fi{number}"
        self._net = f"10.{200 + number // 256 % 50}.{number % 256}"
        self._relay: subprocess.Popen[bytes] | None = None

    def inside(self, command: Sequence[str]) -> list[str]:
        """Return a command that runs in the namespace."""
        return ["ip", "netns", "exec", self.name, *command]

    @contextmanager
    def up(self) -> Iterator["Link"]:
        """Make the namespace, the link and the relay, and take them away at the end."""
        told("ip", "netns", "add", self.name)
        try:
            told("ip", "link", "add", self._outer, "type", "veth", "peer", "name", self._inner)
            told("ip", "link", "set", self._inner, "netns", self.name)
            told("ip", "addr", "add", f"{self._net}.1/24", "dev", self._outer)
            told("ip", "link", "set", self._outer, "up")
            told(*self.inside(["ip", "addr", "add", f"{self._net}.2/24", "dev", self._inner]))
            told(*self.inside(["ip", "link", "set", self._inner, "up"]))
            told(*self.inside(["ip", "link", "set", "lo", "up"]))
            self.carry()
            yield self
        finally:
            self.drop()
            subprocess.run(["ip", "link", "del", self._outer], capture_output=True, check=False)  # noqa: S607
            told("ip", "netns", "del", self.name)

    def carry(self, seconds: float = 0.0) -> None:
        """Start the relay, so that connections can be made; those of before are cut."""
        self.drop()
        ends = [f"127.0.0.1:{self._port}", f"{self._net}.1:{self._gateway}", str(seconds)]
        self._relay = subprocess.Popen(self.inside([sys.executable, str(RELAY), *ends]))

    def drop(self) -> None:
        """Cut every connection."""
        if self._relay is not None:
            self._relay.kill()
            self._relay.wait()
            self._relay = None

    def partition(self) -> None:
        """Take the link down; packets are lost, and nobody is told."""
        told("ip", "link", "set", self._outer, "down")

    def heal(self) -> None:
        """Take the link up again."""
        told("ip", "link", "set", self._outer, "up")

    def slow(self, seconds: float) -> None:
        """Narrow the link to 512 kbit/s in both directions, and delay what goes through it."""
        narrow = ["root", "tbf", "rate", "512kbit", "burst", "16kb", "latency", "2s"]
        told("tc", "qdisc", "add", "dev", self._outer, *narrow)
        told(*self.inside(["tc", "qdisc", "add", "dev", self._inner, *narrow]))
        self.carry(seconds)

    def fast(self) -> None:
        """Take the narrowing away."""
        told("tc", "qdisc", "del", "dev", self._outer, "root")
        told(*self.inside(["tc", "qdisc", "del", "dev", self._inner, "root"]))
        self.carry()


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """Put a folder, with what it holds, on a disk of its own for a while; what it holds then is kept."""
    aside = folder.with_name(folder.name + ".aside")
    shutil.copytree(folder, aside, symlinks=True)
    told("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(folder))
    try:
        shutil.copytree(aside, folder, symlinks=True, dirs_exist_ok=True)
        folder.chmod(0o700)
        yield
    finally:
        (folder / "filler").unlink(missing_ok=True)
        shutil.rmtree(aside)
        shutil.copytree(folder, aside, symlinks=True)
        told("umount", str(folder))
        shutil.rmtree(folder)
        aside.rename(folder)


def fill(folder: Path) -> None:
    """Write until there is no room left."""
    with (folder / "filler").open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def empty(folder: Path) -> None:
    """Make room again."""
    (folder / "filler").unlink(missing_ok=True)
