"""What a secure sum costs elsewhere: Flower's SecAgg+, and CKKS by TenSEAL. Used by `secagg.py`.

Both are called in this process as they ship, Flower's through its own workflow, its own client modifier and its own
wire format; only what they compute is timed, in seconds of processor time, never the wire.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tenseal as ts
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.client.mod.secure_aggregation.secaggplus_mod import secaggplus_mod
from flwr.common import Code, FitRes, Parameters, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.compat.common import recorddict_compat as compat
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.server.client_manager import SimpleClientManager
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from numpy.typing import NDArray

from coterie.simulations.engines.local import LocalGrid

__all__ = ["CKKS_SETTINGS", "CLIPPING", "of_ckks", "of_flower", "quantising", "wire_bytes"]

Vectors = Sequence[NDArray[np.float32]]

CLIPPING, LEVELS, WEIGHT = 8.0, 2**22, 1000  # the defaults of Flower's workflow
SLOTS = 4096  # numbers in one ciphertext, half of N

# Additions alone need one prime of data. "usual" is what a first try has; "lean" has that one
# prime, and encrypts with the secret key, which is about twice as fast.
CKKS_SETTINGS = {
    "usual": ([60, 40, 60], ts.ENCRYPTION_TYPE.ASYMMETRIC),
    "lean": ([60, 60], ts.ENCRYPTION_TYPE.SYMMETRIC),
}

logging.getLogger("flwr").setLevel(logging.ERROR)


def wire_bytes(content: RecordDict) -> bytes:
    """Return a message's content as Flower's protocol buffers."""
    return recorddict_to_proto(content).SerializeToString()


class TimedGrid(LocalGrid):
    """Flower's clients in this process, with their seconds and bytes by phase.

    Args:
        vectors: What each client adds.
        dropped: How many of them are gone when masked vectors are collected.
    """

    def __init__(self, vectors: Vectors, dropped: int) -> None:
        super().__init__(None, [{} for _ in vectors])
        self._vectors = dict(zip(self._contexts, vectors, strict=True))
        self._gone = set(list(self._contexts)[len(vectors) - dropped :])
        self.inside = 0.0
        self.seconds = {"set_up": 0.0, "sum": 0.0}
        self.up = {"set_up": 0, "sum": 0}
        self.down = {"set_up": 0, "sum": 0}

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Answer messages with Flower's own client function."""
        del timeout
        began = time.process_time()
        replies = [reply for message in messages if (reply := self._reply(message)) is not None]
        self.inside += time.process_time() - began
        return replies

    def _reply(self, message: Message) -> Message | None:
        node = message.metadata.dst_node_id
        stage = message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE]
        if stage == Stage.COLLECT_MASKED_VECTORS and node in self._gone:
            return None
        phase = "set_up" if stage in {Stage.SETUP, Stage.SHARE_KEYS} else "sum"
        sent = wire_bytes(message.content)
        asked = Message(
            recorddict_from_proto(ProtoRecordDict.FromString(sent)),
            dst_node_id=node,
            message_type=message.metadata.message_type,
            group_id=message.metadata.group_id,
        )
        asked.metadata.__dict__["_message_id"] = f"{stage}-{node}"
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([self._vectors[node]]), WEIGHT, {})
        trained = compat.fitres_to_recorddict(result, keep_input=True)
        began = time.process_time()
        reply = secaggplus_mod(asked, self._contexts[node], lambda msg, _: Message(trained, reply_to=msg))
        self.seconds[phase] += time.process_time() - began
        answered = wire_bytes(reply.content)
        self.down[phase] += len(sent)
        self.up[phase] += len(answered)
        reply.content = recorddict_from_proto(ProtoRecordDict.FromString(answered))
        return reply


class Opened(FedAvg):
    """A strategy that does nothing but keep what was opened, so that nothing else is timed."""

    opened: Parameters

    def aggregate_fit(
        self, server_round: int, results: list[tuple[Any, FitRes]], failures: list[Any]
    ) -> tuple[None, dict[str, Any]]:
        """Keep the opened average."""
        del server_round, failures
        self.opened = results[0][1].parameters
        return None, {}


