"""The gradient flow of a whole deep linear network: the check on the scalar theory (THEORY.md 1 and 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ._core import engine
from ._progress import progress_callback
from ._threads import as_threads
from ._validate import FloatArray
from .flow_problem import FlowProblem
from .network import LinearNetwork
from .network_record import NetworkRecord
from .objectives import Objective, ObjectiveLike
from .observables import DIMS, Observables
from .schedule import Schedule

if TYPE_CHECKING:
    from .covariances import Covariances
    from .spectrum import Spectrum

__all__ = ["Flow", "gradient_flow", "gradient_flows"]


@dataclass(frozen=True, eq=False, repr=False)
class Flow(NetworkRecord):
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
        The method that was used: ``"tsit5"``, ``"dop853"``, ``"rock4"``, ``"exact"``; with "auto" ``"dop853"`` or, where it
        gave way, ``"dop853+rock4"``.
    rtol, atol : float
    steps, stabilised_steps, rejected, nfev : int
        Accepted steps, how many of them were steps of rock4, rejected ones, evaluations of the right-hand side.
    schedule : Schedule or None
        Learning-rate schedule.
    predictor_rate : float
        Learning-rate factor of the predictor.
    coordinates : "data" or "features"
        In which the state was integrated. Everything here is in those of the data.
    observables : mapping of str to arrays [m, ...]
        What was asked for by ``observe``.
    crossing_time : array [n] or None
        When each response first reached its level, located inside the steps: 0 where it started there, inf where it did
        not. None without ``levels``.
    plateaus : array [k, 2] or None
        Beginning and end of the plateaus of the loss. None without ``plateau_tol``.
    final : LinearNetwork or None
        The network where the integration ended; None if its weights are not finite.
    end : float
        When that was: ``t[-1]`` unless it ended early.
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
    predictor_rate: float = 1.0
    coordinates: str = "data"
    observables: Mapping[str, FloatArray] = field(default_factory=lambda: MappingProxyType({}))
    crossing_time: FloatArray | None = None
    plateaus: FloatArray | None = None
    final: LinearNetwork | None = None
    end: float = 0.0
    weights: FloatArray | None = field(default=None)  # [m, every entry], or None: network() reads it

    @property
    def success(self) -> bool:
        """Whether every requested time was reached within tolerance, or the flow stopped where it was asked to."""
        return self.status in (engine.Status.OK, engine.Status.STOPPED)

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
        return self._network(k, f"t[{k}] = {self.t[k]:g}", "gradient_flow")

    def plot(self, ax: Any = None) -> Any:
        """Plot the encoder responses against time on ``ax`` (default: new axes) and return it."""
        from .plot import plot_flow

        return plot_flow(self, ax=ax)

    def to_xarray(self) -> Any:
        """Return an ``xarray.Dataset`` with ``response`` [feature, time], ``loss`` [time] and the parameters as attrs.

        Observables are variables of their names, with the dim ``time`` first. Where they are the user's own, the others
        are ``name_0``, ``name_1`` and so on.
        """
        variables: dict[str, Any] = {}
        for name, values in self.observables.items():
            dims = DIMS.get(name, ())
            if len(dims) != values.ndim - 1:
                dims = tuple(f"{name}_{axis}" for axis in range(values.ndim - 1))
            variables[name] = (("time", *dims), values)
        if self.crossing_time is not None:
            variables["crossing_time"] = ("feature", self.crossing_time)
        if self.plateaus is not None:
            variables["plateaus"] = (("plateau", "end"), self.plateaus)
        attrs = {
            "time_unit": "flow",
            "method": self.method,
            "rtol": self.rtol,
            "atol": self.atol,
            "coordinates": self.coordinates,
            "nfev": self.nfev,
            "end": self.end,
            "message": self.message,
        }
        return self._to_xarray("time", {"time": self.t}, variables, attrs)

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
    predictor_rate: float = 1.0,
    coordinates: str = "data",
    observe: Observables = (),
    levels: Any = None,
    stop_when: str | None = None,
    steady_tol: float = 1e-6,
    plateau_tol: float | None = None,
    keep_weights: bool = False,
    threads: int | None = None,
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
    method : {"auto", "tsit5", "dop853", "rock4", "exact"}, default "auto"
        tsit5 and dop853 are explicit Runge-Kutta pairs of order 5 and 8, rock4 is a stabilised (Runge-Kutta-Chebyshev)
        method of order 4. Once features are learned their fast relaxation limits the steps of a pair however slow
        everything else is; rock4 then takes longer ones, and ever longer ones as the flow calms down. "auto" starts with
        dop853, which crosses the first plateau best, turns to rock4 where stability begins to limit the steps, and back.
        "exact" integrates nothing: it evaluates the scalar equations, to rounding, for plain objectives, data whose
        features do not couple and a start that is aligned and balanced; elsewhere it is an error that says why. "auto"
        never does that, for a flow is the check on these equations. ``Flow.method`` tells what was used.
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
    predictor_rate : float, default 1.0
        Factor of the predictor's learning rate: ``dV/dt`` is multiplied by it, weight decay included. The flow then
        conserves ``V^T V / predictor_rate - W^L (W^L)^T``.
    coordinates : {"data", "features"}, default "data"
        In which the state is integrated. "data" turns x to its principal axes, where ``Sxx`` is diagonal, and back: that
        changes no norm and saves a product of matrices. "features" takes the coupled feature equations
        (`CoupledFeatures`), for exchangeable data of full rank: the same flow, and for JEPA at the same cost. Results are in
        the coordinates of the data in either case; tolerances refer to the first layer as it is integrated, ``W^1 P`` for
        "features".
    observe : str, sequence of str, or mapping of str to functions, optional
        What else to look at, at the output times: "balancedness" (the norms of the conserved matrices, [L]),
        "singular_values" (of the encoder, [min(h_L, d)]), "representation_covariance" ([h_L, h_L]) and "effective_rank"
        (`jepa_ode.observables`). A mapping gives names of your own to these, or to functions of a `LinearNetwork` that
        return a number or an array, always of one shape. What such a function raises ends the flow and reaches the caller.
    levels : float or array [n], optional
        Responses whose first crossing is to be located, ``Flow.crossing_time``: looked for at the ends of steps and then
        inside, to the accuracy of the flow.
    stop_when : {None, "crossed", "steady"}, default None
        Stop early: when every level has been crossed, or at rest. Rows of later times are NaN and ``status`` is STOPPED;
        ``Flow.final`` is the network there.
    steady_tol : float, default 1e-6
        At rest neither would the weights change by this part of their norm in as much time again as has passed, nor is
        their speed above this part of the largest so far. A plateau between features is no rest.
    plateau_tol : float, optional
        Record plateaus of the loss, ``Flow.plateaus``: intervals, longer than a tenth of their beginning, in which
        ``|d loss / d log t|`` is below this part of the largest loss so far. Needs ``Syy``.
    keep_weights : bool, default False
        Keep the weights at every output time, for :meth:`Flow.network`.
    threads : int, optional
        How many may share the products of matrices, by default as many as there are CPUs that the process may use. Small
        networks (widths below some 120) use one. The flow does not depend on it, to the bit.
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
    >>> watched = jo.gradient_flow(net, cov, "jepa", t=[0.0, 1000.0], observe="effective_rank")
    >>> watched.observables["effective_rank"].round(2)
    array([2.  , 1.17])
    """
    (flow,) = gradient_flows(
        [net],
        [cov],
        [objective],
        t=t,
        threads=threads,
        method=method,
        rtol=rtol,
        atol=atol,
        features=features,
        max_steps=max_steps,
        schedule=schedule,
        predictor_rate=predictor_rate,
        coordinates=coordinates,
        observe=observe,
        levels=levels,
        stop_when=stop_when,
        steady_tol=steady_tol,
        plateau_tol=plateau_tol,
        keep_weights=keep_weights,
        progress=progress,
    )
    return flow


