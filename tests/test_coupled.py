"""The coupled feature equations: the same flow as in data coordinates, with every option (THEORY.md 6)."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jepa_ode as jo
from jepa_ode.flow_problem import network_flow
from reference_flow import feature_velocity, loss, pack, velocity
from test_flow import OBJECTIVES, along, random_orthogonal, random_target


def exchangeable_cov(d: int, seed: int) -> jo.Covariances:
    """Views of any symmetric Syx, of noise features too, and a target covariance of its own."""
    rng = np.random.default_rng(seed)
    Q = random_orthogonal(d, rng)
    Sxx = Q * rng.uniform(0.5, 2, d) @ Q.T
    values, vectors = np.linalg.eigh(Sxx)
    root = vectors * np.sqrt(values) @ vectors.T
    R = random_orthogonal(d, rng)
    Syx = root @ (R * rng.uniform(-0.3, 0.95, d) @ R.T) @ root
    Syy = np.eye(d) + root @ root
    return jo.Covariances(Sxx, (Syx + Syx.T) / 2, Syy)


@st.composite
def problems(draw):
    objective = draw(st.sampled_from(OBJECTIVES))
    d, depth = draw(st.integers(1, 30)), draw(st.integers(1, 4))
    widths = draw(st.lists(st.integers(1, 40), min_size=depth, max_size=depth))
    seed = draw(st.integers(0, 2**32 - 1))
    rate = draw(st.sampled_from([1.0, 0.25, 3.0]))
    return (
        jo.LinearNetwork.random(d, depth, 1.0, seed, widths, objective.name),
        exchangeable_cov(d, seed),
        objective,
        rate,
    )


@given(problems())
def test_velocity_and_loss_are_those_in_data_coordinates(record, problem):
    net, cov, objective, rate = problem
    coupled = jo.CoupledFeatures(cov)
    P = coupled.duals
    W, V, B = list(net.encoder), net.predictor, random_target(net, objective)
    plain = network_flow(net, objective, cov.Sxx, cov.Syx, cov.Syy, rate)
    hat = [layer.copy() for layer in B]
    if hat:
        hat[0] = hat[0] @ P
    state = pack([W[0] @ P, *W[1:]], V, hat)
    ours = coupled.network_flow(net, objective, rate)

    dW, dV, dB = velocity(W, V, cov, objective, B)
    expected = pack(dW, rate * dV, dB)
    scale = 1 + np.abs(expected).max()
    error = np.abs(plain.velocity(pack(W, V, B)) - expected).max() / scale
    record(20, "right-hand side against the equations as written", error, at_most=1e-13)
    if B:
        dB[0] = dB[0] @ P
    expected = pack([dW[0] @ P, *dW[1:]], rate * dV, dB)
    error = np.abs(ours.velocity(state) - expected).max() / scale
    record(20, "right-hand side in feature coordinates against that in data coordinates", error, at_most=1e-13)
    assert ours.loss(state) == pytest.approx(loss(W, V, cov, objective, B), rel=1e-12, abs=1e-12)

    if not B:
        encoder, predictor = coupled.velocity(coupled.to_features(net), objective, predictor_rate=rate)
        np.testing.assert_array_equal(pack(list(encoder), predictor), ours.velocity(state))


@pytest.mark.parametrize("name", ["jepa", "mae"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_velocity_is_that_of_the_equations_as_written(name, depth):
    coupled = jo.CoupledFeatures(exchangeable_cov(5, depth))
    net = jo.LinearNetwork.random(5, depth, 1.0, depth)
    encoder, predictor = coupled.velocity(net, name)
    change = coupled.directions.T if name == "mae" else np.eye(5)  # THEORY.md 6 turns MAE's decoder too
    dW, dV = feature_velocity(
        list(net.encoder), change @ net.predictor, coupled.rho, coupled.coupling_matrix, SimpleNamespace(name=name)
    )
    np.testing.assert_allclose(pack(list(encoder), change @ predictor), pack(dW, dV), rtol=0, atol=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
@pytest.mark.parametrize("method", ["auto", "tsit5"])
def test_integrated_flows_are_the_same(objective, method):
    cov = exchangeable_cov(5, 2)
    net = jo.LinearNetwork.random(5, 2, 0.6, 4, [6, 3], objective.name)
    settings = {
        "t": [0.0, 0.5, 3.0, 30.0],
        "method": method,
        "rtol": 1e-11,
        "atol": 1e-13,
        "predictor_rate": 1.7,
        "observe": ["singular_values", "balancedness"],
        "keep_weights": True,
    }
    data, features = (jo.gradient_flow(net, cov, objective, coordinates=c, **settings) for c in ("data", "features"))
    assert data.success
    assert features.success
    assert (data.coordinates, features.coordinates) == ("data", "features")
    for name in ("response", "loss", "weights"):
        np.testing.assert_allclose(getattr(features, name), getattr(data, name), rtol=0, atol=1e-9)
    for name, values in data.observables.items():
        np.testing.assert_allclose(features.observables[name], values, rtol=0, atol=1e-9)
    assert features.features == data.features
    # Any directions, not those of the features only.
    some = along(np.random.default_rng(0).standard_normal((5, 2)))
    flow = jo.gradient_flow(net, cov, objective, t=[3.0], features=some, coordinates="features", keep_weights=True)
    np.testing.assert_allclose(flow.response[:, 0], flow.network(0).response(some.duals), rtol=1e-12)


def test_what_it_holds():
    cov = exchangeable_cov(4, 0)
    coupled, spec = jo.CoupledFeatures(cov), cov.spectrum()
    np.testing.assert_allclose(coupled.rho, spec.rho, rtol=1e-12)
    np.testing.assert_allclose(np.abs(coupled.duals.T @ spec.directions), np.eye(4), atol=1e-12)
    M = coupled.coupling_matrix
    np.testing.assert_allclose(M, coupled.directions.T @ cov.Sxx @ cov.Sxx @ coupled.directions, atol=1e-12)
    np.testing.assert_allclose(np.diag(M), spec.lam / spec.rho, rtol=1e-10)
    expected = [sum(M[i, j] ** 2 / (M[i, i] * M[j, j]) for j in range(4) if j != i) for i in range(4)]
    np.testing.assert_allclose(coupled.feature_coupling, expected, rtol=1e-12)
    np.testing.assert_allclose(coupled.feature_coupling, spec.diagnostic.feature_coupling, rtol=1e-12)
    apart = M - np.diag(np.diag(M))
    assert coupled.coupling == pytest.approx(np.linalg.norm(apart) / np.linalg.norm(np.diag(M)), rel=1e-12)
    assert jo.CoupledFeatures(jo.Covariances(np.diag([2.0, 1.0]), np.diag([1.0, 0.9]))).coupling == 0


def test_there_and_back():
    coupled = jo.CoupledFeatures(exchangeable_cov(4, 0))
    net = jo.LinearNetwork.random(4, 3, widths=[6, 5, 2])
    hat = coupled.to_features(net)
    np.testing.assert_allclose(hat.encoder_product(), net.encoder_product() @ coupled.duals, atol=1e-12)
    back = coupled.to_data(hat)
    np.testing.assert_allclose(back.encoder[0], net.encoder[0], atol=1e-13)
    assert all(map(np.array_equal, back.encoder[1:], net.encoder[1:]))
    assert np.array_equal(back.predictor, net.predictor)


def test_value_semantics():
    coupled = jo.CoupledFeatures(exchangeable_cov(3, 0))
    twin = pickle.loads(pickle.dumps(coupled))
    assert twin == coupled == jo.CoupledFeatures(exchangeable_cov(3, 0))
    assert coupled != jo.CoupledFeatures(exchangeable_cov(3, 1))
    assert not twin.coupling_matrix.flags.writeable


def test_data_that_have_no_feature_coordinates():
    cov = exchangeable_cov(3, 0)
    skew = jo.Covariances(cov.Sxx, cov.Syx + np.triu(np.full((3, 3), 1e-3), 1))
    flat = jo.Covariances(np.diag([1.0, 1.0, 0.0]), np.diag([0.5, 0.4, 0.0]))
    net = jo.LinearNetwork.balanced(3, 1, 0.1)
    for bad, match in ((skew, "exchangeable views"), (flat, "x varies along 2 of 3 directions")):
        with pytest.raises(ValueError, match=match):
            jo.CoupledFeatures(bad)
        with pytest.raises(ValueError, match=match):
            jo.gradient_flow(net, bad, "jepa", t=[1.0], coordinates="features")
    with pytest.raises(TypeError, match="cov must be a Covariances with Sxx"):
        jo.CoupledFeatures(np.eye(3))
    with pytest.raises(ValueError, match="coordinates must be one of 'data', 'features'"):
        jo.gradient_flow(net, cov, "jepa", t=[1.0], coordinates="modes")
    coupled = jo.CoupledFeatures(jo.Covariances(cov.Sxx, cov.Syx))
    with pytest.raises(ValueError, match="input width 3"):
        coupled.velocity(jo.LinearNetwork.balanced(2, 1, 0.1), "jepa")
    with pytest.raises(ValueError, match="input width 3"):
        coupled.to_data(jo.LinearNetwork.balanced(2, 1, 0.1))
    with pytest.raises(ValueError, match=r"needs cov\.Syy"):
        coupled.velocity(net, jo.JEPA(stop_gradient=False))
    with pytest.raises(ValueError, match=r"net\.predictor must have 3 rows"):
        coupled.velocity(jo.LinearNetwork.random(3, 1, widths=2), "mae")
    assert len(coupled.velocity(net, "mae")[0]) == 1
