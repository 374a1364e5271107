"""What every source of keys does: one suite, run on each of them.

A module that runs it has a fixture `rig` of one epoch: `source()` is a new object over the same place, `add()` makes a
newer epoch behind its back, `ours` is whether the source makes and destroys keys itself, `remove(epoch)` does what an
operator does where it does not, `secrets` are texts that nothing may show, `faults()` are acts that must be refused.
"""

import base64
import os
import traceback

import pytest

from coterie.privacy.fields.errors import KeyFault
from coterie.privacy.fields.keysource import KEY_BYTES

CONTEXTS = [b'["bank","customers","a"]', b'["bank","customers","b"]', b'["bank","interactions","a"]']


def fresh(count=3):
    return [bytearray(os.urandom(KEY_BYTES)) for _ in range(count)]


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def refused(act):
    with pytest.raises(KeyFault) as error:
        act()
    return error.value


def newer(rig, source):
    """Move a source to a newer epoch; where it makes none, the operator does."""
    old = source.epochs()[-1]
    if not rig.ours:
        rig.add()
    return source.advance(old)


def gone(rig, source, epoch):
    if rig.ours:
        source.destroy(epoch)
    else:
        rig.remove(epoch)


class SourceContract:
    """The suite; a subclass is collected where there is a `rig`."""

    apart = True
    stride = 1  # of the flipped bits: 1 where opening is local

    def test_it_says_whether_it_lies_apart_from_the_workspace(self, rig):
        assert (rig.source().kind, rig.source().apart) == (rig.kind, self.apart)

    def test_what_one_object_wraps_another_unwraps(self, rig):
        keys, source = fresh(), rig.source()
        wrapped = source.wrap(keys, CONTEXTS)
        opened = rig.source().unwrap(wrapped, CONTEXTS, epoch=source.epochs()[-1])
        assert opened == keys
        assert all(type(key) is bytearray for key in opened)

    def test_many_keys_at_once_keep_their_order(self, rig):
        keys, source = fresh(1203), rig.source()
        contexts = [str(number).encode() for number in range(len(keys))]
        assert source.unwrap(source.wrap(keys, contexts), contexts, epoch=source.epochs()[-1]) == keys

    def test_nothing_wrapped_is_nothing(self, rig):
        source = rig.source()
        assert source.wrap([], []) == []
        assert source.unwrap([], [], epoch=source.epochs()[-1]) == []

    def test_a_wrapped_key_shows_nothing_of_the_key_and_is_never_the_same(self, rig):
        (key,), source = fresh(1), rig.source()
        one, two = source.wrap([key, key], CONTEXTS[:1] * 2)
        assert one != two
        assert bytes(key) not in one
        assert base64.b64encode(key)[:40] not in one

    def test_a_key_opens_for_its_own_context_alone(self, rig):
        keys, source = fresh(2), rig.source()
        wrapped, epoch = source.wrap(keys, CONTEXTS[:2]), source.epochs()[-1]
        for contexts in (CONTEXTS[1::-1], [CONTEXTS[0], b"other"], [CONTEXTS[0] + b"\0", CONTEXTS[1]]):
            refused(lambda contexts=contexts: source.unwrap(wrapped, contexts, epoch=epoch))
        refused(lambda: source.unwrap(wrapped[::-1], CONTEXTS[:2], epoch=epoch))

    def test_a_flipped_bit_anywhere_is_refused(self, rig):
        source = rig.source()
        (wrapped,), epoch = source.wrap(fresh(1), CONTEXTS[:1]), source.epochs()[-1]
        for bit in range(0, 8 * len(wrapped), self.stride):
            refused(lambda bit=bit: source.unwrap([flipped(wrapped, bit)], CONTEXTS[:1], epoch=epoch))

    def test_a_cut_or_longer_wrapped_key_is_refused(self, rig):
        source = rig.source()
        (wrapped,), epoch = source.wrap(fresh(1), CONTEXTS[:1]), source.epochs()[-1]
        for changed in (b"", wrapped[:-1], wrapped[1:], wrapped + b"\0", wrapped + wrapped, wrapped + b"A"):
            refused(lambda changed=changed: source.unwrap([changed], CONTEXTS[:1], epoch=epoch))

    def test_keys_and_contexts_come_in_pairs_of_the_right_size(self, rig):
        source = rig.source()
        epoch = source.epochs()[-1]
        for keys, contexts in (
            (fresh(1), CONTEXTS[:2]),
            (fresh(2), CONTEXTS[:1]),
            ([bytearray(31)], CONTEXTS[:1]),
            ([bytearray(33)], CONTEXTS[:1]),
            (fresh(1), [b""]),
        ):
            with pytest.raises(ValueError, match=r"argument 2|bytes"):
                source.wrap(keys, contexts)
        with pytest.raises(ValueError, match="argument 2"):
            source.unwrap(source.wrap(fresh(1), CONTEXTS[:1]), CONTEXTS[:2], epoch=epoch)

    @pytest.mark.parametrize(
        "epoch", ["", "9999", "v99", "v0", "v01", "../0001", "0001/../0001", "/etc/passwd", "٠٠٠١"]
    )
    def test_an_epoch_that_is_not_there_opens_nothing_and_is_not_left(self, rig, epoch):
        source = rig.source()
        wrapped = source.wrap(fresh(1), CONTEXTS[:1])
        refused(lambda: source.unwrap(wrapped, CONTEXTS[:1], epoch=epoch))
        refused(lambda: source.advance(epoch))
        before = rig.source().epochs()
        source.destroy(epoch)  # gone already
        assert rig.source().epochs() == before

    # --- epochs ---------------------------------------------------------------------------------------------------

    def test_a_newer_epoch_wraps_and_the_older_one_opens_still(self, rig):
        source, keys = rig.source(), fresh(2)
        old = source.epochs()[-1]
        before = source.wrap(keys[:1], CONTEXTS[:1])
        new = newer(rig, source)
        after = source.wrap(keys[1:], CONTEXTS[:1])
        assert source.epochs() == rig.source().epochs() == (old, new)
        for again in (source, rig.source()):
            assert again.unwrap(before, CONTEXTS[:1], epoch=old) == keys[:1]
            assert again.unwrap(after, CONTEXTS[:1], epoch=new) == keys[1:]
            refused(lambda again=again: again.unwrap(before, CONTEXTS[:1], epoch=new))
            refused(lambda again=again: again.unwrap(after, CONTEXTS[:1], epoch=old))

    def test_leaving_the_same_epoch_twice_makes_one_newer(self, rig):
        old = rig.source().epochs()[-1]
        new = newer(rig, rig.source())
        assert rig.source().advance(old) == new
        assert rig.source().epochs() == (old, new)

    def test_an_epoch_that_was_added_beside_is_taken_and_not_another_made(self, rig):
        source = rig.source()
        old = source.epochs()[-1]
        added = rig.add()
        assert source.advance(old) == added
        assert rig.source().epochs() == (old, added)

    def test_an_object_wraps_under_the_epoch_that_it_called_current(self, rig):
        source, keys = rig.source(), fresh(1)
        old = source.epochs()[-1]
        added = rig.add()
        try:
            wrapped = source.wrap(keys, CONTEXTS[:1])
        except KeyFault:
            assert rig.kind == "transit"  # a server takes nothing new under a version that is not current
        else:
            assert source.epochs()[-1] == old
            assert rig.source().unwrap(wrapped, CONTEXTS[:1], epoch=old) == keys
        assert source.advance(old) == source.epochs()[-1] == added
        assert rig.source().unwrap(source.wrap(keys, CONTEXTS[:1]), CONTEXTS[:1], epoch=added) == keys

    def test_a_destroyed_epoch_opens_nothing_again(self, rig):
        source, keys = rig.source(), fresh(2)
        old = source.epochs()[-1]
        before = source.wrap(keys[:1], CONTEXTS[:1])
        new = newer(rig, source)
        after = source.wrap(keys[1:], CONTEXTS[:1])
        gone(rig, source, old)
        for again in (rig.source(), source):
            refused(lambda again=again: again.unwrap(before, CONTEXTS[:1], epoch=old))
            refused(lambda again=again: again.unwrap(before, CONTEXTS[:1], epoch=new))
            assert again.unwrap(after, CONTEXTS[:1], epoch=new) == keys[1:]
            again.destroy(old)  # a second time is nothing
            assert again.epochs() == (new,)

    def test_the_current_epoch_is_never_destroyed(self, rig):
        source, keys = rig.source(), fresh(1)
        epoch = source.epochs()[-1]
        wrapped = source.wrap(keys, CONTEXTS[:1])
        assert "rotate" in refused(lambda: source.destroy(epoch)).faults[0].fix
        assert rig.source().unwrap(wrapped, CONTEXTS[:1], epoch=epoch) == keys

    def test_the_epoch_that_an_object_wraps_under_is_not_destroyed_by_it_when_another_was_added(self, rig):
        source = rig.source()
        old = source.epochs()[-1]
        rig.add()
        refused(lambda: source.destroy(old))
        assert old in rig.source().epochs()

    def test_epochs_go_from_the_oldest_on_and_their_names_are_not_used_again(self, rig):
        source, seen = rig.source(), []
        for _ in range(3):
            seen.append(newer(rig, source))
            for epoch in rig.source().epochs()[:-1]:
                gone(rig, source, epoch)
            assert rig.source().epochs() == (seen[-1],)
        assert len(set(seen)) == 3

    # --- nothing secret is said -----------------------------------------------------------------------------------

    def test_no_fault_and_no_log_shows_a_secret(self, rig, caplog):
        caplog.set_level("DEBUG")
        source, keys = rig.source(), fresh(2)
        wrapped, epoch = source.wrap(keys, CONTEXTS[:2]), source.epochs()[-1]
        acts = [
            lambda: source.unwrap(wrapped, CONTEXTS[1::-1], epoch=epoch),
            lambda: source.unwrap([flipped(wrapped[0], 600)], CONTEXTS[:1], epoch=epoch),
            lambda: source.unwrap(wrapped, CONTEXTS[:2], epoch="9999"),
            lambda: source.advance("9999"),
            lambda: source.destroy(epoch),
            *rig.faults(),
        ]
        said = [repr(source), str(source), caplog.text]
        for act in acts:
            error = refused(act)
            said += [repr(error), *traceback.format_exception(error), caplog.text]
            said += [repr(error.__cause__), repr(error.__context__)]
        secrets = [
            *rig.secrets,
            *(text for key in keys for text in (key.hex(), base64.b64encode(key).decode(), repr(key))),
        ]
        for secret in secrets:
            assert len(secret) > 8
            assert [text for text in said if secret in text] == []
