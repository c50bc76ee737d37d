"""Claim 6: where lambda rises and rho falls, stopping early leaves JEPA and MAE with little in common (THEORY.md 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .._validate import FloatArray
from ..learning import order_correlation
from ..models import feature_trends
from ..overlaps import overlap, representation_overlap
from ._result import About, Progress, Result, Verdict, how_many, silent
from ._stopping import draw_by_clock, followed, stopped_networks, stops

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ABOUT = About(
    number=6,
    title="Early stopping",
    claim="Where lambda rises and rho falls from feature to feature, deep encoders of JEPA and MAE that are stopped early, "
    "when each has learned a small part of the features, have representations that hardly overlap.",
)
LAMBDA, RHO = (0.8, 1.0), (0.6, 0.95)
EARLY, SHOWN = 0.25, 0.2  # parts of the features: a stop until the first is early, at the second responses are shown
TILTS = (0.0, 0.1)  # of the patterns of the networks' data


@dataclass(frozen=True, eq=False, repr=False)
class EarlyStopping(Result):
    """Objectives are JEPA and MAE; a stop is the time at which an objective has learned a part of the features.

    Attributes
    ----------
    part, shared : arrays of shape [stop]
        The part, and what of it is the same for both.
    pairs, same : arrays of shape [stop, stop] and [stop]
        Overlap of the representations, JEPA's stop by MAE's; at the same part of features whose lambda and rho rise together.
    times, response, fixed_point : arrays of shape [objective, n]
        Time to half the fixed point, response at the stop shown, fixed point.
    clock, by_clock, final : arrays of shape [time], [time] and [2]
        Time in units of the objective's own to learn all features, the overlap there; that in the end, that of fixed points.
    network_part, network : arrays of shape [k] and [tilt, k]
        Stops of the networks, and the linear CKA of their representations.
    """

    part: FloatArray
    shared: FloatArray
    pairs: FloatArray
    same: FloatArray
    times: FloatArray
    response: FloatArray
    fixed_point: FloatArray
    clock: FloatArray
    by_clock: FloatArray
    final: FloatArray
    network_part: FloatArray
    network: FloatArray

    layout: ClassVar[tuple[int, int]] = (2, 2)
    size: ClassVar[tuple[float, float]] = (12.0, 8.6)

    def verdicts(self) -> Sequence[Verdict]:
        """Opposite orders, and what early stopping leaves in common; at last it is what the fixed points have."""
        early = self.part <= EARLY
        largest = self.pairs[np.ix_(early, early)].max()
        network = self.network[:, self.network_part <= EARLY].max(axis=1)
        return (
            Verdict("rank correlation of the two orders", order_correlation(*self.times), "<=", -0.95),
            Verdict("early: largest part of the features in common", self.shared[early].max(), "<=", 0.05),
            Verdict("early: largest overlap of representations, any pair of stops", largest, "<=", 0.1),
            Verdict("early: largest overlap of networks, features not coupled", network[0], "<=", 0.1),
            Verdict("early: largest overlap of networks, features coupled", network[1], "<=", EARLY),  # that of chance
            Verdict("early: least overlap if both rise, over the largest", self.same[early].min() / largest, ">=", 5.0),
            Verdict("end of training: distance from the overlap of the fixed points", np.ptp(self.final), "<=", 1e-3),
        )

    def _draw(self, axes: Sequence[Axes]) -> None:
        from ..plot.features import plot_overlap_pairs
        from ..plot.style import FAINT, INK, OBJECTIVE_COLOR, add_legend, dress

        feature = np.arange(1, self.times.shape[1] + 1)
        for k, (label, line) in enumerate((("JEPA", "-"), ("MAE", "--"))):
            color = OBJECTIVE_COLOR[label.lower()]
            axes[0].plot(feature, self.response[k], line, color=color, linewidth=2.0, label=f"{label}, stopped")
            axes[0].plot(feature, self.fixed_point[k], (":", "-.")[k], color=color, label=f"{label}, at the end")
        dress(axes[0], r"feature ($\lambda$ rises, $\rho$ falls)", "encoder response $w$")
        axes[1].plot(self.part, np.diagonal(self.pairs), color=INK, linewidth=2.2, label="representations")
        axes[1].plot(self.part, self.shared, "--", color="#5b3a8c", label="features learned by both")
        axes[1].plot(self.part, self.same, "-.", color="#2a8f6d", label=r"representations, if $\rho$ rose too")
        axes[1].plot(self.part, self.part, ":", color=FAINT, label="random features")
        for marker, words, values in zip("o^", ("not coupled", "coupled"), self.network, strict=True):
            axes[1].plot(self.network_part, values, marker, color=INK, mfc="none", label=f"networks, features {words}")
        dress(axes[1], "part of the features learned by each", "overlap of JEPA and MAE")
        plot_overlap_pairs(self.part, self.pairs, axes[2])
        begun = (self.times.min(axis=1) / self.times.max(axis=1)).max()
        draw_by_clock(axes[3], self.clock, self.by_clock, begun=begun, end=self.final[1])
        after = (f"{SHOWN:.0%} of the features", "equally many", "any number of them", "an equal part of its own time")
        for ax, what in zip(axes, after, strict=True):
            ax.set_title(f"each stopped after {what}")
            if ax is not axes[2]:
                ax.set_ylim(0, 1.65 if ax is axes[1] else 1.05)  # room for the longest legend
                add_legend(ax, "upper left" if ax is axes[1] else "best")


def run(
    *,
    fast: bool = False,
    seed: int = 0,
    progress: Progress = silent,
    features: int | None = None,
    depth: int = 6,
    eps: float = 0.005,
) -> EarlyStopping:
    """Stop JEPA and MAE at times that can be compared: features on their own, and networks.

    Parameters
    ----------
    fast : bool, default False
        Fewer features.
    seed : int, default 0
        Of the networks: the patterns of their features and the frames between the layers.
    progress : callable, optional
    features : int, optional
        Number of features, by default 1,000 (200 for the fast version); networks have 40 (24).
    depth : int, default 6
        JEPA orders the features by rho if it is deep enough; at depth 2 by lambda, as MAE does, and the claim fails.
    eps : float, default 0.005
    """
    n, width = how_many("features", features, 200 if fast else 1000), 24 if fast else 40
    rng = np.random.default_rng(seed)
    spec = feature_trends(n, "opposite", lam=LAMBDA, rho=RHO)
    found = overlap(spec, depth=depth, eps=eps, k=stops(n, 60))
    same = overlap(feature_trends(n, "same", lam=LAMBDA, rho=RHO), depth=depth, eps=eps, k=stops(n, 60))
    clock = np.append(np.linspace(0.0, 2.5, 150), 100.0)
    times, stopped, timed, ends = followed(spec, found, clock, depth=depth, eps=eps)
    by_clock = np.diagonal(representation_overlap(spec, *timed))
    progress(0.3)
    few, k = feature_trends(width, "opposite", lam=LAMBDA, rho=RHO), stops(width, 12)
    networks = [stopped_networks(few, tilt=tilt, depth=depth, eps=eps, k=k, rng=rng) for tilt in TILTS]
    setting = {
        "features": f"{n}, lambda rising evenly over {LAMBDA}, rho falling over {RHO}",
        "depth, eps": (depth, eps),
        "stop": f"after k features, each at half its fixed point; early: until {EARLY:.0%} of them",
        "overlap of representations": "cosine of the contributions of the features to their variances; linear CKA of networks",
        "networks": f"gradient flow, {width} features, patterns tilted by {TILTS}",
        "seed": seed,
    }
    pairs, final = (representation_overlap(spec, *each) for each in (stopped, ends[:, :, None]))
    of_stops = (found.k / n, found.coefficient, pairs, same.representation)
    of_features = (times, stopped[:, :, np.searchsorted(found.k, SHOWN * n)], ends)
    of_time = (clock[:-1], by_clock[:-1], np.array([by_clock[-1], final[0, 0]]))
    of_networks = (networks[0].k / width, np.array([each.representation for each in networks]))
    return EarlyStopping(setting, *of_stops, *of_features, *of_time, *of_networks)
