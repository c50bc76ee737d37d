"""Where the minibatches of a training come from."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ._core import engine
from ._validate import FloatArray, as_float_array, require_finite
from .covariances import require_semi_definite
from .flow_problem import moments
from .models import square_root

__all__ = ["Rows", "Sampler", "Source", "as_source"]

Rows: TypeAlias = npt.NDArray[np.int64]

_CALL_VALUES = 1_000_000  # drawn at a time, a few megabytes


class Sampler(Protocol):
    """What fresh minibatches are drawn from; the models of `jepa_ode.models` are such."""

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Any, Any]:
        """Return n samples x, y [n, d]."""


# Called with the number of steps ahead: how many batches, x, y [*, d], and the rows that make them, None for all in order.
Source: TypeAlias = Callable[[int], tuple[int, FloatArray | None, FloatArray | None, Rows | None]]


def as_source(
    data: Any, d: int, batch_size: int | None, shuffle: bool, generator: np.random.Generator, threads: int
) -> tuple[Source, Any]:
    """Return where batches come from, and the population's second moments Sxx, Syx, Syy, or None."""
    population: Any
    if isinstance(data, tuple | list):
        x, y = _as_samples("data", data, d)
        xx, yx, yy = engine.sample_moments(x, y, threads)
        population = SimpleNamespace(Sxx=xx, Syx=yx, Syy=yy)
        if not np.isfinite(np.trace(population.Sxx) + np.trace(population.Syy)):  # cheaper than to look at all samples
            require_finite("data[0]", x)
            require_finite("data[1]", y)
        if batch_size is None:
            return _no_batches, population
        if batch_size > len(x):
            raise ValueError(f"batch_size must be at most the number of pairs, {len(x)}, got {batch_size}")
        return _PairBatches(x, y, batch_size, generator if shuffle else None), population
    if hasattr(data, "Sxx"):
        population = _population(data, d, "data")
        if batch_size is None:
            return _no_batches, population
        return _GaussianBatches(population, batch_size, generator), population
    if not hasattr(data, "sample"):
        raise TypeError(
            "data must be a Covariances, a model with .sample(n, rng), or a pair (x, y) of arrays [samples, d], got "
            f"{type(data).__name__}"
        )
    population = _population(data.covariances(), d, "data.covariances()") if hasattr(data, "covariances") else None
    if batch_size is not None:
        return _ModelBatches(data, d, batch_size, generator), population
    if population is None:
        raise ValueError("data without covariances() need a batch_size")
    return _no_batches, population


def _population(cov: Any, d: int, name: str) -> Any:
    xx, yx = (moments(cov, moment, d, name) for moment in ("Sxx", "Syx"))
    yy = None if getattr(cov, "Syy", None) is None else moments(cov, "Syy", d, name)
    return SimpleNamespace(Sxx=xx, Syx=yx, Syy=yy)


def _as_samples(name: str, pair: Any, d: int) -> tuple[FloatArray, FloatArray]:
    if not isinstance(pair, tuple | list | np.ndarray) or len(pair) != 2:
        raise TypeError(f"{name} must be a pair (x, y) of arrays [samples, d], got {type(pair).__name__}")
    x, y = (as_float_array(f"{name}[{k}]", pair[k], ndim=2) for k in range(2))
    if x.shape != y.shape or x.shape[1] != d or len(x) == 0:
        raise ValueError(
            f"{name} must be two arrays of the same shape (samples, {d}), for a network of input width {d}, got "
            f"{x.shape} and {y.shape}"
        )
    return x, y


def _no_batches(count: int) -> tuple[int, None, None, None]:
    return count, None, None, None


class _GaussianBatches:
    def __init__(self, population: Any, batch_size: int, generator: np.random.Generator) -> None:
        if population.Syy is None:
            raise ValueError("data.Syy, the covariance of the targets, is needed to draw minibatches")
        joint = np.block([[population.Sxx, population.Syx.T], [population.Syx, population.Syy]])
        require_semi_definite("the joint covariance [[Sxx, Syx^T], [Syx, Syy]] of data", joint)
        self.root = np.ascontiguousarray(square_root(joint).T)
        self.batch_size, self.generator = batch_size, generator

    def __call__(self, count: int) -> tuple[int, FloatArray, FloatArray, None]:
        both = len(self.root)
        count = max(1, min(count, _CALL_VALUES // (self.batch_size * both)))
        noise = self.generator.standard_normal((count, self.batch_size, both))
        samples = (noise @ self.root).reshape(-1, both)  # a product per batch: its bits do not depend on `count`
        x, y = (np.ascontiguousarray(part) for part in np.split(samples, 2, axis=1))
        return count, x, y, None


class _ModelBatches:
    def __init__(self, model: Any, d: int, batch_size: int, generator: np.random.Generator) -> None:
        self.model, self.d, self.batch_size, self.generator = model, d, batch_size, generator

    def __call__(self, count: int) -> tuple[int, FloatArray, FloatArray, None]:
        count = max(1, min(count, _CALL_VALUES // (self.batch_size * 2 * self.d)))
        x, y = np.empty((2, count, self.batch_size, self.d))
        for k in range(count):
            samples = _as_samples("data.sample(n, rng)", self.model.sample(self.batch_size, self.generator), self.d)
            if len(samples[0]) != self.batch_size:
                raise ValueError(
                    f"data.sample(n, rng) must return n = {self.batch_size} samples, got {len(samples[0])}"
                )
            x[k], y[k] = samples
        return count, x.reshape(-1, self.d), y.reshape(-1, self.d), None


class _PairBatches:
    """Batches without replacement. The rows of as many epochs as are needed are drawn at a time, each its own order."""

    def __init__(self, x: FloatArray, y: FloatArray, batch_size: int, generator: np.random.Generator | None) -> None:
        self.x, self.y, self.batch_size, self.generator = x, y, batch_size, generator
        self.epoch = len(x) // batch_size * batch_size  # rows of one
        self.rows: Rows = np.empty(0, np.int64)  # drawn and not used yet

    def __call__(self, count: int) -> tuple[int, FloatArray, FloatArray, Rows]:
        wanted = count * self.batch_size
        epochs = [self.rows]
        while sum(map(len, epochs)) < wanted:
            order = np.arange(self.epoch) if self.generator is None else self.generator.permutation(len(self.x))
            epochs.append(order[: self.epoch])
        rows = np.concatenate(epochs)
        self.rows = rows[wanted:]
        return count, self.x, self.y, rows[:wanted]
