"""Learning-rate schedules: closed-form integrals, their inverse, and the flows that they drive."""

from __future__ import annotations

import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp

import jepa_ode as jo
from reference import layer_velocity_of

EPS_M = np.finfo(float).eps
TINY = np.finfo(float).tiny  # numbers below have fewer digits
positive = st.floats(1e-3, 1e3)


@st.composite
def schedules(draw: Any) -> jo.Schedule:
    kind = draw(st.sampled_from(["constant", "warmup", "cosine", "table"]))
    if kind == "constant":
        return jo.Schedule.constant(draw(positive))
    if kind == "warmup":
        return jo.Schedule.warmup(draw(positive), draw(positive), draw(st.sampled_from([0.0, 0.5, 2.0])))
    if kind == "cosine":
        duration = draw(positive)
        final, share = draw(st.sampled_from([0.0, 0.1, 3.0])), draw(st.sampled_from([0.0, 0.01, 0.5]))
        return jo.Schedule.cosine(duration, draw(positive), final, share * duration)
    gaps = draw(st.lists(positive, max_size=5))
    values = draw(st.lists(st.floats(0, 10), min_size=len(gaps) + 1, max_size=len(gaps) + 1))
    assume(max(values) > 1e-6)
    return jo.Schedule.table(np.concatenate([[0.0], np.cumsum(gaps)]), values)


@given(schedules(), st.floats(1e-12, 3))
def test_elapsed_is_the_integral(schedule: jo.Schedule, share: float) -> None:
    t = share * max(schedule.knots[-1], 1.0)
    inner = [k for k in schedule.knots if 0 < k < t]
    ends = [0.0, *inner, t]
    pieces = [quad(schedule, a, b, epsabs=1e-300, epsrel=1e-13)[0] for a, b in itertools.pairwise(ends)]
    assert schedule.elapsed(t) == pytest.approx(math.fsum(pieces), rel=1e-11, abs=1e-300)


@given(schedules(), st.floats(1e-12, 1))
def test_small_times_are_accurate(schedule: jo.Schedule, share: float) -> None:
    """A line from s(0) with slope s': nothing cancels, down to the smallest times."""
    if schedule.knots.size < 2 or schedule.curved[0]:
        return
    t = share * schedule.knots[1] * 1e-3
    slope = (schedule.values[1] - schedule.values[0]) / schedule.knots[1]
    assert schedule.elapsed(t) == pytest.approx(schedule.values[0] * t + slope * t * t / 2, rel=8 * EPS_M)


def test_a_rising_cosine_starts_as_a_cubic() -> None:
    """s = (1 - cos pi t)/2 has the integral pi^2 t^3/12 at first, where its terms cancel to all digits."""
    t = np.array([1e-12, 1e-8, 1e-5, 1e-4])
    almost_nothing = jo.Schedule.cosine(1.0, value=1e-300, final=1.0)
    np.testing.assert_allclose(almost_nothing.elapsed(t), math.pi**2 * t**3 / 12, rtol=1e-8)


@given(schedules(), st.lists(st.floats(0, 4), min_size=1, max_size=8))
def test_time_inverts_elapsed(schedule: jo.Schedule, shares: list[float]) -> None:
    t = np.sort(np.array(shares)) * max(schedule.knots[-1], 1.0)
    area = schedule.elapsed(t)
    assert (np.diff(area) >= -4 * EPS_M * area[1:]).all()
    back = schedule.time(area)
    assert (
        (back <= t * (1 + 1e-12) + TINY).all()
        or (schedule.values == 0).any()
        or schedule(t).min() < 1e-3 * schedule.values.max()
    )
    np.testing.assert_allclose(schedule.elapsed(back), area, rtol=1e-14, atol=TINY)


