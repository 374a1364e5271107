"""Attacks on this build's own training, by whoever wants to see what its guarantee is worth."""

__all__: list[str] = []
