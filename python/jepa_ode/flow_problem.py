"""One gradient flow to be integrated: arguments validated once, the engine's view of them, and the result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ._core import engine
from ._frozen import read_only
from ._validate import (
    FloatArray,
    as_choice,
    as_float_array,
    as_index,
    as_non_negative,
    as_per_feature,
    as_positive,
    as_real,
    as_times,
    require_finite,
)
from .aligned import AlignedFlow, NotAlignedError, align
from .network import LinearNetwork, as_directions
from .objectives import JEPA, Objective, as_objective
from .observables import Record, as_observables
from .principal_axes import PrincipalAxes
from .theory import as_schedule

if TYPE_CHECKING:
    from .schedule import Schedule

METHODS = ("auto", "tsit5", "dop853", "rock4", "exact")
_COORDINATES = ("data", "features")
_STOPS = ("crossed", "steady")
_MAX_STEPS = 100_000
# A step's own rounding: tighter relative tolerances only ask for noise to be resolved.
_MIN_RTOL = 1e-14


@dataclass
class FlowProblem:
    """What `gradient_flow` was asked for. ``fields`` are those of its `Flow` that do not depend on the integration."""

    net: LinearNetwork
    objective: Objective
    xx: FloatArray
    yx: FloatArray
    yy: FloatArray | None
    clock: Schedule | None
    theta: FloatArray  # the output times on the schedule's clock, which is the engine's
    directions: FloatArray  # unit columns [d, n]
    method: str
    budget: int
    keep_weights: bool
    levels: FloatArray | None
    stop_when: str | None
    steady_tol: float
    plateau_tol: float | None
    record: Record
    fields: dict[str, Any]
    back: FloatArray | None = field(default=None, init=False)  # W^1 of the data = W^1 as integrated @ back

    @classmethod
    def of(
        cls,
        net: Any,
        cov: Any,
        objective: Any,
        *,
        t: Any,
        method: str,
        rtol: float,
        atol: float,
        features: Any,
        max_steps: int | None,
        schedule: Any,
        predictor_rate: float,
        coordinates: str,
        observe: Any,
        levels: Any,
        stop_when: str | None,
        steady_tol: float,
        plateau_tol: float | None,
        keep_weights: bool,
    ) -> FlowProblem:
        """Return the problem, or raise what is wrong with it."""
        if not isinstance(net, LinearNetwork):
            raise TypeError(f"net must be a LinearNetwork, got {type(net).__name__}")
        objective = as_objective(objective)
        d = net.widths[0]
        xx, yx = (moments(cov, name, d) for name in ("Sxx", "Syx"))
        yy = None if getattr(cov, "Syy", None) is None else moments(cov, "Syy", d)
        require_fit(net, objective, yy)
        times = _as_flow_times(t)
        rtol = as_real("rtol", rtol)
        if not _MIN_RTOL <= rtol < 1:
            raise ValueError(f"rtol must be in [{_MIN_RTOL:g}, 1), got {rtol}")
        atol = as_non_negative("atol", atol)
        method = as_choice("method", method, METHODS)
        clock = as_schedule(schedule)
        budget = _MAX_STEPS if max_steps is None else as_index("max_steps", max_steps, minimum=1)
        predictor_rate = as_positive("predictor_rate", predictor_rate)
        record = Record(as_observables(observe, xx, predictor_rate), times.size)
        if features is None:
            features = cov.spectrum()
        directions = as_directions(duals_of(features), d)
        coordinates = as_choice("coordinates", coordinates, _COORDINATES)
        if levels is not None:
            levels = as_per_feature("levels", levels, directions.shape[1])
            if not (levels > 0).all():
                raise ValueError(f"levels must be positive responses, got {levels.min()}")
        if stop_when is not None:
            as_choice("stop_when", stop_when, _STOPS)
            if stop_when == "crossed" and levels is None:
                raise ValueError('stop_when="crossed" needs levels, the responses to be crossed')
        if plateau_tol is not None:
            plateau_tol = as_positive("plateau_tol", plateau_tol)
            if yy is None:
                raise ValueError("plateaus are those of the loss, which needs cov.Syy")
        return cls(
            net,
            objective,
            xx,
            yx,
            yy,
            clock,
            times if clock is None else np.maximum.accumulate(clock.elapsed(times)),
            directions,
            method,
            budget,
            bool(keep_weights),
            levels,
            stop_when,
            as_positive("steady_tol", steady_tol),
            plateau_tol,
            record,
            {
                "t": read_only(times),
                "features": features,
                "objective": objective,
                "start": net,
                "rtol": rtol,
                "atol": atol,
                "schedule": clock,
                "predictor_rate": predictor_rate,
                "coordinates": coordinates,
            },
        )

    # --- exactly --------------------------------------------------------------------------------------------------------

    def aligned(self) -> AlignedFlow | None:
        """Return the scalar equations with ``method="exact"``; None where the flow is to be integrated.

        Raises
        ------
        ValueError
            Where the flow does not obey them, or where what is asked for needs steps.
        """
        if self.method != "exact":
            return None
        try:
            if self.levels is not None or self.stop_when is not None or self.plateau_tol is not None:
                raise NotAlignedError("levels, stop_when and plateau_tol watch the steps of an integration")
            if self.fields["predictor_rate"] != 1:
                raise NotAlignedError("a predictor_rate other than 1 has no closed form")
            if self.fields["coordinates"] != "data":
                raise NotAlignedError("coordinates are those of an integration")
            return align(self.net, self.objective, self.xx, self.yx)
        except NotAlignedError as reason:
            raise ValueError(f'method="exact" does not apply: {reason}; method="auto" integrates') from None

    def solved(self, aligned: AlignedFlow) -> dict[str, Any]:
        """Return the fields of the result by the scalar equations."""
        w = aligned.responses(self.theta)
        networks = (aligned.network(row) for row in w.T) if self.keep_weights or self.record else ()
        rows = []
        for k, net in enumerate(networks):
            self.record.look(k, net)
            if self.keep_weights:
                rows.append(start_state(net, JEPA()))
        end = w[:, -1] if self.theta.size else aligned.w0
        weights = None
        if self.keep_weights:
            weights = read_only(np.array(rows).reshape(self.theta.size, start_state(self.net, JEPA()).size))
        return self.fields | {
            "response": read_only(aligned.along(w, self.directions)),
            "loss": None if self.yy is None else read_only(aligned.loss(w, self.yy)),
            "status": engine.Status.OK,
            "message": "solved exactly: data and start are aligned and balanced",
            "method": "exact",
            "steps": 0,
            "stabilised_steps": 0,
            "rejected": 0,
            "nfev": 0,
            "observables": self.record.arrays(self.net),
            "weights": weights,
            "final": aligned.network(end),
            "end": float(self.fields["t"][-1]) if self.theta.size else 0.0,
        }

    # --- by the engine --------------------------------------------------------------------------------------------------

    def run(self) -> engine.FlowRun:
        """Return what the engine is to integrate."""
        rate = self.fields["predictor_rate"]
        into: FloatArray | None
        if self.fields["coordinates"] == "data":
            axes = PrincipalAxes(self.xx, self.yx, self.yy)
            network = axes.network_flow(self.net, self.objective, rate)
            into, self.back = axes.turn, None if axes.turn is None else axes.turn.T
        else:
            from .coupled import CoupledFeatures
            from .covariances import Covariances

            coupled = CoupledFeatures(Covariances(self.xx, self.yx, self.yy))
            network = coupled.network_flow(self.net, self.objective, rate)
            into, self.back = coupled.duals, coupled.directions.T
        start, directions = self.net, self.directions
        if into is not None and self.back is not None:
            first, *others = self.net.encoder
            start = LinearNetwork([first @ into, *others], self.net.predictor)
            directions = self.back @ directions
        return engine.FlowRun(
            network,
            start_state(start, self.objective),
            self.theta,
            np.ascontiguousarray(directions),
            self.method,
            self.fields["rtol"],
            self.fields["atol"],
            self.budget,
            self.keep_weights,
            self._look if self.record else None,
            self.levels,
            self.stop_when == "crossed",
            self.steady_tol if self.stop_when == "steady" else 0.0,
            self.plateau_tol or 0.0,
        )

    def _look(self, k: int, weights: FloatArray) -> None:
        if self.theta[k] == 0:
            self.record.look(k, self.net)
        elif np.isfinite(weights).all():
            self.record.look(k, unpack(self._in_data_coordinates(weights), self.net))

    def integrated(self, observed: engine.ObservedFlow) -> dict[str, Any]:
        """Return the fields of the result by what the engine observed."""
        arrays = [observed.response, observed.loss]
        arrays.append(None if observed.weights is None else self._in_data_coordinates(observed.weights))
        times = self.fields["t"]
        if (
            arrays[-1] is not None and self.back is not None
        ):  # there and back again, a start would be so but for rounding
            arrays[-1][times == 0] = start_state(self.net, JEPA())
        end = observed.time
        if observed.reached == times.size and times.size:
            end = float(times[-1])
        elif self.clock is not None:
            end = float(self.clock.time(end))
        crossings = None if observed.crossings is None else self._on_our_clock(observed.crossings)
        plateaus = None
        if self.plateau_tol is not None:
            plateaus = self._on_our_clock(np.array(observed.plateaus, dtype=np.float64).reshape(-1, 2))
        for array in (*arrays, crossings, plateaus):
            if array is not None:
                array.flags.writeable = False
        response, loss, weights = arrays
        return self.fields | {
            "response": response,
            "loss": loss,
            "weights": weights,
            "status": observed.status,
            "message": self._message(observed),
            "method": ("dop853" if not observed.stabilised_steps else "dop853+rock4")
            if self.method == "auto"
            else self.method,
            "steps": observed.steps,
            "stabilised_steps": observed.stabilised_steps,
            "rejected": observed.rejected,
            "nfev": observed.nfev,
            "observables": self.record.arrays(self.net),
            "crossing_time": crossings,
            "plateaus": plateaus,
            "final": self._final(observed),
            "end": end,
        }

    def _final(self, observed: engine.ObservedFlow) -> LinearNetwork | None:
        if observed.time == 0:
            return self.net
        weights = self._in_data_coordinates(observed.final_weights)
        return unpack(weights, self.net) if np.isfinite(weights).all() else None

    def _on_our_clock(self, theta: FloatArray) -> FloatArray:
        return np.array(theta if self.clock is None else self.clock.time(theta))

    def _in_data_coordinates(self, weights: FloatArray) -> FloatArray:
        """Return the entries of networks, [..., every entry], with the first layer in the coordinates of the data."""
        if self.back is None:
            return weights
        first = self.net.encoder[0]
        layer = weights[..., : first.size].reshape(*weights.shape[:-1], *first.shape) @ self.back
        moved = weights.copy()
        moved[..., : first.size] = layer.reshape(*weights.shape[:-1], first.size)
        return moved

    def _message(self, observed: engine.ObservedFlow) -> str:
        message = engine.status_message(observed.status)
        if observed.status == engine.Status.OK:
            return message
        if observed.status == engine.Status.MAX_STEPS:
            message += f" (max_steps={self.budget})"
        if observed.status == engine.Status.STOPPED:
            message += " (at rest)" if self.stop_when == "steady" else " (every level was crossed)"
        return f"{message}; {observed.reached} of {self.theta.size} times have values"


# --- the engine's view of a network -------------------------------------------------------------------------------------


def network_flow(
    net: LinearNetwork,
    objective: Objective,
    xx: FloatArray | None,
    yx: FloatArray | None,
    yy: FloatArray | None,
    predictor_rate: float = 1.0,
    *,
    coupling: FloatArray | None = None,
    rho: FloatArray | None = None,
) -> engine.NetworkFlow:
    """Return the engine's flow for networks of the shape of ``net``; with ``coupling`` that in feature coordinates."""
    return engine.NetworkFlow(
        list(net.widths),
        net.predictor.shape[0],
        objective.code,
        objective.stop_gradient if isinstance(objective, JEPA) else True,
        (objective.ema or 0.0) if isinstance(objective, JEPA) else 0.0,
        objective.weight_decay,
        predictor_rate,
        xx,
        yx,
        yy,
        coupling,
        rho,
    )


