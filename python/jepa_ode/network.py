"""Deep linear networks: an encoder of ``L`` linear layers and a linear predictor (THEORY.md 1)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ._validate import (
    FloatArray,
    as_choice,
    as_eps,
    as_float_array,
    as_generator,
    as_index,
    as_per_feature,
    as_positive,
    require_finite,
)

__all__ = ["LinearNetwork"]


@dataclass(frozen=True, init=False, eq=False, repr=False)
class LinearNetwork:
    """The weights of a deep linear encoder and of its predictor.

    The encoder is ``Wbar = W^L ... W^1``, the predictor ``V``.

    Parameters
    ----------
    encoder : sequence of arrays
        ``W^1, ..., W^L``, ``W^l`` of shape [h_l, h_(l-1)] with ``h_0 = d`` the dimension of the data.
    predictor : array [outputs, h_L]
        ``V``. JEPA predicts the encoding (``outputs = h_L``), MAE decodes the data (``outputs = d``).

    Raises
    ------
    TypeError, ValueError
        When a weight is not a finite, real matrix, or when shapes do not chain.

    Notes
    -----
    Arrays are copied and read-only. Two networks are equal when all their weights are.

    Examples
    --------
    >>> import numpy as np
    >>> import jepa_ode as jo
    >>> net = jo.LinearNetwork.balanced(3, depth=2, eps=0.01)
    >>> net
    LinearNetwork(depth=2, widths=(3, 3, 3), predictor=(3, 3))
    >>> bool(np.allclose(net.encoder_product(), 0.01 * np.eye(3)))
    True
    """

    encoder: tuple[FloatArray, ...]
    predictor: FloatArray

    def __init__(self, encoder: Iterable[Any], predictor: Any) -> None:
        if isinstance(encoder, np.ndarray) and encoder.ndim == 2:
            raise TypeError("encoder must be a sequence of matrices; write encoder=[W] for depth 1")
        layers = tuple(_as_weights(f"encoder[{k}]", weights) for k, weights in enumerate(encoder))
        if not layers:
            raise ValueError("encoder must have at least one layer, got an empty sequence")
        for k in range(1, len(layers)):
            if layers[k].shape[1] != layers[k - 1].shape[0]:
                raise ValueError(
                    f"encoder[{k}] must have {layers[k - 1].shape[0]} columns, the rows of "
                    f"encoder[{k - 1}], got shape {layers[k].shape}"
                )
        weights = _as_weights("predictor", predictor)
        if weights.shape[1] != layers[-1].shape[0]:
            raise ValueError(
                f"predictor must have {layers[-1].shape[0]} columns, the rows of the last encoder "
                f"layer, got shape {weights.shape}"
            )
        object.__setattr__(self, "encoder", layers)
        object.__setattr__(self, "predictor", weights)

    # --- starts ---------------------------------------------------------------------------------

    @classmethod
    def balanced(
        cls,
        d: int,
        depth: int,
        eps: Any,
        rng: int | np.random.Generator = 0,
        basis: Any = None,
        *,
        v0: Any = None,
        widths: int | Sequence[int] | None = None,
        objective: str = "jepa",
    ) -> LinearNetwork:
        """Return the aligned balanced start of THEORY.md 2, for which the scalar theory is exact on paper.

        ``W^l = U_l diag(eps^(1/L)) U_(l-1)^T`` with ``U_0 = U_L = basis`` and random orthogonal ``U_1, ..., U_(L-1)``,
        ``V = basis diag(eps^(1/L)) basis^T``. So ``Wbar = basis diag(eps) basis^T``, which for one ``eps`` and a full basis
        is ``eps I``: aligned with any data and for both objectives, whatever the basis.

        Parameters
        ----------
        d : int
            Dimension of the data.
        depth : int
            Number ``L >= 1`` of encoder layers.
        eps : float or array [k]
            Encoder response at the start, ``w(0) = eps > 0``, for all columns of the basis or for each of them. Where
            they differ the start is aligned with data whose features do not couple and have the basis for their
            directions.
        rng : int or numpy.random.Generator, default 0
            Randomness of the orthogonal frames between the layers.
        basis : array [d, k], optional
            Orthonormal columns, ``k <= d``; default the identity. With ``k < d`` the hidden layers have width ``k``
            and the network sees the span of the basis only: directions outside start at 0 and stay there while the
            data do not mix them in.
        v0 : float or array [k], optional
            Start of the predictor, of any sign, as in `solve`: ``V = basis diag(v0) basis^T``, aligned but not balanced.
            None is the balanced ``eps^(1/L)``.
        widths : int or sequence of int, optional
            Widths ``h_1, ..., h_L >= k`` of the layers' outputs, or one width for all; default ``k, ..., k, d``. The
            frames ``U_l`` [h_l, k] then have random orthonormal columns; only a last width of ``d`` keeps ``U_L = basis``.
        objective : "jepa" or "mae", default "jepa"
            Shapes the predictor: ``U_L diag(v0) U_L^T`` [h_L, h_L] for JEPA, ``basis diag(v0) U_L^T`` [d, h_L] for MAE.
            The same when ``h_L = d``.

        Returns
        -------
        LinearNetwork
            By default with layers of widths ``(d, k, ..., k, d)`` and a predictor [d, d].

        Raises
        ------
        TypeError, ValueError
            For a size, depth, eps, v0, width or objective out of range, or a basis whose columns are not orthonormal.

        Notes
        -----
        On data whose features do not couple, the exact flow keeps the network aligned, and each response follows its
        own equation. But with JEPA the aligned solution can be unstable. Along the long plateau of a small ``eps``
        couplings grow, those that rounding leaves off the diagonal too, and once a strong noisy feature is learned,
        predictable ones can overtake it. Where ``lam`` and ``rho`` rank the features in opposite orders, the computed
        flow may then be far from the scalar theory: for exactly diagonal data at depth 2
        (``feature_trends(10, "opposite", lam=(0.5, 2.0), rho=(0.4, 0.9))``) the times to half of the fixed points
        differ by less than 0.1% in the median at ``eps = 1e-2``, and by 20% at ``eps = 1e-3``, where neighbours swap;
        other data end in nearly the reverse order. Such a flow depends on rounding, and so on the random frames between
        the layers; compare several ``rng``, or take a larger ``eps``.

        Examples
        --------
        >>> import numpy as np
        >>> import jepa_ode as jo
        >>> net = jo.LinearNetwork.balanced(4, depth=3, eps=0.1, basis=np.eye(4)[:, :2])
        >>> net.widths
        (4, 2, 2, 4)
        >>> max(float(abs(drift).max()) for drift in net.balancedness()) < 1e-15
        True
        >>> jo.LinearNetwork.balanced(4, depth=2, eps=0.1, v0=0.5, widths=[8, 6], objective="mae")
        LinearNetwork(depth=2, widths=(4, 8, 6), predictor=(4, 6))
        """
        d = as_index("d", d, minimum=1)
        depth = as_index("depth", depth, minimum=1)
        generator = as_generator(rng)
        frame = np.eye(d) if basis is None else _as_basis(basis, d)
        k = frame.shape[1]
        a = as_eps(eps, k) ** (1 / depth)
        v = a if v0 is None else require_finite("v0", as_per_feature("v0", v0, k))
        sizes = [k] * (depth - 1) + [d] if widths is None else _as_widths(widths, d, depth, minimum=k)
        frames = [frame, *(random_orthonormal(size, k, generator) for size in sizes[:-1])]
        frames.append(frame if sizes[-1] == d else random_orthonormal(sizes[-1], k, generator))
        outputs = frame if as_choice("objective", objective, ("jepa", "mae")) == "mae" else frames[-1]
        layers = [(frames[i + 1] * a) @ frames[i].T for i in range(depth)]
        return cls(layers, (outputs * v) @ frames[-1].T)

    @classmethod
    def random(
        cls,
        d: int,
        depth: int,
        scale: float = 1.0,
        rng: int | np.random.Generator = 0,
        widths: int | Sequence[int] | None = None,
        objective: str = "jepa",
        distribution: str = "gaussian",
    ) -> LinearNetwork:
        """Return a random start: independent entries of standard deviation ``scale / sqrt(columns)``.

        Such a start is neither balanced nor aligned: the scalar theory describes its gradient flow approximately at
        best (THEORY.md 2).

        Parameters
        ----------
        d : int
            Dimension of the data.
        depth : int
            Number ``L >= 1`` of encoder layers.
        scale : float, default 1.0
            Scale of the entries; at 1 a layer preserves the norm of its input on average when it is square.
        rng : int or numpy.random.Generator, default 0
            Source of the entries.
        widths : int or sequence of int, optional
            Widths ``h_1, ..., h_L`` of the layers' outputs, or one width for all; default ``d``.
        objective : "jepa" or "mae", default "jepa"
            Shapes the predictor: [h_L, h_L] for JEPA, [d, h_L] for MAE. The same when ``h_L = d``.
        distribution : "gaussian" or "uniform", default "gaussian"
            Of the entries. Both have the same standard deviation; uniform ones lie within ``sqrt(3)`` of it.

        Returns
        -------
        LinearNetwork

        Raises
        ------
        TypeError, ValueError
            For a size, depth, scale, width, objective or distribution out of range.

        Examples
        --------
        >>> import jepa_ode as jo
        >>> jo.LinearNetwork.random(8, depth=2, scale=0.1, rng=1, widths=[6, 3])
        LinearNetwork(depth=2, widths=(8, 6, 3), predictor=(3, 3))
        """
        d = as_index("d", d, minimum=1)
        depth = as_index("depth", depth, minimum=1)
        scale = as_positive("scale", scale)
        generator = as_generator(rng)
        sizes = [d, *_as_widths(widths, d, depth)]
        outputs = d if as_choice("objective", objective, ("jepa", "mae")) == "mae" else sizes[-1]

        uniform = as_choice("distribution", distribution, ("gaussian", "uniform")) == "uniform"

        def draw(rows: int, columns: int) -> FloatArray:
            entries: FloatArray
            if uniform:
                entries = generator.uniform(-math.sqrt(3), math.sqrt(3), (rows, columns))
            else:
                entries = generator.standard_normal((rows, columns))
            return scale / math.sqrt(columns) * entries

        layers = [draw(sizes[i + 1], sizes[i]) for i in range(depth)]
        return cls(layers, draw(outputs, sizes[-1]))

    # --- what it computes -----------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """Number ``L`` of encoder layers."""
        return len(self.encoder)

    @property
    def widths(self) -> tuple[int, ...]:
        """``(d, h_1, ..., h_L)``: the dimension of the data, then of every layer's output."""
        return (self.encoder[0].shape[1], *(layer.shape[0] for layer in self.encoder))

    def encoder_product(self) -> FloatArray:
        """Return ``Wbar = W^L ... W^1``, shape [h_L, d]."""
        product = self.encoder[0]
        for layer in self.encoder[1:]:
            product = layer @ product
        return product.copy()

    def response(self, duals: Any) -> FloatArray:
        """Return the encoder response ``w_i = |Wbar p_i| / |p_i|`` to each column of ``duals`` (THEORY.md 6).

        Parameters
        ----------
        duals : array [d, n]
            Dual directions ``p_i = Sxx q_i``, for instance ``Spectrum.duals``; none may be zero.

        Returns
        -------
        array [n]

        Examples
        --------
        >>> import numpy as np
        >>> import jepa_ode as jo
        >>> jo.LinearNetwork.balanced(2, depth=1, eps=0.5).response(np.eye(2)).tolist()
        [0.5, 0.5]
        """
        encoded = self.encoder_product() @ as_directions(duals, self.widths[0])
        return np.asarray(np.linalg.norm(encoded, axis=0), dtype=np.float64)

    def balancedness(self, predictor_rate: float = 1.0) -> tuple[FloatArray, ...]:
        """Return the ``L`` matrices that gradient flow without decay conserves (THEORY.md 1).

        ``(W^(l+1))^T W^(l+1) - W^l (W^l)^T`` for ``l = 1 .. L-1``, then ``V^T V / predictor_rate - W^L (W^L)^T``. At a
        ``predictor_rate`` of 1 all are zero for a balanced network.

        Parameters
        ----------
        predictor_rate : float, default 1.0
            That of the flow (`gradient_flow`).
        """
        rate = as_positive("predictor_rate", predictor_rate)
        chain = (*self.encoder, self.predictor / math.sqrt(rate))
        return tuple(above.T @ above - below @ below.T for below, above in pairwise(chain))

    # --- value semantics ------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LinearNetwork):
            return NotImplemented
        mine, theirs = (*self.encoder, self.predictor), (*other.encoder, other.predictor)
        return len(mine) == len(theirs) and all(map(np.array_equal, mine, theirs))

    __hash__ = None  # type: ignore[assignment]  # equal by the content of arrays

    def __reduce__(self) -> tuple[type[LinearNetwork], tuple[tuple[FloatArray, ...], FloatArray]]:
        return LinearNetwork, (self.encoder, self.predictor)

    def __repr__(self) -> str:
        return f"LinearNetwork(depth={self.depth}, widths={self.widths}, predictor={self.predictor.shape})"


