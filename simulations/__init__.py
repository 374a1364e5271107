"""Studies on a laptop: sources, simulated partners, engines, baselines, reports."""

__all__: list[str] = []
