"""Recommenders: shared item-side models from additive sums, scored at home with a customer's own history."""

__all__: list[str] = []
