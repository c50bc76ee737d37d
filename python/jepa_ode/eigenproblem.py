"""The features of general covariances: the generalised eigenproblem ``S q = rho Sxx q`` (THEORY.md 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._validate import FloatArray

__all__ = ["Features", "solve_eigenproblem"]

EPS = float(np.finfo(np.float64).eps)

# A coordinate whose standard deviation is below this fraction of the largest one is rounding noise
# of a constant (the deviations themselves are known to no better than eps times the largest value).
CONSTANT = 64 * EPS

# Where Sxx has an eigenvalue r times the largest one, rho is known to about eps / r: below this r
# the first four digits of rho would be in doubt, so that such a direction counts as null.
RANK_TOL = 1e-12


@dataclass(frozen=True)
class Features:
    """Solution of the generalised eigenproblem, in descending order of ``rho``.

    Attributes
    ----------
    rho : ndarray [n]
    directions : ndarray [d, n]
        Columns ``q_i`` with ``q_i^T Sxx q_j = delta_ij``.
    duals : ndarray [d, n]
        Columns ``p_i = Sxx q_i``, with ``q_i^T p_j = delta_ij``.
    n_constant : int
        Coordinates without variance, left out.
    n_dropped : int
        Further directions left out because ``Sxx`` is null along them.
    """

    rho: FloatArray
    directions: FloatArray
    duals: FloatArray
    n_constant: int
    n_dropped: int


def solve_eigenproblem(Sxx: FloatArray, S: FloatArray, rank_tol: float | None = None) -> Features:
    """Solve ``S q = rho Sxx q`` for symmetric ``S`` and symmetric, positive semi-definite ``Sxx``,
    both [d, d].

    Parameters
    ----------
    Sxx, S : ndarray [d, d]
    rank_tol : float, optional
        Directions are dropped along which the *correlation* matrix of x has an eigenvalue below
        ``rank_tol`` times the largest. Default 1e-12.

    Raises
    ------
    ValueError
        If ``Sxx`` is zero or has a negative eigenvalue beyond rounding.
    """
    rank_tol = RANK_TOL if rank_tol is None else rank_tol
    d = len(Sxx)
    # Work with correlations: the rank decision then does not depend on the units of the
    # coordinates, and a feature of tiny variance in a coordinate of its own is as safe as any
    # other.
    scale = np.sqrt(np.clip(np.diagonal(Sxx), 0.0, None))
    varies = scale > CONSTANT * scale.max(initial=0.0)
    if not varies.any():
        raise ValueError("Sxx is zero: x does not vary, so that there are no features")
    scale = scale[varies][:, None]
    block = np.ix_(varies, varies)
    r, U = np.linalg.eigh(Sxx[block] / scale / scale.T)
    if r[0] < -max(1e-8, rank_tol) * r[-1]:
        raise ValueError(
            "Sxx must be positive semi-definite, but its correlation matrix has the eigenvalue "
            f"{r[0]:.3g} beside the largest, {r[-1]:.3g}"
        )
    kept = r > rank_tol * r[-1]
    root, U = np.sqrt(r[kept]), U[:, kept]
    whiten = U / root
    T = whiten.T @ (S[block] / scale / scale.T) @ whiten
    rho, V = np.linalg.eigh((T + T.T) / 2)
    rho, V = rho[::-1], V[:, ::-1]

    Q, P = np.zeros((d, rho.size)), np.zeros((d, rho.size))
    Q[varies] = whiten @ V / scale
    P[varies] = (U * root) @ V * scale  # = Sxx Q, without the cancellation of that product
    rounding = min(1e-6, 16 * d * EPS / (r[kept][0] / r[-1])) * np.abs(rho).max()
    rho = _resolve_degenerate(rho, Q, P, rounding)

    # Deterministic sign: the first of the (nearly) largest entries of each pattern is positive.
    size = np.abs(P)
    first = np.argmax(size >= (1 - 1e-6) * size.max(axis=0), axis=0)
    sign = np.where(P[first, np.arange(rho.size)] < 0, -1.0, 1.0)
    n_constant = d - int(varies.sum())
    return Features(rho, Q * sign, P * sign, n_constant, d - n_constant - rho.size)


def _resolve_degenerate(rho: FloatArray, Q: FloatArray, P: FloatArray, tol: float) -> FloatArray:
    """Choose the features of equal ``rho`` (to rounding) that do not couple; Q and P are changed in
    place.

    Any rotation among features of equal ``rho`` solves the eigenproblem, but only the one that
    makes their block of ``M = P^T P`` diagonal decouples the feature equations (THEORY.md 6).
    Without it, data whose features share one ``rho`` and differ in ``lambda`` would come out mixed.
    Within such a group the order is that of descending ``|lambda|``.
    """
    rho = rho.copy()
    edges = np.flatnonzero(np.diff(rho) < -tol) + 1
    for start, stop in zip(np.r_[0, edges], np.r_[edges, rho.size], strict=True):
        if stop - start > 1:
            group = slice(start, stop)
            _, turn = np.linalg.eigh(P[:, group].T @ P[:, group])
            Q[:, group] = Q[:, group] @ turn[:, ::-1]
            P[:, group] = P[:, group] @ turn[:, ::-1]
            rho[group] = rho[group].mean()
    return rho
