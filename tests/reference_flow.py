"""The matrix flow of THEORY.md 1 and 6, written as there: the executable specification of the engine.

Short, slow, obviously right. ``W`` is the list ``[W^1, ..., W^L]``, ``B`` the target's layers.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp


def product(layers: list[np.ndarray]) -> np.ndarray:
    """``W^L ... W^1``."""
    return reduce(lambda below, layer: layer @ below, layers)


def velocity(
    W: list[np.ndarray],
    V: np.ndarray,
    cov: Any,
    objective: Any,
    B: list[np.ndarray] | None = None,
) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray]]:
    """``dW^l/dt``, ``dV/dt`` and ``dB^l/dt`` (THEORY.md 1)."""
    depth, d = len(W), W[0].shape[1]
    Wbar = product(W)
    jepa = objective.name == "jepa"
    ema = objective.ema if jepa else None
    if jepa:
        target = Wbar if ema is None else product(B)
        E = V @ Wbar @ cov.Sxx - target @ cov.Syx
    else:
        E = V @ Wbar @ cov.Sxx - cov.Syx
    gradient = V.T @ E  # of the loss with respect to Wbar
    if jepa and not objective.stop_gradient:
        gradient = gradient - (V @ Wbar @ cov.Syx.T - Wbar @ cov.Syy)

    eta = objective.weight_decay
    dV = -E @ Wbar.T - eta * V
    dW = []
    for k in range(depth):
        above = product([np.eye(W[k].shape[0]), *W[k + 1 :]])
        below = product([np.eye(d), *W[:k]])
        dW.append(-above.T @ gradient @ below.T - eta * W[k])
    dB = [] if ema is None else [(layer - target) / ema for layer, target in zip(W, B, strict=True)]
    return dW, dV, dB


def loss(
    W: list[np.ndarray],
    V: np.ndarray,
    cov: Any,
    objective: Any,
    B: list[np.ndarray] | None = None,
    *,
    target: np.ndarray | None = None,
) -> float:
    """``1/2 E |V Wbar x - target|^2``; ``target`` as a matrix stands for a stopped gradient."""
    if target is None:
        mae = objective.name == "mae"
        target = np.eye(cov.Syx.shape[0]) if mae else product(W if objective.ema is None else B)
    P = V @ product(W)
    return float(
        0.5 * np.trace(P @ cov.Sxx @ P.T)
        - np.trace(P @ cov.Syx.T @ target.T)
        + 0.5 * np.trace(target @ cov.Syy @ target.T)
    )


def pack(W: list[np.ndarray], V: np.ndarray, B: list[np.ndarray] | None = None) -> np.ndarray:
    """The state as one vector: ``W^1, ..., W^L, V, B^1, ..., B^L``, row after row."""
    return np.concatenate([block.ravel() for block in [*W, V, *(B or [])]])


def unpack(
    state: np.ndarray, W: list[np.ndarray], V: np.ndarray, ema: bool = False
) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray]]:
    """Undo :func:`pack`; ``W`` and ``V`` give the shapes."""
    shapes = [block.shape for block in [*W, V, *(W if ema else [])]]
    ends = np.cumsum([rows * columns for rows, columns in shapes])
    parts = np.split(state, ends[:-1])
    blocks = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    return blocks[: len(W)], blocks[len(W)], blocks[len(W) + 1 :]


def feature_velocity(
    W: list[np.ndarray], V: np.ndarray, rho: np.ndarray, M: np.ndarray, objective: Any
) -> tuple[list[np.ndarray], np.ndarray]:
    """The coupled feature equations (THEORY.md 6): ``W[0]`` is ``W^1 P``, and for MAE ``V`` is ``Q^T V``."""
    depth = len(W)
    C = product(W)
    if objective.name == "jepa":
        e = V @ C - C * rho
        G = V.T @ e
    else:
        e = V @ C - np.diag(rho)
        G = V.T @ M @ e
    dW = []
    for k in range(depth):
        above = product([np.eye(W[k].shape[0]), *W[k + 1 :]])
        if k == 0:
            dW.append(-above.T @ G @ M)
        else:
            dW.append(-above.T @ G @ product(W[:k]).T)
    return dW, -e @ C.T


def feature_system(
    t: np.ndarray,
    *,
    lam: float,
    sigma2: float,
    sigma2_y: float,
    depth: int,
    objective: Any,
    eps: float,
) -> np.ndarray:
    """Encoder response at times ``t`` by the three-scalar system of THEORY.md 2, from the balanced start."""
    jepa = objective.name == "jepa"
    ema = objective.ema if jepa else None
    eta = objective.weight_decay

    def right_hand_side(_: float, state: np.ndarray) -> list[float]:
        a, v, b = state
        target = 1.0 if not jepa else (a if ema is None else b) ** depth
        e = v * a**depth * sigma2 - lam * target
        g = v * e
        if jepa and not objective.stop_gradient:
            g += a**depth * sigma2_y - v * a**depth * lam
        da = -(a ** (depth - 1)) * g - eta * a
        dv = -e * a**depth - eta * v
        return [da, dv, 0.0 if ema is None else (a - b) / ema]

    u0 = eps ** (1 / depth)
    end = float(np.max(t))
    solution = solve_ivp(right_hand_side, (0, end), [u0] * 3, method="DOP853", rtol=1e-13, atol=1e-15, t_eval=t)
    assert solution.success
    return solution.y[0] ** depth
