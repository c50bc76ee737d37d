"""What does each instruction set gain?

The engine is chosen at import, so each set runs W1 in a process of its own, one thread; the processes take turns. The answers
of all sets must agree.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import measure
from jepa_ode.bench import installed_isas
from workload import RUNGE_KUTTA, W1, checked_exact, error, solve, workload

Record = dict[str, Any]
METHODS = ("exact", *RUNGE_KUTTA)
RTOL = 1e-7


def one_process(cases: list[int], n: int, rounds: int) -> None:
    """Print, as JSON, seconds and a few answers of the instruction set of this process."""
    found = []
    for k in cases:
        work = workload(W1[k], n)
        exact = checked_exact(work)
        runs = {method: lambda method=method: solve(work, method, RTOL) for method in METHODS}  # noqa: B023
        answers = {method: runs[method]() for method in METHODS}
        for method, w in answers.items():
            if error(w, exact) > 1e-4:
                raise AssertionError(f"{work.case}: {method} is wrong")
        times = measure.in_turns(runs, rounds)
        found += [
            {"case": k, "method": m, "seconds": times[m], "sample": answers[m][:: max(1, n // 50), ::20].tolist()}
            for m in METHODS
        ]
    print(json.dumps(found))


def in_turns(cases: list[int], n: int, rounds: int) -> list[Record]:
    """Return the median time of each instruction set, method and case; two processes for each set."""
    isas = installed_isas()
    runs: dict[tuple[str, int, str], dict[str, Any]] = {}
    for _ in range(2):
        for isa in isas:
            command = [sys.executable, __file__, "--one-process", "--features", str(n), "--rounds", str(rounds)]
            done = subprocess.run(
                [*command, "--cases", *map(str, cases)],
                env={**os.environ, "JEPA_ODE_ISA": isa},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            for found in json.loads(done.stdout):
                run = runs.setdefault((isa, found["case"], found["method"]), {"seconds": [], "sample": found["sample"]})
                run["seconds"] += found["seconds"]
    records: list[Record] = []
    for (isa, k, method), run in runs.items():
        reference = runs[isas[0], k, method]
        difference = error(run["sample"], np.asarray(reference["sample"]))
        if difference > (1e-10 if method == "exact" else 1e-4):
            raise AssertionError(f"{W1[k]}: {method} of {isa} differs from {isas[0]} by {difference:.1e}")
        seconds = statistics.median(run["seconds"])
        records.append(
            {
                "case": str(W1[k]),
                "features": n,
                "method": method,
                "isa": isa,
                "milliseconds": 1e3 * seconds,
                "speed-up": statistics.median(reference["seconds"]) / seconds,
                "rounds": len(run["seconds"]),
            }
        )
    return sorted(
        records, key=lambda r: (cases.index([str(c) for c in W1].index(r["case"])), METHODS.index(r["method"]))
    )


def draw(records: list[Record], path: Path) -> None:
    """Draw the speed-up of each instruction set over the first, a panel for each method."""
    cases = list(dict.fromkeys(record["case"] for record in records))
    isas = list(dict.fromkeys(record["isa"] for record in records))

    def drawing(plt: Any) -> Any:
        figure, panels = plt.subplots(1, len(METHODS), figsize=(13, 4.4), sharey=True, layout="constrained")
        width = 0.8 / len(isas)
        for ax, method in zip(panels, METHODS, strict=True):
            for k, isa in enumerate(isas):
                mine = [r for r in records if r["isa"] == isa and r["method"] == method]
                places = [cases.index(r["case"]) + (k - (len(isas) - 1) / 2) * width for r in mine]
                ax.bar(places, [r["speed-up"] for r in mine], width, color=measure.COLOURS[k], label=isa)
            ax.set_title(method)
            ax.set_xticks(range(len(cases)), cases, rotation=60, fontsize=8)
            ax.grid(axis="y", alpha=0.3)
            ax.set_axisbelow(True)
        panels[0].set_ylabel(f"speed-up over {isas[0]} (one thread)")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(isas), fontsize=9)
        return figure

    measure.figure(path, drawing)


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__)
    parser.add_argument("--cases", type=int, nargs="+", default=list(range(len(W1))), help="which of W1, from 0")
    parser.add_argument("--one-process", action="store_true", help="measure the set of this process (internal)")
    options = parser.parse_args()
    if options.one_process:
        one_process(options.cases, options.features, options.rounds)
        return
    records = in_turns(options.cases, options.features, options.rounds)
    columns = ("case", "method", "isa", "milliseconds", "speed-up")
    table = measure.markdown(columns, [[record[column] for column in columns] for record in records])
    measure.write(options.output, "isas", records, table)
    draw(records, options.output / "isas.png")


if __name__ == "__main__":
    main()
