"""JEPA and MAE that are stopped when each has learned a part of the features: features on their own, and networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .._validate import FloatArray
from ..flow import gradient_flow
from ..models import StaticModel
from ..network import LinearNetwork
from ..objectives import JEPA, MAE
from ..overlaps import Overlap, overlap_of_flows
from ..solve import solve
from ..spectrum import Spectrum
from ..theory import critical_time, fixed_point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_by_clock", "followed", "stopped_networks", "stops"]


def stops(n: int, count: int) -> npt.NDArray[np.intp]:
    """Return numbers of features, from 1 to n, after which to stop: at most ``count`` of them."""
    return np.unique(np.linspace(1, n, min(n, count)).round().astype(np.intp))


def followed(
    spec: Spectrum, found: Overlap, clock: FloatArray, *, depth: int, eps: float
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return times to half the fixed points, responses at the stops found and on the clock, fixed points; JEPA's and MAE's.

    The clock goes in units of the time at which an objective has learned its last feature.
    """
    of_both = []
    for name, stop in (("jepa", found.time_a), ("mae", found.time_b)):
        times = critical_time(spec, name, depth=depth, eps=eps)
        at, on = (solve(spec, name, depth=depth, eps=eps, t=t).w for t in (stop, clock * times.max()))
        of_both.append((times, at, on, fixed_point(spec, name, depth=depth)))
    times, stopped, timed, ends = (np.array(each) for each in zip(*of_both, strict=True))
    return times, stopped, timed, ends


def stopped_networks(
    spec: Spectrum, *, tilt: float, depth: int, eps: float, k: npt.NDArray[np.intp], rng: np.random.Generator
) -> Overlap:
    """Return what networks trained by JEPA and by MAE share when each has learned k features, on data of this spectrum.

    ``tilt`` is how far the patterns of the features are from orthogonal, see `StaticModel.tilted`.
    """
    cov = StaticModel.tilted(spec, tilt=tilt, rng=rng).covariances()
    features = cov.spectrum()
    start = LinearNetwork.balanced(len(spec), depth, eps, rng=rng)
    flows = []
    for objective in (JEPA(), MAE()):
        times = critical_time(features, objective, depth=depth, eps=eps)
        t = np.geomspace(times.min() / 4, 4 * times.max(), 400)  # coupled features are learned earlier and later
        flows.append(gradient_flow(start, cov, objective, t=t, features=features, keep_weights=True))
    return overlap_of_flows(flows[0], flows[1], k=k)


def draw_by_clock(ax: Axes, clock: FloatArray, overlap: FloatArray, *, begun: float, end: float) -> None:
    """Draw the overlap of JEPA and MAE against time by their own clocks; ``begun`` is when both have learned a feature."""
    from ..plot.style import FAINT, INK, dress

    ax.axvspan(0.0, begun, color=FAINT, alpha=0.2, linewidth=0, label="one of them has learned nothing")
    ax.plot(clock, overlap, color=INK, linewidth=2.2, label="representations")
    ax.axhline(end, color=FAINT, linestyle="--", label="fixed points")
    dress(ax, "time, over that of the objective's last feature", "overlap of JEPA and MAE")
