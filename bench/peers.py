"""The solvers that a Python user could pick instead, each in the best configuration that we found for it.

All integrate the per-layer variable ``u = w^(1/L)`` (THEORY.md 2) with products for its powers, start from the same arrays,
run on one CPU and return a fresh array of ``w`` [n, m] (any memory order). Compilation happens in the first call.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from workload import Array, Workload

Run = Callable[[float], Array]  # from a relative tolerance to responses

TINY = 1e-300  # absolute tolerance: none
SMALLEST_RTOL = 1e-15  # to try: a norm over a whole system lets single features err by far more than the tolerance
BATCH = 64  # lanes of heyoka, chunk of diffrax's vmap: best of 8 to 256 here


@dataclass(frozen=True)
class Peer:
    """A solver of a workload, by name."""

    name: str
    run: Run


def power(u: Any, exponent: int) -> Any:
    """Return ``u**exponent`` by repeated squaring, for anything that can be multiplied."""
    result = None
    while exponent:
        if exponent & 1:
            result = u if result is None else result * u
        exponent >>= 1
        if exponent:
            u = u * u
    return result


def velocity(work: Workload) -> Callable[[Any, Any, Any], Any]:
    """Return ``du/dt`` as a function of ``u``, lambda and sigma^2 (THEORY.md 2)."""
    depth = work.case.depth

    def jepa(u: Any, lam: Any, sigma2: Any) -> Any:
        v = power(u, depth)
        return v * v * (lam - sigma2 * u)

    def mae(u: Any, lam: Any, sigma2: Any) -> Any:
        v = power(u, depth)
        return v * (lam - sigma2 * v * u)

    return jepa if work.case.objective == "jepa" else mae


def scipy_peers(work: Workload) -> Iterator[Peer]:
    """SciPy: all features as one system; LSODA is told that the Jacobian is diagonal."""
    from scipy.integrate import solve_ivp

    lam, sigma2, depth = work.spec.lam, work.spec.sigma2, work.case.depth
    du = velocity(work)
    start = np.full(len(work.spec), work.start)

    def runner(method: str, **options: Any) -> Run:
        def run(rtol: float) -> Array:
            with np.errstate(over="ignore", invalid="ignore"):  # steps too long, which it then rejects
                result = solve_ivp(
                    lambda _, u: du(u, lam, sigma2),
                    (0.0, work.t[-1]),
                    start,
                    method=method,
                    t_eval=work.t,
                    rtol=max(rtol, 2.3e-14),  # below, it warns and takes this
                    atol=TINY,
                    **options,
                )
            if not result.success:
                return np.full((len(start), len(work.t)), np.nan)
            return np.asarray(power(result.y, depth))

        return run

    yield Peer("SciPy DOP853, one system", runner("DOP853"))
    yield Peer("SciPy LSODA, one system", runner("LSODA", lband=0, uband=0))


def diffrax_peers(work: Workload) -> Iterator[Peer]:
    """diffrax, compiled by XLA for one CPU: all features as one system, and one by one under vmap."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import diffrax
    import jax

    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy
    du, depth = velocity(work), work.case.depth
    lam, sigma2, t = map(jnp.asarray, (work.spec.lam, work.spec.sigma2, work.t))
    start = jnp.full(len(work.spec), work.start)

    def integrate(solver: Any, u0: Any, parameters: Any, rtol: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda _, u, p: du(u, *p)),
            solver,
            t0=0.0,
            t1=t[-1],
            dt0=None,
            y0=u0,
            args=parameters,
            saveat=diffrax.SaveAt(ts=t),
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=TINY, pcoeff=0.2, icoeff=0.4),
            adjoint=diffrax.ForwardMode(),
            max_steps=200_000,
            throw=False,
        )
        return power(solution.ys, depth)

    def system(solver: Any) -> Run:
        compiled = jax.jit(lambda rtol: integrate(solver, start, (lam, sigma2), rtol))
        return lambda rtol: np.asarray(compiled(rtol)).T

    def one_by_one(solver: Any) -> Run:
        def all_features(rtol: Any) -> Any:
            return jax.lax.map(
                lambda feature: integrate(solver, feature[0], feature[1:], rtol),
                (start, lam, sigma2),
                batch_size=BATCH,
            )

        compiled = jax.jit(all_features)
        return lambda rtol: np.asarray(compiled(rtol))

    yield Peer("diffrax Tsit5, one system", system(diffrax.Tsit5()))
    yield Peer("diffrax Dopri8, one system", system(diffrax.Dopri8()))
    yield Peer("diffrax Dopri8, vmap", one_by_one(diffrax.Dopri8()))


