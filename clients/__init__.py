"""A partner's building: policy, vault, node and door. `app`, `wire` and `door` alone know Flower."""

__all__: list[str] = []