def of_flower(vectors: Vectors, dropped: int = 0) -> dict[str, float]:
    """Return what one sum by SecAgg+ costs; its set-up is part of every sum."""
    count = len(vectors)
    grid, clients = TimedGrid(vectors, dropped), SimpleClientManager()
    for node in grid.get_node_ids():
        clients.register(GridClientProxy(node, grid, grid.run.run_id))
    strategy = Opened(min_fit_clients=count, min_evaluate_clients=count, min_available_clients=count)
    context = LegacyContext(Context(1, 1, {}, RecordDict(), {}), strategy=strategy, client_manager=clients)
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
    context.state.array_records[MAIN_PARAMS_RECORD] = ArrayRecord([np.zeros(1, dtype=np.float32)])
    workflow = SecAggPlusWorkflow(count, 2 / 3, max_weight=WEIGHT, clipping_range=CLIPPING, quantization_range=LEVELS)
    began = time.process_time()
    workflow(grid, context)
    server = time.process_time() - began - grid.inside
    (average,) = parameters_to_ndarrays(strategy.opened)
    there = vectors[: count - dropped]
    wanted = np.sum(there, axis=0, dtype=np.float64)
    return {
        "client_set_up_seconds": grid.seconds["set_up"] / count,
        "client_sum_seconds": grid.seconds["sum"] / len(there),
        "server_seconds": server,
        "set_up_bytes_up": grid.up["set_up"] / count,
        "set_up_bytes_down": grid.down["set_up"] / count,
        "sum_bytes_up": grid.up["sum"] / len(there),
        "bytes_per_parameter": grid.up["sum"] / len(there) / len(vectors[0]),
        "largest_error": float(np.abs(average * len(there) - wanted).max()),
    }


def quantising(vector: NDArray[np.float32]) -> float:
    """Return the seconds of SecAgg+'s quantisation alone, which is a part of its client's."""
    began = time.process_time()
    quantize([vector], CLIPPING, LEVELS)
    return time.process_time() - began


def context_of(setting: str) -> ts.Context:
    """Return a CKKS context, with the secret key that all clients share."""
    primes, kind = CKKS_SETTINGS[setting]
    context = ts.context(ts.SCHEME_TYPE.CKKS, 2 * SLOTS, coeff_mod_bit_sizes=primes, encryption_type=kind, n_threads=1)
    context.global_scale = 2.0**40
    return context


def encrypted(context: ts.Context, vector: NDArray[np.float32]) -> Iterator[bytes]:
    """Yield a vector as ciphertexts, as TenSEAL cuts longer vectors itself, with a warning to standard output."""
    for start in range(0, len(vector), SLOTS):
        yield ts.ckks_vector(context, vector[start : start + SLOTS]).serialize()


def of_ckks(vectors: Vectors, setting: str) -> dict[str, float]:
    """Return what one sum by CKKS costs: nothing is kept of a client but its part of the server's running sum."""
    began = time.process_time()
    context = context_of(setting)
    made = time.process_time() - began
    total: list[ts.CKKSVector] = []
    client, server, up = 0.0, 0.0, 0
    for vector in vectors:
        began = time.process_time()
        parts = list(encrypted(context, vector))
        middle = time.process_time()
        arrived = [ts.ckks_vector_from(context, part) for part in parts]
        total = [one + other for one, other in zip(total, arrived, strict=True)] if total else arrived
        client, server = client + middle - began, server + time.process_time() - middle
        up += sum(map(len, parts))
    began = time.process_time()
    down = [part.serialize() for part in total]
    middle = time.process_time()
    opened = np.concatenate([ts.ckks_vector_from(context, part).decrypt() for part in down])
    open_seconds = time.process_time() - middle
    wanted = np.sum(vectors, axis=0, dtype=np.float64)
    return {
        "client_set_up_seconds": made,
        "client_sum_seconds": client / len(vectors),
        "client_open_seconds": open_seconds,
        "server_seconds": server + middle - began,
        "sum_bytes_up": up / len(vectors),
        "sum_bytes_down": float(sum(map(len, down))),
        "bytes_per_parameter": up / len(vectors) / len(vectors[0]),
        "largest_error": float(np.abs(opened - wanted).max()),
    }
