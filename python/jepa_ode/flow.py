"""The gradient flow of a whole deep linear network: the check on the scalar theory (THEORY.md 1 and 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ._core import engine
from ._frozen import FrozenArrays, read_only
from ._validate import (
    FloatArray,
    as_choice,
    as_float_array,
    as_index,
    as_non_negative,
    as_real,
    as_times,
    require_finite,
)
from .network import LinearNetwork, as_directions
from .objectives import JEPA, Objective, ObjectiveLike, as_objective
from .schedule import Schedule
from .theory import as_schedule

if TYPE_CHECKING:
    from .covariances import Covariances
    from .spectrum import Spectrum

__all__ = ["Flow", "gradient_flow"]

_METHODS = ("auto", "tsit5", "dop853", "rkc2")
# Where stability limits the steps both pairs cost the same per unit of time; the eighth order pays once accuracy does: at
# rtol 1e-9 the two need as many right-hand sides, at 1e-12 it halves them.
_DOP853_BELOW = 1e-8
_MAX_STEPS = 100_000
# A step's own rounding: tighter relative tolerances only ask for noise to be resolved.
_MIN_RTOL = 1e-14


@dataclass(frozen=True, eq=False, repr=False)
class Flow(FrozenArrays):
    """The gradient flow of a linear network, observed at the times ``t``.

    Values at times that were not reached are NaN, and ``status`` says why.

    Attributes
    ----------
    t : array [m]
        Time since the start, in units of flow time.
    response : array [n, m]
        Encoder response ``w_i = |Wbar p_i| / |p_i|`` to the feature ``i`` of ``features`` (THEORY.md 6).
    loss : array [m] or None
        ``1/2 E |V Wbar x - target|^2``; None when the covariances hold no ``Syy``. The loss of MAE falls; that of JEPA
        need not, its flow descends on no loss (THEORY.md 1). Weight decay acts on the flow and is not part of it.
    features : Spectrum
        The features that ``response`` refers to.
    objective : JEPA or MAE
    start : LinearNetwork
        The network at time 0.
    status : Status
        How the integration ended.
    message : str
        The same in words.
    method : str
        The method that was used, ``"tsit5"``, ``"dop853"`` or ``"rkc2"``; with "auto" the pair and, where it gave way,
        ``"tsit5+rkc2"`` or ``"dop853+rkc2"``.
    rtol, atol : float
    steps, stabilised_steps, rejected, nfev : int
        Accepted steps, how many of them were steps of rkc2, rejected ones, evaluations of the right-hand side.
    schedule : Schedule or None
        Learning-rate schedule.
    """

    t: FloatArray
    response: FloatArray
    loss: FloatArray | None
    features: Spectrum
    objective: Objective
    start: LinearNetwork
    status: engine.Status
    message: str
    method: str
    rtol: float
    atol: float
    steps: int
    stabilised_steps: int
    rejected: int
    nfev: int
    schedule: Schedule | None = None
    weights: FloatArray | None = field(default=None)  # [m, every entry], or None: network() reads it

    @property
    def success(self) -> bool:
        """Whether every requested time was reached within tolerance."""
        return self.status == engine.Status.OK

    def network(self, k: int) -> LinearNetwork:
        """Return the network at ``t[k]``.

        Parameters
        ----------
        k : int
            Index into ``t``; negative counts from the end.

        Raises
        ------
        ValueError
            When the flow was computed without ``keep_weights=True``, or ``t[k]`` was not reached.
        IndexError
            When there is no ``t[k]``.
        """
        if self.weights is None:
            raise ValueError("weights were not kept: call gradient_flow(..., keep_weights=True)")
        row = self.weights[k]
        if np.isnan(row).any():
            raise ValueError(f"t[{k}] = {self.t[k]:g} was not reached: {self.message}")
        return _unpack(row, self.start)

    def plot(self, ax: Any = None) -> Any:
        """Plot the encoder responses against time on ``ax`` (default: new axes) and return it."""
        from .plot import plot_flow

        return plot_flow(self, ax=ax)

    def to_xarray(self) -> Any:
        """Return an ``xarray.Dataset`` with ``response`` [feature, time], ``loss`` [time] and the parameters as attrs."""
        try:
            import xarray
        except ImportError as error:
            raise ImportError('to_xarray needs xarray: pip install "jepa-ode[xarray]"') from error
        variables: dict[str, Any] = {"response": (("feature", "time"), self.response)}
        if self.loss is not None:
            variables["loss"] = ("time", self.loss)
        coordinates: dict[str, Any] = {"time": self.t}
        for name in ("lam", "rho", "sigma2"):
            coordinates[name] = ("feature", np.asarray(getattr(self.features, name)))
        return xarray.Dataset(
            variables,
            coords=coordinates,
            attrs={
                "objective": repr(self.objective),
                "depth": self.start.depth,
                "widths": self.start.widths,
                "time_unit": "flow",
                "method": self.method,
                "rtol": self.rtol,
                "atol": self.atol,
                "status": self.status.name,
                "nfev": self.nfev,
                **({} if self.schedule is None else {"schedule": repr(self.schedule)}),
            },
        )

    def __repr__(self) -> str:
        return (
            f"Flow({self.objective!r}, depth={self.start.depth}, features={len(self.response)}, "
            f"times={self.t.size}, method={self.method!r}, status={self.status.name}, nfev={self.nfev})"
        )


def gradient_flow(
    net: LinearNetwork,
    cov: Covariances,
    objective: ObjectiveLike,
    *,
    t: Any,
    method: str = "auto",
    rtol: float = 1e-6,
    atol: float = 1e-9,
    features: Spectrum | None = None,
    max_steps: int | None = None,
    schedule: Schedule | None = None,
    keep_weights: bool = False,
    progress: bool | Callable[[float], object] = False,
) -> Flow:
    """Integrate the gradient flow of a deep linear network (THEORY.md 1), for any covariances and any start.

    Parameters
    ----------
    net : LinearNetwork
        The start. JEPA needs a predictor [h_L, h_L], MAE one that decodes to the data, [d, h_L].
    cov : Covariances
        ``Sxx``, ``Syx`` and ``Syy``, each [d, d]. Without ``Syy`` the loss is None, and JEPA without stop-gradient is an
        error.
    objective : JEPA, MAE, "jepa" or "mae"
        With every option: an EMA target starts equal to the encoder.
    t : array [m]
        Output times since the start, non-negative, non-decreasing, finite. Steps do not depend on them, but for the
        last, at which the flow ends: a denser ``t`` does not move the values at the old points.
    method : {"auto", "tsit5", "dop853", "rkc2"}, default "auto"
        tsit5 and dop853 are explicit Runge-Kutta pairs of order 5 and 8, rkc2 is the stabilised Runge-Kutta-Chebyshev
        method of order 2. Once features are learned their fast relaxation limits the steps of a pair however slow
        everything else is; rkc2 then takes far longer ones: at ``rtol=1e-6`` it needs several times fewer right-hand
        sides, the more the longer the horizon. "auto" starts with dop853 for ``rtol < 1e-8`` and with tsit5 otherwise,
        turns to rkc2 where stability limits the steps, and back; ``Flow.method`` tells what was used.
    rtol, atol : float, default 1e-6 and 1e-9
        A step is accepted when the Frobenius norms of its error in the layers, each divided by
        ``atol + rtol * (root mean square singular value of the layer)``, have a Euclidean norm of at most 1. Being
        a norm of whole matrices it does not depend on the basis in which a layer is written.
    features : Spectrum, optional
        Whose ``duals`` the responses refer to; default ``cov.spectrum()``.
    max_steps : int, optional
        Budget of attempted steps, by default 100,000.
    schedule : Schedule, optional
        Learning-rate schedule in the unit of ``t``; None is a constant rate of 1. It changes the clock and nothing else.
    keep_weights : bool, default False
        Keep the weights at every output time, for :meth:`Flow.network`.
    progress : bool or callable, default False
        True shows a bar (needs tqdm); a callable is told the fraction of the last time that has been reached, at most
        ten times a second and at the end.

    Returns
    -------
    Flow
        Trouble on the way (budget, step size, overflow) is its ``status``, never an exception.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, naming what would.
    ImportError
        When ``progress=True`` and tqdm is missing.

    Notes
    -----
    The tolerances bound the error of each step, not what the flow makes of it later. Where the solution is unstable,
    as JEPA's aligned one can be at small starts (see `LinearNetwork.balanced`), errors of the order of rounding grow
    along the plateau, and no tolerance brings the flow back to the scalar theory. A flow that changes with ``rtol`` or
    with the random frames of the start is of this kind.

    Examples
    --------
    >>> import numpy as np
    >>> import jepa_ode as jo
    >>> cov = jo.Covariances(np.eye(2), np.diag([0.9, 0.4]), np.eye(2))
    >>> net = jo.LinearNetwork.balanced(2, depth=2, eps=0.1)
    >>> flow = jo.gradient_flow(net, cov, "jepa", t=[0.0, 1000.0])
    >>> flow.success
    True
    >>> flow.response[:, -1].round(4).tolist()  # the fixed points rho^L
    [0.81, 0.16]
    """
    if not isinstance(net, LinearNetwork):
        raise TypeError(f"net must be a LinearNetwork, got {type(net).__name__}")
    objective = as_objective(objective)
    d = net.widths[0]
    xx, yx = (_moments(cov, name, d) for name in ("Sxx", "Syx"))
    yy = None if getattr(cov, "Syy", None) is None else _moments(cov, "Syy", d)
    _require_fit(net, objective, yy)
    times = _as_flow_times(t)
    rtol = as_real("rtol", rtol)
    if not _MIN_RTOL <= rtol < 1:
        raise ValueError(f"rtol must be in [{_MIN_RTOL:g}, 1), got {rtol}")
    atol = as_non_negative("atol", atol)
    method = as_choice("method", method, _METHODS)
    pair = "tsit5" if rtol >= _DOP853_BELOW else "dop853"
    clock = as_schedule(schedule)
    theta = times if clock is None else np.maximum.accumulate(clock.elapsed(times))
    budget = _MAX_STEPS if max_steps is None else as_index("max_steps", max_steps, minimum=1)
    if features is None:
        features = cov.spectrum()
    directions = np.ascontiguousarray(as_directions(_duals(features), d))

    run = network_flow(net, objective, xx, yx, yy)
    state = start_state(net, objective)
    with _progress_callback(progress, float(theta[-1]) if theta.size else 0.0) as callback:
        observed = run.integrate(
            state,
            theta,
            directions,
            f"auto {pair}" if method == "auto" else method,
            rtol,
            atol,
            budget,
            bool(keep_weights),
            callback,
        )
    arrays = (observed.response, observed.loss, observed.weights)
    for array in arrays:
        if array is not None:
            array.flags.writeable = False
    response, loss, weights = arrays
    return Flow(
        t=read_only(times),
        response=response,
        loss=loss,
        features=features,
        objective=objective,
        start=net,
        status=observed.status,
        message=_message(observed, times, budget),
        method=method if method != "auto" else pair if observed.stabilised_steps == 0 else f"{pair}+rkc2",
        rtol=rtol,
        atol=atol,
        steps=observed.steps,
        stabilised_steps=observed.stabilised_steps,
        rejected=observed.rejected,
        nfev=observed.nfev,
        schedule=clock,
        weights=weights,
    )


def network_flow(
    net: LinearNetwork,
    objective: Objective,
    xx: FloatArray,
    yx: FloatArray,
    yy: FloatArray | None,
) -> engine.NetworkFlow:
    """Return the engine's flow for networks of the shape of ``net``."""
    return engine.NetworkFlow(
        list(net.widths),
        net.predictor.shape[0],
        objective.code,
        objective.stop_gradient if isinstance(objective, JEPA) else True,
        (objective.ema or 0.0) if isinstance(objective, JEPA) else 0.0,
        objective.weight_decay,
        xx,
        yx,
        yy,
    )


