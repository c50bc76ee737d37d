"""A small random part of a stream of samples, for statistics that no fixed set of moments can give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ._frozen import FrozenArrays
from ._validate import FloatArray

__all__ = ["Subsample"]

# Enough to know a variance to about 3% for normal data, at a memory below that of the covariances
# from d = 1000 on.
ROWS = 2048


@dataclass(frozen=True, eq=False)
class Subsample(FrozenArrays):
    """Up to 2048 samples drawn at random from a stream, the same ones however the stream is cut
    into batches.

    Each sample has a pseudo-random priority that depends on its position in the stream alone; those
    of lowest priority stay (a bottom-k sketch). Two subsamples merge by the same rule.

    Attributes
    ----------
    x, y : ndarray [m, d]
    priority : ndarray [m] of uint64
        Ascending.
    """

    x: FloatArray
    y: FloatArray
    priority: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, x: Any, y: Any, start: int) -> Subsample:
        """Return the subsample of samples x, y [n, d] that begin at the position ``start`` of the stream."""
        priority = _scramble(np.arange(start, start + len(x), dtype=np.uint64))
        rows = np.argsort(priority)[:ROWS]
        return cls(np.array(x[rows], np.float64), np.array(y[rows], np.float64), priority[rows])

    def merge(self, other: Subsample) -> Subsample:
        """Return the subsample of the samples of both."""
        priority = np.concatenate([self.priority, other.priority])
        rows = np.argsort(priority, kind="stable")[:ROWS]
        x, y = (np.concatenate(part)[rows] for part in ((self.x, other.x), (self.y, other.y)))
        return Subsample(x, y, priority[rows])


def _scramble(index: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the outputs of SplitMix64 (Steele, Lea & Flood 2014) at the given positions."""
    z = (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
