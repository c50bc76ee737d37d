"""Figures of sweeps: a variable as a map over two parameters or as lines over one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.colors import Colormap, ListedColormap, LogNorm, Normalize, SymLogNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation

from .._validate import FloatArray
from ..sweeps import CellStatus
from .style import (
    FAINT,
    INK,
    OBJECTIVE_LABEL,
    add_bar,
    add_image_bar,
    as_axes,
    dress,
    objective_look,
)
from .sweep_axis import SweepAxis, as_sweep_axis, label_of

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

_MANY = 8  # lines of more values are told apart by a colour bar, not by a legend
_DECADES = 1000.0  # positive values over this range are shown on a logarithmic scale
_BAND = (0.1, 0.9)
_COLORS = ("#1f5fa8", "#c8500a", "#2a7f3f", "#8a2d8f", "#a08000", "#555555", "#0f8f9f", "#d04080")
_MARKERS = "os^Dv<>P"
_LINES = ("-", "--", "-.", ":")
_WITHOUT = {  # cells without a value: hatch and words
    CellStatus.FAILED: ("xxx", "failed"),
    CellStatus.NOT_RUN: ("...", "not run"),
    CellStatus.OK: ("///", "without a finite value"),
}


def plot_sweep_map(
    data: xarray.Dataset,
    variable: str,
    ax: Axes | None = None,
    *,
    x: str | None = None,
    y: str | None = None,
    over: str | None = None,
    colorbar: bool = True,
) -> Axes:
    """A variable of a sweep as a map: a cell for each pair of values of two parameters.

    Cells without a value are hatched, apart for those that failed, were not run yet, or have none; those in numerical
    trouble have a cross. Axes are logarithmic where values grow by factors, and have names where they are no numbers.

    Parameters
    ----------
    data : xarray.Dataset
        Of `jepa_ode.sweep` or `jepa_ode.open_sweep`.
    variable : str
        Of the dimensions of `x`, `y` and `over`; of others choose a value first, ``data.sel(...)``.
    x, y : str, optional
        Dimensions, or coordinates along them. By default the last and the first of the variable.
    over : str, optional
        A dimension, such as a seed, of which the median is shown.
    colorbar : bool, default True

    Notes
    -----
    Values of both signs within -1 and 1, such as correlations, have colours centred at 0, where a line is drawn; all else
    has dark for large. Both are read in grey.

    Examples
    --------
    >>> import jepa_ode as jo
    >>> features = {"trend": "opposite", "features": 20, "lam": (0.5, 1.0), "rho": (0.2, 0.9)}
    >>> found = jo.sweep({"depth": [1, 2, 4], "eps": [1e-6, 1e-4, 1e-2]}, "order_correlation", constants=features)
    >>> ax = jo.plot.plot_sweep_map(found, "order_correlation")
    >>> ax.get_xlabel(), ax.get_xscale()
    ('start $\\\\epsilon = w(0)$', 'log')
    """
    _require_variable(data, variable)
    free = _free(data, variable, x, y, over)
    x = x or (free.pop() if free else None)
    y = y or (free.pop(0) if free else None)
    if x is None or y is None:
        raise ValueError(f"a map needs two dimensions, {variable} has {_dims(data, variable)}")
    across, up = as_sweep_axis("x", data, x), as_sweep_axis("y", data, y)
    values, status = _gathered(data, variable, up, across, over)
    ax = as_axes(ax)
    edges = across.set_up(ax, "x"), up.set_up(ax, "y")
    finite = np.isfinite(values)
    colormap, norm, diverging = _colors(values[finite])
    image = ax.pcolormesh(*edges, np.ma.masked_where(~finite, values), cmap=colormap, norm=norm, rasterized=True)
    key: list[Patch | Line2D] = []
    for code, (hatch, words) in _WITHOUT.items():
        empty = ~finite & (_emptiness(status) == code)
        if empty.any():
            look: dict[str, Any] = {"hatch": hatch, "edgecolor": FAINT, "linewidth": 0}
            ax.pcolor(*edges, np.ma.masked_where(~empty, np.zeros(empty.shape)), cmap=ListedColormap(["white"]), **look)
            key.append(Patch(facecolor="white", label=f"{words} ({_cells(empty)})", **look))
    if diverging and min(values.shape) > 1 and "category" not in (across.scale, up.scale):
        ax.contour(across.values, up.values, np.ma.masked_where(~finite, values), levels=[0.0], colors="black")
        key.append(Line2D([], [], color="black", label="zero"))
    partly = finite & (status >= CellStatus.FAILED).any(axis=-1)
    if partly.any():
        key.append(Line2D([], [], linestyle="", label=f"{_cells(partly)} without some of the values over {over}"))
    troubled = finite & (status == CellStatus.TROUBLE).any(axis=-1)
    if troubled.any():
        rows, columns = np.nonzero(troubled)
        look = {"linestyle": "", "marker": "x", "color": "black", "markersize": 4}
        ax.plot(across.values[columns], up.values[rows], **look)
        key.append(Line2D([], [], label=f"numerical trouble ({_cells(troubled)})", **look))
    ax.set(xlim=edges[0][[0, -1]], ylim=edges[1][[0, -1]])
    dress(ax, "", "", grid=False)
    across.set_ticks(ax, "x")
    up.set_ticks(ax, "y")
    if colorbar:
        add_image_bar(ax, image, _median_of(data, variable, over))
    _add_key(ax, key, across)
    return ax


def plot_sweep_lines(
    data: xarray.Dataset,
    variable: str,
    ax: Axes | None = None,
    *,
    x: str | None = None,
    hue: str | None = None,
    over: str | None = None,
) -> Axes:
    """A variable of a sweep as lines over one parameter, one for each value of another.

    Lines break where there is no value; how many cells failed or were not run yet is written below. Points in numerical
    trouble are hollow.

    Parameters
    ----------
    data : xarray.Dataset
        Of `jepa_ode.sweep` or `jepa_ode.open_sweep`.
    variable : str
        Of the dimensions of `x`, `hue` and `over`; of others choose a value first, ``data.sel(...)``.
    x : str, optional
        A dimension, or a coordinate along one. By default the first of the variable that has numbers, or else its first.
    hue : str, optional
        Likewise; by default the first that is left, if there is one.
    over : str, optional
        A dimension, such as a seed: lines are medians over it, in bands from the 10th to the 90th percentile.

    Examples
    --------
    >>> import jepa_ode as jo
    >>> grid = {"eps": [1e-6, 1e-4, 1e-2], "objective": ["jepa", "mae"]}
    >>> found = jo.sweep(grid, "critical_time", constants={"depth": 2, "lam": [1.0, 0.5], "rho": [0.5, 0.9]})
    >>> ax = jo.plot.plot_sweep_lines(found.isel(feature=0), "critical_time", x="eps", hue="objective")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['JEPA', 'MAE']
    """
    _require_variable(data, variable)
    free = _free(data, variable, x, hue, over)
    if x is None and free:
        x = min(free, key=lambda dim: as_sweep_axis("x", data, dim).scale == "category")
        free.remove(x)
    hue = hue or (free.pop(0) if free else None)
    if x is None:
        raise ValueError(f"lines need a dimension, {variable} has {_dims(data, variable)}")
    across = as_sweep_axis("x", data, x)
    lines = None if hue is None else as_sweep_axis("hue", data, hue)
    values, status = _gathered(data, variable, lines, across, over, summarise=False)
    ax = as_axes(ax)
    across.set_up(ax, "x")
    finite = values[np.isfinite(values)]
    if (first := _first_of_decades(finite)) is not None:
        ax.set_yscale(**({"value": "log"} if finite.min() > 0 else {"value": "symlog", "linthresh": first}))
    looks, bar = _looks(lines)
    middle, low, high = (_quantile(values, q) for q in (0.5, *_BAND))
    names = across.scale == "category"
    shifts = np.linspace(-0.2, 0.2, len(looks)) if names and len(looks) > 1 else np.zeros(len(looks))
    for k, look in enumerate(looks):
        places = across.values + shifts[k]
        if names:
            look |= {"linestyle": "", "marker": look["marker"] or "o"}
        ax.plot(places, middle[k], markevery=max(1, places.size // 15), **look)
        hollow = (status[k] == CellStatus.TROUBLE).any(axis=-1)
        alone = {"linestyle": "", "label": None, "markerfacecolor": "white", "marker": look["marker"] or "o"}
        ax.plot(places[hollow], middle[k][hollow], **look | alone)
        if over is not None and names:
            ax.vlines(places, low[k], high[k], color=look["color"], alpha=0.4, linewidth=3)
        elif over is not None:
            ax.fill_between(places, low[k], high[k], color=look["color"], alpha=0.18, linewidth=0)
    if names:
        ax.set_xlim(-0.5, across.values.size - 0.5)
    else:  # the whole of the sweep, with values or without
        ax.update_datalim([(place, 0.0) for place in across.values], updatey=False)
        ax.autoscale_view()
    if ax.get_yscale() == "symlog":
        ax.set_ylim(bottom=0.0)
    dress(ax, "", _median_of(data, variable, over))
    across.set_ticks(ax, "x")
    key = _notes(status, over)
    if lines is not None and bar is not None:
        add_bar(ax, *bar, lines.label)
    elif lines is not None:
        legend = ax.legend(title=lines.label, loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, frameon=False)
        if key:
            ax.add_artist(legend).set_clip_on(False)  # it stays beside the key
    _add_key(ax, key, across)
    return ax


def _require_variable(data: xarray.Dataset, variable: str) -> None:
    shown = [str(name) for name in data.data_vars if name not in ("message", "status")]
    shown = [name for name in shown if data[name].dtype.kind == "f"]
    if variable not in shown:
        raise ValueError(f"variable must be one of {', '.join(shown)}, got {variable!r}")


def _free(data: xarray.Dataset, variable: str, *taken: str | None) -> list[str]:
    """Return the dimensions of a variable that no argument names, by itself or by a coordinate along it."""
    used = {data[name].dims[0] if name in data.coords and data[name].ndim == 1 else name for name in taken if name}
    return [str(dim) for dim in data[variable].dims if dim not in used]


def _dims(data: xarray.Dataset, variable: str) -> str:
    return ", ".join(map(str, data[variable].dims)) or "none"


def _gathered(
    data: xarray.Dataset,
    variable: str,
    rows: SweepAxis | None,
    columns: SweepAxis,
    over: str | None,
    *,
    summarise: bool = True,
) -> tuple[FloatArray, npt.NDArray[np.int8]]:
    """Return values [row, column], or with all that they are summarised over [row, column, over], and status of the latter."""
    if over is not None and over not in data.dims:
        raise ValueError(f"over must be one of {', '.join(map(str, data.dims))}, got {over!r}")
    dims = [each for each in (None if rows is None else rows.dim, columns.dim, over) if each is not None]
    own = data[variable].dims
    if len(set(dims)) < len(dims):
        raise ValueError(f"x, y, hue and over must be different dimensions, got {', '.join(dims)}")
    for dim in dims:
        if dim not in own:
            raise ValueError(f"{variable} does not depend on {dim}; it does on {_dims(data, variable)}")
    if left := [str(dim) for dim in own if dim not in dims]:
        raise ValueError(
            f"{variable} depends on {left[0]} too ({data.sizes[left[0]]} values): choose one, data.sel({left[0]}=...) or "
            f"isel, or summarise them, over={left[0]!r}"
        )
    index = {columns.dim: columns.order} | ({rows.dim: rows.order} if rows is not None else {})
    shape = (1 if rows is None else rows.values.size, columns.values.size, -1)
    ordered = data[variable].isel(index).transpose(*dims)
    cells = data["status"].isel(index, missing_dims="ignore").broadcast_like(ordered).transpose(*dims)
    status = cells.values.reshape(shape)
    values = ordered.values.astype(np.float64).reshape(shape)
    values[status == CellStatus.NOT_RUN] = np.nan  # a store may hold what a block that was not finished has left
    return _quantile(values, 0.5) if summarise else values, status


def _quantile(values: FloatArray, q: float) -> FloatArray:
    """Return a quantile along the last axis of what is there, NaN where nothing is or where it is between infinities."""
    if values.shape[-1] == 1:
        return np.asarray(values[..., 0])
    nothing = np.asarray(np.isnan(values).all(axis=-1))
    with np.errstate(invalid="ignore"):
        found = np.nanquantile(np.where(nothing[..., None], 0.0, values), q, axis=-1)
    return np.where(nothing, np.nan, found)


def _emptiness(status: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Return why there is no value [row, column]: a failure says more than a cell that is not run."""
    code = np.full(status.shape[:2], CellStatus.OK, dtype=np.int8)
    for worse in (CellStatus.NOT_RUN, CellStatus.FAILED):
        code[(status == worse).any(axis=-1)] = worse
    return code


