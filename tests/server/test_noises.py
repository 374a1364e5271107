"""The noise of a round's released histograms is that of the partners whose releases are in them."""

import numpy as np
import pytest

from coterie.clients.measuring import noisy_histogram
from coterie.privacy.calibration import calibrate
from coterie.privacy.discrete import discrete_gaussians
from coterie.privacy.randomness import SeededSource
from coterie.privacy.record import Receipt
from coterie.server.aggregate import AdamState
from coterie.server.noises import answered, histogram_noise
from coterie.server.registry import Progress
from coterie.tests.clients.federation import NAMES, secure_study, study


def progress_of(plan, histograms, receipts=()):
    return Progress(plan.digest(), 2, (), AdamState.start(()), histograms, receipts=tuple(receipts))


def test_the_noise_is_that_of_the_partners_that_answered():
    plan = study()
    source, sigma = SeededSource(b"8"), calibrate(plan).histogram.sigma
    nothing = np.zeros((2, 1000), np.int64)
    parts = {name: noisy_histogram(nothing, sigma, source.stream(name)) for name in NAMES}
    for names in (NAMES, NAMES[:2]):
        held = {name: parts[name] for name in names}
        progress = progress_of(plan, {2: held})
        assert answered(plan, progress, 2) == len(names)
        assert np.std(sum(held.values())) == pytest.approx(histogram_noise(plan, progress, 2), rel=0.08)


def test_the_noise_of_a_secure_sum_is_that_of_the_partners_in_it():
    plan = secure_study()
    event, names = calibrate(plan).histogram, [partner.name for partner in plan.partners][:3]
    receipts = [Receipt(name, "evaluate/2", 1, "sha256:0") for name in names]
    receipts += [Receipt(partner.name, "evaluate/1", 1, "sha256:1") for partner in plan.partners]  # another round's
    progress = progress_of(plan, {2: {"all": np.zeros((2, 8))}}, receipts)
    stream = SeededSource(b"9").stream("noise")
    drawn_noise = sum(discrete_gaussians(event.share, 2000, stream) for _ in names)
    assert answered(plan, progress, 2) == 3
    assert np.std(drawn_noise / event.sensitivity) == pytest.approx(histogram_noise(plan, progress, 2), rel=0.08)
