"""How do the exact solution and Runge-Kutta gain from threads?

W1; every number of threads from one to the CPUs that this process may use; the results are checked to be the same, bit for
bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import measure
from jepa_ode import build_info
from workload import RUNGE_KUTTA, W1, Workload, checked_exact, error, solve, workload

Record = dict[str, Any]
METHODS = ("exact", *RUNGE_KUTTA)


def scaling(work: Workload, rounds: int) -> list[Record]:
    """Return the speed-up of each method for each number of threads."""
    exact = checked_exact(work)
    counts = range(1, build_info()["threads"] + 1)
    runs = {}
    for method in METHODS:
        alone = solve(work, method, 1e-7, threads=1)
        if error(alone, exact) > 1e-4:
            raise AssertionError(f"{work.case}: {method} is wrong")
        for count in counts:
            if not np.array_equal(solve(work, method, 1e-7, threads=count), alone):
                raise AssertionError(f"{work.case}: {method} depends on the number of threads")
            runs[method, count] = lambda method=method, count=count: solve(work, method, 1e-7, threads=count)
    times = measure.in_turns(runs, rounds)
    median = measure.medians(times)
    return [
        {
            "case": str(work.case),
            "features": len(work.spec),
            "method": method,
            "threads": count,
            "milliseconds": 1e3 * median[method, count],
            "speed-up": median[method, 1] / median[method, count],
            "rounds": len(times[method, count]),
        }
        for method, count in runs
    ]


def draw(records: list[Record], path: Path) -> None:
    """Draw speed-up against threads, a panel for each method."""
    cases = list(dict.fromkeys(record["case"] for record in records))
    counts = sorted({record["threads"] for record in records})

    def drawing(plt: Any) -> Any:
        figure, panels = plt.subplots(1, len(METHODS), figsize=(12, 4.4), sharey=True, layout="constrained")
        for ax, method in zip(panels, METHODS, strict=True):
            ax.plot(counts, counts, color="0.6", linestyle=":", label="ideal")
            for k, case in enumerate(cases):
                mine = [r for r in records if r["case"] == case and r["method"] == method]
                ax.plot(
                    [r["threads"] for r in mine],
                    [r["speed-up"] for r in mine],
                    marker=measure.MARKERS[k],
                    color=measure.COLOURS[k],
                    label=case,
                )
            ax.set_title(method)
            ax.set_xlabel("threads")
            ax.set_xticks(counts)
            ax.set_ylim(bottom=0)
            ax.grid(alpha=0.3)
        panels[0].set_ylabel("speed-up over one thread")
        panels[-1].legend(fontsize=8, loc="lower right")
        return figure

    measure.figure(path, drawing)


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__)
    parser.add_argument("--cases", type=int, nargs="+", default=range(len(W1)), help="which of W1, from 0")
    options = parser.parse_args()
    records = [r for k in options.cases for r in scaling(workload(W1[k], options.features), options.rounds)]
    columns = ("case", "method", "threads", "milliseconds", "speed-up")
    table = measure.markdown(columns, [[record[column] for column in columns] for record in records])
    measure.write(options.output, "threads", records, table)
    draw(records, options.output / "threads.png")


if __name__ == "__main__":
    main()
