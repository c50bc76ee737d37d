"""Ready tasks for sweeps: the solvers of this package by parameters that are numbers and texts, one cell each.

All take the same parameters for features and objective.

Features are ``spec``, a `Spectrum`; or ``lam`` with ``rho`` or ``sigma2`` (and ``sigma2_y``), arrays [n]; or ``trend``, "same"
or "opposite", with the number of ``features`` and with ``lam`` and ``rho`` as pairs of lowest and highest value
(`jepa_ode.models.feature_trends`).

The objective is ``objective``, a `JEPA`, a `MAE`, "jepa" or "mae"; for a name, ``stop_gradient``, ``ema`` (0 is none, the
limit) and ``weight_decay`` are its options.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from .._core import engine
from .._validate import as_choice
from ..covariances import Covariances
from ..flow import gradient_flow as _gradient_flow
from ..learning import learning_times
from ..learning import order_correlation as _order_correlation
from ..models import StaticModel, feature_trends
from ..network import LinearNetwork
from ..objectives import JEPA, MAE, Objective, ObjectiveLike, as_objective
from ..solution import describe
from ..solve import solve as _solve
from ..spectrum import Spectrum
from ..training import train as _train
from ._outputs import Trouble

__all__ = ["critical_time", "gradient_flow", "order_correlation", "selection", "solve", "train"]

Variables = dict[str, Any]
_FEATURES = ("spec", "lam", "rho", "sigma2", "sigma2_y", "trend", "features")
_OPTIONS = ("stop_gradient", "ema", "weight_decay")
_Task = TypeVar("_Task", bound=Callable[..., Any])


def _passes_to(solver: Callable[..., Any], *, withheld: tuple[str, ...] = ()) -> Callable[[_Task], _Task]:
    """Name in a task's signature all that it takes: a sweep then refuses a misspelt parameter, and no cell has to fail."""

    def named(task: _Task) -> _Task:
        signature, keyword = inspect.signature(task), inspect.Parameter.KEYWORD_ONLY
        known = {name: each for name, each in signature.parameters.items() if each.kind is keyword}
        described = [inspect.Parameter(name, keyword, default=None) for name in (*_FEATURES, *_OPTIONS)]
        for each in (*described, *inspect.signature(solver).parameters.values()):
            if each.kind is keyword and each.name not in withheld:
                known.setdefault(each.name, each.replace(annotation=inspect.Parameter.empty))
        vars(task)["__signature__"] = signature.replace(parameters=list(known.values()))
        return task

    return named


@_passes_to(_solve, withheld=("out",))
def solve(
    *, depth: float, eps: Any, t: Any, objective: ObjectiveLike = "jepa", **parameters: Any
) -> Variables | Trouble:
    """Responses over time, `jepa_ode.solve`: ``w`` [feature, time], ``feature_status`` and ``nfev`` [feature].

    Other parameters are those of `jepa_ode.solve` but for ``out``.
    """
    spec, chosen, rest = _split(parameters, objective)
    sol = _solve(spec, chosen, depth=depth, eps=eps, t=t, **rest)
    found = {
        "w": (("feature", "time"), sol.w),
        "feature_status": ("feature", sol.status),
        "nfev": ("feature", sol.nfev),
    }
    if sol.t.ndim == 1:
        found["time"] = ("time", sol.t)
    return found if sol.success else Trouble(found, sol.message)


@_passes_to(_solve, withheld=("t", "out"))
def critical_time(
    *, depth: float, eps: Any, objective: ObjectiveLike = "jepa", fraction: float = 0.5, **parameters: Any
) -> Variables:
    """When each feature reaches ``fraction`` of its own fixed point (THEORY.md 4): ``critical_time`` [feature].

    Other parameters are those of `jepa_ode.solve`, as ``time_unit``; options of the objective are integrated.
    """
    spec, chosen, rest = _split(parameters, objective)
    sol = _solve(spec, chosen, depth=depth, eps=eps, t=[0.0], **rest)
    return {"critical_time": ("feature", sol.critical_time(fraction))}


