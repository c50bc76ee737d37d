"""What does the gradient flow of a whole network cost, on short horizons and on ten times as long ones, beside ODE libraries?

Workload W2 (flow_workload.py), everybody at rtol = 1e-6, atol = 1e-9, on one CPU with one thread, or as many as `--threads`
says. The error is the largest of the responses, against a flow at rtol = 1e-11 that the most accurate peer confirms before
anything is timed. "matched" is this package with the loosest rtol whose error is at most that of the fastest peer. On long
horizons the learned features relax fast, which limits the steps of explicit methods: there `method="auto"` turns to its
stabilised one. A peer whose right-hand sides on the short horizon foretell more than `--limit` seconds on the long one is not
run; its row is that lower bound. Seconds are of CPU time, on one CPU what a run takes alone; with more threads they are of the
wall clock. Compilation (diffrax) is excluded and told beside the table.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import flow_peers
import jepa_ode as jo
import measure
import peers
from flow_peers import ATOL, RTOL, Answer
from flow_workload import Case, Network, network
from workload import Array, tuned

Record = dict[str, Any]
AUTO, MATCHED = "jepa_ode auto", "jepa_ode auto, matched"
REFERENCE_RTOL, REFERENCE_ATOL = 1e-11, 1e-13
LOOSEST = 1e-4  # rtol
CONFIRMED = 1e-5  # what the most accurate peer may differ from the reference by
FORETOLD = (
    8  # times the right-hand sides of the short horizon a peer takes on the long one, at least: 8.7 to 12.4 at d = 32
)
CLOSE = 1.2  # peers within this factor of the fastest count as fastest: their most accurate is the one to match

SHORT = (
    Case("jepa", 32, 4, 2500),
    Case("jepa", 32, 2, 1000),
    Case("jepa", 128, 2, 1000),
    Case("mae", 128, 4, 100),
    Case("jepa", 128, 4, 2500),
    Case("jepa", 256, 2, 500),
    Case("jepa", 256, 4, 1250),
)
# Ordered by what they take; the default stops where a run of the whole table would pass ten minutes.
CASES = (
    *SHORT[:2],
    *(Case(c.objective, c.d, c.depth, c.horizon, long=True) for c in SHORT[:2]),
    *SHORT[2:],
    *(Case(c.objective, c.d, c.depth, c.horizon, long=True) for c in SHORT[2:]),
)
BY_DEFAULT = range(6)


@dataclass(frozen=True)
class Trial:
    """The first run of a solver: what it took, and its largest error."""

    seconds: float
    evaluations: int
    error: float


def largest_error(response: Any, reference: Array) -> float:
    """Return the largest absolute error, infinite where a value is missing."""
    largest = float(np.max(np.abs(response - reference)))
    return largest if np.isfinite(largest) else float("inf")


Clock = Callable[[], float]


def clock_of(threads: int) -> Clock:
    """Return what tells seconds of this process, whatever else runs on its CPU; threads share a time that passes for all."""
    return time.process_time if threads == 1 else time.perf_counter


def trial(run: Callable[[], Answer], reference: Array, clock: Clock) -> Trial:
    """Return what a run took and how far it is from the reference."""
    begin = clock()
    answer = run()
    return Trial(clock() - begin, answer.evaluations, largest_error(answer.response, reference))


def ours(
    net: Network,
    t: Array,
    method: str = "auto",
    rtol: float = RTOL,
    atol: float = ATOL,
) -> Answer:
    """Return the answer of this package."""
    flow = jo.gradient_flow(
        net.start,
        net.cov,
        net.objective,
        t=t,
        method=method,
        rtol=rtol,
        atol=atol,
        features=net.features,
        max_steps=10**8,
    )
    if not flow.success:
        raise AssertionError(f"{method} at rtol={rtol:g}: {flow.message}")
    return Answer(flow.response, flow.nfev)


def references(net: Network, case: Case) -> dict[Case, Array]:
    """Return accurate responses at the times of the case and, of one flow, of its short horizon."""
    both = np.unique(np.concatenate([case.short.t, case.t]))
    response = ours(net, both, "dop853", REFERENCE_RTOL, REFERENCE_ATOL).response
    return {c: response[:, np.searchsorted(both, c.t)] for c in (case.short, case)}


def confirm(case: Case, trials: Sequence[Trial]) -> None:
    """Raise when no peer comes near the reference."""
    nearest = min((trial.error for trial in trials), default=float("inf"))
    if not nearest <= CONFIRMED:
        raise AssertionError(f"{case}: the reference and the most accurate peer differ by {nearest:.1e}")


def error_to_match(trials: Sequence[Trial]) -> float:
    """Return the smallest error among the peers that are about as fast as the fastest."""
    fastest = min(trial.seconds for trial in trials)
    return min(trial.error for trial in trials if trial.seconds <= CLOSE * fastest)


def compare(
    case: Case, options: argparse.Namespace, known: dict[tuple[Case, str], Trial]
) -> tuple[list[Record], list[str]]:
    """Return a record for each solver, and remarks; `known` keeps trials from case to case."""
    clock = clock_of(options.threads)
    net = network(case)
    reference = references(net, case)
    found, missing = peers.gather(net, {package: flow_peers.PACKAGES[package] for package in options.peers})
    remarks = [f"{package}: missing: {reason}" for package, reason in missing.items()]

    setting = {"case": str(case), "threads": options.threads}

    def tried(peer: flow_peers.Peer, at: Case) -> Trial:
        if (at, peer.name) not in known:
            known[at, peer.name] = trial(lambda: peer.run(at.t), reference[at], clock)
        return known[at, peer.name]

    on_short = {peer.name: tried(peer, case.short) for peer in found}
    foretold = {name: first.seconds * (FORETOLD if case.long else 1) for name, first in on_short.items()}
    able = [peer for peer in found if foretold[peer.name] <= options.limit]
    trials = {peer.name: tried(peer, case) for peer in able}
    confirm(case, [*on_short.values(), *trials.values()])

    # Where no peer can be run on the long horizon, the fastest on the short one says which error to match.
    target = error_to_match(list((trials or on_short).values()))
    rtol, _ = tuned(
        lambda rtol: ours(net, case.t, rtol=rtol).response,
        reference[case],
        target,
        REFERENCE_RTOL,
        largest=LOOSEST,
        error=largest_error,
    )
    runs: dict[str, Callable[[], Answer]] = {AUTO: lambda: ours(net, case.t)}
    if rtol == rtol:
        runs[MATCHED] = lambda: ours(net, case.t, rtol=rtol)
    trials |= {name: trial(run, reference[case], clock) for name, run in runs.items()}
    runs |= {peer.name: lambda peer=peer: peer.run(case.t) for peer in able}
    warm = {name: trials[name].seconds for name in runs}
    times = measure.in_turns(runs, options.rounds, options.budget, fewest=options.fewest, warm=warm, clock=clock)
    median = measure.medians(times)
    best = min([*(median[peer.name] for peer in able), *([options.limit] if len(able) < len(found) else [])])
    bound = "> " if best == options.limit else ""
    records = [
        {
            **setting,
            "solver": name,
            "rtol": rtol if name == MATCHED else RTOL,
            "right-hand sides": trials[name].evaluations,
            "error": trials[name].error,
            "seconds": median[name],
            "fastest": min(times[name]),
            "slowest": max(times[name]),
            "us per right-hand side": 1e6 * median[name] / trials[name].evaluations,
            "best peer / this": bound + measure.number(best / median[name]) if name in (AUTO, MATCHED) else "",
            "rounds": len(times[name]),
        }
        for name in runs
    ]
    for peer in found:
        if peer not in able:
            records.append({**setting, "solver": peer.name, "rtol": RTOL, "seconds": f"> {options.limit:g}"})
            remarks.append(
                f"{peer.name}, {case}: not run, its short horizon foretells more than {foretold[peer.name]:.0f} s"
            )
        if peer.compile_seconds:
            remarks.append(f"{peer.name}, {case}: compiled in {peer.compile_seconds:.1f} s, not counted")
    if MATCHED not in runs:
        remarks.append(f"{MATCHED}, {case}: no rtol meets the error {target:.1e}")
    return records, remarks


def table(records: Sequence[Record], remarks: Sequence[str]) -> str:
    """Return the records as Markdown, and the remarks below."""
    columns = list(dict.fromkeys(column for record in records for column in record))
    rows = [[record.get(column, float("nan")) for column in columns] for record in records]
    return "\n".join([measure.markdown(columns, rows), *(f"\n{remark}" for remark in dict.fromkeys(remarks))])


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    cases = "\n".join(f"  {k:2}  {case}" for k, case in enumerate(CASES))
    parser = measure.parser(f"{__doc__}\ncases:\n{cases}")
    parser.add_argument("--cases", type=int, nargs="+", default=BY_DEFAULT, help="which cases (default: %(default)s)")
    parser.add_argument("--peers", nargs="+", choices=list(flow_peers.PACKAGES), default=list(flow_peers.PACKAGES))
    parser.add_argument("--budget", type=float, default=4.0, help="seconds for the rounds of one solver (default: 4)")
    parser.add_argument("--fewest", type=int, default=3, help="rounds at least, whatever the budget (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="and CPUs, for everybody (default: 1)")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds that one run of a peer may take")
    return parser.parse_args(arguments)


def main() -> None:
    """Run the benchmark."""
    options = parse()
    measure.pin_to_cpus(options.threads)
    warnings.filterwarnings("ignore", module="diffrax|equinox|torchdiffeq")
    records: list[Record] = []
    remarks: list[str] = []
    known: dict[tuple[Case, str], Trial] = {}
    for k in options.cases:
        of_case, remarked = compare(CASES[k], options, known)
        print(table(of_case, []), flush=True)
        records += of_case
        remarks += remarked
    versions = peers.versions((*flow_peers.PACKAGES, "jax", "torch"))
    measure.write(options.output, "flow", records, table(records, remarks), {"versions": versions, "remarks": remarks})


if __name__ == "__main__":
    main()
