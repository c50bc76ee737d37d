"""When features count as learned, in which order, and how two orders compare (THEORY.md 4)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from ._validate import FloatArray, as_choice, as_float_array, as_positive
from .objectives import ObjectiveLike
from .solve import solve
from .theory import critical_time, fixed_point, time_to_reach

if TYPE_CHECKING:
    import numpy.typing as npt

    from .spectrum import Spectrum

__all__ = ["crossing_times", "learning_order", "learning_times", "order_correlation"]

Threshold: TypeAlias = Literal["fixed_point", "absolute", "final"]
THRESHOLDS: tuple[Threshold, ...] = ("fixed_point", "absolute", "final")


def learning_times(
    spec: Spectrum,
    objective: ObjectiveLike,
    *,
    depth: float,
    eps: float | FloatArray,
    fraction: float = 0.5,
    threshold: Threshold = "fixed_point",
    t_end: float | None = None,
    min_growth: float = 1.0,
) -> FloatArray:
    """Return when each feature counts as learned, by the threshold named (THEORY.md 4).

    Parameters
    ----------
    spec : Spectrum
        The ``n`` features.
    objective : JEPA, MAE, "jepa" or "mae"
        A plain objective.
    depth : float
        Number of encoder layers, any real number >= 1.
    eps : float or array of shape [n]
        Start ``w(0)``.
    fraction : float, default 0.5
        Height of the threshold, in units of what `threshold` names.
    threshold : {"fixed_point", "absolute", "final"}, default "fixed_point"
        What a feature must reach `fraction` of: its own fixed point ``w*``; the number one, so
        that `fraction` is the response itself; or its value at `t_end`. The last one misorders
        runs that have not converged by `t_end`: a feature that has hardly begun is measured
        against its own small value.
    t_end : float, optional
        End of the run, in flow time; needed for ``threshold="final"`` and for it alone.

    min_growth : float, default 1.0
        Factor, at least 1, by which a response must have grown at the threshold to count. Where
        the threshold is hardly above the start, it is reached almost at once: such features come
        first in the order for no good reason unless a factor such as 2 is asked for.

    Returns
    -------
    array of shape [n]
        Times in the unit ``"flow"``; inf where the threshold is never reached, or is not above
        ``min_growth * eps``: what does not grow is not learned.

    Examples
    --------
    >>> import jepa_ode as jo
    >>> spec = jo.Spectrum([0.7, 0.7], rho=[0.6, 0.9])
    >>> jo.learning_times(spec, "jepa", depth=1, eps=1e-2).round(1)
    array([147.8, 146.8])
    """
    threshold = as_choice("threshold", threshold, THRESHOLDS)
    fraction = as_positive("fraction", fraction)
    if (threshold == "final") != (t_end is not None):
        raise ValueError("t_end goes with threshold='final': give both or neither")
    if threshold == "fixed_point":
        times = critical_time(spec, objective, depth=depth, eps=eps, fraction=fraction)
        target = fraction * fixed_point(spec, objective, depth=depth)
    else:
        if threshold == "absolute":
            target = np.full(len(spec), fraction)
        else:
            end = as_positive("t_end", t_end)
            target = fraction * solve(spec, objective, depth=depth, eps=eps, t=[end]).w[:, 0]
        times = time_to_reach(spec, objective, depth=depth, eps=eps, w=target)
    return np.where(target > least_level(eps, min_growth), times, math.inf)


def least_level(eps: Any, min_growth: float) -> FloatArray:
    """Return the responses that a threshold must exceed."""
    if as_positive("min_growth", min_growth) < 1:
        raise ValueError(f"min_growth must be at least 1, got {min_growth}")
    return min_growth * np.asarray(eps, dtype=np.float64)


def learning_order(
    spec: Spectrum,
    objective: ObjectiveLike,
    *,
    depth: float,
    eps: float | FloatArray,
    fraction: float = 0.5,
    threshold: Threshold = "fixed_point",
    t_end: float | None = None,
    min_growth: float = 1.0,
) -> npt.NDArray[np.intp]:
    """Return the indices of the features that are learned, first to last.

    The parameters are those of `learning_times`. Features never learned are left out; features
    learned at the same time keep their order in `spec`.

    Examples
    --------
    With ``lambda`` falling and ``rho`` rising the two objectives learn in opposite order
    (THEORY.md 5, claim 5), and neither learns the noise:

    >>> import jepa_ode as jo
    >>> spec = jo.Spectrum([1.0, 0.9, 0.8, 0.0], sigma2=[2.0, 1.2, 0.84, 1.0])
    >>> jo.learning_order(spec, "jepa", depth=4, eps=0.01)
    array([2, 1, 0])
    >>> jo.learning_order(spec, "mae", depth=4, eps=0.01)
    array([0, 1, 2])
    """
    times = learning_times(
        spec,
        objective,
        depth=depth,
        eps=eps,
        fraction=fraction,
        threshold=threshold,
        t_end=t_end,
        min_growth=min_growth,
    )
    order = np.argsort(times, kind="stable")
    return order[np.isfinite(times[order])]


def crossing_times(t: Any, w: Any, level: Any) -> FloatArray:
    """Return from when on each sampled response is at its level or above it, to the end of its record.

    A response that rises and falls back, as coupled features do for a moment when a neighbour is
    learned and all do when the representation collapses, has not been learned. Between samples the
    response is taken to be linear in the logarithm of time.

    Parameters
    ----------
    t : array of shape [m]
        Non-decreasing times.
    w : array of shape [n, m]
        Responses; NaN (a value that an integration did not reach) ends a record.
    level : float or array of shape [n]

    Returns
    -------
    array of shape [n]
        inf where the record ends below the level.

    Examples
    --------
    >>> from jepa_ode.learning import crossing_times
    >>> crossing_times([0.0, 1.0, 4.0], [[0.0, 0.2, 0.6], [0.0, 0.5, 0.2]], 0.4)
    array([ 2., inf])
    """
    t = as_float_array("t", t)
    w = as_float_array("w", w, ndim=2)
    if w.shape[1] != t.size:
        raise ValueError(f"w must have one column per time ({t.size}), got shape {w.shape}")
    levels = np.broadcast_to(np.asarray(level, dtype=np.float64), w.shape[:1])
    times = np.full(w.shape[0], math.inf)
    for i, (record, target) in enumerate(zip(w, levels, strict=True)):
        known = np.isfinite(record)
        last = record.size if known.all() else int(np.argmin(known))
        if last == 0 or record[last - 1] < target:
            continue
        below = np.flatnonzero(record[:last] < target)
        if not below.size:
            times[i] = t[0]
            continue
        k = int(below[-1])
        share = (target - record[k]) / (record[k + 1] - record[k])
        times[i] = t[k] * (t[k + 1] / t[k]) ** share if t[k] > 0 else t[k + 1] * share
    return times


def _ranks(values: FloatArray) -> FloatArray:
    """Ranks from 0, equal values sharing the mean of theirs."""
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    first = np.cumsum(count) - count
    ranks: FloatArray = (first + (count - 1) / 2)[group]
    return ranks


def order_correlation(times_a: Any, times_b: Any) -> float:
    """Return Spearman's rank correlation of two learning orders, given as times of learning.

    Parameters
    ----------
    times_a, times_b : arrays of shape [n]
        inf stands for never. Features that neither learns say nothing about order and are left
        out; a feature that one of the two never learns comes last there, tied with its like. Equal
        times share their mean rank.

    Returns
    -------
    float
        1: same order, -1: inverted; NaN when fewer than two features are left or one side knows no
        order.

    Examples
    --------
    >>> import math
    >>> import jepa_ode as jo
    >>> jo.order_correlation([1.0, 2.0, 3.0, math.inf], [1.0, 4.0, 9.0, math.inf])
    1.0
    >>> jo.order_correlation([1.0, 2.0, 3.0], [math.inf, 2.0, 1.0])
    -1.0
    """
    a = as_float_array("times_a", times_a)
    b = as_float_array("times_b", times_b)
    if a.shape != b.shape:
        raise ValueError(f"times_a and times_b must have one length, got {a.size} and {b.size}")
    if np.isnan(a).any() or np.isnan(b).any():
        raise ValueError("times must not hold NaN; use inf for a feature that is never learned")
    learned = np.isfinite(a) | np.isfinite(b)
    if np.count_nonzero(learned) < 2:
        return math.nan
    rank_a, rank_b = _ranks(a[learned]), _ranks(b[learned])
    rank_a -= rank_a.mean()
    rank_b -= rank_b.mean()
    scale = math.sqrt(float(rank_a @ rank_a) * float(rank_b @ rank_b))
    return float(rank_a @ rank_b) / scale if scale > 0 else math.nan
