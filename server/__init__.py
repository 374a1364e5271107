"""The coordinator: proposes a plan, moves rounds along a table, aggregates, publishes."""

__all__: list[str] = []
