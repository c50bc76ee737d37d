"""Claim 9: critical times against lambda, rho, depth and start: exact, to leading order and simulated (THEORY.md 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from .._validate import FloatArray
from ..spectrum import Spectrum
from ..theory import critical_time
from ._learning_curves import OBJECTIVES, simulated_time, stratified
from ._result import About, Progress, Result, Verdict, how_many, silent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ABOUT = About(
    number=9,
    title="Critical times",
    claim="Depth widens the spacing of JEPA's critical times for different rho, not that of MAE's. The leading order in the "
    "start eps is exact as eps -> 0, where that spacing closes, but off by a factor of 2 where eps is near a fixed point.",
)


class Panel(NamedTuple):
    """What one panel varies, what it holds fixed, and what its two series differ in."""

    name: str
    low: float
    high: float
    log: bool
    fixed: dict[str, float]
    other: str
    series: tuple[float, float]


PANELS = (
    Panel("lam", 0.1, 10.0, True, {"L": 5, "eps": 0.01}, "rho", (0.9, 0.5)),
    Panel("rho", 0.5, 0.95, False, {"lam": 1, "eps": 0.01}, "L", (5, 3)),
    Panel("L", 1, 8, False, {"lam": 1, "eps": 0.001}, "rho", (0.9, 0.5)),
    Panel("eps", 1e-8, 0.01, True, {"lam": 1, "L": 5}, "rho", (0.9, 0.5)),
)
_LABEL = {
    "lam": r"covariance $\lambda$",
    "rho": r"regression coefficient $\rho$",
    "L": "depth $L$",
    "eps": r"start $\epsilon$",
}
_DEPTH, _START, _POINTS = 2, 3, 8


@dataclass(frozen=True, eq=False, repr=False)
class CriticalTimes(Result):
    """Attributes: values ``x`` [panel, value] and times ``exact``, ``leading`` [panel, series, objective, value].

    ``points``, ``simulated`` and ``expected`` (exact) are the same at the eight values that were simulated.
    """

    x: FloatArray
    exact: FloatArray
    leading: FloatArray
    points: FloatArray
    simulated: FloatArray
    expected: FloatArray

    layout: ClassVar[tuple[int, int]] = (2, 2)
    size: ClassVar[tuple[float, float]] = (11.0, 7.6)

    def verdicts(self) -> Sequence[Verdict]:
        """Simulated against exact times, the lag of rho = 0.5 behind rho = 0.9, and how good the leading order is."""
        error = np.abs(self.simulated / self.expected - 1).max()
        lag = self.exact[:, 1] / self.exact[:, 0] - 1  # of the second series, relative to the first
        (jepa, mae), start = lag[_DEPTH, :, :8], lag[_START, 0]
        off = self.leading / self.exact
        vanishing = np.abs(off[_START, :, :, 0] - 1).max()
        return (
            Verdict("largest relative error of a simulated time", error, "<=", 1e-5),
            Verdict("least by which another layer widens JEPA's spacing", np.diff(jepa).min(), ">=", 0),
            Verdict(
                "MAE's largest spacing with 2 to 8 layers over that with one", abs(mae[1:] / mae[0]).max(), "<=", 1
            ),
            Verdict("JEPA's spacing at the smallest start over that at the largest", start[0] / start[-1], "<=", 0.1),
            Verdict("largest factor by which the leading order is off", np.maximum(off, 1 / off).max(), ">=", 2),
            Verdict("relative error of the leading order at the smallest start", vanishing, "<=", 0.01),
        )

    def _draw(self, axes: Sequence[Axes]) -> None:
        from ..plot.style import INK, OBJECTIVE_COLOR, OBJECTIVE_LABEL, OBJECTIVE_MARKER, add_legend, dress

        for p, (ax, panel) in enumerate(zip(axes, PANELS, strict=True)):
            ax.plot([], [], "--", color=INK, linewidth=0.9, label="leading order")
            for s, k in np.ndindex(2, 2):
                x, exact, leading = self.x[p], self.exact[p, s, k], self.leading[p, s, k]
                color, marker = OBJECTIVE_COLOR[OBJECTIVES[k]], OBJECTIVE_MARKER[OBJECTIVES[k]]
                label = f"{OBJECTIVE_LABEL[OBJECTIVES[k]]}, {_says(panel.other, panel.series[s])}"
                ax.plot(x, exact, color=color, linewidth=1.3)
                ax.plot(x, leading, "--", color=INK, linewidth=0.9)
                ax.fill_between(x, exact, leading, color=INK, alpha=0.15, linewidth=0)
                (dots,) = ax.plot(self.points[p], self.simulated[p, s, k], marker, color=color, label=label)
                dots.set(markersize=(4, 7)[s], markerfacecolor=(color, "none")[s])
            title = ", ".join(_says(*each) for each in panel.fixed.items())
            ax.set(title=title, xscale="log" if panel.log else "linear", yscale="log")
            dress(ax, _LABEL[panel.name], "critical time $t^*$ (flow units)")
            add_legend(ax, "best" if panel.log else "center right")


def _says(name: str, value: float) -> str:
    return f"{_LABEL[name].split()[-1]} = {value:g}"


def _times(how: Callable[..., FloatArray], panel: Panel, values: FloatArray) -> FloatArray:
    """Return times [series, objective, value]; a call takes features of many lambda, rho and eps, but of one depth."""
    times = np.empty((2, 2, values.size))
    for s, other in enumerate(panel.series):
        setting: dict[str, float | FloatArray] = {**panel.fixed, panel.other: other, panel.name: values}
        lam, rho, depths, eps = np.broadcast_arrays(*(setting[name] for name in ("lam", "rho", "L", "eps")))
        for depth in np.unique(depths):
            at = depths == depth
            for k, objective in enumerate(OBJECTIVES):
                times[s, k, at] = how(Spectrum(lam[at], rho=rho[at]), objective, depth=depth, eps=eps[at])
    return times


def run(
    *, fast: bool = False, seed: int = 0, progress: Progress = silent, features: int | None = None
) -> CriticalTimes:
    """Compute critical times along four axes, for both objectives, and simulate features at random places on them.

    Parameters
    ----------
    fast : bool, default False
        Coarser lines.
    seed : int, default 0
        Of the values that are simulated: one from each of eight equal parts of an axis, and depths 1 to 8.
    progress : callable, optional
    features : int, optional
        Number of values on a line, at least 8, by default 400 (100 for the fast version).
    """
    n, rng, found = max(how_many("features", features, 100 if fast else 400), _POINTS), np.random.default_rng(seed), []
    for p, panel in enumerate(PANELS):
        progress(p / len(PANELS))
        if p == _DEPTH:
            x, points = np.arange(1.0, n + 1).clip(max=panel.high), np.arange(1.0, _POINTS + 1)
        else:
            x = np.array((np.geomspace if panel.log else np.linspace)(panel.low, panel.high, n))
            points = stratified(rng, panel.low, panel.high, _POINTS, log=panel.log)
        lines = [_times(how, panel, x) for how in (critical_time, partial(critical_time, method="leading"))]
        found.append((x, *lines, points, *(_times(how, panel, points) for how in (simulated_time, critical_time))))
    setting = {
        "axes": "lambda 0.1 to 10, rho 0.5 to 0.95, depth 1 to 8, eps 1e-8 to 0.01",
        "held fixed": "lambda 1, rho 0.9 (filled), 0.5 (hollow), depth 5 (against rho 3, too), eps 0.01 (against depth 0.001)",
        "learned": "at half of the own fixed point",
        "solver": f"exact at {n} values for lines, Runge-Kutta (dop853, rtol 1e-10) for points",
        "seed": seed,
    }
    return CriticalTimes(setting, *(np.array(each) for each in zip(*found, strict=True)))
