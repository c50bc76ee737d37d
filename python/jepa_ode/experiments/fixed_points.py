"""Claim 7: where features end, against rho, for encoders of growing depth (THEORY.md 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .._validate import FloatArray
from ..solve import solve
from ..spectrum import Spectrum
from ..theory import critical_time, fixed_point
from ._result import About, Progress, Result, Verdict, how_many, silent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ABOUT = About(
    number=7,
    title="Fixed points",
    claim="JEPA drives a feature to rho^L, which suppresses features of low rho exponentially in the depth L; MAE drives it to "
    "rho^(1 - 1/(L+1)), which tends to rho.",
)
DEPTHS = tuple(range(1, 9))
OBJECTIVES = ("jepa", "mae")
EPS = 0.01  # below the fixed points on show


@dataclass(frozen=True, eq=False, repr=False)
class FixedPoints(Result):
    """Attributes: ``rho`` [n], ``simulated`` and ``predicted`` [objective, depth, n]."""

    rho: FloatArray
    simulated: FloatArray
    predicted: FloatArray

    layout: ClassVar[tuple[int, int]] = (1, 2)
    size: ClassVar[tuple[float, float]] = (10.0, 4.4)

    def verdicts(self) -> Sequence[Verdict]:
        """Simulation against prediction, and the suppression that grows with depth."""
        error = np.abs(self.simulated / self.predicted - 1)
        low, high = np.argmin(self.rho), np.argmax(self.rho)
        contrast = self.simulated[:, :, high] / self.simulated[:, :, low]
        slope = np.polyfit(DEPTHS, np.log(contrast[0]), 1)[0] / np.log(self.rho[high] / self.rho[low])
        return (
            Verdict("largest relative distance of a simulated response from its fixed point", error.max(), "<=", 1e-3),
            Verdict("exponent by which depth suppresses the lowest rho against the highest, JEPA", slope, ">=", 0.99),
            Verdict("the same contrast for MAE, over that of the regression itself", self._mae_contrast(), "<=", 1.0),
        )

    def _mae_contrast(self) -> float:
        low, high = np.argmin(self.rho), np.argmax(self.rho)
        contrast = self.simulated[1, :, high] / self.simulated[1, :, low]
        return float(contrast.max() / (self.rho[high] / self.rho[low]))

    def _draw(self, axes: Sequence[Axes]) -> None:
        from ..plot.style import add_bar, depth_palette, dress

        colormap, norm = depth_palette(DEPTHS)
        for ax, name, k in zip(axes, ("JEPA: $\\rho^L$", "MAE: $\\rho^{L/(L+1)}$"), range(2), strict=True):
            shown = np.linspace(0, len(self.rho) - 1, min(len(self.rho), 12)).astype(int)
            for j, depth in enumerate(DEPTHS):
                ax.plot(self.rho, self.predicted[k, j], color=colormap(norm(depth)), linewidth=1.2)
                ax.plot(self.rho[shown], self.simulated[k, j, shown], "o", color=colormap(norm(depth)), markersize=4)
            ax.set_title(f"{name} (lines), simulated (points)")
            dress(ax, r"regression coefficient $\rho$", "final encoder response $w$")
            ax.set_ylim(0, 1)
        add_bar(axes[-1], colormap, norm, "depth $L$")


def run(*, fast: bool = False, seed: int = 0, progress: Progress = silent, features: int | None = None) -> FixedPoints:
    """Solve features of all rho until they rest, for depths 1 to 8 and both objectives.

    Parameters
    ----------
    fast : bool, default False
        Fewer features.
    seed : int, default 0
        Of the covariances lambda, log-uniform in [0.5, 2]: fixed points do not depend on them.
    progress : callable, optional
    features : int, optional
        Number of features, by default 1,000 (100 for the fast version).
    """
    n = how_many("features", features, 100 if fast else 1000)
    rho = np.linspace(0.6, 0.99, n)
    lam = np.exp(np.random.default_rng(seed).uniform(np.log(0.5), np.log(2.0), n))
    spec = Spectrum(lam, rho=rho)
    simulated, predicted = np.empty((2, len(OBJECTIVES), len(DEPTHS), n))
    for k, objective in enumerate(OBJECTIVES):
        for j, depth in enumerate(DEPTHS):
            progress((k * len(DEPTHS) + j) / simulated[:, :, 0].size)
            end = 2 * critical_time(spec, objective, depth=depth, eps=EPS, fraction=0.9999)
            simulated[k, j] = solve(spec, objective, depth=depth, eps=EPS, t=end[:, None], method="dop853").w[:, 0]
            predicted[k, j] = fixed_point(spec, objective, depth=depth)
    setting = {
        "features": n,
        "rho": "0.6 to 0.99, evenly spaced",
        "lambda": "log-uniform in 0.5 to 2",
        "depths": DEPTHS,
        "eps": EPS,
        "solver": "Runge-Kutta (dop853), to twice the time at which 99.99% of the fixed point is reached",
        "seed": seed,
    }
    return FixedPoints(setting, rho, simulated, predicted)
