"""The adaptive Runge-Kutta methods against the exact solution, SciPy and their tolerance (RELIABILITY.md 2 to 4)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.integrate import solve_ivp

import jepa_ode as jo
import reference
from conftest import case_count
from ensembles import random_ensemble
from jepa_ode._core import engine
from record import Records

METHODS = ["tsit5", "dop853"]
TOLERANCES = [10.0**-k for k in range(3, 13)]


def errors(case: dict[str, Any], method: str, rtol: float) -> npt.NDArray[np.float64]:
    exact = jo.solve(**case)
    solution = jo.solve(**case, method=method, rtol=rtol)
    # The only excuse for not arriving is a response that no double can hold.
    representable = jo.fixed_point(case["spec"], case["objective"], depth=case["depth"]) < 1e300
    assert (solution.status[representable] == jo.Status.OK).all()
    spec, depth, objective = case["spec"], case["depth"], case["objective"]
    lam, sigma2 = spec.lam[:, None], spec.sigma2[:, None]
    error = reference.layer_error(solution.w, exact.w, case["t"], lam, sigma2, depth, objective)
    # Below, a response has fewer digits than a double.
    return error[representable[:, None] & (exact.w > 1e-290)]


@pytest.mark.parametrize("method", METHODS)
def test_error_follows_the_tolerance(record: Records, method: str) -> None:
    """E <= 10 rtol is demanded; at every rtol the worst of 20,000 cases is 0.03 to 0.4 rtol."""
    ensembles = case_count(ci=100, campaign=2000)
    for rtol in TOLERANCES:
        rng = np.random.default_rng(7)
        ratios = [errors(random_ensemble(rng, 10), method, rtol) / rtol for _ in range(ensembles)]
        ratio = np.concatenate([np.zeros(0), *ratios])
        record(2, f"E / rtol for rtol 1e-3 to 1e-12, {method}", ratio, at_most=0.5)
        # Proportional, not merely below.
        record(2, f"largest E / rtol at each of these rtol, {method}", ratio.max(), at_least=0.01, cases=ratio.size)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("objective", ["jepa", "mae"])
@pytest.mark.parametrize("depth", [1.0, 1.5, 3.0, 6.0])
def test_three_routes_to_one_answer(record: Records, method: str, objective: str, depth: float) -> None:
    lam, sigma2 = np.array([1.0, 0.7, 0.3, 0.0, -0.5]), np.array([1.2, 1.0, 2.0, 1.0, 0.8])
    eps = np.array([0.05, 0.3, 0.02, 0.2, 0.4])
    t = np.linspace(0.0, 30.0, 31)
    spec = jo.Spectrum(lam, sigma2=sigma2)
    exact = jo.solve(spec, objective, depth=depth, eps=eps, t=t)
    rk = jo.solve(spec, objective, depth=depth, eps=eps, t=t, method=method, rtol=1e-11)
    scipy = reference.scipy_solution(lam, sigma2, eps, depth, objective, t)
    record(4, f"difference / w of {method} and exact", np.abs(rk.w / exact.w - 1), at_most=1e-8)
    record(4, "difference / w of SciPy and exact", np.abs(scipy / exact.w - 1), at_most=1e-7)


@pytest.mark.parametrize("objective", ["jepa", "mae"])
@np.errstate(all="ignore")  # of cases that are not taken, and trial steps of SciPy's
def test_three_routes_from_anywhere(record: Records, objective: str) -> None:
    """Any depth, above, below and without a fixed point, in the time in which a feature moves.

    A start not so far from the fixed point that SciPy's explicit method takes forever to come to rest there.
    """
    rng = np.random.default_rng(4)
    left = case_count(ci=25, campaign=2000)
    while left:
        depth = float(rng.integers(1, 65)) if rng.random() < 0.5 else float(64 ** rng.random())
        lam, sigma2 = 10 ** rng.uniform(-3, 3, 2)
        lam *= rng.choice([1, 1, 1, 1, 0, -1])
        spec = jo.Spectrum([lam], sigma2=[sigma2])
        limit = jo.fixed_point(spec, objective, depth=depth)[0]
        eps = max((limit or 1.0) * 10 ** rng.uniform(-1.5, 1), 5e-324)
        if limit > eps:
            scale = jo.critical_time(spec, objective, depth=depth, eps=eps)[0]
        else:
            scale = 1 / abs(growth_rate(math.log(eps) / depth, 1.0, lam, sigma2, depth, objective))
        if not (1e-290 < eps < 1e290 and 1e-290 < scale < 1e290):  # what no double can hold
            continue
        left -= 1
        t = scale * np.array([0.1, 0.5, 0.9, 1.0, 1.1, 3.0])
        case: dict[str, Any] = {"objective": objective, "depth": depth, "eps": eps, "t": t}
        exact = jo.solve(spec, **case).w
        routes = {method: jo.solve(spec, method=method, rtol=1e-11, **case).w for method in METHODS}
        run = solve_ivp(  # of log u, which no trial step can take below 0, by t / scale
            lambda _, log_u, *a: growth_rate(log_u, *a),
            (0.0, t[-1] / scale),
            [math.log(eps) / depth],
            args=(scale, lam, sigma2, depth, objective),
            t_eval=t / scale,
            method="DOP853",
            rtol=1e-12,
            atol=1e-14,
        )
        assert run.success, run.message
        routes["SciPy"] = np.exp(depth * run.y)
        for name, w in routes.items():
            error = reference.layer_error(w, exact, t, lam, sigma2, depth, objective)
            mark = 1e-8 if name == "SciPy" else 1e-10
            record(4, f"E of {name} and exact, random features", error, at_most=mark)


def growth_rate(log_u: Any, scale: float, lam: float, sigma2: float, depth: float, objective: str) -> Any:
    """scale u'/u, of logarithms, as u^p alone may leave the range of a double."""
    p, q = (2 * depth, 1) if objective == "jepa" else (depth, depth + 1)
    return np.exp((p - 1) * log_u + math.log(scale)) * (lam - sigma2 * np.exp(q * log_u))


