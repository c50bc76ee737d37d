"""Relations between solutions that hold whatever the solutions are (RELIABILITY.md 7 to 12)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import jepa_ode as jo
import reference
from conftest import case_count
from record import Records

RTOL = 1e-9
# What two solutions of the same thing may differ by, in E (THEORY.md 3).
SAME = {"exact": 1e-14, "tsit5": 3 * RTOL, "dop853": 3 * RTOL}

methods = st.sampled_from(["exact", "tsit5", "dop853"])
objectives = st.sampled_from(["jepa", "mae"])
depths = st.one_of(st.integers(1, 12).map(float), st.floats(1, 12))
positive = st.floats(-2, 1).map(lambda x: 10.0**x)
covariances = st.one_of(positive, positive, positive.map(lambda x: -x), st.just(0.0))
starts = st.floats(-4, 0.5).map(lambda x: 10.0**x)
time_lists = st.lists(st.floats(-2, 5).map(lambda x: 10.0**x), min_size=2, max_size=6).map(sorted)

Times = npt.NDArray[np.float64]


def responses(
    method: str, objective: str, depth: float, lam: float, sigma2: float, eps: float, t: Any
) -> npt.NDArray[np.float64]:
    spec = jo.Spectrum([lam], sigma2=[sigma2])
    solution = jo.solve(spec, objective, depth=depth, eps=eps, t=t, method=method, rtol=RTOL)
    assert solution.success
    return solution.w[0]


def differences(
    w: Any, w_ref: Any, t: Any, lam: float, sigma2: float, depth: float, objective: str
) -> npt.NDArray[np.float64]:
    """E; responses too small for all digits of a double do not count."""
    error = reference.layer_error(np.asarray(w), np.asarray(w_ref), np.asarray(t), lam, sigma2, depth, objective)
    return np.where(np.asarray(w_ref) > 1e-290, error, 0.0)


@given(
    methods, objectives, depths, covariances, positive, starts, time_lists, st.integers(-300, 300), st.floats(1e-3, 1e3)
)
def test_scaling_of_time(
    record: Records,
    method: str,
    objective: str,
    depth: float,
    lam: float,
    sigma2: float,
    eps: float,
    t: list[float],
    k: int,
    c: float,
) -> None:
    """7. (c lambda, c sigma2, t/c) gives the same w; bitwise for a power of two."""
    times = np.array(t)
    w = responses(method, objective, depth, lam, sigma2, eps, times)
    two = 2.0**k
    shifted = responses(method, objective, depth, two * lam, two * sigma2, eps, times / two)
    record(7, f"values that differ for c = 2^k, {method}", (shifted != w).sum(), at_most=0, cases=w.size)
    again = responses(method, objective, depth, c * lam, c * sigma2, eps, times / c)
    error = differences(again, w, times, lam, sigma2, depth, objective)
    record(7, f"E of any c, {method}", error, at_most=SAME[method])


@given(methods, depths, positive, positive, starts, time_lists, st.floats(0.3, 3))
def test_scaling_of_rho(
    record: Records, method: str, depth: float, lam: float, sigma2: float, eps: float, t: list[float], a: float
) -> None:
    """8. JEPA: (a rho, a u0, t / a^(2L-1)) -> a u, at equal lambda."""
    times = np.array(t)
    w = responses(method, "jepa", depth, lam, sigma2, eps, times)
    later = times / a ** (2 * depth - 1)
    scaled = responses(method, "jepa", depth, lam, sigma2 / a, eps * a**depth, later)
    # The rounding of a^(2L-1) and of rho shifts the clock by itself.
    allowed = SAME[method] + 40 * depth * np.finfo(float).eps
    error = differences(scaled / a**depth, w, times, lam, sigma2, depth, "jepa")
    record(8, f"E / ({SAME[method]:g} + 40 L eps_m), {method}", error / allowed, at_most=1)


@pytest.mark.parametrize("method", ["exact", "dop853"])
def test_deep_mae_approaches_jepa_of_depth_one(record: Records, method: str) -> None:
    """9. In rescaled time, the distance halving with each doubling of depth."""
    spec = jo.Spectrum([1.0, 0.6, 0.3], rho=[0.9, 0.5, 0.7])
    t = np.linspace(0.5, 60, 40)
    limit = jo.solve(spec, "jepa", depth=1, eps=0.1, t=t).w
    distances = [
        np.abs(
            jo.solve(spec, "mae", depth=depth, eps=0.1, t=t, time_unit="rescaled", method=method, rtol=1e-11).w - limit
        ).max()
        for depth in (128, 256, 512, 1024)
    ]
    ratios = np.divide(distances[:-1], distances[1:])
    record(9, f"distance to 2 of the errors' ratio, three features, {method}", np.abs(ratios - 2), at_most=0.05)


def test_any_deep_mae_approaches_jepa_of_depth_one(record: Records) -> None:
    """9. Any feature that moves, from anywhere to its fixed point; the deeper, the closer to 2."""
    rng = np.random.default_rng(9)
    for _ in range(case_count(ci=25, campaign=2000)):
        lam, rho = 10 ** rng.uniform(-2, 1, 2)
        spec, eps = jo.Spectrum([lam], rho=[rho]), rho * 10 ** rng.uniform(-3, 1)
        scale = abs(1 / eps - 1 / rho) / lam  # about the time of JEPA's way, its logarithm aside
        t = scale * np.geomspace(0.01, 10, 40)
        limit = jo.solve(spec, "jepa", depth=1, eps=eps, t=t).w
        first, second = (
            np.abs(jo.solve(spec, "mae", depth=depth, eps=eps, t=t, time_unit="rescaled").w - limit).max()
            for depth in (2.0**17, 2.0**18)
        )
        record(9, "distance to 2 of the errors' ratio, random features", abs(first / second - 2), at_most=0.05)


@given(methods, objectives, depths, covariances, positive, starts, time_lists)
def test_monotone_and_never_past_the_fixed_point(
    record: Records, method: str, objective: str, depth: float, lam: float, sigma2: float, eps: float, t: list[float]
) -> None:
    """10. Every value lies between the one before and the limit."""
    w = np.concatenate([[eps], responses(method, objective, depth, lam, sigma2, eps, t)])
    limit = jo.fixed_point(jo.Spectrum([lam], sigma2=[sigma2]), objective, depth=depth)[0]
    sign = 1 if limit > eps else -1
    # Of u, to which the tolerance applies: w = u^L.
    back = np.maximum(-sign * np.diff(w), 0) / np.maximum(w[1:], np.finfo(float).smallest_subnormal) / depth
    past = np.maximum(-sign * (limit - w), 0) / (limit or 1) / depth
    slack = SAME[method] + 1e-15
    record(10, f"step back / u, {method}", back, at_most=slack)
    record(10, f"past the fixed point by / u*, {method}", past, at_most=slack)


@given(methods, objectives, depths, covariances, positive, starts, st.floats(1.0001, 10), time_lists)
def test_trajectories_do_not_cross(
    record: Records,
    method: str,
    objective: str,
    depth: float,
    lam: float,
    sigma2: float,
    eps: float,
    factor: float,
    t: list[float],
) -> None:
    """10. What starts higher stays higher."""
    low = responses(method, objective, depth, lam, sigma2, eps, t)
    high = responses(method, objective, depth, lam, sigma2, factor * eps, t)
    crossed = np.where(high >= low, 0.0, differences(high, low, t, lam, sigma2, depth, objective))
    record(10, f"E by which trajectories cross, {method}", crossed, at_most=2 * SAME[method])  # each may err


@given(methods, objectives, depths, covariances, positive, starts, time_lists)
def test_semigroup(
    record: Records, method: str, objective: str, depth: float, lam: float, sigma2: float, eps: float, t: list[float]
) -> None:
    """11. Stop, restart from there: the same end."""
    stop, end = t[0], t[-1]
    direct = responses(method, objective, depth, lam, sigma2, eps, [stop, end])
    assume(direct.min() > 1e-280)
    restarted = responses(method, objective, depth, lam, sigma2, direct[0], [end - stop])
    # The stop's own E moves the clock of the rest by itself, as does the rounding of w there.
    exponent = 2 * depth if objective == "jepa" else depth
    allowed = 2 * SAME[method] + 4 * exponent * np.finfo(float).eps
    condition = amplification(direct[0], direct[1], end - stop, lam, sigma2, depth, objective)
    error = differences(restarted, direct[1:], [end], lam, sigma2, depth, objective)
    record(11, f"E at the end / what the stop's rounding makes, {method}", error / (allowed * condition), at_most=1)


def amplification(
    w_stop: float, w_end: float, t: float, lam: float, sigma2: float, depth: float, objective: str
) -> float:
    """How much a relative error of u at the stop grows until the end, in E: u'(end)/u(end) over u'(stop)/u(stop)."""
    u_stop, u_end = w_stop ** (1 / depth), w_end ** (1 / depth)
    rate_stop = abs(float(reference.layer_velocity(u_stop, lam, sigma2, depth, objective))) / u_stop
    rate_end = abs(float(reference.layer_velocity(u_end, lam, sigma2, depth, objective))) / u_end
    if rate_stop == 0:
        return 1.0
    return 1 + rate_end / rate_stop / (1 + t * rate_end)


@given(methods, objectives, depths, covariances, positive, starts, time_lists, time_lists)
def test_denser_times_do_not_move_the_old_points(
    record: Records,
    method: str,
    objective: str,
    depth: float,
    lam: float,
    sigma2: float,
    eps: float,
    t: list[float],
    more: list[float],
) -> None:
    """12. Bitwise: the steps do not depend on the times, be they in between, before or after."""
    sparse = responses(method, objective, depth, lam, sigma2, eps, t)
    dense = np.unique([*t, *more])
    w = responses(method, objective, depth, lam, sigma2, eps, dense)
    moved = w[np.searchsorted(dense, t)] != sparse
    record(12, f"values moved by denser times, {method}", moved.sum(), at_most=0, cases=moved.size)
