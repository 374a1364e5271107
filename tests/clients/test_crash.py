"""Crashes: killed anywhere, a partner never counts less than it released."""

import dataclasses
import shutil
import signal

import numpy as np
import pytest

from coterie.clients.node import TaskRefused
from coterie.clients.outbox import Outbox
from coterie.privacy.errors import LedgerFault
from coterie.privacy.ledger import Ledger
from coterie.privacy.release import release_digest
from coterie.privacy.renyi import curve
from coterie.tests.clients.federation import CONTRACT, SEEDED, Federation, study
from coterie.tests.clients.processes import Process, with_little_disk, work

PLAN = study(training__spare=1)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A federation after consent, to be copied for each death."""
    federation = Federation(tmp_path_factory.mktemp("crash") / "template", PLAN)
    federation.propose()
    return federation


def copied(template, folder):
    return Federation(shutil.copytree(template.root, folder), PLAN)


def lines_of(template, tmp_path, kind):
    """How many lines of the code that matters one step passes."""
    process = Process(work, copied(template, tmp_path / "whole").root, PLAN, kind, None)
    drawn, digest, lines = process.heard()
    assert (drawn, process.ended()) == ("drawn", 0)
    return digest, lines


def die(template, folder, kind, line):
    """Kill a partner before a line; check what holds whatever the line, and return what it had come to."""
    federation = copied(template, folder)
    consent = federation.everything()
    process = Process(work, federation.root, PLAN, kind, line)
    said = process.heard()
    assert process.ended() == -signal.SIGKILL

    held = federation.reservations()
    drawn, released = "drawn" in said, [word for word in said if word.startswith("sha256:")]
    assert len(held) <= 1
    if drawn:
        assert len(held) == 1  # never under-counted
    if released:
        assert held[0].settled == released[0]
    federation.random = SEEDED
    group = "training" if kind == "train" else "holdout"
    step = getattr(federation, kind)
    if not held:
        state, total = "untouched", 1
        step()
    elif held[0].settled:
        state, total = "settled", 1
        assert release_digest(step()) == held[0].settled
    else:
        state, total = "lost", 2
        with pytest.raises(TaskRefused) as caught:
            step()
        assert caught.value.code == "lost"
        assert federation.reservations()[0].lost
        step(attempt=2)
    with Ledger(federation.workspace().ledger, federation.clock) as ledger:
        event = ledger.reservations()[0].charge.event
        assert ledger.spent(group) == pytest.approx(curve([event] * total))
        assert list(ledger.entries())[: len(consent)] == consent
    assert [r.charge.attempt for r in federation.reservations()] == [1, 2][:total]
    shutil.rmtree(federation.root)
    return state


@pytest.mark.parametrize("kind", ["train", "measure"])
def test_a_partner_killed_at_many_points_never_counts_too_little(template, tmp_path, kind):
    _, lines = lines_of(template, tmp_path, kind)
    points = sorted({int(p) for p in np.linspace(1, lines, 18)})
    states = [die(template, tmp_path / str(line), kind, line) for line in points]
    assert set(states) == {"untouched", "lost", "settled"}
    # A death goes from "nothing has happened" through "paid and lost" to "answered", and never back.
    assert states == sorted(states, key=["untouched", "lost", "settled"].index)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["train", "measure"])
def test_a_partner_killed_at_every_line_never_counts_too_little(template, tmp_path, kind):
    _, lines = lines_of(template, tmp_path, kind)
    states = [die(template, tmp_path / str(line), kind, line) for line in range(1, lines + 1)]
    assert states == sorted(states, key=["untouched", "lost", "settled"].index)


def test_what_a_killed_partner_had_made_is_what_it_would_have_sent(template, tmp_path):
    digest, _ = lines_of(template, tmp_path, "train")
    assert release_digest(copied(template, tmp_path / "here").train()) == digest


# --- a disk that is full, and files that were touched ------------------------------------------------------------

FINE = dataclasses.replace(CONTRACT.columns[1], edges=tuple(float(edge) for edge in range(8, 488, 8)))
BROAD = study(  # an update of some 270 kB, far more than the ledger needs
    model__family="mlp",
    model__hidden=1024,
    contract=dataclasses.replace(CONTRACT, columns=(CONTRACT.columns[0], FINE, CONTRACT.columns[2])),
)


@pytest.fixture
def broad(tmp_path):
    federation = Federation(tmp_path / "broad", BROAD)
    federation.policy(families=["mlp"])
    federation.propose()
    return federation


def test_a_full_disk_at_the_outbox_is_one_clear_error_and_the_charge_stays(broad):
    process = Process(with_little_disk, broad.root, BROAD, "train", 160_000)
    ((kind, text),) = process.heard()
    assert kind == "FileFault"
    assert "outbox" in text
    assert "cannot be written (File too large). Fix: free some space" in text
    (held,) = broad.reservations()
    assert held.settled is None
    assert list((broad.folders["amber"] / "outbox").iterdir()) == []
    with pytest.raises(TaskRefused) as caught:
        broad.train()
    assert caught.value.code == "lost"
    assert broad.kinds() == ["consent", "reserve", "lost"]


def test_a_full_disk_at_the_ledger_stops_the_work_before_any_noise(broad):
    process = Process(with_little_disk, broad.root, BROAD, "train", 8000)  # room for the sealed counts, and no more
    ((kind, text),) = process.heard()
    assert kind == "LedgerFault"
    assert "ledger.sqlite" in text
    assert broad.reservations() == ()
    broad.train()


@pytest.mark.parametrize("kind", ["train", "measure"])
def test_a_release_altered_in_the_outbox_is_a_fault_and_is_not_made_anew(agreed, kind):
    getattr(agreed, kind)()
    ledger = agreed.everything()
    (path,) = (agreed.folders["amber"] / "outbox").iterdir()
    whole = path.read_bytes()
    (held,) = agreed.reservations()
    refused = 0
    outbox = Outbox(path.parent)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            assert release_digest(outbox.again(held.charge, held.settled)) == held.settled
        except LedgerFault:
            refused += 1
    assert refused > len(whole) // 3  # the rest is padding and the archive's own times
    for harm in (b"", whole[:-30], whole[: len(whole) // 2], None):
        path.unlink(missing_ok=True)
        if harm is not None:
            path.write_bytes(harm)
        with pytest.raises(LedgerFault, match="is not the release that the ledger settled"):
            getattr(agreed, kind)()
    assert agreed.everything() == ledger


def test_a_release_of_another_charge_in_the_outbox_is_a_fault(agreed):
    agreed.train(round_=1)
    one = set((agreed.folders["amber"] / "outbox").iterdir())
    agreed.train(round_=2)
    (other,) = set((agreed.folders["amber"] / "outbox").iterdir()) - one
    one.pop().replace(other)
    with pytest.raises(LedgerFault):
        agreed.train(round_=2)
