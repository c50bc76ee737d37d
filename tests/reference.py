"""The feature equations as THEORY.md 2 writes them: short, slow, obviously right. What the engine is tested against."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.integrate import solve_ivp

Array = npt.NDArray[np.float64]


def layer_velocity(u: Any, lam: Any, sigma2: Any, depth: float, objective: str) -> Any:
    """du/dt of the per-layer variable u = w^(1/L)."""
    if objective == "jepa":
        return u ** (2 * depth) * (lam - sigma2 * u)
    return u**depth * (lam - sigma2 * u ** (depth + 1))


def response_velocity(w: Any, lam: Any, sigma2: Any, depth: float, objective: str) -> Any:
    """dw/dt of the encoder response, the raw gradient flow."""
    growth = w ** (3 - 1 / depth) if objective == "jepa" else w ** (2 - 1 / depth)
    return depth * (lam * growth - sigma2 * w**3)


def fixed_point(lam: Any, sigma2: Any, depth: float, objective: str) -> Any:
    rho = np.maximum(lam, 0) / sigma2
    return rho**depth if objective == "jepa" else rho ** (depth / (depth + 1))


def scipy_solution(lam: Any, sigma2: Any, eps: Any, depth: float, objective: str, t: Any, **options: Any) -> Array:
    """Responses [n, m] by SciPy, one feature at a time."""
    rows = []
    for one_lam, one_sigma2, one_eps in np.broadcast(lam, sigma2, eps):
        run = solve_ivp(
            lambda _, u, a=one_lam, b=one_sigma2: layer_velocity(u, a, b, depth, objective),
            (0.0, float(np.max(t))),
            [one_eps ** (1 / depth)],
            t_eval=t,
            **{"method": "DOP853", "rtol": 1e-12, "atol": 1e-300} | options,
        )
        assert run.success, run.message
        rows.append(run.y[0] ** depth)
    return np.array(rows)


def layer_error(w: Any, w_ref: Any, t: Any, lam: Any, sigma2: Any, depth: float, objective: str) -> Array:
    """E = |u - u_ref| / (|u_ref| + t |u'(u_ref)|), the measure of THEORY.md 3, in logarithms: nothing overflows."""
    with np.errstate(all="ignore"):
        log_u = np.log(w_ref) / depth
        relative = np.abs(np.expm1(np.log1p((w - w_ref) / w_ref) / depth))  # logarithms have fewer digits than w
        p, q = (2 * depth, 1) if objective == "jepa" else (depth, depth + 1)
        log_clock = (p - 1) * log_u + np.log(t)  # t |u'| / u is exp(log_clock) |lam - sigma2 u^q|
        gap = np.abs(np.sign(lam) - np.exp(np.log(sigma2) - np.log(np.abs(lam)) + q * log_u))
        pull = np.where(lam == 0, np.log(sigma2) + q * log_u, np.log(np.abs(lam)) + np.log(gap))
        # A gap that is rounding means rest: times a late t it would forgive every error.
        balance = np.where(gap < 1e-12, 0.0, np.exp(log_clock + pull))
        return np.where(w == w_ref, 0.0, relative / (1 + balance))


def layer_velocity_of(y: Any, feature: Any, depth: float, objective: Any) -> Array:
    """d(a, v, b)/dt of the three-scalar system (THEORY.md 2); ``feature`` holds lambda, sigma_x^2 and sigma_y^2."""
    a, v, b = y
    lam, sigma2, sigma2_y = feature

    def power(x: float) -> float:
        return x * abs(x) ** (depth - 1)

    jepa = objective.name == "jepa"
    tau = objective.ema if jepa else None
    target = power(a if tau is None else b) if jepa else 1.0
    e = v * power(a) * sigma2 - lam * target
    g = v * e
    if jepa and not objective.stop_gradient:
        g += power(a) * sigma2_y - v * power(a) * lam
    eta = objective.weight_decay
    return np.array(
        [
            -(abs(a) ** (depth - 1)) * g - eta * a,
            -e * power(a) - eta * v,
            0.0 if tau is None else (a - b) / tau,
        ]
    )


def scipy_layers(feature: Any, eps: float, v0: float | None, depth: float, objective: Any, t: Any) -> Array:
    """The layers [3, m] of one feature by SciPy.

    Between the ends of its steps DOP853 errs more than at them, at this tolerance by 2e-11: the steps are kept short.
    """
    a0 = eps ** (1 / depth)
    run = solve_ivp(
        lambda _, y: layer_velocity_of(y, feature, depth, objective),
        (0.0, float(np.max(t))),
        [a0, a0 if v0 is None else v0, a0],
        t_eval=t,
        method="DOP853",
        rtol=2.5e-14,
        atol=1e-20,
        max_step=float(np.max(t)) / 500,
    )
    assert run.success, run.message
    return run.y