def start_state(net: LinearNetwork, objective: Objective) -> FloatArray:
    """Return the engine's state: every weight, and the EMA target, which starts as a copy of the encoder."""
    blocks = [*net.encoder, net.predictor]
    if isinstance(objective, JEPA) and objective.ema is not None:
        blocks += net.encoder
    return np.concatenate([block.ravel() for block in blocks])


def _unpack(weights: FloatArray, like: LinearNetwork) -> LinearNetwork:
    shapes = [block.shape for block in (*like.encoder, like.predictor)]
    ends = np.cumsum([rows * columns for rows, columns in shapes])
    blocks = [part.reshape(shape) for part, shape in zip(np.split(weights, ends[:-1]), shapes, strict=True)]
    return LinearNetwork(blocks[:-1], blocks[-1])


def _moments(cov: Any, name: str, d: int, argument: str = "cov") -> FloatArray:
    if not hasattr(cov, name):
        raise TypeError(f"{argument} must be a Covariances with {name}, got {type(cov).__name__}")
    full = f"{argument}.{name}"
    matrix = require_finite(full, as_float_array(full, getattr(cov, name), ndim=2))
    if matrix.shape != (d, d):
        raise ValueError(f"{full} must have shape ({d}, {d}) for a network of input width {d}, got {matrix.shape}")
    return matrix


