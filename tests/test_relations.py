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
    method: str, w: Any, w_ref: Any, t: Any, lam: float, sigma2: float, depth: float, objective: str
) -> npt.NDArray[np.float64]:
    """E in units of what is allowed; responses too small for all digits of a double do not count."""
    error = reference.layer_error(np.asarray(w), np.asarray(w_ref), np.asarray(t), lam, sigma2, depth, objective)
    return np.where(np.asarray(w_ref) > 1e-290, error, 0.0) / SAME[method]


@given(methods, objectives, depths, covariances, positive, starts, time_lists, st.integers(-300, 300))
def test_scaling_of_time(
    method: str, objective: str, depth: float, lam: float, sigma2: float, eps: float, t: list[float], k: int
) -> None:
    """7. (c lambda, c sigma2, t/c) gives the same w; bitwise for a power of two."""
    times = np.array(t)
    w = responses(method, objective, depth, lam, sigma2, eps, times)
    c = 2.0**k
    np.testing.assert_array_equal(responses(method, objective, depth, c * lam, c * sigma2, eps, times / c), w)
    again = responses(method, objective, depth, 3 * lam, 3 * sigma2, eps, times / 3)
    assert differences(method, again, w, times, lam, sigma2, depth, objective).max() <= 1


@given(methods, st.integers(1, 8), positive, positive, starts, time_lists, st.floats(0.3, 3))
def test_scaling_of_rho(
    method: str, depth: int, lam: float, sigma2: float, eps: float, t: list[float], a: float
) -> None:
    """8. JEPA: (a rho, a u0, t / a^(2L-1)) -> a u, at equal lambda."""
    times = np.array(t)
    w = responses(method, "jepa", depth, lam, sigma2, eps, times)
    later = times / a ** (2 * depth - 1)
    scaled = responses(method, "jepa", depth, lam, sigma2 / a, eps * a**depth, later)
    # The rounding of a^(2L-1) and of rho shifts the clock by itself.
    allowed = 1 + 40 * depth * np.finfo(float).eps / SAME[method]
    assert differences(method, scaled / a**depth, w, times, lam, sigma2, depth, "jepa").max() <= allowed


@pytest.mark.parametrize("method", ["exact", "dop853"])
def test_deep_mae_approaches_jepa_of_depth_one(method: str) -> None:
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
    np.testing.assert_allclose(ratios, 2, atol=0.05)


@given(methods, objectives, depths, covariances, positive, starts, time_lists)
def test_monotone_and_never_past_the_fixed_point(
    method: str, objective: str, depth: float, lam: float, sigma2: float, eps: float, t: list[float]
) -> None:
    """10. Every value lies between the one before and the limit."""
    w = np.concatenate([[eps], responses(method, objective, depth, lam, sigma2, eps, t)])
    limit = jo.fixed_point(jo.Spectrum([lam], sigma2=[sigma2]), objective, depth=depth)[0]
    slack = (SAME[method] + 1e-15) * depth
    sign = 1 if limit > eps else -1
    assert (sign * np.diff(w) >= -slack * w[1:]).all()
    assert (sign * (limit - w) >= -slack * limit).all()


@given(methods, objectives, depths, covariances, positive, starts, st.floats(1.0001, 10), time_lists)
def test_trajectories_do_not_cross(
    method: str, objective: str, depth: float, lam: float, sigma2: float, eps: float, factor: float, t: list[float]
) -> None:
    """10. What starts higher stays higher."""
    low = responses(method, objective, depth, lam, sigma2, eps, t)
    high = responses(method, objective, depth, lam, sigma2, factor * eps, t)
    apart = differences(method, high, low, t, lam, sigma2, depth, objective)
    assert ((high >= low) | (apart <= 2)).all()  # each may err


@given(methods, objectives, depths, covariances, positive, starts, time_lists)
def test_semigroup(
    method: str, objective: str, depth: float, lam: float, sigma2: float, eps: float, t: list[float]
) -> None:
    """11. Stop, restart from there: the same end."""
    stop, end = t[0], t[-1]
    direct = responses(method, objective, depth, lam, sigma2, eps, [stop, end])
    assume(direct.min() > 1e-280)
    restarted = responses(method, objective, depth, lam, sigma2, direct[0], [end - stop])
    # The stop's own E moves the clock of the rest by itself, as does the rounding of w there.
    exponent = 2 * depth if objective == "jepa" else depth
    allowed = 2 + 4 * exponent * np.finfo(float).eps / SAME[method]
    condition = amplification(direct[0], direct[1], end - stop, lam, sigma2, depth, objective)
    assert differences(method, restarted, direct[1:], [end], lam, sigma2, depth, objective)[0] <= allowed * condition


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
    np.testing.assert_array_equal(w[np.searchsorted(dense, t)], sparse)
