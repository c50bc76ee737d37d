"""The interface of `solve` and `Solution` (RELIABILITY.md 21 to 24): what goes in, what comes out, what is refused."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import sys
from typing import Any

import numpy as np
import pytest

import jepa_ode as jo
from entries import ENTRIES, same
from record import Records

COPIES = "pickles and copies that differ"
METHODS = ["exact", "tsit5", "dop853"]
SPEC = jo.Spectrum([1.0, 0.5, 0.0, -0.3], sigma2=[1.2, 1.0, 2.0, 1.0])
EPS = np.array([0.1, 0.2, 0.3, 0.4])
T = np.array([0.0, 1.0, 1.0, 5.0, 80.0])
CASE: dict[str, Any] = {"depth": 2, "eps": EPS, "t": T}


def solve(**changes: Any) -> jo.Solution:
    return jo.solve(SPEC, "jepa", **CASE | changes)


@pytest.mark.parametrize("method", METHODS)
def test_shapes_dtypes_and_fields(method: str) -> None:
    sol = solve(method=method)
    assert sol.w.shape == (4, 5)
    assert sol.w.dtype == sol.t.dtype == np.float64
    assert sol.status.shape == (4,)
    assert sol.status.dtype == np.int8
    assert sol.nfev.shape == (4,)
    assert sol.success
    assert sol.message == "reached every requested time"
    assert sol.method == method
    assert sol.objective == jo.JEPA()
    assert sol.depth == 2.0
    assert sol.time_unit == "flow"
    np.testing.assert_array_equal(sol.w[:, 0], EPS)  # w(0) = eps, to the last bit
    np.testing.assert_array_equal(sol.w[:, 1], sol.w[:, 2])
    assert (sol.nfev > 0).all() == (method != "exact")
    with pytest.raises(ValueError, match="read-only"):
        sol.w[0, 0] = 1.0
    with pytest.raises(AttributeError):
        sol.w = sol.w  # type: ignore[misc]


def variants(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The same numbers in every guise that NumPy knows."""
    strided = np.zeros((*array.shape[:-1], 2 * array.shape[-1]))
    strided[..., ::2] = array
    reversed_ = array[..., ::-1].copy()[..., ::-1]
    locked = array.copy()
    locked.flags.writeable = False
    return {
        "list": array.tolist(),
        "strided": strided[..., ::2],
        "reversed": reversed_,
        "big endian": array.astype(">f8"),
        "read-only": locked,
        "fortran": np.asfortranarray(array),
        "unaligned": np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:].view(np.float64).reshape(array.shape),
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["eps", "t", "rows of t"])
def test_every_layout_means_the_same(method: str, name: str) -> None:
    value = EPS if name == "eps" else T if name == "t" else np.sort(np.random.default_rng(0).random((4, 5)) * 9, axis=1)
    argument = "eps" if name == "eps" else "t"
    reference = solve(method=method, **{argument: value})
    for layout, variant in variants(value).items():
        before = copy.deepcopy(variant)
        assert solve(method=method, **{argument: variant}) == reference, layout
        np.testing.assert_array_equal(variant, before)  # never modified


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, np.float16, np.float32, np.longdouble])
def test_other_number_types(dtype: Any) -> None:
    times = np.array([0, 1, 5, 80]).astype(dtype)
    assert solve(t=times) == solve(t=[0.0, 1.0, 5.0, 80.0])
    assert solve(eps=np.ones(4, dtype)) == solve(eps=1) == solve(eps=np.array(1.0))


