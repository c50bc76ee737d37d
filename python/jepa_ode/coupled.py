"""The flow of a network in feature coordinates: the coupled feature equations (THEORY.md 6)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ._core import engine
from ._frozen import FrozenArrays, read_only
from ._validate import FloatArray
from .diagnostic import feature_coupling, total_coupling
from .eigenproblem import solve_eigenproblem
from .flow_problem import moments, network_flow, require_fit, start_state, unpack_layers
from .network import LinearNetwork
from .objectives import JEPA, Objective, ObjectiveLike, as_objective

if TYPE_CHECKING:
    from .covariances import Covariances

__all__ = ["CoupledFeatures"]

# Beyond rounding, a part of Syx that is not symmetric would be left out of the flow.
_ASYMMETRY = 1e-10


@dataclass(frozen=True, init=False, eq=False, repr=False)
class CoupledFeatures(FrozenArrays):
    r"""Exchangeable data in the coordinates of their features, and the flow of a network there (THEORY.md 6).

    With :math:`P = S_{xx} Q` the covariances are :math:`S_{xx} = P P^T` and :math:`S_{yx} = P\,\mathrm{diag}(\rho) P^T`, and
    the amplitudes :math:`Q^T x` of the features have the identity for their covariance. A network is written in them by
    its first layer, :math:`\hat W^1 = W^1 P`, so that column i of :math:`C = W^L \cdots W^2 \hat W^1` is its response to
    feature i. Then

    .. math::

        e_{JEPA} = V C - C\,\mathrm{diag}(\rho), \quad e_{MAE} = V C - P\,\mathrm{diag}(\rho), \qquad
        \dot V = -e C^T, \quad \dot{\hat W}^1 = -(W^L \cdots W^2)^T V^T e M .

    Features are coupled by the entries of :math:`M = P^T P` off its diagonal and by nothing else.

    Parameters
    ----------
    cov : Covariances
        Of exchangeable views, whose ``Syx`` is symmetric, with an ``Sxx`` of full rank. ``Syy`` is needed where a flow
        needs it.

    Attributes
    ----------
    rho : array [d]
        Regression coefficients, descending.
    coupling_matrix : array [d, d]
        ``M = P^T P``; its diagonal is ``lam / rho``.
    feature_coupling : array [d]
        Per feature the sum of ``M_ij^2 / (M_ii M_jj)`` over ``j != i``: 0 where it obeys its own equation.
    coupling : float
        ``||offdiag M|| / ||diag M||``, of all features together.
    directions, duals : arrays [d, d]
        ``Q`` and ``P``, as those of `Covariances.spectrum`.

    Raises
    ------
    TypeError, ValueError
        For covariances whose features do not span the data, or that are not those of exchangeable views.

    Notes
    -----
    THEORY.md writes MAE's decoder in feature coordinates too, ``Q^T V``. Here it stays as it is: that takes one product
    of matrices less, as no ``M`` stands between the two.

    Examples
    --------
    >>> import numpy as np
    >>> import jepa_ode as jo
    >>> coupled = jo.CoupledFeatures(jo.Covariances(np.array([[1.0, 0.3], [0.3, 1.0]]), np.diag([0.6, 0.5])))
    >>> coupled.coupling_matrix.round(2)
    array([[0.71, 0.08],
           [0.08, 1.29]])
    >>> coupled
    CoupledFeatures(2 features, rho 0.416..0.793, coupling 0.0801)
    """

    rho: FloatArray
    coupling_matrix: FloatArray
    directions: FloatArray
    duals: FloatArray
    feature_coupling: FloatArray
    coupling: float
    _Syx: FloatArray = field(repr=False)
    _Syy: FloatArray | None = field(repr=False)

    def __init__(self, cov: Covariances) -> None:
        Sxx = moments(cov, "Sxx")
        Syx = moments(cov, "Syx", len(Sxx))
        Syy = None if getattr(cov, "Syy", None) is None else moments(cov, "Syy", len(Sxx))
        largest = float(np.abs(Syx).max(initial=0.0))
        asymmetry = float(np.abs(Syx - Syx.T).max(initial=0.0)) / (largest or 1.0)
        if asymmetry > _ASYMMETRY:
            raise ValueError(
                f"feature coordinates need exchangeable views, but cov.Syx differs from its transpose by {asymmetry:.1e} of "
                "its largest entry; Covariances.from_pairs(..., exchangeable=True) averages over their exchange, and "
                'gradient_flow(..., coordinates="data") takes any data'
            )
        features = solve_eigenproblem(Sxx, Syx / 2 + Syx.T / 2)
        if features.rho.size < len(Sxx):
            raise ValueError(
                f"feature coordinates need an Sxx of full rank, but x varies along {features.rho.size} of {len(Sxx)} "
                'directions; gradient_flow(..., coordinates="data") takes any data'
            )
        M = features.duals.T @ features.duals
        values = {
            "rho": features.rho,
            "coupling_matrix": M,
            "directions": features.directions,
            "duals": features.duals,
            "feature_coupling": feature_coupling(M),
            "_Syx": Syx,
            "_Syy": Syy,
        }
        for name, array in values.items():
            object.__setattr__(self, name, None if array is None else read_only(array))
        object.__setattr__(self, "coupling", total_coupling(M))

    def to_features(self, net: LinearNetwork) -> LinearNetwork:
        """Return ``net`` in feature coordinates: its first layer is ``W^1 P``, the others are the same."""
        self._require_width(net)
        return LinearNetwork([net.encoder[0] @ self.duals, *net.encoder[1:]], net.predictor)

    def to_data(self, net: LinearNetwork) -> LinearNetwork:
        """Return ``net``, given in feature coordinates, in those of the data."""
        self._require_width(net)
        return LinearNetwork([net.encoder[0] @ self.directions.T, *net.encoder[1:]], net.predictor)

    def velocity(
        self, net: LinearNetwork, objective: ObjectiveLike, *, predictor_rate: float = 1.0
    ) -> tuple[tuple[FloatArray, ...], FloatArray]:
        """Return the right-hand side of the coupled feature equations.

        Parameters
        ----------
        net : LinearNetwork
            In feature coordinates. A moving-average target is taken to be equal to its encoder.
        objective : JEPA, MAE, "jepa" or "mae"
        predictor_rate : float, default 1.0
            As in `gradient_flow`.

        Returns
        -------
        encoder : tuple of arrays
            The derivatives of ``What^1, W^2, ..., W^L`` with respect to time, with their shapes.
        predictor : array
            That of ``V``.

        Examples
        --------
        Without coupling and from an aligned start a feature moves by itself, at the rate of its own equation:

        >>> import numpy as np
        >>> import jepa_ode as jo
        >>> coupled = jo.CoupledFeatures(jo.Covariances(np.eye(2), np.diag([0.9, 0.4])))
        >>> net = coupled.to_features(jo.LinearNetwork.balanced(2, depth=1, eps=0.1))
        >>> encoder, predictor = coupled.velocity(net, "jepa")
        >>> np.diag(predictor).round(12)  # w^2 (lam - sigma2 w)
        array([0.008, 0.003])
        """
        self._require_width(net)
        objective = as_objective(objective)
        require_fit(net, objective, self._Syy)
        moved = self.network_flow(net, objective, predictor_rate).velocity(start_state(net, objective))
        layers = unpack_layers(moved[: sum(block.size for block in (*net.encoder, net.predictor))], net)
        return tuple(layers[:-1]), layers[-1]

    def network_flow(self, net: LinearNetwork, objective: Objective, predictor_rate: float) -> engine.NetworkFlow:
        """Return the engine's flow in feature coordinates."""
        if isinstance(objective, JEPA):
            yy = None if self._Syy is None else self.directions.T @ self._Syy @ self.directions
            return network_flow(
                net, objective, None, None, yy, predictor_rate, coupling=self.coupling_matrix, rho=self.rho
            )
        yx = self._Syx @ self.directions
        return network_flow(net, objective, None, yx, self._Syy, predictor_rate, coupling=self.coupling_matrix)

    def _require_width(self, net: LinearNetwork) -> None:
        if net.widths[0] != self.rho.size:
            raise ValueError(
                f"net must have the input width {self.rho.size}, the number of features, got {net.widths[0]}"
            )

    def __repr__(self) -> str:
        return (
            f"CoupledFeatures({self.rho.size} features, rho {self.rho.min():.3g}..{self.rho.max():.3g}, "
            f"coupling {self.coupling:.3g})"
        )
