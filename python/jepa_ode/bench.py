"""What this machine does: ``jepa-ode bench`` measures the solvers per instruction set and number of threads.

Answers are checked before they are timed. The instruction set is chosen at import, so that each is measured in a process
of its own (``python -m jepa_ode.bench``), which prints its measurements as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ._core import build_info
from ._threads import available_cpus
from .solve import solve
from .spectrum import Spectrum
from .theory import critical_time

__all__ = ["Measurement", "Settings", "bench", "has_scipy", "measure", "records", "table"]

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[str, float], None]

_TIMES = 200
_DEPTH, _EPS = 2, 0.1
_TARGET = 1e-6  # the largest relative error that Runge-Kutta and SciPy may make
_TOLERANCES = 10.0 ** -np.arange(4, 13.5, 0.5)  # from which the loosest that meets it is taken


@dataclass(frozen=True)
class Settings:
    """How much to measure: features of the exact solution and of the integrations, runs of which the median counts."""

    features: int = 100_000
    integrated: int = 10_000
    rounds: int = 7
    seconds: float = 2.0  # that the rounds of one figure may take, three times that for the first three

    def __post_init__(self) -> None:
        """Check the numbers."""
        if min(self.features, self.integrated, self.rounds) < 1:
            raise ValueError("features, integrated and rounds must be at least 1")


@dataclass(frozen=True)
class Measurement:
    """One figure: the median time of one call, the features it was for, and the error of its answer."""

    isa: str
    solver: str  # "np.full", "exact", "dop853" or "scipy"
    threads: int
    features: int
    seconds: float
    rounds: int
    error: float

    @property
    def points_per_second(self) -> float:
        """Values of w per second."""
        return self.features * _TIMES / self.seconds

    @property
    def nanoseconds_per_point(self) -> float:
        """Time per value of w."""
        return 1e9 / self.points_per_second

    @property
    def features_per_second(self) -> float:
        """Features, each at 200 times, per second."""
        return self.features / self.seconds


def bench(settings: Settings | None = None, *, progress: Progress | None = None) -> list[Measurement]:
    """Measure every instruction set that is installed and runs here, and SciPy where it is installed.

    Parameters
    ----------
    settings : Settings, optional
        How much to measure; the default takes less than a minute on most machines.
    progress : callable, optional
        Called with a stage and the fraction of it that is done.

    Returns
    -------
    list of Measurement
        For one thread and for all CPUs; the instruction set that is chosen by default comes last.

    Raises
    ------
    RuntimeError
        If a measurement fails, for instance because an answer is wrong.

    Examples
    --------
    >>> from jepa_ode.bench import Settings, bench
    >>> figures = bench(Settings(features=100, integrated=10, rounds=1))
    >>> all(f.seconds > 0 and f.error < 1e-6 for f in figures)
    True
    """
    settings = settings or Settings()
    isas = installed_isas()
    found: list[Measurement] = []
    for k, isa in enumerate(isas):
        if progress:
            progress(isa, 0.0)
        found += _in_own_process(isa, settings, with_scipy=k == len(isas) - 1)
        if progress:
            progress(isa, 1.0)
    return found


def installed_isas() -> list[str]:
    """Return the instruction sets that are compiled in and that this machine runs, best last; one if it is forced."""
    info = build_info()
    if info["forced"]:
        return [info["isa"]]
    return [isa for isa in info["isas_supported"] if isa in info["isas_compiled"]]


def _in_own_process(isa: str, settings: Settings, *, with_scipy: bool) -> list[Measurement]:
    command = [sys.executable, "-m", "jepa_ode.bench", json.dumps({**asdict(settings), "with_scipy": with_scipy})]
    done = subprocess.run(command, env={**os.environ, "JEPA_ODE_ISA": isa}, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RuntimeError(f"the measurement of {isa} failed: {reason[-1]}")
    return [Measurement(**record) for record in json.loads(done.stdout)]


def measure(settings: Settings, *, with_scipy: bool = False) -> list[Measurement]:
    """Measure the instruction set of this process: the exact solution, Runge-Kutta and, if asked for, SciPy."""
    isa = build_info()["isa"]
    large, small = _Work(settings.features), _Work(settings.integrated)
    reference = small.solve("exact", threads=1)
    rtol, error = _loosest(lambda rtol: small.solve("dop853", rtol=rtol, threads=1), reference)
    # One check serves both: exact and integrated solutions have nothing in common.
    if not error <= _TARGET:
        raise RuntimeError(f"exact and integrated solutions differ by {error:.1e}")

    fill = (large.n, _TIMES)
    found = [Measurement(isa, "np.full", 1, large.n, *_median(lambda: np.full(fill, 1.0), settings), 0.0)]
    threads = sorted({1, available_cpus()})
    for count in threads:
        timed = _median(lambda count=count: large.solve("exact", threads=count), settings)  # type: ignore[misc]
        found.append(Measurement(isa, "exact", count, large.n, *timed, error))
    for count in threads:
        timed = _median(lambda count=count: small.solve("dop853", rtol=rtol, threads=count), settings)  # type: ignore[misc]
        found.append(Measurement(isa, "dop853", count, small.n, *timed, error))
    if with_scipy and has_scipy():
        rtol, error = _loosest(small.solve_by_scipy, reference)
        if error <= _TARGET:
            timed = _median(lambda: small.solve_by_scipy(rtol), settings)
            found.append(Measurement(isa, "scipy", 1, small.n, *timed, error))
    return found


def has_scipy() -> bool:
    """Return whether SciPy is installed."""
    return importlib.util.find_spec("scipy") is not None


class _Work:
    """JEPA, two layers, eps = 0.1: lambda from 0.2 to 2, rho uniform in [0.2, 0.95], 200 times until all are learned."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.spec = Spectrum(np.geomspace(0.2, 2, n), rho=np.random.default_rng(0).uniform(0.2, 0.95, n))
        rise = critical_time(self.spec, "jepa", depth=_DEPTH, eps=_EPS, fraction=0.9)
        grows = rise[np.isfinite(rise)]
        self.t = np.linspace(0, 1.2 * (grows.max() if grows.size else 100.0), _TIMES)

    def solve(self, method: str, *, threads: int, rtol: float = 1e-8) -> FloatArray:
        return solve(self.spec, "jepa", depth=_DEPTH, eps=_EPS, t=self.t, method=method, rtol=rtol, threads=threads).w

    def solve_by_scipy(self, rtol: float) -> FloatArray:
        """All features as one system of DOP853, in ``u = sqrt(w)`` and with products for powers: its best case."""
        from scipy.integrate import solve_ivp

        lam, sigma2 = self.spec.lam, self.spec.sigma2

        def velocity(_: float, u: FloatArray) -> FloatArray:
            v = u * u
            return v * v * (lam - sigma2 * u)

        start = np.full(self.n, np.sqrt(_EPS))
        with np.errstate(over="ignore", invalid="ignore"):  # steps too long, which it then rejects
            run = solve_ivp(velocity, (0.0, self.t[-1]), start, method="DOP853", t_eval=self.t, rtol=rtol, atol=1e-300)
        return np.asarray(run.y) ** 2


