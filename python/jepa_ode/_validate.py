"""Arguments are checked and normalised here, once; everything behind the Python face trusts them (DESIGN.md 3)."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
_Choice = TypeVar("_Choice", bound=str)


def as_float_array(name: str, value: Any, ndim: int | None = 1) -> FloatArray:
    """Return ``value`` as a C-contiguous, aligned, native float64 array of ``ndim`` dimensions (None: any).

    Whole numbers, booleans excluded, and every real floating type are converted; any strides and byte orders are
    accepted. Masked arrays (their mask would be lost), complex numbers, strings and objects raise TypeError.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; fill or drop the masked entries first")
    array = np.asarray(value)
    if array.size == 0 and array.dtype == object:
        array = array.astype(np.float64)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold real numbers, got an array of dtype {array.dtype}")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension{'s' * (ndim != 1)}, got shape {array.shape}")
    # A view of bytes, or of a packed record, may be contiguous and yet not aligned.
    return np.require(array, np.float64, ["C", "ALIGNED"])


def require_finite(name: str, array: FloatArray) -> FloatArray:
    """Return ``array``, or raise ValueError naming the first entry that is NaN or infinite."""
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(k) for k in np.argwhere(~finite)[0])
        index = ", ".join(map(str, where))
        raise ValueError(f"{name} must be finite, got {name}[{index}] = {array[where]}")
    return array


def as_real(name: str, value: Any) -> float:
    """Return the real scalar ``value`` as a float."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    try:
        return float(value)
    except OverflowError:  # of a whole number or a fraction
        raise ValueError(f"{name} is larger than any float64") from None


def as_positive(name: str, value: Any) -> float:
    """Return the finite scalar ``value > 0`` as a float."""
    number = as_real(name, value)
    if not (0 < number < math.inf):
        raise ValueError(f"{name} must be positive and finite, got {number}")
    return number


def as_non_negative(name: str, value: Any) -> float:
    """Return the finite scalar ``value >= 0`` as a float."""
    number = as_real(name, value)
    if not (0 <= number < math.inf):
        raise ValueError(f"{name} must be non-negative and finite, got {number}")
    return number


def as_index(name: str, value: Any, *, minimum: int = 0) -> int:
    """Return the whole number ``value >= minimum`` as an int."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return int(value)


def as_depth(depth: Any, *, allow_inf: bool = False) -> float:
    """Return the depth, any real number >= 1, as a float."""
    number = as_real("depth", depth)
    if math.isinf(number) and number > 0:
        if allow_inf:
            return number
        raise ValueError(
            "depth=inf is defined for MAE in the 'rescaled' time unit only (THEORY.md 2): "
            "pass objective='mae' and time_unit='rescaled', or a finite depth"
        )
    if not number >= 1:
        raise ValueError(f"depth must be a real number >= 1, got {number}")
    return number


def as_per_feature(name: str, value: Any, n: int) -> FloatArray:
    """Return a scalar or an array of shape [n] as one value per feature."""
    array = as_float_array(name, value, ndim=None)
    if array.ndim > 1 or (array.ndim == 1 and array.size != n):
        raise ValueError(f"{name} must be a scalar or have shape ({n},), got shape {array.shape}")
    return np.ascontiguousarray(np.broadcast_to(array, (n,)))


def as_eps(eps: Any, n: int) -> FloatArray:
    """Return the start ``w(0) = eps > 0`` as one value per feature, shape [n]."""
    array = require_finite("eps", as_per_feature("eps", eps, n))
    if not (array > 0).all():
        k = int(np.argmax(~(array > 0)))
        raise ValueError(f"eps must be positive, got {array[k]} for feature {k}")
    return array


def as_response(w: Any, n: int) -> FloatArray:
    """Return responses ``w >= 0`` as one value per feature, shape [n]."""
    array = as_per_feature("w", w, n)
    if not (array >= 0).all():
        k = int(np.argmax(~(array >= 0)))
        raise ValueError(f"w must be non-negative, got {array[k]} for feature {k}")
    return array


def as_times(t: Any, n: int) -> FloatArray:
    """Return output times: non-negative, non-decreasing, inf allowed; shape [m], or [n, m] for one row per feature."""
    array = as_float_array("t", t, ndim=None)
    if array.ndim == 0:
        array = array.reshape(1)
    if array.ndim > 2 or (array.ndim == 2 and array.shape[0] != n):
        raise ValueError(f"t must have shape (m,) or ({n}, m), one row per feature; got shape {array.shape}")
    if np.isnan(array).any():
        where = tuple(int(k) for k in np.argwhere(np.isnan(array))[0])
        raise ValueError(f"t must not hold NaN, got it at index {where if len(where) > 1 else where[0]}")
    if array.size and array.min() < 0:
        raise ValueError(f"t is time since the start and must be non-negative, got {array.min()}")
    if array.shape[-1] > 1 and (array[..., 1:] < array[..., :-1]).any():
        raise ValueError("t must be non-decreasing; sort it first (np.sort)")
    return array


def as_choice(name: str, value: Any, choices: Sequence[_Choice]) -> _Choice:
    """Return ``value`` if it is one of ``choices``."""
    for choice in choices:
        if isinstance(value, str) and value == choice:
            return choice
    raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def as_flag(name: str, value: Any) -> bool:
    """Return True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def as_generator(rng: int | np.random.Generator) -> np.random.Generator:
    """Return the source of random numbers; a whole number is a seed."""
    if isinstance(rng, np.random.Generator):
        return rng
    return np.random.default_rng(as_index("rng", rng))
