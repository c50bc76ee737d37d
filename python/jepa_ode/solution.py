"""What `solve` returns: the responses of an ensemble of features over time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ._core import engine
from ._extras import require
from ._frozen import FrozenArrays
from ._validate import FloatArray, as_positive
from .objectives import JEPA, Objective
from .theory import TimeUnit, critical_time

if TYPE_CHECKING:
    import numpy.typing as npt

    from .schedule import Schedule
    from .sensitivity import Sensitivity
    from .spectrum import Spectrum

__all__ = ["Solution"]

_LAST_TIME = 1e15  # of flow: when a layer system counts as having ended


@dataclass(frozen=True, eq=False, repr=False)
class Solution(FrozenArrays):
    """The encoder responses of a spectrum over time, as `solve` found them.

    Attributes
    ----------
    t : array [m] or [n, m]
        The times asked for, in ``time_unit``.
    w : array [n, m]
        Encoder response ``w_i`` of feature ``i`` at each time; NaN where it was not reached. float64, or float32 if so
        asked for.
    status : int8 array [n]
        How each feature ended, a `Status`: 0 (OK) where every time was reached within tolerance.
    message : str
        The statuses in words.
    nfev : int64 array [n]
        Evaluations of the right-hand side per feature; 0 with ``method="exact"``.
    method : str
        ``"exact"``, ``"tsit5"`` or ``"dop853"``.
    spectrum : Spectrum
        The features, n of them.
    objective : JEPA or MAE
    depth : float
    eps : array [n]
        The start, ``w(0)``.
    time_unit : str
        ``"flow"`` or ``"rescaled"``.
    rtol, atol : float
        Tolerances of ``w``; the exact method needs none.
    max_steps : int
        Budget of steps per feature; the exact method takes none.
    v0 : array [n] or None
        Start of the predictor; None is the balanced one, ``eps^(1/L)``.
    schedule : Schedule or None
        Learning-rate schedule, in ``time_unit``.
    predictor : array [n, m] or None
        The predictor ``v`` of a layer system (THEORY.md 2). None for plain objectives from a balanced start, where
        ``v = w^(1/L)``.
    target : array [n, m] or None
        The target layer ``b``; None where there is no moving average.

    Notes
    -----
    Arrays are read-only. Two solutions are equal when all of their contents are; NaN equals NaN.

    See Also
    --------
    jepa_ode.solve
    """

    t: FloatArray
    w: FloatArray
    status: npt.NDArray[np.int8]
    message: str
    nfev: npt.NDArray[np.int64]
    method: str
    spectrum: Spectrum
    objective: Objective
    depth: float
    eps: FloatArray
    time_unit: TimeUnit
    rtol: float
    atol: float
    max_steps: int
    v0: FloatArray | None = None
    schedule: Schedule | None = None
    predictor: FloatArray | None = None
    target: FloatArray | None = None

    @property
    def success(self) -> bool:
        """Whether every feature reached every requested time within tolerance."""
        return not self.status.any()

    def at(self, t: Any, *, threads: int | None = None) -> Solution:
        """Solve again at other times, everything else unchanged.

        Nothing is interpolated between the times of this solution: a value is the same, bit for bit, as if its time had
        been among those asked for first.

        Parameters
        ----------
        t : float or array of shape [m] or [n, m]
            Times since the start, non-negative and non-decreasing.
        threads : int, optional
            Threads to use; None means every CPU that this process may use.

        Returns
        -------
        Solution

        Examples
        --------
        >>> import jepa_ode as jo
        >>> spec = jo.Spectrum([0.0], sigma2=[1.0])
        >>> sol = jo.solve(spec, "jepa", depth=1, eps=0.5, t=[0.0, 1.0])
        >>> sol.at(6.0).w
        array([[0.25]])
        """
        from .solve import solve

        return solve(
            self.spectrum,
            self.objective,
            depth=self.depth,
            eps=self.eps,
            t=t,
            method=self.method,
            rtol=self.rtol,
            atol=self.atol,
            threads=threads,
            time_unit=self.time_unit,
            max_steps=self.max_steps,
            v0=self.v0,
            schedule=self.schedule,
            dtype=self.w.dtype,
        )

    def critical_time(self, fraction: float = 0.5) -> FloatArray:
        """Return when each feature has risen to ``fraction`` of its own fixed point (THEORY.md 4).

        In the solution's time unit, whether or not its times go that far; inf where the feature is never learned. Exact
        where there is a closed form, see `jepa_ode.critical_time`: a feature that starts at its level or above it is there
        at time 0, and one that decays to nothing is never learned. A layer system is solved again to find the crossing,
        to within the tolerances of the solution; there the fixed point is the response at which the feature has come to
        rest after 1e15 units of flow time, and one that still decays then, or is gone, is never learned.

        Examples
        --------
        >>> import jepa_ode as jo
        >>> spec = jo.Spectrum([0.7], rho=[0.6])
        >>> sol = jo.solve(spec, "jepa", depth=2, eps=1e-2, t=[0.0])
        >>> sol.critical_time(0.9).round(6)
        array([651.62992])
        >>> jo.solve(spec, jo.JEPA(ema=50.0), depth=2, eps=1e-2, t=[0.0]).critical_time(0.9).round(2)
        array([1106.9])
        """
        if self.predictor is not None:
            return self._crossing_time(fraction)
        return critical_time(
            self.spectrum,
            self.objective,
            depth=self.depth,
            eps=self.eps,
            fraction=fraction,
            time_unit=self.time_unit,
            schedule=self.schedule,
        )

    def learning_order(self, fraction: float = 0.5) -> npt.NDArray[np.intp]:
        """Return the indices of the features that are learned, first to last: `jepa_ode.learning_order`.

        Features that are never learned, or start at their level or above it, are left out; those learned at the same time
        keep their order.

        Examples
        --------
        >>> import jepa_ode as jo
        >>> spec = jo.Spectrum([1.0, 0.9, 0.0], sigma2=[2.0, 1.2, 1.0])
        >>> jo.solve(spec, "jepa", depth=4, eps=0.01, t=[0.0]).learning_order()
        array([1, 0])
        """
        if self.predictor is not None:
            times = self.critical_time(fraction)
            order = np.argsort(times, kind="stable")
            return order[np.isfinite(times[order]) & (times[order] > 0)]
        from .learning import learning_order

        # The limit of deep MAE is JEPA at depth 1, in whatever unit (THEORY.md 2).
        objective, depth = (JEPA(), 1.0) if math.isinf(self.depth) else (self.objective, self.depth)
        return learning_order(self.spectrum, objective, depth=depth, eps=self.eps, fraction=fraction)

    def _crossing_time(self, fraction: float) -> FloatArray:
        """Return when layer systems reach ``fraction`` of their end, by ever finer grids around the crossing."""
        if not 0 < as_positive("fraction", fraction) < 1:
            raise ValueError(f"fraction must lie between 0 and 1 (the fixed point is never reached), got {fraction}")
        n = len(self.eps)
        solver = replace(self, schedule=None, w=np.empty((n, 0)))  # on its own clock, in double precision
        end = _LAST_TIME * (self.depth if self.time_unit == "rescaled" else 1.0)
        # Decades first; after that each grid has the last one's bracket, the first point at or above the level its end.
        decades = np.concatenate([[0.0], np.geomspace(1e-9, 1.0, 190)])
        grid = np.tile(decades * end, (n, 1))
        w = solver.at(grid).w
        final = w[:, -1]
        learned = final > 0.9 * w[:, np.searchsorted(decades, 1e-3)]  # at rest, and not at 0; false for NaN
        level = fraction * final
        rows = np.arange(n)
        for _ in range(9):
            above = np.maximum(np.argmax(w >= level[:, None], axis=1), 1)
            low, high = grid[rows, above - 1], grid[rows, above]
            grid = low[:, None] + (high - low)[:, None] * np.linspace(0.0, 1.0, 65)
            w = solver.at(grid).w
        above = np.argmax(w >= level[:, None], axis=1)
        times = np.where(learned, np.where(level <= self.eps, 0.0, grid[rows, above]), math.inf)
        return times if self.schedule is None else self.schedule.time(times)

    def sensitivity(self, *, threads: int | None = None) -> Sensitivity:
        """Return the derivatives of ``w`` with respect to ``lam``, ``sigma2``, ``eps`` and ``t``, in closed form.

        They are those of the exact solution at the same inputs, whatever ``method`` found ``w``, and as accurate as it
        is: nothing is differenced. The limits at ``t = inf`` are included.

        Parameters
        ----------
        threads : int, optional
            Threads to use; None means every CPU that this process may use. Results do not depend on it.

        Returns
        -------
        Sensitivity
            Arrays ``lam, sigma2, eps, t`` [n, m], and ``rho`` (at fixed ``lam``); which variables are held fixed and
            the units are said there.

        Raises
        ------
        ValueError
            If the objective has options without a closed form (moving average, weight decay, no stop-gradient).

        Examples
        --------
        How far an error of 1% in ``rho`` moves the response of a feature, before, while and after it is learned:

        >>> import jepa_ode as jo
        >>> spec = jo.Spectrum([0.7], rho=[0.6])
        >>> sol = jo.solve(spec, "jepa", depth=2, eps=1e-2, t=[60.0, 640.0, 900.0])
        >>> s = sol.sensitivity()
        >>> (s.rho * 0.01 * spec.rho[:, None] / sol.w).round(4)
        array([[0.0002, 0.0795, 0.02  ]])
        """
        from .sensitivity import sensitivity

        return sensitivity(self, threads)

    def to_xarray(self) -> Any:
        """Return an ``xarray.Dataset``: ``w`` [feature, time], status and evaluations [feature], parameters in ``attrs``.

        Times of the form [n, m] become the coordinate ``t`` of both dimensions. Needs xarray
        (``pip install "jepa-ode[xarray]"``).
        """
        require("xarray", "to_xarray needs", "xarray")
        import xarray

        coordinates: dict[str, Any] = {
            "lam": ("feature", self.spectrum.lam),
            "sigma2": ("feature", self.spectrum.sigma2),
            "rho": ("feature", self.spectrum.rho),
            "eps": ("feature", self.eps),
        }
        if self.t.ndim == 1:
            coordinates["time"] = self.t
        else:
            coordinates["t"] = (("feature", "time"), self.t)
        variables = {
            "w": (("feature", "time"), self.w),
            "status": ("feature", self.status),
            "nfev": ("feature", self.nfev),
        }
        for name in ("predictor", "target"):
            if (layer := getattr(self, name)) is not None:
                variables[name] = (("feature", "time"), layer)
        if self.v0 is not None:
            coordinates["v0"] = ("feature", self.v0)
        attributes = {
            "objective": repr(self.objective),
            "depth": self.depth,
            "time_unit": self.time_unit,
            "method": self.method,
            **({} if self.method == "exact" else {"rtol": self.rtol, "atol": self.atol, "max_steps": self.max_steps}),
            "message": self.message,
            **({} if self.schedule is None else {"schedule": repr(self.schedule)}),
        }
        return xarray.Dataset(variables, coords=coordinates, attrs=attributes)

    def to_dataframe(self) -> Any:
        """Return a tidy ``pandas.DataFrame``: one row per feature and time, with the parameters of the feature.

        Needs pandas (``pip install "jepa-ode[xarray]"``).
        """
        require("pandas", "to_dataframe needs", "xarray")
        import pandas

        n, m = self.w.shape
        return pandas.DataFrame(
            {
                "feature": np.repeat(np.arange(n), m),
                "lam": np.repeat(self.spectrum.lam, m),
                "rho": np.repeat(self.spectrum.rho, m),
                "t": np.broadcast_to(self.t, (n, m)).ravel(),
                "w": self.w.ravel(),
            }
        )

    def plot(self, ax: Any = None) -> Any:
        """Plot the responses against time on ``ax`` (default: new axes) and return it.

        Needs matplotlib (``pip install "jepa-ode[plot]"``).
        """
        from .plot import plot_solution

        return plot_solution(self, ax=ax)

    def __repr__(self) -> str:
        n, m = self.w.shape
        ending = "success" if self.success else self.message
        return (
            f"Solution({self.objective.name}, depth={self.depth:g}, {n} feature{'s' * (n != 1)}, "
            f"{m} time{'s' * (m != 1)}, method={self.method!r}, {ending})"
        )


def describe(status: npt.NDArray[np.int8]) -> str:
    """Say in one sentence how the features ended."""
    if not status.any():
        return engine.status_message(engine.Status.OK)
    failed = [engine.Status(int(code)) for code in np.unique(status) if code != 0]
    return "; ".join(
        f"{np.count_nonzero(status == code)} of {status.size} features: {engine.status_message(code)}"
        for code in failed
    )