@pytest.mark.parametrize("method", METHODS)
def test_zero_stride_and_broadcast_rows(method: str) -> None:
    rows = np.broadcast_to(T, (4, 5))
    np.testing.assert_array_equal(solve(method=method, t=rows).w, solve(method=method).w)
    assert solve(method=method, eps=np.broadcast_to(0.1, 4)) == solve(method=method, eps=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_empty_and_single(method: str) -> None:
    assert solve(method=method, t=[]).w.shape == (4, 0)
    assert solve(method=method, t=3.0).w.shape == (4, 1)
    nothing = jo.Spectrum([], sigma2=[])
    empty = jo.solve(nothing, "mae", depth=1, eps=0.1, t=T, method=method)
    assert empty.w.shape == (0, 5)
    assert empty.success


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_times_are_per_feature(method: str) -> None:
    rows = np.array([[0.0, 1.0], [2.0, 3.0], [0.5, 0.5], [10.0, math.inf]])
    sol = solve(method=method, t=rows)
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(sol.w[i], solve(method=method, t=row).w[i])


@pytest.mark.parametrize("method", METHODS)
def test_infinite_time_is_the_limit(method: str) -> None:
    sol = solve(method=method, t=[1.0, 1e308, math.inf])
    np.testing.assert_allclose(sol.w[:, 2], jo.fixed_point(SPEC, "jepa", depth=2), rtol=1e-14)
    assert sol.success


@pytest.mark.parametrize("method", METHODS)
def test_time_units(method: str) -> None:
    flow = solve(method=method, depth=3)
    rescaled = solve(method=method, depth=3, t=3 * T, time_unit="rescaled")
    np.testing.assert_allclose(rescaled.w, flow.w, rtol=1e-12)
    np.testing.assert_allclose(rescaled.critical_time(), 3 * flow.critical_time(), rtol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_mae_at_infinite_depth_is_jepa_at_depth_one(method: str) -> None:
    limit = jo.solve(SPEC, "mae", depth=math.inf, eps=EPS, t=T, time_unit="rescaled", method=method)
    jepa = jo.solve(SPEC, "jepa", depth=1, eps=EPS, t=T, method=method)
    np.testing.assert_array_equal(limit.w, jepa.w)
    assert limit.depth == math.inf
    assert limit.learning_order().tolist() == jepa.learning_order().tolist()
    np.testing.assert_array_equal(limit.at([7.0]).w, jepa.at([7.0]).w)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"t": [0.0, math.nan]}, ValueError, "NaN"),
        ({"t": [1.0, 0.5]}, ValueError, "non-decreasing"),
        ({"t": [-1.0, 0.5]}, ValueError, "non-negative"),
        ({"t": np.zeros((3, 2))}, ValueError, r"\(4, m\)"),
        ({"t": np.zeros((1, 1, 2))}, ValueError, "shape"),
        ({"t": ["soon"]}, TypeError, "real numbers"),
        ({"t": np.ma.masked_array(T, mask=[1, 0, 0, 0, 0])}, TypeError, "masked"),
        ({"t": np.array([0.0, None], dtype=object)}, TypeError, "object"),
        ({"t": [1j]}, TypeError, "complex"),
        ({"eps": 0.0}, ValueError, "eps must be positive"),
        ({"eps": -1.0}, ValueError, "eps must be positive"),
        ({"eps": math.nan}, ValueError, "eps must be finite"),
        ({"eps": [0.1, 0.1, 0.1, math.inf]}, ValueError, r"eps\[3\]"),
        ({"eps": [0.1, 0.1]}, ValueError, r"\(4,\)"),
        ({"depth": 0.5}, ValueError, "depth must be"),
        ({"depth": math.nan}, ValueError, "depth must be"),
        ({"depth": math.inf}, ValueError, "rescaled"),
        ({"depth": "2"}, TypeError, "depth"),
        ({"method": "euler"}, ValueError, "'exact', 'tsit5', 'dop853'"),
        ({"rtol": 1e-14}, ValueError, "1e-13"),
        ({"rtol": 0.0}, ValueError, "rtol"),
        ({"rtol": -1e-3}, ValueError, "rtol"),
        ({"rtol": 1.0}, ValueError, "rtol"),
        ({"rtol": math.nan}, ValueError, "rtol"),
        ({"atol": -1e-3}, ValueError, "atol"),
        ({"atol": math.inf}, ValueError, "atol"),
        ({"max_steps": 0}, ValueError, "max_steps"),
        ({"max_steps": 1.5}, TypeError, "max_steps"),
        ({"threads": 0}, ValueError, "threads"),
        ({"time_unit": "seconds"}, ValueError, "time_unit"),
    ],
)
def test_bad_arguments_are_named(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    for method in METHODS:
        with pytest.raises(error, match=words):
            solve(**{"method": method} | changes)


def test_bad_spectrum_and_objective() -> None:
    with pytest.raises(TypeError, match="Spectrum"):
        jo.solve([1.0, 2.0], "jepa", **CASE)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'jepa' or 'mae'"):
        jo.solve(SPEC, "vae", **CASE)
    for objective in (jo.JEPA(ema=10.0), jo.JEPA(weight_decay=0.1), jo.MAE(weight_decay=1.0)):
        with pytest.raises(ValueError, match="method='dop853', the default for all others"):
            jo.solve(SPEC, objective, **CASE, method="exact")
        for refuses in (jo.critical_time, jo.fixed_point):
            start = {"eps": EPS} if refuses is jo.critical_time else {}
            with pytest.raises(ValueError, match="plain objectives only"):
                refuses(SPEC, objective, depth=2, **start)


@pytest.mark.parametrize("method", METHODS)
def test_pickle_copy_and_equality(method: str, record: Records) -> None:
    sol = solve(method=method)
    for other in (pickle.loads(pickle.dumps(sol)), copy.copy(sol), copy.deepcopy(sol), solve(method=method)):
        record(23, COPIES, not (other == sol and not other.w.flags.writeable), at_most=0)
    assert sol != solve(method=method, t=T[1:])
    assert sol != "a string"
    failed = solve(method="tsit5", max_steps=2)
    assert failed == solve(method="tsit5", max_steps=2)  # NaN equals NaN
    assert np.isnan(failed.w).any()


@pytest.mark.parametrize("method", METHODS)
def test_at_agrees_bit_for_bit(method: str) -> None:
    sol = solve(method=method)
    for k, t in enumerate(T):
        np.testing.assert_array_equal(sol.at(t).w[:, 0], sol.w[:, k])
    assert sol.at(T) == sol


def test_repr_is_one_short_line() -> None:
    assert repr(solve()) == "Solution(jepa, depth=2, 4 features, 5 times, method='exact', success)"
    failed = repr(solve(method="tsit5", max_steps=1))
    assert "step budget" in failed
    assert "\n" not in failed


def test_learning_order_and_critical_times() -> None:
    sol = solve()
    times = jo.critical_time(SPEC, "jepa", depth=2, eps=EPS, fraction=0.3)
    np.testing.assert_array_equal(sol.critical_time(0.3), times)
    assert sol.learning_order(0.9).tolist() == jo.learning_order(SPEC, "jepa", depth=2, eps=EPS, fraction=0.9).tolist()


def test_to_xarray() -> None:
    pytest.importorskip("xarray")
    sol = solve(method="dop853")
    data = sol.to_xarray()
    assert data.w.dims == ("feature", "time")
    np.testing.assert_array_equal(data.w.sel(time=5.0), sol.w[:, 3])
    np.testing.assert_array_equal(data.lam, SPEC.lam)
    assert data.attrs["depth"] == 2.0
    assert data.attrs["method"] == "dop853"
    rows = solve(t=np.arange(8.0).reshape(4, 2)).to_xarray()
    assert rows.t.dims == ("feature", "time")


def test_to_dataframe() -> None:
    pytest.importorskip("pandas")
    sol = solve()
    frame = sol.to_dataframe()
    assert len(frame) == sol.w.size
    np.testing.assert_array_equal(frame.pivot_table(index="feature", columns="t", values="w")[5.0], sol.w[:, 3])


@pytest.mark.parametrize(("method", "module"), [("to_xarray", "xarray"), ("to_dataframe", "pandas")])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, method: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'pip install "jepa-ode\[xarray\]"'):
        getattr(solve(), method)()


@pytest.mark.parametrize("method", METHODS)
def test_results_outlive_their_inputs(method: str, record: Records) -> None:
    times, eps = T.copy(), EPS.copy()
    sol = solve(method=method, t=times, eps=eps)
    kept = sol.w.copy()
    times[:], eps[:] = 7.0, 7.0
    del times, eps
    gc.collect()
    outlived = map(np.array_equal, (sol.w, sol.t, sol.eps), (kept, T, EPS))
    record(24, "results that change with their inputs", [not kept for kept in outlived], at_most=0)


@pytest.mark.parametrize("name", ENTRIES)
def test_results_of_every_entry_are_copied_whole(name: str, record: Records) -> None:
    """And outlive what they come from: the call with its inputs, the original of a copy."""
    call = ENTRIES[name].small()
    result, original = call(), call()
    copies = [copy.copy(original), copy.deepcopy(original)]
    copies += [pickle.loads(pickle.dumps(original, kind)) for kind in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    for other in copies:
        record(23, COPIES, not same(other, original), at_most=0)
    before = pickle.dumps(result)
    del call, original
    gc.collect()
    changed = [pickle.dumps(result) != before, *(not same(other, result) for other in copies)]
    record(24, "results that change with their inputs", changed, at_most=0)
