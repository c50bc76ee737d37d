"""Derivatives of the responses against 50 digits, finite differences, scaling laws, limits and closed forms."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import jepa_ode as jo
import precise
from conftest import case_count

EPS_M = np.finfo(float).eps
PARTIALS = ("lam", "sigma2", "eps", "t")

objectives = st.sampled_from(["jepa", "mae"])
depths = st.one_of(st.integers(1, 32).map(float), st.floats(1, 32))
positive = st.floats(-2, 1).map(lambda x: 10.0**x)
covariances = st.one_of(positive, positive, positive.map(lambda x: -x), st.just(0.0))
starts = st.floats(-4, 0.7).map(lambda x: 10.0**x)
times = st.floats(-3, 5).map(lambda x: 10.0**x)

Array = npt.NDArray[np.float64]


def solve(objective: str, depth: float, lam: Any, sigma2: Any, eps: Any, t: Any, **options: Any) -> jo.Solution:
    spec = jo.Spectrum(np.atleast_1d(lam), sigma2=np.atleast_1d(sigma2))
    return jo.solve(spec, objective, depth=depth, eps=eps, t=t, **options)


def exponents(objective: str, depth: float) -> tuple[float, float]:
    """P and q of THEORY.md 3."""
    return (2 * depth, 1.0) if objective == "jepa" else (depth, depth + 1)


# ---- accuracy ------------------------------------------------------------------------------------------------------


def computed_error(objective: str, depth: float, lam: float, sigma2: float, eps: float, t: float) -> dict[str, float]:
    """E of each derivative: |d - d_ref| / (|d_ref| + t |d(d_ref)/dt|), which forgives a relative shift of the clock.

    Close to the fixed point the speed is that of the distance, which is known to 1e-24 or so.
    """
    solution = solve(objective, depth, lam, sigma2, eps, [t])
    w = float(solution.w[0, 0])
    if not w > 1e-290:  # what is below has lost digits
        return {}
    distance = abs(math.expm1(min(math.log(eps) - math.log(fixed), 1.0))) if (fixed := limit(solution)) > 0 else 1.0
    reference = precise.sensitivities(w, t, lam, sigma2, eps, depth, objective)
    errors = {}
    for name in PARTIALS:
        value, shift = reference[name]
        computed = float(getattr(solution.sensitivity(), name)[0, 0])
        if 1e-290 < abs(value) < 1e300:
            error = float(abs(computed - value) / (abs(value) + abs(shift)))
            errors[name] = max(0.0, error - (1e-23 / max(distance, 1e-23) if name == "t" else 0.0))
        else:
            assert abs(computed) < 1e-289 if abs(value) < 1 else abs(computed) > 1e299
    return errors


def limit(solution: jo.Solution) -> float:
    return float(jo.fixed_point(solution.spectrum, solution.objective, depth=solution.depth)[0])


def random_case(rng: np.random.Generator) -> tuple[str, float, float, float, float, float]:
    """All ways to move; starts close to the fixed point; from times far shorter than the motion takes to long after."""
    objective = str(rng.choice(["jepa", "mae"]))
    depth = float(rng.integers(1, 65)) if rng.random() < 0.5 else float(64 ** rng.random())
    lam, sigma2 = 10 ** rng.uniform(-3, 3, 2)
    eps = 10 ** rng.uniform(-6, 1)
    kind = rng.random()
    lam = -lam if kind < 0.25 else 0.0 if kind < 0.3 else lam
    spec = jo.Spectrum([lam], sigma2=[sigma2])
    fixed = jo.fixed_point(spec, objective, depth=depth)[0]
    if rng.random() < 0.15 and 1e-250 < fixed < 1e250:
        eps = fixed * (1 + rng.choice([-1, 1]) * 10 ** rng.uniform(-12, -0.3))
    t = 10 ** rng.uniform(-6, 8)
    rise = jo.critical_time(spec, objective, depth=depth, eps=eps)[0]
    if rng.random() < 0.6 and 0 < rise < 1e250:
        t = rise * 10 ** rng.uniform(-1, 0.5)
    elif rng.random() < 0.7:
        p, q = exponents(objective, depth)
        log_u = math.log(eps) / depth
        with np.errstate(all="ignore"):
            unit = 1 / (q * max(abs(lam) * np.exp((p - 1) * log_u), sigma2 * np.exp(2 * depth * log_u)))
        t = unit * 10 ** rng.uniform(-12, 2) if 1e-250 < unit < 1e250 else 1.0
    return objective, depth, float(lam), float(sigma2), float(eps), float(t)


@pytest.mark.parametrize("seed", range(3))
def test_error_is_a_few_roundings(seed: int) -> None:
    rng = np.random.default_rng(seed)
    worst = dict.fromkeys(PARTIALS, 0.0)
    for _ in range(case_count(ci=50, campaign=3000)):
        case = random_case(rng)
        errors = computed_error(*case)
        assert max(errors.values(), default=0.0) <= 16 * EPS_M, (errors, case)
        worst = {name: max(worst[name], errors.get(name, 0.0)) for name in PARTIALS}
    print("worst E in eps_m:", {name: round(error / EPS_M, 2) for name, error in worst.items()})


@pytest.mark.parametrize("objective", ["jepa", "mae"])
@pytest.mark.parametrize("depth", [1.0, 1.25, 2, 2.5, 6.9, 31])
@pytest.mark.parametrize(("lam", "eps"), [(0.9, 0.01), (0.9, 0.95), (0.9, 3.0), (-0.9, 0.01), (-0.9, 3.0), (0, 0.1)])
def test_every_branch(objective: str, depth: float, lam: float, eps: float) -> None:
    """Both sides of every switch between quadrature, series and the pole, and of v = 1/2."""
    solution = solve(objective, depth, lam, 1.3, eps, [0.0])
    fixed = limit(solution)
    scale = solution.critical_time()[0]
    if not 0 < scale < math.inf:
        p, q = exponents(objective, depth)
        u = eps ** (1 / depth)
        scale = 1 / (q * max(abs(lam) * u ** (p - 1), 1.3 * u ** (2 * depth)))
    assert fixed != eps
    for t in scale * np.array([1e-12, 0.3, 0.999, 1.1, 3.0, 40.0]):
        errors = computed_error(objective, depth, lam, 1.3, eps, float(t))
        assert max(errors.values(), default=0.0) <= 16 * EPS_M, (t, errors)


@pytest.mark.parametrize(
    ("objective", "depth", "lam", "sigma2", "eps", "t"),
    [
        ("mae", 1, 1.0, 1.1, 1e-280, 600.0),  # v0 = (eps/w*)^2 underflows, v does not
        ("mae", 1, 1.0, 1.1, 1e-280, 643.9),  # at the largest speed: no shift of the clock is forgiven
        ("mae", 1.2, 1.0, 1.1, 1e-250, 1e30),
        ("jepa", 200, -168.2, 0.466, 7.6e16, 1e300),  # u ~ t^(-1/399) is not small at any time
        ("jepa", 63.7, -93.6, 94.7, 3.5e29, 1.7e308),
        ("jepa", 64, 0.6835, 0.8344, 5.7e-05, 1.37e11),
        ("jepa", 50, 0.0392, 448.4, 1e-203, 1.0),  # the clock underflows
        ("mae", 1.5, -4.9e3, 0.8, 0.01, 1e10),
        ("jepa", 2, 1e-290, 1e10, 1.0, 1.0),  # v0 overflows
    ],
)
def test_far_ends(objective: str, depth: float, lam: float, sigma2: float, eps: float, t: float) -> None:
    errors = computed_error(objective, depth, lam, sigma2, eps, t)
    assert errors
    assert max(errors.values()) <= 16 * EPS_M, errors


@given(objectives, depths, covariances, positive, starts, times)
def test_finite_differences(objective: str, depth: float, lam: float, sigma2: float, eps: float, t: float) -> None:
    """Against differences of the solver's own responses, steps small where the response is sensitive."""
    base = solve(objective, depth, lam, sigma2, eps, [t])
    assume(limit(base) < 1e250)
    assume(base.w[0, 0] > 1e-250)
    values = {"lam": lam, "sigma2": sigma2, "eps": eps, "t": t}
    for name, value in values.items():
        scale = abs(value) if value != 0 else 1e-3 * sigma2 * eps
        derivative = float(getattr(base.sensitivity(), name)[0, 0])
        condition = abs(derivative) * scale / base.w[0, 0]
        h = 1e-5 / (depth + condition) * scale
        ends = [solve(objective, depth, *(v + k * h * (n == name) for n, v in values.items())).w for k in (1, -1)]
        difference = float((ends[0] - ends[1])[0, 0]) / (2 * h)
        assert abs(difference - derivative) <= 1e-4 * (abs(derivative) + base.w[0, 0] * depth / scale), name


