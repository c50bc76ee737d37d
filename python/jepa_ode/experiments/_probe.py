"""A linear probe: what a linear classifier makes of the frozen features of an encoder, and how much of them is noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .._validate import FloatArray
from ..batches import Rows, Sampler
from ..objectives import JEPA, MAE, Objective
from ._mlp import batches, linear_head, mlp, train_encoder
from ._noisy_digits import DIGIT, Labelled, NoisyDigits

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Learner", "Probe"]

Features: TypeAlias = Callable[[FloatArray], FloatArray]  # of images [n, pixels]


class Probe:
    """Logistic regression on the features of the training images, judged on the test images.

    The images are whole, nothing masked, their noise drawn once. Features are standardised first: their scale says how far
    training went, not what they hold.
    """

    def __init__(self, digits: NoisyDigits, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._digits = digits
        self._train, self._test, self._other_noise = (
            digits.whole(images, rng) for images in (digits.train, digits.test, digits.test)
        )

    def accuracy(self, features: Features) -> float:
        """Return the part of the test images that is classified rightly."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
        classifier.fit(features(self._train), self._digits.train_labels)
        return float(classifier.score(features(self._test), self._digits.test_labels))

    def noise(self, features: Features) -> float:
        """Return the part of the features' variance that is due to the noise: that between images of the same digit."""
        seen, again = features(self._test), features(self._other_noise)
        return float(np.square(seen - again).sum() / 2 / np.square(seen - seen.mean(axis=0)).sum())


@dataclass(frozen=True)
class Learner:
    """Trains encoders that start alike, and probes them on the way.

    Attributes
    ----------
    digits : NoisyDigits
    widths : tuple of int
        Of the encoder, from the pixels to the bottleneck.
    gain : float
        Scale of every layer at the start.
    batch : int
        Samples of a minibatch.
    seed : int
        Of the start, the batches, and the noise that the probe sees.
    """

    digits: NoisyDigits
    widths: tuple[int, ...]
    gain: float
    batch: int
    seed: int

    def follow(self, objective: Objective, lr: float, at: Rows) -> FloatArray:
        """Return accuracy of the probe and noise in the features [2, m] after the iterations ``at``."""
        inputs, units = self.widths[0], self.widths[-1]
        if isinstance(objective, JEPA):
            # Aligned. Rotated at random, it lets features shrink first (THEORY.md 2): accuracies of 0.8 instead of 0.9.
            head = linear_head(units, units, gain=self.gain)
        else:
            head = linear_head(units, inputs, gain=self.gain, seed=self.seed)
        return self._train(head, self.digits, objective, at, lr=lr)

    def supervised(self, steps: int) -> float:
        """Return the accuracy of the probe after training on the classes."""
        head = linear_head(self.widths[-1], 10, gain=self.gain, seed=self.seed)
        labelled = Labelled(self.digits)
        return float(self._train(head, labelled, MAE(), np.array([steps]), lr=1e-3, optimizer="adam")[0, 0])

    def pixels(self) -> tuple[float, float]:
        """Return the accuracies of the probe on the pixels of the digit and on all pixels."""
        probe = Probe(self.digits, self.seed)
        return probe.accuracy(lambda images: images[:, :DIGIT]), probe.accuracy(lambda images: images)

    def _train(self, head: nn.Module, data: Sampler, objective: Objective, at: Rows, **options: Any) -> FloatArray:
        import torch

        encoder = mlp(self.widths, gain=self.gain, activation="tanh", seed=self.seed)
        probe = Probe(self.digits, self.seed)
        found: list[tuple[float, float]] = []

        def features(images: FloatArray) -> FloatArray:
            with torch.no_grad():
                return np.asarray(encoder(torch.from_numpy(images.astype(np.float32))), dtype=np.float64)

        def observe(_step: int, _encoder: nn.Module) -> None:
            found.append((probe.accuracy(features), probe.noise(features)))

        sample = batches(data, self.batch, seed=self.seed)
        train_encoder(encoder, head, sample, objective, steps=int(at[-1]), snapshots=at, observe=observe, **options)
        return np.array(found).T
