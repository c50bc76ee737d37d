"""Every fixed point of the layer systems with its stability, and the weight decay that forbids learning (THEORY.md 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._frozen import FrozenArrays, read_only
from ._validate import FloatArray, as_depth, as_eps
from .objectives import JEPA, Objective, ObjectiveLike, as_objective
from .spectrum import Spectrum
from .theory import as_spectrum, require_target_variances

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["FixedPoints", "fixed_points", "weight_decay_threshold"]

# Real parts of eigenvalues smaller than this part of the Jacobian are rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class FixedPoints(FrozenArrays):
    """All fixed points of the layer system of each feature, as `fixed_points` found them.

    The second axis of every array is the kind of point: 0 the origin, where nothing is learned; 1 the lower one, which
    weight decay brings and a start has to exceed; 2 the upper one, where a learned feature ends. Entries are NaN, and
    ``stability`` empty, where a feature has no such point.

    Attributes
    ----------
    response : array [n, 3]
        ``w = a^L``; inf beyond the largest double.
    encoder : array [n, 3]
        Encoder layer ``a``; the target layer of a moving average equals it.
    predictor : array [n, 3]
        Predictor ``v``: ``a`` where ``lambda > 0``, ``-a`` where ``lambda < 0``, which balanced starts never reach.
    eigenvalues : complex array [n, 3, k]
        Of the Jacobian of ``(a, v)`` or, with a moving average, ``(a, v, b)``; real parts ascend.
    stability : str array [n, 3]
        ``"stable"``: every eigenvalue has a negative real part, so that all near starts end there. Without weight decay
        ``v^2 - a^2`` is conserved, fixed points form curves along which one eigenvalue is 0, and the word refers to
        starts with the conserved quantity of the point (0 here). ``"unstable"``: some eigenvalue has a positive real
        part. ``"degenerate"``: neither, the linearisation does not decide. That is the origin without weight decay
        (``lambda > 0``: balanced starts leave it, as a power of time if the depth is above 1 or for JEPA) and the point at
        which lower and upper one merge. ``"unknown"``: the Jacobian has entries beyond the largest double, and eigenvalues
        are NaN.
    spectrum : Spectrum
    objective : JEPA or MAE
    depth : float
    """

    response: FloatArray
    encoder: FloatArray
    predictor: FloatArray
    eigenvalues: npt.NDArray[np.complex128]
    stability: npt.NDArray[np.str_]
    spectrum: Spectrum
    objective: Objective
    depth: float

    @property
    def count(self) -> npt.NDArray[np.intp]:
        """How many fixed points each feature has, array [n]."""
        return np.asarray(np.count_nonzero(self.stability != "", axis=1))

    def __repr__(self) -> str:
        n = len(self.response)
        return f"FixedPoints({self.objective!r}, depth={self.depth:g}, {n} feature{'s' * (n != 1)})"


@np.errstate(over="ignore", invalid="ignore")  # beyond the largest double is inf, and a Jacobian of such unknown
def fixed_points(spec: Spectrum, objective: ObjectiveLike, *, depth: float) -> FixedPoints:
    r"""Return every fixed point of each feature's layer system, with its stability.

    Parameters
    ----------
    spec : Spectrum
        The features, n of them.
    objective : JEPA, MAE, "jepa" or "mae"
        With every option; without stop-gradient the spectrum needs ``sigma2_y``.
    depth : float
        Number of encoder layers L, any real number >= 1.

    Returns
    -------
    FixedPoints

    Raises
    ------
    ValueError
        For bad arguments, and for ``sigma2_y < lambda^2/sigma2`` without stop-gradient: no data have such moments.

    Notes
    -----
    With weight decay ``v^2 - a^2`` decays, so that ``v = +-a``, and with :math:`u = |a|`

    .. math::

        u^{p-1} (|\lambda| - \sigma^2 u^q) = \eta, \qquad
        (p, q) = (2L, 1) \text{ for JEPA}, \; (L, L+1) \text{ for MAE},

    which has no, one (double) or two positive roots; of MAE at depth 1 the lower one is the origin. Without decay the
    points listed are those with ``v = +-a``; others lie on the curves ``v = rho`` (JEPA) or ``v a^L = rho`` (MAE) and, at
    the origin, ``a = 0``. Without stop-gradient nothing but the origin is left: representations collapse. (Where
    ``lambda^2 = sigma2 sigma2_y`` exactly, a target without noise, all points with ``v = rho`` are fixed too.) A point and
    its mirror image, all signs of the layers changed, count once.

    Roots are correct to rounding, magnified near the point where the two merge, as every double root is.

    Examples
    --------
    >>> import jepa_ode as jo
    >>> spec = jo.Spectrum([1.0, 1.0], rho=[0.9, 0.3])
    >>> points = jo.fixed_points(spec, jo.JEPA(weight_decay=0.02), depth=2)
    >>> points.response.round(4)
    array([[0.   , 0.098, 0.762],
           [0.   ,   nan,   nan]])
    >>> points.stability.tolist()
    [['stable', 'unstable', 'stable'], ['stable', '', '']]
    """
    spec = as_spectrum(spec)
    objective = as_objective(objective)
    depth = as_depth(depth)
    n = len(spec)
    a = np.full((n, 3), np.nan)
    a[:, 0] = 0.0
    w = a.copy()
    if _is_collapsing(objective):
        _require_possible(spec)
    else:
        a[:, 1], a[:, 2], w[:, 1], w[:, 2] = _positive_points(spec, objective, depth)
    v = a * np.sign(spec.lam)[:, None]
    eigenvalues = np.full((n, 3, 3 if _tau(objective) is not None else 2), np.nan, dtype=np.complex128)
    stability = np.full((n, 3), "", dtype="<U10")
    for kind in range(3):
        there = np.isfinite(a[:, kind])
        jacobian = _jacobian(spec[there], objective, depth, a[there, kind], v[there, kind])
        known = np.isfinite(jacobian).all(axis=(1, 2))
        found = np.full(jacobian.shape[:2], np.nan, dtype=np.complex128)
        found[known] = np.sort_complex(np.linalg.eigvals(jacobian[known]).astype(np.complex128))
        on_curve = objective.weight_decay == 0 and kind > 0
        named = _classify(found, np.abs(jacobian).max(axis=(1, 2)), on_curve)
        eigenvalues[there, kind], stability[there, kind] = found, np.where(known, named, "unknown")
    return FixedPoints(
        response=read_only(w),
        encoder=read_only(a),
        predictor=read_only(v),
        eigenvalues=read_only(eigenvalues),
        stability=read_only(stability),
        spectrum=spec,
        objective=objective,
        depth=depth,
    )


@np.errstate(over="ignore")  # what is beyond the largest double is inf
def weight_decay_threshold(spec: Spectrum, objective: ObjectiveLike, *, depth: float, eps: Any = None) -> FloatArray:
    r"""Return the weight decay from which on a feature is never learned.

    Parameters
    ----------
    spec : Spectrum
        The features, n of them.
    objective : JEPA, MAE, "jepa" or "mae"
        Its own ``weight_decay`` plays no role. Without stop-gradient nothing is ever learned: 0.
    depth : float
        Number of encoder layers L, any real number >= 1.
    eps : float or array of shape [n], optional
        A balanced start ``w(0)``: the decay from which on that start shrinks to nothing. None (the default) is for every
        start. Not defined for a moving average, whose own state the start includes.

    Returns
    -------
    ndarray of shape [n]
        In units of one over flow time; 0 where ``lambda <= 0``, which no balanced start learns.

    Notes
    -----
    The largest value of :math:`u^{p-1} (\lambda - \sigma^2 u^q)`, see `fixed_points`:

    .. math::

        \eta_{JEPA} = \frac{\lambda}{2L} \Bigl( \frac{2L-1}{2L} \rho \Bigr)^{2L-1}, \qquad
        \eta_{MAE} = \frac{L+1}{2L} \lambda \Bigl( \frac{L-1}{2L} \rho \Bigr)^{(L-1)/(L+1)}.

    With ``eps``, its value at :math:`u_0 = \epsilon^{1/L}` where that lies below the maximum.

    Examples
    --------
    >>> import jepa_ode as jo
    >>> spec = jo.Spectrum([1.0, 1.0], rho=[0.9, 0.3])
    >>> jo.weight_decay_threshold(spec, "jepa", depth=2).round(6)
    array([0.076887, 0.002848])
    >>> jo.weight_decay_threshold(spec, "jepa", depth=2, eps=0.01).round(6)
    array([0.000889, 0.000667])
    """
    spec = as_spectrum(spec)
    objective = as_objective(objective)
    depth = as_depth(depth)
    if eps is not None:
        eps = as_eps(eps, len(spec))
        if _tau(objective) is not None:
            raise ValueError("eps goes with a target that has no state of its own: leave out ema, or eps")
    threshold = np.zeros(len(spec))
    if _is_collapsing(objective):
        return threshold
    learned = spec.lam > 0
    lam, sigma2, rho = spec.lam[learned], spec.sigma2[learned], spec.rho[learned]
    p, q = _exponents(objective, depth)
    share = (1.0 if isinstance(objective, JEPA) else 0.5) - 0.5 / depth  # (p-1)/(2L), where p may be beyond all doubles
    summit = rho * share  # u^q of the maximum
    threshold[learned] = lam * (q / 2 / depth) * summit ** ((p - 1) / q)
    if eps is not None:
        u = eps[learned] ** (1 / depth)
        below = u**q < summit
        own = u ** (p - 1) * (lam - sigma2 * u**q)
        threshold[learned] = np.where(below, own, threshold[learned])
    return threshold


def _exponents(objective: Objective, depth: float) -> tuple[float, float]:
    """Return (p, q) of the scalar flow ``u' = lambda u^p - sigma2 u^(p+q)`` (THEORY.md 3)."""
    return (2 * depth, 1.0) if isinstance(objective, JEPA) else (depth, depth + 1)


