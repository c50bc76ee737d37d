"""Claim 2: without stop-gradient the representation collapses, with it, or with a moving average, it does not (THEORY.md 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._validate import FloatArray
from ..flow import gradient_flows
from ..network import LinearNetwork
from ..objectives import JEPA
from ..observables import representation_covariance
from ..targets import MOVING_AVERAGE_LIMITS, collapse_bound, moving_average_delay
from ..theory import critical_time, fixed_point
from ._coupled import LAMBDA, coupled_data
from ._result import About, Progress, Result, Verdict, how_many, silent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ABOUT = About(
    number=2,
    title="Collapse",
    claim="Without stop-gradient JEPA's representation collapses to 0 from every start. With it the representation ends at a "
    "fixed point, and with a moving-average target at the same; that only delays learning, by a few of its time constants.",
)
RHO, TILT = (0.7, 0.95), 0.3
STARTS, SHOWN = (0.02, 0.1, 0.5), 1  # from the second, responses and delays are shown
RESOLVED = 1e-14  # squares of weights below it are lost in the tolerance of the flows
RELATIVE_TAUS = (0.01, 0.1, 1.0, 10.0)  # in units of the median time to learn a feature from there


@dataclass(frozen=True, eq=False, repr=False)
class Collapse(Result):
    """Objectives: without stop-gradient, with it, then moving averages of the time constants ``tau``.

    Attributes
    ----------
    t, tau, rho, fixed_point : arrays of shape [time], [k], [n] and [n]
    response : array of shape [start, objective, n, time]
    variance, rank : arrays of shape [start, objective, time]
        Trace and effective rank of the covariance of the representation.
    over_bound : array of shape [start]
        Mean square singular value of the first layer without stop-gradient at the end, over `collapse_bound`.
    delay, limits : arrays of shape [k, n] and [2, n]
        Of half the fixed point by a moving average, over its time constant; `moving_average_delay`, short and long.
    """

    t: FloatArray
    tau: FloatArray
    rho: FloatArray
    response: FloatArray
    fixed_point: FloatArray
    variance: FloatArray
    rank: FloatArray
    over_bound: FloatArray
    delay: FloatArray
    limits: FloatArray

    layout: ClassVar[tuple[int, int]] = (2, 3)
    size: ClassVar[tuple[float, float]] = (13.5, 7.4)

    def verdicts(self) -> Sequence[Verdict]:
        """What remains of the representation, and what a moving average costs."""
        lost = (self.variance[:, 0, -1] / self.variance[:, 0, 0]).max()
        missed = np.abs(self.response[..., -1] / self.fixed_point - 1).max(axis=(0, 2))
        delay, off = np.median(self.delay, axis=1), abs(np.nanmedian(self.delay[-1] / self.limits[1]) - 1)
        return (
            Verdict("no stop-gradient: last variance over first, largest of all starts", lost, "<=", 0.01),
            Verdict("no stop-gradient: layers over a bound that tends to 0", self.over_bound.max(), "<=", 1.0),
            Verdict("stop-gradient: largest distance of an end from its fixed point", missed[1], "<=", 0.1),
            Verdict("averages: largest distance of an end from its fixed point", missed[2:].max(), "<=", 0.1),
            Verdict("moving averages: largest median delay, over the time constant", delay.max(), "<=", 10.0),
            Verdict("longest moving average: relative distance of the median delay from theory", off, "<=", 0.2),
        )

    def _draw(self, axes: Sequence[Axes]) -> None:
        from ..plot.dynamics import plot_delays, plot_responses
        from ..plot.style import OBJECTIVE_COLOR, TIME_LABEL, add_legend, dress

        names = ["no stop-gradient", "stop-gradient", *(rf"average, $\tau$ = {tau:.3g}" for tau in self.tau)]
        styles = [("--", OBJECTIVE_COLOR["mae"]), ("-", OBJECTIVE_COLOR["jepa"])]
        styles += [(":", str(shade)) for shade in np.linspace(0.7, 0.0, len(self.tau))]
        for ax, k in zip(axes, (0, 1, len(names) - 1), strict=False):
            plot_responses(self.t, self.response[SHOWN, k], self.rho, ax, colorbar=k > 1)
            ax.set_yscale("log")
            dress(ax, TIME_LABEL, "encoder response $w$")
            ax.set_ylim(self.response[SHOWN].min() / 2, 1.5)
            ax.set_title(names[k])
        for ax, values, what in ((axes[3], self.variance, "variance"), (axes[4], self.rank, "effective rank")):
            for k, (line, color) in enumerate(styles):
                for s in range(len(STARTS)) if k < 2 and ax is axes[3] else [SHOWN]:
                    label = names[k] if s == SHOWN else None
                    ax.plot(self.t[1:], values[s, k, 1:], line, color=color, linewidth=1.7, label=label)
            ax.set_xscale("log")
            ax.set_yscale("log" if ax is axes[3] else "linear")
            dress(ax, TIME_LABEL, f"{what} of the representation")
        axes[3].set_title(f"from {', '.join(f'{eps:g}' for eps in STARTS)}; averages from {STARTS[SHOWN]:g}")
        add_legend(axes[3])
        axes[4].set_title("the rank does not tell")
        axes[4].set_ylim(bottom=0)
        limits = {"theory, short": self.limits[0], "theory, long": self.limits[1]}
        plot_delays(self.tau, self.delay, limits, self.rho, axes[5]).set_title("a moving average delays learning")


def run(
    *, fast: bool = False, seed: int = 0, progress: Progress = silent, features: int | None = None, depth: int = 2
) -> Collapse:
    """Integrate the flow of a whole network for each target and start, on data whose features couple.

    Parameters
    ----------
    fast : bool, default False
        Fewer features.
    seed : int, default 0
        Of the features, their patterns and the frames between the layers.
    progress : callable, optional
    features : int, optional
        Number of features, which is the width of the network, by default 24 (8 for the fast version).
    depth : int, default 2
    """
    n = how_many("features", features, 8 if fast else 24)
    rng = np.random.default_rng(seed)
    cov = coupled_data(n, RHO, TILT, rng)
    end = fixed_point(spec := cov.spectrum(), "jepa", depth=depth)
    tau = np.median(critical_time(spec, "jepa", depth=depth, eps=STARTS[SHOWN])) * np.array(RELATIVE_TAUS)
    slowest = max(critical_time(spec, "jepa", depth=depth, eps=STARTS[0]))
    horizon = max(10 * slowest, 8 * (depth + 1) * tau[-1])  # a slow target relaxes in (L + 1) tau
    observe: dict[str, Any] = {
        "variance": lambda net: np.trace(representation_covariance(net, cov.Sxx)),
        "rank": "effective_rank",
        "square": lambda net: np.sum(net.encoder[0] ** 2) / n,
    }
    objectives = [JEPA(stop_gradient=False), JEPA(), *(JEPA(ema=float(each)) for each in tau)]
    nets = [LinearNetwork.balanced(n, depth, eps, rng=rng) for eps in STARTS for _ in objectives]
    t = np.r_[0.0, np.geomspace(horizon / 1e5, horizon, 300)]
    flows = gradient_flows(
        nets, cov, objectives * len(STARTS), t=t, features=spec, levels=end / 2, observe=observe, progress=progress
    )
    runs = [flows[k : k + len(objectives)] for k in range(0, len(flows), len(objectives))]
    variance, rank, square = (np.array([[f.observables[what] for f in each] for each in runs]) for what in observe)
    responses = np.array([[flow.response for flow in each] for each in runs])
    bounds = [collapse_bound(cov, depth=depth, eps=eps, t=[horizon])[0] + RESOLVED for eps in STARTS]
    crossing = np.array([flow.crossing_time for flow in runs[SHOWN][1:]])
    limits = [moving_average_delay(spec, depth=depth, eps=STARTS[SHOWN], limit=each) for each in MOVING_AVERAGE_LIMITS]
    delay = (crossing[1:] - crossing[0]) / tau[:, None]
    setting = {
        "features (width of the network)": f"{n}, coupled (tilt {TILT:g})",
        "lambda log-uniform, rho uniform in": [LAMBDA, RHO],
        "depth": depth,
        "starts (balanced), eps": f"{STARTS}, responses and delays from {STARTS[SHOWN]:g}",
        "time constants of the moving averages": tau.tolist(),
        "solver": f"gradient flow of the network, rtol = 1e-6, to t = {horizon:.3g}",
        "seed": seed,
    }
    arrays = (responses, end, variance, rank, square[:, 0, -1] / bounds, delay, np.array(limits))
    return Collapse(setting, t, tau, spec.rho, *arrays)
