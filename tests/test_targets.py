"""Collapse without stop-gradient, and the delay by a moving average (THEORY.md 1 and 2)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jepa_ode as jo


@settings(max_examples=25)
@given(
    depth=st.integers(1, 4), eps=st.floats(0.05, 1.0), tilt=st.sampled_from([0.0, 0.5, 3.0]), seed=st.integers(0, 10**6)
)
def test_layers_stay_below_the_bound(depth: int, eps: float, tilt: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    spec = jo.Spectrum(rng.uniform(0.3, 2.0, 5), rho=rng.uniform(0.3, 0.99, 5))
    cov = jo.StaticModel.tilted(spec, tilt=tilt, rng=rng).covariances()
    net = jo.LinearNetwork.balanced(5, depth, eps, rng=rng)
    t = np.r_[0.0, np.geomspace(0.01, 30.0, 30)]
    squares = {"square": lambda net: [np.sum(layer**2) / 5 for layer in net.encoder]}
    flow = jo.gradient_flow(net, cov, jo.JEPA(stop_gradient=False), t=t, rtol=1e-8, observe=squares)
    bound = jo.collapse_bound(cov, depth=depth, eps=eps, t=t)
    assert (flow.observables["square"] <= bound[:, None] * (1 + 1e-6) + 1e-16).all()
    assert (np.diff(bound) <= 0).all()


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_bound_is_attained_where_the_predictor_has_found_the_regression(depth: int) -> None:
    rho, t = 0.8, np.array([0.0, 0.5, 3.0, 20.0])
    spec = jo.Spectrum(rho, sigma2=1.0, sigma2_y=1.0)
    cov = jo.Covariances(np.eye(1), rho * np.eye(1), np.eye(1))
    w = jo.solve(spec, jo.JEPA(stop_gradient=False), depth=depth, eps=0.3, v0=rho, t=t, rtol=1e-12).w[0]
    np.testing.assert_allclose(w ** (2 / depth), jo.collapse_bound(cov, depth=depth, eps=0.3, t=t), rtol=1e-8)


def test_perfectly_predicted_directions_need_not_collapse() -> None:
    cov = jo.Covariances(np.eye(2), np.diag([1.0, 0.5]), np.eye(2))
    np.testing.assert_allclose(jo.collapse_bound(cov, depth=2, eps=0.1, t=[0.0, 1e6]), 0.1, rtol=1e-12)
    with pytest.raises(ValueError, match="Syy"):
        jo.collapse_bound(jo.Covariances(np.eye(2), np.eye(2)), depth=2, eps=0.1, t=[1.0])


@pytest.mark.parametrize("depth", [1, 2, 3, 2.5])
@pytest.mark.parametrize("fraction", [0.5, 0.9])
def test_delays_in_both_limits_are_those_of_the_equations(depth: float, fraction: float) -> None:
    spec = jo.Spectrum([0.5, 2.0, 1.0], rho=[0.9, 0.8, 0.95])
    setting = {"depth": depth, "eps": 0.1}
    plain = jo.critical_time(spec, "jepa", **setting, fraction=fraction)
    for limit, tau in (("short", 1e-3 * plain.min()), ("long", 1e4 * plain.max())):
        averaged = jo.solve(spec, jo.JEPA(ema=float(tau)), **setting, t=[1.0], rtol=1e-12).critical_time(fraction)
        delay = jo.moving_average_delay(spec, **setting, fraction=fraction, limit=limit)
        np.testing.assert_allclose((averaged - plain) / tau, delay, rtol=0.02)


def test_what_does_not_rise_has_no_delay() -> None:
    spec = jo.Spectrum([1.0, 1.0, 0.0, -1.0], sigma2=[1.2, 5.0, 1.0, 2.0])
    for limit in ("short", "long"):
        delay = jo.moving_average_delay(spec, depth=2, eps=0.1, limit=limit)
        assert np.isfinite(delay).tolist() == [True, False, False, False]
        assert np.isnan(jo.moving_average_delay(spec, depth=2, eps=0.1, fraction=1.0, limit=limit)).all()
    with pytest.raises(ValueError, match="limit"):
        jo.moving_average_delay(spec, depth=2, eps=0.1, limit="medium")
