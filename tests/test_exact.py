"""The exact solver against 50 digits, closed forms and the ends of the number line (RELIABILITY.md 1, 5, 6)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import jepa_ode as jo
import precise
from conftest import case_count
from record import Records

EPS_M = np.finfo(float).eps

objectives = st.sampled_from(["jepa", "mae"])
depths = st.one_of(st.integers(1, 64).map(float), st.floats(1, 64))


def log_uniform(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(math.log(low), math.log(high)).map(math.exp)


def random_case(rng: np.random.Generator) -> dict[str, object]:
    """Whole and real depths, above and below the fixed point, lambda <= 0; times around the rise and anywhere."""
    objective = str(rng.choice(["jepa", "mae"]))
    depth = float(rng.integers(1, 65)) if rng.random() < 0.5 else float(64 ** rng.random())
    lam, sigma2 = 10 ** rng.uniform(-3, 3, 2)
    eps = 10 ** rng.uniform(-6, 1)
    kind = rng.random()
    lam = -lam if kind < 0.12 else 0.0 if kind < 0.15 else lam
    spec = jo.Spectrum([lam], sigma2=[sigma2])
    t = 10 ** rng.uniform(-6, 8)
    if rng.random() < 0.7:
        rise = jo.critical_time(spec, objective, depth=depth, eps=eps)[0]
        if 0 < rise < 1e250:
            t = rise * 10 ** rng.uniform(-1, 0.5)
    return {"objective": objective, "depth": depth, "spec": spec, "eps": float(eps), "t": float(t)}


def computed_error(objective: str, depth: float, spec: jo.Spectrum, eps: float, t: float) -> float | None:
    """Return E in units of eps_m, or None where no double can hold the response."""
    solution = jo.solve(spec, objective, depth=depth, eps=eps, t=[t])
    if not solution.success:
        assert jo.fixed_point(spec, objective, depth=depth)[0] > 1e300
        return None
    w = float(solution.w[0, 0])
    if w < 1e-300:  # exponential decay (MAE at depth 1) and steep power laws leave the range of a double
        assert spec.lam[0] < 0
        assert jo.time_to_reach(spec, objective, depth=depth, eps=eps, w=1e-299)[0] < t
        return None
    return precise.error(w, t, float(spec.lam[0]), float(spec.sigma2[0]), eps, depth, objective) / EPS_M


@pytest.mark.parametrize("seed", range(4))
def test_error_is_a_few_roundings(record: Records, seed: int) -> None:
    rng = np.random.default_rng(seed)
    left = case_count(ci=150, campaign=5000)
    while left:
        case = random_case(rng)
        error = computed_error(**case)  # type: ignore[arg-type]
        if error is None:
            continue
        left -= 1
        if error > 8:
            print(f"E = {error:.2f} eps_m: {case}")
        record(1, f"E / eps_m, {case['objective']}, {way(**case)}", error, at_most=16)  # type: ignore[arg-type]


def way(objective: str, depth: float, spec: jo.Spectrum, eps: float, t: float) -> str:
    if spec.lam[0] <= 0:
        return "lambda <= 0"
    return "from below" if eps < jo.fixed_point(spec, objective, depth=depth)[0] else "from above"


@pytest.mark.parametrize("objective", ["jepa", "mae"])
@pytest.mark.parametrize("depth", [1.0, 1 + 1e-9, 1.1, 1.25, 1.5, 1.5 + 1e-12, 2, 2.5, 3, 6.9, 7, 9, 31, 64])
@pytest.mark.parametrize(("lam", "eps"), [(0.9, 0.01), (0.9, 0.95), (0.9, 3.0), (-0.9, 0.01), (-0.9, 3.0), (0, 0.1)])
def test_every_branch_of_the_master_curve(
    record: Records, objective: str, depth: float, lam: float, eps: float
) -> None:
    """Depths beside the logarithmic cases of T, times from before the rise to saturation."""
    spec = jo.Spectrum([lam], sigma2=[1.3])
    scale = jo.critical_time(spec, objective, depth=depth, eps=eps)[0]
    if not 0 < scale < math.inf:
        scale = 1.0
    for t in scale * np.array([1e-9, 0.1, 0.9, 0.999, 1.001, 1.1, 3.0, 40.0, 1e6]):
        error = computed_error(objective, depth, spec, eps, float(t))
        if error is not None:
            record(1, "E / eps_m, every branch and its far end", error, at_most=16)


@pytest.mark.parametrize(
    ("objective", "depth", "lam", "sigma2", "eps", "t"),
    [
        ("mae", 1, 1.0, 1.1, 1e-280, 600.0),  # v0 = (eps/w*)^2 underflows, v does not
        ("mae", 1.2, 1.0, 1.1, 1e-300, 1e40),
        ("jepa", 200, -168.2, 0.466, 7.6e16, 1e300),  # u ~ t^(-1/399) is not small at any time
        ("jepa", 63.7, -93.6, 94.7, 3.5e29, 1.7e308),
        (
            "jepa",
            16.675137811304495,
            -8.7379,
            13.3196,
            0.0127,
            2338.0,
        ),  # passes v = 1, where alternating terms are large
        ("jepa", 64, 0.6835, 0.8344, 5.7e-05, 1.37e11),
        ("jepa", 64, 0.05, 0.4, 1e-3, 1e200),  # u0^(1-2L) overflows
    ],
)
def test_the_far_ends_of_every_branch(
    record: Records, objective: str, depth: float, lam: float, sigma2: float, eps: float, t: float
) -> None:
    error = computed_error(objective, depth, jo.Spectrum([lam], sigma2=[sigma2]), eps, t)
    assert error is not None
    record(1, "E / eps_m, every branch and its far end", error, at_most=16)


@pytest.mark.parametrize("depth", [300, 520, 530, 600, 1000.5, 2000, 10_000])
def test_very_deep_encoders(depth: float) -> None:
    """Beyond the reference's reach: against steps. Fixed points and their powers leave the range of a double."""
    rho, eps = np.meshgrid(np.linspace(0.05, 1.5, 30), [1e-3, 0.01, 0.5, 2.0])
    spec = jo.Spectrum(rho.ravel(), rho=rho.ravel())
    options = {"depth": depth, "eps": eps.ravel(), "t": [0.0, 1e-6, 1.0, 10.0, 1e4]}
    exact = jo.solve(spec, "jepa", **options)
    stepped = jo.solve(spec, "jepa", **options, method="dop853", rtol=1e-12, max_steps=20_000)
    both = (exact.status == 0) & (stepped.status == 0)
    assert both.sum() > 60
    np.testing.assert_allclose(exact.w[both] ** (1 / depth), stepped.w[both] ** (1 / depth), rtol=2e-14)


