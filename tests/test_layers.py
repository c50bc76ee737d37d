"""The layer systems of THEORY.md 2 against SciPy, the closed forms they tend to, the matrix flow and their own laws."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jepa_ode as jo
from jepa_ode._core import engine
from reference import layer_error, layer_velocity_of, scipy_layers

Array = npt.NDArray[np.float64]

OBJECTIVES = [
    jo.JEPA(),
    jo.JEPA(weight_decay=0.003),
    jo.JEPA(stop_gradient=False),
    jo.JEPA(stop_gradient=False, weight_decay=0.01),
    jo.JEPA(ema=3.0),
    jo.JEPA(ema=0.3, weight_decay=0.003),
    jo.MAE(),
    jo.MAE(weight_decay=0.02),
]
METHODS = ["tsit5", "dop853"]
# Equations that are the plain ones to the last bit, but not to the solver.
ALMOST_PLAIN = {"jepa": jo.JEPA(weight_decay=1e-300), "mae": jo.MAE(weight_decay=1e-300)}


def features(n: int, seed: int = 0) -> tuple[jo.Spectrum, Array]:
    rng = np.random.default_rng(seed)
    lam = rng.uniform(0.2, 1.5, n)
    rho = rng.uniform(0.3, 0.95, n)
    return jo.Spectrum(lam, rho=rho, sigma2_y=lam * rho * rng.uniform(1.1, 3.0, n)), rng.uniform(0.03, 0.3, n)


def growth_time(spec: jo.Spectrum, eps: Array, depth: float, objective: Any) -> Array:
    return 1.5 * jo.critical_time(spec, objective.name, depth=depth, eps=np.minimum(eps, 0.02), fraction=0.9)


def clock_error(value: Array, reference: Array, size: Array, slope: Array, t: Array) -> float:
    """The largest error, relative to the size, that no shift of the clock of that relative size explains (THEORY.md 3)."""
    return float((np.abs(value - reference) / (size + t * np.abs(slope))).max())


def compare(objective: Any, depth: float, balanced: bool, method: str, rtol: float) -> float:
    """The largest error of the layers, in units of rtol."""
    spec, eps = features(4, seed=int(depth * 2))
    v0 = None if balanced else eps ** (1 / depth) * np.array([-1.5, 0.2, 2.5, -0.4])
    t = growth_time(spec, eps, depth, objective)[:, None] * np.linspace(0, 1, 30) ** 2
    sol = jo.solve(spec, objective, depth=depth, eps=eps, t=t, v0=v0, method=method, rtol=rtol)
    assert sol.success
    assert sol.predictor is not None
    worst = 0.0
    for i in range(4):
        feature = (spec.lam[i], spec.sigma2[i], spec.sigma2_y[i])
        y = scipy_layers(feature, eps[i], None if v0 is None else v0[i], depth, objective, t[i])
        slope = np.array([layer_velocity_of(y[:, k], feature, depth, objective) for k in range(30)]).T
        a = np.abs(y[0])
        seen = a > 1e-6  # SciPy's own tolerance is absolute there
        mine = [sol.w[i] ** (1 / depth), sol.predictor[i]]
        theirs, sizes = [a, y[1]], [a, np.maximum(a, np.abs(y[1]))]
        if sol.target is not None:
            mine, theirs, sizes = [*mine, sol.target[i]], [*theirs, y[2]], [*sizes, np.maximum(a, np.abs(y[2]))]
        for k, (one, other, size) in enumerate(zip(mine, theirs, sizes, strict=True)):
            worst = max(worst, clock_error(one[seen], other[seen], size[seen], slope[k][seen], t[i][seen]))
    return worst / rtol


# --- accuracy --------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
@pytest.mark.parametrize("depth", [1, 1.5, 2, 4])
@pytest.mark.parametrize("balanced", [True, False])
def test_agrees_with_scipy(objective: Any, depth: float, balanced: bool) -> None:
    if objective.is_plain and balanced:
        objective = ALMOST_PLAIN[objective.name]
    for method in METHODS:
        assert compare(objective, depth, balanced, method, 1e-8) < 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rtol", [1e-3, 1e-5, 1e-11])
def test_errors_follow_the_tolerance(method: str, rtol: float) -> None:
    for objective, depth in ((jo.JEPA(ema=1.0), 2), (jo.MAE(weight_decay=0.01), 3), (jo.JEPA(weight_decay=1e-3), 1)):
        for balanced in (True, False):
            assert compare(objective, depth, balanced, method, rtol) < 2


@given(
    st.sampled_from(["jepa", "mae"]),
    st.sampled_from([1, 2, 3.3, 6]),
    st.floats(-3, 0),
    st.floats(-1, 1),
    st.floats(0.1, 1.5),
    st.sampled_from(METHODS),
)
def test_without_options_it_is_the_closed_form(
    name: str, depth: float, log_eps: float, log_lam: float, rho: float, method: str
) -> None:
    spec, eps = jo.Spectrum([10**log_lam, 0.0, -1.0], sigma2=[10**log_lam / rho, 1.0, 1.0]), 10**log_eps
    low = min(eps, 0.1 * jo.fixed_point(spec, name, depth=depth)[0])
    end = jo.critical_time(spec, name, depth=depth, eps=low, fraction=0.99)[0]
    t = np.concatenate([[0.0], np.geomspace(end / 100, 2 * end, 60)])
    exact = jo.solve(spec, name, depth=depth, eps=eps, t=t)
    sol = jo.solve(spec, ALMOST_PLAIN[name], depth=depth, eps=eps, t=t, method=method, rtol=1e-8)
    assert sol.success
    for i in range(3):
        seen = exact.w[i] > 1e-200
        error = layer_error(sol.w[i][seen], exact.w[i][seen], t[seen], spec.lam[i], spec.sigma2[i], depth, name)
        assert error.max() < 2e-8
    assert sol.predictor is not None
    np.testing.assert_allclose(sol.predictor[:, 1:], sol.w[:, 1:] ** (1 / depth), rtol=1e-6)  # v = a
    np.testing.assert_array_equal(sol.w[:, 0], eps)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_fast_average_is_the_plain_stop_gradient(depth: int) -> None:
    """The average lags by tau, so that the difference falls in proportion to tau."""
    spec, eps = features(5)
    t = np.linspace(0, 1, 20) * growth_time(spec, eps, depth, jo.JEPA())[:, None]
    plain = jo.solve(spec, "jepa", depth=depth, eps=eps, t=t).w
    gaps = [
        np.abs(jo.solve(spec, jo.JEPA(ema=tau), depth=depth, eps=eps, t=t, rtol=1e-11).w - plain).max()
        for tau in (1e-3, 1e-5, 1e-7)
    ]
    assert gaps[0] < 0.02
    assert gaps[1] == pytest.approx(gaps[0] / 100, rel=0.05)
    assert gaps[2] < 2e-6 * depth


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("factor", [1.0, 0.3, -0.8])
def test_agrees_with_the_matrix_flow(objective: Any, depth: int, factor: float) -> None:
    spec, _ = features(4, seed=depth)
    cov = jo.Covariances(*(np.diag(moment) for moment in (spec.sigma2, spec.lam, spec.sigma2_y)))
    t = np.linspace(0, 1, 12) * growth_time(spec, np.full(4, 0.1), depth, objective).max()
    net = jo.LinearNetwork.balanced(4, depth, 0.1, rng=0)
    net = jo.LinearNetwork(net.encoder, factor * net.predictor)
    cov_features = jo.Spectrum(spec.lam, spec.sigma2, directions=np.eye(4) / spec.sigma2**0.5, duals=np.eye(4))
    flow = jo.gradient_flow(net, cov, objective, t=t, features=cov_features, rtol=1e-11, atol=1e-13)
    sol = jo.solve(spec, objective, depth=depth, eps=0.1, t=t, v0=factor * 0.1 ** (1 / depth), rtol=1e-11)
    np.testing.assert_allclose(sol.w, flow.response, rtol=0, atol=1e-8)


# --- laws ------------------------------------------------------------------------------------------


@given(st.sampled_from([jo.JEPA(), jo.JEPA(ema=2.0), jo.MAE()]), st.floats(1, 5), st.floats(-2, 2), st.floats(0, 0.2))
def test_difference_of_squares(objective: Any, depth: float, v0: float, eta: float) -> None:
    """Conserved without weight decay; with it, falling as exp(-2 eta t)."""
    eta = 0.0 if eta < 1e-3 else eta
    options = {"weight_decay": eta} | ({"ema": objective.ema} if objective.name == "jepa" else {})
    objective = type(objective)(**options)
    spec, eps = features(3)
    t = np.linspace(0, 30, 10)
    sol = jo.solve(spec, objective, depth=depth, eps=eps, t=t, v0=v0, rtol=1e-10)
    assert sol.success
    assert sol.predictor is not None
    squares = sol.predictor**2, sol.w ** (2 / depth)
    gap = (squares[0] - squares[1]) * np.exp(2 * eta * t)
    np.testing.assert_allclose(gap / gap[:, :1], 1, atol=1e-7 * np.exp(2 * eta * 30))


def test_collapse_without_stop_gradient_and_none_with_it() -> None:
    spec, eps = features(6)
    t = np.concatenate([[0.0], np.geomspace(1.0, 1e12, 25)])
    for depth in (1, 2, 4):
        free = jo.solve(spec, jo.JEPA(stop_gradient=False), depth=depth, eps=eps, t=t)
        assert free.success
        assert (np.diff(free.w, axis=1) <= 0).all()
        assert (free.w[:, -1] < 1e-4).all()
        stopped = jo.solve(spec, jo.JEPA(ema=10.0), depth=depth, eps=eps, t=t)
        np.testing.assert_allclose(stopped.w[:, -1], jo.fixed_point(spec, "jepa", depth=depth), rtol=1e-7)


@pytest.mark.parametrize("name", ["jepa", "mae"])
@pytest.mark.parametrize("depth", [1.0, 1.7, 2.0, 3.0])
@pytest.mark.parametrize(("distance", "rtol"), [(1e-3, 1e-10), (1e-7, 1e-10)])
def test_an_unstable_point_divides_what_is_learned(name: str, depth: float, distance: float, rtol: float) -> None:
    """However close to it a feature starts, and however long a step could be: it leaves, on its own side."""
    spec, _ = features(5)
    eta = 0.3 * jo.weight_decay_threshold(spec, name, depth=depth).min()
    objective = jo.JEPA(weight_decay=eta) if name == "jepa" else jo.MAE(eta)
    points = jo.fixed_points(spec, objective, depth=depth)
    lower = points.response[:, 1]
    if np.isnan(lower).all():  # MAE at depth 1
        return
    up = jo.solve(spec, objective, depth=depth, eps=lower * (1 + distance), t=[1e9], rtol=rtol)
    down = jo.solve(spec, objective, depth=depth, eps=lower * (1 - distance), t=[1e9], rtol=rtol)
    assert up.success
    assert down.success
    np.testing.assert_allclose(up.w[:, 0], points.response[:, 2], rtol=100 * rtol)
    np.testing.assert_allclose(down.w[:, 0], 0, atol=1e-150)


@pytest.mark.parametrize("objective", [jo.JEPA(), jo.JEPA(ema=3.0), jo.MAE()], ids=repr)
def test_long_steps_do_not_jump_over_an_unstable_point(objective: Any) -> None:
    """Started closer than any tolerance, each feature still leaves on its own side."""
    spec, _ = features(200)
    eta = 0.3 * jo.weight_decay_threshold(spec, objective, depth=2).min()
    objective = dataclasses.replace(objective, weight_decay=eta)
    lower = jo.fixed_points(spec, objective, depth=2).response[:, 1]
    for distance in (1e-11, 1e-13):
        for rtol in (1e-3, 1e-6):
            for side in (1, -1):
                sol = jo.solve(spec, objective, depth=2, eps=lower * (1 + side * distance), t=[1e9], rtol=rtol)
                assert sol.success
                assert ((sol.w[:, 0] > lower) == (side > 0)).all()


def test_passing_zero() -> None:
    """A predictor of the wrong sign turns the layer over at depth 1: both ends are the same product."""
    spec = jo.Spectrum([1.0, 0.7], rho=[0.8, 0.6])
    sol = jo.solve(spec, "mae", depth=1, eps=0.3, v0=[-0.9, -0.5], t=np.linspace(0, 40, 400), rtol=1e-9)
    assert sol.success
    assert sol.predictor is not None
    assert (sol.w.min(axis=1) < 0.02).all()
    np.testing.assert_allclose(np.abs(sol.w[:, -1] * sol.predictor[:, -1]), spec.rho, rtol=1e-8)
    assert (sol.predictor[:, -1] < 0).all()


# --- stiffness, horizons, statuses --------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("objective", "v0"),
    [
        (jo.JEPA(ema=1e-6), None),
        (jo.JEPA(ema=1e6), None),
        (jo.JEPA(weight_decay=1e-8), 0.25),
        (jo.MAE(weight_decay=1e-6), -1.0),
        (jo.JEPA(), 0.7),
        (jo.MAE(), 1.5),
        (jo.JEPA(stop_gradient=False), None),
    ],
)
def test_horizons_cost_next_to_nothing(method: str, objective: Any, v0: float | None) -> None:
    spec, _ = features(16)
    for depth in (1, 2, 3.5):
        sol = jo.solve(spec, objective, depth=depth, eps=1e-3, v0=v0, t=[1e12, 1e15, 1e15], method=method)
        assert sol.success
        assert sol.nfev.max() < 300_000  # exponential decays are followed over 200 decades
        longer = sol.at([1e15, 1e18])
        np.testing.assert_array_equal(longer.w[:, 0], sol.w[:, 2])
        assert (longer.nfev - sol.nfev).max() < 10_000


def test_budget_of_steps() -> None:
    spec, eps = features(4)
    case: dict[str, Any] = {"depth": 2, "eps": eps, "t": np.geomspace(1e-3, 1e3, 30)}
    whole = jo.solve(spec, jo.JEPA(ema=1.0), **case)
    cut = jo.solve(spec, jo.JEPA(ema=1.0), **case, max_steps=15)
    assert (cut.status == jo.Status.MAX_STEPS).all()
    assert not cut.success
    reached = np.isfinite(cut.w)
    assert reached.any(axis=1).all()
    assert not reached.all(axis=1).any()
    assert (np.isfinite(cut.predictor) == reached).all()
    assert (np.isfinite(cut.target) == reached).all()
    np.testing.assert_array_equal(cut.w[reached], whole.w[reached])
    assert "step budget" in cut.message


def test_explosion_is_no_answer() -> None:
    """Moments that no data have: without stop-gradient the representation grows beyond all bounds in finite time."""
    spec = jo.Spectrum([1.0, 1.0], sigma2=[1.0, 1.0], sigma2_y=[0.5, 2.0])
    sol = jo.solve(spec, jo.JEPA(stop_gradient=False), depth=2, eps=0.5, t=[0.1, 1e3, 1e4], max_steps=100_000)
    assert sol.status[0] != jo.Status.OK
    assert np.isfinite(sol.w[0, 0])
    assert np.isnan(sol.w[0, 2])
    assert sol.status[1] == jo.Status.OK


def test_no_return_from_what_is_not_resolved() -> None:
    """A predictor above rho drives the layer down for 1e8 units of time, far below any double, then up again."""
    spec = jo.Spectrum([1.0], sigma2=[1.25])
    sol = jo.solve(spec, jo.JEPA(weight_decay=1e-8), depth=1, eps=1e-3, v0=1.0, t=[100.0, 1e6, 1e12])
    assert sol.status[0] == jo.Status.STEP_TOO_SMALL
    assert sol.w[0, 0] == pytest.approx(1e-3 * math.exp(-100 * 0.25), rel=1e-3)
    assert sol.w[0, 1] == pytest.approx(0, abs=1e-190)
    assert np.isnan(sol.w[0, 2])


# --- independence ----------------------------------------------------------------------------------

T = np.array([0.0, 0.3, 2.0, 2.0, 11.0, 400.0, 1e9])
TARGETS = ["own", "differentiated", "average", "data"]


def columns(n: int) -> list[Array]:
    rng = np.random.default_rng(5)
    lam, sigma2, eps = 10 ** rng.uniform(-1, 1, (3, 40))
    lam[::5] *= -1
    lam[3::7] = 0
    v0 = rng.uniform(-2, 2, 40)
    v0[::4] = eps[::4]
    return [column[:n].copy() for column in (lam, sigma2, lam**2 / sigma2 + sigma2, 0.1 * eps, v0)]


def responses(target: str, depth: float, problem: list[Array], t: Array = T, threads: int = 1) -> Any:
    """The engine itself, so that features may be NaN."""
    lam, sigma2, sigma2_y, eps, v0 = (np.ascontiguousarray(column) for column in problem)
    return engine.solve_layers(
        lam, sigma2, sigma2_y, eps, v0, depth, target, 0.0, 2.0, t, "dop853", 1e-6, 0.0, 100_000, threads
    )


@pytest.fixture(scope="module", params=[(target, depth) for target in TARGETS for depth in (1.0, 2.0, 3.3)])
def setting(request: pytest.FixtureRequest) -> tuple[str, float]:
    return request.param  # type: ignore[no-any-return]


def test_size_order_and_threads(setting: tuple[str, float]) -> None:
    alone = np.array([responses(*setting, [c[i : i + 1] for c in columns(40)])[0][0] for i in range(40)])
    for n in (0, 1, 2, 3, 7, 8, 9, 17, 33):
        w, v, b, status, _ = responses(*setting, columns(n))
        assert w.shape == v.shape == (n, T.size)
        assert (b is None) == (setting[0] != "average")
        assert not status.any()
        np.testing.assert_array_equal(w, alone[:n])
    order = np.random.default_rng(0).permutation(40)
    np.testing.assert_array_equal(responses(*setting, [c[order] for c in columns(40)])[0], alone[order])
    many = [np.tile(c, 20) for c in columns(40)]
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(responses(*setting, many, threads=threads)[0], np.tile(alone, (20, 1)))


def test_times_do_not_move_the_steps(setting: tuple[str, float]) -> None:
    w = responses(*setting, columns(20))[0]
    for k in range(1, T.size):
        np.testing.assert_array_equal(responses(*setting, columns(20), T[k : k + 1])[0][:, 0], w[:, k])
    dense = np.union1d(T, np.geomspace(1e-3, 1e9, 500))
    np.testing.assert_array_equal(responses(*setting, columns(20), dense)[0][:, np.searchsorted(dense, T)], w)


@pytest.mark.parametrize(
    "neighbour", [(np.nan, 1.0, 2.0, 0.1, 0.1), (1.0, 1.0, 2.0, 0.1, np.nan), (1e300, 1.0, 2.0, 1e100, -1e100)]
)
def test_bad_company(setting: tuple[str, float], neighbour: tuple[float, ...]) -> None:
    w = responses(*setting, columns(33))[0]
    mixed = [np.insert(c, [0, 16, 33], value) for c, value in zip(columns(33), neighbour, strict=True)]
    company, _, _, status, _ = responses(*setting, mixed)
    own = np.ones(36, dtype=bool)
    own[[0, 17, 35]] = False
    np.testing.assert_array_equal(company[own], w)
    assert not status[own].any()
    assert np.isnan(company[~own][:, -1]).all()
    assert (status[~own] != jo.Status.OK).all()


@pytest.mark.parametrize("k", [-300, -100, 1, 100, 300])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["ema", "decay", "mae"])
def test_the_unit_of_time_changes_no_bit(name: str, method: str, k: int) -> None:
    """Rates times 2^k and times by it: the same responses in the same steps, some of them rejected."""

    def solve(c: float) -> jo.Solution:
        objectives = {"ema": jo.JEPA(ema=0.3 / c), "decay": jo.JEPA(weight_decay=1e-3 * c), "mae": jo.MAE(1e-3 * c)}
        rng = np.random.default_rng(0)
        spec = jo.Spectrum(c * 10 ** rng.uniform(-2, 1, 100), rho=rng.uniform(0.05, 0.95, 100))
        return jo.solve(spec, objectives[name], depth=3, eps=0.01, t=np.geomspace(1, 1e4, 20) / c, method=method)

    here, there = solve(1.0), solve(2.0**k)
    assert here.success
    for field in ("w", "predictor", "nfev", "status"):
        np.testing.assert_array_equal(getattr(here, field), getattr(there, field))


# --- interface -------------------------------------------------------------------------------------


def test_methods_and_fields() -> None:
    spec, eps = features(3)
    case: dict[str, Any] = {"depth": 2, "eps": eps, "t": [0.0, 1.0, 20.0]}
    plain = jo.solve(spec, "jepa", **case)
    assert plain.method == "exact"
    assert plain.predictor is None
    assert plain.target is None
    assert jo.solve(spec, "jepa", **case, v0=eps ** (1 / 2)) == plain  # the balanced start by its number
    sol = jo.solve(spec, jo.JEPA(ema=1.0), **case, v0=0.2)
    assert sol.method == "dop853"
    assert sol.predictor is not None
    assert sol.target is not None
    assert sol.v0 is not None
    np.testing.assert_array_equal(sol.v0, np.full(3, 0.2))
    np.testing.assert_array_equal(sol.w[:, 0], eps)
    np.testing.assert_array_equal(sol.predictor[:, 0], 0.2)
    np.testing.assert_allclose(sol.target[:, 0] ** 2, eps, rtol=1e-15)
    with pytest.raises(ValueError, match="read-only"):
        sol.predictor[0, 0] = 1.0
    assert pickle.loads(pickle.dumps(sol)) == sol
    assert sol.at(sol.t) == sol
    np.testing.assert_array_equal(sol.at([20.0]).w[:, 0], sol.w[:, 2])
    data = sol.to_xarray()
    assert data["predictor"].shape == data["target"].shape == (3, 3)
    assert len(sol.to_dataframe()) == 9
    assert jo.solve(spec, jo.MAE(0.1), **case).target is None


def test_time_units_and_layouts() -> None:
    spec, eps = features(3)
    t = np.array([0.0, 1.0, 20.0])
    flow = jo.solve(spec, jo.JEPA(ema=2.0), depth=3, eps=eps, t=t)
    rescaled = jo.solve(spec, jo.JEPA(ema=2.0), depth=3, eps=eps, t=3 * t, time_unit="rescaled")
    np.testing.assert_array_equal(rescaled.w, flow.w)
    np.testing.assert_allclose(rescaled.critical_time(), 3 * flow.critical_time(), rtol=1e-9)
    rows = jo.solve(spec, jo.JEPA(ema=2.0), depth=3, eps=eps, t=np.tile(t, (3, 1)))
    np.testing.assert_array_equal(rows.w, flow.w)
    assert jo.solve(spec, jo.MAE(0.1), depth=1, eps=eps, t=[]).w.shape == (3, 0)
    assert jo.solve(jo.Spectrum([], sigma2=[]), jo.MAE(0.1), depth=1, eps=0.1, t=t).w.shape == (0, 3)


def test_critical_times_of_layer_systems() -> None:
    spec, eps = features(4)
    spec = jo.Spectrum(np.append(spec.lam, 0.0), np.append(spec.sigma2, 1.0), sigma2_y=3.0)
    eps = np.append(eps, 0.1) / 10
    for depth in (1, 2):
        almost = jo.solve(spec, jo.JEPA(ema=1e-9), depth=depth, eps=eps, t=[1.0], rtol=1e-10)
        exact = jo.critical_time(spec, "jepa", depth=depth, eps=eps)
        np.testing.assert_allclose(almost.critical_time(), exact, rtol=1e-6)
        np.testing.assert_array_equal(almost.learning_order(), jo.learning_order(spec, "jepa", depth=depth, eps=eps))
    sol = jo.solve(spec, jo.JEPA(ema=20.0, weight_decay=1e-4), depth=2, eps=eps, v0=0.3, t=[1.0])
    times = sol.critical_time(0.7)
    assert math.isinf(times[4])
    end = jo.fixed_points(spec, sol.objective, depth=2).response[:4, 2]
    at_crossing = sol.at(np.append(times[:4], 1.0)[:, None]).w[:4, 0]
    np.testing.assert_allclose(at_crossing, 0.7 * end, rtol=1e-6)
    scheduled = jo.solve(spec, sol.objective, depth=2, eps=eps, v0=0.3, t=[1.0], schedule=jo.Schedule.constant(2.0))
    np.testing.assert_allclose(scheduled.critical_time(0.7), times / 2, rtol=1e-12)
    collapse = jo.solve(spec, jo.JEPA(stop_gradient=False), depth=1, eps=eps, t=[1.0])
    assert np.isinf(collapse.critical_time()).all()
    assert collapse.learning_order().size == 0


def test_critical_times_of_layer_systems_that_start_above_their_level() -> None:
    """As those of plain features: at the level from the start on, and not among what is learned."""
    spec, eps = jo.Spectrum([1.0, 1.0, 0.0], sigma2=[1.25, 2.0, 1.0]), [0.05, 2.0, 0.5]
    almost = jo.solve(spec, jo.JEPA(ema=1e-9), depth=2, eps=eps, t=[1.0], rtol=1e-10)
    plain = jo.critical_time(spec, "jepa", depth=2, eps=eps)
    assert plain[1] == 0
    np.testing.assert_allclose(almost.critical_time(), plain, rtol=1e-6)
    np.testing.assert_array_equal(almost.learning_order(), [0])
    single = jo.solve(spec, jo.JEPA(ema=1e-9), depth=2, eps=eps, t=[1.0], rtol=1e-10, dtype=np.float32)
    np.testing.assert_array_equal(single.critical_time(), almost.critical_time())


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"method": "exact"}, ValueError, "method='dop853', the default"),
        ({"method": "euler"}, ValueError, "'exact', 'tsit5', 'dop853'"),
        ({"t": [1.0, math.inf]}, ValueError, "jepa_ode.fixed_points"),
        ({"v0": math.nan}, ValueError, "v0 must be finite"),
        ({"v0": [1.0, 2.0]}, ValueError, r"v0 must be a scalar or have shape \(3,\)"),
        ({"v0": "1"}, TypeError, "v0 must hold real numbers"),
        ({"objective": jo.JEPA(stop_gradient=False)}, ValueError, "sigma2_y"),
        ({"schedule": 1.0}, TypeError, "jepa_ode.Schedule"),
        ({"depth": math.inf}, ValueError, "rescaled"),
    ],
)
def test_bad_arguments_are_named(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    spec = jo.Spectrum([1.0, 0.5, 0.1], rho=0.5)
    case = {"objective": jo.JEPA(ema=1.0), "depth": 2, "eps": 0.1, "t": [1.0]} | changes
    with pytest.raises(error, match=words):
        jo.solve(spec, **case)


@pytest.mark.parametrize("objective", ["jepa", "mae"])
def test_absolute_tolerance_asks_less_of_small_responses(objective: str) -> None:
    spec = jo.Spectrum([1.0, 0.3], [1.0, 1.0])
    how = {"depth": 3, "eps": [0.05, 0.1], "v0": 0.2, "t": np.linspace(0, 300, 61)}
    exact = jo.solve(spec, objective, rtol=1e-11, **how)
    loose = jo.solve(spec, objective, rtol=1e-11, atol=1e-6, **how)
    assert (loose.status == 0).all()
    assert (loose.nfev < exact.nfev).all()
    assert np.abs(loose.w - exact.w).max() < 1e-4
