"""Claim 5: lambda rising and rho falling across features, learned in opposite order by JEPA and MAE (THEORY.md 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .._validate import FloatArray
from ..learning import learning_times, order_correlation
from ..spectrum import Spectrum
from ._learning_curves import OBJECTIVES, LearningCurves, describe, learning_curves, stratified
from ._result import About, Progress, Verdict, silent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ABOUT = About(
    number=5,
    title="Opposite orders",
    claim="Where features of larger lambda have smaller rho, MAE learns by lambda and a deep JEPA encoder by rho, in opposite "
    "order; with one layer, or from a vanishing start, JEPA too learns by lambda.",
)
_MAP_FEATURES = 200  # of more, as many spread evenly: a rank correlation needs no more


@dataclass(frozen=True, eq=False, repr=False)
class OppositeOrders(LearningCurves):
    """The fields of `LearningCurves` and a map.

    Attributes
    ----------
    depths, starts : arrays of shape [j] and [k]
    correlation : array of shape [j, k]
        Rank correlation of the two orders; NaN where a feature starts above half of its fixed point.
    depth, eps : float
        Those of the curves.
    """

    depths: FloatArray
    starts: FloatArray
    correlation: FloatArray
    depth: float
    eps: float

    layout: ClassVar[tuple[int, int]] = (1, 3)
    size: ClassVar[tuple[float, float]] = (14.5, 4.4)

    def verdicts(self) -> Sequence[Verdict]:
        """The orders on show, and where on the map they are not opposite."""
        inverted = order_correlation(self.times[0, 1], self.times[1, 1])
        alike = self.correlation[np.argmin(np.abs(self.depths - self.depth)), np.argmin(self.starts)]
        shallow = np.nanmin(self.correlation[np.argmin(self.depths)])
        return (
            Verdict("rank correlation of JEPA's order with falling rho", self.order(0, self.rho), ">=", 0.9),
            Verdict("rank correlation of MAE's order with falling lambda", self.order(1, self.lam), ">=", 0.9),
            Verdict("rank correlation of the two orders", inverted, "<=", -0.9),
            Verdict("the same from the smallest start on the map", float(alike), ">=", 0.9),
            Verdict("the same with one layer, smallest over all starts", float(shallow), ">=", 0.9),
        )

    def _draw(self, axes: Sequence[Axes]) -> None:
        from matplotlib import colormaps
        from matplotlib.colors import ListedColormap
        from matplotlib.patches import Patch

        from ..plot.style import FAINT, add_image_bar, dress

        self._draw_responses(axes[:2], "rho", r"$\lambda$ falling as $\rho$ rises")
        ax = axes[2]
        ax.patch.set(hatch="///", edgecolor=FAINT, linewidth=0)
        field = (self.starts, self.depths, self.correlation)
        colors = ListedColormap(colormaps["PuOr"](np.linspace(0.12, 0.88, 256)))  # black lines show on these
        image = ax.pcolormesh(*field, cmap=colors, vmin=-1, vmax=1, shading="gouraud", rasterized=True)
        ax.set_xscale("log")
        lines = ax.contour(*field, levels=[-0.9, 0.0, 0.9], colors="black", linewidths=[1.6, 1.0, 0.8])
        ax.clabel(lines, fmt="%g")
        shown = ax.plot(self.eps, self.depth, "*", color="white", markeredgecolor="black", markersize=13, clip_on=False)
        excluded = Patch(facecolor="white", edgecolor=FAINT, hatch="///")
        names = ["the curves shown", "a start above half of a fixed point"]
        ax.legend([*shown, excluded], names, loc="lower left", fontsize=9, framealpha=0.9, edgecolor="none")
        ax.set_title("rank correlation of the two orders")
        dress(ax, r"start $\epsilon = w(0)$", "depth $L$", grid=False)
        add_image_bar(ax, image, "$-1$: opposite orders,  $+1$: same order")


def run(
    *,
    fast: bool = False,
    seed: int = 0,
    progress: Progress = silent,
    features: int = 20,
    depth: float = 6,
    eps: float = 1e-3,
    lam: tuple[float, float] = (0.85, 1.1),
    rho: tuple[float, float] = (0.5, 0.95),
) -> OppositeOrders:
    """Solve features whose lambda rises while rho falls, for both objectives, and compare the orders over a map.

    Parameters
    ----------
    fast : bool, default False
        A coarser map.
    seed : int, default 0
        Of lambda and rho: one from each of as many equal parts of their ranges as there are features.
    progress : callable, optional
    features : int, default 20
        Number of features.
    depth, eps : float
        Number of encoder layers, and the start ``w(0)``, of the curves.
    lam, rho : (float, float)
        Ranges of the covariances and of the regression coefficients.
    """
    rng = np.random.default_rng(seed)
    rising, falling = stratified(rng, *lam, features), stratified(rng, *rho, features)[::-1]
    some = np.unique(np.linspace(0, features - 1, min(features, _MAP_FEATURES)).astype(int))
    spec = Spectrum(rising[some], rho=falling[some])
    depths, starts = np.linspace(1, 10, 19 if fast else 73), np.geomspace(1e-8, 1e-1, 29 if fast else 85)
    correlation = np.empty((depths.size, starts.size))
    for j, layers in enumerate(depths):
        progress(j / depths.size)
        for k, start in enumerate(starts):
            times = [learning_times(spec, each, depth=layers, eps=start) for each in OBJECTIVES]
            all_learned = np.isfinite(times).all()
            correlation[j, k] = order_correlation(*times) if all_learned else np.nan
    setting = describe(
        features,
        depth,
        eps,
        seed,
        **{"lambda": f"{lam[0]:g} rising to {lam[1]:g}"},
        rho=f"{rho[1]:g} falling to {rho[0]:g}",
        map=f"{some.size} features, {depths.size} depths from 1 to 10, {starts.size} starts from 1e-8 to 0.1",
        hatched="a feature starts above half of its fixed point",
    )
    curves = learning_curves(rising, falling, depth=depth, eps=eps)
    return OppositeOrders(
        setting, **curves, depths=depths, starts=starts, correlation=correlation, depth=depth, eps=eps
    )
