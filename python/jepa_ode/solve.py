"""Responses of an ensemble of features over time: the exact solution and adaptive Runge-Kutta (THEORY.md 2 and 3)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ._core import engine
from ._frozen import read_only
from ._threads import as_threads
from ._validate import (
    FloatArray,
    as_choice,
    as_eps,
    as_index,
    as_non_negative,
    as_per_feature,
    as_positive,
    as_times,
    require_finite,
)
from .objectives import JEPA, Objective, ObjectiveLike, as_objective
from .schedule import Schedule
from .solution import Solution, describe
from .spectrum import Spectrum
from .theory import (
    DEEPEST,
    FeatureEquation,
    TimeUnit,
    as_schedule,
    as_spectrum,
    feature_equation,
    require_target_variances,
)

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["solve"]

_METHODS = ("exact", "tsit5", "dop853")
# Below this the rounding of the right-hand side, not the step size, decides the error.
_SMALLEST_RTOL = 1e-13
# Layer systems resolve responses down to 1e-200.
_SMALLEST_EPS = 1e-190


def solve(
    spec: Spectrum,
    objective: ObjectiveLike,
    *,
    depth: float,
    eps: Any,
    t: Any,
    method: Literal["exact", "tsit5", "dop853"] | str | None = None,
    rtol: float = 1e-8,
    atol: float = 0.0,
    threads: int | None = None,
    time_unit: TimeUnit = "flow",
    v0: Any = None,
    schedule: Schedule | None = None,
    max_steps: int = 1_000_000,
    out: npt.NDArray[Any] | None = None,
    dtype: npt.DTypeLike | None = None,
) -> Solution:
    r"""Solve the feature equations: how the encoder's response to each feature grows or decays (THEORY.md 2).

    Parameters
    ----------
    spec : Spectrum
        The features, n of them. ``lambda <= 0`` (noise) is no error: the response decays.
    objective : JEPA, MAE, "jepa" or "mae"
        With every option. Without stop-gradient the spectrum needs ``sigma2_y``; a moving average starts equal to the
        encoder.
    depth : float
        Number of encoder layers L, any real number >= 1; ``math.inf`` for MAE in the rescaled time unit, where the
        limit exists: ``dw/dt = lambda w^2 - sigma^2 w^3``, which is JEPA at depth 1. Up to 2,000,000 but for MAE's exact
        solution: deeper, ``u = w^(1/L)`` has too few digits of ``w``.
    eps : float or array of shape [n]
        The start ``w(0)``, positive.
    t : float or array of shape [m] or [n, m]
        Times since the start: non-negative, non-decreasing, equal ones allowed; inf asks for the limit, where there is
        a closed form. One row for all features or one per feature.
    method : {"exact", "tsit5", "dop853"}, optional
        "exact" evaluates the closed form (THEORY.md 3) to a few units of rounding at any time, at no cost for long
        horizons. "tsit5" and "dop853" integrate by explicit Runge-Kutta steps of order 5 and 8, each feature with its
        own step size: the second is the better one for ``rtol < 1e-6`` or so. None (the default) takes "exact" where it
        applies, to plain objectives from a balanced start, and "dop853" elsewhere; ``sol.method`` tells.
    rtol, atol : float, default 1e-8 and 0.0
        Tolerances of ``w`` for the Runge-Kutta methods, ``1e-13 <= rtol < 1``. What they promise is stated in the notes.
    threads : int, optional
        Threads to use; None means every CPU that this process may use. Results do not depend on it.
    time_unit : {"flow", "rescaled"}, default "flow"
        Unit of ``t``; one unit of flow time is L units of rescaled time.
    v0 : float or array of shape [n], optional
        Start of the predictor, of any sign. None is the balanced start ``v0 = eps^(1/L)``, and so is passing that number
        for all features; any other is solved as a layer system, see the notes.
    schedule : Schedule, optional
        Learning-rate schedule, in the unit of ``t``; None is a constant rate of 1. It changes the clock and nothing
        else, so that every method applies.
    max_steps : int, default 1_000_000
        Steps, rejected ones included, that one feature may take. One that needs more ends with status MAX_STEPS and NaN
        at the times it did not reach; its neighbours are not affected.
    out : array of shape [n, m], optional
        Where the responses go: float64 or float32, C-contiguous, aligned and writeable. ``sol.w`` is then a read-only view
        of it; whoever writes to ``out`` later changes the solution. Memory that was used before saves the time in which the
        system hands out pages, about half of the whole for the exact method.
    dtype : float64 or float32, optional
        Of ``sol.w``; None is that of ``out``, or else float64. Everything is computed in float64 and rounded once. A
        response too large for float32 is NaN, with status NOT_FINITE.

    Returns
    -------
    Solution
        ``sol.w`` [n, m] holds the responses, ``sol.status`` [n] how each feature ended.

    Raises
    ------
    TypeError, ValueError
        For an argument that is not what it should be; the message says what would be.
    MemoryError
        When the result does not fit.

    Notes
    -----
    With ``u = w^(1/L)`` the equations are

    .. math::

        \dot u_{JEPA} = u^{2L} (\lambda - \sigma^2 u), \qquad \dot u_{MAE} = u^L (\lambda - \sigma^2 u^{L+1}).

    The response at a given time is extremely sensitive to everything during the rise of a deep encoder, so errors are
    measured as ``E = |u - u_ref| / (|u_ref| + t |u'|)``, which forgives a relative shift of the clock (THEORY.md 3).
    The Runge-Kutta methods keep ``E`` below ``rtol``, in proportion to it, from 1e-3 to 1e-12.

    **Layer systems.** Moving average, weight decay, no stop-gradient and a start that is not balanced have no closed form:
    each feature is a system of encoder layer ``a`` (``w = |a|^L``), predictor ``v`` and, with a moving average, target
    layer ``b`` (THEORY.md 2). ``sol.predictor`` and ``sol.target`` hold ``v`` and ``b``. Their tolerances are those that
    ``w`` needs, ``rtol/L`` of ``a``, of ``b`` and of the larger of ``|v|`` and ``|a|``; a response below 1e-200 is as good
    as 0, its digits mean nothing, and one that returns from there ends with status STEP_TOO_SMALL. Where steps turn stiff
    (a moving average that follows closely, a slow drift, convergence) the L-stable Rosenbrock method Rodas5P takes over
    from either method. Without a balanced start ``a`` may change sign at depths below 2, where ``a^L`` stands for
    ``a |a|^(L-1)``.

    Steps do not depend on ``t``: more times do not change the values at the old ones, and a feature's values do not
    depend on its neighbours, bit for bit. A feature that has come to rest takes no more steps, so horizons may be long.

    Examples
    --------
    JEPA suppresses the features that predict poorly (low rho), the more so the deeper the encoder:

    >>> import jepa_ode as jo
    >>> spec = jo.Spectrum([1.0, 1.0], rho=[0.9, 0.5])
    >>> sol = jo.solve(spec, "jepa", depth=4, eps=0.1, t=[0.0, 25.0, 1e6])
    >>> sol.w.round(4)
    array([[0.1   , 0.3651, 0.6561],
           [0.1   , 0.0856, 0.0625]])
    >>> sol
    Solution(jepa, depth=4, 2 features, 3 times, method='exact', success)

    The same by integration:

    >>> rk = jo.solve(spec, "jepa", depth=4, eps=0.1, t=[0.0, 25.0, 1e6], method="dop853")
    >>> bool(abs(rk.w / sol.w - 1).max() < 1e-7)
    True

    Without stop-gradient the representation collapses:

    >>> spec = jo.Spectrum([1.0, 1.0], rho=[0.9, 0.5], sigma2_y=[1.2, 2.2])
    >>> jo.solve(spec, jo.JEPA(stop_gradient=False), depth=1, eps=0.1, t=[0.0, 1.0, 10.0]).w.round(4)
    array([[0.1   , 0.0365, 0.    ],
           [0.1   , 0.0133, 0.    ]])
    """
    spec = as_spectrum(spec)
    n = len(spec)
    objective = as_objective(objective)
    equation = feature_equation(objective, depth, time_unit)
    start = as_eps(eps, n)
    times = as_times(t, n)
    predictor = _as_predictor(v0, start, equation.depth)
    closed = objective.is_plain and predictor is None
    method = _as_method(method, closed)
    if method != "exact" and equation.depth > DEEPEST:
        raise ValueError(f"method {method!r} takes depths up to {DEEPEST:,}, got {equation.depth:g}")
    rtol = _as_rtol(rtol)
    atol = as_non_negative("atol", atol)
    max_steps = min(as_index("max_steps", max_steps, minimum=1), np.iinfo(np.int64).max)
    workers = min(as_threads(threads), max(n, n * times.shape[-1] // 4096, 1))
    clock = as_schedule(schedule)
    if n * times.shape[-1] > sys.maxsize // start.itemsize:
        raise ValueError(f"{n} features at {times.shape[-1]} times are more values than memory has addresses")

    # Rounding may turn the order of two times that a schedule leaves almost equal; engines rely on it.
    theta = times if clock is None else np.maximum.accumulate(clock.elapsed(times), axis=-1)
    if equation.unit != 1:
        theta = theta / equation.unit
    shape = (n, times.shape[-1])
    kind = _as_output_type(out, dtype, shape, {"t": times, "eps": start})
    v: FloatArray | None = None
    b: FloatArray | None = None
    features = (spec.lam, spec.sigma2, start, equation.depth, equation.code, theta)
    if not closed:
        responses, v, b, status, nfev = _solve_layers(
            spec, objective, start, predictor, equation, theta, method, rtol, atol, max_steps, workers
        )
    elif method == "exact":
        w = engine.output_array(*shape, kind == np.float32) if out is None else out
        status = engine.solve_exact(*features, workers, w)
        nfev = np.zeros(n, dtype=np.int64)
    else:
        responses, status, nfev = engine.solve_runge_kutta(*features, method, rtol, atol, max_steps, workers)
    if method != "exact":
        w = responses if out is None and kind == responses.dtype else _store(responses, out, kind, status)
    if out is not None:
        w = w.view()  # the caller's array stays writeable
    for array in (w, status, nfev, v, b):
        if array is not None:
            array.flags.writeable = False
    return Solution(
        t=read_only(times),
        w=w,
        status=status,
        message=describe(status),
        nfev=nfev,
        method=method,
        spectrum=spec,
        objective=objective,
        depth=float(depth),
        eps=read_only(start),
        time_unit=time_unit,
        rtol=rtol,
        atol=atol,
        max_steps=max_steps,
        v0=None if predictor is None else read_only(predictor),
        schedule=clock,
        predictor=v,
        target=b,
    )


def _solve_layers(
    spec: Spectrum,
    objective: Objective,
    start: FloatArray,
    predictor: FloatArray | None,
    equation: FeatureEquation,
    times: FloatArray,
    method: str,
    rtol: float,
    atol: float,
    max_steps: int,
    workers: int,
) -> tuple[FloatArray, FloatArray, FloatArray | None, npt.NDArray[np.int8], npt.NDArray[np.int64]]:
    """Return responses, predictors, target layers, statuses and evaluations of the layer systems (THEORY.md 2)."""
    described = repr(objective) if predictor is None else f"{objective!r} with v0"
    if np.isinf(times).any():
        raise ValueError(
            f"t must be finite for {described}: there is no closed form of the limit; "
            "jepa_ode.fixed_points lists what it may be"
        )
    if (start < _SMALLEST_EPS).any():
        raise ValueError(f"eps must be at least {_SMALLEST_EPS:g} for {described}, got {start.min():g}")
    target, tau = "data", 1.0
    if isinstance(objective, JEPA):
        target = "own" if objective.stop_gradient else "differentiated"
        if objective.ema is not None:
            target, tau = "average", objective.ema
    if target == "differentiated":
        require_target_variances(spec)
    return engine.solve_layers(
        spec.lam,
        spec.sigma2,
        spec.sigma2_y if target == "differentiated" else None,
        start,
        predictor,
        equation.depth,
        target,
        objective.weight_decay,
        tau,
        times,
        method,
        rtol,
        atol,
        max_steps,
        workers,
    )


def _as_predictor(v0: Any, eps: FloatArray, depth: float) -> FloatArray | None:
    """Return the predictor's start as one value per feature, or None where it is the balanced one."""
    if v0 is None:
        return None
    predictor = require_finite("v0", as_per_feature("v0", v0, eps.size))
    return None if np.array_equal(predictor, eps ** (1 / depth)) else predictor


def _as_method(method: Any, closed: bool) -> str:
    """Return the method; None is the exact one where there is a closed form."""
    if method is None:
        return "exact" if closed else "dop853"
    chosen = as_choice("method", method, _METHODS)
    if chosen == "exact" and not closed:
        raise ValueError(
            "method='exact' solves plain objectives (stop-gradient, no ema, no weight_decay) from a balanced start (v0=None) "
            "only; method='dop853', the default for all others, solves this one"
        )
    return chosen


def _as_output_type(out: Any, dtype: Any, shape: tuple[int, int], inputs: dict[str, FloatArray]) -> np.dtype[Any]:
    """Return the type of the responses; raise TypeError or ValueError where ``out`` cannot hold them."""
    if dtype is not None and np.dtype(dtype) not in (np.dtype(np.float64), np.dtype(np.float32)):
        raise TypeError(f"dtype must be float64 or float32, got {np.dtype(dtype)}")
    if out is None:
        return np.dtype(np.float64 if dtype is None else dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array, got {type(out).__name__}")
    if out.dtype not in (np.dtype(np.float64), np.dtype(np.float32)):
        raise TypeError(f"out must hold float64 or float32, got {out.dtype}")
    if dtype is not None and np.dtype(dtype) != out.dtype:
        raise ValueError(f"out holds {out.dtype} but dtype is {np.dtype(dtype)}; leave one of them away")
    if out.shape != shape:
        raise ValueError(f"out must have shape {shape}, one response per feature and time, got {out.shape}")
    if not (out.flags.c_contiguous and out.flags.aligned and out.flags.writeable):
        raise ValueError("out must be C-contiguous, aligned and writeable: numpy.empty makes such an array")
    for name, array in inputs.items():
        if np.may_share_memory(out, array):
            raise ValueError(f"out overlaps {name}: responses would overwrite it while it is read")
    return np.dtype(out.dtype)


def _store(
    responses: FloatArray, out: npt.NDArray[Any] | None, kind: np.dtype[Any], status: npt.NDArray[np.int8]
) -> npt.NDArray[Any]:
    """Return integrated responses in the caller's array or in a new one of the type that was asked for."""
    w = np.empty(responses.shape, dtype=kind) if out is None else out
    with np.errstate(over="ignore"):
        w[...] = responses
    lost = np.isinf(w)
    w[lost] = np.nan
    status[lost.any(axis=1)] = engine.Status.NOT_FINITE
    return w


def _as_rtol(rtol: Any) -> float:
    number = as_positive("rtol", rtol)
    if not _SMALLEST_RTOL <= number < 1:
        raise ValueError(
            f"rtol must lie between {_SMALLEST_RTOL:g} (below, rounding decides; method='exact' is accurate to it) and 1, "
            f"got {number:g}"
        )
    return number
