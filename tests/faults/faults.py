"""The faults that are injected into real processes, by kind, and how each is taken back."""

import dataclasses
import datetime
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from coterie.privacy.clock import now
from coterie.privacy.durable import write_durably
from coterie.privacy.joining.certificates import Pair, issue_server
from coterie.server.certified import renew
from coterie.server.office import Office
from coterie.tests.faults.harness import DEADLINE, World
from coterie.tests.faults.network import Link, empty, fill

AGAIN = min(20.0, DEADLINE / 3)
"""Seconds of silence after which a question is asked again, as the deployed coordinator has it."""
_HOURS = 20 * 3600.0  # a day's jump would also be beyond what an auditor takes for two clocks
_MINUTES = 200.0  # within what Flower takes for two clocks

PARTNER, COORDINATOR, MESSAGE, LINK = "partner", "coordinator", "message", "link"


@dataclass
class Injected:
    """A fault that was injected.

    Args:
        seconds: Until it is to be taken back.
        undo: Takes it back.
        happened: Says whether it happened; a message's fault waits for its message.
    """

    seconds: float = 0.0
    undo: Callable[[], None] = lambda: None
    happened: Callable[[], bool] = lambda: True


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Args:
        name: As the table has it.
        at: Where: "partner", "coordinator", "message" (of a partner), or "link" (of the linked partner).
        count: How often it is injected in the whole suite.
        do: Injects it at a partner, "" for the coordinator.
        away: Whether the partner is gone for longer than the deadline, and so has to be named.
        alone: Whether nothing else is injected meanwhile.
    """

    name: str
    at: str
    count: int
    do: Callable[[World, str, random.Random], Injected] = field(compare=False)
    away: bool = False
    alone: bool = False


def kill(program: str) -> Callable[[World, str, random.Random], Injected]:
    """kill -9 of a process that its supervisor starts again."""

    def do(world: World, who: str, draw: random.Random) -> Injected:
        service = world.partners[who] if who else world.coordinator
        service.signal(program, signal.SIGKILL)
        return Injected()

    return do


def freeze(program: str, seconds: tuple[float, float]) -> Callable[[World, str, random.Random], Injected]:
    """SIGSTOP, and SIGCONT after a while; nobody sees a process that died."""

    def do(world: World, who: str, draw: random.Random) -> Injected:
        service = world.partners[who] if who else world.coordinator
        pid = service.signal(program, signal.SIGSTOP)

        def go_on() -> None:
            if service.find(program) == pid:
                service.signal(program, signal.SIGCONT)

        return Injected(draw.uniform(*seconds), go_on)

    return do


def kill_service(world: World, who: str, draw: random.Random) -> Injected:
    """kill -9 of a supervisor, whose processes die with it; an init system starts it again."""
    service = world.partners[who] if who else world.coordinator
    service.kill()
    return Injected(draw.uniform(0.0, 3.0), service.start)


def restart(world: World, who: str, draw: random.Random) -> Injected:
    """Stop a service as an operator does, and start it again."""
    service = world.partners[who] if who else world.coordinator
    service.stop()
    return Injected(draw.uniform(0.0, 2.0), service.start)


def old_version(world: World, who: str, draw: random.Random) -> Injected:
    """Run the partner with an older coterie, whose bundle is another, and then with the right one again."""
    service = world.partners[who]
    service.stop()
    service.start({"FAULTS_OLD": "1"})

    def upgrade() -> None:
        service.stop()
        service.start()

    return Injected(DEADLINE + 15.0, upgrade)


def full_disk(world: World, who: str, draw: random.Random) -> Injected:
    """Fill the disk that a workspace, or the coordinator's folder, lies on, and make room again."""
    folder = world.site.workspaces[who] if who else world.site.office.root
    fill(folder)
    return Injected(draw.uniform(3.0, 9.0), lambda: empty(folder))


def clock(seconds: float) -> Callable[[World, str, random.Random], Injected]:
    """Move the clock of a partner's running processes, forth or back, and put it right again."""

    def do(world: World, who: str, draw: random.Random) -> Injected:
        place = world.clocks[who]
        place.write_text(str(draw.choice((-1, 1)) * seconds))
        return Injected(draw.uniform(3.0, 8.0) if seconds < 300 else DEADLINE + AGAIN, lambda: place.write_text("0"))

    return do


def expired(office: Office) -> Pair:
    """Return a certificate of the office's authority that expired a minute ago."""
    authority = Pair(office.authority_key.read_bytes(), office.loopback_authority.read_bytes())
    good = issue_server(authority, "localhost", now())
    model = x509.load_pem_x509_certificate(good.certificate)
    signing = load_pem_private_key(authority.key, password=None)
    builder = (
        x509.CertificateBuilder()
        .subject_name(model.subject)
        .issuer_name(model.issuer)
        .public_key(model.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - datetime.timedelta(minutes=50))
        .not_valid_after(now() - datetime.timedelta(minutes=1))
    )
    for extension in model.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    if not isinstance(signing, ec.EllipticCurvePrivateKey):
        raise TypeError
    return dataclasses.replace(good, certificate=builder.sign(signing, SHA384()).public_bytes(Encoding.PEM))


