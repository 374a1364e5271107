"""The grid of a deployed study: folded on the way, whole at both ends, and counted."""

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict

from coterie.clients.folding import fold, unfold
from coterie.server.running.grid import FoldingGrid, size_of
from coterie.simulations.engines.local import LocalGrid


def content(number=1):
    return RecordDict({"x": ConfigRecord({"y": number}), "a": ArrayRecord([np.arange(5, dtype=np.float32)])})


class Partners:
    """Partners behind Flower's grid; each answers with what it was asked, folded again."""

    def __init__(self, answer=lambda message: Message(fold(unfold(message.content)), reply_to=message)):
        self.came, self.answer = [], answer

    def __call__(self, message, context):
        self.came.append(message.content)
        return self.answer(message)


def asked(partners, *contents):
    """Send contents to a node each, and return the grid and the replies."""
    grid = FoldingGrid(LocalGrid(partners, [{} for _ in contents]))
    messages = [
        Message(one, dst_node_id=node, message_type="train", group_id="4")
        for node, one in zip(grid.get_node_ids(), contents, strict=True)
    ]
    return grid, list(grid.pull_messages(grid.push_messages(messages)))


def test_a_question_goes_folded_and_its_answer_comes_whole():
    partners = Partners()
    _, (reply,) = asked(partners, content(7))
    assert [list(one) for one in partners.came] == [["folded"]]
    assert reply.content["x"]["y"] == 7
    np.testing.assert_array_equal(reply.content["a"].to_numpy_ndarrays()[0], np.arange(5, dtype=np.float32))


def test_the_question_itself_is_left_as_it_was_so_that_it_can_be_asked_again():
    message = content(7)
    asked(Partners(), message)
    assert sorted(message) == ["a", "x"]


def test_each_question_keeps_its_node_type_and_group():
    seen = []

    def answer(message):
        seen.append((message.metadata.dst_node_id, message.metadata.message_type, message.metadata.group_id))
        return Message(message.content, reply_to=message)

    asked(Partners(answer), content(), content())
    assert seen == [(1000, "train", "4"), (1001, "train", "4")]


def test_an_error_comes_as_it_is():
    _, (reply,) = asked(
        Partners(lambda message: Message(Error(code=101, reason="budget"), reply_to=message)), content()
    )
    assert (reply.error.code, reply.error.reason) == (101, "budget")


def test_what_cannot_be_unfolded_comes_as_it_is_and_the_others_are_whole():
    def answer(message):
        broken = RecordDict({"folded": ConfigRecord({"bytes": b"\xff" * 9})})
        return Message(broken if message.metadata.dst_node_id == 1000 else message.content, reply_to=message)

    _, (first, second) = asked(Partners(answer), content(1), content(2))
    assert list(first.content) == ["folded"]
    assert second.content["x"]["y"] == 2


def test_a_partner_that_does_not_fold_is_understood():
    _, (reply,) = asked(Partners(lambda message: Message(unfold(message.content), reply_to=message)), content(3))
    assert reply.content["x"]["y"] == 3


def test_what_is_sent_and_received_is_counted_by_arrays_and_texts():
    grid, _ = asked(Partners(), content(), content())
    assert grid.sent == 2 * size_of(content())
    assert grid.received > 0
    assert size_of(RecordDict({"c": ConfigRecord({"t": "four", "b": b"12345", "n": 1})})) == 4 + 5 + 8
    array = ArrayRecord([np.zeros(1000, dtype=np.float64)])
    assert 8000 <= size_of(RecordDict({"a": array})) < 8300


def test_flowers_own_way_of_waiting_is_refused():
    grid = FoldingGrid(LocalGrid(Partners(), [{}]))
    with pytest.raises(NotImplementedError):
        grid.send_and_receive([])
