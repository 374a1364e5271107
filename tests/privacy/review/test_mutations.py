"""A bundle in which anything was changed, by anybody without the partner's key, is never accepted."""

from collections import Counter

import pytest

from coterie.privacy.review.bundle import BundleFault
from coterie.tests.clients.federation import CONTRACT
from coterie.tests.privacy.review.bundles import MUTATIONS, Story, made, mutations, verdict_of


def tried(bundle, other, count, seed):
    """Verify `count` mutations; return how often each kind was tried, and those that were not refused."""
    seen, accepted, faults = Counter(), [], []
    for kind, changed in mutations(bundle, other, count, seed):
        seen[kind] += 1
        try:
            verdict = verdict_of(changed)
        except BundleFault as fault:
            faults += [fault]
            continue
        assert [finding for check in verdict.checks for finding in check.findings]
        if verdict.status != "fails":
            accepted.append((kind, changed))
    assert all(fault.faults[0].fix for fault in faults)
    return seen, accepted


def short():
    """A short bundle with a line of every kind but the coordinator's."""
    story = Story()
    plan = story.plan(contract__columns=CONTRACT.columns[:1])
    story.consent(plan)
    story.cosign()
    story.charge(plan)
    story.cosign()
    return story.bundle()


def test_no_mutation_of_a_bundle_is_accepted():
    bundle, other = short(), short()
    assert verdict_of(bundle).status != "fails"
    seen, accepted = tried(bundle, other, 2080, 1)
    assert accepted == []
    assert set(seen) == set(MUTATIONS)
    assert min(seen.values()) >= 150


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_none_of_thousands_of_mutations_of_a_real_bundle_is_accepted(seed):
    seen, accepted = tried(made().bundle, made().bundles["birch"], 2600, seed)
    assert accepted == []
    assert sum(seen.values()) == 2600


@pytest.mark.slow
def test_no_bit_of_a_real_bundle_can_be_flipped():
    bundle = made().bundle
    ends = [at for at, byte in enumerate(bundle) if byte == 10]
    for at in [*ends, *range(0, len(bundle), 13)]:
        for bit in range(8):
            changed = bundle[:at] + bytes([bundle[at] ^ 1 << bit]) + bundle[at + 1 :]
            try:
                assert verdict_of(changed).status == "fails"
            except BundleFault as fault:
                assert at < bundle.index(b"\n") + 1, fault  # noqa: PT017 - only the first line may say so