@pytest.mark.parametrize("rate", [1e-300, 1e-160, 1e160, 1e308])
def test_rates_of_any_size(rate: float) -> None:
    assert jo.Schedule.constant(rate).time([0.0, rate, math.inf]).tolist() == [0.0, 1.0, math.inf]
    for schedule in (
        jo.Schedule.warmup(2.0, rate),
        jo.Schedule.cosine(2.0, rate),
        jo.Schedule.cosine(2.0, rate, warmup=1.0),
    ):
        half = schedule.elapsed(1.0)
        assert 0 < half < math.inf
        assert schedule.time(half) == pytest.approx(1.0, rel=1e-14)
    assert jo.Schedule.warmup(1e200, 1e200).time([1.0, math.inf])[1] == math.inf
    # The smallest areas: t^2/4 at the beginning of a line from 0, t of a constant.
    line = jo.Schedule.table([0.0, 2.0], [0.0, 1.0])
    np.testing.assert_allclose(line.time([1e-300, 5e-324]), [2e-150, 2 * math.sqrt(5e-324)], rtol=1e-14)
    assert jo.Schedule.constant(1.0).time(5e-324) == 5e-324
    # An area beyond the largest number is inf, also where the rate ends at 0.
    assert jo.Schedule.cosine(1e200, 1e200).elapsed([1.0, 1e200]).tolist() == [1e200, math.inf]
    assert jo.Schedule.cosine(1e200, 1e200).time(1e-250) <= 5e-324


def test_never_and_for_ever() -> None:
    schedule = jo.Schedule.cosine(8.0, value=2.0)
    assert schedule.elapsed(math.inf) == 8.0
    assert schedule.time(8.0001) == math.inf
    assert schedule.time(math.inf) == math.inf
    assert jo.Schedule.warmup(3.0).elapsed(math.inf) == math.inf
    assert jo.Schedule.warmup(3.0).time(math.inf) == math.inf
    pause = jo.Schedule.table([0, 1, 2, 3, 4], [1, 0, 0, 1, 1])
    assert pause.time(pause.elapsed(1.5)) == 1.0  # the first time
    assert pause.time(1.5) == 3.5


def test_shapes_names_and_pickles() -> None:
    schedule = jo.Schedule.cosine(10, value=2, final=0.5, warmup=1)
    assert repr(schedule) == "Schedule.cosine(10, value=2, final=0.5, warmup=1)"
    assert isinstance(schedule(3.0), float)
    assert isinstance(schedule.elapsed(3), float)
    assert isinstance(schedule.time(3), float)
    assert schedule(np.ones((2, 3))).shape == schedule.elapsed(np.ones((2, 3))).shape == (2, 3)
    assert schedule.value(0.5) == schedule(0.5) == 1.0
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert schedule != jo.Schedule.cosine(10, value=2, final=0.5)
    with pytest.raises(AttributeError):
        schedule.name = "mine"  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        schedule.values[0] = 1.0


@pytest.mark.parametrize(
    "objective", [jo.JEPA(), jo.MAE(), jo.JEPA(ema=2.0), jo.JEPA(weight_decay=0.01), jo.JEPA(stop_gradient=False)]
)
@pytest.mark.parametrize(
    "schedule",
    [
        jo.Schedule.warmup(30.0, value=2.0),
        jo.Schedule.cosine(60.0, value=3.0, final=0.1, warmup=10.0),
        jo.Schedule.table([0.0, 20.0, 50.0], [1.0, 0.2, 4.0]),
    ],
    ids=repr,
)
def test_solve_is_the_flow_with_a_varying_rate(objective: Any, schedule: jo.Schedule) -> None:
    feature, eps, depth = (0.8, 1.1, 1.5), 0.1, 2.0
    spec = jo.Spectrum([feature[0]], sigma2=[feature[1]], sigma2_y=[feature[2]])
    ends = [0.0, *schedule.knots[1:], 90.0]
    y, values, times = np.full(3, eps ** (1 / depth)), [], []
    for begin, end in itertools.pairwise(ends):  # piece by piece, each one smooth
        t = np.linspace(begin, end, 7)
        run = solve_ivp(
            lambda t, y: schedule(t) * layer_velocity_of(y, feature, depth, objective),
            (begin, end),
            y,
            t_eval=t,
            method="DOP853",
            rtol=1e-12,
            atol=1e-15,
        )
        y, values, times = run.y[:, -1], [*values, *run.y[0]], [*times, *t]
    sol = jo.solve(spec, objective, depth=depth, eps=eps, t=times, schedule=schedule, rtol=1e-11)
    assert sol.success
    np.testing.assert_allclose(sol.w[0], np.abs(values) ** depth, rtol=1e-8)
    assert sol.schedule == schedule
    assert sol.at(sol.t) == sol