@_passes_to(learning_times, withheld=_OPTIONS)
def order_correlation(*, depth: float, eps: Any, **parameters: Any) -> Variables:
    """Rank correlation of the orders in which JEPA and MAE learn: 1 the same, -1 inverted (THEORY.md 5).

    ``order_correlation`` and the numbers of features that each learns, ``learned_jepa`` and ``learned_mae``. Other parameters
    are those of `jepa_ode.learning_times`: ``fraction``, ``threshold``, ``t_end``, ``min_growth``.
    """
    spec, _, rest = _split(parameters, "jepa")
    jepa, mae = (learning_times(spec, each, depth=depth, eps=eps, **rest) for each in ("jepa", "mae"))
    return {
        "order_correlation": _order_correlation(jepa, mae),
        "learned_jepa": np.count_nonzero(np.isfinite(jepa)),
        "learned_mae": np.count_nonzero(np.isfinite(mae)),
    }


@_passes_to(_solve, withheld=("t", "out"))
def selection(
    *, depth: float, eps: Any, t_end: float, objective: ObjectiveLike = "jepa", level: float = 0.1, **parameters: Any
) -> Variables | Trouble:
    """Which features are let through by the time ``t_end``, and which suppressed.

    ``response`` [feature] at that time; ``learned``, the share of features whose response is ``level`` or more; ``weakest``,
    the lowest regression coefficient among these, NaN where there are none. Other parameters are those of `jepa_ode.solve`.
    """
    spec, chosen, rest = _split(parameters, objective)
    sol = _solve(spec, chosen, depth=depth, eps=eps, t=[t_end], **rest)
    response = sol.w[:, 0]
    learned = response >= level
    weakest = spec.rho[learned].min() if learned.any() else np.nan
    found = {"learned": learned.mean(), "weakest": weakest, "response": ("feature", response)}
    return found if sol.success else Trouble(found, describe(sol.status))


@_passes_to(_gradient_flow)
def gradient_flow(
    *,
    depth: int,
    eps: float,
    t: Any,
    objective: ObjectiveLike = "jepa",
    cov: Covariances | None = None,
    tilt: float = 0.0,
    start: str = "balanced",
    widths: Any = None,
    rng: int | np.random.Generator = 0,
    **parameters: Any,
) -> Variables | Trouble:
    """Gradient flow of a whole network, `jepa_ode.gradient_flow`: ``response`` [feature, time], ``loss`` [time], ``nfev``.

    Parameters
    ----------
    eps : float
        Response of a balanced start, scale of a random one.
    cov : Covariances, optional
        The data; by default those of the static model with the features given, in random directions which ``tilt`` couples
        (`jepa_ode.StaticModel.tilted`).
    start : {"balanced", "gaussian", "uniform"}
        Of `jepa_ode.LinearNetwork`.
    widths : int or sequence of int, optional
        Of its hidden layers.
    rng : int or Generator
        Randomness of data and start.
    **parameters
        Features, options of the objective, and those of `jepa_ode.gradient_flow`; ``levels`` adds ``crossing_time``
        [feature]. Features are in the order of ``cov.spectrum()``, of falling rho.
    """
    chosen, rest, cov, net = _network_problem(parameters, objective, cov, tilt, start, widths, rng, depth, eps)
    flow = _gradient_flow(net, cov, chosen, t=t, **rest)
    found: Variables = {"response": (("feature", "time"), flow.response), "nfev": flow.nfev, "time": ("time", flow.t)}
    if flow.loss is not None:
        found["loss"] = ("time", flow.loss)
    if flow.crossing_time is not None:
        found["crossing_time"] = ("feature", flow.crossing_time)
    return found if flow.success else Trouble(found, flow.message)


@_passes_to(_train)
def train(
    *,
    depth: int,
    eps: float,
    lr: float,
    steps: int,
    objective: ObjectiveLike = "jepa",
    cov: Covariances | None = None,
    tilt: float = 0.0,
    start: str = "balanced",
    widths: Any = None,
    rng: int | np.random.Generator = 0,
    **parameters: Any,
) -> Variables | Trouble:
    """Training of a network in steps, `jepa_ode.train`: ``response`` [feature, iteration], ``loss`` and ``t`` [iteration].

    Parameters are those of `gradient_flow` and of `jepa_ode.train`; data, start and batches draw from ``rng`` in turn.
    """
    generator = np.random.default_rng(rng)
    chosen, rest, cov, net = _network_problem(parameters, objective, cov, tilt, start, widths, generator, depth, eps)
    run = _train(net, cov, chosen, lr=lr, steps=steps, rng=generator, **rest)
    found: Variables = {
        "response": (("feature", "iteration"), run.response),
        "t": ("iteration", run.t),
        "iteration": ("iteration", run.iteration),
    }
    if run.loss is not None:
        found["loss"] = ("iteration", run.loss)
    return found if run.status == engine.Status.OK else Trouble(found, run.message)