def _colors(values: FloatArray) -> tuple[Colormap, Normalize, bool]:
    """Return colormap and norm, and whether they are centred at 0."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if -1 <= low < -0.01 and 0.01 < high <= 1:
        return colormaps["cividis"], Normalize(-1.0, 1.0), True  # blue, grey at 0, yellow; lightness rises throughout
    colormap = ListedColormap(colormaps["viridis"](np.linspace(0.95, 0.0, 256)), name="sweep")
    first = _first_of_decades(values)
    if low == high:  # one colour; the bar must not promise what cannot be
        low, high = min(low, 0.0), max(high, 0.0) or 1.0
    if first is None:
        return colormap, Normalize(low, high), False
    return colormap, LogNorm(low, high) if low > 0 else SymLogNorm(first, vmin=low, vmax=high), False


def _first_of_decades(values: FloatArray) -> float | None:
    """Return the least value above zero where there are none below and those above span decades."""
    positive = values[values > 0]
    wide = positive.size and values.min() >= 0 and positive.max() >= _DECADES * positive.min()
    return float(positive.min()) if wide else None


def _looks(lines: SweepAxis | None) -> tuple[list[dict[str, Any]], tuple[Colormap, Normalize] | None]:
    """Return options of ``plot`` for each line, and the colours of a bar where a legend would be too long."""
    if lines is None:
        return [{"color": _COLORS[0], "marker": "o", "markersize": 5, "linestyle": "-"}], None
    count = lines.values.size
    if lines.scale == "category":
        looks = [
            {
                "color": _COLORS[k % 8],
                "marker": _MARKERS[k % 8],
                "markersize": 5,
                "linestyle": _LINES[k % 4],
                "label": name,
            }
            for k, name in enumerate(lines.names)
        ]
        if set(lines.names) <= set(OBJECTIVE_LABEL):
            looks = [
                objective_look(name, line=_LINES[k]) | {"label": OBJECTIVE_LABEL[name]}
                for k, name in enumerate(lines.names)
            ]
        return looks, None
    colormap = ListedColormap(colormaps["viridis"](np.linspace(0.85, 0.0, 256)), name="lines")
    if count > _MANY:
        norm = (LogNorm if lines.scale == "log" else Normalize)(lines.values[0], lines.values[-1])
        return [{"color": color, "marker": "", "linestyle": "-"} for color in colormap(norm(lines.values))], (
            colormap,
            norm,
        )
    shades = colormap(np.linspace(0.0, 1.0, count))
    return [
        {"color": color, "marker": _MARKERS[k], "markersize": 5, "linestyle": _LINES[k % 4], "label": name}
        for k, (color, name) in enumerate(zip(shades, lines.names, strict=True))
    ], None


def _notes(status: npt.NDArray[np.int8], over: str | None) -> list[Patch | Line2D]:
    key: list[Patch | Line2D] = []
    if over is not None:
        count = status.shape[-1]
        key.append(
            Patch(facecolor=FAINT, alpha=0.4, label=f"10th to 90th percentile over {over}, of up to {count} values")
        )
    for code in (CellStatus.FAILED, CellStatus.NOT_RUN):
        if (cells := status == code).any():
            words = f"{_cells(cells)} {_WITHOUT[code][1]}"
            key += [Line2D([], [], linestyle="", label=words)]
    if (status == CellStatus.TROUBLE).any():
        hollow: dict[str, Any] = {"marker": "o", "markerfacecolor": "white", "color": INK, "linestyle": ""}
        key.append(Line2D([], [], label="numerical trouble", **hollow))
    return key


def _cells(mask: npt.NDArray[np.bool_]) -> str:
    count = int(np.count_nonzero(mask))
    return f"{count} cell{'s' * (count != 1)}"


def _median_of(data: xarray.Dataset, variable: str, over: str | None) -> str:
    label = label_of(data, variable)
    return label if over is None else f"{label}\nmedian over {over}"


def _add_key(ax: Axes, key: list[Patch | Line2D], across: SweepAxis) -> None:
    """Explain marks below the axes, where no data are."""
    if not key:
        return
    names = max(map(len, across.names)) if across.scale == "category" and across.turned else 0
    below = ScaledTranslation(
        0, -0.5 - 0.033 * names, ax.figure.dpi_scale_trans
    )  # inches: tick labels and the axis label
    ax.legend(
        handles=key,
        loc="upper left",
        bbox_to_anchor=(0.0, 0.0),
        bbox_transform=ax.transAxes + below,
        ncols=2,
        handlelength=2.4,
        handleheight=1.2,
        fontsize=9,
        frameon=False,
        borderaxespad=0.0,
    )
