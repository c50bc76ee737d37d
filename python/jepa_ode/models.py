"""Generative models of pairs (x, y) whose covariances, and so whose spectra, are known in closed form (THEORY.md 6)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from ._frozen import FrozenArrays, read_only
from ._validate import (
    FloatArray,
    as_choice,
    as_float_array,
    as_index,
    as_non_negative,
    as_real,
    require_finite,
)
from .covariances import Covariances
from .spectrum import Spectrum

__all__ = ["DynamicModel", "StaticModel", "feature_trends"]


@dataclass(frozen=True, eq=False, repr=False)
class StaticModel(FrozenArrays):
    """Context and target are noisy, masked observations of one latent.

    ``x = m * (A z + n)`` and ``y = m' * (A z + n')`` with a latent ``z ~ N(0, 1)`` that they share,
    and with noise ``n, n' ~ N(0, N)`` and masks ``m, m' ~ Bernoulli(keep)`` of their own, one entry
    per coordinate. With ``C = A A^T + N`` and the vector k of the probabilities to keep,

        Syx = k k^T * A A^T,     Sxx = Syy = k k^T * C + diag(k (1 - k) diag(C)).

    Parameters
    ----------
    mixing : array_like [d, latents]
        ``A``.
    noise : float, array_like [d] or [d, d], default 0.0
        ``N``: variances of the noise per coordinate, or its covariance matrix.
    keep : float or array_like [d] in (0, 1], default 1.0
        Probability that a coordinate is seen.

    Examples
    --------
    Two features, dialled by their covariance and regression coefficient, in a rotated frame:

    >>> import numpy as np, jepa_ode as jo
    >>> wanted = jo.Spectrum(lam=[0.5, 1.0], rho=[0.9, 0.4])
    >>> turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    >>> model = jo.StaticModel.from_spectrum(wanted, rotation=turn)
    >>> spec = model.spectrum()
    >>> spec.lam.round(12), spec.rho.round(12)
    (array([0.5, 1. ]), array([0.9, 0.4]))
    >>> x, y = model.sample(1000, rng=0)
    >>> x.shape
    (1000, 2)
    """

    mixing: FloatArray
    noise: FloatArray | float = 0.0
    keep: FloatArray | float = 1.0

    def __post_init__(self) -> None:
        mixing = require_finite("mixing", as_float_array("mixing", self.mixing, ndim=2))
        d = len(mixing)
        noise = require_finite("noise", as_float_array("noise", self.noise, ndim=None))
        if noise.ndim < 2:
            variances = _per_coordinate("noise", noise, d)
            if (variances < 0).any():
                raise ValueError(f"noise must be non-negative variances, got {variances.min()}")
            noise = np.diag(variances)
        elif noise.shape != (d, d):
            raise ValueError(f"noise must be a number or have shape ({d},) or ({d}, {d}), got {noise.shape}")
        elif not np.allclose(noise, noise.T, rtol=1e-9, atol=1e-12 * np.abs(noise).max()):
            raise ValueError("noise must be a symmetric covariance matrix")
        elif np.linalg.eigvalsh(noise)[0] < -1e-9 * np.abs(noise).max():
            raise ValueError("noise must be a positive semi-definite covariance matrix")
        keep = _per_coordinate("keep", as_float_array("keep", self.keep, ndim=None), d)
        if not ((keep > 0) & (keep <= 1)).all():
            raise ValueError(f"keep must be in (0, 1], got {keep[~((keep > 0) & (keep <= 1))][0]}")
        for name, array in (("mixing", mixing), ("noise", noise), ("keep", keep)):
            object.__setattr__(self, name, read_only(array))

    @classmethod
    def tilted(cls, spectrum: Spectrum, *, tilt: float, rng: int | np.random.Generator = 0) -> StaticModel:
        """Return a model whose population spectrum is the given one, but whose features couple (THEORY.md 6).

        The patterns ``p_i = sigma_i f_i`` are not orthogonal: their directions ``f_i`` are those of a random rotation, to whose
        columns Gaussian vectors of length about ``tilt`` are added. So ``M = P^T P`` has entries ``sigma_i sigma_j f_i^T f_j``.

        Parameters
        ----------
        spectrum : Spectrum
            With ``0 <= rho <= 1``. Only ``lam`` and ``sigma2`` are used.
        tilt : float
            Non-negative; 0 is a rotation, whose features do not couple. ``f_i^T f_j`` has a standard deviation of about
            ``sqrt(2 / n) tilt`` while that is small, and of ``1 / sqrt(n)``, that of random directions, at most.
        rng : int or numpy.random.Generator, default 0

        Examples
        --------
        >>> import numpy as np, jepa_ode as jo
        >>> wanted = jo.Spectrum(lam=[0.5, 1.0, 0.7], rho=[0.9, 0.4, 0.6])
        >>> cov = jo.StaticModel.tilted(wanted, tilt=0.3).covariances()
        >>> cov.spectrum().rho.round(12), cov.spectrum().lam.round(12)
        (array([0.9, 0.6, 0.4]), array([0.5, 0.7, 1. ]))
        >>> bool(jo.CoupledFeatures(cov).coupling > 0.1)
        True
        """
        _require_shared(spectrum)
        generator = np.random.default_rng(rng)
        n = len(spectrum)
        frame = np.linalg.qr(generator.standard_normal((n, n))).Q
        frame += as_non_negative("tilt", tilt) * generator.standard_normal((n, n)) / np.sqrt(n)
        frame /= np.linalg.norm(frame, axis=0)
        noise = (frame * np.maximum(spectrum.sigma2 - spectrum.lam, 0.0)) @ frame.T
        return cls(mixing=frame * np.sqrt(spectrum.lam), noise=(noise + noise.T) / 2)

    @classmethod
    def from_spectrum(cls, spectrum: Spectrum, *, rotation: Any = None) -> StaticModel:
        """Return the model, one latent per feature, whose population spectrum is the given one.

        Parameters
        ----------
        spectrum : Spectrum
            With ``0 <= rho <= 1``: a shared latent cannot give other coefficients (`DynamicModel`
            can). Only ``lam`` and ``sigma2`` are used.
        rotation : array_like [d, n], optional
            Orthonormal columns, the direction of each feature in the data. Default: the coordinate
            axes.
        """
        _require_shared(spectrum)
        lam, sigma2 = spectrum.lam, spectrum.sigma2
        frame = _as_frame(rotation, len(spectrum))
        noise = (frame * np.maximum(sigma2 - lam, 0.0)) @ frame.T
        return cls(mixing=frame * np.sqrt(lam), noise=(noise + noise.T) / 2)

    @classmethod
    def coupled(
        cls, spectrum: Spectrum, angle: float, *, rng: int | np.random.Generator = 0, rotation: Any = None
    ) -> StaticModel:
        """Return a model whose features couple, the more the larger the angle (THEORY.md 6).

        The eigenframe of the whitened ``Syx`` is turned against that of ``Sxx``, in random planes. The regression
        coefficients and the eigenvalues of ``Sxx``, ``sigma2``, stay; the covariances become those of the turned features,
        ``lam = rho |p|^2``.

        Parameters
        ----------
        spectrum : Spectrum
            With ``0 <= rho <= 1``: what the model has at angle 0, where it is that of `from_spectrum`.
        angle : float
            In radians. No direction is turned by more, and one plane by so much.
        rng : int or numpy.random.Generator, default 0
            Randomness of the planes.
        rotation : array_like [d, n], optional
            Orthonormal columns, the eigenframe of ``Sxx`` in the data. Default: the coordinate axes.

        Examples
        --------
        >>> import jepa_ode as jo
        >>> spec = jo.Spectrum([1.0, 0.5], rho=[0.5, 0.9])
        >>> for angle in (0.0, 0.2, 0.4):
        ...     model = jo.StaticModel.coupled(spec, angle)
        ...     print(model.spectrum().rho.round(12), round(model.spectrum().diagnostic.coupling, 3))
        [0.9 0.5] 0.0
        [0.9 0.5] 0.195
        [0.9 0.5] 0.377
        """
        _require_shared(spectrum)
        angle = as_real("angle", angle)
        n = len(spectrum)
        generator = np.random.default_rng(rng).standard_normal((n, n))
        # exp(angle A) of an antisymmetric A, whose largest eigenvalues are +-i, by those of the Hermitian iA.
        rates, planes = np.linalg.eigh(1j * (generator - generator.T))
        largest = np.abs(rates).max(initial=0.0) or 1.0
        turn = ((planes * np.exp(-1j * angle * rates / largest)) @ planes.conj().T).real
        frame = _as_frame(rotation, n) * np.sqrt(spectrum.sigma2)  # of Sxx = frame frame^T
        patterns = frame @ turn
        noise = (patterns * np.maximum(1 - spectrum.rho, 0.0)) @ patterns.T
        return cls(mixing=patterns * np.sqrt(spectrum.rho), noise=(noise + noise.T) / 2)

    def covariances(self) -> Covariances:
        """Return the covariances of the population."""
        k = np.asarray(self.keep)
        shared = self.mixing @ self.mixing.T
        seen = shared + self.noise
        both = np.outer(k, k)
        Sxx = both * seen + np.diag(k * (1 - k) * np.diagonal(seen))
        return Covariances(Sxx, both * shared, Sxx)

    def spectrum(self) -> Spectrum:
        """Return the features of the population, in descending order of ``rho``."""
        return self.covariances().spectrum()

    def sample(self, n: int, rng: int | np.random.Generator = 0) -> tuple[FloatArray, FloatArray]:
        """Return n independent samples x, y [n, d]."""
        n = as_index("n", n, minimum=1)
        generator = np.random.default_rng(rng)
        d, latents = self.mixing.shape
        shared = generator.standard_normal((n, latents)) @ self.mixing.T
        views = []
        for _ in range(2):
            view = shared + generator.standard_normal((n, d)) @ self._root.T
            if np.any(np.asarray(self.keep) < 1):
                view *= generator.random((n, d)) < self.keep
            views.append(view)
        return views[0], views[1]

    @cached_property
    def _root(self) -> FloatArray:
        """``R R^T = N``, kept for those who sample batch after batch."""
        return read_only(square_root(np.asarray(self.noise)))

    def __repr__(self) -> str:
        return f"StaticModel(d={self.mixing.shape[0]}, latents={self.mixing.shape[1]})"


@dataclass(frozen=True, eq=False, repr=False)
class DynamicModel(FrozenArrays):
    """The target follows the context in time: ``x_{t+1} = A x_t + noise`` per coordinate, ``y`` is
    ``x`` after ``lag`` steps.

    In the stationary state coordinate i has the variance ``noise_i / (1 - a_i^2)``, and ``rho_i =
    a_i^lag``: slow features are the predictable ones. With a rotation R the observed views are ``R
    x``.

    Parameters
    ----------
    decay : array_like [n] in (-1, 1)
        ``a``, the diagonal of A.
    noise : array_like [n] or float, default 1.0
        Variances of the noise added in one step, positive.
    lag : int, default 1
        Steps from context to target.
    rotation : array_like [d, n], optional
        Orthonormal columns, the direction of each coordinate in the data. Default: the coordinate
        axes.

    Examples
    --------
    >>> import jepa_ode as jo
    >>> model = jo.DynamicModel(decay=[0.9, 0.5], noise=[0.19, 1.5])
    >>> model.spectrum().rho, model.spectrum().lam.round(12)
    (array([0.9, 0.5]), array([0.9, 1. ]))
    >>> wanted = jo.Spectrum(lam=[0.5, -0.2], rho=[0.9, -0.4])
    >>> jo.DynamicModel.from_spectrum(wanted).spectrum().lam.round(12)
    array([ 0.5, -0.2])
    """

    decay: FloatArray
    noise: FloatArray | float = 1.0
    lag: int = 1
    rotation: FloatArray | None = None

    def __post_init__(self) -> None:
        decay = require_finite("decay", as_float_array("decay", self.decay))
        if not (np.abs(decay) < 1).all():
            raise ValueError(f"decay must be in (-1, 1) for a stationary state, got {decay[np.abs(decay) >= 1][0]}")
        noise = require_finite("noise", as_float_array("noise", self.noise, ndim=None))
        noise = _per_coordinate("noise", noise, decay.size)
        if not (noise > 0).all():
            raise ValueError(f"noise must be positive, got {noise.min()}")
        object.__setattr__(self, "decay", read_only(decay))
        object.__setattr__(self, "noise", read_only(noise))
        object.__setattr__(self, "lag", as_index("lag", self.lag, minimum=1))
        frame = _as_frame(self.rotation, decay.size)
        object.__setattr__(self, "rotation", read_only(frame))

    @classmethod
    def from_spectrum(cls, spectrum: Spectrum, *, lag: int = 1, rotation: Any = None) -> DynamicModel:
        """Return the model, one coordinate per feature, whose population spectrum is the given one.

        Parameters
        ----------
        spectrum : Spectrum
            With ``-1 < rho < 1``, and ``rho >= 0`` where the lag is even. Only ``lam`` and
            ``sigma2`` are used.
        lag : int, default 1
        rotation : array_like [d, n], optional
        """
        lag = as_index("lag", lag, minimum=1)
        rho = spectrum.rho
        bad = (np.abs(rho) >= 1) | ((rho < 0) & (lag % 2 == 0))
        if bad.any():
            k = int(np.argmax(bad))
            low = "0 <= rho < 1 (an even lag)" if lag % 2 == 0 else "-1 < rho < 1"
            raise ValueError(f"a dynamic model needs {low}, got rho = {rho[k]} for feature {k}")
        decay = np.sign(rho) * np.abs(rho) ** (1 / lag)
        return cls(decay, spectrum.sigma2 * (1 - decay**2), lag, rotation)

    @property
    def variance(self) -> FloatArray:
        """Stationary variances of the coordinates, [n]."""
        return np.asarray(self.noise / (1 - self.decay**2))

    def covariances(self) -> Covariances:
        """Return the covariances of the stationary state."""
        frame = np.asarray(self.rotation)
        Sxx = (frame * self.variance) @ frame.T
        Syx = (frame * (self.variance * self.decay**self.lag)) @ frame.T
        return Covariances(Sxx, Syx, Sxx)

    def spectrum(self) -> Spectrum:
        """Return the features of the stationary state, in descending order of ``rho``."""
        return self.covariances().spectrum()

    def sample(self, n: int, rng: int | np.random.Generator = 0) -> tuple[FloatArray, FloatArray]:
        """Return n independent pairs x, y [n, d], each x drawn from the stationary state."""
        n = as_index("n", n, minimum=1)
        generator = np.random.default_rng(rng)
        shape = (n, self.decay.size)
        x = np.sqrt(self.variance) * generator.standard_normal(shape)
        jump = self.decay**self.lag
        y = jump * x + np.sqrt(self.variance * (1 - jump**2)) * generator.standard_normal(shape)
        frame = np.asarray(self.rotation)
        return x @ frame.T, y @ frame.T

    def trajectory(self, steps: int, rng: int | np.random.Generator = 0) -> FloatArray:
        """Return one time series [steps, d] that starts in the stationary state; pairs are ``s[:-lag], s[lag:]``."""
        steps = as_index("steps", steps, minimum=1)
        generator = np.random.default_rng(rng)
        series = generator.standard_normal((steps, self.decay.size))
        series[0] *= np.sqrt(self.variance)
        series[1:] *= np.sqrt(self.noise)
        for t in range(1, steps):
            series[t] += self.decay * series[t - 1]
        return np.asarray(series @ np.asarray(self.rotation).T)

    def __repr__(self) -> str:
        return f"DynamicModel(d={len(np.asarray(self.rotation))}, features={self.decay.size}, lag={self.lag})"


def feature_trends(
    n: int,
    trend: Literal["same", "opposite"],
    *,
    lam: tuple[float, float] = (0.2, 1.0),
    rho: tuple[float, float] = (0.2, 0.9),
) -> Spectrum:
    """Return n features whose ``lambda`` rises while ``rho`` rises too ("same") or falls
    ("opposite") (THEORY.md 5).

    Parameters
    ----------
    n : int
    trend : "same" or "opposite"
    lam, rho : (float, float)
        Lowest and highest value; the values between are evenly spaced.

    Examples
    --------
    >>> import jepa_ode as jo
    >>> jo.models.feature_trends(3, "opposite").rho
    array([0.9 , 0.55, 0.2 ])
    """
    n = as_index("n", n, minimum=1)
    as_choice("trend", trend, ("same", "opposite"))
    rhos = np.linspace(*rho, n)
    return Spectrum(np.linspace(*lam, n), rho=rhos if trend == "same" else rhos[::-1])


def _require_shared(spectrum: Spectrum) -> None:
    bad = (spectrum.lam < 0) | (spectrum.lam > spectrum.sigma2 * (1 + 1e-12))
    if bad.any():
        k = int(np.argmax(bad))
        raise ValueError(
            f"a static model needs 0 <= rho <= 1, got rho = {spectrum.rho[k]} for feature {k}; "
            "use DynamicModel for negative rho"
        )


def _per_coordinate(name: str, array: FloatArray, d: int) -> FloatArray:
    if array.shape not in ((), (d,)):
        raise ValueError(f"{name} must be a number or have shape ({d},), got shape {array.shape}")
    return np.broadcast_to(array, (d,))


def _as_frame(rotation: Any, n: int) -> FloatArray:
    """Return orthonormal columns [d, n], d >= n."""
    if rotation is None:
        return np.eye(n)
    frame = require_finite("rotation", as_float_array("rotation", rotation, ndim=2))
    if frame.shape[1] != n:
        raise ValueError(f"rotation must have one column per feature, {n}, got shape {frame.shape}")
    if not np.allclose(frame.T @ frame, np.eye(n), rtol=0, atol=1e-10):
        raise ValueError("rotation must have orthonormal columns (rotation.T @ rotation = 1)")
    return frame


def square_root(matrix: FloatArray) -> FloatArray:
    """Return R with ``R R^T = matrix`` for a symmetric positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
