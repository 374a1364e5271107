"""Reports of simulated studies as pages: one study, two side by side, or a sweep over epsilon."""

from coterie.simulations.report.comparison import render_comparison
from coterie.simulations.report.page import render
from coterie.simulations.report.sweeps import render_sweep, sweep_figure

__all__ = ["render", "render_comparison", "render_sweep", "sweep_figure"]
