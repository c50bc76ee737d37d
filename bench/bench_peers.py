"""How fast are the feature solvers beside the solvers that a Python user could pick, at the same measured error?

Workload W1 (workload.py). Each solver gets the loosest tolerance with which its largest relative error of ``w`` over all
features and times meets the target; then all are timed in one run, in turns, on one CPU, compilation excluded, fresh arrays.
The ratios are of medians: this package's exact solution, and the best of its Runge-Kutta methods, beside each peer.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import measure
import peers
from workload import (
    RUNGE_KUTTA,
    SMALLEST_RTOL,
    TARGETS,
    W1,
    Array,
    Workload,
    checked_exact,
    error,
    solve,
    tuned,
    workload,
)

Record = dict[str, Any]
EXACT = "jepa_ode exact"
OURS = {EXACT: "exact", **{f"jepa_ode {method}": method for method in RUNGE_KUTTA}}


def bound(run: Callable[[float], Array], rtol: float) -> Callable[[], Array]:
    """Return the run at one tolerance."""
    return lambda: run(rtol)


def our_run(work: Workload, method: str) -> Callable[[float], Array]:
    """Return a run of this package's method."""
    return lambda rtol: solve(work, method, rtol)


def compare(work: Workload, packages: tuple[str, ...], rounds: int, budget: float) -> list[Record]:
    """Return a record for each solver and target: tolerance, measured error, median time, ratios."""
    exact = checked_exact(work)
    found, missing = peers.peers(work, packages)
    runs = {name: (our_run(work, method), SMALLEST_RTOL) for name, method in OURS.items()}
    runs |= {peer.name: (peer.run, peers.SMALLEST_RTOL) for peer in found}
    records: list[Record] = []
    for target in TARGETS:
        tolerances: dict[str, float] = {}
        errors: dict[str, float] = {}
        for name, (run, smallest) in runs.items():
            if name == EXACT:
                tolerances[name], errors[name] = 1e-8, error(run(1e-8), solve(work, "dop853", SMALLEST_RTOL))
                continue
            tolerances[name], errors[name] = tuned(run, exact, target, smallest)
        able = {name: bound(runs[name][0], rtol) for name, rtol in tolerances.items() if rtol == rtol}
        times = measure.in_turns(able, rounds, budget)
        median = measure.medians(times)
        best = min((median[name] for name in OURS if name != EXACT and name in median), default=float("nan"))
        for name in runs:
            time = median.get(name, float("nan"))
            records.append(
                {
                    "case": str(work.case),
                    "features": len(work.spec),
                    "target": target,
                    "solver": name,
                    "rtol": tolerances[name],
                    "error": errors[name],
                    "milliseconds": 1e3 * time,
                    "rounds": len(times.get(name, ())),
                    "peer / exact": time / median[EXACT],
                    "peer / best Runge-Kutta": time / best,
                    "note": "" if name in able else f"no tolerance meets {target:g}; best error {errors[name]:.1e}",
                }
            )
            show(records[-1])
        for package, reason in missing.items():
            records.append({"case": str(work.case), "target": target, "solver": package, "note": f"missing: {reason}"})
            show(records[-1])
    return records


def show(record: Record) -> None:
    """Print a record as a line, at once."""
    head = f"{record['case']:<17} {record['target']:6.0e}  {record['solver']:<40}"
    if record["note"]:
        print(f"{head} {record['note']}", flush=True)
        return
    print(
        f"{head} rtol {record['rtol']:7.1e}  error {record['error']:7.1e}  {record['milliseconds']:9.2f} ms "
        f"({record['rounds']} rounds)  {record['peer / exact']:7.1f} x exact  "
        f"{record['peer / best Runge-Kutta']:6.2f} x best Runge-Kutta",
        flush=True,
    )


