"""Anonymised matching of customers between partners, sans-IO: no identifier leaves its owner.

Every identifier is hashed to a point of a prime-order group and multiplied by a secret of each partner; the protocol is
specified in `docs/formats/matching.md`.
"""

__all__: list[str] = []