def _tau(objective: Objective) -> float | None:
    return objective.ema if isinstance(objective, JEPA) else None


def _is_collapsing(objective: Objective) -> bool:
    return isinstance(objective, JEPA) and not objective.stop_gradient


def _require_possible(spec: Spectrum) -> None:
    require_target_variances(spec)
    assert spec.sigma2_y is not None
    least = spec.lam * spec.rho
    impossible = spec.sigma2_y < least * (1 - 1e-12)
    if impossible.any():
        k = int(np.argmax(impossible))
        raise ValueError(
            f"sigma2_y must be at least lam^2/sigma2 (Cauchy-Schwarz), got {spec.sigma2_y[k]:g} < {least[k]:g} for feature {k}"
        )


def _positive_points(
    spec: Spectrum, objective: Objective, depth: float
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return lower and upper ``u`` and the responses there; NaN where there are none.

    With ``z = (u/u*)^q``, ``r = (p-1)/q`` and ``c = eta/(|lambda| u*^(p-1))`` the equation is ``z^r (1-z) = c``. Its
    logarithm is concave, in ``log z`` as in ``log y``, ``y = 1-z``, and rises up to the maximum. Newton's method started
    left of a root where a concave function rises stays left of it and converges monotonically.
    """
    n, eta = len(spec), objective.weight_decay
    p, q = _exponents(objective, depth)
    r = (p - 1) / q
    lower, upper = np.full(n, np.nan), np.full(n, np.nan)
    some = spec.lam != 0
    rho, lam = np.abs(spec.rho), np.abs(spec.lam)
    with np.errstate(divide="ignore", invalid="ignore"):  # lambda = 0 has no such points
        log_c = np.log(eta / lam) - r * np.log(rho)
    # The maximum, attained at z = r/(1+r).
    log_most = (r * np.log(r / (1 + r)) if r > 0 else 0.0) - np.log1p(r)
    some &= log_c <= log_most if r > 0 else log_c < log_most
    log_y = np.full(n, -np.inf)
    if eta > 0:
        log_y[some] = _rise(log_c[some], r, 1.0, -np.log1p(r))
        if r > 0:
            log_z = _rise(log_c[some], 1.0, r, np.log(r / (1 + r)))
            lower[some] = rho[some] ** (1 / q) * np.exp(log_z / q)
    upper[some] = rho[some] ** (1 / q) * np.exp(np.log1p(-np.exp(log_y[some])) / q)
    w_upper = np.full(n, np.nan)
    w_upper[some] = rho[some] ** (depth / q) * np.exp(np.log1p(-np.exp(log_y[some])) * depth / q)
    return lower, upper, lower**depth, w_upper


def _rise(log_c: FloatArray, outer: float, own: float, top: float) -> FloatArray:
    """Return the root ``x <= top`` of ``own x + outer log(1 - e^x) = log_c``."""
    x = np.minimum(log_c / own, top)
    for _ in range(100):
        value = own * x + outer * np.log1p(-np.exp(x)) - log_c
        slope = own - outer / np.expm1(-x)
        step = np.where((value < 0) & (slope > 0), -value / np.where(slope > 0, slope, 1.0), 0.0)
        moved = np.minimum(x + step, top)
        if np.array_equal(moved, x):
            break
        x = moved
    return x


def _jacobian(spec: Spectrum, objective: Objective, depth: float, a: FloatArray, v: FloatArray) -> FloatArray:
    """Return the Jacobians of the layer systems at fixed points with ``b = a >= 0``, [n, k, k] (THEORY.md 2)."""
    lam, sigma2, tau = spec.lam, spec.sigma2, _tau(objective)
    layers = a**depth
    one_less = a ** (depth - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        two_less = np.where(a > 0, a ** (depth - 2), 0.0)
    jepa = isinstance(objective, JEPA)
    e = v * layers * sigma2 - lam * (layers if jepa else 1.0)
    e_a = depth * one_less * (v * sigma2 - (lam if jepa and tau is None else 0.0))
    e_v = layers * sigma2
    g, g_a, g_v = v * e, v * e_a, e + v * e_v
    if _is_collapsing(objective):
        assert spec.sigma2_y is not None
        rest = spec.sigma2_y - v * lam
        g, g_a, g_v = g + layers * rest, g_a + depth * one_less * rest, g_v - layers * lam
    jacobian = np.zeros((len(spec), 2 + (tau is not None), 2 + (tau is not None)))
    jacobian[:, 0, 0] = -(depth - 1) * two_less * g - one_less * g_a - objective.weight_decay
    jacobian[:, 0, 1] = -one_less * g_v
    jacobian[:, 1, 0] = -e_a * layers - e * depth * one_less
    jacobian[:, 1, 1] = -e_v * layers - objective.weight_decay
    if tau is not None:
        e_b = -lam * depth * one_less
        jacobian[:, 0, 2] = -one_less * v * e_b
        jacobian[:, 1, 2] = -e_b * layers
        jacobian[:, 2, 0], jacobian[:, 2, 2] = 1 / tau, -1 / tau
    return jacobian


def _classify(eigenvalues: npt.NDArray[np.complex128], scale: FloatArray, on_curve: bool) -> npt.NDArray[np.str_]:
    """Name the stability that the eigenvalues [n, k] tell; on a curve of fixed points one of them is 0."""
    real = eigenvalues.real
    if on_curve:
        along = np.argmin(np.abs(eigenvalues), axis=1)
        real = np.where(np.arange(real.shape[1]) == along[:, None], -np.inf, real)
    most = real.max(axis=1)
    names = np.where(most < -_ROUNDING * scale, "stable", np.where(most > _ROUNDING * scale, "unstable", "degenerate"))
    return names.astype("<U10")
