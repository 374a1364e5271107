"""A partner's part in matches of customers: its list, the others' lists on their way, and what comes out."""

__all__: list[str] = []
