"""Figures of spectra, solutions and flows: each function takes ``ax``, draws on it and returns it.

Without ``ax`` a new figure is made. Nothing is shown and no global state is changed. Colour is
rho unless said otherwise: dark is predictable, light is noisy, grey is never learned. The two objectives differ in hue
and in marker, so that figures survive printing in grey. Needs matplotlib (``pip install
"jepa-ode[plot]"``).
"""

from .style import OBJECTIVE_LABEL, lambda_palette, rho_palette  # isort: skip  (says which extra is missing)
from .dynamics import (
    plot_check,
    plot_check_final,
    plot_check_responses,
    plot_delays,
    plot_flow,
    plot_losses,
    plot_response_map,
    plot_responses,
    plot_solution,
    plot_training,
)
from .features import (
    plot_critical_times,
    plot_features,
    plot_order,
    plot_overlap,
    plot_overlap_pairs,
    plot_spectrum,
)
from .sweeps import plot_sweep_lines, plot_sweep_map

__all__ = [
    "OBJECTIVE_LABEL",
    "lambda_palette",
    "plot_check",
    "plot_check_final",
    "plot_check_responses",
    "plot_critical_times",
    "plot_delays",
    "plot_features",
    "plot_flow",
    "plot_losses",
    "plot_order",
    "plot_overlap",
    "plot_overlap_pairs",
    "plot_response_map",
    "plot_responses",
    "plot_solution",
    "plot_spectrum",
    "plot_sweep_lines",
    "plot_sweep_map",
    "plot_training",
    "rho_palette",
]
