"""Tasks for the tests of sweeps, importable in any process; as a script, one sweep into a store that may be killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import jepa_ode as jo


def sums(a: float, b: float, c: float = 0.0) -> float:
    return 100.0 * a + 10.0 * b + c


def drawn(rng: np.random.Generator, **_: Any) -> dict[str, Any]:
    return {"one": rng.normal(), "three": ("draw", rng.normal(size=3))}


def several(a: int) -> dict[str, Any]:
    return {
        "number": a,
        "yes": a > 1,
        "text": f"a is {a}",
        "z": a + 1j,
        "row": np.arange(3) * a,
        "single": np.float32(a),
    }


def picky(a: int) -> float:
    if a % 3 == 1:
        raise ValueError(f"a is {a}\nwhich is wrong")
    return float(a)


def troubled(a: int) -> Any:
    return jo.Trouble({"value": [a, np.nan]}, "half of it is missing") if a == 1 else {"value": [a, a]}


def uneven(a: int, lengths: tuple[int, ...]) -> list[float]:
    if lengths[a] == 0:
        raise RuntimeError("nothing")
    return [1.0] * lengths[a]


def noted(a: int, notes: str) -> float:
    """Leave a note of each call: which cells were run."""
    with Path(notes).open("a") as file:
        file.write(f"{a}\n")
    return a**0.5


def interrupted(a: int, flag: str) -> float:
    """Be interrupted once, in the fourth cell."""
    if a == 3 and not Path(flag).exists():
        Path(flag).touch()
        raise KeyboardInterrupt
    return float(a)


def deadly(a: int, flag: str) -> float:
    """Kill the worker once, in cell 5."""
    if a == 5 and not Path(flag).exists():
        Path(flag).touch()
        time.sleep(0.2)  # the other worker finishes something
        os.kill(os.getpid(), signal.SIGKILL)
    return float(a)


def always_deadly(a: int, flag: str) -> float:
    if a == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return float(len(flag) > 0)


def large(a: int) -> Any:
    return np.random.default_rng(a).normal(size=20_000)


def threads_seen() -> int:
    from jepa_ode._threads import as_threads

    return as_threads(None)


def flow(eps: float, seed: int, rng: np.random.Generator) -> dict[str, Any]:
    """A small matrix flow, and some random numbers."""
    lam = np.linspace(0.5, 1.0, 6) + 0.01 * seed
    cov = jo.StaticModel.tilted(jo.Spectrum(lam, rho=np.linspace(0.9, 0.3, 6)), tilt=0.2, rng=rng).covariances()
    result = jo.gradient_flow(jo.LinearNetwork.balanced(6, 2, eps), cov, "jepa", t=np.linspace(0, 50, 5))
    return {"response": (("feature", "time"), result.response), "random": rng.normal()}


FLOWS: dict[str, Any] = {"eps": np.geomspace(1e-3, 0.1, 20), "seed": range(30)}


def sweep_flows(store: str | None, executor: Any = None) -> Any:
    return jo.sweep(FLOWS, flow, rng=5, store=store, executor=executor, chunk=6)


if __name__ == "__main__":
    import sweep_tasks  # as workers know it

    sweep_tasks.sweep_flows(sys.argv[1], executor=int(sys.argv[2]) or None)
