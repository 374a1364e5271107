"""The engines carry the same messages, and the partners answer them with the same bytes."""

import hashlib

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from coterie.privacy.randomness import OsSource, SeededSource
from coterie.server.exchange import Patience, exchange
from coterie.simulations.engines.local import LocalGrid, run_local
from coterie.simulations.federation import run_federation
from coterie.simulations.partners import partner_folders, provision
from coterie.tests.clients.federation import secure_study, table_of


def outboxes(root, plan):
    return {
        (folder.name, file.name): hashlib.sha256(file.read_bytes()).hexdigest()
        for folder in partner_folders(root, plan)
        for file in (folder / "outbox").iterdir()
    }


def test_both_engines_release_the_same_bytes(tmp_path, small, twins):
    plan, tables = small
    here = tmp_path / "run"
    provision(here, plan, tables, seed=0)
    there = twins(here)
    local = run_federation(here, plan, tables, seed=0, engine="local", random=SeededSource(b"noise"))
    ray = run_federation(there, plan, tables, seed=0, engine="ray", random=SeededSource(b"noise"))
    assert len(outboxes(here, plan)) == 3 * 4  # two updates and two histograms of each partner
    assert outboxes(here, plan) == outboxes(there, plan)
    assert all(np.array_equal(a, b) for a, b in zip(local.progress.weights, ray.progress.weights, strict=True))


@pytest.mark.slow
def test_both_engines_open_the_same_sums(tmp_path, twins):
    plan = secure_study(training__rounds=1, metrics__rounds=(1,))
    tables = {partner.name: table_of(partner.name, 60) for partner in plan.partners}
    here = tmp_path / "run"
    provision(here, plan, tables, seed=0)
    there = twins(here)
    local = run_federation(here, plan, tables, seed=0, engine="local", random=SeededSource(b"noise"))
    ray = run_federation(there, plan, tables, seed=0, engine="ray", random=SeededSource(b"noise"))
    assert len(outboxes(here, plan)) == 4 * 3  # two steps and a histogram, masked, of each partner
    assert outboxes(here, plan) == outboxes(there, plan)
    assert local.progress.receipts == ray.progress.receipts
    assert all(np.array_equal(a, b) for a, b in zip(local.progress.weights, ray.progress.weights, strict=True))


def test_without_a_seed_no_two_runs_release_the_same(tmp_path, small, twins):
    plan, tables = small
    here = tmp_path / "run"
    provision(here, plan, tables, seed=0)
    there = twins(here)
    for root in (here, there):
        run_federation(root, plan, tables, seed=0, engine="local", random=OsSource())
    first, second = outboxes(here, plan), outboxes(there, plan)
    assert first.keys() == second.keys()
    assert not set(first.values()) & set(second.values())


def echo():
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        message.content["config"]["seen"] = context.node_id  # a careless app may write into what it was sent
        return Message(message.content, reply_to=message)

    return app


def talk(client, nodes, content):
    """Send one content to every node and return the replies."""
    replies = {}
    app = ServerApp()

    @app.main()
    def main(grid, _context):
        messages = [Message(content, dst_node_id=node, message_type="query") for node in grid.get_node_ids()]
        replies.update(exchange(grid, messages, patience=Patience(seconds=10, poll=0.001)))

    run_local(app, client, [{} for _ in range(nodes)])
    return replies


def test_nodes_do_not_share_what_they_are_sent():
    content = RecordDict({"config": ConfigRecord({"a": 1}), "arrays": ArrayRecord([np.arange(3.0)])})
    replies = talk(echo(), 3, content)
    assert sorted(reply.content["config"]["seen"] for reply in replies.values()) == sorted(replies)
    assert "seen" not in content["config"]


def test_arrays_arrive_as_they_were_sent():
    sent = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array([-1, 2**40]), np.frombuffer(b"\x00\xff", np.uint8)]
    replies = talk(echo(), 1, RecordDict({"config": ConfigRecord({}), "arrays": ArrayRecord(sent)}))
    (reply,) = replies.values()
    for before, after in zip(sent, reply.content["arrays"].to_numpy_ndarrays(), strict=True):
        assert before.dtype == after.dtype
        assert np.array_equal(before, after)


def test_what_could_not_travel_does_not_travel():
    def unfit(message, _context):
        return Message(RecordDict({"config": ConfigRecord({"n": 2**70})}), reply_to=message)

    app = ClientApp()
    app.query()(unfit)
    with pytest.raises(ValueError, match=r"range|bounds|large"):
        talk(app, 1, RecordDict({"config": ConfigRecord({})}))


def test_a_crashing_app_is_an_error_without_its_text():
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        raise ValueError("canary-7f3a")

    (reply,) = talk(app, 1, RecordDict({"config": ConfigRecord({})})).values()
    assert reply.has_error()
    assert "canary" not in str(reply.error)


def test_a_message_is_answered_once():
    grid = LocalGrid(echo(), [{}])
    (node,) = grid.get_node_ids()
    (pushed,) = grid.push_messages([Message(RecordDict({"config": ConfigRecord({})}), node, "query")])
    assert len(list(grid.pull_messages([pushed]))) == 1
    assert list(grid.pull_messages([pushed])) == []
