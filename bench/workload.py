"""The reference workload W1, its solution by this package, and the measure of error that all solvers are held to.

``lam`` geometric from 0.2 to 2, ``rho`` uniform in [0.2, 0.95] (seeded), 200 uniform times to 1.2 times the largest 90%
critical time: at the end the slowest feature has just arrived and the others have rested for long.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import jepa_ode as jo

Array = npt.NDArray[np.float64]

TIMES = 200
TARGETS = (1e-6, 1e-10)
RUNGE_KUTTA = ("tsit5", "dop853")  # methods of jo.solve that take a tolerance
SMALLEST_RTOL = 1e-13  # that jo.solve takes
LARGEST_RTOL = 1e-2  # to try


@dataclass(frozen=True)
class Case:
    """An objective, a depth and a start."""

    objective: str
    depth: int
    eps: float

    def __str__(self) -> str:
        """Return the text that names the case in tables and on the command line."""
        return f"{self.objective} L{self.depth} eps={self.eps:g}"


W1 = (
    *(Case(objective, depth, 0.1) for objective in ("jepa", "mae") for depth in (1, 2, 4)),
    Case("jepa", 2, 0.01),
)


@dataclass(frozen=True)
class Workload:
    """Features, times and a case: all that a solver needs to know."""

    spec: jo.Spectrum
    t: Array
    case: Case

    @property
    def start(self) -> float:
        """The start of the per-layer variable ``u = w^(1/L)``."""
        return float(self.case.eps ** (1 / self.case.depth))

    def subset(self, chosen: Any) -> Workload:
        """Return the same times for some of the features."""
        return Workload(self.spec[chosen], self.t, self.case)


def features(n: int) -> jo.Spectrum:
    """Return the n features of W1."""
    return jo.Spectrum(np.geomspace(0.2, 2, n), rho=np.random.default_rng(0).uniform(0.2, 0.95, n))


def workload(case: Case, n: int, *, m: int = TIMES, horizon: float | None = None) -> Workload:
    """Return W1 with n features for a case; `horizon` replaces 1.2 times the largest 90% critical time."""
    spec = features(n)
    if horizon is None:
        rise = jo.critical_time(spec, case.objective, depth=case.depth, eps=case.eps, fraction=0.9)
        horizon = 1.2 * float(rise[np.isfinite(rise)].max())
    return Workload(spec, np.linspace(0, horizon, m), case)


def solve(work: Workload, method: str = "exact", rtol: float = 1e-8, threads: int = 1, **options: Any) -> Array:
    """Return the responses [n, m] by this package."""
    case = work.case
    solution = jo.solve(
        work.spec,
        case.objective,
        depth=case.depth,
        eps=case.eps,
        t=work.t,
        method=method,
        rtol=rtol,
        threads=threads,
        **options,
    )
    return solution.w


def offered(*options: str) -> bool:
    """Return whether `jo.solve` of this build takes the options named."""
    return set(options) <= set(inspect.signature(jo.solve).parameters)


def error(w: npt.ArrayLike, exact: Array) -> float:
    """Return the largest relative error, infinite where a value is missing."""
    with np.errstate(all="ignore"):
        largest = float(np.max(np.abs(np.asarray(w) / exact - 1)))
    return largest if np.isfinite(largest) else float("inf")


def checked_exact(work: Workload, tolerance: float = 1e-9) -> Array:
    """Return the exact responses after an integration, which shares nothing with them, has confirmed a sample."""
    exact = solve(work)
    n = len(work.spec)
    chosen = np.unique(np.linspace(0, n - 1, min(n, 100)).astype(int))
    difference = error(solve(work.subset(chosen), "dop853", SMALLEST_RTOL), exact[chosen])
    if not difference < tolerance:
        raise AssertionError(f"{work.case}: exact and integrated solutions differ by {difference:.1e}")
    return exact


def tuned(
    run: Callable[[float], npt.ArrayLike],
    exact: Array,
    target: float,
    smallest: float = SMALLEST_RTOL,
    *,
    largest: float = LARGEST_RTOL,
    error: Callable[[npt.ArrayLike, Array], float] = error,
) -> tuple[float, float]:
    """Return the loosest tolerance, on a grid of quarter decades, that meets the target error, and the error measured.

    The grid is entered where an error in proportion to the tolerance would meet the target, then walked: down to the
    first tolerance that does, up while the next looser one does too. NaN and the best error seen if none does.
    """

    def rtol(k: int) -> float:
        return float(10 ** (-k / 4))

    seen: dict[int, float] = {}

    def measured(k: int) -> float:
        if k not in seen:
            seen[k] = error(run(rtol(k)), exact)
        return seen[k]

    first, last = round(-4 * np.log10(largest)), round(-4 * np.log10(smallest))
    k = max(first, round(-4 * np.log10(target)))
    while measured(k) > target:
        if k == last:
            return float("nan"), min(seen.values())
        excess = 4 * np.log10(measured(k) / target) if np.isfinite(measured(k)) else 4
        k = min(k + max(1, int(excess / 2)), last)
    while k > first and measured(k - 1) <= target:
        k -= 1
    return rtol(k), measured(k)
