"""What all figures share: the palette, the looks of axes and legends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._validate import FloatArray

try:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap, ListedColormap, Normalize
    from matplotlib.ticker import LogLocator, NullFormatter
except ImportError as _error:
    raise ImportError('jepa_ode.plot needs matplotlib: pip install "jepa-ode[plot]"') from _error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OBJECTIVE_COLOR = {"jepa": "#1f5fa8", "mae": "#c8500a"}
OBJECTIVE_MARKER = {"jepa": "o", "mae": "s"}
OBJECTIVE_LABEL = {"jepa": "JEPA", "mae": "MAE"}
TIME_LABEL = "time $t$ (gradient-flow units)"
RHO_LABEL = r"$\rho$"
LAMBDA_LABEL = r"$\lambda$"
NEVER = "#b4b4b4"
INK = "#333333"
FAINT = "#999999"


def rho_palette(rho: Any) -> tuple[Colormap, Normalize]:
    """Return the colormap and norm that order features by rho: large is dark; rho <= 0 is grey."""
    return _palette(rho, "viridis", 0.9, "rho")


def lambda_palette(lam: Any) -> tuple[Colormap, Normalize]:
    """Return the colormap and norm that order features by lambda: large is dark; lambda <= 0 is grey."""
    return _palette(lam, "inferno", 0.8, "lambda")


def _palette(values: Any, colors: str, lightest: float, name: str) -> tuple[Colormap, Normalize]:
    # Beyond the lightest part these maps cannot be seen on white.
    shades = colormaps[colors](np.linspace(lightest, 0.0, 256))
    colormap = ListedColormap(shades, name=name).with_extremes(under=NEVER)
    positive = np.asarray(values, dtype=np.float64)
    positive = positive[positive > 0]
    low, high = (float(positive.min()), float(positive.max())) if positive.size else (0.0, 1.0)
    if high - low < 1e-9 * high:
        low = 0.0
    return colormap, Normalize(low, high)


def objective_look(name: str, *, hollow: bool = False, line: str = "") -> dict[str, Any]:
    """Return the options by which ``plot`` draws an objective: colour, marker, line style (by default none).

    JEPA's markers are the larger ones: both are seen where they meet.
    """
    color = OBJECTIVE_COLOR[name]
    return {
        "color": color,
        "marker": OBJECTIVE_MARKER[name],
        "markersize": 7.5 if name == "jepa" else 5.0,
        "markerfacecolor": "none" if hollow else color,
        "linestyle": line,
    }


def as_axes(ax: Axes | None) -> Axes:
    """Return ``ax``, or the axes of a new figure."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots()[1]


def dress(ax: Axes, xlabel: str, ylabel: str, *, grid: bool = True) -> Axes:
    """Label the axes, thin out what is not data."""
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    for axis in (ax.xaxis, ax.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_locator(LogLocator(numticks=7))
            axis.set_minor_formatter(NullFormatter())
    if grid:
        ax.grid(color="#000000", alpha=0.08, linewidth=0.8)
        ax.set_axisbelow(True)
    return ax


def add_legend(ax: Axes, loc: Literal["best", "upper left", "center right", "lower right"] = "best") -> None:
    """Add the legend of what is labelled."""
    ax.legend(loc=loc, fontsize=9, framealpha=0.85, edgecolor="none", handlelength=1.6)


def number(ax: Axes, x: FloatArray, y: FloatArray, numbers: Any) -> None:
    """Write its number beside each point, leaving out those too near to one that has its number."""
    ax.autoscale_view()
    places = ax.transData.transform(np.column_stack([x, y]))
    clear = 0.2 * ax.figure.dpi  # inches
    done: list[FloatArray] = []
    for place, point, label in zip(places, zip(x, y, strict=True), numbers, strict=True):
        if all(np.hypot(*(place - other)) > clear for other in done):
            done.append(place)
            ax.annotate(str(label), point, (6, -10), textcoords="offset points", fontsize=8.5, color=INK)


def draw_strips(ax: Axes, names: Sequence[str], cases: Sequence[tuple[FloatArray, str, str, str]], label: str) -> Axes:
    """Draw repeated measurements as points, the cases beside each other above each name.

    A case is its values [name, repetition], a colour, a marker ("v" and "s" are drawn hollow) and a label.
    """
    for shift, (values, color, marker, name) in zip(np.linspace(-0.24, 0.24, len(cases)), cases, strict=True):
        place, repetition = np.indices(values.shape)
        x = place + shift + 0.03 * (repetition - (values.shape[1] - 1) / 2)
        face = "none" if marker in "vs" else color
        ax.plot(x.ravel(), values.ravel(), marker, color=color, markerfacecolor=face, markersize=6, label=name)
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_xticks(range(len(names)), names)
    add_legend(ax)
    return dress(ax, "", label)


def add_rho_bar(ax: Axes, colormap: Colormap, norm: Normalize) -> None:
    """Add the colour bar of rho."""
    add_bar(ax, colormap, norm, RHO_LABEL)


def depth_palette(depths: Any) -> tuple[Colormap, Normalize]:
    """Return the colormap and norm of depths: deeper is darker."""
    colormap = ListedColormap(colormaps["plasma"](np.linspace(0.85, 0.0, 256)), name="depth")
    return colormap, Normalize(float(min(depths)), float(max(*depths, min(depths) + 1)))


def add_bar(ax: Axes, colormap: Colormap, norm: Normalize, label: str) -> None:
    """Add a colour bar with its label."""
    add_image_bar(ax, ScalarMappable(norm, colormap), label)


def add_image_bar(ax: Axes, image: ScalarMappable, label: str) -> None:
    """Add the colour bar of an image on these axes."""
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, fraction=0.05, aspect=28)
    bar.set_label(label)
    bar.outline.set_visible(False)