def expired_certificate(world: World, who: str, draw: random.Random) -> Injected:
    """Let the gateway's certificate be past its time for a while; what connects anew meanwhile is not let in."""
    office, link = world.site.office, _link(world)
    pair = expired(office)
    write_durably(office.loopback_key, pair.key)
    write_durably(office.loopback_certificate, pair.certificate)
    time.sleep(6.0)  # the gateway looks every five seconds
    link.carry()

    def renewed() -> None:
        renew(office, now())

    return Injected(draw.choice((3.0, DEADLINE + AGAIN)), renewed)


def slow_link(world: World, who: str, draw: random.Random) -> Injected:
    """Narrow the partner's link and delay what goes through it."""
    link = _link(world)
    link.slow(draw.uniform(0.1, 0.4))
    return Injected(draw.uniform(8.0, 15.0), link.fast)


def partition(seconds: tuple[float, float]) -> Callable[[World, str, random.Random], Injected]:
    """Take the partner's link down, so that its packets are lost, and up again."""

    def do(world: World, who: str, draw: random.Random) -> Injected:
        link = _link(world)
        link.partition()
        return Injected(draw.uniform(*seconds), link.heal)

    return do


def _link(world: World) -> Link:
    if world.link is None:
        raise RuntimeError("a link's fault needs the linked partner")
    return world.link


def message(kind: str, seconds: tuple[float, float] = (0.0, 0.0)) -> Callable[[World, str, random.Random], Injected]:
    """Have the middle do something to a partner's next message."""

    def do(world: World, who: str, draw: random.Random) -> Injected:
        already = len(world.middle.done)
        world.middle.arm(who, kind, draw.uniform(*seconds))

        def happened() -> bool:
            return (who, kind) in world.middle.done[already:]

        def give_up() -> None:
            end = time.monotonic() + AGAIN + 10.0  # a message that was lost is asked for again
            while not happened() and time.monotonic() < end:
                time.sleep(0.05)
            if not happened():
                world.middle.armed[who].clear()

        return Injected(0.0, give_up, happened)

    return do


KINDS = (
    Kind("kill -9 of a partner's worker", PARTNER, 24, kill("worker")),
    Kind("kill -9 of a SuperNode", PARTNER, 24, kill("supernode")),
    Kind("kill -9 of a partner's service", PARTNER, 14, kill_service),
    Kind("restart of a partner", PARTNER, 10, restart),
    Kind("kill -9 of the study's process", COORDINATOR, 10, kill("serverapp")),
    Kind("kill -9 of the gateway", COORDINATOR, 12, kill("gateway")),
    Kind("kill -9 of the SuperLink", COORDINATOR, 8, kill("superlink")),
    Kind("kill -9 of the executor", COORDINATOR, 6, kill("superexec")),
    Kind("kill -9 of the coordinator's service", COORDINATOR, 6, kill_service),
    Kind("restart of the coordinator", COORDINATOR, 5, restart),
    Kind("worker frozen, asked again meanwhile", PARTNER, 12, freeze("worker", (AGAIN + 0.5, AGAIN + 3))),
    Kind("SuperNode frozen, asked again meanwhile", PARTNER, 12, freeze("supernode", (AGAIN + 0.5, AGAIN + 3))),
    Kind("gateway frozen, asked again meanwhile", COORDINATOR, 6, freeze("gateway", (AGAIN + 0.5, AGAIN + 3))),
    Kind("worker hangs past the deadline", PARTNER, 3, freeze("worker", (DEADLINE + 8, DEADLINE + 10)), away=True),
    Kind("slow link", LINK, 6, slow_link),
    Kind("partitioned link", LINK, 8, partition((1.0, 10.0))),
    Kind("partitioned link past the deadline", LINK, 2, partition((DEADLINE + 8, DEADLINE + 10)), away=True),
    Kind("full disk at a partner", PARTNER, 8, full_disk),
    Kind("full disk at the coordinator", COORDINATOR, 4, full_disk, alone=True),
    Kind("expired certificate", LINK, 3, expired_certificate, alone=True),
    Kind("clock jump of 200 seconds", PARTNER, 8, clock(_MINUTES)),
    Kind("clock jump of 20 hours", PARTNER, 3, clock(_HOURS), away=True),
    Kind("old version of a partner", PARTNER, 2, old_version, away=True),
    Kind("message duplicated", MESSAGE, 28, message("duplicated")),
    Kind("message delivered twice", MESSAGE, 28, message("delivered twice")),
    Kind("old message after a newer one", MESSAGE, 24, message("stale after newer")),
    Kind("message delayed", MESSAGE, 20, message("delayed", (0.5, AGAIN + 3))),
    Kind("acknowledgement lost", MESSAGE, 20, message("acknowledgement lost")),
    Kind("message lost", MESSAGE, 20, message("lost")),
)
"""Every kind, and how often the whole suite injects it."""
