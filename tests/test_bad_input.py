"""Any numbers at all as input: a documented error or status, never NaN with OK, and no hang (RELIABILITY.md 22)."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jepa_ode as jo
from record import Records

# A module under a sanitizer (make asan-python) is several times as slow.
SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")

SPECIAL = [
    math.nan,
    math.inf,
    -math.inf,
    0.0,
    -0.0,
    -1.0,
    5e-324,
    1e-310,
    1e-160,
    1e-17,
    1e-3,
    0.5,
    1.0,
    1.5,
    3.0,
    64.0,
]
numbers = st.one_of(st.sampled_from([*SPECIAL, 1e17, 1e160, 1e308]), st.floats(), st.floats(0, 100))
ordinary = st.floats(0.1, 3.0)
AXES = SimpleNamespace(duals=np.eye(2))  # along which networks are observed


def often(valid: Any) -> Any:
    """Valid in four cases of five, so that not every call ends at its first bad argument."""
    return st.integers(0, 4).flatmap(lambda k: numbers if k == 0 else valid)


def lists(valid: Any, size: int) -> Any:
    return st.lists(often(valid), min_size=size, max_size=size)


times = st.one_of(
    st.lists(st.floats(0, 1e308), max_size=4).map(sorted),
    st.lists(st.floats(0, 100), max_size=4).map(sorted),
    st.lists(numbers, max_size=4),
)
depths = st.one_of(st.integers(1, 6), st.floats(1, 64), numbers)
decays = st.one_of(st.just(0.0), st.floats(0, 1), numbers)


@st.composite
def objectives(draw: Any) -> Any:
    """Made inside the call, where it may raise."""
    plain = draw(st.sampled_from([lambda: "jepa", lambda: "mae"]))
    decay, ema = draw(decays), draw(st.one_of(st.none(), st.floats(1e-3, 100), numbers))
    open_jepa = draw(st.booleans())
    options = [lambda: jo.MAE(decay), lambda: jo.JEPA(stop_gradient=open_jepa, weight_decay=decay)]
    return draw(st.sampled_from([plain, *options, lambda: jo.JEPA(ema=ema, weight_decay=decay)]))


def finite_where_ok(result: Any) -> bool:
    """Whether a solution has NaN nowhere but in features that failed, and a failed one somewhere."""
    failed = np.isnan(result.w).any(axis=1)
    return bool(np.array_equal(failed, result.status != jo.Status.OK) or result.w.shape[1] == 0)


def judge(record: Records, call: Callable[[], Any], is_sound: Callable[[Any], bool]) -> None:
    """Make the call: it may raise what is documented, and no warning."""
    begin = time.process_time()  # not what others on this machine take
    try:
        sound = is_sound(call())
    except (TypeError, ValueError) as error:
        sound = bool(str(error))
    if not SANITIZED:
        record(22, "time of a call on any input, in seconds", time.process_time() - begin, at_most=2)
    record(22, "calls on any input that end in NaN without a status", not sound, at_most=0)


@pytest.mark.parametrize("method", [None, "exact", "tsit5", "dop853"])
@given(data=st.data())
def test_solve(record: Records, method: str | None, data: Any) -> None:
    lam, sigma2, sigma2_y, eps = (data.draw(lists(ordinary, 3)) for _ in range(4))
    objective, depth, t = data.draw(objectives()), data.draw(depths), data.draw(times)
    settings = {
        "rtol": data.draw(often(st.floats(1e-13, 0.1))),
        "atol": data.draw(often(st.just(0.0))),
        "v0": data.draw(st.one_of(st.none(), lists(ordinary, 3))),
        "max_steps": data.draw(st.sampled_from([1, 1000, 100_000, 0, -1])),
        "time_unit": data.draw(st.sampled_from(["flow", "rescaled"])),
    }

    def call() -> Any:
        spec = jo.Spectrum(lam, sigma2=sigma2, sigma2_y=sigma2_y)
        return jo.solve(spec, objective(), depth=depth, eps=eps, t=t, method=method, **settings)

    judge(record, call, finite_where_ok)


@given(data=st.data())
def test_times_and_fixed_points(record: Records, data: Any) -> None:
    lam, sigma2, eps, w = (data.draw(lists(ordinary, 3)) for _ in range(4))
    objective, depth, fraction = data.draw(objectives()), data.draw(depths), data.draw(often(st.floats(0, 1)))
    unit, t = data.draw(st.sampled_from(["flow", "rescaled"])), data.draw(times)

    def spec() -> Any:
        with np.errstate(all="ignore"):
            possible = 2 * np.square(lam) / sigma2
        return jo.Spectrum(lam, sigma2=sigma2, sigma2_y=possible)

    def is_a_time(found: Any) -> bool:
        return bool((found >= 0).all())

    def are_points(found: Any) -> bool:
        named = found.stability != ""
        unknown = np.isnan(found.eigenvalues).any(axis=-1)
        return bool(
            (np.isnan(found.response) != named).all() and (unknown == (found.stability == "unknown"))[named].all()
        )

    start = {"depth": depth, "eps": eps}
    judge(record, lambda: jo.time_to_reach(spec(), objective(), **start, w=w, time_unit=unit), is_a_time)
    judge(record, lambda: jo.critical_time(spec(), objective(), **start, fraction=fraction, time_unit=unit), is_a_time)
    judge(record, lambda: jo.learning_times(spec(), objective(), **start, fraction=fraction), is_a_time)
    judge(record, lambda: jo.fixed_point(spec(), objective(), depth=depth), is_a_time)
    judge(record, lambda: jo.weight_decay_threshold(spec(), objective(), depth=depth), is_a_time)
    judge(record, lambda: jo.fixed_points(spec(), objective(), depth=depth), are_points)
    sensitive = lambda: jo.solve(spec(), objective(), **start, t=t, method="exact").sensitivity()  # noqa: E731
    judge(record, sensitive, lambda found: not np.isnan(found.eps).any())


def network(weights: Any) -> jo.LinearNetwork:
    return jo.LinearNetwork([np.reshape(weights[:4], (2, 2))], np.reshape(weights[4:8], (2, 2)))


def covariances(moments: Any) -> jo.Covariances:
    Sxx, Syx, Syy = np.reshape(moments, (3, 2, 2))
    return jo.Covariances(Sxx, Syx, Syy)


@pytest.mark.parametrize("method", ["auto", "tsit5", "dop853", "rock4", "exact"])
@given(data=st.data())
def test_gradient_flow(record: Records, method: str, data: Any) -> None:
    weights, objective, t = data.draw(lists(st.floats(-1, 1), 8)), data.draw(objectives()), data.draw(times)
    moments = data.draw(st.one_of(st.just([1, 0.2, 0.2, 1, 0.5, 0, 0, 0.25, 1, 0, 0, 1]), lists(ordinary, 12)))
    settings = {
        "rtol": data.draw(often(st.floats(1e-12, 0.1))),
        "atol": data.draw(often(st.floats(1e-12, 1e-3))),
        "max_steps": data.draw(st.sampled_from([1, 1000, 5000, 0, -1])),  # of the default: seconds
        "predictor_rate": data.draw(often(st.just(1.0))),
        "levels": data.draw(st.one_of(st.none(), lists(ordinary, 2))),
    }

    def call() -> Any:
        return jo.gradient_flow(
            network(weights), covariances(moments), objective(), t=t, features=AXES, method=method, **settings
        )

    def is_sound(flow: Any) -> bool:
        return bool(np.isnan(flow.response).any() != flow.success or flow.t.size == 0)

    judge(record, call, is_sound)


@pytest.mark.parametrize("optimizer", ["gd", "nesterov", "adamw"])
@given(data=st.data())
def test_train(record: Records, optimizer: str, data: Any) -> None:
    weights, objective = data.draw(lists(st.floats(-1, 1), 8)), data.draw(objectives())
    samples = np.reshape(data.draw(lists(st.floats(-2, 2), 16)), (2, 4, 2))
    settings = {
        "lr": data.draw(often(st.floats(1e-4, 10))),
        "steps": data.draw(st.sampled_from([0, 1, 100, -1])),
        "batch_size": data.draw(st.sampled_from([None, 1, 2, 4, 0, 5])),
        "predictor_rate": data.draw(often(st.just(1.0))),
    }

    def call() -> Any:
        return jo.train(network(weights), tuple(samples), objective(), optimizer=optimizer, features=AXES, **settings)

    def is_sound(run: Any) -> bool:
        return bool(np.isnan(run.response).any() != run.success)

    judge(record, call, is_sound)
