"""A partner's SuperNode: Flower's own, with four things held to what a partner signs off.

    python -m coterie.clients.running.supernode WORKSPACE

- Only the bundle of the installed coterie is taken; any other is refused before it is stored (`bundle.py`).
- The app runs in a process of ours (`worker.py`): Flower's "process" isolation, a loopback port, a secret.
- Flower waits three seconds between questions; this one asks often while a study is at work, and rarely otherwise.
  When a message is there with all its pieces, it rings for the worker.
- After a crash Flower believes the old SuperNode to be online for a minute and refuses the new one; this one takes
  its old registration back first.

The names of Flower that are replaced here are private to it. `flwr` is pinned, and `tests/clients/test_supernode.py`
goes red when one of them changes its meaning.
"""

import hashlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Message
from flwr.proto.fleet_pb2 import DeactivateNodeRequest
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.run import RunNotRunningException
from flwr.supernode import start_client_internal as flower
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.main import create_app
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from flwr.supernode.nodestate import NodeStateFactory

from coterie.clients.bundle import bundle_digest
from coterie.clients.folding import soon
from coterie.clients.joined import joined
from coterie.clients.running.runtime import announce, ring
from coterie.clients.workspace import Workspace
from coterie.privacy.clock import now
from coterie.privacy.durable import write_durably
from coterie.privacy.errors import CoterieError, Fault, FileFault
from coterie.privacy.joining.forms import JoinFault

__all__ = ["Pace", "guard", "main"]

Keys = tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey]

_REFUSED = (
    "see the lines above; at 401 the admission was revoked or has expired, or this clock is wrong: ask the "
    "coordinator; else wait until it is back"
)
_ALLOWED = {"coterie": "the installed bundle"}  # Flower looks at bundles only where it is given somebody to trust


class Pace:
    """How long the SuperNode waits between questions.

    Args:
        monotonic: Clock in seconds.
        sleep: Waits so many seconds.
        busy: Seconds between questions right after a message.
        idle: Seconds between questions, at most.
        share: Between the two, of the seconds since the last message: no study becomes slower by more than this.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        *,
        busy: float = 0.2,
        idle: float = 2.0,
        share: float = 0.1,
    ) -> None:
        self._monotonic, self._sleep = monotonic, sleep
        self._busy, self._idle, self._share = busy, idle, share
        self._last = monotonic()

    def message(self) -> None:
        """Note that a message came."""
        self._last = self._monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait in place of Flower: never longer than it would."""
        if seconds < 1:  # Flower waits for the answer of the app, in this machine
            self._sleep(min(seconds, 0.02))
            return
        since = self._monotonic() - self._last
        self._sleep(min(seconds, self._idle, max(self._busy, self._share * since)))


def guard(pace: Pace, remember: Callable[[int], None], wake: Callable[[], None]) -> None:
    """Put the four things into Flower's SuperNode, in this process.

    Args:
        pace: How long to wait.
        remember: Called with the node's number once it is known.
        wake: Called when a message is there, whole.
    """
    connect = flower._init_connection  # noqa: SLF001 - Flower has no public seam here

    @contextmanager
    def guarded(*args: Any, **kwargs: Any) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401 - Flower's own
        with connect(*args, **kwargs) as (node, receive, send, get_run, get_fab, pull, push, confirm):
            remember(node)

            def received() -> tuple[Message, ObjectTree] | None:
                message: tuple[Message, ObjectTree] | None = receive()
                if message is not None:
                    pace.message()
                return message

            def vouched(fab_hash: str, run: int) -> Fab:
                fab = get_fab(fab_hash, run)
                # Flower asks for a licence before it asks who signed; who signed is decided below, by the digest.
                return Fab(fab.hash_str, fab.content, {"valid_license": "Valid"})

            def confirmed(run: int, message: str) -> None:
                _ordinary(confirm)(run, message)  # Flower does so once it has all pieces
                wake()

            def sent(message: Message, tree: ObjectTree, seconds: float) -> tuple[set[str], str]:
                del seconds  # how long the app took, to the microsecond, would tell of the table
                answer: tuple[set[str], str] = send(message, tree, 0.0)
                return answer

            yield (node, received, sent, get_run, vouched, _ordinary(pull), push, confirmed)

    def installed(fab: Fab, trusted_entities: dict[str, str]) -> bool:
        del trusted_entities
        return hashlib.sha256(fab.content).hexdigest() == bundle_digest()

    flower._init_connection = guarded  # noqa: SLF001
    flower._verify_fab = installed  # noqa: SLF001
    flower.time = pace  # type: ignore[assignment,attr-defined]  # it uses `sleep` alone


