"""The one command, `coterie`; each sub-command loads what it needs when it is called."""

__all__: list[str] = []
