"""The reference workload W2, gradient flows of whole networks.

``Sxx = A A^T/d + 0.1 I`` and ``Syx = Sxx^(1/2) R Sxx^(1/2)`` with R symmetric, its eigenvalues in [0.2, 0.95], in a random
basis (seeded); all layers of width d, a balanced start at eps = 1e-2; responses at 50 uniform times up to the horizon. At
short horizons most features have been learned, at ten times them all have, and rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

import jepa_ode as jo
from workload import Array

TIMES = 50
EPS = 1e-2
LONG = 10  # long horizons in short ones


@dataclass(frozen=True)
class Case:
    """An objective, the dimension of the data and of all layers, a depth and a short horizon, or ten times that."""

    objective: str
    d: int
    depth: int
    horizon: float
    long: bool = False

    def __str__(self) -> str:
        """Return the text that names the case in tables."""
        return f"{self.objective} d={self.d} L={self.depth} T={self.t[-1]:g}"

    @property
    def t(self) -> Array:
        """The output times."""
        return np.linspace(0, self.horizon * (LONG if self.long else 1), TIMES)

    @property
    def short(self) -> Case:
        """The same network up to the short horizon."""
        return replace(self, long=False)


@dataclass(frozen=True)
class Network:
    """What a solver needs to know, besides times: start, second moments, directions [d, n] of unit length."""

    objective: str
    start: jo.LinearNetwork
    cov: jo.Covariances
    features: jo.Spectrum
    directions: Array


def covariances(d: int) -> jo.Covariances:
    """Return those of W2."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((d, d))
    xx = a @ a.T / d + 0.1 * np.eye(d)
    values, vectors = np.linalg.eigh(xx)
    root = vectors * np.sqrt(values) @ vectors.T
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    yx = root @ (basis * rng.uniform(0.2, 0.95, d) @ basis.T) @ root
    return jo.Covariances(xx, (yx + yx.T) / 2, xx)


def network(case: Case) -> Network:
    """Return the network of a case, without Syy: the loss is nothing that the other solvers compute."""
    cov = replace(covariances(case.d), Syy=None)
    features = cov.spectrum()
    assert features.duals is not None
    directions = features.duals / np.linalg.norm(features.duals, axis=0)
    return Network(case.objective, jo.LinearNetwork.balanced(case.d, case.depth, EPS), cov, features, directions)