# ---- laws ----------------------------------------------------------------------------------------------------------


@given(objectives, depths, covariances, positive, starts, st.lists(times, min_size=1, max_size=5).map(sorted))
def test_scaling_laws(objective: str, depth: float, lam: float, sigma2: float, eps: float, t: list[float]) -> None:
    """(c lam, c sigma2, t/c) leaves w as it is, and u -> c u the equation: two relations between four derivatives."""
    solution = solve(objective, depth, lam, sigma2, eps, t)
    s, w = solution.sensitivity(), solution.w
    with np.errstate(over="ignore", under="ignore"):
        by_lam, by_sigma2, by_eps, by_t = lam * s.lam, sigma2 * s.sigma2, eps * s.eps, np.array(t) * s.t
        assume(np.isfinite([by_lam, by_sigma2, by_eps, by_t, w]).all())
        scale = abs(by_lam) + abs(by_sigma2) + abs(by_t) + np.finfo(float).tiny
        assert (abs(by_lam + by_sigma2 - by_t) <= 16 * EPS_M * scale).all()
        p, q = exponents(objective, depth)
        size = q * by_sigma2 + depth * (w - by_eps) + (p - 1) * by_t
        terms = q * abs(by_sigma2) + depth * (w + by_eps) + (p - 1) * abs(by_t)
        # E of w and of the derivatives: each knows its clock to a rounding.
        shift = p * abs(by_t) * (1 + p * abs(by_t) / np.maximum(w, np.finfo(float).tiny))
        assert (abs(size) <= 64 * EPS_M * (terms + shift)).all()


