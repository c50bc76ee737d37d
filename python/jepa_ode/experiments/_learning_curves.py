"""What the claims about greedy learning share: both objectives on the same features until all are learned (THEORY.md 2, 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from .._validate import FloatArray
from ..learning import order_correlation
from ..solve import solve
from ..spectrum import Spectrum
from ..theory import TimeUnit, critical_time, fixed_point
from ._result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OBJECTIVES = ("jepa", "mae")
FRACTIONS = (0.1, 0.5, 0.9)  # of the own fixed point: a feature begins to rise, is learned, is done
_TIMES = 500  # as many as a panel has pixels across, about
_SHOWN = 2000  # curves: more, of features so alike, look the same and take seconds to draw


@dataclass(frozen=True, eq=False, repr=False)
class LearningCurves(Result):
    """Attributes: ``lam``, ``rho`` [n]; ``t`` [objective, m], ``w`` [objective, n, m]; ``times`` [objective, fraction, n]."""

    lam: FloatArray
    rho: FloatArray
    t: FloatArray
    w: FloatArray
    times: FloatArray

    layout: ClassVar[tuple[int, int]] = (1, 2)
    size: ClassVar[tuple[float, float]] = (10.0, 4.2)

    def order(self, objective: int, values: FloatArray) -> float:
        """Return the rank correlation of the order of learning with that of falling ``values``: 1 when the largest is first."""
        return order_correlation(self.times[objective, 1], -values)

    def at_once(self, objective: int) -> float:
        """Return the largest share of the features that is between 10% and 90% of its fixed point at one moment.

        ``1/n`` when features are learned strictly one at a time, 1 when all are learned together.
        """
        begin, _, done = np.sort(self.times[objective], axis=-1)
        begun = np.arange(1, begin.size + 1)  # when the next one begins, the last moment before another is done
        return float((begun - np.searchsorted(done, begin, side="left")).max() / begin.size)

    def _draw_responses(self, axes: Sequence[Axes], by: Literal["rho", "lambda"], remark: str) -> None:
        from ..plot.dynamics import plot_responses
        from ..plot.style import OBJECTIVE_LABEL

        values = self.rho if by == "rho" else self.lam
        shown = np.unique(np.linspace(0, values.size - 1, min(values.size, _SHOWN)).astype(int))
        for k, (ax, name) in enumerate(zip(axes, OBJECTIVES, strict=True)):
            plot_responses(self.t[k], self.w[k, shown], values[shown], ax, by=by, xscale="linear", colorbar=k == 1)
            ax.set_title(f"{OBJECTIVE_LABEL[name]}, {remark}")
            ax.set_xlim(0, self.t[k, -1])
            ax.locator_params(axis="x", nbins=6)
            ax.ticklabel_format(axis="x", scilimits=(-3, 4), useMathText=True)


def stratified(rng: np.random.Generator, low: float, high: float, n: int, *, log: bool = False) -> FloatArray:
    """Return ``n`` rising values, a random one from each of ``n`` equal parts of the interval or of its logarithm."""
    part = (np.arange(n) + rng.random(n)) / n
    values: FloatArray = low * (high / low) ** part if log else low + (high - low) * part
    return values


def learning_curves(lam: FloatArray, rho: FloatArray, *, depth: float, eps: float) -> dict[str, FloatArray]:
    """Return the fields of `LearningCurves`, up to a little after the last feature is done."""
    spec = Spectrum(lam, rho=rho)
    times = np.array(
        [
            [critical_time(spec, each, depth=depth, eps=eps, fraction=fraction) for fraction in FRACTIONS]
            for each in OBJECTIVES
        ]
    )
    t = np.linspace(0.0, 1.05 * times.max(axis=(1, 2)), _TIMES, axis=-1)
    w = np.array([solve(spec, each, depth=depth, eps=eps, t=t[k]).w for k, each in enumerate(OBJECTIVES)])
    return {"lam": spec.lam, "rho": spec.rho, "t": t, "w": w, "times": times}


def lag(objective: str, low: float, high: float, *, depth: float, eps: float) -> float:
    """Return how much later a feature of low rho is learned than one of high rho and equal lambda, relative to the latter.

    It depends on neither lambda nor the unit of time; NaN where one of them starts above half of its fixed point.
    """
    unit: TimeUnit = "rescaled" if math.isinf(depth) else "flow"
    last, first = critical_time(Spectrum([1.0, 1.0], rho=[low, high]), objective, depth=depth, eps=eps, time_unit=unit)
    return float(last / first - 1) if min(first, last) > 0 else math.nan


def simulated_time(spec: Spectrum, objective: str, *, depth: float, eps: FloatArray) -> FloatArray:
    """Return when responses integrated by Runge-Kutta are at half of their fixed points, to a few parts in a million."""
    half, rows = fixed_point(spec, objective, depth=depth)[:, None] / 2, np.arange(len(spec))
    t = critical_time(spec, objective, depth=depth, eps=eps, method="leading")[:, None] * np.geomspace(0.01, 10, 200)
    for _ in range(3):  # each time within two neighbours of the last
        w = solve(spec, objective, depth=depth, eps=eps, t=t, method="dop853", rtol=1e-10).w
        after = np.argmax(w >= half, axis=1)
        t = np.linspace(t[rows, after - 1], t[rows, after], 200, axis=-1)
    return np.asarray(t.mean(axis=1))


def describe(n: int, depth: float, eps: float, seed: int, **features: str) -> dict[str, Any]:
    """Return the setting in words."""
    return {
        "features": n if n <= _SHOWN else f"{n}, of which the figure shows {_SHOWN}",
        **features,
        "depth": depth,
        "eps": eps,
        "solver": "exact",
        "learned": "at half of the own fixed point",
        "rising": "between 10% and 90% of the own fixed point",
        "seed": seed,
    }
