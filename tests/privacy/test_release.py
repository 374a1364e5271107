"""Releases: digests that cover every field, words that are free of data, and what each kind leaks."""

import dataclasses
import inspect
import re

import numpy as np
import pytest

from coterie.privacy.events import DiscreteGaussian, DistributedGaussian, Nothing, PoissonGaussian
from coterie.privacy.matching.channel import Address, Parcel
from coterie.privacy.matching.commitment import Commitment
from coterie.privacy.release import (
    CODES,
    KINDS,
    ConsentGiven,
    DealtShares,
    LedgerHead,
    ManifestAccepted,
    MaskedVector,
    MatchCommitted,
    MatchEnded,
    MatchParcel,
    ModelReceived,
    ModelUpdate,
    OverlapCounts,
    ParcelTaken,
    PartnerSum,
    Refused,
    RevealedShares,
    RoundKeys,
    ScoreHistogram,
    SurvivorsSigned,
    release_digest,
    weights_digest,
)

STEP = {"plan": "sha256:p", "partner": "books", "step": "train/1", "attempt": 1, "model": "sha256:m"}
WEIGHTS = (np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2, dtype=np.float32))
COUNTS = (np.arange(8, dtype=np.int64).reshape(2, 4),)

RELEASES = [
    ConsentGiven("sha256:p", "books", bytes(64)),
    Refused("sha256:p", ("budget", "trust")),
    ModelUpdate(**STEP, event=PoissonGaussian(1.0, 0.5, 2), arrays=WEIGHTS),
    PartnerSum(**STEP, event=PoissonGaussian(1.0, 1.0, 1), arrays=COUNTS),
    ScoreHistogram(**STEP, event=DiscreteGaussian(5.0, 1), arrays=COUNTS),
    ModelReceived("sha256:p", "books", "sha256:m", "sha256:r"),
    LedgerHead("coterie-ledger/x\n1\n...", 1, ("aa", "bb")),
]
BYTES = np.zeros((2, 32), dtype=np.uint8)
SUM = {"plan": "sha256:p", "partner": "books", "step": "train/1", "attempt": 1, "epoch": 2, "signature": "s"}
RELEASES += [
    RoundKeys("sha256:p", "books", 2, ("train/1",), "s", (BYTES[0], BYTES[None])),
    DealtShares("sha256:p", "books", 2, "sha256:k", "s", (BYTES, BYTES[:, None, None])),
    MaskedVector(
        **SUM,
        model="sha256:m",
        cohort="sha256:c",
        event=DistributedGaussian(64, 2, 16, 1.0, 1),
        arrays=(np.arange(3, dtype=np.uint32),),
    ),
    SurvivorsSigned(**SUM, transcript="sha256:t"),
    RevealedShares(**SUM, transcript="sha256:t", arrays=(BYTES,)),
]
COMMITMENT = Commitment("sha256:p", "books", 1, "1", 40, ("ab" * 32,), "cd" * 32, "ef" * 64)
PARCEL = Parcel("sha256:p", "sha256:n", Address("books", 1, 0, "music"), 1, "books", "music", bytes(range(48)))
RELEASES += [
    MatchCommitted(COMMITMENT, DiscreteGaussian(5.0, 1)),
    ManifestAccepted("sha256:p", "books", "sha256:n"),
    ParcelTaken("sha256:p", "books", "music", 1, 0, ""),
    MatchParcel(PARCEL),
    OverlapCounts("sha256:p", "books", {"cells": [{"partners": ["books"], "customers": 3}]}),
    MatchEnded("sha256:p", "books", "ab" * 32),
]
WITH_ARRAYS = RELEASES[2:4]


def other(value):
    """Return something else of the same type."""
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:]
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, Commitment | Parcel):
        return dataclasses.replace(value, plan=other(value.plan))
    return value + 1 if isinstance(value, int) else ("cohort",)


def kind_of(release):
    return type(release).__name__


@pytest.mark.parametrize("release", RELEASES, ids=kind_of)
def test_every_field_of_a_release_is_in_its_digest(release):
    # What it costs is bound by the ledger's charge; arrays are looked at below.
    fields = [f.name for f in dataclasses.fields(release) if f.name not in {"event", "arrays"}]
    assert fields
    digests = {release_digest(release)}
    for name in fields:
        digests.add(release_digest(dataclasses.replace(release, **{name: other(getattr(release, name))})))
    assert len(digests) == len(fields) + 1


@pytest.mark.parametrize("release", WITH_ARRAYS, ids=kind_of)
def test_every_element_of_every_array_is_in_the_digest(release):
    digests = {release_digest(release)}
    for index, array in enumerate(release.arrays):
        for place in np.ndindex(array.shape):
            changed = [one.copy() for one in release.arrays]
            changed[index][place] += 1
            digests.add(release_digest(dataclasses.replace(release, arrays=tuple(changed))))
    assert len(digests) == sum(array.size for array in release.arrays) + 1


@pytest.mark.parametrize("release", WITH_ARRAYS, ids=kind_of)
def test_shape_type_order_and_number_of_arrays_are_in_the_digest(release):
    first, *rest = release.arrays
    variants = [
        release.arrays,
        (first.ravel(), *rest),
        (first.T.copy(), *rest),
        (first.view(np.uint32 if first.itemsize == 4 else np.uint64), *rest),
        (*release.arrays, np.zeros(0, dtype=first.dtype)),
        (*rest, first, first),
        (),
    ]
    digests = {release_digest(dataclasses.replace(release, arrays=variant)) for variant in variants}
    assert len(digests) == len(variants)