def start_state(net: LinearNetwork, objective: Objective) -> FloatArray:
    """Return the engine's state: every weight, and the EMA target, which starts as a copy of the encoder."""
    blocks = [*net.encoder, net.predictor]
    if isinstance(objective, JEPA) and objective.ema is not None:
        blocks += net.encoder
    return np.concatenate([block.ravel() for block in blocks])


def unpack_layers(weights: FloatArray, like: LinearNetwork) -> list[FloatArray]:
    """Return the entries of ``W^1, ..., W^L, V``, one after the other, as matrices of the shapes of ``like``."""
    shapes = [block.shape for block in (*like.encoder, like.predictor)]
    ends = np.cumsum([rows * columns for rows, columns in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(weights, ends[:-1]), shapes, strict=True)]


def unpack(weights: FloatArray, like: LinearNetwork) -> LinearNetwork:
    """Return the network of the shapes of ``like`` that has these entries."""
    blocks = unpack_layers(weights, like)
    return LinearNetwork(blocks[:-1], blocks[-1])


# --- arguments ----------------------------------------------------------------------------------------------------------


def moments(cov: Any, name: str, d: int | None = None, argument: str = "cov") -> FloatArray:
    """Return the covariance of this name as a finite array [d, d]."""
    if not hasattr(cov, name):
        raise TypeError(f"{argument} must be a Covariances with {name}, got {type(cov).__name__}")
    full = f"{argument}.{name}"
    matrix = require_finite(full, as_float_array(full, getattr(cov, name), ndim=2))
    d = len(matrix) if d is None else d
    if matrix.shape != (d, d):
        raise ValueError(f"{full} must have shape ({d}, {d}) for a network of input width {d}, got {matrix.shape}")
    return matrix


