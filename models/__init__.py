"""What learns: encodings, model families, metrics, explanations, files. Knows torch and numpy alone."""

__all__: list[str] = []
