"""Moments of pairs (x, y) that can be gathered block by block and merged (Chan, Golub & LeVeque 1983)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._frozen import FrozenArrays
from ._validate import FloatArray

__all__ = ["Moments", "as_pairs"]

# Entries of one block of rows in float64 (8 MiB): large enough for matrix products at full speed,
# small enough that nothing of the size of the data is ever copied.
BLOCK_ENTRIES = 2**20


@dataclass(frozen=True, eq=False)
class Moments(FrozenArrays):
    """Sums over samples of products of ``z = (x, y)`` up to the fourth order, about the mean (or
    about zero).

    The second-order sums give the covariances. Of the higher orders only what belongs to the three
    scalars ``u = (|x|^2, |y|^2, x.y)`` is kept, a few vectors: enough for the best amount of
    shrinkage and for the asymmetry that sampling alone produces, whatever the distribution.

    Attributes
    ----------
    n : int
        Number of samples.
    mean : ndarray [2d]
        Mean of ``z``; zero if not centred.
    second : ndarray [2d, 2d]
        Sum of ``c c^T`` with ``c = z - mean``.
    third : ndarray [3, 2d]
        Sum of ``u c^T``, ``u`` made of ``c``.
    fourth : ndarray [3, 3]
        Sum of ``u u^T``.
    center : bool
        Whether the moments are about the mean.
    """

    n: int
    mean: FloatArray
    second: FloatArray
    third: FloatArray
    fourth: FloatArray
    center: bool

    @property
    def d(self) -> int:
        """Number of coordinates of one view."""
        return self.mean.size // 2

    @property
    def has_fourth(self) -> bool:
        """Whether the fourth powers stayed in the range of double precision, for deviations between 1e-75 and 1e75."""
        return bool(np.isfinite(self.fourth).all() and (self.fourth.trace() > 1e-300 or not self.second.any()))

    @classmethod
    def empty(cls, d: int, center: bool) -> Moments:
        """Return the moments of no samples."""
        shapes = (2 * d,), (2 * d, 2 * d), (3, 2 * d), (3, 3)
        mean, second, third, fourth = (np.zeros(shape) for shape in shapes)
        return cls(0, mean, second, third, fourth, center)

    @classmethod
    def of(cls, x: Any, y: Any, center: bool) -> Moments:
        """Return the moments of samples x, y [n, d] of any real type, converted block by block."""
        moments = cls.empty(x.shape[1], center)
        rows = max(1, BLOCK_ENTRIES // max(1, x.shape[1]))
        for start in range(0, len(x), rows):
            block = slice(start, start + rows)
            moments = moments.merge(cls._of_block(x[block], y[block], center))
        return moments

    @classmethod
    def _of_block(cls, x: Any, y: Any, center: bool) -> Moments:
        n, d = x.shape
        z = np.empty((n, 2 * d))
        z[:, :d], z[:, d:] = x, y
        mean = np.zeros(2 * d)
        # Values near the square root of the largest double overflow here; whoever uses the sums
        # looks.
        with np.errstate(over="ignore", invalid="ignore"):
            if center:
                # Taking the first row off first makes constant coordinates exactly constant: their
                # variance is 0, not the square of a rounding error.
                first = z[0].copy()
                z -= first
                offset = z.mean(axis=0)
                z -= offset
                mean = first + offset
            x, y = z[:, :d], z[:, d:]
            u = np.stack([np.einsum("ki,ki->k", a, b) for a, b in ((x, x), (y, y), (x, y))])
            return cls(n, mean, z.T @ z, u @ z, u @ u.T, center)

    def merge(self, other: Moments) -> Moments:
        """Return the moments of the samples of both."""
        if self.n == 0 or other.n == 0:
            return other if self.n == 0 else self
        n = self.n + other.n
        with np.errstate(over="ignore", invalid="ignore"):  # as in _of_block
            step = other.mean - self.mean
            mean = self.mean + step * (other.n / n)
            a = self._seen_from(-step * (other.n / n))
            b = other._seen_from(step * (self.n / n))
            return Moments(n, mean, a[0] + b[0], a[1] + b[1], a[2] + b[2], self.center)

    def _seen_from(self, shift: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the second, third and fourth sums with ``c + shift`` in place of ``c`` (sum of ``c`` is zero)."""
        if not shift.any():
            return self.second, self.third, self.fourth
        n, d, zero = self.n, self.d, np.zeros(self.d)
        dx, dy = shift[:d], shift[d:]
        # u becomes u + k c + e
        k = np.stack([np.r_[2 * dx, zero], np.r_[zero, 2 * dy], np.r_[dy, dx]])
        e = np.array([dx @ dx, dy @ dy, dx @ dy])
        u = self.sums
        kc = k @ self.second
        cross = k @ self.third.T + np.outer(e, u)
        second = self.second + n * np.outer(shift, shift)
        third = self.third + np.outer(u + n * e, shift) + kc
        fourth = self.fourth + cross + cross.T + kc @ k.T + n * np.outer(e, e)
        return second, third, fourth

    @property
    def sums(self) -> FloatArray:
        """Sums of ``|x|^2``, ``|y|^2`` and ``x.y``, shape [3]."""
        d, diagonal = self.d, np.diagonal(self.second)
        return np.array([diagonal[:d].sum(), diagonal[d:].sum(), np.trace(self.second[d:, :d])])

    def covariances(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return Sxx, Syx and Syy [d, d], means over the samples (divided by n, not n - 1)."""
        d, joint = self.d, self.second / self.n
        return joint[:d, :d], joint[d:, :d], joint[d:, d:]


def as_pairs(x: Any, y: Any, *, rows_before: int = 0, d: int | None = None) -> tuple[Any, Any]:
    """Return samples x, y as arrays [n, d] of their own type, real or boolean (0 and 1), checked entry by entry.

    Parameters
    ----------
    x, y : array_like [n, d]
    rows_before : int
        Samples that a stream has seen already: errors then name the row of the stream too.
    d : int, optional
        Number of coordinates that earlier batches had.
    """
    pair = [_as_samples("x", x), _as_samples("y", y)]
    if pair[0].shape != pair[1].shape:
        raise ValueError(f"x and y must have the same shape [samples, d], got {pair[0].shape} and {pair[1].shape}")
    if pair[0].shape[1] == 0:
        raise ValueError(f"x and y must have at least one coordinate, got shape {pair[0].shape}")
    if d is not None and pair[0].shape[1] != d:
        raise ValueError(f"every batch must have {d} coordinates as the first had, got {pair[0].shape[1]}")
    for name, array in zip("xy", pair, strict=True):
        _require_finite_rows(name, array, rows_before)
    return pair[0], pair[1]


def _as_samples(name: str, value: Any) -> Any:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; fill or drop the masked entries first")
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, got an array of dtype {array.dtype}")
    if array.ndim != 2:
        raise ValueError(
            f"{name} must be 2-D [samples, d], got shape {array.shape}; flatten images with "
            f"{name}.reshape(len({name}), -1)"
        )
    return array


def _require_finite_rows(name: str, array: Any, rows_before: int) -> None:
    if array.dtype.kind != "f":
        return
    rows = max(1, BLOCK_ENTRIES // max(1, array.shape[1]))
    for start in range(0, len(array), rows):
        finite = np.isfinite(array[start : start + rows])
        if not finite.all():
            row, column = (int(k) for k in np.argwhere(~finite)[0])
            row += start
            value = array[row, column]
            stream = f" of this batch (row {row + rows_before} of the stream)" if rows_before else ""
            what = "a missing value (NaN)" if np.isnan(value) else f"{value}"
            raise ValueError(
                f"{name} must be finite, got {what} in row {row}{stream}, column {column} "
                "(counted from 0); fill it or drop the row"
            )
