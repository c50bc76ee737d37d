"""What does a step of training a whole network cost, beside the same loop in PyTorch?

Square layers of width d, depth 3, SGD in double precision on 100 batches that were drawn before, the same rows for all, in
three epochs; or gradient descent on the population's covariances. PyTorch: parameters, autograd, ``torch.optim.SGD``, on one
thread and on two. The answers are the weights after 100 steps, which must agree to 1e-10 before anything is timed; what is
timed is the whole call, with its setting up. A NumPy loop with the gradient by hand runs too; it is all there is where
PyTorch is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import jepa_ode as jo
import measure

Record = dict[str, Any]
Array = npt.NDArray[np.float64]
DEPTH = 3
BATCHES = 100
STEPS = 300
LR = 1e-2
TOLERANCE = 1e-10


@dataclass(frozen=True)
class Case:
    """An objective, the dimension of the data and of all layers, and a batch size; None is the population."""

    objective: str
    d: int
    batch_size: int | None

    def __str__(self) -> str:
        """Return the text that names the case in tables."""
        batch = "population" if self.batch_size is None else f"batch {self.batch_size}"
        return f"{self.objective} d={self.d} {batch}"


CASES = (
    Case("jepa", 100, 256),
    Case("mae", 100, 256),
    Case("jepa", 100, 32),
    Case("mae", 100, 32),
    Case("jepa", 32, 256),
    Case("jepa", 32, 32),
    Case("jepa", 100, None),
    Case("jepa", 32, None),
)


class Problem:
    """The start, the batches and the covariances of a case."""

    def __init__(self, case: Case) -> None:
        rng = np.random.default_rng(0)
        d = case.d
        samples = BATCHES * (case.batch_size or 10)
        self.case = case
        self.x = rng.standard_normal((samples, d))
        self.y = self.x @ rng.standard_normal((d, d)) / np.sqrt(d) + 0.5 * rng.standard_normal((samples, d))
        n = len(self.x)
        self.cov = jo.Covariances(self.x.T @ self.x / n, self.y.T @ self.x / n, self.y.T @ self.y / n)
        self.features = self.cov.spectrum()
        self.net = jo.LinearNetwork.random(d, DEPTH, 0.5, rng)

    def batch(self, k: int) -> tuple[Array, Array]:
        """Return the samples of step k."""
        size = self.case.batch_size or 0
        rows = slice(k % BATCHES * size, (k % BATCHES + 1) * size)
        return self.x[rows], self.y[rows]

    def ours(self, threads: int, steps: int) -> list[Array]:
        """Return the weights that `train` arrives at."""
        run = jo.train(
            self.net,
            self.cov if self.case.batch_size is None else (self.x, self.y),
            self.case.objective,
            optimizer="sgd",
            lr=LR,
            steps=steps,
            batch_size=self.case.batch_size,
            shuffle=False,
            snapshots=[steps],
            features=self.features,
            keep_weights=True,
            threads=threads,
        )
        net = run.network(-1)
        return [*net.encoder, net.predictor]

    def numpy(self, steps: int) -> list[Array]:
        """Return those of a loop with the gradient by hand."""
        *W, V = (w.copy() for w in (*self.net.encoder, self.net.predictor))
        mae = self.case.objective == "mae"
        for k in range(steps):
            if self.case.batch_size is None:
                below = [np.eye(self.case.d), *W[:1]]
                for w in W[1:]:
                    below.append(w @ below[-1])
                error = V @ (below[-1] @ self.cov.Sxx) - (self.cov.Syx if mae else below[-1] @ self.cov.Syx)
                gradients = [error @ below[-1].T]
                error = V.T @ error
                for w, under in zip(W[::-1], below[-2::-1], strict=True):
                    gradients.append(error @ under.T)
                    error = w.T @ error
            else:
                x, y = self.batch(k)
                activations = [x]
                for w in W:
                    activations.append(activations[-1] @ w.T)
                    y = y if mae else y @ w.T
                error = (activations[-1] @ V.T - y) / len(x)
                gradients = []
                for w, activation in zip([V, *W[::-1]], activations[::-1], strict=True):
                    gradients.append(error.T @ activation)
                    error = error @ w
            for w, gradient in zip([V, *W[::-1]], gradients, strict=True):
                w -= LR * gradient
        return [*W, V]

    def torch(self, threads: int, steps: int) -> list[Array]:
        """Return those of PyTorch, as its users write such a loop."""
        import torch

        torch.set_num_threads(threads)
        W = [torch.nn.Parameter(torch.tensor(w)) for w in self.net.encoder]
        V = torch.nn.Parameter(torch.tensor(self.net.predictor))
        optimizer = torch.optim.SGD([*W, V], lr=LR)
        mae = self.case.objective == "mae"
        xx, yx = torch.tensor(self.cov.Sxx), torch.tensor(self.cov.Syx)

        def encode(z: Any) -> Any:
            for w in W:
                z = z @ w.T
            return z

        for k in range(steps):
            optimizer.zero_grad()
            if self.case.batch_size is None:
                # 1/2 tr(P Sxx P^T) - tr(P Sxy T^T), P = V Wbar, up to what has no gradient.
                encoder = encode(torch.eye(self.case.d, dtype=torch.float64)).T
                predicted = V @ encoder
                target = yx if mae else encoder.detach() @ yx
                loss = 0.5 * (predicted @ xx * predicted).sum() - (predicted * target).sum()
            else:
                x, y = map(torch.from_numpy, self.batch(k))
                if not mae:
                    with torch.no_grad():
                        y = encode(y)
                loss = 0.5 * (encode(x) @ V.T - y).square().sum() / len(x)
            loss.backward()
            optimizer.step()
        return [w.detach().numpy() for w in (*W, V)]


def compare(case: Case, rounds: int, budget: float) -> list[Record]:
    """Return a record for each loop: its error, iterations per second, ratio."""
    problem = Problem(case)
    runs: dict[str, Callable[[int], list[Array]]] = {
        f"jepa_ode, {n} thread{'s' * (n > 1)}": lambda steps, n=n: problem.ours(n, steps) for n in (1, 2)
    }
    runs["NumPy"] = problem.numpy
    try:
        import torch  # noqa: F401
    except ImportError:
        print("PyTorch is not installed: make bench installs it, or pip install --group bench-torch")
    else:
        runs |= {f"PyTorch, {n} thread{'s' * (n > 1)}": lambda steps, n=n: problem.torch(n, steps) for n in (1, 2)}
    reference = problem.numpy(BATCHES)
    errors = {
        name: max(float(np.abs(a - b).max()) for a, b in zip(run(BATCHES), reference, strict=True))
        for name, run in runs.items()
    }
    for name, error in errors.items():
        if not error <= TOLERANCE:
            raise AssertionError(f"{case}: the weights of {name} differ by {error:.1e}")
    times = measure.in_turns({name: lambda run=run: run(STEPS) for name, run in runs.items()}, rounds, budget)
    median = measure.medians(times)
    ours = min(seconds for name, seconds in median.items() if name.startswith("jepa_ode"))
    return [
        {
            "case": str(case),
            "loop": name,
            "error": errors[name],
            "iterations per second": STEPS / median[name],
            "us per iteration": 1e6 * median[name] / STEPS,
            "times as long as jepa_ode": median[name] / ours,
            "rounds": len(times[name]),
        }
        for name in runs
    ]


def main() -> None:
    """Run the benchmark."""
    parser = measure.parser(__doc__)
    parser.add_argument("--cases", type=int, nargs="+", default=range(len(CASES)), help="which cases, from 0")
    parser.add_argument("--budget", type=float, default=4.0, help="seconds for the rounds of one loop (default: 4)")
    options = parser.parse_args()
    records: list[Record] = []
    for k in options.cases:
        records += compare(CASES[k], options.rounds, options.budget)
    columns = [name for name in records[0] if name != "rounds"]
    measure.write(
        options.output, "training", records, measure.markdown(columns, [[r[c] for c in columns] for r in records])
    )


if __name__ == "__main__":
    main()
