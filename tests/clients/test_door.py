"""The door: only charged releases pass, and exceptions become words that are free of data."""

import dataclasses
import json
import logging

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from coterie.clients import vault
from coterie.clients.door import ERROR_CODE, Answering, Door, check_release
from coterie.clients.refusals import TaskRefused
from coterie.clients.taint import taint
from coterie.clients.wire import decode_release, encode_release, encode_task
from coterie.clients.workspace import WorkspaceBusy
from coterie.models import propensity
from coterie.privacy.errors import BudgetExhausted, ContractFault, Fault, ReleaseRefused
from coterie.privacy.events import DiscreteGaussian
from coterie.privacy.ledger import Ledger
from coterie.privacy.release import CODES, ConsentGiven, ModelUpdate, Refused, ScoreHistogram, release_digest
from coterie.processes.logs import json_log
from coterie.simulations.partners import workspace_of
from coterie.tests.clients.federation import mechanisms, today

CANARY = "canary-Zo\u00eb-7f3a"


@pytest.fixture
def leave(agreed):
    """Returns the reply to a training task whose handler is the given function."""

    def through(handler):
        folders = tuple(agreed.folders.values())
        app = ClientApp(mods=[Door(lambda context: workspace_of(folders, context), today)])
        app.train()(handler)
        grid = agreed.grid(app)
        reply = agreed.ask_task(grid, "train")
        assert CANARY.encode() not in grid.passed[-1]
        return reply

    return through


def stopped(reply, code="fault"):
    assert reply.has_error()
    assert (reply.error.reason, reply.error.code) == (code, ERROR_CODE[code])
    return True


def content_of(release):
    return encode_release(release)


# --- what may leave -----------------------------------------------------------------------------------------


def test_a_charged_release_a_consent_and_a_refusal_pass_as_they_are(agreed):
    grid = agreed.grid()
    reply = agreed.ask_task(grid, "train")
    passed = decode_release(reply.content, update=mechanisms().update, histogram=None)
    assert release_digest(passed) == agreed.reservations()[0].settled
    assert isinstance(decode_release(agreed.ask_plan(grid).content, update=None, histogram=None), ConsentGiven)
    agreed.policy(purposes=["churn"])
    assert isinstance(decode_release(agreed.ask_plan(grid).content, update=None, histogram=None), Refused)


def test_a_release_that_was_settled_before_passes_again(agreed, leave):
    update = agreed.train()
    reply = leave(lambda message, context: Message(content_of(update), reply_to=message))
    assert release_digest(decode_release(reply.content, update=update.event, histogram=None)) == release_digest(update)


# --- what may not -------------------------------------------------------------------------------------------


def fabricated(agreed, **changes):
    update = ModelUpdate(
        agreed.digest,
        "amber",
        "train/1",
        1,
        "sha256:00",
        mechanisms().update,
        tuple(np.ones_like(w) for w in agreed.weights()),
    )
    return dataclasses.replace(update, **changes)


def test_an_update_that_nobody_paid_for_is_stopped(agreed, leave):
    assert stopped(leave(lambda message, context: Message(content_of(fabricated(agreed)), reply_to=message)))


def test_an_update_that_is_reserved_but_not_settled_is_stopped(agreed, leave, monkeypatch):
    monkeypatch.setattr("coterie.privacy.ledger.Ledger.settle", lambda *_: None)
    update = agreed.train()
    assert agreed.kinds() == ["consent", "reserve"]
    assert stopped(leave(lambda message, context: Message(content_of(update), reply_to=message)))


def test_one_float_changed_after_the_charge_is_stopped(agreed, leave):
    update = agreed.train()
    weights, bias = (array.copy() for array in update.arrays)
    weights[0, 3] = np.nextafter(weights[0, 3], np.float32(1))
    changed = dataclasses.replace(update, arrays=(weights, bias))
    assert stopped(leave(lambda message, context: Message(content_of(changed), reply_to=message)))


