"""A feature's result is its own: bitwise the same alone, permuted, in any company, on any threads (RELIABILITY.md 14)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import jepa_ode as jo
from conftest import case_count
from jepa_ode._core import engine

METHODS = ["exact", "tsit5", "dop853"]
SIZES = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33]
T = np.array([0.0, 0.3, 2.0, 2.0, 11.0, 400.0, 1e9])


def ensemble(n: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    rng = np.random.default_rng(3)
    lam, sigma2, eps = 10 ** rng.uniform(-1, 1, (3, max(n, 40)))
    lam[::5] *= -1
    lam[3::7] = 0
    return lam[:n].copy(), sigma2[:n].copy(), 0.1 * eps[:n]


def responses(
    method: str, objective: str, depth: float, features: Any, threads: int = 1
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int8]]:
    """The engine itself, so that features may be NaN."""
    code = 0 if objective == "jepa" else 1
    columns = [np.ascontiguousarray(column, dtype=np.float64) for column in features]
    if method == "exact":
        w = np.empty((columns[0].size, T.size))
        status = engine.solve_exact(*columns, depth, code, T, threads, w)
    else:
        w, status, _ = engine.solve_runge_kutta(*columns, depth, code, T, method, 1e-6, 0.0, 100_000, threads)
    return w, status


@pytest.fixture(scope="module", params=[("jepa", 2.0), ("jepa", 3.7), ("mae", 1.0), ("mae", 5.3)])
def setting(request: pytest.FixtureRequest) -> tuple[str, float]:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", METHODS)
def test_size_of_the_ensemble(method: str, setting: tuple[str, float]) -> None:
    alone = [responses(method, *setting, [c[i : i + 1] for c in ensemble(40)])[0][0] for i in range(40)]
    for n in SIZES:
        w, status = responses(method, *setting, ensemble(n))
        assert w.shape == (n, len(T))
        assert not status.any()
        np.testing.assert_array_equal(w, np.array(alone[:n]).reshape(n, len(T)))


@pytest.mark.parametrize("method", METHODS)
def test_permutation(method: str, setting: tuple[str, float]) -> None:
    features = ensemble(33)
    w, _ = responses(method, *setting, features)
    order = np.random.default_rng(0).permutation(33)
    permuted, _ = responses(method, *setting, [column[order] for column in features])
    np.testing.assert_array_equal(permuted, w[order])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads(method: str, setting: tuple[str, float], threads: int) -> None:
    features = [np.tile(column, 20) for column in ensemble(33)]
    w, _ = responses(method, *setting, features)
    again, _ = responses(method, *setting, features, threads)
    np.testing.assert_array_equal(again, w)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "neighbour",
    [(np.nan, 1.0, 0.1), (1.0, np.nan, 0.1), (1.0, 1e-300, 1e-300), (1e300, 1.0, 1e100), (-1e9, 1e9, 1e9)],
)
def test_bad_company(method: str, setting: tuple[str, float], neighbour: tuple[float, float, float]) -> None:
    """A NaN or the stiffest feature between others is its own trouble alone: it never passes for a number, nor do they."""
    features = ensemble(33)
    w, _ = responses(method, *setting, features)
    mixed = [np.insert(column, [0, 16, 33], value) for column, value in zip(features, neighbour, strict=True)]
    company, status = responses(method, *setting, mixed)
    own = np.ones(36, dtype=bool)
    own[[0, 17, 35]] = False
    np.testing.assert_array_equal(company[own], w)
    assert not status[own].any()
    if np.isnan(neighbour).any():
        assert (status[~own] == jo.Status.NOT_FINITE).all()
        assert np.isnan(company[~own][:, -1]).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_large_ensemble(method: str) -> None:
    n = case_count(ci=20_003, campaign=1_000_003)
    spec = jo.Spectrum(np.geomspace(0.1, 1.0, n), sigma2=np.linspace(1.0, 2.0, n))
    case: dict[str, Any] = {"depth": 2, "eps": 0.1, "t": [5.0, 50.0], "method": method, "rtol": 1e-4}
    w = jo.solve(spec, "jepa", **case).w
    for i in range(0, n, n // 50):
        np.testing.assert_array_equal(jo.solve(spec[i : i + 1], "jepa", **case).w[0], w[i])
