"""The main entries of the package, each with the calls that tests of processes and of memory make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import jepa_ode as jo

Call = Callable[[], Any]  # with its inputs


class Entry(NamedTuple):
    """An entry by makers of calls of it."""

    small: Callable[[], Call]  # milliseconds, on threads where there is enough to do
    large: Callable[[], Call]  # 7 MiB of results or more
    lasting: Callable[[], Call]  # many seconds


def spectrum(n: int) -> jo.Spectrum:
    return jo.Spectrum(np.linspace(0.2, 2.0, n), rho=np.linspace(0.9, 0.4, n))


def covariances(d: int) -> jo.Covariances:
    return jo.Covariances(np.eye(d), np.diag(np.linspace(0.9, 0.3, d)), np.eye(d))


def solver(objective: Any, method: str) -> Entry:
    """`solve` by a method: features, times, tolerance."""

    def call(n: int, m: int, rtol: float) -> Call:
        settings = {"depth": 2, "eps": 0.1, "method": method, "threads": 3, "rtol": rtol}
        spec, t = spectrum(n), np.linspace(0.0, 60.0, m)
        return lambda: jo.solve(spec, objective, t=t, **settings)

    def lasting() -> Call:
        if method == "exact":  # no table serves so deep an encoder: microseconds for each value
            spec, t = spectrum(4000), np.linspace(0.0, 1e4, 4000)
            return lambda: jo.solve(spec, objective, depth=1000.5, eps=0.1, t=t)
        spec = spectrum(1_000_000)
        return lambda: jo.solve(spec, objective, depth=2, eps=1e-4, t=[1e9], method=method, rtol=1e-12)

    return Entry(lambda: call(40, 20, 1e-8), lambda: call(2000, 2000, 1e-3), lasting)


def derivatives(n: int, m: int) -> Call:
    solution = jo.solve(spectrum(n), "jepa", depth=2.5, eps=0.1, t=np.linspace(0.0, 60.0, m))
    return lambda: solution.sensitivity(threads=3)


def times(entry: Callable[..., Any], n: int, depth: float, **settings: Any) -> Call:
    spec = spectrum(n)
    return lambda: entry(spec, "jepa", depth=depth, eps=0.1, threads=3, **settings)


def flows(count: int, d: int, t: Any, **settings: Any) -> Call:
    nets = [jo.LinearNetwork.random(d, 2, 0.5, rng=seed) for seed in range(count)]
    cov = covariances(d)
    features = cov.spectrum()
    if count > 1:
        return lambda: jo.gradient_flows(nets, cov, "jepa", t=t, features=features, threads=3, **settings)
    return lambda: jo.gradient_flow(nets[0], cov, "jepa", t=t, features=features, **settings)


def endless(count: int, d: int) -> Call:
    return flows(count, d, [0.0, 1e12], method="tsit5", max_steps=10**9)


def training(d: int, samples: int, steps: int, **settings: Any) -> Call:
    net, features = jo.LinearNetwork.balanced(d, 2, 0.1), covariances(d).spectrum()
    x, y = np.random.default_rng(0).standard_normal((2, samples, d))
    settings |= {"steps": steps, "batch_size": samples // 2, "features": features, "threads": 3}
    return lambda: jo.train(net, (x, y), "jepa", lr=1e-4, **settings)


ENTRIES = {
    "exact": solver("jepa", "exact"),
    "tsit5": solver("jepa", "tsit5"),
    "dop853": solver("mae", "dop853"),
    "layer systems": solver(jo.JEPA(ema=0.5, weight_decay=0.01), "dop853"),
    "sensitivity": Entry(lambda: derivatives(40, 20), lambda: derivatives(1000, 250), lambda: derivatives(4000, 4000)),
    "time_to_reach": Entry(
        lambda: times(jo.time_to_reach, 40, 2, w=0.2),
        lambda: times(jo.time_to_reach, 2_000_000, 2, w=0.2),
        lambda: times(jo.time_to_reach, 4_000_000, 1000.5, w=0.2),
    ),
    "critical_time": Entry(
        lambda: times(jo.critical_time, 40, 2),
        lambda: times(jo.critical_time, 2_000_000, 2),
        lambda: times(jo.critical_time, 4_000_000, 1000.5),
    ),
    "gradient_flow": Entry(
        lambda: flows(1, 6, [0.0, 1.0, 5.0]),
        lambda: flows(1, 60, np.linspace(0.0, 1.0, 700), keep_weights=True),
        lambda: endless(1, 60),
    ),
    "gradient_flows": Entry(
        lambda: flows(4, 6, [0.0, 1.0, 5.0]),
        lambda: flows(4, 40, np.linspace(0.0, 1.0, 400), keep_weights=True),
        lambda: endless(4, 40),
    ),
    "train": Entry(
        lambda: training(6, 40, 20),
        lambda: training(60, 100, 300, snapshots=300, keep_weights=True),
        lambda: training(10, 1000, 10**7),
    ),
    "train, wide": Entry(
        lambda: training(64, 200, 3),
        lambda: training(200, 200, 20, snapshots=20, keep_weights=True),
        lambda: training(200, 1000, 10**7),
    ),
}


def same(one: Any, other: Any) -> bool:
    """Whether two results of a call are the same to the bit."""
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=True)
    return bool(one == other)


def size(result: Any) -> int:
    """Bytes of the arrays of a result."""
    if isinstance(result, np.ndarray):
        return result.nbytes
    if isinstance(result, list):
        return sum(map(size, result))
    return sum(value.nbytes for value in vars(result).values() if isinstance(value, np.ndarray))


def small(name: str) -> Any:
    """Return the result of an entry's small call, in whatever process."""
    return ENTRIES[name].small()()
