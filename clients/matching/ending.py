"""What comes out of a match at a partner: sealed, and for its own customers alone."""

import numpy as np

from coterie.clients.agreed import Agreed
from coterie.clients.matched import keep_matched, keep_tokens
from coterie.clients.matching.lists import own_tokens, received_tokens
from coterie.clients.matching.store import Kept, MatchStore
from coterie.clients.refusals import refused
from coterie.clients.work import Work
from coterie.privacy.matching.manifest import Manifest
from coterie.privacy.matching.own import Own
from coterie.privacy.matching.tokens import canaries_digest, matches
from coterie.privacy.plan import ROWS, TOKENS

__all__ = ["keep_outcome"]


def keep_outcome(work: Work, agreed: Agreed, store: MatchStore, *, own: Own, manifest: Manifest, kept: Kept) -> str:
    """Seal what a match found, and return the digest that must be equal at all partners ("" where there is none).

    Args:
        work: The workspace at work.
        agreed: The plan.
        store: The match's files.
        own: This partner.
        manifest: The match's.
        kept: Where the match stands here.

    Raises:
        TaskRefused: Identifiers, consents or segments changed since the list was made; or they cannot be opened.
        PeerFault: A list is not here yet, or does not agree with the others'.
    """
    outcome = own.terms.outcome
    if outcome not in {ROWS, TOKENS}:
        return ""
    mine = own_tokens(store, own, manifest, kept)
    identifiers, day = work.open_identifiers(agreed), work.ledger.today
    if identifiers.digest != kept.listed:  # another order, or others who consented: tokens would go to the wrong ones
        fix = "have the match planned anew, with another epoch"
        raise refused("match", "the identifiers", "are not those that the list was made of any more", fix)
    if outcome == ROWS:
        found = {}
        for other in own.terms.names:
            if other != own.name:
                received = np.asarray(received_tokens(store, own, kept, other))
                shared = matches(own, manifest, other=other, tokens=mine, received=received, count=kept.items)
                found[other] = identifiers.customers_of(shared)
        keep_matched(work.vault, own.terms.plan, found, day=day)
        return ""
    customers, places = identifiers.owners()
    keep_tokens(work.vault, own.terms.plan, (customers, mine[places]), day=day)
    return canaries_digest(mine, count=kept.items)
