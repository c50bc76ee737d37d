"""How good the prediction is (THEORY.md 5 and 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ._frozen import FrozenArrays, read_only
from ._validate import FloatArray
from .assumptions import Assumptions, assumptions_of
from .learning import (
    crossing_times,
    learning_order,
    learning_times,
    least_level,
    order_correlation,
)
from .network_record import NetworkRecord
from .objectives import JEPA, MAE, Objective
from .solve import solve
from .theory import fixed_point
from .training import Training

if TYPE_CHECKING:
    import numpy.typing as npt

    from .flow import Flow

__all__ = [
    "TheoryCheck",
    "compare_with_flow",
    "crossing_times",
    "learning_order",
    "learning_times",
    "order_correlation",
]


@dataclass(frozen=True, eq=False)
class TheoryCheck(FrozenArrays):
    """The scalar prediction beside an integrated matrix flow or a training (THEORY.md 5, claim 12, and 6).

    Attributes
    ----------
    objective : JEPA or MAE
        The objective of the flow. The prediction is that of the plain objective of the same name.
    fraction : float
        The threshold, a fraction of the predicted fixed point.
    t : array of shape [m]
    predicted, integrated : arrays of shape [n, m]
        Encoder responses; NaN at times that the flow did not reach.
    predicted_time, integrated_time : arrays of shape [n]
        When the threshold is reached; inf where it is not (for the flow: not within `t`).
    relative_error : array of shape [n]
        ``integrated_time / predicted_time - 1``; NaN unless both lie within the record of the flow.
    order_correlation : float
        Rank correlation of the two orders, over the features predicted to be learned within the
        record.
    assumptions : Assumptions
        By how much data, start and training violate what the theory assumes.
    """

    objective: Objective
    fraction: float
    t: FloatArray = field(repr=False)
    predicted: FloatArray = field(repr=False)
    integrated: FloatArray = field(repr=False)
    predicted_time: FloatArray = field(repr=False)
    integrated_time: FloatArray = field(repr=False)
    relative_error: FloatArray = field(repr=False)
    order_correlation: float
    assumptions: Assumptions

    @property
    def coupling(self) -> FloatArray:
        """Coupling of each feature to the others, ``assumptions.coupling``, shape [n]."""
        return self.assumptions.coupling

    @property
    def compared(self) -> int:
        """Number of features that both prediction and flow learn within the record."""
        return self._errors.size

    @property
    def _errors(self) -> FloatArray:
        return np.abs(self.relative_error[np.isfinite(self.relative_error)])

    @property
    def median_error(self) -> float:
        """Median of ``|relative_error|`` over the features compared; NaN when there is none."""
        errors = self._errors
        return float(np.median(errors)) if errors.size else math.nan

    @property
    def max_error(self) -> float:
        """Largest ``|relative_error|`` over the features compared; NaN when there is none."""
        errors = self._errors
        return float(errors.max()) if errors.size else math.nan

    @property
    def ranks(self) -> bool:
        """Whether `order_correlation` says something: it exists and is that of three features or more."""
        reached = _reached(self.integrated)
        within = np.count_nonzero(self.predicted_time <= self.t[reached - 1]) if reached else 0
        return bool(within >= 3 and not math.isnan(self.order_correlation))

    @property
    def unexpected(self) -> npt.NDArray[np.intp]:
        """Features that are never learned by the theory, but end high in the network.

        High is more than `fraction` of the median response that the features predicted to be
        learned end at by the prediction.
        """
        predicted, integrated = self.final
        expected = np.isfinite(self.predicted_time)
        if not expected.any():
            return np.zeros(0, dtype=np.intp)
        high = self.fraction * np.median(predicted[expected])
        return np.flatnonzero(~expected & (integrated > high))

    @property
    def final(self) -> tuple[FloatArray, FloatArray]:
        """Predicted and integrated responses, each [n], at the last time that the flow reached."""
        last = max(_reached(self.integrated) - 1, 0)
        return self.predicted[:, last], self.integrated[:, last]

    @property
    def final_error(self) -> float:
        """Largest difference of the last responses, in units of the largest predicted one; NaN if only the start is known."""
        predicted, integrated = self.final
        largest = predicted.max(initial=0.0)
        return float(np.abs(integrated - predicted).max() / largest) if largest > 0 and self._seen > 1 else math.nan

    @property
    def _seen(self) -> int:
        return _reached(self.integrated)

    def plot(self, ax: Any = None) -> Any:
        """Plot predicted against measured critical times on ``ax`` (default: new axes) and return it."""
        from .plot import plot_check

        return plot_check(self, ax=ax)

    def summary(self) -> str:
        """Return the comparison in two sentences: how good the prediction is, and which assumptions are violated."""
        expected = np.isfinite(self.predicted_time)
        text = f"{self.compared} of {np.count_nonzero(expected)} features compared"
        if self.compared < np.count_nonzero(expected):
            end = self.t[self._seen - 1] if self._seen else 0.0
            late = np.count_nonzero(expected & (self.predicted_time > end))
            text += f" ({late} predicted to be learned after t = {end:.3g}, the last time known"
            missed = np.count_nonzero(expected & ~(self.predicted_time > end)) - self.compared
            text += f"; {missed} not learned in the time)" if missed else ")"
        if self.compared:
            text += f", critical times off by {self.median_error:.2%} in the median and {self.max_error:.2%} at most"
        if self.ranks:
            text += f", rank correlation of the orders {self.order_correlation:.3f}"
        if not math.isnan(self.final_error):
            text += f", last responses off by up to {self.final_error:.2%} of the largest predicted one"
        text += "."
        if self._seen < self.t.size:
            text += f" Only {self._seen} of {self.t.size} times were reached."
        return f"{text} {self.assumptions.summary()}"


def compare_with_flow(flow: Flow | Training, *, fraction: float = 0.5, min_growth: float = 1.0) -> TheoryCheck:
    """Compare the scalar theory with an integrated matrix flow, or with a training in steps.

    How well uncoupled features describe coupled data, or a start that is not aligned, is a
    measurement, not an assumption (THEORY.md 6). The prediction has the depth of the flow's
    network and starts each feature at the response of the flow's start. It is that of the plain
    objective from a balanced start, whatever the flow has (moving average, weight decay, no
    stop-gradient, a start or a rate of the predictor of its own): the comparison then measures what
    these change, and levels may lie out of the flow's reach. `TheoryCheck.assumptions` holds what
    the theory assumes and the flow violates.

    Parameters
    ----------
    flow : Flow or Training
        Result of `gradient_flow` or `train`. Its times should be dense: integrated critical times
        are interpolated between them. The time of a training is the sum of its learning rates.
    fraction : float, default 0.5
        Of the predicted fixed point, as in `critical_time`.
    min_growth : float, default 1.0
        As in `learning_times`.

    Examples
    --------
    >>> import numpy as np
    >>> import jepa_ode as jo
    >>> cov = jo.Covariances(np.diag([1.0, 0.8]), np.diag([0.9, 0.5]))
    >>> net = jo.LinearNetwork.balanced(2, depth=2, eps=0.1)
    >>> flow = jo.gradient_flow(net, cov, "jepa", t=np.linspace(0.0, 150.0, 301))
    >>> check = jo.compare_with_flow(flow)
    >>> check.order_correlation, check.median_error < 1e-3
    (1.0, True)
    >>> run = jo.train(net, cov, "jepa", lr=0.1, steps=1500, snapshots=301)
    >>> jo.compare_with_flow(run).median_error < 0.01  # finite steps
    True
    """
    if not isinstance(flow, NetworkRecord):
        raise TypeError(f"flow must be a Flow or a Training, of a network, got {type(flow).__name__}")
    spec, depth = flow.features, flow.start.depth
    duals = np.asarray(spec.duals)  # a flow has them
    plain = JEPA() if isinstance(flow.objective, JEPA) else MAE()
    eps = flow.start.response(duals)
    # The time of a training counts its learning rates already; that of a flow goes by the schedule's clock.
    schedule = None if isinstance(flow, Training) else flow.schedule
    predicted = solve(spec, plain, depth=depth, eps=eps, t=flow.t, schedule=schedule).w
    predicted_time = learning_times(spec, plain, depth=depth, eps=eps, fraction=fraction, min_growth=min_growth)
    if schedule is not None:
        predicted_time = schedule.time(predicted_time)
    level = fraction * fixed_point(spec, plain, depth=depth)
    crossing = crossing_times(flow.t, flow.response, level)
    integrated_time = np.where(level > least_level(eps, min_growth), crossing, math.inf)
    reached = _reached(flow.response)
    within = predicted_time <= (flow.t[reached - 1] if reached else -math.inf)
    both = within & np.isfinite(integrated_time)
    error = np.full(len(spec), math.nan)
    error[both] = integrated_time[both] / predicted_time[both] - 1
    return TheoryCheck(
        objective=flow.objective,
        fraction=fraction,
        t=read_only(flow.t),
        predicted=read_only(predicted),
        integrated=read_only(flow.response),
        predicted_time=read_only(predicted_time),
        integrated_time=read_only(integrated_time),
        relative_error=read_only(error),
        order_correlation=order_correlation(predicted_time[within], integrated_time[within]),
        assumptions=assumptions_of(flow),
    )


def _reached(response: FloatArray) -> int:
    """Number of leading times at which every response is known."""
    known = np.isfinite(response).all(axis=0)
    return int(known.size if known.all() else np.argmin(known))
