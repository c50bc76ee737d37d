"""All fixed points with their stability, and the weight decay that forbids learning, to 50 digits and by integration."""

from __future__ import annotations

import pickle
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import jepa_ode as jo
from reference import layer_velocity_of

EPS_M = np.finfo(float).eps
NAMES = ["jepa", "mae"]


def with_decay(name: str, eta: float, ema: float | None = None) -> Any:
    return jo.JEPA(ema=ema, weight_decay=eta) if name == "jepa" else jo.MAE(eta)


def exponents(name: str, depth: float) -> tuple[float, float]:
    return (2 * depth, 1.0) if name == "jepa" else (depth, depth + 1)


def height(name: str, depth: float, lam: float, sigma2: float, u: Any) -> Any:
    """u^(p-1) (lambda - sigma^2 u^q), in mpmath."""
    p, q = (mp.mpf(x) for x in exponents(name, depth))
    return u ** (p - 1) * (mp.mpf(lam) - mp.mpf(sigma2) * u**q)


def exact_threshold(name: str, depth: float, lam: float, sigma2: float) -> tuple[Any, Any]:
    """The largest height and where it is, by its definition."""
    p, q = (mp.mpf(x) for x in exponents(name, depth))
    top = (mp.mpf(lam) / mp.mpf(sigma2) * (p - 1) / (p - 1 + q)) ** (1 / q)
    return height(name, depth, lam, sigma2, top), top


@given(st.sampled_from(NAMES), st.floats(1, 40), st.floats(1e-3, 1e3), st.floats(1e-2, 1e2))
def test_threshold_to_rounding(name: str, depth: float, lam: float, sigma2: float) -> None:
    spec = jo.Spectrum([lam, 0.0, -lam], sigma2=[sigma2, 1.0, 1.0])
    threshold = jo.weight_decay_threshold(spec, name, depth=depth)
    with mp.workdps(50):
        exact, top = exact_threshold(name, depth, lam, sigma2)
        assume(exact < 1e308)  # threshold: inf, where no double is as large
        p, _ = exponents(name, depth)
        assert abs(threshold[0] / exact - 1) < (4 * p + 8) * EPS_M
        assert exact * (1 + mp.mpf(10) ** -20) > height(name, depth, lam, sigma2, top * mp.mpf("1.001"))
        assert list(threshold[1:]) == [0, 0]
        for eps in (1e-6, 0.1, 10.0):
            own = jo.weight_decay_threshold(spec, name, depth=depth, eps=eps)[0]
            u0 = mp.mpf(eps) ** (1 / mp.mpf(depth))
            expected = height(name, depth, lam, sigma2, u0) if u0 < top else exact
            assert abs(own / expected - 1) < (8 * p + 16) * EPS_M


@given(st.sampled_from(NAMES), st.floats(1, 12), st.floats(1e-2, 1e2), st.floats(1e-1, 10), st.floats(1e-6, 0.99))
def test_roots_to_rounding(name: str, depth: float, lam: float, sigma2: float, share: float) -> None:
    spec = jo.Spectrum([lam, -lam], sigma2=[sigma2, sigma2])
    eta = share * float(jo.weight_decay_threshold(spec, name, depth=depth)[0])
    points = jo.fixed_points(spec, with_decay(name, eta), depth=depth)
    has_lower = exponents(name, depth)[0] > 1
    with mp.workdps(50):
        _, top = exact_threshold(name, depth, lam, sigma2)
        for kind in (1, 2) if has_lower else (2,):
            u = mp.mpf(float(points.encoder[0, kind]))
            if u == 0:  # the lower root of MAE just above depth 1 is below the smallest double
                continue
            assert (u < top) == (kind == 1)
            # Half a dozen roundings of u decide the sign, and of log(eta) in the power of a small root.
            room = mp.mpf((50 + 2 * abs(float(mp.log(u)))) * EPS_M)
            signs = [mp.sign(height(name, depth, lam, sigma2, u * (1 + side * room)) - eta) for side in (-1, 1)]
            assert share > 0.9 or signs == ([-1, 1] if kind == 1 else [1, -1])
    np.testing.assert_allclose(points.response[0], points.encoder[0] ** depth, rtol=1e-12 * depth)
    np.testing.assert_array_equal(points.encoder[0], points.encoder[1])
    np.testing.assert_array_equal(points.predictor[1], -points.predictor[0])
    assert points.count.tolist() == [2 + has_lower] * 2


