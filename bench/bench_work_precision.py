"""How much time does a given error cost? Work-precision diagrams of the Runge-Kutta methods and of the peers.

Each solver runs W1 over a range of tolerances; error is the largest relative error of ``w`` against the exact solution,
which is drawn too. One CPU.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

import measure
import peers
from bench_peers import OURS, bound, our_run
from workload import RUNGE_KUTTA, SMALLEST_RTOL, W1, Workload, checked_exact, error, solve, workload

Record = dict[str, Any]
TOLERANCES = 10.0 ** -np.arange(3, 15)
CASES = (1, 4, 6)  # of W1: JEPA and MAE of two layers, JEPA from a small start


def curves(work: Workload, packages: tuple[str, ...], rounds: int, budget: float) -> list[Record]:
    """Return error and median time of each solver and tolerance."""
    exact = checked_exact(work)
    found, missing = peers.peers(work, packages)
    runs = {f"jepa_ode {method}": our_run(work, method) for method in RUNGE_KUTTA}
    runs |= {peer.name: peer.run for peer in found}
    errors = {("jepa_ode exact", 0.0): error(exact, solve(work, "dop853", SMALLEST_RTOL))}
    timed = {("jepa_ode exact", 0.0): lambda: solve(work)}
    for name, run in runs.items():
        for rtol in TOLERANCES:
            if name in OURS and rtol < SMALLEST_RTOL:
                continue
            measured = error(run(rtol), exact)
            if measured < 1e-1:
                errors[name, rtol] = measured
                timed[name, rtol] = bound(run, rtol)
    times = measure.in_turns(timed, rounds, budget)
    for package, reason in missing.items():
        print(f"{work.case}: {package} is missing: {reason}")
    return [
        {
            "case": str(work.case),
            "features": len(work.spec),
            "solver": name,
            "rtol": rtol,
            "error": errors[name, rtol],
            "milliseconds": 1e3 * median,
            "rounds": len(times[name, rtol]),
        }
        for (name, rtol), median in measure.medians(times).items()
    ]


def draw(records: list[Record], path: Path) -> None:
    """Draw error against time, a panel for each case."""
    cases = list(dict.fromkeys(record["case"] for record in records))
    styles = measure.styles(list(dict.fromkeys(record["solver"] for record in records)))

    def drawing(plt: Any) -> Any:
        figure, panels = plt.subplots(
            1, len(cases), figsize=(4.6 * len(cases), 5.6), sharey=True, layout="constrained", squeeze=False
        )
        for ax, case in zip(panels[0], cases, strict=True):
            for name, style in styles.items():
                mine = [r for r in records if r["case"] == case and r["solver"] == name]
                ax.loglog([r["error"] for r in mine], [r["milliseconds"] for r in mine], **style)
            ax.invert_xaxis()
            ax.set_title(case)
            ax.set_xlabel("largest relative error of w")
            ax.grid(alpha=0.3)
        panels[0][0].set_ylabel("time of a solve (milliseconds, one CPU)")
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.suptitle(f"{records[0]['features']} features at 200 times: lower and further right is better")
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9)
        return figure

    measure.figure(path, drawing)


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__, features=1_000)
    parser.add_argument(
        "--cases", type=int, nargs="+", default=CASES, help="which of W1, from 0 (default: %(default)s)"
    )
    parser.add_argument("--peers", nargs="*", choices=list(peers.PACKAGES), default=list(peers.PACKAGES))
    parser.add_argument("--budget", type=float, default=1.0, help="seconds for the rounds of one point (default: 1)")
    options = parser.parse_args()
    measure.pin_to_one_cpu()
    warnings.filterwarnings("ignore", module="scipy|diffrax|equinox|numba")
    records: list[Record] = []
    for k in options.cases:
        records += curves(workload(W1[k], options.features), tuple(options.peers), options.rounds, options.budget)
    columns = ("case", "solver", "rtol", "error", "milliseconds")
    table = measure.markdown(columns, [[record[column] for column in columns] for record in records])
    measure.write(options.output, "work_precision", records, table, {"versions": peers.versions()})
    draw(records, options.output / "work_precision.png")


if __name__ == "__main__":
    main()
