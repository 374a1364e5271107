"""What the coordinator's operator does at Flower's SuperLink: nodes and runs, over its Control API on the loopback.

The Control API of Flower has no authentication of its own. It is safe where nobody but this machine reaches it, which
is what the gateway is for (`gateway.py`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from coterie.clients.bundle import bundle, bundle_digest
from coterie.privacy.errors import CoterieError, Fault

__all__ = ["LinkFault", "LinkRefused", "Node", "Operator", "RunStanding", "node_bytes", "operator"]


class LinkFault(CoterieError):
    """The SuperLink does not answer, or says no."""


class LinkRefused(LinkFault):
    """The SuperLink says no."""


@dataclass(frozen=True)
class Node:
    """A node that the SuperLink knows.

    Args:
        number: Flower's.
        key: Its public key as Flower keeps it.
        online: Whether it is connected.
        name: As registered.
    """

    number: int
    key: bytes
    online: bool
    name: str


@dataclass(frozen=True)
class RunStanding:
    """Where a run of Flower stands.

    Args:
        status: "pending", "starting", "running" or "finished".
        ending: "completed", "failed", "stopped", or "" while it goes on.
    """

    status: str
    ending: str

    @property
    def over(self) -> bool:
        """Return whether nothing works on it any more."""
        return self.status == "finished"


def node_bytes(key: str) -> bytes:
    """Return a node's public key in Flower's form.

    Args:
        key: In OpenSSH's form.
    """
    return public_key_to_bytes(load_ssh_public_key(key.encode()))  # type: ignore[arg-type]  # a NIST key: admitted


class Operator:
    """The coordinator's hand at its SuperLink.

    Args:
        client: Connected to the Control API.
    """

    def __init__(self, client: ControlHttpClient) -> None:
        self._client = client

    def nodes(self) -> tuple[Node, ...]:
        """Return the nodes that are registered."""
        with _told("list the nodes"):
            listed = self._client.ListNodes(ListNodesRequest()).nodes_info
        known = [node for node in listed if node.status != "unregistered"]
        return tuple(Node(node.node_id, node.public_key, node.status == "online", node.name) for node in known)

    def register(self, key: bytes, name: str) -> int:
        """Register a node's public key and return its number."""
        with _told("register a node"):
            return int(self._client.RegisterNode(RegisterNodeRequest(public_key=key, name=name)).node_id)

    def unregister(self, number: int) -> None:
        """Take a node's registration back; it is refused from then on."""
        with _told("take a node's registration back"):
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=number))

    def start(self, plan: str) -> int:
        """Start a run for a plan and return its number.

        Args:
            plan: Digest of a plan that is in the books.
        """
        request = StartRunRequest(
            fab=Fab(hash_str=bundle_digest(), content=bundle()), override_config=user_config_to_proto({"plan": plan})
        )
        with _told("start a run"):
            number = int(self._client.StartRun(request).run_id)
        if not number:
            raise LinkFault(Fault("the SuperLink", "did not start the run", "see its log"))
        return number

    def standing(self, number: int) -> RunStanding:
        """Return where a run stands."""
        with _told("say where a run stands"):
            run = self._client.ListRuns(ListRunsRequest(run_id=number)).run_dict[number]
        return RunStanding(run.status.status, run.status.sub_status)

    def stop(self, number: int) -> None:
        """Stop a run at once; what is published can be resumed."""
        with _told("stop a run"):
            self._client.StopRun(StopRunRequest(run_id=number))


@contextmanager
def operator(port: int, authority: Path) -> Iterator[Operator]:
    """Connect to the SuperLink of this machine.

    Args:
        port: Of the SuperLink on the loopback interface.
        authority: The certificate that vouches for it, PEM.
    """
    client = ControlHttpClient.from_server_address(
        f"127.0.0.1:{port}",
        False,  # noqa: FBT003 - Flower's signature
        authority.read_bytes(),
        [RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    )
    try:
        yield Operator(client)
    finally:
        client.close()


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn what goes wrong on the way into a fault that names the fix."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        rule = f"would not {what} (status {error.response.status_code})"
        raise LinkRefused(Fault("the SuperLink", rule, "see its log")) from None
    except httpx.HTTPError as error:
        rule = f"could not be asked to {what} ({type(error).__name__})"
        raise LinkFault(Fault("the SuperLink", rule, "start it with: coterie coordinator start FOLDER")) from None