@pytest.mark.parametrize("objective", ["jepa", "mae"])
@pytest.mark.parametrize("depth", [1, 1.5, 4, 33])
@pytest.mark.parametrize("lam", [0.7, -0.7, 0.0])
@pytest.mark.parametrize("eps", [1e-3, 0.5, 4.0])
def test_at_the_start(objective: str, depth: float, lam: float, eps: float) -> None:
    s = solve(objective, depth, lam, 1.1, eps, [0.0]).sensitivity()
    power = 3 - 1 / depth if objective == "jepa" else 2 - 1 / depth
    speed = depth * (lam * eps**power - 1.1 * eps**3)
    assert s.lam[0, 0] == 0
    assert s.sigma2[0, 0] == 0
    assert s.eps[0, 0] == pytest.approx(1, rel=4 * EPS_M)
    assert s.t[0, 0] == pytest.approx(speed, rel=1e-13)


@pytest.mark.parametrize("objective", ["jepa", "mae"])
@pytest.mark.parametrize("depth", [1, 1.5, 4, 33])
def test_limits(objective: str, depth: float) -> None:
    """t = inf: the derivatives of the fixed point (lam/sigma2)^(L/q), and nothing else."""
    lam, sigma2 = np.array([0.7, 2.0, -0.7]), np.array([1.1, 1.0, 1.0])
    solution = solve(objective, depth, lam, sigma2, 0.3, [math.inf])
    s = solution.sensitivity()
    power = depth / exponents(objective, depth)[1]
    fixed = solution.w[:2, 0]
    np.testing.assert_allclose(s.lam[:2, 0], power * fixed / lam[:2], rtol=8 * EPS_M)
    np.testing.assert_allclose(s.sigma2[:2, 0], -power * fixed / sigma2[:2], rtol=8 * EPS_M)
    assert (s.eps == 0).all()
    assert (s.t == 0).all()
    assert s.lam[2, 0] == s.sigma2[2, 0] == 0
    late = solution.at(1e300).sensitivity()
    np.testing.assert_allclose(late.lam[:2], s.lam[:2], rtol=8 * EPS_M)


