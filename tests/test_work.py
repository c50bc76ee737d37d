"""How many evaluations solvers take on fixed problems: what a change of control, tables or starting steps costs shows here.

The numbers are those of today. A change that moves them is to say so, and why. Instruction sets round differently: the
scalar equations then differ in a step of ten thousand, flows of MAE near the limit of stability in one of fifty.
"""

from __future__ import annotations

import numpy as np
import pytest

import jepa_ode as jo
from test_coupled import exchangeable_cov

FEATURES = {
    ("tsit5", "jepa"): {1e-3: 78_010, 1e-6: 224_626, 1e-10: 1_258_768},
    ("tsit5", "mae"): {1e-3: 135_994, 1e-6: 372_502, 1e-10: 2_033_734},
    ("dop853", "jepa"): {1e-3: 104_632, 1e-6: 180_904, 1e-10: 464_824},
    ("dop853", "mae"): {1e-3: 187_648, 1e-6: 309_592, 1e-10: 762_880},
}


def spectrum(n: int) -> jo.Spectrum:
    """Return n features of all kinds."""
    rng = np.random.default_rng(0)
    return jo.Spectrum(lam=10 ** rng.uniform(-2, 1, n), rho=rng.uniform(0.05, 0.95, n))


@pytest.mark.parametrize(("method", "objective"), FEATURES)
def test_features(method: str, objective: str) -> None:
    for rtol, evaluations in FEATURES[method, objective].items():
        t = np.geomspace(1, 1e4, 20)
        sol = jo.solve(spectrum(1000), objective, depth=3, eps=0.01, t=t, method=method, rtol=rtol)
        assert sol.success
        assert int(sol.nfev.sum()) == pytest.approx(evaluations, rel=5e-4)


@pytest.mark.parametrize(
    ("objective", "evaluations"),
    [(jo.JEPA(ema=0.3), 29_878), (jo.JEPA(weight_decay=1e-3), 52_762)],
    ids=["ema", "decay"],
)
def test_layer_systems(objective: jo.JEPA, evaluations: int) -> None:
    sol = jo.solve(spectrum(50), objective, depth=3, eps=0.01, t=np.geomspace(1, 1e4, 20), rtol=1e-6)
    assert sol.success
    assert int(sol.nfev.sum()) == pytest.approx(evaluations, rel=2e-3)


@pytest.mark.parametrize(
    ("method", "objective", "evaluations", "rel"),
    [
        ("auto", "jepa", 1775, 0.005),
        ("auto", "mae", 3248, 0.03),
        ("tsit5", "jepa", 4766, 0.005),
        ("tsit5", "mae", 19_844, 0.005),
        ("dop853", "jepa", 5162, 0.005),
        ("dop853", "mae", 21_638, 0.005),
        ("rock4", "jepa", 2098, 0.005),
        ("rock4", "mae", 3869, 0.03),
    ],
)
def test_flows(method: str, objective: str, evaluations: int, rel: float) -> None:
    cov = exchangeable_cov(8, 0)
    flow = jo.gradient_flow(jo.LinearNetwork.balanced(8, 2, 1e-2, rng=0), cov, objective, t=[0, 3000.0], method=method)
    assert flow.success
    assert flow.nfev == pytest.approx(evaluations, rel=rel)
