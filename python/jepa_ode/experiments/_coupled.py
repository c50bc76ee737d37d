"""Data on which nothing is aligned: random features whose patterns are not orthogonal."""

from __future__ import annotations

import numpy as np

from ..covariances import Covariances
from ..models import StaticModel
from ..spectrum import Spectrum

__all__ = ["LAMBDA", "coupled_data"]

LAMBDA = (0.5, 2.0)


def coupled_data(n: int, rho: tuple[float, float], tilt: float, rng: np.random.Generator) -> Covariances:
    """Return the covariances of n features, lambda log-uniform in `LAMBDA` and rho uniform, see `StaticModel.tilted`."""
    lam = np.exp(rng.uniform(np.log(LAMBDA[0]), np.log(LAMBDA[1]), n))
    spec = Spectrum(lam, rho=rng.uniform(rho[0], rho[1], n))
    return StaticModel.tilted(spec, tilt=tilt, rng=rng).covariances()
