"""What the treatment of JEPA's target changes: collapse without stop-gradient, delay by a moving average (THEORY.md 1, 2)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from ._validate import FloatArray, as_choice, as_depth, as_eps, as_float_array, as_positive
from .objectives import JEPA
from .theory import as_spectrum, fixed_point

if TYPE_CHECKING:
    from .covariances import Covariances
    from .spectrum import Spectrum

__all__ = ["collapse_bound", "moving_average_delay"]

Limit: TypeAlias = Literal["short", "long"]
MOVING_AVERAGE_LIMITS: tuple[Limit, ...] = ("short", "long")


def collapse_bound(cov: Covariances, *, depth: int, eps: float, t: Any) -> FloatArray:
    """Return a bound, which tends to 0, on the encoder's layers when JEPA is trained without stop-gradient.

    It holds for any data and bounds ``||W^l||_F^2 / d``, the mean square singular value of each layer, from the start
    ``LinearNetwork.balanced(d, depth, eps)`` on.

    Parameters
    ----------
    cov : Covariances
        With ``Syy``.
    depth : int
    eps : float
    t : array of shape [m]
        Flow time.

    Returns
    -------
    array of shape [m]
        ``(q^(1-L) + 2 (L-1) mu t)^(-1/(L-1))`` with ``q = eps^(2/L)``, at depth 1 ``q exp(-2 mu t)``. ``mu`` is the least
        eigenvalue of what the best linear regression leaves of the target, ``Syy - Syx Sxx^-1 Sxy``. Where it is 0, some
        direction is predicted perfectly, and need not collapse.

    Raises
    ------
    ValueError
        Without ``Syy``.

    Notes
    -----
    The loss is homogeneous in every layer, twice itself is its derivative along any: ``d||W^l||^2/dt = -4 loss``. Whatever the
    predictor, ``2 loss >= mu ||Wbar||^2``. Layers that start balanced stay so, and then ``||Wbar||^2 = tr (W^1 W^1^T)^L >=
    d (||W^1||^2 / d)^L``. So ``q' <= -2 mu q^L`` for ``q = ||W^l||^2 / d``.

    Examples
    --------
    >>> import numpy as np
    >>> import jepa_ode as jo
    >>> cov = jo.Covariances(np.eye(2), np.diag([0.9, 0.4]), np.eye(2))
    >>> jo.collapse_bound(cov, depth=2, eps=0.1, t=[0.0, 100.0, 1e4]).round(6)
    array([0.1     , 0.020833, 0.000262])
    """
    if cov.Syy is None:
        raise ValueError("a bound without stop-gradient needs Syy: give the covariances the one of the target")
    L = as_depth(depth)
    q = float(as_eps(eps, 1)[0]) ** (2 / L)
    left = cov.Syy - cov.Syx @ np.linalg.pinv(cov.Sxx, hermitian=True) @ cov.Syx.T
    mu = max(float(np.linalg.eigvalsh(left)[0]), 0.0)
    times = as_float_array("t", t)
    if L == 1:
        return np.asarray(q * np.exp(-2 * mu * times))
    return np.asarray((q ** (1 - L) + 2 * (L - 1) * mu * times) ** (-1 / (L - 1)))


def moving_average_delay(spec: Spectrum, *, depth: float, eps: Any, fraction: float = 0.5, limit: Limit) -> FloatArray:
    """Return by how much a moving-average target delays learning, in units of its time constant ``tau``.

    Parameters
    ----------
    spec : Spectrum
    depth : float
    eps : float or array of shape [n]
        Start, balanced.
    fraction : float, default 0.5
        Of the feature's fixed point ``w* = rho^L``, which a moving average does not change.
    limit : {"short", "long"}
        Of time constants short, or long, in comparison with the time that the plain objective needs. For those in between,
        `solve` knows.

    Returns
    -------
    array of shape [n]
        ``L (logit x - logit x0)`` for short and ``(L+1) log((1 - z0) / (1 - z))`` for long time constants; ``x`` and ``x0`` are
        the values of ``(w/w*)^(1/L)`` at the end and at the start, ``z = x^(1/L)`` and ``z0 = x0^(1/(L+1))``. NaN where the
        response does not rise to the fraction.

    Notes
    -----
    Both depend on the feature by its start ``eps / w*`` alone. In ``u' = u^L (lambda b^L - sigma^2 u^(L+1))`` a short average
    is ``b = u - tau u'``, which adds ``lambda L tau u^(2L-1)`` to the 1 in front of ``u'``. Under a long one ``u`` rests where
    ``u^(L+1) = rho b^L`` while ``b' = (u - b) / tau``: with ``b = rho z^(L+1)`` this is ``z' = (1 - z) / ((L+1) tau)``, and
    ``u = rho z^L``.

    Examples
    --------
    >>> import jepa_ode as jo
    >>> spec = jo.Spectrum([1.0, 0.5], rho=0.8)
    >>> jo.moving_average_delay(spec, depth=2, eps=0.1, limit="short").round(3)
    array([2.613, 2.613])
    >>> t = [jo.solve(spec, each, depth=2, eps=0.1, t=[1e6]).critical_time() for each in ("jepa", jo.JEPA(ema=0.01))]
    >>> ((t[1] - t[0]) / 0.01).round(1)
    array([2.6, 2.6])
    """
    as_choice("limit", limit, MOVING_AVERAGE_LIMITS)
    spec = as_spectrum(spec)
    L = as_depth(depth)
    end = fixed_point(spec, JEPA(), depth=L)
    x = np.float64(as_positive("fraction", fraction)) ** (1 / L)
    with np.errstate(divide="ignore", invalid="ignore"):
        x0 = np.where(end > 0, as_eps(eps, len(spec)) / end, math.inf) ** (1 / L)
        rises = (x0 < x) & (x < 1)
        if limit == "short":
            delay = L * (np.log(x / (1 - x)) - np.log(x0 / (1 - x0)))
        else:
            delay = (L + 1) * np.log((1 - x0 ** (1 / (L + 1))) / (1 - x ** (1 / L)))
    return np.where(rises, delay, math.nan)
