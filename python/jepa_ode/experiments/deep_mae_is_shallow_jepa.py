"""Claim 8: MAE of growing depth tends to JEPA with one layer, so that no MAE has the dynamics of deep JEPA (THEORY.md 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .._validate import FloatArray
from ..solve import solve
from ..spectrum import Spectrum
from ..theory import critical_time
from ._learning_curves import lag, stratified
from ._result import About, Progress, Result, Verdict, how_many, silent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ABOUT = About(
    number=8,
    title="MAE at infinite depth",
    claim="In rescaled time (L times flow time) MAE tends to JEPA with one layer as its depth L grows, at the rate 1/L; so no "
    "MAE, however deep, makes features of low rho wait as JEPA with two or more layers does.",
)
DEPTHS = 2.0 ** np.arange(13)
JEPA_DEPTHS = (1, 2, 3, 4)
_ASYMPTOTIC = 512  # from here on the clocks differ by log(1/eps) / (L eps), well below the time that a rise takes


@dataclass(frozen=True, eq=False, repr=False)
class DeepMae(Result):
    """Attributes, of which all times are rescaled.

    ``distance`` [depth of MAE] is the largest of a response from that of JEPA with one layer, over features and times;
    ``limit_distance`` that of the responses extrapolated to infinite depth; ``rate`` the derived limit of L times the
    distance. ``t`` [m] and ``curves`` [depth of MAE + 1, m] are of one feature, the last curve JEPA's. ``lag_mae`` (the last
    at infinite depth) and ``lag_jepa``: how much later the lowest rho is learned than the highest at equal lambda, relatively.
    """

    distance: FloatArray
    limit_distance: float
    rate: float
    t: FloatArray
    curves: FloatArray
    lag_mae: FloatArray
    lag_jepa: FloatArray

    layout: ClassVar[tuple[int, int]] = (1, 3)
    size: ClassVar[tuple[float, float]] = (14.5, 4.2)

    @property
    def slope(self) -> float:
        """Slope of the distance against depth on logarithmic axes, over the deepest encoders."""
        deep = DEPTHS >= _ASYMPTOTIC
        return float(np.polyfit(np.log(DEPTHS[deep]), np.log(self.distance[deep]), 1)[0])

    def verdicts(self) -> Sequence[Verdict]:
        """The rate, its constant, the limit, and the lag that no MAE has."""
        constant = float(DEPTHS[-1] * self.distance[-1]) / self.rate
        limit = self.limit_distance / float(self.distance[-1])
        ratio = float(self.lag_jepa[1:].min() / self.lag_mae.max())
        return (
            Verdict("slope of the distance from L = 512, its difference from -1", abs(self.slope + 1), "<=", 0.05),
            Verdict("L times the distance at L = 4096 against the derived value", abs(constant - 1), "<=", 0.05),
            Verdict("distance of the limit, extrapolated, over that at L = 4096", limit, "<=", 0.1),
            Verdict("least lag of low rho in JEPA with 2 to 4 layers over the largest in any MAE", ratio, ">=", 2.0),
        )

    def _draw(self, axes: Sequence[Axes]) -> None:
        from matplotlib.colors import LogNorm

        from ..plot.style import INK, OBJECTIVE_COLOR, add_bar, add_legend, depth_palette, dress

        jepa, mae = OBJECTIVE_COLOR["jepa"], OBJECTIVE_COLOR["mae"]
        colormap, norm = depth_palette(DEPTHS)[0], LogNorm(DEPTHS[0], DEPTHS[-1])
        for depth, curve in zip(DEPTHS, self.curves[:-1], strict=True):
            axes[0].plot(self.t, curve, color=colormap(norm(depth)), linewidth=1.1)
        axes[0].plot(self.t, self.curves[-1], "--", color=jepa, linewidth=2.6, label="JEPA, $L$ = 1")
        axes[0].set_xlim(0, self.t[-1])
        add_bar(axes[0], colormap, norm, "depth $L$ of MAE")
        dress(axes[0], "time $L\\,t$ (rescaled units)", "encoder response $w$").set_title("one feature")
        axes[1].loglog(DEPTHS, self.distance, "s", color=mae, label="measured")
        axes[1].loglog(DEPTHS, self.rate / DEPTHS, "--", color=INK, label=f"derived: {self.rate:.3g}/$L$")
        axes[1].set_ylim(self.distance.min() / 2, 2)
        dress(axes[1], "depth $L$ of MAE", "largest distance of a response")
        axes[1].set_title(f"MAE from JEPA with $L$ = 1 (slope {self.slope:.3f})")
        axes[2].semilogx(DEPTHS, self.lag_mae[:-1], "s-", color=mae, linewidth=1.0, label="MAE")
        axes[2].axhline(self.lag_mae[-1], color=mae, linestyle=":", label=r"MAE, $L = \infty$")
        axes[2].semilogx(JEPA_DEPTHS, self.lag_jepa, "o-", color=jepa, linewidth=1.0, label="JEPA")
        dress(axes[2], "depth $L$", "relative lag of the critical time")
        axes[2].set_title(r"how much later low than high $\rho$ is learned")
        for ax in axes:
            add_legend(ax)


def derived_rate(rho: FloatArray, eps: float) -> float:
    """Return the limit of L times the distance.

    In rescaled time MAE is ``w' = lambda w^2 w^(-1/L) - sigma^2 w^3``, and ``w^(-1/L) = 1 - log(w)/L + O(1/L^2)``. Let ``f`` be
    JEPA's ``w'`` at depth 1; then the difference, ``delta/L``, obeys ``delta' = f'(w) delta - lambda w^2 log(w)``, solved by
    ``delta = f(w) int_eps^w -log(v) lambda v^2 / f(v)^2 dv``, without lambda, and by ``-rho log(rho)`` at the fixed point.
    """
    v = np.geomspace(eps, 0.99 * rho, 4001)  # a column per feature
    f = v**2 * (1 - v / rho)
    integrand = -np.log(v) * v**2 / f**2
    integral = np.cumsum(0.5 * (integrand[1:] + integrand[:-1]) * np.diff(v, axis=0), axis=0)
    return float(max((f[1:] * integral).max(), (-rho * np.log(rho)).max()))


def run(
    *,
    fast: bool = False,
    seed: int = 0,
    progress: Progress = silent,
    features: int | None = None,
    eps: float = 0.01,
    rho: tuple[float, float] = (0.5, 0.9),
) -> DeepMae:
    """Solve features of random lambda and rho with MAE of depths 1 to 4096 and JEPA of depth 1; critical times of deep JEPA.

    Parameters
    ----------
    fast : bool, default False
        20 features by default instead of 200.
    seed : int, default 0
        Of rho, one from each of as many equal parts of its range as there are features, and of lambda.
    progress : callable, optional
    features : int, optional
    eps : float, default 0.01
        The start ``w(0)``. The smaller it is, the deeper MAE must be to come near its limit.
    rho : (float, float), default (0.5, 0.9)
        Range of the regression coefficients.
    """
    n = how_many("features", features, 20 if fast else 200)
    rng = np.random.default_rng(seed)
    spec = Spectrum(np.exp(rng.uniform(np.log(0.5), np.log(2.0), n)), rho=stratified(rng, *rho, n))
    one = n // 2
    t = np.linspace(0.0, 1.6 * critical_time(spec, "jepa", depth=1, eps=eps, fraction=0.9), 400, axis=-1)
    jepa = mae = solve(spec, "jepa", depth=1, eps=eps, t=t, time_unit="rescaled").w
    distance, curves = np.empty(DEPTHS.size), np.tile(jepa[one], (DEPTHS.size + 1, 1))
    for j, depth in enumerate(DEPTHS):
        progress(j / DEPTHS.size)
        shallower, mae = mae, solve(spec, "mae", depth=depth, eps=eps, t=t, time_unit="rescaled").w
        distance[j], curves[j] = np.abs(mae - jepa).max(), mae[one]
    limit_distance = float(np.abs(2 * mae - shallower - jepa).max())  # twice as deep halves the term in 1/L
    rate = derived_rate(spec.rho[:: max(n // 200, 1)], eps)  # no rho matters alone
    lag_mae = np.array([lag("mae", *rho, depth=depth, eps=eps) for depth in (*DEPTHS, math.inf)])
    lag_jepa = np.array([lag("jepa", *rho, depth=depth, eps=eps) for depth in JEPA_DEPTHS])
    setting = {
        "features": f"{n}, rho {rho[0]:g} to {rho[1]:g}, lambda log-uniform in 0.5 to 2",
        "eps": eps,
        "one feature": f"lambda = {spec.lam[one]:.3g}, rho = {spec.rho[one]:.3g}",
        "lag": f"of the time to half of the fixed point, rho = {rho[0]:g} after rho = {rho[1]:g}, lambda = 1",
        "solver": "exact, in rescaled time: L times that of gradient flow",
        "seed": seed,
    }
    return DeepMae(setting, distance, limit_distance, rate, t[one], curves, lag_mae, lag_jepa)
