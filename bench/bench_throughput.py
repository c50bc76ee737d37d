"""What does a point of the exact solution cost beside the cost of writing it, and what do a single time, critical times and
memory cost?

The floor is ``np.full`` of a fresh array of the same shape. Points are the values of ``w``: features x times.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import jepa_ode as jo
import measure
from jepa_ode import build_info
from workload import TIMES, W1, Workload, checked_exact, error, features, offered, solve, workload

Record = dict[str, Any]
SIZES = (1_000, 10_000, 100_000)
CASE = W1[1]  # JEPA, two layers
MIB = 2**20
NOT_OFFERED = "not offered by this build"


def thread_counts() -> list[int]:
    """Return one thread and all of them."""
    return sorted({1, build_info()["threads"]})


def with_times(work: Workload, kind: str) -> Workload:
    """Return the workload at other times over the same horizon."""
    end = float(work.t[-1])
    if kind == "logarithmic":
        t = np.geomspace(1e-3 * end, end, TIMES)
    elif kind == "arbitrary":
        t = np.sort(np.random.default_rng(1).uniform(0, end, TIMES))
    else:
        t = work.t
    return Workload(work.spec, t, work.case)


def timed_points(work: Workload, rounds: int, **options: Any) -> list[Record]:
    """Return the time of a point for each number of threads beside that of np.full, in turns."""
    n, m = len(work.spec), len(work.t)
    dtype = np.dtype(options.get("dtype", np.float64))
    runs: dict[Any, Callable[[], Any]] = {"np.full": lambda: np.full((n, m), 1.0, dtype)}
    for count in thread_counts():
        runs[count] = lambda count=count: solve(work, threads=count, **options)
    times = measure.in_turns(runs, rounds)
    median = measure.medians(times)
    return [
        {
            "threads": count,
            "ns/point": 1e9 * median[count] / (n * m),
            "np.full ns/point": 1e9 * median["np.full"] / (n * m),
            "ratio": median[count] / median["np.full"],
            "rounds": len(times[count]),
        }
        for count in thread_counts()
    ]


def points(sizes: list[int], rounds: int) -> list[Record]:
    """Return sizes x kinds of times x outputs x threads."""
    records: list[Record] = []
    for n in sizes:
        uniform = workload(CASE, n)
        for kind in ("uniform", "logarithmic", "arbitrary"):
            work = with_times(uniform, kind)
            exact = checked_exact(work)
            head = {"question": "points", "features": n, "times": kind}
            records += [{**head, "output": "float64", **r} for r in timed_points(work, rounds)]
            if kind != "uniform":
                continue
            for name, options in (
                ("float32", {"dtype": np.float32}),
                ("out=", {"out": np.empty(exact.shape)}),
            ):
                if not offered(*options):
                    records.append({**head, "output": name, "note": NOT_OFFERED})
                    continue
                difference = error(solve(work, **options), exact)
                if difference > 1e-6:
                    raise AssertionError(f"{name}: differs by {difference:.1e}")
                records += [{**head, "output": name, **r} for r in timed_points(work, rounds, **options)]
    return records


def once(n_one_time: int, n_critical: int, rounds: int) -> list[Record]:
    """Return the cost per feature of one time and of critical times, one thread."""
    many = workload(CASE, n_one_time, m=3)
    one = Workload(many.spec, many.t[1:2], CASE)
    checked_exact(one)
    spec = features(n_critical)

    def critical() -> Any:
        return jo.critical_time(spec, CASE.objective, depth=CASE.depth, eps=CASE.eps, fraction=0.5)

    chosen = np.linspace(0, n_critical - 1, min(50, n_critical)).astype(int)
    t = critical()[chosen]
    grows = np.isfinite(t) & (t > 0)
    sample = spec[chosen[grows]]
    w = np.diag(
        jo.solve(sample, CASE.objective, depth=CASE.depth, eps=CASE.eps, t=np.sort(t[grows])).w[np.argsort(t[grows])]
    )
    half = 0.5 * jo.fixed_point(sample, CASE.objective, depth=CASE.depth)[np.argsort(t[grows])]
    if np.abs(w / half - 1).max() > 1e-10:
        raise AssertionError("critical times do not lead to the responses that define them")

    times = measure.in_turns({"one time": lambda: solve(one), "critical times": critical}, rounds)
    median = measure.medians(times)
    return [
        {
            "question": name,
            "features": n,
            "threads": 1,
            "ns/feature": 1e9 * median[name] / n,
            "seconds": median[name],
            "rounds": len(times[name]),
        }
        for name, n in (("one time", n_one_time), ("critical times", n_critical))
    ]


def peak(what: str, n: int) -> None:
    """Print, as JSON, how far the memory of this process grows beyond inputs and outputs (run in a process of its own)."""
    small = workload(CASE, 100)
    solve(small)  # what is made once: tables
    spec = features(n)
    spec.rho, spec.sigma2  # noqa: B018  (inputs, if they are made when first asked for)
    eps = np.full(n, CASE.eps)
    before = resident()
    if what == "one time":
        result = jo.solve(spec, CASE.objective, depth=CASE.depth, eps=eps, t=[float(small.t[60])], threads=1)
        output = result.w.nbytes + result.status.nbytes + result.nfev.nbytes
    else:
        output = jo.critical_time(spec, CASE.objective, depth=CASE.depth, eps=eps, fraction=0.5).nbytes
    growth = resident(largest=True) - before
    inputs = spec.lam.nbytes + spec.sigma2.nbytes + eps.nbytes
    print(json.dumps({"inputs": inputs / MIB, "outputs": output / MIB, "beyond": growth - output / MIB}))


def resident(*, largest: bool = False) -> float:
    """Return the resident memory in MiB now, or the largest since the last call for the one now."""
    status = Path("/proc/self/status")
    if not status.exists():
        import resource  # which cannot forget an older, larger value

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MIB if sys.platform == "darwin" else 1024)
    if not largest:
        Path("/proc/self/clear_refs").write_text("5")  # the largest is the present one from here on
    field = "VmHWM:" if largest else "VmRSS:"
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def memory(n_one_time: int, n_critical: int) -> list[Record]:
    """Return the peak memory of both, each in a process of its own."""
    records: list[Record] = []
    for what, n in (("one time", n_one_time), ("critical times", n_critical)):
        command = [sys.executable, __file__, "--peak", what, str(n)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        records.append(
            {
                "question": f"memory, {what}",
                "features": n,
                "inputs MiB": found["inputs"],
                "outputs MiB": found["outputs"],
                "beyond MiB": found["beyond"],
            }
        )
    return records


def tables(records: list[Record]) -> str:
    """Return three Markdown tables."""
    columns = ("features", "times", "output", "threads", "ns/point", "np.full ns/point", "ratio")
    rows = [
        [r.get(c, r.get("note", "") if c == "ns/point" else "") for c in columns]
        for r in records
        if r["question"] == "points"
    ]
    parts = [f"Exact solution, {CASE}, {TIMES} times:", measure.markdown(columns, rows)]
    columns = ("question", "features", "ns/feature", "seconds")
    rows = [[r[c] for c in columns] for r in records if "ns/feature" in r]
    parts += ["One thread:", measure.markdown(columns, rows)]
    columns = ("question", "features", "inputs MiB", "outputs MiB", "beyond MiB")
    rows = [[r[c] for c in columns] for r in records if "beyond MiB" in r]
    return "\n\n".join([*parts, "Largest memory beyond inputs and outputs:", measure.markdown(columns, rows)])


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__, features=SIZES[-1])
    parser.add_argument("--one-time", type=int, default=10_000_000, help="features at one time (default: %(default)s)")
    parser.add_argument("--critical", type=int, default=1_000_000, help="critical times (default: %(default)s)")
    parser.add_argument("--peak", nargs=2, metavar=("WHAT", "N"), help="measure memory in this process (internal)")
    options = parser.parse_args()
    if options.peak:
        peak(options.peak[0], int(options.peak[1]))
        return
    sizes = [n for n in SIZES if n <= options.features] or [options.features]
    records = points(sizes, options.rounds)
    records += once(options.one_time, options.critical, options.rounds)
    records += memory(options.one_time, options.critical)
    measure.write(options.output, "throughput", records, tables(records))


if __name__ == "__main__":
    main()
