"""What `solve` returns: the responses of an ensemble of features over time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._core import engine
from ._frozen import FrozenArrays
from ._validate import FloatArray
from .objectives import JEPA, Objective
from .theory import TimeUnit, critical_time

if TYPE_CHECKING:
    import numpy.typing as npt

    from .schedule import Schedule
    from .spectrum import Spectrum

__all__ = ["Solution"]


@dataclass(frozen=True, eq=False, repr=False)
class Solution(FrozenArrays):
    """The encoder responses of a spectrum over time, as `solve` found them.

    Attributes
    ----------
    t : array [m] or [n, m]
        The times asked for, in ``time_unit``.
    w : array [n, m]
        Encoder response ``w_i`` of feature ``i`` at each time; NaN where it was not reached.
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
        )

    def critical_time(self, fraction: float = 0.5) -> FloatArray:
        """Return when each feature has risen to ``fraction`` of its own fixed point, exactly (THEORY.md 4).

        In the solution's time unit, whether or not its times go that far; inf where the feature is never learned. See
        `jepa_ode.critical_time`.

        Examples
        --------
        >>> import jepa_ode as jo
        >>> spec = jo.Spectrum([0.7], rho=[0.6])
        >>> sol = jo.solve(spec, "jepa", depth=2, eps=1e-2, t=[0.0])
        >>> sol.critical_time(0.9).round(6)
        array([651.62992])
        """
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

        Features that are never learned are left out; those learned at the same time keep their order.

        Examples
        --------
        >>> import jepa_ode as jo
        >>> spec = jo.Spectrum([1.0, 0.9, 0.0], sigma2=[2.0, 1.2, 1.0])
        >>> jo.solve(spec, "jepa", depth=4, eps=0.01, t=[0.0]).learning_order()
        array([1, 0])
        """
        from .learning import learning_order

        # The limit of deep MAE is JEPA at depth 1, in whatever unit (THEORY.md 2).
        objective, depth = (JEPA(), 1.0) if math.isinf(self.depth) else (self.objective, self.depth)
        return learning_order(self.spectrum, objective, depth=depth, eps=self.eps, fraction=fraction)

    def to_xarray(self) -> Any:
        """Return an ``xarray.Dataset``: ``w`` [feature, time], status and evaluations [feature], parameters in ``attrs``.

        Times of the form [n, m] become the coordinate ``t`` of both dimensions. Needs xarray
        (``pip install "jepa-ode[xarray]"``).
        """
        try:
            import xarray
        except ImportError as error:
            raise ImportError('to_xarray needs xarray: pip install "jepa-ode[xarray]"') from error
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
        attributes = {
            "objective": repr(self.objective),
            "depth": self.depth,
            "time_unit": self.time_unit,
            "method": self.method,
            "rtol": self.rtol,
            "atol": self.atol,
            "max_steps": self.max_steps,
            "message": self.message,
        }
        return xarray.Dataset(variables, coords=coordinates, attrs=attributes)

    def to_dataframe(self) -> Any:
        """Return a tidy ``pandas.DataFrame``: one row per feature and time, with the parameters of the feature.

        Needs pandas (``pip install "jepa-ode[xarray]"``).
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError('to_dataframe needs pandas: pip install "jepa-ode[xarray]"') from error
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
    failed = [engine.Status(int(code)) for code in np.unique(status) if code != 0]
    if not failed:
        return engine.status_message(engine.Status.OK)
    return "; ".join(
        f"{np.count_nonzero(status == code)} of {status.size} features: {engine.status_message(code)}"
        for code in failed
    )