ALTERED = {
    "another step": {"step": "train/2"},
    "another attempt": {"attempt": 2},
    "another partner": {"partner": "birch"},
    "another plan": {"plan": "sha256:00"},
    "another model": {"model": "sha256:00"},
    "a text in the step": {"step": CANARY},
    "the arrays in another order": {"arrays": "reversed"},
    "an array more": {"arrays": "more"},
    "an array less": {"arrays": "less"},
    "no array": {"arrays": "none"},
}


@pytest.mark.parametrize("name", ALTERED)
def test_a_charged_update_altered_anywhere_is_stopped(agreed, leave, name):
    update = agreed.train()
    arrays = {
        "reversed": update.arrays[::-1],
        "more": (*update.arrays, np.zeros(1, np.float32)),
        "less": update.arrays[:1],
        "none": (),
    }
    changes = {key: arrays.get(value, value) if key == "arrays" else value for key, value in ALTERED[name].items()}
    changed = dataclasses.replace(update, **changes)
    assert stopped(leave(lambda message, context: Message(content_of(changed), reply_to=message)))


def test_a_charged_update_under_another_kind_is_stopped(agreed, leave):
    update = agreed.train()
    fields = {field.name: getattr(update, field.name) for field in dataclasses.fields(update)}
    other = ScoreHistogram(**{**fields, "event": DiscreteGaussian(1.0, 1)})
    assert stopped(leave(lambda message, context: Message(content_of(other), reply_to=message)))


@pytest.mark.parametrize("array", [np.float32("nan"), np.float32("inf"), np.float32("-inf")])
def test_numbers_that_are_not_finite_are_stopped_even_when_they_are_charged(agreed, leave, array):
    update = fabricated(agreed, arrays=(np.full((1, 7), array), np.zeros(1, np.float32)))
    settle(agreed, update)
    assert stopped(leave(lambda message, context: Message(content_of(update), reply_to=message)))


def settle(agreed, release):
    """Make the ledger hold a release as if it had been paid for."""
    with Ledger(agreed.workspace().ledger, today) as ledger:
        ledger.record("refusal", {"release": release_digest(release), "plan": agreed.digest, "codes": []})


def test_arrays_that_share_memory_with_customers_rows_are_stopped_even_when_they_are_charged(agreed):
    rows = taint(np.arange(70, dtype=np.float32).reshape(10, 7))
    for array in (rows, rows[:1], rows[::2], rows.T[:, :1], rows.reshape(-1)):
        release = fabricated(agreed, arrays=(array,))
        settle(agreed, release)
        with pytest.raises(ReleaseRefused, match="shares memory"):
            check_release(release, agreed.workspace().ledger, today)
    copied = fabricated(agreed, arrays=(rows[:1].copy() * 0,))
    settle(agreed, copied)
    check_release(copied, agreed.workspace().ledger, today)


def test_a_handler_that_goes_past_the_ledger_is_stopped(agreed, leave):
    def exact(message, context):
        workspace = agreed.workspace()
        stream = agreed.random.stream("x")
        opened = vault.open_table(workspace.table, agreed.plan.contract, group_key=workspace.group_key, stream=stream)
        counts = np.histogram(opened.columns["spend"], bins=8)[0].astype(np.int64)
        histogram = ScoreHistogram(
            agreed.digest,
            "amber",
            "evaluate/1",
            1,
            "sha256:00",
            DiscreteGaussian(1.0, 1),
            (np.stack([counts, counts]),),
        )
        return Message(content_of(histogram), reply_to=message)

    assert stopped(leave(exact))
    assert agreed.kinds() == ["consent"]


def with_header(change):
    def spoil(content):
        content["release"]["header"] = change(str(content["release"]["header"]))

    return spoil


def emptied(content):
    for name in list(content):
        content.pop(name)


def only_metrics(content):
    emptied(content)
    content["metrics"] = MetricRecord({"auc": 0.75, "rows": 150})