def gradient_flows(
    nets: Sequence[LinearNetwork],
    cov: Covariances | Sequence[Covariances],
    objective: ObjectiveLike | Sequence[ObjectiveLike],
    *,
    t: Any,
    threads: int | None = None,
    method: str = "auto",
    rtol: float = 1e-6,
    atol: float = 1e-9,
    features: Spectrum | Sequence[Spectrum] | None = None,
    max_steps: int | None = None,
    schedule: Schedule | Sequence[Schedule | None] | None = None,
    predictor_rate: float | Sequence[float] = 1.0,
    coordinates: str = "data",
    observe: Observables = (),
    levels: Any = None,
    stop_when: str | None = None,
    steady_tol: float = 1e-6,
    plateau_tol: float | None = None,
    keep_weights: bool = False,
    progress: bool | Callable[[float], object] = False,
) -> list[Flow]:
    """Integrate the gradient flows of many networks: seeds, starts, objectives, learning rates.

    Every flow is, to the bit, what `gradient_flow` gives for its network, whatever the number of threads.

    Parameters
    ----------
    nets : sequence of LinearNetwork
        The starts, of any shapes.
    cov, objective, features, schedule, predictor_rate
        As in `gradient_flow`, for all networks; or a list or tuple with one for each.
    t, method, rtol, atol, max_steps, coordinates, observe, levels, stop_when, steady_tol, plateau_tol, keep_weights
        As in `gradient_flow`, for all networks.
    threads : int, optional
        None: as many as there are CPUs that the process may use. Each integrates one network at a time; threads that find
        none, because there are fewer, help others as in `gradient_flow`.
    progress : bool or callable, default False
        As in `gradient_flow`; the part done of all flows.

    Returns
    -------
    list of Flow

    Raises
    ------
    TypeError, ValueError
        As `gradient_flow`, and for lists that are not as long as that of networks.

    Examples
    --------
    >>> import numpy as np
    >>> import jepa_ode as jo
    >>> cov = jo.Covariances(np.array([[1.0, 0.2], [0.2, 1.0]]), np.diag([0.9, 0.4]))
    >>> nets = [jo.LinearNetwork.balanced(2, depth=2, eps=0.1, rng=seed) for seed in range(3)]
    >>> flows = jo.gradient_flows(nets, cov, "jepa", t=[0.0, 1000.0])
    >>> [flow.success for flow in flows]
    [True, True, True]
    """
    threads = as_threads(threads)
    nets = list(nets)
    shared = {
        "t": t,
        "method": method,
        "rtol": rtol,
        "atol": atol,
        "max_steps": max_steps,
        "coordinates": coordinates,
        "observe": observe,
        "levels": levels,
        "stop_when": stop_when,
        "steady_tol": steady_tol,
        "plateau_tol": plateau_tol,
        "keep_weights": keep_weights,
    }
    if features is None and not isinstance(cov, list | tuple) and hasattr(cov, "spectrum") and len(nets) > 1:
        features = cov.spectrum()  # once
    each = {
        name: _one_each(name, value, len(nets))
        for name, value in (
            ("cov", cov),
            ("objective", objective),
            ("features", features),
            ("schedule", schedule),
            ("predictor_rate", predictor_rate),
        )
    }
    problems = [
        FlowProblem.of(net, **{name: values[k] for name, values in each.items()}, **shared)
        for k, net in enumerate(nets)
    ]
    aligned = [problem.aligned() for problem in problems]
    runs = [problem.run() for problem, equations in zip(problems, aligned, strict=True) if equations is None]
    with progress_callback(progress, "gradient flow") as callback:
        observed = iter(engine.run_flows(runs, threads, callback))
    return [
        Flow(**(problem.integrated(next(observed)) if equations is None else problem.solved(equations)))
        for problem, equations in zip(problems, aligned, strict=True)
    ]


def _one_each(name: str, value: Any, count: int) -> Sequence[Any]:
    """Return what there is one of for each network; a single value is for all."""
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} must be one for all networks or {count} of them, one each; got {len(value)}")
    return value
