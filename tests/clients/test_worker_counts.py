"""What the worker counts: its answers by kind and word, and no word of a peer's."""

from coterie.clients.running.worker import Answered, _telling
from coterie.processes.tally import Tally, counts


def test_answers_are_counted_by_kind_and_refusals_by_word(tmp_path):
    told = _telling(Tally(tmp_path, "worker"))
    told(Answered("train", "", 0.1))
    told(Answered("train", "busy", 0.1))
    told(Answered("query.canary-4711", "fault", 0.1))
    assert {(one.name, *one.labels.values()): one.total for one in counts(tmp_path, "worker")} == {
        ("coterie_messages", "train"): 2.0,
        ("coterie_messages", "other"): 1.0,
        ("coterie_refusals", "busy"): 1.0,
        ("coterie_refusals", "fault"): 1.0,
    }
