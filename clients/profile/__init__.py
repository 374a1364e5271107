"""The data profile: what a partner should know of its own table before a study, on a page that nobody else gets."""

__all__: list[str] = []