def find(task: Any) -> Callable[..., Any]:
    """Return a task; raise ValueError or TypeError where there is none."""
    if isinstance(task, str):
        function: Callable[..., Any] = globals()[as_choice("task", task, __all__)]
        return function
    if inspect.isclass(task) or not callable(task):
        raise TypeError(f"task must be a function or one of {', '.join(map(repr, __all__))}, got {task!r}")
    chosen: Callable[..., Any] = task
    return chosen


def _split(parameters: dict[str, Any], objective: ObjectiveLike) -> tuple[Spectrum, Objective, dict[str, Any]]:
    """Return features, objective and what is left for the solver."""
    described = {name: parameters[name] for name in _FEATURES if name in parameters}
    rest = {name: value for name, value in parameters.items() if name not in (*_FEATURES, *_OPTIONS)}
    return _features(**described), _objective(parameters, objective), rest


def _features(
    spec: Spectrum | None = None,
    lam: Any = None,
    rho: Any = None,
    trend: Any = None,
    features: Any = None,
    **variances: Any,
) -> Spectrum:
    if spec is not None:
        if lam is not None or rho is not None or trend is not None or features is not None or variances:
            raise ValueError("features are spec, or lam with rho or sigma2, or trend with features: one of these")
        return spec
    if trend is None:
        if lam is None or features is not None:
            raise ValueError("features are missing: spec, or lam with rho or sigma2, or trend with features")
        return Spectrum(lam, rho=rho, **variances)
    if features is None or variances:
        other = f", not with {', '.join(variances)}" if variances else ""
        raise ValueError(f"trend goes with features, their number, and with lam and rho, (lowest, highest){other}")
    ranges = {name: tuple(each) for name, each in (("lam", lam), ("rho", rho)) if each is not None}
    return feature_trends(features, trend, **ranges)


def _objective(parameters: dict[str, Any], objective: ObjectiveLike) -> Objective:
    options = {name: parameters[name] for name in _OPTIONS if name in parameters}
    if not options:
        return as_objective(objective)
    if not isinstance(objective, str):
        raise ValueError(f"{', '.join(options)}: options of an objective that is given by name, got {objective!r}")
    if options.get("ema") == 0:
        options["ema"] = None
    if isinstance(as_objective(objective), JEPA):
        return JEPA(**options)
    if options.get("stop_gradient", True) is not True or options.get("ema") is not None:
        raise ValueError("MAE has no target encoder: no stop_gradient and no ema")
    return MAE(options.get("weight_decay", 0.0))


def _network_problem(
    parameters: dict[str, Any],
    objective: ObjectiveLike,
    cov: Covariances | None,
    tilt: float,
    start: str,
    widths: Any,
    rng: int | np.random.Generator,
    depth: int,
    eps: float,
) -> tuple[Objective, dict[str, Any], Covariances, LinearNetwork]:
    as_choice("start", start, ("balanced", "gaussian", "uniform"))
    generator = np.random.default_rng(rng)
    if cov is None:
        spec, chosen, rest = _split(parameters, objective)
        cov = StaticModel.tilted(spec, tilt=tilt, rng=generator).covariances()
    else:
        chosen = _objective(parameters, objective)
        rest = {name: value for name, value in parameters.items() if name not in _OPTIONS}
    d, shared = len(cov.Sxx), {"rng": generator, "widths": widths, "objective": chosen.name}
    if start == "balanced":
        return chosen, rest, cov, LinearNetwork.balanced(d, depth, eps, **shared)
    return chosen, rest, cov, LinearNetwork.random(d, depth, eps, distribution=start, **shared)