@pytest.mark.parametrize("method", METHODS)
def test_order_at_fixed_steps(record: Records, method: str) -> None:
    """The coefficients that the engine runs on, stepped by NumPy: order of the solution and of dense output."""
    tableau = engine.tableau(method)
    a, stages = tableau["a"], tableau["stages"]

    def velocity(u: float) -> float:
        return float(reference.layer_velocity(u, 0.7, 1.1, 1.0, "mae"))

    def solution(t: float) -> float:  # of u' = u (0.7 - 1.1 u^2), u(0) = 0.05
        return math.sqrt(0.7 / (1.1 + (0.7 / 0.05**2 - 1.1) * math.exp(-1.4 * t)))

    def final_error(count: int) -> float:
        u, h = 0.05, 3.0 / count
        for _ in range(count):
            k: list[float] = []
            for row in a[:stages]:
                k.append(velocity(u + h * sum(c * s for c, s in zip(row, k, strict=False))))
            u += h * float(a[stages][:stages] @ k)
        return abs(u - solution(3.0))

    coarse, fine = (40, 100) if method == "tsit5" else (6, 12)
    order = math.log(final_error(coarse) / final_error(fine)) / math.log(fine / coarse)
    record(3, f"fitted order less order, coefficients of {method}", abs(order - tableau["order"]), at_most=0.3)


@pytest.mark.parametrize("method", METHODS)
def test_work_grows_as_the_order_says(method: str) -> None:
    """Evaluations ~ rtol^(-1/5) and rtol^(-1/8); none are spent on a feature at rest."""
    spec = jo.Spectrum([1.0], rho=[0.8])
    work = {
        rtol: int(jo.solve(spec, "jepa", depth=2, eps=0.01, t=[1e5], method=method, rtol=rtol).nfev[0])
        for rtol in (1e-6, 1e-12)
    }
    growth = math.log10(work[1e-12] / work[1e-6]) / 6
    assert growth == pytest.approx({"tsit5": 1 / 5, "dop853": 1 / 8}[method], abs=0.04)
    longer = jo.solve(spec, "jepa", depth=2, eps=0.01, t=[1e5, 1e12, 1e300], method=method, rtol=1e-6)
    assert int(longer.nfev[0]) == work[1e-6]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("eps", "depth"), [(1e-6, 2), (1e-3, 6), (1e-10, 3.5)])
