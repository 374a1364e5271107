"""A server that asks all nodes, waits as Flower waits, and averages; after each round it writes down its seconds."""

import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Take the rounds."""
    config = context.run_config
    arrays = ArrayRecord({"w": Array(np.zeros(int(config["numbers"]), np.float32))})
    while len(nodes := list(grid.get_node_ids())) < int(config["nodes"]):
        time.sleep(0.5)
    with Path(str(config["seconds"])).open("a", encoding="utf-8") as told:
        for round_ in range(1, int(config["rounds"]) + 1):
            began = time.monotonic()
            content = RecordDict({"arrays": arrays})
            asked = [Message(content, n, MessageType.TRAIN, group_id=str(round_)) for n in nodes]
            replies = [reply for reply in grid.send_and_receive(asked, timeout=120) if not reply.has_error()]
            if len(replies) < len(nodes):
                raise RuntimeError("a node did not answer")
            sent = [reply.content["arrays"].to_numpy_ndarrays()[0] for reply in replies]
            arrays = ArrayRecord({"w": Array(np.mean(sent, axis=0, dtype=np.float32))})
            told.write(f"{time.monotonic() - began}\n")
            told.flush()
