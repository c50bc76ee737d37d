"""Claim 13: the fixed points of the two losses, and the thresholds of "learned", kept apart (THEORY.md 2 and 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .._validate import FloatArray
from ..learning import crossing_times, order_correlation
from ..models import StaticModel
from ..network import LinearNetwork, random_orthonormal
from ..spectrum import Spectrum
from ..theory import critical_time, fixed_point
from ..training import Training, train
from ._learning_curves import stratified
from ._result import About, Progress, Result, Verdict, how_many, silent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ABOUT = About(
    number=13,
    title="The confusion set straight",
    claim="A network trained to predict y itself, V W x -> y, is MAE's: it ends at sqrt(rho), not at rho^L, and tests nothing "
    "said of JEPA, which does end at rho^L from the same start on the same data. Where a run is stopped early, half of the "
    "values that it reached is a threshold that inverts JEPA's order of learning; half of the fixed points is not.",
)
OBJECTIVES = ("jepa", "mae")
THRESHOLDS = ("half the fixed point", "response of 0.2", "half the value reached")
DEPTHS, ORDER_DEPTH, EPS = (1, 2, 3, 4), 2, 0.01
STOPS, EARLY = np.linspace(0.5, 1.5, 41), 16  # in units of the time to learn all features; EARLY is the index of 0.9
RATES = {"jepa": 0.1, "mae": 0.02}  # hundreds of steps before anything is learned


@dataclass(frozen=True, eq=False, repr=False)
class TwoLosses(Result):
    """Attributes: ``rho`` [n]; ``final`` and ``fixed`` [objective, depth, n], responses of trained networks and of the theory;
    ``apparent`` [objective, threshold, stop, n], times at which features count as learned, inf where they do not; ``true``
    [objective, n], those of the theory, at half the fixed points; ``order`` [objective, threshold, stop], rank correlation of
    both over the features that count as learned.
    """

    rho: FloatArray
    final: FloatArray
    fixed: FloatArray
    apparent: FloatArray
    true: FloatArray
    order: FloatArray

    layout: ClassVar[tuple[int, int]] = (2, 2)
    size: ClassVar[tuple[float, float]] = (10.5, 8.2)

    def verdicts(self) -> Sequence[Verdict]:
        """Where each loss ends, and what each threshold makes of the order."""
        jepa, mae = np.abs(self.final / self.fixed - 1).max(axis=(1, 2))
        off = np.median(np.abs(self.final[1, 0] / self.fixed[0, 0] - 1))
        (own, _, reached), (_, absolute, _) = self.order
        return (
            Verdict("largest relative distance of JEPA's end from rho^L", jepa, "<=", 0.01),
            Verdict("largest relative distance of MAE's end from rho^(L/(L+1)), sqrt(rho) at depth 1", mae, "<=", 0.01),
            Verdict("median relative distance of MAE's end from rho, depth 1", off, ">=", 0.1),
            Verdict("JEPA's order by half the fixed point, stopped early", own[EARLY], ">=", 0.9),
            Verdict("JEPA's order by half the value reached, stopped early", reached[EARLY], "<=", 0.0),
            Verdict("JEPA's order by half the value reached, not stopped", reached[-1], ">=", 0.9),
            Verdict("MAE's order by a response of 0.2 for all, not stopped", absolute[-1], "<=", -0.9),
        )

    def _draw(self, axes: Sequence[Axes]) -> None:
        from ..plot.style import FAINT, OBJECTIVE_COLOR, OBJECTIVE_LABEL, add_legend, dress, objective_look

        depths = np.linspace(DEPTHS[0], DEPTHS[-1], 61)
        some = np.linspace(0, self.rho.size - 1, min(self.rho.size, 16)).astype(int)
        powers = ((depths, "$w^*=\\rho$", "$L$"), (depths / (depths + 1), r"$w^*=\sqrt{\rho}$", "$L/(L+1)$"))
        for k, (name, (power, first, formula)) in enumerate(zip(OBJECTIVES, powers, strict=True)):
            points, label, color = objective_look(name), OBJECTIVE_LABEL[name], OBJECTIVE_COLOR[name]
            axes[0].plot(self.rho, self.fixed[k, 0], ("-", "--")[k], color=color, label=f"{label} predicted, {first}")
            axes[0].plot(self.rho[some], self.final[k, 0, some], **points, label=f"{label} trained")
            slopes = np.polyfit(np.log(self.rho), np.log(self.final[k].T), 1)[0]
            axes[1].plot(depths, power, ("-", "--")[k], color=color, label=f"{label} predicted, {formula}")
            axes[1].plot(DEPTHS, slopes, **points, label=f"{label} trained")
        axes[2].plot(self.rho, np.arange(1, self.rho.size + 1), color=FAINT, label="true")
        looks = (("o", "-", 3.5), ("x", "--", 1.5), ("^", ":", 2.0))
        for j, (threshold, (marker, line, width)) in enumerate(zip(THRESHOLDS, looks, strict=True)):
            times, color = self.apparent[0, j, EARLY], (OBJECTIVE_COLOR["jepa"], "black", "black")[j]
            places = np.where(np.isfinite(times), np.argsort(np.argsort(times)) + 1.0, np.nan)
            axes[2].plot(self.rho[some], places[some], marker, color=color, markerfacecolor="none", label=threshold)
            axes[3].plot(STOPS, self.order[0, j], line, color=color, linewidth=width, label=f"JEPA, {threshold}")
        axes[3].plot(STOPS, self.order[1, 1], "-.", color=OBJECTIVE_COLOR["mae"], label=f"MAE, {THRESHOLDS[1]}")
        axes[0].set_title("Where training ends, depth 1")
        axes[1].set_title(r"Power of $\rho$ where it ends")
        axes[2].set_title(f"JEPA, depth {ORDER_DEPTH}, stopped early (at {STOPS[EARLY]:g})")
        axes[3].set_title(f"Apparent order, depth {ORDER_DEPTH}")
        dress(axes[0], r"regression coefficient $\rho$", "final encoder response $w$")
        dress(axes[1], "depth $L$", r"slope of $\log w$ against $\log\rho$").set_xticks(DEPTHS)
        dress(axes[2], r"regression coefficient $\rho$", "place in the order (1: learned first)")
        dress(axes[3], "end of the run / time to learn all features", "rank correlation with the true order")
        for ax in axes:
            add_legend(ax)


def run(*, fast: bool = False, seed: int = 0, progress: Progress = silent, features: int | None = None) -> TwoLosses:
    """Train both losses from one start on the same data until they rest, and read their order as if stopped before.

    Parameters
    ----------
    fast : bool, default False
        Fewer features.
    seed : int, default 0
        Of rho, the frame of the data and the start.
    progress : callable, optional
    features : int, optional
        By default 24 (12 for the fast version); networks of this width are trained: a hundred take minutes.
    """
    n = how_many("features", features, 12 if fast else 24)
    rng = np.random.default_rng(seed)
    rho = stratified(rng, 0.5, 0.95, n)
    frame = random_orthonormal(n, n, rng)
    cov = StaticModel.from_spectrum(Spectrum(np.ones(n), rho=rho), rotation=frame).covariances()
    spec = cov.spectrum()
    final, fixed = np.empty((2, 2, len(DEPTHS), n))
    true, apparent = np.empty((2, n)), np.empty((2, len(THRESHOLDS), STOPS.size, n))
    for j, depth in enumerate(DEPTHS):
        net = LinearNetwork.balanced(n, depth, EPS, rng=rng)
        for k, objective in enumerate(OBJECTIVES):
            progress((2 * j + k) / (2 * len(DEPTHS)))
            times = critical_time(spec, objective, depth=depth, eps=EPS)
            rest = critical_time(spec, objective, depth=depth, eps=EPS, fraction=0.999)
            steps = int(np.ceil(max(1.5 * rest.max(), STOPS[-1] * times.max()) / RATES[objective]))
            trained = train(net, cov, objective, lr=RATES[objective], steps=steps, snapshots=3000, features=spec)
            final[k, j], fixed[k, j] = trained.response[:, -1], fixed_point(spec, objective, depth=depth)
            if depth == ORDER_DEPTH:
                true[k], apparent[k] = times, _apparent(trained, STOPS * times.max(), fixed[k, j])
    setting = {
        "features": f"{n}, rho 0.5 to 0.95, lambda 1",
        "data": "covariances of the population, in a random frame",
        "depths": DEPTHS,
        "start": f"balanced, eps {EPS}, the same for both losses",
        "training": f"gradient descent, learning rates {RATES}, until rest",
        "orders": f"depth {ORDER_DEPTH}, thresholds: {', '.join(THRESHOLDS)}; true: the theory's, at half the fixed point",
        "seed": seed,
    }
    order = np.full(apparent.shape[:-1], np.nan)
    for place in np.ndindex(order.shape):
        called = np.isfinite(apparent[place])
        order[place] = order_correlation(apparent[place][called], true[place[0]][called])
    return TwoLosses(setting, spec.rho, final, fixed, apparent, true, order)


def _apparent(trained: Training, stops: FloatArray, fixed: FloatArray) -> FloatArray:
    """Return when features count as learned [threshold, stop, n] if training ends at the stops."""
    times = np.empty((len(THRESHOLDS), stops.size, fixed.size))
    for s, stop in enumerate(stops):
        seen = trained.t <= stop
        w = trained.response[:, seen]
        for j, level in enumerate((fixed / 2, np.full_like(fixed, 0.2), w[:, -1] / 2)):
            times[j, s] = np.where(level > EPS, crossing_times(trained.t[seen], w, level), np.inf)
    return times
