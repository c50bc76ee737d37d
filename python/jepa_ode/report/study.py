"""Everything that a report tells, computed: from pairs to predicted and integrated dynamics. No drawing here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._frozen import FrozenArrays, read_only
from .._threads import as_threads
from .._validate import FloatArray, as_depth, as_index, as_positive
from ..analysis import learning_times, order_correlation
from ..covariances import Covariances
from ..objectives import JEPA, MAE, Objective
from ..overlaps import Overlap, overlap
from ..solve import solve
from ..theory import critical_time, fixed_point
from .network_check import NetworkCheck, no_check, obstacle, run_network_check

if TYPE_CHECKING:
    import numpy.typing as npt

    from ..spectrum import Spectrum

__all__ = ["Analysis", "Learning", "Settings", "analyze"]

Progress = Callable[[str, float], object]

_CURVE_POINTS = 300


@dataclass(frozen=True)
class Settings:
    """What was asked for.

    Attributes
    ----------
    source, views : str
        Where the pairs come from, in words.
    remark : str
        A sentence on what was done to the data before, for the diagnostic.
    depth, eps, fraction : float
        Number of encoder layers; response at the start; threshold of "learned", a fraction of each
        feature's own fixed point.
    min_growth : float
        A feature must grow by this factor to count as learned (`learning_times`).
    jepa : JEPA
    mae : MAE
        Objectives of the matrix flow. The predictions are those of the plain objectives.
    shrinkage : None, "ledoit-wolf" or float
    exchangeable : bool
        Whether the covariances are averaged over the exchange of x and y.
    image_shape : (height, width) or None
        Shape of one view as an image.
    max_features : int
        At most so many features are reported, those that either objective learns first.
    flow : bool
        Whether the matrix flow is integrated.
    flow_features : int
        At most so many features take part in it.
    flow_budget : float
        Its work for each objective, in seconds of a nominal machine (5e9 operations per second). A
        limit on work and not on time, so that results do not depend on the machine.
    threads : int or None
    seed : int or None
        Seed of the views, for the record.
    """

    source: str = "arrays"
    views: str = "as given"
    remark: str = ""
    depth: float = 2.0
    eps: float = 1e-2
    fraction: float = 0.5
    min_growth: float = 2.0
    jepa: JEPA = field(default_factory=JEPA)
    mae: MAE = field(default_factory=MAE)
    shrinkage: Literal["ledoit-wolf"] | float | None = None
    exchangeable: bool = False
    image_shape: tuple[int, int] | None = None
    max_features: int = 200
    flow: bool = True
    flow_features: int = 64
    flow_budget: float = 30.0
    threads: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        as_depth(self.depth)
        as_positive("eps", self.eps)
        if as_positive("min_growth", self.min_growth) < 1:
            raise ValueError(f"min_growth must be at least 1, got {self.min_growth}")
        if not 0 < as_positive("fraction", self.fraction) < 1:
            raise ValueError(f"fraction must lie between 0 and 1, got {self.fraction}")
        for name in ("max_features", "flow_features"):
            as_index(name, getattr(self, name), minimum=1)
        as_positive("flow_budget", self.flow_budget)
        as_threads(self.threads)

    @property
    def plain(self) -> bool:
        """Whether both objectives are those of the closed forms."""
        return self.jepa.is_plain and self.mae.is_plain


@dataclass(frozen=True, eq=False)
class Learning(FrozenArrays):
    """How one objective learns the features.

    Attributes
    ----------
    objective : JEPA or MAE
    fixed_point, critical_time, leading_time : arrays of shape [n]
        Predictions; times are inf for features that are never learned.
    order : array of ints
        Features that are learned, first to last.
    t : array of shape [m]
    response : array of shape [n, m]
        Predicted responses.
    check : NetworkCheck
        The matrix flow beside the prediction, or why there is none.
    """

    objective: Objective
    fixed_point: FloatArray = field(repr=False)
    critical_time: FloatArray = field(repr=False)
    leading_time: FloatArray = field(repr=False)
    order: npt.NDArray[np.intp] = field(repr=False)
    t: FloatArray = field(repr=False)
    response: FloatArray = field(repr=False)
    check: NetworkCheck = field(repr=False)

    @property
    def place(self) -> npt.NDArray[np.intp]:
        """Place of each feature in the order, from 1; 0 for features that are never learned. Shape [n]."""
        place = np.zeros(self.critical_time.size, dtype=np.intp)
        place[self.order] = np.arange(1, self.order.size + 1)
        return place


@dataclass(frozen=True, eq=False)
class Analysis:
    """What `analyze` found; `write_report` turns it into files.

    Attributes
    ----------
    settings : Settings
    covariances : Covariances
    spectrum : Spectrum
        The features reported, in descending order of rho.
    n_total : int
        Number of all features of the data, reported or not.
    jepa, mae : Learning
    order_correlation : float
        Rank correlation of the two learning orders.
    overlap : Overlap
        What the two share under early stopping.
    seconds : dict
        Run time of each stage.
    """

    settings: Settings
    covariances: Covariances
    spectrum: Spectrum
    n_total: int
    jepa: Learning
    mae: Learning
    order_correlation: float
    overlap: Overlap
    seconds: dict[str, float]

    @property
    def learnings(self) -> dict[str, Learning]:
        """Both objectives by name."""
        return {"jepa": self.jepa, "mae": self.mae}

    @property
    def ranks(self) -> bool:
        """Whether `order_correlation` says something: it exists and is that of three features or more."""
        learned = np.union1d(self.jepa.order, self.mae.order).size
        return learned >= 3 and not np.isnan(self.order_correlation)

    @property
    def resolved(self) -> npt.NDArray[np.bool_]:
        """Features whose rho lies more than two standard errors above zero. Shape [n]."""
        stderr = None if self.spectrum.diagnostic is None else self.spectrum.diagnostic.rho_stderr
        return self.spectrum.rho > (0.0 if stderr is None else 2 * stderr)


def analyze(x: Any, y: Any, settings: Settings | None = None, *, progress: Progress | None = None) -> Analysis:
    """Analyse pairs of views: estimate the features, predict how JEPA and MAE learn them, check it on a network.

    Parameters
    ----------
    x, y : arrays of shape [samples, d]
        Context and target.
    settings : Settings, optional
    progress : callable, optional
        Is told the stage and the fraction of it that is done.

    Examples
    --------
    >>> import jepa_ode as jo
    >>> from jepa_ode.report import Settings, analyze
    >>> model = jo.StaticModel.from_spectrum(jo.Spectrum([1.0, 0.9, 0.8], rho=[0.5, 0.75, 0.95]))
    >>> analysis = analyze(*model.sample(5000, rng=0), Settings(depth=4))
    >>> analysis.jepa.order, analysis.mae.order, analysis.order_correlation
    (array([0, 1, 2]), array([2, 1, 0]), -1.0)
    """
    settings = Settings() if settings is None else settings
    clock = _Clock(progress)
    with clock.stage("spectrum"):
        cov = Covariances.from_pairs(x, y, shrinkage=settings.shrinkage, exchangeable=settings.exchangeable)
        spec = cov.spectrum()
        n_total = len(spec)
    with clock.stage("predictions"):
        if len(spec) > settings.max_features:
            spec = spec[_learned_first(spec, settings, settings.max_features)]
        taking_part = _learned_first(spec, settings, settings.flow_features)
        predicted = {name: _predict(spec, name, settings) for name in ("jepa", "mae")}
        shared = overlap(spec, **_learned_means(settings))
    learnings = {}
    for name, objective in (("jepa", settings.jepa), ("mae", settings.mae)):
        learnings[name] = replace(predicted[name], objective=objective)
        reason = "The matrix flow was not asked for."
        if settings.flow:
            reason = obstacle(settings.depth, predicted[name].critical_time[taking_part])
        if reason:
            learnings[name] = replace(learnings[name], check=no_check(reason))
            continue
        with clock.stage(f"{name} matrix flow") as done:
            check = run_network_check(
                cov,
                spec,
                objective,
                predicted[name].critical_time,
                **_learned_means(settings),
                features=taking_part,
                projected=len(cov.Sxx) > settings.flow_features,
                budget=settings.flow_budget,
                threads=settings.threads,
                progress=done,
            )
        learnings[name] = replace(learnings[name], check=check)
    return Analysis(
        settings=settings,
        covariances=cov,
        spectrum=spec,
        n_total=n_total,
        jepa=learnings["jepa"],
        mae=learnings["mae"],
        order_correlation=order_correlation(learnings["jepa"].critical_time, learnings["mae"].critical_time),
        overlap=shared,
        seconds=clock.seconds,
    )


def _times(spec: Spectrum, name: str, settings: Settings) -> FloatArray:
    return learning_times(spec, name, **_learned_means(settings))


def _learned_means(settings: Settings) -> dict[str, Any]:
    names = ("depth", "eps", "fraction", "min_growth")
    return {name: getattr(settings, name) for name in names}


def _learned_first(spec: Spectrum, settings: Settings, count: int) -> npt.NDArray[np.intp]:
    """Return, in the order of `spec`, the features that are among the first for one objective or the other."""
    place = np.full(len(spec), len(spec))
    for name in ("jepa", "mae"):
        order = np.argsort(_times(spec, name, settings), kind="stable")
        place[order] = np.minimum(place[order], np.arange(len(spec)))
    return np.sort(np.argsort(place, kind="stable")[:count])


def _predict(spec: Spectrum, name: Literal["jepa", "mae"], settings: Settings) -> Learning:
    depth, eps = settings.depth, settings.eps
    times = _times(spec, name, settings)
    learned = np.isfinite(times)
    order = np.argsort(times, kind="stable")[: np.count_nonzero(learned)]
    if learned.any():
        first, last = float(times[learned].min()), float(times[learned].max())
    else:
        first = last = 1.0 / float(spec.sigma2.max())
    t = np.geomspace(first / 10, last * 3, _CURVE_POINTS)
    return Learning(
        objective=JEPA() if name == "jepa" else MAE(),
        fixed_point=read_only(fixed_point(spec, name, depth=settings.depth)),
        critical_time=read_only(times),
        leading_time=read_only(critical_time(spec, name, method="leading", depth=depth, eps=eps)),
        order=read_only(order),
        t=read_only(t),
        response=read_only(solve(spec, name, t=t, threads=settings.threads, depth=depth, eps=eps).w),
        check=no_check(""),
    )


class _Clock:
    """Times the stages and passes on how far they are."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.seconds: dict[str, float] = {}

    def report(self, stage: str, fraction: float) -> None:
        if self.progress is not None:
            self.progress(stage, fraction)

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float], object]]:
        start = time.perf_counter()
        self.report(name, 0.0)
        yield lambda fraction: self.report(name, fraction)
        self.report(name, 1.0)
        self.seconds[name] = time.perf_counter() - start