def test_small_starts_and_long_horizons_finish(method: str, eps: float, depth: float) -> None:
    spec = jo.Spectrum(np.geomspace(0.2, 2, 20), rho=np.linspace(0.2, 0.95, 20))
    solution = jo.solve(spec, "jepa", depth=depth, eps=eps, t=[1e12, 1e100, math.inf], method=method)
    assert solution.success
    limit = jo.fixed_point(spec, "jepa", depth=depth)
    np.testing.assert_allclose(solution.w[:, 1], limit, rtol=1e-8)
    np.testing.assert_allclose(solution.w[:, 2], limit, rtol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_atol_is_of_the_response(method: str) -> None:
    """With atol the error is bounded by it, and what has sunk below it costs nothing."""
    spec = jo.Spectrum([1.0, 0.0, -1.0], sigma2=[1.2, 1.0, 1.0])
    t = np.geomspace(0.1, 1e6, 40)
    case: dict[str, Any] = {"depth": 2, "eps": 0.3, "t": t}
    exact = jo.solve(spec, "mae", **case)
    loose = jo.solve(spec, "mae", **case, method=method, rtol=1e-13, atol=1e-4)
    assert loose.success
    assert np.abs(loose.w - exact.w).max() < 1e-3
    tight = jo.solve(spec, "mae", **case, method=method, rtol=1e-13)
    assert (loose.nfev < tight.nfev / 3).all()


@pytest.mark.parametrize("method", METHODS)
def test_budget_of_steps(method: str) -> None:
    """One feature runs out of steps: its own times, and only those not reached, are NaN."""
    spec = jo.Spectrum([1.0, 1.0], sigma2=[1.0, 1.0])
    t = [0.0, 1e-6, 1e6]
    solution = jo.solve(spec, "jepa", depth=3, eps=[1e-3, 1.0], t=t, method=method, max_steps=3)
    assert solution.status.tolist() == [jo.Status.MAX_STEPS, jo.Status.OK]
    assert not solution.success
    assert "1 of 2 features" in solution.message
    assert "step budget" in solution.message
    assert np.isnan(solution.w).tolist() == [[False, False, True], [False, False, False]]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_fuzz_of_the_whole_double_range(record: Records, method: str, seed: int) -> None:
    """RELIABILITY.md 6: a value between start and fixed point or a status, never NaN with OK, and no hang."""
    rng = np.random.default_rng(seed)

    def anything() -> float:
        return float(rng.choice([10 ** rng.uniform(-3, 3), 10 ** rng.uniform(-300, 300), 5e-324, 1e308, 1.0]))

    for _ in range(case_count(ci=60, campaign=3000)):
        objective = str(rng.choice(["jepa", "mae"]))
        depth = float(rng.choice([1, 1 + 1e-9, 1.5, 2, 3, 7.3, 16, 64, 200]))
        lam, sigma2, eps = anything() * float(rng.choice([1, 1, -1, 0])), anything(), anything()
        rtol = 10 ** rng.uniform(-13, -1)
        t = np.sort([0.0, *(anything() for _ in range(5)), 1e308, math.inf])
        with np.errstate(over="ignore"):  # rho
            spec = jo.Spectrum([lam], sigma2=[sigma2])
        case = (objective, depth, lam, sigma2, eps, rtol)
        solution = jo.solve(spec, objective, depth=depth, eps=eps, t=t, method=method, rtol=rtol)
        limit = jo.fixed_point(spec, objective, depth=depth)[0]
        w = solution.w[0]
        reached = np.isfinite(w)
        record(6, f"NaN with OK, {method}", reached.all() != solution.success, at_most=0, cases=w.size)
        assert solution.success or limit > 1e300, (case, solution)
        low, high = min(eps, limit), max(eps, limit)
        with np.errstate(over="ignore"):
            outside = (w[reached] < low * (1 - 10 * rtol)) | (w[reached] > high * (1 + 10 * rtol))
        record(6, f"values not between start and fixed point, {method}", outside.sum(), at_most=0, cases=w.size)
        steps = np.diff(w[reached]) * (1 if limit > eps else -1)
        assert (steps >= -10 * rtol * w[reached][1:] - 1e-322).all(), case


@pytest.mark.parametrize(("objective", "depth", "eps"), [("mae", 1, 1e-100), ("jepa", 64, 1e-100), ("mae", 48, 1e-60)])
def test_rounding_does_not_add_up(objective: str, depth: int, eps: float) -> None:
    """Thousands of steps: without the low parts of state and clock their roundings alone would exceed this bound."""
    spec = jo.Spectrum([1.0, 0.77, 0.61], sigma2=[1.1, 1.0, 0.9])
    rise = jo.critical_time(spec, objective, depth=depth, eps=eps)
    t = rise[:, None] * np.array([0.3, 0.7, 0.9, 0.99, 0.999])
    case: dict[str, Any] = {"spec": spec, "objective": objective, "depth": depth, "eps": eps, "t": t}
    assert errors(case, "tsit5", 1e-13).max() <= 1e-14


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rtol", [0.5, 0.1, 1e-2, 1e-4])
def test_no_tolerance_is_loose_enough_to_overshoot(record: Records, method: str, rtol: float) -> None:
    """RELIABILITY.md 10, and more: the fixed point is not passed at all, by no step and by no value between steps."""
    rng = np.random.default_rng(0)
    for objective in ("jepa", "mae"):
        for depth in (1, 1.5, 2, 4, 10, 40, 64):
            lam, sigma2 = 10 ** rng.uniform(-2, 1, (2, 60))
            spec, eps = jo.Spectrum(lam, sigma2=sigma2), 10 ** rng.uniform(-4, 0.5, 60)
            rise = jo.critical_time(spec, objective, depth=depth, eps=eps, fraction=0.9)
            scale = np.where(rise > 0, rise, 1 / (sigma2 * eps**2))[:, None]
            t = scale * np.sort(np.concatenate([np.linspace(0, 2, 100), np.geomspace(0.9, 1e6, 200)]))
            solution = jo.solve(spec, objective, depth=depth, eps=eps, t=t, method=method, rtol=rtol)
            assert solution.success
            limit = jo.fixed_point(spec, objective, depth=depth)[:, None]
            up = np.where(limit > eps[:, None], 1, -1)
            past = np.maximum(up * (solution.w / limit - 1), 0)
            record(10, f"past the fixed point by / w*, rtol up to 0.5, {method}", past, at_most=1e-12)
            growth = up[:, 0, None] * np.diff(solution.w, axis=1) / solution.w[:, 1:]
            assert (growth >= -(2 * rtol if rtol > 0.01 else 1e-12)).all()