@pytest.mark.parametrize("objective", ["jepa", "mae"])
@pytest.mark.parametrize("depth", [1, 2.0, 4.0])
def test_a_start_at_the_fixed_point(objective: str, depth: float) -> None:
    """Everything is exponential with the rate q lam u*^(p-1), here q lam."""
    t = np.array([0.0, 1e-9, 0.1, 2.0, 100.0, math.inf])
    s = solve(objective, depth, 0.5, 0.5, 1.0, t).sensitivity()
    q = exponents(objective, depth)[1]
    np.testing.assert_allclose(s.lam[0], -np.expm1(-q * 0.5 * t) * depth / q / 0.5, rtol=8 * EPS_M)
    np.testing.assert_array_equal(s.sigma2, -s.lam)
    np.testing.assert_allclose(s.eps[0], np.exp(-q * 0.5 * t), rtol=64 * EPS_M)
    assert (s.t == 0).all()
    for side in (1 - 1e-12, 1 + 1e-12):
        beside = solve(objective, depth, 0.5, 0.5, side, t).sensitivity()
        np.testing.assert_allclose(beside.lam, s.lam, rtol=1e-10)
        np.testing.assert_allclose(beside.eps, s.eps, rtol=1e-10)


@given(objectives, depths, positive, starts, times)
def test_noise_is_between_weak_features(objective: str, depth: float, sigma2: float, eps: float, t: float) -> None:
    """At lambda = 0 the derivatives exist and are the limits from both sides."""
    s = solve(objective, depth, 0.0, sigma2, eps, [t]).sensitivity()
    p, q = exponents(objective, depth)
    decayed = (1 + 2 * depth * sigma2 * eps**2 * t) ** (1 / (2 * depth))  # u0/u
    weak = 1e-9 * sigma2 * (eps ** (1 / depth) / decayed) ** q / (1 + p)
    for lam in (weak, -weak):
        beside = solve(objective, depth, lam, sigma2, eps, [t]).sensitivity()
        for name in PARTIALS:
            np.testing.assert_allclose(getattr(beside, name), getattr(s, name), rtol=1e-5, err_msg=name)


def test_noise_after_all_time() -> None:
    """What the derivative tends to, which is not that of the limit: w* has none at lambda = 0."""
    for objective, depth, expected in [("jepa", 1, 1 / (3 * 2.0)), ("jepa", 2, 0.0), ("mae", 1, math.inf)]:
        noise = solve(objective, depth, 0.0, 2.0, 0.1, [1e9, math.inf]).sensitivity()
        assert noise.lam[0, 1] == expected
        if objective == "jepa":
            assert noise.lam[0, 0] == pytest.approx(expected, rel=1e-3, abs=1e-3)
        assert noise.sigma2[0, 1] == noise.eps[0, 1] == noise.t[0, 1] == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("objective", ["jepa", "mae"])
