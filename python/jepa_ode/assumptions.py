"""How far a network, its data and its training are from what the scalar theory assumes (THEORY.md 2 and 6)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ._frozen import FrozenArrays, read_only
from ._validate import FloatArray
from .diagnostic import feature_coupling, total_coupling
from .network import LinearNetwork, as_directions
from .objectives import JEPA, Objective
from .training import Training

if TYPE_CHECKING:
    from .flow import Flow

__all__ = ["Assumptions", "assumptions_of"]


@dataclass(frozen=True, eq=False, repr=False)
class Assumptions(FrozenArrays):
    """By how much the assumptions of the scalar theory are violated: all numbers are 0 where it is exact.

    Attributes
    ----------
    coupling : array of shape [n]
        Per feature the sum of ``M_ij^2 / (M_ii M_jj)`` over ``j != i`` (THEORY.md 6).
    total_coupling : float
        ``||offdiag M|| / ||diag M||``, of all features together.
    imbalance : float
        Of the start: the largest norm of the matrices that the flow conserves and that are 0 for a balanced network
        (`LinearNetwork.balancedness`), in units of the squared norm of the larger of the two layers.
    misalignment : array of shape [n]
        Of the start: the sine of the angle between what is predicted from a feature alone, ``V Wbar p_i``, and where its
        target lies, ``Wbar p_i`` for JEPA and ``p_i`` for MAE.
    departures : tuple of str
        What else the plain gradient flow does not have: options of the objective, a learning rate of the predictor's own,
        steps of finite length, minibatches, an optimiser that is not gradient descent.

    Examples
    --------
    >>> import numpy as np
    >>> import jepa_ode as jo
    >>> cov = jo.Covariances(np.diag([1.0, 0.8]), np.diag([0.9, 0.5]))
    >>> net = jo.LinearNetwork.balanced(2, depth=2, eps=0.1)
    >>> flow = jo.gradient_flow(net, cov, jo.JEPA(weight_decay=0.01), t=[0.0, 10.0])
    >>> assumptions = jo.compare_with_flow(flow).assumptions
    >>> assumptions.total_coupling, assumptions.departures
    (0.0, ('weight decay',))
    """

    coupling: FloatArray = field(repr=False)
    total_coupling: float
    imbalance: float
    misalignment: FloatArray = field(repr=False)
    departures: tuple[str, ...]

    def summary(self) -> str:
        """Return what is violated, in a sentence."""
        worst = float(self.misalignment.max(initial=0.0))
        found = []
        if self.total_coupling:
            found.append(f"features couple (by {self.total_coupling:.2g})")
        if self.imbalance:
            found.append(f"the start is unbalanced (by {self.imbalance:.2g}; solve takes the predictor's start as v0)")
        if worst:
            found.append(f"the start is misaligned (by up to {worst:.2g})")
        if self.departures:
            found.append(f"the theory knows nothing of {', '.join(self.departures)}")
        return f"Violated: {'; '.join(found)}." if found else "No assumption of the theory is violated."

    def __repr__(self) -> str:
        return f"Assumptions({self.summary()!r})"


def assumptions_of(record: Flow | Training) -> Assumptions:
    """Return the violations for an integrated flow or a training."""
    duals = np.asarray(record.features.duals)
    M = duals.T @ duals
    return Assumptions(
        coupling=read_only(feature_coupling(M)),
        total_coupling=total_coupling(M),
        imbalance=_imbalance(record.start),
        misalignment=read_only(_misalignment(record.start, record.objective, duals)),
        departures=_departures(record),
    )


def _imbalance(net: LinearNetwork) -> float:
    sizes = [float(np.linalg.norm(layer)) for layer in (*net.encoder, net.predictor)]
    apart = [float(np.linalg.norm(matrix)) for matrix in net.balancedness()]
    worst = 0.0
    for matrix, below, above in zip(apart, sizes[:-1], sizes[1:], strict=True):
        worst = max(worst, matrix / max(below, above) ** 2 if matrix else 0.0)
    return worst if worst > 1e-14 else 0.0  # rounding


def _misalignment(net: LinearNetwork, objective: Objective, duals: FloatArray) -> FloatArray:
    features = as_directions(duals, net.widths[0])
    encoded = net.encoder_product() @ features
    predicted = net.predictor @ encoded
    target = encoded if isinstance(objective, JEPA) else features
    sizes = np.linalg.norm(predicted, axis=0) * np.linalg.norm(target, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.sum(predicted * target, axis=0) / sizes
        away = np.linalg.norm(predicted - target * (cosine * sizes / np.sum(target**2, axis=0)), axis=0)
        sine = away / np.linalg.norm(predicted, axis=0)
    sine = np.where(cosine < 0, 1.0, sine)  # the wrong way round is no better than across
    return np.where(np.isfinite(sine), np.where(sine < 1e-14, 0.0, sine), 0.0)


def _departures(record: Flow | Training) -> tuple[str, ...]:
    objective = record.objective
    found = []
    if isinstance(objective, JEPA):
        if not objective.stop_gradient:
            found.append("no stop-gradient")
        if objective.ema is not None:
            found.append("a moving-average target")
    if objective.weight_decay:
        found.append("weight decay")
    if record.predictor_rate != 1:
        found.append("a learning rate of the predictor's own")
    if isinstance(record, Training):
        found.append(f"steps ({record.optimizer}, lr={record.lr:g})")
        if record.optimizer in ("adam", "adamw"):
            found.append(f"the time of {record.optimizer}, which is not that of a flow")
        if record.batch_size is not None:
            found.append(f"minibatches of {record.batch_size}")
    return tuple(found)
