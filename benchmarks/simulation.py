"""What an engine costs: the same client function in a bare loop, in the local engine and in Flower's on Ray.

The function is small on purpose (a 4,225-parameter MLP on 200 rows, 10 SGD steps, about 5 ms), so that what is
measured is the engine; its weights travel as one array. 100 clients, a cohort of 20 a round, 10 rounds; the rounds
are timed one by one, after one for warming up, and start-up apart. Prints ratios, with versions and machine, as JSON.

    python benchmarks/simulation.py --output benchmarks/results/simulation.json
"""

import statistics
import time

import numpy as np
import torch
from conditions import arguments_for, conditions, publish
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from torch import nn

from coterie.server.exchange import Patience, exchange
from coterie.simulations.engines.local import run_local
from coterie.simulations.engines.ray import run_ray

CLIENTS, COHORT, ROUNDS, STEPS, ROWS = 100, 20, 10, 10, 200

# Where each of the model's arrays lies in the one that travels.
LAYOUT = [
    (0, 2048, (64, 32)),
    (2048, 2112, (64,)),
    (2112, 4160, (32, 64)),
    (4160, 4192, (32,)),
    (4192, 4224, (1, 32)),
    (4224, 4225, (1,)),
]

_cache: dict[str, object] = {}


def data(client: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a client's rows; made once per process."""
    if client not in _cache:
        rng = np.random.default_rng(client)
        x = rng.normal(size=(ROWS, 32)).astype(np.float32)
        _cache[client] = (torch.from_numpy(x), torch.from_numpy((x.sum(axis=1) > 0).astype(np.float32)))
    return _cache[client]


def model() -> nn.Module:
    """Return this process's one model."""
    if "model" not in _cache:
        torch.set_num_threads(1)
        _cache["model"] = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))
    return _cache["model"]


def work(weights: list[np.ndarray], client: int) -> list[np.ndarray]:
    """Train on one client's rows: the function that every engine runs."""
    net = model()
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), weights, strict=True):
            parameter.copy_(torch.from_numpy(np.array(value)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x, y = data(client)
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(net(x)[:, 0], y).backward()
        optimizer.step()
    return [parameter.detach().numpy().copy() for parameter in net.parameters()]


def initial() -> list[np.ndarray]:
    torch.manual_seed(0)
    return [parameter.detach().numpy().copy() for parameter in model().parameters()]


def packed(weights: list[np.ndarray]) -> ArrayRecord:
    """Put all weights into one array: Flower pays for every array of a message by itself."""
    return ArrayRecord([np.concatenate([array.ravel() for array in weights])])


def unpacked(record: ArrayRecord) -> list[np.ndarray]:
    (flat,) = record.to_numpy_ndarrays()
    return [flat[start:end].reshape(shape) for start, end, shape in LAYOUT]


def cohort(round_: int) -> list[int]:
    return [(round_ * COHORT + i) % CLIENTS for i in range(COHORT)]


def bare() -> list[float]:
    weights, times = initial(), []
    for round_ in range(ROUNDS + 1):
        began = time.perf_counter()
        replies = [work(weights, client) for client in cohort(round_)]
        weights = [np.mean(arrays, axis=0) for arrays in zip(*replies, strict=True)]
        times.append(time.perf_counter() - began)
    return times


def client_app() -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        weights = unpacked(message.content["weights"])
        new = work(weights, int(context.node_config["partition-id"]))
        return Message(RecordDict({"weights": packed(new)}), reply_to=message)

    return app


def server_app(times: list[float], poll: float) -> ServerApp:
    app = ServerApp()

    @app.main()
    def main(grid: Grid, _: Context) -> None:
        weights = initial()
        while len(nodes := sorted(grid.get_node_ids())) < CLIENTS:
            time.sleep(poll)
        for round_ in range(ROUNDS + 1):
            began = time.perf_counter()
            content = RecordDict({"weights": packed(weights), "config": ConfigRecord({"round": round_})})
            messages = [Message(content, dst_node_id=nodes[i], message_type="train") for i in cohort(round_)]
            replies = [
                unpacked(reply.content["weights"])
                for _, reply in exchange(grid, messages, patience=Patience(seconds=600, poll=poll))
            ]
            weights = [np.mean(arrays, axis=0) for arrays in zip(*replies, strict=True)]
            times.append(time.perf_counter() - began)

    return app


def measured(times: list[float], whole: float) -> dict[str, float]:
    rounds = times[1:]
    return {
        "client_round_ms_median": 1000 * statistics.median(rounds) / COHORT,
        "client_round_ms_min": 1000 * min(rounds) / COHORT,
        "client_round_ms_max": 1000 * max(rounds) / COHORT,
        "whole_seconds": whole,
    }


def timed(run: object) -> dict[str, float]:
    began = time.perf_counter()
    times = run()
    return measured(times, time.perf_counter() - began)


def local() -> list[float]:
    times: list[float] = []
    run_local(server_app(times, 0.001), client_app(), [{"partition-id": i} for i in range(CLIENTS)])
    return times


def ray() -> list[float]:
    times: list[float] = []
    run_ray(server_app(times, 0.001), client_app(), CLIENTS)
    return times


def main() -> None:
    parser = arguments_for(__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="interleaved repetitions of bare and local")
    arguments = parser.parse_args()
    bares, locals_ = [], []
    for _ in range(arguments.repeat):
        bares.append(timed(bare))
        locals_.append(timed(local))
    on_ray = timed(ray)
    pairs = zip(bares, locals_, strict=True)
    ratios = [b["client_round_ms_median"] / a["client_round_ms_median"] for a, b in pairs]
    result = {
        "what": f"{CLIENTS} clients, cohort {COHORT}, {ROUNDS} rounds, 4,225-parameter MLP, {STEPS} steps, {ROWS} rows",
        **conditions("flwr", "ray", "torch", "numpy"),
        "bare": bares,
        "local": locals_,
        "ray": on_ray,
        "local_over_bare": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "ray_over_local": on_ray["client_round_ms_median"]
        / statistics.median(run["client_round_ms_median"] for run in locals_),
    }
    publish(result, arguments.output)


if __name__ == "__main__":
    main()
