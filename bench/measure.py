"""How to measure: one core or some, in turns, medians; and how to write down what was measured."""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import jepa_ode as jo

ROUNDS = 7
FEWEST_ROUNDS = 3

# Colours that people with colour-blind eyes can tell apart (after Okabe and Ito).
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^DvPX"


def styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return how to draw solvers: a colour for each package (the first word), a marker and a line for each of its methods."""
    packages = list(dict.fromkeys(name.split()[0] for name in names))
    result: dict[str, dict[str, Any]] = {}
    for name in names:
        package = name.split()[0]
        k = sum(other.split()[0] == package for other in result)
        result[name] = {
            "color": COLOURS[packages.index(package) % len(COLOURS)],
            "marker": "*" if name.endswith("exact") else MARKERS[k],
            "linestyle": ("-", "--", ":")[k % 3],
            "markersize": 15 if name.endswith("exact") else 6,
            "linewidth": 2.4 if package == names[0].split()[0] else 1.3,
            "label": name,
        }
    return result


def thread_settings(threads: int) -> dict[str, str]:
    """Return what libraries read when they are loaded: more threads than CPUs would only get in each other's way."""
    pools = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    one = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"} if threads == 1 else {}
    return {**dict.fromkeys(pools, str(threads)), **one, "JEPA_ODE_BENCH_THREADS": str(threads)}


def pin_to_one_cpu() -> None:
    """Let this process run on one CPU with one thread."""
    pin_to_cpus(1)


def pin_to_cpus(count: int) -> None:
    """Let this process run on so many CPUs, with as many threads. It starts anew for that: NumPy's BLAS has threads already."""
    settings = thread_settings(count)
    if settings.items() <= os.environ.items():
        return
    if hasattr(os, "sched_setaffinity"):
        available = sorted(os.sched_getaffinity(0))
        if count > len(available):
            raise SystemExit(f"{count} threads were asked for, but this process may use {len(available)} CPUs")
        os.sched_setaffinity(0, set(available[-count:]))
    os.execve(sys.executable, sys.orig_argv, {**os.environ, **settings})


def parser(description: str | None, features: int = 10_000) -> argparse.ArgumentParser:
    """Return a parser of the options that all benchmarks share."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument(
        "--features", type=int, default=features, help="features of the workload (default: %(default)s)"
    )
    result.add_argument(
        "--rounds", type=int, default=ROUNDS, help="runs of which the median counts (default: %(default)s)"
    )
    result.add_argument("--output", type=Path, default=Path("build/bench"), help="folder (default: %(default)s)")
    return result


def seconds(run: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the time of one call; what it returns is freed after the clock has stopped."""
    begin = clock()
    result = run()
    elapsed = clock() - begin
    del result
    return elapsed


def in_turns(
    runs: Mapping[Any, Callable[[], Any]],
    rounds: int = ROUNDS,
    budget: float = 4.0,
    *,
    fewest: int = FEWEST_ROUNDS,
    warm: Mapping[Any, float] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Any, list[float]]:
    """Return the times of each run, in seconds, measured in turns after one call to warm up.

    A run whose rounds would take more than `budget` seconds gets fewer of them, but no fewer than `fewest`. `warm` are
    times of calls that have warmed up already. The `clock` time.process_time tells, of runs on one CPU, what they
    would take alone, whatever else runs there.
    """
    first = {key: max(seconds(run, clock), 1e-9) for key, run in runs.items()} if warm is None else warm
    wanted = {key: min(rounds, max(fewest, int(budget / first[key]))) for key in runs}
    times: dict[Any, list[float]] = {key: [] for key in runs}
    for turn in range(rounds):
        for key, run in runs.items():
            if turn < wanted[key]:
                times[key].append(seconds(run, clock))
    return times


def medians(times: Mapping[Any, Sequence[float]]) -> dict[Any, float]:
    """Return the median of each list of times."""
    return {key: statistics.median(values) for key, values in times.items()}


def machine() -> dict[str, Any]:
    """Return what a reader of the figures must know of the machine and the build."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {"cpu": model, "cpus": os.cpu_count(), "numpy": np.__version__, "build": jo.build_info()}


def number(value: Any, digits: int = 3) -> str:
    """Return a number with a few significant digits, anything else as it is."""
    if not isinstance(value, float):
        return str(value)
    if np.isnan(value):
        return "-"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        decimals = max(0, digits - 1 - int(np.floor(np.log10(abs(value))))) if value else 0
        return f"{value:.{decimals}f}"
    return f"{value:.1e}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table, columns padded so that it reads as text too."""
    cells = [list(header), *([number(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"

    return "\n".join(
        [line(cells[0]), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, cells[1:])]
    )


def write(
    folder: Path, name: str, records: Sequence[Mapping[str, Any]], table: str, extra: Mapping[str, Any] | None = None
) -> None:
    """Print the table and write ``name.json`` (with the machine), ``name.csv`` and ``name.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), **(extra or {}), "records": [dict(record) for record in records]}
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1, default=str) + "\n")
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for record in records for key in record)))
        writer.writeheader()
        writer.writerows(records)
    (folder / f"{name}.md").write_text(table + "\n")
    print(table)
    print(f"written: {folder / name}.json, .csv, .md", flush=True)


def figure(path: Path, draw: Callable[[Any], Any], **options: Any) -> None:
    """Write the figure that `draw` makes of matplotlib's pyplot, or say that there is none."""
    try:
        import matplotlib as mpl
    except ImportError:
        print(f"no figure {path.name}: matplotlib is not installed")
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    draw(plt).savefig(path, dpi=130, **options)
    plt.close("all")
    print(f"written: {path}")
