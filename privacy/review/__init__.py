"""The reviewer's room: reads a partner's bundle, trusts none of it, and recomputes what can be recomputed."""

__all__: list[str] = []