@pytest.mark.parametrize("depth", [1, 1.0001, 1.5, 2, 3, 9, 17.5, 64, 200.3])
def test_extremes_keep_their_sign(objective: str, depth: float) -> None:
    """The whole range of doubles, every time from 0 to inf: no NaN, no wrong sign, inf where no double holds it."""
    rng = np.random.default_rng(int(depth * 10))
    n = case_count(ci=300, campaign=20_000)
    wide = rng.random((2, n)) < 0.4
    lam, sigma2 = 10.0 ** np.where(wide, rng.uniform(-307, 307, (2, n)), rng.uniform(-4, 4, (2, n)))
    lam *= rng.choice([1, 1, 1, -1, 0], n)
    eps = rng.choice([5e-324, 1e-310, 1e-300, 1e-100, 1e-10, 1e-2, 1, 10, 1e100, 1.7e308], n)
    t = np.array([0, 5e-324, 1e-300, 1e-20, 1e-5, 0.1, 1, 10, 1e5, 1e20, 1e100, 1e300, 1.7e308, math.inf])
    solution = solve(objective, depth, lam, sigma2, eps, t)
    s = solution.sensitivity()
    toward = np.sign(jo.fixed_point(solution.spectrum, objective, depth=depth) - eps)[:, None]
    assert (s.lam >= 0).all()
    assert (s.sigma2 <= 0).all()
    assert (s.eps >= 0).all()
    assert (toward * s.t >= 0).all()
    assert np.isnan(s.rho).tolist() == np.broadcast_to(lam[:, None] == 0, s.rho.shape).tolist()
    np.testing.assert_allclose(s.eps[:, 0], 1, rtol=4 * EPS_M)


# ---- the interface -------------------------------------------------------------------------------------------------


def ensemble() -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(3)
    lam, sigma2, eps = 10 ** rng.uniform(-1, 1, (3, 33))
    lam[::5] *= -1
    lam[3::7] = 0
    return lam, sigma2, 0.1 * eps


@pytest.mark.parametrize(("objective", "depth"), [("jepa", 2.0), ("jepa", 3.7), ("mae", 1.0), ("mae", 5.3)])
def test_independence(objective: str, depth: float) -> None:
    """Bitwise the same alone, permuted, on any threads, with other times and with a row of times per feature."""
    t = np.array([0.0, 0.3, 2.0, 2.0, 11.0, 400.0, 1e9])
    lam, sigma2, eps = (np.tile(column, 40) for column in ensemble())
    s = solve(objective, depth, lam, sigma2, eps, t).sensitivity(threads=1)
    order = np.random.default_rng(0).permutation(lam.size)
    others = {
        "threads": solve(objective, depth, lam, sigma2, eps, t).sensitivity(threads=3),
        "rows": solve(objective, depth, lam, sigma2, eps, np.tile(t, (lam.size, 1))).sensitivity(),
    }
    permuted = solve(objective, depth, lam[order], sigma2[order], eps[order], t).sensitivity()
    fewer = solve(objective, depth, lam, sigma2, eps, t[1::2]).sensitivity()
    alone = solve(objective, depth, lam[7], sigma2[7], eps[7], t).sensitivity()
    for name in PARTIALS:
        values = getattr(s, name)
        for what, other in others.items():
            np.testing.assert_array_equal(getattr(other, name), values, err_msg=what)
        np.testing.assert_array_equal(getattr(permuted, name), values[order])
        np.testing.assert_array_equal(getattr(fewer, name), values[:, 1::2])
        np.testing.assert_array_equal(getattr(alone, name)[0], values[7])


@pytest.mark.parametrize("objective", ["jepa", "mae"])
def test_time_units(objective: str) -> None:
    """One unit of flow time is L units of rescaled time: only dw/dt knows the unit."""
    t = np.array([0.0, 1.0, 64.0])
    lam, sigma2, eps = ensemble()
    flow = solve(objective, 4.0, lam, sigma2, eps, t).sensitivity()
    rescaled = solve(objective, 4.0, lam, sigma2, eps, 4 * t, time_unit="rescaled").sensitivity()
    np.testing.assert_array_equal(rescaled.t, flow.t / 4)
    for name in ("lam", "sigma2", "eps"):
        np.testing.assert_array_equal(getattr(rescaled, name), getattr(flow, name))


def test_infinite_depth() -> None:
    lam, sigma2, eps = ensemble()
    t = [0.0, 1.0, 64.0]
    limit = solve("mae", math.inf, lam, sigma2, eps, t, time_unit="rescaled").sensitivity()
    shallow = solve("jepa", 1, lam, sigma2, eps, t).sensitivity()
    deep = solve("mae", 1e5, lam, sigma2, eps, t, time_unit="rescaled").sensitivity()
    for name in PARTIALS:
        np.testing.assert_array_equal(getattr(limit, name), getattr(shallow, name))
        np.testing.assert_allclose(getattr(deep, name), getattr(limit, name), rtol=0.02, atol=1e-12)


