"""Figures over time: responses, losses, and theory beside the matrix flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize

from .._validate import as_float_array
from .style import (
    FAINT,
    INK,
    LAMBDA_LABEL,
    OBJECTIVE_COLOR,
    OBJECTIVE_LABEL,
    OBJECTIVE_MARKER,
    RHO_LABEL,
    TIME_LABEL,
    add_bar,
    add_legend,
    add_rho_bar,
    as_axes,
    dress,
    lambda_palette,
    rho_palette,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..analysis import TheoryCheck
    from ..flow import Flow
    from ..solution import Solution
    from ..training import Training

# More curves than this are drawn thin and see-through.
_CROWD = 60


def plot_responses(
    t: Any,
    w: Any,
    values: Any,
    ax: Axes | None = None,
    *,
    by: Literal["rho", "lambda"] = "rho",
    xscale: Literal["log", "linear"] = "log",
    linestyle: str = "-",
    colorbar: bool = True,
) -> Axes:
    """Encoder responses against time, one curve per feature, coloured by rho or by lambda: dark is large.

    Parameters
    ----------
    t : array of shape [m] or [n, m]
    w : array of shape [n, m]
    values : array of shape [n]
        What the features are coloured by.
    by : {"rho", "lambda"}, default "rho"
        What `values` are.
    xscale : {"log", "linear"}, default "log"
        Of the time; a logarithmic one leaves out t = 0.
    """
    ax = as_axes(ax)
    w, values = np.asarray(w), np.asarray(values)
    colormap, norm = rho_palette(values) if by == "rho" else lambda_palette(values)
    times = np.broadcast_to(np.asarray(t), w.shape)
    crowded = len(w) > _CROWD
    order = np.argsort(values)  # the large ones on top
    curves = [np.column_stack([times[i], w[i]]) for i in order]
    lines = LineCollection(
        [curve[curve[:, 0] > 0] for curve in curves] if xscale == "log" else curves,
        colors=colormap(norm(values[order])),
        linewidths=0.6 if crowded else 1.3,
        alpha=0.45 if crowded else 1.0,
        linestyles=linestyle,
        rasterized=crowded,
    )
    ax.add_collection(lines)
    ax.autoscale_view()
    if w.size and (times > 0).any():
        ax.set_xscale(xscale)
    ax.set_ylim(bottom=0.0)
    if colorbar:
        add_bar(ax, colormap, norm, RHO_LABEL if by == "rho" else LAMBDA_LABEL)
    return dress(ax, TIME_LABEL, "encoder response $w$")


def plot_solution(solution: Solution, ax: Axes | None = None) -> Axes:
    """Responses of a `Solution`; features that failed are drawn as far as they came."""
    ax = plot_responses(solution.t, solution.w, solution.spectrum.rho, ax)
    if solution.time_unit != "flow":
        ax.set_xlabel(f"time $t$ ({solution.time_unit} units)")
    return ax


def plot_flow(flow: Flow, ax: Axes | None = None) -> Axes:
    """Responses of an integrated matrix `Flow`."""
    return plot_responses(flow.t, flow.response, flow.features.rho, ax)


def plot_training(run: Training, ax: Axes | None = None) -> Axes:
    """Responses of a `Training` against its flow time, with Adam, which has none, against iterations."""
    adaptive = run.optimizer in ("adam", "adamw")
    ax = plot_responses(run.iteration if adaptive else run.t, run.response, run.features.rho, ax)
    if adaptive:
        ax.set_xlabel("iteration")
    return ax


def plot_response_map(
    step: Any,
    response: Any,
    ax: Axes | None = None,
    *,
    relative: bool = False,
    largest: float | None = None,
    learned: Any = None,
    colorbar: bool = True,
) -> Axes:
    """Encoder responses as a heat map: features across, training steps down, dark is unlearned.

    Parameters
    ----------
    step : array of shape [m]
        Increasing; a response fills the time until the next one.
    response : array of shape [n, m]
    relative : bool, default False
        Each feature in units of its own largest response.
    largest : float, optional
        Response of the brightest colour, by default the largest; what is above looks the same.
    learned : array of shape [n], optional
        When each feature counts as learned, marked by a white point; inf is never.
    """
    ax = as_axes(ax)
    step, shown = as_float_array("step", step), as_float_array("response", response, ndim=2)
    if relative:
        shown = shown / np.maximum(shown.max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    norm = Normalize(0.0, largest or float(shown.max(initial=0.0)) or 1.0)
    colormap = colormaps["viridis"]
    if step.size:
        last = step[-1] - step[-2] if step.size > 1 else 1.0
        ax.pcolormesh(
            np.arange(len(shown) + 1) + 0.5,
            [*step, step[-1] + last],
            shown.T,
            cmap=colormap,
            norm=norm,
            rasterized=True,
        )
    if learned is not None:
        index = np.arange(len(shown)) + 1
        ax.plot(index, learned, "w.", markeredgecolor="black", markeredgewidth=0.4, markersize=5, label="learned")
    ax.invert_yaxis()
    if colorbar:
        clipped = bool(shown.max(initial=0.0) > norm.vmax)
        add_bar(ax, colormap, norm, "encoder response" + " / its largest" * relative + ", clipped" * clipped)
    return dress(ax, "feature", "training step", grid=False)


def plot_losses(t: Any, loss: Any, name: str, ax: Axes | None = None, *, predicted: Any = None) -> Axes:
    """Loss of one objective against time (logarithmic), its first and last value marked.

    Parameters
    ----------
    t, loss : arrays of shape [m]
    name : {"jepa", "mae"}
    predicted : array of shape [m], optional
        Loss of the scalar theory, drawn dashed.
    """
    ax = as_axes(ax)
    t, loss = as_float_array("t", t), as_float_array("loss", loss)
    seen = (t > 0) & np.isfinite(loss)
    color = OBJECTIVE_COLOR[name]
    ax.plot(t[seen], loss[seen], color=color, linewidth=1.8, label=f"{OBJECTIVE_LABEL[name]}")
    if predicted is not None:
        ax.plot(
            t[seen],
            np.asarray(predicted)[seen],
            color=INK,
            linewidth=1.1,
            linestyle="--",
            label="predicted",
        )
        add_legend(ax)
    if seen.any():
        for k, side in ((0, "left"), (-1, "right")):
            point = (t[seen][k], loss[np.isfinite(loss)][k])
            ax.plot(*point, OBJECTIVE_MARKER[name], color=color, markersize=5)
            ax.annotate(
                f"{point[1]:.3g}",
                point,
                (0, 7),
                textcoords="offset points",
                ha=side,
                color=INK,
                fontsize=9,
            )
        ax.set_xscale("log")
    ax.set_ylim(bottom=0.0)
    ax.margins(y=0.15)
    ax.set_ylim(bottom=0.0)
    return dress(ax, TIME_LABEL, f"{OBJECTIVE_LABEL[name]} loss")


def plot_delays(tau: Any, delay: Any, limits: dict[str, Any], rho: Any, ax: Axes | None = None) -> Axes:
    """By how much moving averages delay learning, in units of their time constants; one point per feature, coloured by rho.

    Parameters
    ----------
    tau : array of shape [k]
    delay : array of shape [k, n]
    limits : dict of arrays of shape [n]
        By what they are called, such as those of `moving_average_delay`; their medians are drawn dashed.
    rho : array of shape [n]
    """
    ax = as_axes(ax)
    colormap, norm = rho_palette(rho)
    for constant, each in zip(tau, np.asarray(delay), strict=True):
        ax.scatter(np.full(each.size, constant), each, c=colormap(norm(rho)), s=22, zorder=2)
    for name, limit in limits.items():
        value = np.nanmedian(limit)
        ax.axhline(value, color=FAINT, linestyle="--", linewidth=1.0, zorder=1)
        style: dict[str, Any] = {"textcoords": "offset points", "color": INK, "fontsize": 9}
        ax.annotate(name, (0.5, value), (0, 4), xycoords=ax.get_yaxis_transform(), ha="center", **style)
    ax.set_xscale("log")
    dress(ax, r"time constant $\tau$ of the moving average", r"delay of half the fixed point, over $\tau$")
    ax.set_ylim(bottom=0)
    return ax


def plot_check(checks: TheoryCheck | dict[str, TheoryCheck], ax: Axes | None = None) -> Axes:
    """Critical times of the integrated matrix flow against those predicted, on the diagonal if right.

    One check, or several by their labels; "jepa" and "mae" have colours of their own.
    """
    ax = as_axes(ax)
    values: list[float] = []
    if not isinstance(checks, dict):
        checks = {checks.objective.name: checks}
    for name, check in checks.items():
        both = np.isfinite(check.relative_error)
        ax.plot(
            check.predicted_time[both],
            check.integrated_time[both],
            OBJECTIVE_MARKER[check.objective.name],
            color=OBJECTIVE_COLOR.get(name),
            markersize=4.5,
            linestyle="none",
            alpha=0.85,
            label=OBJECTIVE_LABEL.get(name, name),
        )
        values += [*check.predicted_time[both], *check.integrated_time[both]]
    if values:
        ends = [min(values) / 1.3, max(values) * 1.3]
        ax.plot(ends, ends, color=FAINT, linewidth=0.8, linestyle="--", label="perfect prediction")
        ax.set_xscale("log")
        ax.set_yscale("log")
        add_legend(ax)
    return dress(ax, "predicted critical time", "critical time in the matrix flow")


def plot_check_responses(check: TheoryCheck, rho: Any, ax: Axes | None = None, *, count: int = 8) -> Axes:
    """Predicted (dashed) and integrated (solid) responses of `count` features spread over those learned."""
    ax = as_axes(ax)
    learned = np.flatnonzero(check.predicted_time <= check.t[-1])
    picked = learned[np.unique(np.linspace(0, learned.size - 1, min(count, learned.size)).astype(int))]
    rho = np.asarray(rho)
    if picked.size == 0:
        picked = np.arange(min(count, rho.size))
    colormap, norm = rho_palette(rho)
    seen = check.t > 0
    for i in picked[::-1]:
        color = colormap(norm(rho[i]))
        ax.plot(check.t[seen], check.integrated[i, seen], color=color, linewidth=2.2, alpha=0.55)
        ax.plot(check.t[seen], check.predicted[i, seen], color=color, linewidth=1.2, linestyle="--")
    ax.plot([], [], color=INK, linewidth=2.2, alpha=0.55, label="matrix flow")
    ax.plot([], [], color=INK, linewidth=1.2, linestyle="--", label="predicted")
    ax.set_xscale("log")
    ax.set_ylim(bottom=0.0)
    add_legend(ax, loc="upper left")
    add_rho_bar(ax, colormap, norm)
    return dress(ax, TIME_LABEL, "encoder response $w$")


def plot_check_final(checks: dict[str, TheoryCheck], ax: Axes | None = None) -> Axes:
    """Responses at the end of the matrix flow against those predicted for that time."""
    ax = as_axes(ax)
    top = 0.0
    for name, check in checks.items():
        predicted, integrated = check.final
        hollow = name == "jepa"  # on top of MAE's filled markers
        ax.plot(
            predicted,
            integrated,
            OBJECTIVE_MARKER[name],
            color=OBJECTIVE_COLOR[name],
            markerfacecolor="none" if hollow else OBJECTIVE_COLOR[name],
            markersize=6.0 if hollow else 4.5,
            linestyle="none",
            zorder=3 if hollow else 2,
            label=OBJECTIVE_LABEL[name],
        )
        top = max(top, float(np.nanmax(np.concatenate([predicted, integrated]), initial=0.0)))
    ax.plot([0, top], [0, top], color=FAINT, linewidth=0.8, linestyle="--", label="perfect prediction")
    add_legend(ax, loc="upper left")
    return dress(ax, "predicted final response", "final response in the matrix flow")
