"""Letting partners in: a request becomes a signed admission and a line in the books."""

import datetime
from collections.abc import Callable
from dataclasses import dataclass

from coterie.privacy.joining.admission import Admission, sign_admission
from coterie.privacy.joining.forms import stamp
from coterie.privacy.joining.request import JoinRequest, read_request
from coterie.server.bookrows import Member
from coterie.server.books import Books
from coterie.server.office import Office

__all__ = ["Asked", "admit", "consider"]


@dataclass(frozen=True)
class Asked:
    """A request that could be admitted.

    Args:
        request: What the partner asks, proved by both of its keys.
        known: Whether these very keys were admitted under this name before, and not revoked since; then there is
            nothing new to compare by telephone.
    """

    request: JoinRequest
    known: bool


def consider(office: Office, data: bytes, *, clock: Callable[[], datetime.datetime]) -> Asked:
    """Read a request, and look whether its keys are in the books already.

    Args:
        office: The coordinator's folder.
        data: What arrived.
        clock: Says the time.

    Raises:
        JoinFault: The request is malformed, altered, not proved by both keys, too old or from the future.
        BooksFault: The books cannot be read.
    """
    request = read_request(data)
    request.check_age(clock(), datetime.timedelta(days=office.settings.approval_days))
    with Books(office.books_url, clock) as books:
        members = books.members()
    there = {(member.name, member.key, member.node) for member in members if member.revoked is None}
    return Asked(request, (request.name, request.key, request.node) in there)


def admit(office: Office, asked: Asked, *, bundle: str, days: int, clock: Callable[[], datetime.datetime]) -> bytes:
    """File a partner in the books and return its signed admission.

    The running service lets the node connect from then on; a node's key that the partner had before is given up.

    Args:
        office: The coordinator's folder.
        asked: What `consider` returned, after people compared its fingerprint.
        bundle: Digest of the Flower bundle that runs name, "sha256:" and 64 hex digits.
        days: For how long, from 1.
        clock: Says the time.

    Raises:
        JoinFault: A setting of the office is not what a partner would take.
        BooksFault: The name or a key is another partner's, or the node's key was replaced or revoked.
    """
    now, request = clock(), asked.request
    admission = Admission(
        name=request.name,
        key=request.key,
        node=request.node,
        coordinator=office.identity.public,
        address=office.settings.address,
        authority=office.authority.read_text(encoding="ascii"),
        bundle=bundle,
        admitted=stamp(now),
        expires=stamp(now + datetime.timedelta(days=days)),
    )
    signed = sign_admission(admission, office.identity)  # before anything is filed: it checks every field
    with Books(office.books_url, clock) as books:
        books.admit(Member(admission.name, admission.key, admission.node, admission.admitted, admission.expires))
    return signed