def test_bytes_cannot_move_from_one_array_to_the_next():
    joined = np.arange(4, dtype=np.float32)
    cuts = {release_digest(dataclasses.replace(RELEASES[2], arrays=(joined[:cut], joined[cut:]))) for cut in range(5)}
    assert len(cuts) == 5


def test_how_an_array_lies_in_memory_is_not_in_the_digest():
    one = dataclasses.replace(RELEASES[3], arrays=(np.asfortranarray(COUNTS[0]),))
    assert release_digest(one) == release_digest(RELEASES[3])


def test_kinds_with_equal_fields_have_different_digests():
    update = ModelUpdate(**STEP, event=PoissonGaussian(1.0, 0.5, 2), arrays=COUNTS)
    histogram = ScoreHistogram(**STEP, event=DiscreteGaussian(5.0, 1), arrays=COUNTS)
    assert release_digest(update) != release_digest(histogram)
    for release in RELEASES:
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", release_digest(release))


def test_weights_are_named_by_values_shapes_and_order():
    variants = [
        WEIGHTS,
        WEIGHTS[::-1],
        WEIGHTS[:1],
        (WEIGHTS[0].ravel(), WEIGHTS[1]),
        (WEIGHTS[0], WEIGHTS[1] * np.float32(1 + 1e-6)),
        (np.concatenate([WEIGHTS[0].ravel(), WEIGHTS[1]]),),
    ]
    assert len({weights_digest(variant) for variant in variants}) == len(variants)
    assert weights_digest(tuple(np.asfortranarray(array) for array in WEIGHTS)) == weights_digest(WEIGHTS)


# --- what leaves ----------------------------------------------------------------------------------------


def test_every_kind_says_what_it_leaks_and_has_an_event():
    assert set(KINDS.values()) == {type(release) for release in RELEASES}
    for name, kind in KINDS.items():
        assert kind.kind == name
        assert "Leaks:" in inspect.getdoc(kind)
    events = [Nothing, Nothing, PoissonGaussian, PoissonGaussian, DiscreteGaussian, Nothing, Nothing]
    events += [Nothing, Nothing, DistributedGaussian, Nothing, Nothing]
    events += [DiscreteGaussian, Nothing, Nothing, Nothing, Nothing, Nothing]
    assert [type(release.event) for release in RELEASES] == events


def test_headers_hold_plain_values_and_no_size_of_a_table():
    for release in RELEASES:
        counted = isinstance(release, OverlapCounts)  # a table of noisy counts, whose lists were paid for
        assert all(
            isinstance(value, str | int | list | dict if counted else str | int | list)
            for value in release.header.values()
        )
        sizes = {"rows", "customers", "samples", "size", "num_examples", "loss"} & set(release.header)
        # Points on a list: with noise that its event pays for, or filled up to the plan's size class.
        assert sizes == ({"size"} if isinstance(release, MatchCommitted) else set())


def test_every_field_and_byte_of_a_match_s_message_is_in_its_digest():
    def changed(value):
        if isinstance(value, str):
            return value + "x"
        return value + 1 if isinstance(value, int) else {"cells": []}

    for release in RELEASES[-5:]:
        if isinstance(release, MatchParcel):
            address = {name: changed(value) for name, value in vars(PARCEL.address).items()}
            parcels = [
                dataclasses.replace(PARCEL, **{name: changed(getattr(PARCEL, name))}) for name in ("plan", "manifest")
            ]
            parcels += [
                dataclasses.replace(PARCEL, **{name: changed(getattr(PARCEL, name))}) for name in ("count", "sender")
            ]
            parcels += [dataclasses.replace(PARCEL, receiver="books"), dataclasses.replace(PARCEL, sealed=bytes(48))]
            parcels += [dataclasses.replace(PARCEL, sealed=PARCEL.sealed + b"x")]
            parcels += [
                dataclasses.replace(PARCEL, address=dataclasses.replace(PARCEL.address, **{name: value}))
                for name, value in address.items()
            ]
            variants = [MatchParcel(one) for one in parcels]
        else:
            variants = [dataclasses.replace(release, **{name: changed(value)}) for name, value in vars(release).items()]
        assert len({release_digest(one) for one in (release, *variants)}) == 1 + len(variants)
    fields = [
        dataclasses.replace(COMMITMENT, **{name: changed(value) if name != "chunks" else ("ba" * 32,)})
        for name, value in vars(COMMITMENT).items()
    ]
    variants = [MatchCommitted(one, DiscreteGaussian(5.0, 1)) for one in (COMMITMENT, *fields)]
    assert len({release_digest(one) for one in variants}) == 9


def test_words_of_a_refusal_carry_no_figures_and_one_stands_for_all_that_depends_on_rows():
    assert "unavailable" in CODES
    for code, meaning in CODES.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code)
        assert not re.search(r"[\d{}%]", meaning)
    # Reasons that depend on rows have no word of their own (bounds, sizes, labels, duplicates).
    assert not {"bounds", "rows", "too-few", "labels", "one-class", "duplicates", "missing"} & set(CODES)
