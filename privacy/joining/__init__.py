"""How a partner joins: requests, admissions, certificates and the keys of nodes.

Keys are made where they are used and never travel. What travels is a partner's request, signed with both of its keys,
and the coordinator's admission; people compare fingerprints by telephone. It is described in `docs/joining.md`.
"""

__all__: list[str] = []