# Ways to say more than a release, or something else.
SPOILED = {
    "an extra array record": lambda c: c.update(more=ArrayRecord([np.ones(3)])),
    "a metric record": lambda c: c.update(metrics=MetricRecord({"auc": 0.75})),
    "a config record": lambda c: c.update(notes=ConfigRecord({"note": CANARY})),
    "an extra key": lambda c: c["release"].update(note=CANARY),
    "an extra array": lambda c: c["arrays"].update(note=Array(np.frombuffer(CANARY.encode(), dtype=np.uint8))),
    "a field more in the header": with_header(lambda text: text[:-1] + f', "note": "{CANARY}"}}'),
    "a field twice in the header": with_header(lambda text: f'{{"step":"{CANARY}",' + text[1:]),
    "spaces in the header": with_header(lambda text: text.replace(",", ", \t ")),
    "a float in the header": with_header(lambda text: text.replace('"attempt":1', '"attempt":1.0')),
    "only metrics": only_metrics,
    "nothing": emptied,
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_charged_release_with_anything_beside_it_is_stopped(agreed, leave, name):
    update = agreed.train()

    def chatty(message, context):
        content = content_of(update)
        SPOILED[name](content)
        return Message(content, reply_to=message)

    assert stopped(leave(chatty))


def test_what_flower_carries_beside_a_release_is_not_taken_from_the_handler(agreed, leave):
    update = agreed.train()

    def chatty(message, context):
        content = content_of(update)
        for name in list(content["arrays"]):
            array = content["arrays"][name]
            content["arrays"][name] = Array(dtype=CANARY, shape=(1, 2, 3), stype=CANARY, data=array.data)
        reply = Message(content, reply_to=message)
        reply.metadata.group_id = CANARY
        reply.metadata.ttl = 12345.0
        return reply

    reply = leave(chatty)  # which looks for the canary in the bytes
    assert not reply.has_error()
    assert release_digest(decode_release(reply.content, update=update.event, histogram=None)) == release_digest(update)
    assert reply.metadata.ttl != 12345.0


def test_spare_bytes_in_an_arrays_header_do_not_pass(agreed, leave):
    update = agreed.train()

    def stuffed(message, context):
        content = content_of(update)
        data = content["arrays"]["0"].data
        room = data.index(b"}") + 2
        note = CANARY.encode()
        spare = data.index(b"\n") - room
        assert spare > len(note) + 1
        hidden = data[:room] + b"#" + note + b" " * (spare - len(note) - 1) + data[room + spare :]
        content["arrays"]["0"] = Array(dtype="float32", shape=(1, 7), stype="numpy.ndarray", data=hidden)
        return Message(content, reply_to=message)

    leave(stuffed)  # which looks for the canary in the bytes


def test_a_refusal_in_words_that_nobody_agreed_on_is_stopped(agreed, leave):
    refused = Refused(agreed.digest, (CANARY,))
    settle(agreed, refused)
    assert stopped(leave(lambda message, context: Message(content_of(refused), reply_to=message)))


@pytest.mark.parametrize("code", [0, 2, 117])
def test_an_error_with_a_text_is_stopped(agreed, leave, code):
    assert stopped(leave(lambda message, context: Message(Error(code=code, reason=CANARY), reply_to=message)))


class CanaryError(Exception):
    """Of a type that no one foresaw."""


RAISED = {
    "a library's": ValueError(f"cannot convert {CANARY}"),
    "an unforeseen": CanaryError(CANARY),
    "a key": KeyError(CANARY),
    "a recursion": RecursionError(CANARY),
    "memory": MemoryError(CANARY),
    "ours": ContractFault(Fault(CANARY, CANARY, CANARY)),
    "the budget's": BudgetExhausted(Fault(CANARY, CANARY, CANARY)),
    "a group": ExceptionGroup(CANARY, [ValueError(CANARY)]),
}


@pytest.mark.parametrize("name", RAISED)
def test_an_exception_leaves_as_one_word_and_is_not_logged_as_text(leave, caplog, capfd, name):
    def failing(message, context):
        raise RAISED[name]

    with caplog.at_level(logging.DEBUG):
        assert stopped(leave(failing))
    written = capfd.readouterr()
    assert CANARY not in caplog.text + written.out + written.err
    assert type(RAISED[name]).__name__ in caplog.text


@pytest.mark.parametrize("code", CODES)
def test_a_refused_task_leaves_as_its_code_and_without_its_faults(leave, code):
    def refusing(message, context):
        raise TaskRefused(code, Fault(CANARY, CANARY, CANARY))

    assert stopped(leave(refusing), code)


def test_a_busy_workspace_leaves_as_one_word(leave):
    def busy(message, context):
        raise WorkspaceBusy(Fault(CANARY, CANARY, CANARY))

    assert stopped(leave(busy), "busy")


def test_the_numbers_of_the_words_are_all_different_and_not_flowers():
    assert len(set(ERROR_CODE.values())) == len(CODES)
    assert min(ERROR_CODE.values()) >= 100


def test_a_workspace_that_cannot_be_found_is_a_fault(agreed):
    def lost(context):
        raise KeyError(CANARY)

    app = ClientApp(mods=[Door(lost, today)])
    app.train()(lambda message, context: Message(content_of(fabricated(agreed)), reply_to=message))
    assert stopped(agreed.ask_task(agreed.grid(app), "train"))


@pytest.mark.parametrize("message_type", ["train", "evaluate", "query.propose"])
def test_the_door_stands_before_every_handler_of_the_real_app(agreed, message_type):
    """Whatever is asked in a form that is none, the answer is a word."""
    grid = agreed.grid()
    reply = agreed.ask(grid, message_type, RecordDict({"x": ConfigRecord({"y": CANARY})}))
    assert stopped(reply)
    assert CANARY.encode() not in grid.passed[-1]


@pytest.mark.parametrize("message_type", ["query", "train.other", "evaluate.default2", "query.propose2"])
def test_what_the_app_does_not_know_is_not_answered_with_data(agreed, message_type):
    grid = agreed.grid()
    reply = agreed.ask(grid, message_type, encode_task(agreed.task()))
    assert reply.has_error()
    assert reply.error.reason == "fault"
    assert agreed.kinds() == ["consent"]


def test_every_refusal_is_a_line_of_the_partners_own_log_and_its_reason_one_of_its_reports(agreed, tmp_path):
    grid, path = agreed.grid(), tmp_path / "worker.log"
    logger = json_log(path, component="worker", clock=today)
    try:
        for kind in ("train", "query.propose"):
            agreed.ask(grid, kind, RecordDict({"x": ConfigRecord({"y": CANARY})}))
        agreed.ask_task(grid, "train", agreed.task(9))
        agreed.policy(purposes=["churn"])
        agreed.ask_plan(grid)
    finally:
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    told = [(line["asked"], line["code"]) for line in lines if line["event"] == "refused"]
    assert told == [("train", "fault"), ("query.propose", "fault"), ("train", "task"), ("query.propose", "purpose")]
    report = agreed.report()
    assert "must have the records plan" in report
    assert "is not one that the plan describes" in report
    assert CANARY not in path.read_text(encoding="utf-8") + report


def test_an_app_without_a_handler_answers_with_one_word_all_the_same(agreed, caplog):
    grid = agreed.grid(Answering(agreed.app()))
    for message_type in ("query.x", "train.other", "system", "evaluate.default2"):
        assert stopped(agreed.ask(grid, message_type, encode_task(agreed.task())))
    assert caplog.text.count("another question was refused: fault") == 4


def test_the_exact_model_that_a_partner_could_train_does_not_pass(agreed, leave):
    """The strongest leak there is: weights fitted to the rows without noise."""
    weights = propensity.initial("logistic", 7, 0, seed=0)
    release = fabricated(agreed, arrays=tuple(w + np.float32(0.5) for w in weights))
    assert stopped(leave(lambda message, context: Message(content_of(release), reply_to=message)))
