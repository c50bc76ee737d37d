"""The features of a data set as the theory sees them: one pair (lambda, sigma2) each (THEORY.md 2 and 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._extras import require
from ._frozen import FrozenArrays, read_only
from ._validate import FloatArray, as_float_array, require_finite

if TYPE_CHECKING:
    from .diagnostic import Diagnostic

__all__ = ["Spectrum"]


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Spectrum(FrozenArrays):
    """Features, each with its covariance ``lambda_i`` and its variance ``sigma_i^2`` (THEORY.md 2).

    Parameters
    ----------
    lam : array_like [n]
        Covariances ``lambda_i = E[x_i y_i]``; zero or negative values are noise features, not
        errors.
    sigma2 : array_like [n] or float, optional
        Variances ``sigma_i^2 > 0`` of the context. Exactly one of ``sigma2`` and ``rho`` is given.
    rho : array_like [n] or float, optional
        Regression coefficients ``rho_i = lambda_i / sigma_i^2``, of the sign of ``lam`` and not
        zero: where ``lambda_i = 0`` they do not tell the variance, so that ``sigma2`` is needed.
    sigma2_y : array_like [n] or float, optional
        Variances of the target, non-negative. Needed for losses and for flows without
        stop-gradient. A spectrum from covariances has ``||p_i||^2 q_i^T Syy q_i``, the variance of
        ``y`` in the units of ``sigma2``.
    directions : array_like [d, n], optional
        Columns ``q_i`` with ``q_i^T Sxx q_i = 1``: the filters, ``q_i^T x`` is the amplitude of
        feature ``i`` in ``x``.
    duals : array_like [d, n], optional
        Columns ``p_i = Sxx q_i``: the patterns, ``x = sum_i p_i (q_i^T x)``. To look at a feature,
        look at its dual.
    diagnostic : Diagnostic, optional
        How far the data are from the assumptions of the theory, with standard errors of ``lam`` and
        ``rho``.

    Attributes
    ----------
    lam, sigma2, rho : ndarray [n]
    sigma2_y : ndarray [n] or None
    directions, duals : ndarray [d, n] or None
    diagnostic : Diagnostic or None

    Notes
    -----
    Scalars are broadcast against the other arguments. All arrays are read-only copies.
    ``len(spec)`` is the number of features and ``spec[index]`` (a whole number, slice, mask or list
    of indices) a spectrum of some of them.

    Examples
    --------
    >>> import jepa_ode as jo
    >>> spec = jo.Spectrum([1.0, 0.5, 0.0], sigma2=[1.25, 1.0, 2.0])
    >>> spec.rho
    array([0.8, 0.5, 0. ])
    >>> spec[:2]
    Spectrum(2 features, lam 0.5..1, rho 0.5..0.8)
    >>> jo.Spectrum([0.7, 0.6], rho=0.5).sigma2
    array([1.4, 1.2])
    """

    lam: FloatArray
    sigma2: FloatArray
    rho: FloatArray
    sigma2_y: FloatArray | None
    directions: FloatArray | None
    duals: FloatArray | None
    diagnostic: Diagnostic | None

    def __init__(
        self,
        lam: Any,
        sigma2: Any = None,
        *,
        rho: Any = None,
        sigma2_y: Any = None,
        directions: Any = None,
        duals: Any = None,
        diagnostic: Diagnostic | None = None,
    ) -> None:
        if (sigma2 is None) == (rho is None):
            given = "neither" if sigma2 is None else "both"
            raise ValueError(f"exactly one of sigma2 and rho must be given (sigma2 = lam / rho), got {given}")
        if sigma2 is not None:
            lam_, sigma2_ = _features(lam=lam, sigma2=sigma2)
            _require(sigma2_ > 0, "sigma2 must be positive", sigma2_)
            with np.errstate(over="ignore", under="ignore"):  # an inf says it
                rho_ = lam_ / sigma2_
        else:
            lam_, rho_ = _features(lam=lam, rho=rho)
            zero = (lam_ == 0) | (rho_ == 0)
            _require(~zero, "rho does not tell the variance where lam or rho is 0; give sigma2 instead", rho_)
            _require(lam_ * np.sign(rho_) > 0, "rho must have the sign of lam (sigma2 = lam / rho > 0)", rho_)
            with np.errstate(over="ignore", under="ignore"):
                sigma2_ = lam_ / rho_
            in_range = (sigma2_ > 0) & np.isfinite(sigma2_)
            _require(in_range, "sigma2 = lam / rho must be positive and finite", sigma2_)
        self._set(lam_, sigma2_, rho_, sigma2_y, directions, duals, diagnostic)

    def _set(
        self,
        lam: FloatArray,
        sigma2: FloatArray,
        rho: FloatArray,
        sigma2_y: Any,
        directions: Any,
        duals: Any,
        diagnostic: Diagnostic | None,
    ) -> None:
        n = lam.size
        if sigma2_y is not None:
            sigma2_y = require_finite("sigma2_y", as_float_array("sigma2_y", sigma2_y, ndim=None))
            if sigma2_y.shape not in ((), (n,)):
                raise ValueError(f"sigma2_y must be a scalar or have shape ({n},), got shape {sigma2_y.shape}")
            sigma2_y = np.broadcast_to(sigma2_y, (n,))
            _require(sigma2_y >= 0, "sigma2_y must be non-negative", sigma2_y)
        frames = {"directions": directions, "duals": duals}
        for name, frame in frames.items():
            if frame is not None:
                frames[name] = frame = require_finite(name, as_float_array(name, frame, ndim=2))
                if frame.shape[1] != n:
                    raise ValueError(f"{name} must have one column per feature, {n}, got shape {frame.shape}")
        arrays = dict(lam=lam, sigma2=sigma2, rho=rho, sigma2_y=sigma2_y, **frames)
        for name, array in arrays.items():
            object.__setattr__(self, name, None if array is None else read_only(array))
        object.__setattr__(self, "diagnostic", diagnostic)

    @classmethod
    def _trusted(
        cls,
        *,
        rho: FloatArray,
        sigma2: FloatArray,
        lam: FloatArray,
        sigma2_y: FloatArray | None = None,
        directions: FloatArray | None = None,
        duals: FloatArray | None = None,
        diagnostic: Diagnostic | None = None,
    ) -> Spectrum:
        """Build from all three of lam, sigma2 and rho, so that none of them is rounded a second time."""
        self = cls.__new__(cls)
        self._set(lam, sigma2, rho, sigma2_y, directions, duals, diagnostic)
        return self

    def __len__(self) -> int:
        return self.lam.size

    def __getitem__(self, index: Any) -> Spectrum:
        if isinstance(index, tuple):
            raise IndexError("a spectrum has one axis, its features")
        picked = np.atleast_1d(np.arange(len(self))[index])
        return Spectrum._trusted(
            lam=self.lam[picked],
            sigma2=self.sigma2[picked],
            rho=self.rho[picked],
            sigma2_y=None if self.sigma2_y is None else self.sigma2_y[picked],
            directions=None if self.directions is None else self.directions[:, picked],
            duals=None if self.duals is None else self.duals[:, picked],
            diagnostic=None if self.diagnostic is None else self.diagnostic.select(picked),
        )

    def __repr__(self) -> str:
        n = len(self)
        if n == 0:
            return "Spectrum(0 features)"
        ranges = f"lam {_range(self.lam)}, rho {_range(self.rho)}"
        space = "" if self.duals is None else f" in {self.duals.shape[0]} coordinates"
        return f"Spectrum({n} feature{'s' * (n != 1)}{space}, {ranges})"

    def to_xarray(self) -> Any:
        """Return an ``xarray.Dataset`` with the dims ``feature`` and, where directions are known,
        ``coordinate``.

        Raises
        ------
        ImportError
            If xarray is not installed (``pip install "jepa-ode[xarray]"``).
        """
        require("xarray", "to_xarray needs", "xarray")
        import xarray

        variables: dict[str, Any] = {}
        for name in ("lam", "sigma2", "rho", "sigma2_y"):
            if getattr(self, name) is not None:
                variables[name] = ("feature", getattr(self, name))
        for name in ("directions", "duals"):
            if getattr(self, name) is not None:
                variables[name] = (("coordinate", "feature"), getattr(self, name))
        for name in ("lam_stderr", "rho_stderr"):
            if getattr(self.diagnostic, name, None) is not None:
                variables[name] = ("feature", getattr(self.diagnostic, name))
        return xarray.Dataset(variables, coords={"feature": np.arange(len(self))})


def _features(**named: Any) -> list[FloatArray]:
    """Return the named arguments as finite arrays of one shape [n]; scalars are broadcast."""
    arrays = [require_finite(k, as_float_array(k, v, ndim=None)) for k, v in named.items()]
    for name, array in zip(named, arrays, strict=True):
        if array.ndim > 1:
            raise ValueError(f"{name} must have one value per feature, got shape {array.shape}")
    sizes = {array.size for array in arrays if array.ndim == 1}
    if len(sizes) > 1:
        shapes = ", ".join(f"{k} {a.shape}" for k, a in zip(named, arrays, strict=True))
        raise ValueError(f"arguments must have one value per feature each, got {shapes}")
    n = sizes.pop() if sizes else 1
    return [np.broadcast_to(array, (n,)) for array in arrays]


def _require(good: Any, message: str, values: FloatArray) -> None:
    if not good.all():
        k = int(np.argmin(good))
        raise ValueError(f"{message}; got {values[k]} for feature {k}")


def _range(values: FloatArray) -> str:
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low}..{high}"
