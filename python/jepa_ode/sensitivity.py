"""How the responses of a solution depend on its inputs: derivatives in closed form (THEORY.md 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._core import engine
from ._frozen import FrozenArrays
from ._threads import as_threads
from ._validate import FloatArray
from .objectives import require_plain
from .theory import feature_equation

if TYPE_CHECKING:
    from .solution import Solution

__all__ = ["Sensitivity"]


@dataclass(frozen=True, eq=False, repr=False)
class Sensitivity(FrozenArrays):
    """Derivatives of the responses ``w`` [n, m] of a solution: `Solution.sensitivity` makes it.

    Each is a partial derivative: of ``w_i(t_j)`` with respect to one of the feature's own ``lam, sigma2, eps`` and the
    time, the other three held fixed. A response depends on no other feature.

    Attributes
    ----------
    lam : array [n, m]
        ``dw/dlambda`` at fixed ``sigma2``. Not negative.
    sigma2 : array [n, m]
        ``dw/dsigma2`` at fixed ``lambda``. Not positive.
    eps : array [n, m]
        ``dw/deps``, with respect to the feature's own start. Not negative.
    t : array [n, m]
        ``dw/dt``, the speed of learning, per unit of the solution's ``time_unit``.
    solution : Solution
        Whose derivatives these are.

    Notes
    -----
    Arrays are read-only. A derivative that no double can hold is inf; it underflows to 0. Time scales with the two
    parameters together, ``lam dw/dlam + sigma2 dw/dsigma2 = t dw/dt``, so the derivative with respect to ``lambda`` at
    fixed ``rho`` is ``t * s.t / lam``.

    Errors are as those of the exact solution: with E of THEORY.md 3 taken of the derivative itself, a few units of
    rounding. Where the start is within 1e-8 of the fixed point, relatively, ``s.t`` is as accurate as the distance.

    See Also
    --------
    jepa_ode.Solution.sensitivity
    """

    lam: FloatArray
    sigma2: FloatArray
    eps: FloatArray
    t: FloatArray
    solution: Solution

    @property
    def rho(self) -> FloatArray:
        """``dw/drho`` at fixed ``lambda``, array [n, m]: ``-(sigma2/rho) dw/dsigma2``; NaN where ``lambda = 0``.

        Where ``lambda = 0``, ``rho`` is 0 whatever ``sigma2`` is, and knows nothing of it.
        """
        spectrum = self.solution.spectrum
        # sigma2/rho = sigma2^2/lam: exponents apart, for neither need be a double.
        derivative, derivative_exponent = np.frexp(self.sigma2)
        sigma2, sigma2_exponent = np.frexp(spectrum.sigma2[:, None])
        lam, lam_exponent = np.frexp(spectrum.lam[:, None])
        exponent = derivative_exponent + 2 * sigma2_exponent - lam_exponent
        with np.errstate(all="ignore"):
            by_rho: FloatArray = np.ldexp(-derivative * sigma2 * sigma2 / lam, exponent)
        by_rho[spectrum.lam == 0] = np.nan
        return by_rho

    def to_xarray(self) -> Any:
        """Return the solution's ``xarray.Dataset`` with ``dw_dlam, dw_dsigma2, dw_drho, dw_deps, dw_dt`` added.

        Dimensions and coordinates are those of `Solution.to_xarray`. Needs xarray (``pip install "jepa-ode[xarray]"``).
        """
        dimensions = ("feature", "time")
        names = ("lam", "sigma2", "rho", "eps", "t")
        return self.solution.to_xarray().assign({f"dw_d{name}": (dimensions, getattr(self, name)) for name in names})

    def __repr__(self) -> str:
        return f"Sensitivity(lam, sigma2, eps, t: arrays {self.t.shape}, of {self.solution!r})"


def sensitivity(solution: Solution, threads: int | None) -> Sensitivity:
    """Differentiate the exact solution of what `solution` solves: `Solution.sensitivity`."""
    require_plain(solution.objective, "sensitivity")
    if solution.v0 is not None:
        raise ValueError("sensitivity holds for a balanced start only (v0=None): others have no closed form")
    equation = feature_equation(solution.objective, solution.depth, solution.time_unit)
    schedule = solution.schedule
    clock = solution.t if schedule is None else schedule.elapsed(solution.t)
    lam, sigma2, eps, t = engine.sensitivity(
        solution.spectrum.lam,
        solution.spectrum.sigma2,
        solution.eps,
        equation.depth,
        equation.code,
        clock / equation.unit,
        as_threads(threads),
    )
    t /= equation.unit
    if schedule is not None:  # dw/dt = dw/dtheta s(t), where theta is the elapsed schedule
        t *= schedule(solution.t)
    for array in (lam, sigma2, eps, t):
        array.flags.writeable = False
    return Sensitivity(lam, sigma2, eps, t, solution)