def _require_fit(net: LinearNetwork, objective: Objective, yy: FloatArray | None) -> None:
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


def _duals(features: Any) -> Any:
    duals = getattr(features, "duals", None)
    if duals is None:
        raise ValueError(
            "features must be a Spectrum with dual directions, as from Covariances.spectrum(), "
            "so that responses can be measured along them"
        )
    return duals


def _message(observed: engine.ObservedFlow, times: FloatArray, budget: int) -> str:
    message = engine.status_message(observed.status)
    if observed.status == engine.Status.OK:
        return message
    if observed.status == engine.Status.MAX_STEPS:
        message += f" (max_steps={budget})"
    return f"{message}; {observed.reached} of {times.size} times have values"


@contextmanager
def _progress_callback(
    progress: Any, end: float, what: str = "gradient flow"
) -> Iterator[Callable[[float], object] | None]:
    """Yield what the engine calls with the time reached."""
    if callable(progress):
        yield lambda time: progress(min(time / end, 1.0))
        progress(1.0)
        return
    if not isinstance(progress, bool):
        raise TypeError(f"progress must be True, False or a callable, got {progress!r}")
    if not progress:
        yield None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError('progress=True needs tqdm: pip install "jepa-ode[progress]"') from error
    with tqdm(total=100, unit="%", bar_format=what + " {l_bar}{bar}| {elapsed}") as bar:

        def show(fraction: float) -> None:
            bar.update(100 * fraction - bar.n)

        yield lambda time: show(min(time / end, 1.0))
        show(1.0)
