"""The matrix flow against its specification, the scalar theory, conservation laws and symmetries (RELIABILITY.md 13-20)."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

import jepa_ode as jo
from conftest import case_count
from jepa_ode._core import engine
from jepa_ode.flow_problem import network_flow, start_state
from reference_flow import (
    feature_system,
    feature_velocity,
    loss,
    pack,
    product,
    unpack,
    velocity,
)

OBJECTIVES = [
    jo.JEPA(),
    jo.JEPA(stop_gradient=False),
    jo.JEPA(ema=2.0),
    jo.JEPA(weight_decay=0.02),
    jo.JEPA(ema=0.5, weight_decay=0.01),
    jo.MAE(),
    jo.MAE(weight_decay=0.02),
]
TIGHT = {"rtol": 1e-12, "atol": 1e-14}
REDUCED = "aligned flow against the scalar equations"


def random_cov(d: int, seed: int) -> jo.Covariances:
    """Views that share a signal; Syx is not symmetric, so that a transposed product cannot hide."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((d, 3 * d))
    y = x @ np.diag(rng.uniform(0, 2, 3 * d)) + rng.standard_normal((d, 3 * d))
    return jo.Covariances(x @ x.T / (3 * d), y @ x.T / (3 * d), y @ y.T / (3 * d))


def along(directions: np.ndarray) -> SimpleNamespace:
    """Features where a test knows them: a flow reads their dual directions only."""
    return SimpleNamespace(duals=directions)


def random_orthogonal(d: int, rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((d, d)))[0]


def aligned_data(d: int, rotated: bool, seed: int = 0) -> tuple[jo.Spectrum, jo.Covariances, np.ndarray]:
    """Simultaneously diagonalisable covariances, their spectrum and the common basis."""
    rng = np.random.default_rng(seed)
    rho = rng.uniform(0.35, 0.95, d)
    lam, sigma2_y = rng.uniform(0.5, 1.5, d), rng.uniform(1, 2, d)
    spec = jo.Spectrum(lam, rho=rho, sigma2_y=np.maximum(sigma2_y, 1.01 * lam * rho))  # Cauchy-Schwarz
    basis = random_orthogonal(d, rng) if rotated else np.eye(d)
    moments = [basis * moment @ basis.T for moment in (spec.sigma2, spec.lam, spec.sigma2_y)]
    return spec, jo.Covariances(*moments), basis


@st.composite
def networks(draw):
    """A random network, data of its width, and the objective that its predictor fits."""
    objective = draw(st.sampled_from(OBJECTIVES))
    d, depth = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    widths = draw(st.lists(st.integers(1, 7), min_size=depth, max_size=depth))
    seed = draw(st.integers(0, 2**32 - 1))
    net = jo.LinearNetwork.random(d, depth, 1.0, seed, widths, objective.name)
    return net, random_cov(d, seed), objective


def engine_flow(net, cov, objective):
    return network_flow(net, objective, cov.Sxx, cov.Syx, cov.Syy)


def random_target(net, objective, seed=0):
    """A target network that differs from the encoder, where there is one."""
    if objective.name == "mae" or objective.ema is None:
        return []
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(layer.shape) for layer in net.encoder]


# --- right-hand side (20) -------------------------------------------------------------------------


@given(networks())
def test_velocity_and_loss_are_those_of_the_specification(record, problem):
    net, cov, objective = problem
    W, V, B = list(net.encoder), net.predictor, random_target(net, objective)
    flow = engine_flow(net, cov, objective)
    dW, dV, dB = velocity(W, V, cov, objective, B)
    expected = pack(dW, dV, dB)
    error = np.abs(flow.velocity(pack(W, V, B)) - expected).max() / (1 + np.abs(expected).max())
    record(20, "right-hand side against the equations as written", error, at_most=1e-13)
    assert flow.loss(pack(W, V, B)) == pytest.approx(loss(W, V, cov, objective, B), rel=1e-12, abs=1e-12)


@given(networks())
def test_velocity_is_minus_the_gradient_where_the_target_is_held(record, problem):
    net, cov, objective = problem
    W, V, B = list(net.encoder), net.predictor, random_target(net, objective)
    held = None  # the target that differentiation does not see
    if objective.name == "jepa" and objective.stop_gradient:
        held = product(B or W)
    weights, h = pack(W, V), 1e-5

    def penalised(at: np.ndarray) -> float:
        layers, predictor, _ = unpack(at, W, V)
        value = loss(layers, predictor, cov, objective, B, target=held)
        return value + 0.5 * objective.weight_decay * float(at @ at)

    gradient = np.array(
        [(penalised(weights + h * e) - penalised(weights - h * e)) / (2 * h) for e in np.eye(weights.size)]
    )
    moved = engine_flow(net, cov, objective).velocity(pack(W, V, B))[: weights.size]
    # Central differences of a polynomial: truncation h^2, rounding eps/h.
    error = np.abs(moved + gradient).max() / (1 + np.abs(gradient).max())
    record(20, "right-hand side against central differences", error, at_most=1e-6)


