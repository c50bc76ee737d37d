"""How do the exact solution, Runge-Kutta and the flows of networks gain from threads?

W1 for the features; for flows many narrow networks, one on each thread, and a wide one that threads share, of W2
(flow_workload.py). Every number of threads from one to the CPUs that this process may use; the results are checked to be the
same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import jepa_ode as jo
import measure
from flow_workload import EPS, Case, network
from workload import RUNGE_KUTTA, W1, Workload, checked_exact, error, solve, workload

Record = dict[str, Any]
METHODS = ("exact", *RUNGE_KUTTA)
FLOWS = ((64, Case("jepa", 32, 4, 2500)), (1, Case("jepa", 128, 2, 300)), (1, Case("jepa", 256, 2, 200)))


def thread_counts() -> Sequence[int]:
    """Return the numbers of threads to measure."""
    return range(1, jo.build_info()["threads"] + 1)


def scaling(work: Workload, rounds: int) -> list[Record]:
    """Return the speed-up of each method for each number of threads."""
    exact = checked_exact(work)
    counts = thread_counts()
    runs: dict[tuple[str, int], Callable[[], Any]] = {}
    for method in METHODS:
        alone = solve(work, method, 1e-7, threads=1)
        if error(alone, exact) > 1e-4:
            raise AssertionError(f"{work.case}: {method} is wrong")
        for count in counts:
            if not np.array_equal(solve(work, method, 1e-7, threads=count), alone):
                raise AssertionError(f"{work.case}: {method} depends on the number of threads")
            runs[method, count] = lambda method=method, count=count: solve(work, method, 1e-7, threads=count)
    return records_of(str(work.case), len(work.spec), runs, rounds)


def flow_scaling(count: int, case: Case, rounds: int) -> list[Record]:
    """Return the speed-up of so many flows side by side, for each number of threads."""
    net = network(case)
    starts = [jo.LinearNetwork.balanced(case.d, case.depth, EPS, rng=seed) for seed in range(count)]

    def run(threads: int) -> list[jo.Flow]:
        return jo.gradient_flows(starts, net.cov, net.objective, t=case.t, features=net.features, threads=threads)

    alone = run(1)
    for threads in thread_counts():
        if run(threads) != alone:
            raise AssertionError(f"{case}: the flow depends on the number of threads")
    name = f"{count} {'network' if count == 1 else 'networks'}, d={case.d}, L={case.depth}"
    runs = {("flow", threads): partial(run, threads) for threads in thread_counts()}
    return records_of(name, case.d, runs, rounds)


def records_of(
    case: str, features: int, runs: Mapping[tuple[str, int], Callable[[], Any]], rounds: int
) -> list[Record]:
    """Return a record for each run, by method and number of threads."""
    times = measure.in_turns(runs, rounds)
    median = measure.medians(times)
    return [
        {
            "case": case,
            "features": features,
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
    methods = list(dict.fromkeys(record["method"] for record in records))

    def drawing(plt: Any) -> Any:
        figure, panels = plt.subplots(
            1, len(methods), figsize=(4 * len(methods), 4.4), sharey=True, layout="constrained"
        )
        for ax, method in zip(panels, methods, strict=True):
            ax.plot(counts, counts, color="0.6", linestyle=":", label="ideal")
            here = [case for case in cases if any(r["case"] == case and r["method"] == method for r in records)]
            for k, case in enumerate(here):
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
        for ax in panels[-2:]:  # the cases of features, and those of flows
            ax.legend(fontsize=8, loc="lower right")
        return figure

    measure.figure(path, drawing)


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__)
    parser.add_argument("--cases", type=int, nargs="+", default=range(len(W1)), help="which of W1, from 0")
    options = parser.parse_args()
    records = [r for k in options.cases for r in scaling(workload(W1[k], options.features), options.rounds)]
    records += [r for count, case in FLOWS for r in flow_scaling(count, case, options.rounds)]
    columns = ("case", "method", "threads", "milliseconds", "speed-up")
    table = measure.markdown(columns, [[record[column] for column in columns] for record in records])
    measure.write(options.output, "threads", records, table)
    draw(records, options.output / "threads.png")


if __name__ == "__main__":
    main()
