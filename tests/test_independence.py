"""A feature's result is its own: bitwise the same alone, permuted, in any company, on any threads (RELIABILITY.md 14)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import jepa_ode as jo
from conftest import case_count
from jepa_ode._core import engine
from record import Records

METHODS = ["exact", "tsit5", "dop853"]
SIZES = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33]
THREADS = [1, 2, 3, 7]
NEIGHBOURS = [(np.nan, 1.0, 0.1), (1.0, np.nan, 0.1), (1.0, 1e-300, 1e-300), (1e300, 1.0, 1e100), (-1e9, 1e9, 1e9)]
T = np.array([0.0, 0.3, 2.0, 2.0, 11.0, 400.0, 1e9])


def ensemble(n: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    rng = np.random.default_rng(3)
    lam, sigma2, eps = 10 ** rng.uniform(-1, 1, (3, max(n, 40)))
    lam[::5] *= -1
    lam[3::7] = 0
    return lam[:n].copy(), sigma2[:n].copy(), 0.1 * eps[:n]


def responses(
    method: str,
    objective: str,
    depth: float,
    features: Any,
    threads: int = 1,
    t: npt.NDArray[np.float64] = T,
    rtol: float = 1e-6,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int8]]:
    """The engine itself, so that features may be NaN."""
    code = 0 if objective == "jepa" else 1
    columns = [np.ascontiguousarray(column, dtype=np.float64) for column in features]
    if method == "exact":
        w = np.empty((columns[0].size, t.size))
        status = engine.solve_exact(*columns, depth, code, t, threads, w)
    else:
        w, status, _ = engine.solve_runge_kutta(*columns, depth, code, t, method, rtol, 0.0, 100_000, threads)
    return w, status


@pytest.fixture(scope="module", params=[("jepa", 2.0), ("jepa", 3.7), ("mae", 1.0), ("mae", 5.3)])
def setting(request: pytest.FixtureRequest) -> tuple[str, float]:
    return request.param  # type: ignore[no-any-return]


def differing(w: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> int:
    """Return how many features differ in a bit."""
    assert w.shape == expected.shape
    bits = np.ascontiguousarray(w).view(np.uint64) != np.ascontiguousarray(expected).view(np.uint64)
    return int(bits.any(axis=1).sum())


@pytest.fixture(scope="module")
def alone(setting: tuple[str, float]) -> dict[str, npt.NDArray[np.float64]]:
    """The responses of 40 features, each solved by itself."""
    features = [[column[i : i + 1] for column in ensemble(40)] for i in range(40)]
    return {method: np.concatenate([responses(method, *setting, one)[0] for one in features]) for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("n", SIZES)
def test_any_company(
    record: Records, alone: dict[str, Any], setting: tuple[str, float], method: str, threads: int, n: int
) -> None:
    """Beside others, in another order, beside what is NaN or stiffest: that is its own trouble and never passes for OK."""
    features, own = ensemble(n), alone[method][:n]
    w, status = responses(method, *setting, features, threads)
    assert not status.any()
    record(14, "features that differ from alone", differing(w, own), at_most=0, cases=n)

    order = np.random.default_rng(n).permutation(n)
    permuted, _ = responses(method, *setting, [column[order] for column in features], threads)
    record(14, "features that differ when permuted", differing(permuted, own[order]), at_most=0, cases=n)

    for neighbour in NEIGHBOURS:
        places = [0, n // 2, n]
        mixed = [np.insert(column, places, value) for column, value in zip(features, neighbour, strict=True)]
        company, status = responses(method, *setting, mixed, threads)
        mine = np.insert(np.ones(n, dtype=bool), places, False)
        assert not status[mine].any()
        count = differing(company[mine], own)
        record(14, "features that differ beside NaN or the stiffest", count, at_most=0, cases=n)
        if np.isnan(neighbour).any():
            assert (status[~mine] == jo.Status.NOT_FINITE).all()
            assert np.isnan(company[~mine][:, -1]).all()


@pytest.mark.parametrize("method", METHODS)
def test_many_blocks_of_features(record: Records, setting: tuple[str, float], method: str) -> None:
    """So many that every thread has several blocks to take."""
    features = [np.tile(column, 20) for column in ensemble(33)]
    one, _ = responses(method, *setting, features)
    for threads in THREADS[1:]:
        w, _ = responses(method, *setting, features, threads)
        record(14, "features that differ between threads", differing(w, one), at_most=0, cases=len(w))


@pytest.mark.parametrize("method", METHODS)
def test_a_large_ensemble(record: Records, method: str) -> None:
    n = case_count(ci=20_003, campaign=1_000_003)
    features = np.geomspace(0.1, 1.0, n), np.linspace(1.0, 2.0, n), np.full(n, 0.1)

    def solve(features: Sequence[npt.NDArray[np.float64]], threads: int) -> npt.NDArray[np.float64]:
        return responses(method, "jepa", 2.0, features, threads, np.array([5.0, 50.0]), 1e-4)[0]

    w = solve(features, 1)
    some = np.arange(0, n, max(n // 2000, 1))
    alone = np.concatenate([solve([column[i : i + 1] for column in features], 1) for i in some])
    record(14, "features that differ from alone", differing(w[some], alone), at_most=0, cases=some.size)
    order = np.random.default_rng(0).permutation(n)
    permuted = solve([column[order] for column in features], 1)
    record(14, "features that differ when permuted", differing(permuted, w[order]), at_most=0, cases=n)
    for threads in THREADS[1:]:
        count = differing(solve(features, threads), w)
        record(14, "features that differ between threads", count, at_most=0, cases=n)
    places = [0, n // 2, n]
    for neighbour in NEIGHBOURS:
        mixed = [np.insert(column, places, value) for column, value in zip(features, neighbour, strict=True)]
        count = differing(solve(mixed, 7)[np.insert(np.ones(n, dtype=bool), places, False)], w)
        record(14, "features that differ beside NaN or the stiffest", count, at_most=0, cases=n)


def test_neighbours_that_never_decay_take_no_time_from_others() -> None:
    """Up to t = inf, where the slowest one's own time is beyond all doubles; of a depth whose table is made here."""
    lam, sigma2, eps = np.array([-2e-4, -8e-152, -2.0]), np.array([5e3, 2e-56, 1.0]), np.array([10.0, 1e-100, 0.1])
    t = np.array([0.0, 1e-5, 0.1, 1, 10, 1e5, 1e20, 1e100, 1e300, np.inf])
    spec = jo.Spectrum(lam, sigma2=sigma2)
    w = jo.solve(spec, "mae", depth=17.503, eps=eps, t=t).w
    for i in range(len(lam)):
        alone = jo.solve(spec[i : i + 1], "mae", depth=17.503, eps=eps[i : i + 1], t=t).w[0]
        np.testing.assert_array_equal(w[i], alone)
    assert (w[[0, 2], :-2] > 0).all()