@pytest.mark.parametrize("name", ["jepa", "mae"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_coupled_feature_equations_are_the_same_flow(name, depth):
    rng = np.random.default_rng(depth)
    cov = random_cov(5, 3)
    cov = jo.Covariances(cov.Sxx, (cov.Syx + cov.Syx.T) / 2, cov.Syy)
    spec = cov.spectrum()
    Q, P = spec.directions, spec.duals
    net = jo.LinearNetwork.random(5, depth, 1.0, rng)
    W, V = list(net.encoder), net.predictor
    moved = engine_flow(net, cov, jo.JEPA() if name == "jepa" else jo.MAE()).velocity(pack(W, V))
    dW, dV, _ = unpack(moved, W, V)

    change = Q.T if name == "mae" else np.eye(5)
    dWhat, dVhat = feature_velocity([W[0] @ P, *W[1:]], change @ V, spec.rho, P.T @ P, SimpleNamespace(name=name))
    np.testing.assert_allclose(dW[0] @ P, dWhat[0], atol=1e-11)
    np.testing.assert_allclose(change @ dV, dVhat, atol=1e-11)
    for mine, theirs in zip(dW[1:], dWhat[1:], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-11)


# --- integration against independent solutions (17) -------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
@pytest.mark.parametrize("method", ["tsit5", "dop853"])
def test_unaligned_flow_agrees_with_scipy(objective, method):
    cov = random_cov(4, 1)
    net = jo.LinearNetwork.random(4, 2, 0.5, 2, [5, 4], objective.name)
    W, V = list(net.encoder), net.predictor
    ema = objective.name == "jepa" and objective.ema is not None
    t = np.array([0.0, 0.3, 1.0, 1.0, 4.0, 10.0])

    def right_hand_side(_, state):
        return pack(*velocity(*unpack(state, W, V, ema)[:2], cov, objective, unpack(state, W, V, ema)[2]))

    start = pack(W, V, W if ema else [])
    reference = solve_ivp(right_hand_side, (0, 10), start, "DOP853", t[[0, 1, 2, 4, 5]], rtol=1e-12, atol=1e-14)
    states = reference.y.T[[0, 1, 2, 2, 3, 4]]

    features = along(np.random.default_rng(0).standard_normal((4, 3)))
    flow = jo.gradient_flow(
        net, cov, objective, t=t, method=method, rtol=1e-11, atol=1e-13, features=features, keep_weights=True
    )
    assert flow.success
    assert flow.method == method
    for k, state in enumerate(states):
        layers, predictor, target = unpack(state, W, V, ema)
        np.testing.assert_allclose(
            flow.response[:, k], jo.LinearNetwork(layers, predictor).response(features.duals), atol=1e-9
        )
        assert flow.loss[k] == pytest.approx(loss(layers, predictor, cov, objective, target), abs=1e-9)
        np.testing.assert_allclose(flow.network(k).predictor, predictor, atol=1e-9)
    assert flow.network(0) == net
    assert flow.network(-1).widths == net.widths


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["jepa", "mae"])
@pytest.mark.parametrize("method", ["auto", "tsit5"])
def test_aligned_start_follows_the_scalar_theory(record, name, depth, rotated, method):
    spec, cov, basis = aligned_data(5, rotated, depth)
    eps = 0.02
    end = 3 * jo.critical_time(spec, name, depth=depth, eps=eps, fraction=0.9).max()
    t = np.concatenate([[0.0], np.geomspace(end / 300, end, 40)])
    exact = np.empty((5, t.size))
    start = np.full(5, eps)
    status = engine.solve_exact(spec.lam, spec.sigma2, start, float(depth), int(name == "mae"), t, 1, exact)
    assert not status.any()
    net = jo.LinearNetwork.balanced(5, depth, eps, rng=depth)
    flow = jo.gradient_flow(net, cov, name, t=t, features=along(basis), method=method, **TIGHT)
    assert flow.success
    assert flow.method in (("dop853", "dop853+rock4") if method == "auto" else ("tsit5",))
    record(17, REDUCED, np.abs(flow.response - exact).max(), at_most=1e-9)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_aligned_start_follows_the_three_scalars_with_every_option(record, objective, depth):
    spec, cov, basis = aligned_data(3, rotated=True)
    t = np.concatenate([[0.0], np.geomspace(0.5, 60, 20)])
    net = jo.LinearNetwork.balanced(3, depth, 0.1)
    flow = jo.gradient_flow(net, cov, objective, t=t, features=along(basis), **TIGHT)
    assert flow.success
    for i in range(3):
        expected = feature_system(
            t,
            lam=spec.lam[i],
            sigma2=spec.sigma2[i],
            sigma2_y=spec.sigma2_y[i],
            depth=depth,
            objective=objective,
            eps=0.1,
        )
        record(17, REDUCED, np.abs(flow.response[i] - expected).max(), at_most=1e-9)


@pytest.mark.parametrize("coordinates", ["data", "features"])
@pytest.mark.parametrize("start", ["balanced", "unbalanced", "each its own", "wide"])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_aligned_starts_follow_solve_with_every_option(record, objective, start, coordinates):
    depth, t = 2, np.concatenate([[0.0], np.geomspace(0.5, 60, 20)])
    eps = np.array([0.05, 0.1, 0.2, 0.3]) if start == "each its own" else np.full(4, 0.1)
    v0 = {"unbalanced": 2 * eps ** (1 / depth), "each its own": np.array([0.5, -0.2, 0.1, 0.7])}.get(start)
    widths = [9, 6] if start == "wide" else None
    for seed in range(case_count(1, 30)):
        spec, cov, basis = aligned_data(4, rotated=True, seed=seed)
        net = jo.LinearNetwork.balanced(4, depth, eps, 1, basis, v0=v0, widths=widths, objective=objective.name)
        settings = {"t": t, "features": along(basis), "coordinates": coordinates, **TIGHT}
        flow = jo.gradient_flow(net, cov, objective, **settings)
        theory = jo.solve(spec, objective, depth=depth, eps=eps, v0=v0, t=t, rtol=1e-12)
        assert flow.success
        record(17, REDUCED, np.abs(flow.response - theory.w).max(), at_most=1e-9)


@pytest.mark.parametrize("coordinates", ["data", "features"])
@pytest.mark.parametrize("objective", [jo.JEPA(), jo.JEPA(ema=2.0), jo.MAE()], ids=repr)
def test_a_rate_of_the_predictor_is_another_spectrum(record, objective, coordinates):
    # In v/sqrt(r) the three scalars of THEORY.md 2 are those of sqrt(r) lambda and r sigma^2, without decay.
    spec, cov, basis = aligned_data(4, rotated=True)
    t, rate, v0 = np.geomspace(0.5, 60, 20), 2.5, 0.4
    net = jo.LinearNetwork.balanced(4, 2, 0.1, 1, basis, v0=v0)
    settings = {"t": t, "features": along(basis), "coordinates": coordinates, "predictor_rate": rate, **TIGHT}
    flow = jo.gradient_flow(net, cov, objective, **settings)
    other = jo.Spectrum(np.sqrt(rate) * spec.lam, rate * spec.sigma2)
    theory = jo.solve(other, objective, depth=2, eps=0.1, v0=v0 / np.sqrt(rate), t=t, rtol=1e-12)
    record(17, REDUCED, np.abs(flow.response - theory.w).max(), at_most=1e-9)
    assert flow.predictor_rate == rate
    slow = jo.gradient_flow(net, cov, objective, t=t, features=along(basis))
    assert np.abs(slow.response - flow.response).max() > 1e-3


@pytest.mark.parametrize("objective", [jo.JEPA(ema=2.0), jo.MAE(0.01)], ids=repr)
def test_a_schedule_is_a_clock(objective):
    _, cov, _ = aligned_data(3, rotated=True)
    net = jo.LinearNetwork.balanced(3, 2, 0.1)
    schedule = jo.Schedule.cosine(60.0, value=2.0, warmup=10.0)
    t = np.linspace(0.0, 80.0, 17)
    flow = jo.gradient_flow(net, cov, objective, t=t, schedule=schedule)
    own = jo.gradient_flow(net, cov, objective, t=schedule.elapsed(t))
    np.testing.assert_array_equal(flow.response, own.response)
    np.testing.assert_array_equal(flow.loss, own.loss)
    np.testing.assert_array_equal(flow.t, t)
    assert flow.schedule == schedule
    with pytest.raises(TypeError, match=r"jepa_ode\.Schedule"):
        jo.gradient_flow(net, cov, objective, t=t, schedule=2.0)


@given(networks(), st.integers(-300, 300), st.sampled_from(["auto", "tsit5", "dop853", "rock4"]))
def test_the_unit_of_time_changes_no_bit(problem, k, method):
    """Rates times 2^k and times by it, from the first step on."""
    net, cov, objective = problem

    def flow(c):
        moments = jo.Covariances(c * cov.Sxx, c * cov.Syx, c * cov.Syy)
        options = {"weight_decay": c * objective.weight_decay}
        if getattr(objective, "ema", None) is not None:
            options["ema"] = objective.ema / c
        return jo.gradient_flow(
            net, moments, dataclasses.replace(objective, **options), t=np.array([0.0, 0.5, 3.0]) / c, method=method
        )

    here, there = flow(1.0), flow(2.0**k)
    assert there.status == here.status
    assert there.nfev == here.nfev
    np.testing.assert_array_equal(there.loss / 2.0**k, here.loss)
    if here.success:
        for mine, theirs in zip(there.final.encoder, here.final.encoder, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_schedule_in_the_comparison_with_the_theory():
    _, cov, _ = aligned_data(3, rotated=False)
    net = jo.LinearNetwork.balanced(3, 2, 0.1)
    t = np.linspace(0.0, 500.0, 1001)
    schedule = jo.Schedule.warmup(100.0)
    check = jo.compare_with_flow(jo.gradient_flow(net, cov, "jepa", t=t, schedule=schedule))
    plain = jo.compare_with_flow(jo.gradient_flow(net, cov, "jepa", t=t))
    assert check.compared == plain.compared >= 2
    assert check.max_error < 1e-3
    np.testing.assert_allclose(check.predicted_time, schedule.time(plain.predicted_time), rtol=1e-12)


def test_features_default_to_those_of_the_covariances():
    cov = random_cov(4, 8)
    net = jo.LinearNetwork.balanced(4, 2, 0.1)
    flow = jo.gradient_flow(net, cov, "jepa", t=[0, 5, 50], keep_weights=True)
    assert flow.features == cov.spectrum()
    np.testing.assert_allclose(flow.response[:, 2], flow.network(2).response(flow.features.duals), rtol=1e-12)


@pytest.mark.parametrize("method", ["tsit5", "dop853"])
def test_error_follows_the_tolerance(method):
    spec, cov, basis = aligned_data(4, rotated=True)
    t = np.geomspace(5, 500, 30)
    exact = np.empty((4, t.size))
    engine.solve_exact(spec.lam, spec.sigma2, np.full(4, 0.1), 2.0, 0, t, 1, exact)
    net = jo.LinearNetwork.balanced(4, 2, 0.1)
    for rtol in (1e-3, 1e-5, 1e-7, 1e-9, 1e-11):
        flow = jo.gradient_flow(net, cov, "jepa", t=t, method=method, rtol=rtol, atol=rtol / 100, features=along(basis))
        # Ten tolerances for the flow, amplified by at most the condition of the rise (THEORY.md 3).
        assert np.abs(flow.response - exact).max() < 100 * rtol


@pytest.mark.parametrize("name", ["jepa", "mae"])
def test_long_plateaus_are_crossed_by_the_stabilised_method(name):
    """As accurately as by the pair it takes over from, with a fraction of the right-hand sides."""
    spec, cov, basis = aligned_data(4, rotated=True)
    t = np.geomspace(5, 5000, 30)
    exact = np.empty((4, t.size))
    engine.solve_exact(spec.lam, spec.sigma2, np.full(4, 0.1), 2.0, int(name == "mae"), t, 1, exact)
    net = jo.LinearNetwork.balanced(4, 2, 0.1)

    def run(method, rtol):
        return jo.gradient_flow(net, cov, name, t=t, method=method, rtol=rtol, atol=rtol / 100, features=along(basis))

    for rtol in (1e-3, 1e-5, 1e-7):
        auto, pair, alone = (run(method, rtol) for method in ("auto", "tsit5", "rock4"))
        assert auto.success
        assert auto.method == "dop853+rock4"
        assert pair.stabilised_steps == 0 < auto.stabilised_steps < auto.steps
        assert auto.nfev < pair.nfev / 4
        assert np.abs(auto.response - exact).max() < 100 * rtol
        assert alone.method == "rock4"
        assert alone.stabilised_steps == alone.steps
        assert np.abs(alone.response - exact).max() < 200 * rtol


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("name", ["jepa", "mae"])
def test_requested_times_inside_long_steps_are_as_accurate_as_their_ends(name, depth):
    """The polynomial between steps of rock4 must not blow up what a step leaves in the fast directions, as velocities would."""
    cov = random_cov(16, 0)
    net = jo.LinearNetwork.balanced(16, depth, 1e-2, rng=0)
    t = np.linspace(500, 1500, 8) * (depth - 1)

    def response(t, rtol, method="rock4"):
        return jo.gradient_flow(net, cov, name, t=t, method=method, rtol=rtol, atol=1e-12).response

    accurate = response(t, 1e-10, "dop853")
    for rtol in (1e-4, 1e-6):
        inside = np.abs(response(t, rtol) - accurate).max()
        ends = max(np.abs(response([t[k]], rtol)[:, 0] - accurate[:, k]).max() for k in range(t.size))
        assert inside < 10 * ends


@pytest.mark.parametrize("rtol", [1e-4, 1e-5])
def test_errors_are_no_larger_once_the_method_has_changed(rtol):
    """The first steps of rock4 are short ones, which forget less of their errors than the long ones later."""
    cov = random_cov(48, 0)
    net = jo.LinearNetwork.balanced(48, 3, 1e-2, rng=0)
    t = np.linspace(0, 30, 97)

    def flow(t, rtol=rtol, method="auto"):
        return jo.gradient_flow(net, cov, "mae", t=t, method=method, rtol=rtol, atol=1e-12)

    error = np.abs(flow(t).response - flow(t, 1e-10, "dop853").response).max(axis=0)
    change = next(k for k in range(2, t.size) if flow(t[:k]).stabilised_steps)
    assert 20 < change < 60
    assert error[change:].max() < 0.9 * error[:change].max()


# --- conservation and symmetry (13, 16, 18, 19) -----------------------------------------------------


def drift(net: jo.LinearNetwork, start: jo.LinearNetwork, rate: float) -> float:
    """How far what the flow conserves has moved since the start, relative to the squared weights there."""
    scale = 1 + max(float(np.sum(weights**2)) for weights in (*start.encoder, start.predictor))
    balancedness = zip(net.balancedness(rate), start.balancedness(rate), strict=True)
    return float(np.max([np.abs(now - then).max() for now, then in balancedness])) / scale


@given(networks(), st.sampled_from([1.0, 0.2, 6.0]), st.sampled_from(["auto", "tsit5", "dop853", "rock4"]))
def test_balancedness_is_conserved(record, problem, rate, method):
    net, cov, objective = problem
    if objective not in (jo.JEPA(), jo.JEPA(ema=2.0), jo.MAE()):
        objective = jo.JEPA() if objective.name == "jepa" else jo.MAE()
    flow = jo.gradient_flow(
        net,
        cov,
        objective,
        t=[0.0, 0.1, 3.0],
        method=method,
        rtol=1e-10,
        atol=1e-12,
        features=along(np.eye(net.widths[0])),
        keep_weights=True,
        predictor_rate=rate,
    )
    assume(flow.status != jo.Status.MAX_STEPS)  # deep ones with large weights may be too stiff for this tolerance
    assert flow.success
    for k in range(3):
        moved = drift(flow.network(k), net, rate)
        record(16, "drift at rtol 1e-10, relative to the squared weights", moved, at_most=1e-8)


# Layers of one row, whose flows take thousands of short steps: none forgets an error, so that they add up.
@pytest.mark.parametrize("method", ["auto", "tsit5", "dop853", "rock4"])
@pytest.mark.parametrize("seed", [1, 6, 9])
def test_errors_of_many_short_steps_stay_in_proportion_to_the_tolerance(method, seed):
    rng = np.random.default_rng(seed)
    widths = [4, 1, 4, 4, 1]
    layers = [rng.normal(0, 0.8, (rows, columns)) for columns, rows in itertools.pairwise(widths)]
    net = jo.LinearNetwork(layers, rng.normal(0, 0.8, (1, 1)))
    for rtol in (1e-7, 1e-9, 1e-11):
        flow = jo.gradient_flow(
            net,
            random_cov(4, seed + 1),
            "jepa",
            t=[3.0],
            method=method,
            rtol=rtol,
            atol=rtol / 100,
            features=along(np.eye(4)),
            keep_weights=True,
            predictor_rate=0.2,
        )
        assert flow.success
        assert drift(flow.network(0), net, 0.2) < 3 * rtol


@pytest.mark.parametrize("name", ["jepa", "mae"])
@pytest.mark.parametrize("method", ["auto", "tsit5", "dop853", "rock4"])
@pytest.mark.parametrize("seed", range(4, 4 + case_count(1, 50)))
def test_hidden_and_data_rotations_rotate_the_flow(record, name, method, seed):
    rng = np.random.default_rng(seed)
    cov = random_cov(4, seed + 1)
    net = jo.LinearNetwork.random(4, 3, 0.5, rng)
    data, *hidden = (random_orthogonal(4, rng) for _ in range(4))
    frames = [data, *hidden]
    top = data if name == "mae" else hidden[-1]
    layers = [frames[i + 1] @ net.encoder[i] @ frames[i].T for i in range(3)]
    turned_net = jo.LinearNetwork(layers, top @ net.predictor @ hidden[-1].T)
    turned_cov = jo.Covariances(*(data @ S @ data.T for S in (cov.Sxx, cov.Syx, cov.Syy)))

    settings = {"t": [0.5, 3.0, 20.0], "keep_weights": True, "method": method}
    flow = jo.gradient_flow(net, cov, name, features=along(np.eye(4)), **settings)
    turned = jo.gradient_flow(turned_net, turned_cov, name, features=along(data), **settings)
    # With a pair not to the tolerance but to rounding: the norm that controls the steps is invariant. The stabilised
    # method estimates the fastest rate by a difference, to half the digits.
    pair = method in ("tsit5", "dop853")
    atol = 1e-10 if pair else 1e-7
    # Of many networks there are some where rounding decides whether a step is accepted; they agree to the tolerance.
    first = seed == 4
    assert not first or abs(turned.nfev - flow.nfev) <= (0 if pair else 0.01 * flow.nfev)
    quantity = f"rotated flow against the flow, {'a pair' if pair else 'with rock4'}"
    compared = [(turned.response, flow.response), (turned.loss, flow.loss)]
    for k in range(3):
        expected = hidden[-1] @ flow.network(k).encoder_product() @ data.T
        compared.append((turned.network(k).encoder_product(), expected))
    errors = np.array([np.abs(mine - theirs).max() for mine, theirs in compared])
    record(18, "rotated flow against the flow, in units of rtol", errors / 1e-6, at_most=100)  # as the error may be
    if first:
        record(18, quantity, errors, at_most=atol)


def is_possible(spec):
    return (spec.lam * spec.rho < spec.sigma2_y).all()  # Cauchy-Schwarz


@pytest.mark.parametrize("seed", [k for k in range(case_count(1, 200)) if is_possible(aligned_data(4, True, k)[0])])
def test_collapse_without_stop_gradient_and_none_with_it(record, seed):
    spec, cov, basis = aligned_data(4, rotated=True, seed=seed)
    net = jo.LinearNetwork.balanced(4, 2, 0.1)
    settings = {"t": [0.0, 1e4], "features": along(basis)}
    collapsed = jo.gradient_flow(net, cov, jo.JEPA(stop_gradient=False), **settings)
    learned = jo.gradient_flow(net, cov, jo.JEPA(), **settings)
    record(19, "largest response at last without stop-gradient", collapsed.response[:, -1], at_most=0.01)
    error = np.abs(learned.response[:, -1] / spec.rho**2 - 1)
    record(19, "response at last with it, relative to the fixed point", error, at_most=1e-4)
    assert collapsed.loss[-1] < collapsed.loss[0]


@given(st.integers(2, 5), st.integers(1, 3), st.integers(0, 10**6))
def test_the_loss_of_mae_never_rises(record, d, depth, seed):
    net = jo.LinearNetwork.random(d, depth, 0.5, seed)
    flow = jo.gradient_flow(net, random_cov(d, seed), "mae", t=np.geomspace(1e-3, 100, 100), features=along(np.eye(d)))
    assert flow.success
    rise = np.maximum(np.diff(flow.loss), 0)
    record(13, "rise of the loss / first loss, MAE", rise / flow.loss[0], at_most=1e-8)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_loss_of_jepa_ends_higher_than_it_began(record, depth):
    spec, cov, basis = aligned_data(4, rotated=True)
    end = 3 * jo.critical_time(spec, "jepa", depth=depth, eps=0.01, fraction=0.9).max()
    net = jo.LinearNetwork.balanced(4, depth, 0.01)
    flow = jo.gradient_flow(net, cov, "jepa", t=[0, end], features=along(basis))
    assert flow.loss[0] > 0
    record(13, "last loss / first loss, JEPA", flow.loss[-1] / flow.loss[0], at_least=10)
    np.testing.assert_allclose(flow.response[:, -1], spec.rho**depth, rtol=0.15)


def test_rank_deficient_data():
    # A constant coordinate carries no gradient: its column of the first layer stays as it was.
    spec, cov, _ = aligned_data(3, rotated=False)
    padded = [np.pad(S, (0, 1)) for S in (cov.Sxx, cov.Syx, cov.Syy)]
    net = jo.LinearNetwork.balanced(4, 2, 0.1)
    flow = jo.gradient_flow(net, jo.Covariances(*padded), "jepa", t=[1e3], features=along(np.eye(4)))
    np.testing.assert_allclose(flow.response[:3, 0], spec.rho**2, rtol=1e-4)
    assert flow.response[3, 0] == pytest.approx(0.1, abs=1e-6)


# --- results --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    _, cov, _ = aligned_data(3, rotated=True)
    return jo.LinearNetwork.balanced(3, 2, 0.1), cov


@pytest.mark.parametrize("method", ["tsit5", "dop853", "rock4", "auto"])
def test_denser_times_do_not_move_the_old_points(small, method):
    few = np.array([1.0, 7.0, 30.0])
    many = np.sort(np.concatenate([[0, 0], few, few, np.linspace(0, 30, 17)]))
    one, other = (jo.gradient_flow(*small, "jepa", t=t, method=method) for t in (few, many))
    where = np.searchsorted(many, few)
    np.testing.assert_array_equal(other.response[:, where], one.response)
    np.testing.assert_array_equal(other.response[:, where + 1], one.response)
    np.testing.assert_array_equal(other.loss[where], one.loss)
    assert other.steps == one.steps


def test_the_start_is_time_zero(small):
    net, cov = small
    flow = jo.gradient_flow(net, cov, "mae", t=[0, 0], keep_weights=True)
    assert flow.network(1) == net
    assert flow.nfev == 0
    np.testing.assert_array_equal(flow.response[:, 0], flow.response[:, 1])
    np.testing.assert_allclose(flow.response, 0.1, rtol=1e-13)
    empty = jo.gradient_flow(net, cov, "mae", t=[])
    assert empty.success
    assert empty.response.shape == (3, 0)
    assert empty.loss.shape == (0,)
    assert jo.gradient_flow(net, cov, "mae", t=5).response.shape == (3, 1)


def test_a_budget_that_runs_out_is_a_status(small):
    flow = jo.gradient_flow(*small, "jepa", t=[0, 1e6], max_steps=5, keep_weights=True)
    assert flow.status == jo.Status.MAX_STEPS
    assert not flow.success
    assert flow.steps + flow.rejected == 5
    assert "max_steps=5" in flow.message
    assert "1 of 2 times" in flow.message
    assert np.isfinite(flow.response[:, 0]).all()
    assert np.isnan(flow.response[:, 1]).all()
    assert np.isnan(flow.loss[1])
    flow.network(0)
    with pytest.raises(ValueError, match="was not reached"):
        flow.network(1)


def test_overflow_is_a_status(small):
    _, cov = small
    net = jo.LinearNetwork([1e200 * np.eye(3)], np.eye(3))
    flow = jo.gradient_flow(net, cov, "jepa", t=[1.0])
    assert flow.status == jo.Status.NOT_FINITE
    assert np.isnan(flow.response).all()


@pytest.mark.parametrize("method", ["auto", "tsit5", "dop853", "rock4"])
def test_an_overflow_of_norms_is_seen_at_once(method):
    """The weights and their decay are doubles, the sum of their squares is none."""
    nothing = jo.Covariances(1e-300 * np.eye(2), np.zeros((2, 2)), None)
    flow = jo.gradient_flow(
        jo.LinearNetwork([1e160 * np.eye(2)], np.zeros((2, 2))), nothing, jo.MAE(1e-3), t=[1.0, 1e3], method=method
    )
    assert flow.status == jo.Status.NOT_FINITE
    assert flow.nfev < 10


def test_no_horizon_hangs(small):
    for t in (1e-320, 1e-30, 1e30, 1e308):
        flow = jo.gradient_flow(*small, "mae", t=[t], max_steps=2000)
        assert flow.success == bool(np.isfinite(flow.response).all())
        assert flow.success or flow.status == jo.Status.MAX_STEPS


@pytest.mark.parametrize("method", ["auto", "tsit5", "dop853", "rock4"])
def test_a_network_at_rest_stays_there_in_one_step(small, method):
    nothing = jo.LinearNetwork([np.zeros((3, 3))] * 2, np.zeros((3, 3)))
    flow = jo.gradient_flow(nothing, small[1], "mae", t=[0.0, 1e30], method=method)
    assert flow.success
    assert flow.steps == 1
    assert not flow.final.predictor.any()


def test_weights_are_kept_on_demand(small):
    flow = jo.gradient_flow(*small, "jepa", t=[0, 1])
    with pytest.raises(ValueError, match="keep_weights=True"):
        flow.network(0)
    with pytest.raises(IndexError):
        jo.gradient_flow(*small, "jepa", t=[0, 1], keep_weights=True).network(2)


def test_no_loss_without_the_covariance_of_the_targets(small):
    net, cov = small
    blind = jo.Covariances(cov.Sxx, cov.Syx)
    flow = jo.gradient_flow(net, blind, "jepa", t=[0, 1])
    assert flow.loss is None
    np.testing.assert_array_equal(flow.response, jo.gradient_flow(net, cov, "jepa", t=[0, 1]).response)
    with pytest.raises(ValueError, match=r"needs cov\.Syy"):
        jo.gradient_flow(net, blind, jo.JEPA(stop_gradient=False), t=[0, 1])


def test_value_semantics(small):
    flow = jo.gradient_flow(*small, "jepa", t=[0, 1, 2], keep_weights=True)
    assert flow == jo.gradient_flow(*small, "jepa", t=[0, 1, 2], keep_weights=True)
    assert flow != jo.gradient_flow(*small, "jepa", t=[0, 1, 3], keep_weights=True)
    twin = pickle.loads(pickle.dumps(flow))
    assert twin == flow
    assert twin.status is jo.Status.OK
    assert twin.network(2) == flow.network(2)
    for array in (flow.t, flow.response, flow.loss, flow.weights, twin.response):
        assert not array.flags.writeable
    assert repr(flow).startswith("Flow(JEPA(")
    assert len(repr(flow)) < 200


def test_inputs_are_left_alone_and_any_layout_is_taken(small):
    net, cov = small
    expected = jo.gradient_flow(net, cov, "jepa", t=[0.0, 2.0])
    for convert in (np.asfortranarray, lambda a: a.astype(">f8"), lambda a: a[::-1][::-1], np.ndarray.tolist):
        loose = SimpleNamespace(**{name: convert(np.array(getattr(cov, name))) for name in ("Sxx", "Syx", "Syy")})
        before = pickle.dumps(loose)
        flow = jo.gradient_flow(net, loose, "jepa", t=np.array([0, 2]), features=cov.spectrum())
        np.testing.assert_array_equal(flow.response, expected.response)
        assert pickle.dumps(loose) == before


def test_to_xarray(small):
    pytest.importorskip("xarray")
    flow = jo.gradient_flow(*small, "mae", t=[0, 1, 2])
    dataset = flow.to_xarray()
    assert dict(dataset.sizes) == {"feature": 3, "time": 3}
    np.testing.assert_array_equal(dataset.response, flow.response)
    np.testing.assert_array_equal(dataset.rho, flow.features.rho)
    assert dataset.attrs["depth"] == 2
    assert dataset.attrs["time_unit"] == "flow"


def test_progress(small, monkeypatch):
    told = []
    jo.gradient_flow(*small, "jepa", t=[0, 100], progress=told.append)
    assert told == sorted(told)
    assert told[0] >= 0
    assert told[-1] == 1.0

    def stop(fraction):
        raise LookupError(fraction)

    with pytest.raises(LookupError):
        jo.gradient_flow(*small, "jepa", t=[0, 100], progress=stop)
    assert jo.gradient_flow(*small, "jepa", t=[0, 1]).success  # the next call is none the worse
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r'pip install "jepa-ode\[progress\]"'):
        jo.gradient_flow(*small, "jepa", t=[0, 1], progress=True)


def test_progress_bar(small, capsys):
    pytest.importorskip("tqdm")
    jo.gradient_flow(*small, "jepa", t=[0, 1], progress=True)
    assert "100%" in capsys.readouterr().err
    jo.gradient_flow(*small, "jepa", t=[0, 1])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"net": "net"}, TypeError, "net must be a LinearNetwork"),
        ({"net": jo.LinearNetwork.balanced(2, 2, 0.1)}, ValueError, r"cov\.Sxx must have shape \(2, 2\)"),
        ({"net": jo.LinearNetwork.random(3, 2, widths=2)}, ValueError, "net.predictor must have 3 rows, got 2"),
        ({"cov": None}, TypeError, "cov must be a Covariances with Sxx"),
        ({"cov": SimpleNamespace(Sxx=np.eye(3))}, TypeError, "cov must be a Covariances with Syx"),
        ({"cov": SimpleNamespace(Sxx=np.full((3, 3), np.nan), Syx=np.eye(3))}, ValueError, "cov.Sxx must be finite"),
        ({"objective": "vae"}, ValueError, "objective must be 'jepa' or 'mae'"),
        ({"objective": None}, TypeError, "objective must be"),
        ({"t": [1, 0]}, ValueError, "t must be non-decreasing"),
        ({"t": [-1.0]}, ValueError, "t is time since the start and must be non-negative"),
        ({"t": [0, np.nan]}, ValueError, "t must not hold NaN"),
        ({"t": [0, np.inf]}, ValueError, "t must be finite"),
        ({"t": [[0, 1]]}, ValueError, "t must have one dimension"),
        ({"t": ["now"]}, TypeError, "t must hold real numbers"),
        ({"method": "euler"}, ValueError, "method must be one of 'auto', 'tsit5', 'dop853'"),
        ({"rtol": 0}, ValueError, "rtol must be in"),
        ({"rtol": 1e-17}, ValueError, "rtol must be in"),
        ({"rtol": np.nan}, ValueError, "rtol must be in"),
        ({"rtol": "1e-6"}, TypeError, "rtol must be a real number"),
        ({"atol": -1}, ValueError, "atol must be non-negative"),
        ({"predictor_rate": 0.0}, ValueError, "predictor_rate must be positive"),
        ({"predictor_rate": None}, TypeError, "predictor_rate must be a real number"),
        ({"max_steps": 0}, ValueError, "max_steps must be at least 1"),
        ({"max_steps": 1.5}, TypeError, "max_steps must be a whole number"),
        ({"features": jo.Spectrum([1.0], rho=0.5)}, ValueError, "with dual directions"),
        ({"features": along(np.eye(2))}, ValueError, r"duals must have shape \(3, n\)"),
        ({"progress": 1}, TypeError, "progress must be True, False or a callable"),
    ],
)
def test_arguments_that_do_not_fit(small, arguments, error, match):
    net, cov = small
    call = {"net": net, "cov": cov, "objective": "mae", "t": [0, 1], **arguments}
    with pytest.raises(error, match=match):
        jo.gradient_flow(call.pop("net"), call.pop("cov"), call.pop("objective"), **call)


def test_jepa_needs_a_predictor_of_encodings(small):
    _, cov = small
    net = jo.LinearNetwork.random(3, 2, widths=2, objective="mae")
    with pytest.raises(ValueError, match=r"net\.predictor must have 2 rows, got 3"):
        jo.gradient_flow(net, cov, "jepa", t=[0, 1])
    assert jo.gradient_flow(net, cov, "mae", t=[0, 1]).success


def test_the_state_of_the_engine_is_the_network_and_its_target():
    net = jo.LinearNetwork.random(3, 2, widths=[4, 2])
    weights = pack(list(net.encoder), net.predictor)
    np.testing.assert_array_equal(start_state(net, jo.JEPA()), weights)
    np.testing.assert_array_equal(
        start_state(net, jo.JEPA(ema=1.0)), np.concatenate([weights, weights[: 3 * 4 + 4 * 2]])
    )
