"""What a fresh installation with nothing but NumPy must do: `make dist` runs it in an empty environment."""

from __future__ import annotations

import importlib.metadata
import math


def main() -> None:
    """Solve, compare with the closed form of a depth-1 MAE, and show the build."""
    import numpy as np

    import jepa_ode as jo

    spectrum = jo.Spectrum(np.array([2.0, 0.5]), sigma2=np.array([1.0, 0.25]))
    t = np.array([0.0, 0.7, 2.0, 1e3])
    eps = 0.01
    solution = jo.solve(spectrum, "mae", depth=1, eps=eps, t=t)

    # THEORY.md 3 at p = 1, q = 2: u' = lambda u - sigma^2 u^3, a Bernoulli equation.
    lam, sigma2 = spectrum.lam[:, None], spectrum.sigma2[:, None]
    exact = 1 / np.sqrt(sigma2 / lam + (1 / eps**2 - sigma2 / lam) * np.exp(-2 * lam * t))
    assert solution.success, solution.message
    assert np.allclose(solution.w, exact, rtol=1e-14, atol=0), (solution.w, exact)
    assert math.isclose(jo.fixed_point(spectrum, "jepa", depth=2)[0], 4.0, rel_tol=1e-14)

    info = jo.build_info()
    assert info["version"] == importlib.metadata.version("jepa-ode")
    files = importlib.metadata.files("jepa-ode") or []
    assert any("eigen/COPYING.MPL2" in str(file) for file in files), "Eigen's licence is missing"
    for key, value in info.items():
        print(f"{key:15} {value}")


if __name__ == "__main__":
    main()
