"""Real images beside noise: scikit-learn's digits next to pixels that tell nothing about the digit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._frozen import FrozenArrays, read_only
from .._validate import FloatArray
from ..batches import Rows
from ..views import RandomMask

__all__ = ["DIGIT", "Labelled", "NoisyDigits", "noisy_digits"]

DIGIT = 64  # pixels of a digit, 8 x 8


@dataclass(frozen=True, eq=False)
class NoisyDigits(FrozenArrays):
    """Digits, and after their 64 pixels those of the noise, which are normal and independent of each other.

    Attributes
    ----------
    train, test : array [images, 64]
        The digits alone, centred, in units in which the first principal component of ``train`` has variance 1.
    train_labels, test_labels : int array [images]
    noise_pixels : int
    noise_variance : float
        Of a noise pixel, in the same units.
    shared : float in [0, 1]
        Correlation between a noise pixel's values in the two views, which is its regression coefficient rho.
    keep : float in (0, 1]
        Probability with which a view shows a pixel of the digit; the others are at their mean, 0.
    """

    train: FloatArray
    test: FloatArray
    train_labels: Rows
    test_labels: Rows
    noise_pixels: int
    noise_variance: float
    shared: float
    keep: float

    def sample(self, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return two views x, y [n, 64 + noise_pixels] of training images drawn at random; their noise is new."""
        return self.views(rng.integers(len(self.train), size=n), rng)

    def views(self, rows: Rows, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return two views of these training images."""
        x, y = RandomMask(self.keep, fill=0.0)(self.train[rows], rng)
        common, *own = np.sqrt(self.noise_variance) * rng.standard_normal((3, len(rows), self.noise_pixels))
        p, q = (np.sqrt(self.shared) * common + np.sqrt(1 - self.shared) * each for each in own)
        return np.hstack([x, p]), np.hstack([y, q])

    def whole(self, digits: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return images [n, 64 + noise_pixels]: the digits without a mask, beside new noise."""
        noise = rng.standard_normal((len(digits), self.noise_pixels))
        return np.hstack([digits, np.sqrt(self.noise_variance) * noise])


@dataclass(frozen=True, eq=False)
class Labelled(FrozenArrays):
    """The same data for supervised training: a view and the class of its digit."""

    digits: NoisyDigits

    def sample(self, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return views x [n, 64 + noise_pixels] and their classes [n, 10], one-hot."""
        rows = rng.integers(len(self.digits.train), size=n)
        return self.digits.views(rows, rng)[0], np.eye(10)[self.digits.train_labels[rows]]


def noisy_digits(noise_pixels: int, noise_variance: float, shared: float, *, keep: float, seed: int = 0) -> NoisyDigits:
    """Return the digits, two thirds of every class for training, beside noise; the seed determines the split."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images, labels, test_size=1 / 3, stratify=labels, random_state=seed)
    train, test, train_labels, test_labels = map(np.asarray, parts)
    mean = train.mean(axis=0)
    unit = np.linalg.norm(train - mean, ord=2) / np.sqrt(len(train))
    return NoisyDigits(
        read_only((train - mean) / unit),
        read_only((test - mean) / unit),
        read_only(train_labels),
        read_only(test_labels),
        noise_pixels,
        noise_variance,
        shared,
        keep,
    )
