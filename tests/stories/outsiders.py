"""What a partner may try at the coordinator's public port: it holds the authority's certificate and its own node key.

Every attack is a function of an `Attacker` that returns the status of the answer.
"""

import base64
import dataclasses
import datetime
import http.client
import ssl
from collections.abc import Callable, Iterator

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fab_pb2 import Fab
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import AcquireTaskRequest, GetNodesRequest, PullTaskInputRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.date import now as flower_now
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from coterie.clients.bundle import bundle, bundle_digest


@dataclasses.dataclass(frozen=True)
class Attacker:
    """Who attacks, and with what.

    Args:
        address: Host and port.
        authority: The certificate that vouches for the coordinator, PEM.
        key: The attacker's own node key.
        number: Of the attacker's own node.
        victim: Number of another partner's node.
        others: Public keys of other partners' nodes.
    """

    address: tuple[str, int]
    authority: bytes
    key: ec.EllipticCurvePrivateKey
    number: int
    victim: int
    others: tuple[bytes, ...]

    @property
    def server(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"

    def client(self, kind, *more):
        """A client of Flower's own, signing with the attacker's node key."""
        interceptors = [
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(self.key, self.key.public_key()),
            *more,
        ]
        return kind.from_server_address(
            self.server, insecure=False, root_certificates=self.authority, interceptors=interceptors
        )

    def control(self, call: str, request) -> int:
        return self._status(ControlHttpClient, call, request)

    def fleet(self, call: str, request) -> int:
        return self._status(FleetHttpClient, call, request)

    def runtime(self, call: str, request) -> int:
        return self._status(RuntimeHttpClient, call, request, RuntimeTokenHttpInterceptor("0" * 96))

    def _status(self, kind, call, request, *more) -> int:
        with self.client(kind, *more) as client:
            try:
                getattr(client, call)(request)
            except httpx.HTTPStatusError as error:
                return error.response.status_code
        return 200

    def headers(self, *, public: bytes | None = None, seconds: float = 0.0, key=None) -> dict[str, str]:
        """The headers by which Flower knows a node.

        Args:
            public: The key that is claimed; the attacker's own when None.
            seconds: Added to the time that is signed.
            key: What signs; the attacker's own when None.
        """
        at = (flower_now() + datetime.timedelta(seconds=seconds)).isoformat()
        signature = sign_message(key or self.key, at.encode())
        claimed = public_key_to_bytes(self.key.public_key()) if public is None else public
        return {
            "flwr-public-key": base64.b64encode(claimed).decode(),
            "flwr-timestamp": at,
            "flwr-signature": base64.b64encode(signature).decode(),
        }

    def raw(self, method: str, target: str, body: object = b"", headers: dict[str, str] | None = None) -> int:
        """Send a request as it is written here; no library makes a path tidy."""
        context = ssl.create_default_context(cadata=self.authority.decode())
        connection = http.client.HTTPSConnection(*self.address, context=context, timeout=60)
        try:
            sent = {"content-type": PROTOBUF_MEDIA_TYPE, **(self.headers() if headers is None else headers)}
            connection.request(method, target, body=body, headers=sent)
            return connection.getresponse().status
        finally:
            connection.close()

    def heartbeat(self, headers: dict[str, str], number: int | None = None) -> int:
        """Say that a node is alive."""
        beat = SendNodeHeartbeatRequest(node=Node(node_id=number or self.number), heartbeat_interval=30)
        return self.raw("POST", "/v1/fleet/send-node-heartbeat", beat.SerializeToString(), headers)


def node_key(path) -> ec.EllipticCurvePrivateKey:
    return load_ssh_private_key(path.read_bytes(), None)


def _forged(attacker: Attacker) -> PushMessagesRequest:
    """A reply in another node's name, under the attacker's own number."""
    metadata = Metadata(run_id=1, message_id="0" * 64, src_node_id=attacker.victim, reply_to_message_id="1" * 64)
    return PushMessagesRequest(
        node=Node(node_id=attacker.victim),
        messages_list=[Message(metadata=metadata)],
        message_object_trees=[ObjectTree(object_id="0" * 64)],
    )


def _impostor(attacker: Attacker) -> int:
    """Come with a fresh key, and the number of the attacker's node."""
    key = ec.generate_private_key(ec.SECP384R1())
    return attacker.heartbeat(attacker.headers(public=public_key_to_bytes(key.public_key()), key=key))


def gigabyte() -> Iterator[bytes]:
    """A body without a declared end."""
    piece = bytes(1 << 20)
    for _ in range(1024):
        yield piece


OPERATOR: dict[str, Callable[[Attacker], int]] = {
    "lists the runs": lambda a: a.control("ListRuns", ListRunsRequest()),
    "starts a run": lambda a: a.control(
        "StartRun", StartRunRequest(fab=Fab(hash_str=bundle_digest(), content=bundle()))
    ),
    "stops a run": lambda a: a.control("StopRun", StopRunRequest(run_id=1)),
    "lists the nodes": lambda a: a.control("ListNodes", ListNodesRequest()),
    "registers a node": lambda a: a.control("RegisterNode", RegisterNodeRequest(public_key=b"k", name="evil")),
    "unregisters another's node": lambda a: a.control("UnregisterNode", UnregisterNodeRequest(node_id=a.victim)),
    "takes the coordinator's task": lambda a: a.runtime(
        "AcquireTask", AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
    ),
    "pulls the coordinator's input": lambda a: a.runtime("PullTaskInput", PullTaskInputRequest()),
    "asks for the run's nodes": lambda a: a.runtime("GetNodes", GetNodesRequest()),
    "registers itself": lambda a: a.fleet("RegisterNode", RegisterNodeFleetRequest(public_key=b"k")),
    "unregisters another over the fleet's path": lambda a: a.fleet(
        "UnregisterNode", UnregisterNodeFleetRequest(node_id=a.victim)
    ),
    "reads the documentation": lambda a: a.raw("GET", "/docs"),
    "reads the interface": lambda a: a.raw("GET", "/openapi.json"),
    "reads the redoc": lambda a: a.raw("GET", "/redoc"),
}
"""What only the operator, or the coordinator's own app, may do."""

PATHS = {
    "dots": "/v1/fleet/../control/list-runs",
    "dots behind a call": "/v1/fleet/pull-messages/../../control/list-runs",
    "coded dots": "/v1/fleet/%2e%2e/control/list-runs",
    "a coded slash": "/v1/fleet/..%2fcontrol/list-runs",
    "twice coded": "/v1/fleet/%252e%252e/control/list-runs",
    "two slashes": "//v1/control/list-runs",
    "two slashes inside": "/v1/fleet//pull-messages",
    "a backslash": "/v1/fleet/..\\control/list-runs",
    "upper case": "/V1/FLEET/PULL-MESSAGES",
    "a slash at the end": "/v1/fleet/pull-messages/",
    "a query": "/v1/fleet/pull-messages?run=1",
    "a parameter": "/v1/fleet/pull-messages;x=1",
    "a coded end": "/v1/fleet/pull-messages%00",
    "a whole address": "https://127.0.0.1/v1/control/list-runs",
    "nothing": "/",
}
"""Ways of writing a path that two servers may read differently."""

METHODS = ("GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")

IDENTITY: dict[str, Callable[[Attacker], int]] = {
    "names no key": lambda a: a.heartbeat({}),
    "names a key that is no text": lambda a: a.heartbeat({"flwr-public-key": "%%%"}),
    "is an impostor with a key of its own": _impostor,
    "names another's key and signs with its own": lambda a: a.heartbeat(a.headers(public=a.others[0]), a.victim),
    "names another's key and signs nothing": lambda a: a.heartbeat(
        {"flwr-public-key": base64.b64encode(a.others[0]).decode()}, a.victim
    ),
    "replays a signature of ten minutes ago": lambda a: a.heartbeat(a.headers(seconds=-600)),
    "signs for ten minutes ahead": lambda a: a.heartbeat(a.headers(seconds=600)),
    "speaks for another's node": lambda a: a.heartbeat(a.headers(), a.victim),
    "pulls another's messages": lambda a: a.fleet("PullMessages", PullMessagesRequest(node=Node(node_id=a.victim))),
    "answers in another's name": lambda a: a.fleet("PushMessages", _forged(a)),
    "takes another's node off": lambda a: a.fleet("DeactivateNode", DeactivateNodeRequest(node_id=a.victim)),
    "activates another's key": lambda a: a.fleet(
        "ActivateNode", ActivateNodeRequest(public_key=a.others[0], heartbeat_interval=30)
    ),
}
"""What rests on who somebody is."""