OBJECTIVES = [
    jo.JEPA(),
    jo.JEPA(weight_decay=0.002),
    jo.JEPA(ema=3.0),
    jo.JEPA(ema=3.0, weight_decay=0.002),
    jo.JEPA(stop_gradient=False),
    jo.JEPA(stop_gradient=False, weight_decay=0.01),
    jo.MAE(),
    jo.MAE(weight_decay=0.01),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
@pytest.mark.parametrize("depth", [1, 1.5, 2, 3, 4.5])
def test_points_are_fixed_and_eigenvalues_those_of_the_flow(objective: Any, depth: float) -> None:
    spec = jo.Spectrum([1.0, 0.6, 0.4, -0.7, 0.0], sigma2=[1.2, 1.0, 3.0, 1.0, 1.0], sigma2_y=2.0)
    points = jo.fixed_points(spec, objective, depth=depth)
    size = points.eigenvalues.shape[2]
    assert size == (3 if objective.name == "jepa" and objective.ema else 2)
    for i in range(len(spec)):
        feature = (spec.lam[i], spec.sigma2[i], 2.0)
        for kind in range(3):
            a, v = points.encoder[i, kind], points.predictor[i, kind]
            assert (points.stability[i, kind] == "") == np.isnan(a)
            if np.isnan(a):
                continue
            y = np.array([a, v, a])
            np.testing.assert_allclose(layer_velocity_of(y, feature, depth, objective), 0, atol=1e-15)
            if a < 1e-3 and 1 < depth < 2:
                continue  # no differences there
            h = 1e-6 * max(a, 1e-3)
            columns = [
                (
                    layer_velocity_of(y + h * e, feature, depth, objective)
                    - layer_velocity_of(y - h * e, feature, depth, objective)
                )
                / (2 * h)
                for e in np.eye(3)[:size]
            ]
            expected = np.sort_complex(np.linalg.eigvals(np.array(columns).T[:size]).astype(complex))
            np.testing.assert_allclose(points.eigenvalues[i, kind], expected, atol=2e-7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ema", [None, 0.5, 50.0])
@pytest.mark.parametrize("depth", [1, 2, 3.5])
def test_stability_is_what_integration_shows(name: str, ema: float | None, depth: float) -> None:
    if name == "mae" and ema is not None:
        return
    spec = jo.Spectrum([1.0, 0.6], rho=[0.8, 0.5])
    eta = 0.4 * jo.weight_decay_threshold(spec, name, depth=depth).min()
    objective = with_decay(name, eta, ema)
    points = jo.fixed_points(spec, objective, depth=depth)
    expected = ["stable", "unstable", "stable"]
    if name == "mae" and depth == 1:
        expected = ["unstable", "", "stable"]
    assert points.stability.tolist() == [expected] * 2
    for kind, word in enumerate(expected):
        if not word:
            continue
        for side in (-1, 1):
            w = np.maximum(points.response[:, kind] * (1 + 1e-4 * side), 1e-9)
            sol = jo.solve(spec, objective, depth=depth, eps=w, t=[1e8], rtol=1e-10)
            assert sol.success
            stays = np.abs(sol.w[:, 0] - points.response[:, kind]) < 1e-6
            assert stays.tolist() == [word == "stable"] * 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("depth", [1, 1.6, 2, 4])
def test_threshold_divides_learning_from_extinction(name: str, depth: float) -> None:
    spec = jo.Spectrum([1.0, 0.3], rho=[0.9, 0.4])
    for eps in (None, 1e-2):
        threshold = jo.weight_decay_threshold(spec, name, depth=depth, eps=eps)
        for i in range(2):
            start = 3.0 if eps is None else eps  # far above everything, or the start that was asked about
            cases = (1 - 1e-4, True), (1 + 1e-4, False)
            for factor, learned in cases:
                objective = with_decay(name, factor * threshold[i])
                sol = jo.solve(spec[i : i + 1], objective, depth=depth, eps=start, t=[1e9], rtol=1e-10)
                assert sol.success
                assert (sol.w[0, 0] > 1e-4) == learned
                if eps is None:
                    count = jo.fixed_points(spec[i : i + 1], objective, depth=depth).count[0]
                    assert (count > 1) == learned


def test_plain_points_are_those_of_the_closed_form() -> None:
    spec = jo.Spectrum([1.0, 0.5, 0.0, -0.3], sigma2=[1.2, 1.0, 2.0, 1.0])
    for name in NAMES:
        for depth in (1, 2, 7.5):
            points = jo.fixed_points(spec, name, depth=depth)
            np.testing.assert_allclose(points.response[:2, 2], jo.fixed_point(spec, name, depth=depth)[:2], rtol=1e-14)
            assert np.isnan(points.response[:, 1]).all()
            assert points.stability[:2, 2].tolist() == ["stable"] * 2
            assert points.count.tolist() == [2, 2, 1, 2]
            assert points.predictor[3, 2] == -points.encoder[3, 2]


def test_collapse_leaves_the_origin_alone() -> None:
    spec = jo.Spectrum([1.0, 0.5], sigma2=[1.2, 1.0], sigma2_y=1.0)
    points = jo.fixed_points(spec, jo.JEPA(stop_gradient=False, weight_decay=0.1), depth=2)
    assert points.count.tolist() == [1, 1]
    assert points.stability[:, 0].tolist() == ["stable", "stable"]
    assert jo.weight_decay_threshold(spec, jo.JEPA(stop_gradient=False), depth=2).tolist() == [0, 0]


def test_results_are_values() -> None:
    spec = jo.Spectrum([1.0, 0.5], rho=0.5)
    points = jo.fixed_points(spec, jo.MAE(0.01), depth=2)
    assert pickle.loads(pickle.dumps(points)) == points
    assert repr(points) == "FixedPoints(MAE(weight_decay=0.01), depth=2, 2 features)"
    with pytest.raises(ValueError, match="read-only"):
        points.response[0, 0] = 1.0
    assert jo.fixed_points(jo.Spectrum([], sigma2=[]), "mae", depth=2).response.shape == (0, 3)


def test_bad_arguments_are_named() -> None:
    spec = jo.Spectrum([1.0, 0.5], rho=0.5)
    with pytest.raises(ValueError, match="sigma2_y"):
        jo.fixed_points(spec, jo.JEPA(stop_gradient=False), depth=2)
    with pytest.raises(ValueError, match="Cauchy-Schwarz"):
        jo.fixed_points(jo.Spectrum([1.0], rho=[0.5], sigma2_y=0.1), jo.JEPA(stop_gradient=False), depth=2)
    with pytest.raises(ValueError, match="depth must be"):
        jo.fixed_points(spec, "jepa", depth=0.5)
    with pytest.raises(TypeError, match="Spectrum"):
        jo.weight_decay_threshold([1.0], "jepa", depth=2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="leave out ema"):
        jo.weight_decay_threshold(spec, jo.JEPA(ema=1.0), depth=2, eps=0.1)
    with pytest.raises(ValueError, match="eps must be positive"):
        jo.weight_decay_threshold(spec, "mae", depth=2, eps=0.0)


def test_what_is_beyond_the_largest_double_is_said() -> None:
    points = jo.fixed_points(jo.Spectrum([1.0, 1.0], sigma2=[1.2e-38, 2.0]), "jepa", depth=64)
    assert points.response[0, 2] == np.inf and points.stability[0].tolist() == ["degenerate", "", "unknown"]
    assert np.isnan(points.eigenvalues[0, 2]).all()
    np.testing.assert_allclose(points.response[1, 2], 0.5**64)
    assert points.stability[1, 2] != "unknown"
    # The power that is left at any depth: lambda (1/2) rho/2 for MAE, nothing for JEPA below rho = 1.
    spec = jo.Spectrum([1.0, 1.0], rho=[0.9, 0.5])
    np.testing.assert_allclose(jo.weight_decay_threshold(spec, "mae", depth=1e308), [0.225, 0.125])
    assert (jo.weight_decay_threshold(spec, "jepa", depth=1e308) == 0).all()
