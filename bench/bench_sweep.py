"""What does a cell of a sweep cost beside its task, and what do two processes gain?

Overhead: a task that returns at once, with and without random numbers, in this process, in memory and into a store; beside it a
plain loop over the grid and `xarray.apply_ufunc`, which loops too. Throughput: gradient flows of networks, each of some
milliseconds, here, in one process and in two. Results are checked to be the same, bit for bit.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import xarray

import jepa_ode as jo
import measure

Record = dict[str, Any]


def empty(a: int, b: int) -> float:  # noqa: ARG001
    """Return something at once."""
    return 1.0


def drawing(a: int, b: int, rng: np.random.Generator) -> float:  # noqa: ARG001
    """Return a random number."""
    return rng.random()


def overhead(cells: int, rounds: int) -> list[Record]:
    """Return microseconds of CPU time per cell: other work on the machine does not enter."""
    grid = {"a": range(cells // 100), "b": range(100)}
    folder = Path(tempfile.mkdtemp())

    def stored() -> Any:
        shutil.rmtree(folder / "s", ignore_errors=True)
        return jo.sweep(grid, empty, store=folder / "s")

    def loop() -> Any:
        return [empty(a=a, b=b) for a, b in itertools.product(*grid.values())]

    def ufunc() -> Any:
        a, b = (xarray.DataArray(np.array(values), dims=name) for name, values in grid.items())
        return xarray.apply_ufunc(empty, a, b, vectorize=True)

    runs = {
        "sweep": lambda: jo.sweep(grid, empty),
        "sweep, task draws": lambda: jo.sweep(grid, drawing),
        "sweep into a store": stored,
        "xarray.apply_ufunc": ufunc,
        "plain loop": loop,
    }
    reference = runs["sweep"]()
    if not (reference.value == 1.0).all() or not stored().load().identical(reference) or not (ufunc() == 1.0).all():
        raise AssertionError("a sweep is wrong")
    median = measure.medians(measure.in_turns(runs, rounds, 60.0, clock=time.process_time))
    shutil.rmtree(folder)
    return [{"run": name, "cells": cells, "microseconds per cell": 1e6 * t / cells} for name, t in median.items()]


def throughput(networks: int, rounds: int) -> list[Record]:
    """Return cells per second of matrix flows."""
    constants = {"depth": 3, "trend": "opposite", "features": 32, "tilt": 0.2, "t": np.linspace(0.0, 300.0, 20)}
    grid = {"eps": np.geomspace(0.01, 0.1, 4), "repetition": range(networks // 4)}

    def run(executor: int | None) -> Any:
        return jo.sweep(grid, flow, constants=constants, executor=executor)

    reference = run(None)
    if not (reference.status == 0).all() or not all(run(workers).identical(reference) for workers in (1, 2)):
        raise AssertionError("a sweep depends on its executor")
    runs = {"here": None, "1 process": 1, "2 processes": 2}
    times = measure.in_turns(
        {name: lambda workers=workers: run(workers) for name, workers in runs.items()}, rounds, 600.0
    )
    median = measure.medians(times)
    return [
        {"run": name, "cells": networks, "cells per second": networks / t, "over 1 process": median["1 process"] / t}
        for name, t in median.items()
    ]


def flow(repetition: int, **parameters: Any) -> Any:
    """Return the flow of a network on data that are drawn anew."""
    return jo.sweeps.tasks.gradient_flow(rng=repetition, **parameters)


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__)
    parser.add_argument("--cells", type=int, default=100_000, help="of the empty task (default: %(default)s)")
    parser.add_argument("--networks", type=int, default=400, help="flows (default: %(default)s)")
    options = parser.parse_args()
    for name, records in [
        ("sweep_overhead", overhead(options.cells, options.rounds)),
        ("sweep_throughput", throughput(options.networks, options.rounds)),
    ]:
        table = measure.markdown(list(records[0]), [list(record.values()) for record in records])
        measure.write(options.output, name, records, table)


if __name__ == "__main__":
    main()