def there_and_back(objective: str, depth: float, lam: float, sigma2: float, eps: float, level: float) -> float | None:
    """Return the error of time_to_reach(w(t)) in t, over t + u/u', in units of eps_m; None where w(t) has forgotten t.

    That is the E of the u that is reached: the rounding of w makes dt = dw / w' of it.
    """
    spec = jo.Spectrum([lam], sigma2=[sigma2])
    t = jo.time_to_reach(spec, objective, depth=depth, eps=eps, w=level)
    if not 0 < t[0] < 1e300:
        return None
    w = jo.solve(spec, objective, depth=depth, eps=eps, t=t).w[0, 0]
    fixed = jo.fixed_point(spec, objective, depth=depth)[0]
    if abs(w - fixed) <= 64 * EPS_M * depth * fixed or w < 1e-300:  # settled within a rounding of the clock
        return None
    again = jo.time_to_reach(spec, objective, depth=depth, eps=eps, w=w)
    power, q = (2 - 1 / depth, 1) if objective == "jepa" else (1 - 1 / depth, depth + 1)
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        # |w'|/w, in which the two terms of a rise cancel near its end.
        speed = lam * w**power * abs(1 - (w / fixed) ** (q / depth)) if lam > 0 else sigma2 * w**2 - lam * w**power
        return float(abs(again[0] - t[0]) / (t[0] + 1 / speed) / EPS_M)


