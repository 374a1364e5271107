"""How often a SuperNode asks: often while a study is at work, rarely otherwise, never more rarely than Flower."""

import pytest

from coterie.clients.running.supernode import Pace


class Time:
    """A clock that goes on only where somebody waits, and what was waited."""

    def __init__(self):
        self.at, self.slept = 0.0, []

    def monotonic(self):
        return self.at

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.at += seconds


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def pace(time):
    return Pace(time.monotonic, time.sleep, busy=0.2, idle=2.0, share=0.1)


def test_after_its_start_it_asks_often(pace, time):
    pace.sleep(3)
    assert time.slept == [0.2]


@pytest.mark.parametrize(("since", "pause"), [(1.9, 0.2), (5.0, 0.5), (12.0, 1.2), (20.0, 2.0), (1e6, 2.0)])
def test_it_waits_for_a_tenth_of_what_went_by_since_the_last_message_and_never_longer_than_when_idle(
    pace, time, since, pause
):
    time.at = 1000.0
    pace.message()
    time.at += since
    pace.sleep(3)
    assert time.slept == [pytest.approx(pause)]


def test_a_message_makes_it_ask_often_again(pace, time):
    time.at = 1000.0
    pace.sleep(3)
    pace.message()
    pace.sleep(3)
    assert time.slept == [2.0, 0.2]


def test_waiting_for_the_app_in_this_machine_is_short_whatever_the_pace(pace, time):
    time.at = 1000.0
    pace.sleep(0.5)
    pace.sleep(0.001)
    assert time.slept == [0.02, 0.001]


@pytest.mark.parametrize("at", [0.0, 1000.0])
def test_it_never_waits_longer_than_flower_asked_for(at):
    time = Time()
    slow = Pace(time.monotonic, time.sleep, busy=50.0, idle=60.0)
    time.at = at
    slow.sleep(3)
    assert time.slept == [3]
