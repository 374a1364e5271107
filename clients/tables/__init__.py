"""Tables as they come to a partner: files and databases, read in pieces, strictly, and never copied to disk."""

__all__: list[str] = []