@given(objectives, depths, log_uniform(1e-3, 1e3), log_uniform(1e-3, 1e3), log_uniform(1e-6, 10), st.floats(0.01, 0.99))
def test_time_to_reach_inverts_solve(
    record: Records, objective: str, depth: float, lam: float, sigma2: float, eps: float, way: float
) -> None:
    """RELIABILITY.md 5, towards a fixed point."""
    fixed = jo.fixed_point(jo.Spectrum([lam], sigma2=[sigma2]), objective, depth=depth)[0]
    if not 0 < fixed < 1e300:
        return
    error = there_and_back(objective, depth, lam, sigma2, eps, eps * (fixed / eps) ** way)
    if error is not None:
        record(5, f"E / eps_m of there and back, {objective}", error, at_most=16)


@given(
    objectives,
    st.one_of(depths, st.floats(1, 1.5), st.floats(64, 2000)),
    st.one_of(st.just(0.0), log_uniform(1e-3, 1e3)),
    log_uniform(1e-3, 1e3),
    log_uniform(1e-6, 1e6),
    log_uniform(1e-4, 20),
)
@example("mae", 1.1, 1.0, 1.0, 2.0, 5.0)  # no table serves this depth
@example("jepa", 1.0001, 3.0, 0.5, 50.0, 9.0)
def test_time_to_reach_inverts_decays(
    record: Records, objective: str, depth: float, decline: float, sigma2: float, eps: float, way: float
) -> None:
    """RELIABILITY.md 5, towards 0: through the cubic law, the linear one, and from one to the other."""
    error = there_and_back(objective, depth, -decline, sigma2, eps, eps * math.exp(-way))
    if error is not None:
        record(5, f"E / eps_m of there and back, {objective}, lambda <= 0", error, at_most=16)


@pytest.mark.parametrize("objective", ["jepa", "mae"])
@pytest.mark.parametrize("depth", [1, 1.0001, 1.5, 2, 3, 9, 17.5, 64, 200.3])
def test_extremes_stay_between_start_and_fixed_point(record: Records, objective: str, depth: float) -> None:
    """RELIABILITY.md 6: the whole range of doubles, every time from 0 to inf."""
    rng = np.random.default_rng(int(depth * 10))
    n = case_count(ci=300, campaign=20_000)
    wide = rng.random((2, n)) < 0.4
    lam, sigma2 = 10.0 ** np.where(wide, rng.uniform(-307, 307, (2, n)), rng.uniform(-4, 4, (2, n)))
    lam *= rng.choice([1, 1, 1, -1, 0], n)
    spec = jo.Spectrum(lam, sigma2=sigma2)
    eps = rng.choice([5e-324, 1e-310, 1e-300, 1e-100, 1e-10, 1e-2, 1, 10, 1e100, 1.7e308], n)
    t = np.array([0, 5e-324, 1e-300, 1e-20, 1e-5, 0.1, 1, 10, 1e5, 1e20, 1e100, 1e300, 1e308, 1.7e308, math.inf])
    solution = jo.solve(spec, objective, depth=depth, eps=eps, t=t)
    fixed = jo.fixed_point(spec, objective, depth=depth)

    # The only failure: a response that no double can hold.
    ok = solution.status == jo.Status.OK
    assert np.isinf(fixed[~ok]).all()
    assert np.isnan(solution.w[~ok]).any(axis=1).all()
    record(6, "NaN with OK, exact", np.isnan(solution.w[ok]).sum(), at_most=0, cases=solution.w.size)
    w, fixed, eps = solution.w[ok], fixed[ok], eps[ok]
    assert (w[:, 0] == eps).all()
    finite = np.isfinite(fixed)
    assert (w[finite, -1] == fixed[finite]).all()
    slack = 4 * EPS_M * w + 4 * np.finfo(float).smallest_subnormal
    outside = (w - slack > np.maximum(eps, fixed)[:, None]) | (w + slack < np.minimum(eps, fixed)[:, None])
    record(6, "values not between start and fixed point, exact", outside.sum(), at_most=0, cases=w.size)
    toward = np.sign(fixed - eps)[:, None] * np.diff(w, axis=1)
    assert (toward >= -slack[:, 1:]).all()


