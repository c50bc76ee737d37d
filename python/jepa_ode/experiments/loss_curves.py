"""Claim 1: the loss of MAE falls, that of JEPA rises while its features are learned (THEORY.md 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .._validate import FloatArray
from ..coupled import CoupledFeatures
from ..flow import gradient_flow
from ..network import LinearNetwork
from ..theory import critical_time, fixed_point
from ._coupled import LAMBDA, coupled_data
from ._result import About, Progress, Result, Verdict, how_many, silent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ABOUT = About(
    number=1,
    title="Loss curves",
    claim="Along the gradient flow of a deep linear network the loss of MAE falls, to that of the best linear regression; the "
    "loss of JEPA ends higher than it began, and yet JEPA's features are learned.",
)
OBJECTIVES = ("jepa", "mae")
RTOL = 1e-6  # of the flows
RHO = (0.5, 0.95)
LEARNED = 0.5  # of the fixed point, as in critical_time


@dataclass(frozen=True, eq=False, repr=False)
class LossCurves(Result):
    """Objectives are JEPA and MAE, in this order.

    Attributes
    ----------
    t, loss : arrays of shape [objective, time]
    response : array of shape [objective, n, time]
    fixed_point : array of shape [objective, n]
        Of the scalar theory.
    final_loss : array of shape [objective]
        Predicted: for JEPA by the scalar theory, for MAE that of the best linear regression.
    rho : array of shape [n]
    """

    t: FloatArray
    loss: FloatArray
    response: FloatArray
    fixed_point: FloatArray
    final_loss: FloatArray
    rho: FloatArray

    layout: ClassVar[tuple[int, int]] = (2, 2)
    size: ClassVar[tuple[float, float]] = (10.5, 7.0)

    def verdicts(self) -> Sequence[Verdict]:
        """How each loss went, where it ended, and whether JEPA has learned its features all the same."""
        jepa, mae = self.loss
        reached = (self.response[:, :, -1] / self.fixed_point).min(axis=1)
        off = np.abs(self.loss[:, -1] / self.final_loss - 1)
        return (
            Verdict(
                "MAE: largest rise of the loss in a step of the record, over its first value", _rise(mae), "<=", RTOL
            ),
            Verdict(
                "MAE: relative distance of the last loss from that of the best linear regression", off[1], "<=", 0.01
            ),
            Verdict("JEPA: last loss over first loss", jepa[-1] / jepa[0], ">=", 2.0),
            Verdict("JEPA: least last response, over its fixed point", reached[0], ">=", LEARNED),
            Verdict("JEPA: relative distance of the last loss from the scalar theory", off[0], "<=", 0.15),
        )

    def _draw(self, axes: Sequence[Axes]) -> None:
        from ..plot.dynamics import plot_losses, plot_responses
        from ..plot.style import FAINT, INK, OBJECTIVE_LABEL

        words = ("the loss rises", "the loss falls")
        for k, name in enumerate(OBJECTIVES):
            above, below = axes[k], axes[2 + k]
            plot_losses(self.t[k], self.loss[k], name, above)
            above.axhline(self.final_loss[k], color=FAINT, linewidth=1.0, linestyle="--", zorder=1)
            source = "scalar theory" if name == "jepa" else "best linear regression"
            above.annotate(
                source,
                (0.02, self.final_loss[k]),
                (0, -11),
                above.get_yaxis_transform(),
                "offset points",
                color=INK,
                size=9,
            )
            above.set_title(f"{OBJECTIVE_LABEL[name]}: {words[k]}")
            plot_responses(self.t[k], self.response[k], self.rho, below, colorbar=k == 1)
            below.set_title(f"{OBJECTIVE_LABEL[name]}: the features are learned")
            below.set_xlim(above.get_xlim())
            below.set_ylim(0, 1)


def _rise(loss: FloatArray) -> float:
    return float(np.diff(loss).max() / loss[0])


def run(
    *,
    fast: bool = False,
    seed: int = 0,
    progress: Progress = silent,
    features: int | None = None,
    depth: int = 2,
    eps: float = 0.02,
    tilt: float = 0.3,
) -> LossCurves:
    """Integrate the flow of a whole network for both objectives, on data whose features couple.

    Parameters
    ----------
    fast : bool, default False
        Fewer features.
    seed : int, default 0
        Of the features, their patterns and the frames between the layers.
    progress : callable, optional
    features : int, optional
        Number of features, which is the width of the network, by default 30 (12 for the fast version).
    depth : int, default 2
    eps : float, default 0.02
        Start, below the fixed points of all features.
    tilt : float, default 0.3
        How far the patterns of the features are from orthogonal, see `StaticModel.tilted`.
    """
    n = how_many("features", features, 12 if fast else 30)
    rng = np.random.default_rng(seed)
    cov = coupled_data(n, RHO, tilt, rng)
    net = LinearNetwork.balanced(n, depth, eps, rng=rng)
    spec = cov.spectrum()
    residual = spec.sigma2 * (1 - spec.rho**2)  # of the regression of y on x, feature by feature: Syy = Sxx
    t, losses, responses, ends = [], [], [], []
    for k, name in enumerate(OBJECTIVES):
        times = critical_time(spec, name, depth=depth, eps=eps, fraction=LEARNED)
        t.append(np.r_[0.0, np.geomspace(times.min() / 10, 10 * times.max(), 400)])
        progress(k / len(OBJECTIVES))
        flow = gradient_flow(net, cov, name, t=t[-1], rtol=RTOL, features=spec)
        losses.append(flow.loss)
        responses.append(flow.response)
        ends.append(fixed_point(spec, name, depth=depth))
    final = np.array([ends[0] ** 2 @ residual / 2, residual.sum() / 2])
    setting = {
        "features (width of the network)": n,
        "lambda, log-uniform in": LAMBDA,
        "rho, uniform in": RHO,
        "coupling of the features, |offdiag M| / |diag M|": CoupledFeatures(cov).coupling,
        "depth": depth,
        "start": f"balanced, eps = {eps:g}",
        "solver": f"gradient flow of the network, rtol = {RTOL:g}, to ten times the time of the last feature",
        "seed": seed,
    }
    return LossCurves(setting, np.array(t), np.array(losses), np.array(responses), np.array(ends), final, spec.rho)
