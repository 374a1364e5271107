"""Waiting: to the deadline and no longer, and every reply is put down to the node that was asked."""

import itertools

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from coterie.server.exchange import Patience, exchange
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
    return [
        node
        for node, _ in exchange(grid, grid.messages(), patience=Patience(seconds=seconds, poll=0.0), monotonic=Clock())
    ]


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
    assert list(exchange(grid, [], patience=Patience(seconds=9.0, poll=0.0))) == []
    assert grid.pulls == 0


def test_each_reply_belongs_to_the_question_it_answers_whatever_it_says_of_itself():
    def lying(message, context):
        number = int(message.content["x"]["y"])
        reply = Message(content(number), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = 1000  # each says that it is the first
        return reply

    grid = Late([1, 1, 1], lying)
    for node, reply in exchange(grid, grid.messages(), patience=Patience(seconds=1.0, poll=0.0)):
        assert reply.content["x"]["y"] == node


def test_an_error_is_put_down_to_the_node_that_was_asked():
    def failing(message, context):
        if int(message.content["x"]["y"]) != 1001:
            return Message(message.content, reply_to=message)
        reply = Message(Error(code=100, reason="unavailable"), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = 1
        return reply

    grid = Late([1, 1, 1], failing)
    replies = dict(exchange(grid, grid.messages(), patience=Patience(seconds=1.0, poll=0.0)))
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


# --- asking again ---------------------------------------------------------------------------------------------

ODD = [0, 1, 2, 3, 4, 5, 6, 8]  # numbers of errors of Flower's own, without that of another bundle


class Post(Grid):
    """A grid whose clock goes on only where the exchange waits, and whose partners a test plays.

    Like Flower's SuperLink it answers a question whose reply was pulled before with an error of its own.
    """

    def __init__(self, partner, nodes=(1,)):
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self.partner, self.nodes, self.at = partner, nodes, 0.0
        self.sent, self.pushed, self.pulled = [], {}, set()

    def sleep(self, seconds):
        self.at += seconds

    def push_messages(self, messages):
        for message in messages:
            assert message not in [old for old, _ in self.pushed.values()], "the same message was sent twice"
            name = f"m{len(self.pushed)}"
            message.metadata.__dict__["_message_id"] = name
            node = message.metadata.dst_node_id
            self.pushed[name] = (message, self.partner(node, len(self.asked(node)), self.at))
            self.sent.append((node, self.at, message))
            yield name

    def pull_messages(self, message_ids):
        for name in list(message_ids):
            message, reply = self.pushed[name]
            if name in self.pulled:
                yield Message(Error(code=3, reason="Message Unavailable"), reply_to=message)
            elif reply is not None and reply[0] <= self.at:
                self.pulled.add(name)
                said = reply[1]
                yield Message(said, reply_to=message)

    def asked(self, node=1):
        """Return when a node was asked."""
        return [at for to, at, _ in self.sent if to == node]

    def got(self, patience, unlikely=()):
        """Exchange with every node, and return who answered what at which time."""
        messages = [Message(content(n), dst_node_id=n, message_type="train", group_id="3") for n in self.nodes]
        ways = {"monotonic": lambda: self.at, "sleep": self.sleep, "unlikely": unlikely}
        replies = exchange(self, messages, patience=patience, **ways)
        return [(node, self.at, reply) for node, reply in replies]

    def get_node_ids(self):
        return self.nodes

    set_run = run = create_message = send_and_receive = None


def silent(node, time_, at):
    return None


def after(seconds, said=None):
    """A partner that answers so many seconds after it was asked."""
    return lambda node, time_, at: (at + seconds, said or content(time_))


def patience(seconds=100.0, again=10.0):
    return Patience(seconds=seconds, poll=0.5, again=again)


def test_a_question_that_is_lost_is_asked_again_after_a_while_in_a_message_of_its_own():
    post = Post(lambda node, time_, at: None if time_ == 0 else (at + 1, content(time_)))
    ((node, at, reply),) = post.got(patience())
    assert (node, reply.content["x"]["y"], at) == (1, 1, 11.0)
    first, second = (message for _, _, message in post.sent)
    assert post.asked() == [0.0, 10.0]
    assert second.content["x"]["y"] == first.content["x"]["y"]
    assert [(m.metadata.message_type, m.metadata.group_id) for m in (first, second)] == [("train", "3")] * 2


@pytest.mark.parametrize(("delays", "winner"), [([12.0, 9.0], 0), ([15.0, 1.0], 1)])
def test_whichever_reply_is_first_is_taken_and_the_other_is_not(delays, winner):
    post = Post(lambda node, time_, at: (at + delays[time_], content(time_)))
    ((_, _, reply),) = post.got(patience())
    assert reply.content["x"]["y"] == winner
    assert post.asked() == [0.0, 10.0]


def test_both_replies_at_one_look_are_taken_once():
    post = Post(lambda node, time_, at: (12.0, content(time_)), nodes=(1, 2))
    assert [node for node, _, _ in post.got(patience())] == [1, 2]


def test_the_pause_doubles_up_to_five_minutes():
    post = Post(silent)
    assert post.got(patience(seconds=2000.0, again=20.0)) == []
    pauses = [b - a for a, b in itertools.pairwise(post.asked())]
    assert pauses == [20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0, 300.0, 300.0]


def test_the_deadline_holds_for_all_that_was_asked_again():
    post = Post(silent, nodes=(1, 2))
    assert post.got(patience(seconds=35.0)) == []
    assert post.at == 35.0
    assert post.asked(2) == [0.0, 10.0, 30.0]


def test_where_messages_cannot_be_lost_nothing_is_asked_twice_and_every_reply_is_taken():
    post = Post(lambda node, time_, at: None if node == 1 else (at, Error(code=node)), nodes=(1, 2, 8))
    replies = post.got(patience(again=None))
    assert [(node, reply.error.code) for node, _, reply in replies] == [(2, 2), (8, 8)]
    assert [len(post.asked(node)) for node in post.nodes] == [1, 1, 1]


@pytest.mark.parametrize("error", [Error(code=100, reason="busy"), *map(Error, ODD)], ids=lambda e: e.reason or e.code)
def test_what_says_only_that_it_was_lost_or_busy_is_asked_again_after_a_moment(error):
    post = Post(lambda node, time_, at: (at + 1, error if time_ == 0 else content(time_)))
    ((_, at, reply),) = post.got(patience())
    assert not reply.has_error()
    assert (post.asked(), at) == ([0.0, 3.0], 4.0)


@pytest.mark.parametrize("error", [Error(code=5), Error(code=100, reason="busy")], ids=["away", "busy"])
def test_one_that_goes_on_saying_so_is_asked_ever_more_rarely_and_not_in_a_flood(error):
    """Flower says at once, of every question, that a node is not there."""
    post = Post(after(0.0, error))
    assert post.got(patience(seconds=60.0)) == []
    assert post.asked() == [0.0, 2.0, 6.5, 15.0, 25.5, 36.0, 46.5, 57.0]  # it is seen half a second after each


@pytest.mark.parametrize(
    "error", [Error(code=7), Error(code=104, reason="budget"), Error(code=100)], ids=["another bundle", "word", "none"]
)
def test_an_answer_that_is_an_answer_is_taken_as_it_is(error):
    post = Post(after(1.0, error))
    ((_, at, reply),) = post.got(patience())
    assert (reply.error.code, at, post.asked()) == (error.code, 1.0, [0.0])


def test_a_reply_to_the_first_question_is_taken_after_an_error_to_the_second():
    post = Post(lambda node, time_, at: (14.0, content(0)) if time_ == 0 else (at, Error(code=5)))
    ((_, at, reply),) = post.got(patience())
    assert (reply.content["x"]["y"], at) == (0, 14.0)


def test_those_that_were_silent_before_are_waited_for_only_a_while_after_the_others():
    post = Post(lambda node, time_, at: (at + 4, content()) if node == 1 else None, nodes=(1, 2))
    replies = post.got(patience(), unlikely={2})
    assert [(node, at) for node, at, _ in replies] == [(1, 4.0)]
    assert post.at == 14.0  # ten seconds after the last of the others


def test_one_that_was_silent_before_and_answers_in_time_is_heard():
    post = Post(lambda node, time_, at: (at + 4 * node, content()), nodes=(1, 2))
    assert [node for node, _, _ in post.got(patience(), unlikely={2})] == [1, 2]


def test_others_have_their_whole_time_however_many_were_silent_before():
    post = Post(lambda node, time_, at: (90.0, content()) if node == 1 else None, nodes=(1, 2))
    assert [(node, at) for node, at, _ in post.got(patience(), unlikely={2})] == [(1, 90.0)]
    assert post.at == 100.0


def test_the_silent_get_no_more_than_the_deadline():
    post = Post(silent, nodes=(1, 2))
    assert post.got(patience(seconds=6.0), unlikely={1, 2}) == []
    assert post.at == 6.0