def heyoka_peers(work: Workload) -> Iterator[Peer]:
    """heyoka's Taylor method in batches: its own output on a grid, and steps with output written by hand (numba)."""
    import heyoka

    case, n = work.case, len(work.spec)
    u = heyoka.make_vars("u")
    du = velocity(work)(u, heyoka.par[0], heyoka.par[1])
    integrators: dict[float, Any] = {}

    def integrator(tol: float) -> Any:
        if tol not in integrators:
            integrators[tol] = heyoka.taylor_adaptive_batch(
                [(u, du)], np.full((1, BATCH), work.start), pars=np.ones((2, BATCH)), tol=tol
            )
        return integrators[tol]

    def batches(ta: Any) -> Iterator[slice]:
        for begin in range(0, n, BATCH):
            batch = slice(begin, min(begin + BATCH, n))
            count = batch.stop - begin
            ta.set_time(0.0)
            ta.state[:] = work.start
            ta.pars[0, :count], ta.pars[1, :count] = work.spec.lam[batch], work.spec.sigma2[batch]
            yield batch

    times = np.ascontiguousarray(np.broadcast_to(work.t[:, None], (len(work.t), BATCH)))

    def grid(tol: float) -> Array:
        ta, w = integrator(tol), np.empty((n, len(work.t)))
        for batch in batches(ta):
            states = ta.propagate_grid(times)[-1][:, 0, : batch.stop - batch.start]
            w[batch] = power(states, case.depth).T
        return w

    yield Peer("heyoka batch, its grid", grid)
    import numba

    @numba.njit(error_model="numpy")
    def output(coefficients: Any, now: Any, step: Any, t: Any, position: Any, w: Any, depth: int) -> int:
        """Write what the last step covered, return how many features are not at the end."""
        order, left = coefficients.shape[0], 0
        c = np.empty(order)
        for lane in range(w.shape[0]):
            k, start = position[lane], now[lane] - step[lane]
            if k < t.size and t[k] <= now[lane]:
                for j in range(order):
                    c[j] = coefficients[order - 1 - j, lane]
                while k < t.size and t[k] <= now[lane]:
                    value = c[0]
                    for j in range(1, order):
                        value = value * (t[k] - start) + c[j]
                    result = value
                    for _ in range(depth - 1):
                        result *= value
                    w[lane, k] = result
                    k += 1
                position[lane] = k
            left += k < t.size
        return left

    def by_hand(tol: float) -> Array:
        ta, w = integrator(tol), np.empty((n, len(work.t)))
        coefficients, now, step = ta.tc[0], ta.time, ta.last_h  # views of the integrator's memory
        for batch in batches(ta):
            position = np.zeros(BATCH, dtype=np.int64)
            left = 1
            while left:
                ta.step(True)
                if not np.isfinite(now[0]):
                    return np.full_like(w, np.nan)
                left = output(coefficients, now, step, work.t, position, w[batch], case.depth)
        return w

    yield Peer("heyoka batch, steps and output by hand", by_hand)


def numbalsoda_peers(work: Workload) -> Iterator[Peer]:
    """numbalsoda: one feature after the other, right-hand side and loop compiled by numba."""
    import numba
    from numbalsoda import dop853, lsoda, lsoda_sig

    depth, jepa, u0 = work.case.depth, work.case.objective == "jepa", work.start
    lam, sigma2, t = work.spec.lam, work.spec.sigma2, work.t

    @numba.cfunc(lsoda_sig)
    def rhs(_: Any, u: Any, du: Any, p: Any) -> None:
        v = u[0]
        for _ in range(depth - 1):
            v *= u[0]
        if jepa:
            du[0] = v * v * (p[0] - p[1] * u[0])
        else:
            du[0] = v * (p[0] - p[1] * v * u[0])

    address = rhs.address

    def runner(solver: Any) -> Run:
        @numba.njit
        def all_features(rtol: float, w: Any) -> None:
            p, u = np.empty(2), np.empty(1)
            for i in range(lam.size):
                p[0], p[1], u[0] = lam[i], sigma2[i], u0
                values, success = solver(address, u, t, p, rtol, TINY, 1_000_000)
                for k in range(t.size):
                    result = values[k, 0] if success else np.nan
                    for _ in range(depth - 1):
                        result *= values[k, 0]
                    w[i, k] = result

        def run(rtol: float) -> Array:
            w = np.empty((lam.size, t.size))
            with quiet():
                all_features(rtol, w)
            return w

        return run

    yield Peer("numbalsoda lsoda, one by one", runner(lsoda))
    yield Peer("numbalsoda dop853, one by one", runner(dop853))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send what compiled code prints (numbalsoda's remarks on stiffness) nowhere."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


PACKAGES: dict[str, Callable[[Workload], Iterator[Peer]]] = {
    "scipy": scipy_peers,
    "diffrax": diffrax_peers,
    "heyoka": heyoka_peers,
    "numbalsoda": numbalsoda_peers,
}
HINTS = {"numbalsoda": "it has no wheel for this Python, and its source needs a Fortran compiler"}


def gather(work: Any, packages: Mapping[str, Callable[[Any], Iterable[Any]]]) -> tuple[list[Any], dict[str, str]]:
    """Return what each package makes of a workload, and why a package is missing."""
    found: list[Any] = []
    missing: dict[str, str] = {}
    for package, make in packages.items():
        try:
            found += make(work)
        except ImportError as error:
            missing[package] = HINTS.get(package, str(error))
    return found, missing


def peers(work: Workload, packages: tuple[str, ...] = tuple(PACKAGES)) -> tuple[list[Peer], dict[str, str]]:
    """Return the solvers of a workload, and why a package of them is missing."""
    return gather(work, {package: PACKAGES[package] for package in packages})


def versions(packages: Iterable[str] = (*PACKAGES, "jax", "numba", "llvmlite")) -> dict[str, str]:
    """Return the versions of the packages that are installed: by default the peers and what compiles them."""
    result = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            result[package] = importlib.metadata.version(package)
    return result
