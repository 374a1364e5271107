"""Whether the coordinator can be reached, is who the admission says, and knows this partner's node."""

import datetime
import email.utils
import socket
import ssl
from collections.abc import Callable, Iterator

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from coterie.clients.joined import joined
from coterie.clients.preflight import Clock, PreflightFault
from coterie.clients.workspace import Workspace
from coterie.privacy.errors import Fault
from coterie.privacy.joining.admission import Admission, endpoint
from coterie.processes.held import running

__all__ = ["checks_there"]

_SKEW = 120.0  # seconds; Flower takes signatures that are up to 300 seconds old
_SOON = datetime.timedelta(days=14)
_SECONDS = 10.0
_FIXES = {
    401: "ask whether the admission was revoked or has expired, and join again",
    412: "wait a minute, it may just have been admitted or have crashed; or see whether it runs on another machine",
    503: "wait a minute, the coordinator may be starting; or ask whether its service runs",
}


def checks_there(workspace: Workspace, clock: Clock) -> Iterator[tuple[str, Callable[[], str]]]:
    """Return the checks that need the network.

    The running node takes no proxy from its environment, so these should be run without one (`quiet_environment`).

    Args:
        workspace: The partner's.
        clock: Returns the time in UTC.
    """
    if not (workspace.root / "coterie.toml").is_file():
        return  # the first of the checks without a network says so
    yield "coordinator", lambda: _certificate(joined(workspace), clock)
    yield "clock", lambda: _clock(joined(workspace), clock)
    yield "node", lambda: _node(workspace)


def _certificate(admission: Admission, clock: Clock) -> str:
    """Shake hands, and look when the server's certificate ends."""
    host, port = endpoint(admission.address)
    context = ssl.create_default_context(cadata=admission.authority)
    try:
        with (
            socket.create_connection((host, port), timeout=_SECONDS) as raw,
            context.wrap_socket(raw, server_hostname=host) as secure,
        ):
            told = secure.getpeercert() or {}
            version = secure.version()
    except ssl.SSLCertVerificationError as error:
        rule = f"shows a certificate that is not accepted ({error.verify_message})"
        fix = "ask the coordinator to renew it; check this machine's clock"
        raise PreflightFault(Fault(admission.address, rule, fix)) from None
    except OSError as error:
        rule = f"cannot be reached ({error.strerror or type(error).__name__})"
        raise PreflightFault(
            Fault(admission.address, rule, "check network and firewall, or ask whether it runs")
        ) from None
    ends = datetime.datetime.fromtimestamp(ssl.cert_time_to_seconds(str(told["notAfter"])), datetime.UTC)
    if ends - clock() < _SOON:
        rule = f"shows a certificate that ends on {ends.date()}"
        raise PreflightFault(Fault(admission.address, rule, "ask the coordinator to renew it"))
    return f"{admission.address} answers, {version}, certificate until {ends.date()}"


def _clock(admission: Admission, clock: Clock) -> str:
    """Compare clocks by the date that the gateway's health page carries."""
    context = ssl.create_default_context(cadata=admission.authority)
    try:
        answer = httpx.get(f"https://{admission.address}/health", verify=context, timeout=_SECONDS, trust_env=False)
        there = email.utils.parsedate_to_datetime(answer.headers["date"])
    except (httpx.HTTPError, KeyError, ValueError) as error:
        rule = f"does not tell its time ({type(error).__name__})"
        raise PreflightFault(Fault(admission.address, rule, "ask whether its gateway runs")) from None
    skew = (clock() - there).total_seconds()
    if abs(skew) > _SKEW:
        rule = f"differs from the coordinator's by {abs(skew):.0f} seconds, more than {_SKEW:.0f}"
        raise PreflightFault(Fault("this machine's clock", rule, "synchronise both clocks (NTP)"))
    return f"within {max(1.0, abs(skew)):.0f} s of the coordinator's"


def _node(workspace: Workspace) -> str:
    """Show the node's key once, where the node does not run and so shows it all the time."""
    if running(workspace.run) is not None:
        return "runs; see: coterie partner status"
    admission = joined(workspace)
    private = load_ssh_private_key(workspace.node_key.read_bytes(), None)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise PreflightFault(Fault(str(workspace.node_key), "is not a NIST key", "restore it, or join anew"))
    public = private.public_key()
    calls: list[ProtobufClientInterceptor] = [
        RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        NodeAuthHttpInterceptor(private, public),
    ]
    request = ActivateNodeRequest(public_key=public_key_to_bytes(public), heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
    authority = admission.authority.encode()
    try:
        with FleetHttpClient.from_server_address(admission.address, False, authority, interceptors=calls) as client:  # noqa: FBT003 - Flower's signature
            number = client.ActivateNode(request).node_id
            client.DeactivateNode(DeactivateNodeRequest(node_id=number))
    except httpx.HTTPStatusError as error:
        rule = f"is not taken by the coordinator (status {error.response.status_code})"
        fix = _FIXES.get(error.response.status_code, "ask the coordinator to look into its gateway's log")
        raise PreflightFault(Fault("this node's key", rule, fix)) from None
    except (httpx.HTTPError, ValueError) as error:  # Flower's ValueError: what answers is no SuperLink
        rule = f"could not be shown ({type(error).__name__})"
        raise PreflightFault(Fault("this node's key", rule, "see the checks before this one")) from None
    return "its key is known to the coordinator"
