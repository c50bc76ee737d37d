"""Figures over features: spectrum, order, critical times, overlap, and the features themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from .._validate import FloatArray
from .style import (
    FAINT,
    INK,
    OBJECTIVE_COLOR,
    OBJECTIVE_LABEL,
    OBJECTIVE_MARKER,
    add_legend,
    as_axes,
    dress,
    number,
    rho_palette,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..overlaps import Overlap
    from ..spectrum import Spectrum


def plot_spectrum(spec: Spectrum, ax: Axes | None = None, *, z: float = 2.0) -> Axes:
    """Scatter of the features: lambda against rho, with bars of ``z`` standard errors if known.

    Features are numbered from 1 in the order of `spec`, where there is room.
    """
    ax = as_axes(ax)
    colormap, norm = rho_palette(spec.rho)
    lam_error = getattr(spec.diagnostic, "lam_stderr", None)
    rho_error = getattr(spec.diagnostic, "rho_stderr", None)
    if lam_error is not None or rho_error is not None:
        ax.errorbar(
            spec.lam,
            spec.rho,
            xerr=None if lam_error is None else z * lam_error,
            yerr=None if rho_error is None else z * rho_error,
            fmt="none",
            ecolor=FAINT,
            elinewidth=0.7,
            alpha=0.6,
            zorder=1,
        )
    ax.scatter(
        spec.lam,
        spec.rho,
        c=spec.rho,
        cmap=colormap,
        norm=norm,
        s=32,
        edgecolors="white",
        linewidths=0.4,
        zorder=2,
    )
    strength = np.abs(spec.lam[spec.lam != 0])
    if strength.size and strength.max() > 20 * np.median(strength):
        # Linear below a hundredth of the largest, logarithmic above: zero and negative values have a place.
        ax.set_xscale("symlog", linthresh=10.0 ** np.floor(np.log10(strength.max()) - 2))
    if (spec.rho <= 0).any():
        ax.axhline(0.0, color=INK, linewidth=0.8)
    number(ax, spec.lam, spec.rho, range(1, len(spec) + 1))
    return dress(ax, r"covariance $\lambda$", r"regression coefficient $\rho$")


def plot_order(times_a: Any, times_b: Any, rho: Any, ax: Axes | None = None) -> Axes:
    """Learning order of JEPA against MAE; what one of them never learns lies in its margin."""
    ax = as_axes(ax)
    times = [np.asarray(times_a, dtype=np.float64), np.asarray(times_b, dtype=np.float64)]
    rho = np.asarray(rho)
    either = np.isfinite(times[0]) | np.isfinite(times[1])
    ranks = []
    ends = []
    for each in times:
        learned = np.isfinite(each)
        rank = np.empty(each.size)
        rank[np.argsort(each, kind="stable")] = np.arange(1, each.size + 1)
        end = int(np.count_nonzero(learned))
        rank[~learned] = end + 0.08 * end + 1
        ranks.append(rank)
        ends.append(end)
    colormap, norm = rho_palette(rho)
    limit = max(*ends, 1)
    ax.plot(
        [0.5, limit + 0.5],
        [0.5, limit + 0.5],
        color=FAINT,
        linewidth=0.8,
        linestyle="--",
        zorder=1,
    )
    ax.scatter(
        ranks[0][either],
        ranks[1][either],
        c=rho[either],
        cmap=colormap,
        norm=norm,
        s=34,
        edgecolors="white",
        linewidths=0.4,
        zorder=2,
    )
    shown = np.flatnonzero(either)
    number(ax, ranks[0][shown], ranks[1][shown], shown + 1)
    for axis, each, end in ((ax.xaxis, times[0], ends[0]), (ax.yaxis, times[1], ends[1])):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        if np.isfinite(each[either]).all():
            continue
        edge, place = end + 0.04 * end + 0.75, end + 0.08 * end + 1
        small: dict[str, Any] = {"color": INK, "fontsize": 8}
        if axis is ax.xaxis:
            ax.axvline(edge, color=FAINT, linewidth=0.8, linestyle=":")
            ax.text(place, 1.01, "never by JEPA", ha="center", transform=ax.get_xaxis_transform(), **small)
        else:
            ax.axhline(edge, color=FAINT, linewidth=0.8, linestyle=":")
            ax.text(1.01, place, "never by MAE", va="top", rotation=-90, transform=ax.get_yaxis_transform(), **small)
    return dress(ax, "place in JEPA's order", "place in MAE's order")


def plot_critical_times(times: dict[str, tuple[FloatArray, FloatArray]], rho: Any, ax: Axes | None = None) -> Axes:
    """Exact (filled) and leading-order (open) critical times against rho.

    Parameters
    ----------
    times : dict
        ``{"jepa": (exact, leading), "mae": (exact, leading)}``, arrays of shape [n]; inf is not
        drawn.
    rho : array of shape [n]
    """
    ax = as_axes(ax)
    rho = np.asarray(rho)
    for name, (exact, leading) in times.items():
        for values, filled in ((exact, True), (leading, False)):
            # The leading order has a value for features that never grow; only those learned are compared.
            seen = np.isfinite(exact) & np.isfinite(values)
            ax.plot(
                rho[seen],
                values[seen],
                OBJECTIVE_MARKER[name],
                color=OBJECTIVE_COLOR[name],
                markerfacecolor=OBJECTIVE_COLOR[name] if filled else "none",
                markersize=4.5 if filled else 7.0,
                linestyle="none",
                zorder=2 if filled else 3,  # around the filled ones, and never hidden by them
                label=f"{OBJECTIVE_LABEL[name]} {'exact' if filled else 'leading order'}",
            )
    ax.set_yscale("log")
    add_legend(ax)
    return dress(ax, r"regression coefficient $\rho$", "critical time $t^*$ (gradient-flow units)")


def plot_overlap(overlap: Overlap, ax: Axes | None = None) -> Axes:
    """What JEPA and MAE share when each is stopped after ``k`` features, with the level of chance."""
    ax = as_axes(ax)
    ax.plot(
        overlap.k,
        overlap.coefficient,
        "o-",
        color="#5b3a8c",
        markersize=3.5,
        linewidth=1.3,
        label="features learned by both",
    )
    ax.plot(
        overlap.k,
        overlap.representation,
        "-",
        color="#2a8f6d",
        linewidth=1.8,
        label="representation overlap",
    )
    ax.plot(
        overlap.k,
        overlap.chance,
        color=FAINT,
        linewidth=0.9,
        linestyle="--",
        label="two random orders",
    )
    ax.set_ylim(0.0, 1.05)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(ax, loc="lower right")
    return dress(ax, "stopped after $k$ features", "share in common")


def plot_overlap_pairs(part: Any, overlap: Any, ax: Axes | None = None, *, level: float = 0.1) -> Axes:
    """Overlap of the representations of JEPA and MAE for every pair of stops, with the line of a level.

    Parameters
    ----------
    part : array of shape [k]
        Parts of the features that have been learned at the stops of both.
    overlap : array of shape [k, k]
        JEPA's stop by MAE's, such as `jepa_ode.representation_overlap` returns.
    """
    ax = as_axes(ax)
    mesh = ax.pcolormesh(part, part, overlap, vmin=0, vmax=1, cmap="viridis_r", rasterized=True)
    ax.contour(part, part, overlap, [level], colors="black", linewidths=1.0)
    ax.figure.colorbar(mesh, ax=ax, label=f"overlap of representations (line: {level:g})").outline.set_visible(False)
    return dress(ax, "part of the features learned by MAE", "part of the features learned by JEPA", grid=False)


def plot_features(
    duals: Any,
    order: Any,
    rho: Any,
    ax: Axes | None = None,
    *,
    image_shape: tuple[int, int] | None = None,
    columns: int = 4,
    count: int = 16,
) -> Axes:
    """The first `count` features of `order`, as images or, without `image_shape`, as rows of a heat map.

    Parameters
    ----------
    duals : array of shape [d, n]
        Patterns ``p_i``; each is scaled to its own largest entry. Their sign has no meaning: the
        largest entry is shown as positive.
    order : array of ints
        Features in the order in which they are learned.
    rho : array of shape [n]
    image_shape : (height, width), optional
        With ``height * width = d``.
    """
    ax = as_axes(ax)
    order = np.asarray(order, dtype=np.intp)[:count]
    rho = np.asarray(rho)
    patterns = np.asarray(duals, dtype=np.float64)[:, order].T
    peak = np.take_along_axis(patterns, np.abs(patterns).argmax(axis=1)[:, None], axis=1)
    patterns = patterns / np.where(peak == 0, 1.0, peak)
    if order.size == 0:
        ax.text(0.5, 0.5, "no feature is learned", ha="center", va="center", transform=ax.transAxes)
        ax.axis("off")
        return ax
    if image_shape is None:
        ax.imshow(patterns, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        ax.set_yticks(
            range(order.size),
            [rf"{place + 1}.  #{i + 1}, $\rho$ {rho[i]:.2f}" for place, i in enumerate(order)],
            fontsize=8,
        )
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        return dress(ax, "coordinate of the data", "", grid=False)
    height, width = image_shape
    colormap, norm = rho_palette(rho)
    tile = ax.get_window_extent().width * 72 / ax.figure.dpi / (1.12 * columns)
    size = min(9.0, tile / 8.5)  # points: two labels side by side over a tile
    for place, i in enumerate(order):
        row, column = divmod(place, columns)
        left, top = column * 1.12, row * 1.36
        ax.imshow(
            patterns[place].reshape(height, width),
            cmap="RdBu_r",
            vmin=-1,
            vmax=1,
            extent=(left, left + 1, top + 1, top),
            interpolation="nearest",
        )
        ax.plot(
            [left, left + 1, left + 1, left, left],
            [top, top, top + 1, top + 1, top],
            color=colormap(norm(rho[i])),
            linewidth=1.6,
        )
        ax.text(
            left,
            top - 0.06,
            f"{place + 1}.  #{i + 1}",
            ha="left",
            va="bottom",
            fontsize=size,
            weight="bold",
        )
        ax.text(
            left + 1,
            top - 0.06,
            rf"$\rho$ {rho[i]:.2f}",
            ha="right",
            va="bottom",
            fontsize=size,
            color=INK,
        )
    ax.set_xlim(-0.04, columns * 1.12 - 0.08)
    ax.set_ylim(-(-order.size // columns) * 1.36 - 0.3, -0.3)
    ax.set_aspect(height / width)
    ax.axis("off")
    return ax
