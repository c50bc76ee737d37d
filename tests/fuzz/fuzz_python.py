"""The public solvers on random arguments, guided by coverage of the Python code (RELIABILITY.md 22): `make fuzz`.

Each call must end within the fuzzer's time limit, with a result whose values are numbers in their range wherever its
status is OK, or with an error that the documentation names. Warnings of overflow are let pass.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import sys
import warnings
from collections.abc import Callable
from typing import Any

import atheris

with atheris.instrument_imports(include=["jepa_ode"]):
    import jepa_ode as jo
    from jepa_ode import flow, learning, network, stability, targets, training  # noqa: F401  # to be instrumented

import numpy as np

_NUMBERS = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    2.0,
    3.0,
    5e-324,
    1e-308,
    1e-160,
    1e-16,
    1e16,
    1e160,
    1.79e308,
    math.inf,
    math.nan,
)
_ODD: tuple[Any, ...] = (
    None,
    "1",
    True,
    1j,
    [],
    {},
    "jepa",
    b"x",
    [[1.0], [2.0, 3.0]],
    np.ma.masked,
    10**400,
    object(),
)
_TYPES = (np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_, np.complex128, object, ">f8", "U4")


class Arguments:
    """Arguments drawn from bytes: in half of the cases of valid types, shapes and signs, of any size; else anything at all."""

    def __init__(self, data: atheris.FuzzedDataProvider) -> None:
        self._data = data
        self._wild = self.chance(2)

    def chance(self, one_in: int) -> bool:
        return bool(self._data.ConsumeIntInRange(1, one_in) == 1)

    def count(self, largest: int) -> int:
        return int(self._data.ConsumeIntInRange(0, largest))

    def choice(self, options: Any) -> Any:
        return options[self._data.ConsumeIntInRange(0, len(options) - 1)]

    def odd(self, plausible: Callable[[], Any]) -> Any:
        """Return what `plausible` gives, or now and then something that no argument should be."""
        return self.choice(_ODD) if self._wild and self.chance(30) else plausible()

    def number(self) -> float:
        kind = self._data.ConsumeIntInRange(0, 19)
        if kind == 0 and self._wild:
            return float(self.choice(_NUMBERS))
        if kind == 1:
            any_number = float(self._data.ConsumeFloat())
            return any_number if self._wild else min(max(abs(any_number), 5e-324), 1.79e308)
        if kind == 2:
            return float(10.0 ** self._data.ConsumeIntInRange(-300, 300))
        return self._data.ConsumeIntInRange(1, 2**16) / 2**12  # up to 16

    def real(self) -> Any:
        return self.odd(self.number)

    def depth(self) -> Any:
        return self.odd(lambda: self.choice((1, 2, 3, 5, 1.5, 2.25, 64, 1e3, math.inf, self.number())))

    def array(self, *shape: int) -> Any:
        """Return an array of the shape, of any type and layout, or a number that stands for it."""
        if self._wild:
            if self.chance(12):
                return self.real()
            shape = tuple(max(k + self._data.ConsumeIntInRange(-1, 1), 0) if self.chance(30) else k for k in shape)
        values = np.array([self.number() for _ in range(math.prod(shape))], dtype=float).reshape(shape)
        if self._wild and self.chance(10):
            with np.errstate(all="ignore"):
                values = values.astype(self.choice(_TYPES))
        if self.chance(10):
            values = values[::-1] if values.ndim else values
        if self.chance(10):
            values = np.asfortranarray(values)
        return values

    def matrix(self, rows: int, columns: int) -> Any:
        """Return entries of both signs and similar sizes."""
        if self._wild and self.chance(4):
            return self.array(rows, columns)
        entries = np.array([self._data.ConsumeIntInRange(-500, 500) for _ in range(rows * columns)], dtype=float)
        scale = abs(self.number()) if self.chance(4) else 1.0
        with np.errstate(all="ignore"):
            return entries.reshape(rows, columns) * (scale / 250)

    def times(self, n: int, rows: bool = True) -> Any:
        t = self.array(*((n, self.count(4)) if rows and self.chance(4) else (self.count(5),)))
        if isinstance(t, np.ndarray) and t.dtype.kind == "f" and not (self._wild and self.chance(10)):
            t = np.sort(np.abs(t), axis=-1)
        return self.odd(lambda: t)

    def objective(self, plain: bool = False) -> Any:
        if plain or self.chance(2):
            return self.odd(lambda: self.choice(("jepa", "mae")))
        if self.chance(3):
            return jo.MAE(weight_decay=self.real())
        decay = self.real() if self.chance(2) else 0.0
        if self.chance(3):
            return jo.JEPA(stop_gradient=self.odd(lambda: False), weight_decay=decay)
        return jo.JEPA(ema=self.real() if self.chance(2) else None, weight_decay=decay)

    def schedule(self) -> Any:
        kind = self.count(15)
        if kind == 0:
            return jo.Schedule.constant(self.real())
        if kind == 1:
            return jo.Schedule.warmup(self.real(), self.real(), self.real())
        if kind == 2:
            return jo.Schedule.cosine(self.real(), self.real(), self.real(), self.real())
        if kind == 3:
            k = 1 + self.count(3)
            return jo.Schedule.table(np.append(0.0, np.cumsum(self.array(k))), self.array(k + 1))
        return self.odd(lambda: None)

    def spectrum(self) -> jo.Spectrum:
        n = self.count(12)
        sigma2_y = self.array(n) if self.chance(2) else None
        if self.chance(3):
            return jo.Spectrum(self.array(n), rho=self.array(n), sigma2_y=sigma2_y)
        lam, signs = self.array(n), [self.choice((-1, 0, 1, 1, 1)) for _ in range(n)]
        if isinstance(lam, np.ndarray) and lam.shape == (n,) and lam.dtype == float:
            lam = lam * signs
        return jo.Spectrum(lam, sigma2=self.array(n), sigma2_y=sigma2_y)

    def covariances(self, d: int) -> jo.Covariances:
        x, y = self.matrix(2 * d + 1, d), self.matrix(2 * d + 1, d)
        if self._wild and self.chance(2):
            return jo.Covariances(self.matrix(d, d), self.matrix(d, d), self.matrix(d, d) if self.chance(2) else None)
        return jo.Covariances.from_pairs(x, y if self._wild or self.chance(2) else x + y)

    def network(self, d: int, kind: str) -> jo.LinearNetwork:
        depth = 1 + self.count(2)
        widths = [1 + self.count(3) for _ in range(depth)]
        if self.chance(3):
            return jo.LinearNetwork.balanced(
                d, depth, self.odd(lambda: self.array(d)), v0=self.choice((None, self.real()))
            )
        if self.chance(2):
            return jo.LinearNetwork.random(d, depth, self.real(), rng=self.count(9), widths=widths, objective=kind)
        sizes = [d, *widths]
        layers = [self.matrix(rows, columns) for columns, rows in itertools.pairwise(sizes)]
        return jo.LinearNetwork(layers, self.matrix(d if kind == "mae" else sizes[-1], sizes[-1]))


def require(condition: Any, what: str) -> None:
    if not condition:
        raise AssertionError(what)


def kind_of(objective: Any) -> str:
    return "mae" if objective == "mae" or isinstance(objective, jo.MAE) else "jepa"


def finite(values: Any) -> bool:
    return bool(np.isfinite(values).all())


def solve(a: Arguments) -> None:
    spec, objective = a.spectrum(), a.objective()
    n = len(spec)
    sol = jo.solve(
        spec,
        objective,
        depth=a.depth(),
        eps=a.array(n),
        t=a.times(n),
        method=a.odd(lambda: a.choice((None, None, None, "exact", "tsit5", "dop853"))),
        rtol=a.odd(lambda: 10.0 ** -(1 + a.count(12))),
        atol=a.real() if a.chance(3) else 0.0,
        threads=a.odd(lambda: a.choice((None, 1, 2))),
        time_unit=a.odd(lambda: a.choice(("flow", "rescaled"))),
        v0=a.array(n) if a.chance(4) else None,
        schedule=a.schedule(),
        max_steps=a.odd(lambda: 1 + a.count(3000)),
        dtype=a.odd(lambda: a.choice((None, np.float64, np.float32))),
    )
    ok = sol.status == jo.Status.OK
    require(finite(sol.w[ok]) and (sol.w[ok] >= 0).all(), "an OK response is a non-negative number")
    require(all(x is None or finite(x[ok]) for x in (sol.predictor, sol.target)), "an OK layer is a number")
    if a.chance(4):
        sol.critical_time(a.count(98) / 100 + 0.01)
    if a.chance(4) and sol.v0 is None:
        derivatives = sol.sensitivity(threads=1)
        require(derivatives.t.shape == sol.w.shape, "a derivative of each response")
    if a.chance(8):
        sol.at(a.times(n))


def theory(a: Arguments) -> None:
    spec = a.spectrum()
    n = len(spec)
    depth, plain, eps = a.depth(), a.objective(plain=True), a.array(n)
    kind = a.count(5)
    if kind == 0:
        require((jo.fixed_point(spec, plain, depth=depth) >= 0).all(), "fixed points are not negative")
    elif kind == 1:
        times = jo.time_to_reach(spec, plain, depth=depth, eps=eps, w=a.array(n), schedule=a.schedule())
        require((times >= 0).all(), "times are not negative")
    elif kind == 2:
        method = a.odd(lambda: a.choice(("exact", "leading")))
        times = jo.critical_time(
            spec,
            plain,
            depth=depth,
            eps=eps,
            fraction=a.odd(lambda: a.count(98) / 100 + 0.01),
            method=method,
            schedule=a.schedule(),
        )
        require(method != "exact" or (times >= 0).all(), "times are not negative")
    elif kind == 3:
        jo.learning_order(spec, plain, depth=depth, eps=eps)
    elif kind == 4:
        points = jo.fixed_points(spec, a.objective(), depth=depth)
        require(points.response.shape == (n, 3), "three rows of points")
    else:
        jo.weight_decay_threshold(spec, a.objective(), depth=depth, eps=eps if a.chance(2) else None)


def gradient_flow(a: Arguments) -> None:
    d, objective = 1 + a.count(3), a.objective()
    done = jo.gradient_flow(
        a.network(d, kind_of(objective)),
        a.covariances(d),
        objective,
        t=a.times(0, rows=False),
        method=a.odd(lambda: a.choice(("auto", "tsit5", "dop853", "rock4", "exact"))),
        rtol=a.odd(lambda: 10.0 ** -(1 + a.count(12))),
        atol=a.real() if a.chance(3) else 1e-9,
        max_steps=a.odd(lambda: 1 + a.count(1000)),
        schedule=a.schedule(),
        predictor_rate=a.real() if a.chance(4) else 1.0,
        coordinates=a.odd(lambda: a.choice(("data", "features"))),
        observe=a.odd(lambda: a.choice(((), "balancedness", "singular_values", "effective_rank"))),
        levels=a.array(d) if a.chance(4) else None,
        stop_when=a.choice((None, None, "crossed", "steady")),
        steady_tol=a.real() if a.chance(4) else 1e-6,
        plateau_tol=a.real() if a.chance(4) else None,
        keep_weights=a.chance(4),
    )
    if done.status == jo.Status.OK:
        require(finite(done.response), "responses of an OK flow are numbers")
        require(done.final is not None, "an OK flow ends in a network")


def train(a: Arguments) -> None:
    d, objective = 1 + a.count(3), a.objective()
    done = jo.train(
        a.network(d, kind_of(objective)),
        (a.matrix(9, d), a.matrix(9, d)) if a.chance(2) else a.covariances(d),
        objective,
        optimizer=a.odd(lambda: a.choice(("gd", "sgd", "momentum", "nesterov", "adam", "adamw"))),
        lr=a.real(),
        steps=a.odd(lambda: a.count(40)),
        batch_size=a.odd(lambda: 1 + a.count(9)) if a.chance(2) else None,
        shuffle=a.odd(lambda: a.chance(2)),
        momentum=a.real() if a.chance(20) else None,
        betas=a.odd(lambda: (a.real(), a.real())) if a.chance(20) else None,
        adam_eps=a.real() if a.chance(20) else None,
        predictor_rate=a.real() if a.chance(4) else 1.0,
        schedule=a.schedule(),
        snapshots=a.odd(lambda: a.choice((2, 50, [0]))),
        keep_weights=a.chance(4),
        threads=a.odd(lambda: a.choice((None, 1, 2))),
    )
    if done.success:
        require(done.final is not None, "training that succeeds ends in a network")


_DOCUMENTED = (ValueError, TypeError, MemoryError)
_CALLS = (solve, solve, theory, gradient_flow, train)


def one_input(data: bytes) -> None:
    # Numbers are taken from the end. Those that a short input lacks are random, not zeros all along.
    arguments = Arguments(atheris.FuzzedDataProvider(random.Random(data).randbytes(4096) + data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(*_DOCUMENTED):
            arguments.choice(_CALLS)(arguments)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
