"""Do tiny starts and deep encoders cost more?

eps = 1e-6 with two layers and eps = 1e-3 with six, to full convergence of all features, beside W1: exact time per point and
Runge-Kutta time per feature, as ratios to W1 with the same objective. One thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import jepa_ode as jo
import measure
from workload import RUNGE_KUTTA, TIMES, Array, Case, Workload, features, solve, workload

Record = dict[str, Any]
HARD = tuple(Case(objective, depth, eps) for objective in ("jepa", "mae") for depth, eps in ((2, 1e-6), (6, 1e-3)))
RTOL = 1e-6


def converged(case: Case, n: int) -> Workload:
    """Return the features of W1 until each is within 1e-9 of its fixed point."""
    spec = features(n)
    limit = jo.fixed_point(spec, case.objective, depth=case.depth)
    w = np.where(limit > case.eps, limit * (1 - 1e-9), limit * (1 + 1e-9))
    arrival = jo.time_to_reach(spec, case.objective, depth=case.depth, eps=case.eps, w=w)
    return workload(case, n, horizon=1.2 * float(arrival[np.isfinite(arrival)].max()))


def check(work: Workload, exact: Array, integrated: Array, method: str) -> None:
    """Compare in the measure that forgives a relative shift of the clock: E of THEORY.md 3."""
    case = work.case
    later = Workload(work.spec, work.t * (1 + 1e-6), case)
    slope = np.abs(solve(later) - exact) / 1e-6  # t dw/dt
    difference = np.abs(integrated - exact) / (exact + slope)
    if not difference.max() < 1e-4:
        raise AssertionError(f"{case}: {method} and exact differ by {difference.max():.1e}")


def measured(work: Workload, rounds: int, budget: float) -> list[Record]:
    """Return the time of each method."""
    exact = solve(work)
    if work.case in HARD:
        limit = jo.fixed_point(work.spec, work.case.objective, depth=work.case.depth)
        if np.abs(exact[:, -1] / limit - 1).max() > 1e-8:
            raise AssertionError(f"{work.case}: not converged")
    runs = {"exact": lambda: solve(work)}
    for method in RUNGE_KUTTA:
        check(work, exact, solve(work, method, RTOL), method)
        runs[method] = lambda method=method: solve(work, method, RTOL)
    times = measure.in_turns(runs, rounds, budget)
    n = len(work.spec)
    return [
        {
            "case": str(work.case),
            "features": n,
            "method": method,
            "ns/point": 1e9 * median / (n * TIMES),
            "us/feature": 1e6 * median / n,
            "rounds": len(times[method]),
        }
        for method, median in measure.medians(times).items()
    ]


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__, features=10_000)
    parser.add_argument("--budget", type=float, default=4.0, help="seconds for the rounds of one figure (default: 4)")
    options = parser.parse_args()
    records: list[Record] = []
    for objective in ("jepa", "mae"):
        usual = measured(workload(Case(objective, 2, 0.1), options.features), options.rounds, options.budget)
        costs = {r["method"]: r["us/feature"] for r in usual}
        hard = [
            r
            for case in HARD
            if case.objective == objective
            for r in measured(converged(case, options.features), options.rounds, options.budget)
        ]
        records += [{**r, "ratio to W1": r["us/feature"] / costs[r["method"]]} for r in usual + hard]
    columns = ("case", "method", "ns/point", "us/feature", "ratio to W1")
    table = measure.markdown(columns, [[record[column] for column in columns] for record in records])
    measure.write(options.output, "hard_cases", records, table)


if __name__ == "__main__":
    main()
