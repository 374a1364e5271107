"""The lists of a match on their way through a partner: taken, evaluated, arranged, handed on.

What is stored is stored before an answer leaves: rows first, then the state that speaks of them, so that a node killed
anywhere takes the parcel again.
"""

import numpy as np
from numpy.typing import NDArray

from coterie.clients.matching.making import OWN, gathered
from coterie.clients.matching.store import Kept, MatchStore
from coterie.privacy.matching.channel import TOKEN, Address, Parcel, fault_at
from coterie.privacy.matching.errors import blame
from coterie.privacy.matching.group import POINT
from coterie.privacy.matching.legs import Leg, Stage
from coterie.privacy.matching.manifest import Manifest
from coterie.privacy.matching.own import Own
from coterie.privacy.matching.relay import arranged, evaluated, forward, made, receive
from coterie.privacy.matching.terms import COUNTS, ROWS
from coterie.privacy.matching.tokens import rekeyed, tokens
from coterie.privacy.randomness import Stream

__all__ = ["final_lists", "hand", "own_tokens", "received_tokens", "take"]


def take(store: MatchStore, own: Own, manifest: Manifest, *, kept: Kept, parcel: Parcel) -> int:
    """Take a parcel, do this partner's part with it, and store both.

    Args:
        store: Where.
        own: Who takes it.
        manifest: The match's.
        kept: Where the match stands here.
        parcel: What came.

    Returns:
        How many points were evaluated for it now: none for one that was taken before, or for tokens.

    Raises:
        PeerFault: Naming the partner, the list, the chunk and the rule that it breaks.
    """
    address = parcel.address
    leg = kept.coming(address)
    if leg is None:
        raise fault_at("", address, "has no way through this partner")
    after, rows, again = receive(own, manifest, leg=leg, parcel=parcel)
    if again:
        return 0
    if not address.towards:
        rows = evaluated(own, manifest, leg=leg, index=address.index, points=rows)
    store.write(_came(own, leg), address.index * own.terms.chunk, rows)
    if after.stage is not Stage.TAKEN:
        store.save(kept.moved(after))
        return 0 if address.towards else len(rows)
    kept = kept.moved(_whole(store, own, manifest, leg=after))
    if after.ends and after.list == own.name and own.terms.outcome == ROWS:
        kept = _exchanged(store, own, manifest, kept)
    store.save(kept)
    store.remove(_came(own, leg))
    return 0 if address.towards else len(rows)


def hand(store: MatchStore, own: Own, manifest: Manifest, *, kept: Kept, address: Address, stream: Stream) -> Parcel:
    """Hand a parcel on, or again as it went.

    Args:
        store: Where it is kept.
        own: Who hands it on.
        manifest: The match's.
        kept: Where the match stands here.
        address: Which one.
        stream: Secret randomness for its nonce.

    Raises:
        PeerFault: Of the coordinator, who asks for what is not on its way, or not ready yet.
    """
    leg = kept.going(address)
    if (
        leg is None
        or leg.stage not in {Stage.MADE, Stage.HANDED}
        or not 0 <= address.index <= leg.handed < leg.count + 1
    ):
        raise blame(
            "", f"asks for chunk {address.index} of the list of {address.list}, which is not to be handed on now"
        )
    name = f"{_made(own, leg)}-{address.index}"
    before = store.parcel(name)
    if before is not None:
        if address.index == leg.handed:  # killed between the parcel and the state
            store.save(kept.moved(leg.hand(address.index, digest=leg.made[address.index])))
        return Parcel.from_bytes(before)
    if address.index == leg.count:
        raise blame("", f"asks for chunk {address.index} of {leg.count} of the list of {address.list}")
    start, width = address.index * own.terms.chunk, TOKEN if address.towards else POINT
    rows = np.asarray(store.read(_made(own, leg), width)[start : start + own.terms.chunk])
    after, parcel = forward(own, manifest, leg=leg, index=address.index, rows=rows, stream=stream)
    store.keep_parcel(name, parcel.to_bytes())
    store.save(kept.moved(after))
    return parcel


def final_lists(store: MatchStore, own: Own, kept: Kept) -> dict[str, NDArray[np.uint8]]:
    """Return the lists that end here, by owner, as memory maps; those that are whole."""
    ended = (leg for leg in kept.legs if not leg.towards and _is_last(own, leg) and leg.stage is Stage.MADE)
    return {leg.list: store.read(_made(own, leg), POINT) for leg in ended}


def own_tokens(store: MatchStore, own: Own, manifest: Manifest, kept: Kept) -> NDArray[np.uint8]:
    """Return the tokens of the own list in the order in which it was made: identifiers, canaries, padding.

    Raises:
        PeerFault: The list is not back yet.
    """
    lists = final_lists(store, own, kept)
    if own.name not in lists:
        raise blame("", "asks for the end of a match before this partner's list is back")
    back = tokens(manifest, np.asarray(lists[own.name]))
    found = np.empty_like(back)
    found[store.order()] = back
    return found


def received_tokens(store: MatchStore, own: Own, kept: Kept, other: str) -> NDArray[np.uint8]:
    """Return the tokens that another partner sent, whole.

    Raises:
        PeerFault: They have not all come yet.
    """
    for leg in kept.legs:
        if (leg.list, leg.towards) == (other, own.name) and leg.stage is Stage.MADE:
            return store.read(_made(own, leg), TOKEN)
    raise blame("", f"asks for the end of a match before all tokens of {other} came")


def _whole(store: MatchStore, own: Own, manifest: Manifest, *, leg: Leg) -> Leg:
    """Arrange a list that came whole, and write down what it is now."""
    came = store.read(_came(own, leg), TOKEN if leg.towards else POINT)
    order = np.arange(len(came)) if leg.towards else arranged(manifest, leg, came)
    return made(manifest, leg, gathered(store, _made(own, leg), came, order, step=own.terms.chunk))


def _exchanged(store: MatchStore, own: Own, manifest: Manifest, kept: Kept) -> Kept:
    """Make what goes to every other partner of the own tokens, now that the list is back."""
    mine = own_tokens(store, own, manifest, kept)
    for leg in kept.legs:
        if leg.towards and leg.list == own.name:
            rows = rekeyed(own, manifest, other=leg.towards, tokens=mine)
            step = own.terms.chunk
            store.write_all(_made(own, leg), (rows[start : start + step] for start in range(0, len(rows), step)))
            kept = kept.moved(made(manifest, leg, rows))
    return kept


def _is_last(own: Own, leg: Leg) -> bool:
    """Return whether a list ends at a leg; one that is counted may end where it is evaluated last."""
    return leg.ends and (own.terms.outcome != COUNTS or own.terms.destination(leg.list) == own.name)


def _came(own: Own, leg: Leg) -> str:
    return f"came-{_place(own, leg)}"


def _made(own: Own, leg: Leg) -> str:
    return OWN if leg.position == 0 and not leg.towards else f"made-{_place(own, leg)}"


def _place(own: Own, leg: Leg) -> str:
    names = own.terms.names
    towards = f"-{names.index(leg.towards)}" if leg.towards else ""
    return f"{names.index(leg.list)}-{leg.position}{towards}"
