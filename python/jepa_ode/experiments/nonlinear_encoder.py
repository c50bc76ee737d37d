"""Claim 10: the orders of the two objectives in nonlinear encoders trained on minibatches (THEORY.md 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from .._validate import FloatArray
from ..learning import learning_times, order_correlation
from ..models import feature_trends
from ._mlp import learn
from ._result import About, Progress, Result, Verdict, how_many, silent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ABOUT = About(
    number=10,
    title="Assumptions removed",
    claim="By when responses exceed 0.2, a ReLU encoder trained on minibatches learns features in one order with JEPA and MAE "
    "where lambda and rho rise together, and in opposite orders where rho falls as lambda rises: with SGD, and with Adam "
    "unless the features are the coordinates. Adam normalises these one by one, and MAE's order by lambda is inverted.",
    extra="experiments",
)
OBJECTIVES = ("jepa", "mae")
TRENDS: tuple[Literal["same", "opposite"], ...] = ("same", "opposite")
VARIANTS = (  # optimizer, its learning rate, whether features lie in random directions, steps of JEPA and of MAE
    ("sgd", 0.07, True, (1800, 300)),
    ("adam", 5e-4, True, (800, 400)),
    ("adam", 5e-4, False, (800, 400)),
)
NAMES = ("SGD", "Adam", "Adam, features\nalong axes")
LEVEL = 0.2  # clear of the start and of where MAE ends for the noisiest features, 0.3: it is their rise that counts
SNAPSHOTS = 80
_correlations = np.vectorize(order_correlation, signature="(n),(n)->()")


@dataclass(frozen=True, eq=False, repr=False)
class NonlinearEncoder(Result):
    """Learning times of features in nonlinear encoders, and the responses of the first seed.

    Attributes: ``step`` [variant, objective, m]; ``response`` [variant, trend, objective, feature, m]; ``times`` [variant,
    trend, objective, seed, feature], from when on the response is at least `LEVEL`; ``predicted`` [trend, objective,
    feature], the same for a linear encoder by the theory, in flow time; ``nonlinear`` [variant, trend, objective, seed],
    the share of the trained encoder's output that is not linear in its input. Variants are those of `NAMES`.
    """

    step: FloatArray
    response: FloatArray
    times: FloatArray
    predicted: FloatArray
    nonlinear: FloatArray

    layout: ClassVar[tuple[int, int]] = (2, 5)
    size: ClassVar[tuple[float, float]] = (17.5, 7.2)

    def orders(self) -> FloatArray:
        """Return the rank correlation of JEPA's order with MAE's, [variant, trend, seed]."""
        return np.asarray(_correlations(self.times[:, :, 0], self.times[:, :, 1]))

    def theory(self) -> FloatArray:
        """Return the rank correlation of each order with the theory's, [variant, trend, objective, seed]."""
        return np.asarray(_correlations(self.times, self.predicted[:, :, None]))

    def verdicts(self) -> Sequence[Verdict]:
        """The worst seed of each case."""
        orders, theory, between = self.orders(), self.theory()[:2], "rank correlation of JEPA's and MAE's orders"
        return (
            *(Verdict(f"{between}, rho rising, {NAMES[v]}", orders[v, 0].min(), ">=", 0.5) for v in range(2)),
            *(Verdict(f"{between}, rho falling, {NAMES[v]}", orders[v, 1].max(), "<=", -0.5) for v in range(2)),
            Verdict(f"{between}, rho falling, Adam, features along axes", orders[2, 1].min(), ">=", 0.0),
            Verdict("rank correlation of JEPA's order with the theory's", theory[:, :, 0].min(), ">=", 0.5),
            Verdict("rank correlation of MAE's order with the theory's", theory[:, :, 1].min(), ">=", 0.5),
            Verdict("share of an encoder's output that is not linear in its input", self.nonlinear.min(), ">=", 0.02),
        )

    def _draw(self, axes: Sequence[Axes]) -> None:
        from ..plot import OBJECTIVE_LABEL, plot_response_map
        from ..plot.style import INK, OBJECTIVE_COLOR, draw_strips

        words = (r"$\rho$ rises", r"$\rho$ falls")
        for v, k, j in np.ndindex(2, 2, 2):
            ax = axes[5 * v + 2 * k + j]
            shared = {"largest": self.response[v].max(), "colorbar": k + j == 2}
            plot_response_map(self.step[v, j], self.response[v, k, j], ax, learned=self.times[v, k, j, 0], **shared)
            ax.set_title(f"{NAMES[v]}, {OBJECTIVE_LABEL[OBJECTIVES[j]]}: {words[k]}")
            ax.set(xlabel=r"feature ($\lambda$ rises)", ylabel="" if k or j else "training step")
        axes[0].legend(loc="lower left", labelcolor="white", frameon=False, handletextpad=0.0)
        theory, between = self.theory(), [(self.orders()[:, k], INK, "^v"[k], words[k]) for k in range(2)]
        against = [
            (theory[:, k, j], OBJECTIVE_COLOR[name], ("^v", "os")[j][k], f"{OBJECTIVE_LABEL[name]}, {words[k]}")
            for (k, j), name in zip(np.ndindex(2, 2), 2 * OBJECTIVES, strict=True)
        ]
        shared = {"xlabel": "optimizer", "ylim": (-1.05, 1.05)}
        draw_strips(axes[4], NAMES, between, "rank correlation").set(title="JEPA's order and MAE's", **shared)
        draw_strips(axes[9], NAMES, against, "rank correlation").set(title="each order and the theory's", **shared)


