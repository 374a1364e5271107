"""A partner's running processes: the SuperNode that talks to the coordinator, and the worker that answers."""

__all__: list[str] = []
