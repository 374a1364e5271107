"""Processes of one machine: supervision, logs, metrics, health. Knows nothing of partners, studies or Flower."""

__all__: list[str] = []
