"""What does the gradient flow of a whole network cost, on short horizons and on long ones, beside SciPy on the same products?

Workload W2: ``Sxx = A A^T/d + 0.1 I`` and ``Syx = Sxx^(1/2) R Sxx^(1/2)`` with R symmetric, its eigenvalues in [0.2, 0.95],
in a random basis (seeded); a balanced start at eps = 1e-2; 50 times up to the horizon; rtol = 1e-6, atol = 1e-9. On the long
horizons most features have been learned and relax fast, which limits the steps of explicit methods: there `method="auto"`
turns to its stabilised one. The error is the largest of the responses, against a flow at rtol = 1e-11 that SciPy confirms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.integrate import solve_ivp

import jepa_ode as jo
import measure

Record = dict[str, Any]
Array = npt.NDArray[np.float64]
METHODS = ("auto", "tsit5", "dop853")
PEERS = ("RK45", "DOP853")
TIMES = 50
EPS = 1e-2


@dataclass(frozen=True)
class Case:
    """An objective, the dimension of the data and of all layers, a depth and a horizon."""

    objective: str
    d: int
    depth: int
    horizon: float

    def __str__(self) -> str:
        """Return the text that names the case in tables."""
        return f"{self.objective} d={self.d} L={self.depth} T={self.horizon:g}"


CASES = (
    Case("jepa", 32, 4, 2500),
    Case("jepa", 32, 4, 25_000),
    Case("jepa", 32, 2, 1000),
    Case("jepa", 32, 2, 10_000),
    Case("mae", 32, 4, 100),
    Case("mae", 32, 4, 1000),
    Case("jepa", 128, 2, 1000),
)


def covariances(d: int) -> jo.Covariances:
    """Return those of W2."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((d, d))
    xx = a @ a.T / d + 0.1 * np.eye(d)
    values, vectors = np.linalg.eigh(xx)
    root = vectors * np.sqrt(values) @ vectors.T
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    yx = root @ (basis * rng.uniform(0.2, 0.95, d) @ basis.T) @ root
    return jo.Covariances(xx, (yx + yx.T) / 2, xx)


class NumpyFlow:
    """The same flow by NumPy's products, as a user of SciPy would write it (THEORY.md 1)."""

    def __init__(self, case: Case, cov: jo.Covariances, net: jo.LinearNetwork) -> None:
        self.case, self.cov, self.evaluations = case, cov, 0
        self.start = np.concatenate([block.ravel() for block in (*net.encoder, net.predictor)])

    def layers(self, state: Array) -> Array:
        """Return W^1, ..., W^L, V."""
        return state.reshape(self.case.depth + 1, self.case.d, self.case.d)

    def velocity(self, _: float, state: Array) -> Array:
        """Return the right-hand side."""
        self.evaluations += 1
        *encoder, predictor = self.layers(state)
        below = [encoder[0]]
        for layer in encoder[1:]:
            below.append(layer @ below[-1])
        target = below[-1] @ self.cov.Syx if self.case.objective == "jepa" else self.cov.Syx
        e = predictor @ (below[-1] @ self.cov.Sxx) - target
        moved = np.empty_like(self.layers(state))
        moved[-1] = -e @ below[-1].T
        gradient = predictor.T @ e
        for k in range(self.case.depth - 1, 0, -1):
            moved[k] = -gradient @ below[k - 1].T
            gradient = encoder[k].T @ gradient
        moved[0] = -gradient
        return moved.ravel()

    def response(self, state: Array, directions: Array) -> Array:
        """Return the encoder's response to each direction."""
        encoded = directions
        for layer in self.layers(state)[:-1]:
            encoded = layer @ encoded
        return np.linalg.norm(encoded, axis=0)


def compare(case: Case, rounds: int, budget: float) -> list[Record]:
    """Return a record for each method: right-hand sides, measured error, median time, ratio."""
    cov = covariances(case.d)
    net = jo.LinearNetwork.balanced(case.d, case.depth, EPS)
    t = np.linspace(0, case.horizon, TIMES)
    features = cov.spectrum()
    directions = features.duals / np.linalg.norm(features.duals, axis=0)
    evaluations: dict[str, int] = {}

    def ours(method: str, **options: Any) -> Array:
        flow = jo.gradient_flow(
            net, cov, case.objective, t=t, method=method, features=features, max_steps=10**7, **options
        )
        if not flow.success:
            raise AssertionError(f"{case}: {flow.message}")
        evaluations[f"jepa_ode {method}"] = flow.nfev
        return flow.response

    def scipy(method: str, **options: Any) -> Array:
        flow = NumpyFlow(case, cov, net)
        run = solve_ivp(flow.velocity, (0, t[-1]), flow.start, method, t, **{"rtol": 1e-6, "atol": 1e-9} | options)
        evaluations[f"SciPy {method}"] = flow.evaluations
        return np.stack([flow.response(state, directions) for state in run.y.T], axis=1)

    reference = ours("dop853", rtol=1e-11, atol=1e-13)
    runs: dict[str, Callable[[], Array]] = {f"jepa_ode {m}": lambda m=m: ours(m) for m in METHODS}
    runs |= {f"SciPy {m}": lambda m=m: scipy(m) for m in PEERS}
    errors = {name: float(np.abs(run() - reference).max()) for name, run in runs.items()}
    if errors["SciPy DOP853"] > 1e-4:
        raise AssertionError(f"{case}: the reference and SciPy differ by {errors['SciPy DOP853']:.1e}")
    times = measure.in_turns(runs, rounds, budget)
    median = measure.medians(times)
    return [
        {
            "case": str(case),
            "solver": name,
            "right-hand sides": evaluations[name],
            "error": errors[name],
            "seconds": median[name],
            "us per right-hand side": 1e6 * median[name] / evaluations[name],
            "times as long as auto": median[name] / median["jepa_ode auto"],
            "rounds": len(times[name]),
        }
        for name in runs
    ]


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__)
    parser.add_argument("--cases", type=int, nargs="+", default=range(len(CASES)), help="which cases, from 0")
    parser.add_argument("--budget", type=float, default=4.0, help="seconds for the rounds of one solver (default: 4)")
    options = parser.parse_args()
    measure.pin_to_one_cpu()
    records: list[Record] = []
    for k in options.cases:
        records += compare(CASES[k], options.rounds, options.budget)
    columns = [name for name in records[0] if name != "rounds"]
    measure.write(
        options.output, "flow", records, measure.markdown(columns, [[r[c] for c in columns] for r in records])
    )


if __name__ == "__main__":
    main()
