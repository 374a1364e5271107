"""Empirical evidence: what an attacker, and a look inside, can measure of a guarantee. Statistics alone."""

__all__: list[str] = []
