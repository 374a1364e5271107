"""Flower's grid as a deployed study uses it: small contents folded, and what goes and comes counted."""

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.superlink.grid import HttpGrid

from coterie.clients.folding import WireFault, fold, unfold

__all__ = ["FoldingGrid", "size_of"]


class FoldingGrid(Grid):
    """A grid before Flower's own.

    Args:
        grid: Flower's.
    """

    def __init__(self, grid: HttpGrid) -> None:
        self._grid = grid
        self.sent = self.received = 0
        """Bytes of arrays and headers in messages, without Flower's framing."""

    def set_run(self, run: Run) -> None:
        """Take a run's description."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run's description."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message; Flower's older way of saying it."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return what Flower knows of the nodes that are online."""
        return self._grid.get_nodes()

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that are online."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages, folded where they are small."""
        pushing = []
        for message in messages:
            meta = message.metadata
            self.sent += size_of(message.content)
            folded = fold(message.content)
            pushing.append(
                Message(folded, dst_node_id=meta.dst_node_id, message_type=meta.message_type, group_id=meta.group_id)
            )
        return self._grid.push_messages(pushing)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there; what cannot be unfolded is for the caller to refuse."""
        pulled = list(self._grid.pull_messages(message_ids))
        for message in pulled:
            if message.has_content():
                self.received += size_of(message.content)
                try:
                    message.content = unfold(message.content)
                except WireFault:
                    continue
        return pulled

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Refuse: Flower's own way of waiting has no place in a study (see `server/exchange.py`)."""
        raise NotImplementedError


def size_of(content: RecordDict) -> int:
    """Return the bytes of a content's arrays and texts."""
    size = 0
    for record in content.values():
        if isinstance(record, ArrayRecord):
            size += sum(len(array.data) for array in record.values())
        elif isinstance(record, ConfigRecord):
            size += sum(len(value) if isinstance(value, str | bytes) else 8 for value in record.values())
    return size
