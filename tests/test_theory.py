"""Fixed points and critical times (THEORY.md 2 and 4)."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

import jepa_ode as jo
from jepa_ode.theory import feature_equation
from record import Records

EPS_M = np.finfo(float).eps

# THEORY.md 4: lambda = 0.7, rho = 0.6, eps = 1e-2, f = 0.9
CHECKED = {
    ("jepa", 1): 155.15154979,
    ("jepa", 2): 651.62991999,
    ("jepa", 3): 1173.01615903,
    ("jepa", 5): 2697.90036547,
    ("mae", 1): 7.24954160,
    ("mae", 2): 13.96346101,
    ("mae", 3): 15.88855838,
    ("mae", 5): 15.02320175,
}


@pytest.mark.parametrize(("objective", "depth"), CHECKED)
def test_checked_values_of_the_theory(objective: str, depth: int) -> None:
    spec = jo.Spectrum([0.7], rho=[0.6])
    t = jo.critical_time(spec, objective, depth=depth, eps=1e-2, fraction=0.9)[0]
    assert abs(t - CHECKED[objective, depth]) <= 1e-8


@pytest.mark.parametrize("objective", ["jepa", "mae"])
@pytest.mark.parametrize("depth", [1, 1.5, 2, 3.7, 6])
def test_critical_time_is_the_integral_of_the_inverse_speed(objective: str, depth: float) -> None:
    lam, sigma2, eps, fraction = 0.8, 1.1, 0.05, 0.7
    spec = jo.Spectrum([lam], sigma2=[sigma2])
    target = fraction * jo.fixed_point(spec, objective, depth=depth)[0]
    power = (3 if objective == "jepa" else 2) - 1 / depth
    integral, _ = quad(
        lambda x: math.exp(x) / (depth * (lam * math.exp(power * x) - sigma2 * math.exp(3 * x))),
        math.log(eps),
        math.log(target),
        epsabs=0,
        epsrel=1e-12,
    )
    t = jo.critical_time(spec, objective, depth=depth, eps=eps, fraction=fraction)[0]
    assert t == pytest.approx(integral if target > eps else 0.0, rel=1e-10)


@given(st.sampled_from(["jepa", "mae"]), st.floats(1, 64), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_fixed_points_are_right_to_the_last_bits(objective: str, depth: float, lam: float, sigma2: float) -> None:
    with mp.workdps(40):
        exponent = mp.mpf(depth) if objective == "jepa" else mp.mpf(depth) / (mp.mpf(depth) + 1)
        exact = (mp.mpf(lam) / mp.mpf(sigma2)) ** exponent
    w = jo.fixed_point(jo.Spectrum([lam], sigma2=[sigma2]), objective, depth=depth)[0]
    if 1e-290 < exact < 1e290:
        assert abs(w - exact) <= EPS_M * exact


def test_features_without_signal_are_never_learned() -> None:
    spec = jo.Spectrum([0.0, -1.0, 1.0], sigma2=1.0)
    for objective in ("jepa", "mae"):
        for method in ("exact", "leading"):
            t = jo.critical_time(spec, objective, depth=2, eps=0.1, method=method)
            assert np.isinf(t).tolist() == [True, True, False]
        assert jo.fixed_point(spec, objective, depth=2).tolist()[:2] == [0.0, 0.0]


def test_a_start_past_the_threshold_is_learned_at_once() -> None:
    spec = jo.Spectrum([1.0, 1.0], rho=[0.5, 0.5])
    t = jo.critical_time(spec, "jepa", depth=1, eps=[0.3, 0.9], fraction=0.5)
    assert t.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("objective", ["jepa", "mae"])
@pytest.mark.parametrize("depth", [1, 2, 3.3, 5])
def test_leading_order_is_the_limit_of_small_starts(objective: str, depth: float) -> None:
    """The difference is O(log 1/eps) for JEPA, O(1) for MAE, while the times themselves diverge."""
    spec = jo.Spectrum([0.7, 0.7, 1.4], rho=[0.9, 0.5, 0.5])
    previous = math.inf
    for eps in (1e-2, 1e-4, 1e-6, 1e-8):
        kw = {"depth": depth, "eps": eps, "fraction": 0.9}
        exact = jo.critical_time(spec, objective, **kw)
        leading = jo.critical_time(spec, objective, **kw, method="leading")
        gap = np.abs(exact / leading - 1).max()
        assert gap < previous
        previous = gap
        allowed = 60 * (math.log(1 / eps) if objective == "jepa" else 1.0) / 0.5 ** (2 * depth)
        assert np.abs(exact - leading).max() <= allowed + 1e-12 * exact.max()


def test_mae_leading_time_knows_lambda_alone() -> None:
    spec = jo.Spectrum([0.7, 0.7], rho=[0.9, 0.2])
    first, second = jo.critical_time(spec, "mae", depth=3, eps=1e-3, method="leading")
    assert first == second
    first, second = jo.critical_time(spec, "jepa", depth=3, eps=1e-3, method="leading")
    assert first < second


@given(st.sampled_from(["jepa", "mae"]), st.floats(1, 20))
def test_rescaled_time_is_depth_times_flow_time(objective: str, depth: float) -> None:
    spec = jo.Spectrum([0.7, 0.3], rho=[0.9, 0.5])
    for function, extra in ((jo.critical_time, {}), (jo.time_to_reach, {"w": 0.02})):
        flow = function(spec, objective, depth=depth, eps=1e-2, **extra)
        rescaled = function(spec, objective, depth=depth, eps=1e-2, time_unit="rescaled", **extra)
        np.testing.assert_allclose(rescaled, depth * flow, rtol=1e-15)


def test_infinite_depth_is_the_limit_of_mae_only(record: Records) -> None:
    spec = jo.Spectrum([0.7, 0.3], rho=[0.9, 0.5])
    kw = {"eps": 1e-2, "time_unit": "rescaled"}
    limit = jo.critical_time(spec, "mae", depth=math.inf, **kw)
    np.testing.assert_array_equal(limit, jo.critical_time(spec, "jepa", depth=1, eps=1e-2))
    errors = [np.abs(jo.critical_time(spec, "mae", depth=2.0**k, **kw) - limit).max() for k in (6, 7, 8, 9)]
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    # First order in 1/depth.
    record(9, "distance to 2 of the errors' ratio, critical times", np.abs(ratios - 2), at_most=0.1)
    np.testing.assert_array_equal(jo.fixed_point(spec, "mae", depth=math.inf), jo.fixed_point(spec, "jepa", depth=1))
    for objective, unit in (("jepa", "rescaled"), ("jepa", "flow"), ("mae", "flow")):
        with pytest.raises(ValueError, match="depth=inf"):
            jo.critical_time(spec, objective, depth=math.inf, eps=1e-2, time_unit=unit)


def test_time_to_reach_says_never() -> None:
    spec = jo.Spectrum([1.0], rho=[0.5])

    def reach(eps: float, w: float) -> float:
        return float(jo.time_to_reach(spec, "jepa", depth=1, eps=eps, w=w)[0])

    assert reach(0.1, 0.1) == 0.0
    assert 0 < reach(0.1, 0.4) < math.inf
    assert 0 < reach(0.9, 0.6) < math.inf
    for eps, w in (
        (0.1, 0.05),
        (0.1, 0.5),
        (0.1, 0.6),
        (0.9, 0.5),
        (0.9, 0.4),
        (0.9, 1.0),
        (0.1, 0.0),
        (0.1, math.inf),
    ):
        assert reach(eps, w) == math.inf, (eps, w)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0.5}, "depth must be a real number >= 1, got 0.5"),
        ({"depth": math.nan}, "depth"),
        ({"depth": 10**400}, "depth is larger than any float64"),
        ({"depth": 3e6, "method": "leading"}, "JEPA encoders up to depth 2,000,000"),
        ({"eps": 0.0}, "eps must be positive"),
        ({"eps": [0.1, 0.2]}, r"eps must be a scalar or have shape \(1,\)"),
        ({"fraction": 1.0}, "fraction must lie between 0 and 1"),
        ({"fraction": math.nan}, "fraction must be positive"),
        ({"method": "asymptotic"}, "method must be one of 'exact', 'leading'"),
        ({"time_unit": "epochs"}, "time_unit must be one of 'flow', 'rescaled'"),
        ({"objective": "mea"}, "objective must be 'jepa' or 'mae'"),
        ({"objective": jo.JEPA(ema=1.0)}, "plain objectives"),
        ({"threads": 0}, "threads must be at least 1"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    call = {"objective": "jepa", "depth": 2, "eps": 0.1} | arguments
    with pytest.raises(ValueError, match=message):
        jo.critical_time(jo.Spectrum([1.0], rho=[0.5]), **call)  # type: ignore[arg-type]


def test_bad_types_are_named() -> None:
    with pytest.raises(TypeError, match=r"spec must be a jepa_ode\.Spectrum"):
        jo.critical_time([1.0], "jepa", depth=2, eps=0.1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="depth must be a real number"):
        jo.fixed_point(jo.Spectrum([1.0], rho=[0.5]), "jepa", depth="2")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="objective must be"):
        jo.fixed_point(jo.Spectrum([1.0], rho=[0.5]), 3, depth=2)  # type: ignore[arg-type]


def test_feature_equation_of_each_unit() -> None:
    assert feature_equation(jo.MAE(), 3, "flow") == (1, 3.0, 1.0)
    assert feature_equation(jo.MAE(), 3, "rescaled") == (1, 3.0, 3.0)
    assert feature_equation(jo.MAE(), math.inf, "rescaled") == (0, 1.0, 1.0)
