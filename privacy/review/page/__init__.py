"""The reviewer's page: one self-contained file, made from a verdict."""

__all__: list[str] = []