def as_directions(duals: Any, d: int) -> FloatArray:
    """Return the columns of ``duals`` [d, n], each divided by its norm."""
    columns = require_finite("duals", as_float_array("duals", duals, ndim=2))
    if columns.shape[0] != d:
        raise ValueError(f"duals must have shape ({d}, n), one column per feature, got {columns.shape}")
    largest = np.abs(columns).max(axis=0)
    if not (largest > 0).all():
        raise ValueError(f"duals must have non-zero columns, column {int(np.argmin(largest))} is zero")
    columns = columns / largest  # squares of the entries as they are could overflow or underflow
    unit: FloatArray = columns / np.linalg.norm(columns, axis=0)
    return unit


def _as_weights(name: str, value: Any) -> FloatArray:
    weights = require_finite(name, as_float_array(name, value, ndim=2)).copy()
    if 0 in weights.shape:
        raise ValueError(f"{name} must not be empty, got shape {weights.shape}")
    weights.setflags(write=False)
    return weights


def _as_basis(basis: Any, d: int) -> FloatArray:
    columns = require_finite("basis", as_float_array("basis", basis, ndim=2))
    if columns.shape[0] != d or not 1 <= columns.shape[1] <= d:
        raise ValueError(
            f"basis must have shape ({d}, k) with 1 <= k <= {d}, columns spanning what the encoder "
            f"sees, got shape {columns.shape}"
        )
    deviation = float(np.abs(columns.T @ columns - np.eye(columns.shape[1])).max())
    if deviation > 1e-10:  # far above rounding, far below any basis that is not meant to be orthonormal
        raise ValueError(
            f"basis must have orthonormal columns, but basis^T basis differs from the identity by "
            f"{deviation:.1e}; orthonormalise it first (numpy.linalg.qr)"
        )
    return columns


def _as_widths(widths: int | Sequence[int] | None, d: int, depth: int, minimum: int = 1) -> list[int]:
    if widths is None:
        return [d] * depth
    if not isinstance(widths, Sequence | np.ndarray):
        return [as_index("widths", widths, minimum=minimum)] * depth
    if len(widths) != depth:
        raise ValueError(f"widths must be one width or {depth} of them, one per layer, got {len(widths)}")
    return [as_index(f"widths[{k}]", width, minimum=minimum) for k, width in enumerate(widths)]


def random_orthonormal(rows: int, k: int, generator: np.random.Generator) -> FloatArray:
    """Return a random matrix [rows, k] with orthonormal columns."""
    # Haar-distributed columns: the QR factor of a Gaussian matrix once the signs of R's diagonal are fixed
    # (Mezzadri, Notices of the AMS 54, 2007).
    q, r = np.linalg.qr(generator.standard_normal((rows, k)))
    orthonormal: FloatArray = q * np.copysign(1.0, np.diag(r))
    return orthonormal
