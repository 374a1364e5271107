"""The in-process engine: Flower's `Grid` over the very same client app, without Ray or a network.

Every message is written to Flower's own wire format and read back, in both directions, so that what could not
travel does not travel here either. One process, one model: partners work one after another.
"""

import copy
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["LocalGrid", "run_local"]

_RUN, _SERVER, _TASK = 1, 1, 1
_FIRST_NODE = 1000


class LocalGrid(Grid):
    """A grid whose nodes live in this process.

    Args:
        client: The partners' app.
        nodes: Configuration of each node, as its SuperNode would have it.
    """

    def __init__(self, client: ClientApp, nodes: Iterable[Mapping[str, Any]]) -> None:
        self._client = client
        self._run = Run.create_empty(_RUN)
        self._contexts = {
            number: Context(_RUN, number, dict(config), RecordDict(), {})
            for number, config in enumerate(nodes, start=_FIRST_NODE)
        }
        self._sent: dict[str, Message] = {}
        # Flower stamps every message with the identity of the task that makes it.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = _RUN, _SERVER, _TASK

    def set_run(self, run: Run) -> None:
        """Take a run's description."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run's description."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message; Flower's older way of saying it."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> list[int]:
        """Return the nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Take messages; each is answered when its reply is pulled."""
        pushed = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = uuid.uuid4().hex
            self._sent[message.metadata.message_id] = message
            pushed.append(message.metadata.message_id)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Answer messages one by one, as they are pulled, so that progress can be shown."""
        for message_id in list(message_ids):
            message = self._sent.pop(message_id, None)
            if message is not None:
                yield self._answer(message)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push messages and pull every reply."""
        del timeout  # a call in this process has no network to wait for
        return list(self.pull_messages(self.push_messages(messages)))

    def _answer(self, message: Message) -> Message:
        request = copy.copy(message)  # the coordinator's apps may share one content among messages
        request.content = _travelled(message.content)
        try:
            reply: Message = self._client(request, self._contexts[message.metadata.dst_node_id])
        except Exception as error:  # noqa: BLE001 - Flower's SuperNode answers any crash with an error, and so do we
            return Message(Error(code=2, reason=type(error).__name__), reply_to=message)
        if not reply.has_error():
            reply.content = _travelled(reply.content)
        return reply


def run_local(server: ServerApp, client: ClientApp, nodes: Iterable[Mapping[str, Any]]) -> None:
    """Run a server app against client nodes in this process."""
    grid = LocalGrid(client, nodes)
    server(grid=grid, context=Context(_RUN, _SERVER, {}, RecordDict(), {}))


def _travelled(content: RecordDict) -> RecordDict:
    """Return content as it arrives: through Flower's protocol buffers and back."""
    wire = recorddict_to_proto(content).SerializeToString()
    return recorddict_from_proto(ProtoRecordDict.FromString(wire))