def test_rho_is_at_fixed_lambda() -> None:
    lam, rho, h = np.array([0.7, 0.7, -0.5, 0.0]), np.array([0.6, 0.9, -0.4, 0.0]), 1e-6
    t = [3.0, 100.0]

    def responses(factor: float) -> Array:
        rhos = np.where(rho == 0, 1.0, rho) * factor
        lams = np.where(rho == 0, 0.3, lam)
        return jo.solve(jo.Spectrum(lams, rho=rhos), "jepa", depth=2, eps=0.1, t=t).w

    sigma2 = np.where(rho == 0, 1.0, lam / np.where(rho == 0, 1.0, rho))
    by_rho = solve("jepa", 2, lam, sigma2, 0.1, t).sensitivity().rho
    difference = (responses(1 + h) - responses(1 - h)) / (2 * h * np.where(rho == 0, 1.0, rho))[:, None]
    np.testing.assert_allclose(by_rho[:3], difference[:3], rtol=1e-7)
    assert np.isnan(by_rho[3]).all()


def test_any_method_gives_the_exact_sensitivity() -> None:
    lam, sigma2, eps = ensemble()
    exact = solve("jepa", 2, lam, sigma2, eps, [1.0, 5.0])
    stepped = solve("jepa", 2, lam, sigma2, eps, [1.0, 5.0], method="tsit5")
    for name in PARTIALS:
        np.testing.assert_array_equal(getattr(stepped.sensitivity(), name), getattr(exact.sensitivity(), name))


def test_result_is_frozen_and_picklable() -> None:
    s = solve("jepa", 2, 0.7, 1.0, 0.1, [1.0, 5.0]).sensitivity()
    assert s == pickle.loads(pickle.dumps(s))
    assert s != s.solution.at([1.0, 6.0]).sensitivity()
    for name in PARTIALS:
        assert getattr(s, name).shape == (1, 2)
        with pytest.raises(ValueError, match="read-only"):
            getattr(s, name)[0, 0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        s.t = s.lam  # type: ignore[misc]
    assert repr(s).startswith("Sensitivity(lam, sigma2, eps, t: arrays (1, 2), of Solution(jepa")
    assert isinstance(s, jo.Sensitivity)


def test_empty() -> None:
    assert solve("jepa", 2, 0.7, 1.0, 0.1, []).sensitivity().t.shape == (1, 0)
    assert solve("jepa", 2, [], [], 0.1, [1.0]).sensitivity().rho.shape == (0, 1)


def test_to_xarray() -> None:
    pytest.importorskip("xarray")
    lam, sigma2, eps = ensemble()
    for t in ([1.0, 5.0], np.tile([1.0, 5.0], (lam.size, 1))):
        s = solve("mae", 2, lam, sigma2, eps, t).sensitivity()
        data = s.to_xarray()
        for name in (*PARTIALS, "rho"):
            np.testing.assert_array_equal(data[f"dw_d{name}"], getattr(s, name))
        assert data["dw_dlam"].dims == ("feature", "time")
        assert data.attrs["depth"] == 2


def test_bad_arguments() -> None:
    solution = solve("jepa", 2, 0.7, 1.0, 0.1, [1.0])
    with pytest.raises(ValueError, match="threads"):
        solution.sensitivity(threads=0)
    with pytest.raises(TypeError, match="threads"):
        solution.sensitivity(threads=1.5)  # type: ignore[arg-type]
    averaged = dataclasses.replace(solution, objective=jo.JEPA(ema=0.5))
    with pytest.raises(ValueError, match="sensitivity holds for plain objectives only"):
        averaged.sensitivity()
    with pytest.raises(ValueError, match="depth"):
        dataclasses.replace(solution, depth=1e9).sensitivity()