def tables(records: Sequence[Record]) -> str:
    """Return the milliseconds of all solvers and the ratios to the fastest peer, as Markdown."""
    cases = list(dict.fromkeys(record["case"] for record in records))
    by_key = {(r["solver"], r["case"], r["target"]): r for r in records}
    names = list(dict.fromkeys(record["solver"] for record in records))

    def cell(name: str, case: str, target: float) -> str:
        record = by_key.get((name, case, target))
        if record is None or "milliseconds" not in record:
            return "missing"
        return measure.number(record["milliseconds"])

    def fastest(case: str, target: float) -> Record | None:
        """Return the record of the fastest peer."""
        able = [
            r
            for r in records
            if r["case"] == case and r["target"] == target and r["solver"] not in OURS and r.get("milliseconds", 0) > 0
        ]
        return min(able, key=lambda r: r["milliseconds"], default=None)

    def ratios(case: str, column: str) -> str:
        values = []
        for target in TARGETS:
            record = fastest(case, target)
            values.append(measure.number(float(record[column]), 2) if record else "-")
        return " / ".join(values)

    rows = [[name, *(" / ".join(cell(name, case, target) for target in TARGETS) for case in cases)] for name in names]
    rows.append(["fastest peer / exact", *(ratios(case, "peer / exact") for case in cases)])
    rows.append(["fastest peer / best Runge-Kutta", *(ratios(case, "peer / best Runge-Kutta") for case in cases)])
    scipy = {key: r for key, r in by_key.items() if key[0] == "SciPy DOP853, one system"}
    if scipy:
        ratios_to_scipy = [
            " / ".join(
                measure.number(float(r["peer / best Runge-Kutta"]), 2) for (_, of, _), r in scipy.items() if of == case
            )
            for case in cases
        ]
        rows.append(["SciPy DOP853 / best Runge-Kutta", *ratios_to_scipy])
    missing = sorted({f"{r['solver']}: {r['note']}" for r in records if "milliseconds" not in r})
    features = max(r.get("features", 0) for r in records)
    caption = (
        f"Milliseconds for {features} features at 200 times, one CPU, at a largest measured relative error of "
        + " / ".join(f"{target:g}" for target in TARGETS)
        + ". A dash: no tolerance meets it."
    )
    return "\n".join([caption, "", measure.markdown(["solver", *cases], rows), *(f"\n{line}" for line in missing)])


def summary(records: Sequence[Record]) -> str:
    """Return the best of each package only, and how many times faster this package is, as a short Markdown table."""
    cases = list(dict.fromkeys(record["case"] for record in records))
    groups = {"jepa_ode exact": [EXACT], "jepa_ode Runge-Kutta": [name for name in OURS if name != EXACT]}
    for name in dict.fromkeys(record["solver"] for record in records):
        if name not in OURS:
            groups.setdefault(f"{name.split()[0]}, best", []).append(name)

    def best(names: Sequence[str], case: str, target: float) -> float:
        found = (r for r in records if r["solver"] in names and r["case"] == case and r["target"] == target)
        return min((t for r in found if (t := r.get("milliseconds", float("nan"))) > 0), default=float("nan"))

    theirs = [name for names in list(groups.values())[2:] for name in names]
    rows = [
        [group, *(" / ".join(measure.number(best(names, case, target)) for target in TARGETS) for case in cases)]
        for group, names in groups.items()
    ]
    for group in list(groups)[:2]:
        ratios = [
            " / ".join(
                measure.number(best(theirs, case, target) / best(groups[group], case, target), 2) for target in TARGETS
            )
            for case in cases
        ]
        rows.append([f"{group}: times as fast as the best of them", *ratios])
    return measure.markdown(["milliseconds", *cases], rows)


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw the time of each solver in each case, a panel for each target."""
    cases = list(dict.fromkeys(record["case"] for record in records))
    timed = [record for record in records if record.get("milliseconds", float("nan")) > 0]
    styles = measure.styles(list(dict.fromkeys(record["solver"] for record in timed)))

    def drawing(plt: Any) -> Any:
        figure, panels = plt.subplots(1, len(TARGETS), figsize=(13, 5.5), sharey=True, layout="constrained")
        for ax, target in zip(panels, TARGETS, strict=True):
            for k, (name, style) in enumerate(styles.items()):
                mine = [r for r in timed if r["solver"] == name and r["target"] == target]
                places = [cases.index(r["case"]) + 0.06 * (k - len(styles) / 2) for r in mine]
                ax.semilogy(places, [r["milliseconds"] for r in mine], **{**style, "linestyle": "none"})
            ax.set_xticks(range(len(cases)), [case.replace(" eps", "\neps") for case in cases], fontsize=8)
            ax.set_title(f"largest relative error at most {target:g}")
            ax.grid(axis="y", alpha=0.3)
        panels[0].set_ylabel("time of a solve (milliseconds, one CPU)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9)
        return figure

    measure.figure(path, drawing)


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__)
    parser.add_argument("--cases", type=int, nargs="+", default=range(len(W1)), help="which of W1, from 0")
    parser.add_argument("--peers", nargs="+", choices=list(peers.PACKAGES), default=list(peers.PACKAGES))
    parser.add_argument("--budget", type=float, default=4.0, help="seconds for the rounds of one solver (default: 4)")
    options = parser.parse_args()
    measure.pin_to_one_cpu()
    warnings.filterwarnings("ignore", module="scipy|diffrax|equinox|numba")
    records: list[Record] = []
    for k in options.cases:
        work = workload(W1[k], options.features)
        records += compare(work, tuple(options.peers), options.rounds, options.budget)
    measure.write(options.output, "peers", records, tables(records), {"versions": peers.versions()})
    (options.output / "peers_summary.md").write_text(summary(records) + "\n")
    draw(records, options.output / "peers.png")


if __name__ == "__main__":
    sys.exit(main())
