"""The ODE libraries that a Python user could integrate a network with, each as its own documentation would have it.

All evaluate the same products (`velocity`, THEORY.md 1), written so that nothing but products takes time, in double precision,
at the same tolerances and on as many threads (measure.pin_to_cpus), and return responses [n, m] and how many right-hand sides
they took.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flow_workload import TIMES, Network
from workload import Array

RTOL, ATOL = 1e-6, 1e-9


@dataclass(frozen=True)
class Answer:
    """Responses [n, m] and the number of right-hand sides that they took."""

    response: Array
    evaluations: int


@dataclass(frozen=True)
class Peer:
    """A solver of a network, by name, from output times to an answer; and what compiling it took."""

    name: str
    run: Callable[[Array], Answer]
    compile_seconds: float = 0.0


def blocks(net: Network) -> list[Array]:
    """Return the weights at the start, W^1, ..., W^L, V."""
    return [*net.start.encoder, net.start.predictor]


def velocity(weights: Sequence[Any], xx: Any, yx: Any, objective: str) -> list[Any]:
    """Return d/dt of W^1, ..., W^L, V, for matrices of any library."""
    *encoder, predictor = weights
    below = [encoder[0]]  # W^l ... W^1
    for layer in encoder[1:]:
        below.append(layer @ below[-1])
    target = below[-1] @ yx if objective == "jepa" else yx
    pull = target - predictor @ (below[-1] @ xx)
    moved = [pull @ below[-1].T]
    pull = predictor.T @ pull
    for k in range(len(encoder) - 1, 0, -1):
        moved.append(pull @ below[k - 1].T)
        pull = encoder[k].T @ pull
    return [pull, *moved[::-1]]


def encoded(weights: Sequence[Any], directions: Any) -> Any:
    """Return Wbar p_i for the columns p_i of the directions."""
    for layer in weights[:-1]:
        directions = layer @ directions
    return directions


def scipy_peers(net: Network) -> Iterator[Peer]:
    """SciPy on NumPy's products."""
    from scipy.integrate import solve_ivp

    start = np.stack(blocks(net))  # all of one shape in W2

    def rhs(_: float, state: Array) -> Array:
        return np.concatenate(velocity(state.reshape(start.shape), net.cov.Sxx, net.cov.Syx, net.objective), axis=None)

    def runner(method: str) -> Callable[[Array], Answer]:
        def run(t: Array) -> Answer:
            result = solve_ivp(rhs, (0.0, t[-1]), start.ravel(), method, t, rtol=RTOL, atol=ATOL)
            states = result.y.T.reshape(len(t), *start.shape)
            response = [np.linalg.norm(encoded(weights, net.directions), axis=0) for weights in states]
            return Answer(np.stack(response, axis=1), result.nfev)

        return run

    yield Peer("SciPy RK45", runner("RK45"))
    yield Peer("SciPy DOP853", runner("DOP853"))


def diffrax_peers(net: Network) -> Iterator[Peer]:
    """diffrax, compiled by XLA; responses are taken on the way, so that no weights are kept."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import diffrax
    import jax

    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy

    def integrate(t: Any, weights: Any, moments: Any, directions: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda _, w, p: velocity(w, *p, net.objective)),
            diffrax.Tsit5(),
            t0=0.0,
            t1=t[-1],
            dt0=None,
            y0=weights,
            args=moments,
            saveat=diffrax.SaveAt(ts=t, fn=lambda _, w, __: jnp.linalg.norm(encoded(w, directions), axis=0)),
            stepsize_controller=diffrax.PIDController(rtol=RTOL, atol=ATOL, pcoeff=0.2, icoeff=0.4),
            adjoint=diffrax.ForwardMode(),
            max_steps=10_000_000,
            throw=False,
        )
        return solution.ys, solution.stats["num_steps"]

    weights = [jnp.asarray(block) for block in blocks(net)]
    moments = (jnp.asarray(net.cov.Sxx), jnp.asarray(net.cov.Syx))
    rest = (weights, moments, jnp.asarray(net.directions))
    begin = time.perf_counter()
    compiled = jax.jit(integrate).lower(jnp.zeros(TIMES), *rest).compile()
    compile_seconds = time.perf_counter() - begin

    def run(t: Array) -> Answer:
        response, steps = compiled(jnp.asarray(t), *rest)
        return Answer(np.asarray(response).T, 6 * int(steps) + 2)  # the last stage is the first of the next step

    yield Peer("diffrax Tsit5", run, compile_seconds)


def torchdiffeq_peers(net: Network) -> Iterator[Peer]:
    """torchdiffeq on PyTorch's products."""
    import torch
    from torchdiffeq import odeint

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    start = tuple(torch.tensor(block) for block in blocks(net))
    xx, yx, directions = (torch.tensor(matrix) for matrix in (net.cov.Sxx, net.cov.Syx, net.directions))

    def run(t: Array) -> Answer:
        evaluations = 0

        def rhs(_: Any, weights: Any) -> Any:
            nonlocal evaluations
            evaluations += 1
            return tuple(velocity(weights, xx, yx, net.objective))

        with torch.no_grad():
            states = odeint(rhs, start, torch.tensor(t), rtol=RTOL, atol=ATOL, method="dopri5")
            response = torch.linalg.vector_norm(encoded(states, directions), dim=-2)
        return Answer(response.numpy().T, evaluations)

    yield Peer("torchdiffeq dopri5", run)


PACKAGES: dict[str, Callable[[Network], Iterator[Peer]]] = {
    "scipy": scipy_peers,
    "diffrax": diffrax_peers,
    "torchdiffeq": torchdiffeq_peers,
}
