"""Ensembles of features as random as the theory allows."""

from __future__ import annotations

from typing import Any

import numpy as np

import jepa_ode as jo


def random_ensemble(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """One depth and objective; features above, below and without a fixed point; times around the rise and anywhere."""
    objective = str(rng.choice(["jepa", "mae"]))
    depth = float(rng.integers(1, 65)) if rng.random() < 0.5 else float(64 ** rng.random())
    lam, sigma2 = 10 ** rng.uniform(-3, 3, (2, n))
    kind = rng.random(n)
    lam = np.where(kind < 0.12, -lam, np.where(kind < 0.15, 0.0, lam))
    spec = jo.Spectrum(lam, sigma2=sigma2)
    eps = 10 ** rng.uniform(-6, 1, n)
    rise = jo.critical_time(spec, objective, depth=depth, eps=eps)
    near = (rng.random(n) < 0.7) & (rise > 0) & (rise < 1e250)
    t = np.where(near, np.where(near, rise, 1) * 10 ** rng.uniform(-1, 0.5, n), 10 ** rng.uniform(-6, 8, n))
    return {"spec": spec, "objective": objective, "depth": depth, "eps": eps, "t": t[:, None]}
