"""How much faster than SciPy are the feature solvers, at the same measured error?

Workload: ``lam`` geometric from 0.2 to 2, ``rho`` uniform in [0.2, 0.95], 200 uniform times to 1.2 times the largest 90%
critical time. Each solver gets the loosest tolerance with which its largest relative error of ``w`` over all features and
times meets the target; only then is it timed, all in one run, in turns. SciPy integrates with DOP853, its best method here,
once as one system of all features and once feature by feature (a sample of them, scaled up).
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.integrate import solve_ivp

import jepa_ode as jo

Array = npt.NDArray[np.float64]

CASES = [  # objective, depth, eps
    *(("jepa", depth, 0.1) for depth in (1, 2, 4)),
    *(("mae", depth, 0.1) for depth in (1, 2, 4)),
    ("jepa", 2, 0.01),
]
TARGETS = (1e-6, 1e-10)
ROUNDS = 7
SAMPLE = 20  # features that SciPy integrates one by one


@dataclass(frozen=True)
class Workload:
    spec: jo.Spectrum
    objective: str
    depth: int
    eps: float
    t: Array


@dataclass(frozen=True)
class Row:
    objective: str
    depth: int
    eps: float
    features: int
    target: float
    solver: str
    rtol: float
    error: float
    microseconds_per_feature: float
    times_as_fast_as_scipy: float  # than its one system


def workload(objective: str, depth: int, eps: float, n: int) -> Workload:
    rho = np.random.default_rng(0).uniform(0.2, 0.95, n)
    spec = jo.Spectrum(np.geomspace(0.2, 2, n), rho=rho)
    rise = jo.critical_time(spec, objective, depth=depth, eps=eps, fraction=0.9)
    return Workload(spec, objective, depth, eps, np.linspace(0, 1.2 * rise.max(), 200))


def ours(work: Workload, method: str, rtol: float) -> Array:
    return jo.solve(
        work.spec,
        work.objective,
        depth=work.depth,
        eps=work.eps,
        t=work.t,
        method=method,
        rtol=rtol,
        threads=1,
    ).w


def scipy_system(work: Workload, rtol: float) -> Array:
    """All features as one system, in the per-layer variable (THEORY.md 2) and with products for powers: its best case."""
    lam, sigma2, depth = work.spec.lam, work.spec.sigma2, work.depth

    def power(u: Array) -> Array:
        v = u
        for _ in range(depth.bit_length() - 1):  # depth is a power of two
            v = v * v
        return v

    def jepa(_: float, u: Array) -> Array:
        v = power(u)
        return v * v * (lam - sigma2 * u)

    def mae(_: float, u: Array) -> Array:
        v = power(u)
        return v * (lam - sigma2 * v * u)

    start = np.full(len(work.spec), work.eps ** (1 / depth))
    velocity = jepa if work.objective == "jepa" else mae
    with np.errstate(over="ignore", invalid="ignore"):  # steps too long, which it then rejects
        run = solve_ivp(velocity, (0.0, work.t[-1]), start, method="DOP853", t_eval=work.t, rtol=rtol, atol=1e-300)
    assert run.success, run.message
    return np.asarray(run.y) ** depth


def scipy_one_by_one(work: Workload, rtol: float) -> Array:
    parts = [
        Workload(work.spec[i : i + 1], work.objective, work.depth, work.eps, work.t) for i in range(len(work.spec))
    ]
    return np.concatenate([scipy_system(part, rtol) for part in parts])


def largest_error(w: Array, exact: Array) -> float:
    return float(np.abs(w / exact - 1).max())


def tuned(solver: Callable[[float], Array], exact: Array, target: float) -> tuple[float, float]:
    """Return the loosest tolerance on a grid of half decades that meets the target, and the error it gives; NaN if none."""
    for step in range(-2, 14):
        rtol = target * 10 ** (-step / 2)
        if rtol < 1e-13:
            break
        error = largest_error(solver(rtol), exact)
        if error <= target:
            return rtol, error
    return float("nan"), float("nan")


def measure(work: Workload, target: float) -> list[Row]:
    n = len(work.spec)
    exact = ours(work, "exact", 1e-8)
    # The yardstick itself is checked first, against an integration that shares nothing with it.
    check = largest_error(ours(work, "dop853", 1e-13), exact)
    assert check < 1e-10, f"exact and integrated solutions differ by {check:.1e}"

    chosen = np.linspace(0, n - 1, min(n, SAMPLE)).astype(int)
    sample = Workload(work.spec[chosen], work.objective, work.depth, work.eps, work.t)
    solvers: dict[str, tuple[Callable[[float], Array], Array, int]] = {
        "exact": (lambda _: ours(work, "exact", 1e-8), exact, n),
        "tsit5": (lambda rtol: ours(work, "tsit5", rtol), exact, n),
        "dop853": (lambda rtol: ours(work, "dop853", rtol), exact, n),
        "scipy, one system": (lambda rtol: scipy_system(work, rtol), exact, n),
        "scipy, one by one": (lambda rtol: scipy_one_by_one(sample, rtol), exact[chosen], len(chosen)),
    }
    tolerances = {name: tuned(solver, reference, target) for name, (solver, reference, _) in solvers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in solvers}
    for _ in range(ROUNDS):
        for name, (solver, _, count) in solvers.items():
            rtol = tolerances[name][0]
            if np.isnan(rtol):
                continue
            begin = time.perf_counter()
            solver(rtol)
            seconds[name].append((time.perf_counter() - begin) / count)
    medians = {name: statistics.median(values) if values else float("nan") for name, values in seconds.items()}
    return [
        Row(
            work.objective,
            work.depth,
            work.eps,
            n,
            target,
            name,
            *tolerances[name],
            1e6 * medians[name],
            medians["scipy, one system"] / medians[name],
        )
        for name in solvers
    ]


def write(rows: list[Row], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    records = [asdict(row) for row in rows]
    (folder / "scipy.json").write_text(json.dumps({"build": jo.build_info(), "rows": records}, indent=1))
    with (folder / "scipy.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(records[0]))
        table.writeheader()
        table.writerows(records)
    try:
        import matplotlib as mpl
    except ImportError:
        print("no figure: matplotlib is not installed")
        return
    mpl.use("Agg")
    draw(rows, folder / "scipy.png")


def draw(rows: list[Row], path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(TARGETS), figsize=(11, 4.2), sharey=True, layout="constrained")
    for ax, target in zip(panels, TARGETS, strict=True):
        for name in dict.fromkeys(row.solver for row in rows):
            mine = [row for row in rows if row.solver == name and row.target == target]
            labels = [f"{row.objective} L={row.depth}\neps={row.eps:g}" for row in mine]
            ax.semilogy(labels, [row.microseconds_per_feature for row in mine], "o", label=name)
        ax.set_title(f"largest relative error {target:g}")
        ax.tick_params(axis="x", labelrotation=60, labelsize=8)
        ax.grid(axis="y", alpha=0.3)
    panels[0].set_ylabel("microseconds per feature (200 times)")
    panels[-1].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    options = parser.parse_args()

    info = jo.build_info()
    print(f"jepa_ode {info['version']}, {info['isa']}, one thread, {options.features} features x 200 times")
    print(f"{'case':<20} {'error':>6}  {'solver':<18} {'rtol':>8} {'measured':>9} {'us/feature':>11} {'x scipy':>8}")
    rows: list[Row] = []
    for objective, depth, eps in CASES:
        work = workload(objective, depth, eps, options.features)
        for target in TARGETS:
            for row in measure(work, target):
                rows.append(row)
                case = f"{objective} L={depth} eps={eps:g}"
                found = (
                    f"{row.rtol:8.1e} {row.error:9.1e} {row.microseconds_per_feature:11.2f} "
                    f"{row.times_as_fast_as_scipy:8.2f}"
                    if row.error <= target
                    else "no tolerance meets this error"
                )
                print(f"{case:<20} {target:6.0e}  {row.solver:<18} {found}", flush=True)
    write(rows, options.output)
    print(f"written to {options.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
