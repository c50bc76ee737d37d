"""Where responses go: `out` and `dtype` of `solve`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jepa_ode as jo

SPEC = jo.Spectrum([1.0, 0.7, 0.4, -0.3, 0.0, 1.3], sigma2=[1.1, 1.4, 2.0, 1.0, 0.5, 1.3])
T = np.array([0.0, 0.5, 3.0, 3.0, 20.0, 400.0, 1e5, 1e9])


def solve(**options: Any) -> jo.Solution:
    return jo.solve(SPEC, "jepa", **{"depth": 3, "eps": 0.05, "t": T, **options})


methods = pytest.mark.parametrize("method", ["exact", "dop853"])


@methods
def test_out_is_filled_and_viewed(method: str) -> None:
    out = np.full((6, 8), np.nan)
    solution = solve(method=method, out=out)
    np.testing.assert_array_equal(out, solve(method=method).w)
    assert np.shares_memory(solution.w, out)
    assert not solution.w.flags.writeable
    out[0, 0] = 7.0  # the caller's array stays the caller's


@methods
def test_float32_is_the_rounded_answer(method: str) -> None:
    rounded = solve(method=method, dtype=np.float32)
    assert rounded.w.dtype == np.float32
    np.testing.assert_array_equal(rounded.w, solve(method=method).w.astype(np.float32))
    assert rounded.at([1.0, 2.0]).w.dtype == np.float32
    out = np.empty((6, 8), dtype=np.float32)
    np.testing.assert_array_equal(solve(method=method, out=out).w, rounded.w)


@given(
    st.sampled_from(["jepa", "mae"]),
    st.sampled_from([1.0, 1.2, 2.0, 3.5, 20.0]),
    st.lists(st.floats(0, 1e6), min_size=1, max_size=40).map(sorted),
)
def test_float32_of_any_row(objective: str, depth: float, t: list[float]) -> None:
    exact = jo.solve(SPEC, objective, depth=depth, eps=0.3, t=t)
    rounded = jo.solve(SPEC, objective, depth=depth, eps=0.3, t=t, dtype="float32")
    np.testing.assert_array_equal(rounded.w, exact.w.astype(np.float32))


@methods
def test_too_large_for_float32(method: str) -> None:
    spec = jo.Spectrum([1.0, 1.0], rho=[1e3, 0.5])
    options = {"depth": 20, "eps": 1.0, "t": [0.0, 1e30], "method": method, "max_steps": 10_000}
    assert jo.solve(spec, "jepa", **options).w[0, -1] == pytest.approx(1e60)
    rounded = jo.solve(spec, "jepa", **options, dtype=np.float32)
    assert np.isnan(rounded.w[0, -1])
    assert rounded.w[0, 0] == 1
    assert rounded.status.tolist() == [jo.Status.NOT_FINITE, jo.Status.OK]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"out": [[0.0] * 8] * 6}, TypeError, "NumPy array"),
        ({"out": np.empty((6, 8), dtype=int)}, TypeError, "float64 or float32"),
        ({"dtype": np.int32}, TypeError, "float64 or float32"),
        ({"out": np.empty((6, 8)), "dtype": np.float32}, ValueError, "leave one"),
        ({"out": np.empty((8, 6))}, ValueError, r"shape \(6, 8\)"),
        ({"out": np.empty((6, 8), order="F")}, ValueError, "C-contiguous"),
        ({"out": np.empty((6, 16))[:, ::2]}, ValueError, "C-contiguous"),
        ({"out": np.frombuffer(bytearray(385), offset=1).reshape(6, 8)}, ValueError, "aligned"),
        ({"out": np.broadcast_to(0.0, (6, 8))}, ValueError, "writeable"),
    ],
)
def test_bad_outputs(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        solve(**options)


def test_out_must_not_be_an_input() -> None:
    memory, eps = np.zeros((6, 8)), np.full(6, 0.1)
    with pytest.raises(ValueError, match="overlaps t"):
        solve(t=memory[0], out=memory)
    with pytest.raises(ValueError, match="overlaps eps"):
        jo.solve(SPEC, "jepa", depth=1, eps=eps, t=[0.0], out=eps.reshape(6, 1))


@pytest.mark.parametrize("objective", ["jepa", "mae"])
@pytest.mark.parametrize("depth", [1.0, 2.0, 4.3])
def test_a_value_depends_on_its_own_time_alone(objective: str, depth: float) -> None:
    """Rows of any length, alone or one per feature: lanes are times in long rows and features in short ones."""
    t = np.concatenate([[0.0], np.geomspace(1e-3, 1e7, 60), [1e300, np.inf]])
    whole = jo.solve(SPEC, objective, depth=depth, eps=0.2, t=t).w
    for length in (1, 2, 3, 7, 8, 9, 15, 16, 17, 31):
        for first in (0, 5, len(t) - length):
            part = slice(first, first + length)
            np.testing.assert_array_equal(jo.solve(SPEC, objective, depth=depth, eps=0.2, t=t[part]).w, whole[:, part])
    rows = np.array([np.roll(t, k)[np.argsort(np.roll(t, k))] for k in range(6)]) * np.arange(1, 7)[:, None]
    together = jo.solve(SPEC, objective, depth=depth, eps=0.2, t=rows).w
    for i in range(6):
        np.testing.assert_array_equal(
            jo.solve(SPEC[i : i + 1], objective, depth=depth, eps=0.2, t=rows[i]).w[0], together[i]
        )


@pytest.mark.parametrize("method", ["exact", "dop853"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_memory_of_earlier_results_is_reused_but_never_shared(method: str, dtype: type) -> None:
    """Arrays of some MiB come from memory that waits; whatever still refers to it keeps it."""
    spec = jo.Spectrum(np.linspace(0.2, 2, 2000), rho=np.full(2000, 0.8))
    t = np.linspace(0, 50, 200)

    def fresh(eps: float) -> Any:
        return jo.solve(spec, "jepa", depth=2, eps=eps, t=t, method=method, dtype=dtype).w

    reference = fresh(0.1).copy()
    alive = [fresh(0.1) for _ in range(4)]
    for k, first in enumerate(alive):
        assert not any(np.shares_memory(first, other) for other in alive[k + 1 :])
    row = fresh(0.1)[7]  # a view outlives the array that it is of
    for _ in range(5):
        fresh(0.3)
    np.testing.assert_array_equal(row, reference[7])
    for kept in alive:
        np.testing.assert_array_equal(kept, reference)
