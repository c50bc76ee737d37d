"""Claim 3: features of equal rho are learned one at a time by both objectives, largest lambda first (THEORY.md 4)."""

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
    number=3,
    title="Greedy in lambda",
    claim="Features of equal rho are learned one at a time by JEPA and by MAE, those of larger lambda first.",
)


@dataclass(frozen=True, eq=False, repr=False)
class GreedyInLambda(LearningCurves):
    """The fields of `LearningCurves`."""

    def verdicts(self) -> Sequence[Verdict]:
        """Order, and how few features rise at once."""
        return (
            Verdict("rank correlation of JEPA's order with falling lambda", self.order(0, self.lam), ">=", 0.99),
            Verdict("rank correlation of MAE's order with falling lambda", self.order(1, self.lam), ">=", 0.99),
            Verdict("largest share of the features that rise at once, JEPA", self.at_once(0), "<=", 0.25),
            Verdict("largest share of the features that rise at once, MAE", self.at_once(1), "<=", 0.25),
        )

    def _draw(self, axes: Sequence[Axes]) -> None:
        self._draw_responses(axes, "lambda", rf"$\rho$ = {self.rho[0]:g} for all")


def run(
    *,
    fast: bool = False,
    seed: int = 0,
    progress: Progress = silent,
    features: int | None = None,
    depth: float = 4,
    eps: float = 1e-3,
    rho: float = 0.8,
    lam: tuple[float, float] = (0.2, 1.0),
) -> GreedyInLambda:
    """Solve features of one rho and many lambda, for both objectives.

    Parameters
    ----------
    fast : bool, default False
        Half the features.
    seed : int, default 0
        Of the covariances lambda: one from each of as many equal parts of their range, on a logarithmic scale, as there
        are features.
    progress : callable, optional
    features : int, optional
        Number of features, by default 20 (10 for the fast version).
    depth, eps : float
        Number of encoder layers, and the start ``w(0)``.
    rho : float, default 0.8
        Of all features.
    lam : (float, float), default (0.2, 1.0)
        Range of the covariances.
    """
    n = how_many("features", features, 10 if fast else 20)
    values = stratified(np.random.default_rng(seed), *lam, n, log=True)
    setting = describe(
        n, depth, eps, seed, rho=f"{rho:g} for all", **{"lambda": f"{lam[0]:g} to {lam[1]:g}, logarithmic"}
    )
    result = GreedyInLambda(setting, **learning_curves(values, np.full(n, rho), depth=depth, eps=eps))
    progress(1.0)
    return result