def run(
    *,
    fast: bool = False,
    seed: int = 0,
    progress: Progress = silent,
    features: int | None = None,
    seeds: int | None = None,
    activation: Literal["relu", "tanh", "gelu"] = "relu",
    eps: float = 0.15,
    lam: tuple[float, float] = (0.6, 1.0),
    rho: tuple[float, float] = (0.3, 0.95),
) -> NonlinearEncoder:
    """Train encoders of one hidden layer on the static model, with both objectives, trends and optimizers.

    Parameters
    ----------
    fast : bool, default False
        Fewer features, half the steps at twice the learning rate, one seed.
    seed : int, default 0
        Of the weights, the features' directions and the data.
    progress : callable, optional
    features, seeds : int, optional
        Number of features (100, or 30 if fast) and of repetitions (3, or 1).
    activation : {"relu", "tanh", "gelu"}, default "relu"
    eps : float, default 0.15
        Balanced start of the layers, without the activation; ReLU halves its response.
    lam, rho : (float, float)
        Ranges of the covariances and of the regression coefficients.
    """
    n, repetitions = how_many("features", features, 30 if fast else 100), how_many("seeds", seeds, 1 if fast else 3, 1)
    haste = 2 if fast else 1
    specs = [feature_trends(n, trend, lam=lam, rho=rho) for trend in TRENDS]
    cases = (len(VARIANTS), len(TRENDS), len(OBJECTIVES))
    step, response = np.empty((len(VARIANTS), len(OBJECTIVES), SNAPSHOTS)), np.empty((*cases, n, SNAPSHOTS))
    times, nonlinear = np.empty((*cases, repetitions, n)), np.empty((*cases, repetitions))
    for done, (s, v, k, j) in enumerate(np.ndindex(repetitions, *cases)):
        optimizer, lr, turned, steps = VARIANTS[v]
        options: dict[str, Any] = {"optimizer": optimizer, "lr": lr * haste, "steps": steps[j] // haste}
        options |= {"turned": turned, "eps": eps, "activation": activation, "snapshots": SNAPSHOTS}
        found, nonlinear[v, k, j, s] = learn(specs[k], OBJECTIVES[j], np.random.default_rng([seed, s, k]), **options)
        progress((done + 1) / nonlinear.size)
        times[v, k, j, s] = found.learning_times(LEVEL, threshold="absolute")
        if s == 0:
            step[v, j], response[v, k, j] = found.step, found.response
    began = float(response[..., 0].mean())
    theory: dict[str, Any] = {"depth": 2, "eps": began, "fraction": LEVEL, "threshold": "absolute"}
    predicted = np.array([[learning_times(spec, each, **theory) for each in OBJECTIVES] for spec in specs])
    setting = {
        "features": f"{n}, in random directions of the data unless said otherwise",
        "encoder": f"{2 * n} hidden units ({activation}), {n} outputs, no biases; linear predictor or decoder",
        "start": f"balanced, eps = {eps:g}; responses {began:.3g}",
        "lambda and rho": f"{lam[0]:g} to {lam[1]:g} and {rho[0]:g} to {rho[1]:g}; lambda rises, rho rises or falls",
        "training": "fresh batches of 128 Gaussian pairs of the static model",
        "learning rates": f"SGD {VARIANTS[0][1] * haste:g}, Adam {VARIANTS[1][1] * haste:g}",
        "learned": f"response of {LEVEL:g} for good, else last; in theory: of a linear encoder of depth 2, same start",
        "seed": f"{seed}, {repetitions} repetitions",
    }
    return NonlinearEncoder(setting, step, response, times, predicted, nonlinear)
