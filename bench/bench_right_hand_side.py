"""What does one right-hand side of the flow cost beside its own matrix products at the best rate at hand?

With stop-gradient JEPA takes 3L+2 products of d x d matrices as it is written, MAE one less (its target is data). The flow is
integrated in the principal axes of x, where the product with Sxx costs nothing, but is measured against all of them. The rate
is the best that Eigen (compiled as for the engine), NumPy's BLAS and PyTorch (where installed) reach on one product in the
same run, in turns, on one CPU with one thread. Marks: at most 1.15 times the products for d >= 128, 1.5 times at d = 32. Times
are of CPU time, on one CPU what a run takes alone; right-hand sides and Eigen's products are repeated inside the engine, so
that no call counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import measure
import peers
from flow_workload import Case, network
from jepa_ode._core import engine
from jepa_ode.flow_problem import start_state
from jepa_ode.objectives import as_objective
from jepa_ode.principal_axes import PrincipalAxes
from workload import Array

Record = dict[str, Any]
SIZES = (32, 64, 128, 256, 512)
DEPTHS = (1, 2, 4)
OBJECTIVES = ("jepa", "mae")
MARKS = {32: 1.5, 128: 1.15, 256: 1.15, 512: 1.15}
RATE = 4e10  # guessed, to choose how often to repeat


def blas() -> str:
    """Return the name of NumPy's BLAS."""
    config = np.show_config(mode="dicts")
    assert config is not None
    return str(config["Build Dependencies"]["blas"]["name"])


def eigen_product(a: Array, b: Array) -> Callable[[int], None]:
    """Return a run of repeated products by Eigen."""

    def run(repeats: int) -> None:
        engine.product(a, b, repeats)

    return run


def numpy_product(a: Array, b: Array) -> Callable[[int], None]:
    """Return a run of repeated products by NumPy."""
    out = np.empty_like(a)

    def run(repeats: int) -> None:
        for _ in range(repeats):
            np.matmul(a, b, out=out)

    return run


def torch_product(a: Array, b: Array) -> Callable[[int], None]:
    """Return a run of repeated products by PyTorch."""
    import torch

    torch.set_num_threads(1)
    left, right = torch.from_numpy(a), torch.from_numpy(b)
    out = torch.empty_like(left)

    def run(repeats: int) -> None:
        for _ in range(repeats):
            torch.mm(left, right, out=out)

    return run


LIBRARIES = {"Eigen": eigen_product, f"NumPy ({blas()})": numpy_product, "torch": torch_product}


def products(d: int) -> tuple[dict[str, Callable[[int], None]], dict[str, str]]:
    """Return runs of repeated products of d x d matrices by each library, and which are missing."""
    a, b = np.random.default_rng(d).standard_normal((2, d, d))
    found: dict[str, Callable[[int], None]] = {}
    missing: dict[str, str] = {}
    for name, make in LIBRARIES.items():
        try:
            found[name] = make(a, b)
        except ImportError as error:
            missing[name] = str(error)
    return found, missing


def right_hand_side(objective: str, d: int, depth: int) -> Callable[[int], None]:
    """Return a run of repeated right-hand sides of W2 at its start."""
    net = network(Case(objective, d, depth, 1.0))
    flow = PrincipalAxes(net.cov.Sxx, net.cov.Syx, None).network_flow(net.start, as_objective(objective), 1.0)
    state = start_state(net.start, as_objective(objective))

    def run(repeats: int) -> None:
        flow.velocity(state, repeats)

    return run


def compare(d: int, options: argparse.Namespace) -> tuple[list[Record], dict[str, str]]:
    """Return a record for each objective and depth, and the libraries that are missing."""
    found, missing = products(d)
    counts = {(o, depth): 3 * depth + 2 - (o == "mae") for o in OBJECTIVES for depth in DEPTHS}
    runs: dict[Any, tuple[Callable[[int], None], int]] = {name: (run, 1) for name, run in found.items()}
    runs |= {key: (right_hand_side(key[0], d, key[1]), count) for key, count in counts.items()}

    # Runs of about the same length, so that whatever else the machine does hits all alike.
    repeats = {key: max(1, round(options.slice * RATE / (2 * d**3 * count))) for key, (_, count) in runs.items()}
    bound = {key: lambda run=run, n=repeats[key]: run(n) for key, (run, _) in runs.items()}
    times = measure.in_turns(bound, options.rounds, fewest=options.rounds, clock=time.process_time)
    each = {key: 1e6 * median / repeats[key] for key, median in measure.medians(times).items()}

    best = min(each[name] for name in found)
    rates = {f"{name} GFLOP/s": 2e-3 * d**3 / each[name] for name in found}
    records = []
    for (objective, depth), count in counts.items():
        of = [1e6 * value / repeats[objective, depth] for value in times[objective, depth]]
        ratio = each[objective, depth] / (count * best)
        mark = MARKS.get(d, float("nan"))
        records.append(
            {
                "d": d,
                **rates,
                "objective": objective,
                "L": depth,
                "products": count,
                "us per right-hand side": each[objective, depth],
                "fastest": min(of),
                "slowest": max(of),
                "us for its products": count * best,
                "ratio": ratio,
                "mark": mark,
                "met": "-" if mark != mark else "yes" if ratio <= mark else "NO",
            }
        )
    return records, missing


def table(records: Sequence[Record], missing: dict[str, str]) -> str:
    """Return the records as Markdown, and what is missing below."""
    columns = list(records[0])
    rows = [[record[column] for column in columns] for record in records]
    return "\n".join([measure.markdown(columns, rows), *(f"\n{name}: missing: {why}" for name, why in missing.items())])


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = measure.parser(__doc__)
    parser.set_defaults(rounds=15)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="of the matrices (default: %(default)s)")
    parser.add_argument("--slice", type=float, default=0.05, help="seconds of one run (default: %(default)s)")
    return parser.parse_args(arguments)


def main() -> None:
    """Run the benchmark."""
    options = parse()
    measure.pin_to_one_cpu()
    records: list[Record] = []
    missing: dict[str, str] = {}
    for d in options.sizes:
        of_size, missing = compare(d, options)
        records += of_size
    versions = peers.versions(("numpy", "torch"))
    measure.write(options.output, "right_hand_side", records, table(records, missing), {"versions": versions})


if __name__ == "__main__":
    main()