@pytest.mark.parametrize("time_unit", ["flow", "rescaled"])
def test_times_of_the_theory_follow_the_schedule(time_unit: Any) -> None:
    spec = jo.Spectrum([0.7, 0.7, 0.0], sigma2=[1.0, 2.0, 1.0])
    schedule = jo.Schedule.cosine(400.0, value=2.0, warmup=50.0)
    case: dict[str, Any] = {"depth": 2, "eps": 0.1, "time_unit": time_unit}
    t = jo.critical_time(spec, "jepa", **case, schedule=schedule)
    plain = jo.critical_time(spec, "jepa", **case)
    np.testing.assert_allclose(schedule.elapsed(t[:1]), plain[:1], rtol=1e-13)
    assert math.isinf(t[2])
    sol = jo.solve(spec, "jepa", **case, t=[0.0, t[0], t[0]], schedule=schedule)
    assert sol.w[0, 1] == pytest.approx(0.5 * jo.fixed_point(spec, "jepa", depth=2)[0], rel=1e-12)
    np.testing.assert_array_equal(sol.critical_time(), t)
    back = jo.time_to_reach(spec, "jepa", **case, w=sol.w[:, 1], schedule=schedule)
    np.testing.assert_allclose(back[:1], t[:1], rtol=1e-11)
    # Too short a schedule: never learned.
    short = jo.Schedule.cosine(float(plain[0]))
    assert math.isinf(jo.critical_time(spec, "jepa", **case, schedule=short)[0])


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: jo.Schedule.constant(0.0), ValueError, "value must be positive"),
        (lambda: jo.Schedule.warmup(0.0), ValueError, "duration must be positive"),
        (lambda: jo.Schedule.warmup(1.0, start=-1.0), ValueError, "start must be non-negative"),
        (lambda: jo.Schedule.cosine(1.0, warmup=1.0), ValueError, "warmup must be less than duration = 1"),
        (lambda: jo.Schedule.cosine(1.0, final=math.inf), ValueError, "final must be non-negative and finite"),
        (lambda: jo.Schedule.table([0, 1], [1]), ValueError, "same length"),
        (lambda: jo.Schedule.table([], []), ValueError, "at least 1"),
        (lambda: jo.Schedule.table([1, 2], [1, 1]), ValueError, "start at 0"),
        (lambda: jo.Schedule.table([0, 2, 2], [1, 1, 1]), ValueError, "increase"),
        (lambda: jo.Schedule.table([0, 1], [0, 0]), ValueError, "somewhere positive"),
        (lambda: jo.Schedule.table([0, 1], [1, -1]), ValueError, "non-negative"),
        (lambda: jo.Schedule.table([0, math.nan], [1, 1]), ValueError, r"t must be finite, got t\[1\]"),
        (lambda: jo.Schedule.constant().elapsed(-1.0), ValueError, "t must be non-negative"),
        (lambda: jo.Schedule.constant().time(math.nan), ValueError, "elapsed must be non-negative"),
        (lambda: jo.Schedule.constant()("now"), TypeError, "real numbers"),
        (lambda: jo.Schedule.constant("1"), TypeError, "value must be a real number"),
    ],
)
def test_bad_arguments_are_named(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()
