"""Waiting: to the deadline and no longer, and every reply is put down to the node that was asked."""

import itertools

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from coterie.server.exchange import exchange
from coterie.simulations.engines.local import LocalGrid


def content(number=0):
    return RecordDict({"x": ConfigRecord({"y": number})})


class Clock:
    """A clock that goes on by one second at every look."""

    def __init__(self):
        self.looks = itertools.count()

    def __call__(self):
        return float(next(self.looks))


class Late(LocalGrid):
    """A grid where node n answers at the n-th pull; a node without a place never does."""

    def __init__(self, order, client=lambda message, context: Message(message.content, reply_to=message)):
        super().__init__(client, [{} for _ in order])
        self.order = dict(zip(self.get_node_ids(), order, strict=True))
        self.pulls = 0
        self.asked = []

    def pull_messages(self, message_ids):
        self.pulls += 1
        wanted = list(message_ids)
        self.asked.append(len(wanted))
        due = [i for i in wanted if (self.order[self._sent[i].metadata.dst_node_id] or 10**9) <= self.pulls]
        return super().pull_messages(due)

    def messages(self):
        return [Message(content(n), dst_node_id=n, message_type="train") for n in self.get_node_ids()]


def got(grid, seconds=100.0):
    return [node for node, _ in exchange(grid, grid.messages(), seconds=seconds, poll=0.0, monotonic=Clock())]


def test_replies_come_as_they_are_ready_and_waiting_ends_with_the_last():
    grid = Late([3, 1, 2])
    first, second, third = grid.get_node_ids()
    assert got(grid) == [second, third, first]
    assert grid.asked == [3, 2, 1]


def test_a_grid_that_never_answers_is_left_at_the_deadline():
    grid = Late([None, None])
    assert got(grid, seconds=5.0) == []
    assert grid.pulls == 5


def test_those_that_answered_are_kept_when_others_stay_silent():
    grid = Late([None, 2, None])
    assert got(grid, seconds=4.0) == [grid.get_node_ids()[1]]


def test_with_no_patience_at_all_there_is_one_look():
    grid = Late([1, 2])
    assert got(grid, seconds=0.0) == grid.get_node_ids()[:1]
    assert grid.pulls == 1


def test_nothing_is_waited_for_when_nothing_is_asked():
    grid = Late([])
    assert list(exchange(grid, [], seconds=9.0, poll=0.0)) == []
    assert grid.pulls == 0


def test_each_reply_belongs_to_the_question_it_answers_whatever_it_says_of_itself():
    def lying(message, context):
        number = int(message.content["x"]["y"])
        reply = Message(content(number), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = 1000  # each says that it is the first
        return reply

    grid = Late([1, 1, 1], lying)
    for node, reply in exchange(grid, grid.messages(), seconds=1.0, poll=0.0):
        assert reply.content["x"]["y"] == node


def test_an_error_is_put_down_to_the_node_that_was_asked():
    def failing(message, context):
        if int(message.content["x"]["y"]) != 1001:
            return Message(message.content, reply_to=message)
        reply = Message(Error(code=100, reason="unavailable"), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = 1
        return reply

    grid = Late([1, 1, 1], failing)
    replies = dict(exchange(grid, grid.messages(), seconds=1.0, poll=0.0))
    assert [node for node, reply in replies.items() if reply.has_error()] == [1001]


@pytest.mark.parametrize("answers", ["nobody's", "one question twice"])
def test_replies_that_nobody_waits_for_are_dropped(answers):
    class Noisy(Late):
        def pull_messages(self, message_ids):
            replies = list(super().pull_messages(message_ids))
            for reply in replies[:1] if answers == "one question twice" else []:
                yield reply
            for reply in replies:
                yield reply
                if answers == "nobody's":
                    stray = Message(content(), reply_to=reply)
                    yield stray

    grid = Noisy([1, 1])
    assert got(grid) == grid.get_node_ids()
