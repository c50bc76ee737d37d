"""What is looked at in a network along its gradient flow, beside the responses and the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from ._frozen import read_only
from ._validate import FloatArray, as_choice, as_float_array
from .network import LinearNetwork

__all__ = ["balancedness", "effective_rank", "representation_covariance", "singular_values"]

Observable: TypeAlias = Callable[[LinearNetwork], Any]
Observables: TypeAlias = str | Iterable[str] | Mapping[str, str | Observable]

# The names that `gradient_flow(..., observe=...)` knows, and the dims of their values in `Flow.to_xarray`.
DIMS = {
    "balancedness": ("layer",),
    "singular_values": ("mode",),
    "representation_covariance": ("unit", "other_unit"),
    "effective_rank": (),
}
# Names in that dataset which the flow has for itself.
_TAKEN = ("response", "loss", "time", "feature", "lam", "rho", "sigma2", "crossing_time", "plateaus")


def balancedness(net: LinearNetwork, predictor_rate: float = 1.0) -> FloatArray:
    """Return the Frobenius norms of the ``L`` matrices that the flow conserves, see `LinearNetwork.balancedness`.

    Returns
    -------
    array [L]

    Examples
    --------
    >>> import jepa_ode as jo
    >>> jo.observables.balancedness(jo.LinearNetwork.balanced(1, depth=2, eps=0.25, v0=1.0)).tolist()
    [0.0, 0.75]
    """
    return np.array([float(np.linalg.norm(matrix)) for matrix in net.balancedness(predictor_rate)])


def singular_values(net: LinearNetwork) -> FloatArray:
    """Return the singular values of the encoder ``Wbar``, the largest first.

    Returns
    -------
    array [min(h_L, d)]
    """
    return np.asarray(np.linalg.svd(net.encoder_product(), compute_uv=False), dtype=np.float64)


def representation_covariance(net: LinearNetwork, Sxx: FloatArray) -> FloatArray:
    """Return the covariance ``Wbar Sxx Wbar^T`` of the representation.

    Returns
    -------
    array [h_L, h_L]
    """
    encoder = net.encoder_product()
    covariance = encoder @ Sxx @ encoder.T
    symmetric: FloatArray = covariance / 2 + covariance.T / 2
    return symmetric


def effective_rank(net: LinearNetwork, Sxx: FloatArray) -> float:
    """Return the effective rank of the representation's covariance: between 1 and ``h_L``; 0 where nothing varies.

    The exponential of the entropy of its eigenvalues, divided by their sum: Roy & Vetterli, *The effective rank: a measure
    of effective dimensionality*, EUSIPCO 2007, 606-610.

    Examples
    --------
    >>> import numpy as np
    >>> import jepa_ode as jo
    >>> net = jo.LinearNetwork.balanced(3, depth=1, eps=0.1)
    >>> jo.observables.effective_rank(net, np.diag([1.0, 1.0, 0.0])).round(12)
    np.float64(2.0)
    """
    eigenvalues = np.clip(np.linalg.eigvalsh(representation_covariance(net, Sxx)), 0, None)  # rounding may go below 0
    largest = eigenvalues[-1]
    if largest == 0:
        return 0.0
    parts = eigenvalues / largest  # a sum of the largest numbers could overflow
    parts = parts[parts > 0] / parts.sum()
    return np.exp(-np.sum(parts * np.log(parts)))  # type: ignore[no-any-return]


def as_observables(observe: Any, Sxx: FloatArray, predictor_rate: float) -> dict[str, Observable]:
    """Return what to observe as functions of the network alone, by their names in the result."""
    known: dict[str, Observable] = {
        "balancedness": partial(balancedness, predictor_rate=predictor_rate),
        "singular_values": singular_values,
        "representation_covariance": partial(representation_covariance, Sxx=Sxx),
        "effective_rank": partial(effective_rank, Sxx=Sxx),
    }
    if isinstance(observe, str):
        observe = [observe]
    if not isinstance(observe, Iterable):
        raise TypeError(f"observe must be names, or a mapping of names to functions of a network, got {observe!r}")
    if not isinstance(observe, Mapping):
        observe = {as_choice("observe", name, list(known)): name for name in observe}
    chosen: dict[str, Observable] = {}
    for name, what in observe.items():
        if not isinstance(name, str):
            raise TypeError(f"observe must have strings as keys, the names of the results, got {name!r}")
        if name in _TAKEN:
            raise ValueError(f"observe must not give the name {name!r}, which the flow has for itself")
        chosen[name] = what if callable(what) else known[as_choice(f"observe[{name!r}]", what, list(known))]
    return chosen


class Record:
    """Values of observables along a flow of ``count`` output times."""

    def __init__(self, observables: Mapping[str, Observable], count: int) -> None:
        self._observables = observables
        self._count = count
        self._arrays: dict[str, FloatArray] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._observables)

    def look(self, k: int, net: LinearNetwork) -> None:
        """Fill row ``k``."""
        for name in self._observables:
            value = self._value(name, net)
            rows = self._rows(name, value)
            if value.shape != rows.shape[1:]:
                raise ValueError(
                    f"observe[{name!r}] must return arrays of one shape, got {rows.shape[1:]} and then {value.shape}"
                )
            rows[k] = value

    def arrays(self, start: LinearNetwork) -> Mapping[str, FloatArray]:
        """Return the rows, NaN where nothing was seen; ``start`` tells their shapes where none was."""
        return MappingProxyType(
            {
                name: read_only(
                    self._arrays[name] if name in self._arrays else self._rows(name, self._value(name, start))
                )
                for name in self._observables
            }
        )

    def _value(self, name: str, net: LinearNetwork) -> FloatArray:
        return as_float_array(f"the value of observe[{name!r}]", self._observables[name](net), ndim=None)

    def _rows(self, name: str, value: FloatArray) -> FloatArray:
        if name not in self._arrays:
            self._arrays[name] = np.full((self._count, *value.shape), np.nan)
        return self._arrays[name]
