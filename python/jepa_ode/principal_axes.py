"""The flow of a network in the principal axes of its input, where it is cheapest (THEORY.md 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._validate import FloatArray
from .network import LinearNetwork
from .objectives import JEPA, Objective

if TYPE_CHECKING:
    from ._core import engine

__all__ = ["PrincipalAxes"]


class PrincipalAxes:
    """Data whose x is turned so that ``Sxx`` is diagonal; JEPA's target, which passes the same encoder, turns with it.

    The product with ``Sxx`` then costs nothing: of the 3L + 2 products of a right-hand side of JEPA 3L + 1 are left. A turn
    keeps all norms of the first layer ``W^1 U``, hence the meaning of tolerances, and it has no condition number: nothing is
    lost but rounding. Data with a diagonal ``Sxx`` are not turned at all.
    """

    def __init__(self, xx: FloatArray, yx: FloatArray, yy: FloatArray | None) -> None:
        diagonal = np.diag(xx)
        self.turn: FloatArray | None = None  # [d, d], its columns are the axes
        self.variances, self.yx, self.yy = np.ascontiguousarray(diagonal), yx, yy
        if np.count_nonzero(xx - np.diag(diagonal)):
            self.variances, self.turn = np.linalg.eigh(xx)

    def network_flow(self, net: LinearNetwork, objective: Objective, predictor_rate: float) -> engine.NetworkFlow:
        """Return the engine's flow along the axes."""
        from .flow_problem import network_flow

        yx, yy, turn = self.yx, self.yy, self.turn
        if turn is not None:
            yx = yx @ turn
            if isinstance(objective, JEPA):
                yx = turn.T @ yx
                yy = None if yy is None else turn.T @ yy @ turn
        return network_flow(net, objective, self.variances, yx, yy, predictor_rate)
