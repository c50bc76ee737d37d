"""What the theory says of a spectrum without solving anything: fixed points and times (THEORY.md 2 to 4)."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np

from ._core import engine
from ._threads import as_threads
from ._validate import FloatArray, as_choice, as_depth, as_eps, as_positive, as_response
from .objectives import JEPA, MAE, Objective, ObjectiveLike, as_objective, require_plain
from .schedule import Schedule
from .spectrum import Spectrum

__all__ = ["critical_time", "fixed_point", "time_to_reach"]

TimeUnit = Literal["flow", "rescaled"]
DEEPEST = 2_000_000  # encoders, but for exact solutions of MAE: the engine's master curve, and steps of w^(1/L)
TIME_UNITS: tuple[TimeUnit, ...] = ("flow", "rescaled")


class FeatureEquation(NamedTuple):
    """The scalar flow that an (objective, depth, time unit) stands for, as the engine takes it."""

    code: int  # 0 JEPA, 1 MAE
    depth: float
    unit: float  # time in the caller's unit per unit of flow time


def feature_equation(objective: Objective, depth: Any, time_unit: Any) -> FeatureEquation:
    """Check depth and time unit together and return the scalar flow they stand for.

    One unit of flow time is ``depth`` units of rescaled time. In the rescaled unit MAE has a limit at infinite depth,
    which is JEPA at depth 1: ``dw/dt = lambda w^2 - sigma^2 w^3`` (THEORY.md 2).
    """
    unit = as_choice("time_unit", time_unit, TIME_UNITS)
    has_limit = isinstance(objective, MAE) and unit == "rescaled"
    number = as_depth(depth, allow_inf=has_limit)
    if math.isinf(number):
        return FeatureEquation(JEPA.code, 1.0, 1.0)
    return FeatureEquation(objective.code, number, number if unit == "rescaled" else 1.0)


def as_spectrum(spec: Any) -> Spectrum:
    """Return ``spec``, or raise TypeError unless it is a Spectrum."""
    if not isinstance(spec, Spectrum):
        raise TypeError(f"spec must be a jepa_ode.Spectrum, got {type(spec).__name__}")
    return spec


def as_schedule(schedule: Any) -> Schedule | None:
    """Return ``schedule``, or raise TypeError unless it is a Schedule or None."""
    if schedule is not None and not isinstance(schedule, Schedule):
        raise TypeError(
            f"schedule must be a jepa_ode.Schedule, such as jepa_ode.Schedule.cosine(1000.0), got {type(schedule).__name__}"
        )
    return schedule


def require_target_variances(spec: Spectrum) -> None:
    """Raise ValueError unless ``spec`` has the variances of the target, which JEPA without stop-gradient needs."""
    if spec.sigma2_y is None:
        raise ValueError(
            "JEPA without stop-gradient needs the variances of the target: give the spectrum sigma2_y, "
            "as in jepa_ode.Spectrum(lam, sigma2, sigma2_y=...)"
        )


def fixed_point(spec: Spectrum, objective: ObjectiveLike, *, depth: float) -> FloatArray:
    """Return the response that each feature tends to (THEORY.md 2).

    ``w* = rho^L`` for JEPA and ``w* = rho^(L/(L+1))`` for MAE where ``lambda > 0``; 0 where ``lambda <= 0``.

    Parameters
    ----------
    spec : Spectrum
        The features, n of them.
    objective : JEPA, MAE, "jepa" or "mae"
        Stop-gradient, without moving average or weight decay.
    depth : float
        Number of encoder layers L, any real number >= 1; ``math.inf`` for MAE's limit ``w* = rho``.

    Returns
    -------
    ndarray of shape [n]
        Correct to the last bit or two; inf where ``rho^L`` is beyond the largest double.

    Raises
    ------
    ValueError
        If depth < 1, or the objective has no closed form.

    Examples
    --------
    >>> import jepa_ode as jo
    >>> spec = jo.Spectrum([1.0, 1.0, 0.0], rho=None, sigma2=[1.25, 2.0, 1.0])
    >>> jo.fixed_point(spec, "jepa", depth=2).round(6)
    array([0.64, 0.25, 0.  ])
    >>> jo.fixed_point(spec, "mae", depth=1).round(6)
    array([0.894427, 0.707107, 0.      ])
    """
    spec = as_spectrum(spec)
    objective = as_objective(objective)
    require_plain(objective, "fixed_point")
    unit: TimeUnit = "rescaled" if isinstance(objective, MAE) else "flow"
    equation = feature_equation(objective, depth, unit)
    return engine.fixed_point(spec.lam, spec.sigma2, equation.depth, equation.code)


def time_to_reach(
    spec: Spectrum,
    objective: ObjectiveLike,
    *,
    depth: float,
    eps: Any,
    w: Any,
    time_unit: TimeUnit = "flow",
    schedule: Schedule | None = None,
    threads: int | None = None,
) -> FloatArray:
    """Return the time at which each feature's response equals ``w``: the inverse of `solve` (THEORY.md 3).

    Parameters
    ----------
    spec : Spectrum
        The features, n of them.
    objective : JEPA, MAE, "jepa" or "mae"
        Stop-gradient, without moving average or weight decay.
    depth : float
        Number of encoder layers L, any real number >= 1; ``math.inf`` for MAE in the rescaled unit.
    eps : float or array of shape [n]
        Response at the start, positive.
    w : float or array of shape [n]
        Response to reach, non-negative, inf allowed.
    time_unit : {"flow", "rescaled"}, default "flow"
        Unit of the result; one unit of flow time is L units of rescaled time.
    schedule : Schedule, optional
        Learning-rate schedule, in the same unit; None is a constant rate of 1.
    threads : int, optional
        Threads to use; None means every CPU that this process may use.

    Returns
    -------
    ndarray of shape [n]
        0 where ``w == eps``; inf where the response never gets there: on the far side of the start or of the fixed
        point, or the fixed point itself.

    Examples
    --------
    >>> import jepa_ode as jo
    >>> spec = jo.Spectrum([0.7, 0.0], sigma2=[1.0, 1.0])
    >>> jo.time_to_reach(spec, "jepa", depth=1, eps=0.5, w=[0.6, 0.25]).round(6)
    array([2.262861, 6.      ])
    """
    spec = as_spectrum(spec)
    objective = as_objective(objective)
    require_plain(objective, "time_to_reach")
    equation = feature_equation(objective, depth, time_unit)
    times = engine.time_to_reach(
        spec.lam,
        spec.sigma2,
        as_eps(eps, len(spec)),
        equation.depth,
        equation.code,
        as_response(w, len(spec)),
        as_threads(threads),
    )
    return _as_asked(times, equation, schedule)


def critical_time(
    spec: Spectrum,
    objective: ObjectiveLike,
    *,
    depth: float,
    eps: Any,
    fraction: float = 0.5,
    method: Literal["exact", "leading"] = "exact",
    time_unit: TimeUnit = "flow",
    schedule: Schedule | None = None,
    threads: int | None = None,
) -> FloatArray:
    r"""Return the time at which each feature has risen from ``eps`` to ``fraction`` of its own fixed point.

    A feature that starts above that has time 0, whether it grows or shrinks: `learning_times` asks for growth too.

    Parameters
    ----------
    spec : Spectrum
        The features, n of them.
    objective : JEPA, MAE, "jepa" or "mae"
        Stop-gradient, without moving average or weight decay.
    depth : float
        Number of encoder layers L, any real number >= 1; ``math.inf`` for MAE in the rescaled unit.
    eps : float or array of shape [n]
        Response at the start, positive.
    fraction : float, default 0.5
        Of the feature's own fixed point, ``0 < fraction < 1``.
    method : {"exact", "leading"}, default "exact"
        "leading" is the behaviour as ``eps -> 0``, which knows nothing of ``fraction``. Its error is O(log 1/eps) for
        JEPA and O(1) for MAE in absolute terms; at eps = 0.01 it can be off by a factor of 2.5 (JEPA, depth 5,
        rho = 0.5).
    time_unit : {"flow", "rescaled"}, default "flow"
        Unit of the result; one unit of flow time is L units of rescaled time.
    schedule : Schedule, optional
        Learning-rate schedule, in the same unit; None is a constant rate of 1.
    threads : int, optional
        Threads to use; None means every CPU that this process may use.

    Returns
    -------
    ndarray of shape [n]
        inf where the feature is never learned (``lambda <= 0``); with method "exact", 0 where it starts at or above the
        threshold.

    Notes
    -----
    THEORY.md 4. Leading behaviour:

    .. math::

        t^*_{JEPA} \sim \frac1\lambda \sum_{n=0}^{2L-2} \frac{\epsilon^{-(2L-1-n)/L}}{(2L-1-n)\,\rho^n}, \qquad
        t^*_{MAE} \sim \frac{\epsilon^{-(L-1)/L}}{(L-1)\lambda}

    (:math:`\log(1/\epsilon)/\lambda` for MAE at depth 1). So JEPA's depends on both parameters of a feature, MAE's on
    lambda alone.

    Examples
    --------
    >>> import jepa_ode as jo
    >>> spec = jo.Spectrum([0.7], rho=[0.6])
    >>> jo.critical_time(spec, "jepa", depth=2, eps=1e-2, fraction=0.9).round(8)
    array([651.62991999])
    >>> jo.critical_time(spec, "mae", depth=2, eps=1e-2, method="leading").round(8)
    array([14.28571429])
    """
    spec = as_spectrum(spec)
    objective = as_objective(objective)
    require_plain(objective, "critical_time")
    equation = feature_equation(objective, depth, time_unit)
    start = as_eps(eps, len(spec))
    fraction = as_positive("fraction", fraction)
    if fraction >= 1:
        raise ValueError(f"fraction must lie between 0 and 1 (the fixed point is never reached), got {fraction}")
    if as_choice("method", method, ("exact", "leading")) == "leading":
        times = _leading_time(spec, equation, start)
    else:
        times = engine.critical_time(
            spec.lam,
            spec.sigma2,
            start,
            equation.depth,
            equation.code,
            fraction,
            as_threads(threads),
        )
    return _as_asked(times, equation, schedule)


@np.errstate(over="ignore")  # times beyond the largest double are inf
def _as_asked(times: FloatArray, equation: FeatureEquation, schedule: Schedule | None) -> FloatArray:
    """Return when the clock of ``schedule`` shows these times of flow, in the unit of the equation."""
    times = times * equation.unit
    chosen = as_schedule(schedule)
    return times if chosen is None else chosen.time(times)


def _leading_time(spec: Spectrum, equation: FeatureEquation, eps: FloatArray) -> FloatArray:
    times = np.full(len(spec), np.inf)
    learned = spec.lam > 0
    with np.errstate(over="ignore", divide="ignore"):  # times beyond the largest double are inf
        lam, rho, start = spec.lam[learned], spec.rho[learned], eps[learned]
        if equation.code == JEPA.code:
            times[learned] = _leading_jepa(lam, rho, start, equation.depth)
        else:
            times[learned] = _leading_mae(lam, start, equation.depth)
    return times


def _leading_jepa(lam: FloatArray, rho: FloatArray, eps: FloatArray, depth: float) -> FloatArray:
    if depth > DEEPEST:
        raise ValueError(
            f"method='leading' takes JEPA encoders up to depth {DEEPEST:,}, as 'exact' does, got {depth:g}"
        )
    # All terms of the sum that diverge as eps -> 0: 2L - 1 of them, rounded up for real depths; so many at a time.
    total = np.zeros_like(lam)
    count = math.ceil(2 * depth - 1)
    block = max(2**18 // max(lam.size, 1), 1)
    for first in range(0, count, block):
        n = np.arange(first, min(first + block, count))[:, None]
        k = 2 * depth - 1 - n
        total += (eps ** (-k / depth) / (k * rho**n)).sum(axis=0)
    return total / lam


def _leading_mae(lam: FloatArray, eps: FloatArray, depth: float) -> FloatArray:
    if depth == 1:
        return -np.log(eps) / lam
    return eps ** (-(depth - 1) / depth) / ((depth - 1) * lam)
