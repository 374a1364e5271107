"""The coordinator's running processes: SuperLink, the gateway before it, and the app that conducts studies."""

__all__: list[str] = []
