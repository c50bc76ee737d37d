"""Standard errors of the features' ``lambda`` and ``rho``, by the delta method.

One more sample (x, y), centred, moves the covariances towards ``x x^T`` and the symmetric part of
``y x^T``. With the amplitudes ``a = Q^T x`` and ``b = Q^T y``, first-order perturbation of the
eigenproblem ``S q = rho Sxx q`` gives

    influence on rho_i      a_i b_i - rho_i a_i^2            (the eigenvector's own change drops out)
    influence on M_ii       2 a_i (M a)_i - M_ii (a_i^2 + 1)
                            + sum_j K_ij (a_j b_i + a_i b_j - 2 rho_i a_i a_j),
                            K_ij = M_ij / (rho_i - rho_j),  K_ii = 0
    influence on lambda_i   rho_i (influence on M_ii) + M_ii (influence on rho_i),  lambda_i = rho_i M_ii

(``M = P^T P`` as in THEORY.md 6; the sum is the turning of the eigenvector.) Every influence is of
the form ``a_i g_i + b_i h_i`` less its mean, with ``g`` and ``h`` linear in a and b, and the
variance of the estimate is that of the influence over n. It is taken over samples where there are
any, for whatever distribution they have (masked images with pixels that are rarely set have several
times the normal one), and otherwise from the covariances as if the data were normal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._validate import FloatArray

__all__ = ["Influence", "lam_influence", "rho_influence"]


@dataclass(frozen=True)
class Influence:
    """Influence of a sample on one number per feature: ``a_i g_i + b_i h_i``, less its mean.

    Attributes
    ----------
    g, h : ndarray [n, 2n]
        Row ``i`` has the coefficients of ``g_i`` (``h_i``) in ``(a, b)``.
    """

    g: FloatArray
    h: FloatArray

    def exchanged(self) -> Influence:
        """Return the influence on the estimate that is averaged over the exchange of x and y."""
        n = len(self.g)
        return Influence((self.g + np.roll(self.h, n, axis=1)) / 2, (self.h + np.roll(self.g, n, axis=1)) / 2)

    def normal_variance(self, joint: FloatArray) -> FloatArray:
        """Return the variance [n] for normal data: ``joint`` [2n, 2n] is the covariance of (a, b)."""
        n = len(self.g)
        diagonal = np.diagonal(joint)
        aa, bb, ab = diagonal[:n], diagonal[n:], np.diagonal(joint[:n, n:])
        g, h = self.g @ joint, self.h @ joint  # covariances of g_i and h_i with (a, b)
        gg, hh = np.sum(g * self.g, axis=1), np.sum(h * self.h, axis=1)
        gh = np.sum(g * self.h, axis=1)
        ag, bg = np.diagonal(g[:, :n]), np.diagonal(g[:, n:])
        ah, bh = np.diagonal(h[:, :n]), np.diagonal(h[:, n:])
        # Cov(pq, rs) = E pr E qs + E ps E qr
        variance = aa * gg + ag**2 + bb * hh + bh**2 + 2 * (ab * gh + ah * bg)
        return np.asarray(np.maximum(variance, 0.0))  # rounding, where the features determine each other

    def sample_variance(self, a: FloatArray, b: FloatArray) -> FloatArray:
        """Return the variance [n] over samples with the amplitudes a, b [samples, n]."""
        amplitudes = np.concatenate([a, b], axis=1)
        values = a * (amplitudes @ self.g.T) + b * (amplitudes @ self.h.T)
        return np.asarray(values.var(axis=0))


def rho_influence(rho: FloatArray) -> Influence:
    """Return the influence on ``rho``."""
    n = rho.size
    return Influence(np.hstack([np.diag(-rho), np.eye(n)]), np.zeros((n, 2 * n)))


def lam_influence(rho: FloatArray, M: FloatArray) -> Influence:
    """Return the influence on ``lambda``; features of exactly equal ``rho`` are taken as fixed against each other."""
    gap = rho[:, None] - rho[None, :]
    K = np.divide(M, gap, out=np.zeros_like(M), where=gap != 0)
    r, norm = rho[:, None], np.diag(np.diagonal(M))
    g = np.hstack([r * (2 * M - 2 * norm - 2 * r * K), r * K + norm])
    h = np.hstack([r * K, np.zeros_like(M)])
    return Influence(g, h)
