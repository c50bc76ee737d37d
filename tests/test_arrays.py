"""Arrays of every kind as arguments of every main entry: the same as a contiguous copy, and left alone (RELIABILITY.md 21)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import jepa_ode as jo
from entries import same
from record import Records

Array = np.ndarray[Any, Any]

# All numbers are of type float16, so that every type can hold them.
LAM, SIGMA2 = np.array([1.0, 0.5, 0.25, -0.25]), np.array([1.25, 1.0, 2.0, 1.0])
SPEC = jo.Spectrum(LAM, sigma2=SIGMA2, sigma2_y=np.full(4, 2.0))
EPS = np.array([0.125, 0.25, 0.375, 0.5])
T = np.array([0.0, 1.0, 1.0, 5.0, 80.0])
ROWS = np.cumsum(np.arange(20.0).reshape(4, 5) % 3, axis=1)
SXX = np.diag([1.0, 0.5, 0.75]) + 0.125
SYX = np.diag([0.5, 0.25, 0.5]) + 0.0625
NET = jo.LinearNetwork.random(3, 2, 0.5, rng=0)
COV = jo.Covariances(SXX, SYX, SXX)
FEATURES = COV.spectrum()
X = np.random.default_rng(0).integers(-8, 8, (16, 3)) / 4
PLAIN = {"depth": 2, "eps": 0.125}


class Argument(NamedTuple):
    call: Callable[[Any], Any]
    value: Array
    whole: Array  # one of whole numbers


def of_solve(name: str, value: Array, whole: Array, objective: Any, method: str) -> Argument:
    settings = {"depth": 2, "eps": EPS, "t": T, "method": method}
    return Argument(lambda given: jo.solve(SPEC, objective, **(settings | {name: given})), value, whole)


def flow(net: Any = NET, cov: Any = COV, t: Any = (0.0, 1.0, 4.0), **settings: Any) -> Any:
    return jo.gradient_flow(net, cov, "jepa", t=t, features=FEATURES, **settings)


def train(x: Any, y: Any, **settings: Any) -> Any:
    return jo.train(NET, (x, y), "jepa", lr=0.01, steps=5, features=FEATURES, **settings)


EYE, ONES, TIMES = np.eye(3), np.ones(4), np.arange(5.0)
ARGUMENTS = {
    f"{name} of solve, {'layers' if objective != 'jepa' else method}": of_solve(name, value, whole, objective, method)
    for objective, method in (("jepa", "exact"), ("jepa", "tsit5"), ("jepa", "dop853"), (jo.JEPA(ema=1.0), "dop853"))
    for name, value, whole in (("eps", EPS, ONES), ("t", T, TIMES), ("t", ROWS, ROWS), ("v0", EPS, ONES))
    if name != "v0" or objective != "jepa"
} | {
    "lam": Argument(lambda a: jo.solve(jo.Spectrum(a, sigma2=SIGMA2), "mae", t=T, **PLAIN), LAM, ONES),
    "sigma2": Argument(lambda a: jo.solve(jo.Spectrum(LAM, sigma2=a), "mae", t=T, **PLAIN), SIGMA2, ONES),
    "rho": Argument(lambda a: jo.Spectrum(np.ones(4), rho=a), EPS, ONES),
    "eps of time_to_reach": Argument(lambda a: jo.time_to_reach(SPEC, "jepa", depth=2, eps=a, w=0.25), EPS, ONES),
    "w of time_to_reach": Argument(lambda a: jo.time_to_reach(SPEC, "jepa", w=a, **PLAIN), EPS, ONES),
    "eps of critical_time": Argument(lambda a: jo.critical_time(SPEC, "mae", depth=2, eps=a), EPS, ONES),
    "Sxx": Argument(lambda a: flow(cov=jo.Covariances(a, SYX, SXX)), SXX, EYE),
    "Syx": Argument(lambda a: flow(cov=jo.Covariances(SXX, a, SXX)), SYX, EYE),
    "Syy": Argument(lambda a: flow(cov=jo.Covariances(SXX, SYX, a)), SXX, EYE),
    "encoder": Argument(lambda a: flow(jo.LinearNetwork([a], EYE)), SYX, EYE),
    "predictor": Argument(lambda a: flow(jo.LinearNetwork([EYE], a)), SYX, EYE),
    "t of gradient_flow": Argument(lambda a: flow(t=a), T[:4], TIMES[:4]),
    "t of gradient_flow, exact": Argument(
        lambda a: jo.gradient_flow(
            jo.LinearNetwork.balanced(3, 2, 0.1), jo.Covariances(EYE, 0.5 * EYE), "jepa", t=a, method="exact"
        ),
        T[:4],
        TIMES[:4],
    ),
    "levels": Argument(lambda a: flow(levels=a), EPS[:3], ONES[:3]),
    "x of train": Argument(lambda a: train(a, X), X, np.rint(X)),
    "y of train, batches": Argument(lambda a: train(X, a, batch_size=4), X, np.rint(X)),
    "samples": Argument(lambda a: jo.Covariances.from_pairs(a, X), X, np.rint(X)),
    "w of crossing_times": Argument(lambda a: jo.crossing_times(np.arange(5.0), a, 0.5), ROWS, ROWS),
}


def guises(array: Array) -> dict[str, Any]:
    """The same numbers in every way that NumPy knows."""
    strided = np.zeros((*array.shape[:-1], 3 * array.shape[-1]))
    strided[..., 1::3] = array
    locked = array.copy()
    locked.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:].view(np.float64).reshape(array.shape)
    types = [np.float16, np.float32, np.longdouble, ">f8", ">f4"]
    return {
        "list": array.tolist(),
        "odd strides": strided[..., 1::3],
        "negative strides": array[..., ::-1].copy()[..., ::-1],
        "Fortran order": np.asfortranarray(array),
        "read-only": locked,
        "unaligned": unaligned,
        **{str(np.dtype(kind)): array.astype(kind) for kind in types},
    }


@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_kind_of_array_means_the_same(name: str, record: Records) -> None:
    call, value, whole = ARGUMENTS[name]
    integers = {str(np.dtype(kind)): whole.astype(kind) for kind in (np.int8, np.int64, ">i4")}
    if (whole >= 0).all():
        integers["uint8"] = whole.astype(np.uint8)
    constant = np.broadcast_to(value.flat[0], value.shape)
    cases = [(value, guises(value)), (whole, integers)]
    if value.ndim == 1 and name != "t of gradient_flow, exact":
        cases.append((constant.copy(), {"zero strides": constant}))
    for plain, variants in cases:
        expected = call(plain.astype(float))
        for kind, variant in variants.items():
            before = copy.deepcopy(variant)
            right = same(call(variant), expected) and np.array_equal(variant, before)
            print(kind, right)
            record(21, "arrays that change a result or are changed", not right, at_most=0)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arrays_that_hold_no_plain_numbers_are_refused(name: str, record: Records) -> None:
    call, value, _ = ARGUMENTS[name]
    holes = np.zeros(value.shape, bool)
    holes.flat[0] = True
    refused = {
        "masked": np.ma.masked_array(value, mask=holes),
        "unmasked": np.ma.masked_array(value),
        "objects": value.astype(object),
        "complex": value.astype(complex),
        "text": value.astype(str),
        "dates": value.astype("datetime64[s]"),
    }
    for kind, array in refused.items():
        try:
            call(array)
            taken = True
        except TypeError as error:
            taken = not str(error)
        print(kind, taken)
        record(21, "arrays without plain numbers that are taken", taken, at_most=0)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arrays_of_another_shape_are_refused_or_mean_the_same(name: str, record: Records) -> None:
    """One axis more, of length 1, and nothing at all."""
    call, value, _ = ARGUMENTS[name]
    expected = call(value)
    for array in (value[None], value[..., None], value[:0], np.empty((0, 0))):
        try:
            result = call(array)
        except ValueError as error:
            assert str(error)
            wrong = False
        else:
            # Times may be none, or those of the only feature; nothing else may be.
            wrong = not (array.size == 0 or same(result, expected))
        record(21, "arrays of another shape that mean something else", wrong, at_most=0)
