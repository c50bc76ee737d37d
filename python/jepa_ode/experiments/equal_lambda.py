"""Claim 4: features of equal lambda and different rho, learned together by MAE and in turn by JEPA (THEORY.md 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ._learning_curves import LearningCurves, describe, learning_curves, stratified
from ._result import About, Progress, Verdict, how_many, silent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ABOUT = About(
    number=4,
    title="Equal lambda, varied rho",
    claim="Features of equal lambda and different rho are learned all at nearly the same time by MAE, but one after the other "
    "by a deep JEPA encoder, those of highest rho first.",
)


@dataclass(frozen=True, eq=False, repr=False)
class EqualLambda(LearningCurves):
    """The fields of `LearningCurves`."""

    def spread(self, objective: int) -> float:
        """Return by how much the last feature is learned later than the first, relative to the first."""
        learned = self.times[objective, 1]
        return float(learned.max() / learned.min() - 1)

    def verdicts(self) -> Sequence[Verdict]:
        """JEPA's order and how few features rise at once; that MAE's all do, and how close they are."""
        return (
            Verdict("rank correlation of JEPA's order with falling rho", self.order(0, self.rho), ">=", 0.99),
            Verdict("largest share of the features that rise at once, JEPA", self.at_once(0), "<=", 0.25),
            Verdict("largest share of the features that rise at once, MAE", self.at_once(1), ">=", 0.99),
            Verdict("spread of MAE's times over that of JEPA's", self.spread(1) / self.spread(0), "<=", 0.1),
        )

    def _draw(self, axes: Sequence[Axes]) -> None:
        self._draw_responses(axes, "rho", rf"$\lambda$ = {self.lam[0]:g} for all")


def run(
    *,
    fast: bool = False,
    seed: int = 0,
    progress: Progress = silent,
    features: int | None = None,
    depth: float = 4,
    eps: float = 5e-4,
    lam: float = 1.0,
    rho: tuple[float, float] = (0.5, 0.95),
) -> EqualLambda:
    """Solve features of one lambda and many rho, for both objectives.

    Parameters
    ----------
    fast : bool, default False
        Half the features.
    seed : int, default 0
        Of the regression coefficients rho: one from each of as many equal parts of their range as there are features.
    progress : callable, optional
    features : int, optional
        Number of features, by default 20 (10 for the fast version).
    depth, eps : float
        Number of encoder layers, and the start ``w(0)``. With one layer JEPA does not tell rho apart either; and as
        ``eps -> 0`` the relative gap between features of different rho closes at every depth (THEORY.md 4).
    lam : float, default 1.0
        Of all features.
    rho : (float, float), default (0.5, 0.95)
        Range of the regression coefficients.
    """
    n = how_many("features", features, 10 if fast else 20)
    values = stratified(np.random.default_rng(seed), *rho, n)
    setting = describe(n, depth, eps, seed, rho=f"{rho[0]:g} to {rho[1]:g}", **{"lambda": f"{lam:g} for all"})
    result = EqualLambda(setting, **learning_curves(np.full(n, lam), values, depth=depth, eps=eps))
    progress(1.0)
    return result
