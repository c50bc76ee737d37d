"""Shrinkage of the joint covariance of two views, for few samples (after Ledoit & Wolf 2004).

The joint covariance ``S = [[Sxx, Sxy], [Syx, Syy]]`` is replaced by ``(1 - alpha) S + alpha P S``.
``P S`` is its orthogonal projection onto the matrices that treat all directions alike,

    P S = [[a I, c I], [c I, b I]],    a = tr Sxx / d,  b = tr Syy / d,  c = tr Syx / d,

the only symmetric ones that commute with every rotation of both views together. One target for all blocks,
because the features are ratios of blocks: shrinking ``Sxx`` alone (a ridge) pulls every ``rho``
down by an amount that depends on its variance, while here the total variance and the total
covariance, hence the average ``rho``, stay what the data say; and the result, a mean of two
covariance matrices, is one itself, so that losses stay non-negative. Coordinates that vary in
neither view stay out of the target: no data, no feature.

The amount: as ``P`` is an orthogonal projection and ``E S`` the true ``Sigma``, the mean squared
error ``E |(1 - alpha) S + alpha P S - Sigma|^2`` is smallest at

    alpha = E |(1 - P)(S - Sigma)|^2 / E |(1 - P) S|^2,

both of which the sample estimates without assuming a distribution: the numerator by the spread of
``(1 - P) z z^T`` over the samples divided by n, for which the fourth-order sums of `Moments`
suffice, the denominator by itself.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np

from ._validate import FloatArray, as_real
from .moments import Moments

__all__ = ["Shrinkage", "as_shrinkage", "ledoit_wolf", "shrink"]

Shrinkage: TypeAlias = Literal["ledoit-wolf"] | float | None


def as_shrinkage(value: Any) -> Shrinkage:
    """Return ``value`` if it is None, "ledoit-wolf" or an amount between 0 and 1."""
    if value is None:
        return None
    if isinstance(value, str):
        if value == "ledoit-wolf":
            return "ledoit-wolf"
        raise ValueError(f"shrinkage must be None, 'ledoit-wolf' or a number in [0, 1], got {value!r}")
    amount = as_real("shrinkage", value)
    if not 0 <= amount <= 1:
        raise ValueError(f"shrinkage must be between 0 (none) and 1 (all directions alike), got {amount}")
    return amount


def ledoit_wolf(moments: Moments, *, exchangeable: bool = False) -> float:
    """Return the amount of shrinkage, 0 to 1, of least expected squared error of the joint covariance.

    Parameters
    ----------
    moments : Moments
        Of the samples.
    exchangeable : bool
        Whether the covariance is averaged over the exchange of the views first; less noise, so less
        shrinkage.

    Raises
    ------
    ValueError
        If fourth powers of the samples overflow or underflow.
    """
    Sxx, Syx, Syy = moments.covariances()
    d = _count_varying(Sxx, Syy)
    if d == 0:
        return 0.0
    if not moments.has_fourth:
        raise ValueError(
            "shrinkage='ledoit-wolf' needs fourth powers of x and y, and their values are too "
            f"{'small' if np.isfinite(moments.fourth).all() else 'large'} for that; rescale them"
        )
    ff, gg, hh = np.diagonal(moments.fourth) / moments.n  # means of |x|^4, |y|^4, (x.y)^2
    fg = moments.fourth[0, 1] / moments.n
    a, b, c = moments.sums / moments.n
    if exchangeable:
        Sxx = Syy = (Sxx + Syy) / 2
        Syx = (Syx + Syx.T) / 2
        spread = ((ff + gg + 2 * fg) / 2 + 2 * hh) * (1 - 1 / d)
        a = b = (a + b) / 2
    else:
        spread = ff + gg + 2 * fg - (ff + gg + 2 * hh) / d
    squares = [np.sum(S**2) for S in (Sxx, Syy, Syx)]
    apart = squares[0] + squares[1] + 2 * squares[2] - (a**2 + b**2 + 2 * c**2) / d
    noise = (spread - apart) / moments.n
    if not apart > 1e-14 * (squares[0] + squares[1]):  # the covariance is its own target, to rounding
        return 0.0
    return float(np.clip(noise / apart, 0.0, 1.0))


def shrink(
    Sxx: FloatArray, Syx: FloatArray, Syy: FloatArray, amount: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the blocks of ``(1 - amount) S + amount P S``."""
    if amount == 0:
        return Sxx, Syx, Syy
    varies = _varying(Sxx, Syy)
    identity = np.diag(varies / max(1, int(varies.sum())))
    blocks = [(1 - amount) * S + amount * np.trace(S) * identity for S in (Sxx, Syx, Syy)]
    return blocks[0], blocks[1], blocks[2]


def _varying(Sxx: FloatArray, Syy: FloatArray) -> Any:
    return (np.diagonal(Sxx) > 0) | (np.diagonal(Syy) > 0)


def _count_varying(Sxx: FloatArray, Syy: FloatArray) -> int:
    return int(_varying(Sxx, Syy).sum())
