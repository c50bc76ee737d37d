"""Responses of an ensemble of features over time: the exact solution and adaptive Runge-Kutta (THEORY.md 2 and 3)."""

from __future__ import annotations

import sys
from typing import Any, Literal

import numpy as np

from ._core import engine
from ._frozen import read_only
from ._validate import (
    as_choice,
    as_eps,
    as_index,
    as_non_negative,
    as_positive,
    as_threads,
    as_times,
)
from .objectives import ObjectiveLike, as_objective, require_plain
from .solution import Solution, describe
from .spectrum import Spectrum
from .theory import TimeUnit, as_spectrum, feature_equation

__all__ = ["solve"]

_METHODS = ("exact", "tsit5", "dop853")
# Below this the rounding of the right-hand side, not the step size, decides the error.
_SMALLEST_RTOL = 1e-13


def solve(
    spec: Spectrum,
    objective: ObjectiveLike,
    *,
    depth: float,
    eps: Any,
    t: Any,
    method: Literal["exact", "tsit5", "dop853"] | str = "exact",
    rtol: float = 1e-8,
    atol: float = 0.0,
    threads: int | None = None,
    time_unit: TimeUnit = "flow",
    max_steps: int = 1_000_000,
) -> Solution:
    r"""Solve the feature equations: how the encoder's response to each feature grows or decays (THEORY.md 2).

    Parameters
    ----------
    spec : Spectrum
        The features, n of them. ``lambda <= 0`` (noise) is no error: the response decays.
    objective : JEPA, MAE, "jepa" or "mae"
        Stop-gradient, without moving average or weight decay.
    depth : float
        Number of encoder layers L, any real number >= 1; ``math.inf`` for MAE in the rescaled time unit, where the
        limit exists: ``dw/dt = lambda w^2 - sigma^2 w^3``, which is JEPA at depth 1.
    eps : float or array of shape [n]
        The start ``w(0)``, positive.
    t : float or array of shape [m] or [n, m]
        Times since the start: non-negative, non-decreasing, equal ones allowed; inf asks for the limit. One row for all
        features or one per feature.
    method : {"exact", "tsit5", "dop853"}, default "exact"
        "exact" evaluates the closed form (THEORY.md 3) to a few units of rounding at any time, at no cost for long
        horizons. "tsit5" and "dop853" integrate by explicit Runge-Kutta steps of order 5 and 8, each feature with its
        own step size: the second is the better one for ``rtol < 1e-6`` or so.
    rtol, atol : float, default 1e-8 and 0.0
        Tolerances of ``w`` for the Runge-Kutta methods, ``1e-13 <= rtol < 1``. What they promise is stated in the notes.
    threads : int, optional
        Threads to use; None means every CPU that this process may use. Results do not depend on it.
    time_unit : {"flow", "rescaled"}, default "flow"
        Unit of ``t``; one unit of flow time is L units of rescaled time.
    max_steps : int, default 1_000_000
        Steps, rejected ones included, that one feature may take. One that needs more ends with status MAX_STEPS and NaN
        at the times it did not reach; its neighbours are not affected.

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
    """
    spec = as_spectrum(spec)
    n = len(spec)
    objective = as_objective(objective)
    require_plain(objective, "solve")
    equation = feature_equation(objective, depth, time_unit)
    start = as_eps(eps, n)
    times = as_times(t, n)
    method = as_choice("method", method, _METHODS)
    rtol = _as_rtol(rtol)
    atol = as_non_negative("atol", atol)
    max_steps = min(as_index("max_steps", max_steps, minimum=1), np.iinfo(np.int64).max)
    workers = min(as_threads(threads), max(n, 1))
    if n * times.shape[-1] > sys.maxsize // start.itemsize:
        raise ValueError(f"{n} features at {times.shape[-1]} times are more values than memory has addresses")

    features = (spec.lam, spec.sigma2, start, equation.depth, equation.code, times / equation.unit)
    if method == "exact":
        w, status = engine.solve_exact(*features, workers)
        nfev = np.zeros(n, dtype=np.int64)
    else:
        w, status, nfev = engine.solve_runge_kutta(*features, method, rtol, atol, max_steps, workers)
    for array in (w, status, nfev):
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
    )


def _as_rtol(rtol: Any) -> float:
    number = as_positive("rtol", rtol)
    if not _SMALLEST_RTOL <= number < 1:
        raise ValueError(
            f"rtol must lie between {_SMALLEST_RTOL:g} (below, rounding decides; method='exact' is accurate to it) and 1, "
            f"got {number:g}"
        )
    return number
