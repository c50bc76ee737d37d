"""Claim 12: what pairs (x, y) predict beside what the network does that is trained on them (THEORY.md 5 and 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._validate import FloatArray
from ..analysis import TheoryCheck, compare_with_flow, order_correlation
from ..covariances import Covariances
from ..flow import gradient_flows
from ..models import StaticModel
from ..network import LinearNetwork
from ..spectrum import Spectrum
from ..theory import critical_time
from ..training import train
from ._result import About, Progress, Result, Verdict, silent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ABOUT = About(
    number=12,
    title="Theory against training",
    claim="Pairs (x, y) alone tell in which order and when a deep linear network trained on them learns features. Gradient "
    "descent tends to the flow in proportion to its rate, SGD as the noise of its batches falls; the flow departs from the "
    "theory by the coupling of features, at any width of a balanced start. Random starts need width to follow JEPA's order.",
)
OBJECTIVES, DEPTH, EPS, BATCH = ("jepa", "mae"), 2, 0.05, 64
RATES, WIDTHS = np.geomspace(0.1, 0.1 / 2**6, 7), np.geomspace(1.0, 16.0, 5)
ANGLES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
SEEN = 4000  # times: interpolation between them is finer than the smallest distance measured
PANELS = (
    ("Predicted from pairs, then trained", "predicted time (gradient-flow units)", "time in the trained network"),
    ("Training tends to the flow", r"learning rate $\eta$", "relative distance from the times of the flow"),
    ("The flow departs by coupling", "coupling (off-diagonal part of $M$)", "relative error of the predicted times"),
    ("A random start needs width", "hidden width / number of features", "rank correlation with the predicted order"),
)


@dataclass(frozen=True, eq=False, repr=False)
class TheoryAgainstTraining(Result):
    """Attributes: ``times`` [objective, predicted or of flow, gradient descent, SGD, feature, set], steps at the last of
    ``rates``; ``to_flow`` [gradient descent or SGD, objective, rate, set], median relative distance; ``coupling`` [angle, set]
    and ``error`` [objective, angle, set] of the flow; ``widths`` over the number of features and ``by_width`` [error or rank
    correlation of the order, balanced or random start, objective, width, set]."""

    times: FloatArray
    rates: FloatArray
    to_flow: FloatArray
    coupling: FloatArray
    error: FloatArray
    widths: FloatArray
    by_width: FloatArray

    layout: ClassVar[tuple[int, int]] = (2, 2)
    size: ClassVar[tuple[float, float]] = (10.5, 8.2)

    def verdicts(self) -> Sequence[Verdict]:
        """Times and order without coupling; what tends to what; what coupling and width do."""
        late = np.median(np.abs(self.times[:, 1] / self.times[:, 0] - 1), axis=(1, 2))
        orders = [list(map(order_correlation, run[0].T, by.T)) for run in self.times for by in run[1:]]
        gaps = np.median(self.to_flow, axis=-1).reshape(4, -1)
        power = np.polyfit(np.log(self.rates), np.log(gaps.T), 1)[0]
        ranks = [order_correlation(self.coupling.ravel(), each.ravel()) for each in self.error]
        (error, _), (_, (random, _)) = self.by_width
        spread = np.ptp(error / error[:, :1], axis=1)
        return (
            Verdict("median error of predicted times: flow, no coupling", late.max(), "<=", 0.03),
            Verdict("order, no coupling: least median correlation", np.median(orders, axis=1).min(), ">=", 0.9),
            Verdict("distance of gradient descent from the flow, last rate", gaps[:2, -1].max(), "<=", 0.01),
            Verdict("power of the rate in that distance, away from 1", np.abs(power[:2] - 1).max(), "<=", 0.1),
            Verdict("power of the rate for SGD, where noise alone has 1/2", power[2:].min(), ">=", 0.3),
            Verdict("rank correlation of the flow's error with coupling", min(ranks), ">=", 0.7),
            Verdict("change of the error by width, balanced start", np.median(spread, axis=-1).max(), "<=", 0.1),
            Verdict("JEPA's order, random start, largest width", np.mean(random[-1]), ">=", 0.5),
        )

    def _draw(self, axes: Sequence[Axes]) -> None:
        from ..plot.style import FAINT, OBJECTIVE_LABEL, add_legend, dress, objective_look

        axes[0].axline((1.0, 1.0), (2.0, 2.0), color=FAINT, linewidth=1.0)
        for k, name in enumerate(OBJECTIVES):
            label, hollow = OBJECTIVE_LABEL[name], objective_look(name, hollow=True)
            axes[0].plot(*self.times[k, :2, :, 0], **hollow, label=f"{label}, gradient flow")
            axes[0].plot(*self.times[k, ::3, :, 0], **(hollow | {"marker": "x"}), label=f"{label}, SGD")
            axes[2].plot(self.coupling.ravel(), self.error[k].ravel(), **hollow, label=f"{label}, gradient flow")
            for row, (step, start) in enumerate((("gradient descent", "balanced"), ("SGD", "random"))):
                look = objective_look(name, hollow=bool(row), line=("-", "--")[row])
                axes[1].plot(self.rates, np.median(self.to_flow[row, k], -1), **look, label=f"{label}, {step}")
                axes[3].plot(self.widths, self.by_width[1, row, k].mean(-1), **look, label=f"{label}, {start} start")
        for ax, (title, xlabel, ylabel) in zip(axes, PANELS, strict=True):
            ax.set(title=title, xscale="log", yscale="linear" if ax is axes[3] else "log")
            add_legend(dress(ax, xlabel, ylabel))
        axes[3].set_xticks(self.widths, [f"{width:g}" for width in self.widths])


def run(*, fast: bool = False, seed: int = 0, progress: Progress = silent, features: int = 8) -> TheoryAgainstTraining:
    """Predict from pairs, train on them, compare.

    Parameters
    ----------
    fast : bool, default False
        Fewer pairs, data sets, learning rates, angles and widths.
    seed : int, default 0
        Of data, starts and batches.
    progress : callable, optional
    features : int, default 8
        Networks are up to 16 times as wide: tens are possible.
    """
    n, m, count = features, 4 if fast else 10, 50_000 if fast else 200_000
    rng = np.random.default_rng(seed)
    rates, angles, widths = (RATES[:5:2], ANGLES[::3], WIDTHS[:-1:3]) if fast else (RATES, ANGLES, WIDTHS)
    times, to_flow, by_width = (np.empty((2, *shape, m)) for shape in ((4, n), (2, rates.size), (2, 2, widths.size)))
    coupling, error = np.empty((len(angles), m)), np.empty((2, len(angles), m))
    for s, a in np.ndindex(m, len(angles)):
        progress((s + a / len(angles)) / m)
        spec = Spectrum(np.geomspace(0.5, 2.0, n), rho=rng.permutation(np.linspace(0.5, 0.95, n)))
        frame = np.linalg.qr(rng.standard_normal((n, n)))[0]
        pairs = StaticModel.coupled(spec, angles[a], rng=rng, rotation=frame).sample(count, rng)
        cov = Covariances.from_pairs(*pairs, center=False)  # training takes pairs as they are
        for k, objective in enumerate(OBJECTIVES):
            (flow,) = _flows([net := LinearNetwork.balanced(n, DEPTH, EPS, rng=rng)], cov, objective)
            coupling[a, s] = flow.assumptions.total_coupling
            error[k, a, s] = np.nan_to_num(flow.median_error, nan=np.inf)  # nothing learned in time
            if angles[a] > 0:
                continue
            times[k, :2, :, s] = flow.predicted_time, flow.integrated_time
            for row, r in np.ndindex(2, rates.size):
                how: dict[str, Any] = {"lr": rates[r], "batch_size": (None, BATCH)[row], "snapshots": SEEN, "rng": rng}
                ran = train(net, pairs, objective, steps=int(2 * flow.predicted_time.max() / rates[r]), **how)
                times[k, 2 + row, :, s] = compare_with_flow(ran).integrated_time
                to_flow[row, k, r, s] = np.median(np.abs(times[k, 2 + row, :, s] / flow.integrated_time - 1))
            by_width[:, :, k, :, s] = _widths(cov, objective, widths, rng)
    setting = {
        "features": f"{n}, lambda 0.5 to 2 (before coupling) and rho 0.5 to 0.95, paired at random",
        "data": f"{m} sets of {count} pairs for each angle between the frames of Sxx and Syx, {angles}",
        "start": f"depth {DEPTH}, eps {EPS}, balanced or Gaussian (eps is then the root mean square)",
        "steps": f"rates {rates[0]:g} to {rates[-1]:.2g}, batches of {BATCH} pairs for SGD",
        "learned": "half the feature's own fixed point; errors are medians over features and data sets",
        "seed": seed,
    }
    return TheoryAgainstTraining(setting, times, rates, to_flow, coupling, error, widths, by_width)


def _flows(nets: list[LinearNetwork], cov: Covariances, objective: str) -> list[TheoryCheck]:
    end = 4 * critical_time(cov.spectrum(), objective, depth=DEPTH, eps=EPS).max()  # time enough for the late
    return [compare_with_flow(flow) for flow in gradient_flows(nets, cov, objective, t=np.linspace(0.0, end, SEEN))]


def _widths(cov: Covariances, objective: str, widths: FloatArray, rng: np.random.Generator) -> FloatArray:
    n = len(cov.Sxx)
    nets = [LinearNetwork.balanced(n, DEPTH, EPS, rng=rng, widths=int(n * w), objective=objective) for w in widths]
    for w, scale in zip(widths, (EPS / np.sqrt(widths)) ** (1 / DEPTH), strict=True):  # layer 1 lengthens by sqrt(w)
        nets.append(LinearNetwork.random(n, DEPTH, scale, rng=rng, widths=int(n * w), objective=objective))
    checks = _flows(nets, cov, objective)
    return np.array([[c.median_error for c in checks], [c.order_correlation for c in checks]]).reshape(2, 2, -1)