@given(objectives, depths, log_uniform(1e-3, 1e3), log_uniform(1e-3, 1e3))
@example("jepa", 1.0, 0.7, 0.7)
@example("mae", 2.0, 0.7, 0.7)
def test_a_start_at_the_fixed_point_stays(objective: str, depth: float, lam: float, sigma2: float) -> None:
    spec = jo.Spectrum([lam], sigma2=[sigma2])
    fixed = jo.fixed_point(spec, objective, depth=depth)[0]
    if not 0 < fixed < math.inf:
        return
    w = jo.solve(spec, objective, depth=depth, eps=fixed, t=[0.0, 1.0, 1e6, math.inf]).w[0]
    np.testing.assert_allclose(w, fixed, rtol=4 * EPS_M * depth)


@given(depths, log_uniform(1e-3, 1e3), log_uniform(1e-6, 1e6), log_uniform(1e-3, 1e9), objectives)
def test_noise_features_decay_by_the_power_law(
    depth: float, sigma2: float, eps: float, t: float, objective: str
) -> None:
    """lambda = 0: w = eps / sqrt(1 + 2 L sigma^2 eps^2 t), for both objectives (THEORY.md 2)."""
    w = jo.solve(jo.Spectrum([0.0], sigma2=[sigma2]), objective, depth=depth, eps=eps, t=[t]).w[0, 0]
    np.testing.assert_allclose(w, eps / np.sqrt(1 + 2 * depth * sigma2 * eps**2 * t), rtol=8 * EPS_M)


@given(log_uniform(1e-3, 1e3), log_uniform(1e-3, 1e3), log_uniform(1e-6, 10), log_uniform(1e-3, 1e2))
def test_mae_at_depth_one_is_logistic(lam: float, sigma2: float, eps: float, s: float) -> None:
    """u' = lambda u (1 - (u/u*)^2) has the solution u*^2 / (1 + (u*^2/u0^2 - 1) exp(-2 lambda t))."""
    w = jo.solve(jo.Spectrum([lam], sigma2=[sigma2]), "mae", depth=1, eps=eps, t=[s / lam]).w[0, 0]
    square = lam / sigma2
    expected = np.sqrt(square / (1 + (square / eps**2 - 1) * np.exp(-2 * s)))
    np.testing.assert_allclose(w, expected, rtol=1e-13 * (1 + s))


def test_depth_beyond_the_table_of_terms_is_refused() -> None:
    with pytest.raises(ValueError, match="depth"):
        jo.solve(jo.Spectrum([1.0], sigma2=[1.0]), "jepa", depth=1e9, eps=0.1, t=[1.0])
    assert jo.solve(jo.Spectrum([1.0], sigma2=[2.0]), "mae", depth=1e9, eps=0.1, t=[1.0]).success
    for objective, method in (("jepa", "tsit5"), ("mae", "dop853"), (jo.MAE(weight_decay=0.1), None)):
        with pytest.raises(ValueError, match="takes depths up to 2,000,000, got 2e"):
            jo.solve(jo.Spectrum([1.0], sigma2=[1.0]), objective, depth=2e6 + 1, eps=0.1, t=[1.0], method=method)