def require_fit(net: LinearNetwork, objective: Objective, yy: FloatArray | None) -> None:
    """Raise ValueError unless the predictor has the rows that the objective needs, and the data the covariances."""
    outputs = net.predictor.shape[0]
    if isinstance(objective, JEPA):
        if outputs != net.widths[-1]:
            raise ValueError(
                f"JEPA predicts the encoding: net.predictor must have {net.widths[-1]} rows, got {outputs}"
            )
        if not objective.stop_gradient and yy is None:
            raise ValueError("JEPA without stop-gradient needs cov.Syy, the covariance of the targets")
    elif outputs != net.widths[0]:
        raise ValueError(f"MAE decodes the data: net.predictor must have {net.widths[0]} rows, got {outputs}")


def _as_flow_times(t: Any) -> FloatArray:
    if np.ndim(t) > 1:
        raise ValueError(f"t must have one dimension, for a network has one clock; got shape {np.shape(t)}")
    return require_finite("t", as_times(t, 1))


def duals_of(features: Any) -> Any:
    """Return the dual directions of a spectrum that has them."""
    duals = getattr(features, "duals", None)
    if duals is None:
        raise ValueError(
            "features must be a Spectrum with dual directions, as from Covariances.spectrum(), "
            "so that responses can be measured along them"
        )
    return duals