def _ordinary(call: Callable[..., Any]) -> Callable[..., Any]:
    """Make the end of a run, while a message of it is fetched, an error like any other.

    Flower's own is none, and passes by what clears up after errors. The worker would wait for two hours for the rest of
    a message that never comes.
    """

    def called(*args: Any) -> Any:  # noqa: ANN401 - Flower's own
        try:
            return call(*args)
        except RunNotRunningException:
            raise RuntimeError("the run is over") from None

    return called


def main(folder: Path) -> None:
    """Run the SuperNode of a workspace until it is told to stop.

    Args:
        folder: The workspace.

    Raises:
        FileFault: The workspace has not joined a federation, or a file of it is wrong.
        JoinFault: The admission has ended, or is for another version of coterie; or the coordinator does not take the
            node, or took it no longer.
    """
    workspace = Workspace(folder)
    admission = joined(workspace)
    admission.check_dates(now())  # it may have ended since the service was started
    admission.check_bundle(f"sha256:{bundle_digest()}")
    private = load_ssh_private_key(workspace.node_key.read_bytes(), None)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise FileFault(Fault(str(workspace.node_key), "is not a NIST key", "restore it, or join anew"))
    keys = (private, private.public_key())
    authority = admission.authority.encode()
    known = workspace.run / "node"
    if known.exists():
        _take_back(admission.address, authority, keys, int(known.read_text(encoding="ascii")))
    states = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
    listening = socket.create_server(("127.0.0.1", 0))
    met = announce(workspace.run, listening.getsockname()[1])
    soon()
    guard(Pace(), lambda node: write_durably(known, str(node).encode()), lambda: ring(met))
    _serve(states, listening, met.secret.encode())
    flower.register_signal_handlers = _refusable(flower.register_signal_handlers)  # type: ignore[attr-defined]
    try:
        flower.start_client_internal(
            state_factory=states,
            server_address=admission.address,
            node_config={},
            root_certificates=authority,
            insecure=False,
            authentication_keys=keys,
            isolation="process",
            runtime_api_address=f"127.0.0.1:{met.port}",
            trusted_entities=_ALLOWED,
            superexec_auth_secret=met.secret.encode(),
        )
    except SystemExit as ended:
        if not ended.code:
            raise  # it was told to stop
    raise _not_taken(admission.address)


def _not_taken(address: str) -> JoinFault:
    return JoinFault(Fault(address, "does not take this node, or no longer", _REFUSED))


def _refusable(register: Callable[..., None]) -> Callable[..., None]:
    """Return Flower's way of hearing signals, with a word where it sends itself one: at 401 it ends without any."""

    def refused(*_: object) -> None:
        raise _not_taken("the coordinator")  # Flower logs it, and comes back to `main`

    def registered(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Flower's own
        register(*args, **kwargs)
        signal.signal(signal.SIGINT, refused)  # the supervisor asks by SIGTERM

    return registered


def _serve(states: NodeStateFactory, listening: socket.socket, secret: bytes) -> None:
    """Serve Flower's Runtime API on the loopback interface, in a thread that ends with the process."""
    app = create_app(state_factory=states, superexec_auth_secret=secret)
    server = uvicorn.Server(uvicorn.Config(app=app, access_log=False, log_level="warning", workers=1))
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="runtime-api", daemon=True).start()


def _take_back(address: str, authority: bytes, keys: Keys, node: int) -> None:
    """Tell the coordinator that the SuperNode of before a crash is gone; where it says no, there was none."""
    interceptors: list[ProtobufClientInterceptor] = [
        RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        NodeAuthHttpInterceptor(*keys),
    ]
    try:
        with FleetHttpClient.from_server_address(address, False, authority, interceptors=interceptors) as client:  # noqa: FBT003
            client.DeactivateNode(DeactivateNodeRequest(node_id=node))
    except (httpx.HTTPError, RuntimeError):
        return  # not reachable, or offline already: Flower's own start says more


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        main(Path(sys.argv[1]))
    except CoterieError as error:
        sys.exit("\n".join(str(fault) for fault in error.faults))