def _loosest(run: Callable[[float], FloatArray], reference: FloatArray) -> tuple[float, float]:
    """Return the loosest tolerance that meets the target error, and that error; the last one tried if none does."""
    rtol, error = float("nan"), float("inf")
    for tried in _TOLERANCES:
        w = run(float(tried))
        rtol, error = float(tried), float(np.abs(w / reference - 1).max()) if w.shape == reference.shape else np.inf
        if error <= _TARGET:
            break
    return rtol, error


def _median(run: Callable[[], Any], settings: Settings) -> tuple[float, int]:
    """Return the median time of a call and of how many calls, after one to warm up; results are freed off the clock."""
    run()
    times: list[float] = []
    while len(times) < settings.rounds and sum(times) < settings.seconds * (3 if len(times) < 3 else 1):
        begin = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - begin)
        del result
    return statistics.median(times), len(times)


LEGEND = """A point is the response of one feature at one time. Medians; answers agreed before they were timed. SciPy: one
system, one thread, the same measured error. Other work on the machine makes single lines jump: then run it again."""


def table(found: Sequence[Measurement]) -> str:
    """Return the measurements as text, one line for each, beside the cost of writing the answer and beside SciPy."""
    scipy = next((f for f in found if f.solver == "scipy"), None)
    header = (
        f"{'instructions':<13} {'solver':<20} {'threads':>7} {'ns/point':>9} {'points/s':>9} {'features/s':>11}  beside"
    )
    lines = [
        f"{f.isa if f.solver in ('exact', 'dop853') else '':<13} {_NAMES[f.solver]:<20} {f.threads:>7} "
        f"{f.nanoseconds_per_point:>9.2f} {f.points_per_second:>9.2e} {f.features_per_second:>11.2e}  "
        f"{_beside(f, found, scipy)}".rstrip()
        for f in found
    ]
    return "\n".join([header, *lines])


_NAMES = {
    "np.full": "np.full (writing)",
    "exact": "exact",
    "dop853": "dop853, error 1e-6",
    "scipy": "SciPy, error 1e-6",
}


def _beside(f: Measurement, found: Sequence[Measurement], scipy: Measurement | None) -> str:
    if f.solver == "exact":
        floor = next(g for g in found if g.isa == f.isa and g.solver == "np.full")
        ratio = f.nanoseconds_per_point / floor.nanoseconds_per_point
        return f"{ratio:.1f} times the cost of writing" + (f", {_times(f, scipy)} SciPy" if scipy else "")
    if f.solver == "dop853" and scipy:
        return f"{_times(f, scipy)} SciPy"
    return ""


def _times(f: Measurement, scipy: Measurement) -> str:
    return f"{f.features_per_second / scipy.features_per_second:.3g} x"


def records(found: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Return the measurements with their rates, ready for JSON."""
    return [
        {
            **asdict(f),
            "points_per_second": f.points_per_second,
            "nanoseconds_per_point": f.nanoseconds_per_point,
            "features_per_second": f.features_per_second,
        }
        for f in found
    ]


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    asked = given.pop("with_scipy")
    print(json.dumps([asdict(f) for f in measure(Settings(**given), with_scipy=asked)]))
