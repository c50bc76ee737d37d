"""What two objectives have in common when they are stopped early (THEORY.md 5, claim 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ._frozen import FrozenArrays, read_only
from ._validate import FloatArray, as_choice, as_float_array
from .learning import THRESHOLDS, Threshold, crossing_times, learning_times
from .objectives import JEPA, MAE, ObjectiveLike
from .solve import solve
from .theory import fixed_point

if TYPE_CHECKING:
    import numpy.typing as npt

    from .flow import Flow
    from .network import LinearNetwork
    from .spectrum import Spectrum

__all__ = ["Overlap", "linear_cka", "overlap", "overlap_of_flows", "representation_overlap"]


@dataclass(frozen=True, eq=False)
class Overlap(FrozenArrays):
    """What two objectives share when each is stopped after ``k`` features (THEORY.md 5, claim 6).

    Attributes
    ----------
    k : array of shape [K]
        By default ``1 .. K`` with ``K`` the number of features that both objectives learn at least.
    time_a, time_b : arrays of shape [K]
        When each objective is stopped: the time of its own ``k``-th feature (flow time).
    shared : array of shape [K]
        Number of features in both learned sets.
    coefficient, jaccard : arrays of shape [K]
        ``|A & B| / min(|A|, |B|)`` and ``|A & B| / |A | B|`` of the learned sets. The sets hold
        ``k`` features, more where times tie.
    chance : array of shape [K]
        Expected `coefficient` of two random orders of all ``n`` features, ``k / n``.
    representation : array of shape [K]
        Overlap of the two encoders at those times, between 0 and 1. Feature ``i`` contributes
        ``w_i^2 sigma_i^2`` to the variance of the representation; this is the cosine between the
        two vectors of contributions. For aligned features it equals the linear centred kernel
        alignment (CKA) of the two representations.
    """

    k: npt.NDArray[np.intp]
    time_a: FloatArray = field(repr=False)
    time_b: FloatArray = field(repr=False)
    shared: npt.NDArray[np.intp] = field(repr=False)
    coefficient: FloatArray = field(repr=False)
    jaccard: FloatArray = field(repr=False)
    chance: FloatArray = field(repr=False)
    representation: FloatArray = field(repr=False)


def overlap(
    spec: Spectrum,
    *,
    depth: float,
    eps: float | FloatArray,
    fraction: float = 0.5,
    threshold: Threshold = "fixed_point",
    min_growth: float = 1.0,
    a: ObjectiveLike = "jepa",
    b: ObjectiveLike = "mae",
    k: Any = None,
) -> Overlap:
    """Return what two objectives share under early stopping (THEORY.md 5, claim 6).

    Parameters
    ----------
    spec, depth, eps, fraction, threshold, min_growth
        As in `learning_times` (``threshold="final"`` has no meaning here).
    a, b : objectives
        By default JEPA and MAE.
    k : int or array of ints, optional
        After how many features to stop, each at least 1, sorted in the result; more than both objectives learn are left
        out. By default after each, which for n features takes time and memory in proportion to n^2.

    Examples
    --------
    >>> import jepa_ode as jo
    >>> spec = jo.Spectrum([1.0, 0.9, 0.8], sigma2=[2.0, 1.2, 0.84])
    >>> jo.overlap(spec, depth=4, eps=0.01).shared
    array([0, 1, 3])
    """
    as_choice("threshold", threshold, THRESHOLDS[:2])
    times_a, times_b = (
        learning_times(spec, each, depth=depth, eps=eps, fraction=fraction, threshold=threshold, min_growth=min_growth)
        for each in (a, b)
    )
    sets, stops = _stopped(times_a, times_b, k)
    parts = [
        _contributions(spec, solve(spec, objective, depth=depth, eps=eps, t=stop).w)
        for objective, stop in zip((a, b), stops, strict=True)
    ]
    return Overlap(**sets, representation=read_only(np.einsum("km,km->m", *parts)))


def overlap_of_flows(a: Flow, b: Flow, *, fraction: float = 0.5, k: Any = None) -> Overlap:
    """Return what the networks of two flows have in common when each is stopped after ``k`` features, as `overlap` does.

    Parameters
    ----------
    a, b : Flow
        On the same data and features, with ``keep_weights=True``. Their times should be dense: a network is stopped at the
        first one at which it has learned its ``k``-th feature.
    fraction : float, default 0.5
        Of the fixed point that the scalar theory gives a feature. A network has learned a feature from when on its
        response stays above that, see `crossing_times`.
    k : int or array of ints, optional
        As in `overlap`.

    Returns
    -------
    Overlap
        Whose `representation` is the `linear_cka` of the two networks.

    Examples
    --------
    >>> import numpy as np
    >>> import jepa_ode as jo
    >>> cov = jo.StaticModel.from_spectrum(jo.Spectrum([1.0, 0.9, 0.8], sigma2=[2.0, 1.2, 0.84])).covariances()
    >>> net = jo.LinearNetwork.balanced(3, depth=4, eps=0.01)
    >>> times = {"jepa": np.geomspace(100, 1e4, 500), "mae": np.geomspace(1, 100, 500)}
    >>> jepa, mae = (jo.gradient_flow(net, cov, each, t=t, keep_weights=True) for each, t in times.items())
    >>> jo.overlap_of_flows(jepa, mae).shared
    array([0, 1, 3])
    """
    duals = np.asarray(a.features.duals)  # a flow has them
    if not np.array_equal(duals, np.asarray(b.features.duals)):
        raise ValueError("a and b must be flows on the same data, with the same features")
    times_a, times_b = (_learned_by(flow, fraction) for flow in (a, b))
    sets, (stop_a, stop_b) = _stopped(times_a, times_b, k)
    alike = [
        linear_cka(one, other, duals @ duals.T)
        for one, other in zip(_networks_at(a, stop_a), _networks_at(b, stop_b), strict=True)
    ]
    return Overlap(**sets, representation=read_only(np.array(alike)))


def _learned_by(flow: Flow, fraction: float) -> FloatArray:
    """Return from when on each response of a flow is at the fraction of its fixed point; what does not grow is not learned."""
    plain = JEPA() if isinstance(flow.objective, JEPA) else MAE()
    level = fraction * fixed_point(flow.features, plain, depth=flow.start.depth)
    start = flow.start.response(np.asarray(flow.features.duals))
    return np.where(level > start, crossing_times(flow.t, flow.response, level), math.inf)


def _networks_at(flow: Flow, times: FloatArray) -> list[LinearNetwork]:
    return [flow.network(int(k)) for k in np.searchsorted(flow.t, times)]


def representation_overlap(spec: Spectrum, w_a: FloatArray, w_b: FloatArray) -> FloatArray:
    """Return the overlap of the representations of encoders whose responses are known, as in `Overlap.representation`.

    Parameters
    ----------
    spec : Spectrum
    w_a, w_b : arrays of shape [n, a] and [n, b]
        Responses of the encoders to compare, one encoder a column.

    Returns
    -------
    array of shape [a, b]
        Between 0 and 1, of each of ``a`` with each of ``b``; NaN for an encoder that responds to nothing. For features
        that couple it is no CKA: `linear_cka` compares the networks themselves.

    Examples
    --------
    >>> import jepa_ode as jo
    >>> spec = jo.Spectrum([1.0, 0.9, 0.8], sigma2=[2.0, 1.2, 0.84])
    >>> jepa, mae = (jo.solve(spec, each, depth=4, eps=0.01, t=[0.0, 1e4, 1e5]).w for each in ("jepa", "mae"))
    >>> jo.representation_overlap(spec, jepa, mae).round(2)[[0, 2], [0, 2]]  # at the start, and in the end
    array([1.  , 0.73])
    """
    a, b = (_contributions(spec, as_float_array(name, w, ndim=2)) for name, w in (("w_a", w_a), ("w_b", w_b)))
    return np.asarray(a.T @ b)


def linear_cka(a: LinearNetwork, b: LinearNetwork, Sxx: FloatArray) -> float:
    """Return the linear centred kernel alignment of the representations of two networks, between 0 and 1.

    ``|A Sxx B^T|^2 / (|A Sxx A^T| |B Sxx B^T|)`` in Frobenius norms for the encoders ``A, B``: Kornblith, Norouzi, Lee &
    Hinton, *Similarity of neural network representations revisited*, ICML 2019.

    Parameters
    ----------
    a, b : LinearNetwork
    Sxx : array of shape [d, d]
        Covariance of their input.

    Returns
    -------
    float
        NaN where one of the representations does not vary.

    Examples
    --------
    >>> import numpy as np
    >>> import jepa_ode as jo
    >>> one, other = (jo.LinearNetwork.balanced(2, 1, eps=eps) for eps in ([0.5, 1e-3], [1e-3, 0.5]))
    >>> round(jo.linear_cka(one, other, np.eye(2)), 4)
    0.0
    """
    encoders = [net.encoder_product() for net in (a, b)]
    sizes = [float(np.abs(encoder).max()) for encoder in encoders]
    if min(sizes) == 0:
        return math.nan
    A, B = (encoder / size for encoder, size in zip(encoders, sizes, strict=True))  # squares of tiny ones would vanish
    norms = float(np.linalg.norm(A @ Sxx @ A.T) * np.linalg.norm(B @ Sxx @ B.T))
    return float(np.linalg.norm(A @ Sxx @ B.T) ** 2) / norms if norms > 0 else math.nan


def _contributions(spec: Spectrum, w: FloatArray) -> FloatArray:
    """Return the contributions of the features to the variance of each representation, columns of length 1."""
    # Relative variances: the overlap has no unit, and squares of tiny ones would vanish.
    weight = spec.sigma2 / spec.sigma2.max(initial=np.finfo(np.float64).tiny)
    parts = w**2 * weight[:, None]
    norms = np.linalg.norm(parts, axis=0)
    return np.asarray(parts / np.where(norms > 0, norms, math.nan))


def _stopped(times_a: FloatArray, times_b: FloatArray, k: Any) -> tuple[dict[str, Any], tuple[FloatArray, FloatArray]]:
    """Return what the sets learned after ``k`` features have in common, by the names of `Overlap`, and when that is."""
    count = min(int(np.count_nonzero(np.isfinite(times))) for times in (times_a, times_b))
    numbers = np.arange(1, count + 1) if k is None else _as_numbers(k, count)
    stop_a, stop_b = (np.sort(times)[numbers - 1] for times in (times_a, times_b))
    set_a, set_b = times_a <= stop_a[:, None], times_b <= stop_b[:, None]
    shared = np.count_nonzero(set_a & set_b, axis=1)
    smaller = np.minimum(set_a.sum(axis=1), set_b.sum(axis=1))
    sets = {
        "k": numbers,
        "time_a": stop_a,
        "time_b": stop_b,
        "shared": shared,
        "coefficient": shared / smaller,
        "jaccard": shared / np.count_nonzero(set_a | set_b, axis=1),
        "chance": numbers / max(times_a.size, 1),
    }
    return {name: read_only(array) for name, array in sets.items()}, (stop_a, stop_b)


def _as_numbers(k: Any, count: int) -> npt.NDArray[np.intp]:
    """Return the whole numbers ``k`` that are not above ``count``, in order."""
    numbers = np.atleast_1d(np.asarray(k))
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or (numbers < 1).any():
        raise ValueError(f"k must be whole numbers of features, 1 or more, got {k!r}")
    return np.unique(numbers[numbers <= count]).astype(np.intp)
