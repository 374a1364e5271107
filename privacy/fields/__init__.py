"""Field-level encryption: sealed columns, data keys under key-encryption keys, and single cells."""

__all__: list[str] = []
