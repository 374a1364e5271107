"""What protects: plans, contracts, budgets, ledgers, releases. Imports neither torch nor Flower."""

__all__: list[str] = []
