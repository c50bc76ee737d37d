"""Second moments of pairs of views, from samples in memory, from streams or given, and their features (THEORY.md 6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ._frozen import FrozenArrays, read_only
from ._validate import FloatArray, as_flag, as_float_array, as_index, as_non_negative, require_finite
from .diagnostic import diagnose
from .eigenproblem import solve_eigenproblem
from .moments import BLOCK_ENTRIES, Moments, as_pairs
from .shrinkage import Shrinkage, as_shrinkage, ledoit_wolf, shrink
from .spectrum import Spectrum
from .subsample import Subsample

__all__ = ["CovarianceEstimator", "Covariances"]


@dataclass(frozen=True, eq=False, repr=False)
class Covariances(FrozenArrays):
    """Covariances of the context x and the target y of a data set (THEORY.md 1).

    Parameters
    ----------
    Sxx, Syx : array_like [d, d]
        ``E[x x^T]`` (symmetric, positive semi-definite) and ``E[y x^T]``, centred.
    Syy : array_like [d, d], optional
        ``E[y y^T]``, symmetric, positive semi-definite; needed for losses and for flows without stop-gradient.
    n_samples : int, optional
        Number of samples behind them; without it there are no standard errors.

    Attributes
    ----------
    Sxx, Syx, Syy : ndarray [d, d]
        Read-only.
    n_samples : int or None
    mean_x, mean_y : ndarray [d] or None
        Of the samples; zero if they were not centred.
    shrinkage : float
        The amount that was applied, 0 to 1.
    exchangeable : bool
        Whether the covariances were averaged over the exchange of the views.
    moments : Moments or None
        What the samples left behind, before shrinkage: lets `partial_fit` and `merge` go on.
    subsample : Subsample or None
        Up to 2048 of the samples, drawn at random, for standard errors.

    Raises
    ------
    TypeError, ValueError
        For matrices that are not real, finite and square, or of different sizes; for an ``Sxx`` or ``Syy`` that is not
        symmetric or has a negative eigenvalue, beyond the rounding of single precision.

    See Also
    --------
    Covariances.from_pairs : from samples in memory.
    Covariances.from_batches, CovarianceEstimator : from samples that do not fit in memory at once.

    Examples
    --------
    >>> import numpy as np, jepa_ode as jo
    >>> cov = jo.Covariances(Sxx=np.diag([2.0, 1.0]), Syx=np.diag([0.8, 0.7]))
    >>> spec = cov.spectrum()
    >>> spec.rho, spec.lam
    (array([0.7, 0.4]), array([0.7, 0.8]))
    """

    Sxx: FloatArray
    Syx: FloatArray
    Syy: FloatArray | None = None
    n_samples: int | None = None
    mean_x: FloatArray | None = field(default=None, kw_only=True)
    mean_y: FloatArray | None = field(default=None, kw_only=True)
    shrinkage: float = field(default=0.0, kw_only=True)
    exchangeable: bool = field(default=False, kw_only=True)
    moments: Moments | None = field(default=None, kw_only=True)
    subsample: Subsample | None = field(default=None, kw_only=True)
    _rule: Shrinkage = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        Sxx = _as_square("Sxx", self.Sxx)
        values = {"Sxx": _as_symmetric("Sxx", Sxx), "Syx": _as_square("Syx", self.Syx, len(Sxx))}
        if self.Syy is not None:
            values["Syy"] = _as_symmetric("Syy", _as_square("Syy", self.Syy, len(Sxx)))
        if self.moments is None:  # those of samples are positive semi-definite as they are made
            for name in values.keys() - {"Syx"}:
                require_semi_definite(name, values[name])
        for name in ("mean_x", "mean_y"):
            mean = getattr(self, name)
            if mean is not None:
                values[name] = require_finite(name, as_float_array(name, mean))
                if values[name].shape != (len(Sxx),):
                    raise ValueError(f"{name} must have shape ({len(Sxx)},), got {values[name].shape}")
        for name, array in values.items():
            object.__setattr__(self, name, read_only(array))
        if self.n_samples is not None:
            object.__setattr__(self, "n_samples", as_index("n_samples", self.n_samples, minimum=1))

    @classmethod
    def from_pairs(
        cls,
        x: Any,
        y: Any,
        *,
        center: bool = True,
        shrinkage: Shrinkage = None,
        exchangeable: bool = False,
    ) -> Covariances:
        """Estimate the covariances from samples.

        Parameters
        ----------
        x, y : array_like [samples, d]
            Context and target, any real type, or booleans for 0 and 1; float64 copies are made of a few rows at a time only.
        center : bool, default True
            Subtract the means of x and of y. Without it the second moments are about zero.
        shrinkage : None, "ledoit-wolf" or float in [0, 1], default None
            For few samples: mix the joint covariance of (x, y) with the one that treats all
            directions alike and has the same total variances and the same total covariance.
            "ledoit-wolf" chooses the amount that minimises the expected squared error, for any
            distribution.
        exchangeable : bool, default False
            Average over the exchange of the views: ``(Sxx + Syy)/2`` for both and the symmetric
            part of ``Syx``. Halves the noise where the two views are made in the same way (two
            random maskings, two noises); wrong where they are not.

        Returns
        -------
        Covariances
            Means over the samples (divided by n, as in scikit-learn, not by n - 1): what training
            on these samples sees.

        Raises
        ------
        ValueError
            For NaN or infinite entries (the first one's row and column are named), other than two
            dimensions, x and y of different shapes, fewer than two samples (one without centring), and values
            so large or small that their squares overflow or underflow.
        TypeError
            For arrays that do not hold real numbers, and for masked arrays.

        Examples
        --------
        >>> import numpy as np, jepa_ode as jo
        >>> rng = np.random.default_rng(0)
        >>> shared = rng.normal(size=(500, 3))
        >>> x, y = shared + rng.normal(size=(2, 500, 3)) * [0.1, 0.5, 1.0]
        >>> cov = jo.Covariances.from_pairs(x, y, shrinkage="ledoit-wolf")
        >>> cov
        Covariances(d=3, n_samples=500, shrinkage=0.118)
        >>> cov.spectrum().rho.round(2)
        array([0.95, 0.78, 0.51])
        """
        estimator = CovarianceEstimator(center=center, shrinkage=shrinkage, exchangeable=exchangeable)
        return estimator.partial_fit(x, y).covariances()

    @classmethod
    def from_batches(
        cls,
        batches: Iterable[tuple[Any, Any]],
        *,
        center: bool = True,
        shrinkage: Shrinkage = None,
        exchangeable: bool = False,
    ) -> Covariances:
        """Estimate the covariances from an iterable of batches ``(x, y)``, read once, one batch in
        memory at a time.

        The result is that of `from_pairs` on all samples together, to rounding.

        Examples
        --------
        >>> import numpy as np, jepa_ode as jo
        >>> model = jo.StaticModel.from_spectrum(jo.Spectrum([1.0, 0.5], rho=[0.5, 0.9]))
        >>> batches = (model.sample(100, rng=seed) for seed in range(5))
        >>> jo.Covariances.from_batches(batches)
        Covariances(d=2, n_samples=500)
        """
        estimator = CovarianceEstimator(center=center, shrinkage=shrinkage, exchangeable=exchangeable)
        for x, y in batches:
            estimator.partial_fit(x, y)
        return estimator.covariances()

    def partial_fit(self, x: Any, y: Any) -> Covariances:
        """Return the covariances of the samples so far together with the samples x, y [samples, d].

        Covariances do not change: the result is a new object, with the same centring, rule of
        shrinkage and treatment of exchangeable views. For long streams `CovarianceEstimator` is
        quicker, since it updates in place.

        Examples
        --------
        >>> import numpy as np, jepa_ode as jo
        >>> x, y = np.random.default_rng(0).normal(size=(2, 100, 3))
        >>> cov = jo.Covariances.from_pairs(x[:60], y[:60]).partial_fit(x[60:], y[60:])
        >>> np.allclose(cov.Sxx, jo.Covariances.from_pairs(x, y).Sxx, rtol=1e-12, atol=1e-12)
        True
        """
        return self._estimator().partial_fit(x, y).covariances()

    def merge(self, other: Covariances) -> Covariances:
        """Return the covariances of the samples of both, for example of two workers, with the settings of this one."""
        return self._estimator().merge(other._estimator()).covariances()

    def spectrum(self, *, rank_tol: float | None = None) -> Spectrum:
        """Return the features: solutions of the generalised eigenproblem ``S q = rho Sxx q``
        (THEORY.md 6).

        ``S`` is the symmetric part of ``Syx``, which is ``Syx`` itself for exchangeable views.

        Parameters
        ----------
        rank_tol : float, optional
            Directions along which the correlation matrix of x has an eigenvalue below ``rank_tol``
            times its largest hold no feature; so do constant coordinates. Default 1e-12.

        Returns
        -------
        Spectrum
            In descending order of ``rho``, with ``lam = rho ||p||^2``, ``sigma2 = ||p||^2``,
            directions, duals and a `Diagnostic`. Features of the same ``rho`` (to rounding) are
            chosen so that they do not couple. The entry of largest modulus of each dual is
            positive.

        Raises
        ------
        ValueError
            If ``Sxx`` is zero or not positive semi-definite.

        Examples
        --------
        A constant coordinate holds no feature:

        >>> import numpy as np, jepa_ode as jo
        >>> cov = jo.Covariances(np.diag([2.0, 0.0, 1.0]), np.diag([0.8, 0.0, 0.7]))
        >>> spec = cov.spectrum()
        >>> len(spec), spec.diagnostic.n_constant
        (2, 1)
        """
        if rank_tol is not None:
            rank_tol = as_non_negative("rank_tol", rank_tol)
        S = self.Syx / 2 + self.Syx.T / 2
        features = solve_eigenproblem(self.Sxx, S, rank_tol)
        P, Q, rho = features.duals, features.directions, features.rho
        M = P.T @ P
        sigma2 = np.diagonal(M)
        sigma2_y = None
        if self.Syy is not None:
            # The variance of the target's amplitude q^T y, in the units that make the context's
            # ||p||^2; rounding can take a target without variance below zero.
            sigma2_y = sigma2 * np.maximum(np.einsum("di,di->i", Q, self.Syy @ Q), 0.0)
        return Spectrum._trusted(
            lam=rho * sigma2,
            sigma2=sigma2,
            rho=rho,
            sigma2_y=sigma2_y,
            directions=Q,
            duals=P,
            diagnostic=diagnose(self, features, M),
        )

    def _estimator(self) -> CovarianceEstimator:
        if self.moments is None:
            raise ValueError(
                "these covariances were given as matrices, without the samples' moments, so that no samples can be "
                "added; start from Covariances.from_pairs or CovarianceEstimator"
            )
        estimator = CovarianceEstimator(
            center=self.moments.center, shrinkage=self._rule, exchangeable=self.exchangeable
        )
        estimator._moments, estimator._subsample = self.moments, self.subsample
        return estimator

    def __repr__(self) -> str:
        parts = [f"d={len(self.Sxx)}"]
        if self.n_samples is not None:
            parts.append(f"n_samples={self.n_samples}")
        if self.shrinkage:
            parts.append(f"shrinkage={self.shrinkage:.3g}")
        if self.exchangeable:
            parts.append("exchangeable=True")
        if self.Syy is None:
            parts.append("Syy=None")
        return f"Covariances({', '.join(parts)})"


class CovarianceEstimator:
    """Gathers covariances from batches that do not fit in memory at once.

    The result does not depend on how the samples are cut into batches, except for rounding. Memory:
    the moments, about ``4 d^2`` numbers, and a few rows.

    Parameters
    ----------
    center, shrinkage, exchangeable
        As in `Covariances.from_pairs`.

    Attributes
    ----------
    n_samples : int
        Samples seen so far.

    Examples
    --------
    >>> import numpy as np, jepa_ode as jo
    >>> estimator = jo.CovarianceEstimator(shrinkage=0.1)
    >>> for seed in range(10):
    ...     xb, yb = np.random.default_rng(seed).normal(size=(2, 64, 5))
    ...     _ = estimator.partial_fit(xb, yb)
    >>> estimator.covariances()
    Covariances(d=5, n_samples=640, shrinkage=0.1)
    """

    def __init__(self, *, center: bool = True, shrinkage: Shrinkage = None, exchangeable: bool = False) -> None:
        self.center = as_flag("center", center)
        self.shrinkage = as_shrinkage(shrinkage)
        self.exchangeable = as_flag("exchangeable", exchangeable)
        self._moments: Moments | None = None
        self._subsample: Subsample | None = None
        # Rows of small batches, kept until they make a block: a merge costs as much as some hundred
        # rows.
        self._pending: list[tuple[FloatArray, FloatArray]] = []
        self._pending_rows = 0

    @property
    def n_samples(self) -> int:
        """Samples seen so far."""
        return (self._moments.n if self._moments else 0) + self._pending_rows

    def partial_fit(self, x: Any, y: Any) -> CovarianceEstimator:
        """Add the samples x, y [samples, d] and return the estimator itself; a batch with an error adds nothing."""
        d = None
        if self._moments is not None:
            d = self._moments.d
        elif self._pending:
            d = self._pending[0][0].shape[1]
        x, y = as_pairs(x, y, rows_before=self.n_samples, d=d)
        rows = max(1, BLOCK_ENTRIES // (4 * x.shape[1]))
        if len(x) < rows:
            self._pending.append((np.array(x, np.float64), np.array(y, np.float64)))
            self._pending_rows += len(x)
            if self._pending_rows >= rows:
                self._flush()
        else:
            self._flush()
            self._add(x, y)
        return self

    def fit(self, x: Any, y: Any) -> CovarianceEstimator:
        """Forget all samples, add x, y [samples, d] and return the estimator itself."""
        self._moments = self._subsample = None
        self._pending, self._pending_rows = [], 0
        return self.partial_fit(x, y)

    def merge(self, other: CovarianceEstimator) -> CovarianceEstimator:
        """Add the samples that another estimator, of another worker, has seen, and return the estimator itself."""
        if self.center != other.center:
            raise ValueError("estimators to merge must both have center=True or both center=False")
        self._flush()
        other._flush()
        if other._moments is not None:
            if self._moments is not None and self._moments.d != other._moments.d:
                raise ValueError(
                    f"estimators to merge must have the same number of coordinates, got {self._moments.d} and "
                    f"{other._moments.d}"
                )
            self._merge(other._moments, other._subsample)
        return self

    def covariances(self) -> Covariances:
        """Return the covariances of all samples so far; more may follow."""
        self._flush()
        need = 2 if self.center else 1
        if self._moments is None or self._moments.n < need:
            centred = ", as the mean takes one" if self.center else ""
            raise ValueError(
                f"covariances need at least {need} sample{'s' * (need > 1)}{centred}, got {self.n_samples}"
            )
        moments = self._moments
        Sxx, Syx, Syy = moments.covariances()
        if not np.isfinite(moments.second).all():
            raise ValueError("the covariances overflow: x or y has values that are too large; rescale them")
        # Below the smallest normal number covariances lose digits, and then everything.
        if np.diagonal(moments.second).max() / moments.n < np.finfo(np.float64).tiny and self._varies():
            raise ValueError("the covariances underflow: x and y have values that are too small; rescale them")
        amount = 0.0
        if self.shrinkage == "ledoit-wolf":
            amount = ledoit_wolf(moments, exchangeable=self.exchangeable)
        elif self.shrinkage is not None:
            amount = float(self.shrinkage)
        if self.exchangeable:
            Sxx = Syy = (Sxx + Syy) / 2
            Syx = (Syx + Syx.T) / 2
        Sxx, Syx, Syy = shrink(Sxx, Syx, Syy, amount)
        d = moments.d
        return Covariances(
            Sxx,
            Syx,
            Syy,
            moments.n,
            mean_x=moments.mean[:d],
            mean_y=moments.mean[d:],
            shrinkage=amount,
            exchangeable=self.exchangeable,
            moments=moments,
            subsample=self._subsample,
            _rule=self.shrinkage,
        )

    def _varies(self) -> bool:
        drawn = self._subsample
        return drawn is not None and bool(np.ptp(drawn.x, axis=0).any() or np.ptp(drawn.y, axis=0).any())

    def _add(self, x: Any, y: Any) -> None:
        start = self._moments.n if self._moments else 0
        self._merge(Moments.of(x, y, self.center), Subsample.of(x, y, start))

    def _merge(self, moments: Moments, subsample: Subsample | None) -> None:
        if self._moments is None or self._subsample is None or subsample is None:
            self._moments, self._subsample = moments, subsample
        else:
            self._moments = self._moments.merge(moments)
            self._subsample = self._subsample.merge(subsample)

    def _flush(self) -> None:
        if self._pending_rows:
            x, y = (np.concatenate(part) for part in zip(*self._pending, strict=True))
            self._pending, self._pending_rows = [], 0
            self._add(x, y)

    def __repr__(self) -> str:
        return (
            f"CovarianceEstimator(center={self.center}, shrinkage={self.shrinkage!r}, "
            f"exchangeable={self.exchangeable}, n_samples={self.n_samples})"
        )


def _as_square(name: str, value: Any, d: int | None = None) -> FloatArray:
    array = require_finite(name, as_float_array(name, value, ndim=2))
    if array.shape != (len(array), len(array)) or len(array) == 0:
        raise ValueError(f"{name} must be square [d, d] with d >= 1, got shape {array.shape}")
    if d is not None and len(array) != d:
        raise ValueError(f"{name} must have the shape of Sxx, ({d}, {d}), got {array.shape}")
    return array


def _as_symmetric(name: str, array: FloatArray) -> FloatArray:
    off = np.abs(array - array.T)
    if off.max() > 1e-6 * np.abs(array).max():  # float32 rounding passes, a mix-up with Syx does not
        i, j = (int(k) for k in np.unravel_index(np.argmax(off), off.shape))
        raise ValueError(
            f"{name} must be symmetric, got {name}[{i}, {j}] = {array[i, j]:.6g} "
            f"but {name}[{j}, {i}] = {array[j, i]:.6g}"
        )
    return array / 2 + array.T / 2  # halves first: sums of the largest numbers overflow


def require_semi_definite(name: str, array: FloatArray) -> None:
    """Raise ValueError unless the symmetric ``array`` may be a covariance."""
    largest = np.abs(array).max()
    if largest == 0:
        return
    eigenvalues = np.linalg.eigvalsh(array / largest)
    if eigenvalues[0] < -1e-6 * eigenvalues[-1]:  # float32 rounding passes
        low, high = largest * eigenvalues[[0, -1]]
        raise ValueError(
            f"{name} must be positive semi-definite, as a covariance is, but it has the eigenvalue {low:.3g} beside the "
            f"largest, {high:.3g}"
        )
